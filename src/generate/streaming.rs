//! An answer's text while it is still being written.

use crate::error::Result;
use crate::text::tokenizer::Tokenizer;

/// What a byte that is no text yet is shown as.
const BROKEN: char = '\u{fffd}';
/// Tokens in front of what is decoded next: a decoder may treat the first of a text in another way than those behind it.
const CONTEXT: usize = 4;
/// Tokens that are decoded again at each step, at most, but for what no character has come of.
const WINDOW: usize = 32;

/// Tokens one by one to text piece by piece. The pieces in a row are the text of the whole [`Answer`](super::Answer): a character
/// whose bytes are spread over several tokens comes in one piece, special tokens are left out, and nothing is told from the first
/// stop string on, nor what may yet become one.
///
/// ```
/// use af2::{generate::streaming::Streamed, prelude::*};
/// # fn main() -> Result<()> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/F_tiny");
/// let model = open(folder.as_ref(), &OpenOptions::new(Device::Cpu))?;
/// let mut text = Streamed::new(&model.tokenizer, &[]);
/// let mut said = String::new();
/// for token in model.tokenizer.encode("音楽 and rain")? {
///     said += &text.push(token)?;
/// }
/// said += &text.finish()?;
/// assert_eq!(said, "音楽 and rain");
/// # Ok(())
/// # }
/// ```
pub struct Streamed<'a> {
    tokenizer: &'a Tokenizer,
    stops: Vec<String>,
    /// The last tokens.
    tokens: Vec<i64>,
    /// What those stand for, as far as it is decided.
    decoded: String,
    /// Decided text that may be, or is, the beginning of a stop string.
    held: String,
}

impl<'a> Streamed<'a> {
    /// The text of one answer, which ends before the first of `stop_strings`.
    pub fn new(tokenizer: &'a Tokenizer, stop_strings: &[String]) -> Self {
        let stops = stop_strings.iter().filter(|s| !s.is_empty());
        Streamed {
            tokenizer,
            stops: stops.cloned().collect(),
            tokens: Vec::new(),
            decoded: String::new(),
            held: String::new(),
        }
    }

    /// The text that is certain with this token and was not before; often none.
    ///
    /// # Errors
    /// A token that the tokenizer makes no text of.
    pub fn push(&mut self, token: i64) -> Result<String> {
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens, true)?;
        // A run of single bytes is one text or none, and says so at its end.
        let undecided = self.single_byte(token) || text.ends_with(BROKEN);
        if !undecided {
            self.decide(text);
            self.forget()?;
        }
        Ok(self.told())
    }

    /// What is left when no token follows.
    ///
    /// # Errors
    /// As [`Streamed::push`].
    pub fn finish(mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.tokens, true)?;
        self.decide(text);
        let first = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min();
        self.held.truncate(first.unwrap_or(self.held.len()));
        Ok(self.held)
    }

    /// `<0x41>`, as tokenizers with a byte fallback name the tokens of single bytes.
    fn single_byte(&self, token: i64) -> bool {
        let name = self.tokenizer.token(token).unwrap_or_default();
        name.len() == 6 && name.starts_with("<0x") && name.ends_with('>')
    }

    /// Takes over the text of all tokens in sight.
    fn decide(&mut self, text: String) {
        if let Some(new) = text.strip_prefix(self.decoded.as_str()) {
            self.held += new;
            self.decoded = text;
        }
    }

    /// Leaves tokens behind that no later one can change, so that a long answer costs no more at its end than at its beginning.
    fn forget(&mut self) -> Result<()> {
        if self.tokens.len() > WINDOW {
            self.tokens.drain(..self.tokens.len() - CONTEXT);
            self.decoded = self.tokenizer.decode(&self.tokens, true)?;
        }
        Ok(())
    }

    /// Takes out what is no stop string and cannot become one.
    fn told(&mut self) -> String {
        let may_stop = |at: usize| {
            let rest = &self.held[at..];
            let stops = |s: &String| rest.starts_with(s.as_str()) || s.starts_with(rest);
            self.stops.iter().any(stops)
        };
        let mut places = self.held.char_indices().map(|(at, _)| at);
        let keep = places.find(|at| may_stop(*at)).unwrap_or(self.held.len());
        self.held.drain(..keep).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::bpe;

    fn tokenizer() -> (tempfile::TempDir, Tokenizer) {
        let folder = tempfile::tempdir().unwrap();
        let texts = ["a dog barks, and a dog barks again", "音楽を聞く, größe"];
        let tokenizer = bpe::train(texts.into_iter(), 280, folder.path()).unwrap();
        (folder, tokenizer)
    }

    fn pieces(tokenizer: &Tokenizer, tokens: &[i64], stops: &[String]) -> Vec<String> {
        let mut text = Streamed::new(tokenizer, stops);
        let mut all: Vec<String> = tokens.iter().map(|t| text.push(*t).unwrap()).collect();
        all.push(text.finish().unwrap());
        all
    }

    /// As an answer's text is made when all of it is there.
    fn whole(tokenizer: &Tokenizer, tokens: &[i64], stops: &[String]) -> String {
        let text = tokenizer.decode(tokens, true).unwrap();
        let first = stops.iter().filter_map(|s| text.find(s.as_str())).min();
        text[..first.unwrap_or(text.len())].to_owned()
    }

    #[test]
    fn a_character_comes_whole_and_special_tokens_not_at_all() {
        let (_keep, t) = tokenizer();
        let mut tokens = t.encode("a 音, a 🐕").unwrap();
        tokens.insert(1, t.sep);
        tokens.extend([t.end_of_chunk, t.eos]);
        let found = pieces(&t, &tokens, &[]);
        assert!(tokens.len() > 10, "{tokens:?}: characters are in several tokens");
        assert!(found.iter().all(|p| !p.contains(BROKEN)), "{found:?}");
        assert_eq!(found.concat(), "a 音, a 🐕");
    }

    #[test]
    fn nothing_of_a_stop_string_is_told() {
        let (_keep, t) = tokenizer();
        let stops = ["barks again".to_owned(), "?".to_owned()];
        let tokens = t.encode("a dog barks, and a dog barks again and again").unwrap();
        let found = pieces(&t, &tokens, &stops);
        assert_eq!(found.concat(), "a dog barks, and a dog ");
        // What could have become one is told as soon as it cannot.
        let at = found.iter().position(|p| p.contains("barks")).unwrap();
        assert!(at < tokens.len() / 2, "{found:?}");
        let tokens = t.encode("a dog bark").unwrap();
        assert_eq!(pieces(&t, &tokens, &stops).concat(), "a dog bark");
    }

    /// Ids at random: broken characters, special tokens, stop strings across all of these.
    #[test]
    fn pieces_in_a_row_are_the_whole_text() {
        use rand::{Rng, SeedableRng};
        let (_keep, t) = tokenizer();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let texts = ["a dog barks again", "音楽を聞く", "größe, größe"];
        let (mut stopped, mut broken) = (0, 0);
        for _ in 0..400 {
            let mut tokens = Vec::new();
            while tokens.len() < rng.gen_range(1..120) {
                match rng.gen_range(0..3) {
                    0 => tokens.push(rng.gen_range(0..t.len() as i64)),
                    1 => tokens.extend(t.encode(texts[rng.gen_range(0..3)]).unwrap()),
                    _ => tokens.push([t.sep, t.eos, t.audio, 1 << 20][rng.gen_range(0..4)]),
                }
            }
            let all = ["again", "を聞", "gr", "rks a", "\u{fffd}"];
            let n = rng.gen_range(0..3);
            let stops: Vec<String> = (0..n).map(|_| all[rng.gen_range(0..5)].to_owned()).collect();
            let expected = whole(&t, &tokens, &stops);
            assert_eq!(
                pieces(&t, &tokens, &stops).concat(),
                expected,
                "{tokens:?} {stops:?}"
            );
            stopped += usize::from(expected.len() < t.decode(&tokens, true).unwrap().len());
            broken += usize::from(expected.contains(BROKEN));
        }
        assert!(stopped > 50 && broken > 50, "{stopped} {broken}");
    }
}
