//! How an engine works, and what it has done.

use crate::model::parts::Precision;

/// How the engine works. No setting changes an answer, but for near ties: see [`NEAR_TIE`](crate::generate::NEAR_TIE).
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most sequences that are written on together. A beam search takes as many as it has beams.
    pub slots: usize,
    /// Most bytes of what is heard and what is written, the model apart; none for a quarter of the memory that is free.
    pub memory: Option<u64>,
    /// In what is computed. The model must be ready for it: [`Loaded::ask_in`](crate::load::Loaded::ask_in).
    pub precision: Precision,
    /// Most tokens of a prompt that are read at once.
    pub prefill: usize,
    /// Answers never wait for longer than one piece of a prompt, or of a sound, takes: for people who watch them come. Without it all
    /// slots are filled before a step, which is faster in all: a step costs about as much however many slots are taken.
    pub steady: bool,
    /// Sounds that stay heard although no question is about them, as long as there is room.
    pub keep: usize,
}

impl Default for Settings {
    /// Eight slots, filled first; fp32, 256 tokens of a prompt at once; no sound stays.
    fn default() -> Self {
        Settings {
            slots: 8,
            memory: None,
            precision: Precision::Fp32,
            prefill: 256,
            steady: false,
            keep: 0,
        }
    }
}

/// What an engine has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sounds that were heard, and how many windows were encoded for them: one of silence stands for all.
    pub sounds: u64,
    /// See [`Stats::sounds`].
    pub windows: u64,
    /// Prompts that were read, and their tokens.
    pub prompts: u64,
    /// Tokens of prompts that were read.
    pub read: u64,
    /// Tokens of prompts that were not, as another prompt about the same sound began with them.
    pub shared: u64,
    /// Steps of all slots together.
    pub steps: u64,
    /// Tokens that these steps wrote: over steps and slots, how busy the slots were.
    pub spoken: u64,
    /// Tokens of all answers that were written, beams apart.
    pub tokens: u64,
    /// The most bytes that were held of what [`Settings::memory`] bounds.
    pub most_bytes: u64,
}
