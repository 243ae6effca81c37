//! What the command line of `af2 generate` says.

use crate::cli::asking::{DecodingArgs, ModelArgs, Thinking};
use crate::cli::sounds::Piece;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// A sound: a file (wav, flac, mp3, ogg, …), a folder, a pattern in quotes ("clips/*.wav"), or - for standard input. May be
    /// repeated.
    #[arg(long, value_name = "FILE", requires = "prompt", conflicts_with = "input")]
    pub(super) audio: Vec<PathBuf>,
    /// The question.
    #[arg(long, value_name = "TEXT", requires = "audio")]
    pub(super) prompt: Option<String>,
    #[command(flatten)]
    pub(super) piece: Piece,
    /// Many questions: {"path", "prompt"} a line, as the released inference script takes, and "choices", "start", "seconds" where
    /// wanted.
    #[arg(long, value_name = "FILE.jsonl", required_unless_present = "audio")]
    pub(super) input: Option<PathBuf>,
    /// Relative paths in --input are relative to this; default: the current folder.
    #[arg(long, value_name = "DIR")]
    pub(super) data_root: Option<PathBuf>,
    /// One JSON object a line: path, prompt, text, tokens (ids), score, seconds; thinking where the answer thinks; with choices their
    /// log-probabilities.
    #[arg(long)]
    pub(super) json: bool,
    /// How likely each of these answers is, instead of an answer in the model's own words. A line's own "choices" come first.
    #[arg(long, value_name = "A|B|…", value_delimiter = '|', conflicts_with_all = [
        "temperature", "top_k", "top_p", "min_p", "num_beams", "length_penalty", "early_stopping", "num_return_sequences",
        "repetition_penalty", "no_repeat_ngram_size", "min_new_tokens", "max_new_tokens", "stop", "stop_token_ids",
    ])]
    pub(super) choices: Option<Vec<String>>,
    #[command(flatten)]
    pub(super) decoding: DecodingArgs,
    /// With --json: the log-probability of each token, too.
    #[arg(long, requires = "json", conflicts_with = "choices")]
    pub(super) logprobs: bool,
    /// Of an answer that thinks first (<CONCLUSION>, </think>): its conclusion alone, or all of it.
    #[arg(long, value_enum, default_value = "strip")]
    pub(super) thinking: Thinking,
    /// Where an answer reasons (<REASONING>) and comes to no conclusion, ask once more for one, as the reference does.
    #[arg(long)]
    pub(super) retry_conclusion: bool,
    /// The answer to a single question at its end, not as it comes.
    #[arg(long)]
    pub(super) no_stream: bool,
    /// Recompute the whole text for every token, one question at a time: the same tokens, slower.
    #[arg(long, conflicts_with_all = ["slots", "memory"])]
    pub(super) no_cache: bool,
}
