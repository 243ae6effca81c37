//! What decided what a job has learned, as its checkpoints carry it, beside what decides it now.

use indexmap::IndexMap;

/// What is another now than it was then, one line each. Nothing of what one of them does not say.
pub(crate) fn changes(then: &str, now: &str) -> Vec<String> {
    let read = |text| serde_json::from_str::<IndexMap<String, String>>(text).unwrap_or_default();
    let (then, now) = (renewed(read(then)), read(now));
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

/// What an earlier version wrote, in the keys of this one: where it knew a key by another name, or not at all as only the default
/// was there.
fn renewed(then: IndexMap<String, String>) -> IndexMap<String, String> {
    let Some(optim) = then
        .keys()
        .find_map(|k| k.strip_suffix(".gate_rate"))
        .map(str::to_owned)
    else {
        return then;
    };
    let mut all: IndexMap<String, String> = IndexMap::new();
    for (key, value) in then {
        let old = [("gate_rate", "gates", "*_gate"), ("clap_rate", "clap", "clap.*")];
        let rate = old.iter().find(|(name, ..)| key == format!("{optim}.{name}"));
        match rate {
            None => {
                all.insert(key, value);
            }
            Some(_) if value == "1.0" => {}
            Some((_, group, pattern)) => {
                let at = format!("{optim}.groups.{group}");
                all.insert(format!("{at}.match"), (*pattern).to_owned());
                all.insert(format!("{at}.rate"), value);
                all.insert(format!("{at}.weight_decay"), "null".into());
                all.insert(format!("{at}.betas"), "null".into());
            }
        }
    }
    all.insert(format!("{optim}.optimizer"), "adamw".into());
    for (i, beta) in ["0.9", "0.999"].iter().enumerate() {
        all.insert(format!("{optim}.betas.{i}"), (*beta).to_owned());
    }
    all
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

    #[test]
    fn what_an_earlier_version_wrote_is_read_in_this_ones_keys() {
        let then = r#"{"stages.a.optim.clap_rate": "1.0", "stages.a.optim.gate_rate": "20.0", "stages.a.windows": "3"}"#;
        let now = |rate: &str| {
            format!(
                r#"{{"stages.a.optim.optimizer": "adamw", "stages.a.optim.betas.0": "0.9", "stages.a.optim.betas.1": "0.999",
                "stages.a.optim.groups.gates.match": "*_gate", "stages.a.optim.groups.gates.rate": "{rate}",
                "stages.a.optim.groups.gates.weight_decay": "null", "stages.a.windows": "3"}}"#
            )
        };
        assert!(changes(then, &now("20.0")).is_empty());
        assert_eq!(
            changes(then, &now("5.0")),
            ["stages.a.optim.groups.gates.rate: 5.0 now, it was 20.0"]
        );
    }
}
