//! A request of OpenAI's chat form, read strictly: what would change the answer and is not understood is refused by its name.

mod decoding;
mod fields;
mod messages;
mod values;

use super::refusal::Refusal;
use super::settings::History;
use super::sound::{shown, Sound};
use crate::generate::decoding::Decoding;
use axum::http::StatusCode;
use fields::Fields;
use messages::Question;
use serde_json::Value;

/// More values than any request has: each takes much more memory than its text.
const MOST_VALUES: usize = 1 << 18;

/// What the server says to every request.
pub(super) struct Rules {
    /// The model's name.
    pub name: String,
    pub history: History,
    /// Whether a question may come without a sound.
    pub text_only: bool,
    /// Most tokens that may be asked for.
    pub max_new_tokens: usize,
}

/// A question, ready to be heard.
#[derive(Debug)]
pub(super) struct Asked {
    /// None of a question for the LM alone.
    pub sound: Option<Sound>,
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
        Ok(other) => return Err(object(values::kind(&other))),
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
    let decoding = decoding::decoding(&mut fields, rules.max_new_tokens)?;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let usage = fields.stream_options(stream)?;
    let logprobs = fields.flag("logprobs")?.unwrap_or(false);
    fields.rest()?;
    let Question { sound, prompt, place } =
        messages::question(messages.as_ref(), rules.history, rules.text_only)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::decoding::EarlyStopping;
    use serde_json::json;

    fn rules(history: History) -> Rules {
        Rules {
            name: "tiny".to_owned(),
            history,
            text_only: false,
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

    #[test]
    fn a_question_without_a_sound_is_taken_where_that_is_allowed() {
        let request = asking(&json!({"messages": [{"role": "user", "content": "What is it?"}]}));
        let mut rules = rules(History::Refuse);
        let refusal = read(request.to_string().as_bytes(), &rules).unwrap_err();
        assert!(refusal.message.contains("--text-only"), "{}", refusal.message);
        rules.text_only = true;
        let taken = read(request.to_string().as_bytes(), &rules).unwrap();
        assert!(taken.sound.is_none() && taken.rest.prompt == "What is it?");
        let two = asking(
            &json!({"messages": [{"role": "user", "content": [sound(), sound(), {"type": "text", "text": "?"}]}]}),
        );
        assert!(read(two.to_string().as_bytes(), &rules).is_err());
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
