//! Answers in OpenAI's form: in one piece, or as the events of a stream.

use super::refusal::Refusal;
use super::worker::{Chosen, Said, Usage};
use serde_json::{json, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// What all parts of one answer say.
pub(super) struct Form {
    id: String,
    created: u64,
    model: String,
    /// Of what was drawn, so that it can be drawn again.
    seed: Option<u64>,
    /// A last event has the counts.
    usage: bool,
}

impl Form {
    pub(super) fn new(model: &str, seed: Option<u64>, usage: bool) -> Self {
        Form {
            id: format!("chatcmpl-{:032x}", rand::random::<u128>()),
            created: now(),
            model: model.to_owned(),
            seed,
            usage,
        }
    }

    fn around(&self, object: &str, choices: Vec<Value>) -> Value {
        let mut all = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices,
        });
        if let Some(seed) = self.seed {
            all["seed"] = seed.into();
        }
        all
    }

    /// The whole answer.
    pub(super) fn whole(&self, said: Vec<Said>, usage: Usage) -> Value {
        let choices = said.into_iter().enumerate().map(|(index, said)| {
            json!({
                "index": index,
                "message": {"role": "assistant", "content": said.text, "refusal": null},
                "logprobs": logprobs(said.logprobs.as_deref()),
                "finish_reason": reason(said.ended),
            })
        });
        let mut all = self.around("chat.completion", choices.collect());
        all["usage"] = counts(usage);
        all
    }

    /// The first event of an answer.
    pub(super) fn begun(&self, index: usize) -> String {
        self.event(index, &json!({"role": "assistant", "content": ""}), None, None)
    }

    /// Text as it comes, and the tokens that it came of.
    pub(super) fn piece(&self, index: usize, text: &str, tokens: Option<&[Chosen]>) -> String {
        self.event(index, &json!({"content": text}), tokens, None)
    }

    /// What is left of an answer, and why it ended.
    pub(super) fn ended(&self, index: usize, said: &Said) -> String {
        let delta = match said.text.as_str() {
            "" => json!({}),
            text => json!({"content": text}),
        };
        self.event(index, &delta, said.logprobs.as_deref(), Some(said))
    }

    /// The end of a stream.
    pub(super) fn done(&self, usage: Usage) -> String {
        let mut text = String::new();
        if self.usage {
            let mut chunk = self.around("chat.completion.chunk", Vec::new());
            chunk["usage"] = counts(usage);
            text += &data(&chunk);
        }
        text + "data: [DONE]\n\n"
    }

    fn event(&self, index: usize, delta: &Value, tokens: Option<&[Chosen]>, end: Option<&Said>) -> String {
        let choice = json!({
            "index": index,
            "delta": delta,
            "logprobs": logprobs(tokens),
            "finish_reason": end.map(|s| reason(s.ended)),
        });
        let mut chunk = self.around("chat.completion.chunk", vec![choice]);
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }
}

/// An error within a stream, which ends it.
pub(super) fn broken(refusal: &Refusal) -> String {
    data(&refusal.body())
}

/// A server-sent event. JSON has no line ends.
fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn reason(ended: bool) -> &'static str {
    match ended {
        true => "stop",
        false => "length",
    }
}

fn counts(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.answers,
        "total_tokens": usage.prompt + usage.answers,
    })
}

fn logprobs(all: Option<&[Chosen]>) -> Value {
    let Some(all) = all else { return Value::Null };
    let content = all.iter().map(|chosen| {
        // A part of a character has bytes, and the tokenizer does not tell them.
        let whole = !chosen.text.contains('\u{fffd}');
        json!({
            "token": chosen.text,
            "logprob": chosen.logprob,
            "bytes": whole.then_some(chosen.text.as_bytes()),
            "top_logprobs": [],
        })
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}

/// `GET /v1/models/NAME`
pub(super) fn model(name: &str, created: u64) -> Value {
    json!({"id": name, "object": "model", "created": created, "owned_by": "af2"})
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_secs())
}
