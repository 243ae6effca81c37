//! Answers: prefill, then one token at a time, with the text's keys and values cached and the audio's computed once.

mod ask;
pub mod beam;
pub(crate) mod chat;
pub mod decoding;
pub mod engine;
pub mod likelihood;
pub mod sampling;
mod sequence;
pub mod stop;
pub mod streaming;
mod texts;
pub mod thinking;
pub mod warp;

pub use ask::{answers, ask, hear, Answer};
pub(crate) use ask::{answers_to, in_words};

use crate::error::Result;
use crate::load::Loaded;
use crate::model::flamingo::{Flamingo, Heard};
use beam::Beams;
use decoding::Decoding;
use sampling::Sampler;
use sequence::{lead, least, no_token};
pub use sequence::{Sequence, NEAR_TIE};
use stop::Stop;
use tch::{no_grad, Kind, Tensor};
use texts::Texts;

/// When to stop, and whether to keep the caches: all that a single answer without further rules needs. [`Decoding`] has those.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most tokens of the answer.
    pub max_new_tokens: usize,
    /// Ends the answer, and is part of it.
    pub eos: i64,
    /// Without it every step recomputes the whole text: slower, the same tokens; for checking.
    pub cache: bool,
}

impl Options {
    /// At most 256 tokens, up to the end of text of the model's tokenizer, with the caches.
    pub fn new(model: &Loaded) -> Self {
        Options {
            max_new_tokens: 256,
            eos: model.tokenizer.eos,
            cache: true,
        }
    }
}

/// Generates for one clip and one prompt.
///
/// `prompt` are token ids, `heard` the clip's audio (batch 1). Returns the new ids, the end of text included
/// where it came. Reference: `model.generate` of the release tree's inference script.
pub fn generate(
    model: &Flamingo,
    heard: &Heard,
    prompt: &[i64],
    options: &Options,
    sampler: &mut Sampler,
) -> Vec<i64> {
    // Without stop strings there is no text that could be wrong.
    single(model, heard, prompt, options, sampler).map_or(Vec::new(), |s| s.tokens)
}

/// [`generate`], with the log-probabilities.
fn single(
    model: &Flamingo,
    heard: &Heard,
    prompt: &[i64],
    options: &Options,
    sampler: &mut Sampler,
) -> Result<Sequence> {
    let decoding = Decoding {
        max_new_tokens: options.max_new_tokens,
        ..Decoding::default()
    };
    let job = Job {
        model,
        heard,
        prompt,
        decoding: &decoding,
        stop: &Stop::at(options.eos),
        cache: options.cache,
    };
    no_grad(|| {
        let (texts, logits) = job.read(&[&[]]);
        job.sequence(texts, logits, sampler)
    })
}

/// One prompt about one clip, and how it is to be answered.
pub struct Job<'a> {
    /// What answers.
    pub model: &'a Flamingo,
    /// Batch 1: beams and samples share it.
    pub heard: &'a Heard,
    /// Token ids.
    pub prompt: &'a [i64],
    /// Checked: see [`Decoding::check`].
    pub decoding: &'a Decoding,
    /// Where an answer ends.
    pub stop: &'a Stop<'a>,
    /// Without it every step recomputes the whole text: slower, the same tokens; for checking.
    pub cache: bool,
}

impl Job<'_> {
    /// The sequences that were asked for, the best first or sample by sample. The prompt is read once for all. `item` names the job
    /// among others, see [`Sampler::of`].
    ///
    /// # Errors
    /// A text that cannot be decoded; beams that no token may follow.
    pub fn run(&self, item: &str) -> Result<Vec<Sequence>> {
        no_grad(|| {
            let (texts, logits) = self.read(&[&[]]);
            if self.decoding.num_beams > 1 {
                return self.beams(texts, logits);
            }
            let (rule, seed) = (self.decoding.sampling(), self.decoding.seed);
            (0..self.decoding.num_return_sequences as u64)
                .map(|sample| {
                    let mut sampler = Sampler::of(rule, seed, item, sample);
                    self.sequence(texts.fork(), logits.shallow_clone(), &mut sampler)
                })
                .collect()
        })
    }

    /// Reads the prompt and what follows it in each row.
    fn read(&self, rows: &[&[i64]]) -> (Texts<'_>, Tensor) {
        let rows: Vec<Vec<i64>> = rows.iter().map(|new| [self.prompt, new].concat()).collect();
        Texts::read(self.model, self.heard, &rows)
    }

    /// `scores_v` (V) after the processors, `new` being the answer so far.
    fn process(&self, scores_v: &Tensor, new: &[i64]) -> Tensor {
        let ids = [self.prompt, new].concat();
        warp::process(self.decoding, scores_v, &ids, new.len(), &self.stop.tokens)
    }

    /// `logits` (1, V) of what follows the prompt.
    fn sequence(&self, mut texts: Texts, mut logits: Tensor, sampler: &mut Sampler) -> Result<Sequence> {
        let (mut new, mut logprobs, mut least_lead) = (Vec::new(), Vec::new(), None::<f32>);
        while new.len() < self.decoding.max_new_tokens {
            let row = logits.squeeze_dim(0);
            let scores = self.process(&row, &new);
            let next = sampler.next(&scores);
            if !self.decoding.do_sample {
                least_lead = least(least_lead, lead(&scores));
            }
            logprobs.push((row.double_value(&[next]) - row.logsumexp(0, false).double_value(&[])) as f32);
            new.push(next);
            // What would follow the last token is not asked for.
            if new.len() == self.decoding.max_new_tokens || self.stop.ended(&new)? {
                break;
            }
            logits = match self.cache {
                true => texts.append(&[next]),
                false => self.read(&[&new]).1,
            };
        }
        let sum = logprobs.iter().map(|p| f64::from(*p)).sum();
        Ok(Sequence {
            score: self.decoding.score(sum, new.len()),
            tokens: new,
            logprobs,
            least_lead,
        })
    }

    /// `logits` (1, V) of what follows the prompt.
    fn beams(&self, mut texts: Texts, mut logits: Tensor) -> Result<Vec<Sequence>> {
        let mut beams = Beams::new(self.decoding, self.stop.tokens.len());
        while let Some(step) = self.beams_step(&mut beams, &logits)? {
            if self.cache {
                texts.select(&step.from);
                logits = texts.append(&step.tokens);
            } else {
                logits = self.read(&beams.running().collect::<Vec<_>>()).1;
            }
        }
        let found = beams.finish();
        match found.is_empty() {
            false => Ok(found),
            true => Err(no_token()),
        }
    }

    /// The next token of each beam, of `logits` (R, V). None: the search is done.
    fn beams_step(&self, beams: &mut Beams, logits: &Tensor) -> Result<Option<beam::Step>> {
        let logprobs = logits.log_softmax(-1, Kind::Float);
        let rows = beams.running().zip(0..);
        let scores: Vec<Tensor> = rows.map(|(new, i)| self.process(&logprobs.get(i), new)).collect();
        let scores = Tensor::stack(&scores, 0);
        beams.step(&logprobs, &scores, &mut |new| self.stop.ended(new))
    }
}
