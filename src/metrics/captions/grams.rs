//! Words and n-grams as numbers.

use super::ptb::blank;
use std::collections::HashMap;

/// N-grams of up to so many words.
pub(super) const N: usize = 4;

/// A caption: its tokens, and how often it has each n-gram.
#[derive(Debug)]
pub(super) struct Caption {
    /// As ROUGE-L has them; of an empty caption one, the empty token.
    pub(super) tokens: Vec<u32>,
    /// How many words there are: tokens, cut at every blank.
    pub(super) words: usize,
    /// By length less one: each n-gram and its count, in the order of the numbers.
    pub(super) grams: [Vec<(u32, u32)>; N],
}

/// A clip's captions.
#[derive(Debug)]
pub(super) struct Clip {
    pub(super) prediction: Caption,
    pub(super) references: Vec<Caption>,
}

/// All captions.
#[derive(Debug)]
pub(super) struct Corpus {
    pub(super) clips: Vec<Clip>,
    /// Of each n-gram, in how many clips' references it stands.
    pub(super) clips_with: Vec<u32>,
}

#[derive(Default)]
struct Numbers<'a> {
    tokens: HashMap<&'a str, u32>,
    /// By the n-gram without its last word, and that word; single words by none.
    grams: HashMap<(u32, u32), u32>,
}

const NONE: u32 = u32::MAX;

impl<'a> Numbers<'a> {
    fn token(&mut self, token: &'a str) -> u32 {
        let next = self.tokens.len() as u32;
        *self.tokens.entry(token).or_insert(next)
    }

    fn gram(&mut self, before: u32, word: u32) -> u32 {
        let next = self.grams.len() as u32;
        *self.grams.entry((before, word)).or_insert(next)
    }

    fn caption(&mut self, texts: &'a [String]) -> Caption {
        let mut tokens: Vec<u32> = Vec::with_capacity(texts.len());
        let mut words = Vec::with_capacity(texts.len());
        for text in texts {
            let token = self.token(text);
            tokens.push(token);
            // Most have no blank within.
            if text.is_ascii() || !text.contains(blank) {
                words.push(token);
            } else {
                let parts = text.split(blank).filter(|part| !part.is_empty());
                words.extend(parts.map(|part| self.token(part)));
            }
        }
        if tokens.is_empty() {
            tokens.push(self.token(""));
        }
        let mut found: [Vec<u32>; N] = Default::default();
        for begin in 0..words.len() {
            let mut gram = NONE;
            for (found, word) in found.iter_mut().zip(&words[begin..]) {
                gram = self.gram(gram, *word);
                found.push(gram);
            }
        }
        Caption {
            tokens,
            words: words.len(),
            grams: found.map(counted),
        }
    }
}

fn counted(mut grams: Vec<u32>) -> Vec<(u32, u32)> {
    grams.sort_unstable();
    let same = grams.chunk_by(|a, b| a == b);
    same.map(|same| (same[0], same.len() as u32)).collect()
}

impl Corpus {
    pub(super) fn of(predictions: &[Vec<String>], references: &[Vec<Vec<String>>]) -> Self {
        let mut numbers = Numbers::default();
        let clips = predictions.iter().zip(references);
        let clips: Vec<Clip> = clips
            .map(|(prediction, references)| Clip {
                prediction: numbers.caption(prediction),
                references: references.iter().map(|r| numbers.caption(r)).collect(),
            })
            .collect();
        let mut clips_with = vec![0; numbers.grams.len()];
        let mut last = vec![NONE; numbers.grams.len()];
        for (n, clip) in clips.iter().enumerate() {
            let grams = clip.references.iter().flat_map(|r| r.grams.iter().flatten());
            for (gram, _) in grams {
                let gram = *gram as usize;
                if last[gram] != n as u32 {
                    last[gram] = n as u32;
                    clips_with[gram] += 1;
                }
            }
        }
        Corpus { clips, clips_with }
    }
}
