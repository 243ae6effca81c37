//! How an answer is chosen: every setting in one place, under `transformers`' names and with its meaning.
//!
//! Reference: `GenerationConfig` of transformers 4.46.3, which the golden files were made with.

use crate::model::bounds::Wrong;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// A search wider than this is a slip.
const BEAMS: RangeInclusive<usize> = 1..=256;
const SEQUENCES: RangeInclusive<usize> = 1..=1024;
const TOKENS: RangeInclusive<usize> = 1..=65_536;
/// A score is divided by length^penalty: beyond this it is no number any more.
const MOST_LENGTH_PENALTY: f64 = 32.0;

/// When a beam search is done, once `num_beams` sequences have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(try_from = "Written", into = "Written")]
pub enum EarlyStopping {
    /// `false`: when the best running sum, divided by today's length, cannot beat the worst of them. A heuristic where the length
    /// penalty is positive, as longer sequences divide by more.
    #[default]
    #[value(name = "false")]
    Heuristic,
    /// `true`: at once.
    #[value(name = "true")]
    First,
    /// `never`: when nothing that may still come could beat the worst of them.
    #[value(name = "never")]
    Never,
}

/// As `generation_config.json` has it: true, false or "never".
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Bool(bool),
    Word(String),
}

impl TryFrom<Written> for EarlyStopping {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Bool(false) => Ok(EarlyStopping::Heuristic),
            Written::Bool(true) => Ok(EarlyStopping::First),
            Written::Word(word) if word == "never" => Ok(EarlyStopping::Never),
            Written::Word(word) => Err(format!(
                "early_stopping: expected true, false or never, found {word}"
            )),
        }
    }
}

impl From<EarlyStopping> for Written {
    fn from(value: EarlyStopping) -> Self {
        match value {
            EarlyStopping::Heuristic => Written::Bool(false),
            EarlyStopping::First => Written::Bool(true),
            EarlyStopping::Never => Written::Word("never".to_owned()),
        }
    }
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the k likeliest; 0 for all.
    pub top_k: usize,
    /// Only the likeliest that together reach this probability.
    pub top_p: f64,
    /// Only such as have at least this share of the likeliest one's probability.
    pub min_p: f64,
}

impl Sampling {
    /// Temperature 0, which the paper's benchmarks are run with.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };
}

/// All of it. The default is greedy, up to 256 tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decoding {
    /// Draws each token with [`Decoding::temperature`], `top_k`, `top_p` and `min_p`, which nothing else reads.
    pub do_sample: bool,
    /// Divides the logits before a draw.
    pub temperature: f64,
    /// Only the k likeliest; 0 for all.
    pub top_k: usize,
    /// Only the likeliest that together reach this probability; 1 for all.
    pub top_p: f64,
    /// Only such as have at least this share of the likeliest one's probability; 0 for all.
    pub min_p: f64,
    /// Beams of a beam search; 1 for none.
    pub num_beams: usize,
    /// A sequence's score is the sum of its log-probabilities divided by (number of new tokens)^this, the end counted.
    pub length_penalty: f64,
    /// When a beam search ends.
    pub early_stopping: EarlyStopping,
    /// The best of so many beams, or so many samples.
    pub num_return_sequences: usize,
    /// Scores of tokens that were there, in the prompt too, are divided by this where above 0, else multiplied; 1 for none.
    pub repetition_penalty: f64,
    /// No n tokens in a row twice, the prompt's among them; 0 for no such rule.
    pub no_repeat_ngram_size: usize,
    /// Before so many, no token that ends an answer is chosen. Stop strings end one all the same.
    pub min_new_tokens: usize,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Ends an answer when its text holds one of these; special tokens are text here.
    pub stop_strings: Vec<String>,
    /// End an answer beside the end of text.
    pub stop_token_ids: Vec<i64>,
    /// Of the samples; see [`super::sampling::Sampler::of`].
    pub seed: u64,
}

impl Default for Decoding {
    /// Where an answer is sampled, top-k 30 and top-p 0.95 are the released inference script's.
    fn default() -> Self {
        Decoding {
            do_sample: false,
            temperature: 1.0,
            top_k: 30,
            top_p: 0.95,
            min_p: 0.0,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            num_return_sequences: 1,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            min_new_tokens: 0,
            max_new_tokens: 256,
            stop_strings: Vec::new(),
            stop_token_ids: Vec::new(),
            seed: 0,
        }
    }
}

impl Decoding {
    /// The rule that draws, or takes the likeliest.
    pub fn sampling(&self) -> Sampling {
        match self.do_sample {
            false => Sampling::GREEDY,
            true => Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
            },
        }
    }

    /// What a sequence is worth. `sum` of its log-probabilities, `tokens` of them.
    pub fn score(&self, sum: f64, tokens: usize) -> f64 {
        sum / (tokens as f64).powf(self.length_penalty)
    }

    /// All settings that cannot be, under their names here, or cannot be together.
    pub fn check(&self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let mut must = |key: &str, fits: bool, expected: &str, found: String| {
            if !fits {
                wrong.push(Wrong {
                    key: key.to_owned(),
                    expected: expected.to_owned(),
                    found,
                });
            }
        };
        let mut number = |key: &str, value: f64, fits: bool, expected: &str| {
            must(key, value.is_finite() && fits, expected, value.to_string());
        };
        let (t, p, m) = (self.temperature, self.top_p, self.min_p);
        number(
            "temperature",
            t,
            t > 0.0 || (t == 0.0 && !self.do_sample),
            "a number above 0",
        );
        number("top_p", p, p > 0.0 && p <= 1.0, "a number above 0, at most 1");
        number("min_p", m, (0.0..=1.0).contains(&m), "a number from 0 to 1");
        let (length, repeated) = (self.length_penalty, self.repetition_penalty);
        let fits = length.abs() <= MOST_LENGTH_PENALTY;
        number("length_penalty", length, fits, "a number from -32 to 32");
        number("repetition_penalty", repeated, repeated > 0.0, "a number above 0");
        let mut count = |key: &str, value: usize, bounds: RangeInclusive<usize>| {
            let expected = format!("{} to {}", bounds.start(), bounds.end());
            must(key, bounds.contains(&value), &expected, value.to_string());
        };
        count("num_beams", self.num_beams, BEAMS);
        count("num_return_sequences", self.num_return_sequences, SEQUENCES);
        count("max_new_tokens", self.max_new_tokens, TOKENS);
        count("min_new_tokens", self.min_new_tokens, 0..=self.max_new_tokens);
        let (beams, several) = (self.num_beams, self.num_return_sequences);
        must(
            "num_beams",
            beams <= 1 || !self.do_sample,
            "1 where tokens are drawn: a beam search takes the likeliest",
            beams.to_string(),
        );
        must(
            "num_return_sequences",
            beams <= 1 || several <= beams,
            &format!("at most num_beams, {beams}"),
            several.to_string(),
        );
        must(
            "num_return_sequences",
            beams > 1 || self.do_sample || several <= 1,
            "1 without beams and without a temperature, as the likeliest answer is one",
            several.to_string(),
        );
        let empty = self.stop_strings.iter().any(String::is_empty);
        must("stop_strings", !empty, "texts", "an empty one".to_owned());
        wrong
    }

    /// Stop tokens that a vocabulary of `len` ids does not have.
    pub(crate) fn check_vocabulary(&self, len: usize) -> Option<Wrong> {
        let known = |id: &&i64| usize::try_from(**id).is_ok_and(|id| id < len);
        self.stop_token_ids.iter().find(|id| !known(id)).map(|id| Wrong {
            key: "stop_token_ids".to_owned(),
            expected: format!("ids below {len}, the vocabulary's size"),
            found: id.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys and values that an evaluation is told apart by.
    #[test]
    fn the_default_is_greedy_and_is_written_under_transformers_names() {
        let written = serde_json::to_value(Decoding::default()).unwrap();
        let expected = serde_json::json!({
            "do_sample": false, "temperature": 1.0, "top_k": 30, "top_p": 0.95, "min_p": 0.0, "num_beams": 1,
            "length_penalty": 1.0, "early_stopping": false, "num_return_sequences": 1, "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0, "min_new_tokens": 0, "max_new_tokens": 256, "stop_strings": [], "stop_token_ids": [],
            "seed": 0,
        });
        assert_eq!(written, expected);
        assert_eq!(
            serde_json::from_value::<Decoding>(expected).unwrap(),
            Decoding::default()
        );
        assert_eq!(Decoding::default().sampling(), Sampling::GREEDY);
        assert_eq!(Decoding::default().check(), []);
        for (text, value) in [
            ("true", EarlyStopping::First),
            ("false", EarlyStopping::Heuristic),
            ("\"never\"", EarlyStopping::Never),
        ] {
            assert_eq!(serde_json::from_str::<EarlyStopping>(text).unwrap(), value);
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        let e = serde_json::from_str::<EarlyStopping>("\"always\"").unwrap_err();
        assert!(
            e.to_string()
                .contains("expected true, false or never, found always"),
            "{e}"
        );
        let e = serde_json::from_str::<Decoding>("{\"beams\": 3}").unwrap_err();
        assert!(e.to_string().contains("unknown field `beams`"), "{e}");
    }

    #[test]
    fn what_cannot_be_is_named() {
        type Change = fn(&mut Decoding);
        let cases: [(Change, &str); 22] = [
            (|d| (d.do_sample, d.temperature) = (true, 0.0), "temperature"),
            (|d| d.temperature = -1.0, "temperature"),
            (|d| d.temperature = f64::NAN, "temperature"),
            (|d| d.top_p = 0.0, "top_p"),
            (|d| d.top_p = 1.1, "top_p"),
            (|d| d.min_p = -0.1, "min_p"),
            (|d| d.min_p = 1.5, "min_p"),
            (|d| d.num_beams = 0, "num_beams"),
            (|d| d.num_beams = 1 << 20, "num_beams"),
            (|d| (d.num_beams, d.do_sample) = (2, true), "num_beams"),
            (|d| d.length_penalty = f64::INFINITY, "length_penalty"),
            (|d| d.length_penalty = 1e3, "length_penalty"),
            (|d| d.num_return_sequences = 0, "num_return_sequences"),
            (|d| d.num_return_sequences = 2, "num_return_sequences"),
            (
                |d| (d.num_beams, d.num_return_sequences) = (3, 4),
                "num_return_sequences",
            ),
            (|d| d.repetition_penalty = 0.0, "repetition_penalty"),
            (|d| d.repetition_penalty = f64::NAN, "repetition_penalty"),
            (|d| d.max_new_tokens = 0, "max_new_tokens"),
            (|d| d.max_new_tokens = usize::MAX, "max_new_tokens"),
            (|d| d.min_new_tokens = 257, "min_new_tokens"),
            (|d| d.stop_strings = vec![String::new()], "stop_strings"),
            (
                |d| (d.do_sample, d.num_return_sequences) = (true, 5000),
                "num_return_sequences",
            ),
        ];
        for (change, key) in cases {
            let mut decoding = Decoding::default();
            change(&mut decoding);
            let wrong = decoding.check();
            assert!(wrong.iter().any(|w| w.key == key), "{key}: {wrong:?}");
        }
        let fine = Decoding {
            num_beams: 4,
            num_return_sequences: 4,
            length_penalty: -1.0,
            early_stopping: EarlyStopping::Never,
            stop_token_ids: vec![9, -1],
            ..Decoding::default()
        };
        assert_eq!(fine.check(), []);
        assert_eq!(fine.check_vocabulary(9).unwrap().found, "9");
        assert_eq!(fine.check_vocabulary(10).unwrap().found, "-1");
    }
}
