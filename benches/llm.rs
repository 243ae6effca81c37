//! What asking costs beside waiting: calls of 50 ms to a server on this machine, and a replay of what is stored.
//!
//! `cargo bench --bench llm [CALLS] [STORED]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/common/scripted.rs"]
mod scripted;

use af2::llm::{Answers, Client, Endpoint, Message, Request, Role, Sampling, Settings};
use scripted::{says, Reply, Server};
use std::time::{Duration, Instant};

const CALL: Duration = Duration::from_millis(50);
const AT_ONCE: usize = 32;

/// As long as a judge's.
fn request(n: usize) -> Request {
    let text = "A model heard a recording and was asked a question about it. ".repeat(30);
    Request {
        model: "judge".into(),
        messages: vec![
            Message::of(Role::System, "You mark answers."),
            Message::user(format!("{n}: {text}")),
        ],
        sampling: Sampling {
            temperature: Some(0.0),
            max_tokens: Some(64),
            ..Sampling::default()
        },
        schema: None,
        run: 0,
        about: String::new(),
    }
}

fn ask(client: &Client, requests: &[Request]) -> Duration {
    let (begun, mut n) = (Instant::now(), 0);
    client
        .answers(requests, &mut |_, outcome| {
            n += usize::from(outcome.is_ok());
            Ok(())
        })
        .unwrap();
    assert_eq!(n, requests.len());
    begun.elapsed()
}

fn main() {
    let mut numbers = std::env::args().filter_map(|a| a.parse::<usize>().ok());
    let (calls, stored) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(10_000));
    let folder = tempfile::tempdir().unwrap();
    let settings = |name: &str, server: &Server| Settings {
        endpoint: Some(Endpoint::parse(&server.url()).unwrap()),
        store: Some(folder.path().join(name)),
        at_once: AT_ONCE,
        ..Settings::default()
    };
    let requests: Vec<Request> = (0..calls.max(stored)).map(request).collect();

    let slow = Server::new(|_| Reply::Later(CALL, Box::new(says("{\"score\": 7}"))));
    let client = Client::open(settings("slow", &slow)).unwrap();
    let took = ask(&client, &requests[..calls]);
    let ideal = CALL * calls.div_ceil(AT_ONCE) as u32;
    let ratio = took.as_secs_f64() / ideal.as_secs_f64();
    println!("{calls} calls of 50 ms, {AT_ONCE} at once: {took:.2?}, {ratio:.3} times the ideal {ideal:.2?}");

    let quick = Server::new(|_| says("{\"score\": 7}"));
    let client = Client::open(settings("quick", &quick)).unwrap();
    let took = ask(&client, &requests[..stored]);
    println!("{stored} calls that are answered at once, stored: {took:.2?}");
    drop((client, quick));
    let begun = Instant::now();
    let offline = Settings {
        offline: true,
        store: Some(folder.path().join("quick")),
        ..Settings::default()
    };
    let client = Client::open(offline).unwrap();
    let opened = begun.elapsed();
    let asked = ask(&client, &requests[..stored]);
    println!(
        "{stored} answers replayed: {:.2?} ({opened:.2?} to open the store)",
        opened + asked
    );
}
