//! `af2 chat`

use super::asking::{end_at_ctrl_c, usage, DecodingArgs, ModelArgs, Thinking};
use super::sounds::{self, Piece};
use crate::data::feed::Ears;
use crate::error::{nearest, Error, Result};
use crate::generate::decoding::Decoding;
use crate::generate::engine::{Ask, Engine, Event, Found, Given, Settings, Sound, Ticket, Wanted};
use crate::generate::streaming::Streamed;
use crate::generate::thinking::{split, Said};
use crate::load::Loaded;
use crate::shapes::Seconds;
use clap::Args;
use rustyline::error::ReadlineError;
use rustyline::DefaultEditor;
use serde_json::Value;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

const HELP: &str = "\
A line is a question about the sound. Each stands alone: Audio Flamingo 2 was trained on single questions, and what was said
before is not told to the model.
  /audio FILE        hear another sound, whole
  /start TIME        hear it from here on: 80, 1:20 or 1:02:03.5; without a time from its beginning
  /seconds N         hear so much of it; without a number as much as the model takes
  /set NAME VALUE    how answers are chosen, such as temperature 0.7; without a value what is set
  /thinking MODE     keep or strip what the model thinks before it answers
  /help, /quit       or Ctrl-D to end; Ctrl-C stops an answer";
/// Longest line of a question, in bytes.
const LONGEST: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A sound file; /audio at the prompt hears another.
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
    #[command(flatten)]
    piece: Piece,
    #[command(flatten)]
    decoding: DecodingArgs,
    /// Of an answer that thinks first (<CONCLUSION>, </think>): all of it, or its conclusion alone.
    #[arg(long, value_enum, default_value = "keep")]
    thinking: Thinking,
    /// Answers at their end, not as they come.
    #[arg(long)]
    no_stream: bool,
    /// Neither read nor keep what was asked before (af2/chat-history in $XDG_STATE_HOME).
    #[arg(long)]
    no_history: bool,
}

pub(crate) fn run(args: &ChatArgs) -> Result<()> {
    let decoding = args.decoding.decoding()?;
    let person = io::stdin().is_terminal() && io::stdout().is_terminal();
    let stopped = Arc::new(AtomicBool::new(false));
    // A script's lines end with the script.
    if !person {
        end_at_ctrl_c()?;
    }
    let (model, settings) = args.model.open()?;
    // One answer at a time.
    model.lay_out_to_speak()?;
    if let Some(wrong) = decoding.check_vocabulary(model.tokenizer.len()) {
        return Err(usage(&wrong));
    }
    let ears = Arc::new(Ears::new(0));
    let settings = Settings {
        // The sound stays heard between questions.
        keep: 1,
        steady: true,
        ..settings
    };
    let mut chat = Chat {
        model: &model,
        engine: Engine::new(&model, ears.clone(), settings),
        ears,
        windows: args.model.windows(&model),
        decoding,
        thinking: args.thinking,
        streams: !args.no_stream,
        heard: None,
        asked: 0,
        stopped: stopped.clone(),
    };
    if let Some(path) = &args.audio {
        chat.hear(path.clone(), args.piece)?;
    }
    if !person {
        return chat.lines(&mut io::stdin().lock());
    }
    signal_hook::flag::register(libc::SIGINT, stopped).map_err(|e| Error::io("SIGINT", e))?;
    chat.prompt(&history(args))
}

/// Where questions are kept from one time to the next; none where there is no home.
fn history(args: &ChatArgs) -> Option<PathBuf> {
    if args.no_history {
        return None;
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("af2/chat-history"))
}

/// What is heard.
struct Heard {
    path: PathBuf,
    piece: Piece,
    sound: Sound,
}

struct Chat<'a> {
    model: &'a Loaded,
    engine: Engine<'a>,
    ears: Arc<Ears>,
    windows: usize,
    decoding: Decoding,
    thinking: Thinking,
    streams: bool,
    heard: Option<Heard>,
    /// Questions so far, for the seed: the same question again may be answered in another way.
    asked: u64,
    stopped: Arc<AtomicBool>,
}

impl Chat<'_> {
    /// A person's lines.
    fn prompt(&mut self, history: &Option<PathBuf>) -> Result<()> {
        let failed = |e: ReadlineError| Error::io("the terminal", io::Error::other(e.to_string()));
        let config = rustyline::Config::builder().auto_add_history(true).build();
        let mut editor = DefaultEditor::with_config(config).map_err(failed)?;
        if let Some(file) = history {
            let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
            // A history that is not there is none.
            let read = folder.map(|()| file.exists().then(|| editor.load_history(file)));
            match read {
                Err(e) => crate::say!("note: {}: {e}: questions are not kept", file.display()),
                Ok(Some(Err(e))) => crate::say!("note: {}: {e}", file.display()),
                Ok(_) => {}
            }
        }
        crate::say!("/help says what may be asked; Ctrl-D ends");
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    if let Some(file) = history {
                        keep(&mut editor, file);
                    }
                    self.stopped.store(false, Ordering::SeqCst);
                    if !self.take(&line) || crate::screen::lost() {
                        return Ok(());
                    }
                }
                // At the prompt Ctrl-C drops the line.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// A script's lines.
    fn lines(&mut self, from: &mut dyn BufRead) -> Result<()> {
        let io = |e| Error::io("standard input", e);
        loop {
            let mut line = Vec::new();
            let read = from.take(LONGEST).read_until(b'\n', &mut line).map_err(io)?;
            if read == 0 {
                return Ok(());
            }
            if read as u64 == LONGEST && !line.ends_with(b"\n") {
                return Err(Error::usage(format!("expected lines of at most {LONGEST} bytes")));
            }
            let go_on = match String::from_utf8(line) {
                Ok(line) => self.take(&line),
                Err(_) => {
                    crate::say!("error: expected a line in UTF-8, found other bytes");
                    true
                }
            };
            if !go_on || crate::screen::lost() {
                return Ok(());
            }
        }
    }

    /// A line, which is a question or a command; whether more may follow. What is wrong with one is no reason to end.
    fn take(&mut self, line: &str) -> bool {
        let line = line.trim();
        let done = match line.strip_prefix('/') {
            _ if line.is_empty() => Ok(true),
            Some(command) => self.command(command),
            None => self.ask(line).map(|()| true),
        };
        done.unwrap_or_else(|e| {
            match e {
                // There is no command line here.
                Error::Usage { message, hint } => {
                    let hint = hint.map_or(String::new(), |h| format!("\n  hint: {h}"));
                    crate::say!("error: {message}{hint}");
                }
                e => crate::say!("error: {e}"),
            }
            true
        })
    }

    fn command(&mut self, command: &str) -> Result<bool> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "quit" | "exit" => return Ok(false),
            "help" => crate::say!("{HELP}"),
            "audio" if rest.is_empty() => self.say_what_is_heard(),
            "audio" => self.hear(PathBuf::from(rest), Piece::default())?,
            "start" => self.piece(|piece| {
                piece.start = optional(rest, sounds::time)?;
                Ok(())
            })?,
            "seconds" => self.piece(|piece| {
                piece.seconds = optional(rest, sounds::length)?;
                Ok(())
            })?,
            "set" => self.set(rest)?,
            "thinking" => {
                self.thinking = clap::ValueEnum::from_str(rest, false)
                    .map_err(|_| wrong("thinking", "keep or strip", rest))?;
            }
            other => {
                let all = ["quit", "help", "audio", "start", "seconds", "set", "thinking"];
                let error = Error::usage(format!("/{other}: no such command"));
                return Err(match nearest(other, all) {
                    Some(near) => error.hint(format!("did you mean /{near}?")),
                    None => error.hint("/help lists all"),
                });
            }
        }
        Ok(true)
    }

    /// Hears another piece of what is heard.
    fn piece(&mut self, change: impl FnOnce(&mut Piece) -> Result<()>) -> Result<()> {
        let heard = self.heard.as_ref().ok_or_else(nothing_heard)?;
        let (path, mut piece) = (heard.path.clone(), heard.piece);
        change(&mut piece)?;
        self.hear(path, piece)
    }

    /// Hears a sound; where that fails the one before stays.
    fn hear(&mut self, path: PathBuf, piece: Piece) -> Result<()> {
        let clip = piece.of(path.clone(), self.windows);
        let clip = clip.map_err(|[expected, found]| wrong("seconds", &expected, &found))?;
        // Decoded once for all questions.
        let mel = self.ears.mel(&clip)?;
        let sound = Sound::Given(Given {
            key: format!("{}{}", path.display(), piece.item()),
            mel,
        });
        self.heard = Some(Heard { path, piece, sound });
        self.say_what_is_heard();
        Ok(())
    }

    fn say_what_is_heard(&self) {
        match &self.heard {
            None => crate::say!("no sound is heard: /audio FILE"),
            Some(Heard { path, piece, sound }) => {
                let Sound::Given(given) = sound else { return };
                let from = piece
                    .start
                    .map_or(String::new(), |Seconds(s)| format!(" from {s} s on"));
                let most = piece
                    .seconds
                    .map_or(String::new(), |Seconds(s)| format!(", at most {s} s"));
                let windows = given.mel.shape()[0];
                let s = if windows == 1 { "" } else { "s" };
                crate::say!("{}{from}{most}: {windows} window{s} of 10 s", path.display());
            }
        }
    }

    /// `NAME VALUE` of how answers are chosen.
    fn set(&mut self, what: &str) -> Result<()> {
        let json = |e: serde_json::Error| Error::usage(format!("/set: {e}"));
        let mut all = serde_json::to_value(&self.decoding).map_err(json)?;
        let (name, value) = what.split_once(char::is_whitespace).unwrap_or((what, ""));
        let name = name.replace('-', "_");
        let Some(fields) = all.as_object_mut() else {
            return Ok(());
        };
        if name.is_empty() {
            fields
                .iter()
                .for_each(|(name, value)| crate::say!("{name} {value}"));
            return Ok(());
        }
        if !fields.contains_key(&name) {
            let error = Error::usage(format!("/set {name}: no such setting"));
            let near = nearest(&name, fields.keys().map(String::as_str));
            return Err(match near {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint("/set lists all"),
            });
        }
        if value.trim().is_empty() {
            crate::say!("{name} {}", fields[&name]);
            return Ok(());
        }
        let value = value.trim();
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        // As on the command line: 0 is greedy.
        if let ("temperature", Some(t)) = (name.as_str(), value.as_f64()) {
            fields.insert("do_sample".to_owned(), Value::Bool(t != 0.0));
            let t = if t == 0.0 { 1.0 } else { t };
            fields.insert(name, t.into());
        } else {
            fields.insert(name, value);
        }
        let changed: Decoding = serde_json::from_value(all).map_err(json)?;
        let wrongs = changed
            .check()
            .into_iter()
            .chain(changed.check_vocabulary(self.model.tokenizer.len()));
        let wrongs = wrongs.map(|w| wrong(&format!("set {}", w.key), &w.expected, &w.found));
        crate::error::all(wrongs.collect())?;
        self.decoding = changed;
        Ok(())
    }

    fn ask(&mut self, question: &str) -> Result<()> {
        let heard = self.heard.as_ref().ok_or_else(nothing_heard)?;
        let streams = self.streams && self.decoding.num_beams == 1 && self.decoding.num_return_sequences == 1;
        let ask = Ask {
            sound: heard.sound.clone(),
            prompt: self.model.tokenizer.question(question)?,
            wanted: Wanted::Answers(self.decoding.clone()),
            item: format!(
                "{}\n{question}{}\nquestion {}",
                heard.path.display(),
                heard.piece.item(),
                self.asked
            ),
            stream: streams,
        };
        self.asked += 1;
        let ticket = self.engine.submit(ask);
        let mut told = false;
        let done = self.answer(ticket, streams, &mut told);
        if done.is_err() {
            self.engine.cancel(ticket);
            if told {
                crate::screen::piece("\n");
            }
        }
        done
    }

    /// Shows the answer as it comes; `told`: whether something of it stands on the line.
    fn answer(&mut self, ticket: Ticket, streams: bool, told: &mut bool) -> Result<()> {
        let mut text = Streamed::new(&self.model.tokenizer, &self.decoding.stop_strings);
        let mut said = (self.thinking == Thinking::Strip).then(Said::default);
        let mut show = |piece: &str, said: &mut Option<Said>| {
            let shown = said.as_mut().map_or(piece.to_owned(), |said| said.push(piece));
            if !shown.is_empty() {
                *told = true;
                crate::screen::piece(&shown);
            }
        };
        loop {
            for event in self.engine.step()? {
                if self.stopped.load(Ordering::SeqCst) || crate::screen::lost() {
                    self.engine.cancel(ticket);
                    crate::screen::piece("\n");
                    crate::say!("stopped");
                    return Ok(());
                }
                match event {
                    Event::Token { token, .. } => show(&text.push(token)?, &mut said),
                    Event::Done { found, .. } => {
                        let Found::Said(answers) = found? else {
                            return Ok(());
                        };
                        if streams {
                            show(&text.finish()?, &mut said);
                            let rest = said.take().map(Said::finish).unwrap_or_default();
                            crate::screen::piece(&format!("{rest}\n"));
                            return Ok(());
                        }
                        for answer in answers {
                            crate::screen::piece(&match self.thinking {
                                Thinking::Strip => split(&answer.text).text + "\n",
                                Thinking::Keep => answer.text + "\n",
                            });
                        }
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn optional(text: &str, parse: fn(&str) -> std::result::Result<Seconds, String>) -> Result<Option<Seconds>> {
    match text {
        "" => Ok(None),
        text => parse(text)
            .map(Some)
            .map_err(|e| Error::usage(format!("{e}, found {text}"))),
    }
}

fn wrong(command: &str, expected: &str, found: &str) -> Error {
    Error::usage(format!("/{command}: expected {expected}, found {found}"))
}

fn nothing_heard() -> Error {
    Error::usage("no sound is heard").hint("/audio FILE")
}

/// What was asked may be private: the file is the user's alone.
fn keep(editor: &mut DefaultEditor, file: &Path) {
    if let Err(e) = editor.save_history(file) {
        crate::say!("note: {}: {e}", file.display());
    }
}
