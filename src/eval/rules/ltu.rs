//! LTU's closed-ended scoring (`src/ltu/eval/eval_*.py`) over given embeddings, and LTU-AS's strings for gender and age.
//!
//! A prediction is cut into phrases, "sound of " and the phrase is embedded, and each class is scored by the cosines of the
//! phrases with its label: their sum ([`Mode::Accu`]), or the largest of them and **zero** ([`Mode::Max`]), so that where all are
//! negative the first class wins. The class is the first with the highest score; FSD50K keeps the scores, for mAP.

use super::item::{Item, Judged};
use super::python;
use super::space::cosine;

/// How a class's score comes of the phrases' cosines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Their sum: `eval_esc`, `eval_as`, `eval_fsd50k`.
    Accu,
    /// The largest, but at least 0: `eval_bj`, `eval_dcase`, `eval_tut`, `eval_vggsound`, `eval_vs`.
    Max,
}

/// How a prediction is cut into phrases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsing {
    /// `llm_task = 'cla'` of `eval_esc` and `eval_vs`: behind the last ":", up to the first ".", without the first character,
    /// parted at ";".
    Labels,
    /// `llm_task = 'caption'` of `eval_vs`: behind the last ":", without the first character, whole.
    Caption,
    /// `llm_task = 'caption'` of `eval_esc`: behind the last ":", without the white space before it, whole.
    CaptionStripped,
    /// `llm_task = 'cla'` of `eval_fsd50k`: behind the last ": ", parted at "; ".
    TagLabels,
    /// `llm_task = 'caption'` of that: without '"', behind the last "Audio caption", without two characters, whole.
    TagCaption,
}

/// What is embedded of a prediction.
pub fn phrases(prediction: &str, parsing: Parsing) -> Vec<String> {
    let behind = |text: &str, mark: &str, skip: usize| -> String {
        let tail = text.rfind(mark).map_or(text, |at| &text[at + mark.len()..]);
        tail[python::nth(tail, skip)..].to_owned()
    };
    let sound = |text: &str| format!("sound of {text}");
    let each = |text: &str, mark: &str| -> Vec<String> {
        let phrase = |part: &str| sound(python::lower(part).trim_start_matches(python::is_space));
        text.split(mark).map(phrase).collect()
    };
    match parsing {
        Parsing::Labels => {
            let tail = behind(prediction, ":", 0);
            let tail = tail.split('.').next().unwrap_or("");
            each(&tail[python::nth(tail, 1)..], ";")
        }
        Parsing::Caption => vec![sound(&python::lower(&behind(prediction, ":", 1)))],
        Parsing::CaptionStripped => {
            let tail = behind(prediction, ":", 0);
            vec![sound(&python::lower(tail.trim_start_matches(python::is_space)))]
        }
        Parsing::TagLabels => each(&behind(prediction, ": ", 0), "; "),
        Parsing::TagCaption => {
            let plain = prediction.replace('"', "");
            vec![sound(&python::lower(&behind(&plain, "Audio caption", 2)))]
        }
    }
}

/// What is embedded of a label: "sea_waves" is "sound of sea waves".
pub fn label_text(label: &str) -> String {
    format!("sound of {}", python::lower(&label.replace('_', " ")))
}

/// The classes' scores, from the phrases' and the labels' embeddings.
pub fn scores(phrases: &[&[f64]], labels: &[&[f64]], mode: Mode) -> Vec<f64> {
    let mut scores = vec![0.0; labels.len()];
    for phrase in phrases {
        for (score, label) in scores.iter_mut().zip(labels) {
            let cosine = cosine(phrase, label);
            *score = match mode {
                Mode::Accu => *score + cosine,
                // Python's `max(score, cosine)`: where the cosine is not a number, the score stays.
                Mode::Max => {
                    if cosine > *score {
                        cosine
                    } else {
                        *score
                    }
                }
            };
        }
    }
    scores
}

/// The labels that a reference names, cut as its script cuts it.
pub fn truth(reference: &str, parsing: Parsing) -> Vec<&str> {
    match parsing {
        Parsing::Labels | Parsing::Caption | Parsing::CaptionStripped => {
            vec![reference.rsplit(':').next().unwrap_or("")]
        }
        Parsing::TagLabels | Parsing::TagCaption => {
            reference.rsplit(": ").next().unwrap_or("").split("; ").collect()
        }
    }
}

/// `gender_cla2`: 0 where "female" occurs in the text, 1 everywhere else, also in "a woman" and in nothing.
pub fn gender(text: &str) -> u8 {
    u8::from(!python::lower(text).contains("female"))
}

/// `gender_cla` on an item: whether prediction and answer have the same [`gender`].
pub fn judge_gender(item: &Item) -> Judged {
    const BY: &str = "ltu_gender.female";
    let Some(prediction) = item.prediction else {
        return Judged::error(BY, "KeyError: 'pred'");
    };
    let own = gender(prediction);
    let lowered = python::lower(prediction);
    let span = lowered.find("female").map_or(0..prediction.len(), |at| {
        python::unlowered(prediction, at..at + "female".len())
    });
    Judged::found(
        ["female", "male"][usize::from(own)],
        span,
        own == gender(item.answer),
        BY,
    )
}

/// `age_reg`: the reference's age, which is its last word without its last character, and the first number of the prediction,
/// or the middle of a range ("20-30"). `None` where the prediction has none that stands free ("30s"): the script leaves it out.
///
/// # Errors
/// A reference that does not end in a number and one character more.
pub fn age(reference: &str, prediction: &str) -> Result<Option<(f64, f64)>, String> {
    let Some(found) = first_number(prediction) else {
        return Ok(None);
    };
    let last = reference.rsplit(' ').next().unwrap_or("");
    let end = last.char_indices().next_back().map_or(0, |(at, _)| at);
    let own = whole(python::strip(&last[..end]));
    let own = own.ok_or_else(|| {
        format!(
            "ValueError: invalid literal for int() with base 10: '{}'",
            &last[..end]
        )
    })?;
    Ok(Some((own, found)))
}

fn whole(digits: &str) -> Option<f64> {
    let digits: Option<String> = digits
        .chars()
        .map(|c| char::from_digit(python::digit(c)?, 10))
        .collect();
    digits?.parse().ok()
}

/// The first match of `\b(\d+(?:-\d+)?)\b`.
fn first_number(text: &str) -> Option<f64> {
    let is_digit = |c: char| python::digit(c).is_some();
    let run = |from: usize| from + text[from..].find(|c| !is_digit(c)).unwrap_or(text.len() - from);
    let mut from = 0;
    loop {
        let start = from + text[from..].find(is_digit)?;
        let end = run(start);
        from = end;
        if !python::is_boundary(text, start) {
            continue;
        }
        if text[end..].starts_with('-') {
            let second = run(end + 1);
            if second > end + 1 && python::is_boundary(text, second) {
                return Some((whole(&text[start..end])? + whole(&text[end + 1..second])?) / 2.0);
            }
        }
        if python::is_boundary(text, end) {
            return whole(&text[start..end]);
        }
    }
}
