//! The legend. Tensor names end in the letters of their dimensions: `q_bhtd`.
//!
//! | letter | dimension |
//! |---|---|
//! | B | batch: items |
//! | W | windows of 10 s per item |
//! | F | mel frames per window |
//! | M | mel bins |
//! | L | audio tokens (64 per window) |
//! | T | text tokens |
//! | H | attention heads |
//! | D | width |
//! | V | vocabulary |

/// Samples per second that the audio encoder takes.
pub const SAMPLE_RATE: u32 = 16_000;
/// Samples in one window of 10 s.
pub const WINDOW_SAMPLES: usize = 160_000;
/// Seconds in one window.
pub const WINDOW_SECONDS: f64 = 10.0;
/// Mel frames per window: one every 160 samples, centred.
pub const WINDOW_FRAMES: usize = 1001;
/// Mel bins.
pub const MEL_BINS: usize = 64;
/// Audio tokens that HTSAT gives per window: 2 frequency × 32 time.
pub const TOKENS_PER_WINDOW: i64 = 64;

/// A length or position in seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, serde::Serialize, serde::Deserialize)]
pub struct Seconds(pub f64);

/// Samples per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRate(pub u32);

impl Seconds {
    /// Whole samples at `rate`, rounded to the nearest; negative lengths count as none.
    pub fn samples(self, rate: SampleRate) -> usize {
        (self.0 * f64::from(rate.0)).round().max(0.0) as usize
    }
}
