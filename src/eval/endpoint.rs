//! The same questions asked of a server that speaks OpenAI's chat completions and takes sounds: the same predictions, rules and tables.

use super::benchmarks::{finish, in_words, prepare, Request};
use super::control::Control;
use super::question::{Question, Way};
use super::questions::Questions;
use super::standing::Standing;
use crate::data::feed::Clip;
use crate::error::{Error, Result};
use crate::generate::decoding::Decoding;
use crate::generate::engine::Sound;
use crate::generate::Answer;
use crate::llm::{self, Answers, Audio, Message, Outcome, Part, Role, Sampling};
use crate::progress::Progress;
use crate::run::predictions::Prediction;
use crate::shapes::SAMPLE_RATE;
use std::collections::HashMap;
use std::io::Cursor;

/// Requests that are held at once: those about made sounds hold these.
const AT_ONCE: usize = 256;
/// Names of files that are sent as they are: what the form of OpenAI's API knows.
const AS_THEY_ARE: [&str; 2] = ["wav", "mp3"];

/// Asks a server all questions of the benchmarks, each way, and writes what [`super::benchmarks::ask`] writes. `windows`: as many of
/// 10 s a cut or made sound has at most; a file is sent whole, and the server hears what it hears of it.
///
/// What was answered is in the client's store, so that the same command asks only what is left.
///
/// # Errors
/// A way to ask that no server has; all questions that have no answer, after the others were asked; those of
/// [`super::benchmarks::ask`].
pub(crate) fn ask(
    request: &Request,
    server: &dyn Answers,
    host: &str,
    model: &str,
    windows: usize,
) -> Result<()> {
    if request.way == Way::Weighed || request.controls.contains(&Control::Likelihood) {
        let e = Error::usage("the likelihood of options: expected a model at hand, found --endpoint");
        return Err(e.hint("servers do not say how likely a given answer is: --answer generate"));
    }
    let whom = serde_json::json!([host, model, env!("CARGO_PKG_VERSION")]).to_string();
    let whom = blake3::hash(whom.as_bytes()).to_hex().to_string();
    let to = Server {
        answers: server,
        host,
        model,
    };
    let in_words = in_words(request, windows, None, &whom, None, |questions| {
        let all = questions.all.iter().collect();
        to.ask("captions", questions, all).map(Some)
    })?;
    let prepared = prepare(request, windows, None, whom, in_words.as_ref(), true)?;
    let questions = &prepared.questions;
    for set in &questions.sets {
        if set.decoding.num_beams > 1 {
            let e = Error::usage(format!(
                "{}: its card wants {} beams, and servers have none",
                set.name, set.decoding.num_beams
            ));
            return Err(e.hint("--temperature 0 asks greedily"));
        }
    }
    let left = prepared.outputs.iter().flat_map(|o| o.questions(questions));
    let answers = to.ask("evaluate", questions, left.collect())?;
    for output in &prepared.outputs {
        output.write(questions, &answers)?;
    }
    finish(request, &prepared)
}

/// Who is asked.
struct Server<'a> {
    answers: &'a dyn Answers,
    host: &'a str,
    model: &'a str,
}

impl Server<'_> {
    /// The answers to these questions, by their hashes.
    ///
    /// # Errors
    /// All questions that have no answer, after the others were asked.
    fn ask(
        &self,
        what: &str,
        questions: &Questions,
        mut left: Vec<&Question>,
    ) -> Result<HashMap<String, Vec<Prediction>>> {
        // Questions about one sound together.
        left.sort_by_key(|q| (q.item, q.control));
        let progress = Progress::new(&format!("{what}: ask"), left.len() as u64);
        let mut standing = Standing::new(questions, left.iter().copied());
        let mut answers: HashMap<String, Vec<Prediction>> = HashMap::new();
        let mut failed = Vec::new();
        for some in left.chunks(AT_ONCE) {
            let asked = some.iter().flat_map(|q| {
                let samples = questions.sets[q.set].decoding.num_return_sequences;
                (0..samples).map(move |sample| (*q, sample))
            });
            let asked: Vec<(&Question, usize)> = asked.collect();
            let requests = asked
                .iter()
                .map(|(q, sample)| worded(questions, q, *sample, self.model));
            let requests = requests.collect::<Result<Vec<_>>>()?;
            self.answers.answers(&requests, &mut |at, outcome: Outcome| {
                let (question, sample) = asked[at];
                match outcome {
                    Ok(answer) => {
                        let prediction = Prediction {
                            sample,
                            ..questions.prediction(question, said(answer), 0.0)
                        };
                        standing.add(question, std::slice::from_ref(&prediction));
                        progress.message(&standing.told(question.set));
                        answers.entry(question.hash.clone()).or_default().push(prediction);
                    }
                    Err(failure) => failed.push(Error::data(
                        self.host,
                        format!("item {}", questions.items[question.item].1.item.key),
                        "an answer",
                        failure.message,
                    )),
                }
                progress.inc(1);
                Ok(())
            })?;
        }
        progress.finish("");
        if !failed.is_empty() {
            crate::say!("{what}: {} questions have no answer; those that are there are stored, and the same command asks only what is left", failed.len());
            failed.truncate(20);
            crate::error::all(failed)?;
        }
        answers
            .values_mut()
            .for_each(|samples| samples.sort_by_key(|p| p.sample));
        Ok(answers)
    }
}

/// A question as a server is asked it: the sound, then the words.
fn worded(questions: &Questions, question: &Question, sample: usize, model: &str) -> Result<llm::Request> {
    let mut parts: Vec<Part> = audio(&question.sound)?.into_iter().map(Part::Audio).collect();
    parts.push(Part::Text(questions.words(question).into_owned()));
    let Decoding {
        do_sample,
        temperature,
        top_p,
        max_new_tokens,
        seed,
        ..
    } = questions.sets[question.set].decoding;
    Ok(llm::Request {
        model: model.to_owned(),
        messages: vec![Message {
            role: Role::User,
            parts,
        }],
        sampling: Sampling {
            temperature: Some(if do_sample { temperature } else { 0.0 }),
            top_p: do_sample.then_some(top_p),
            max_tokens: Some(max_new_tokens as u32),
            seed: do_sample.then_some(seed.wrapping_add(sample as u64)),
        },
        schema: None,
        run: sample as u32,
        about: format!("item {}", questions.items[question.item].1.item.key),
    })
}

fn said(answer: llm::Answer) -> Answer {
    Answer {
        // A refusal by a field of its own is an answer, too: rules know refusals.
        text: match (answer.text.is_empty(), answer.refusal) {
            (true, Some(refusal)) => refusal,
            _ => answer.text,
        },
        tokens: Vec::new(),
        logprobs: Vec::new(),
        score: 0.0,
        least_lead: None,
    }
}

/// What is sent of a sound.
fn audio(sound: &Sound) -> Result<Option<Audio>> {
    let windows = |all: Vec<Vec<f32>>| all.concat();
    let made = |samples: Vec<f32>| wav(&samples).map(|bytes| Some(Audio::of_bytes(bytes, "wav")));
    match sound {
        Sound::Nothing => Ok(None),
        Sound::Clip(clip) => match whole(clip) {
            Some(format) => Audio::of_file(clip.path(), format).map(Some),
            None => made(windows(clip.samples()?)),
        },
        Sound::Silence(clip) => made(windows(clip.samples()?).iter().map(|_| 0.0).collect()),
        Sound::Noise(clip) => made(windows(clip.noise()?)),
        Sound::Given(given) => Err(Error::data(
            &given.key,
            "sound",
            "a file's, which a server can be sent",
            "one in memory",
        )),
    }
}

/// How a file is called that is sent as it is; none of a piece of one, and of forms that servers do not know by name.
fn whole(clip: &Clip) -> Option<&'static str> {
    if clip.source.container.is_some() || clip.span().start.0 > 0.0 || clip.is_cut() {
        return None;
    }
    let extension = clip.path().extension()?.to_str()?.to_ascii_lowercase();
    AS_THEY_ARE.into_iter().find(|known| *known == extension)
}

/// 16 kHz, one channel, 16 bits.
fn wav(samples: &[f32]) -> Result<Vec<u8>> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let failed = |e: hound::Error| Error::audio("a sound to send", "a WAV in memory", e.to_string());
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).map_err(failed)?;
    for sample in samples {
        writer
            .write_sample((sample * 32767.0).round() as i16)
            .map_err(failed)?;
    }
    writer.finalize().map_err(failed)?;
    Ok(bytes.into_inner())
}
