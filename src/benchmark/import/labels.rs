//! Sounds with labels: tables of any column names, sets whose labels are their folders or stand in files' names, Medley-solos-DB,
//! NSynth.

use super::draft::{need_words, Context, Draft, Drafts};
use super::report::Report;
use super::row::{Place, Row};
use super::rows::{with_header, with_names};
use super::sounds::{stem, Sounds, Wanted};
use crate::benchmark::names::Task;
use crate::error::{nearest, Error, Result};
use indexmap::IndexMap;
use serde_json::{json, Map, Value};
use std::collections::BTreeSet;
use std::path::Path;

/// Columns that name a sound, and those that name its label, as far as letters and digits go; the first that is there counts.
const SOUNDS: [&str; 18] = [
    "filename",
    "slicefilename",
    "fname",
    "filepath",
    "file",
    "audiofile",
    "audiopath",
    "audiofilename",
    "audio",
    "wavfile",
    "wav",
    "path",
    "clip",
    "name",
    "ytid",
    "youtubeid",
    "videoid",
    "id",
];
const LABELS: [&str; 17] = [
    "label",
    "labels",
    "category",
    "class",
    "classname",
    "classlabel",
    "displayname",
    "genre",
    "emotion",
    "scene",
    "scenelabel",
    "instrument",
    "target",
    "tag",
    "tags",
    "positivelabels",
    "event",
];

/// Other spellings of labels, by letters and digits alone, of the sets that have them; in the place of one stands the label where the
/// card has it.
const ALSO: &[(&str, &str)] = &[
    // ESC-50's table against its page.
    ("insects", "insects (flying)"),
    ("doorwoodknock", "door knock"),
    // Nonspeech7k's table has both.
    ("yawm", "yawn"),
    ("breathing", "breath"),
    ("coughing", "cough"),
    ("laughter", "laugh"),
    ("scream", "screaming"),
    ("sneezing", "sneeze"),
    ("yawning", "yawn"),
    // Emotions by their nouns, and CREMA-D's codes.
    ("anger", "angry"),
    ("disgust", "disgusted"),
    ("fear", "fearful"),
    ("happiness", "happy"),
    ("sadness", "sad"),
    ("surprise", "surprised"),
    ("neutrality", "neutral"),
    ("ang", "angry"),
    ("dis", "disgusted"),
    ("fea", "fearful"),
    ("hap", "happy"),
    ("neu", "neutral"),
];
/// RAVDESS: the third number of a file's name.
const RAVDESS: [&str; 8] = [
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgusted",
    "surprised",
];

/// What a table of a label set turned out to be.
pub(super) enum Table {
    Rows(Vec<Row>),
    /// Names by the ids of AudioSet's ontology.
    Names(IndexMap<String, String>),
}

/// Letters and digits, in small.
fn bare(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn column<'a>(names: &[&'a str], known: &[&str]) -> Option<&'a str> {
    known
        .iter()
        .find_map(|k| names.iter().copied().find(|n| bare(n) == **k))
}

/// Understands a table, with a header or without.
///
/// # Errors
/// One whose columns say nothing.
pub(super) fn table(path: &Path, lines: Vec<(u64, Vec<String>)>) -> Result<Table> {
    let Some((_, first)) = lines.first() else {
        return Err(Error::data(path, "file", "a table", "nothing"));
    };
    let names: Vec<&str> = first.iter().map(|n| n.trim()).collect();
    let of_ontology = |field: Option<&String>| {
        let field = field.map(|f| f.trim().trim_matches('"')).unwrap_or_default();
        ["/m/", "/t/", "/g/"].iter().any(|p| field.starts_with(p))
    };
    if column(&names, &["mid"]).is_some() && column(&names, &["displayname"]).is_some() {
        let rows = with_header(path, lines)?;
        let of = |row: &Row| Some((row.text(&["mid"])?, row.text(&["display_name"])?));
        return Ok(Table::Names(rows.iter().filter_map(of).collect()));
    }
    if lines
        .iter()
        .all(|(_, l)| l.len() == 3 && of_ontology(l.get(2)) && l[0].trim().parse::<u32>().is_ok())
    {
        let of = |(_, line): (u64, Vec<String>)| (line[2].trim().to_owned(), line[1].trim().to_owned());
        return Ok(Table::Names(lines.into_iter().map(of).collect()));
    }
    if column(&names, &SOUNDS).is_some() && column(&names, &LABELS).is_some() {
        return with_header(path, lines).map(Table::Rows);
    }
    let numeric = |i: usize| first.get(i).is_some_and(|f| f.trim().parse::<f64>().is_ok());
    let is_video = first.first().is_some_and(|f| f.trim().len() == 11);
    if is_video && numeric(1) && numeric(2) && of_ontology(first.get(3)) {
        // Labels with commas, in quotation marks behind a blank, which CSV does not know.
        let joined = lines.into_iter().map(|(n, line)| {
            let labels = line.get(3..).unwrap_or_default().join(",");
            let mut line: Vec<String> = line.into_iter().take(3).map(|f| f.trim().to_owned()).collect();
            line.push(labels.trim().trim_matches('"').to_owned());
            (n, line)
        });
        let names = ["ytid", "start_s", "end_s", "positive_labels"].map(str::to_owned);
        return with_names(path, joined, &names).map(Table::Rows);
    }
    if is_video && numeric(1) && first.len() == 4 {
        let names = ["ytid", "start_s", "label", "split"].map(str::to_owned);
        return with_names(path, lines.into_iter(), &names).map(Table::Rows);
    }
    if first.len() >= 2 && first[0].contains('.') && !first[0].trim().contains(' ') {
        let mut names = vec!["file".to_owned(), "label".to_owned()];
        names.extend((3..=first.len()).map(|i| format!("column {i}")));
        return with_names(path, lines.into_iter(), &names).map(Table::Rows);
    }
    let e = Error::data(
        path,
        "header",
        "a column that names the sound and one that names its label",
        format!("{names:?}"),
    );
    Err(e.hint(format!(
        "known are {}; and {}",
        SOUNDS.join(", "),
        LABELS.join(", ")
    )))
}

/// Every sound of a folder as a row: the set has no file of its own.
pub(super) fn of_folder(root: &Path, sounds: &Sounds, context: &Context) -> Vec<Row> {
    let known = context
        .card
        .labels
        .as_ref()
        .and_then(|l| l.of.clone())
        .unwrap_or_default();
    let row = |path: &String| {
        let label = of_path(path, &known);
        let mut fields = Map::new();
        fields.insert("file".into(), path.as_str().into());
        fields.insert("label".into(), label.map_or(Value::Null, Value::from));
        Row {
            place: Place {
                file: root.into(),
                at: path.clone(),
            },
            key: None,
            fields,
        }
    };
    sounds.paths().iter().map(row).collect()
}

/// The label that a path says: by the codes of a file's name, by its folders from the inner one out, by how its name begins.
fn of_path(path: &str, known: &[String]) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    let name = stem(parts.pop()?);
    let is = |label: &str| label_among(label, known).map(str::to_owned);
    let numbers: Vec<&str> = name.split('-').collect();
    if numbers.len() == 7
        && numbers
            .iter()
            .all(|n| n.len() == 2 && n.bytes().all(|b| b.is_ascii_digit()))
    {
        let emotion = numbers[2]
            .parse::<usize>()
            .ok()
            .and_then(|n| RAVDESS.get(n.checked_sub(1)?));
        if let Some(found) = emotion.and_then(|e| is(e)) {
            return Some(found);
        }
    }
    let codes: Vec<&str> = name.split('_').collect();
    if let [speaker, _, code, _] = codes.as_slice() {
        if speaker.bytes().all(|b| b.is_ascii_digit()) && code.len() == 3 {
            if let Some(found) = is(code) {
                return Some(found);
            }
        }
    }
    let folder = parts.iter().rev().find_map(|p| is(p));
    folder
        .or_else(|| is(name.split(['.', '_', '-']).next()?))
        .or_else(|| match known.is_empty() {
            true => parts.last().map(|p| (*p).to_owned()),
            false => None,
        })
}

/// The label that a word is, whatever its case and separators.
fn label_among<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let word = bare(word);
    let like = |wanted: &str| known.iter().map(String::as_str).find(|k| bare(k) == wanted);
    like(&word).or_else(|| {
        ALSO.iter()
            .filter(|(from, _)| *from == word)
            .find_map(|(_, to)| like(&bare(to)))
    })
}

/// Rows of a table.
pub(super) fn read(
    rows: &[Row],
    names: &IndexMap<String, String>,
    context: &Context,
    report: &mut Report,
) -> Drafts {
    let Some(first) = rows.first() else {
        return Drafts::default();
    };
    let columns: Vec<&str> = first.fields.keys().map(String::as_str).collect();
    let (Some(sound), Some(label)) = (column(&columns, &SOUNDS), column(&columns, &LABELS)) else {
        let found = format!("{columns:?}");
        report.broken(
            &first.place,
            "missing_field",
            "columns",
            "one that names the sound and one that names its label",
            found,
        );
        return Drafts::default();
    };
    let several =
        context.card.task == Task::MultiLabel || (label != "label" && bare(label).ends_with("labels"));
    let known = context.card.labels.as_ref().and_then(|l| l.of.clone());
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(other) = row
            .text(&["split"])
            .filter(|s| *s != context.split.name && context.split.name != "all")
        {
            report.leave_out(format!("of the split {other}"));
            continue;
        }
        let file = need_words(row, &[sound], "missing_field", report);
        let said = need_words(row, &[label], "missing_label", report);
        let (Some(file), Some(said)) = (file, said) else {
            continue;
        };
        let words: Vec<&str> = match several {
            true => said
                .split([',', ';'])
                .map(str::trim)
                .filter(|w| !w.is_empty())
                .collect(),
            false => vec![&said],
        };
        let mut tags = Vec::with_capacity(words.len());
        for word in words {
            let word = names.get(word).map_or(word, String::as_str);
            match &known {
                None => tags.push(word.replace('_', " ")),
                Some(known) => match label_among(word, known) {
                    Some(label) => tags.push(label.to_owned()),
                    None => {
                        let near = nearest(&word.to_lowercase(), known.iter().map(String::as_str));
                        let near = near.map_or(String::new(), |n| format!("; `{n}` is near"));
                        report.broken(
                            &row.place,
                            "unknown_label",
                            label,
                            "one of the card's labels",
                            format!("{word:?}{near}"),
                        );
                    }
                },
            }
        }
        if tags.is_empty() {
            continue;
        }
        seen.extend(tags.iter().cloned());
        let begins = row
            .text(&["start_s"])
            .and_then(|s| s.trim().parse::<f64>().ok())
            .filter(|s| (0.0..1e9).contains(s));
        let wanted = Wanted {
            names: vec![file.clone()],
            begins: begins.map(|s| s as u64),
        };
        // One video may have several clips.
        let id = match wanted.begins {
            Some(s) => format!("{file}_{s}"),
            None => file,
        };
        let mut draft = Draft::of(row, id.into(), wanted).answered(tags.join(", "));
        draft.texts.push(("label", tags.join(", ")));
        if several {
            draft.more.insert("tags".into(), json!(tags));
        }
        all.push(draft);
    }
    let listed: BTreeSet<String> = names.values().map(|n| n.replace('_', " ")).collect();
    let labels = known.unwrap_or_else(|| listed.union(&seen).cloned().collect());
    Drafts {
        all,
        labels: Some(labels),
        drawn: false,
    }
}

/// Rows whose sounds are called by three of their fields.
pub(super) fn medley(rows: &[Row], context: &Context, report: &mut Report) -> Drafts {
    let known = context
        .card
        .labels
        .as_ref()
        .and_then(|l| l.of.clone())
        .unwrap_or_default();
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let field = |name: &str, report: &mut Report| need_words(row, &[name], "missing_field", report);
        let parts = (
            field("subset", report),
            field("instrument_id", report),
            field("uuid4", report),
            field("instrument", report),
        );
        let (Some(subset), Some(number), Some(uuid), Some(said)) = parts else {
            continue;
        };
        let Some(label) = label_among(&said, &known) else {
            report.broken(
                &row.place,
                "unknown_label",
                "instrument",
                "one of the card's labels",
                format!("{said:?}"),
            );
            continue;
        };
        // pandas writes an integer column with a hole in it as 3.0.
        let number = number.strip_suffix(".0").unwrap_or(&number);
        let name = format!("Medley-solos-DB_{subset}-{number}_{uuid}.wav");
        let mut draft = Draft::of(row, uuid.into(), Wanted::named(name)).answered(label);
        draft.texts.push(("label", label.to_owned()));
        all.push(draft);
    }
    all.into()
}

/// An object a note, by the note's name. The field is that whose values are all labels of the card.
pub(super) fn nsynth(rows: &[Row], context: &Context, report: &mut Report) -> Drafts {
    let known = context
        .card
        .labels
        .as_ref()
        .and_then(|l| l.of.clone())
        .unwrap_or_default();
    let fields = ["instrument_source_str", "instrument_family_str"];
    let wrong = |field: &str| {
        let other = |row: &&Row| {
            row.text(&[field])
                .is_none_or(|v| label_among(&v, &known).is_none())
        };
        rows.iter().filter(other).count()
    };
    let field = fields.into_iter().min_by_key(|f| wrong(f)).unwrap_or(fields[0]);
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(said) = need_words(row, &[field], "missing_label", report) else {
            continue;
        };
        let name = row.key.clone().or_else(|| row.text(&["note_str", "note"]));
        let (Some(name), Some(label)) = (name, label_among(&said, &known)) else {
            report.broken(
                &row.place,
                "unknown_label",
                field,
                "one of the card's labels",
                format!("{said:?}"),
            );
            continue;
        };
        let mut draft = Draft::of(row, name.clone().into(), Wanted::named(name)).answered(label);
        draft.texts.push(("label", label.to_owned()));
        all.push(draft);
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(all: &[&str]) -> Vec<String> {
        all.iter().map(|l| (*l).to_owned()).collect()
    }

    #[test]
    fn labels_are_known_by_letters_and_digits() {
        let known = labels(&["door, wood creaks", "insects (flying)", "angry", "gun shot"]);
        for (word, label) in [
            ("door_wood_creaks", Some("door, wood creaks")),
            ("Insects", Some("insects (flying)")),
            ("ANG", Some("angry")),
            ("gun_shot", Some("gun shot")),
            ("fear", None),
            ("", None),
        ] {
            assert_eq!(label_among(word, &known), label, "{word}");
        }
    }

    #[test]
    fn paths_say_labels() {
        let emotions = labels(&[
            "angry",
            "calm",
            "disgusted",
            "fearful",
            "happy",
            "neutral",
            "sad",
            "surprised",
        ]);
        let scenes = labels(&["crowdedindoor", "park"]);
        for (path, known, label) in [
            ("Actor_01/03-01-02-01-01-01-01.wav", &emotions, Some("calm")),
            ("Actor_01/03-01-09-01-01-01-01.wav", &emotions, None),
            ("AudioWAV/1001_DFA_ANG_XX.wav", &emotions, Some("angry")),
            ("happy/x.wav", &emotions, Some("happy")),
            (
                "Test/CrowdedIndoor/CrowdedIndoor_user1.wav",
                &scenes,
                Some("crowdedindoor"),
            ),
            ("park.00001.wav", &scenes, Some("park")),
            ("x.wav", &scenes, None),
        ] {
            assert_eq!(of_path(path, known).as_deref(), label, "{path}");
        }
    }
}
