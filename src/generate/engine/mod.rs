//! Many questions at once: sequences of several clips are written on together, and a clip is heard once for all that is asked
//! about it.
//!
//! ```text
//! submit ─► waiting ─► sounds.rs: decoded in the background, encoded, held ─► prompt read ─► rows.rs: a slot, token by token ─► events
//! ```

mod beams;
mod memory;
mod question;
mod reading;
mod rows;
mod settings;
mod sounds;

pub use question::{Ask, Event, Found, Given, Sound, Ticket, Wanted};
pub use settings::{Settings, Stats};

use super::likelihood;
use super::sampling::Sampler;
use super::stop::Stop;
use super::texts::Texts;
use super::{in_words, Sequence};
use crate::data::feed::Ears;
use crate::error::Result;
use crate::load::Loaded;
use crate::model::lm::{Cache, Slots};
use crate::model::parts::Precision;
use beams::{Search, State};
use memory::{rows_of, share, too_large, TextSize};
use reading::{along, Reading, Waiting};
use rows::{Question, Row, Rows, Stepped};
use sounds::{mel_bytes, Held, Progress, Sounds, Turn, AHEAD};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tch::{no_grad, Kind, Tensor};

/// Questions that are looked at for one whose sound is at hand.
const LOOK: usize = 64;
/// How often others may go before the first: then it is waited for.
const PATIENCE: u32 = 64;

/// A question that has slots, or waits for more of them.
struct Running {
    ask: Ask,
    since: Instant,
    /// Its samples that have no slot yet, and what they begin with.
    to_begin: Option<(Rc<Question>, Cache, Tensor)>,
    begun: usize,
    said: Vec<Option<Sequence>>,
}

/// A model that answers many questions.
///
/// Questions wait in the order in which they were [submitted](Engine::submit). Each [step](Engine::step) fills free slots, and writes
/// one more token of every sequence that has a slot.
pub struct Engine<'a> {
    model: &'a Loaded,
    settings: Settings,
    memory: u64,
    texts: TextSize,
    waiting: VecDeque<Waiting>,
    sounds: Sounds<'a>,
    reading: Option<Reading>,
    running: HashMap<Ticket, Running>,
    rows: Rows,
    searches: Vec<Search>,
    next: Ticket,
    stats: Stats,
}

impl<'a> Engine<'a> {
    /// An engine without questions.
    pub fn new(model: &'a Loaded, ears: Arc<Ears>, settings: Settings) -> Self {
        let kind = match settings.precision {
            Precision::Fp32 => Kind::Float,
            Precision::AmpBf16 => Kind::BFloat16,
        };
        let lm = model.model.config.lm.decoder();
        Engine {
            model,
            memory: settings.memory.unwrap_or_else(|| share(model.device)),
            texts: TextSize::of(&lm, kind),
            waiting: VecDeque::new(),
            sounds: Sounds::new(model, ears, settings.precision, settings.keep),
            reading: None,
            running: HashMap::new(),
            rows: Rows::new(Slots::new(
                lm.num_hidden_layers,
                lm.num_key_value_heads,
                lm.head_dim,
                kind,
                model.device,
            )),
            searches: Vec::new(),
            next: 0,
            stats: Stats::default(),
            settings,
        }
    }

    /// Takes a question in. Questions about one sound are cheapest one after another.
    pub fn submit(&mut self, ask: Ask) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.sounds.want(&ask.sound);
        self.waiting.push_back(Waiting {
            ticket,
            ask,
            since: Instant::now(),
            passed: 0,
        });
        ticket
    }

    /// Forgets a question; nothing more is told of it, and what it held is free.
    pub fn cancel(&mut self, ticket: Ticket) {
        if let Some(at) = self.waiting.iter().position(|w| w.ticket == ticket) {
            if let Some(waiting) = self.waiting.remove(at) {
                self.sounds.leave(&waiting.ask.sound);
            }
        }
        if let Some(reading) = &mut self.reading {
            if let Some(at) = reading.prompts.iter().position(|w| w.ticket == ticket) {
                self.sounds.leave(&reading.prompts.swap_remove(at).ask.sound);
            }
        }
        self.reading.take_if(|r| r.prompts.is_empty());
        self.rows.forget(ticket);
        self.searches.retain(|s| s.ticket() != ticket);
        if let Some(running) = self.running.remove(&ticket) {
            self.sounds.leave(&running.ask.sound);
        }
    }

    /// Questions that were not begun.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Questions that are being answered.
    pub fn running(&self) -> usize {
        self.running.len() + self.reading.as_ref().map_or(0, |r| r.prompts.len())
    }

    /// Whether there is nothing left to do.
    pub fn idle(&self) -> bool {
        self.waiting() + self.running() == 0
    }

    /// What was done so far.
    pub fn stats(&self) -> Stats {
        let (sounds, windows) = self.sounds.encoded;
        Stats {
            sounds,
            windows,
            ..self.stats.clone()
        }
    }

    /// Goes on with all that have a slot, by one token. Waits for a sound only where nothing else is left to do.
    ///
    /// # Errors
    /// What ends all questions, such as a device that is gone. A question's own errors are told as its [`Event::Done`].
    pub fn step(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        self.fill(&mut events)?;
        self.note_memory();
        if !self.rows.is_empty() {
            self.stats.steps += 1;
            self.stats.spoken += self.rows.len() as u64;
            for stepped in self.rows.speak(self.model, self.settings.precision)? {
                self.tell(stepped, &mut events)?;
            }
        }
        for i in (0..self.searches.len()).rev() {
            let search = &mut self.searches[i];
            let state = search.step(self.model, self.settings.precision)?;
            if matches!(state, State::Going) {
                continue;
            }
            let search = self.searches.remove(i);
            let ticket = search.ticket();
            let found = match state {
                State::Failed(e) => Err(e),
                State::Going | State::Over => search.finish(),
            };
            match found {
                Ok(said) => self.said(ticket, said, &mut events),
                Err(e) => self.ended(ticket, Err(e), &mut events),
            }
        }
        Ok(events)
    }

    /// Gives free slots to what waits; where it is to be [steady](Settings::steady) and others are being answered, no more than one
    /// piece of it.
    fn fill(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let steady = self.settings.steady && self.busy();
        let mut left = match steady {
            true => self.settings.prefill,
            false => usize::MAX,
        };
        loop {
            self.sounds.poll();
            self.decode_ahead();
            if self.begin_samples(events)? {
                continue;
            }
            if left == 0 || self.free() == 0 {
                return Ok(());
            }
            if self.reading.is_some() {
                left = left.saturating_sub(self.read(events)?);
                continue;
            }
            let Some(at) = self.pick(events) else {
                // Nothing else is left to do than to wait for a file.
                if !self.busy() && self.sounds.decoding() {
                    self.sounds.wait();
                    continue;
                }
                return Ok(());
            };
            let sound = self.waiting[at].ask.sound.clone();
            let advanced = self.sounds.advance(&sound);
            self.note_memory();
            match advanced {
                Ok(Progress::Ready(held)) => {
                    let Some(waiting) = self.take(at) else { continue };
                    self.reading = Some(self.start_reading(waiting, held));
                }
                Ok(Progress::Encoded) if steady => return Ok(()),
                Ok(Progress::Encoded | Progress::Decoding) => {}
                Err(e) => {
                    if let Some(w) = self.take(at) {
                        self.finish(w.ticket, &w.ask, w.since, Err(e), events);
                    }
                }
            }
        }
    }

    /// Whether something is being written, which should not wait.
    fn busy(&self) -> bool {
        !self.rows.is_empty() || !self.searches.is_empty()
    }

    fn free(&self) -> usize {
        let beams = self.searches.iter().map(|s| s.slots(self.settings.slots));
        let used = self.rows.len() + beams.sum::<usize>();
        self.settings.slots.max(1).saturating_sub(used)
    }

    /// The next sounds in the queue, up to a few, as long as there is room for them.
    fn decode_ahead(&mut self) {
        let next = self.waiting.iter().take(LOOK).map(|w| w.ask.sound.clone());
        for (i, sound) in next.collect::<Vec<_>>().into_iter().enumerate() {
            if self.sounds.ahead() >= AHEAD {
                return;
            }
            if !self.sounds.unknown(&sound) {
                continue;
            }
            let windows = match &sound {
                Sound::Clip(clip) | Sound::Noise(clip) => clip.windows,
                Sound::Silence(_) | Sound::Given(_) | Sound::Nothing => 0,
            };
            if self.bytes() + mel_bytes(windows) > self.memory {
                // The first one's turn comes in any case.
                if i > 0 || self.busy() {
                    return;
                }
                self.make_room(&sound);
            }
            self.sounds.begin(&sound);
        }
    }

    fn make_room(&mut self, sound: &Sound) {
        self.sounds.make_room(sound);
        self.rows.clear();
    }

    /// The first question whose turn may come.
    fn pick(&mut self, events: &mut Vec<Event>) -> Option<usize> {
        let look = self.waiting.len().min(LOOK);
        let encoding = |w: &Waiting| matches!(self.sounds.turn(&w.ask.sound), Turn::Encoding);
        if let Some(at) = self.waiting.iter().take(look).position(encoding) {
            return Some(at);
        }
        let (mut at, mut first) = (0, true);
        while at < self.waiting.len().min(LOOK) {
            let waiting = &self.waiting[at];
            let (sound, passed) = (waiting.ask.sound.clone(), waiting.passed);
            let to_hear = match self.sounds.turn(&sound) {
                Turn::No => {
                    at += 1;
                    continue;
                }
                Turn::Failed => return self.passing(at),
                Turn::Held | Turn::Encoding => None,
                Turn::ToHear(windows) => Some(windows),
            };
            let alone = self.bytes_alone(&waiting.ask, to_hear);
            if alone > self.memory {
                // Whatever else leaves, it will not fit.
                if let Some(w) = self.take(at) {
                    let e = too_large(alone, self.memory);
                    self.finish(w.ticket, &w.ask, w.since, Err(e), events);
                }
                continue;
            }
            if first && self.bytes_with(at, to_hear) > self.memory {
                self.make_room(&sound);
            }
            if self.bytes_with(at, to_hear) <= self.memory {
                return self.passing(at);
            }
            // Room is not given away again and again before the first one has enough.
            if first && passed >= PATIENCE {
                return None;
            }
            (at, first) = (at + 1, false);
        }
        None
    }

    fn passing(&mut self, at: usize) -> Option<usize> {
        for waiting in self.waiting.iter_mut().take(at) {
            waiting.passed += 1;
        }
        Some(at)
    }

    fn take(&mut self, at: usize) -> Option<Waiting> {
        self.waiting.remove(at)
    }

    /// Bytes of a question that is alone; `to_hear`: windows of its sound, unless that was heard.
    fn bytes_alone(&self, ask: &Ask, to_hear: Option<usize>) -> u64 {
        let heard = match to_hear {
            Some(windows) => self.sounds.bytes_to_hear(windows, self.texts.element),
            None => self.sounds.bytes_now(&ask.sound),
        };
        let (rows, tokens) = rows_of(ask);
        heard + self.texts.bytes(1, ask.prompt.len() as i64) + self.texts.bytes(rows, tokens)
    }

    /// Bytes of all that is there, and of a question more.
    fn bytes_with(&self, at: usize, to_hear: Option<usize>) -> u64 {
        let ask = &self.waiting[at].ask;
        let now = self.sounds.bytes_now(&ask.sound);
        let heard = to_hear.map_or(now, |windows| {
            self.sounds.bytes_to_hear(windows, self.texts.element)
        });
        let (rows, tokens) = rows_of(ask);
        let text = match rows {
            1 => self.bytes_of_rows(1, tokens),
            _ => self.bytes_of_rows(0, 0) + self.texts.bytes(rows, tokens),
        };
        let prompt = self.texts.bytes(1, ask.prompt.len() as i64);
        self.bytes() - now - self.bytes_of_rows(0, 0) + heard + text + prompt
    }

    /// Bytes of all that is there, and of these answers more, about a sound that was heard.
    fn bytes_along(&self, asks: &[&Ask]) -> u64 {
        let longest = asks.iter().map(|ask| rows_of(ask).1).max().unwrap_or(0);
        let prompts = asks.iter().map(|ask| ask.prompt.len() as i64).max().unwrap_or(0);
        self.bytes() - self.bytes_of_rows(0, 0)
            + self.bytes_of_rows(asks.len(), longest)
            // While they are read, and each by itself.
            + 2 * self.texts.bytes(asks.len(), prompts)
    }

    /// Bytes of sequences that are written, of those whose prompts were read and that have no slot yet, and of so many more of `tokens`
    /// at most.
    fn bytes_of_rows(&self, more: usize, tokens: i64) -> u64 {
        let to_begin = self.running.values().filter(|r| r.to_begin.is_some());
        let (mut promised, mut longest) = (more, tokens);
        for running in to_begin {
            promised += running.said.len() - running.begun;
            longest = longest.max(rows_of(&running.ask).1);
        }
        let slots = self.settings.slots.max(1).saturating_sub(self.rows.len());
        self.rows.bytes_with(promised.min(slots), longest)
    }

    /// What is held, or was promised to sequences that are being written.
    fn bytes(&self) -> u64 {
        let searches = self.searches.iter().map(|s| s.bytes(&self.texts));
        let begun = self.running.values().filter_map(|r| r.to_begin.as_ref());
        self.sounds.bytes()
            + self.bytes_of_rows(0, 0)
            + searches.sum::<u64>()
            + begun.map(|(_, cache, _)| cache.bytes()).sum::<u64>()
            + self.reading.as_ref().map_or(0, |r| r.cache.bytes())
    }

    fn note_memory(&mut self) {
        self.stats.most_bytes = self.stats.most_bytes.max(self.bytes());
    }

    /// What the prompt begins with may have been read for another one. Then others about the same sound, that begin so, are read with it.
    fn start_reading(&mut self, waiting: Waiting, held: Rc<Held>) -> Reading {
        let (mut cache, mut at, mut places) = (Cache::default(), 0, Vec::new());
        if let Some((ids, read)) = &*held.read.borrow() {
            let fits = |asks: &[&Ask]| self.bytes_along(asks) <= self.memory;
            let alike =
                |(_, other): &(usize, &Waiting)| self.sounds.alike(&other.ask.sound, &waiting.ask.sound);
            let queue = self.waiting.iter().enumerate().take(LOOK).filter(alike);
            (places, at) = along(&waiting.ask, queue, ids, self.settings.prefill, fits);
            if at > 0 {
                cache = read.beginning(at as i64);
            }
        }
        let seen = self.audio_tokens(&waiting.ask.prompt[..at]);
        // From behind, so that places stay; then in the order of the queue.
        let mut prompts: Vec<Waiting> = places
            .into_iter()
            .rev()
            .filter_map(|place| self.take(place))
            .collect();
        prompts.push(waiting);
        prompts.reverse();
        self.stats.prompts += prompts.len() as u64;
        self.stats.shared += (at * prompts.len()) as u64;
        Reading {
            seen: Tensor::from_slice(&[seen])
                .unsqueeze(1)
                .to_device(self.model.device),
            prompts,
            held,
            cache,
            at,
        }
    }

    fn audio_tokens(&self, ids: &[i64]) -> i64 {
        let audio = self.model.model.config.audio_token;
        ids.iter().filter(|id| **id == audio).count() as i64
    }

    /// Reads a piece of the prompt whose turn it is, or several prompts. Returns their tokens.
    fn read(&mut self, events: &mut Vec<Event>) -> Result<usize> {
        let Some(mut r) = self.reading.take() else {
            return Ok(0);
        };
        let rests = r.prompts.iter().map(|w| &w.ask.prompt[r.at..]);
        let most = rests.clone().map(<[i64]>::len).max().unwrap_or(0);
        let own = self.settings.prefill.max(1).min(most);
        let rows: Vec<&[i64]> = rests.map(|rest| &rest[..own.min(rest.len())]).collect();
        let lengths: Vec<i64> = rows.iter().map(|row| row.len() as i64).collect();
        let filled: Vec<i64> = rows
            .iter()
            .flat_map(|row| {
                let behind = std::iter::repeat_n(0, own - row.len());
                row.iter().copied().chain(behind)
            })
            .collect();
        let count = rows.len() as i64;
        let piece = Tensor::from_slice(&filled)
            .reshape([count, own as i64])
            .to_device(self.model.device);
        if count > 1 {
            r.cache
                .select(&Tensor::zeros([count], (Kind::Int64, self.model.device)));
        }
        let model = &self.model.model;
        let logits = self.model.compute(self.settings.precision, || {
            no_grad(|| {
                let seen = r.seen.expand([count, 1], false);
                let logits = model.decode_rows(&piece, &lengths, &r.held.heard, &mut r.cache, &seen);
                logits.to_kind(Kind::Float)
            })
        })?;
        let read = lengths.iter().sum::<i64>() as usize;
        self.stats.read += read as u64;
        if own < most {
            r.seen = &r.seen + model.audio_tokens(&piece);
            r.at += own;
            self.reading = Some(r);
            return Ok(read);
        }
        let Reading {
            prompts, held, cache, ..
        } = r;
        for (row, waiting) in prompts.into_iter().enumerate().rev() {
            let cache = match count {
                1 => cache.fork(),
                _ => cache.row(row as i64, waiting.ask.prompt.len() as i64),
            };
            self.has_read(
                waiting,
                held.clone(),
                cache,
                logits.narrow(0, row as i64, 1),
                events,
            )?;
        }
        self.begin_samples(events)?;
        Ok(read)
    }

    /// A whole prompt was read: its answers may begin.
    fn has_read(
        &mut self,
        waiting: Waiting,
        held: Rc<Held>,
        cache: Cache,
        logits: Tensor,
        events: &mut Vec<Event>,
    ) -> Result<()> {
        let Waiting {
            ticket, ask, since, ..
        } = waiting;
        let seen = Tensor::from_slice(&[self.audio_tokens(&ask.prompt)])
            .unsqueeze(1)
            .to_device(self.model.device);
        *held.read.borrow_mut() = Some((ask.prompt.clone(), cache.fork()));
        let decoding = match &ask.wanted {
            Wanted::Choices(choices) => {
                let texts = Texts::of(&self.model.model, &held.heard, cache, seen);
                let weigh = || likelihood::after(self.model, &texts, &logits, choices);
                let found = self.model.compute(self.settings.precision, weigh)?;
                self.finish(ticket, &ask, since, found.map(Found::Chosen), events);
                return Ok(());
            }
            Wanted::Answers(decoding) => decoding.clone(),
        };
        let question = Rc::new(Question {
            ticket,
            prompt: ask.prompt.clone(),
            held,
            seen: self.audio_tokens(&ask.prompt),
            decoding,
        });
        let mut running = Running {
            ask,
            since,
            to_begin: None,
            begun: 0,
            said: Vec::new(),
        };
        if question.decoding.num_beams > 1 {
            let search = Search::new(self.model, question, cache, seen, logits);
            self.searches.push(search);
        } else {
            let samples = question.decoding.num_return_sequences;
            running.said.resize(samples, None);
            running.to_begin = Some((question, cache, logits));
        }
        self.running.insert(ticket, running);
        Ok(())
    }

    /// Begins sequences of questions whose prompt was read, while slots are free. Whether any was.
    fn begin_samples(&mut self, events: &mut Vec<Event>) -> Result<bool> {
        let mut any = false;
        while self.free() > 0 {
            let Some(running) = self
                .running
                .values_mut()
                .filter(|r| r.to_begin.is_some())
                .min_by_key(|r| r.since)
            else {
                break;
            };
            let Some((question, cache, logits)) = running.to_begin.take() else {
                break;
            };
            let sample = running.begun;
            running.begun += 1;
            let decoding = &question.decoding;
            let (rule, seed) = (decoding.sampling(), decoding.seed);
            let sampler = Sampler::of(rule, seed, &running.ask.item, sample as u64);
            let row = Row::new(question.clone(), sample, sampler);
            let stepped = no_grad(|| self.rows.begin(self.model, row, &logits, &cache));
            if running.begun < running.said.len() {
                running.to_begin = Some((question, cache, logits));
            }
            self.tell(stepped, events)?;
            any = true;
        }
        Ok(any)
    }

    /// Tells of a token, and of an answer that ended with it.
    fn tell(&mut self, stepped: Stepped, events: &mut Vec<Event>) -> Result<()> {
        let Stepped {
            ticket,
            sample,
            token,
            ended,
        } = stepped;
        let Some(running) = self.running.get_mut(&ticket) else {
            return Ok(());
        };
        self.stats.tokens += u64::from(token.is_some());
        if let (true, Some((token, logprob))) = (running.ask.stream, token) {
            events.push(Event::Token {
                ticket,
                sample,
                token,
                logprob,
            });
        }
        match ended {
            None => {}
            Some(Ok(said)) => {
                running.said[sample] = Some(said);
                if running.said.iter().all(Option::is_some) {
                    let said = std::mem::take(&mut running.said).into_iter().flatten().collect();
                    self.said(ticket, said, events);
                }
            }
            Some(Err(e)) => self.ended(ticket, Err(e), events),
        }
        Ok(())
    }

    fn said(&mut self, ticket: Ticket, said: Vec<Sequence>, events: &mut Vec<Event>) {
        let Some(running) = self.running.get(&ticket) else {
            return;
        };
        let found = match &running.ask.wanted {
            Wanted::Answers(decoding) => {
                let stop = Stop::of(self.model, decoding);
                said.into_iter().map(|s| in_words(self.model, s, &stop)).collect()
            }
            Wanted::Choices(_) => Ok(Vec::new()),
        };
        self.ended(ticket, found.map(Found::Said), events);
    }

    fn ended(&mut self, ticket: Ticket, found: Result<Found>, events: &mut Vec<Event>) {
        self.rows.forget(ticket);
        if let Some(Running { ask, since, .. }) = self.running.remove(&ticket) {
            self.finish(ticket, &ask, since, found, events);
        }
    }

    fn finish(
        &mut self,
        ticket: Ticket,
        ask: &Ask,
        since: Instant,
        found: Result<Found>,
        events: &mut Vec<Event>,
    ) {
        self.sounds.leave(&ask.sound);
        let seconds = since.elapsed().as_secs_f64();
        events.push(Event::Done {
            ticket,
            found,
            seconds,
        });
    }
}
