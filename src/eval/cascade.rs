//! Models of short context and long sounds: a clip is cut into pieces, each is captioned once, and the items are asked of the captions
//! alone, as the paper evaluated the baselines of LongAudioBench.
//!
//! ```text
//! manifests ─► clips ─► pieces ─► less those that are captioned ─► asking.rs or endpoint.rs ─► RUN/NAME/captions.jsonl ─► before the question
//! ```

use super::question::InWords;
use super::questions::{About, Questions};
use crate::data::feed::{examples, Clip};
use crate::data::manifest::Manifest;
use crate::dist::Ranks;
use crate::error::{self, Error, Result};
use crate::generate::decoding::Decoding;
use crate::run::asked::Cascade;
use crate::run::captions::{self, Caption};
use crate::run::predictions::Prediction;
use crate::shapes::{Seconds, WINDOW_SECONDS};
use crate::text::tokenizer::Tokenizer;
use indexmap::IndexMap;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is asked of a piece where nothing else is said.
pub(crate) const PROMPT: &str =
    "Describe everything that is heard, in its order: sounds, speech and what is said, and music.";
/// Before the captions.
const HEAD: &str = "What is heard in a recording, piece by piece:";
/// Tokens of a caption: some sentences.
const MOST_TOKENS: usize = 128;
/// How often, and how many times, it is looked for what the first rank has written, which a shared file system may show late.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: usize = 20;

/// Items whose clips are captioned.
pub(super) struct Set<'a> {
    /// Where the captions lie.
    pub folder: PathBuf,
    pub manifest: &'a Path,
    /// Below it lie the sounds.
    pub root: &'a Path,
}

/// Whose clips are put in words, by whom.
pub(super) struct Wanted<'a> {
    pub cascade: &'a Cascade,
    pub sets: Vec<Set<'a>>,
    /// Only so many items of each set.
    pub limit: Option<usize>,
    /// As many are heard at once at most.
    pub windows: usize,
    /// Of a model at hand.
    pub tokenizer: Option<&'a Tokenizer>,
    /// A hash of whom is asked and how.
    pub evaluation: &'a str,
    /// Of a model at hand.
    pub ranks: Option<&'a Ranks>,
    /// Captions that are there are not used.
    pub afresh: bool,
}

/// The clips of all sets, in pieces.
struct Pieces {
    all: Vec<About>,
    /// Of each set by the place of a clip its pieces.
    of: Vec<IndexMap<String, Vec<usize>>>,
}

impl Wanted<'_> {
    /// The clips in words. `ask` has those pieces captioned that are not yet, and returns the captions by their questions' hashes, on the
    /// first rank.
    ///
    /// # Errors
    /// Pieces that are longer than the model hears; sounds that cannot be read; those of `ask`.
    pub(super) fn in_words(
        &self,
        ask: impl FnOnce(&Questions) -> Result<Option<HashMap<String, Vec<Prediction>>>>,
    ) -> Result<InWords> {
        let most = self.windows as f64 * WINDOW_SECONDS;
        if f64::from(self.cascade.seconds) > most {
            let e = Error::usage(format!(
                "--cascade {}: expected at most {most} s, the {} windows that are heard at once",
                self.cascade.seconds, self.windows
            ));
            return Err(e.hint("--windows says how many these are"));
        }
        let pieces = self.pieces()?;
        let questions = self.questions(&pieces.all)?;
        let hashes: Vec<&str> = questions.all.iter().map(|q| q.hash.as_str()).collect();
        let mut texts = match self.afresh {
            true => HashMap::new(),
            false => self.known()?,
        };
        let mut missing = Vec::new();
        for (about, hash) in pieces.all.iter().zip(&hashes) {
            if !texts.contains_key(*hash) {
                missing.push(about.clone());
            }
        }
        let first = self.ranks.is_none_or(|ranks| ranks.first());
        if first && !missing.is_empty() {
            crate::say!(
                "cascade: {} pieces of {} s, {} to caption",
                pieces.all.len(),
                self.cascade.seconds,
                missing.len()
            );
        }
        if !missing.is_empty() {
            let answers = ask(&self.questions(&missing)?)?;
            for (hash, answers) in answers.into_iter().flatten() {
                texts.extend(answers.into_iter().next().map(|a| (hash, a.prediction)));
            }
        }
        if first {
            self.write(&pieces, &hashes, &texts)?;
        }
        if let Some(ranks) = self.ranks.filter(|ranks| ranks.many()) {
            ranks.barrier()?;
            for _ in 0..LOOKS {
                if hashes.iter().all(|hash| texts.contains_key(*hash)) {
                    break;
                }
                texts.extend(self.known()?);
                std::thread::sleep(LOOK);
            }
        }
        let mut before = HashMap::new();
        for (place, own) in pieces.of.iter().flatten() {
            let own = own.iter().map(|i| {
                let text = texts.get(hashes[*i]).ok_or_else(|| {
                    let e = Error::data(
                        &self.sets[0].folder,
                        "captions.jsonl",
                        "a caption of each piece",
                        "less",
                    );
                    e.hint("all ranks write into the run's folder: do their hosts share it?")
                })?;
                Ok((&pieces.all[*i].clip, text.as_str()))
            });
            let own = own.collect::<Result<Vec<_>>>()?;
            before.insert(place.clone(), in_words(&own));
        }
        Ok(InWords {
            condition: self.cascade.condition(),
            before,
        })
    }

    /// Cuts each clip once, whichever items are about it.
    fn pieces(&self) -> Result<Pieces> {
        let mut clips: Vec<Clip> = Vec::new();
        let mut of: Vec<Vec<Clip>> = Vec::new();
        for set in &self.sets {
            let manifest = Manifest::open(set.manifest)?;
            let limit = self.limit.unwrap_or(usize::MAX);
            let items = examples(&manifest, set.root, self.windows, limit)?;
            of.push(items.into_iter().map(|example| example.clip).collect());
        }
        let mut seen = HashSet::new();
        clips.extend(of.iter().flatten().filter(|clip| seen.insert(*clip)).cloned());
        let cut: Vec<Result<(String, Vec<Clip>)>> = (clips.par_iter())
            .map(|clip| {
                Ok((
                    clip.fingerprint()?.to_hex().to_string(),
                    clip.pieces(self.cascade.seconds)?,
                ))
            })
            .collect();
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        let (mut by_place, mut places) = (HashMap::new(), HashMap::new());
        for (clip, cut) in clips.iter().zip(cut) {
            let (sound, cut) = match cut {
                Ok(cut) => cut,
                Err(e) => {
                    errors.push(e);
                    continue;
                }
            };
            let place = InWords::place(&sound, clip);
            // Another file may hold the same sound.
            let own: &Vec<usize> = by_place.entry(place.clone()).or_insert_with(|| {
                let from = all.len();
                all.extend(cut.into_iter().map(|piece| About {
                    key: format!("{} [{}]", piece.path().display(), span(&piece, clip)),
                    sound: sound.clone(),
                    clip: piece,
                }));
                (from..all.len()).collect()
            });
            places.insert(clip, (place, own.clone()));
        }
        error::all(errors)?;
        let of = of
            .iter()
            .map(|own| own.iter().filter_map(|clip| places.get(clip).cloned()).collect());
        Ok(Pieces {
            of: of.collect(),
            all,
        })
    }

    fn questions(&self, pieces: &[About]) -> Result<Questions> {
        let decoding = Decoding {
            max_new_tokens: MOST_TOKENS,
            ..Decoding::default()
        };
        Questions::about("caption", pieces, &self.cascade.prompt, &decoding, self.tokenizer)
    }

    /// The captions of this evaluation that are there.
    fn known(&self) -> Result<HashMap<String, String>> {
        let mut all = HashMap::new();
        for set in &self.sets {
            let own = captions::read(&set.folder)?.into_iter();
            let own = own.filter(|caption| caption.evaluation == self.evaluation);
            all.extend(own.map(|caption| (caption.question, caption.caption)));
        }
        Ok(all)
    }

    /// Writes each set's captions, beside those of other models, pieces and words.
    fn write(&self, pieces: &Pieces, hashes: &[&str], texts: &HashMap<String, String>) -> Result<()> {
        for (set, own) in self.sets.iter().zip(&pieces.of) {
            let before = captions::read(&set.folder)?;
            let own: Vec<usize> = own.values().flatten().copied().collect();
            let mine: HashSet<&str> = own.iter().map(|i| hashes[*i]).collect();
            let others = |caption: &&Caption| {
                caption.evaluation != self.evaluation || !mine.contains(caption.question.as_str())
            };
            let mut all: Vec<Caption> = before.iter().filter(others).cloned().collect();
            for i in own {
                let About { sound, clip, .. } = &pieces.all[i];
                let Seconds(start) = clip.span().start;
                all.extend(texts.get(hashes[i]).map(|caption| Caption {
                    evaluation: self.evaluation.to_owned(),
                    question: hashes[i].to_owned(),
                    sound: sound.clone(),
                    path: clip.path().display().to_string(),
                    start,
                    end: start + clip.span().duration.0,
                    prompt: self.cascade.prompt.clone(),
                    caption: caption.clone(),
                }));
            }
            if all != before {
                captions::write(&set.folder, &all)?;
            }
        }
        Ok(())
    }
}

/// A clip's captions, each with its time in the clip, before a question.
fn in_words(pieces: &[(&Clip, &str)]) -> String {
    let mut text = HEAD.to_owned();
    for (piece, caption) in pieces {
        // One line each, whatever the model has written.
        let caption: Vec<&str> = caption.split_whitespace().collect();
        text += &format!("\n[{}] {}", span(piece, pieces[0].0), caption.join(" "));
    }
    text + "\n\n"
}

/// When a piece is heard, counted from where its clip begins, in whole seconds: 0:30-1:00.
fn span(piece: &Clip, clip: &Clip) -> String {
    let start = piece.span().start.0 - clip.span().start.0;
    let end = start + piece.span().duration.0;
    let time = |seconds: f64| {
        let whole = seconds as u64;
        match whole / 3600 {
            0 => format!("{}:{:02}", whole / 60, whole % 60),
            hours => format!("{hours}:{:02}:{:02}", whole / 60 % 60, whole % 60),
        }
    };
    // Microseconds are no further second.
    format!("{}-{}", time(start + 1e-5), time((end - 1e-5).ceil()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_stand_in_order_with_their_times_in_the_clip() {
        let piece = |from: f64, long: f64| Clip::new("a.wav".into(), Seconds(from), 3).within(Seconds(long));
        let pieces = [
            piece(5.0, 30.0),
            piece(35.0, 30.0),
            piece(65.0, 4.4),
            piece(3665.0, 30.0),
        ];
        let texts = ["a dog barks.\n\nThen rain.", "", "a bell", "an end"];
        let own: Vec<(&Clip, &str)> = pieces.iter().zip(texts).collect();
        let expected = "What is heard in a recording, piece by piece:\n[0:00-0:30] a dog barks. Then rain.\n[0:30-1:00] \n\
                        [1:00-1:05] a bell\n[1:01:00-1:01:30] an end\n\n";
        assert_eq!(in_words(&own), expected);
    }

    #[test]
    fn a_sound_is_cut_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, samples: usize| {
            let path = folder.path().join(name);
            let spec = hound::WavSpec {
                channels: 1,
                sample_rate: 16_000,
                bits_per_sample: 16,
                sample_format: hound::SampleFormat::Int,
            };
            let mut out = hound::WavWriter::create(&path, spec).unwrap();
            (0..samples).for_each(|i| out.write_sample((i % 100) as i16).unwrap());
            out.finalize().unwrap();
            path
        };
        let lengths = |path: &Path, start: f64, seconds: u32| -> Vec<(f64, f64, usize)> {
            let clip = Clip::new(path.to_owned(), Seconds(start), 1);
            let all = clip.pieces(seconds).unwrap().into_iter();
            all.map(|p| (p.span().start.0, p.span().duration.0, p.windows))
                .collect()
        };
        let long = write("long.wav", 16_000 * 25);
        assert_eq!(
            lengths(&long, 0.0, 10),
            [(0.0, 10.0, 1), (10.0, 10.0, 1), (20.0, 5.0, 1)]
        );
        assert_eq!(lengths(&long, 4.0, 12), [(4.0, 12.0, 2), (16.0, 9.0, 2)]);
        assert_eq!(lengths(&long, 0.0, 25), [(0.0, 25.0, 3)]);
        assert_eq!(lengths(&long, 0.0, 30), [(0.0, 25.0, 3)]);
        // What a decoder may not give.
        let rest = write("rest.wav", 16_000 * 20 + 200);
        assert_eq!(lengths(&rest, 0.0, 10).len(), 2);
        assert_eq!(lengths(&long, 30.0, 10), [(30.0, 10.0, 1)]);
    }
}
