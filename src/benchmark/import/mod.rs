//! From a benchmark's official files to a manifest of the reference's form, which `af2 eval` asks.
//!
//! | file | what |
//! |---|---|
//! | `files`, `row`, `rows`, `json`, `python`, `parquet` | which files, whether the card knows them, and their rows, whatever other tools write |
//! | `draft`, `choices`, `open`, `aqa`, `captions`, `labels`, `manifest` | what a row asks, by the form of the official files |
//! | `sounds` | an item's sound below a folder |
//! | `constant`, `items` | what constant answers get, an item of the manifest, as `wording` words it |
//! | `report` | what is wrong with rows, all of it at once |
//! | `submit` | predictions as the file that a hidden test's server takes |

mod aqa;
mod captions;
mod choices;
mod constant;
mod draft;
mod files;
mod items;
mod json;
mod labels;
mod manifest;
mod open;
mod parquet;
mod python;
mod report;
mod row;
mod rows;
mod sounds;
pub(crate) mod submit;

use super::names::{Format, Task};
use super::{Card, Entry, Split};
use crate::error::{nearest, Error, Result};
use crate::fsutil::{hex, write_json};
use draft::{Context, Drafts};
use files::Named;
use indexmap::IndexMap;
use report::Report;
use row::Row;
use rows::Held;
use serde_json::{json, Map, Value};
use sounds::{Found, Sounds};
use std::path::{Path, PathBuf};

/// Of what an import writes beside the reference's keys.
const VERSION: u64 = 1;

/// What is to be imported.
pub(crate) struct Request<'a> {
    pub entry: &'a Entry,
    /// Official files, or folders that hold them.
    pub from: &'a [PathBuf],
    /// The sounds lie below it.
    pub audio: &'a Path,
    /// The manifest goes to a folder in it.
    pub out: &'a Path,
    /// The card's scored one, unless said.
    pub split: Option<&'a str>,
    /// For the order of options, where no file says it.
    pub seed: u64,
    /// Takes files that the card does not know.
    pub accept: bool,
    /// Leaves items out whose sounds are missing.
    pub accept_missing: bool,
    /// Takes faulty rows that can be asked, and leaves the others out.
    pub accept_faulty: bool,
}

/// What became of it.
pub(crate) struct Imported {
    /// Written; none where sounds are missing and that was not accepted.
    pub manifest: Option<PathBuf>,
    /// The manifest's own `benchmark`.
    pub facts: Value,
    /// Items without a sound, by id, with what it was looked for by.
    pub missing: Vec<(String, String)>,
    /// For people.
    pub notes: Vec<String>,
}

/// Imports a split.
///
/// # Errors
/// Files that cannot be read or are not known, rows that are wrong: all of a kind at once. Nothing is written then.
pub(crate) fn import(request: &Request) -> Result<Imported> {
    let card = request.entry.card()?;
    let split = split(&card, request.split)?;
    if split.name.contains(['/', '\\']) || split.name.starts_with('.') {
        return Err(Error::usage(format!(
            "no file can be called as the split `{}` is",
            split.name
        )));
    }
    let scored = split.name == card.scored;
    let context = Context {
        card: &card,
        split,
        seed: request.seed,
    };
    let sounds = Sounds::below(request.audio)?;
    let mut report = Report::default();
    let (official, mut drafts, rows, names) = match files::of(&card, request.from, scored)? {
        Named::Folder(folder) => {
            let rows = labels::of_folder(&folder, &sounds, &context);
            let drafts = labels::read(&rows, &IndexMap::new(), &context, &mut report);
            report
                .notes
                .push("labels are read from folders and names of the sounds".into());
            (Vec::new(), drafts, rows.len(), Vec::new())
        }
        Named::Files(paths) => {
            let sources = paths.iter().map(|p| rows::read(p)).collect::<Vec<_>>();
            let sources = all_of(sources)?;
            let official = files::checked(&card, &sources, scored, request.accept)?;
            let mended: usize = sources.iter().map(|s| s.mended).sum();
            if mended > 0 {
                let what = "NaN, infinities and halves of characters, which JSON does not have, are read as null and U+FFFD";
                report.notes.push(format!("{mended} times: {what}"));
            }
            let (rows, beside, names) = gathered(&context, sources)?;
            let all = rows.len();
            let rows = filtered(rows, &context, &mut report);
            let mut columns: Vec<String> = Vec::new();
            for key in rows.iter().flat_map(|r| r.fields.keys()) {
                if !columns.contains(key) {
                    columns.push(key.clone());
                }
            }
            let drafts = read(&rows, &beside, &names, &context, &mut report)?;
            (official, drafts, all, columns)
        }
    };
    items::once_each(&mut drafts.all, &mut report);
    let missing = locate(&mut drafts, &sounds, &mut report);
    report.judge(&card, request.accept_faulty)?;
    let written = items::all(&card, &drafts);
    let found = written.len();
    if found == 0 && missing.is_empty() {
        let left = Value::from_iter(report.left_out.iter().map(|(k, v)| (k.clone(), *v)));
        return Err(Error::data(
            &card.name,
            &split.name,
            "at least one item",
            format!("none; left out: {left}"),
        ));
    }
    let expected = split.items.value;
    let name = match expected.filter(|n| *n != found as u64) {
        Some(n) => format!("{} ({found} of {n} items)", card.name),
        None if !missing.is_empty() => format!("{} ({found} of {} items)", card.name, found + missing.len()),
        None => card.name.clone(),
    };
    let heard: std::collections::HashSet<&str> =
        written.iter().filter_map(|i| i.get("name")?.as_str()).collect();
    let hidden = drafts.all.iter().filter(|d| d.answer.is_none()).count();
    let facts = json!({
        "importer": VERSION,
        "name": name,
        "card": card.name,
        "version": card.version,
        "card_sha256": hex(&<sha2::Sha256 as sha2::Digest>::digest(request.entry.text.as_bytes())),
        "format": card.official_format,
        "split": split.name,
        "scored": scored,
        "files": official,
        "seed": drafts.drawn.then_some(request.seed),
        "counts": {
            "card": expected,
            "rows": rows,
            "items": found,
            "sounds": heard.len(),
            "missing_sounds": missing.len(),
            "hidden_answers": hidden,
            "left_out": report.left_out,
        },
        "faults": report.tolerated.iter().map(|(class, of)| {
            ((*class).to_owned(), json!({"count": of.count, "first": of.first}))
        }).collect::<Map<String, Value>>(),
        // Where `af2 eval` finds the sounds, unless it is told otherwise.
        "audio": std::path::absolute(request.audio).unwrap_or_else(|_| request.audio.to_owned()),
        "constant": items::constant(&drafts),
        "constant_card": {"first": card.constant.first, "longest": card.constant.longest, "shortest": card.constant.shortest},
        "labels": drafts.labels,
        "official_keys": names,
    });
    if !missing.is_empty() && !request.accept_missing {
        return Ok(Imported {
            manifest: None,
            facts,
            missing,
            notes: report.notes,
        });
    }
    if found == 0 {
        return Err(Error::data(
            &card.name,
            &split.name,
            "at least one item whose sound is there",
            "none",
        ));
    }
    let path = request.out.join(&card.name).join(format!("{}.json", split.name));
    let data: Map<String, Value> = written
        .into_iter()
        .enumerate()
        .map(|(i, v)| (i.to_string(), Value::Object(v)))
        .collect();
    write_json(
        &path,
        &json!({
            "split": split.name,
            "split_path": "",
            "flamingo_task": card.name,
            "total_num": found,
            "benchmark": facts,
            "data": data,
        }),
    )?;
    Ok(Imported {
        manifest: Some(path),
        facts,
        missing,
        notes: report.notes,
    })
}

fn split<'c>(card: &'c Card, name: Option<&str>) -> Result<&'c Split> {
    let name = name.unwrap_or(&card.scored);
    let names = || card.splits.iter().map(|s| s.name.as_str());
    card.splits.iter().find(|s| s.name == name).ok_or_else(|| {
        let e = Error::usage(format!("{} has no split `{name}`", card.name));
        match nearest(name, names()) {
            Some(near) => e.hint(format!("did you mean `{near}`?")),
            None => e.hint(format!("it has {}", names().collect::<Vec<_>>().join(", "))),
        }
    })
}

/// All values, or all errors.
fn all_of<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(one) => all.push(one),
            Err(e) => errors.push(e),
        }
    }
    crate::error::all(errors)?;
    Ok(all)
}

/// Rows, what stands beside them, and names by the ids of AudioSet's ontology.
type Gathered = (Vec<Row>, Map<String, Value>, IndexMap<String, String>);

/// The rows of all files.
fn gathered(context: &Context, sources: Vec<rows::Source>) -> Result<Gathered> {
    let format = context.card.official_format;
    let (mut rows, mut beside, mut names) = (Vec::new(), Map::new(), IndexMap::new());
    let mut errors = Vec::new();
    for source in sources {
        let path = source.path;
        let one = match source.held {
            Held::Rows(one) => {
                beside.extend(one.beside);
                Ok(one.rows)
            }
            Held::Table(lines) if format == Format::LabelCsv => match labels::table(&path, lines) {
                Ok(labels::Table::Rows(rows)) => Ok(rows),
                Ok(labels::Table::Names(more)) => {
                    names.extend(more);
                    continue;
                }
                Err(e) => Err(e),
            },
            Held::Table(lines) => rows::with_header(&path, lines),
        };
        match one {
            Ok(mut one) => rows.append(&mut one),
            Err(e) => errors.push(e),
        }
    }
    crate::error::all(errors)?;
    Ok((rows, beside, names))
}

/// The rows of the split, where fields say which they are.
fn filtered(rows: Vec<Row>, context: &Context, report: &mut Report) -> Vec<Row> {
    let filter = &context.split.filter;
    if filter.is_empty() {
        return rows;
    }
    let mut kept = Vec::new();
    for row in rows {
        let mut within = true;
        for (field, wanted) in filter {
            match row.text(&[field]) {
                None => {
                    let found = row
                        .fields
                        .get(field)
                        .map_or("nothing".to_owned(), |v| crate::error::short(v));
                    report.broken(
                        &row.place,
                        "missing_field",
                        field,
                        &format!("one of {}", wanted.join(", ")),
                        found,
                    );
                    within = false;
                }
                // pandas writes True, a table may have TRUE.
                Some(own) if wanted.iter().any(|w| w.eq_ignore_ascii_case(own.trim())) => {}
                Some(own) => {
                    report.leave_out(format!("{field} {own}"));
                    within = false;
                }
            }
            if !within {
                break;
            }
        }
        if within {
            kept.push(row);
        }
    }
    kept
}

/// By the form of the official files.
fn read(
    rows: &[Row],
    beside: &Map<String, Value>,
    names: &IndexMap<String, String>,
    context: &Context,
    report: &mut Report,
) -> Result<Drafts> {
    let drafts = match context.card.official_format {
        Format::Af2Manifest => manifest::read(rows, beside, context, report),
        Format::AirBench => choices::air_bench(rows, report),
        Format::AudioCapsCsv | Format::ClothoCsv => captions::read(rows, context, report),
        Format::AudioEntailmentCsv => aqa::entailment(rows, report),
        Format::ClothoAqaCsv => aqa::clotho_aqa(rows, context, report),
        Format::CmmJsonl => open::cmm(rows, report),
        Format::CompaRJson => open::compa_r(rows, report),
        Format::LabelCsv => labels::read(rows, names, context, report),
        Format::LongAudioBench => open::long_audio(rows, report),
        Format::MedleySolosCsv => labels::medley(rows, context, report),
        Format::MmarJsonl => choices::mmar(rows, report),
        Format::MmauJson => choices::mmau(rows, context, report),
        Format::MmauProParquet => choices::mmau_pro(rows, report),
        Format::MmsuParquet => choices::mmsu(rows, report),
        Format::MuchomusicCsv | Format::MuchomusicJson => choices::muchomusic(rows, context, report),
        Format::MusicAvqaJson => aqa::music_avqa(rows, report),
        Format::MusicInstructJson => open::music_instruct(rows, report),
        Format::MusicQaJson => open::musicqa(rows, report),
        Format::NsynthJson => labels::nsynth(rows, context, report),
        Format::OpenAqaJson => open::openaqa(rows, report),
    };
    let mut drafts = drafts;
    if drafts.labels.is_none() {
        drafts.labels = context.card.labels.as_ref().and_then(|l| l.of.clone());
    }
    if let (Some(labels), Some(of)) = (&drafts.labels, &context.card.labels) {
        if labels.len() as u64 != of.count {
            report.notes.push(format!(
                "{} labels are in the files, and the card counts {}",
                labels.len(),
                of.count
            ));
        }
    }
    // A caption has no options, whatever its file has.
    if matches!(context.card.task, Task::Caption | Task::Retrieval) {
        drafts.labels = None;
    }
    Ok(drafts)
}

/// Puts each item's own sound in the place of the wanted one, and takes out those that are not there: their ids, and how the files
/// name them.
fn locate(drafts: &mut Drafts, sounds: &Sounds, report: &mut Report) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    let mut kept = Vec::with_capacity(drafts.all.len());
    for mut draft in std::mem::take(&mut drafts.all) {
        match sounds.find(&draft.sound) {
            Found::At(path) => {
                draft.sound = sounds::Wanted::named(path);
                kept.push(draft);
            }
            Found::Nothing => {
                let id = row::text(&draft.id).unwrap_or_default();
                missing.push((id, draft.sound.names.into_iter().next().unwrap_or_default()));
            }
            Found::Several(all) => {
                let expected = format!("one sound that is called {:?}", draft.sound.names);
                report.broken(
                    &draft.place,
                    "ambiguous_sound",
                    "sound",
                    &expected,
                    all.join(", "),
                );
            }
            Found::Unsafe(found) => {
                report.broken(
                    &draft.place,
                    "unsafe_path",
                    "sound",
                    "a sound's name below its folder",
                    found,
                );
            }
        }
    }
    drafts.all = kept;
    if drafts.all.is_empty() && !missing.is_empty() {
        let some: Vec<&str> = sounds.paths().iter().take(3).map(String::as_str).collect();
        report.notes.push(format!(
            "none of the sounds is there: --audio has {} others, such as {}",
            sounds.len(),
            some.join(", ")
        ));
    }
    missing
}
