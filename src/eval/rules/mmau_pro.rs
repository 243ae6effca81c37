//! MMAU-Pro's `evaluate_mmau_pro_comprehensive.py`: the checks of instruction following, the scores in the judge's text, and
//! the weighted total. Its closed questions go by embeddings ([`super::retrieval`]), its open ones by a judge.
//!
//! The demands are read as the script reads them: "Number Bullets", "Number Paragraphs" and "Keyword Frequency" want exactly N,
//! "Number Placeholder" and "Minimum Number Highlighted Section" at least N; paragraphs and sections are parted at `***` or the
//! given mark and not at empty lines; keywords may be parts of words; a demand that it does not know fails.

use super::item::{Instruction, Item, Judged, State};
use super::punkt;
use super::python;
use super::record::{shown, string};
use crate::eval::json::Json;
use serde::{Deserialize, Serialize};

const BY: &str = "mmau_pro_instructions";

/// The rule on an item with an [`Instruction`]; [`Item::question`] is what "Repeat Prompt" wants repeated. Without a prediction the
/// script checks the text "None".
pub fn judge(item: &Item) -> Judged {
    let Some(instruction) = item.instruction else {
        return Judged::error(BY, "the item has no instruction");
    };
    let response = item.prediction.unwrap_or("None");
    match follows(response, instruction, item.question) {
        Ok(correct) => Judged {
            answer: Some(if correct { "followed" } else { "not followed" }.into()),
            correct,
            ..Judged::none(State::Answered, BY)
        },
        Err(reason) => Judged::error(BY, reason),
    }
}

/// The rule on a row of the official file: `task_identifier`, `kwargs`, `question`, `model_output`.
pub(crate) fn record(record: &Json) -> Judged {
    let kwargs = record.at("kwargs").to_value();
    let text = |key: &str| match record.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => string(value, "lower").map(Some),
    };
    let read = || -> Result<Judged, String> {
        Ok(judge(&Item {
            question: text("question")?.unwrap_or(""),
            prediction: text("model_output")?,
            instruction: Some(Instruction {
                task: text("task_identifier")?.unwrap_or(""),
                kwargs: &kwargs,
            }),
            ..Item::default()
        }))
    };
    read().unwrap_or_else(|reason| Judged::error("mmau_pro_instructions.record", reason))
}

/// Whether a response follows an instruction.
///
/// # Errors
/// An instruction on whose values the script ends with an error.
pub fn follows(response: &str, instruction: Instruction, prompt: &str) -> Result<bool, String> {
    let given = Given(Json::from(instruction.kwargs));
    let within = |count: usize| -> Result<bool, String> {
        let (least, most) = (given.number("N1", 0.0)?, given.number("N2", 999.0)?);
        Ok(least <= count as f64 && count as f64 <= most)
    };
    let at_least = |count: usize| Ok(count as f64 >= given.number("N", 0.0)?);
    let at_most = |count: usize| Ok(count as f64 <= given.number("N", 0.0)?);
    let exactly = |count: usize| Ok(given.equals("N", count));
    let lowered = || python::lower(response);
    match instruction.task {
        "Include Keywords" => {
            let (text, words) = (lowered(), given.text("keywords", "split")?);
            Ok(words.split(", ").all(|word| text.contains(&*python::lower(word))))
        }
        "Forbidden Words" => {
            let (text, words) = (lowered(), given.text("forbidden_words", "split")?);
            Ok(!words.split(", ").any(|word| text.contains(&*python::lower(word))))
        }
        "Keyword Frequency" => exactly(occurrences(
            &lowered(),
            &python::lower(given.text("keyword", "lower")?),
        )),
        "Number Paragraphs" => exactly(
            response
                .split("***")
                .filter(|p| !python::strip(p).is_empty())
                .count(),
        ),
        "Number Words (at least)" => at_least(python::split(response).count()),
        "Number Words (at most)" => at_most(python::split(response).count()),
        "Number Words (range)" => within(python::split(response).count()),
        "Number Sentences (at least)" => at_least(punkt::sentences(response)),
        "Number Sentences (at most)" => at_most(punkt::sentences(response)),
        "Number Sentences (range)" => within(punkt::sentences(response)),
        "Postscript" => {
            Ok(letters(response, "").contains(&letters(given.text("postscript_marker", "re.sub")?, "")))
        }
        "Number Placeholder" => at_least(placeholders(response)),
        "Number Bullets" => exactly(bullets(response)),
        "Title" => Ok(has_title(response)),
        "Minimum Number Highlighted Section" => at_least(highlights(response)),
        "Multiple Sections" => exactly(sections(response, given.text("section_splitter", "re.escape")?)),
        "Repeat Prompt" => {
            let prompt = python::lower(python::strip(prompt));
            Ok(python::lower(python::strip(response)).starts_with(&*prompt))
        }
        "Two Responses" => {
            let parts: Vec<&str> = response.split("******").collect();
            let plain = |text: &str| python::strip(&python::lower(text)).to_owned();
            Ok(matches!(parts[..], [one, two] if plain(one) != plain(two)))
        }
        "All Uppercase" => Ok(python::is_upper(response)),
        "All Lowercase" => Ok(python::is_lower(response)),
        "All-capital Words (at least)" => at_least(capitals(response)),
        "All-capital Words (at most)" => at_most(capitals(response)),
        "All-capital Words (range)" => within(capitals(response)),
        "Start Checker" => {
            Ok(letters(response, " ").starts_with(&letters(given.text("start_phrase", "re.sub")?, " ")))
        }
        "End Checker" => {
            Ok(letters(response, " ").ends_with(&letters(given.text("end_phrase", "re.sub")?, " ")))
        }
        "Quotation" => {
            let text = python::strip(response);
            Ok(text.starts_with('"') && text.ends_with('"'))
        }
        "No Commas" => Ok(!response.contains(',')),
        _ => Ok(false),
    }
}

/// `kwargs`, where null and nothing are the same.
struct Given(Json<'static>);

impl Given {
    fn text(&self, key: &str, method: &str) -> Result<&str, String> {
        self.0.get(key).map_or(Ok(""), |value| string(value, method))
    }

    fn number(&self, key: &str, default: f64) -> Result<f64, String> {
        let Some(value) = self.0.get(key) else {
            return Ok(default);
        };
        number(value)
            .ok_or_else(|| format!("TypeError: '<=' not supported between 'int' and {}", shown(value)))
    }

    /// Python's `==`, to which "2" is no 2 and 2.0 is.
    fn equals(&self, key: &str, count: usize) -> bool {
        self.0.get(key).map_or(Some(0.0), number) == Some(count as f64)
    }
}

fn number(value: &Json) -> Option<f64> {
    match value {
        Json::Bool(b) => Some(f64::from(u8::from(*b))),
        other => other.as_f64(),
    }
}

/// Without all that are neither ASCII letters nor `also`, in lower case.
fn letters(text: &str, also: &str) -> String {
    let kept = text
        .chars()
        .filter(|c| c.is_ascii_alphabetic() || also.contains(*c));
    kept.map(|c| c.to_ascii_lowercase()).collect()
}

fn capitals(text: &str) -> usize {
    python::split(text).filter(|word| python::is_upper(word)).count()
}

/// The matches of `\bKEYWORD\b` in a text.
fn occurrences(text: &str, keyword: &str) -> usize {
    if keyword.is_empty() {
        let inside = text
            .char_indices()
            .filter(|(at, _)| python::is_boundary(text, *at))
            .count();
        return inside + usize::from(!text.is_empty() && python::is_boundary(text, text.len()));
    }
    let (mut count, mut from) = (0, 0);
    while let Some(at) = text[from..].find(keyword).map(|at| from + at) {
        let end = at + keyword.len();
        if python::is_boundary(text, at) && python::is_boundary(text, end) {
            count += 1;
            from = end;
        } else {
            from = at + text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    count
}

/// The matches of `(?:^|\n)\s*\*\s+`.
fn bullets(text: &str) -> usize {
    let (mut count, mut from) = (0, 0);
    for (at, _) in text.match_indices('*') {
        if at < from {
            continue;
        }
        let behind = &text[at + 1..];
        let after = behind.trim_start_matches(python::is_space);
        let before = text[from..at].trim_end_matches(python::is_space);
        let begins = (from == 0 && before.is_empty()) || text[from + before.len()..at].contains('\n');
        if begins && after.len() < behind.len() {
            count += 1;
            from = text.len() - after.len();
        } else {
            // What stands before this star begins no bullet behind it.
            from = from.max(at);
        }
    }
    count
}

/// The matches of `\*([^*]+)\*`.
fn highlights(text: &str) -> usize {
    let (mut count, mut open) = (0, None);
    for (at, _) in text.match_indices('*') {
        open = match open {
            Some(start) if at > start + 1 => {
                count += 1;
                None
            }
            _ => Some(at),
        };
    }
    count
}

/// The matches of `\[[^\]]+\]`.
fn placeholders(text: &str) -> usize {
    let (mut count, mut open) = (0, None);
    for (at, c) in text.char_indices() {
        match (c, open) {
            ('[', None) => open = Some(at),
            (']', Some(start)) => {
                count += usize::from(at > start + 1);
                open = None;
            }
            _ => {}
        }
    }
    count
}

/// Whether `<<[^>]+>>` matches.
fn has_title(text: &str) -> bool {
    let mut from = 0;
    // Of several "<<" before one ">" any can begin it, but for the one right before it.
    while let Some(start) = text[from..].find("<<").map(|at| from + at) {
        let inner = start + 2;
        let Some(end) = text[inner..].find('>').map(|at| inner + at) else {
            return false;
        };
        if end > inner && text[end..].starts_with(">>") {
            return true;
        }
        from = end;
    }
    false
}

/// Parts between `\s*MARK\s*` that are not blank.
fn sections(text: &str, mark: &str) -> usize {
    let text = python::strip(text);
    if mark.is_empty() {
        // An empty mark parts the text at every character.
        return text.chars().filter(|c| !python::is_space(*c)).count();
    }
    let blank = |part: &str| python::strip(part).is_empty();
    let (mut count, mut from) = (0, 0);
    while let Some(first) = text[from..].find(mark).map(|at| from + at) {
        // The white space before is taken first, so that of marks that begin with it the last fits.
        let mut at = first;
        let step = mark
            .chars()
            .next()
            .filter(|c| python::is_space(*c))
            .map(char::len_utf8);
        while let Some(later) = step.and_then(|step| Some(at + step + text[at + step..].find(mark)?)) {
            if !blank(&text[at..later]) {
                break;
            }
            at = later;
        }
        count += usize::from(!blank(&text[from..first]));
        let rest = text[at + mark.len()..].trim_start_matches(python::is_space);
        from = text.len() - rest.len();
    }
    count + usize::from(!blank(&text[from..]))
}

/// A judge's scores from 1 to 5; what the text does not give is 3.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct JudgeScores {
    pub correctness: f64,
    pub relevance: f64,
    pub completeness: f64,
    pub clarity: f64,
    /// The mean of the others where it is 3, also where the judge says so.
    pub overall: f64,
}

/// What the script takes for a missing score.
const NEUTRAL: f64 = 3.0;

/// `extract_scores_from_evaluation`: the first "CORRECTNESS: 4" of each name, in any case. Whole numbers, but for OVERALL.
pub fn judge_scores(text: &str) -> JudgeScores {
    let score = |name: &str, decimals: bool| first_score(text, name, decimals).unwrap_or(NEUTRAL);
    let [correctness, relevance, completeness, clarity] =
        ["CORRECTNESS:", "RELEVANCE:", "COMPLETENESS:", "CLARITY:"].map(|name| score(name, false));
    let mut overall = score("OVERALL:", true);
    if overall == NEUTRAL {
        overall = (correctness + relevance + completeness + clarity) / 4.0;
    }
    JudgeScores {
        correctness,
        relevance,
        completeness,
        clarity,
        overall,
    }
}

fn first_score(text: &str, name: &str, decimals: bool) -> Option<f64> {
    let digits = |text: &str| -> String {
        let values = text.chars().map_while(python::digit);
        values.filter_map(|d| char::from_digit(d, 10)).collect()
    };
    text.match_indices(':').find_map(|(colon, _)| {
        let start = (colon + 1).checked_sub(name.len())?;
        if !text.as_bytes()[start..=colon].eq_ignore_ascii_case(name.as_bytes()) {
            return None;
        }
        let rest = text[colon + 1..].trim_start_matches(python::is_space);
        let mut number = digits(rest);
        if number.is_empty() {
            return None;
        }
        let behind = rest.trim_start_matches(|c| python::digit(c).is_some());
        if let Some(fraction) = behind
            .strip_prefix('.')
            .map(digits)
            .filter(|f| decimals && !f.is_empty())
        {
            number = format!("{number}.{fraction}");
        }
        number.parse().ok()
    })
}

/// `calculate_openended_metrics`, in shares and points.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OpenEnded {
    /// Means of the five scores.
    pub mean: JudgeScores,
    /// Their population standard deviations.
    pub deviation: JudgeScores,
    /// The share whose overall score is at least 4.
    pub good_response_rate: f64,
    /// The share whose overall score is at most 2.
    pub poor_response_rate: f64,
}

/// `None` without scores.
pub fn open_ended(all: &[JudgeScores]) -> Option<OpenEnded> {
    let n = all.len() as f64;
    if all.is_empty() {
        return None;
    }
    let of_each = |what: fn(&[f64]) -> f64| {
        let of = |score: fn(&JudgeScores) -> f64| what(&all.iter().map(score).collect::<Vec<f64>>());
        JudgeScores {
            correctness: of(|s| s.correctness),
            relevance: of(|s| s.relevance),
            completeness: of(|s| s.completeness),
            clarity: of(|s| s.clarity),
            overall: of(|s| s.overall),
        }
    };
    let share = |holds: fn(&JudgeScores) -> bool| all.iter().filter(|s| holds(s)).count() as f64 / n;
    Some(OpenEnded {
        mean: of_each(mean_of),
        deviation: of_each(|values| {
            let centre = mean_of(values);
            mean_of(&values.iter().map(|v| (v - centre).powi(2)).collect::<Vec<f64>>()).sqrt()
        }),
        good_response_rate: share(|s| s.overall >= 4.0),
        poor_response_rate: share(|s| s.overall <= 2.0),
    })
}

fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What a category brings into the total: its score from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Category {
    /// Accuracy.
    Closed(f64),
    /// The share that follows.
    Instructions(f64),
    /// The mean overall score from 1 to 5, of which the script takes a fifth.
    Open(f64),
}

impl Category {
    /// From 0 to 1.
    pub fn score(self) -> f64 {
        match self {
            Category::Closed(share) | Category::Instructions(share) => share,
            Category::Open(mean) => mean / 5.0,
        }
    }
}

/// `calculate_weighted_performance`: the categories' mean, weighted by their items; 0 without items.
pub fn weighted_total(categories: &[(usize, Category)]) -> f64 {
    let items: usize = categories.iter().map(|(n, _)| n).sum();
    let sum: f64 = categories
        .iter()
        .map(|(n, category)| category.score() * *n as f64)
        .sum();
    if items == 0 {
        0.0
    } else {
        sum / items as f64
    }
}
