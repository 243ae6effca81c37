//! MU-LLaMA's `ModelEvaluations/evaluate.py`, by which MusicQA is scored, with its quirks.
//!
//! * **BLEU of characters**: `sentence_bleu` is given strings, so its n-grams are of characters. Without smoothing, an n-gram
//!   length without a match has the precision 2.2e-308 in place of 0.
//! * **ROUGE-L recall** of rouge_score with its stemmer: tokens are `[a-z0-9]+` in lower case, those of more than three letters
//!   stemmed. Only the recall is reported: the longer an answer, the better.
//! * **METEOR** of NLTK over `wordpunct_tokenize`, in lower case: exact matches, then stems. The script also matches synonyms of
//!   **WordNet, which is not here**: [`meteor`] is at most the script's number, and equal where no synonym matches.
//! * Its BERTScore recall needs a model: `eval/captions/bert_score.rs`.

use super::porter::stem;
use super::python;
use std::collections::HashMap;

/// The weights of the script's "BLEU Score".
pub const BLEU: [f64; 4] = [0.25; 4];
/// The weights of its "BLEU-4 Score".
pub const BLEU4: [f64; 4] = [0.0, 0.0, 0.0, 1.0];

/// NLTK's `sentence_bleu([reference], candidate, weights)` on strings.
pub fn bleu(reference: &str, candidate: &str, weights: [f64; 4]) -> f64 {
    let (reference, candidate): (Vec<char>, Vec<char>) =
        (reference.chars().collect(), candidate.chars().collect());
    let (r, c) = (reference.len(), candidate.len());
    let mut logs = 0.0;
    for (i, weight) in weights.into_iter().enumerate() {
        let n = i + 1;
        let mut left: HashMap<&[char], usize> = HashMap::new();
        for gram in reference.windows(n) {
            *left.entry(gram).or_default() += 1;
        }
        let mut matched = 0_usize;
        for gram in candidate.windows(n) {
            if let Some(count) = left.get_mut(gram).filter(|count| **count > 0) {
                *count -= 1;
                matched += 1;
            }
        }
        let all = c.saturating_sub(n - 1).max(1);
        if n == 1 && matched == 0 {
            return 0.0;
        }
        let precision = match matched {
            0 => f64::MIN_POSITIVE,
            some => some as f64 / all as f64,
        };
        logs += weight * precision.ln();
    }
    let brevity = if c > r {
        1.0
    } else {
        (1.0 - r as f64 / c as f64).exp()
    };
    brevity * logs.exp()
}

/// Precision, recall and F of a longest common subsequence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RougeL {
    /// Over the candidate's tokens.
    pub precision: f64,
    /// Over the reference's tokens: what the script reports.
    pub recall: f64,
    /// Their harmonic mean.
    pub f: f64,
}

/// rouge_score's `RougeScorer(['rougeL'], use_stemmer=True).score(reference, candidate)`. Time is the product of the lengths.
pub fn rouge_l(reference: &str, candidate: &str) -> RougeL {
    let (reference, candidate) = (rouge_tokens(reference), rouge_tokens(candidate));
    if reference.is_empty() || candidate.is_empty() {
        return RougeL::default();
    }
    let common = common_length(&reference, &candidate) as f64;
    let (precision, recall) = (common / candidate.len() as f64, common / reference.len() as f64);
    let f = match precision + recall > 0.0 {
        true => 2.0 * precision * recall / (precision + recall),
        false => 0.0,
    };
    RougeL { precision, recall, f }
}

fn rouge_tokens(text: &str) -> Vec<String> {
    let lowered = python::lower(text);
    let parts = lowered.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
    let tokens = parts.filter(|part| !part.is_empty());
    tokens
        .map(|t| if t.len() > 3 { stem(t) } else { t.to_owned() })
        .collect()
}

/// Of the longest common subsequence, the length: one row of the table at a time.
fn common_length(a: &[String], b: &[String]) -> usize {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let (mut x, mut y) = (Vec::with_capacity(a.len()), Vec::with_capacity(b.len()));
    for (from, to) in [(a, &mut x), (b, &mut y)] {
        for token in from {
            let next = numbers.len();
            to.push(*numbers.entry(token).or_insert(next));
        }
    }
    let mut row = vec![0_usize; y.len() + 1];
    for own in &x {
        let mut corner = 0;
        for (j, other) in y.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if own == other {
                corner + 1
            } else {
                above.max(row[j])
            };
            corner = above;
        }
    }
    row[y.len()]
}

/// NLTK's `wordpunct_tokenize`: the matches of `\w+|[^\w\s]+`.
pub fn wordpunct(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        c if python::is_regex_word(c) => 1,
        c if c.is_whitespace() => 0,
        _ => 2,
    };
    let (mut tokens, mut start, mut last) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        let own = kind(c);
        if own != last {
            if last != 0 {
                tokens.push(&text[start..at]);
            }
            (start, last) = (at, own);
        }
    }
    if last != 0 {
        tokens.push(&text[start..]);
    }
    tokens
}

/// What METEOR takes for the same word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// The same letters.
    Exact,
    /// Then the same stem.
    Stem,
}

/// NLTK's `meteor_score` (alpha 0.9, beta 3, gamma 0.5) over [`wordpunct`] tokens, without WordNet.
pub fn meteor(reference: &str, candidate: &str, matching: Matching) -> f64 {
    let lowered = |text: &str| -> Vec<String> { wordpunct(text).iter().map(|t| t.to_lowercase()).collect() };
    let (reference, candidate) = (lowered(reference), lowered(candidate));
    let mut pairs: Vec<Option<usize>> = vec![None; candidate.len()];
    let mut taken = vec![false; reference.len()];
    align(&reference, &candidate, &mut pairs, &mut taken);
    if matching == Matching::Stem {
        let stems = |all: &[String]| -> Vec<String> { all.iter().map(|t| stem(t)).collect() };
        align(&stems(&reference), &stems(&candidate), &mut pairs, &mut taken);
    }
    let pairs: Vec<(usize, usize)> = pairs
        .iter()
        .enumerate()
        .filter_map(|(i, j)| Some((i, (*j)?)))
        .collect();
    if pairs.is_empty() {
        return 0.0;
    }
    let matched = pairs.len() as f64;
    let (precision, recall) = (matched / candidate.len() as f64, matched / reference.len() as f64);
    let mean = (precision * recall) / (0.9 * precision + (1.0 - 0.9) * recall);
    let breaks = pairs
        .windows(2)
        .filter(|p| p[1].0 != p[0].0 + 1 || p[1].1 != p[0].1 + 1);
    let chunks = 1.0 + breaks.count() as f64;
    let penalty = 0.5 * (chunks / matched).powi(3);
    (1.0 - penalty) * mean
}

/// From the candidate's last word to its first, each with the last word of the reference that is the same and free.
fn align(reference: &[String], candidate: &[String], pairs: &mut [Option<usize>], taken: &mut [bool]) {
    let mut free: HashMap<&str, Vec<usize>> = HashMap::new();
    for (j, word) in reference.iter().enumerate().filter(|(j, _)| !taken[*j]) {
        free.entry(word).or_default().push(j);
    }
    for (i, word) in candidate.iter().enumerate().rev() {
        if pairs[i].is_some() {
            continue;
        }
        if let Some(j) = free.get_mut(word.as_str()).and_then(Vec::pop) {
            pairs[i] = Some(j);
            taken[j] = true;
        }
    }
}
