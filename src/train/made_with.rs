//! What decides what a stage learns, as its checkpoints carry it: a run that goes on with something else is told so.

use super::texts::Texts;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::recipe::{ClapMode, Recipe, Schedule, StageRecipe};
use serde_json::{json, Map, Value};

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
    let mut all = Map::new();
    let place = format!("stages.{}", stage.name);
    let mut own = Map::new();
    flatten("", &json!(stage), &mut own);
    let optim = &stage.optim;
    own.retain(|key, _| {
        let below = |k: &str| key == k || key.strip_prefix(k).is_some_and(|rest| rest.starts_with('.'));
        !NOT_OF_A_STAGE.iter().any(|k| below(k))
            && (stage.clap_mode == ClapMode::Train || !below("clap_train"))
    });
    // A constant rate does not know where a stage ends.
    if optim.schedule != Schedule::Constant {
        own.insert("optim.steps".into(), optim.steps.into());
    }
    all.extend(
        own.into_iter()
            .map(|(key, value)| (format!("{place}.{key}"), value)),
    );
    let (items, micro_steps) = optim.split(ranks.world)?;
    if stage.batch_budget.is_none() {
        all.insert(
            format!("{place}.optim: items of a step"),
            (items * micro_steps * ranks.world).into(),
        );
    }
    let t = &recipe.train;
    flatten(
        "train",
        &json!({"precision": t.precision, "frozen": t.frozen, "loss": t.loss}),
        &mut all,
    );
    let d = &recipe.data;
    flatten(
        "data",
        &json!({"max_tokens": d.max_tokens, "bad_items": d.bad_items, "special_tokens_in_texts": d.special_tokens_in_texts}),
        &mut all,
    );
    let config = &model.model.config;
    let sizes = json!({
        "audio_transformer": config.audio_transformer,
        "cross_attention": config.cross_attention,
        "checkpoint": recipe.model.checkpoint,
        "lm": recipe.model.lm,
        "clap": recipe.model.clap,
    });
    flatten("model", &sizes, &mut all);
    for (set, digest) in &texts.digests {
        all.insert(format!("data.sets.{set}: its texts"), digest.as_str().into());
    }
    let ids = &model.tokenizer;
    all.insert("the tokenizer's tokens".into(), ids.len().into());
    all.insert("the tokenizer's end of text".into(), ids.eos.into());
    serde_json::to_string(&all).map_err(|e| Error::recipe(&recipe.name, e.to_string()))
}

/// What is another now than it was then, one line each. Nothing of what one of them does not say.
pub fn changes(then: &str, now: &str) -> Vec<String> {
    let read = |text| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let (then, now) = (read(then), read(now));
    if then.is_empty() || now.is_empty() {
        return Vec::new();
    }
    let shown = |v: Option<&Value>| match v {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(Value::String(s)) => s.clone(),
        Some(v) => v.to_string(),
    };
    let keys = now.keys().chain(then.keys().filter(|k| !now.contains_key(*k)));
    keys.filter(|k| shown(then.get(*k)) != shown(now.get(*k)))
        .map(|k| format!("{k}: {} now, it was {}", shown(now.get(k)), shown(then.get(k))))
        .collect()
}

fn flatten(prefix: &str, value: &Value, into: &mut Map<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = match prefix {
                    "" => key.clone(),
                    _ => format!("{prefix}.{key}"),
                };
                flatten(&key, value, into);
            }
        }
        value => {
            into.insert(prefix.to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named_with_both_values_and_a_missing_one_with_one() {
        let then = r#"{"a.b": 1.0, "c": "cosine", "d": null, "gone": [1, 2]}"#;
        let now = r#"{"a.b": 2.0, "c": "linear", "new": true}"#;
        assert_eq!(
            changes(then, now),
            [
                "a.b: 2.0 now, it was 1.0",
                "c: linear now, it was cosine",
                "new: true now, it was nothing",
                "gone: nothing now, it was [1,2]"
            ]
        );
        assert!(changes(then, then).is_empty());
        // A checkpoint that does not say it: the reference's, and those of before.
        assert!(changes("", now).is_empty() && changes(then, "").is_empty());
    }

    #[test]
    fn a_tree_becomes_dotted_keys() {
        let mut flat = Map::new();
        flatten(
            "",
            &json!({"a": {"b": 1, "c": {"d": "x"}}, "e": [1, 2]}),
            &mut flat,
        );
        let keys: Vec<&str> = flat.keys().map(String::as_str).collect();
        assert_eq!(keys, ["a.b", "a.c.d", "e"]);
    }
}
