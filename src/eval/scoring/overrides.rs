//! Corrections by hand: verdicts of people on single items, each with its author and its reason. They stand beside the rule's
//! verdicts and never in their place.

use super::measure::{measure, tally, Mark, Row};
use crate::benchmark::Card;
use crate::error::{all, Error, Result};
use crate::run::predictions::lines;
use crate::run::scored::{ByAuthor, Corrected, Override, Scored};
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Faulty lines told one by one before the rest is left out.
const MOST_FAULTS: usize = 20;
const HINT: &str =
    "a line is {\"item\": \"ID\", \"verdict\": \"right\", \"author\": \"NAME\", \"reason\": \"WHY\"}; a verdict is right or wrong";

/// A file of corrections, as it was read.
pub struct Overrides {
    /// Named as the results will name it.
    pub path: PathBuf,
    /// Of its bytes.
    pub sha256: String,
    file: PathBuf,
    all: Vec<(String, Override)>,
}

/// Reads `{"item", "verdict", "author", "reason"}` a line. `named` is what results call the file.
///
/// # Errors
/// All lines that say something else, an item that an earlier line has, a reason or an author that is missing or blank.
pub fn read_overrides(path: &Path, named: PathBuf, sha256: String) -> Result<Overrides> {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let mut places: HashMap<String, String> = HashMap::new();
    lines(path, |place, line| {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        match one(path, place, line) {
            Ok(one) => match places.get(&one.item) {
                Some(first) => {
                    let said = format!("{:?}, which {first} has", one.item);
                    faults.push(Error::data(
                        path,
                        format!("{place}: item"),
                        "each item once",
                        said,
                    ));
                }
                None => {
                    places.insert(one.item.clone(), place.to_owned());
                    found.push((place.to_owned(), one));
                }
            },
            Err(e) => faults.push(e),
        }
        Ok(())
    })?;
    faults.truncate(MOST_FAULTS);
    all(faults)?;
    if found.is_empty() {
        return Err(Error::data(path, "lines", "at least one correction", "none").hint(HINT));
    }
    Ok(Overrides {
        path: named,
        sha256,
        file: path.to_owned(),
        all: found,
    })
}

fn one(path: &Path, place: &str, line: &[u8]) -> Result<Override> {
    let wrong =
        |key: String, expected: &str, found: String| Error::data(path, key, expected, found).hint(HINT);
    let whole = |found: String| wrong(place.to_owned(), "an object as JSON", found);
    let object = match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return Err(whole(crate::error::short(&other))),
        Err(e) => return Err(whole(e.to_string())),
    };
    const KEYS: [&str; 4] = ["item", "verdict", "author", "reason"];
    if let Some(other) = object.keys().find(|k| !KEYS.contains(&k.as_str())) {
        let found = crate::error::short(other);
        return Err(wrong(
            place.to_owned(),
            "the keys item, verdict, author, reason",
            found,
        ));
    }
    let said = |key: &str| match object.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        Some(Value::Number(n)) if key == "item" => Ok(n.to_string()),
        Some(other) => Err(wrong(
            format!("{place}: {key}"),
            "a text that is not blank",
            crate::error::short(other),
        )),
        None => Err(wrong(format!("{place}: {key}"), "a text", "nothing".into())),
    };
    let verdict = match object.get("verdict") {
        Some(Value::Bool(verdict)) => *verdict,
        Some(Value::String(word)) if word == "right" => true,
        Some(Value::String(word)) if word == "wrong" => false,
        other => {
            let found = other.map_or("nothing".to_owned(), |v| crate::error::short(v));
            return Err(wrong(format!("{place}: verdict"), "right or wrong", found));
        }
    };
    Ok(Override {
        item: said("item")?,
        verdict,
        author: said("author")?,
        reason: said("reason")?,
    })
}

/// Adds the score with the corrections to a score of these items, which have these marks.
///
/// # Errors
/// All corrections of items that are not there, are there twice, or are in no score, with their lines.
pub(super) fn correct(
    scored: &mut Scored,
    card: &Card,
    rows: &[Row],
    mut marks: Vec<Mark>,
    overrides: Overrides,
) -> Result<()> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::with_capacity(scored.items.len());
    for (i, item) in scored.items.iter().enumerate() {
        places.entry(&item.id).or_default().push(i);
    }
    let mut authors: IndexMap<String, ByAuthor> = IndexMap::new();
    let (mut changed, mut faults) = (0, Vec::new());
    for (place, by_hand) in &overrides.all {
        let fault = |expected: &str, found: String| {
            Error::data(&overrides.file, format!("{place}: item"), expected, found)
        };
        let at = match places.get(by_hand.item.as_str()).map(Vec::as_slice) {
            Some([at]) => *at,
            Some(several) => {
                let found = format!("{:?}, which {} items are called", by_hand.item, several.len());
                faults.push(fault("the id of one item", found));
                continue;
            }
            None => {
                // A look at each of them, for a few.
                let most = if faults.len() < MOST_FAULTS { 100_000 } else { 0 };
                let near = crate::error::nearest(&by_hand.item, places.keys().copied().take(most));
                let e = fault("an item of the predictions", format!("{:?}", by_hand.item));
                faults.push(match near {
                    Some(near) => e.hint(format!("did you mean {near:?}?")),
                    None => e,
                });
                continue;
            }
        };
        let mark = &mut marks[at];
        if !mark.counted {
            let found = format!("{:?}, which is left out", by_hand.item);
            faults.push(fault("an item of the score", found));
            continue;
        }
        let author = authors.entry(by_hand.author.clone()).or_default();
        author.n += 1;
        author.to_right += usize::from(by_hand.verdict && !mark.correct);
        author.to_wrong += usize::from(!by_hand.verdict && mark.correct);
        changed += usize::from(by_hand.verdict != mark.correct);
        // Metrics that go by the label that was said must not find the right one in a wrong answer.
        let own = rows[at].answer();
        if !by_hand.verdict && mark.answer.as_deref() == Some(own) {
            mark.answer = None;
        }
        mark.decide(by_hand.verdict);
    }
    faults.truncate(MOST_FAULTS);
    all(faults)?;
    debug_assert_eq!(tally(&marks).counted, scored.n);
    let measured = measure(card, rows, &marks, Some(scored.bootstrap))?;
    scored.corrected = Some(Corrected {
        path: overrides.path,
        sha256: overrides.sha256,
        difference: measured.score.zip(scored.score).map(|(a, b)| a - b),
        score: measured.score,
        interval: measured.interval,
        changed,
        authors,
        overrides: overrides.all.into_iter().map(|(_, by_hand)| by_hand).collect(),
    });
    Ok(())
}
