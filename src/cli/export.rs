//! `af2 export`

use super::parts;
use crate::benchmark::{Card, Registry};
use crate::error::{Error, Result};
use crate::eval::scoring::{self, Sample};
use crate::fsutil::{hex, sha256};
use crate::report::export::{write, Exported, Format, Hub, Moment, NoTexts, Options, Relationship, Text};
use crate::report::paper::Measured;
use crate::run::scored::Scored;
use clap::Args;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// results.json of `af2 score --benchmark … --out`, or folders below which they lie.
    #[arg(required = true, value_name = "RUN_OR_RESULTS")]
    results: Vec<PathBuf>,
    /// Whose form.
    #[arg(long, value_enum)]
    format: Format,
    /// The folder of the files; of inspect also one log, FILE.eval or FILE.json.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Whose predictions these are, where the results do not say it or say it otherwise: ORGANIZATION/NAME on Hugging Face.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The folder of cards of your own that the results were scored by.
    #[arg(long, value_name = "DIR")]
    cards: Option<PathBuf>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
    /// eee: the organization that provides the data.
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// eee: who has evaluated, beside who has made the model.
    #[arg(long, value_enum, value_name = "WHO")]
    evaluator: Option<Relationship>,
    /// hf: the dataset on the Hub that is this benchmark, for .eval_results.
    #[arg(long, value_name = "ORGANIZATION/NAME[@REVISION]", requires = "hub_task")]
    hub_dataset: Option<String>,
    /// hf: the task in that dataset's eval.yaml.
    #[arg(long, value_name = "ID", requires = "hub_dataset")]
    hub_task: Option<String>,
}

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    let eee = args.organization.is_some() || args.evaluator.is_some();
    let misplaced = match args.format {
        Format::Eee => args
            .hub_dataset
            .is_some()
            .then_some("--hub-dataset is for --format hf"),
        Format::Hf => eee.then_some("--organization and --evaluator are for --format eee"),
        _ if eee => Some("--organization and --evaluator are for --format eee"),
        _ => args
            .hub_dataset
            .is_some()
            .then_some("--hub-dataset is for --format hf"),
    };
    if let Some(what) = misplaced {
        return Err(Error::usage(what));
    }
    let options = Options {
        organization: args.organization.clone(),
        relationship: args.evaluator.unwrap_or_default(),
        hub: hub(args)?,
        force: args.force,
    };
    let registry = Registry::with(args.cards.as_deref())?;
    let mut all = Vec::new();
    for (file, scored) in found(&args.results)? {
        all.push(exported(file, scored, &registry, args.model.as_deref())?);
    }
    for e in &all {
        say(e, args.format);
    }
    let written = write(args.format, &all, &args.out, &options)?;
    parts::say(&written.notes);
    for file in &written.files {
        crate::out!("{}", file.display());
    }
    Ok(())
}

fn hub(args: &ExportArgs) -> Result<Option<Hub>> {
    let (Some(dataset), Some(task)) = (&args.hub_dataset, &args.hub_task) else {
        return Ok(None);
    };
    let (id, revision) = match dataset.split_once('@') {
        Some((id, revision)) => (id, Some(revision.to_owned())),
        None => (dataset.as_str(), None),
    };
    if id.split('/').filter(|p| !p.is_empty()).count() != 2 || id.split('/').count() != 2 {
        let message = format!(
            "--hub-dataset: expected ORGANIZATION/NAME, found `{}`",
            crate::error::short(dataset)
        );
        return Err(Error::usage(message));
    }
    Ok(Some(Hub {
        dataset: id.to_owned(),
        task: task.clone(),
        revision,
    }))
}

/// What is asked for, in its order and each once; of a folder all that lie below it.
fn found(asked: &[PathBuf]) -> Result<Vec<(PathBuf, Scored)>> {
    let mut all: Vec<(PathBuf, Scored)> = Vec::new();
    for path in asked {
        if !path.is_dir() {
            let scored = Scored::read(path).map_err(of_another_verb)?;
            all.push((path.clone(), scored));
            continue;
        }
        let measured = Measured::below(path);
        if let Some(reason) = measured.unreadable.first() {
            let others = measured.unreadable.len() - 1;
            let more = if others > 0 {
                format!(" (and {others} more)")
            } else {
                String::new()
            };
            return Err(Error::data(
                path,
                "results.json",
                "files that can be read",
                format!("{reason}{more}"),
            ));
        }
        let before = all.len();
        all.extend(measured.into_all());
        if all.len() == before {
            let expected = "results.json of `af2 score --benchmark` in it or below it";
            let e = Error::data(path, "results.json", expected, "none");
            return Err(e.hint(SCORE));
        }
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|(path, _)| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    Ok(all)
}

const SCORE: &str =
    "`af2 score --benchmark NAME --predictions FILE --out DIR` writes it, of a run's predictions.jsonl too";

/// `af2 eval` writes a results.json as well.
fn of_another_verb(e: Error) -> Error {
    match e {
        Error::Data { .. } => e.hint(SCORE),
        other => other,
    }
}

fn exported(file: PathBuf, scored: Scored, registry: &Registry, model: Option<&str>) -> Result<Exported> {
    let Some(model) = model
        .or(scored.model.as_deref())
        .map(str::trim)
        .filter(|m| !m.is_empty())
    else {
        let e = Error::data(&file, "model", "whose predictions these are", "nothing");
        return Err(e.hint("--model NAME, here or already with `af2 score`"));
    };
    let model = model.to_owned();
    let entry = registry.entry(&scored.benchmark).map_err(|e| match e {
        Error::Usage { message, .. } => {
            Error::data(&file, "benchmark", "a card", message).hint("--cards DIR, as with `af2 score`")
        }
        other => other,
    })?;
    let card = entry.card()?;
    let (texts, mended) = match texts(&file, &scored, &card)? {
        Ok((texts, mended)) => (Ok(texts), mended),
        Err(why) => (Err(why), 0),
    };
    Ok(Exported {
        sha256: sha256(&file)?,
        time: Moment::of_file(&file)?,
        model,
        card_sha256: hex(&Sha256::digest(entry.text.as_bytes())),
        card,
        texts,
        mended,
        scored,
        results: file,
    })
}

/// The items' texts and in how many of them a character was replaced; or why there are none.
///
/// # Errors
/// Files that are not those that were scored.
fn texts(results: &Path, scored: &Scored, card: &Card) -> Result<Result<(Vec<Text>, usize), NoTexts>> {
    let Some(of) = &scored.predictions else {
        return Ok(Err(NoTexts::Unnamed));
    };
    let near = |path: &PathBuf| {
        let folder = results.parent().unwrap_or(Path::new(""));
        Some(folder.join(path))
            .filter(|p| p.exists())
            .unwrap_or_else(|| path.clone())
    };
    let (path, items) = (near(&of.path), of.items.as_ref().map(near));
    for file in std::iter::once(&path).chain(&items) {
        if !file.exists() {
            return Ok(Err(NoTexts::Gone(file.clone())));
        }
    }
    unchanged(results, &path, &of.sha256)?;
    if let Some(items) = &items {
        unchanged(results, items, &scored.data.sha256)?;
    }
    let opened = scoring::open(&path)?;
    let records = opened.records()?;
    let mended = records.mended;
    let opened_items = items.as_deref().map(scoring::open).transpose()?;
    let beside = match (&items, &opened_items) {
        (Some(items), Some(opened)) => Some((items.as_path(), opened.records()?)),
        _ => None,
    };
    let samples = scoring::samples(&path, records, beside, card)?.all;
    let other = |found: String| {
        let e = Error::data(results, "items", format!("those of {}", path.display()), found);
        e.hint("another af2 has read them otherwise: score the predictions again")
    };
    if samples.len() != scored.items.len() {
        return Err(other(format!("{} and not {}", scored.items.len(), samples.len())));
    }
    if let Some((item, sample)) = scored.items.iter().zip(&samples).find(|(i, s)| i.id != s.id) {
        let (a, b) = (crate::error::short(&item.id), crate::error::short(&sample.id));
        return Err(other(format!("`{a}` in the place of `{b}`")));
    }
    Ok(Ok((samples.into_iter().map(text).collect(), mended)))
}

/// Fails where a file is not the one that was scored.
fn unchanged(results: &Path, file: &Path, expected: &str) -> Result<()> {
    let found = sha256(file)?;
    if found == expected {
        return Ok(());
    }
    let was = format!("{expected}, of which {} was made", results.display());
    let e = Error::data(file, "sha256", was, found);
    Err(e.hint("bring that file back, or score this one: `af2 score --benchmark … --out DIR`"))
}

fn text(sample: Sample) -> Text {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in sample.groups {
        match groups.iter_mut().find(|(own, _)| own == key) {
            Some((_, values)) => values.push(value.into_owned()),
            None => groups.push((key.to_owned(), vec![value.into_owned()])),
        }
    }
    let (record, said) = match sample.record.map(|r| r.to_value()) {
        Some(Value::Object(record)) if sample.prediction.is_some() => {
            let (mut own, mut said) = scoring::parted(&record);
            // One that holds nothing has nothing of the model's.
            own.extend(
                said.iter()
                    .filter(|(_, v)| v.is_null())
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
            said.retain(|_, v| !v.is_null());
            for value in said.values_mut() {
                if value.as_str() == sample.prediction.as_deref() {
                    *value = Value::Null;
                }
            }
            (Some(Value::Object(own)), said)
        }
        // What a model has written there is no text, and stays as it is.
        other => (other, Map::new()),
    };
    Text {
        clip: sample.clip.map(Cow::into_owned),
        question: sample.question.into_owned(),
        choices: sample.choices,
        target: sample.answer.into_owned(),
        right: sample.right,
        prediction: sample.prediction.map(Cow::into_owned),
        truncated: sample.truncated,
        groups,
        record,
        said,
    }
}

/// What a user must know of one of them.
fn say(e: &Exported, format: Format) {
    let file = e.results.display();
    if let Err(why) = &e.texts {
        let left = match format {
            Format::Eee | Format::LmEval => "scores alone are exported, and no items",
            Format::Inspect => "scores and verdicts are exported, and no samples",
            // It holds no items in any case.
            Format::Hf => "the scores are exported",
        };
        crate::say!("note: {file}: {why}: {left}");
    }
    if e.mended > 0 && format != Format::Hf {
        crate::say!(
            "note: {file}: {} predictions hold half of a surrogate pair, which is no text; U+FFFD stands in its place",
            e.mended
        );
    }
    if e.card_sha256 != e.scored.card.sha256 {
        crate::say!(
            "note: {file}: scored by another file of the card {}; what is said of the benchmark is today's card's",
            e.scored.benchmark
        );
    }
}
