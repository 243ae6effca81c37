//! The sound classes: each a small parametric synthesiser with its own voice.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;

/// A class of sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    /// How questions and answers call it.
    pub label: &'static str,
    /// The article that goes before the label.
    pub article: &'static str,
    /// A short event that can be counted.
    pub countable: bool,
    /// Has a clear pitch, which can be low or high.
    pub pitched: bool,
    voice: Voice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    Siren,
    Bell,
    Dog,
    Engine,
    Rain,
    Bird,
    Footsteps,
    Guitar,
    Violin,
    Drum,
    Beep,
    Whistle,
}

const fn class(
    label: &'static str,
    article: &'static str,
    countable: bool,
    pitched: bool,
    voice: Voice,
) -> Class {
    Class {
        label,
        article,
        countable,
        pitched,
        voice,
    }
}

/// All classes. Their order is part of what a seed means.
pub(crate) const CLASSES: [Class; 12] = [
    class("siren", "a", false, false, Voice::Siren),
    class("bell", "a", true, true, Voice::Bell),
    class("dog", "a", true, false, Voice::Dog),
    class("engine", "an", false, false, Voice::Engine),
    class("rain", "the", false, false, Voice::Rain),
    class("bird", "a", true, false, Voice::Bird),
    class("footsteps", "the", false, false, Voice::Footsteps),
    class("guitar", "a", true, true, Voice::Guitar),
    class("violin", "a", false, true, Voice::Violin),
    class("drum", "a", true, false, Voice::Drum),
    class("beep", "a", true, true, Voice::Beep),
    class("whistle", "a", false, true, Voice::Whistle),
];

/// Where a pitched class's pitch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pitch {
    Any,
    Low,
    High,
}

/// Seconds from the start of one countable event to its end, at most.
pub(crate) const EVENT_SECONDS: f64 = 0.7;

impl Class {
    /// One event of a countable class, at most [`EVENT_SECONDS`] long, at `rate` samples a second.
    pub(crate) fn event(&self, rng: &mut ChaCha8Rng, pitch: Pitch, rate: f64) -> Vec<f32> {
        let seconds = match self.voice {
            Voice::Dog => rng.gen_range(0.16..0.28),
            Voice::Bird => rng.gen_range(0.25..0.4),
            Voice::Beep => rng.gen_range(0.2..0.35),
            Voice::Drum => rng.gen_range(0.3..0.45),
            _ => rng.gen_range(0.5..EVENT_SECONDS),
        };
        let frequency = self.frequency(rng, pitch);
        self.voice.render(rng, frequency, seconds, rate)
    }

    /// `seconds` of the class: continuous ones as they are, countable ones repeated.
    pub(crate) fn stretch(&self, rng: &mut ChaCha8Rng, pitch: Pitch, seconds: f64, rate: f64) -> Vec<f32> {
        if !self.countable {
            let frequency = self.frequency(rng, pitch);
            return self.voice.render(rng, frequency, seconds, rate);
        }
        let mut out = vec![0.0; samples(seconds, rate)];
        let mut at = 0.0;
        loop {
            let own = self.event(rng, pitch, rate);
            let length = own.len() as f64 / rate;
            if at > 0.0 && at + length > seconds {
                return out;
            }
            mix(&mut out, &own, samples(at, rate), 1.0);
            at += length + rng.gen_range(0.1..0.35);
        }
    }

    fn frequency(&self, rng: &mut ChaCha8Rng, pitch: Pitch) -> f64 {
        // Low and high lie more than an octave and a half apart.
        let (low, high) = match self.voice {
            Voice::Bell => ((260.0, 380.0), (1200.0, 1800.0)),
            Voice::Guitar => ((82.0, 120.0), (380.0, 520.0)),
            Voice::Violin => ((196.0, 260.0), (900.0, 1300.0)),
            Voice::Beep => ((350.0, 500.0), (1800.0, 2600.0)),
            Voice::Whistle => ((700.0, 950.0), (2600.0, 3400.0)),
            Voice::Siren => ((380.0, 450.0), (550.0, 700.0)),
            Voice::Dog => ((260.0, 330.0), (380.0, 480.0)),
            Voice::Engine => ((32.0, 45.0), (55.0, 80.0)),
            Voice::Bird => ((2600.0, 3200.0), (3600.0, 4600.0)),
            Voice::Drum => ((55.0, 70.0), (80.0, 110.0)),
            Voice::Footsteps | Voice::Rain => ((1.0, 1.3), (1.6, 2.2)),
        };
        let (from, to): (f64, f64) = match pitch {
            Pitch::Any => (low.0, high.1),
            Pitch::Low => low,
            Pitch::High => high,
        };
        // Even over octaves, as pitch is heard.
        (rng.gen_range(from.ln()..to.ln())).exp()
    }
}

impl Voice {
    fn render(self, rng: &mut ChaCha8Rng, f: f64, seconds: f64, rate: f64) -> Vec<f32> {
        let n = samples(seconds, rate);
        let mut noise = Noise::new(rng);
        let out: Vec<f64> = match self {
            Voice::Siren => {
                let (period, depth) = (rng.gen_range(0.7..1.6), rng.gen_range(0.35..0.6));
                let mut phase = 0.0;
                per_sample(n, rate, |t| {
                    let sweep = 1.0 + depth * (TAU * t / period).sin();
                    phase += TAU * f * 1.6 * sweep / rate;
                    phase.sin() + 0.4 * (2.0 * phase).sin() + 0.2 * (3.0 * phase).sin()
                })
            }
            Voice::Bell => {
                let decay = rng.gen_range(4.0..6.0);
                let partials = [
                    (1.0, 1.0, 1.0),
                    (2.0, 0.6, 1.3),
                    (2.76, 0.5, 1.8),
                    (5.4, 0.3, 2.5),
                    (8.9, 0.15, 3.5),
                ];
                per_sample(n, rate, |t| {
                    let sum = partials
                        .iter()
                        .map(|(r, a, d)| a * (TAU * f * r * t).sin() * (-t * decay * d).exp());
                    sum.sum()
                })
            }
            Voice::Dog => {
                let rough = rng.gen_range(0.3..0.6);
                let mut phase = 0.0;
                per_sample(n, rate, |t| {
                    let x = t / seconds;
                    // The pitch rises a little and falls, the mouth opens and closes.
                    phase += TAU * f * (1.0 + 0.9 * (std::f64::consts::PI * x).sin()) / rate;
                    let voice: f64 = (1..9)
                        .map(|h| (phase * h as f64).sin() * formant(f * h as f64, 900.0))
                        .sum();
                    (voice + rough * noise.white()) * (std::f64::consts::PI * x).sin().powf(0.6)
                })
            }
            Voice::Engine => {
                let (wobble, speed) = (rng.gen_range(0.02..0.08), rng.gen_range(0.5..2.0));
                let mut phase = 0.0;
                let mut low = Lowpass::new(700.0, rate);
                per_sample(n, rate, |t| {
                    phase += TAU * f * (1.0 + wobble * (TAU * speed * t).sin()) / rate;
                    let fire: f64 = (1..14)
                        .map(|h| (phase * h as f64).sin() / (h as f64).sqrt())
                        .sum();
                    fire * 0.5 + 1.5 * low.next(noise.white()) * (0.6 + 0.4 * phase.sin())
                })
            }
            Voice::Rain => {
                let mut high = Lowpass::new(1500.0, rate);
                let mut drop = 0.0;
                per_sample(n, rate, |_| {
                    let white = noise.white();
                    if noise.uniform() < 40.0 * f / rate {
                        drop = 1.5;
                    }
                    drop *= 0.992;
                    0.5 * (white - high.next(white)) + drop * noise.white()
                })
            }
            Voice::Bird => {
                let (sweeps, up) = (rng.gen_range(2..4) as f64, rng.gen_range(0.2..0.5));
                let mut phase = 0.0;
                per_sample(n, rate, |t| {
                    let x = (t / seconds * sweeps).fract();
                    phase += TAU * f * (1.0 + up * (0.5 - x)) / rate;
                    phase.sin() * (std::f64::consts::PI * x).sin()
                })
            }
            Voice::Footsteps => {
                let step = 1.0 / (1.2 * f);
                let mut thud = Lowpass::new(rng.gen_range(250.0..500.0), rate);
                let mut grit = Lowpass::new(3000.0, rate);
                per_sample(n, rate, |t| {
                    let x = t % step;
                    let side = if (t / step) as i64 % 2 == 0 { 1.0 } else { 0.75 };
                    let white = noise.white();
                    let body = 6.0 * thud.next(white) * (-x * 28.0).exp();
                    let scrape = 0.5 * grit.next(white) * (-(x - 0.05).abs() * 60.0).exp();
                    side * (body + scrape)
                })
            }
            Voice::Guitar => pluck(n, f, rate, &mut noise),
            Voice::Violin => {
                let (vibrato, depth) = (rng.gen_range(4.5..6.5), rng.gen_range(0.006..0.015));
                let mut phase = 0.0;
                per_sample(n, rate, |t| {
                    phase += TAU * f * (1.0 + depth * (TAU * vibrato * t).sin()) / rate;
                    let saw: f64 = (1..16)
                        .filter(|h| f * *h as f64 * 2.2 < rate)
                        .map(|h| (phase * h as f64).sin() / h as f64 * formant(f * h as f64, 2800.0))
                        .sum();
                    let attack = (t / 0.12).min(1.0) * ((seconds - t) / 0.1).clamp(0.0, 1.0);
                    (saw + 0.02 * noise.white()) * attack
                })
            }
            Voice::Drum => {
                let snap = rng.gen_range(0.3..0.6);
                let mut phase = 0.0;
                per_sample(n, rate, |t| {
                    phase += TAU * f * (1.0 + 1.5 * (-t * 30.0).exp()) / rate;
                    phase.sin() * (-t * 11.0).exp() + snap * noise.white() * (-t * 70.0).exp()
                })
            }
            Voice::Beep => per_sample(n, rate, |t| {
                let x = (TAU * f * t).sin();
                // A square wave's first harmonics: sharp, and without aliases.
                let wave = x + (3.0 * TAU * f * t).sin() / 3.0;
                wave * (t / 0.004).min(1.0) * ((seconds - t) / 0.004).clamp(0.0, 1.0)
            }),
            Voice::Whistle => {
                let (glide, speed) = (rng.gen_range(0.03..0.12), rng.gen_range(0.3..0.9));
                let mut phase = 0.0;
                per_sample(n, rate, |t| {
                    phase += TAU * f * (1.0 + glide * (TAU * speed * t).sin()) / rate;
                    let edge = (t / 0.05).min(1.0) * ((seconds - t) / 0.05).clamp(0.0, 1.0);
                    (phase.sin() + 0.06 * noise.white()) * edge
                })
            }
        };
        normalised(&out, rate)
    }
}

/// Karplus and Strong's plucked string.
fn pluck(n: usize, f: f64, rate: f64, noise: &mut Noise) -> Vec<f64> {
    let mut string: Vec<f64> = (0..(rate / f).max(2.0) as usize).map(|_| noise.white()).collect();
    let size = string.len();
    // Higher strings pass the filter more often: they are damped less each time, or they would only click.
    let loss = 0.5 * (-2.2 / f).exp();
    (0..n)
        .map(|i| {
            let (a, b) = (string[i % size], string[(i + 1) % size]);
            string[i % size] = loss * (a + b);
            a
        })
        .collect()
}

fn per_sample(n: usize, rate: f64, mut f: impl FnMut(f64) -> f64) -> Vec<f64> {
    (0..n).map(|i| f(i as f64 / rate)).collect()
}

/// How strongly a resonance near `centre` passes a frequency.
fn formant(f: f64, centre: f64) -> f64 {
    1.0 / (1.0 + ((f - centre) / (0.6 * centre)).powi(2))
}

/// Peak 1, and no click where the sound begins and ends.
fn normalised(x: &[f64], rate: f64) -> Vec<f32> {
    let peak = x.iter().fold(1e-9f64, |m, v| m.max(v.abs()));
    let edge = (0.003 * rate).max(1.0);
    let n = x.len();
    x.iter()
        .enumerate()
        .map(|(i, v)| {
            let fade = (i as f64 / edge).min((n - 1 - i) as f64 / edge).min(1.0);
            (v / peak * fade) as f32
        })
        .collect()
}

/// Samples in a length of time.
pub(crate) fn samples(seconds: f64, rate: f64) -> usize {
    (seconds * rate).round() as usize
}

/// Adds `sound` into `out` from sample `at` on; what goes past the end is cut.
pub(crate) fn mix(out: &mut [f32], sound: &[f32], at: usize, gain: f32) {
    for (o, s) in out.iter_mut().skip(at).zip(sound) {
        *o += gain * s;
    }
}

struct Noise(ChaCha8Rng);

impl Noise {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        use rand_chacha::rand_core::SeedableRng;
        Noise(ChaCha8Rng::seed_from_u64(rng.gen()))
    }

    fn white(&mut self) -> f64 {
        self.0.gen_range(-1.0..1.0)
    }

    fn uniform(&mut self) -> f64 {
        self.0.gen()
    }
}

struct Lowpass {
    state: f64,
    keep: f64,
}

impl Lowpass {
    fn new(cutoff: f64, rate: f64) -> Self {
        Lowpass {
            state: 0.0,
            keep: (-TAU * cutoff / rate).exp(),
        }
    }

    fn next(&mut self, x: f64) -> f64 {
        self.state = self.keep * self.state + (1.0 - self.keep) * x;
        self.state
    }
}
