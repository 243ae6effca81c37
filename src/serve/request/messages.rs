//! One sound and one question in a conversation.

use super::values::{empty, found};
use crate::serve::refusal::Refusal;
use crate::serve::settings::History;
use crate::serve::sound::{shown, Sound};
use crate::text::prompt;
use serde_json::Value;

/// Bytes of a question: a model's whole context in most languages.
const MOST_TEXT: usize = 1 << 16;

/// What is asked about which sound.
pub(super) struct Question {
    /// None where the LM alone is asked.
    pub(super) sound: Option<Sound>,
    pub(super) prompt: String,
    /// Where it stands.
    pub(super) place: String,
}

/// One sound, or none where that is allowed, and one question in the messages.
pub(super) fn question(
    messages: Option<&Value>,
    history: History,
    text_only: bool,
) -> Result<Question, Refusal> {
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
    if sounds.is_empty() && text_only {
        return Ok(Question {
            sound: None,
            prompt,
            place,
        });
    }
    if sounds.len() != 1 {
        let (found, hint) = match sounds.len() {
            0 => (
                "none".to_owned(),
                "a question is about a sound: add a part of the type input_audio; `af2 serve --text-only` also answers without one, by \
                 the LM alone",
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
    Ok(Question {
        sound: Some(sound),
        prompt,
        place,
    })
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
