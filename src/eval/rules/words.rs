//! A text in words, with what stands around each: enough to tell a letter that is meant as one from the article "a".

use std::borrow::Cow;
use std::ops::Range;
use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{is_nfkc_quick, IsNormalized, UnicodeNormalization};

/// Words that turn what they stand before, or what "is" follows, into its opposite.
const NEGATIONS: [&str; 11] = [
    "not",
    "no",
    "never",
    "neither",
    "nor",
    "cannot",
    "without",
    "except",
    "excluding",
    "isnt",
    "dont",
];
/// Words after "is" that do so.
const REFUSALS: [&str; 8] = [
    "wrong",
    "incorrect",
    "false",
    "unlikely",
    "absent",
    "excluded",
    "impossible",
    "inaudible",
];
const VERBS: [&str; 12] = [
    "is", "are", "was", "were", "seems", "can", "could", "does", "do", "would", "should", "sounds",
];
/// Words behind which a negation is over.
const TURNS: [&str; 5] = ["but", "only", "just", "rather", "instead"];
/// How many words before an option a negation may stand.
const REACH: usize = 4;
/// What ends a part of a sentence.
const PAUSES: [char; 10] = ['.', ',', ';', ':', '!', '?', '\n', '。', '，', '、'];
const QUOTES: [char; 7] = ['"', '\'', '`', '“', '”', '‘', '’'];
/// Between digits they belong to the number.
const JOINTS: [char; 4] = ['.', ',', ':', '/'];

/// A word: where it stands in the text, and in the folded text.
#[derive(Clone)]
pub(super) struct Word {
    pub at: Range<usize>,
    folded: Range<usize>,
}

/// A text without markup and with compatible characters made one (NFKC).
pub(super) struct Text<'a> {
    text: Cow<'a, str>,
    /// The words as they are compared, and perhaps what stands between them; none where that is the text.
    folded: Option<String>,
    pub words: Vec<Word>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self::of_plain(plain(text))
    }

    /// Of a text that is [`plain`].
    pub(crate) fn of_plain(text: Cow<'a, str>) -> Self {
        if text.is_ascii() {
            let words = split_ascii(text.as_bytes());
            let capitals = text.bytes().any(|b| b.is_ascii_uppercase());
            let folded = capitals.then(|| text.to_ascii_lowercase());
            return Text { text, folded, words };
        }
        let ranges = split(&text);
        let mut folded = String::with_capacity(text.len());
        let word = |at: Range<usize>| {
            let start = folded.len();
            folded += &fold(&text[at.clone()]);
            let folded = start..folded.len();
            Word { at, folded }
        };
        let words = ranges.map(word).collect();
        let folded = Some(folded);
        Text { text, folded, words }
    }

    fn all_folded(&self) -> &str {
        self.folded.as_deref().unwrap_or(&self.text)
    }

    /// Where a run of words stands: ranges of word numbers.
    pub(crate) fn find<'s>(&'s self, run: &'s Text) -> impl Iterator<Item = Range<usize>> + 's {
        let n = run.words.len();
        let last = (self.words.len() + 1).saturating_sub(n.max(1));
        let same = move |start: usize| (0..n).all(|i| self.folded(start + i) == run.folded(i));
        (0..last)
            .filter(move |start| same(*start))
            .map(move |start| start..start + n)
    }

    /// The words as they are compared.
    pub(crate) fn folded_words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|w| &self.all_folded()[w.folded.clone()])
    }

    /// Word `i` as it is compared, if there is one.
    pub(crate) fn folded(&self, i: usize) -> &str {
        self.words
            .get(i)
            .map_or("", |w| &self.all_folded()[w.folded.clone()])
    }

    /// Word `i` as it was written, if there is one.
    pub(crate) fn written(&self, i: usize) -> &str {
        self.words.get(i).map_or("", |w| &self.text[w.at.clone()])
    }

    /// What stands between word `i - 1` and word `i`; at the ends, the rest.
    pub(crate) fn gap(&self, i: usize) -> &str {
        let from = i.checked_sub(1).map_or(0, |before| self.words[before].at.end);
        let to = self.words.get(i).map_or(self.text.len(), |w| w.at.start);
        &self.text[from..to]
    }

    /// Whether word `i` is the first of its line.
    pub(crate) fn begins_line(&self, i: usize) -> bool {
        i == 0 || self.gap(i).contains('\n')
    }

    /// Whether word `i` is the last of its line.
    pub(crate) fn ends_line(&self, i: usize) -> bool {
        i + 1 >= self.words.len() || self.gap(i + 1).contains('\n')
    }

    /// Whether nothing but space, and `also`, stands between word `i` and the next.
    pub(crate) fn goes_on(&self, i: usize, also: &[char]) -> bool {
        let space = |c: char| (c.is_whitespace() && c != '\n') || also.contains(&c);
        i + 1 < self.words.len() && self.gap(i + 1).chars().all(space)
    }

    /// The two characters before word `i`, the nearer one first, and the two behind it.
    fn around(&self, i: usize) -> ([Option<char>; 2], [Option<char>; 2]) {
        let at = &self.words[i].at;
        let mut before = self.text[..at.start].chars().rev();
        let mut after = self.text[at.end..].chars();
        ([before.next(), before.next()], [after.next(), after.next()])
    }

    /// Whether the letter that is word `i` stands for itself, and is no part of "it's", "T-shirt", "R&B", "e.g." or "20 °C".
    pub(crate) fn stands_alone(&self, i: usize) -> bool {
        let (before, after) = self.around(i);
        let joined = |[near, far]: [Option<char>; 2]| {
            matches!(near, Some('\'' | '-' | '&' | '@')) && far.is_some_and(char::is_alphanumeric)
        };
        let abbreviated = |[near, far]: [Option<char>; 2], other: usize| {
            near == Some('.')
                && far.is_some_and(char::is_alphanumeric)
                && self.folded(other).chars().count() == 1
        };
        let joined = joined(before) || joined(after) || before[0] == Some('°');
        let first = i.checked_sub(1).is_some_and(|other| abbreviated(before, other));
        !(joined || first || abbreviated(after, i + 1))
    }

    /// Whether word `i` stands in brackets of its own: "(b)", but not "dog(s)".
    pub(crate) fn in_brackets(&self, i: usize) -> bool {
        let (before, after) = self.around(i);
        let part_of_word = before[1].is_some_and(char::is_alphanumeric) && before[0] != Some('{');
        let pair = matches!(
            (before[0], after[0]),
            (Some('('), Some(')'))
                | (Some('['), Some(']'))
                | (Some('{'), Some('}'))
                | (Some('【'), Some('】'))
        );
        pair && !part_of_word
    }

    /// Whether word `i` is marked as the item of a list: "b)", "b.", "b:".
    pub(crate) fn is_marked(&self, i: usize) -> bool {
        let (_, after) = self.around(i);
        matches!(after[0], Some(')' | ']' | ':' | '.')) && after[1] != Some('.')
    }

    /// Whether the words of `at` are denied: "not a dog", "B is wrong". Words that are `named` deny nothing: "no" may be an
    /// option itself.
    pub(crate) fn denied(&self, at: &Range<usize>, named: impl Fn(usize) -> bool) -> bool {
        let before = (1..=REACH).map_while(|back| {
            let i = at.start.checked_sub(back)?;
            let over = self.gap(i + 1).contains(PAUSES) || TURNS.contains(&self.folded(i));
            (!over).then_some(i)
        });
        let doubt = |i: usize| self.folded(i + 1).starts_with("doubt");
        let mut before = before.filter(|i| !named(*i) && !doubt(*i));
        before.any(|i| self.negates(i)) || self.denied_behind(at.end, named)
    }

    fn denied_behind(&self, end: usize, named: impl Fn(usize) -> bool) -> bool {
        let follows = |i: usize| i < self.words.len() && !self.gap(i).contains(PAUSES) && !named(i);
        if !follows(end) {
            return false;
        }
        let first = self.folded(end);
        if first == "cannot" {
            return true;
        }
        let denies = |i: usize| follows(i) && (self.negates(i) || REFUSALS.contains(&self.folded(i)));
        // "isn't" is two words here.
        let verb = |w: &str| VERBS.contains(&w);
        (verb(first) || first.strip_suffix('n').is_some_and(verb)) && denies(end + 1)
    }

    /// "not" and its like; "n't" is two words here.
    fn negates(&self, i: usize) -> bool {
        let contracted = self.folded(i) == "t"
            && self.gap(i) == "'"
            && i.checked_sub(1)
                .is_some_and(|b| self.folded(b).ends_with('n') || self.folded(b) == "can");
        contracted || NEGATIONS.contains(&self.folded(i))
    }
}

/// As capital letters and back, so that "STRASSE" is "Straße".
pub(super) fn fold(text: &str) -> String {
    match text.is_ascii() {
        true => text.to_ascii_lowercase(),
        false => text.to_uppercase().to_lowercase(),
    }
}

/// Without emphasis and characters that take no room; one apostrophe; compatible characters made one: "（Ｂ）" is "(B)".
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let invisible = |c: &char| {
        matches!(
            c,
            '*' | '`' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
        )
    };
    let one = |c: char| match c {
        '’' | '‘' | 'ʼ' => '\'',
        '_' => ' ',
        c => c,
    };
    match text.is_ascii() {
        true if memchr::memchr3(b'*', b'`', b'_', text.as_bytes()).is_none() => Cow::Borrowed(text),
        true => text.chars().filter(|c| !invisible(c)).map(one).collect(),
        false => text.nfkc().filter(|c| !invisible(c)).map(one).collect(),
    }
}

/// Where in a text a range of [`plain`] of it stands: whole characters, with what composes with them.
pub(super) fn unplain(text: &str, plain_range: Range<usize>) -> Range<usize> {
    // Nothing is left out of such a text, and each character is one byte there and here.
    let same = text.is_ascii() && memchr::memchr2(b'*', b'`', text.as_bytes()).is_none();
    if same && !plain_range.is_empty() && plain_range.end <= text.len() {
        return plain_range;
    }
    let (mut done, mut start, mut end) = (0, None, text.len());
    let mut pieces = text
        .char_indices()
        .filter(|(_, c)| begins_piece(*c))
        .map(|(at, _)| at)
        .peekable();
    let mut from = 0;
    loop {
        // The first piece begins with the text, whatever its first character is.
        while pieces.next_if(|at| *at <= from).is_some() {}
        let to = pieces.peek().copied().unwrap_or(text.len());
        let next = done + plain_length(&text[from..to]);
        if start.is_none() && next > plain_range.start {
            start = Some(from);
        }
        if next >= plain_range.end && start.is_some() {
            end = to;
            break;
        }
        if to == text.len() {
            break;
        }
        (done, from) = (next, to);
    }
    let start = start.unwrap_or(text.len());
    start..end.max(start)
}

/// Whether a character never composes with the one before it.
fn begins_piece(c: char) -> bool {
    c.is_ascii() || {
        let first = std::iter::once(c).nfkd().next().unwrap_or(c);
        canonical_combining_class(first) == 0 && is_nfkc_quick(std::iter::once(first)) == IsNormalized::Yes
    }
}

fn plain_length(piece: &str) -> usize {
    match piece {
        "*" | "`" => 0,
        ascii if ascii.len() == 1 => 1,
        other => plain(other).len(),
    }
}

/// Words of a plain text. Signs that tell names apart, as in C and C#, belong to the word, and so does what joins digits;
/// characters of scripts that are written without spaces are words of their own.
fn split(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut rest = text.char_indices().peekable();
    let mut open: Option<usize> = None;
    let mut alone: Option<Range<usize>> = None;
    let mut last = ' ';
    std::iter::from_fn(move || {
        if let Some(word) = alone.take() {
            return Some(word);
        }
        while let Some((at, c)) = rest.next() {
            let next = rest.peek().map_or(' ', |(_, c)| *c);
            let joint = JOINTS.contains(&c) && last.is_ascii_digit() && next.is_ascii_digit();
            let inside = joint || c.is_alphanumeric() || ['#', '♯', '♭', '+'].contains(&c);
            last = c;
            let single = unspaced(c);
            let word = open.filter(|_| !inside || single).map(|start| start..at);
            if word.is_some() {
                open = None;
            }
            if single && inside {
                let own = at..at + c.len_utf8();
                match word {
                    Some(_) => alone = Some(own),
                    None => return Some(own),
                }
            } else if inside && open.is_none() {
                open = Some(at);
            }
            if word.is_some() {
                return word;
            }
        }
        open.take().map(|start| start..text.len())
    })
}

/// The same of an ASCII text, byte by byte.
fn split_ascii(text: &[u8]) -> Vec<Word> {
    // Most texts have fewer.
    let mut words = Vec::with_capacity(8);
    let word = |at: Range<usize>| Word {
        folded: at.clone(),
        at,
    };
    let digit = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_digit);
    let mut open: Option<usize> = None;
    for (at, byte) in text.iter().enumerate() {
        let joint = || digit(at.checked_sub(1)) && digit(Some(at + 1));
        let inside = match byte {
            b'.' | b',' | b':' | b'/' => joint(),
            b'#' | b'+' => true,
            byte => byte.is_ascii_alphanumeric(),
        };
        if inside {
            open.get_or_insert(at);
        } else if let Some(start) = open.take() {
            words.push(word(start..at));
        }
    }
    words.extend(open.map(|start| word(start..text.len())));
    words
}

/// Whether a script is written without spaces between words: Thai to Khmer, kana, Han.
fn unspaced(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

/// Lower case, single spaces, no punctuation at the end and no quotation marks around.
pub(crate) fn normalise(text: &str) -> String {
    let lowered = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        text.to_lowercase()
    };
    let mut spaced = String::with_capacity(lowered.len());
    for word in lowered.split_whitespace() {
        if !spaced.is_empty() {
            spaced.push(' ');
        }
        spaced += word;
    }
    unmarked(spaced)
}

/// Plain, folded and normalised.
pub(super) fn canonical(text: &str) -> String {
    if !text.is_ascii() {
        return normalise(&fold(&plain(text)));
    }
    if let Some(spaced) = spaced(text) {
        return spaced.to_ascii_lowercase();
    }
    let mut spaced = String::with_capacity(text.len());
    let mut space = false;
    for c in text.chars().filter(|c| !matches!(c, '*' | '`')) {
        if c.is_whitespace() || c == '_' {
            space = true;
            continue;
        }
        if space && !spaced.is_empty() {
            spaced.push(' ');
        }
        space = false;
        spaced.push(c.to_ascii_lowercase());
    }
    unmarked(spaced)
}

/// Appends [`canonical`] of a text.
pub(super) fn add_canonical(text: &str, out: &mut String) {
    match spaced(text) {
        Some(spaced) => {
            let start = out.len();
            out.push_str(spaced);
            out[start..].make_ascii_lowercase();
        }
        None => out.push_str(&canonical(text)),
    }
}

/// [`canonical`] of an ASCII text but for its case, where it stands in the text as it is.
fn spaced(text: &str) -> Option<&str> {
    (text.is_ascii() && is_spaced(text.as_bytes())).then(|| bounds(text))
}

/// Whether an ASCII text has neither emphasis nor other space than single blanks between its words, as most options have.
fn is_spaced(ascii: &[u8]) -> bool {
    // To their ends, so that many bytes are looked at in one go.
    let odd = ascii
        .iter()
        .fold(false, |odd, b| odd | matches!(b, ..b' ' | b'*' | b'`' | b'_'));
    let pairs = ascii.iter().zip(ascii.iter().skip(1));
    !odd && !pairs.fold(false, |wide, (a, b)| wide | ((*a == b' ') & (*b == b' ')))
}

/// Without quotation marks around and punctuation behind.
fn unmarked(mut text: String) -> String {
    let inner = bounds(&text).len();
    text.truncate(ended(&text).len());
    text.drain(..text.len() - inner);
    text
}

/// What [`unmarked`] leaves.
fn bounds(text: &str) -> &str {
    let starts = |c: char| c.is_whitespace() || QUOTES.contains(&c);
    ended(text).trim_start_matches(starts)
}

fn ended(text: &str) -> &str {
    text.trim_end_matches(|c: char| {
        c.is_whitespace() || QUOTES.contains(&c) || ['.', ',', ';', ':', '!', '?', '…'].contains(&c)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_is_split_as_any_text_is() {
        for text in [
            "",
            "a",
            "C# 4/4, 1.5:2 3. .4 1,a",
            "it's (b) -- x+y #",
            "1/2/3 /4 5/",
            "a.b 1.b",
        ] {
            let own = split_ascii(text.as_bytes());
            assert!(own.iter().map(|w| w.at.clone()).eq(split(text)), "{text}");
            assert!(own.iter().all(|w| w.at == w.folded));
        }
    }

    /// What is seen to be in order is what goes through the signs one by one.
    #[test]
    fn texts_in_order_are_normalised_as_any_text_is() {
        let parts = [
            "a", "B", " ", "  ", "*", "_", "\t", "'", "\"", ".", "?!", "\x1c", "-",
        ];
        let mut spaced = 0;
        for first in parts {
            for second in parts {
                for third in parts {
                    for text in [
                        format!("{first}{second}{third}"),
                        format!("{first} x{second}y {third}"),
                    ] {
                        spaced += usize::from(is_spaced(text.as_bytes()));
                        assert_eq!(canonical(&text), normalise(&fold(&plain(&text))), "{text:?}");
                    }
                }
            }
        }
        assert!(spaced > 500, "{spaced}");
    }

    #[test]
    fn what_was_made_plain_is_found_again() {
        for text in ["a dog, b", "a *dog*, b", "a_b", "（Ｂ） dog"] {
            let shown = plain(text);
            for start in 0..shown.len() {
                for end in start + 1..=shown.len() {
                    if shown.is_char_boundary(start) && shown.is_char_boundary(end) {
                        let found = &text[unplain(text, start..end)];
                        assert!(plain(found).contains(&shown[start..end]), "{text}: {found}");
                    }
                }
            }
        }
    }

    #[test]
    fn words_keep_what_tells_names_apart() {
        for (text, words) in [
            ("C and C#, 4/4 at 120.5", "c|and|c#|4/4|at|120.5"),
            ("rock-n-roll, 1, 2.", "rock|n|roll|1|2"),
            ("**Thunder**_and_rain", "thunder|and|rain"),
            ("日本語です。ok", "日|本|語|で|す|ok"),
            ("（Ｂ）STRASSE", "b|strasse"),
            (" … ", ""),
        ] {
            let found = Text::new(text);
            assert_eq!(
                found.folded_words().collect::<Vec<_>>().join("|"),
                words,
                "{text}"
            );
        }
    }
}
