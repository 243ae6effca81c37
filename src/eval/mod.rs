//! Asking a model the questions of manifests. Scoring is apart: it reads what this writes, and needs no model.
//!
//! ```text
//! manifests ─► questions ─► less those that are answered ─► dealt out by clips ─► Engine ─► predictions.partial/… ─► predictions.jsonl
//! ```
//!
//! Every answer is on the disk before the next is waited for; what is killed goes on with the questions that are left.

pub mod captions;
mod deal;
mod json;
pub mod judge;
mod questions;
pub mod rules;
pub(crate) mod score;
pub mod scoring;

use crate::data::feed::Ears;
use crate::dist::Ranks;
use crate::error::{self, Error, Result};
use crate::fsutil::write_atomic;
use crate::generate::decoding::Decoding;
use crate::generate::engine::{Ask, Engine, Event, Found, Settings, Sound, Ticket, Wanted};
use crate::generate::NEAR_TIE;
use crate::load::Loaded;
use crate::progress::Progress;
use crate::recipe::{EvalRecipe, Recipe};
use crate::run::journal::{self, Journal, Line};
use crate::run::predictions::{self, Prediction};
use questions::{Question, Questions};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// So many times the slots may wait in the engine: enough for it to hear the next clips ahead.
const AHEAD: usize = 4;
/// How often, and how many times, it is looked for answers of another host, whose files a shared file system may show late.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: usize = 20;

/// Asks every question of the recipe's evaluation sets, with the clip and, where wanted, with silence in its place; writes
/// `predictions.jsonl` into the run's folder, one JSON object a line, whole or not at all. Of several ranks each asks about its
/// part of the clips, and the first writes.
///
/// Answers that an unfinished evaluation of the same model has left in the folder are taken as they are, unless it is to begin
/// `afresh`. Under `eval.precision: amp_bf16` the model can only be asked afterwards, see [`Loaded::ask_in`].
///
/// # Errors
/// All sound files that cannot be read, before anything is asked; all questions that have no answer, after the others were asked,
/// whose answers are kept for the next time. A score over fewer questions than the benchmark has is another score.
pub fn run(recipe: &Recipe, eval: &EvalRecipe, model: &Loaded, ranks: &Ranks, afresh: bool) -> Result<()> {
    let questions = Questions::read(recipe, eval, model)?;
    let decoding = eval.decoding();
    if let Some(wrong) = decoding.check_vocabulary(model.model.config.vocab as usize) {
        let expected = format!("eval.decoding.{}: expected {}", wrong.key, wrong.expected);
        return Err(Error::recipe(
            &recipe.name,
            format!("{expected}, found {}", wrong.found),
        ));
    }
    let evaluation = questions::evaluation(model, eval, &decoding)?;
    let mut facts = questions.sets.clone();
    facts.push(("the model's weights and tokenizer".into(), evaluation.clone()));
    ranks.agree("evaluate: what is asked", &facts)?;
    let job = Job {
        questions: &questions,
        folder: journal::folder(&recipe.output, &evaluation),
        evaluation,
        eval,
        model,
        decoding,
        ranks,
    };
    let answered = job.answered(&recipe.output, afresh)?;
    model.ask_in(eval.precision)?;
    // A clip is heard once: there is no second time to keep its mel for.
    let ears = Ears::new(0).on_threads(match recipe.data.threads {
        0 => ranks.cores(),
        n => n,
    })?;
    let failed = job.ask(&answered, ears)?;
    job.told(failed)?;
    if !ranks.first() {
        return Ok(());
    }
    job.merge(&predictions::path(&recipe.output))?;
    journal::remove(&job.folder)
}

struct Job<'a> {
    questions: &'a Questions,
    /// A hash of whom is asked and how.
    evaluation: String,
    /// Where its answers lie until all are there.
    folder: std::path::PathBuf,
    eval: &'a EvalRecipe,
    model: &'a Loaded,
    decoding: Decoding,
    ranks: &'a Ranks,
}

impl Job<'_> {
    /// Which questions have their answers, as the first rank finds them.
    fn answered(&self, run: &Path, afresh: bool) -> Result<Vec<bool>> {
        let all = &self.questions.all;
        let mut answered = vec![0.0; all.len()];
        if self.ranks.first() {
            if afresh {
                journal::remove(&self.folder)?;
            }
            let there = self.answers()?;
            for (place, question) in answered.iter_mut().zip(all) {
                *place = f64::from(u8::from(there.contains_key(question.hash.as_str())));
            }
            let n = answered.iter().filter(|a| **a > 0.0).count();
            if !there.is_empty() {
                crate::say!("{}", goes_on(n, all.len(), there.len()));
            }
            let others = others(&journal::folders(run), &self.folder);
            if others > 0 {
                crate::say!(
                    "evaluate: {} also holds answers of {others} unfinished evaluation(s) of another model or with other settings; \
                     they are not used",
                    journal::folders(run).display()
                );
            }
        }
        self.ranks.of_first(&mut answered)?;
        Ok(answered.into_iter().map(|a| a > 0.0).collect())
    }

    /// The answers in the folder by the hashes of their questions, all samples of each. Where a sample is there twice, the first; a
    /// question that lacks some is asked again.
    fn answers(&self) -> Result<HashMap<String, Vec<Prediction>>> {
        let mut all: HashMap<String, Vec<Prediction>> = HashMap::new();
        for line in journal::read(&self.folder)? {
            if line.evaluation != self.evaluation {
                continue;
            }
            let samples = all.entry(line.question).or_default();
            if samples.iter().all(|p| p.sample != line.prediction.sample) {
                samples.push(line.prediction);
            }
        }
        all.retain(|_, samples| samples.len() == self.decoding.num_return_sequences);
        all.values_mut()
            .for_each(|samples| samples.sort_by_key(|p| p.sample));
        Ok(all)
    }

    /// This rank's questions, clip by clip: with the clip, then with silence.
    fn own(&self, answered: &[bool]) -> Vec<&Question> {
        let questions = self.questions;
        let mut left: Vec<Vec<&Question>> = vec![Vec::new(); questions.items.len()];
        // The same item of the same manifest in two sets is asked once.
        let mut seen = HashSet::new();
        for (question, answered) in questions.all.iter().zip(answered) {
            if !answered && seen.insert(question.hash.as_str()) {
                left[question.item].push(question);
            }
        }
        let of_clip = |clip: &Vec<usize>| -> Vec<&Question> {
            let mut all: Vec<&Question> = clip.iter().flat_map(|i| &left[*i]).copied().collect();
            all.sort_by_key(|q| q.control);
            all
        };
        let clips: Vec<Vec<&Question>> = questions.clips.iter().map(of_clip).collect();
        let work: Vec<u64> = (clips.iter().enumerate())
            .map(|(i, own)| own.len() as u64 * questions.windows(i))
            .collect();
        let owners = deal::deal(&work, self.ranks.world);
        let own = clips.into_iter().zip(owners);
        own.filter(|(_, owner)| *owner == self.ranks.rank)
            .flat_map(|(clip, _)| clip)
            .collect()
    }

    /// Asks this rank's part and waits for the others'. Returns the errors of questions that have no answer.
    fn ask(&self, answered: &[bool], ears: Ears) -> Result<Vec<Error>> {
        let settings = Settings {
            slots: self.eval.slots,
            memory: self.eval.memory,
            precision: self.eval.precision,
            ..Settings::default()
        };
        let mut engine = Engine::new(self.model, Arc::new(ears), settings);
        let mut journal = Journal::new(self.folder.clone(), self.ranks.rank);
        let before = answered.iter().filter(|a| **a).count() as u64;
        let progress = Progress::new("evaluate: ask", answered.len() as u64);
        progress.resume(before);
        let mut watch = self.ranks.watch();
        let mut left = self.own(answered).into_iter();
        let mut asked: HashMap<Ticket, &Question> = HashMap::new();
        let (mut done, mut failed) = (0, Failed::default());
        loop {
            while engine.waiting() < AHEAD * self.eval.slots {
                let Some(question) = left.next() else { break };
                asked.insert(engine.submit(self.ask_of(question)?), question);
            }
            if engine.idle() {
                break;
            }
            for event in engine.step()? {
                let Event::Done {
                    ticket,
                    found,
                    seconds,
                } = event
                else {
                    continue;
                };
                let Some(question) = asked.remove(&ticket) else {
                    continue;
                };
                match found {
                    Ok(found) => {
                        for line in self.lines(question, found, seconds)? {
                            journal.add(&line)?;
                        }
                    }
                    Err(e) => failed.add(e),
                }
                done += 1;
            }
            journal.sync_if_due()?;
            progress.set(before + watch.moved(done)?);
        }
        journal.close()?;
        watch.moved(done)?;
        watch.finish(|all| progress.set(before + all))?;
        progress.set(answered.len() as u64);
        progress.finish("");
        Ok(failed.errors)
    }

    fn ask_of(&self, question: &Question) -> Result<Ask> {
        let example = &self.questions.items[question.item].1;
        let clip = example.clip.clone();
        Ok(Ask {
            sound: match question.control {
                false => Sound::Clip(clip),
                true => Sound::Silence(clip),
            },
            prompt: self.model.tokenizer.question(&example.item.prompt)?,
            wanted: Wanted::Answers(self.decoding.clone()),
            item: question.hash.clone(),
            stream: false,
        })
    }

    /// The samples of an answer, one a line.
    fn lines(&self, question: &Question, found: Found, seconds: f64) -> Result<Vec<Line>> {
        let Found::Said(said) = found else {
            return Err(Error::recipe(
                "eval",
                "the engine weighed choices where an answer was asked for",
            ));
        };
        let wanted = self.decoding.num_return_sequences;
        if said.len() != wanted {
            let message = format!("the engine returned {} answers of {wanted}", said.len());
            return Err(Error::recipe("eval", message));
        }
        let line = |(sample, answer)| Line {
            evaluation: self.evaluation.clone(),
            question: question.hash.clone(),
            prediction: Prediction {
                sample,
                ..self.questions.prediction(question, answer, seconds)
            },
        };
        Ok(said.into_iter().enumerate().map(line).collect())
    }

    /// Ends all ranks where any of them has questions without an answer: each tells its own.
    fn told(&self, failed: Vec<Error>) -> Result<()> {
        let mut by_rank = vec![0.0; self.ranks.world];
        by_rank[self.ranks.rank] = failed.len() as f64;
        self.ranks.sum(&mut by_rank)?;
        if by_rank.iter().all(|n| *n == 0.0) {
            return Ok(());
        }
        if self.ranks.first() {
            crate::say!("evaluate: answers that are there are kept: the same command asks only what is left");
        }
        error::all(failed)?;
        let with: Vec<String> = (0..self.ranks.world)
            .filter(|r| by_rank[*r] > 0.0)
            .map(|r| r.to_string())
            .collect();
        Err(Error::Ranks {
            message: format!(
                "rank {}: questions of rank {} have no answer; it says which",
                self.ranks.rank,
                with.join(", ")
            ),
            hint: None,
        })
    }

    /// Writes all answers in the order of the manifests.
    fn merge(&self, to: &Path) -> Result<()> {
        let all = &self.questions.all;
        let mut answers = self.answers()?;
        let missing = |answers: &HashMap<String, Vec<Prediction>>| {
            all.iter()
                .filter(|q| !answers.contains_key(q.hash.as_str()))
                .count()
        };
        let looks = if self.ranks.many() { LOOKS } else { 0 };
        for _ in 0..looks {
            if missing(&answers) == 0 {
                break;
            }
            std::thread::sleep(LOOK);
            answers = self.answers()?;
        }
        let lacks = missing(&answers);
        if lacks > 0 {
            let expected = format!("the answers to {} questions", all.len());
            let e = Error::data(&self.folder, "answers", expected, format!("{lacks} less"));
            return Err(e.hint("all ranks write into the run's folder: do their hosts share it?"));
        }
        let of = |q: &Question| answers.get(q.hash.as_str()).map_or(&[][..], Vec::as_slice);
        let near = all.iter().flat_map(of).filter(|p| p.near_tie).count();
        if near > 0 {
            crate::say!(
                "note: {near} of {} answers hold a token that led the next one by less than {NEAR_TIE}: other slots or processes may \
                 give another; `near_tie` in {} marks them",
                all.len() * self.decoding.num_return_sequences,
                to.display()
            );
        }
        write_atomic(to, |out| {
            for prediction in all.iter().flat_map(of) {
                let line = prediction
                    .line()
                    .map_err(|e| Error::data(to, "prediction", "JSON", e.to_string()))?;
                out.write_all(line.as_bytes()).map_err(|e| Error::io(to, e))?;
            }
            Ok(())
        })
    }
}

/// Errors of questions, each once: a clip that cannot be heard has several.
#[derive(Default)]
struct Failed {
    errors: Vec<Error>,
    texts: HashSet<String>,
}

impl Failed {
    fn add(&mut self, error: Error) {
        if self.texts.insert(error.to_string()) {
            self.errors.push(error);
        }
    }
}

/// What is there of an evaluation that did not end.
fn goes_on(answered: usize, all: usize, there: usize) -> String {
    let mut text = format!(
        "evaluate: {answered} of {all} answers are there, {} to ask",
        all - answered
    );
    if there > answered {
        text += &format!(
            "; {} to questions that are others now are not used",
            there - answered
        );
    }
    text
}

/// How many other evaluations have left answers.
fn others(folders: &Path, own: &Path) -> usize {
    let all = std::fs::read_dir(folders).into_iter().flatten().flatten();
    all.filter(|f| f.path() != own).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_said_in_one_line() {
        assert_eq!(
            goes_on(120, 300, 120),
            "evaluate: 120 of 300 answers are there, 180 to ask"
        );
        let said = "evaluate: 299 of 300 answers are there, 1 to ask; 2 to questions that are others now are not used";
        assert_eq!(goes_on(299, 300, 301), said);
    }
}
