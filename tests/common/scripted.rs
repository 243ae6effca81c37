//! A server on this machine that answers from a script.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// From 0.
    pub number: usize,
    pub path: String,
    /// Names in small letters.
    pub headers: HashMap<String, String>,
    pub body: String,
    pub at: Instant,
}

impl Seen {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The text of the last message.
    pub fn last(&self) -> String {
        let messages = &self.json()["messages"];
        let last = messages.as_array().unwrap().last().unwrap();
        last["content"].as_str().unwrap().to_owned()
    }
}

/// What the server does.
pub enum Reply {
    /// A status, headers, a body.
    Says(u16, Vec<(&'static str, String)>, String),
    /// The same after a while.
    Later(Duration, Box<Reply>),
    /// Closes the connection without a word.
    Drops,
    /// Closes it in the middle of an answer.
    Breaks,
    /// A byte at a time, with this between.
    Drips(Duration, String),
    /// A body of so many bytes, without saying how many.
    Floods(usize),
}

/// An answer in the form of chat completions.
pub fn says(text: &str) -> Reply {
    Reply::Says(200, Vec::new(), completion(text).to_string())
}

pub fn completion(text: &str) -> serde_json::Value {
    serde_json::json!({
        "id": "x", "object": "chat.completion", "model": "judge-2026-01-01",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    })
}

pub fn fails(status: u16, message: &str) -> Reply {
    let body = serde_json::json!({"error": {"message": message}});
    Reply::Says(status, Vec::new(), body.to_string())
}

pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
    listens: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (script, number) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
        let (all, over) = (seen.clone(), ended.clone());
        let listens = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (script, number, all) = (script.clone(), number.clone(), all.clone());
                std::thread::spawn(move || serve(stream, &*script, &number, &all));
            }
        });
        Server {
            address,
            seen,
            ended,
            listens: Some(listens),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        let _ = TcpStream::connect(&self.address);
        if let Some(listens) = self.listens.take() {
            let _ = listens.join();
        }
    }
}

fn serve(
    stream: TcpStream,
    script: &(dyn Fn(&Seen) -> Reply + Send + Sync),
    number: &AtomicUsize,
    all: &Mutex<Vec<Seen>>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(writer) = stream.try_clone() else { return };
    let (mut reader, mut writer) = (BufReader::new(stream), writer);
    while let Some(mut seen) = request(&mut reader) {
        seen.number = number.fetch_add(1, SeqCst);
        all.lock().unwrap().push(seen.clone());
        if !answer(&mut writer, script(&seen)) {
            break;
        }
    }
}

pub fn request(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        number: 0,
        path,
        headers,
        body: String::from_utf8(body).unwrap(),
        at: Instant::now(),
    })
}

/// Whether the connection goes on.
fn answer(writer: &mut TcpStream, reply: Reply) -> bool {
    match reply {
        Reply::Later(wait, reply) => {
            std::thread::sleep(wait);
            answer(writer, *reply)
        }
        Reply::Says(status, headers, body) => {
            let mut text = format!("HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\n");
            for (name, value) in headers {
                text += &format!("{name}: {value}\r\n");
            }
            text += &format!("content-length: {}\r\n\r\n{body}", body.len());
            writer.write_all(text.as_bytes()).is_ok()
        }
        Reply::Drops => false,
        Reply::Breaks => {
            let _ = writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"choices\": [");
            false
        }
        Reply::Drips(wait, body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = writer.write_all(head.as_bytes());
            for byte in body.bytes() {
                std::thread::sleep(wait);
                if writer.write_all(&[byte]).is_err() {
                    break;
                }
            }
            false
        }
        Reply::Floods(bytes) => {
            let _ = writer.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"a\": \"");
            let piece = vec![b'x'; 1 << 16];
            for _ in 0..bytes.div_ceil(piece.len()) {
                if writer.write_all(&piece).is_err() {
                    break;
                }
            }
            false
        }
    }
}
