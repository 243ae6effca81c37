//! From free text to right, wrong, or not an answer at all.
//!
//! The model writes text; a benchmark wants one of its options. The rule that stands between them decides a good part
//! of the score, so it has a name, is written beside each number, and never guesses: text that names no option, or
//! more than one, is wrong and counted as unparsed.

use super::options::{Fault, Options};
use super::words::normalise;
use crate::run::results::Rule;

/// What a rule says of one prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The reference.
    Right,
    /// Another answer.
    Wrong,
    /// Not an answer under the rule; counts as wrong.
    Unparsed,
}

/// Compares a prediction with its reference. `labels`, the closed option set, and `prompt`, which may give them letters, are
/// read by [`Rule::Label`] alone.
///
/// | rule | right where |
/// |---|---|
/// | `exact` | `normalise`d prediction and reference are the same |
/// | `label` | the prediction names the reference, and no other option, of the item's closed set |
/// | `number` | the prediction holds one number, and it is the reference's |
///
/// [`Rule::Exact`]: equality after `normalise`. Unparsed: nothing is left of the prediction.
///
/// [`Rule::Label`]:
/// 1. An option whose text is the whole prediction, but for case, compatible characters (NFKC), a leading article and
///    punctuation behind, is its answer. Of an option with a letter ("(B) rain") its text alone is enough.
/// 2. Otherwise the prediction may name options in two ways, and the one that it names is its answer:
///    * by text: the option's words stand in it, in order and side by side. An option that occurs only inside a longer
///      one ("guitar" in "bass guitar") is not named. Digits and number words are different words ("3" is not "three").
///    * by letter, where options have letters: they are letters, all begin with theirs, or the question puts one before
///      each. Meant as a letter is one that is the whole prediction or line ("b", "**B**"); begins a line and is marked
///      ("b) a car", "B: rain", "B. a car"); stands in brackets ("(b)"); is a capital with no word behind it ("I'd say
///      B."); follows a cue ("the answer is b", "option C"); or is called right ("B is correct"). The article "a" is no
///      letter, nor is "I", nor the key in "C major", nor a part of "it's", "T-shirt" and "e.g.".
/// 3. Otherwise the prediction is unparsed: no option or several, by text and letter together ("A: rain" where B is
///    rain); a second letter that may be meant ("answer: B or C"); an option that is denied in the words next to it
///    ("not rain", "B is wrong").
///
/// Meaning is not read any further, and nothing is ever guessed: "yes, there is no doubt" names yes and no.
///
/// [`Rule::Number`]: numbers are digits, with a sign or decimal point, or the English words from zero to twenty; the same
/// number twice is one. Unparsed: no number or different ones.
///
/// # Errors
/// An item that no prediction could answer.
pub fn judge(
    rule: Rule,
    prediction: &str,
    reference: &str,
    labels: &[String],
    prompt: &str,
) -> Result<Verdict, Fault> {
    let verdict = |answer: Option<bool>| match answer {
        Some(true) => Verdict::Right,
        Some(false) => Verdict::Wrong,
        None => Verdict::Unparsed,
    };
    Ok(verdict(match rule {
        Rule::Exact => {
            let text = normalise(prediction);
            (!text.is_empty()).then(|| text == normalise(reference))
        }
        Rule::Label => {
            let options = Options::new(labels, prompt)?;
            let right = options.reference(reference).ok_or_else(|| Fault {
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
        judge(Rule::Label, prediction, reference, &labels, "").unwrap()
    }

    #[test]
    fn normalising_is_about_case_space_and_punctuation() {
        assert_eq!(normalise("  A  Dog\n barks.!\" "), "a dog barks");
        assert_eq!(normalise("“Rain”"), "rain");
        assert_eq!(normalise(" ... "), "");
    }

    #[test]
    fn exact_wants_the_whole_text() {
        let judged = |p: &str| judge(Rule::Exact, p, "Dog, then rain", &[], "").unwrap();
        assert_eq!(judged("dog,  then rain."), Right);
        assert_eq!(judged("dog then rain"), Wrong);
        assert_eq!(judged("dog, then rain and wind"), Wrong);
        assert_eq!(judged(" ."), Unparsed);
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
            judge(Rule::Label, "dog", reference, &labels, "").unwrap_err()
        };
        assert_eq!(fault("cat", &["dog", "rain"]).key, "reference");
        assert_eq!(fault("dog", &[]).key, "labels");
        assert!(fault("dog", &["dog", "A Dog."]).expected.contains("differ"));
        assert!(fault("dog", &["dog", "?!"]).found.contains("?!"));
    }

    #[test]
    fn numbers_as_digits_and_words() {
        let judged = |p: &str| judge(Rule::Number, p, "3", &[], "").unwrap();
        assert_eq!(judged("Three."), Right);
        assert_eq!(judged("I count (3) dogs, 3.0 in all"), Right);
        assert_eq!(judged("-3"), Wrong);
        assert_eq!(judged("3 or 4"), Unparsed);
        assert_eq!(judged("nan inf many"), Unparsed);
        assert_eq!(
            judge(Rule::Number, "3", "many", &[], "").unwrap_err().key,
            "reference"
        );
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
