//! AIR-Bench: `score_foundation.py` (multiple choice) and `cal_score.py` (what GPT-4 said of chats).
//!
//! Foundation: newlines are removed and the ends stripped; a response that is "None" or nothing fails. Where it begins with a
//! capital A to D, that is the answer ("All", "Because"); otherwise where its last character but one is such a letter ("The
//! answer is B."); otherwise it fails. **Failures are left out of the denominator.** An item without a task's name is skipped.

use super::item::{Item, Judged, State};
use super::python;
use super::record;
use crate::eval::json::Json;
use serde::Serialize;
use std::ops::Range;

/// A letter, where it stands, and the branch that found it.
type Found = Option<(u8, Range<usize>, &'static str)>;

fn letter(response: &str) -> Found {
    let stripped = python::strip(response);
    let offset = python::within(response, stripped).start;
    let written = || stripped.char_indices().filter(|(_, c)| *c != '\n');
    if stripped == "None" || (stripped.contains('\n') && written().map(|(_, c)| c).eq("None".chars())) {
        return None;
    }
    let known = |(at, c): (usize, char)| {
        matches!(c, 'A'..='D').then(|| (c as u8 - b'A', offset + at..offset + at + 1))
    };
    let first = written()
        .next()
        .and_then(known)
        .map(|(i, at)| (i, at, "air_bench.first"));
    first.or_else(|| {
        written()
            .rev()
            .nth(1)
            .and_then(known)
            .map(|(i, at)| (i, at, "air_bench.second_last"))
    })
}

/// The rule on a response. `choices` are A to D, `None` where the record has none; `answer` is `None` where its `answer_gt` is
/// null, which the script takes for the first choice that is missing.
pub fn foundation(response: &str, choices: [Option<&str>; 4], answer: Option<&str>) -> Judged {
    let Some((index, span, by)) = letter(response) else {
        return Judged::none(State::Unparsed, "air_bench.failed").uncounted();
    };
    let Some(right) = choices.iter().position(|c| *c == answer) else {
        let reason = format!("SystemExit: 1 (the answer {answer:?} is none of the choices)");
        return Judged::error(by, reason);
    };
    let index = usize::from(index);
    let text = choices[index].map_or_else(|| char::from(b'A' + index as u8).to_string(), str::to_owned);
    Judged::found(text, span, index == right, by)
}

/// The rule on an item; without a prediction it fails, as the response "None" does.
pub fn judge(item: &Item) -> Judged {
    let mut choices = [None; 4];
    for (place, choice) in choices.iter_mut().zip(item.choices) {
        *place = Some(choice.as_str());
    }
    let answer = match item.right {
        Some(right) => choices.get(right).copied().flatten(),
        None => Some(item.answer),
    };
    foundation(item.prediction.unwrap_or("None"), choices, answer)
}

/// The rule on a line of the official file.
pub(crate) fn record(record: &Json) -> Judged {
    let found = try_record(record);
    found.unwrap_or_else(|reason| Judged::error("air_bench.record", reason))
}

fn try_record(line: &Json) -> Result<Judged, String> {
    let task = record::field(line, "task_name")?;
    record::field(line, "dataset_name")?;
    if *task == Json::Null {
        return Ok(Judged::none(State::Unparsed, "air_bench.no_task").uncounted());
    }
    let response = record::string(record::field(line, "response")?, "strip")?;
    if letter(response).is_none() {
        return Ok(foundation(response, [None; 4], None));
    }
    // In the script's order, which stops at the choice that is the answer.
    let answer = record::field(line, "answer_gt")?;
    let mut choices = [None; 4];
    let mut found = false;
    for (key, place) in ["choice_a", "choice_b", "choice_c", "choice_d"]
        .into_iter()
        .zip(&mut choices)
    {
        let value = line.get(key);
        if value.is_none() && !found && matches!(key, "choice_a" | "choice_b") {
            return Err(format!("KeyError: '{key}'"));
        }
        found |= same(value.unwrap_or(&Json::Null), answer);
        *place = value.and_then(Json::as_str);
    }
    Ok(foundation(response, choices, answer.as_str()))
}

/// Whether two values are one.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Text(a), Json::Text(b)) => a == b,
        (a, b) => a.to_value() == b.to_value(),
    }
}

/// Sums over one group of AIR-Bench's chats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Chats {
    /// Pairs of scores.
    pub total: u64,
    /// Pairs that the model wins; a tie is no win.
    pub wins: u64,
    /// Sum of the first scores of the pairs.
    pub first_sum: i64,
    /// Sum of the second ones.
    pub second_sum: i64,
}

/// The groups of `cal_score.py`, in its order.
pub const CHAT_GROUPS: [&str; 5] = ["speech", "sound", "music", "speech_and_sound", "speech_and_music"];

/// What `cal_score.py` says of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ChatScores {
    /// By [`CHAT_GROUPS`].
    pub groups: [Chats; 5],
    /// Replies that are no pair of whole numbers up to 10.
    pub fail_num: u64,
    /// Replies of two parts; those whose parts are no such numbers are in `fail_num` as well.
    pub total_sum: u64,
}

impl ChatScores {
    /// The script's share of readable replies, in which some count twice.
    pub fn percentage(&self) -> Option<f64> {
        let all = self.total_sum + self.fail_num;
        (all > 0).then(|| self.total_sum as f64 / all as f64)
    }
}

/// The arithmetic of `cal_score.py` on pairs of a task's name and the judge's reply ("7 8": the reference's and the model's
/// score). `swapped`: the judge saw them the other way round (the script looks for "cir" in the file's name), so the first
/// score is the model's. A name that it does not know counts for the group of the line before.
///
/// # Errors
/// Such a name in the first line.
pub fn chat_scores<'a>(
    replies: impl IntoIterator<Item = (&'a str, &'a str)>,
    swapped: bool,
) -> Result<ChatScores, String> {
    let mut scores = ChatScores::default();
    let mut group = None;
    for (task, reply) in replies {
        group = match task {
            "speech_QA" | "speech_dialogue_QA" => Some(0),
            "sound_QA" | "sound_generation_QA" => Some(1),
            "music_QA" | "music_generation_analysis_QA" => Some(2),
            "speech_and_sound_QA" => Some(3),
            "speech_and_music_QA" => Some(4),
            _ => group,
        };
        let group = group.ok_or("NameError: name 'task_id' is not defined")?;
        let reply = python::strip(reply).replace('\n', "");
        let parts: Vec<&str> = reply.split(' ').collect();
        let [first, second] = parts[..] else {
            scores.fail_num += 1;
            continue;
        };
        scores.total_sum += 1;
        let pair = integer(first).zip(integer(second));
        let Some((first, second)) = pair.filter(|(a, b)| *a <= 10 && *b <= 10) else {
            scores.fail_num += 1;
            continue;
        };
        let own = &mut scores.groups[group];
        own.total += 1;
        own.first_sum = own.first_sum.saturating_add(first);
        own.second_sum = own.second_sum.saturating_add(second);
        own.wins += u64::from(if swapped { first > second } else { second > first });
    }
    Ok(scores)
}

/// `int()` of a text: a sign, digits of any script, single underscores between them. Beyond 64 bits it is at the limit.
fn integer(text: &str) -> Option<i64> {
    let text = python::strip(text);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mut value, mut last) = (0_i64, false);
    for c in digits.chars() {
        match python::digit(c) {
            Some(digit) => value = value.saturating_mul(10).saturating_add(i64::from(digit)),
            None if c == '_' && last => {
                last = false;
                continue;
            }
            None => return None,
        }
        last = true;
    }
    last.then_some(if negative { -value } else { value })
}
