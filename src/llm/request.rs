//! What is asked: messages, how the answer is drawn, what form it must have.

use crate::error::{Error, Result};
use crate::fsutil::hex;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde::Serialize;
use serde_json::{json, Map, Value};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A longer sound is not sent.
const MOST_AUDIO: u64 = 256 << 20;
/// Bytes of text that a token has at least, nearly always: what an estimate goes by.
const BYTES_OF_TOKEN: u64 = 3;
/// Beside its text a message costs a few.
const TOKENS_OF_MESSAGE: u64 = 8;
/// 25 tokens a second of 16-bit sound at 16 kHz, about what audio models take.
const AUDIO_BYTES_OF_TOKEN: u64 = 1280;
/// What an answer may have where no bound is set.
const UNBOUNDED_ANSWER: u64 = 1024;

/// A question to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// As the server calls it; best a snapshot with its date.
    pub model: String,
    /// What was said so far; the last one is to be answered.
    pub messages: Vec<Message>,
    /// How the answer is drawn.
    pub sampling: Sampling,
    /// The form of the answer, for servers that hold a model to it.
    pub schema: Option<Schema>,
    /// Which of several answers to the same question, from 0. Not sent.
    pub run: u32,
    /// What errors call it, such as an item's id; its first words where this is empty. Neither sent nor part of its hash.
    pub about: String,
}

/// How an answer is drawn. What is `None` is not sent: the server decides.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sampling {
    /// 0 is greedy, where the server keeps its word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The share of probability that is drawn from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Most tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Of the draws, where the server takes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// A JSON schema and its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schema {
    /// Letters, digits, `_` and `-`.
    pub name: String,
    /// Strict servers want every property required and none additional.
    pub schema: Value,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the model is told of its task.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
}

/// What one says.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// In this order.
    pub parts: Vec<Part>,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Words.
    Text(String),
    /// A sound (`input_audio`).
    Audio(Audio),
}

impl Message {
    /// A text of the user's.
    pub fn user(text: impl Into<String>) -> Self {
        Self::of(Role::User, text)
    }

    /// A text of anyone's.
    pub fn of(role: Role, text: impl Into<String>) -> Self {
        Message {
            role,
            parts: vec![Part::Text(text.into())],
        }
    }
}

/// A sound file's bytes. A request is known by their hash; they are read again when they are sent, so that a thousand requests
/// about files hold no thousand files.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// Of its bytes.
    sha256: String,
    bytes: u64,
    /// `wav`, `mp3`: what the server calls it.
    format: String,
    from: From,
}

#[derive(Debug, Clone, PartialEq)]
enum From {
    Memory(Arc<[u8]>),
    File(PathBuf),
}

impl Audio {
    /// Bytes at hand.
    pub fn of_bytes(bytes: impl Into<Arc<[u8]>>, format: &str) -> Self {
        let bytes = bytes.into();
        Audio {
            sha256: hex(&Sha256::digest(&bytes)),
            bytes: bytes.len() as u64,
            format: format.to_owned(),
            from: From::Memory(bytes),
        }
    }

    /// A file, sent as it is.
    ///
    /// # Errors
    /// One that cannot be read or is too large to be sent.
    pub fn of_file(path: &Path, format: &str) -> Result<Self> {
        let bytes = read(path)?;
        Ok(Audio {
            sha256: hex(&Sha256::digest(&bytes)),
            bytes: bytes.len() as u64,
            format: format.to_owned(),
            from: From::File(path.to_owned()),
        })
    }

    fn wire(&self) -> Result<Value> {
        let encoded = match &self.from {
            From::Memory(bytes) => STANDARD.encode(bytes),
            From::File(path) => {
                let bytes = read(path)?;
                let now = hex(&Sha256::digest(&bytes));
                if now != self.sha256 {
                    let expected = format!("{}, as when it was looked at", self.sha256);
                    return Err(Error::data(path, "sha256", expected, now));
                }
                STANDARD.encode(bytes)
            }
        };
        Ok(json!({"type": "input_audio", "input_audio": {"data": encoded, "format": self.format}}))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = crate::fsutil::open_regular(path)?;
    file.take(MOST_AUDIO + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(path, e))?;
    match bytes.len() as u64 > MOST_AUDIO {
        true => Err(Error::audio(
            path,
            format!("at most {MOST_AUDIO} bytes to send"),
            "more",
        )),
        false => Ok(bytes),
    }
}

/// In which words a server wants what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Dialect {
    /// It takes `response_format` with a schema.
    pub schema: bool,
    /// It says `max_completion_tokens` for `max_tokens`.
    pub completion_tokens: bool,
}

impl Request {
    /// The request as JSON in one form: sounds by their hashes, keys in this order, what is not said left out. Where it is sent is
    /// no part of it.
    pub fn canonical(&self) -> Value {
        let part = |part: &Part| match part {
            Part::Text(text) => json!({"type": "text", "text": text}),
            Part::Audio(audio) => json!({"type": "audio", "sha256": audio.sha256, "format": audio.format}),
        };
        let message = |m: &Message| {
            let parts: Vec<Value> = m.parts.iter().map(part).collect();
            json!({"role": m.role, "content": parts})
        };
        json!({
            "model": self.model,
            "messages": self.messages.iter().map(message).collect::<Vec<_>>(),
            "sampling": self.sampling,
            "schema": self.schema,
            "run": self.run,
        })
    }

    /// What it is known by: the sha256 of [`Request::canonical`] as compact JSON.
    pub fn hash(&self) -> String {
        hash(self.canonical().to_string().as_bytes())
    }

    /// As it is sent.
    pub(super) fn body(&self, dialect: Dialect) -> Result<Value> {
        let mut messages = Vec::with_capacity(self.messages.len());
        for m in &self.messages {
            let content = match m.parts.as_slice() {
                [Part::Text(text)] => Value::from(text.as_str()),
                parts => {
                    let each = parts.iter().map(|part| match part {
                        Part::Text(text) => Ok(json!({"type": "text", "text": text})),
                        Part::Audio(audio) => audio.wire(),
                    });
                    Value::Array(each.collect::<Result<_>>()?)
                }
            };
            messages.push(json!({"role": m.role, "content": content}));
        }
        let mut body = Map::new();
        body.insert("model".into(), self.model.as_str().into());
        body.insert("messages".into(), messages.into());
        let mut put = |key: &str, value: Option<Value>| {
            value
                .into_iter()
                .for_each(|v| drop(body.insert(key.to_owned(), v)));
        };
        put("temperature", self.sampling.temperature.map(Value::from));
        put("top_p", self.sampling.top_p.map(Value::from));
        let most = match dialect.completion_tokens {
            true => "max_completion_tokens",
            false => "max_tokens",
        };
        put(most, self.sampling.max_tokens.map(Value::from));
        put("seed", self.sampling.seed.map(Value::from));
        let schema = self.schema.as_ref().filter(|_| dialect.schema);
        put("response_format", schema.map(|s| {
            json!({"type": "json_schema", "json_schema": {"name": s.name, "strict": true, "schema": s.schema}})
        }));
        Ok(Value::Object(body))
    }

    /// Tokens of the question and most tokens of the answer, by the number of bytes: an upper bound for most texts.
    pub(super) fn tokens(&self) -> (u64, u64) {
        let parts = self
            .messages
            .iter()
            .flat_map(|m| &m.parts)
            .map(|part| match part {
                Part::Text(text) => tokens_of(text),
                Part::Audio(audio) => audio.bytes.div_ceil(AUDIO_BYTES_OF_TOKEN),
            });
        let asked = parts.sum::<u64>() + TOKENS_OF_MESSAGE * self.messages.len() as u64;
        (
            asked,
            self.sampling.max_tokens.map_or(UNBOUNDED_ANSWER, u64::from),
        )
    }

    /// What it is recognised by.
    pub(super) fn called(&self) -> String {
        if !self.about.is_empty() {
            return crate::error::short(&self.about);
        }
        let last = self.messages.iter().rev().find(|m| m.role == Role::User);
        let text = last.and_then(|m| {
            m.parts.iter().find_map(|p| match p {
                Part::Text(text) => Some(text.trim()),
                Part::Audio(_) => None,
            })
        });
        let words = text
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        words.chars().take(120).collect()
    }
}

pub(super) fn hash(canonical: &[u8]) -> String {
    hex(&Sha256::digest(canonical))
}

/// See [`Request::tokens`].
pub(super) fn tokens_of(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_OF_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            model: "m".into(),
            messages: vec![Message::of(Role::System, "be brief"), Message::user("why?")],
            sampling: Sampling {
                temperature: Some(0.0),
                max_tokens: Some(5),
                ..Sampling::default()
            },
            schema: Some(Schema {
                name: "s".into(),
                schema: json!({"type": "object"}),
            }),
            run: 0,
            about: String::new(),
        }
    }

    /// The hash of files that were written before must stay.
    #[test]
    fn a_request_is_known_by_all_that_it_says() {
        let canonical = r#"{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"be brief"}]},{"role":"user","content":[{"type":"text","text":"why?"}]}],"sampling":{"temperature":0.0,"max_tokens":5},"schema":{"name":"s","schema":{"type":"object"}},"run":0}"#;
        assert_eq!(request().canonical().to_string(), canonical);
        let first = request().hash();
        let mut others = vec![request(); 6];
        others[0].model.push('x');
        others[1].messages[0].role = Role::User;
        others[2].sampling.temperature = None;
        others[3].schema = None;
        others[4].run = 1;
        others[5].messages[1]
            .parts
            .push(Part::Audio(Audio::of_bytes(*b"RIFF", "wav")));
        let all: std::collections::HashSet<String> =
            others.iter().map(Request::hash).chain([first]).collect();
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn it_is_sent_in_the_words_of_its_server() {
        let all = request()
            .body(Dialect {
                schema: true,
                completion_tokens: false,
            })
            .unwrap();
        assert_eq!(
            all.to_string(),
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"why?"}],"temperature":0.0,"max_tokens":5,"response_format":{"type":"json_schema","json_schema":{"name":"s","strict":true,"schema":{"type":"object"}}}}"#
        );
        let plain = request()
            .body(Dialect {
                schema: false,
                completion_tokens: true,
            })
            .unwrap();
        assert!(plain.get("response_format").is_none() && plain.get("max_tokens").is_none());
        assert_eq!(plain["max_completion_tokens"], 5);
    }

    #[test]
    fn a_sound_is_sent_whole_and_known_by_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        std::fs::write(&path, b"RIFF").unwrap();
        let of = |audio: Audio| Request {
            messages: vec![Message {
                role: Role::User,
                parts: vec![Part::Text("what?".into()), Part::Audio(audio)],
            }],
            ..request()
        };
        let file = of(Audio::of_file(&path, "wav").unwrap());
        assert_eq!(file.hash(), of(Audio::of_bytes(*b"RIFF", "wav")).hash());
        let dialect = Dialect {
            schema: false,
            completion_tokens: false,
        };
        let sent = file.body(dialect).unwrap();
        assert_eq!(
            sent["messages"][0]["content"][1]["input_audio"]["data"],
            "UklGRg=="
        );
        assert!(!file.canonical().to_string().contains("UklGRg"));
        std::fs::write(&path, b"RIFX").unwrap();
        assert!(file
            .body(dialect)
            .unwrap_err()
            .to_string()
            .contains("as when it was looked at"));
    }
}
