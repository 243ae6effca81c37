//! The legend. Tensor names end in the letters of their dimensions: `q_bhtd`.
//!
//! | letter | dimension |
//! |---|---|
//! | B | batch: items |
//! | W | windows of 10 s per item |
//! | F | mel frames per window |
//! | M | mel bins |
//! | L | audio tokens: the encoder's of each window (HTSAT: 64), in a row |
//! | T | text tokens |
//! | H | attention heads |
//! | D | width |
//! | V | vocabulary |

/// The sound that an audio encoder takes: windows as log-mel spectrograms.
#[derive(Debug, PartialEq)]
pub(crate) struct FrontEnd {
    /// Samples per second.
    pub sample_rate: u32,
    /// Samples in one window.
    pub window_samples: usize,
    /// Samples in a transform and in its Hann window.
    pub n_fft: usize,
    /// Samples between frames, which are centred.
    pub hop: usize,
    /// Triangular HTK mel bands, and the frequencies between which they lie.
    pub mel_bins: usize,
    pub low_hz: f64,
    pub high_hz: f64,
}

impl FrontEnd {
    /// Mel frames of a window.
    pub(crate) const fn frames(&self) -> usize {
        1 + self.window_samples / self.hop
    }
}

/// AF-CLAP's front end, which [`crate::audio`] computes.
pub(crate) const AF_CLAP: FrontEnd = FrontEnd {
    sample_rate: 16_000,
    window_samples: 160_000,
    n_fft: 1024,
    hop: 160,
    mel_bins: 64,
    low_hz: 50.0,
    high_hz: 8000.0,
};

/// Samples per second.
pub(crate) const SAMPLE_RATE: u32 = AF_CLAP.sample_rate;
/// Samples in one window of 10 s.
pub const WINDOW_SAMPLES: usize = AF_CLAP.window_samples;
/// Seconds in one window.
pub(crate) const WINDOW_SECONDS: f64 = 10.0;
/// Mel frames per window: 1001.
pub const WINDOW_FRAMES: usize = AF_CLAP.frames();
/// Mel bins.
pub const MEL_BINS: usize = AF_CLAP.mel_bins;

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
