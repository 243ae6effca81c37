//! What a card says. Every key stands in the table of `docs/benchmarks.md`.

use super::names::{Aggregation, Format, Mark, Metric, Options, Rule, Task, Unit};
use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};

/// A benchmark: what is asked, of which items, how answers are read and scored, and what others have reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// In small letters, digits, `-` and `.`; the file is called so.
    pub name: String,
    /// Other names that it is asked for by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Of the card, from 1: another one says other things.
    pub version: u32,
    /// For people.
    pub title: String,
    /// What is measured, in a sentence or two.
    pub about: String,
    /// Why a card of one's own stands in the place of the one that is built in.
    #[serde(default)]
    pub overrides: Option<String>,
    /// What the model is asked to do.
    pub task: Task,
    /// What must be heard: `sound`, `music`, `speech`.
    pub skills: Vec<Skill>,
    /// Whether the paper says that AF2 left the set out of every stage of its training.
    pub held_out: bool,
    /// The rows of the paper's tables that it fills.
    pub paper: Vec<PaperRow>,
    /// The parts of the set.
    pub splits: Vec<Split>,
    /// The split that is scored.
    pub scored: String,
    /// Ways to divide the scored split.
    #[serde(default)]
    pub categories: Vec<Categories>,
    /// The form of the official files.
    pub official_format: Format,
    /// What an importer must know of these files beside their form.
    #[serde(default)]
    pub format_notes: Vec<String>,
    /// The official files.
    pub files: Vec<OfficialFile>,
    /// How to get files and sounds.
    pub obtain: String,
    /// `unknown` where nobody looked.
    pub licence: String,
    /// How an item becomes a question.
    pub prompt: Prompt,
    /// How options stand in it.
    pub options: Options,
    /// The set of labels, where all items share one.
    #[serde(default)]
    pub labels: Option<Labels>,
    /// How answers are made; none where embeddings are compared.
    #[serde(default)]
    pub decoding: Option<Decoding>,
    /// How they are read; none where embeddings are compared.
    #[serde(default)]
    pub rules: Option<Rules>,
    /// What is made of them.
    pub metric: Metric,
    /// What else is reported.
    #[serde(default)]
    pub also: Vec<Metric>,
    /// The k of `recall_at_k`.
    #[serde(default)]
    pub cutoffs: Vec<u32>,
    /// How items become one number.
    pub aggregation: Aggregation,
    /// For `macro`: the `by` of the categories whose means are averaged.
    #[serde(default)]
    pub over: Option<String>,
    /// The probability of a right guess, from 0 to 1.
    pub chance: Fact<f64>,
    /// What answers get that do not depend on the sound.
    pub constant: Constant,
    /// Who marks free text, and how.
    #[serde(default)]
    pub judge: Option<Judge>,
    /// In what `numbers` are written.
    pub unit: Unit,
    /// What was reached.
    pub numbers: Numbers,
    /// The benchmark's own paper.
    pub citation: Citation,
    /// What in this card was checked against what.
    pub checks: Vec<String>,
    /// What is known to be wrong with the set or with its rule.
    #[serde(default)]
    pub defects: Vec<Defect>,
}

/// What must be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skill {
    /// Sounds that are neither speech nor music.
    Sound,
    /// Music.
    Music,
    /// Speech: its words, its speaker, how it is said.
    Speech,
}

impl Skill {
    /// As it stands in a card.
    pub fn name(self) -> &'static str {
        match self {
            Skill::Sound => "sound",
            Skill::Music => "music",
            Skill::Speech => "speech",
        }
    }
}

/// A value and how well it is known; no value has a reason instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Fact<T> {
    /// `null` where it is not known.
    #[serde(deserialize_with = "said")]
    pub value: Option<T>,
    /// How well it is known.
    #[serde(default)]
    pub mark: Option<Mark>,
    /// Where it was found.
    #[serde(default)]
    pub source: Option<String>,
    /// What to know about it.
    #[serde(default)]
    pub note: Option<String>,
    /// Why it is not known.
    #[serde(default)]
    pub why: Option<String>,
}

/// The key must be there; its value may be `null`.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// A row of a table of the paper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperRow {
    /// The table's number.
    pub table: u32,
    /// What the row or column is called there.
    pub row: String,
}

/// A part of a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The owner's name for it.
    pub name: String,
    /// Questions; of a caption or label task, clips.
    pub items: Fact<u64>,
    /// Sounds, where they are fewer than the items.
    #[serde(default)]
    pub clips: Option<Fact<u64>>,
    /// Reference texts an item.
    #[serde(default)]
    pub references: Option<u32>,
    /// Which rows of the official files belong to it: a field's name to the values that it may have.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub filter: IndexMap<String, Vec<String>>,
    /// The same in words, where no field says it.
    #[serde(default)]
    pub select: Option<String>,
}

/// The scored split, divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Categories {
    /// By what: a field of the items, or `choices`, how many of them an item has.
    pub by: String,
    /// Category to items; `null` where they were not counted. All that are known add up to the split.
    pub of: IndexMap<String, Option<u64>>,
    /// How well the counts are known; none where there are none.
    #[serde(default)]
    pub mark: Option<Mark>,
    /// Where they were found.
    #[serde(default)]
    pub source: Option<String>,
    /// What to know about them.
    #[serde(default)]
    pub note: Option<String>,
    /// Why some are not known.
    #[serde(default)]
    pub why: Option<String>,
}

/// A file of the owner's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfficialFile {
    /// As the owner calls it.
    pub name: String,
    /// Repository and commit, archive or page.
    pub from: String,
    /// How well its name and place are known.
    pub mark: Mark,
    /// Of its bytes, in 64 small hexadecimal digits.
    #[serde(deserialize_with = "said")]
    pub sha256: Option<String>,
    /// What of it is known.
    #[serde(default)]
    pub sha256_begins: Option<String>,
    /// Why not the whole.
    #[serde(default)]
    pub why: Option<String>,
}

/// How an item becomes a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// With `{prompt}`, one of the pool, and the item's `{question}`, `{options}`, `{caption}`, `{hypothesis}`, or each `{label}`.
    pub template: String,
    /// Ways to ask the same; empty where each item brings its own question.
    pub pool: Vec<String>,
    /// Which of them is asked, from 0.
    pub chosen: usize,
    /// How many the paper's pool has.
    #[serde(default)]
    pub pool_in_paper: Option<Fact<u64>>,
    /// How well wording and choice are known to be those of the paper's figures.
    pub mark: Mark,
    /// Where they were found.
    pub source: String,
    /// What was decided here, and why.
    #[serde(default)]
    pub note: Option<String>,
}

/// The labels that all items share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// As they are compared; `null` where they are read from the official files.
    #[serde(deserialize_with = "said")]
    pub of: Option<Vec<String>>,
    /// How many there are.
    pub count: u64,
    /// What is embedded of a label where answers are compared with labels so, with `{label}` in its place; of several the mean.
    /// None: the label as it stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// How well they are known.
    pub mark: Mark,
    /// Where they were found.
    pub source: String,
    /// Why they do not stand here.
    #[serde(default)]
    pub why: Option<String>,
}

/// How answers are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoding {
    /// 0 is greedy.
    pub temperature: f64,
    /// Most tokens of an answer.
    pub max_new_tokens: u32,
    /// Beams; 1 is no beam search.
    pub num_beams: u32,
    /// How well these are known to be the paper's.
    pub mark: Mark,
    /// Where they were found.
    pub source: String,
    /// What to know about them.
    #[serde(default)]
    pub note: Option<String>,
}

/// How answers are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// As the owner's own scorer, or the paper, reads them.
    pub official: Rule,
    /// What an attentive reader would count.
    pub fair: Rule,
    /// How well the official rule is known.
    pub mark: Mark,
    /// Where it was found.
    pub source: String,
    /// What to know about it.
    #[serde(default)]
    pub note: Option<String>,
}

/// Scores, from 0 to 1, of answers that do not depend on the sound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// Always the first option.
    #[serde(deserialize_with = "said")]
    pub first: Option<f64>,
    /// Always the longest.
    #[serde(deserialize_with = "said")]
    pub longest: Option<f64>,
    /// Always the shortest.
    #[serde(deserialize_with = "said")]
    pub shortest: Option<f64>,
    /// Why one of them is not known.
    #[serde(default)]
    pub why: Option<String>,
}

/// Who marks free text, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// `null` where nobody says.
    #[serde(deserialize_with = "said")]
    pub model: Option<String>,
    /// Our words for it: a file of `data-manifests/judges`, without its ending.
    #[serde(default)]
    pub prompt: Option<String>,
    /// The lowest and the highest mark.
    pub scale: [f64; 2],
    /// What it is given and asked, in our words.
    pub protocol: String,
    /// What it answers with.
    pub answer: String,
    /// `null` where nobody says.
    #[serde(deserialize_with = "said")]
    pub temperature: Option<f64>,
    /// How often each answer is marked.
    pub runs: u32,
    /// How well all this is known.
    pub mark: Mark,
    /// Where it was found.
    pub source: String,
    /// What to know about it.
    #[serde(default)]
    pub note: Option<String>,
}

/// What was reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// AF2's, in Tables 7 and 10 AF-CLAP's, by its authors: the paper's, or where it has none what they said elsewhere.
    pub paper: Number,
    /// What the paper calls the state of the art before it, or the best that stood beside it.
    #[serde(deserialize_with = "said")]
    pub previous: Option<Number>,
    /// What came after it, and other readings.
    pub later: Vec<Number>,
}

/// A published number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// Whose.
    pub model: String,
    /// In the card's `unit`, of its `metric` unless a note says otherwise.
    #[serde(deserialize_with = "said")]
    pub value: Option<f64>,
    /// Beside it: other metrics, directions, categories.
    #[serde(default)]
    pub parts: IndexMap<String, f64>,
    /// Year and month, where it matters.
    #[serde(default)]
    pub date: Option<String>,
    /// How well it is known to be what was published.
    #[serde(default)]
    pub mark: Option<Mark>,
    /// Where it was found.
    #[serde(default)]
    pub source: Option<String>,
    /// What to know about it.
    #[serde(default)]
    pub note: Option<String>,
    /// Why there is none.
    #[serde(default)]
    pub why: Option<String>,
}

/// The benchmark's own paper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Citation {
    /// BibTeX.
    pub key: String,
    /// `2503.03983`
    #[serde(default)]
    pub arxiv: Option<String>,
    /// Page or repository.
    #[serde(default)]
    pub url: Option<String>,
    /// Why there is neither.
    #[serde(default)]
    pub why: Option<String>,
}

/// What is wrong, with which items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defect {
    /// A short name for its kind, such as `coinciding_options`.
    pub class: String,
    /// How many items have it.
    pub count: Fact<u64>,
    /// Their ids, where they are known.
    #[serde(default)]
    pub items: Vec<String>,
    /// What it does to a score.
    pub effect: String,
}

impl Card {
    /// The split that is scored.
    pub fn scored_split(&self) -> Option<&Split> {
        self.splits.iter().find(|split| split.name == self.scored)
    }

    /// How many items a score is over, where that is known.
    pub fn items(&self) -> Option<u64> {
        self.scored_split()?.items.value
    }

    /// The question for an item: the chosen prompt's, with the item's own texts in their places.
    pub fn asked(&self) -> String {
        let chosen = self.prompt.pool.get(self.prompt.chosen);
        self.prompt
            .template
            .replace("{prompt}", chosen.map_or("", String::as_str))
    }
}
