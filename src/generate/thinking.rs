//! Answers that think first: the chain of thought, and what is concluded from it, kept apart.
//!
//! Two forms are known, in capitals or not: the chain-of-thought release's
//! `<SUMMARY>…</SUMMARY><CAPTION>…</CAPTION><REASONING>…</REASONING><CONCLUSION>…</CONCLUSION>`, and `<think>…</think>` before
//! the answer.

const THINK: &str = "<think>";
const THOUGHT: &str = "</think>";
const REASONING: &str = "<reasoning>";
const REASONED: &str = "</reasoning>";
const CONCLUSION: &str = "<conclusion>";
const CONCLUDED: &str = "</conclusion>";
/// What tells a chain from an answer.
const CHAIN: [&str; 4] = ["<summary>", "<caption>", REASONING, CONCLUSION];
/// Where one of these begins, an answer is no longer shown before all of it is there.
const TAGS: [&str; 6] = [THINK, THOUGHT, "<summary>", "<caption>", REASONING, CONCLUSION];

/// Most characters of a chain that broke off in which its last sentence is looked for.
const MOST_FED: usize = 512;

/// What an answer says, apart from what it thinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thought {
    /// The chain, without the tags of thinking and of the conclusion; none of an answer in neither form.
    pub thinking: Option<String>,
    /// The conclusion; empty where there is none.
    pub text: String,
}

/// Takes an answer apart.
///
/// * Without these tags an answer is as it was.
/// * The answer is what stands behind the last `</think>`, up to a `<think>` that may follow; without a `</think>` what stands before
///   the first `<think>`. All else is thinking.
/// * Of that the conclusion is the last one that is closed, else the last that is opened, which then goes on to the end. With another
///   tag of the chain and without a conclusion all is thinking.
///
/// ```
/// use af2::generate::thinking::split;
/// let answer = split("<SUMMARY> a bell </SUMMARY>\n<REASONING> it is large </REASONING>\n<CONCLUSION> (a) church </CONCLUSION>");
/// assert_eq!(answer.text, "(a) church");
/// assert_eq!(answer.thinking.unwrap(), "<SUMMARY> a bell </SUMMARY>\n<REASONING> it is large </REASONING>");
/// ```
pub fn split(answer: &str) -> Thought {
    let (mut thinking, said) = thoughts(answer);
    let text = match conclusion(said) {
        Some((chain, text)) => {
            thinking.extend(chain);
            Some(text)
        }
        None => (said.len() < answer.len()).then_some(said),
    };
    match text {
        None => Thought {
            thinking: None,
            text: answer.to_owned(),
        },
        Some(text) => {
            let pieces: Vec<&str> = thinking
                .into_iter()
                .map(str::trim)
                .filter(|p| !p.is_empty())
                .collect();
            Thought {
                thinking: Some(pieces.join("\n")),
                text: text.trim().to_owned(),
            }
        }
    }
}

/// What is thought in `<think>…</think>`, and the rest.
fn thoughts(answer: &str) -> (Vec<&str>, &str) {
    // Of the same length, whatever the text.
    let small = answer.to_ascii_lowercase();
    match (small.rfind(THOUGHT), small.find(THINK)) {
        (Some(end), _) => {
            let mut thinking = between_tags(&answer[..end], &small[..end]);
            let after = end + THOUGHT.len();
            match small[after..].find(THINK) {
                None => (thinking, &answer[after..]),
                Some(at) => {
                    thinking.push(&answer[after + at + THINK.len()..]);
                    (thinking, &answer[after..after + at])
                }
            }
        }
        (None, Some(at)) => (between_tags(&answer[at..], &small[at..]), &answer[..at]),
        (None, None) => (Vec::new(), answer),
    }
}

/// What stands between the tags of thinking. `small`: the text in small letters.
fn between_tags<'a>(text: &'a str, small: &str) -> Vec<&'a str> {
    let mut pieces = Vec::new();
    let mut from = 0;
    loop {
        let next = [THINK, THOUGHT]
            .iter()
            .filter_map(|tag| Some((small[from..].find(tag)?, tag.len())))
            .min();
        let Some((at, len)) = next else {
            pieces.push(&text[from..]);
            return pieces;
        };
        pieces.push(&text[from..from + at]);
        from += at + len;
    }
}

/// The chain, and the conclusion, which may be missing; none of a text that is no chain.
fn conclusion(said: &str) -> Option<(Vec<&str>, &str)> {
    let small = said.to_ascii_lowercase();
    let opened: Vec<usize> = small.match_indices(CONCLUSION).map(|(at, _)| at).collect();
    let end_of = |open: usize| {
        let next = opened.iter().find(|at| **at > open).map_or(said.len(), |at| *at);
        small[open..next].find(CONCLUDED).map(|at| open + at)
    };
    let closed = opened.iter().rev().find_map(|at| Some((*at, end_of(*at)?)));
    match (closed, opened.last()) {
        (Some((open, end)), _) => {
            let text = &said[open + CONCLUSION.len()..end];
            Some((vec![&said[..open], &said[end + CONCLUDED.len()..]], text))
        }
        (None, Some(open)) => Some((vec![&said[..*open]], &said[open + CONCLUSION.len()..])),
        (None, None) => CHAIN
            .iter()
            .any(|tag| small.contains(tag))
            .then(|| (vec![said], "")),
    }
}

/// What is written behind the question where an answer reasons and comes to no conclusion, so that it concludes: the reasoning so
/// far, in small letters, with its end and the beginning of a conclusion. None where there is nothing to ask for.
///
/// Reference: `predict` of the release tree's `inference_CoT.py`, which asks once more so, and only once. Of a reasoning that is not
/// closed it takes the first 512 characters up to the last full stop; without one all but the last character. It cuts question
/// and chain to 1,024 tokens, which is left out here.
pub fn to_conclude(answer: &str) -> Option<String> {
    let small = answer.to_lowercase();
    if !small.contains(REASONING) || small.contains(CONCLUDED) {
        return None;
    }
    let chain = match small.split_once(REASONED) {
        Some((chain, _)) => chain,
        None => {
            let first = match small.char_indices().nth(MOST_FED) {
                Some((end, _)) => small[..end].trim(),
                None => &small,
            };
            let last = first.char_indices().next_back().map_or(0, |(at, _)| at);
            &first[..first.rfind('.').unwrap_or(last)]
        }
    };
    Some(format!("{chain}</REASONING>\n<CONCLUSION>"))
}

/// An answer that is shown as it comes, but for what it thinks: from the first tag on nothing is told before the end.
#[derive(Default)]
pub struct Said {
    all: String,
    told: usize,
    thinks: bool,
}

impl Said {
    /// What of the answer may be shown now.
    pub fn push(&mut self, piece: &str) -> String {
        self.all += piece;
        if self.thinks {
            return String::new();
        }
        let rest = &self.all[self.told..];
        let small = rest.to_ascii_lowercase();
        let tag = |at: usize| TAGS.iter().any(|tag| small[at..].starts_with(tag));
        let may_be = |at: usize| TAGS.iter().any(|tag| tag.starts_with(&small[at..]));
        let opened = small
            .match_indices('<')
            .map(|(at, _)| at)
            .find(|at| tag(*at) || may_be(*at));
        self.thinks = opened.is_some_and(tag);
        let shown = &rest[..opened.unwrap_or(rest.len())];
        // White space before a tag is none of the answer.
        if self.told == 0 && shown.trim().is_empty() {
            return String::new();
        }
        self.told += shown.len();
        shown.to_owned()
    }

    /// The rest: of an answer that thinks its conclusion.
    pub fn finish(self) -> String {
        let (told, rest) = self.all.split_at(self.told);
        let Thought { thinking, text } = split(&self.all);
        match (thinking, told.trim()) {
            (None, _) => rest.to_owned(),
            (Some(_), "") => text,
            (Some(_), told) if told == text => String::new(),
            (Some(_), _) => format!("\n{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, thinking: Option<&str>, text: &str) {
        let found = split(answer);
        let expected = Thought {
            thinking: thinking.map(str::to_owned),
            text: text.to_owned(),
        };
        assert_eq!(found, expected, "{answer:?}");
    }

    #[test]
    fn a_chain_and_its_conclusion_are_kept_apart() {
        let chain = "<SUMMARY>s</SUMMARY>\n<CAPTION>c</CAPTION>\n<REASONING>r</REASONING>";
        check(
            &format!("{chain}\n<CONCLUSION> (a) bell </CONCLUSION>\n"),
            Some(chain),
            "(a) bell",
        );
        let small = chain.to_lowercase();
        check(&format!("{small}<conclusion>x</conclusion>"), Some(&small), "x");
        check(&format!("{chain}<Conclusion>x</CONCLUSION>"), Some(chain), "x");
        // What follows is none of the conclusion.
        check(
            "<reasoning>r</reasoning><conclusion>x</conclusion> and more",
            Some("<reasoning>r</reasoning>\nand more"),
            "x",
        );
    }

    #[test]
    fn broken_chains_have_one_meaning_each() {
        // No tags, in whatever white space; a lone end; less than a tag.
        for plain in [
            " a bell\n",
            "",
            "x</conclusion>",
            "1 < 2, <b>, <conclusions>, <thinking>",
        ] {
            check(plain, None, plain);
        }
        check(
            "<reasoning>r</reasoning><conclusion>x",
            Some("<reasoning>r</reasoning>"),
            "x",
        );
        check("<conclusion>x", Some(""), "x");
        check("<reasoning>r", Some("<reasoning>r"), "");
        check("<reasoning>r</conclusion>", Some("<reasoning>r</conclusion>"), "");
        check("<conclusion></conclusion>", Some(""), "");
        // Twice, and once more without an end.
        check(
            "<conclusion>a</conclusion><conclusion>b</conclusion>",
            Some("<conclusion>a</conclusion>"),
            "b",
        );
        check(
            "<conclusion>a</conclusion> <conclusion>b",
            Some("<conclusion>b"),
            "a",
        );
        check("<conclusion>a<conclusion>b", Some("<conclusion>a"), "b");
        // Within another.
        check(
            "<conclusion>a<conclusion>b</conclusion></conclusion>",
            Some("<conclusion>a\n</conclusion>"),
            "b",
        );
    }

    #[test]
    fn thoughts_and_the_answer_are_kept_apart() {
        check(
            "<think>\nit rings\n</think>\n\na bell",
            Some("it rings"),
            "a bell",
        );
        check("<Think>it rings</THINK>a bell", Some("it rings"), "a bell");
        // Begun by the question, as chat templates do.
        check("it rings</think>a bell", Some("it rings"), "a bell");
        check("<think>it ri", Some("it ri"), "");
        check("a bell <think>it ri", Some("it ri"), "a bell");
        check("<think></think>a bell", Some(""), "a bell");
        check("<think>a</think>b<think>c</think>d", Some("a\nb\nc"), "d");
        check("<think>a</think>b<think>c", Some("a\nc"), "b");
        check("<think>a<think>b</think>c</think>d", Some("a\nb\nc"), "d");
        check(
            "<think>a</think><reasoning>b</reasoning><conclusion>c</conclusion>",
            Some("a\n<reasoning>b</reasoning>"),
            "c",
        );
    }

    #[test]
    fn a_chain_without_a_conclusion_is_asked_for_one() {
        let ask = |answer: &str| to_conclude(answer);
        for done in [
            "a bell",
            "<SUMMARY>s</SUMMARY>",
            "<REASONING>r</REASONING><CONCLUSION>x</CONCLUSION>",
        ] {
            assert_eq!(ask(done), None);
        }
        let end = "</REASONING>\n<CONCLUSION>";
        assert_eq!(
            ask("<REASONING>It rings.</REASONING> so").unwrap(),
            format!("<reasoning>it rings.{end}")
        );
        // A conclusion that is not closed is none.
        assert_eq!(
            ask("<reasoning>r</reasoning><conclusion>x").unwrap(),
            format!("<reasoning>r{end}")
        );
        assert_eq!(
            ask("<reasoning>It rings. It is lou").unwrap(),
            format!("<reasoning>it rings{end}")
        );
        assert_eq!(ask("<reasoning>é").unwrap(), format!("<reasoning>{end}"));
        let long = format!("<reasoning>{}. {}", "ä".repeat(480), "b. ".repeat(40));
        let fed = ask(&long).unwrap();
        assert_eq!(
            fed,
            format!("<reasoning>{}. {}b{end}", "ä".repeat(480), "b. ".repeat(5))
        );
        let long = format!("<reasoning>{}", "ä".repeat(600));
        assert_eq!(ask(&long).unwrap().chars().count(), end.chars().count() + 511);
    }

    #[test]
    fn what_is_shown_as_it_comes_is_the_answer_without_its_thoughts() {
        for (answer, shown) in [
            (" a bell <b> <", " a bell <b> <"),
            ("\n<think>it rings</think>\na bell", "a bell"),
            ("<SUMMARY>s</SUMMARY> <CONCLUSION>x</CONCLUSION>", "x"),
            (
                "well: <reasoning>r</reasoning><conclusion>x</conclusion>",
                "well: \nx",
            ),
            ("a bell<think>it ri", "a bell"),
            ("<reasoning>r", ""),
            ("it is <thin", "it is <thin"),
        ] {
            for size in 1..8 {
                let mut said = Said::default();
                let chars: Vec<char> = answer.chars().collect();
                let mut all: String = chars
                    .chunks(size)
                    .map(|c| said.push(&c.iter().collect::<String>()))
                    .collect();
                all += &said.finish();
                assert_eq!(all, shown, "{answer:?} by {size}");
            }
        }
    }
}
