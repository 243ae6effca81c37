//! What decides what a job learns, as its checkpoints carry it: a run that goes on with something else is told so.

use super::curriculum::Texts;
use crate::dist::{flatten, Facts, Ranks};
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::recipe::{ClapMode, OptimRecipe, Recipe, Schedule, StageRecipe};
use crate::text::tokenizer::Tokenizer;
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::json;

/// Keys of a section that say where it begins, what it is called and what it leaves, and those that the number of items of a step
/// stands for.
const NOT_OF_A_JOB: [&str; 8] = [
    "name",
    "from",
    "save",
    "cache_features",
    "optim.steps",
    "optim.batch_size",
    "optim.accumulate",
    "optim.global_batch",
];

/// A section's own keys.
fn section(place: &str, section: &impl Serialize, optim: &OptimRecipe) -> Facts {
    let mut all = Facts::new();
    flatten("", &json!(section), &mut all);
    all.retain(|(key, _)| !NOT_OF_A_JOB.iter().any(|k| below(key, k)));
    // A constant rate does not know where a job ends.
    if optim.schedule != Schedule::Constant {
        all.push(("optim.steps".into(), optim.steps.to_string()));
    }
    for (key, _) in &mut all {
        *key = format!("{place}.{key}");
    }
    all
}

fn below(key: &str, k: &str) -> bool {
    key == k || key.strip_prefix(k).is_some_and(|rest| rest.starts_with('.'))
}

fn items_of_a_step(place: &str, optim: &OptimRecipe, ranks: &Ranks) -> Result<(String, String)> {
    let (items, micro_steps) = optim.split(ranks.world)?;
    let items = (items * micro_steps * ranks.world).to_string();
    Ok((format!("{place}.optim: items of a step"), items))
}

fn written(recipe: &Recipe, all: Facts) -> Result<String> {
    let all: IndexMap<String, String> = all.into_iter().collect();
    serde_json::to_string(&all).map_err(|e| Error::recipe(&recipe.name, e.to_string()))
}

/// A stage: the recipe's key → its value, as JSON.
///
/// # Errors
/// A batch that the ranks cannot share.
pub(crate) fn stage(
    recipe: &Recipe,
    stage: &StageRecipe,
    model: &Loaded,
    texts: &Texts,
    ranks: &Ranks,
) -> Result<String> {
    let place = format!("stages.{}", stage.name);
    let mut all = section(&place, stage, &stage.optim);
    if stage.clap_mode != ClapMode::Train {
        all.retain(|(key, _)| !below(key, &format!("{place}.clap_train")));
    }
    if stage.batch_budget.is_none() {
        all.push(items_of_a_step(&place, &stage.optim, ranks)?);
    }
    let (t, d, m) = (&recipe.train, &recipe.data, &recipe.model);
    let config = &model.model.config;
    let others = json!({
        "train": {"precision": t.precision, "encode_precision": t.encode_precision, "tf32": t.tf32, "frozen": t.frozen, "loss": t.loss},
        "data": {"max_tokens": d.max_tokens, "bad_items": d.bad_items, "special_tokens_in_texts": d.special_tokens_in_texts},
        "model": {
            "audio_transformer": config.audio_transformer,
            "cross_attention": config.cross_attention,
            "checkpoint": m.checkpoint,
            "lm": m.lm,
            "clap": m.clap,
        },
    });
    flatten("", &others, &mut all);
    let digests = texts.digests.iter();
    all.extend(digests.map(|(set, digest)| (format!("data.sets.{set}: its texts"), digest.clone())));
    of_tokenizer(&model.tokenizer, &mut all);
    written(recipe, all)
}

/// A job of one section; `texts`: a digest of those that it learns from.
///
/// # Errors
/// A batch that the ranks cannot share.
pub(crate) fn of_section(
    recipe: &Recipe,
    (place, own, optim): (&str, &impl Serialize, &OptimRecipe),
    tokenizer: &Tokenizer,
    texts: String,
    ranks: &Ranks,
) -> Result<String> {
    let mut all = section(place, own, optim);
    all.push(items_of_a_step(place, optim, ranks)?);
    let (t, d) = (&recipe.train, &recipe.data);
    let others = json!({
        "train": {"precision": t.precision, "tf32": t.tf32, "loss": t.loss},
        "data": {"special_tokens_in_texts": d.special_tokens_in_texts},
    });
    flatten("", &others, &mut all);
    all.push(("its texts".into(), texts));
    of_tokenizer(tokenizer, &mut all);
    written(recipe, all)
}

fn of_tokenizer(ids: &Tokenizer, all: &mut Facts) {
    all.push(("the tokenizer's tokens".into(), ids.len().to_string()));
    all.push(("the tokenizer's end of text".into(), ids.eos.to_string()));
}
