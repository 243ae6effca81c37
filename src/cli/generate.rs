//! `af2 generate`

use super::asking::{end_at_ctrl_c, usage, DecodingArgs, DtypeArgs, EngineArgs, Thinking};
use super::parts::CheckpointArgs;
use super::sounds::{self, is_stdin, Piece};
use crate::audio::decode::Reader;
use crate::data::feed::{Clip, Ears};
use crate::error::{Error, Result};
use crate::generate::decoding::Decoding;
use crate::generate::engine::{Ask, Engine, Event, Found, Given, Sound, Ticket, Wanted};
use crate::generate::likelihood::{likeliest, likelihood_of, shares, Choice};
use crate::generate::streaming::Streamed;
use crate::generate::thinking::{split, to_conclude, Said, Thought};
use crate::generate::{answers_to, Answer};
use crate::load::Loaded;
use crate::model::flamingo::Audio;
use crate::model::mode::Mode;
use crate::model::parts::Precision;
use crate::shapes::Seconds;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tch::no_grad;

/// Questions among which those about one clip are asked one after another: more would let the first answers wait.
const GROUPED: usize = 1024;
/// Questions that the engine has at once, for each slot: so many that clips can be heard ahead.
const AHEAD: usize = 4;

#[derive(Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// A sound: a file (wav, flac, mp3, ogg, …), a folder, a pattern in quotes ("clips/*.wav"), or - for standard input. May be
    /// repeated.
    #[arg(long, value_name = "FILE", requires = "prompt", conflicts_with = "input")]
    audio: Vec<PathBuf>,
    /// The question.
    #[arg(long, value_name = "TEXT", requires = "audio")]
    prompt: Option<String>,
    #[command(flatten)]
    piece: Piece,
    /// Many questions: {"path", "prompt"} a line, as the released inference script takes, and "choices", "start", "seconds" where
    /// wanted.
    #[arg(long, value_name = "FILE.jsonl", required_unless_present = "audio")]
    input: Option<PathBuf>,
    /// Relative paths in --input are relative to this; default: the current folder.
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// One JSON object a line: path, prompt, text, tokens (ids), score, seconds; thinking where the answer thinks; with choices their
    /// log-probabilities.
    #[arg(long)]
    json: bool,
    /// How likely each of these answers is, instead of an answer in the model's own words. A line's own "choices" come first.
    #[arg(long, value_name = "A|B|…", value_delimiter = '|', conflicts_with_all = [
        "temperature", "top_k", "top_p", "min_p", "num_beams", "length_penalty", "early_stopping", "num_return_sequences",
        "repetition_penalty", "no_repeat_ngram_size", "min_new_tokens", "max_new_tokens", "stop", "stop_token_ids",
    ])]
    choices: Option<Vec<String>>,
    #[command(flatten)]
    decoding: DecodingArgs,
    /// With --json: the log-probability of each token, too.
    #[arg(long, requires = "json", conflicts_with = "choices")]
    logprobs: bool,
    /// Of an answer that thinks first (<CONCLUSION>, </think>): its conclusion alone, or all of it.
    #[arg(long, value_enum, default_value = "strip")]
    thinking: Thinking,
    /// Where an answer reasons (<REASONING>) and comes to no conclusion, ask once more for one, as the reference does.
    #[arg(long)]
    retry_conclusion: bool,
    /// The answer to a single question at its end, not as it comes.
    #[arg(long)]
    no_stream: bool,
    /// Recompute the whole text for every token, one question at a time: the same tokens, slower.
    #[arg(long, conflicts_with_all = ["slots", "memory"])]
    no_cache: bool,
    /// Most windows of 10 s that are heard; default: what the configuration says, 12 without one.
    #[arg(long)]
    windows: Option<usize>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    dtype: DtypeArgs,
}

/// A line of `--input`.
#[derive(Deserialize)]
struct Written {
    path: PathBuf,
    prompt: String,
    choices: Option<Vec<String>>,
    #[serde(flatten)]
    piece: Piece,
}

struct Question {
    path: PathBuf,
    prompt: String,
    choices: Option<Vec<String>>,
    piece: Piece,
    /// Of `--input`, from 1.
    line: Option<usize>,
    /// What it is among others, for the seed: its path as it was written, its prompt, and its piece where that is said.
    item: String,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line {
    path: String,
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Seconds>,
    /// Of the piece that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<Seconds>,
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
        #[serde(skip_serializing_if = "Option::is_none")]
        thinking: Option<String>,
        /// Of what was written last, as the score is.
        tokens: Vec<i64>,
        score: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<Vec<f32>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        retried: bool,
    },
    Chosen {
        choices: Vec<Choice>,
    },
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let decoding = args.decoding.decoding()?;
    // What is asked for is checked before the model is loaded, which may take minutes.
    let (questions, many) = questions(args)?;
    let alone = questions.len() == 1 && !many;
    let ears = Ears::new(0);
    let stdin = match questions.iter().find(|q| is_stdin(&q.path)) {
        Some(question) => {
            let bytes = sounds::of_stdin()?;
            let first = Clip::new(
                "standard input".into(),
                question.piece.start.unwrap_or_default(),
                1,
            );
            ears.mel_in_memory(&first, &bytes, false)?;
            Some(bytes)
        }
        None => None,
    };
    end_at_ctrl_c()?;
    let precision = args.dtype.precision()?;
    let model = args.checkpoint.open_to_ask(precision)?;
    if let Some(wrong) = decoding.check_vocabulary(model.tokenizer.len()) {
        return Err(usage(&wrong));
    }
    let windows = args.windows.unwrap_or(model.max_windows).max(1);
    let sounds = questions
        .iter()
        .map(|q| sound(q, windows, args, &ears, stdin.as_ref()));
    let sounds = sounds.collect::<Result<Vec<_>>>()?;
    let ears = Arc::new(ears);
    let settings = args.engine.settings(precision);
    let ahead = AHEAD * settings.slots;
    let asker = match args.no_cache {
        true => Asker::OneByOne(OneByOne {
            model: &model,
            ears,
            precision,
            waiting: VecDeque::new(),
            next: 0,
        }),
        false => Asker::Engine(Box::new(Engine::new(&model, ears, settings))),
    };
    let single = decoding.num_beams == 1 && decoding.num_return_sequences == 1;
    let whole = args.json || args.no_stream || args.retry_conclusion || args.no_cache;
    let stream = alone && single && !whole && questions[0].choices.is_none();
    let mut all = Asked {
        model: &model,
        args,
        decoding: &decoding,
        questions: &questions,
        alone,
        stream: stream.then(|| Stream {
            text: Some(Streamed::new(&model.tokenizer, &decoding.stop_strings)),
            said: (args.thinking == Thinking::Strip).then(Said::default),
            told: false,
        }),
        asker,
        tickets: HashMap::new(),
        open: HashMap::new(),
        done: questions.iter().map(|_| None).collect(),
        printed: 0,
        failed: Vec::new(),
    };
    all.run(&sounds, ahead)?;
    match all.failed.len() {
        0 => Ok(()),
        n => {
            crate::say!("{n} of {} questions could not be answered", questions.len());
            crate::error::all(all.failed.into_iter().take(1).collect())
        }
    }
}

/// What is asked, and whether more than one sound may be meant.
fn questions(args: &GenerateArgs) -> Result<(Vec<Question>, bool)> {
    let own = |all: &Vec<String>| all.iter().map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let choices = args.choices.as_ref().map(own);
    if choices.iter().flatten().any(String::is_empty) {
        return Err(Error::usage(
            "--choices: expected answers between the bars, found an empty one",
        ));
    }
    let (mut questions, many) = match (&args.prompt, &args.input) {
        (_, Some(file)) => (read_questions(file)?, false),
        (Some(prompt), None) => {
            let sounds = sounds::find(&args.audio)?;
            let of = |path: PathBuf| Question {
                path,
                prompt: prompt.clone(),
                choices: None,
                piece: Piece::default(),
                line: None,
                item: String::new(),
            };
            (sounds.paths.into_iter().map(of).collect(), sounds.many)
        }
        (None, None) => return Err(Error::usage("--audio with --prompt, or --input, is needed")),
    };
    if let ([only], None) = (&questions[..], &args.input) {
        if !is_stdin(&only.path) {
            Reader::open(&only.path)?;
        }
    }
    for q in &mut questions {
        q.piece = q.piece.or(args.piece);
        q.item = format!("{}\n{}{}", q.path.display(), q.prompt, q.piece.item());
        q.choices = q.choices.take().or_else(|| choices.clone());
        if let (Some(root), Some(_)) = (&args.data_root, &args.input) {
            q.path = root.join(&q.path);
        }
    }
    Ok((questions, many))
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
        let q: Written = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        if let Some(choices) = &q.choices {
            let empty = choices.iter().any(|c| c.trim().is_empty());
            if empty || choices.is_empty() {
                let found = if empty { "an empty choice" } else { "choices: []" };
                return Err(wrong(found.to_owned()));
            }
        }
        if is_stdin(&q.path) {
            return Err(wrong("standard input, which --audio - is".to_owned()));
        }
        all.push(Question {
            path: q.path,
            prompt: q.prompt,
            choices: q.choices,
            piece: q.piece,
            line: Some(i + 1),
            item: String::new(),
        });
    }
    Ok(all)
}

/// What a question is about.
fn sound(
    question: &Question,
    windows: usize,
    args: &GenerateArgs,
    ears: &Ears,
    stdin: Option<&Arc<[u8]>>,
) -> Result<Sound> {
    let path = match is_stdin(&question.path) {
        true => "standard input".into(),
        false => question.path.clone(),
    };
    let clip = question.piece.of(path, windows).map_err(|[expected, found]| {
        let error = match (&args.input, question.line) {
            (Some(file), Some(line)) => Error::data(file, format!("line {line}: seconds"), expected, found),
            _ => Error::usage(format!("--seconds: expected {expected}, found {found}")),
        };
        error.hint("--windows hears more")
    })?;
    Ok(match stdin.filter(|_| is_stdin(&question.path)) {
        Some(bytes) => Sound::Given(Given {
            key: "standard input".to_owned(),
            mel: Arc::new(ears.mel_in_memory(&clip, bytes, false)?),
        }),
        None => Sound::Clip(clip),
    })
}

/// Questions in the order in which they are asked: those about one clip in a row.
fn clip_major(sounds: &[Sound]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sounds.len()).collect();
    for group in order.chunks_mut(GROUPED) {
        let mut first = HashMap::new();
        for i in group.iter() {
            first.entry(&sounds[*i]).or_insert(*i);
        }
        group.sort_by_key(|i| (first[&sounds[*i]], *i));
    }
    order
}

/// Who answers: the engine, or for checking one question after another without caches.
enum Asker<'a> {
    Engine(Box<Engine<'a>>),
    OneByOne(OneByOne<'a>),
}

impl Asker<'_> {
    fn submit(&mut self, ask: Ask) -> Ticket {
        match self {
            Asker::Engine(engine) => engine.submit(ask),
            Asker::OneByOne(all) => {
                all.waiting.push_back((all.next, ask));
                all.next += 1;
                all.next - 1
            }
        }
    }

    fn step(&mut self) -> Result<Vec<Event>> {
        match self {
            Asker::Engine(engine) => engine.step(),
            Asker::OneByOne(all) => Ok(all.step().into_iter().collect()),
        }
    }
}

struct OneByOne<'a> {
    model: &'a Loaded,
    ears: Arc<Ears>,
    precision: Precision,
    waiting: VecDeque<(Ticket, Ask)>,
    next: Ticket,
}

impl OneByOne<'_> {
    fn step(&mut self) -> Option<Event> {
        let (ticket, ask) = self.waiting.pop_front()?;
        let since = Instant::now();
        let found = self.answer(&ask);
        Some(Event::Done {
            ticket,
            found,
            seconds: since.elapsed().as_secs_f64(),
        })
    }

    fn answer(&self, ask: &Ask) -> Result<Found> {
        let model = self.model;
        let mel = match &ask.sound {
            Sound::Clip(clip) => self.ears.mel(clip)?,
            Sound::Silence(clip) => Arc::new(self.ears.silence(self.ears.mel(clip)?.shape()[0])),
            Sound::Given(given) => given.mel.clone(),
        };
        model.compute(self.precision, || {
            let audio = Audio::from_mels([&*mel], model.device);
            let heard = no_grad(|| model.model.hear(&audio, Mode::EVAL));
            Ok(match &ask.wanted {
                Wanted::Answers(decoding) => Found::Said(answers_to(
                    model,
                    &heard,
                    &ask.prompt,
                    decoding,
                    &ask.item,
                    false,
                )?),
                Wanted::Choices(choices) => {
                    Found::Chosen(likelihood_of(model, &heard, &ask.prompt, choices)?)
                }
            })
        })?
    }
}

/// An answer that is shown as it comes.
struct Stream<'a> {
    text: Option<Streamed<'a>>,
    /// Without thoughts.
    said: Option<Said>,
    told: bool,
}

impl Stream<'_> {
    fn push(&mut self, token: i64) -> Result<()> {
        if let Some(text) = &mut self.text {
            let piece = text.push(token)?;
            self.show(&piece);
        }
        Ok(())
    }

    fn show(&mut self, piece: &str) {
        let shown = match &mut self.said {
            Some(said) => said.push(piece),
            None => piece.to_owned(),
        };
        if !shown.is_empty() {
            crate::screen::piece(&shown);
            self.told = true;
        }
    }

    /// The rest, and the end of the line.
    fn finish(&mut self) -> Result<()> {
        if let Some(text) = self.text.take() {
            let rest = text.finish()?;
            self.show(&rest);
        }
        let rest = self.said.take().map(Said::finish).unwrap_or_default();
        crate::screen::piece(&format!("{rest}\n"));
        Ok(())
    }
}

/// A question that is being answered.
struct Open {
    sound: Sound,
    prompt: Vec<i64>,
    said: Vec<(Answer, bool)>,
    /// Askings that are not done.
    left: usize,
    seconds: f64,
}

/// What a ticket stands for: a question, or one of its answers that is asked for a conclusion, behind this text.
struct Meant {
    question: usize,
    concludes: Option<(usize, String)>,
}

/// Questions on their way to answers, which are printed in the questions' order.
struct Asked<'a> {
    model: &'a Loaded,
    args: &'a GenerateArgs,
    decoding: &'a Decoding,
    questions: &'a [Question],
    /// One question was asked, and nobody needs to be told which.
    alone: bool,
    stream: Option<Stream<'a>>,
    asker: Asker<'a>,
    tickets: HashMap<Ticket, Meant>,
    open: HashMap<usize, Open>,
    done: Vec<Option<Result<Vec<Line>>>>,
    printed: usize,
    failed: Vec<Error>,
}

impl Asked<'_> {
    fn run(&mut self, sounds: &[Sound], ahead: usize) -> Result<()> {
        let mut order = clip_major(sounds).into_iter();
        // The answers are all there is: without a reader there is nothing left to do.
        while self.printed < self.questions.len() && !crate::screen::lost() {
            while self.open.len() < ahead {
                match order.next() {
                    Some(i) => self.submit(i, &sounds[i]),
                    None => break,
                }
            }
            for event in self.asker.step()? {
                self.take(event)?;
            }
            self.print()?;
        }
        Ok(())
    }

    fn submit(&mut self, i: usize, sound: &Sound) {
        let question = &self.questions[i];
        let prompt = match self.model.tokenizer.question(&question.prompt) {
            Ok(prompt) => prompt,
            Err(e) => {
                self.done[i] = Some(Err(e));
                return;
            }
        };
        let ticket = self.asker.submit(Ask {
            sound: sound.clone(),
            prompt: prompt.clone(),
            wanted: match &question.choices {
                Some(choices) => Wanted::Choices(choices.clone()),
                None => Wanted::Answers(self.decoding.clone()),
            },
            item: question.item.clone(),
            stream: self.stream.is_some(),
        });
        let meant = Meant {
            question: i,
            concludes: None,
        };
        self.tickets.insert(ticket, meant);
        let open = Open {
            sound: sound.clone(),
            prompt,
            said: Vec::new(),
            left: 1,
            seconds: 0.0,
        };
        self.open.insert(i, open);
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Token { token, .. } => match &mut self.stream {
                Some(stream) => stream.push(token),
                None => Ok(()),
            },
            Event::Done {
                ticket,
                found,
                seconds,
            } => {
                let Some(meant) = self.tickets.remove(&ticket) else {
                    return Ok(());
                };
                let i = meant.question;
                // Another of its askings has failed.
                let Some(mut open) = self.open.remove(&i) else {
                    return Ok(());
                };
                open.left -= 1;
                open.seconds += seconds;
                match self.found(&meant, &mut open, found) {
                    Err(e) => self.done[i] = Some(Err(e)),
                    Ok(Some(choices)) => self.done[i] = Some(Ok(vec![self.chosen(i, choices, open.seconds)])),
                    Ok(None) if open.left > 0 => {
                        self.open.insert(i, open);
                    }
                    Ok(None) => self.done[i] = Some(Ok(self.said(i, open))),
                }
                Ok(())
            }
        }
    }

    /// Takes over what was found, and asks on where an answer lacks its conclusion. Choices are handed back.
    fn found(&mut self, meant: &Meant, open: &mut Open, found: Result<Found>) -> Result<Option<Vec<Choice>>> {
        match (found?, &meant.concludes) {
            (Found::Chosen(choices), _) => return Ok(Some(choices)),
            (Found::Said(said), None) => {
                for (n, answer) in said.into_iter().enumerate() {
                    let fed = to_conclude(&answer.text).filter(|_| self.args.retry_conclusion);
                    open.said.push((answer, fed.is_some()));
                    if let Some(fed) = fed {
                        self.conclude(meant.question, open, n, fed)?;
                    }
                }
            }
            (Found::Said(said), Some((n, fed))) => {
                if let Some(mut answer) = said.into_iter().next() {
                    answer.text = format!("{fed}{}", answer.text);
                    open.said[*n].0 = answer;
                }
            }
        }
        Ok(None)
    }

    fn conclude(&mut self, question: usize, open: &mut Open, n: usize, fed: String) -> Result<()> {
        let ticket = self.asker.submit(Ask {
            sound: open.sound.clone(),
            prompt: [&open.prompt[..], &self.model.tokenizer.text(&fed)?].concat(),
            wanted: Wanted::Answers(Decoding {
                num_return_sequences: 1,
                ..self.decoding.clone()
            }),
            // Random numbers of its own.
            item: format!("{}\nconclusion {n}", self.questions[question].item),
            stream: false,
        });
        open.left += 1;
        let meant = Meant {
            question,
            concludes: Some((n, fed)),
        };
        self.tickets.insert(ticket, meant);
        Ok(())
    }

    fn line(&self, i: usize, text: String, what: What, seconds: f64) -> Line {
        let question = &self.questions[i];
        Line {
            path: question.path.display().to_string(),
            prompt: question.prompt.clone(),
            start: question.piece.start,
            duration: question.piece.seconds,
            text,
            what,
            seconds,
        }
    }

    fn chosen(&self, i: usize, choices: Vec<Choice>, seconds: f64) -> Line {
        let text = likeliest(&choices).map(|c| c.choice.clone());
        self.line(i, text.unwrap_or_default(), What::Chosen { choices }, seconds)
    }

    fn said(&self, i: usize, open: Open) -> Vec<Line> {
        let line = |(answer, retried): (Answer, bool)| {
            let Thought { thinking, text } = match self.args.thinking {
                Thinking::Strip => split(&answer.text),
                Thinking::Keep => Thought {
                    thinking: None,
                    text: answer.text,
                },
            };
            let what = What::Said {
                thinking,
                tokens: answer.tokens,
                score: answer.score,
                logprobs: self.args.logprobs.then_some(answer.logprobs),
                retried,
            };
            self.line(i, text, what, open.seconds)
        };
        open.said.into_iter().map(line).collect()
    }

    /// Prints what is next in the order of the questions, as far as it is there.
    fn print(&mut self) -> Result<()> {
        while let Some(done) = self.done.get_mut(self.printed).and_then(Option::take) {
            self.printed += 1;
            match done {
                Ok(lines) => {
                    for line in &lines {
                        self.show(line)?;
                    }
                }
                // One bad file does not take the answers about the others with it.
                Err(e) if self.questions.len() > 1 => {
                    crate::say!("error: {e}");
                    self.failed.push(e);
                }
                Err(e) => {
                    if self.stream.as_ref().is_some_and(|s| s.told) {
                        crate::screen::piece("\n");
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn show(&mut self, line: &Line) -> Result<()> {
        match &line.what {
            _ if self.args.json => {
                let line = serde_json::to_string(line).map_err(|e| Error::recipe("answer", e.to_string()))?;
                crate::out!("{line}");
                return Ok(());
            }
            What::Chosen { choices } if self.alone => {
                let bars = std::io::stdout().is_terminal();
                for (choice, share) in choices.iter().zip(shares(choices)) {
                    crate::out!("{}", choice_line(choice, share, bars));
                }
                return Ok(());
            }
            _ => {}
        }
        match &mut self.stream {
            Some(stream) => stream.finish()?,
            None if self.alone => crate::out!("{}", line.text),
            None => crate::out!("{}\t{}\t{}", line.path, line.prompt, line.text),
        }
        if let What::Said {
            thinking: Some(_), ..
        } = &line.what
        {
            if line.text.is_empty() {
                crate::say!(
                    "note: {}: thoughts without a conclusion; --thinking keep shows them, --retry-conclusion asks for one",
                    line.path
                );
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_about_one_clip_are_asked_in_a_row_and_not_too_late() {
        let sound = |name: &str| Sound::Clip(Clip::new(name.into(), Seconds(0.0), 3));
        let of = |names: &str| clip_major(&names.chars().map(|c| sound(&c.to_string())).collect::<Vec<_>>());
        assert_eq!(of("abacba"), [0, 2, 5, 1, 4, 3]);
        // The first is asked before all of the next thousand.
        let far = of(&format!("a{}a", "b".repeat(GROUPED)));
        assert_eq!(
            (far[0], far[1], far[GROUPED], far[GROUPED + 1]),
            (0, 1, GROUPED, GROUPED + 1)
        );
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: GenerateArgs,
    }

    /// No model of the tests reasons: its answer is put in the place of one that breaks off.
    #[test]
    fn a_chain_that_breaks_off_is_asked_for_its_conclusion_once() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let options = crate::load::Options::new(tch::Device::Cpu);
        let model = crate::load::open(&golden.join("F_tiny"), &options).unwrap();
        let wav = golden.join("wavs/speech_16k_mono_3p7s.wav").display().to_string();
        let line = [
            "af2",
            "--checkpoint",
            "x",
            "--audio",
            &wav,
            "--prompt",
            "what?",
            "--retry-conclusion",
        ];
        let Line { args } =
            clap::Parser::try_parse_from(line.iter().chain(&["--max-new-tokens", "6"])).unwrap();
        let (decoding, (questions, _)) = (args.decoding.decoding().unwrap(), questions(&args).unwrap());
        let ears = Arc::new(Ears::new(0));
        let sound = sound(&questions[0], 1, &args, &ears, None).unwrap();
        let mut all = Asked {
            model: &model,
            args: &args,
            decoding: &decoding,
            questions: &questions,
            alone: true,
            stream: None,
            asker: Asker::Engine(Box::new(Engine::new(
                &model,
                ears.clone(),
                args.engine.settings(Precision::Fp32),
            ))),
            tickets: HashMap::new(),
            open: HashMap::new(),
            done: vec![None],
            printed: 0,
            failed: Vec::new(),
        };
        all.submit(0, &sound);
        let broken = Answer {
            text: "<SUMMARY>S</SUMMARY>\n<REASONING>It rings. It is".to_owned(),
            tokens: vec![1],
            logprobs: vec![0.0],
            score: 0.0,
            least_lead: None,
        };
        let found = Ok(Found::Said(vec![broken]));
        let (ticket, seconds) = (0, 1.0);
        all.take(Event::Done {
            ticket,
            found,
            seconds,
        })
        .unwrap();
        while all.done[0].is_none() {
            for event in all.asker.step().unwrap() {
                all.take(event).unwrap();
            }
        }
        let lines = all.done[0].take().unwrap().unwrap();
        let What::Said {
            thinking,
            tokens,
            retried,
            ..
        } = &lines[0].what
        else {
            unreachable!()
        };
        assert_eq!(
            thinking.as_deref(),
            Some("<summary>s</summary>\n<reasoning>it rings</REASONING>")
        );
        assert!(*retried && lines.len() == 1 && lines[0].seconds > 1.0);
        // As if it had been asked so.
        let Sound::Clip(clip) = &sound else { unreachable!() };
        let heard = crate::generate::hear(&model, &ears, clip).unwrap();
        let fed = "<summary>s</summary>\n<reasoning>it rings</REASONING>\n<CONCLUSION>";
        let prompt = [
            model.tokenizer.question("what?").unwrap(),
            model.tokenizer.text(fed).unwrap(),
        ]
        .concat();
        let said = answers_to(&model, &heard, &prompt, &decoding, "", true).unwrap();
        assert_eq!(
            (tokens, lines[0].text.as_str()),
            (&said[0].tokens, said[0].text.trim())
        );
    }
}
