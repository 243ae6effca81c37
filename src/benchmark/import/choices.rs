//! Questions with options of their own: MMAU, MMAU-Pro, MMAR, MMSU, AIR-Bench, MuChoMusic and its harder variant.

use super::draft::{id, need, need_words, Context, Draft, Drafts};
use super::report::Report;
use super::row::{text, texts, Row};
use super::sounds::Wanted;
use rand::seq::SliceRandom;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{json, Value};

/// More than any question has, and letters enough.
pub(super) const MOST_CHOICES: usize = 26;

/// How MMAU's files call theirs.
const MMAU_SPLITS: [&str; 2] = ["test", "test-mini"];

pub(super) fn mmau(rows: &[Row], context: &Context, report: &mut Report) -> Drafts {
    let mut all = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let own = row.text(&["split"]).map(|s| s.replace('_', "-"));
        if let Some(own) = own.filter(|s| MMAU_SPLITS.contains(&s.as_str()) && *s != context.split.name) {
            let expected = format!("`{}`, the split that is imported", context.split.name);
            report.broken(&row.place, "other_split", "split", &expected, format!("`{own}`"));
            continue;
        }
        if row.fields.get("category").is_some_and(Value::is_array) {
            report.mild(
                &row.place,
                "category_is_a_list",
                "category",
                "a text",
                crate::error::short(&row.fields["category"]),
            );
        }
        let sound = need(row, &["audio_id", "audio_path", "audio"], report);
        all.extend(with_list(row, number, sound.map(Wanted::named), report));
    }
    all.into()
}

pub(super) fn mmar(rows: &[Row], report: &mut Report) -> Drafts {
    let mut all = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        if row.fields.get("language").is_some_and(Value::is_null) {
            report.mild(&row.place, "language_is_null", "language", "a text", "null");
        }
        let sound = need(row, &["audio_path", "audio_id", "audio"], report);
        all.extend(with_list(row, number, sound.map(Wanted::named), report));
    }
    all.into()
}

/// Questions with options, open ones, and demands that a pattern checks.
pub(super) fn mmau_pro(rows: &[Row], report: &mut Report) -> Drafts {
    let mut all = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let sounds = match row.get(&["audio_path", "audio"]) {
            Some(value @ Value::Array(_)) => texts(value),
            Some(Value::String(one)) if one.trim_start().starts_with('[') => super::python::list(one),
            Some(value) => text(value).map(|one| vec![one]),
            None => None,
        };
        let sound = match sounds.as_deref() {
            Some([one]) => Wanted::named(one.clone()),
            Some([_, _, ..]) => {
                report.leave_out("asks about several sounds");
                continue;
            }
            _ => {
                report.broken(
                    &row.place,
                    "missing_field",
                    "audio_path",
                    "a sound's path, or a list of them",
                    found(row, "audio_path"),
                );
                continue;
            }
        };
        let choices = row.get(&["choices"]).map(choices_of);
        let none = choices
            .as_ref()
            .is_none_or(|c| c.as_ref().is_some_and(|c| c.len() < 2));
        let demand = row
            .text(&["task_identifier"])
            .is_some_and(|t| !t.trim().is_empty());
        let kind = match (demand, none) {
            (true, _) => "instruction following",
            (_, true) => "open",
            _ => "multiple choice",
        };
        let draft = match none {
            true => open(row, number, sound, report),
            false => with_list(row, number, Some(sound), report),
        };
        all.extend(draft.map(|mut draft| {
            draft.more.insert("kind".into(), kind.into());
            draft
        }));
    }
    all.into()
}

fn open(row: &Row, number: usize, sound: Wanted, report: &mut Report) -> Option<Draft> {
    let question = need_words(row, &["question"], "empty_question", report)?;
    let mut draft = Draft::of(row, id(row, &["id"], number), sound).asking(question);
    draft.answer = row.text(&["answer"]);
    Some(draft)
}

/// A column for each option.
pub(super) fn mmsu(rows: &[Row], report: &mut Report) -> Drafts {
    let mut all = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let mut names = Vec::new();
        if let Some(Value::Object(audio)) = row.fields.get("audio") {
            names.extend(audio.get("path").and_then(text));
        }
        names.extend(row.text(&["audio_path"]).or_else(|| row.text(&["audio"])));
        names.extend(row.text(&["id"]));
        if names.is_empty() {
            report.broken(
                &row.place,
                "missing_field",
                "audio",
                "a sound's path, or an id",
                found(row, "audio"),
            );
            continue;
        }
        let sound = Wanted { names, begins: None };
        let draft = with_columns(row, id(row, &["id"], number), sound, false, report);
        all.extend(draft.map(|mut draft| {
            // Bytes of sound are no part of a manifest.
            draft.official.shift_remove("audio");
            draft
        }));
    }
    all.into()
}

pub(super) fn air_bench(rows: &[Row], report: &mut Report) -> Drafts {
    let mut all = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let Some(path) = need_words(row, &["path"], "missing_field", report) else {
            continue;
        };
        let (task, set) = (row.text(&["task_name"]), row.text(&["dataset_name"]));
        let (Some(task), Some(set)) = (task, set) else {
            report.broken(
                &row.place,
                "missing_field",
                "task_name, dataset_name",
                "two texts, which name the sound's folder",
                "none",
            );
            continue;
        };
        let sound = Wanted::named(format!("{task}_{set}/{path}"));
        all.extend(with_columns(
            row,
            id(row, &["uniq_id", "id"], number),
            sound,
            true,
            report,
        ));
    }
    all.into()
}

/// Options in `choice_a` to `choice_d`, of which the last ones may be missing.
fn with_columns(
    row: &Row,
    id: Value,
    sound: Wanted,
    none_is_missing: bool,
    report: &mut Report,
) -> Option<Draft> {
    let question = need_words(row, &["question"], "empty_question", report)?;
    let mut choices = Vec::new();
    let mut gap = false;
    for key in ["choice_a", "choice_b", "choice_c", "choice_d"] {
        let choice = row
            .text(&[key])
            .filter(|c| !(c.trim().is_empty() || none_is_missing && c == "None"));
        match choice {
            Some(_) if gap => {
                report.broken(
                    &row.place,
                    "missing_choice",
                    key,
                    "no option behind one that is missing",
                    "one",
                );
                return None;
            }
            Some(choice) => choices.push(choice.trim().to_owned()),
            None => gap = true,
        }
    }
    let draft = Draft::of(row, id, sound).asking(question);
    answer(draft, row, choices, "answer_gt", report)
}

/// Options in a list.
fn with_list(row: &Row, number: usize, sound: Option<Wanted>, report: &mut Report) -> Option<Draft> {
    let id = match row.get(&["id"]) {
        Some(id) if id.is_string() || id.is_number() => id.clone(),
        _ => {
            report.broken(
                &row.place,
                "missing_field",
                "id",
                "a text or a number",
                found(row, "id"),
            );
            number.to_string().into()
        }
    };
    let question = need_words(row, &["question"], "empty_question", report);
    let choices = row.get(&["choices"]).and_then(choices_of);
    if choices.is_none() {
        report.broken(
            &row.place,
            "no_choices",
            "choices",
            "a list of texts",
            found(row, "choices"),
        );
    }
    let draft = Draft::of(row, id, sound?).asking(question?);
    answer(draft, row, choices?, "answer", report)
}

/// Options as they are asked: without white space around.
fn choices_of(value: &Value) -> Option<Vec<String>> {
    Some(texts(value)?.into_iter().map(|c| c.trim().to_owned()).collect())
}

/// Looks at the options, and puts the answer among them.
fn answer(
    mut draft: Draft,
    row: &Row,
    choices: Vec<String>,
    key: &str,
    report: &mut Report,
) -> Option<Draft> {
    let place = &row.place;
    if choices.len() < 2 || choices.len() > MOST_CHOICES {
        report.broken(
            place,
            "no_choices",
            "choices",
            "2 to 26 options",
            choices.len().to_string(),
        );
        return None;
    }
    if choices.iter().any(String::is_empty) {
        report.broken(
            place,
            "empty_choice",
            "choices",
            "options that say something",
            "an empty one",
        );
        return None;
    }
    if (1..choices.len()).any(|i| choices[..i].contains(&choices[i])) {
        report.mild(
            place,
            "duplicate_choices",
            "choices",
            "options that differ",
            format!("{choices:?}"),
        );
    }
    // A test whose answers are hidden has none, or empty ones.
    let right = match row.get(&[key]) {
        None => None,
        Some(value) => match text(value) {
            Some(answer) => Some(answer.trim().to_owned()).filter(|a| !a.is_empty()),
            None => {
                report.broken(place, "not_a_text", key, "a text", crate::error::short(value));
                return None;
            }
        },
    };
    if let Some(right) = &right {
        let like = |c: &&String| squeezed(c) == squeezed(right);
        let letter = || match right.as_bytes() {
            [letter] => choices.get(usize::from(letter.to_ascii_uppercase().wrapping_sub(b'A'))),
            _ => None,
        };
        let exact = choices.iter().find(|c| *c == right);
        match exact.or_else(|| choices.iter().find(like)).or_else(letter) {
            Some(choice) => draft.answer = Some(choice.clone()),
            None => {
                report.mild(
                    place,
                    "answer_absent_from_choices",
                    key,
                    "one of the choices",
                    format!("{right:?}; there are {choices:?}"),
                );
                draft.answer = Some(right.clone());
            }
        }
        let words = words(right);
        if choices
            .iter()
            .any(|c| Some(c) != draft.answer.as_ref() && self::words(c) == words)
        {
            report.count("coinciding_options", place);
        }
    }
    draft.choices = choices;
    Some(draft)
}

/// In small letters, with single blanks.
fn squeezed(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

/// The set of words, by which MMAU's rule compares.
fn words(text: &str) -> std::collections::BTreeSet<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn found(row: &Row, key: &str) -> String {
    row.fields
        .get(key)
        .map_or("nothing".to_owned(), |v| crate::error::short(v))
}

/// MuChoMusic in each of its forms: the table of questions, the file of prompts that its script makes, the harder variant.
pub(super) fn muchomusic(rows: &[Row], context: &Context, report: &mut Report) -> Drafts {
    let mut drafts = Drafts::default();
    for (number, row) in rows.iter().enumerate() {
        let has = |key: &str| row.fields.contains_key(key);
        let draft = if has("answer_orders") {
            ordered(row, number, report)
        } else {
            drafts.drawn = true;
            match has("distractors") {
                true => variant(row, number, context, report),
                false => question(row, number, context, report),
            }
        };
        drafts.all.extend(draft);
    }
    drafts
}

/// A row of `muchomusic.csv`.
fn question(row: &Row, number: usize, context: &Context, report: &mut Report) -> Option<Draft> {
    let question = need_words(row, &["question"], "empty_question", report)?;
    let set = need_words(row, &["dataset"], "missing_field", report)?;
    let identifier = need_words(row, &["dataset_identifier"], "missing_field", report)?;
    let own = identifier.strip_suffix(".json").unwrap_or(&identifier);
    // MusicCaps' have the clip's place behind the video's id.
    let clip = match set.as_str() {
        "musiccaps" => own.rsplit_once('_').map_or(own, |(id, _)| id),
        _ => own,
    };
    let mut options = vec![need_words(row, &["correct_answer"], "empty_choice", report)?];
    for key in [
        "distractor_1_answer",
        "distractor_2_answer",
        "distractor_3_answer",
    ] {
        options.push(need_words(row, &[key], "empty_choice", report)?);
    }
    let mut draft = Draft::of(row, number.to_string().into(), Wanted::named(clip)).asking(question);
    for (key, from) in [("knowledge", "music_knowledge"), ("reasoning", "music_reasoning")] {
        let list = row.get(&[from]).and_then(texts).unwrap_or_default();
        draft.more.insert(key.into(), json!(list));
    }
    shown(&mut draft, options, number, context, report);
    Some(draft)
}

/// An item of the harder variant: four wrong answers, and a clip that is called by the item's number.
fn variant(row: &Row, number: usize, context: &Context, report: &mut Report) -> Option<Draft> {
    let question = need_words(row, &["question"], "empty_question", report)?;
    let mut options = vec![need_words(row, &["correct_answer"], "empty_choice", report)?];
    let Some(wrong) = row
        .get(&["distractors"])
        .and_then(choices_of)
        .filter(|w| !w.is_empty())
    else {
        report.broken(
            &row.place,
            "no_choices",
            "distractors",
            "a list of texts",
            found(row, "distractors"),
        );
        return None;
    };
    options.extend(wrong);
    let id = match &row.key {
        Some(key) => key.clone().into(),
        None => id(row, &["id", "question_id"], number),
    };
    let sound = text(&id).unwrap_or_default();
    let mut draft = Draft::of(row, id, Wanted::named(sound)).asking(question);
    shown(&mut draft, options, number, context, report);
    Some(draft)
}

/// Draws the order of options, the right one first in `options`. The order of one row depends on no other row.
fn shown(draft: &mut Draft, options: Vec<String>, number: usize, context: &Context, report: &mut Report) {
    if (1..options.len()).any(|i| options[..i].contains(&options[i])) {
        report.mild(
            &draft.place,
            "duplicate_choices",
            "choices",
            "options that differ",
            format!("{options:?}"),
        );
    }
    let mut orders: Vec<usize> = (0..options.len()).collect();
    let mut draw = ChaCha8Rng::seed_from_u64(context.seed);
    draw.set_stream(number as u64);
    orders.shuffle(&mut draw);
    draft.choices = orders.iter().map(|i| options[*i].clone()).collect();
    draft.answer = options.into_iter().next();
    draft.more.insert("answers".into(), json!(draft.choices));
    draft.more.insert("answer_orders".into(), json!(orders));
}

/// An item of the prompts that the official script has made: the order is drawn already.
fn ordered(row: &Row, number: usize, report: &mut Report) -> Option<Draft> {
    let prompt = need_words(row, &["prompt"], "empty_question", report)?;
    // Behind the example of a one-shot prompt.
    let question = prompt
        .rsplit_once("Question:")
        .map_or(prompt.as_str(), |(_, q)| q);
    let question = question.split("Options:").next().unwrap_or(question).trim();
    let choices = row.get(&["answers"]).and_then(choices_of);
    let orders: Option<Vec<i64>> = match row.get(&["answer_orders"]) {
        Some(Value::Array(all)) => all.iter().map(Value::as_i64).collect(),
        _ => None,
    };
    let right = orders.as_ref().and_then(|o| o.iter().position(|v| *v == 0));
    let (Some(choices), Some(right)) = (choices, right) else {
        report.broken(
            &row.place,
            "no_choices",
            "answers, answer_orders",
            "a list of texts, and their numbers with a 0",
            found(row, "answer_orders"),
        );
        return None;
    };
    let Some(answer) = choices.get(right).cloned() else {
        report.broken(
            &row.place,
            "answer_absent_from_choices",
            "answer_orders",
            "a place of `answers`",
            right.to_string(),
        );
        return None;
    };
    let path = row.text(&["audio_path"]).or_else(|| row.text(&["id"]));
    let Some(path) = path else {
        report.broken(
            &row.place,
            "missing_field",
            "audio_path",
            "a sound's path",
            found(row, "audio_path"),
        );
        return None;
    };
    // Its `id` is the clip's: several questions have it.
    let mut draft = Draft::of(row, number.to_string().into(), Wanted::named(path))
        .asking(question)
        .answered(answer);
    draft.choices = choices;
    Some(draft)
}
