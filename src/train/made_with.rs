//! What decides what a stage learns, as its checkpoints carry it: a run that goes on with something else is told so.

use super::texts::Texts;
use crate::dist::{flatten, Facts, Ranks};
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::recipe::{ClapMode, Recipe, Schedule, StageRecipe};
use indexmap::IndexMap;
use serde_json::json;

/// Keys of a stage that say where it begins, what it is called and what it leaves, and those that the number of items of a step
/// stands for.
const NOT_OF_A_STAGE: [&str; 8] = [
    "name",
    "from",
    "save",
    "cache_features",
    "optim.steps",
    "optim.batch_size",
    "optim.accumulate",
    "optim.global_batch",
];

/// The recipe's key → its value, as JSON.
///
/// # Errors
/// A batch that the ranks cannot share.
pub fn of(
    recipe: &Recipe,
    stage: &StageRecipe,
    model: &Loaded,
    texts: &Texts,
    ranks: &Ranks,
) -> Result<String> {
    let mut all = Facts::new();
    let place = format!("stages.{}", stage.name);
    let optim = &stage.optim;
    flatten("", &json!(stage), &mut all);
    all.retain(|(key, _)| {
        let below = |k: &str| key == k || key.strip_prefix(k).is_some_and(|rest| rest.starts_with('.'));
        !NOT_OF_A_STAGE.iter().any(|k| below(k))
            && (stage.clap_mode == ClapMode::Train || !below("clap_train"))
    });
    // A constant rate does not know where a stage ends.
    if optim.schedule != Schedule::Constant {
        all.push(("optim.steps".into(), optim.steps.to_string()));
    }
    let (items, micro_steps) = optim.split(ranks.world)?;
    if stage.batch_budget.is_none() {
        let items = (items * micro_steps * ranks.world).to_string();
        all.push(("optim: items of a step".into(), items));
    }
    for (key, _) in &mut all {
        *key = format!("{place}.{key}");
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
    let ids = &model.tokenizer;
    all.push(("the tokenizer's tokens".into(), ids.len().to_string()));
    all.push(("the tokenizer's end of text".into(), ids.eos.to_string()));
    let all: IndexMap<String, String> = all.into_iter().collect();
    serde_json::to_string(&all).map_err(|e| Error::recipe(&recipe.name, e.to_string()))
}

/// What is another now than it was then, one line each. Nothing of what one of them does not say.
pub fn changes(then: &str, now: &str) -> Vec<String> {
    let read = |text| serde_json::from_str::<IndexMap<String, String>>(text).unwrap_or_default();
    let (then, now) = (read(then), read(now));
    if then.is_empty() || now.is_empty() {
        return Vec::new();
    }
    let shown = |v: Option<&String>| match v.map(String::as_str) {
        None | Some("null") => "nothing".to_owned(),
        Some(text) => text.to_owned(),
    };
    let keys = now.keys().chain(then.keys().filter(|k| !now.contains_key(*k)));
    keys.filter(|k| shown(then.get(*k)) != shown(now.get(*k)))
        .map(|k| format!("{k}: {} now, it was {}", shown(now.get(k)), shown(then.get(k))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named_with_both_values_and_a_missing_one_with_one() {
        let then = r#"{"a.b": "1.0", "c": "cosine", "d": "null", "gone": "2"}"#;
        let now = r#"{"a.b": "2.0", "c": "linear", "new": "true"}"#;
        assert_eq!(
            changes(then, now),
            [
                "a.b: 2.0 now, it was 1.0",
                "c: linear now, it was cosine",
                "new: true now, it was nothing",
                "gone: nothing now, it was 2"
            ]
        );
        assert!(changes(then, then).is_empty());
        // A checkpoint that does not say it: the reference's, and those of before.
        assert!(changes("", now).is_empty() && changes(then, "").is_empty());
    }
}
