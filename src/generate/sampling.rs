//! From logits to the next token: temperature, then top-k, then top-p, as transformers' logits warpers.

use rand::Rng;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use tch::{Kind, Tensor};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the k likeliest; 0 for all.
    pub top_k: usize,
    /// Only the likeliest that together reach this probability.
    pub top_p: f64,
}

impl Sampling {
    /// Temperature 0, which the paper's benchmarks are run with.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
    };
}

/// A sampling rule and its random stream.
pub struct Sampler {
    rule: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler whose choices are the seed's.
    pub fn new(rule: Sampling, seed: u64) -> Self {
        Sampler {
            rule,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Takes the likeliest token each time: nothing is drawn.
    pub fn greedy() -> Self {
        Sampler::new(Sampling::GREEDY, 0)
    }

    /// `logits` (V) → token id.
    pub fn next(&mut self, logits: &Tensor) -> i64 {
        if self.rule.temperature <= 0.0 {
            return i64::try_from(logits.argmax(-1, false)).unwrap_or(0);
        }
        let probabilities = Vec::<f32>::try_from(self.rule.probabilities(logits)).unwrap_or_default();
        let mut left: f32 = self.rng.gen::<f32>() * probabilities.iter().sum::<f32>();
        let mut last = 0;
        for (id, p) in probabilities.iter().enumerate() {
            if *p > 0.0 {
                last = id as i64;
                left -= p;
                if left <= 0.0 {
                    break;
                }
            }
        }
        last
    }
}

impl Sampling {
    /// `logits` (V) → probabilities (V) on the CPU; what the rule excludes is 0.
    pub fn probabilities(&self, logits: &Tensor) -> Tensor {
        let mut x = logits.to_kind(Kind::Float) / self.temperature.max(1e-6);
        let v = x.size()[0];
        if self.top_k > 0 && (self.top_k as i64) < v {
            let (best, _) = x.topk(self.top_k as i64, -1, true, true);
            let least = best.narrow(0, self.top_k as i64 - 1, 1);
            x = x.masked_fill(&x.lt_tensor(&least), f64::NEG_INFINITY);
        }
        if self.top_p < 1.0 {
            let (ascending, order) = x.sort(-1, false);
            // Ascending as transformers does it: drop what lies within the lower 1 − p, keep at least one.
            let below = ascending
                .softmax(-1, Kind::Float)
                .cumsum(-1, Kind::Float)
                .le(1.0 - self.top_p);
            let _ = below.narrow(0, v - 1, 1).fill_(0);
            let drop = below.zeros_like().scatter(0, &order, &below);
            x = x.masked_fill(&drop, f64::NEG_INFINITY);
        }
        x.softmax(-1, Kind::Float).to_device(tch::Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Tensor {
        // Probabilities 0.1, 0.4, 0.2, 0.3.
        Tensor::from_slice(&[0.1f32, 0.4, 0.2, 0.3]).log()
    }

    fn kept(rule: Sampling) -> Vec<bool> {
        Vec::<f32>::try_from(rule.probabilities(&logits()))
            .unwrap()
            .iter()
            .map(|p| *p > 0.0)
            .collect()
    }

    #[test]
    fn top_k_and_top_p_keep_the_likeliest() {
        let all = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        };
        assert_eq!(kept(all), [true; 4]);
        assert_eq!(kept(Sampling { top_k: 2, ..all }), [false, true, false, true]);
        assert_eq!(kept(Sampling { top_p: 0.65, ..all }), [false, true, false, true]);
        assert_eq!(kept(Sampling { top_p: 0.01, ..all }), [false, true, false, false]);
    }

    #[test]
    fn greedy_takes_the_likeliest_and_a_seed_repeats_itself() {
        assert_eq!(Sampler::new(Sampling::GREEDY, 0).next(&logits()), 1);
        let rule = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        };
        let draw = |seed| {
            let mut s = Sampler::new(rule, seed);
            (0..50).map(|_| s.next(&logits())).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
