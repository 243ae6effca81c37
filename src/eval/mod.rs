//! Asking a model the questions of manifests. Scoring is apart: it reads what this writes, and needs no model.
//!
//! ```text
//! manifests ─► questions ─► less those that are answered ─► dealt out by clips ─► Engine ─► predictions.partial/… ─► predictions.jsonl
//! ```
//!
//! Every answer is on the disk before the next is waited for; what is killed goes on with the questions that are left.
//!
//! | file | what |
//! |---|---|
//! | `benchmarks` | cards and their manifests as sets of questions |
//! | `control`, `question`, `asked`, `questions` | the ways to ask an item, one question, the items of a set as questions, all of them |
//! | `cascade` | captions of a clip's pieces in the place of its sound |
//! | `asking`, `deal`, `standing` | asking, by several processes or one, and how far it has come |
//! | `score`, `scoring`, `rules`, `captions`, `json` | what becomes of answers |

mod asked;
mod asking;
pub(crate) mod benchmarks;
pub mod captions;
pub(crate) mod cascade;
pub mod control;
mod deal;
pub(crate) mod endpoint;
mod json;
pub mod judge;
mod question;
mod questions;
pub mod rules;
pub(crate) mod score;
pub mod scoring;
mod standing;

use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::recipe::{EvalRecipe, Recipe};
use crate::run::journal;
use crate::run::predictions;
use asking::{Job, Output};
use control::Control;
use question::Wanted;
pub(crate) use question::{Paraphrase, Way};
use questions::{evaluation, Questions};

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
    let decoding = eval.decoding();
    let controls = match eval.silence_control {
        true => vec![Control::None, Control::Silence],
        false => vec![Control::None],
    };
    let wanted: Vec<Wanted> = eval
        .sets
        .iter()
        .map(|set| Wanted {
            name: set.clone(),
            manifest: recipe.manifest(set),
            root: recipe.data_root(),
            limit: eval.limit,
            decoding: decoding.clone(),
            own_decoding: false,
            controls: controls.clone(),
            card: None,
            paraphrase: Paraphrase::Chosen,
            way: Way::Said,
            rule: None,
            strip_thinking: false,
            in_words: None,
        })
        .collect();
    let questions = Questions::read(&wanted, eval.windows, Some(&model.tokenizer))?;
    if let Some(wrong) = decoding.check_vocabulary(model.model.config.vocab as usize) {
        let expected = format!("eval.decoding.{}: expected {}", wrong.key, wrong.expected);
        return Err(Error::recipe(
            &recipe.name,
            format!("{expected}, found {}", wrong.found),
        ));
    }
    let evaluation = evaluation(model, eval, Some(&decoding))?;
    let output = Output {
        path: predictions::path(&recipe.output),
        sets: 0..questions.sets.len(),
        control: None,
    };
    let job = Job {
        questions: &questions,
        folder: journal::folder(&recipe.output, &evaluation),
        evaluation,
        eval,
        model,
        ranks,
        threads: recipe.data.threads,
        outputs: &[output],
    };
    job.run(&recipe.output, afresh)
}
