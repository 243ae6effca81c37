//! A number for each label: mAP where a clip has several, the likeliest label where it has one. How a model comes to such numbers is
//! its own affair; a generated text has none.

use super::loaded::{load, Row};
use super::{named, tagged, Source, VERSION};
use crate::benchmark::names::{Metric, Task};
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::eval::rules::{RuleName, State};
use crate::fsutil::hex;
use crate::load::TextSpace;
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::ranking::Tags;
use crate::metrics::statistics::clusters::Clusters;
use crate::run::scored::{CardFacts, Data, Scored, ScoredItem};
use indexmap::IndexMap;
use ndarray::Array2;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// A model's numbers, from this one on, find a label: for F1.
const THRESHOLD: f64 = 0.5;
/// Each goes over all clips and labels.
const RESAMPLES: usize = 1_000;
const HINT: &str = "a line is {\"id\": \"clip-1\", \"scores\": {\"dog\": 0.9, \"rain\": 0.2}, \"truth\": [\"dog\"]}; with --items the \
                    truth is the item's output";

struct Clip {
    id: String,
    scores: Vec<f64>,
    truth: Vec<usize>,
    /// Of a text: whether it names anything.
    said: bool,
}

struct Read {
    labels: Vec<String>,
    clips: Vec<Clip>,
    mended: usize,
    /// Whether the numbers were made of texts.
    texts: bool,
}

/// Scores `{"id", "scores", "truth"}` records by a card, and says in how many of them half of a surrogate pair was replaced. With a
/// `tower` also texts that name labels, by how near they are to each.
///
/// # Errors
/// The first record without a number for each label, or whose truth is no label; the tower's.
pub fn classes(
    card: &Card,
    path: &Path,
    items: Option<&Path>,
    tower: Option<&TextSpace>,
    source: Source,
    bootstrap: Bootstrap,
) -> Result<(Scored, usize)> {
    let read = read(card, path, items, tower)?;
    let several = card.metric == Metric::MeanAveragePrecision;
    if !several {
        if let Some(clip) = read.clips.iter().find(|clip| clip.truth.len() != 1) {
            let found = clip.truth.len().to_string();
            return Err(Error::data(path, format!("{:?}", clip.id), "one true label", found).hint(HINT));
        }
    }
    let bootstrap = match several {
        true => Bootstrap {
            resamples: bootstrap.resamples.min(RESAMPLES),
            ..bootstrap
        },
        false => bootstrap,
    };
    let n = read.clips.len();
    let best: Vec<usize> = read.clips.iter().map(|clip| likeliest(&clip.scores)).collect();
    let (mut parts, mut intervals) = (IndexMap::new(), IndexMap::new());
    let mut items = Vec::with_capacity(n);
    let (score, interval): (Option<f64>, Option<Interval>) = match several {
        true => {
            let tags = tags(&read)?;
            let map = tags.average_precision();
            let [of_map, of_auc] = tags.intervals(&bootstrap)?;
            let ranking = tags.label_ranking();
            let f1 = tags.f1(THRESHOLD);
            parts.insert("map".to_owned(), map.mean);
            parts.extend(map.mean_present.map(|v| ("map_present".to_owned(), v)));
            parts.extend(tags.roc_auc().mean.map(|v| ("roc_auc".to_owned(), v)));
            parts.extend(crate::metrics::mean(&ranking).map(|v| (RANKING.to_owned(), v)));
            parts.insert(format!("macro_f1_at_{THRESHOLD}"), f1.mean);
            parts.insert(format!("micro_f1_at_{THRESHOLD}"), f1.micro);
            intervals.extend(of_map.map(|i| ("map".to_owned(), i)));
            intervals.extend(of_auc.map(|i| ("roc_auc".to_owned(), i)));
            intervals.insert(RANKING.to_owned(), bootstrap.interval(&ranking)?);
            for (clip, value) in read.clips.iter().zip(ranking) {
                let mut own = item(clip, None, false);
                own.scores.insert(RANKING.to_owned(), Some(value));
                items.push(own);
            }
            (Some(map.mean), of_map)
        }
        false => {
            let right = |(clip, best): (&Clip, &usize)| clip.truth.first() == Some(best);
            let right: Vec<bool> = read.clips.iter().zip(&best).map(right).collect();
            for ((clip, best), right) in read.clips.iter().zip(&best).zip(&right) {
                items.push(item(clip, Some(read.labels[*best].clone()), *right));
            }
            let values = right.iter().map(|r| f64::from(u8::from(*r)));
            let clusters = Clusters::of(values.clone().enumerate())?;
            let share = values.sum::<f64>() / n as f64;
            (Some(share), Some(bootstrap.clustered_mean(&clusters)?))
        }
    };
    let scored = Scored {
        benchmark: card.name.clone(),
        name: named(card, n),
        card: CardFacts {
            version: card.version,
            sha256: source.card_sha256.clone(),
        },
        model: source.model.clone(),
        rule: match (read.texts, several) {
            (true, _) => RuleName::ClapLabel.name(),
            (false, true) => "scores",
            (false, false) => "likeliest_label",
        }
        .to_owned(),
        kind: "official".to_owned(),
        other: None,
        metric: card.metric.name().to_owned(),
        predictions: source.predictions.clone(),
        space: source.space.clone().filter(|_| read.texts),
        data: data(card, &read, source),
        n,
        score,
        interval,
        parts,
        intervals,
        not_scored: IndexMap::new(),
        bert_score: None,
        frame: None,
        condition: None,
        listening: None,
        corrected: None,
        judge: None,
        af2: Some(VERSION.to_owned()),
        bootstrap,
        states: states(&read),
        unread: Some(read.clips.iter().filter(|clip| !clip.said).count() as f64 / n as f64),
        left_out: 0,
        whole: None,
        categories: IndexMap::new(),
        items,
    };
    Ok((scored, read.mended))
}

/// A clip's own average precision over its labels.
const RANKING: &str = "label_ranking_average_precision";

fn item(clip: &Clip, answer: Option<String>, correct: bool) -> ScoredItem {
    ScoredItem {
        id: clip.id.clone(),
        state: state(clip).into(),
        answer,
        span: None,
        correct,
        counted: true,
        by: "scores".into(),
        reason: None,
        clip: None,
        nearest: None,
        scores: IndexMap::new(),
    }
}

fn state(clip: &Clip) -> &'static str {
    if clip.said { State::Answered } else { State::Empty }.name()
}

fn states(read: &Read) -> IndexMap<String, usize> {
    let mut states = IndexMap::new();
    for clip in &read.clips {
        *states.entry(state(clip).to_owned()).or_default() += 1;
    }
    states
}

/// Of equals the first.
fn likeliest(scores: &[f64]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (0..scores.len()).fold(0, better)
}

fn tags(read: &Read) -> Result<Tags> {
    let shape = (read.clips.len(), read.labels.len());
    let mut truth = Array2::zeros(shape);
    let mut scores = Array2::zeros(shape);
    for (row, clip) in read.clips.iter().enumerate() {
        clip.truth.iter().for_each(|at| truth[[row, *at]] = 1.0);
        for (at, value) in clip.scores.iter().enumerate() {
            scores[[row, at]] = *value;
        }
    }
    Tags::new(scores, &truth)
}

fn read(card: &Card, path: &Path, items: Option<&Path>, tower: Option<&TextSpace>) -> Result<Read> {
    if path.extension().is_some_and(|e| e == "npy") {
        let e = Error::data(path, "file", "JSON lines with ids and labels", "an array");
        return Err(e.hint("`af2 score tagging --scores FILE.npy --truth FILE.npy` takes arrays"));
    }
    let loaded = load(path)?;
    let mut mended = loaded.mended;
    let first = loaded.rows.first();
    let own = card.labels.as_ref().and_then(|labels| labels.of.clone());
    let named: Option<Vec<String>> =
        first.and_then(|row| Some(row.record.get("scores")?.as_object()?.keys().cloned().collect()));
    let items = match items {
        Some(of) => Some((of, load(of)?)),
        None => None,
    };
    let imported = items.as_ref().and_then(|(_, loaded)| of_manifest(&loaded.beside));
    let texts = first.is_some_and(is_text);
    let labels: Vec<String> = match own.or(named).or(imported) {
        Some(labels) => labels,
        None => {
            let place = first.map_or("file".to_owned(), |row| format!("{}: scores", row.place));
            let expected = "an object from labels to numbers, as the card does not list the labels";
            return Err(wanted(card, path, place, expected, first));
        }
    };
    let places: HashMap<&str, usize> = labels.iter().map(String::as_str).zip(0..).collect();
    let truths = match &items {
        Some((of, loaded)) => {
            mended += loaded.mended;
            Some(truths(of, &loaded.rows, &places)?)
        }
        None => None,
    };
    let said: Vec<Option<String>> = loaded
        .rows
        .iter()
        .map(|row| text(row).map(str::to_owned))
        .collect();
    let mut of_texts = match tower.filter(|_| texts) {
        Some(tower) => tagged::scores(card, &labels, &said, tower)?.into_iter(),
        None => Vec::new().into_iter(),
    };
    let mut seen = HashMap::new();
    let mut clips = Vec::with_capacity(loaded.rows.len());
    for (row, said) in loaded.rows.iter().zip(&said) {
        let of_text = of_texts.next().filter(|_| is_text(row));
        let id = ids(row).into_iter().next();
        let Some(id) = id else {
            return Err(Error::data(path, &row.place, "an id, or a clip's path or name", "none").hint(HINT));
        };
        if let Some(first) = seen.insert(id.clone(), row.place.clone()) {
            let found = format!("{id:?}, which {first} has");
            return Err(Error::data(path, &row.place, "each id once", found));
        }
        let phrases = |text: &String| !tagged::phrases(text).is_empty();
        let said = of_text.is_none() || said.as_ref().is_some_and(phrases);
        let scores = match of_text {
            Some(scores) => scores,
            None => scores(card, path, row, &labels, &places)?,
        };
        let truth = match &truths {
            None => truth(path, row, &places)?,
            Some(truths) => {
                let own = ids(row)
                    .into_iter()
                    .find_map(|id| truths.get(&id).cloned().flatten());
                own.ok_or_else(|| Error::data(path, &row.place, "a clip of the items", format!("{id:?}")))?
            }
        };
        clips.push(Clip {
            id,
            scores,
            truth,
            said,
        });
    }
    drop(places);
    Ok(Read {
        labels,
        clips,
        mended,
        texts,
    })
}

/// What a model has written of a clip.
fn text(row: &Row) -> Option<&str> {
    row.record.get("prediction").and_then(Value::as_str)
}

fn is_text(row: &Row) -> bool {
    text(row).is_some() && !row.record.contains_key("scores")
}

/// The labels of all items, as `af2 benchmark import` has read them.
fn of_manifest(beside: &Map<String, Value>) -> Option<Vec<String>> {
    let labels = beside.get("benchmark")?.get("labels")?.as_array()?;
    labels
        .iter()
        .map(|label| label.as_str().map(str::to_owned))
        .collect()
}

fn wanted(card: &Card, path: &Path, place: String, expected: &str, row: Option<&Row>) -> Error {
    let said = row.is_some_and(|row| row.record.contains_key("prediction"));
    let e = Error::data(
        path,
        place,
        expected,
        if said { "a generated text" } else { "none" },
    );
    let way = match card.task {
        Task::MultiLabel => {
            "mAP ranks clips by a number for each label. Of a generated text --clap CHECKPOINT makes them, by its cosines to each label; \
             else bring them as scores. "
        }
        _ => "zero-shot answers are the label whose text is nearest to the sound: bring the cosines as scores. ",
    };
    e.hint(format!("{way}{HINT}"))
}

fn scores(
    card: &Card,
    path: &Path,
    row: &Row,
    labels: &[String],
    places: &HashMap<&str, usize>,
) -> Result<Vec<f64>> {
    let key = format!("{}: scores", row.place);
    let number = |value: &Value, label: &str| {
        let finite = value.as_f64().filter(|v| v.is_finite());
        let at = format!("{key}.{}", crate::error::short(&label));
        finite.ok_or_else(|| Error::data(path, at, "a number", crate::error::short(value)))
    };
    match row.record.get("scores") {
        Some(Value::Array(all)) if all.len() == labels.len() => {
            let each = all.iter().zip(labels);
            each.map(|(value, label)| number(value, label)).collect()
        }
        Some(Value::Array(all)) => {
            let expected = format!("{} numbers, in the order of the card's labels", labels.len());
            Err(Error::data(path, key, expected, all.len().to_string()))
        }
        Some(Value::Object(all)) => {
            if let Some(odd) = all.keys().find(|label| !places.contains_key(label.as_str())) {
                let e = Error::data(
                    path,
                    &key,
                    "labels that all records have",
                    crate::error::short(odd),
                );
                return Err(
                    match crate::error::nearest(odd, labels.iter().map(String::as_str)) {
                        Some(near) => e.hint(format!("did you mean {near:?}?")),
                        None => e,
                    },
                );
            }
            let each = labels.iter().map(|label| match all.get(label) {
                Some(value) => number(value, label),
                None => {
                    let found = format!("none for {}", crate::error::short(label));
                    Err(Error::data(path, &key, "a number for each label", found))
                }
            });
            each.collect()
        }
        _ => Err(wanted(
            card,
            path,
            key,
            "an object from labels to numbers",
            Some(row),
        )),
    }
}

fn truth(path: &Path, row: &Row, places: &HashMap<&str, usize>) -> Result<Vec<usize>> {
    let found = ["truth", "tags", "output", "answer", "reference", "label"]
        .into_iter()
        .find_map(|key| Some((key, row.record.get(key)?)));
    let Some((key, value)) = found else {
        return Err(Error::data(path, format!("{}: truth", row.place), "the true labels", "none").hint(HINT));
    };
    let names: Vec<&str> = match value {
        Value::String(text) if places.contains_key(text.as_str()) => vec![text],
        Value::String(text) => {
            // Labels with commas in them are never split.
            let sign = if text.contains(';') { ';' } else { ',' };
            text.split(sign)
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .collect()
        }
        Value::Array(all) => all.iter().map(|v| v.as_str().unwrap_or("")).collect(),
        other => {
            let (place, found) = (format!("{}: {key}", row.place), crate::error::short(other));
            return Err(Error::data(path, place, "labels", found));
        }
    };
    let mut truth = Vec::with_capacity(names.len());
    for name in names {
        match places.get(name) {
            Some(at) => truth.push(*at),
            None => {
                let (place, found) = (
                    format!("{}: {key}", row.place),
                    crate::error::short(&format!("{name:?}")),
                );
                let e = Error::data(path, place, "labels that have a score", found);
                return Err(match crate::error::nearest(name, places.keys().copied()) {
                    Some(near) => e.hint(format!("did you mean {near:?}?")),
                    None => e,
                });
            }
        }
    }
    truth.sort_unstable();
    truth.dedup();
    Ok(truth)
}

type Truths = HashMap<String, Option<Vec<usize>>>;

/// By id and by clip; a name that two items have is nobody's.
fn truths(path: &Path, rows: &[Row], places: &HashMap<&str, usize>) -> Result<Truths> {
    let mut all: Truths = HashMap::new();
    for row in rows {
        let own = truth(path, row, places)?;
        for id in ids(row) {
            let place = all.entry(id).or_insert_with(|| Some(own.clone()));
            if place.as_ref() != Some(&own) {
                *place = None;
            }
        }
    }
    Ok(all)
}

/// What a record is called: its id, its clip's name with and without folders and ending.
fn ids(row: &Row) -> Vec<String> {
    let (id, clip) = super::pairs::named(row);
    let clip = clip
        .iter()
        .flat_map(|clip| super::pairs::names(clip))
        .map(str::to_owned);
    id.into_iter().chain(clip).collect()
}

fn data(card: &Card, read: &Read, source: Source) -> Data {
    let expected = card.items();
    if let Some((sha256, of)) = source.items {
        let known = card.files.iter().any(|f| f.sha256.as_deref() == Some(&sha256));
        return Data {
            sha256,
            known,
            of,
            expected,
        };
    }
    let mut hasher = Sha256::new();
    for clip in &read.clips {
        let truth: Vec<&String> = clip.truth.iter().map(|at| &read.labels[*at]).collect();
        hasher.update(serde_json::json!([clip.id, truth]).to_string().as_bytes());
        hasher.update(b"\n");
    }
    Data {
        sha256: hex(&hasher.finalize()),
        known: false,
        of: "ids and true labels within the predictions".to_owned(),
        expected,
    }
}
