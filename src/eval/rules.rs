//! From free text to right, wrong, or not an answer at all.
//!
//! The model writes text; a benchmark wants one of its options. The rule that stands between them decides a good part
//! of the score, so it has a name, is written beside each number, and never guesses: text that names no option, or
//! more than one, is wrong and counted as unparsed.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// How a prediction is compared with its reference.
///
/// | serde name | right where |
/// |---|---|
/// | `exact` | [`normalise`]d prediction and reference are the same |
/// | `label` | the prediction names the reference, and no other option, of the item's closed set |
/// | `number` | the prediction holds one number, and it is the reference's |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Equality after [`normalise`]. Unparsed: nothing is left of the prediction.
    Exact,
    /// 1. Prediction and options are normalised and lose a leading article; an option that equals the prediction is
    ///    its answer.
    /// 2. Otherwise the one option whose words stand in the prediction, in order and side by side, is its answer. An
    ///    option that occurs only inside a longer one ("guitar" in "bass guitar") does not count as named.
    /// 3. Otherwise, with no option or several, the prediction is unparsed.
    ///
    /// Meaning is not read: "not rain" names rain.
    Label,
    /// Numbers are digits, with a sign or decimal point, or the English words from zero to twenty; the same number
    /// twice is one. Unparsed: no number or different ones.
    Number,
}

/// What a rule says of one prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
    /// Not an answer under the rule; counts as wrong.
    Unparsed,
}

/// An item that no prediction could answer: its reference or options do not fit the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `reference` or `labels`.
    pub key: &'static str,
    pub expected: String,
    pub found: String,
}

impl Rule {
    /// Compares. `labels` is the closed option set and is read by [`Rule::Label`] alone.
    pub fn judge(self, prediction: &str, reference: &str, labels: &[String]) -> Result<Verdict, Fault> {
        let verdict = |answer: Option<bool>| match answer {
            Some(true) => Verdict::Right,
            Some(false) => Verdict::Wrong,
            None => Verdict::Unparsed,
        };
        Ok(verdict(match self {
            Rule::Exact => {
                let text = normalise(prediction);
                (!text.is_empty()).then(|| text == normalise(reference))
            }
            Rule::Label => {
                let options = Options::new(labels)?;
                let right = options.position(reference).ok_or_else(|| Fault {
                    key: "reference",
                    expected: format!("one of the labels {labels:?}"),
                    found: format!("{reference:?}"),
                })?;
                options.answer(prediction).map(|given| given == right)
            }
            Rule::Number => {
                let right = number(reference).ok_or_else(|| Fault {
                    key: "reference",
                    expected: "a text with one number".into(),
                    found: format!("{reference:?}"),
                })?;
                number(prediction).map(|given| given == right)
            }
        }))
    }
}

/// Lower case, single spaces, no punctuation at the end and no quotation marks around.
pub fn normalise(text: &str) -> String {
    const QUOTES: [char; 7] = ['"', '\'', '`', '“', '”', '‘', '’'];
    let spaced = text
        .to_lowercase()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let ends = |c: char| {
        c.is_whitespace() || QUOTES.contains(&c) || ['.', ',', ';', ':', '!', '?', '…'].contains(&c)
    };
    let starts = |c: char| c.is_whitespace() || QUOTES.contains(&c);
    spaced
        .trim_end_matches(ends)
        .trim_start_matches(starts)
        .to_owned()
}

/// [`normalise`] without a leading "a", "an" or "the", unless that is all there is.
fn normalise_label(text: &str) -> String {
    let text = normalise(text);
    let bare = ["a ", "an ", "the "]
        .iter()
        .find_map(|article| text.strip_prefix(article));
    bare.map(str::to_owned).unwrap_or(text)
}

/// The words of a text. Signs that tell names apart, as in C and C#, belong to the word.
fn words(normalised: &str) -> Vec<&str> {
    normalised
        .split(|c: char| !(c.is_alphanumeric() || ['#', '♯', '♭', '+'].contains(&c)))
        .filter(|w| !w.is_empty())
        .collect()
}

/// A closed set of answers, normalised.
struct Options(Vec<String>);

impl Options {
    /// Refuses an empty set, an option without a word, and two that are one after normalisation.
    fn new(labels: &[String]) -> Result<Self, Fault> {
        let fault = |expected: &str, found: String| Fault {
            key: "labels",
            expected: expected.to_owned(),
            found,
        };
        if labels.is_empty() {
            return Err(fault("a closed set of answers", "no labels".into()));
        }
        let mut seen = HashSet::new();
        let mut options = Vec::with_capacity(labels.len());
        for label in labels {
            let option = normalise_label(label);
            if words(&option).is_empty() {
                return Err(fault("labels with a letter or digit", format!("{label:?}")));
            }
            if !seen.insert(option.clone()) {
                return Err(fault(
                    "labels that differ after normalisation",
                    format!("{label:?} again"),
                ));
            }
            options.push(option);
        }
        Ok(Options(options))
    }

    /// The option that equals the text after normalisation.
    fn position(&self, text: &str) -> Option<usize> {
        let text = normalise_label(text);
        self.0.iter().position(|option| *option == text)
    }

    /// The option that the text names, see [`Rule::Label`].
    fn answer(&self, text: &str) -> Option<usize> {
        self.position(text).or_else(|| self.contained(text))
    }

    fn contained(&self, text: &str) -> Option<usize> {
        let text = normalise(text);
        let text = words(&text);
        // (option, first word, word behind the last)
        let mut spans = Vec::new();
        for (o, option) in self.0.iter().enumerate() {
            let option = words(option);
            let starts = text.windows(option.len()).enumerate();
            spans.extend(
                starts
                    .filter(|(_, w)| *w == option.as_slice())
                    .map(|(start, _)| (o, start, start + option.len())),
            );
        }
        let inside_longer = |&(_, start, end): &(usize, usize, usize)| {
            let covers = |s: &(usize, usize, usize)| s.1 <= start && end <= s.2 && s.2 - s.1 > end - start;
            spans.iter().any(covers)
        };
        let named: HashSet<usize> = spans.iter().filter(|s| !inside_longer(s)).map(|s| s.0).collect();
        match named.len() {
            1 => named.into_iter().next(),
            _ => None,
        }
    }
}

/// The one number in a text; `None` without any and with different ones.
fn number(text: &str) -> Option<f64> {
    const WORDS: [&str; 21] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ];
    let text = text.to_lowercase();
    let mut numbers = text.split_whitespace().filter_map(|token| {
        let token = token.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '-');
        let token = token.trim_end_matches(|c: char| !c.is_alphanumeric());
        match WORDS.iter().position(|word| *word == token) {
            Some(value) => Some(value as f64),
            // Digits first, so that "inf", "nan" and "e5" stay words.
            None if token
                .trim_start_matches('-')
                .starts_with(|c: char| c.is_ascii_digit()) =>
            {
                token.parse().ok().filter(|v: &f64| v.is_finite())
            }
            None => None,
        }
    });
    let first = numbers.next()?;
    numbers.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Right, Unparsed, Wrong};

    fn label(prediction: &str, reference: &str, labels: &[&str]) -> Verdict {
        let labels: Vec<String> = labels.iter().map(|l| l.to_string()).collect();
        Rule::Label.judge(prediction, reference, &labels).unwrap()
    }

    #[test]
    fn normalising_is_about_case_space_and_punctuation() {
        assert_eq!(normalise("  A  Dog\n barks.!\" "), "a dog barks");
        assert_eq!(normalise("“Rain”"), "rain");
        assert_eq!(normalise(" ... "), "");
    }

    #[test]
    fn exact_wants_the_whole_text() {
        let judge = |p: &str| Rule::Exact.judge(p, "Dog, then rain", &[]).unwrap();
        assert_eq!(judge("dog,  then rain."), Right);
        assert_eq!(judge("dog then rain"), Wrong);
        assert_eq!(judge("dog, then rain and wind"), Wrong);
        assert_eq!(judge(" ."), Unparsed);
    }

    #[test]
    fn a_label_alone_or_in_a_sentence() {
        let set = ["dog bark", "rain", "The siren"];
        assert_eq!(label("A dog bark.", "dog bark", &set), Right);
        assert_eq!(label("it is the sound of a Dog-Bark", "dog bark", &set), Right);
        assert_eq!(label("Siren", "siren", &set), Right);
        assert_eq!(label("I hear rain", "dog bark", &set), Wrong);
    }

    #[test]
    fn words_are_whole_words() {
        assert_eq!(label("a train passes", "rain", &["rain", "wind"]), Unparsed);
        assert_eq!(label("the key is C# minor", "C", &["C", "C#"]), Wrong);
    }

    #[test]
    fn two_options_or_none_are_no_answer() {
        let set = ["yes", "no"];
        assert_eq!(label("yes and no", "yes", &set), Unparsed);
        assert_eq!(label("maybe", "yes", &set), Unparsed);
        assert_eq!(label("", "yes", &set), Unparsed);
        assert_eq!(label("No, there is no dog", "no", &set), Right);
    }

    #[test]
    fn an_option_inside_a_longer_one_is_not_named() {
        let set = ["guitar", "bass guitar", "flute"];
        assert_eq!(label("it is a bass guitar", "bass guitar", &set), Right);
        assert_eq!(
            label("a bass guitar beside a guitar", "bass guitar", &set),
            Unparsed
        );
    }

    #[test]
    fn the_exact_option_wins_over_what_it_contains() {
        assert_eq!(
            label("dog and rain", "dog and rain", &["dog", "rain", "dog and rain"]),
            Right
        );
    }

    #[test]
    fn options_that_no_prediction_can_answer_are_faults() {
        let fault = |reference: &str, labels: &[&str]| {
            let labels: Vec<String> = labels.iter().map(|l| l.to_string()).collect();
            Rule::Label.judge("dog", reference, &labels).unwrap_err()
        };
        assert_eq!(fault("cat", &["dog", "rain"]).key, "reference");
        assert_eq!(fault("dog", &[]).key, "labels");
        assert!(fault("dog", &["dog", "A Dog."]).expected.contains("differ"));
        assert!(fault("dog", &["dog", "?!"]).found.contains("?!"));
    }

    #[test]
    fn numbers_as_digits_and_words() {
        let judge = |p: &str| Rule::Number.judge(p, "3", &[]).unwrap();
        assert_eq!(judge("Three."), Right);
        assert_eq!(judge("I count (3) dogs, 3.0 in all"), Right);
        assert_eq!(judge("-3"), Wrong);
        assert_eq!(judge("3 or 4"), Unparsed);
        assert_eq!(judge("nan inf many"), Unparsed);
        assert_eq!(Rule::Number.judge("3", "many", &[]).unwrap_err().key, "reference");
    }

    #[test]
    fn rules_have_stable_names_in_files() {
        let names: Vec<String> = [Rule::Exact, Rule::Label, Rule::Number]
            .iter()
            .map(|r| serde_json::to_string(r).unwrap())
            .collect();
        assert_eq!(names, ["\"exact\"", "\"label\"", "\"number\""]);
    }
}
