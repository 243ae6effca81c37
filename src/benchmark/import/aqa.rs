//! Questions whose answers are of one vocabulary: ClothoAQA, MUSIC-AVQA, AudioEntailment.

use super::draft::{id, need_words, Context, Draft, Drafts};
use super::report::Report;
use super::row::{texts, Row};
use super::sounds::Wanted;
use crate::benchmark::names::Task;
use crate::benchmark::numbers;
use indexmap::IndexMap;
use serde_json::{json, Value};

/// Who has answered each question of ClothoAQA.
const ANNOTATORS: usize = 3;

/// Number words that annotators write beside [`numbers::WORDS`].
const TENS: [&str; 10] = [
    "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "once", "twice",
];

/// Three rows a question. The card of yes and no takes those whose three answers are one; the other one those that are neither yes
/// and no nor a number, each of one word.
pub(super) fn clotho_aqa(rows: &[Row], context: &Context, report: &mut Report) -> Drafts {
    let mut questions: IndexMap<(String, String), Vec<(&Row, String)>> = IndexMap::new();
    for row in rows {
        let file = need_words(row, &["file_name"], "missing_field", report);
        let question = need_words(row, &["QuestionText", "question"], "empty_question", report);
        let answer = need_words(row, &["answer"], "missing_field", report);
        if let (Some(file), Some(question), Some(answer)) = (file, question, answer) {
            questions
                .entry((file, question))
                .or_default()
                .push((row, answer.to_lowercase()));
        }
    }
    let mut all = Vec::new();
    for ((file, question), rows) in questions {
        if !rows.len().is_multiple_of(ANNOTATORS) {
            let expected = format!("{ANNOTATORS} rows a question, one an annotator");
            report.broken(
                &rows[0].0.place,
                "annotators",
                "QuestionText",
                &expected,
                format!("{} of {question:?}", rows.len()),
            );
            continue;
        }
        // A question that was asked twice of one clip stands there with six.
        for own in rows.chunks_exact(ANNOTATORS) {
            let answers: Vec<&str> = own.iter().map(|(_, a)| a.as_str()).collect();
            let answer = match context.card.task {
                Task::YesNo => unanimous(&answers),
                _ => one_word(&answers),
            };
            let answer = match answer {
                Ok(answer) => answer.to_owned(),
                Err(why) => {
                    report.leave_out(why);
                    continue;
                }
            };
            let number = all.len();
            let mut draft = Draft::of(own[0].0, number.to_string().into(), Wanted::named(file.clone()))
                .asking(question.clone());
            draft.answer = Some(answer);
            if context.card.task != Task::YesNo {
                draft.references = answers.iter().map(|a| (*a).to_owned()).collect();
            }
            draft.more.insert("answers".into(), json!(answers));
            let confidence: Vec<Option<String>> =
                own.iter().map(|(row, _)| row.text(&["confidence"])).collect();
            // Those of one annotator; all stand beside.
            draft.official.shift_remove("confidence");
            draft.official.shift_remove("answer");
            draft.more.insert("confidence".into(), json!(confidence));
            all.push(draft);
        }
    }
    all.into()
}

fn unanimous<'a>(answers: &[&'a str]) -> Result<&'a str, &'static str> {
    let one = answers.iter().all(|a| *a == answers[0]);
    match (["yes", "no"].contains(&answers[0]), one) {
        (_, false) => Err("the annotators differ"),
        (false, true) => Err("neither yes nor no"),
        (true, true) => Ok(answers[0]),
    }
}

/// The answer that most annotators gave; of three different ones the first.
fn one_word<'a>(answers: &[&'a str]) -> Result<&'a str, &'static str> {
    let word = |w: &str| numbers::WORDS.contains(&w) || TENS.contains(&w);
    let number = |a: &&str| a.parse::<f64>().is_ok() || a.split([' ', '-']).all(word);
    if answers.iter().any(|a| ["yes", "no"].contains(a)) {
        return Err("yes or no");
    }
    if answers.iter().any(number) {
        return Err("a number");
    }
    if answers.iter().any(|a| a.split_whitespace().count() > 1) {
        return Err("an answer of several words");
    }
    let votes = |a: &&str| answers.iter().filter(|b| *b == a).count();
    let most = answers.iter().map(votes).max().unwrap_or_default();
    answers
        .iter()
        .copied()
        .find(|a| votes(a) == most)
        .ok_or("no answer")
}

/// Questions about what is heard alone. The vocabulary is that of all answers of the file.
pub(super) fn music_avqa(rows: &[Row], report: &mut Report) -> Drafts {
    let (mut all, mut words) = (Vec::new(), std::collections::BTreeSet::new());
    for (number, row) in rows.iter().enumerate() {
        let Some(answer) = need_words(row, &["anser", "answer"], "missing_field", report) else {
            continue;
        };
        words.insert(answer.clone());
        let kind = row.get(&["type"]).and_then(texts);
        let Some([modality, kind]) = kind.as_deref() else {
            let found = row
                .fields
                .get("type")
                .map_or("nothing".to_owned(), |v| crate::error::short(v));
            report.broken(
                &row.place,
                "missing_field",
                "type",
                "a list of modality and kind",
                found,
            );
            continue;
        };
        if modality != "Audio" {
            report.leave_out(format!("of the modality {modality}"));
            continue;
        }
        let question = need_words(row, &["question_content"], "empty_question", report);
        let video = need_words(row, &["video_id"], "missing_field", report);
        let (Some(question), Some(video)) = (question, video) else {
            continue;
        };
        let values = row.get(&["templ_values"]).and_then(texts).unwrap_or_default();
        let Some(question) = filled(&question, &values) else {
            let expected = format!("as many values as {question:?} has <places>");
            report.broken(
                &row.place,
                "unfilled_question",
                "templ_values",
                &expected,
                values.len().to_string(),
            );
            continue;
        };
        let mut draft = Draft::of(row, id(row, &["question_id"], number), Wanted::named(video))
            .asking(question)
            .answered(answer);
        draft.more.insert("modality".into(), modality.as_str().into());
        draft.more.insert("kind".into(), kind.as_str().into());
        all.push(draft);
    }
    Drafts {
        all,
        labels: Some(words.into_iter().collect()),
        drawn: false,
    }
}

/// A question with the values in its places.
fn filled(question: &str, values: &[String]) -> Option<String> {
    let (mut out, mut rest) = (String::new(), question);
    let mut values = values.iter();
    while let Some((before, behind)) = rest.split_once('<') {
        let (_, behind) = behind.split_once('>')?;
        out.push_str(before);
        out.push_str(values.next()?);
        rest = behind;
    }
    out.push_str(rest);
    values.next().is_none().then_some(out)
}

/// A row has a hypothesis of each kind: three items.
pub(super) fn entailment(rows: &[Row], report: &mut Report) -> Drafts {
    let mut all = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let Some(sound) = need_words(
            row,
            &["Audio file", "Audio File", "audio_file", "file_name"],
            "missing_field",
            report,
        ) else {
            continue;
        };
        // Clotho's five stand in one field, as Python writes a list.
        let captions = row.get(&["Caption"]).and_then(texts);
        let captions = captions
            .or_else(|| row.text(&["Caption"]).map(|c| vec![c]))
            .unwrap_or_default();
        for (column, label) in [
            ("Entailment", "entailment"),
            ("Neutral", "neutral"),
            ("Contradiction", "contradiction"),
        ] {
            let Some(hypothesis) = need_words(row, &[column], "empty_hypothesis", report) else {
                continue;
            };
            let mut draft = Draft::of(
                row,
                format!("{number}-{label}").into(),
                Wanted::named(sound.clone()),
            )
            .answered(label);
            draft.texts = vec![
                ("hypothesis", hypothesis.clone()),
                ("question", hypothesis.clone()),
                ("caption", captions.first().cloned().unwrap_or_default()),
            ];
            for column in ["Caption", "Entailment", "Neutral", "Contradiction"] {
                draft.official.shift_remove(column);
            }
            draft.more.insert("hypothesis".into(), hypothesis.into());
            draft
                .more
                .insert("captions".into(), Value::from(captions.clone()));
            all.push(draft);
        }
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_three_annotators() {
        for (answers, all, word) in [
            (["yes", "yes", "yes"], Ok("yes"), Err("yes or no")),
            (
                ["yes", "no", "yes"],
                Err("the annotators differ"),
                Err("yes or no"),
            ),
            (["rain", "rain", "rain"], Err("neither yes nor no"), Ok("rain")),
            (
                ["rain", "water", "water"],
                Err("the annotators differ"),
                Ok("water"),
            ),
            (
                ["rain", "water", "wind"],
                Err("the annotators differ"),
                Ok("rain"),
            ),
            (
                ["two", "2", "rain"],
                Err("the annotators differ"),
                Err("a number"),
            ),
            (
                ["heavy rain", "rain", "rain"],
                Err("the annotators differ"),
                Err("an answer of several words"),
            ),
        ] {
            assert_eq!(
                (unanimous(&answers), one_word(&answers)),
                (all, word),
                "{answers:?}"
            );
        }
    }

    #[test]
    fn places_of_a_question_are_filled() {
        let values = |all: &[&str]| all.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        let question = "Is the <Object> louder than the <Object>?";
        assert_eq!(
            filled(question, &values(&["cello", "<x>"])).unwrap(),
            "Is the cello louder than the <x>?"
        );
        assert_eq!(filled("How many?", &[]).unwrap(), "How many?");
        for (question, all) in [
            (question, values(&["cello"])),
            ("How many?", values(&["a"])),
            ("a < b", Vec::new()),
        ] {
            assert_eq!(filled(question, &all), None, "{question}");
        }
    }
}
