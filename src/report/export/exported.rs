//! What is exported: a benchmark's results with what the prediction file adds to them, and what every format says of both.

use super::time::Moment;
use crate::benchmark::names::{Aggregation, Metric};
use crate::benchmark::Card;
use crate::fsutil::hex;
use crate::run::scored::{Scored, ScoredItem};
use serde_json::{json, Map, Value};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// One `results.json`, and whose predictions it scores.
pub(crate) struct Exported {
    /// The file.
    pub results: PathBuf,
    /// Of its bytes.
    pub sha256: String,
    /// When it was written.
    pub time: Moment,
    /// Whose predictions.
    pub model: String,
    /// What it says.
    pub scored: Scored,
    /// The benchmark's card, as it is known now.
    pub card: Card,
    /// Of that card's file.
    pub card_sha256: String,
    /// What was asked and answered, item by item; or why that is not known.
    pub texts: Result<Vec<Text>, NoTexts>,
    /// Predictions in which U+FFFD stands for half of a surrogate pair.
    pub mended: usize,
}

/// Why nothing is known of what was asked and answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoTexts {
    /// The results name no file of predictions.
    Unnamed,
    /// This one is not there.
    Gone(PathBuf),
}

impl NoTexts {
    /// In words; of the file its name, where it is to be told to others.
    fn public(&self) -> String {
        match self {
            NoTexts::Unnamed => self.to_string(),
            NoTexts::Gone(path) => NoTexts::Gone(path.file_name().unwrap_or_default().into()).to_string(),
        }
    }
}

impl std::fmt::Display for NoTexts {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            NoTexts::Unnamed => {
                f.write_str("these results do not name the prediction file: an older af2 has written them")
            }
            NoTexts::Gone(path) => write!(f, "{} is not there", path.display()),
        }
    }
}

/// What the prediction file says of an item.
pub(crate) struct Text {
    /// What it is about.
    pub clip: Option<String>,
    /// As it was asked.
    pub question: String,
    /// In the order in which they were shown.
    pub choices: Vec<String>,
    /// The right answer.
    pub target: String,
    /// Which choice that is, where the file says it by place.
    pub right: Option<usize>,
    /// What the model wrote.
    pub prediction: Option<String>,
    /// It ran into its most tokens.
    pub truncated: bool,
    /// Keys by which the benchmark counts, with the item's values.
    pub groups: Vec<(String, Vec<String>)>,
    /// The official record, without what the model has written into it.
    pub record: Option<Value>,
    /// What the model has written into it; null stands for the prediction.
    pub said: Map<String, Value>,
}

/// How the interval was made, in words.
pub(super) const INTERVAL: &str = "percentile bootstrap over clips, or over items where clips are not named";
/// How the standard error was made, in words.
pub(super) const STANDARD_ERROR: &str =
    "analytic: sample standard deviation of the items over the square root of n";
/// This program, as a harness.
pub(super) const HARNESS: &str = env!("CARGO_PKG_NAME");
pub(super) const HARNESS_VERSION: &str = env!("CARGO_PKG_VERSION");

impl Exported {
    /// Each item with its texts, where they are known.
    pub(super) fn items(&self) -> impl Iterator<Item = (&ScoredItem, Option<&Text>)> {
        let texts = self.texts.as_ref().ok();
        let items = self.scored.items.iter().enumerate();
        items.map(move |(i, item)| (item, texts.and_then(|all| all.get(i))))
    }

    /// The same of those that have them.
    pub(super) fn with_texts(&self) -> impl Iterator<Item = (&ScoredItem, &Text)> {
        self.items().filter_map(|(item, text)| Some((item, text?)))
    }

    /// The standard error of a mean over items, as lm-evaluation-harness and inspect compute it; other metrics have none.
    pub(super) fn standard_error(&self) -> Option<f64> {
        let mean = self.card.metric == Metric::Accuracy && self.card.aggregation == Aggregation::Micro;
        let own = self.scored.metric == Metric::Accuracy.name();
        let counted = || self.scored.items.iter().filter(|i| i.counted);
        let n = counted().count() as f64;
        let right = counted().filter(|i| i.correct).count() as f64;
        (mean && own && n > 1.0).then(|| {
            let share = right / n;
            (share * (1.0 - share) / (n - 1.0)).sqrt()
        })
    }

    /// The other kind of rule.
    pub(super) fn other_kind(&self) -> &'static str {
        match self.scored.kind.as_str() {
            "official" => "fair",
            _ => "official",
        }
    }

    /// A Hugging Face dataset that the card names as the benchmark's home.
    pub(super) fn hub_dataset(&self) -> Option<&str> {
        let url = self.card.citation.url.as_deref()?;
        let id = url
            .strip_prefix("https://huggingface.co/datasets/")?
            .trim_matches('/');
        (id.split('/').count() == 2).then_some(id)
    }

    /// All that `results.json` says beside its items, and of which harness it is: for the place that a format has for what it
    /// does not know. Files go by their names: where they lie is nobody's business.
    pub(super) fn facts(&self) -> Value {
        let s = &self.scored;
        let name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned());
        let predictions = s.predictions.as_ref().map(|p| {
            json!({
                "file": name(&p.path), "sha256": p.sha256, "form": p.form,
                "items": p.items.as_ref().and_then(name),
            })
        });
        let interval = s.interval.map(|i| {
            json!({
                "low": i.low, "high": i.high, "level": s.bootstrap.level, "method": INTERVAL,
                "resamples": s.bootstrap.resamples, "seed": s.bootstrap.seed,
            })
        });
        let error = self.standard_error();
        let error = error.map(|value| json!({"value": value, "method": STANDARD_ERROR}));
        json!({
            "harness": HARNESS,
            "harness_version": HARNESS_VERSION,
            "results_sha256": self.sha256,
            "date": self.time.iso(),
            "benchmark": s.benchmark,
            "name": s.name,
            "card_version": s.card.version,
            "card_sha256": s.card.sha256,
            "card_sha256_now": (self.card_sha256 != s.card.sha256).then_some(&self.card_sha256),
            "split": self.card.scored,
            "rule": s.rule,
            "kind": s.kind,
            "metric": s.metric,
            "higher_is_better": true,
            "score": s.score,
            "n": s.n,
            "items_expected": s.data.expected,
            "left_out": s.left_out,
            "unread": s.unread,
            "states": s.states,
            "interval": interval,
            "standard_error": error,
            "other": s.other,
            "parts": s.parts,
            "whole": s.whole,
            "categories": s.categories,
            "data": {"sha256": s.data.sha256, "known": s.data.known, "of": self.data_of()},
            "predictions": predictions,
            "mended_surrogates": self.mended,
            "without_texts": self.texts.as_ref().err().map(NoTexts::public),
        })
    }

    /// Of what the data's hash is: of a file, its name.
    pub(super) fn data_of(&self) -> &str {
        let of = self.scored.data.of.as_str();
        let named = self
            .scored
            .predictions
            .as_ref()
            .is_some_and(|p| p.items.is_some());
        if named {
            of.rsplit(['/', '\\']).next().unwrap_or(of)
        } else {
            of
        }
    }

    /// Made of the results and of what is asked for alone: the same results have the same ids.
    pub(super) fn id(&self, of: &str) -> [u8; 32] {
        let text = format!("{of}\0{}\0{}", self.model, self.sha256);
        Sha256::digest(text.as_bytes()).into()
    }
}

/// All that is known of an item and that no format has a place for. `eval/scoring/beside.rs` reads `id`, `clip`, `right`,
/// `truncated` and `groups` again.
pub(super) fn item_facts(item: &ScoredItem, text: &Text) -> Value {
    let groups: Map<String, Value> = text.groups.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    json!({
        "id": item.id,
        "state": item.state,
        "by": item.by,
        "answer": item.answer,
        "span": item.span,
        "correct": item.correct,
        "counted": item.counted,
        "reason": item.reason,
        "clip": text.clip,
        "right": text.right,
        "truncated": text.truncated,
        "groups": groups,
        "said": text.said,
    })
}

/// Of a text.
pub(super) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// A name as a part of a path: what some file system does not take becomes `_`, and no name is hidden, empty or too long.
pub(super) fn file_name(name: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "-.+@=".contains(c);
    let mut out: String = name.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    // A file's name may have 255 bytes.
    while out.len() > 100 {
        out.pop();
    }
    match out.starts_with('.') || out.is_empty() {
        true => format!("_{out}"),
        false => out,
    }
}
