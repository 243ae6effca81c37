//! `af2 serve`: its answers are those of `af2 generate`, whatever comes it goes on, and it ends as it is told.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use base64::prelude::{Engine, BASE64_STANDARD};
use common::{af2, golden};
use serde_json::{json, Value};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server with the tiny model, ended when it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    /// What it says on standard error.
    said: tempfile::NamedTempFile,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        Server::start_with(more, &[])
    }

    fn start_with(more: &[&str], variables: &[(&str, &str)]) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("af2"))
            .arg("serve")
            .args(["--checkpoint".as_ref(), golden("F_tiny").as_os_str()])
            .args(["--config".as_ref(), golden("F_tiny/config.yaml").as_os_str()])
            .args(["--port", "0", "--name", "tiny"])
            .args(more)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(said.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.trim().strip_suffix("/v1"))
            .unwrap_or_else(|| panic!("{line}: {}", std::fs::read_to_string(said.path()).unwrap()));
        Server {
            child,
            address: address.parse().unwrap(),
            said,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// One request on a connection of its own.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut stream = self.connect();
        // A server that has answered need not take the rest.
        let _ = stream.write_all(&head(method, path, headers, body.len()));
        let _ = stream.write_all(body);
        Response::read(stream)
    }

    fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    fn ask(&self, request: &Value) -> Response {
        self.send("POST", CHAT, &[JSON], request.to_string().as_bytes())
    }

    /// A number of `/metrics`.
    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in {text}"))
            .parse()
            .unwrap()
    }

    /// Until a number of `/metrics` is as it should be.
    fn until(&self, name: &str, fits: impl Fn(f64) -> bool) {
        let begun = Instant::now();
        while !fits(self.metric(name)) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{name} is {}",
                self.metric(name)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// MiB of its memory.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(done.unwrap().success());
    }

    /// Its exit code, and what it said.
    fn end(mut self) -> (i32, String) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait().unwrap() {
                let said = std::fs::read_to_string(self.said.path()).unwrap();
                return (status.code().unwrap_or(-1), said);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn head(method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {length}\r\n\r\n");
    head.into_bytes()
}

#[derive(Debug)]
struct Response {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Response {
    /// All that comes up to the end of the connection.
    fn read(mut stream: TcpStream) -> Self {
        let mut all = Vec::new();
        let ended = stream.read_to_end(&mut all);
        assert!(ended.is_ok() || !all.is_empty(), "{ended:?}");
        Response::of(&all)
    }

    fn of(all: &[u8]) -> Self {
        let at = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(all[..at].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pairs = lines.map(|l| l.split_once(": ").unwrap());
        let headers: HashMap<String, String> = pairs
            .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
            .collect();
        let mut body = all[at + 4..].to_vec();
        if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
            body = chunks(&body);
        }
        Response {
            status,
            headers,
            body,
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The answer's text.
    fn text(&self) -> String {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The error's message, after a look at its form.
    fn error(&self) -> String {
        let error = &self.json()["error"];
        for key in ["type", "param", "code"] {
            assert!(error.get(key).is_some(), "{error}");
        }
        error["message"].as_str().unwrap().to_owned()
    }

    /// A stream's events, without the last word.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.headers["content-type"], "text/event-stream; charset=utf-8");
        let text = std::str::from_utf8(&self.body).unwrap();
        let all = text.strip_suffix("data: [DONE]\n\n").unwrap();
        let events = all.split("\n\n").filter(|e| !e.is_empty() && !e.starts_with(':'));
        events
            .map(|e| serde_json::from_str(e.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }
}

fn chunks(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|w| w == b"\r\n") else {
            panic!("a chunk is cut off")
        };
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return all;
        }
        all.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}

fn base64_of(file: &str) -> String {
    BASE64_STANDARD.encode(std::fs::read(golden("wavs").join(file)).unwrap())
}

/// A question about a file, with more fields.
fn question(file: &str, prompt: &str, more: &Value) -> Value {
    let format = file.rsplit('.').next().unwrap();
    let mut request = json!({"model": "tiny", "messages": [{"role": "user", "content": [
        {"type": "input_audio", "input_audio": {"data": base64_of(file), "format": format}},
        {"type": "text", "text": prompt},
    ]}]});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

/// What `af2 generate --json` says.
fn generated(file: &str, prompt: &str, more: &[&str]) -> Vec<Value> {
    let text = |p: std::path::PathBuf| p.display().to_string();
    let (model, config) = (text(golden("F_tiny")), text(golden("F_tiny/config.yaml")));
    let file = text(golden("wavs").join(file));
    let mut all = vec![
        "generate",
        "--checkpoint",
        &model,
        "--config",
        &config,
        "--audio",
        &file,
    ];
    all.extend(["--prompt", prompt, "--json", "--logprobs"]);
    all.extend(more);
    let (code, out, err) = af2(&all);
    assert_eq!(code, 0, "{err}");
    out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

const SPEECH: &str = "speech_16k_mono_3p7s.wav";
const TONES: &str = "tones_16k_mono_10s.wav";
const EMOTION: &str = "What is the emotion of the speaker?";

#[test]
fn answers_are_those_of_generate() {
    let server = Server::start(&[]);
    type Case<'a> = (&'a str, &'a str, Value, &'a [&'a str]);
    let cases: [Case; 6] = [
        (SPEECH, EMOTION, json!({}), &[]),
        (
            "flac_16k_mono_12p5s.flac",
            "Is the bell ringing? (A) yes. (B) no.",
            json!({}),
            &[],
        ),
        ("stereo_44k_1p5s.mp3", EMOTION, json!({"temperature": 0}), &[]),
        (
            SPEECH,
            EMOTION,
            json!({"max_tokens": 3}),
            &["--max-new-tokens", "3"],
        ),
        (
            TONES,
            "Classify this sound.",
            json!({"stop": ["rain", "twice"]}),
            &["--stop", "rain", "--stop", "twice"],
        ),
        (
            TONES,
            "Classify this sound.",
            json!({"num_beams": 3, "n": 2, "length_penalty": 0.6, "early_stopping": true, "max_tokens": 24}),
            &[
                "--num-beams",
                "3",
                "--num-return-sequences",
                "2",
                "--length-penalty",
                "0.6",
                "--early-stopping",
                "true",
                "--max-new-tokens",
                "24",
            ],
        ),
    ];
    for (file, prompt, more, arguments) in cases {
        let expected = generated(file, prompt, arguments);
        let mut request = question(file, prompt, &more);
        request["logprobs"] = true.into();
        let answer = server.ask(&request).json();
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len(), expected.len(), "{answer}");
        let mut tokens = 0;
        for (choice, expected) in choices.iter().zip(&expected) {
            assert_eq!(choice["message"]["content"], expected["text"], "{file} {more}");
            let all = choice["logprobs"]["content"].as_array().unwrap();
            let found: Vec<f64> = all.iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
            let wanted: Vec<f64> = expected["logprobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p.as_f64().unwrap())
                .collect();
            assert_eq!(found.len(), wanted.len());
            tokens += found.len();
            assert!(
                found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-4),
                "{found:?} {wanted:?}"
            );
            let reason = if more == json!({"max_tokens": 3}) {
                "length"
            } else {
                "stop"
            };
            assert_eq!(choice["finish_reason"], reason, "{file} {more}");
        }
        let usage = &answer["usage"];
        assert_eq!(usage["completion_tokens"], tokens);
        assert_eq!(
            usage["total_tokens"].as_u64().unwrap(),
            usage["prompt_tokens"].as_u64().unwrap() + tokens as u64
        );
        // The same as a stream.
        request["stream"] = true.into();
        request["stream_options"] = json!({"include_usage": true});
        let events = server.ask(&request).events();
        for (i, expected) in expected.iter().enumerate() {
            let own = || events.iter().filter(|e| e["choices"][0]["index"] == i);
            assert_eq!(own().next().unwrap()["choices"][0]["delta"]["role"], "assistant");
            let pieces: Vec<&str> = own()
                .filter_map(|e| e["choices"][0]["delta"]["content"].as_str())
                .collect();
            assert_eq!(
                pieces.concat(),
                expected["text"].as_str().unwrap(),
                "{file} {more}"
            );
            // Each token's log-probability comes with the text that it is a part of.
            let logprobs: Vec<&Vec<Value>> = own()
                .filter_map(|e| e["choices"][0]["logprobs"]["content"].as_array())
                .collect();
            let told: Vec<&Value> = logprobs.iter().copied().flatten().collect();
            let whole = choices[i]["logprobs"]["content"].as_array().unwrap();
            // The second time the prompt's beginning is read already: a product of other shape has other last bits.
            let alike = |(a, b): (&&Value, &Value)| {
                let [x, y] = [a["logprob"].as_f64().unwrap(), b["logprob"].as_f64().unwrap()];
                (&a["token"], &a["bytes"]) == (&b["token"], &b["bytes"]) && (x - y).abs() < 1e-4
            };
            assert!(
                told.len() == whole.len() && told.iter().zip(whole).all(alike),
                "{file} {more}: {told:?} {whole:?}"
            );
            if expected.get("score").is_some() && more == json!({}) {
                assert!(pieces.len() > 3, "{pieces:?}: in one piece");
                assert!(logprobs.len() > 3, "{logprobs:?}: in one piece");
            }
            assert_eq!(
                own()
                    .filter(|e| !e["choices"][0]["finish_reason"].is_null())
                    .count(),
                1
            );
        }
        let last = events.last().unwrap();
        assert_eq!((&last["usage"], &last["choices"]), (usage, &json!([])));
    }
    // As vLLM's clients send sounds.
    let mut request = question(SPEECH, EMOTION, &json!({}));
    let url = format!("data:audio/wav;base64,{}", base64_of(SPEECH));
    request["messages"][0]["content"][0] = json!({"type": "audio_url", "audio_url": {"url": url}});
    assert_eq!(server.ask(&request).text(), "the speaker is angry.");
}

#[test]
fn samples_are_drawn_again_by_their_seed() {
    let server = Server::start(&[]);
    let warped = json!({"temperature": 1.5, "n": 3, "top_k": 0, "top_p": 1.0, "max_tokens": 12});
    let texts = |request: &Value| -> (Vec<String>, u64) {
        let answer = server.ask(request).json();
        let choices = answer["choices"].as_array().unwrap();
        let texts = choices
            .iter()
            .map(|c| c["message"]["content"].as_str().unwrap().to_owned());
        (texts.collect(), answer["seed"].as_u64().unwrap())
    };
    let mut request = question(TONES, "Classify this sound.", &warped);
    let (first, seed) = texts(&request);
    assert!(first[0] != first[1] || first[1] != first[2], "{first:?}");
    assert_ne!(texts(&request).1, seed, "each request draws its own");
    request["seed"] = seed.into();
    assert_eq!(texts(&request), (first.clone(), seed));
    request["stream"] = true.into();
    let mut streamed = vec![String::new(); 3];
    for event in server.ask(&request).events() {
        let choice = &event["choices"][0];
        let piece = choice["delta"]["content"].as_str().unwrap_or_default();
        streamed[choice["index"].as_u64().unwrap() as usize] += piece;
    }
    assert_eq!(streamed, first);
}

#[test]
fn models_health_and_metrics_are_there() {
    let server = Server::start(&[]);
    let models = server.get("/v1/models").json();
    assert_eq!(
        (&models["object"], &models["data"][0]["id"]),
        (&json!("list"), &json!("tiny"))
    );
    assert_eq!(server.get("/v1/models/tiny").json()["object"], "model");
    assert_eq!(server.get("/v1/models/other/one").status, 404);
    let health = server.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ready")));
    server.ask(&question(SPEECH, EMOTION, &json!({}))).text();
    assert_eq!(server.metric("af2_new_tokens_total"), 9.0);
    assert_eq!(server.metric("af2_windows_total"), 1.0);
    // Told when the engine's thread looks up again.
    server.until("af2_windows_encoded_total", |n| n == 1.0);
    assert_eq!(server.metric("af2_answer_seconds_count"), 1.0);
    // The gauges follow the answer: they are set before the engine's next step.
    for gauge in ["af2_waiting", "af2_running"] {
        server.until(gauge, |n| n == 0.0);
    }
    assert!(server.metric("af2_requests_total{status=\"200\"}") >= 5.0);
}

#[test]
fn thirty_two_clients_at_once_get_their_own_answers() {
    let server = Server::start(&["--slots", "4"]);
    let cases = [
        (SPEECH, EMOTION),
        (
            "flac_16k_mono_12p5s.flac",
            "Is the bell ringing? (A) yes. (B) no.",
        ),
        (TONES, "Classify this sound."),
        (SPEECH, "Classify this sound."),
    ];
    let expected: Vec<Value> = cases
        .iter()
        .map(|(f, p)| generated(f, p, &[])[0]["text"].clone())
        .collect();
    assert_ne!(expected[0], expected[1]);
    let begin = std::sync::Barrier::new(32);
    std::thread::scope(|scope| {
        for i in 0..32 {
            let (server, begin, expected) = (&server, &begin, &expected);
            scope.spawn(move || {
                let (file, prompt) = cases[i % 4];
                begin.wait();
                for round in 0..3 {
                    if (i + round) % 2 == 0 {
                        let found = server.ask(&question(file, prompt, &json!({}))).text();
                        assert_eq!(found, expected[i % 4].as_str().unwrap());
                    } else {
                        let events = server
                            .ask(&question(file, prompt, &json!({"stream": true})))
                            .events();
                        let pieces = events
                            .iter()
                            .filter_map(|e| e["choices"][0]["delta"]["content"].as_str());
                        assert_eq!(pieces.collect::<String>(), expected[i % 4].as_str().unwrap());
                    }
                }
            });
        }
    });
    assert_eq!(server.metric("af2_answer_seconds_count"), 96.0);
}

#[test]
fn a_full_house_says_when_to_come_again() {
    let server = Server::start(&["--slots", "1", "--queue", "1"]);
    let request = question(SPEECH, EMOTION, &json!({})).to_string();
    // A place is taken before the body has come.
    let half = |stream: &mut TcpStream| {
        stream
            .write_all(&head("POST", CHAT, &[JSON], request.len()))
            .unwrap();
        stream.write_all(&request.as_bytes()[..100]).unwrap();
    };
    let mut two = [server.connect(), server.connect()];
    two.iter_mut().for_each(half);
    server.until("af2_requests", |n| n == 2.0);
    let refused = server.send("POST", CHAT, &[JSON], request.as_bytes());
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.error().contains("ask again later"));
    for mut stream in two {
        stream.write_all(&request.as_bytes()[100..]).unwrap();
        assert_eq!(Response::read(stream).text(), "the speaker is angry.");
    }
    assert_eq!(server.send("POST", CHAT, &[JSON], request.as_bytes()).status, 200);
}

#[test]
fn a_client_that_hangs_up_frees_its_place() {
    let server = Server::start(&["--slots", "2", "--queue", "14"]);
    let long = json!({"min_tokens": 900, "max_tokens": 900});
    let request = |stream: bool| {
        let mut request = question(SPEECH, EMOTION, &long);
        request["stream"] = stream.into();
        request.to_string()
    };
    for round in 0..2 {
        let mut streams: Vec<TcpStream> = (0..16).map(|_| server.connect()).collect();
        for (i, stream) in streams.iter_mut().enumerate() {
            let body = request(i % 2 == 0);
            stream
                .write_all(&head("POST", CHAT, &[JSON], body.len()))
                .unwrap();
            // Some go while they are still telling what they want.
            let all = if i < 3 { body.len() / 2 } else { body.len() };
            stream.write_all(&body.as_bytes()[..all]).unwrap();
        }
        let heard = 6.0 * f64::from(round + 1);
        server.until("af2_decoding_seconds_count", |n| n >= heard);
        for stream in streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        server.until("af2_requests", |n| n == 0.0);
        for gauge in ["af2_waiting", "af2_running"] {
            server.until(gauge, |n| n == 0.0);
        }
        assert!(server.metric("af2_hang_ups_total") > f64::from(round));
    }
    // Nobody would have waited for all of them.
    assert!(server.metric("af2_answer_seconds_count") < 16.0);
    assert_eq!(
        server.ask(&question(SPEECH, EMOTION, &json!({}))).text(),
        "the speaker is angry."
    );
}

/// Requests that are wrong, made by rule: the body, and what is sent around it.
fn malformed() -> Vec<(String, Vec<u8>)> {
    let good = question(
        "short_16k_mono_0p2s.wav",
        "What is it?",
        &json!({"max_tokens": 4}),
    );
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |what: String, request: &Value| all.push((what, request.to_string().into_bytes()));
    // A wrong value in every field.
    let values = [
        json!(-1.5),
        json!("x"),
        json!({"a": 1}),
        json!([[]]),
        json!(1e300),
    ];
    let fields = [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "max_tokens",
        "max_completion_tokens",
        "min_tokens",
        "n",
        "stop",
        "stop_token_ids",
        "stream",
        "stream_options",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "num_beams",
        "length_penalty",
        "early_stopping",
        "logprobs",
        "model",
        "messages",
        "tools",
        "response_format",
        "logit_bias",
        "nonsense",
    ];
    for field in fields {
        for value in &values {
            let fits = matches!(
                (field, value),
                ("stop" | "model", Value::String(_))
                    | (
                        "length_penalty" | "repetition_penalty" | "temperature",
                        Value::Number(_)
                    )
            );
            if fits {
                continue;
            }
            let mut request = good.clone();
            request[field] = value.clone();
            add(format!("{field}: {value}"), &request);
        }
    }
    // Wrong things at every depth of the messages.
    let pointers = [
        "/messages/0",
        "/messages/0/role",
        "/messages/0/content",
        "/messages/0/content/0",
        "/messages/0/content/0/type",
        "/messages/0/content/0/input_audio",
        "/messages/0/content/0/input_audio/data",
        "/messages/0/content/0/input_audio/format",
        "/messages/0/content/1",
        "/messages/0/content/1/text",
    ];
    for pointer in pointers {
        for value in [
            json!(null),
            json!(7),
            json!("?"),
            json!([]),
            json!({}),
            json!([{"type": "text"}]),
        ] {
            // A text is all that is wanted there.
            if pointer.ends_with("/text") && value == json!("?") {
                continue;
            }
            let mut request = good.clone();
            *request.pointer_mut(pointer).unwrap() = value.clone();
            add(format!("{pointer}: {value}"), &request);
        }
    }
    // Sounds that are none.
    let wav = std::fs::read(golden("wavs/short_16k_mono_0p2s.wav")).unwrap();
    let mut sounds: Vec<(String, String)> = [0, 1, 4, 12, 20, 43, 44]
        .map(|n| (format!("{n} bytes of a wav"), BASE64_STANDARD.encode(&wav[..n])))
        .to_vec();
    for (place, byte) in [(0, b'X'), (8, b'X'), (20, 0xff), (22, 0), (22, 0xff), (24, 0)] {
        let mut broken = wav.clone();
        broken[place] = byte;
        if place == 24 {
            broken[24..28].fill(0);
        }
        sounds.push((
            format!("byte {place} of a wav is {byte}"),
            BASE64_STANDARD.encode(broken),
        ));
    }
    let mut x = 1u32;
    let noise: Vec<u8> = (0..5000)
        .map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 24) as u8
        })
        .collect();
    sounds.push(("noise".to_owned(), BASE64_STANDARD.encode(&noise)));
    for start in ["fLaC", "OggS", "ID3\u{4}", "RIFF", "caff", "FORM"] {
        let bytes = [start.as_bytes(), &noise].concat();
        sounds.push((format!("{start} and noise"), BASE64_STANDARD.encode(bytes)));
    }
    let whole = base64_of("short_16k_mono_0p2s.wav");
    for (what, text) in [
        ("a letter that is none", whole.replacen('A', "*", 1)),
        ("a line end", whole.replacen('A', "\n", 1)),
        ("one letter left", whole[..41].to_owned()),
        ("padding within", format!("{}=={}", &whole[..40], &whole[40..])),
        ("no letters", "音".repeat(50)),
    ] {
        sounds.push((what.to_owned(), text));
    }
    for (what, data) in sounds {
        for format in ["wav", "mp3"] {
            let mut request = good.clone();
            request["messages"][0]["content"][0]["input_audio"] = json!({"data": data, "format": format});
            add(format!("{what}, as {format}"), &request);
        }
        let mut request = good.clone();
        let url = format!("data:audio/wav;base64,{data}");
        request["messages"][0]["content"][0] = json!({"type": "audio_url", "audio_url": {"url": url}});
        add(format!("{what}, as a URL"), &request);
    }
    // Bodies that are cut off, and no text.
    let body = good.to_string().into_bytes();
    for n in 1..12 {
        all.push((
            format!("{n} twelfths of a body"),
            body[..body.len() * n / 12].to_vec(),
        ));
    }
    all.push(("bytes".to_owned(), noise));
    all.push(("depth".to_owned(), b"[".repeat(100_000)));
    all.push((
        "values".to_owned(),
        [b"{\"messages\":[".as_slice(), &b"0,".repeat(300_000), b"0]}"].concat(),
    ));
    all
}

#[test]
fn malformed_requests_are_refused_and_leave_nothing_behind() {
    let server = Server::start(&["--max-body", "4"]);
    let all = malformed();
    assert!(all.len() >= 200, "{}", all.len());
    let once = || {
        for (what, body) in &all {
            let response = server.send("POST", CHAT, &[JSON], body);
            assert!((400..500).contains(&response.status), "{what}: {response:?}");
            let message = response.error();
            assert!(
                !message.is_empty() && !message.contains("panic"),
                "{what}: {message}"
            );
        }
        // Around the body.
        let body = question(SPEECH, EMOTION, &json!({})).to_string();
        let large = vec![b' '; 5 << 20];
        for (status, method, path, headers, body) in [
            (
                415,
                "POST",
                CHAT,
                vec![("Content-Type", "text/plain")],
                body.as_bytes(),
            ),
            (415, "POST", CHAT, vec![], body.as_bytes()),
            (405, "GET", CHAT, vec![], b""),
            (405, "DELETE", "/health", vec![], b""),
            (404, "POST", "/v1/completions", vec![JSON], b"{}"),
            (404, "GET", "/../../etc/passwd", vec![], b""),
            (413, "POST", CHAT, vec![JSON], &large),
        ] {
            let response = server.send(method, path, &headers, body);
            assert_eq!(response.status, status, "{method} {path}: {response:?}");
        }
        for raw in [
            "\r\n\r\n\r\n", "GET\r\n\r\n", "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n", "\0\0\0\0",
            "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
            "GET / HTTP/9.9\r\n\r\n", "GET /\u{7f} HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let mut stream = server.connect();
            stream.write_all(raw.as_bytes()).unwrap();
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{raw:?}: {answer}");
        }
    };
    once();
    let before = server.memory();
    for _ in 0..3 {
        once();
    }
    let after = server.memory();
    assert!(after < before + 32, "from {before} to {after} MiB");
    assert_eq!(server.metric("af2_requests"), 0.0);
    assert_eq!(
        server.ask(&question(SPEECH, EMOTION, &json!({}))).text(),
        "the speaker is angry."
    );
    let said = std::fs::read_to_string(server.said.path()).unwrap();
    assert!(!said.contains("panic") && !said.contains("fault"), "{said}");
}

#[test]
fn a_token_is_asked_for_and_needed_outside() {
    let (code, _, err) = af2(&["serve", "--checkpoint", "gone", "--host", "0.0.0.0"]);
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("expected a token") && err.contains("--token-file"),
        "{err}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret-of-a-file\n").unwrap();
    let path = file.path().to_str().unwrap();
    let of_file = Server::start(&["--host", "0.0.0.0", "--token-file", path]);
    let of_variable = Server::start_with(&[], &[("AF2_SERVE_TOKEN", "secret-of-a-variable")]);
    for (server, token) in [
        (of_file, "secret-of-a-file"),
        (of_variable, "secret-of-a-variable"),
    ] {
        let request = question(SPEECH, EMOTION, &json!({})).to_string();
        let with = |value: &str| {
            server
                .send(
                    "POST",
                    CHAT,
                    &[JSON, ("Authorization", value)],
                    request.as_bytes(),
                )
                .status
        };
        assert_eq!(with(&format!("Bearer {token}")), 200);
        assert_eq!(with(&format!("bearer {token}")), 200);
        for wrong in [
            "Bearer ",
            "Bearer",
            "Bearer x",
            token,
            &format!("Bearer {token}x"),
            &format!("Basic {token}"),
        ] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        let refused = server.get("/v1/models");
        assert_eq!(
            (refused.status, refused.headers["www-authenticate"].as_str()),
            (401, "Bearer")
        );
        assert_eq!(
            (server.get("/metrics").status, server.get("/health").status),
            (401, 200)
        );
    }
    std::fs::write(file.path(), " \n").unwrap();
    let (code, _, err) = af2(&["serve", "--checkpoint", "gone", "--token-file", path]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn web_pages_ask_where_they_may() {
    let page = "http://localhost:3000";
    let closed = Server::start(&[]);
    let body = question(SPEECH, EMOTION, &json!({"stream": true})).to_string();
    let refused = closed.send("POST", CHAT, &[JSON, ("Origin", page)], body.as_bytes());
    assert_eq!(refused.status, 403);
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
    let open = Server::start_with(&["--allow-origin", page], &[("AF2_SERVE_TOKEN", "secret")]);
    let asks = [
        ("Origin", page),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    let preflight = open.send("OPTIONS", CHAT, &asks, b"");
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", page),
        ("access-control-allow-headers", "authorization,content-type"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("vary", "Origin"),
    ] {
        assert_eq!(preflight.headers[name], value);
    }
    let headers = [JSON, ("Origin", page), ("Authorization", "Bearer secret")];
    let answer = open.send("POST", CHAT, &headers, body.as_bytes());
    assert_eq!(answer.headers["access-control-allow-origin"], page);
    assert!(answer.events().len() > 3);
    // A page can read why it was refused.
    let refused = open.send("POST", CHAT, &[JSON, ("Origin", page)], body.as_bytes());
    assert_eq!(
        (
            refused.status,
            refused.headers["access-control-allow-origin"].as_str()
        ),
        (401, page)
    );
    let other = [
        JSON,
        ("Origin", "http://localhost:3001"),
        ("Authorization", "Bearer secret"),
    ];
    assert_eq!(open.send("POST", CHAT, &other, body.as_bytes()).status, 403);
}

#[test]
fn a_signal_ends_it_when_what_is_in_work_is_done() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::start(&[]);
        let body = question(SPEECH, EMOTION, &json!({"min_tokens": 200, "max_tokens": 200})).to_string();
        let mut asking = server.connect();
        asking
            .write_all(&head("POST", CHAT, &[JSON], body.len()))
            .unwrap();
        asking.write_all(body.as_bytes()).unwrap();
        // A connection without a question does not keep it.
        let _idle = server.connect();
        server.until("af2_requests", |n| n == 1.0);
        server.until("af2_prompt_tokens_total", |n| n > 0.0);
        server.signal(signal);
        let answer = Response::read(asking);
        assert_eq!(answer.json()["usage"]["completion_tokens"], 200, "{answer:?}");
        let address = server.address;
        let (code, said) = server.end();
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("no more questions are taken"), "{said}");
        assert!(TcpStream::connect(address).is_err());
    }
    let idle = Server::start(&["--grace", "0"]);
    idle.signal("-TERM");
    assert_eq!(idle.end().0, 0);
}

#[test]
fn what_takes_too_long_is_cut_off() {
    // Without a word for half a minute.
    let server = Server::start(&["--timeout", "1"]);
    let silent = server.connect();
    let mut slow_head = server.connect();
    slow_head.write_all(b"POST /v1/chat").unwrap();
    let mut slow_body = server.connect();
    slow_body.write_all(&head("POST", CHAT, &[JSON], 1000)).unwrap();
    slow_body.write_all(b"{\"messages\":").unwrap();
    // An answer that takes longer than it may.
    let long = question(
        SPEECH,
        EMOTION,
        &json!({"temperature": 1, "n": 64, "min_tokens": 900, "max_tokens": 900}),
    );
    let late = server.ask(&long);
    assert_eq!(late.status, 504, "{late:?}");
    assert!(late.error().contains("no answer within 1 s"));
    let body = Response::read(slow_body);
    assert_eq!(body.status, 408, "{body:?}");
    assert!(body.error().contains("a second"));
    for mut stream in [silent, slow_head] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let rest = String::from_utf8_lossy(&rest);
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    }
    server.until("af2_connections", |n| n == 1.0);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let server = Server::start(&[]);
    let port = server.address.port().to_string();
    let (code, _, err) = af2(&["serve", "--checkpoint", "gone", "--port", &port]);
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains(&server.address.to_string()) && err.contains("--port"),
        "{err}"
    );
}

/// The `openai` package, and a fetch as a web page makes it.
#[test]
#[ignore = "make test-interop"]
fn real_clients_read_the_answers() {
    let origin = "http://localhost:3000";
    let token = [("AF2_SERVE_TOKEN", "a-token-of-the-test")];
    let server = Server::start_with(&["--allow-origin", origin], &token);
    let python = std::env::var_os("AF2_INTEROP_PYTHON").expect("`make test-interop` sets AF2_INTEROP_PYTHON");
    let client = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/client.py");
    let done = Command::new(python)
        .arg(client)
        .args([&server.address.to_string(), origin])
        .arg(golden("wavs").join(SPEECH))
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(found["models"], json!(["tiny"]));
    assert_eq!(
        (&found["whole"], &found["reason"]),
        (&json!("the speaker is angry."), &json!("stop"))
    );
    assert_eq!(
        (&found["tokens"], &found["usage"], &found["logprobs"]),
        (&json!(9), &json!(9), &json!(9))
    );
    let pieces: Vec<&str> = found["pieces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_str().unwrap())
        .collect();
    assert!(
        pieces.len() > 3 && pieces.concat() == "the speaker is angry.",
        "{pieces:?}"
    );
    assert_eq!(found["beams"].as_array().unwrap().len(), 2);
    assert_eq!(found["browser"], "the speaker is angry.");
    let errors = &found["errors"];
    assert_eq!(
        errors["token"],
        json!({"param": null, "code": "invalid_api_key", "status": 401})
    );
    assert_eq!(
        errors["field"],
        json!({"param": "tool", "code": "unknown_parameter", "status": 400})
    );
    assert_eq!(
        errors["sound"],
        json!({"param": "messages", "code": null, "status": 400})
    );
    assert_eq!(
        errors["model"],
        json!({"param": "model", "code": "model_not_found", "status": 404})
    );
}
