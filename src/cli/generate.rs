//! `af2 generate`

use super::parts::{ArithmeticArgs, CheckpointArgs};
use crate::audio::decode::Reader;
use crate::data::feed::{Clip, Ears};
use crate::error::{Error, Result};
use crate::ffi::kernels;
use crate::generate::{
    ask, hear,
    sampling::{Sampler, Sampling},
    Options,
};
use crate::load::Loaded;
use crate::shapes::Seconds;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// A sound file: wav, flac, mp3, ogg, …
    #[arg(long, value_name = "FILE", requires = "prompt", conflicts_with = "input")]
    audio: Option<PathBuf>,
    /// The question.
    #[arg(long, value_name = "TEXT", requires = "audio")]
    prompt: Option<String>,
    /// Many questions: {"path", "prompt"} a line, as the released inference script takes.
    #[arg(long, value_name = "FILE.jsonl", required_unless_present = "audio")]
    input: Option<PathBuf>,
    /// Relative paths in --input are relative to this; default: the current folder.
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// One JSON object a line: path, prompt, text, tokens (ids), seconds.
    #[arg(long)]
    json: bool,
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// With a temperature: only the k likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 30)]
    top_k: usize,
    /// With a temperature: only the likeliest tokens that together reach this probability.
    #[arg(long, default_value_t = 0.95)]
    top_p: f64,
    /// Seeds the sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// Recompute the whole text for every token: the same tokens, slower.
    #[arg(long)]
    no_cache: bool,
    /// Most windows of 10 s that are heard; default: what the configuration says, 12 without one.
    #[arg(long)]
    windows: Option<usize>,
    #[command(flatten)]
    arithmetic: ArithmeticArgs,
}

#[derive(Deserialize)]
struct Question {
    path: PathBuf,
    prompt: String,
}

#[derive(Serialize)]
struct Answer {
    path: String,
    prompt: String,
    text: String,
    tokens: Vec<i64>,
    seconds: f64,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let rule = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
    };
    let temperature = args.temperature >= 0.0 && args.temperature.is_finite();
    if !(temperature && args.top_p > 0.0 && args.top_p <= 1.0) {
        return Err(Error::usage(
            "--temperature must be at least 0, --top-p above 0 and at most 1",
        ));
    }
    // What is asked for is checked before the model is loaded, which may take minutes.
    let questions = match (&args.audio, &args.prompt, &args.input) {
        (Some(path), Some(prompt), _) => {
            Reader::open(path)?;
            vec![Question {
                path: path.clone(),
                prompt: prompt.clone(),
            }]
        }
        (_, _, Some(file)) => read_questions(file, args.data_root.as_deref())?,
        _ => return Err(Error::usage("--audio with --prompt, or --input, is needed")),
    };
    let model = args.checkpoint.open()?;
    let precision = args.arithmetic.precision.unwrap_or_default();
    kernels::allow_tf32(args.arithmetic.tf32)?;
    model.ask_in(precision)?;
    let options = Options {
        max_new_tokens: args.max_new_tokens,
        cache: !args.no_cache,
        ..Options::new(&model)
    };
    let windows = args.windows.unwrap_or(model.max_windows).max(1);
    let ears = Ears::new(0);
    let mut sampler = Sampler::new(rule, args.seed);
    let mut failed = Vec::new();
    for question in &questions {
        // The answers are all there is: without a reader there is nothing left to do.
        if crate::screen::lost() {
            break;
        }
        let answer = || answer(&model, &ears, question, windows, &options, &mut sampler);
        match model.compute(precision, answer)? {
            Ok(a) if args.json => {
                let line = serde_json::to_string(&a).map_err(|e| Error::recipe("answer", e.to_string()))?;
                crate::out!("{line}");
            }
            Ok(a) if questions.len() == 1 => crate::out!("{}", a.text),
            Ok(a) => crate::out!("{}\t{}\t{}", a.path, a.prompt, a.text),
            // One bad file does not take the answers about the others with it.
            Err(e) if questions.len() > 1 => {
                crate::say!("error: {e}");
                failed.push(e);
            }
            Err(e) => return Err(e),
        }
    }
    match failed.len() {
        0 => Ok(()),
        n => {
            crate::say!("{n} of {} questions could not be answered", questions.len());
            crate::error::all(failed.into_iter().take(1).collect())
        }
    }
}

fn answer(
    model: &Loaded,
    ears: &Ears,
    question: &Question,
    windows: usize,
    options: &Options,
    sampler: &mut Sampler,
) -> Result<Answer> {
    let started = Instant::now();
    let clip = Clip::new(question.path.clone(), Seconds(0.0), windows);
    let heard = hear(model, ears, &clip)?;
    let answer = ask(model, &heard, &question.prompt, options, sampler)?;
    Ok(Answer {
        path: question.path.display().to_string(),
        prompt: question.prompt.clone(),
        text: answer.text,
        tokens: answer.tokens,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn read_questions(file: &Path, root: Option<&Path>) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    for (i, line) in crate::fsutil::read_text(file)?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |found: String| {
            let expected = r#"{"path": "…", "prompt": "…"}"#;
            Error::data(file, format!("line {}", i + 1), expected, found)
        };
        if line.trim_start().starts_with('[') {
            return Err(wrong("a list".into()));
        }
        let mut q: Question = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        if let Some(root) = root {
            q.path = root.join(&q.path);
        }
        all.push(q);
    }
    Ok(all)
}
