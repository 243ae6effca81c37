//! The fields of a request: each is read once, and what is left must ask for nothing.

use super::values::{empty, found};
use crate::error::nearest;
use crate::serve::refusal::Refusal;
use crate::serve::sound::shown;
use serde_json::{Map, Value};

/// Fields that change no answer here.
const HARMLESS: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
];
/// Whether a value asks for nothing.
type Neutral = fn(&Value) -> bool;
/// Fields of what this server does not do, and whether their value asks for it.
const NEUTRAL: [(&str, Neutral, &str); 18] = [
    ("frequency_penalty", zero, "0: there is repetition_penalty"),
    ("presence_penalty", zero, "0: there is repetition_penalty"),
    ("logit_bias", empty, "none"),
    ("top_logprobs", zero, "0: only the chosen tokens' are known"),
    ("tools", empty, "none: the model calls no tools"),
    ("functions", empty, "none: the model calls no functions"),
    ("tool_choice", no_tool, "none: the model calls no tools"),
    ("function_call", no_tool, "none: the model calls no functions"),
    (
        "response_format",
        text,
        "{\"type\": \"text\"}: an answer is bound to no form",
    ),
    ("modalities", only_text, "[\"text\"]: the model does not speak"),
    ("audio", empty, "none: the model does not speak"),
    ("prediction", empty, "none"),
    ("web_search_options", empty, "none"),
    ("best_of", one, "1: there are n and num_beams"),
    ("use_beam_search", no, "false: there is num_beams"),
    ("ignore_eos", no, "false: there is min_tokens"),
    ("include_stop_str_in_output", no, "false"),
    ("skip_special_tokens", yes, "true"),
];
/// All that is understood, for a hint at a slip.
const KNOWN: [&str; 24] = [
    "model",
    "messages",
    "stream",
    "stream_options",
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
    "seed",
    "logprobs",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
];

fn zero(v: &Value) -> bool {
    v.as_f64() == Some(0.0)
}

fn one(v: &Value) -> bool {
    v.as_u64() == Some(1)
}

fn no(v: &Value) -> bool {
    v.as_bool() == Some(false)
}

fn yes(v: &Value) -> bool {
    v.as_bool() == Some(true)
}

fn no_tool(v: &Value) -> bool {
    matches!(v.as_str(), Some("none" | "auto"))
}

fn text(v: &Value) -> bool {
    v.get("type").and_then(Value::as_str) == Some("text")
}

fn only_text(v: &Value) -> bool {
    v.as_array().is_some_and(|all| all.len() == 1 && all[0] == "text")
}

/// The fields of a request that were not read yet.
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    /// A field, where it is there and not null.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match read(&v) {
                Some(value) => Ok(Some(value)),
                None => Err(Refusal::field(key, expected, &found(&v))),
            },
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Refusal> {
        self.take(key, "a text", |v| v.as_str().map(str::to_owned))
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, Refusal> {
        self.take(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, Refusal> {
        self.take(key, "a number", Value::as_f64)
    }

    pub(super) fn count(&mut self, key: &str) -> Result<Option<usize>, Refusal> {
        self.take(key, "a whole number of 0 or more", whole)
    }

    pub(super) fn stream_options(&mut self, stream: bool) -> Result<bool, Refusal> {
        let options = self.take("stream_options", "an object", |v| v.as_object().cloned())?;
        let Some(options) = options else { return Ok(false) };
        if !stream {
            return Err(Refusal::field(
                "stream_options",
                "\"stream\": true beside it",
                "none",
            ));
        }
        let mut usage = false;
        for (key, value) in options {
            let param = format!("stream_options.{key}");
            let Some(value) = value.as_bool() else {
                return Err(Refusal::field(param, "true or false", &found(&value)));
            };
            match key.as_str() {
                "include_usage" => usage = value,
                // Padding against those who watch lengths.
                "include_obfuscation" | "continuous_usage_stats" if !value => {}
                _ => return Err(Refusal::field(param, "include_usage alone", &value.to_string())),
            }
        }
        Ok(usage)
    }

    /// Refuses what would change the answer.
    pub(super) fn rest(mut self) -> Result<(), Refusal> {
        for name in HARMLESS {
            self.0.remove(name);
        }
        for (key, neutral, expected) in NEUTRAL {
            self.take(key, expected, |v| neutral(v).then_some(()))?;
        }
        let Some((key, _)) = self.0.into_iter().find(|(_, v)| !v.is_null()) else {
            return Ok(());
        };
        let short: String = key.chars().take(64).collect();
        let refusal = Refusal {
            message: format!("{}: a field that this server does not know", shown(&key)),
            ..Refusal::field(short.as_str(), "", "")
        };
        let near = nearest(&short, KNOWN).map(|k| format!("did you mean `{k}`?"));
        Err(match near {
            Some(near) => refusal.hint(&near),
            None => refusal,
        }
        .code("unknown_parameter"))
    }
}

fn whole(v: &Value) -> Option<usize> {
    v.as_u64().and_then(|n| usize::try_from(n).ok())
}
