//! From free text to right, wrong, or not an answer at all.
//!
//! The model writes text; a benchmark wants one of its options. The rule that stands between them decides a good part
//! of the score, so it has a name, is written beside each number, and never guesses: text that names no option, or
//! more than one, is wrong and counted as unparsed.
//!
//! An official rule is its benchmark's own script, to the letter and with its oddities; a fair one reads what the prediction
//! says. Every rule is a pure function of an [`Item`]: no file, no model.
//!
//! | rule | file | reads |
//! |---|---|---|
//! | [`Verbatim`](RuleName::Verbatim), [`Exact`](RuleName::Exact), [`Normalised`](RuleName::Normalised) | [`exact`] | the whole text |
//! | [`ClapLabel`](RuleName::ClapLabel) | [`retrieval`] | which label is nearest, by embeddings that come with the item |
//! | [`Label`](RuleName::Label), [`OptionLetter`](RuleName::OptionLetter) | [`label`] | one of a manifest's labels; one of the letters A, B, C … |
//! | [`Number`](RuleName::Number) | [`number`] | one number |
//! | [`Choice`](RuleName::Choice) | [`choice`] | one of any options: the fair rule beside every official one for multiple choice |
//! | [`YesNo`](RuleName::YesNo) | [`yes_no`] | yes or no |
//! | [`Mmau`](RuleName::Mmau), [`Mmar`](RuleName::Mmar) | [`mmau`] | tokens, as a set |
//! | [`Muchomusic`](RuleName::Muchomusic) | [`muchomusic`] | a capital letter anywhere, or an option as a part of the text |
//! | [`Cmm`](RuleName::Cmm) | [`cmm`] | the first five characters |
//! | [`AirBenchFoundation`](RuleName::AirBenchFoundation) | [`air_bench`] | the first character, or the last but one |
//! | [`ClothoAqa`](RuleName::ClothoAqa) | [`clotho_aqa`] | the whole text, without ASCII punctuation |
//! | [`MmauProInstructions`](RuleName::MmauProInstructions) | [`mmau_pro`] | whether an instruction was followed |
//! | [`LtuGender`](RuleName::LtuGender) | [`ltu`] | "female" anywhere |
//! | [`LmmsEvalMmau`](RuleName::LmmsEvalMmau) and its like | [`lmms_eval`] | lmms-eval's letters, without its random one |
//!
//! Beside them, what is no verdict on one text: MusicQA's scores ([`musicqa`]), LTU's arithmetic over cosines ([`ltu`]),
//! AIR-Bench's chats ([`air_bench`]), MMAU-Pro's judge and total ([`mmau_pro`]).

pub mod air_bench;
pub mod choice;
mod choices;
pub mod clotho_aqa;
pub mod cmm;
pub mod exact;
mod item;
pub mod label;
pub mod lmms_eval;
pub mod ltu;
pub mod mmau;
pub mod mmau_pro;
pub mod muchomusic;
pub mod musicqa;
pub mod number;
mod options;
mod porter;
pub mod punkt;
mod python;
mod record;
pub mod refusal;
pub mod retrieval;
mod space;
mod words;
pub mod yes_no;

pub use item::{Instruction, Item, Judged, State, Tally};
pub use options::Fault;
pub(crate) use words::normalise;

use crate::error::nearest;
use crate::eval::json::Json;
use crate::run::results::Rule;
use choices::Wholes;
use options::Options;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A rule's name, as cards, options and results write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
#[allow(missing_docs)] // `Self::says` says each.
pub enum RuleName {
    Verbatim,
    Exact,
    Normalised,
    Label,
    ClapLabel,
    OptionLetter,
    Number,
    Choice,
    YesNo,
    Mmau,
    Mmar,
    Muchomusic,
    Cmm,
    AirBenchFoundation,
    ClothoAqa,
    MmauProInstructions,
    LtuGender,
    LmmsEvalMmau,
    LmmsEvalMmar,
    LmmsEvalMuchomusic,
}

/// What there is to know of a rule.
struct Facts {
    name: &'static str,
    says: &'static str,
    judge: fn(&Item) -> Judged,
    /// Of a rule that takes records of the official file.
    record: Option<Record>,
    /// The fair rule that belongs beside an official one.
    beside: Option<RuleName>,
    fair: bool,
}

/// The key of the prediction in a record, and the rule on a record.
type Record = (&'static str, fn(&Json) -> Judged);

impl RuleName {
    /// All rules.
    pub const ALL: [RuleName; 20] = [
        RuleName::Verbatim,
        RuleName::Exact,
        RuleName::Normalised,
        RuleName::Label,
        RuleName::ClapLabel,
        RuleName::OptionLetter,
        RuleName::Number,
        RuleName::Choice,
        RuleName::YesNo,
        RuleName::Mmau,
        RuleName::Mmar,
        RuleName::Muchomusic,
        RuleName::Cmm,
        RuleName::AirBenchFoundation,
        RuleName::ClothoAqa,
        RuleName::MmauProInstructions,
        RuleName::LtuGender,
        RuleName::LmmsEvalMmau,
        RuleName::LmmsEvalMmar,
        RuleName::LmmsEvalMuchomusic,
    ];

    fn facts(self) -> Facts {
        let own = |name, says, judge: fn(&Item) -> Judged| Facts {
            name,
            says,
            judge,
            record: None,
            beside: None,
            fair: true,
        };
        let official = |name, says, judge: fn(&Item) -> Judged, beside| Facts {
            beside,
            fair: false,
            ..own(name, says, judge)
        };
        let recorded = |facts: Facts, key, record: fn(&Json) -> Judged| Facts {
            record: Some((key, record)),
            ..facts
        };
        let (choice, yes_no) = (Some(RuleName::Choice), Some(RuleName::YesNo));
        match self {
            RuleName::Verbatim => own(
                "verbatim",
                "the answer, character for character",
                exact::judge_verbatim,
            ),
            RuleName::Exact => own(
                "exact",
                "the answer but for case, space and outer punctuation",
                exact::judge_exact,
            ),
            RuleName::Normalised => own(
                "normalised",
                "the answer's words without articles",
                exact::judge_normalised,
            ),
            RuleName::Label => own("label", "the one label that is named", label::judge),
            RuleName::ClapLabel => official(
                "clap_label",
                "the label whose embedding is nearest",
                retrieval::judge,
                Some(RuleName::Label),
            ),
            RuleName::OptionLetter => own(
                "option_letter",
                "the one letter that is given",
                label::judge_letter,
            ),
            RuleName::Number => own("number", "the one number", number::judge),
            RuleName::Choice => own(
                "choice",
                "the one option that is named, by text or letter",
                choice::judge,
            ),
            RuleName::YesNo => own("yes_no", "yes or no", yes_no::judge),
            RuleName::Mmau => recorded(
                official(
                    "mmau",
                    "the answer's tokens and none of only a wrong choice",
                    mmau::judge,
                    choice,
                ),
                "model_output",
                |record| mmau::MMAU.record(record),
            ),
            RuleName::Mmar => recorded(
                official("mmar", "MMAU's rule on MMAR's keys", mmau::judge, choice),
                "answer_prediction",
                |record| mmau::MMAR.record(record),
            ),
            RuleName::Muchomusic => recorded(
                official(
                    "muchomusic",
                    "one capital letter, or an option's text",
                    muchomusic::judge,
                    choice,
                ),
                "model_output",
                muchomusic::record,
            ),
            RuleName::Cmm => recorded(
                official(
                    "cmm",
                    "the answer in the first five characters",
                    cmm::judge,
                    yes_no,
                ),
                "pred",
                cmm::record,
            ),
            RuleName::AirBenchFoundation => recorded(
                official(
                    "air_bench_foundation",
                    "a letter first or last but one",
                    air_bench::judge,
                    choice,
                ),
                "response",
                air_bench::record,
            ),
            RuleName::ClothoAqa => official(
                "clotho_aqa",
                "the answer but for case and ASCII punctuation",
                clotho_aqa::judge,
                Some(RuleName::Normalised),
            ),
            RuleName::MmauProInstructions => recorded(
                official(
                    "mmau_pro_instructions",
                    "whether the instruction was followed",
                    mmau_pro::judge,
                    None,
                ),
                "model_output",
                mmau_pro::record,
            ),
            RuleName::LtuGender => official(
                "ltu_gender",
                "female where it says so, else male",
                ltu::judge_gender,
                None,
            ),
            RuleName::LmmsEvalMmau => official(
                "lmms_eval_mmau",
                "lmms-eval's letter",
                lmms_eval::judge_mmau,
                choice,
            ),
            RuleName::LmmsEvalMmar => official(
                "lmms_eval_mmar",
                "lmms-eval's letter or text",
                lmms_eval::judge_mmar,
                choice,
            ),
            RuleName::LmmsEvalMuchomusic => official(
                "lmms_eval_muchomusic",
                "lmms-eval's letter",
                lmms_eval::judge_muchomusic,
                choice,
            ),
        }
    }

    /// The rule's name.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// What is right under it, in some words.
    pub fn says(self) -> &'static str {
        self.facts().says
    }

    /// Whether it reads what a prediction says, and is not a benchmark's own script.
    pub fn is_fair(self) -> bool {
        self.facts().fair
    }

    /// The fair rule that belongs beside this official one.
    pub fn beside(self) -> Option<RuleName> {
        self.facts().beside
    }

    /// Whether it compares embeddings, which an [`Item`] must bring with it.
    pub fn compares_embeddings(self) -> bool {
        self == RuleName::ClapLabel
    }

    /// The rule's verdict on an item.
    ///
    /// ```
    /// use af2::eval::rules::{Item, RuleName, State};
    ///
    /// let choices = ["a gunshot", "a door slam"].map(String::from);
    /// let item = Item { choices: &choices, answer: "a door slam", prediction: Some("(B) a door slam."), ..Item::default() };
    /// let fair = RuleName::Choice.judge(&item);
    /// assert_eq!((fair.state, fair.answer.as_deref(), fair.correct), (State::Answered, Some("a door slam"), true));
    /// assert_eq!(&item.prediction.unwrap()[fair.span.unwrap()], "a door slam");
    /// ```
    pub fn judge(self, item: &Item) -> Judged {
        seen(item.prediction, item.truncated, (self.facts().judge)(item))
    }

    /// The rule's verdict on a record of its benchmark's own prediction file, read with the keys and the errors of the official
    /// script; `None` of a rule that has no such file.
    pub fn record(self, record: &Value) -> Option<Judged> {
        self.record_as_read(&Json::from(record))
    }

    /// Of each of an item's choices whether it would be right as the prediction, by a rule that tells them at once sooner than one by
    /// one; `None` of other rules, and of items that it judges one by one.
    pub(crate) fn choices_that_are_right(self, answer: &str, choices: &[String]) -> Option<Vec<bool>> {
        match self {
            RuleName::Mmau | RuleName::Mmar => mmau::choices_that_are_right(answer, choices),
            _ => None,
        }
    }

    /// Where a record holds the prediction that the rule reads; `None` of a rule without records.
    pub(crate) fn prediction_key(self) -> Option<&'static str> {
        self.facts().record.map(|(key, _)| key)
    }

    /// [`RuleName::record`] of a record that lies in a file's text.
    pub(crate) fn record_as_read(self, record: &Json) -> Option<Judged> {
        let (key, judge) = self.facts().record?;
        let prediction = record.get(key).and_then(Json::as_str);
        Some(seen(prediction, false, judge(record)))
    }
}

/// What of the state every rule has alike: nothing was written, or not to its end.
fn seen(prediction: Option<&str>, truncated: bool, judged: Judged) -> Judged {
    let blank = prediction.is_none_or(|text| text.chars().all(python::is_space));
    let state = match judged.state {
        State::Error => State::Error,
        _ if blank => State::Empty,
        _ if truncated => State::Truncated,
        state => state,
    };
    Judged { state, ..judged }
}

impl From<RuleName> for &'static str {
    fn from(rule: RuleName) -> Self {
        rule.name()
    }
}

impl std::fmt::Display for RuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for RuleName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|rule| rule.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(RuleName::name);
            let near = nearest(name, names).map_or(String::new(), |n| format!("; did you mean {n:?}?"));
            format!("expected one of {}, found {name:?}{near}", names.join(", "))
        })
    }
}

impl TryFrom<String> for RuleName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Rule> for RuleName {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Exact => RuleName::Exact,
            Rule::Label => RuleName::Label,
            Rule::Number => RuleName::Number,
        }
    }
}

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
        Rule::Exact => exact::same(prediction, reference),
        Rule::Label => {
            let wholes = Wholes::of(labels);
            let options = Options::new(labels, &wholes, prompt)?;
            let right = label::right(&options, reference, labels)?;
            options.answer(prediction).map(|given| given == right)
        }
        Rule::Number => {
            let right = number::reference(reference)?;
            number::number(prediction).map(|(given, _)| given == right)
        }
    }))
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
