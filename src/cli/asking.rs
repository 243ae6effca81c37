//! What the verbs that ask a model have in common: how an answer is chosen, in what is computed, how many are written at once.

use super::parts::CheckpointArgs;
use super::plan::gib;
use crate::dist::launch::INTERRUPTED;
use crate::error::{Error, Result};
use crate::ffi::{self, kernels};
use crate::generate::decoding::{Decoding, EarlyStopping};
use crate::generate::engine::Settings;
use crate::load::Loaded;
use crate::model::bounds::Wrong;
use crate::model::parts::Precision;
use crate::plan::memory::GIB;
use clap::{Args, ValueEnum};
use std::io::IsTerminal;

/// The model that is asked: where it lies, how far it hears, in what it computes and how much at once.
#[derive(Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    pub(super) checkpoint: CheckpointArgs,
    /// Most windows of 10 s that are heard of a sound; default: what the configuration says, 12 without one.
    #[arg(long, value_name = "N", value_parser = count(1, 10_000))]
    windows: Option<usize>,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    #[command(flatten)]
    dtype: DtypeArgs,
}

impl ModelArgs {
    /// Opens it, with the engine's settings that are said.
    pub(crate) fn open(&self) -> Result<(Loaded, Settings)> {
        let precision = self.dtype.precision()?;
        let model = self.checkpoint.open_to_ask(precision)?;
        Ok((model, self.engine.settings(precision)))
    }

    /// How many windows of a sound it hears.
    pub(crate) fn windows(&self, model: &Loaded) -> usize {
        self.windows.unwrap_or(model.max_windows).max(1)
    }
}

/// A whole number within bounds.
pub(crate) fn count(least: u64, most: u64) -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    clap::value_parser!(u64).range(least..=most).map(|n| n as usize)
}

/// How an answer is chosen, as in `transformers`.
#[derive(Args)]
pub(crate) struct DecodingArgs {
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// With a temperature: only the k likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 30)]
    top_k: usize,
    /// With a temperature: only the likeliest tokens that together reach this probability.
    #[arg(long, default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f64,
    /// With a temperature: only tokens that have at least this share of the likeliest one's probability.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f64,
    /// Seeds the sampling: each sample of each question has its own random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Beam search with so many beams.
    #[arg(long, default_value_t = 1)]
    num_beams: usize,
    /// A sequence's score is its sum of log-probabilities divided by (number of tokens)^this: above 0 favours long ones.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    length_penalty: f64,
    /// When a beam search is done, once enough sequences have ended: true at once, false when a better one is unlikely, never when
    /// none is possible. Default: false.
    #[arg(long, value_enum)]
    early_stopping: Option<EarlyStopping>,
    /// So many answers: the best beams, or samples.
    #[arg(long, default_value_t = 1)]
    num_return_sequences: usize,
    /// Above 1 makes tokens less likely that were there, in the question too.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f64,
    /// No n tokens in a row twice, the question's among them; 0 for no such rule.
    #[arg(long, default_value_t = 0)]
    no_repeat_ngram_size: usize,
    /// Before so many, no token ends the answer.
    #[arg(long, default_value_t = 0)]
    min_new_tokens: usize,
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// The answer ends before this text; special tokens are text here. May be repeated.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Tokens that end the answer, beside the end of text.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    stop_token_ids: Vec<i64>,
}

impl DecodingArgs {
    pub(crate) fn decoding(&self) -> Result<Decoding> {
        let do_sample = self.temperature != 0.0;
        if self.early_stopping.is_some() && self.num_beams == 1 {
            return Err(Error::usage(
                "--early-stopping: expected --num-beams above 1, found no beams",
            ));
        }
        let decoding = Decoding {
            do_sample,
            temperature: if do_sample { self.temperature } else { 1.0 },
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            num_beams: self.num_beams,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping.unwrap_or_default(),
            num_return_sequences: self.num_return_sequences,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            min_new_tokens: self.min_new_tokens,
            max_new_tokens: self.max_new_tokens,
            stop_strings: self.stop.clone(),
            stop_token_ids: self.stop_token_ids.clone(),
            seed: self.seed,
        };
        let wrong = decoding.check().into_iter().map(|w| usage(&w));
        crate::error::all(wrong.collect())?;
        Ok(decoding)
    }
}

/// A setting's error, under its option's name.
pub(crate) fn usage(wrong: &Wrong) -> Error {
    let option = match wrong.key.as_str() {
        "stop_strings" => "stop".to_owned(),
        key => key.replace('_', "-"),
    };
    let error = Error::usage(format!(
        "--{option}: expected {}, found {}",
        wrong.expected, wrong.found
    ));
    match option.as_str() {
        "temperature" => error.hint("0 is greedy"),
        _ => error,
    }
}

/// In what a model that is asked computes and is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Dtype {
    /// float32 throughout.
    #[default]
    Fp32,
    /// Matrix products in bf16, faster on a GPU and where the processor has bf16; an answer may be another.
    #[value(alias = "amp_bf16")]
    Bf16,
}

#[derive(Args)]
struct DtypeArgs {
    /// In what is computed; the weights are held in it from the beginning.
    #[arg(long, value_enum, default_value_t, alias = "precision")]
    dtype: Dtype,
    /// On CUDA: fp32 matrix products and convolutions with 10 bits of mantissa.
    #[arg(long)]
    tf32: bool,
}

impl DtypeArgs {
    /// What is said, and done so far as it is not the model's.
    fn precision(&self) -> Result<Precision> {
        kernels::allow_tf32(self.tf32)?;
        Ok(match self.dtype {
            Dtype::Fp32 => Precision::Fp32,
            Dtype::Bf16 => Precision::AmpBf16,
        })
    }
}

/// How many answers are written at once.
#[derive(Args)]
pub(crate) struct EngineArgs {
    /// Answers that are written at once; they stay the same.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: u16,
    /// Most memory for what is heard and written, the model apart, such as 4GiB; a number alone is GiB. Default: a share of what
    /// the device has.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
}

pub(super) fn bytes(text: &str) -> std::result::Result<u64, String> {
    gib(text).map(|n| (n * GIB) as u64)
}

impl EngineArgs {
    pub(crate) fn settings(&self, precision: Precision) -> Settings {
        Settings {
            slots: usize::from(self.slots),
            memory: self.memory,
            precision,
            ..Settings::default()
        }
    }
}

/// What is shown of an answer that thinks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Thinking {
    /// The conclusion, without the chain.
    Strip,
    /// All of it, as the model wrote it.
    Keep,
}

/// Ctrl-C ends the program at once, whatever it is at, with the code that a shell gives to one that SIGINT has ended, and on a line
/// of its own.
///
/// # Errors
/// A system that does not let signals be heard.
pub(crate) fn end_at_ctrl_c() -> Result<()> {
    if ffi::ignores(libc::SIGINT) {
        return Ok(());
    }
    let failed = |e| Error::io("SIGINT", e);
    let mut come = signal_hook::iterator::Signals::new([libc::SIGINT]).map_err(failed)?;
    let ends = move || {
        if come.forever().next().is_some() {
            // What is being answered must not come behind it.
            crate::screen::close();
            // Behind a part of a line, and `^C`.
            if std::io::stdout().is_terminal() {
                crate::say!("");
            }
            ffi::exit_at_once(INTERRUPTED);
        }
    };
    let thread = std::thread::Builder::new().name("ctrl-c".into()).spawn(ends);
    thread
        .map(|_| ())
        .map_err(|e| Error::io("a thread for SIGINT", e))
}
