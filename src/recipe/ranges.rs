//! Ranges of all numbers that a recipe gives: what lies outside is a slip, and must not reach an allocation or a loop.

use super::Recipe;
use serde_yaml::Value;

/// What a number may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The lower bound.
    pub least: f64,
    /// The upper bound.
    pub most: f64,
    /// Whether `least` itself is outside.
    pub above: bool,
    /// Whether `most` itself is outside.
    pub below: bool,
    /// Stands for no bound where nothing is said: `u64::MAX`.
    pub or_none: bool,
    /// What to say to who wrote another number.
    pub hint: Option<&'static str>,
}

impl Range {
    /// Whether a number is inside.
    pub fn holds(&self, value: f64) -> bool {
        let least = if self.above {
            value > self.least
        } else {
            value >= self.least
        };
        let most = if self.below {
            value < self.most
        } else {
            value <= self.most
        };
        least && most || self.or_none && value == u64::MAX as f64
    }

    const fn above(self) -> Self {
        Range { above: true, ..self }
    }

    const fn below(self) -> Self {
        Range { below: true, ..self }
    }

    const fn or_none(self) -> Self {
        Range {
            or_none: true,
            ..self
        }
    }

    const fn hint(self, hint: &'static str) -> Self {
        Range {
            hint: Some(hint),
            ..self
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (above, below) = (
            if self.above { "above " } else { "" },
            if self.below { "below " } else { "" },
        );
        write!(
            f,
            "from {above}{} to {below}{}",
            shown(self.least),
            shown(self.most)
        )
    }
}

const fn range(least: f64, most: f64) -> Range {
    Range {
        least,
        most,
        above: false,
        below: false,
        or_none: false,
        hint: None,
    }
}

/// Steps and counts of them: at one a second these are 30 years.
const STEPS: f64 = 1e9;
const SEED: Range = range(0.0, u64::MAX as f64);
const WEIGHT: Range = range(1e-5, 1e3);
const SHARE: &str = "a share: 0.01 is one in a hundred";

/// Key → range; `*` stands for the name of a stage or set, or the number of an element.
#[rustfmt::skip]
const RANGES: &[(&str, Range)] = &[
    ("seed", SEED),
    ("corpus.seed", SEED),
    ("corpus.singles_per_class", range(0.0, 1e5)),
    ("corpus.counting", range(0.0, 1e6)),
    ("corpus.scenes", range(0.0, 1e6)),
    ("corpus.attributes", range(0.0, 1e6)),
    ("corpus.long", range(0.0, 1e6)),
    ("corpus.val_fraction", range(0.0, 0.5).hint(SHARE)),
    ("corpus.test_fraction", range(0.0, 0.5).hint(SHARE)),

    ("lm.vocab_size", range(1.0, 1e6)),
    ("lm.hidden_size", range(1.0, 32768.0)),
    ("lm.intermediate_size", range(1.0, 262144.0)),
    ("lm.layers", range(1.0, 512.0)),
    ("lm.heads", range(1.0, 1024.0)),
    ("lm.kv_heads", range(1.0, 1024.0)),

    ("clap.joint_dim", range(1.0, 65536.0)),
    ("clap.text.d_model", range(1.0, 32768.0)),
    ("clap.text.d_kv", range(1.0, 32768.0)),
    ("clap.text.d_ff", range(1.0, 262144.0)),
    ("clap.text.num_heads", range(1.0, 1024.0)),
    ("clap.text.num_layers", range(1.0, 512.0)),
    ("clap.audio.embed_dim", range(1.0, 8192.0)),
    ("clap.audio.class_num", range(1.0, 65536.0)),
    ("clap.audio.depths.*", range(1.0, 256.0)),
    ("clap.audio.num_heads.*", range(1.0, 1024.0)),

    ("model.max_windows", range(1.0, 4096.0)),
    ("model.audio_transformer.n_head", range(1.0, 1024.0)),
    ("model.audio_transformer.n_layers", range(0.0, 256.0)),
    ("model.audio_transformer.d_inner", range(1.0, 262144.0)),
    ("model.audio_transformer.attention_dropout", range(0.0, 1.0).below().hint(SHARE)),
    ("model.cross_attention.every", range(1.0, 1024.0)),
    ("model.cross_attention.heads", range(1.0, 1024.0)),
    ("model.cross_attention.head_dim", range(1.0, 4096.0)),
    ("model.cross_attention.ff_mult", range(1.0, 64.0)),
    ("model.cross_attention.max_window_per_audio", range(1.0, 1048576.0)),

    // `<audio>`, `<SEP>`, two tokens at the end, and something between.
    ("data.max_tokens", range(6.0, 1048576.0)),
    ("data.cache_mib", range(0.0, 16777216.0)),
    ("data.skip_budget", range(0.0, 1.0).hint(SHARE)),
    ("data.global_weight", WEIGHT),
    ("data.subset", range(0.0, 1.0).above().hint(SHARE)),
    ("data.threads", range(0.0, 1024.0)),
    ("data.ahead", range(1.0, 1024.0)),

    ("train.loss_chunk", range(0.0, 16777216.0)),
    ("train.bucket_mib", range(1.0, 65536.0)),
    ("train.timeout", range(1.0, 1048576.0)),
    ("train.log_every", range(0.0, STEPS)),
    ("train.validate_every", range(0.0, STEPS)),
    ("train.nonfinite_limit", range(1.0, STEPS)),
    ("train.peak_tflops", range(0.0, 1e6).above()),

    ("stages.*.windows", range(1.0, 4096.0)),
    ("stages.*.sets.*", WEIGHT.hint("passes of an epoch over the set; null takes it out of the stage")),
    ("stages.*.batch_budget.windows", range(1.0, 16777216.0)),
    ("stages.*.batch_budget.tokens", range(1.0, 4294967296.0).or_none()),
    ("stages.*.batch_budget.items", range(1.0, 16777216.0).or_none()),
    ("stages.*.batch_budget.multiple", range(1.0, 16777216.0)),
    ("*.save.every", range(0.0, STEPS)),
    ("*.save.keep_last", range(0.0, STEPS)),
    ("*.save.keep_every", range(0.0, STEPS)),
    ("stages.*.save.every", range(0.0, STEPS)),
    ("stages.*.save.keep_last", range(0.0, STEPS)),
    ("stages.*.save.keep_every", range(0.0, STEPS)),

    ("eval.windows", range(1.0, 4096.0)),
    ("eval.max_new_tokens", range(1.0, 65536.0)),
    ("eval.decoding.temperature", range(0.0, 1e6)),
    ("eval.decoding.top_k", range(0.0, 1e9)),
    ("eval.decoding.top_p", range(0.0, 1.0).above()),
    ("eval.decoding.min_p", range(0.0, 1.0)),
    ("eval.decoding.num_beams", range(1.0, 256.0)),
    ("eval.decoding.length_penalty", range(-32.0, 32.0)),
    ("eval.decoding.num_return_sequences", range(1.0, 1024.0)),
    ("eval.decoding.repetition_penalty", range(0.0, 1e6).above()),
    ("eval.decoding.no_repeat_ngram_size", range(0.0, 65536.0)),
    ("eval.decoding.min_new_tokens", range(0.0, 65536.0)),
    ("eval.decoding.max_new_tokens", range(1.0, 65536.0)),
    ("eval.decoding.stop_token_ids.*", range(0.0, 1e9)),
    ("eval.decoding.seed", SEED),
    ("eval.limit", range(1.0, STEPS)),
    ("eval.slots", range(1.0, 1024.0)),
    ("eval.memory", range(1048576.0, 1e15).hint("bytes: 8000000000 are 8 GB")),
];

/// The same under every `optim`.
#[rustfmt::skip]
const OPTIM: &[(&str, Range)] = &[
    ("steps", range(0.0, STEPS)),
    ("batch_size", range(1.0, 1048576.0)),
    ("accumulate", range(1.0, 1048576.0)),
    ("global_batch", range(1.0, 16777216.0)),
    ("learning_rate", range(0.0, 1e38).hint("with a large one the run diverges, and ends when its steps are not finite")),
    ("betas.*", range(0.0, 1.0).below()),
    ("groups.*.rate", range(0.0, 1e4)),
    ("groups.*.weight_decay", range(0.0, 10.0)),
    ("groups.*.betas.*", range(0.0, 1.0).below()),
    ("schedule_steps", range(1.0, STEPS)),
    ("warmup", range(0.0, STEPS)),
    ("weight_decay", range(0.0, 10.0)),
    ("clip", range(0.0, 1e9).above().hint("1000000000 clips nothing")),
];

/// The range of a key, given by its parts.
pub fn range_of(parts: &[&str]) -> Option<Range> {
    let optim = parts.iter().rposition(|part| *part == "optim");
    let (table, parts) = match optim {
        Some(at) => (OPTIM, &parts[at + 1..]),
        None => (RANGES, parts),
    };
    let fits = |pattern: &str| {
        let mut wanted = pattern.split('.');
        parts
            .iter()
            .all(|part| wanted.next().is_some_and(|w| w == "*" || w == *part))
            && wanted.next().is_none()
    };
    table.iter().find(|(k, _)| fits(k)).map(|(_, r)| *r)
}

/// A number as people write it.
fn shown(value: f64) -> String {
    match value.abs() {
        a if a == 0.0 || (1e-4..1e15).contains(&a) => format!("{value}"),
        _ => format!("{value:?}"),
    }
}

/// Every number of a recipe: its path, elements of lists by their names where they have one.
pub fn numbers(recipe: &Recipe) -> Vec<(Vec<String>, serde_yaml::Number)> {
    let mut all = Vec::new();
    if let Ok(value) = serde_yaml::to_value(recipe) {
        gather(&value, &mut Vec::new(), &mut all);
    }
    all
}

fn gather(value: &Value, path: &mut Vec<String>, all: &mut Vec<(Vec<String>, serde_yaml::Number)>) {
    let mut below = |part: String, value: &Value| {
        path.push(part);
        gather(value, path, all);
        path.pop();
    };
    match value {
        Value::Number(n) => all.push((path.clone(), n.clone())),
        Value::Mapping(map) => {
            for (key, value) in map {
                below(key.as_str().unwrap_or_default().to_owned(), value);
            }
        }
        Value::Sequence(list) => {
            for (i, value) in list.iter().enumerate() {
                let name = value.get("name").and_then(Value::as_str);
                below(name.map_or_else(|| i.to_string(), str::to_owned), value);
            }
        }
        _ => {}
    }
}

/// Numbers out of their ranges: message, which begins with the key, and hint.
pub(super) fn wrong(recipe: &Recipe) -> Vec<(String, Option<String>)> {
    let mut all = Vec::new();
    for (path, number) in numbers(recipe) {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let value = number.as_f64().unwrap_or(f64::NAN);
        let Some(range) = range_of(&parts).filter(|r| !r.holds(value)) else {
            continue;
        };
        let told = match number.is_f64() {
            true => shown(value),
            false => number.to_string(),
        };
        let message = format!("{}: {told} is not {range}", parts.join("."));
        all.push((message, range.hint.map(str::to_owned)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_what_they_hold() {
        let r = range(0.0, 1.0).above();
        assert_eq!(r.to_string(), "from above 0 to 1");
        assert!(r.holds(1.0) && r.holds(1e-300) && !r.holds(0.0) && !r.holds(f64::NAN));
        assert!(!r.holds(f64::INFINITY) && !r.holds(-0.0));
        assert_eq!(WEIGHT.to_string(), "from 1e-5 to 1000");
        assert_eq!(shown(1e300), "1e300");
        assert_eq!(shown(f64::NAN), "NaN");
        assert_eq!(shown(1e9), "1000000000");
        let optim = range_of(&["stages", "one", "optim", "steps"]).unwrap();
        assert_eq!(range_of(&["lm", "optim", "steps"]), Some(optim));
        assert_eq!(
            range_of(&["stages", "one", "sets", "a.b"]),
            Some(range_of(&["stages", "x", "sets", "y"]).unwrap())
        );
        assert_eq!(range_of(&["stages", "one"]), None);
    }
}
