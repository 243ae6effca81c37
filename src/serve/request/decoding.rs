//! How an answer is chosen, by OpenAI's names for it and those of other servers.

use super::fields::Fields;
use crate::generate::decoding::{Decoding, EarlyStopping};
use crate::serve::refusal::Refusal;
use serde_json::Value;

/// Samples of one request.
const MOST_ANSWERS: u64 = 128;
/// Tokens of an answer where a request does not say.
const NEW_TOKENS: usize = 256;

/// The settings of a request, [checked](Decoding::check); `most` tokens may be asked for.
pub(super) fn decoding(fields: &mut Fields, most: usize) -> Result<Decoding, Refusal> {
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
    d.max_new_tokens = NEW_TOKENS.min(most);
    let mut said: Option<(&str, usize)> = None;
    for name in ["max_tokens", "max_completion_tokens"] {
        let Some(n) = fields.count(name)? else { continue };
        if n > most {
            let expected = format!("at most {}, as this server was started", most);
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
