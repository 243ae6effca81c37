//! Questions whose answers are free text, or yes and no: CompA-R, LongAudioBench, OpenAQA, MusicInstruct, MusicQA, CMM.

use super::draft::{id, need, need_words, Draft, Drafts};
use super::report::Report;
use super::row::{text, Row};
use super::sounds::Wanted;
use serde_json::Value;

/// A clip with several questions, each of them an item.
pub(super) fn compa_r(rows: &[Row], report: &mut Report) -> Drafts {
    let mut all = Vec::new();
    for row in rows {
        let Some(sound) = need_words(row, &["audio_id", "audio_path", "audio"], "missing_field", report)
        else {
            continue;
        };
        let pairs = match row.fields.get("instruction_output") {
            Some(Value::Array(pairs)) if !pairs.is_empty() => pairs.clone(),
            // Training's form: the pair beside the clip.
            None if row.fields.contains_key("instruction") => vec![Value::Object(row.fields.clone())],
            other => {
                let found = other.map_or("nothing".to_owned(), |v| crate::error::short(v));
                report.broken(
                    &row.place,
                    "missing_field",
                    "instruction_output",
                    "a list of {instruction, output}",
                    found,
                );
                continue;
            }
        };
        let several = pairs.len() > 1;
        for (i, pair) in pairs.into_iter().enumerate() {
            let mut place = row.place.clone();
            place.at += &format!(": instruction_output {}", i + 1);
            let Value::Object(fields) = pair else {
                report.broken(
                    &place,
                    "not_an_object",
                    "instruction_output",
                    "{instruction, output}",
                    crate::error::short(&pair),
                );
                continue;
            };
            let pair = Row {
                place,
                key: None,
                fields,
            };
            let question = need_words(&pair, &["instruction"], "empty_question", report);
            let answer = need(&pair, &["output"], report);
            let (Some(question), Some(answer)) = (question, answer) else {
                continue;
            };
            let id = match several {
                true => format!("{sound}#{}", i + 1),
                false => sound.clone(),
            };
            let mut draft = Draft::of(row, id.into(), Wanted::named(sound.clone()))
                .asking(question)
                .answered(answer);
            draft.place = pair.place;
            draft.official.shift_remove("instruction_output");
            draft.official.extend(pair.fields);
            all.push(draft);
        }
    }
    all.into()
}

/// A file that is not public, in any of the forms in which such questions are published.
pub(super) fn long_audio(rows: &[Row], report: &mut Report) -> Drafts {
    let draft = |(number, row): (usize, &Row)| {
        let names = [
            "audio_path",
            "audio",
            "audio_id",
            "name",
            "path",
            "file",
            "file_name",
            "video_id",
        ];
        let sound = need_words(row, &names, "missing_field", report);
        let question = need_words(
            row,
            &["question", "prompt", "instruction"],
            "empty_question",
            report,
        );
        let answer = need(row, &["answer", "output", "response"], report);
        let id = match &row.key {
            Some(key) => key.clone().into(),
            None => id(row, &["id", "question_id"], number),
        };
        Some(
            Draft::of(row, id, Wanted::named(sound?))
                .asking(question?)
                .answered(answer?),
        )
    };
    rows.iter()
        .enumerate()
        .filter_map(draft)
        .collect::<Vec<_>>()
        .into()
}

pub(super) fn openaqa(rows: &[Row], report: &mut Report) -> Drafts {
    let draft = |(number, row): (usize, &Row)| {
        let sound = need_words(row, &["audio_id", "audio_path"], "missing_field", report);
        let question = need_words(row, &["instruction"], "empty_question", report);
        let answer = need(row, &["output"], report);
        // What Alpaca's form calls the text that the instruction is about.
        let input = row.text(&["input"]).filter(|i| !i.trim().is_empty());
        let question = match input {
            Some(input) => format!("{}\n{}", question?, input.trim()),
            None => question?,
        };
        // Its ids are those of audio sets, a clip's in each of many rows.
        let id = id(row, &["id"], number);
        Some(
            Draft::of(row, id, Wanted::named(sound?))
                .asking(question)
                .answered(answer?),
        )
    };
    rows.iter()
        .enumerate()
        .filter_map(draft)
        .collect::<Vec<_>>()
        .into()
}

pub(super) fn music_instruct(rows: &[Row], report: &mut Report) -> Drafts {
    let draft = |(number, row): (usize, &Row)| {
        let sound = need_words(row, &["ytid"], "missing_field", report);
        let question = need_words(row, &["question"], "empty_question", report);
        let answer = need(row, &["answer"], report);
        let id = id(row, &["id"], number);
        Some(
            Draft::of(row, id, Wanted::named(sound?))
                .asking(question?)
                .answered(answer?),
        )
    };
    rows.iter()
        .enumerate()
        .filter_map(draft)
        .collect::<Vec<_>>()
        .into()
}

/// Pairs of a question and an answer, one after the other.
pub(super) fn musicqa(rows: &[Row], report: &mut Report) -> Drafts {
    let mut all = Vec::new();
    for row in rows {
        let Some(sound) = need_words(row, &["audio_name", "audio_path"], "missing_field", report) else {
            continue;
        };
        let turns: Option<Vec<String>> = match row.fields.get("conversation") {
            Some(Value::Array(turns)) => turns.iter().map(|t| text(t.get("value")?)).collect(),
            _ => None,
        };
        let Some(turns) = turns.filter(|t| !t.is_empty() && t.len().is_multiple_of(2)) else {
            let found = row
                .fields
                .get("conversation")
                .map_or("nothing".to_owned(), |v| crate::error::short(v));
            report.broken(
                &row.place,
                "missing_field",
                "conversation",
                "a list of {value}: questions, each with its answer",
                found,
            );
            continue;
        };
        for pair in turns.chunks_exact(2) {
            let question = pair[0].trim();
            if question.is_empty() {
                report.broken(
                    &row.place,
                    "empty_question",
                    "conversation",
                    "a question that says something",
                    "an empty one",
                );
                continue;
            }
            let id = all.len().to_string();
            all.push(
                Draft::of(row, id.into(), Wanted::named(sound.clone()))
                    .asking(question)
                    .answered(pair[1].trim()),
            );
        }
    }
    all.into()
}

pub(super) fn cmm(rows: &[Row], report: &mut Report) -> Drafts {
    let draft = |(number, row): (usize, &Row)| {
        let sound = need_words(row, &["audio_path", "video_path"], "missing_field", report);
        let question = need_words(row, &["question"], "empty_question", report);
        let answer = need_words(row, &["answer"], "missing_field", report)?;
        let plain = answer.to_lowercase();
        if !["yes", "no"].contains(&plain.as_str()) {
            report.broken(
                &row.place,
                "answer_is_no_label",
                "answer",
                "yes or no",
                format!("{answer:?}"),
            );
            return None;
        }
        let id = id(row, &["id"], number);
        Some(
            Draft::of(row, id, Wanted::named(sound?))
                .asking(question?)
                .answered(plain),
        )
    };
    rows.iter()
        .enumerate()
        .filter_map(draft)
        .collect::<Vec<_>>()
        .into()
}
