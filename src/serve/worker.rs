//! The one thread that computes: it takes questions in, steps the engine, and tells each client what came.

use super::metrics::Metrics;
use super::refusal::Refusal;
use crate::data::feed::Ears;
use crate::error::{Error, Result};
use crate::generate::decoding::Decoding;
use crate::generate::engine::{Ask, Engine, Event, Found, Given, Settings, Sound, Ticket, Wanted};
use crate::generate::stop::Stop;
use crate::generate::streaming::Streamed;
use crate::generate::Answer;
use crate::load::Loaded;
use crate::panics::caught;
use crate::text::tokenizer::Tokenizer;
use axum::http::StatusCode;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::{Receiver, UnboundedSender};

/// Faults of the engine in a row, after which it is not tried again.
const MOST_FAULTS: u32 = 3;

/// A question and whom to answer.
pub(super) struct Job {
    /// None where the LM alone is asked.
    pub sound: Option<Given>,
    pub prompt: String,
    /// Where the question stands in the request.
    pub place: String,
    /// [Checked](Decoding::check).
    pub decoding: Decoding,
    /// Text is told as it comes.
    pub stream: bool,
    pub logprobs: bool,
    /// Bounded by the answer's length. Closed once the client is gone.
    pub reply: UnboundedSender<Reply>,
}

/// What a client is told; [`Reply::Said`] and [`Reply::Refused`] are the last.
pub(super) enum Reply {
    /// It is the engine's.
    Taken,
    /// Text of an answer that is still being written.
    Piece {
        sample: usize,
        text: String,
        /// Of the tokens since the last piece, where they were asked for.
        logprobs: Option<Vec<Chosen>>,
    },
    Said {
        said: Vec<Said>,
        usage: Usage,
    },
    Refused(Refusal),
}

/// One answer.
pub(super) struct Said {
    /// Of a stream only what was not told yet.
    pub text: String,
    /// It ended by itself, and not by its length.
    pub ended: bool,
    /// Where they were asked for; of a stream only those that were not told yet.
    pub logprobs: Option<Vec<Chosen>>,
}

/// A token of an answer.
pub(super) struct Chosen {
    /// Its text alone, which of a part of a character is none.
    pub text: String,
    pub logprob: f32,
}

/// Counts of tokens.
#[derive(Clone, Copy)]
pub(super) struct Usage {
    pub prompt: usize,
    pub answers: usize,
}

/// Answers until nobody can ask any more.
///
/// # Errors
/// What ends all questions, such as a device that is gone.
pub(super) fn work(
    model: &Loaded,
    ears: &Arc<Ears>,
    settings: &Settings,
    metrics: &Metrics,
    mut jobs: Receiver<Job>,
) -> Result<()> {
    let mut faults = 0;
    loop {
        let mut worker = Worker {
            model,
            metrics,
            engine: Engine::new(model, ears.clone(), settings.clone()),
            running: HashMap::new(),
        };
        let words = match worker.until_fault(&mut jobs, &mut faults) {
            Ok(()) => return Ok(()),
            Err(Fault::Panic(words)) => words,
            Err(Fault::Error(e)) => {
                worker.refuse_all(&e);
                return Err(e);
            }
        };
        let e = Error::Torch(tch::TchError::Torch(words));
        worker.refuse_all(&e);
        faults += 1;
        if faults == MOST_FAULTS {
            return Err(e);
        }
        crate::say!("error: {e}; what was being answered is lost, what comes is answered by a new engine");
    }
}

enum Fault {
    Panic(String),
    Error(Error),
}

struct Worker<'a> {
    model: &'a Loaded,
    metrics: &'a Metrics,
    engine: Engine<'a>,
    running: HashMap<Ticket, Running<'a>>,
}

/// A question that the engine has.
struct Running<'a> {
    decoding: Decoding,
    logprobs: bool,
    reply: UnboundedSender<Reply>,
    prompt_tokens: usize,
    since: Instant,
    /// Of a stream: what was told of each sample.
    told: HashMap<usize, Told<'a>>,
    stream: bool,
}

/// What was told of a sample of a stream.
struct Told<'a> {
    text: Streamed<'a>,
    /// Tokens since the last piece.
    since: Vec<Chosen>,
    /// Tokens of the pieces before.
    tokens: usize,
}

impl Worker<'_> {
    /// Until nobody can ask any more, or the engine fails.
    fn until_fault(&mut self, jobs: &mut Receiver<Job>, faults: &mut u32) -> Result<(), Fault> {
        loop {
            if self.engine.idle() {
                self.show();
                let Some(job) = jobs.blocking_recv() else {
                    return Ok(());
                };
                self.take(job);
            }
            while let Ok(job) = jobs.try_recv() {
                self.take(job);
            }
            self.forget_the_gone();
            self.show();
            if self.engine.idle() {
                continue;
            }
            let step = caught(|| self.engine.step()).map_err(Fault::Panic)?;
            *faults = 0;
            for event in step.map_err(Fault::Error)? {
                self.tell(event);
            }
        }
    }

    fn show(&self) {
        let (metrics, stats) = (self.metrics, self.engine.stats());
        let set = |value: &AtomicU64, n: u64| value.store(n, Relaxed);
        set(&metrics.waiting, self.engine.waiting() as u64);
        set(&metrics.running, self.engine.running() as u64);
        set(&metrics.windows_encoded, stats.windows);
        set(&metrics.prompt_tokens_shared, stats.shared);
        set(&metrics.steps, stats.steps);
        set(&metrics.spoken, stats.spoken);
        set(&metrics.most_bytes, stats.most_bytes);
    }

    fn take(&mut self, job: Job) {
        if job.reply.is_closed() {
            self.metrics.hang_ups.fetch_add(1, Relaxed);
            return;
        }
        let prompt = match self.accept(&job) {
            Ok(prompt) => prompt,
            Err(refusal) => {
                let _ = job.reply.send(Reply::Refused(refusal));
                return;
            }
        };
        self.metrics.prompt_tokens.fetch_add(prompt.len() as u64, Relaxed);
        let windows = job.sound.as_ref().map_or(0, |sound| sound.mel.shape()[0]);
        self.metrics.windows.fetch_add(windows as u64, Relaxed);
        let _ = job.reply.send(Reply::Taken);
        let running = Running {
            decoding: job.decoding.clone(),
            logprobs: job.logprobs,
            reply: job.reply,
            prompt_tokens: prompt.len(),
            since: Instant::now(),
            told: HashMap::new(),
            stream: job.stream,
        };
        let ticket = self.engine.submit(Ask {
            item: format!("{}\n{}", job.sound.as_ref().map_or("", |s| &s.key), job.prompt),
            sound: job.sound.map_or(Sound::Nothing, Sound::Given),
            prompt,
            wanted: Wanted::Answers(job.decoding),
            stream: job.stream,
        });
        self.running.insert(ticket, running);
    }

    /// The question's ids, where the model can take it.
    fn accept(&self, job: &Job) -> Result<Vec<i64>, Refusal> {
        let tokenizer = &self.model.tokenizer;
        let ids = tokenizer.question(&job.prompt).map_err(|e| match e {
            Error::Recipe { .. } => Refusal::of(&e, Some(&job.place)),
            e => Refusal::of(&e, None),
        })?;
        if let Some(wrong) = job.decoding.check_vocabulary(tokenizer.len()) {
            return Err(Refusal::field(wrong.key, &wrong.expected, &wrong.found));
        }
        let most = self.model.model.config.lm.decoder().max_position_embeddings;
        let wanted = ids.len() + job.decoding.max_new_tokens;
        if wanted > usize::try_from(most).unwrap_or(0) {
            let expected = format!("a question and an answer of at most {most} tokens together");
            let found = format!("{} and {}", ids.len(), job.decoding.max_new_tokens);
            return Err(Refusal::field("messages", &expected, &found).code("context_length_exceeded"));
        }
        Ok(ids)
    }

    fn forget_the_gone(&mut self) {
        let gone = self.running.extract_if(|_, running| running.reply.is_closed());
        for (ticket, _) in gone {
            self.engine.cancel(ticket);
            self.metrics.hang_ups.fetch_add(1, Relaxed);
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Token {
                ticket,
                sample,
                token,
                logprob,
            } => {
                let Some(running) = self.running.get_mut(&ticket) else {
                    return;
                };
                if running.told.is_empty() {
                    self.metrics.first_token.see(running.since.elapsed());
                }
                let tokenizer = &self.model.tokenizer;
                let told = running.told.entry(sample).or_insert_with(|| Told {
                    text: Streamed::new(tokenizer, &running.decoding.stop_strings),
                    since: Vec::new(),
                    tokens: 0,
                });
                let pushed = told.text.push(token).and_then(|text| {
                    if running.logprobs {
                        told.since.push(chosen(tokenizer, token, logprob)?);
                    }
                    Ok(text)
                });
                match pushed {
                    Ok(text) if text.is_empty() => {}
                    Ok(text) => {
                        let since = std::mem::take(&mut told.since);
                        told.tokens += since.len();
                        let logprobs = running.logprobs.then_some(since);
                        let _ = running.reply.send(Reply::Piece {
                            sample,
                            text,
                            logprobs,
                        });
                    }
                    Err(e) => {
                        let _ = running.reply.send(Reply::Refused(Refusal::of(&e, None)));
                        self.running.remove(&ticket);
                        self.engine.cancel(ticket);
                    }
                }
            }
            Event::Done { ticket, found, .. } => {
                let Some(running) = self.running.remove(&ticket) else {
                    return;
                };
                self.metrics.answer.see(running.since.elapsed());
                let reply = running.reply.clone();
                let said = found.and_then(|found| match found {
                    Found::Said(answers) => self.said(running, answers),
                    Found::Chosen(_) => Err(Error::recipe("answer", "choices, which nobody asked for")),
                });
                let _ = reply.send(said.unwrap_or_else(|e| Reply::Refused(Refusal::of(&e, None))));
            }
        }
    }

    fn said(&self, mut running: Running, answers: Vec<Answer>) -> Result<Reply> {
        let tokenizer = &self.model.tokenizer;
        let usage = Usage {
            prompt: running.prompt_tokens,
            answers: answers.iter().map(|a| a.tokens.len()).sum(),
        };
        self.metrics.new_tokens.fetch_add(usage.answers as u64, Relaxed);
        let stop = Stop::of(self.model, &running.decoding);
        let mut said = Vec::with_capacity(answers.len());
        for (sample, answer) in answers.into_iter().enumerate() {
            let told = running.told.remove(&sample).filter(|_| running.stream);
            let before = told.as_ref().map_or(0, |t| t.tokens);
            let left = answer.tokens.iter().zip(&answer.logprobs).skip(before);
            said.push(Said {
                ended: stop.ended(&answer.tokens)?,
                logprobs: running
                    .logprobs
                    .then(|| {
                        left.map(|(t, p)| chosen(tokenizer, *t, *p))
                            .collect::<Result<_>>()
                    })
                    .transpose()?,
                text: match told {
                    Some(told) => told.text.finish()?,
                    None => answer.text,
                },
            });
        }
        Ok(Reply::Said { said, usage })
    }

    fn refuse_all(&mut self, e: &Error) {
        for (_, running) in self.running.drain() {
            let refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
            let _ = running.reply.send(Reply::Refused(refusal));
        }
    }
}

fn chosen(tokenizer: &Tokenizer, token: i64, logprob: f32) -> Result<Chosen> {
    Ok(Chosen {
        text: tokenizer.decode(&[token], false)?,
        logprob,
    })
}
