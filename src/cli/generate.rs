//! `af2 generate`

use super::parts::{ArithmeticArgs, CheckpointArgs};
use crate::audio::decode::Reader;
use crate::data::feed::{Clip, Ears};
use crate::error::{Error, Result};
use crate::ffi::kernels;
use crate::generate::decoding::{Decoding, EarlyStopping};
use crate::generate::likelihood::{likeliest, likelihood, shares, Choice};
use crate::generate::{answers, hear};
use crate::load::Loaded;
use crate::model::bounds::Wrong;
use crate::shapes::Seconds;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
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
    /// Many questions: {"path", "prompt"} a line, as the released inference script takes, and "choices" where wanted.
    #[arg(long, value_name = "FILE.jsonl", required_unless_present = "audio")]
    input: Option<PathBuf>,
    /// Relative paths in --input are relative to this; default: the current folder.
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// One JSON object a line: path, prompt, text, tokens (ids), score, seconds; with choices their log-probabilities.
    #[arg(long)]
    json: bool,
    /// How likely each of these answers is, instead of an answer in the model's own words. A line's own "choices" come first.
    #[arg(long, value_name = "A|B|…", value_delimiter = '|')]
    choices: Option<Vec<String>>,
    #[command(flatten)]
    decoding: DecodingArgs,
    /// Recompute the whole text for every token: the same tokens, slower.
    #[arg(long)]
    no_cache: bool,
    /// Most windows of 10 s that are heard; default: what the configuration says, 12 without one.
    #[arg(long)]
    windows: Option<usize>,
    #[command(flatten)]
    arithmetic: ArithmeticArgs,
}

/// How an answer is chosen, as in `transformers`.
#[derive(Args)]
struct DecodingArgs {
    /// 0 is greedy.
    #[arg(
        long,
        default_value_t = 0.0,
        conflicts_with = "choices",
        allow_negative_numbers = true
    )]
    temperature: f64,
    /// With a temperature: only the k likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 30, conflicts_with = "choices")]
    top_k: usize,
    /// With a temperature: only the likeliest tokens that together reach this probability.
    #[arg(
        long,
        default_value_t = 0.95,
        conflicts_with = "choices",
        allow_negative_numbers = true
    )]
    top_p: f64,
    /// With a temperature: only tokens that have at least this share of the likeliest one's probability.
    #[arg(
        long,
        default_value_t = 0.0,
        conflicts_with = "choices",
        allow_negative_numbers = true
    )]
    min_p: f64,
    /// Seeds the sampling: each sample of each question has its own random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Beam search with so many beams.
    #[arg(long, default_value_t = 1, conflicts_with = "choices")]
    num_beams: usize,
    /// A sequence's score is its sum of log-probabilities divided by (number of tokens)^this: above 0 favours long ones.
    #[arg(
        long,
        default_value_t = 1.0,
        conflicts_with = "choices",
        allow_negative_numbers = true
    )]
    length_penalty: f64,
    /// When a beam search is done, once enough sequences have ended: true at once, false when a better one is unlikely, never when
    /// none is possible. Default: false.
    #[arg(long, value_enum, conflicts_with = "choices")]
    early_stopping: Option<EarlyStopping>,
    /// So many answers: the best beams, or samples.
    #[arg(long, default_value_t = 1, conflicts_with = "choices")]
    num_return_sequences: usize,
    /// Above 1 makes tokens less likely that were there, in the question too.
    #[arg(
        long,
        default_value_t = 1.0,
        conflicts_with = "choices",
        allow_negative_numbers = true
    )]
    repetition_penalty: f64,
    /// No n tokens in a row twice, the question's among them; 0 for no such rule.
    #[arg(long, default_value_t = 0, conflicts_with = "choices")]
    no_repeat_ngram_size: usize,
    /// Before so many, no token ends the answer.
    #[arg(long, default_value_t = 0, conflicts_with = "choices")]
    min_new_tokens: usize,
    #[arg(long, default_value_t = 256, conflicts_with = "choices")]
    max_new_tokens: usize,
    /// The answer ends before this text; special tokens are text here. May be repeated.
    #[arg(long, value_name = "TEXT", conflicts_with = "choices")]
    stop: Vec<String>,
    /// Tokens that end the answer, beside the end of text.
    #[arg(long, value_name = "ID", value_delimiter = ',', conflicts_with = "choices")]
    stop_token_ids: Vec<i64>,
    /// With --json: the log-probability of each token, too.
    #[arg(long, requires = "json", conflicts_with = "choices")]
    logprobs: bool,
}

impl DecodingArgs {
    fn decoding(&self) -> Result<Decoding> {
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
fn usage(wrong: &Wrong) -> Error {
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

#[derive(Deserialize)]
struct Question {
    path: PathBuf,
    prompt: String,
    choices: Option<Vec<String>>,
    /// What it is among others, for the seed: its path as it was written, and its prompt.
    #[serde(skip)]
    item: String,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    path: String,
    prompt: &'a str,
    /// Of choices the likeliest.
    text: String,
    #[serde(flatten)]
    what: What,
    seconds: f64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Said {
        tokens: Vec<i64>,
        score: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<Vec<f32>>,
    },
    Chosen {
        choices: Vec<Choice>,
    },
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let decoding = args.decoding.decoding()?;
    // What is asked for is checked before the model is loaded, which may take minutes.
    let mut questions = match (&args.audio, &args.prompt, &args.input) {
        (Some(path), Some(prompt), _) => {
            Reader::open(path)?;
            vec![Question {
                path: path.clone(),
                prompt: prompt.clone(),
                choices: None,
                item: String::new(),
            }]
        }
        (_, _, Some(file)) => read_questions(file)?,
        _ => return Err(Error::usage("--audio with --prompt, or --input, is needed")),
    };
    let own = |all: &Vec<String>| all.iter().map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let choices = args.choices.as_ref().map(own);
    if choices.iter().flatten().any(String::is_empty) {
        return Err(Error::usage(
            "--choices: expected answers between the bars, found an empty one",
        ));
    }
    for q in &mut questions {
        q.item = format!("{}\n{}", q.path.display(), q.prompt);
        q.choices = q.choices.take().or_else(|| choices.clone());
        if let (Some(root), Some(_)) = (&args.data_root, &args.input) {
            q.path = root.join(&q.path);
        }
    }
    let model = args.checkpoint.open()?;
    let precision = args.arithmetic.precision.unwrap_or_default();
    kernels::allow_tf32(args.arithmetic.tf32)?;
    model.ask_in(precision)?;
    if let Some(wrong) = decoding.check_vocabulary(model.tokenizer.len()) {
        return Err(usage(&wrong));
    }
    let windows = args.windows.unwrap_or(model.max_windows).max(1);
    let ears = Ears::new(0);
    let mut failed = Vec::new();
    for question in &questions {
        // The answers are all there is: without a reader there is nothing left to do.
        if crate::screen::lost() {
            break;
        }
        let answer = || answer(&model, &ears, question, windows, &decoding, args);
        match model.compute(precision, answer)? {
            Ok(lines) => {
                for line in lines {
                    print(&line, args.json, questions.len() == 1)?;
                }
            }
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

/// A line for each sequence, or one for all choices.
fn answer<'a>(
    model: &Loaded,
    ears: &Ears,
    question: &'a Question,
    windows: usize,
    decoding: &Decoding,
    args: &GenerateArgs,
) -> Result<Vec<Line<'a>>> {
    let started = Instant::now();
    let clip = Clip::new(question.path.clone(), Seconds(0.0), windows);
    let heard = hear(model, ears, &clip)?;
    let prompt = &question.prompt;
    let found: Vec<(String, What)> = match &question.choices {
        Some(choices) => {
            let choices = likelihood(model, &heard, prompt, choices)?;
            let text = likeliest(&choices).map(|c| c.choice.clone());
            vec![(text.unwrap_or_default(), What::Chosen { choices })]
        }
        None => answers(model, &heard, prompt, decoding, &question.item, !args.no_cache)?
            .into_iter()
            .map(|a| {
                let said = What::Said {
                    tokens: a.tokens,
                    score: a.score,
                    logprobs: args.decoding.logprobs.then_some(a.logprobs),
                };
                (a.text, said)
            })
            .collect(),
    };
    let seconds = started.elapsed().as_secs_f64();
    let line = |(text, what)| Line {
        path: question.path.display().to_string(),
        prompt,
        text,
        what,
        seconds,
    };
    Ok(found.into_iter().map(line).collect())
}

/// `alone`: one question was asked, and nobody needs to be told which.
fn print(line: &Line, json: bool, alone: bool) -> Result<()> {
    match &line.what {
        _ if json => {
            let line = serde_json::to_string(line).map_err(|e| Error::recipe("answer", e.to_string()))?;
            crate::out!("{line}");
        }
        What::Chosen { choices } if alone => {
            let bars = std::io::stdout().is_terminal();
            for (choice, share) in choices.iter().zip(shares(choices)) {
                crate::out!("{}", choice_line(choice, share, bars));
            }
        }
        _ if alone => crate::out!("{}", line.text),
        _ => crate::out!("{}\t{}\t{}", line.path, line.prompt, line.text),
    }
    Ok(())
}

/// A choice and its share of the probability of all: with a bar where a person reads.
fn choice_line(choice: &Choice, share: f64, bar: bool) -> String {
    const WIDTH: usize = 24;
    if !bar {
        return format!("{}\t{:.4}\t{:.4}", choice.choice, share, choice.logprob);
    }
    let filled = "█".repeat((share * WIDTH as f64).round() as usize);
    format!("{:>5.1}% {filled:<WIDTH$} {}", 100.0 * share, choice.choice)
}

fn read_questions(file: &Path) -> Result<Vec<Question>> {
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
        let q: Question = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        if let Some(choices) = &q.choices {
            let empty = choices.iter().any(|c| c.trim().is_empty());
            if empty || choices.is_empty() {
                let found = if empty { "an empty choice" } else { "choices: []" };
                return Err(wrong(found.to_owned()));
            }
        }
        all.push(q);
    }
    Ok(all)
}
