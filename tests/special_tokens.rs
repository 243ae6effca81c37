//! Special tokens inside texts of a data set: an answer that holds `<|endofchunk|>` must not end there.
#![allow(clippy::unwrap_used)]

mod common;

use af2::text::in_texts::Names;
use af2::text::labels::{labels, IGNORED};
use af2::text::tokenizer::SpecialTokens;
use af2::text::tokenizer::Tokenizer;
use common::golden;

/// Every added token of the tiny tokenizer that a lower-cased text can hold.
const INSIDE: [&str; 5] = [
    "<audio>",
    "<|endofchunk|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
];

fn tokenizer(how: SpecialTokens) -> Tokenizer {
    let mut t = Tokenizer::open(&golden("F_tiny/llm")).unwrap();
    t.special_tokens = how;
    t
}

fn count(ids: &[i64], id: i64) -> usize {
    ids.iter().filter(|i| **i == id).count()
}

#[test]
fn texts_without_them_are_the_same_in_every_way_of_reading() {
    let ways = [
        SpecialTokens::Text,
        SpecialTokens::Refuse,
        SpecialTokens::AsTokens,
    ]
    .map(tokenizer);
    for (question, answer) in [
        ("What is heard?", "A dog, then rain."),
        ("", ""),
        ("a < b | c > d", "<sep> <aud io> <|im_end"),
        ("größe 音", " a\n\nb "),
        ("<SEP>", "<|PAD_TOKEN|> is lower-cased"),
    ] {
        let plain = af2::text::prompt::example(&ways[0], question, answer);
        let ids = ways[0].encode(&plain).unwrap();
        for t in &ways {
            assert_eq!(t.example(question, answer).unwrap(), ids);
            let asked = &ids[..=ids.iter().position(|id| *id == t.sep).unwrap()];
            assert_eq!(t.question(question).unwrap(), asked);
            let clean = af2::text::prompt::clean(answer);
            assert_eq!(t.text(&clean).unwrap(), t.encode(&clean).unwrap());
        }
    }
}

#[test]
fn as_text_every_letter_counts_and_as_tokens_the_answer_ends_there() {
    let (text, tokens) = (tokenizer(SpecialTokens::Text), tokenizer(SpecialTokens::AsTokens));
    for name in INSIDE {
        let answer = format!("one {name} two{name}");
        let question = format!("{name}what?");
        let ids = text.example(&question, &answer).unwrap();
        for (id, n) in [
            (text.audio, 1),
            (text.sep, 1),
            (text.end_of_chunk, 1),
            (text.eos, 1),
        ] {
            assert_eq!(count(&ids, id), n, "{name}");
        }
        let whole = format!("<audio>{question}<SEP>{answer}<|endofchunk|><|endoftext|>");
        assert_eq!(text.decode(&ids, false).unwrap(), whole);
        // All behind the separator counts.
        let sep = ids.iter().position(|id| *id == text.sep).unwrap();
        assert_eq!(labels(&ids, &text)[sep + 1..], ids[sep + 1..]);
        assert_eq!(text.question(&question).unwrap(), ids[..=sep]);
        assert_eq!(text.decode(&text.text(&answer).unwrap(), true).unwrap(), answer);

        let reference = tokens.encode(&whole).unwrap();
        assert_eq!(tokens.example(&question, &answer).unwrap(), reference);
        let id = tokens.encode(name).unwrap()[0];
        assert!(count(&reference, id) >= 3, "{name}");
    }
    // What the reference makes of it: the answer is over at the first one.
    let ids = tokens.example("what?", "one <|endofchunk|> two").unwrap();
    let counted: Vec<i64> = labels(&ids, &tokens)
        .into_iter()
        .filter(|l| *l != IGNORED)
        .collect();
    assert_eq!(tokens.decode(&counted, false).unwrap(), "one <|endofchunk|>");
}

#[test]
fn refused_ones_are_named_with_the_key() {
    let t = tokenizer(SpecialTokens::Refuse);
    for name in INSIDE {
        for e in [
            t.example("what?", &format!("one {name}")).unwrap_err(),
            t.question(name).unwrap_err(),
            t.text(&format!("{name} two")).unwrap_err(),
        ] {
            let said = e.to_string();
            assert!(
                said.contains(name) && said.contains("data.special_tokens_in_texts"),
                "{said}"
            );
            assert_eq!(e.exit_code(), 4);
        }
    }
}

#[test]
fn names_are_found_before_and_after_lower_casing() {
    let t = tokenizer(SpecialTokens::Text);
    for names in [Names::of(None), Names::of(Some(&t))] {
        for (text, found) in [
            ("a <SEP> b", vec![("<SEP>", 1)]),
            ("<AUDIO><audio>", vec![("<audio>", 2)]),
            (
                "<|im_end|>x<|im_end|> <|endoftext|>",
                vec![("<|endoftext|>", 1), ("<|im_end|>", 2)],
            ),
            ("a < b, <b>bold</b>, <|", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(names.within(text), found, "{text}");
        }
    }
}
