//! `af2 score captions`

use crate::cli::parts;
use crate::error::Result;
use crate::eval::captions::{meteor, read, spice, Captioned, Found, Tool};
use crate::metrics::captions::{score, Item, Scored, Scores};
use clap::Args;
use serde_json::{json, Map, Value};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct CaptionsArgs {
    /// JSON lines: `{"id": "…", "prediction": "…", "references": ["…", …]}`. The order counts: see docs/evaluation.md.
    #[arg(long, value_name = "FILE.jsonl")]
    predictions: PathBuf,
    /// One object: `corpus`, and `items` in the file's order with their tokens.
    #[arg(long)]
    json: bool,
}

/// A metric that a program of its own gives, of the corpus and of each clip; or why it is not there.
struct Other {
    name: &'static str,
    value: Result<(Option<f64>, Vec<Option<f64>>), String>,
    by: Option<Found>,
}

pub(crate) fn run(args: &CaptionsArgs) -> Result<()> {
    let captions = read(&args.predictions)?;
    let items: Vec<Item> = captions.iter().map(item).collect();
    let scored = score(&items)?;
    let others = others(&scored.items, scored.corpus.cider)?;
    if args.json {
        let mut corpus = own(&scored.corpus);
        let mut metrics = Map::new();
        for other in &others {
            let how = match (&other.value, &other.by) {
                (Err(why), _) => json!({"computed": false, "why": why}),
                (Ok(_), Some(by)) => {
                    json!({"computed": true, "jar": by.jar.to_string_lossy(), "java": by.java.to_string_lossy()})
                }
                (Ok(_), None) => json!({"computed": true}),
            };
            metrics.insert(other.name.into(), how);
            if let Ok((value, _)) = &other.value {
                corpus.insert(other.name.into(), json!(value));
            }
        }
        let items = captions.iter().zip(&scored.items).enumerate();
        let items = items.map(|(n, (caption, item))| {
            let mut object = Map::new();
            object.insert("id".into(), json!(caption.id));
            object.extend(own(&item.scores));
            for other in &others {
                if let Ok((_, values)) = &other.value {
                    object.insert(other.name.into(), json!(values[n]));
                }
            }
            object.insert("tokens".into(), json!(item.tokens.join(" ")));
            Value::from(object)
        });
        let whole = json!({
            "n": captions.len(),
            "corpus": corpus,
            "official_tools": metrics,
            "items": items.collect::<Vec<_>>(),
        });
        return parts::out(&format!("{whole}\n"));
    }
    let references: usize = captions.iter().map(|c| c.references.len()).sum();
    let s = |n: usize| if n == 1 { "" } else { "s" };
    let (n, file) = (captions.len(), args.predictions.display());
    let mut text = format!(
        "{file}: {n} clip{}, {references} reference{}\n",
        s(n),
        s(references)
    );
    let own = own(&scored.corpus)
        .into_iter()
        .map(|(name, value)| (name, value.as_f64()));
    let computed = others
        .iter()
        .filter_map(|o| Some((o.name.to_owned(), o.value.as_ref().ok()?.0)));
    for (name, value) in own.chain(computed) {
        match value {
            Some(value) => text.push_str(&format!("{name:<8}{value:>9.4}\n")),
            None => text.push_str(&format!("{name:<8}        – (a clip has none)\n")),
        }
    }
    for other in &others {
        if let Err(why) = &other.value {
            text.push_str(&format!("{:<8} not computed: {why}\n", other.name));
        }
    }
    parts::out(&text)
}

fn item(captioned: &Captioned) -> Item<'_> {
    Item {
        prediction: &captioned.prediction,
        references: captioned.references.iter().map(String::as_str).collect(),
    }
}

/// METEOR, SPICE and SPIDEr.
fn others(items: &[Scored], cider: f64) -> Result<[Other; 3]> {
    let meteor = match Tool::Meteor.find() {
        Ok(found) => {
            let (values, all) = meteor(&found, items)?;
            (
                Ok((Some(all), values.into_iter().map(Some).collect())),
                Some(found),
            )
        }
        Err(why) => (Err(why), None),
    };
    let spice = match Tool::Spice.find() {
        Ok(found) => {
            let (values, all) = spice(&found, items)?;
            (Ok((all, values)), Some(found))
        }
        Err(why) => (Err(why), None),
    };
    // Half of both.
    let spider = match &spice.0 {
        Ok((all, values)) => {
            let half =
                |(spice, item): (&Option<f64>, &Scored)| spice.map(|spice| (spice + item.scores.cider) / 2.0);
            Ok((
                all.map(|all| (all + cider) / 2.0),
                values.iter().zip(items).map(half).collect(),
            ))
        }
        Err(_) => Err("it is half CIDEr-D and half SPICE, which is not there".to_owned()),
    };
    let other = |name, (value, by)| Other { name, value, by };
    Ok([
        other("METEOR", meteor),
        other("SPICE", spice),
        other("SPIDEr", (spider, None)),
    ])
}

fn own(scores: &Scores) -> Map<String, Value> {
    let mut all = Map::new();
    for (n, bleu) in scores.bleu.iter().enumerate() {
        all.insert(format!("BLEU_{}", n + 1), json!(bleu));
    }
    all.insert("ROUGE_L".into(), json!(scores.rouge_l));
    all.insert("CIDEr".into(), json!(scores.cider));
    all
}
