//! Beam search over the scores of each beam's next token; the model is the caller's.
//!
//! Reference: `GenerationMixin._beam_search`, `BeamSearchScorer` and `BeamHypotheses` of transformers 4.46.3. Two things are ours: a
//! sequence keeps the token that ended it (there: always the first end token), and a stop string ends a beam as such a token does
//! (as in transformers 5).

use super::decoding::{Decoding, EarlyStopping};
use super::sequence::Sequence;
use crate::error::Result;
use tch::Tensor;

/// A sequence that runs or has ended, without its prompt.
#[derive(Debug, Clone)]
struct Beam {
    tokens: Vec<i64>,
    /// The model's own, before the processors.
    logprobs: Vec<f32>,
    /// Of what the processors left. In float32, as the reference adds them up.
    sum: f32,
}

/// How the running beams go on: beam i is what beam `from[i]` was, and the token `tokens[i]` behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Of each new beam, the one that it goes on from.
    pub from: Vec<i64>,
    /// And its next token.
    pub tokens: Vec<i64>,
}

/// The state of a search. It begins with one beam, the prompt.
pub(crate) struct Beams {
    decoding: Decoding,
    running: Vec<Beam>,
    /// With their scores, in the order in which they ended.
    ended: Vec<(f64, Beam)>,
    /// Of those in `ended`, once there are enough.
    worst: f64,
    done: bool,
    /// Candidates that are looked at for each beam: as many as can end it, and one more.
    each: usize,
}

impl Beams {
    /// `end_tokens`: how many tokens end a sequence.
    pub(crate) fn new(decoding: &Decoding, end_tokens: usize) -> Self {
        Beams {
            decoding: decoding.clone(),
            running: vec![Beam {
                tokens: Vec::new(),
                logprobs: Vec::new(),
                sum: 0.0,
            }],
            ended: Vec::new(),
            worst: f64::INFINITY,
            done: false,
            each: (1 + end_tokens).max(2),
        }
    }

    /// The new tokens of each running beam.
    pub(crate) fn running(&self) -> impl Iterator<Item = &[i64]> {
        self.running.iter().map(|b| &b.tokens[..])
    }

    /// One step. None: the search is done.
    ///
    /// `ended` says of new tokens whether their last one ends the sequence.
    ///
    /// # Shapes
    /// `logprobs_rv` (R, V) float32, of the R running beams: the model's; `scores_rv` (R, V) what the processors make of them
    ///
    /// # Errors
    /// Those of `ended`.
    pub(crate) fn step(
        &mut self,
        logprobs_rv: &Tensor,
        scores_rv: &Tensor,
        ended: &mut dyn FnMut(&[i64]) -> Result<bool>,
    ) -> Result<Option<Step>> {
        let width = self.decoding.num_beams;
        let candidates = self.candidates(logprobs_rv, scores_rv);
        let best = candidates.iter().map(|c| c.sum).fold(f32::NEG_INFINITY, f32::max);
        let (mut next, mut step) = (
            Vec::new(),
            Step {
                from: Vec::new(),
                tokens: Vec::new(),
            },
        );
        for (rank, c) in candidates.iter().enumerate() {
            if next.len() == width {
                break;
            }
            let beam = self.running[c.from].with(c);
            if !ended(&beam.tokens)? {
                step.from.push(c.from as i64);
                step.tokens.push(c.token);
                next.push(beam);
            } else if rank < width {
                self.end(beam);
            }
        }
        self.running = next;
        let length = self.running.first().map_or(0, |b| b.tokens.len());
        self.done = self.running.is_empty() || self.is_done(f64::from(best), length);
        let full = length >= self.decoding.max_new_tokens;
        Ok((!self.done && !full).then_some(step))
    }

    /// The best continuations of all beams, best first.
    fn candidates(&self, logprobs_rv: &Tensor, scores_rv: &Tensor) -> Vec<Candidate> {
        let v = scores_rv.size()[1].max(1);
        let sums: Vec<f32> = self.running.iter().map(|b| b.sum).collect();
        let sums = Tensor::from_slice(&sums)
            .unsqueeze(1)
            .to_device(scores_rv.device());
        let all = (scores_rv + sums).flatten(0, 1);
        let most = (self.each * self.decoding.num_beams) as i64;
        let (best, at) = all.topk(most.min(all.size()[0]), 0, true, true);
        let own = logprobs_rv.flatten(0, 1).index_select(0, &at);
        let floats = |t: &Tensor| Vec::<f32>::try_from(t).unwrap_or_default();
        let at = Vec::<i64>::try_from(&at).unwrap_or_default();
        let all = floats(&best).into_iter().zip(floats(&own)).zip(at);
        all.map(|((sum, logprob), at)| Candidate {
            from: (at / v) as usize,
            token: at % v,
            sum,
            logprob,
        })
        // What the processors forbid is no candidate, even where nothing else is left.
        .filter(|c| c.sum.is_finite())
        .collect()
    }

    fn end(&mut self, beam: Beam) {
        let score = self.decoding.score(f64::from(beam.sum), beam.tokens.len());
        let full = self.ended.len() >= self.decoding.num_beams;
        if full && score <= self.worst {
            return;
        }
        self.ended.push((score, beam));
        let scores = |all: &[(f64, Beam)]| -> Vec<f64> { all.iter().map(|(s, _)| *s).collect() };
        if full {
            let all = scores(&self.ended);
            let worst = (0..all.len()).fold(0, |w, i| if all[i] < all[w] { i } else { w });
            self.ended.remove(worst);
        }
        self.worst = scores(&self.ended).into_iter().fold(f64::INFINITY, f64::min);
    }

    /// Whether none that runs can become better than those that ended. `best`: the largest sum of this step, of candidates that
    /// ended too; `length` counts its token.
    fn is_done(&self, best: f64, length: usize) -> bool {
        if self.ended.len() < self.decoding.num_beams {
            return false;
        }
        let longest = match self.decoding.early_stopping {
            EarlyStopping::First => return true,
            EarlyStopping::Never if self.decoding.length_penalty > 0.0 => self.decoding.max_new_tokens,
            EarlyStopping::Never | EarlyStopping::Heuristic => length,
        };
        self.worst >= self.decoding.score(best, longest)
    }

    /// The best sequences, best first. Beams that ran into the most tokens are among them, without an end.
    pub(crate) fn finish(mut self) -> Vec<Sequence> {
        if !self.done {
            for beam in std::mem::take(&mut self.running) {
                self.end(beam);
            }
        }
        let mut all = self.ended;
        // Of equals the reference takes what came last.
        all.reverse();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.truncate(self.decoding.num_return_sequences);
        all.into_iter()
            .map(|(score, beam)| Sequence {
                tokens: beam.tokens,
                logprobs: beam.logprobs,
                score,
                least_lead: None,
            })
            .collect()
    }
}

struct Candidate {
    from: usize,
    token: i64,
    sum: f32,
    logprob: f32,
}

impl Beam {
    fn with(&self, c: &Candidate) -> Beam {
        let (mut tokens, mut logprobs) = (self.tokens.clone(), self.logprobs.clone());
        tokens.push(c.token);
        logprobs.push(c.logprob);
        Beam {
            tokens,
            logprobs,
            sum: c.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: i64 = 0;

    /// Searches in a table of next-token probabilities by the last token; V is its length.
    fn search(decoding: &Decoding, table: &[&[f32]]) -> Vec<Sequence> {
        let logprobs = |last: &[i64]| {
            let rows: Vec<f32> = last
                .iter()
                .flat_map(|t| table[*t as usize].iter().map(|p| p.ln()))
                .collect();
            Tensor::from_slice(&rows).reshape([last.len() as i64, -1])
        };
        let mut beams = Beams::new(decoding, 1);
        let mut scores = logprobs(&[1]);
        while let Some(step) = beams
            .step(&scores, &scores, &mut |t| Ok(t.last() == Some(&END)))
            .unwrap()
        {
            assert!(step.tokens.len() <= decoding.num_beams);
            scores = logprobs(&step.tokens);
        }
        beams.finish()
    }

    fn decoding(num_beams: usize, max_new_tokens: usize) -> Decoding {
        Decoding {
            num_beams,
            num_return_sequences: num_beams,
            max_new_tokens,
            ..Decoding::default()
        }
    }

    /// Greedy takes 2 (0.6) and then has 0.4 at best; 3 (0.4) ends at 1.0.
    const TRAP: [&[f32]; 4] = [
        &[1.0, 0.0, 0.0, 0.0],
        &[0.0, 0.0, 0.6, 0.4],
        &[0.4, 0.3, 0.0, 0.3],
        &[1.0, 0.0, 0.0, 0.0],
    ];

    #[test]
    fn two_beams_find_what_greedy_misses() {
        let found = search(&decoding(2, 3), &TRAP);
        assert_eq!(found[0].tokens, [3, END]);
        assert!((found[0].score - 0.4f64.ln() / 2.0).abs() < 1e-6);
        assert_eq!(found[1].tokens[0], 2);
        assert_eq!(found[0].logprobs.len(), 2);
        assert!(found[0].score > found[1].score);
    }

    /// All sequences of three tokens, enumerated.
    #[test]
    fn enough_beams_find_the_best_of_all() {
        tch::manual_seed(3);
        let rows = Tensor::rand([5, 5], tch::kind::FLOAT_CPU).softmax(-1, tch::Kind::Float);
        let table: Vec<Vec<f32>> = Vec::try_from(rows).unwrap();
        let table: Vec<&[f32]> = table.iter().map(|r| &r[..]).collect();
        for (penalty, early_stopping) in [
            (0.0, EarlyStopping::Never),
            (1.0, EarlyStopping::Never),
            (2.0, EarlyStopping::Never),
        ] {
            let mut settings = decoding(150, 3);
            (settings.length_penalty, settings.early_stopping) = (penalty, early_stopping);
            settings.num_return_sequences = 1;
            let mut best = (f64::NEG_INFINITY, Vec::new());
            let mut open = vec![(vec![], 0.0f64)];
            while let Some((tokens, sum)) = open.pop() {
                let last = tokens.last().copied().unwrap_or(1) as usize;
                for (t, p) in table[last].iter().enumerate() {
                    let (next, sum) = ([&tokens[..], &[t as i64]].concat(), sum + f64::from(p.ln()));
                    if t as i64 == END || next.len() == 3 {
                        let score = settings.score(sum, next.len());
                        if score > best.0 {
                            best = (score, next);
                        }
                    } else {
                        open.push((next, sum));
                    }
                }
            }
            let found = search(&settings, &table).remove(0);
            assert_eq!(found.tokens, best.1, "length penalty {penalty}");
            assert!((found.score - best.0).abs() < 1e-5);
        }
    }

    /// Fewer ways to go on than beams, all that may follow forbidden, no number at all: it ends, and says what it has.
    #[test]
    fn a_search_without_a_way_on_ends() {
        let only: [&[f32]; 2] = [&[1.0, 0.0], &[1.0, 0.0]];
        let found = search(&decoding(3, 5), &only);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].tokens, [END]);
        let none: [&[f32]; 2] = [&[0.0, 0.0], &[0.0, 0.0]];
        assert!(search(&decoding(2, 5), &none).is_empty());
        let nan: [&[f32]; 2] = [&[f32::NAN, f32::NAN], &[f32::NAN, f32::NAN]];
        assert!(search(&decoding(2, 5), &nan).is_empty());
    }

    #[test]
    fn beams_at_the_most_tokens_have_no_end() {
        let round: [&[f32]; 3] = [&[1.0, 0.0, 0.0], &[0.1, 0.0, 0.9], &[0.1, 0.9, 0.0]];
        let found = search(&decoding(2, 4), &round);
        assert_eq!(found[0].tokens, [2, 1, 2, 1]);
        assert_eq!(found.len(), 2);
    }
}
