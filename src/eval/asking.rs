//! Asking questions, by one process or by several, so that none of what was answered is lost.

use super::control::Control;
use super::deal;
use super::question::{Question, Way};
use super::questions::Questions;
use super::standing::Standing;
use crate::data::feed::Ears;
use crate::dist::Ranks;
use crate::error::{self, Error, Result};
use crate::fsutil::write_atomic;
use crate::generate::engine::{Ask, Engine, Event, Found, Settings, Ticket, Wanted};
use crate::generate::NEAR_TIE;
use crate::load::Loaded;
use crate::progress::Progress;
use crate::recipe::EvalRecipe;
use crate::run::journal::{self, Journal, Line};
use crate::run::predictions::Prediction;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// So many times the slots may wait in the engine: enough for it to hear the next clips ahead.
const AHEAD: usize = 4;
/// How often, and how many times, it is looked for answers of another host, whose files a shared file system may show late.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: usize = 20;

/// Questions, whom they are asked, and where the answers go.
pub(super) struct Job<'a> {
    pub questions: &'a Questions,
    /// A hash of whom is asked and how.
    pub evaluation: String,
    /// Where its answers lie until all are there.
    pub folder: PathBuf,
    pub eval: &'a EvalRecipe,
    pub model: &'a Loaded,
    pub ranks: &'a Ranks,
    /// That decode; 0 for as many as the rank has cores.
    pub threads: usize,
    /// Sets in none of them have their answers already.
    pub outputs: &'a [Output],
}

/// A file of predictions.
pub(super) struct Output {
    pub path: PathBuf,
    /// Whose answers stand in it, in this order.
    pub sets: Range<usize>,
    /// Of these sets' answers only those; none for all.
    pub control: Option<Control>,
}

impl Output {
    /// The questions whose answers stand in it, in its order.
    pub(super) fn questions<'q>(&self, all: &'q Questions) -> impl Iterator<Item = &'q Question> {
        let control = self.control;
        let sets = all.sets[self.sets.clone()].iter();
        let own = sets.flat_map(|set| &all.all[set.questions.clone()]);
        own.filter(move |q| control.is_none_or(|c| q.control == c))
    }

    /// Writes the answers, by the hashes of their questions, in the order of the manifests.
    pub(super) fn write(&self, all: &Questions, answers: &HashMap<String, Vec<Prediction>>) -> Result<()> {
        let to = &self.path;
        let own = self.questions(all).filter_map(|q| answers.get(q.hash.as_str()));
        let predictions: Vec<&Prediction> = own.flatten().collect();
        let near = predictions.iter().filter(|p| p.near_tie).count();
        if near > 0 {
            crate::say!(
                "note: {near} of {} answers hold a token that led the next one by less than {NEAR_TIE}: other slots or processes may \
                 give another; `near_tie` in {} marks them",
                predictions.len(),
                to.display()
            );
        }
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        write_atomic(to, |out| {
            for prediction in &predictions {
                let line = prediction
                    .line()
                    .map_err(|e| Error::data(to, "prediction", "JSON", e.to_string()))?;
                out.write_all(line.as_bytes()).map_err(|e| Error::io(to, e))?;
            }
            Ok(())
        })
    }
}

impl Job<'_> {
    /// Asks what is left, waits for all ranks, and writes.
    pub(super) fn run(&self, run: &Path, afresh: bool) -> Result<()> {
        let Some(answers) = self.asked(run, afresh)? else {
            return Ok(());
        };
        for output in self.outputs {
            output.write(self.questions, &answers)?;
        }
        journal::remove(&self.folder)
    }

    /// Asks what is left, and waits for all ranks. The first has the answers to all that the outputs want, by their questions' hashes; they
    /// stay in the folder, too.
    pub(super) fn asked(&self, run: &Path, afresh: bool) -> Result<Option<HashMap<String, Vec<Prediction>>>> {
        let facts = self
            .questions
            .sets
            .iter()
            .map(|s| (s.name.clone(), s.hash.clone()));
        let mut facts: Vec<(String, String)> = facts.collect();
        facts.push((
            "the model's weights and tokenizer".into(),
            self.evaluation.clone(),
        ));
        self.ranks.agree("evaluate: what is asked", &facts)?;
        let answered = self.answered(run, afresh)?;
        self.model.ask_in(self.eval.precision)?;
        // A clip is heard once: there is no second time to keep its mel for.
        let ears = Ears::new(0).on_threads(match self.threads {
            0 => self.ranks.cores(),
            n => n,
        })?;
        let failed = self.ask(&answered, ears)?;
        self.told(failed)?;
        match self.ranks.first() {
            true => self.waited().map(Some),
            false => Ok(None),
        }
    }

    /// Which questions have their answers, as the first rank finds them: in the folder, or in files of before.
    fn answered(&self, run: &Path, afresh: bool) -> Result<Vec<bool>> {
        let all = &self.questions.all;
        let to_write = |set: usize| self.outputs.iter().any(|o| o.sets.contains(&set));
        let written = |q: &Question| f64::from(u8::from(!to_write(q.set)));
        let mut answered: Vec<f64> = all.iter().map(written).collect();
        if self.ranks.first() {
            if afresh {
                journal::remove(&self.folder)?;
            }
            let there = self.answers()?;
            for (place, question) in answered.iter_mut().zip(all) {
                if there.contains_key(question.hash.as_str()) {
                    *place = 1.0;
                }
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
        let wanted = self.questions.all.iter();
        let wanted: HashMap<&str, usize> = wanted.map(|q| (q.hash.as_str(), self.samples(q))).collect();
        // Those of questions that are others now are kept, to be counted.
        all.retain(|hash, samples| wanted.get(hash.as_str()).is_none_or(|n| samples.len() == *n));
        all.values_mut()
            .for_each(|samples| samples.sort_by_key(|p| p.sample));
        Ok(all)
    }

    /// How many answers a question has.
    fn samples(&self, question: &Question) -> usize {
        match question.way {
            Way::Said => self.questions.sets[question.set].decoding.num_return_sequences,
            Way::Weighed => 1,
        }
    }

    /// This rank's questions, clip by clip: first all that hear the clip itself.
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
        let left = self.own(answered);
        let mut standing = Standing::new(self.questions, left.iter().copied());
        let mut left = left.into_iter();
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
                        let lines = self.lines(question, found, seconds)?;
                        for line in &lines {
                            journal.add(line)?;
                        }
                        let said: Vec<Prediction> = lines.into_iter().map(|l| l.prediction).collect();
                        standing.add(question, &said);
                        progress.message(&standing.told(question.set));
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
        Ok(Ask {
            sound: question.sound.clone(),
            prompt: self.model.tokenizer.question(&self.questions.words(question))?,
            wanted: match question.way {
                Way::Said => Wanted::Answers(self.questions.sets[question.set].decoding.clone()),
                Way::Weighed => Wanted::Choices(self.questions.labels(question).to_vec()),
            },
            item: question.hash.clone(),
            stream: false,
        })
    }

    /// The samples of an answer, one a line.
    fn lines(&self, question: &Question, found: Found, seconds: f64) -> Result<Vec<Line>> {
        let line = |prediction| Line {
            evaluation: self.evaluation.clone(),
            question: question.hash.clone(),
            prediction,
        };
        let said = match (found, question.way) {
            (Found::Said(said), Way::Said) => said,
            (Found::Chosen(choices), Way::Weighed) => {
                return Ok(vec![line(self.questions.weighed(question, choices, seconds))])
            }
            _ => {
                let message = "the engine answered where choices were to be weighed, or the other way round";
                return Err(Error::recipe("eval", message));
            }
        };
        let wanted = self.samples(question);
        if said.len() != wanted {
            let message = format!("the engine returned {} answers of {wanted}", said.len());
            return Err(Error::recipe("eval", message));
        }
        let sampled = |(sample, answer)| {
            line(Prediction {
                sample,
                ..self.questions.prediction(question, answer, seconds)
            })
        };
        Ok(said.into_iter().enumerate().map(sampled).collect())
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

    /// All answers, once those of other hosts show.
    fn waited(&self) -> Result<HashMap<String, Vec<Prediction>>> {
        let mut answers = self.answers()?;
        let wanted: Vec<&Question> = self
            .outputs
            .iter()
            .flat_map(|o| o.questions(self.questions))
            .collect();
        let missing = |answers: &HashMap<String, Vec<Prediction>>| {
            let lacks = wanted.iter().filter(|q| !answers.contains_key(q.hash.as_str()));
            lacks.count()
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
            let expected = format!("the answers to {} questions", wanted.len());
            let e = Error::data(&self.folder, "answers", expected, format!("{lacks} less"));
            return Err(e.hint("all ranks write into the run's folder: do their hosts share it?"));
        }
        Ok(answers)
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
