//! What counts as an answer to a question with options.
#![allow(clippy::unwrap_used)]

use af2::eval::rules::{judge, Verdict};
use af2::run::results::Rule;

/// The option that a prediction names, by its place; None where it is no answer.
fn named(prediction: &str, options: &[&str], prompt: &str) -> Option<usize> {
    let labels: Vec<String> = options.iter().map(|o| o.to_string()).collect();
    let verdicts: Vec<Verdict> = options
        .iter()
        .map(|o| judge(Rule::Label, prediction, o, &labels, prompt).unwrap())
        .collect();
    let right = verdicts.iter().position(|v| *v == Verdict::Right);
    // One option is right and the rest are wrong, or all are unparsed.
    let unparsed = verdicts.iter().filter(|v| **v == Verdict::Unparsed).count();
    assert_eq!(
        unparsed,
        if right.is_some() { 0 } else { options.len() },
        "{prediction:?}: {verdicts:?}"
    );
    right
}

/// Checks predictions against the option that each names.
fn check(options: &[&str], prompt: &str, table: &[(&str, Option<usize>)]) {
    let mut wrong = Vec::new();
    for (prediction, expected) in table {
        let found = named(prediction, options, prompt);
        if found != *expected {
            wrong.push(format!(
                "{prediction:?} of {options:?}: expected {expected:?}, found {found:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

#[test]
fn a_letter_in_any_dress_names_its_option() {
    let second = [
        "B",
        "b",
        "B.",
        "(B)",
        "(b)",
        "b)",
        "[B]",
        " B \n",
        "**B**",
        "`B`",
        "_B_",
        "\"B\"",
        "“B”",
        "'b'",
        "（Ｂ）",
        "B)",
        "B:",
        "B. a car",
        "b. a car",
        "b) a car",
        "(b) a car",
        "(B) A car passes",
        "B: a car",
        "B - a car",
        "B, a car",
        "**B.** a car",
        "**B. a car**",
        "B\n",
        "B\na car passes",
        "A car passes.\nB",
        "A car passes.\n\nAnswer: B",
        "Answer: B",
        "answer: b",
        "Answer:B",
        "ANSWER: B.",
        "Answer - B",
        "**Answer:** B",
        "Answer: **B**",
        "Answer: (b)",
        "Answer: b) a car",
        "The answer is B",
        "The answer is B.",
        "the answer is (b)",
        "the answer is b",
        "the answer is b, a car",
        "The correct answer is: B",
        "the correct answer is option B",
        "Option B",
        "option b",
        "option (b)",
        "Choice B",
        "choice b is correct",
        "letter b",
        "I choose B",
        "I would pick b",
        "I'd go with B.",
        "The answer is B because a car moves.",
        "the answer is b because a car moves",
        "B because a car moves",
        "B is correct",
        "b is the right answer",
        "I think B is correct: a car is heard.",
        "The final answer is $B$",
        "The final answer is \\boxed{B}",
        "\\boxed{\\text{B}}",
        "The answer is 'B'.",
        "The answer is \"b\".",
        "it must be B!",
        "A car is heard, so the answer is B.",
        "It's B.",
        "答案是B。",
        "I am sure it is not silence; B.",
        "<answer>B</answer>",
        "B (a car)",
        "Based on a sound of a car, the answer is B",
    ];
    let table: Vec<(&str, Option<usize>)> = second.iter().map(|p| (*p, Some(1))).collect();
    check(&LETTERS, "q", &table);
    let lower: Vec<&str> = vec!["a", "b", "c", "d"];
    check(&lower, "q", &table);
    let bracketed: Vec<&str> = vec!["(A)", "(B)", "(C)", "(D)"];
    check(&bracketed, "q", &table);
}

#[test]
fn the_article_is_no_letter() {
    check(
        &LETTERS,
        "q",
        &[
            ("a dog barks", None),
            ("A dog barks", None),
            ("A dog barks.", None),
            ("It is a dog", None),
            ("There is A Dog", None),
            ("a \"dog\"", None),
            ("A (loud) dog", None),
            ("the answer is a dog", None),
            ("The answer is A dog.", None),
            ("option a dog", None),
            ("a", Some(0)),
            ("A", Some(0)),
            ("A.", Some(0)),
            ("(a)", Some(0)),
            ("a)", Some(0)),
            ("a) a dog", Some(0)),
            ("A. A dog", Some(0)),
            ("A: a dog barks", Some(0)),
            ("the answer is a", Some(0)),
            ("the answer is A.", Some(0)),
            ("the answer is a because a dog barks", Some(0)),
            ("The answer is A because a dog barks", Some(0)),
            ("A is correct", Some(0)),
            ("I'd say A.", Some(0)),
        ],
    );
}

#[test]
fn letters_inside_other_words_are_none() {
    check(
        &LETTERS,
        "q",
        &[
            ("Because it is loud", None),
            ("Bird", None),
            ("All of them", None),
            ("R&B music", None),
            ("d'accord", None),
            ("a B-flat", None),
            ("a C# chord", None),
            ("the answer is C major", None),
            ("C minor", None),
            ("20 °C", None),
            ("20 ℃", None),
            ("at 3 a.m.", None),
            ("the A.B.C. song", None),
            ("dog(s)", None),
            ("an answer", None),
            ("I cannot tell.", None),
            ("", None),
            ("E", None),
            ("the answer is E", None),
            ("(F)", None),
        ],
    );
    let nine = ["A", "B", "C", "D", "E", "F", "G", "H", "I"];
    check(
        &nine,
        "q",
        &[
            ("I think it is B.", Some(1)),
            ("I. a bell", Some(8)),
            ("I hear a bell", None),
        ],
    );
}

#[test]
fn two_options_are_never_one() {
    let both = [
        "A and B",
        "A or B",
        "A, B",
        "A/B",
        "(A) (B)",
        "A. a dog\nB. a car",
        "B or C",
        "Answer: B or C",
        "answer: b or c",
        "The answer is B, not C",
        "either A or B",
        "the answer is either b or d",
        "A B C D",
        "Answer: A\nAnswer: B",
        "(A) dog (B) car (C) rain (D) wind\nAnswer: (A)",
        "the answer is B or A because",
        "the answer is a, b",
        "B and A",
        "C is quieter than D",
        "Options A & D",
    ];
    check(&LETTERS, "q", &both.map(|p| (p, None)));
    let set = ["wind", "rain", "bass guitar", "guitar"];
    let both = [
        "wind and rain",
        "rain, or wind",
        "rain guitar",
        "a bass guitar beside a guitar",
    ];
    check(&set, "q", &both.map(|p| (p, None)));
}

#[test]
fn what_is_denied_is_not_named() {
    let denied = [
        "not B",
        "Not B.",
        "the answer is not B",
        "it isn't B",
        "It cannot be B",
        "It can't be B",
        "B is wrong",
        "B is not correct",
        "B is incorrect",
        "B isn't right",
        "anything except B",
        "never B",
    ];
    check(&LETTERS, "q", &denied.map(|p| (p, None)));
    let set = ["dog", "rain"];
    let denied = [
        "not rain",
        "no rain",
        "it is not a dog",
        "there isn't any rain",
        "I do not hear a dog",
        "rain is not audible",
        "the dog doesn't bark, it is not there",
        "without rain",
        "neither a dog",
    ];
    check(&set, "q", &denied.map(|p| (p, None)));
    check(
        &set,
        "q",
        &[
            ("No, it is rain", Some(1)),
            ("no doubt it is rain", Some(1)),
            ("There is nothing but rain", Some(1)),
            ("not quiet: rain", Some(1)),
        ],
    );
    check(
        &["happy", "not happy"],
        "q",
        &[
            ("not happy", Some(1)),
            ("it is not happy", Some(1)),
            ("happy", Some(0)),
        ],
    );
    check(
        &["yes", "no"],
        "q",
        &[
            ("No, there is no dog", Some(1)),
            ("Yes.", Some(0)),
            ("yes and no", None),
            ("Yes, there is no doubt", None),
            ("no, there is no dog but yes there is a cat", None),
            ("know", None),
            ("eyes", None),
        ],
    );
}

#[test]
fn options_with_letters_are_named_by_letter_or_text() {
    let table = [
        ("b", Some(1)),
        ("(B)", Some(1)),
        ("(b) rain.", Some(1)),
        ("rain", Some(1)),
        ("The rain", Some(1)),
        ("B. rain", Some(1)),
        ("B: rain", Some(1)),
        ("it is rain", Some(1)),
        ("the answer is b", Some(1)),
        ("Answer: (B) rain", Some(1)),
        ("a wind", Some(0)),
        ("a", Some(0)),
        ("A: rain", None),
        ("(A) rain", None),
        ("rain, not A", None),
        ("wind or b", None),
        ("a sound", None),
        ("C", None),
        ("(A) wind (B) rain", None),
    ];
    for options in [
        ["(A) wind", "(B) rain"],
        ["A. wind", "B. rain"],
        ["a) wind", "b) rain"],
        ["A: wind", "B: rain"],
        ["[A] a wind", "[B] the rain"],
    ] {
        check(&options, "q", &table);
    }
    // The letters are those that are written, whatever the order.
    check(&["(B) rain", "(A) wind"], "q", &[("a", Some(1)), ("B", Some(0))]);
    // Initials are no letters of options.
    check(&["J. Bach", "C. Bach"], "q", &[("C. Bach", Some(1)), ("C", None)]);
}

#[test]
fn the_question_may_give_the_letters() {
    let options = ["a dog", "rain", "bass guitar", "guitar"];
    for prompt in [
        "What is it? (A) a dog. (B) rain. (C) bass guitar. (D) guitar.",
        "What is it?\nA. a dog\nB. rain\nC. bass guitar\nD. guitar",
        "Choose: a) A dog b) Rain c) Bass guitar d) Guitar",
    ] {
        let table = [
            ("B", Some(1)),
            ("(d)", Some(3)),
            ("the answer is c", Some(2)),
            ("a", Some(0)),
            ("a dog", Some(0)),
            ("B. guitar", None),
        ];
        check(&options, prompt, &table);
    }
    // A question that does not number the options gives them none.
    for prompt in [
        "What is it? a dog, rain, bass guitar, guitar",
        "A. a dog B. rain",
        "q",
    ] {
        check(&options, prompt, &[("B", None), ("(d)", None), ("rain", Some(1))]);
    }
}

#[test]
fn options_of_other_scripts_notes_and_numbers() {
    check(
        &["日本語", "英語"],
        "q",
        &[
            ("日本語です", Some(0)),
            ("英語。", Some(1)),
            ("日本語と英語", None),
            ("語", None),
        ],
    );
    check(
        &["Straße", "Weg"],
        "q",
        &[("STRASSE", Some(0)), ("die Straße", Some(0)), ("weg", Some(1))],
    );
    check(
        &["Café", "Thé"],
        "q",
        &[
            ("Cafe\u{301}", Some(0)),
            ("the\u{301}.", Some(1)),
            ("ＣＡＦＥ\u{301}", Some(0)),
        ],
    );
    check(
        &["C", "C#", "D"],
        "q",
        &[
            ("the key is C# minor", Some(1)),
            ("C", Some(0)),
            ("it is C major", Some(0)),
            ("in d", Some(2)),
        ],
    );
    check(
        &["C", "E", "G"],
        "q",
        &[
            ("the note is E", Some(1)),
            ("G major", Some(2)),
            ("C and E", None),
        ],
    );
    check(
        &["4/4", "3/4", "4"],
        "q",
        &[("4/4 time", Some(0)), ("in 3/4", Some(1)), ("4 beats", Some(2))],
    );
    check(
        &["3", "4"],
        "q",
        &[
            ("3", Some(0)),
            ("3 dogs", Some(0)),
            ("three", None),
            ("0.3", None),
            ("3 or 4", None),
        ],
    );
    check(
        &["Thunder and rain", "Thunder"],
        "q",
        &[
            ("Thunder_and_rain", Some(0)),
            ("thunder-and-rain!", Some(0)),
            ("thunder", Some(1)),
        ],
    );
}

#[test]
fn a_reference_may_be_the_letter_alone() {
    let labels: Vec<String> = ["(A) wind", "(B) rain"].map(String::from).to_vec();
    let judged = |prediction: &str| judge(Rule::Label, prediction, "B", &labels, "q").unwrap();
    assert_eq!(
        (judged("rain"), judged("(a)"), judged("snow")),
        (Verdict::Right, Verdict::Wrong, Verdict::Unparsed)
    );
    let fault = judge(Rule::Label, "rain", "C", &labels, "q").unwrap_err();
    assert_eq!(fault.key, "reference");
}

/// Whatever is written: one option, or none, and no panic.
#[test]
fn any_text_names_one_option_or_none() {
    use rand::{seq::SliceRandom, Rng};
    use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
    let pieces = [
        "a",
        "A",
        "b",
        "B",
        "c",
        "C#",
        "rain",
        "bass",
        "guitar",
        "not",
        "n't",
        "'",
        "’",
        " ",
        " ",
        "\n",
        ".",
        ":",
        ")",
        "(",
        "**",
        "answer",
        "is",
        "the",
        "or",
        "日本",
        "é",
        "e\u{301}",
        "４",
        "/",
        "4",
        "-",
        "&",
        "İ",
        "ß",
        "\u{200b}",
        "👍",
        "\u{1f171}",
        "°",
        "ﬁ",
        "\0",
        "_",
    ];
    let sets: [&[&str]; 6] = [
        &LETTERS,
        &["(A) rain", "(B) bass guitar", "(C) guitar"],
        &["rain", "bass guitar", "guitar"],
        &["not rain", "rain", "日本"],
        &["C", "C#", "4/4"],
        &["İ", "ss", "é"],
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut found = 0;
    for _ in 0..20_000 {
        let text: String = (0..rng.gen_range(0..12))
            .map(|_| *pieces.choose(&mut rng).unwrap())
            .collect();
        let prompt = ["q", "(A) rain (B) bass guitar (C) guitar", "a. b. c."]
            .choose(&mut rng)
            .unwrap();
        found += usize::from(named(&text, sets.choose(&mut rng).unwrap(), prompt).is_some());
    }
    assert!(found > 1000, "{found}");
}
