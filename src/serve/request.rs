//! A request of OpenAI's chat form, read strictly: what would change the answer and is not understood is refused by its name.

use super::refusal::Refusal;
use super::settings::History;
use super::sound::{shown, Sound};
use crate::error::nearest;
use crate::generate::decoding::{Decoding, EarlyStopping};
use crate::text::prompt;
use axum::http::StatusCode;
use serde_json::{Map, Value};

/// More values than any request has: each takes much more memory than its text.
const MOST_VALUES: usize = 1 << 18;
/// Bytes of a question: a model's whole context in most languages.
const MOST_TEXT: usize = 1 << 16;
/// Samples of one request.
const MOST_ANSWERS: u64 = 128;
/// Tokens of an answer where a request does not say.
const NEW_TOKENS: usize = 256;

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

fn empty(v: &Value) -> bool {
    v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(Map::is_empty)
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

/// What the server says to every request.
pub(super) struct Rules {
    /// The model's name.
    pub name: String,
    pub history: History,
    /// Most tokens that may be asked for.
    pub max_new_tokens: usize,
}

/// A question, ready to be heard.
#[derive(Debug)]
pub(super) struct Asked {
    pub sound: Sound,
    pub rest: Rest,
}

/// All of it but the sound.
#[derive(Debug)]
pub(super) struct Rest {
    pub prompt: String,
    /// Where the question stands.
    pub place: String,
    /// [Checked](Decoding::check).
    pub decoding: Decoding,
    pub stream: bool,
    /// The last event of a stream has the counts of tokens.
    pub usage: bool,
    pub logprobs: bool,
}

/// Reads a request's body.
pub(super) fn read(body: &[u8], rules: &Rules) -> Result<Asked, Refusal> {
    let values = body.iter().filter(|b| b",:[{".contains(b)).count();
    if values > MOST_VALUES {
        let message = format!("the body: expected at most {MOST_VALUES} values, found {values}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let object = |found: &str| {
        let message = format!("the body: expected a JSON object, found {found}");
        Refusal::new(StatusCode::BAD_REQUEST, message).code("invalid_json")
    };
    let mut fields = match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Fields(map),
        Ok(other) => return Err(object(kind(&other))),
        Err(e) => return Err(object(&format!("none: {e}"))),
    };
    if let Some(model) = fields.text("model")?.filter(|m| *m != rules.name) {
        let message = format!(
            "model: no model {}: this server has {:?}",
            shown(&model),
            rules.name
        );
        return Err(Refusal {
            param: Some("model".to_owned()),
            ..Refusal::new(StatusCode::NOT_FOUND, message).code("model_not_found")
        });
    }
    let messages = fields.0.remove("messages");
    let decoding = decoding(&mut fields, rules)?;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let usage = fields.stream_options(stream)?;
    let logprobs = fields.flag("logprobs")?.unwrap_or(false);
    fields.rest()?;
    let Question { sound, prompt, place } = question(messages.as_ref(), rules.history)?;
    let rest = Rest {
        prompt,
        place,
        decoding,
        stream,
        usage,
        logprobs,
    };
    Ok(Asked { sound, rest })
}

/// The fields of a request that were not read yet.
struct Fields(Map<String, Value>);

impl Fields {
    /// A field, where it is there and not null.
    fn take<T>(
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

    fn text(&mut self, key: &str) -> Result<Option<String>, Refusal> {
        self.take(key, "a text", |v| v.as_str().map(str::to_owned))
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, Refusal> {
        self.take(key, "true or false", Value::as_bool)
    }

    fn number(&mut self, key: &str) -> Result<Option<f64>, Refusal> {
        self.take(key, "a number", Value::as_f64)
    }

    fn count(&mut self, key: &str) -> Result<Option<usize>, Refusal> {
        self.take(key, "a whole number of 0 or more", whole)
    }

    fn stream_options(&mut self, stream: bool) -> Result<bool, Refusal> {
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
    fn rest(mut self) -> Result<(), Refusal> {
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

/// How an answer is chosen.
fn decoding(fields: &mut Fields, rules: &Rules) -> Result<Decoding, Refusal> {
    let mut d = Decoding::default();
    let mut names: Vec<(&str, &str)> = vec![("num_return_sequences", "n"), ("stop_strings", "stop")];
    d.temperature = fields.number("temperature")?.unwrap_or(0.0);
    d.do_sample = d.temperature != 0.0;
    if !d.do_sample {
        d.temperature = 1.0;
    }
    d.top_p = fields.number("top_p")?.unwrap_or(d.top_p);
    let top_k = |v: &Value| v.as_i64().filter(|k| *k >= -1);
    if let Some(k) = fields.take("top_k", "a whole number, -1 or 0 for all", top_k)? {
        d.top_k = usize::try_from(k).unwrap_or(0);
    }
    d.min_p = fields.number("min_p")?.unwrap_or(d.min_p);
    d.repetition_penalty = fields
        .number("repetition_penalty")?
        .unwrap_or(d.repetition_penalty);
    d.no_repeat_ngram_size = fields.count("no_repeat_ngram_size")?.unwrap_or(0);
    d.num_beams = fields.count("num_beams")?.unwrap_or(1);
    d.length_penalty = fields.number("length_penalty")?.unwrap_or(d.length_penalty);
    let early = |v: &Value| serde_json::from_value::<EarlyStopping>(v.clone()).ok();
    let expected = "true, false or \"never\"";
    d.early_stopping = fields
        .take("early_stopping", expected, early)?
        .unwrap_or_default();
    let n = |v: &Value| v.as_u64().filter(|n| (1..=MOST_ANSWERS).contains(n));
    let n = fields.take("n", &format!("1 to {MOST_ANSWERS}"), n)?.unwrap_or(1);
    d.num_return_sequences = n as usize;
    for name in ["min_new_tokens", "min_tokens"] {
        if let Some(n) = fields.count(name)? {
            d.min_new_tokens = n;
            names.push(("min_new_tokens", name));
        }
    }
    d.max_new_tokens = NEW_TOKENS.min(rules.max_new_tokens);
    let mut said: Option<(&str, usize)> = None;
    for name in ["max_tokens", "max_completion_tokens"] {
        let Some(n) = fields.count(name)? else { continue };
        if n > rules.max_new_tokens {
            let expected = format!("at most {}, as this server was started", rules.max_new_tokens);
            return Err(Refusal::field(name, &expected, &n.to_string()));
        }
        if let Some((other, before)) = said.filter(|(_, before)| *before != n) {
            let expected = format!("{before}, as {other} says");
            return Err(Refusal::field(name, &expected, &n.to_string()));
        }
        said = Some((name, n));
        d.max_new_tokens = n;
    }
    if let Some((name, _)) = said {
        names.push(("max_new_tokens", name));
    }
    let texts = |v: &Value| match v {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) if all.len() <= 16 => all.iter().map(|s| s.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    d.stop_strings = fields
        .take("stop", "a text or up to 16 of them", texts)?
        .unwrap_or_default();
    if let Some(long) = d.stop_strings.iter().find(|s| s.len() > 256) {
        return Err(Refusal::field(
            "stop",
            "at most 256 bytes",
            &long.len().to_string(),
        ));
    }
    let ids = |v: &Value| -> Option<Vec<i64>> {
        let all = v.as_array().filter(|all| all.len() <= 64)?;
        all.iter().map(Value::as_i64).collect()
    };
    let expected = "up to 64 token ids";
    d.stop_token_ids = fields.take("stop_token_ids", expected, ids)?.unwrap_or_default();
    let seed = |v: &Value| v.as_u64().or_else(|| v.as_i64().map(i64::cast_unsigned));
    let seed = fields.take("seed", "a whole number of 64 bits", seed)?;
    d.seed = match (seed, d.do_sample) {
        (Some(seed), _) => seed,
        // As JavaScript reads numbers, so that what the answer says can be sent again.
        (None, true) => rand::random::<u64>() >> 11,
        (None, false) => 0,
    };
    let wrong = d.check();
    let Some(first) = wrong.first() else {
        return Ok(d);
    };
    let named = |key: &str| {
        let own = names.iter().rev().find(|(k, _)| *k == key);
        own.map_or(key, |(_, name)| *name).to_owned()
    };
    let all = wrong
        .iter()
        .map(|w| format!("{}: expected {}, found {}", named(&w.key), w.expected, w.found));
    Err(Refusal {
        message: all.collect::<Vec<_>>().join("; "),
        ..Refusal::field(named(&first.key), "", "")
    })
}

struct Question {
    sound: Sound,
    prompt: String,
    place: String,
}

/// One sound and one question in the messages.
fn question(messages: Option<&Value>, history: History) -> Result<Question, Refusal> {
    let messages = match messages {
        Some(Value::Array(all)) if !all.is_empty() => all,
        Some(Value::Array(_)) => return Err(Refusal::field("messages", "at least one", "none")),
        Some(other) => return Err(Refusal::field("messages", "a list", &found(other))),
        None => return Err(Refusal::field("messages", "a list of messages", "none")),
    };
    let mut sounds = Vec::new();
    let mut turns = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let place = format!("messages[{i}]");
        let (role, texts) = turn(&place, message, &mut sounds)?;
        turns.push((format!("{place}.content"), role, texts.join("\n")));
    }
    let no_words = |s: &str| prompt::clean(s).is_empty();
    let last = turns.len() - 1;
    if turns[last].1 != "user" {
        let place = format!("messages[{last}].role");
        return Err(Refusal::field(
            place,
            "\"user\": the last message is the question",
            turns[last].1,
        ));
    }
    let (place, _, asked) = turns[last].clone();
    let earlier = turns[..last].iter().find(|(.., text)| !no_words(text));
    let prompt = match (history, earlier) {
        (History::Refuse, Some((place, role, _))) => {
            return Err(Refusal::field(
                place.as_str(),
                "no text before the question",
                &format!("a {role}'s text"),
            )
            .hint(
                "the model was trained on one question about one sound: put all into one message; \
                     `af2 serve --history last` reads the last one alone, `--history join` joins all texts",
            ));
        }
        (History::Join, Some(_)) => {
            let texts = turns.into_iter().map(|(.., text)| text);
            texts.filter(|t| !no_words(t)).collect::<Vec<_>>().join("\n")
        }
        _ => asked,
    };
    if no_words(&prompt) {
        return Err(Refusal::field(place, "a question", "no text"));
    }
    if prompt.len() > MOST_TEXT {
        let expected = format!("at most {MOST_TEXT} bytes of text");
        return Err(Refusal::field(place, &expected, &prompt.len().to_string()));
    }
    if sounds.len() != 1 {
        let (found, hint) = match sounds.len() {
            0 => (
                "none".to_owned(),
                "a question is about a sound: add a part of the type input_audio",
            ),
            n => (
                n.to_string(),
                "the model hears one sound at a time: mix or join them, or ask about each",
            ),
        };
        return Err(Refusal::field("messages", "one sound", &found).hint(hint));
    }
    let sound = match sounds.remove(0) {
        Part::Data { place, data, format } => Sound::of_data(&place, data, format)?,
        Part::Url { place, url } => Sound::of_url(&place, url)?,
    };
    Ok(Question { sound, prompt, place })
}

/// A sound as it stands in a message.
enum Part<'a> {
    Data {
        place: String,
        data: &'a str,
        format: &'a str,
    },
    Url {
        place: String,
        url: &'a str,
    },
}

/// A message's role and texts; its sounds are added to `sounds`.
fn turn<'a>(
    place: &str,
    message: &'a Value,
    sounds: &mut Vec<Part<'a>>,
) -> Result<(&'static str, Vec<&'a str>), Refusal> {
    let Some(message) = message.as_object() else {
        return Err(Refusal::field(place, "an object", &found(message)));
    };
    let role = match message.get("role").and_then(Value::as_str) {
        Some("user") => "user",
        Some("system" | "developer") => "system",
        Some("assistant") => "assistant",
        _ => {
            let found = message.get("role").map_or("none".to_owned(), found);
            let expected = "system, developer, user or assistant";
            return Err(Refusal::field(format!("{place}.role"), expected, &found));
        }
    };
    for key in ["tool_calls", "function_call", "audio"] {
        if let Some(value) = message.get(key).filter(|v| !v.is_null() && !empty(v)) {
            return Err(Refusal::field(format!("{place}.{key}"), "none", &found(value)));
        }
    }
    let place = format!("{place}.content");
    let parts = match message.get("content") {
        Some(Value::String(text)) => return Ok((role, vec![text])),
        None | Some(Value::Null) if role == "assistant" => return Ok((role, Vec::new())),
        Some(Value::Array(parts)) => parts,
        other => {
            let found = other.map_or("none".to_owned(), found);
            return Err(Refusal::field(place, "a text or a list of parts", &found));
        }
    };
    let mut texts = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let place = format!("{place}[{i}]");
        let of = |object: &'a Value, key: &str, field: &str| match object.get(key) {
            Some(Value::String(text)) => Ok(text.as_str()),
            other => {
                let found = other.map_or("none".to_owned(), found);
                Err(Refusal::field(field.to_owned(), "a text", &found))
            }
        };
        let kind = of(part, "type", &format!("{place}.type"))?;
        let field = format!("{place}.{kind}");
        match kind {
            "text" => texts.push(of(part, "text", &field)?),
            "input_audio" | "audio_url" if role != "user" => {
                return Err(Refusal::field(
                    field,
                    "sounds in a user's message only",
                    &format!("one in a {role}'s"),
                ));
            }
            "input_audio" => {
                let sound = part.get(kind).unwrap_or(&Value::Null);
                sounds.push(Part::Data {
                    data: of(sound, "data", &format!("{field}.data"))?,
                    format: of(sound, "format", &format!("{field}.format"))?,
                    place: field,
                });
            }
            "audio_url" => {
                let sound = part.get(kind).unwrap_or(&Value::Null);
                sounds.push(Part::Url {
                    url: of(sound, "url", &format!("{field}.url"))?,
                    place: field,
                });
            }
            other => {
                let expected = "text, input_audio or audio_url";
                return Err(Refusal::field(format!("{place}.type"), expected, &shown(other)));
            }
        }
    }
    Ok((role, texts))
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value in a message: itself where it is short.
fn found(v: &Value) -> String {
    match v {
        Value::String(text) => shown(text),
        Value::Array(_) | Value::Object(_) if !empty(v) => kind(v).to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(history: History) -> Rules {
        Rules {
            name: "tiny".to_owned(),
            history,
            max_new_tokens: 512,
        }
    }

    fn sound() -> Value {
        json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})
    }

    fn asking(more: &Value) -> Value {
        let mut request = json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is it?"}, sound(),
        ]}]});
        let map = request.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        request
    }

    fn asked(request: &Value, history: History) -> Result<Rest, Refusal> {
        read(request.to_string().as_bytes(), &rules(history)).map(|asked| asked.rest)
    }

    #[test]
    fn settings_have_the_names_that_others_give_them() {
        let plain = asked(&asking(&json!({})), History::Refuse).unwrap();
        assert_eq!(plain.decoding, Decoding::default());
        assert_eq!(
            (plain.prompt.as_str(), plain.stream, plain.logprobs),
            ("What is it?", false, false)
        );
        let all = json!({
            "model": "tiny", "temperature": 0.7, "top_p": 0.9, "top_k": -1, "min_p": 0.1, "max_completion_tokens": 20,
            "max_tokens": 20, "min_tokens": 2, "n": 3, "stop": ["a", "b"], "stop_token_ids": [5], "seed": -1,
            "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "stream": true, "stream_options": {"include_usage": true},
            "logprobs": true, "user": "u", "tools": [], "frequency_penalty": 0, "response_format": {"type": "text"},
            "top_logprobs": null, "metadata": {"a": "b"},
        });
        let found = asked(&asking(&all), History::Refuse).unwrap();
        let expected = Decoding {
            do_sample: true,
            temperature: 0.7,
            top_p: 0.9,
            top_k: 0,
            min_p: 0.1,
            max_new_tokens: 20,
            min_new_tokens: 2,
            num_return_sequences: 3,
            stop_strings: vec!["a".to_owned(), "b".to_owned()],
            stop_token_ids: vec![5],
            seed: u64::MAX,
            repetition_penalty: 1.2,
            no_repeat_ngram_size: 3,
            ..Decoding::default()
        };
        assert_eq!(found.decoding, expected);
        assert!(found.stream && found.usage && found.logprobs);
        let beams = json!({"num_beams": 4, "n": 2, "length_penalty": 0.5, "early_stopping": "never"});
        let found = asked(&asking(&beams), History::Refuse).unwrap().decoding;
        assert_eq!((found.num_beams, found.num_return_sequences), (4, 2));
        assert_eq!(
            (found.length_penalty, found.early_stopping),
            (0.5, EarlyStopping::Never)
        );
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_its_name() {
        for (more, param) in [
            (json!({"tools": [{}]}), "tools"),
            (
                json!({"response_format": {"type": "json_object"}}),
                "response_format",
            ),
            (json!({"frequency_penalty": 0.5}), "frequency_penalty"),
            (json!({"logit_bias": {"5": 1}}), "logit_bias"),
            (json!({"top_logprobs": 3}), "top_logprobs"),
            (json!({"temprature": 0.5}), "temprature"),
            (json!({"temperature": -1}), "temperature"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"top_p": 2}), "top_p"),
            (json!({"top_k": -2}), "top_k"),
            (json!({"n": 0}), "n"),
            (json!({"n": 2}), "n"),
            (json!({"n": 1.5}), "n"),
            (json!({"n": 1_000_000}), "n"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"max_tokens": 513}), "max_tokens"),
            (
                json!({"max_tokens": 5, "max_completion_tokens": 6}),
                "max_completion_tokens",
            ),
            (json!({"max_tokens": 5, "min_tokens": 6}), "min_tokens"),
            (json!({"stop": [1]}), "stop"),
            (json!({"stop": ""}), "stop"),
            (json!({"seed": 0.5}), "seed"),
            (json!({"stream": 1}), "stream"),
            (json!({"stream_options": {}}), "stream_options"),
            (
                json!({"stream": true, "stream_options": {"x": true}}),
                "stream_options.x",
            ),
            (json!({"model": "gpt-4o"}), "model"),
            (json!({"num_beams": 3, "temperature": 1}), "num_beams"),
            (json!({"early_stopping": "always"}), "early_stopping"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": "hello"}), "messages"),
            (json!({"messages": [5]}), "messages[0]"),
            (
                json!({"messages": [{"role": "tool", "content": "x"}]}),
                "messages[0].role",
            ),
            (
                json!({"messages": [{"role": "assistant", "content": "x"}]}),
                "messages[0].role",
            ),
            (
                json!({"messages": [{"role": "user", "content": 5}]}),
                "messages[0].content",
            ),
            (
                json!({"messages": [{"role": "user", "content": "what?"}]}),
                "messages",
            ),
            (
                json!({"messages": [{"role": "user", "content": [sound()]}]}),
                "messages[0].content",
            ),
            (
                json!({"messages": [{"role": "user", "content": [sound(), sound(), {"type": "text", "text": "?"}]}]}),
                "messages",
            ),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
                "messages[0].content[0].type",
            ),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A"}}]}]}),
                "messages[0].content[0].input_audio.format",
            ),
        ] {
            let refusal = asked(&asking(&more), History::Refuse).unwrap_err();
            assert_eq!(
                refusal.param.as_deref(),
                Some(param),
                "{more}: {}",
                refusal.message
            );
            assert!(refusal.status.is_client_error() && !refusal.message.is_empty());
        }
        let slip = asked(&asking(&json!({"temprature": 0.5})), History::Refuse).unwrap_err();
        assert!(
            slip.message.contains("did you mean `temperature`?"),
            "{}",
            slip.message
        );
    }

    #[test]
    fn earlier_turns_are_what_the_server_was_told() {
        let request = asking(&json!({"messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [sound(), {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": "A dog."},
            {"role": "user", "content": "How many?"},
        ]}));
        let refusal = asked(&request, History::Refuse).unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some("messages[0].content"));
        assert!(refusal.message.contains("--history join"), "{}", refusal.message);
        assert_eq!(asked(&request, History::Last).unwrap().prompt, "How many?");
        let joined = "Be brief.\nWhat is it?\nA dog.\nHow many?";
        assert_eq!(asked(&request, History::Join).unwrap().prompt, joined);
        // A sound alone is no text that would be lost.
        let alone = asking(&json!({"messages": [
            {"role": "user", "content": [sound()]}, {"role": "user", "content": "How many?"},
        ]}));
        assert_eq!(asked(&alone, History::Refuse).unwrap().prompt, "How many?");
    }

    #[test]
    fn bodies_that_are_no_request_are_refused() {
        let many = format!("[{}1]", "1,".repeat(MOST_VALUES + 1));
        let deep = "[".repeat(200_000);
        for (body, piece) in [
            (&b"\xff\xfe"[..], "JSON object"),
            (b"", "JSON object"),
            (b"[]", "a list"),
            (b"{\"a\": 1", "JSON object"),
            (many.as_bytes(), "values"),
            (deep.as_bytes(), "JSON object"),
        ] {
            let refusal = read(body, &rules(History::Refuse)).unwrap_err();
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
            assert!(refusal.message.contains(piece), "{}", refusal.message);
        }
    }
}
