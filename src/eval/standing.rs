//! How far an evaluation has come: of each set what is asked, and what its answers so far say of the score to come.

use super::control::Control;
use super::question::Question;
use super::questions::Questions;
use super::rules::{Item, RuleName};
use crate::metrics::bootstrap::Interval;
use crate::metrics::statistics::proportion::wilson;
use crate::progress::clock;
use crate::run::predictions::Prediction;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Of the interval that a running score is shown with.
const LEVEL: f64 = 0.95;

/// The answers of this process, set by set. Those that were there before it began are in no count.
pub(super) struct Standing<'q> {
    questions: &'q Questions,
    /// By item its clip.
    clips: Vec<usize>,
    sets: Vec<Set>,
}

#[derive(Default)]
struct Set {
    /// Questions to ask, and those that were.
    all: usize,
    done: usize,
    /// Since the first of them was begun.
    began: Option<Instant>,
    right: Sums,
    unread: usize,
}

/// Plain answers and right ones by clip, and the sums that the spread of their share needs.
#[derive(Default)]
struct Sums {
    by_clip: HashMap<usize, [f64; 2]>,
    n: f64,
    right: f64,
    /// Over clips, of n², n × right and right².
    squares: [f64; 3],
}

impl Sums {
    fn add(&mut self, clip: usize, right: bool) {
        let right = f64::from(u8::from(right));
        let own = self.by_clip.entry(clip).or_default();
        let squares = |[n, r]: [f64; 2]| [n * n, n * r, r * r];
        let before = squares(*own);
        *own = [own[0] + 1.0, own[1] + right];
        let after = squares(*own);
        for (sum, (before, after)) in self.squares.iter_mut().zip(before.into_iter().zip(after)) {
            *sum += after - before;
        }
        self.n += 1.0;
        self.right += right;
    }

    /// The share of right ones and its interval: Wilson's, over as many independent items as clips, drawn together, are worth (the
    /// share's linearised variance over clips). None before two clips have answers.
    fn share(&self) -> Option<(f64, Interval)> {
        let clips = self.by_clip.len() as f64;
        if clips < 2.0 {
            return None;
        }
        let p = self.right / self.n;
        let [nn, nr, rr] = self.squares;
        let variance = clips / (clips - 1.0) * (rr - 2.0 * p * nr + p * p * nn) / (self.n * self.n);
        // Where all are right, or all wrong, nothing is known of how alike a clip's answers are.
        let worth = match p * (1.0 - p) {
            // A clip with one answer is worth one.
            spread if spread > 0.0 && variance > 0.0 => {
                (spread / variance * self.n / (self.n - 1.0)).min(self.n)
            }
            _ => clips,
        };
        Some((p, wilson(p, worth, LEVEL)))
    }
}

impl<'q> Standing<'q> {
    /// `left`: what this process is to ask.
    pub(super) fn new<'a>(questions: &'q Questions, left: impl Iterator<Item = &'a Question>) -> Self {
        let mut clips = vec![0; questions.items.len()];
        for (clip, items) in questions.clips.iter().enumerate() {
            items.iter().for_each(|item| clips[*item] = clip);
        }
        let mut sets: Vec<Set> = questions.sets.iter().map(|_| Set::default()).collect();
        for question in left {
            sets[question.set].all += 1;
        }
        Standing {
            questions,
            clips,
            sets,
        }
    }

    /// A question was answered: all samples of it.
    pub(super) fn add(&mut self, question: &Question, said: &[Prediction]) {
        let set = &mut self.sets[question.set];
        set.began.get_or_insert_with(Instant::now);
        set.done += 1;
        if question.control != Control::None {
            return;
        }
        let closed = !self.questions.labels(question).is_empty();
        let rule = self.questions.sets[question.set].rule;
        let Some(rule) = rule.or(closed.then_some(RuleName::Label)) else {
            return;
        };
        for p in said {
            let judged = rule.judge(&Item {
                question: &p.prompt,
                choices: &p.labels,
                answer: &p.reference,
                prediction: Some(&p.prediction),
                ..Item::default()
            });
            if judged.counted {
                set.unread += usize::from(judged.answer.is_none());
                set.right.add(self.clips[question.item], judged.correct);
            }
        }
    }

    /// `muchomusic 120/1187, 4:10 left, 3.3% not read, right 61.2% (56.8 to 65.4)`.
    pub(super) fn told(&self, set: usize) -> String {
        let name = &self.questions.sets[set].name;
        let set = &self.sets[set];
        let since = set.began.map_or(Duration::ZERO, |began| began.elapsed());
        line(name, set, since)
    }
}

fn line(name: &str, set: &Set, since: Duration) -> String {
    let mut text = format!("{name} {}/{}", set.done, set.all);
    // The first answer begins the clock, and is no part of the pace.
    if set.done > 1 && set.done < set.all {
        let each = since.div_f64((set.done - 1) as f64);
        text += &format!(", {} left", clock(each.mul_f64((set.all - set.done) as f64)));
    }
    if set.right.n > 0.0 {
        text += &format!(", {:.1}% not read", 100.0 * set.unread as f64 / set.right.n);
    }
    if let Some((share, within)) = set.right.share() {
        text += &format!(
            ", right {:.1}% ({:.1} to {:.1})",
            100.0 * share,
            100.0 * within.low,
            100.0 * within.high
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(answers: &[(usize, bool)]) -> Set {
        let mut set = Set {
            all: 40,
            done: answers.len(),
            ..Set::default()
        };
        answers
            .iter()
            .for_each(|(clip, right)| set.right.add(*clip, *right));
        set
    }

    #[test]
    fn a_line_says_how_far_a_set_is_and_how_it_stands() {
        let answers: Vec<_> = (0..20).map(|i| (i, i % 4 != 0)).collect();
        let of = set(&answers);
        let text = line("animals", &of, Duration::from_secs(38));
        // By hand: 15 of 20, Wilson's interval at z = 1.959964; 19 answers in 38 s, 20 to come.
        assert_eq!(
            text,
            "animals 20/40, 0:40 left, 0.0% not read, right 75.0% (53.1 to 88.8)"
        );
        // No score without an interval, no time from one answer.
        assert_eq!(
            line("animals", &set(&[(3, true)]), Duration::ZERO),
            "animals 1/40, 0.0% not read"
        );
        assert_eq!(
            line(
                "songs",
                &Set {
                    all: 2,
                    ..Set::default()
                },
                Duration::ZERO
            ),
            "songs 0/2"
        );
    }

    #[test]
    fn answers_of_one_clip_that_are_alike_count_as_one() {
        // Ten clips, each with five answers that are all alike.
        let alike: Vec<_> = (0..50).map(|i| (i / 5, i / 5 % 2 == 0)).collect();
        let apart: Vec<_> = (0..50).map(|i| (i, i / 5 % 2 == 0)).collect();
        let width = |answers: &[(usize, bool)]| {
            let (_, i) = set(answers).right.share().unwrap();
            i.high - i.low
        };
        assert!(
            width(&alike) > 1.8 * width(&apart),
            "{} {}",
            width(&alike),
            width(&apart)
        );
        // All right: as wide as ten answers would have it.
        let right: Vec<_> = (0..50).map(|i| (i / 5, true)).collect();
        let (share, within) = set(&right).right.share().unwrap();
        assert_eq!((share, within), (1.0, wilson(1.0, 10.0, LEVEL)));
    }
}
