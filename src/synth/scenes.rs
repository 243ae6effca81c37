//! Clips: which sounds, when; and what was heard, which the questions are made of.

use super::sounds::{mix, samples, Class, Pitch, CLASSES, EVENT_SECONDS};
use crate::error::{Error, Result};
use rand::seq::SliceRandom;
use rand::Rng;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use serde::{Deserialize, Serialize};

/// How much of what is made. Counts are over all splits; each split gets at least one of each kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusSpec {
    /// The same seed makes the same corpus.
    pub seed: u64,
    /// Clips of one sound, per class.
    pub singles_per_class: usize,
    /// Clips of one sound one to four times; rounded up to whole rounds of classes and counts.
    pub counting: usize,
    /// Clips of two or three sounds in a row.
    pub scenes: usize,
    /// Clips of a low or high sound; rounded up to whole rounds.
    pub attributes: usize,
    /// Clips of 30 to 90 s.
    pub long: usize,
    /// Share of the clips that validate.
    pub val_fraction: f64,
    /// Share of the clips that test.
    pub test_fraction: f64,
}

impl CorpusSpec {
    /// How many of `n` a split gets.
    pub(super) fn part(&self, split: Split, n: usize) -> usize {
        let share = |f: f64| ((n as f64 * f).round() as usize).max(1);
        let (val, test) = (share(self.val_fraction), share(self.test_fraction));
        match split {
            Split::Val => val,
            Split::Test => test,
            Split::Train => n.saturating_sub(val + test).max(1),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let fraction = |f: f64| (0.0..=0.5).contains(&f);
        if !fraction(self.val_fraction) || !fraction(self.test_fraction) {
            return Err(Error::recipe(
                "corpus",
                "val_fraction and test_fraction must lie between 0 and 0.5",
            ));
        }
        if self.scenes + self.counting + self.long + self.attributes + self.singles_per_class > 1_000_000 {
            return Err(Error::recipe(
                "corpus",
                "more than a million clips were asked for",
            ));
        }
        Ok(())
    }
}

/// Seconds of a short clip that holds more than one event.
const CLIP_SECONDS: f64 = 10.0;
/// Largest count that is asked for.
pub(crate) const MOST_COUNT: usize = 4;
/// Share of clips written at 44.1 kHz in stereo.
const STEREO_SHARE: f64 = 0.1;

/// Which part of the data a clip is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Split {
    Train,
    Val,
    Test,
}

impl Split {
    pub(crate) const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

/// What a clip is, and what is true of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// One class alone.
    Single(Class),
    /// One countable class, so many times.
    Counting(Class, usize),
    /// Classes one after another.
    Scene(Vec<Class>),
    /// A pitched class, low or high.
    Attribute(Class, Pitch),
    /// Classes one after another over many windows.
    Long(Vec<Class>),
}

/// A clip to be rendered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clip {
    pub split: Split,
    /// File name without folder.
    pub name: String,
    pub content: Content,
    seed: u64,
}

/// All clips of a corpus, in a fixed order. Within each split and kind, classes, counts and pitches are even.
pub(crate) fn plan(spec: &CorpusSpec) -> Vec<Clip> {
    let countable: Vec<Class> = CLASSES.iter().copied().filter(|c| c.countable).collect();
    let pitched: Vec<Class> = CLASSES.iter().copied().filter(|c| c.pitched).collect();
    let mut clips = Vec::new();
    for split in Split::ALL {
        let mut add = |kind: &str, n: usize, make: &mut dyn FnMut(usize, &mut ChaCha8Rng) -> Content| {
            for i in 0..n {
                let seed = clip_seed(spec.seed, split, kind, i);
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                clips.push(Clip {
                    split,
                    name: format!("{}-{kind}-{i:04}.wav", split.name()),
                    content: make(i, &mut rng),
                    seed: rng.gen(),
                });
            }
        };
        let part = |n: usize| spec.part(split, n);
        add(
            "single",
            CLASSES.len() * part(spec.singles_per_class),
            &mut |i, _| Content::Single(CLASSES[i % CLASSES.len()]),
        );
        // Whole rounds of classes × counts, so that neither tells the other.
        let round = countable.len() * MOST_COUNT;
        add(
            "counting",
            part(spec.counting).div_ceil(round) * round,
            &mut |i, _| {
                Content::Counting(
                    countable[i % countable.len()],
                    i / countable.len() % MOST_COUNT + 1,
                )
            },
        );
        add("scene", part(spec.scenes), &mut |i, rng| {
            Content::Scene(different(rng, 2 + i % 2))
        });
        let round = pitched.len() * 2;
        add(
            "attribute",
            part(spec.attributes).div_ceil(round) * round,
            &mut |i, _| {
                let pitch = if (i / pitched.len()).is_multiple_of(2) {
                    Pitch::Low
                } else {
                    Pitch::High
                };
                Content::Attribute(pitched[i % pitched.len()], pitch)
            },
        );
        add("long", part(spec.long), &mut |_, rng| {
            let n = rng.gen_range(3..=6);
            Content::Long(different(rng, n))
        });
    }
    clips
}

fn different(rng: &mut ChaCha8Rng, n: usize) -> Vec<Class> {
    CLASSES
        .choose_multiple(rng, n)
        .copied()
        .collect::<Vec<_>>()
        .shuffled(rng)
}

trait Shuffled {
    fn shuffled(self, rng: &mut ChaCha8Rng) -> Self;
}

impl<T> Shuffled for Vec<T> {
    /// `choose_multiple` promises no order; a scene's order must be even.
    fn shuffled(mut self, rng: &mut ChaCha8Rng) -> Self {
        self.shuffle(rng);
        self
    }
}

/// A seed of its own for every clip: no clip depends on how many there are, or on the thread that renders it.
fn clip_seed(seed: u64, split: Split, kind: &str, index: usize) -> u64 {
    // FNV-1a over what identifies the clip.
    let text = format!("{seed}/{}/{kind}/{index}", split.name());
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A rendered clip: samples per channel in −1…1.
pub(crate) struct Rendered {
    pub channels: Vec<Vec<f32>>,
    pub rate: u32,
}

impl Rendered {
    pub(crate) fn seconds(&self) -> f64 {
        self.channels.first().map_or(0, Vec::len) as f64 / f64::from(self.rate)
    }
}

impl Clip {
    pub(crate) fn render(&self) -> Rendered {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let stereo = rng.gen_bool(STEREO_SHARE);
        let rate = if stereo { 44_100 } else { 16_000 };
        let mut left = self.sound(&mut rng, f64::from(rate));
        let floor = 10f64.powf(rng.gen_range(-3.2..-2.2)) as f32;
        let mut noise = ChaCha8Rng::seed_from_u64(rng.gen());
        left.iter_mut()
            .for_each(|x| *x += floor * noise.gen_range(-1.0f32..1.0));
        let peak = left.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
        let level = rng.gen_range(0.3f32..0.95) / peak;
        left.iter_mut().for_each(|x| *x *= level);
        let channels = match stereo {
            false => vec![left],
            true => {
                // The other ear: later and softer.
                let delay = rng.gen_range(5..30);
                let right = (0..left.len())
                    .map(|i| if i < delay { 0.0 } else { 0.7 * left[i - delay] })
                    .collect();
                vec![left, right]
            }
        };
        Rendered { channels, rate }
    }

    fn sound(&self, rng: &mut ChaCha8Rng, rate: f64) -> Vec<f32> {
        match &self.content {
            Content::Single(class) => {
                let seconds = rng.gen_range(1.0..6.0);
                class.stretch(rng, Pitch::Any, seconds, rate)
            }
            Content::Attribute(class, pitch) => {
                let seconds = rng.gen_range(1.5..4.0);
                class.stretch(rng, *pitch, seconds, rate)
            }
            Content::Counting(class, n) => {
                let mut out = vec![0.0; samples(CLIP_SECONDS, rate)];
                // Onsets a slot apart, with a gap that is heard between them.
                let slot = CLIP_SECONDS / *n as f64;
                let gap = 0.4;
                let width = slot.min(rng.gen_range(1.3..2.4));
                let start = rng.gen_range(0.0..=CLIP_SECONDS - width * *n as f64);
                for i in 0..*n {
                    let room = (width - EVENT_SECONDS - gap).max(0.0);
                    let at = start + width * i as f64 + rng.gen_range(0.0..=room);
                    let event = class.event(rng, Pitch::Any, rate);
                    mix(&mut out, &event, samples(at, rate), rng.gen_range(0.6..1.0));
                }
                out
            }
            Content::Scene(classes) => {
                let mut out = vec![0.0; samples(CLIP_SECONDS, rate)];
                let slot = CLIP_SECONDS / classes.len() as f64;
                for (i, class) in classes.iter().enumerate() {
                    let seconds = rng.gen_range(1.2..slot - 0.5);
                    let at = slot * i as f64 + rng.gen_range(0.0..=slot - 0.2 - seconds);
                    let sound = class.stretch(rng, Pitch::Any, seconds, rate);
                    mix(&mut out, &sound, samples(at, rate), rng.gen_range(0.6..1.0));
                }
                out
            }
            Content::Long(classes) => {
                let seconds = rng.gen_range(30.0..90.0);
                let mut out = vec![0.0; samples(seconds, rate)];
                let slot = seconds / classes.len() as f64;
                for (i, class) in classes.iter().enumerate() {
                    let own = rng.gen_range(2.5..(slot - 0.6).min(8.0));
                    let at = slot * i as f64 + rng.gen_range(0.0..=slot - 0.4 - own);
                    let sound = class.stretch(rng, Pitch::Any, own, rate);
                    mix(&mut out, &sound, samples(at, rate), rng.gen_range(0.6..1.0));
                }
                out
            }
        }
    }
}
