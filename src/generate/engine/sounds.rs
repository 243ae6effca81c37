//! What is heard: decoded in the background, encoded piece by piece, held as long as a question is about it.

use super::question::Sound;
use crate::data::feed::{Clip, Ears};
use crate::error::Result;
use crate::load::Loaded;
use crate::model::flamingo::{Audio, Heard};
use crate::model::lm::Cache;
use crate::model::mode::Mode;
use crate::model::parts::Precision;
use crate::shapes::{MEL_BINS, WINDOW_FRAMES};
use ndarray::{s, Array3};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use tch::{no_grad, Device, Tensor};

/// Sounds that are decoded before their question's turn.
pub(super) const AHEAD: usize = 4;

type Mel = Arc<Array3<f32>>;

/// A sound as the LM's blocks see it.
pub(super) struct Held {
    pub heard: Heard,
    /// The prompt that was read last, and its keys and values: another one's beginning may be the same.
    pub read: RefCell<Option<(Vec<i64>, Cache)>>,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.heard.bytes() + self.read.borrow().as_ref().map_or(0, |(_, c)| c.bytes())
    }
}

/// How far a sound is.
pub(super) enum Progress {
    /// It can be asked about.
    Ready(Rc<Held>),
    /// A piece was encoded, and more are to come.
    Encoded,
    /// Its file is being decoded.
    Decoding,
}

enum State {
    Known,
    Decoding,
    Failed(crate::error::Error),
    Mel(Mel),
    /// As many windows of silence.
    Silent(usize),
    Encoding {
        mel: Mel,
        features: Vec<Tensor>,
        windows: usize,
    },
    Held(Rc<Held>),
}

struct Entry {
    /// Questions about it that are not answered yet.
    users: usize,
    /// When it was used last.
    used: u64,
    state: State,
}

/// All of them.
pub(super) struct Sounds<'a> {
    model: &'a Loaded,
    ears: Arc<Ears>,
    precision: Precision,
    /// Sounds that stay although no question is about them.
    keep: usize,
    all: HashMap<Sound, Entry>,
    /// Windows of clips that were decoded: so many of silence stand in for one.
    windows: HashMap<Clip, usize>,
    /// (1, 1, tokens, D), of one window of silence.
    silence: Option<Tensor>,
    /// By the number of its windows, silence that was heard: it is the same in whatever clip's place.
    silences: HashMap<usize, Rc<Held>>,
    sender: Sender<(Sound, Result<Mel>)>,
    decoded: Receiver<(Sound, Result<Mel>)>,
    clock: u64,
    /// Sounds and windows that were encoded.
    pub(super) encoded: (u64, u64),
}

impl<'a> Sounds<'a> {
    pub(super) fn new(model: &'a Loaded, ears: Arc<Ears>, precision: Precision, keep: usize) -> Self {
        let (sender, decoded) = channel();
        Sounds {
            model,
            ears,
            precision,
            keep,
            all: HashMap::new(),
            windows: HashMap::new(),
            silence: None,
            silences: HashMap::new(),
            sender,
            decoded,
            clock: 0,
            encoded: (0, 0),
        }
    }

    /// A question about it came.
    pub(super) fn want(&mut self, sound: &Sound) {
        self.clock += 1;
        let entry = self.all.entry(sound.clone()).or_insert(Entry {
            users: 0,
            used: 0,
            state: State::Known,
        });
        entry.users += 1;
        entry.used = self.clock;
    }

    /// A question about it is answered, or forgotten.
    pub(super) fn leave(&mut self, sound: &Sound) {
        if let Some(entry) = self.all.get_mut(sound) {
            entry.users = entry.users.saturating_sub(1);
            self.evict_idle(self.keep);
        }
    }

    /// All but the `keep` that were used last, of those that no question is about.
    fn evict_idle(&mut self, keep: usize) {
        let mut idle: Vec<(u64, Sound)> = self
            .all
            .iter()
            .filter(|(_, e)| e.users == 0 && !matches!(e.state, State::Decoding))
            .map(|(s, e)| (e.used, s.clone()))
            .collect();
        idle.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        for (_, sound) in idle.into_iter().skip(keep) {
            self.all.remove(&sound);
        }
    }

    /// Lets go of all that no text is written about, but of `sound` and what is half encoded: what still has questions will be heard
    /// again.
    pub(super) fn make_room(&mut self, sound: &Sound) {
        self.evict_idle(0);
        let own = self.silent_windows(sound);
        self.silences
            .retain(|windows, held| Rc::strong_count(held) > 1 || own == Some(*windows));
        for (other, entry) in &mut self.all {
            let unused = match &entry.state {
                State::Held(held) => Rc::strong_count(held) == 1,
                State::Mel(_) => true,
                _ => false,
            };
            if unused && other != sound {
                entry.state = State::Known;
            }
        }
    }

    /// Of silence, how many windows it has, where that is known.
    fn silent_windows(&self, sound: &Sound) -> Option<usize> {
        let Sound::Silence(clip) = sound else { return None };
        self.windows.get(clip).copied()
    }

    /// Whether two sounds are the same to whoever hears them.
    pub(super) fn alike(&self, a: &Sound, b: &Sound) -> bool {
        let windows = self.silent_windows(a);
        a == b || windows.is_some() && windows == self.silent_windows(b)
    }

    /// Decodes it in the background, unless that was begun.
    pub(super) fn begin(&mut self, sound: &Sound) {
        let Some(entry) = self.all.get_mut(sound) else {
            return;
        };
        if !matches!(entry.state, State::Known) {
            return;
        }
        entry.state = match sound {
            Sound::Given(given) => State::Mel(given.mel.clone()),
            Sound::Silence(clip) if self.windows.contains_key(clip) => State::Silent(self.windows[clip]),
            Sound::Nothing => State::Held(Rc::new(Held {
                heard: self.model.model.deaf(),
                read: RefCell::default(),
            })),
            Sound::Clip(clip) | Sound::Silence(clip) | Sound::Noise(clip) => {
                let (ears, sender) = (self.ears.clone(), self.sender.clone());
                let (sound, clip) = (sound.clone(), clip.clone());
                let hear = move || {
                    let mel = match sound {
                        Sound::Noise(_) => ears.noise(&clip),
                        _ => ears.mel(&clip),
                    };
                    // Nobody listens any more where the engine is gone.
                    drop(sender.send((sound, mel)));
                };
                rayon::spawn(hear);
                State::Decoding
            }
        };
    }

    /// Sounds that are being decoded, or wait to be encoded.
    pub(super) fn ahead(&self) -> usize {
        let early = |e: &&Entry| matches!(e.state, State::Decoding | State::Mel(_));
        self.all.values().filter(early).count()
    }

    /// Whether its decoding was not begun.
    pub(super) fn unknown(&self, sound: &Sound) -> bool {
        self.all
            .get(sound)
            .is_some_and(|e| matches!(e.state, State::Known))
    }

    /// Whether any is being decoded, so that [`Sounds::wait`] ends.
    pub(super) fn decoding(&self) -> bool {
        self.all.values().any(|e| matches!(e.state, State::Decoding))
    }

    /// Takes what was decoded meanwhile.
    pub(super) fn poll(&mut self) {
        while let Ok((sound, mel)) = self.decoded.try_recv() {
            self.take(sound, mel);
        }
    }

    /// Waits for a sound that is being decoded.
    pub(super) fn wait(&mut self) {
        if let Ok((sound, mel)) = self.decoded.recv() {
            self.take(sound, mel);
        }
    }

    fn take(&mut self, sound: Sound, mel: Result<Mel>) {
        let windows = mel.as_ref().map_or(0, |m| m.shape()[0]);
        if let (Sound::Clip(clip) | Sound::Silence(clip) | Sound::Noise(clip), true) = (&sound, mel.is_ok()) {
            self.windows.insert(clip.clone(), windows);
        }
        let Some(entry) = self.all.get_mut(&sound) else {
            return;
        };
        if entry.users == 0 {
            self.all.remove(&sound);
            return;
        }
        entry.state = match (mel, &sound) {
            (Err(e), _) => State::Failed(e),
            (Ok(_), Sound::Silence(_)) => State::Silent(windows),
            (Ok(mel), _) => State::Mel(mel),
        };
    }

    /// Whether its turn may come now.
    pub(super) fn turn(&self, sound: &Sound) -> Turn {
        match self.all.get(sound).map(|e| &e.state) {
            Some(State::Held(_)) => Turn::Held,
            Some(State::Failed(_)) => Turn::Failed,
            Some(State::Mel(mel)) => Turn::ToHear(mel.shape()[0]),
            Some(State::Silent(windows)) if self.silences.contains_key(windows) => Turn::Held,
            Some(State::Silent(windows)) => Turn::ToHear(*windows),
            Some(State::Encoding { .. }) => Turn::Encoding,
            Some(State::Known | State::Decoding) | None => Turn::No,
        }
    }

    /// Goes on with a sound, by at most one piece.
    ///
    /// # Errors
    /// Its file's, once: who asks about it after that has it decoded again.
    pub(super) fn advance(&mut self, sound: &Sound) -> Result<Progress> {
        self.clock += 1;
        self.begin(sound);
        let Some(entry) = self.all.get_mut(sound) else {
            return Ok(Progress::Decoding);
        };
        entry.used = self.clock;
        let state = std::mem::replace(&mut entry.state, State::Known);
        let (state, progress) = match state {
            State::Failed(e) => return Err(e),
            State::Held(held) => (State::Held(held.clone()), Progress::Ready(held)),
            State::Known | State::Decoding => (State::Decoding, Progress::Decoding),
            State::Silent(windows) => (State::Silent(windows), Progress::Ready(self.silence(windows)?)),
            State::Mel(mel) => self.encode(mel, Vec::new(), 0)?,
            State::Encoding {
                mel,
                features,
                windows,
            } => self.encode(mel, features, windows)?,
        };
        if let Some(entry) = self.all.get_mut(sound) {
            entry.state = state;
        }
        Ok(progress)
    }

    fn encode(&mut self, mel: Mel, mut features: Vec<Tensor>, at: usize) -> Result<(State, Progress)> {
        let windows = mel.shape()[0];
        // Always in pieces of one size: what else goes on changes no feature.
        let own = piece(self.model.device).min(windows - at);
        let part = mel.slice(s![at..at + own, .., ..]).to_owned();
        features.push(self.features(&part)?);
        self.encoded.1 += own as u64;
        if at + own < windows {
            let state = State::Encoding {
                mel,
                features,
                windows: at + own,
            };
            return Ok((state, Progress::Encoded));
        }
        let held = self.hear(&Tensor::cat(&features, 1), windows)?;
        Ok((State::Held(held.clone()), Progress::Ready(held)))
    }

    /// (1, W, tokens, D)
    fn features(&self, mel: &Array3<f32>) -> Result<Tensor> {
        let audio = Audio::from_mels([mel], self.model.device);
        let encode = || no_grad(|| self.model.model.encode(&audio, Mode::EVAL, false));
        self.model.compute(self.precision, encode)
    }

    fn silent_window(&mut self) -> Result<Tensor> {
        if self.silence.is_none() {
            self.silence = Some(self.features(&self.ears.silence(1))?);
            self.encoded.1 += 1;
        }
        Ok(self
            .silence
            .as_ref()
            .map_or_else(Tensor::new, Tensor::shallow_clone))
    }

    /// So many windows of silence.
    fn silence(&mut self, windows: usize) -> Result<Rc<Held>> {
        if let Some(held) = self.silences.get(&windows) {
            return Ok(held.clone());
        }
        let one = self.silent_window()?;
        let held = self.hear(&one.expand([1, windows as i64, -1, -1], false), windows)?;
        self.silences.insert(windows, held.clone());
        Ok(held)
    }

    fn hear(&mut self, features: &Tensor, windows: usize) -> Result<Rc<Held>> {
        self.encoded.0 += 1;
        let audio = Audio::windows_only(&[windows], self.model.device);
        let model = &self.model.model;
        let hear = || no_grad(|| model.hear_encoded(features, &audio, Mode::EVAL).by_head());
        Ok(Rc::new(Held {
            heard: self.model.compute(self.precision, hear)?,
            read: RefCell::default(),
        }))
    }

    /// What all of them take, in bytes. Of sounds that were given, the mels are somebody else's.
    pub(super) fn bytes(&self) -> u64 {
        let all = self.all.iter().map(|(sound, entry)| bytes_of(sound, entry));
        let silences = self.silences.values().map(|held| held.bytes());
        all.sum::<u64>() + silences.sum::<u64>() + self.silence.as_ref().map_or(0, tensor_bytes)
    }

    /// What one of them takes now, in bytes.
    pub(super) fn bytes_now(&self, sound: &Sound) -> u64 {
        let silence = self.silent_windows(sound).and_then(|w| self.silences.get(&w));
        match silence {
            Some(held) => held.bytes(),
            None => self.all.get(sound).map_or(0, |entry| bytes_of(sound, entry)),
        }
    }

    /// What a sound of so many windows takes at most, while it is heard: its mel, its features twice, keys and values.
    pub(super) fn bytes_to_hear(&self, windows: usize, element: u64) -> u64 {
        let (model, config) = (&self.model.model, &self.model.model.config);
        let features = windows as i64 * config.encoder.tokens_per_window() * config.encoder.width() * 4;
        mel_bytes(windows) + 2 * features as u64 + model.heard_bytes(windows, element)
    }
}

/// Of the mel of so many windows.
pub(super) fn mel_bytes(windows: usize) -> u64 {
    (windows * WINDOW_FRAMES * MEL_BINS * std::mem::size_of::<f32>()) as u64
}

fn bytes_of(sound: &Sound, entry: &Entry) -> u64 {
    let mel_bytes = |mel: &Mel| match sound {
        Sound::Given(_) => 0,
        _ => mel_bytes(mel.shape()[0]),
    };
    match &entry.state {
        State::Mel(mel) => mel_bytes(mel),
        State::Encoding { mel, features, .. } => {
            mel_bytes(mel) + features.iter().map(tensor_bytes).sum::<u64>()
        }
        State::Held(held) => held.bytes(),
        _ => 0,
    }
}

/// Whether a question about a sound can be taken up.
pub(super) enum Turn {
    /// Its file is not decoded.
    No,
    /// It cannot be heard, which is to be told.
    Failed,
    /// So many windows are to be encoded.
    ToHear(usize),
    /// Some of them were: it goes on before any other begins.
    Encoding,
    /// At once.
    Held,
}

/// Windows that are encoded at once.
fn piece(device: Device) -> usize {
    match device {
        Device::Cpu => 2,
        _ => 16,
    }
}

fn tensor_bytes(t: &Tensor) -> u64 {
    (t.numel() * t.kind().elt_size_in_bytes()) as u64
}
