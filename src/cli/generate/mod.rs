//! `af2 generate`
//!
//! ```text
//! args.rs ─► questions.rs ─► asked.rs ─► asker.rs (the engine, or one by one) ─► asked.rs: printed in the order of the questions
//! ```

mod args;
mod asked;
mod asker;
mod questions;

pub(crate) use args::GenerateArgs;

use super::asking::{end_at_ctrl_c, usage};
use super::sounds::{self, is_stdin};
use crate::data::feed::{Clip, Ears};
use crate::error::Result;
use crate::generate::engine::Engine;
use asked::Asked;
use asker::{Asker, OneByOne};
use questions::{questions, sound};
use std::sync::Arc;

/// Questions that the engine has at once, for each slot: so many that clips can be heard ahead.
const AHEAD: usize = 4;

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let decoding = args.decoding.decoding()?;
    // What is asked for is checked before the model is loaded, which may take minutes.
    let (questions, many) = questions(args)?;
    let alone = questions.len() == 1 && !many;
    let ears = Ears::new(0);
    let stdin = match questions.iter().find(|q| is_stdin(&q.path)) {
        Some(question) => {
            let bytes = sounds::of_stdin()?;
            let first = Clip::new(
                "standard input".into(),
                question.piece.start.unwrap_or_default(),
                1,
            );
            ears.mel_in_memory(&first, &bytes, false)?;
            Some(bytes)
        }
        None => None,
    };
    end_at_ctrl_c()?;
    let (model, settings) = args.model.open()?;
    if let Some(wrong) = decoding.check_vocabulary(model.tokenizer.len()) {
        return Err(usage(&wrong));
    }
    let windows = args.model.windows(&model);
    let sounds = questions
        .iter()
        .map(|q| sound(q, windows, args, &ears, stdin.as_ref()));
    let sounds = sounds.collect::<Result<Vec<_>>>()?;
    let ears = Arc::new(ears);
    let ahead = AHEAD * settings.slots;
    let asker = match args.no_cache {
        true => Asker::OneByOne(OneByOne::new(&model, ears, settings.precision)),
        false => Asker::Engine(Box::new(Engine::new(&model, ears, settings))),
    };
    let all = Asked::new(&model, args, &decoding, &questions, asker);
    let all = if alone { all.alone() } else { all };
    let failed = all.run(&sounds, ahead)?;
    match failed.len() {
        0 => Ok(()),
        n => {
            crate::say!("{n} of {} questions could not be answered", questions.len());
            crate::error::all(failed.into_iter().take(1).collect())
        }
    }
}
