//! From scores to the next token: the likeliest, or one that is drawn.

pub use super::decoding::Sampling;
use super::warp::warp;
use rand::Rng;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use tch::{Kind, Tensor};

impl Sampling {
    /// `scores` (V) → probabilities (V) on the CPU; what the rule excludes is 0.
    pub fn probabilities(&self, scores: &Tensor) -> Tensor {
        let warped = warp(self, scores);
        warped.softmax(-1, Kind::Float).to_device(tch::Device::Cpu)
    }
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

    /// The stream of one sample of one item: what is drawn depends neither on other items, nor on their order, nor on who asks
    /// them.
    pub fn of(rule: Sampling, seed: u64, item: &str, sample: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(&sample.to_le_bytes());
        hasher.update(item.as_bytes());
        Sampler {
            rule,
            rng: ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()),
        }
    }

    /// Takes the likeliest token each time: nothing is drawn.
    pub fn greedy() -> Self {
        Sampler::new(Sampling::GREEDY, 0)
    }

    /// `scores` (V) → token id.
    pub fn next(&mut self, scores: &Tensor) -> i64 {
        if self.rule.temperature <= 0.0 {
            return i64::try_from(scores.argmax(-1, false)).unwrap_or(0);
        }
        let probabilities = Vec::<f32>::try_from(self.rule.probabilities(scores)).unwrap_or_default();
        // In float64: the rounding of 150,000 sums in float32 would favour some tokens.
        let mut left = self.rng.gen::<f64>() * probabilities.iter().map(|p| f64::from(*p)).sum::<f64>();
        let mut last = 0;
        for (id, p) in probabilities.iter().enumerate() {
            if *p > 0.0 {
                last = id as i64;
                left -= f64::from(*p);
                if left <= 0.0 {
                    break;
                }
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Tensor {
        // Probabilities 0.1, 0.4, 0.2, 0.3.
        Tensor::from_slice(&[0.1f32, 0.4, 0.2, 0.3]).log()
    }

    const ALL: Sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };

    fn kept(rule: Sampling) -> Vec<bool> {
        Vec::<f32>::try_from(rule.probabilities(&logits()))
            .unwrap()
            .iter()
            .map(|p| *p > 0.0)
            .collect()
    }

    #[test]
    fn each_rule_keeps_the_likeliest() {
        assert_eq!(kept(ALL), [true; 4]);
        assert_eq!(kept(Sampling { top_k: 2, ..ALL }), [false, true, false, true]);
        assert_eq!(kept(Sampling { top_k: 9, ..ALL }), [true; 4]);
        assert_eq!(kept(Sampling { top_p: 0.65, ..ALL }), [false, true, false, true]);
        assert_eq!(kept(Sampling { top_p: 0.01, ..ALL }), [false, true, false, false]);
        assert_eq!(kept(Sampling { min_p: 0.45, ..ALL }), [false, true, true, true]);
        assert_eq!(kept(Sampling { min_p: 0.6, ..ALL }), [false, true, false, true]);
        assert_eq!(kept(Sampling { min_p: 1.0, ..ALL }), [false, true, false, false]);
    }

    #[test]
    fn greedy_takes_the_likeliest_and_a_seed_repeats_itself() {
        assert_eq!(Sampler::greedy().next(&logits()), 1);
        let draw = |mut s: Sampler| (0..50).map(|_| s.next(&logits())).collect::<Vec<_>>();
        assert_eq!(draw(Sampler::new(ALL, 1)), draw(Sampler::new(ALL, 1)));
        assert_ne!(draw(Sampler::new(ALL, 1)), draw(Sampler::new(ALL, 2)));
        let of = |seed, item, sample| draw(Sampler::of(ALL, seed, item, sample));
        let first = of(0, "dog.wav: what is it?", 0);
        assert_eq!(first, of(0, "dog.wav: what is it?", 0));
        for other in [
            of(1, "dog.wav: what is it?", 0),
            of(0, "dog.wav: what is it?", 1),
            of(0, "cat.wav: what is it?", 0),
        ] {
            assert_ne!(first, other);
        }
    }
}
