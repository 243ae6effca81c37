//! ROUGE-L as `pycocoevalcap` has it: the longest common subsequence over either length, the best precision and the best recall of all
//! references, which need not be one reference's, and recall counted 1.2² times.

use super::grams::Clip;
use std::collections::HashMap;

const BETA: f64 = 1.2;

/// Of a clip. An empty caption is one empty token, so of two empty ones the score is 1.
pub(super) fn score(clip: &Clip) -> f64 {
    let prediction = &clip.prediction.tokens;
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in &clip.references {
        let common = common(prediction, &reference.tokens) as f64;
        precision = precision.max(common / prediction.len() as f64);
        recall = recall.max(common / reference.tokens.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    let beta = BETA * BETA;
    (1.0 + beta) * precision * recall / (recall + beta * precision)
}

/// The length of the longest common subsequence, 64 tokens of the shorter one at a time (Hyyrö 2004).
fn common(a: &[u32], b: &[u32]) -> usize {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if short.len() <= 64 {
        return common_64(short, long);
    }
    // Per token the words of 64 places that it stands in.
    let mut places: HashMap<u32, Vec<(usize, u64)>> = HashMap::new();
    for (at, token) in short.iter().enumerate() {
        let words = places.entry(*token).or_default();
        match words.last_mut() {
            Some((word, bits)) if *word == at / 64 => *bits |= 1 << (at % 64),
            _ => words.push((at / 64, 1 << (at % 64))),
        }
    }
    let mut rows = vec![u64::MAX; short.len().div_ceil(64)];
    for token in long {
        let Some(words) = places.get(token) else {
            continue;
        };
        let mut words = words.iter().peekable();
        let (mut at, mut carry) = (words.peek().map_or(0, |(word, _)| *word), false);
        while at < rows.len() {
            let here = words.next_if(|(word, _)| *word == at);
            if here.is_none() && !carry {
                match words.peek() {
                    Some((word, _)) => at = *word,
                    None => break,
                }
                continue;
            }
            let row = rows[at];
            let met = row & here.map_or(0, |(_, bits)| *bits);
            let (sum, over) = row.overflowing_add(met);
            let (sum, over_too) = sum.overflowing_add(u64::from(carry));
            carry = over || over_too;
            rows[at] = sum | (row & !met);
            at += 1;
        }
    }
    let zeros: usize = rows.iter().map(|row| row.count_zeros() as usize).sum();
    // Bits behind the last token may be zero by a carry.
    let behind = rows.len() * 64 - short.len();
    let last = rows.last().map_or(0, |row| {
        if behind == 0 {
            0
        } else {
            (row >> (64 - behind)).count_zeros() as usize - (64 - behind)
        }
    });
    zeros - last
}

fn common_64(short: &[u32], long: &[u32]) -> usize {
    let mut row = u64::MAX;
    for token in long {
        let places = short.iter().enumerate().filter(|(_, t)| *t == token);
        let places = places.fold(0, |bits: u64, (at, _)| bits | 1 << at);
        let met = row & places;
        row = row.wrapping_add(met) | (row & !met);
    }
    let counted = if short.len() == 64 {
        u64::MAX
    } else {
        (1 << short.len()) - 1
    };
    (!row & counted).count_ones() as usize
}

#[cfg(test)]
mod tests {
    use super::common;

    fn by_table(a: &[u32], b: &[u32]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut diagonal = 0;
            for (at, y) in b.iter().enumerate() {
                let above = row[at + 1];
                row[at + 1] = if x == y { diagonal + 1 } else { above.max(row[at]) };
                diagonal = above;
            }
        }
        row[b.len()]
    }

    #[test]
    fn bits_give_what_the_table_gives() {
        let mut state = 1_u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below) as u32
        };
        for _ in 0..300 {
            let kinds = [1, 2, 5, 50, 1000][draw(5) as usize];
            let mut text = || -> Vec<u32> {
                let len = [draw(4), draw(70), draw(300)][draw(3) as usize];
                (0..len).map(|_| draw(kinds)).collect()
            };
            let (a, b) = (text(), text());
            assert_eq!(common(&a, &b), by_table(&a, &b), "{a:?} {b:?}");
        }
    }
}
