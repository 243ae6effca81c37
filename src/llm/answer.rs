//! What comes back.

use super::key::Key;
use super::request::{tokens_of, Request};
use crate::error::Result;
use serde_json::{json, Value};

/// An answer, or why there is none.
pub type Outcome = std::result::Result<Answer, Failure>;

/// Who answers requests: a server, a store, a model at hand.
pub trait Answers {
    /// Answers all of these, in any order; each outcome is handed on with its request's place as soon as it is there.
    ///
    /// # Errors
    /// What ends all asking: a budget that is spent, a key that is not taken. What was handed on before holds.
    fn answers(&self, requests: &[Request], each: &mut dyn FnMut(usize, Outcome) -> Result<()>)
        -> Result<()>;
}

/// What a model has said.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its words.
    pub text: String,
    /// Why it says nothing, where it refuses by a field of its own or its answer was filtered.
    pub refusal: Option<String>,
    /// Whether it ran into its most tokens.
    pub truncated: bool,
    /// What the server calls who has answered.
    pub model: Option<String>,
    /// What it has cost.
    pub usage: Usage,
    /// Whether it was read from a store.
    pub stored: bool,
}

/// Tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the question.
    pub prompt: u64,
    /// Of the answer, thoughts included.
    pub completion: u64,
    /// The server has not said; they were estimated by the number of bytes.
    pub estimated: bool,
}

/// Why a request has no answer. Others may have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Of which kind.
    pub why: Why,
    /// In words, without any key.
    pub message: String,
}

/// Kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The server does not take this request, with this status.
    Refused(u16),
    /// It could not be reached, broke off, or was too busy, as often as it was asked.
    NotAnswered,
    /// What it sent is no answer in the form of chat completions.
    Malformed,
    /// It sent more than an answer may have.
    TooLarge,
    /// It is to be asked: [`Pending`](super::Pending).
    Pending,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    pub(super) fn new(why: Why, message: impl Into<String>) -> Self {
        Failure {
            why,
            message: message.into(),
        }
    }
}

/// A body in the form of chat completions, read; the first choice is the answer. `asked`: the question's tokens, where the server
/// does not count.
pub(super) fn read(body: &Value, asked: u64) -> Result<Answer, String> {
    let first = body.get("choices").and_then(|c| c.get(0));
    let Some(choice) = first else {
        let said = body.get("error").map(|e| e.get("message").unwrap_or(e));
        return Err(match said {
            Some(said) => format!(
                "an error in the place of an answer: {}",
                crate::error::short(said)
            ),
            None => "JSON without `choices`".into(),
        });
    };
    let Some(message) = choice.get("message").filter(|m| m.is_object()) else {
        return Err("a choice without `message`".into());
    };
    let text = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|p| p.get("text")?.as_str()).collect(),
        Some(_) => return Err("`content` that is no text".into()),
    };
    let finish = choice.get("finish_reason").and_then(Value::as_str);
    let refusal = message.get("refusal").and_then(Value::as_str).map(str::to_owned);
    let filtered = (finish == Some("content_filter")).then(|| "filtered by the server".to_owned());
    let count = |key: &str| body.get("usage")?.get(key)?.as_u64();
    let usage = match (count("prompt_tokens"), count("completion_tokens")) {
        (Some(prompt), Some(completion)) => Usage {
            prompt,
            completion,
            estimated: false,
        },
        _ => Usage {
            prompt: asked,
            completion: tokens_of(&text),
            estimated: true,
        },
    };
    Ok(Answer {
        refusal: refusal.filter(|r| !r.is_empty()).or(filtered),
        truncated: finish == Some("length"),
        model: body.get("model").and_then(Value::as_str).map(str::to_owned),
        usage,
        text,
        stored: false,
    })
}

/// An answer as a body that [`read`] reads.
pub(super) fn written(answer: &Answer) -> Value {
    let Usage {
        prompt, completion, ..
    } = answer.usage;
    json!({
        "object": "chat.completion",
        "model": answer.model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": answer.refusal},
            "finish_reason": if answer.truncated { "length" } else { "stop" },
        }],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    })
}

/// Takes a key out of every text of a value.
pub(super) fn scrub(value: &mut Value, key: &Key) {
    match value {
        Value::String(text) => {
            if let std::borrow::Cow::Owned(clean) = key.out_of_answer(text) {
                *text = clean;
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|v| scrub(v, key)),
        Value::Object(all) => {
            let names: Vec<String> = all
                .keys()
                .filter(|k| key.out_of_answer(k) != k.as_str())
                .cloned()
                .collect();
            names.iter().for_each(|k| drop(all.shift_remove(k)));
            all.values_mut().for_each(|v| scrub(v, key));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_the_forms_that_servers_give_them() {
        let of = |choice: Value| {
            read(
                &json!({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
                13,
            )
        };
        let plain = of(json!({"message": {"content": "so"}, "finish_reason": "stop"})).unwrap();
        assert_eq!(
            (plain.text.as_str(), plain.refusal.as_deref(), plain.truncated),
            ("so", None, false)
        );
        assert_eq!(
            plain.usage,
            Usage {
                prompt: 3,
                completion: 2,
                estimated: false
            }
        );
        let parts = of(
            json!({"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}),
        )
        .unwrap();
        assert_eq!(parts.text, "ab");
        let refused = of(json!({"message": {"content": null, "refusal": "no"}})).unwrap();
        assert_eq!(
            (refused.text.as_str(), refused.refusal.as_deref()),
            ("", Some("no"))
        );
        let filtered = of(json!({"message": {"content": ""}, "finish_reason": "content_filter"})).unwrap();
        assert!(filtered.refusal.is_some());
        assert!(
            of(json!({"message": {"content": "x"}, "finish_reason": "length"}))
                .unwrap()
                .truncated
        );
        for (bad, says) in [
            (json!({"message": {"content": 7}}), "no text"),
            (json!({"text": "x"}), "without `message`"),
        ] {
            assert!(of(bad).unwrap_err().contains(says));
        }
        assert!(read(&json!({"error": {"message": "overloaded"}}), 13)
            .unwrap_err()
            .contains("overloaded"));
        assert!(read(&json!([]), 13).is_err());
        let silent = read(&json!({"choices": [{"message": {"content": "abcdef"}}]}), 13).unwrap();
        assert_eq!(
            silent.usage,
            Usage {
                prompt: 13,
                completion: 2,
                estimated: true
            }
        );
    }

    #[test]
    fn a_key_is_taken_out_of_every_text() {
        let key = Key::of("sk-0123456789", "here").unwrap();
        let mut body = json!({"a": ["x sk-0123456789", {"sk-0123456789": 1, "b": "sk-0123456789"}]});
        scrub(&mut body, &key);
        assert_eq!(body, json!({"a": ["x [key]", {"b": "[key]"}]}));
    }
}
