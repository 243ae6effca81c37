//! `af2 score captions`

use super::encoder::BertArgs;
use crate::cli::parts;
use crate::device;
use crate::error::Result;
use crate::eval::captions::{others, read, Captioned, ClapScore, FOLLOWS, MOST_WINDOWS};
use crate::load::{SoundSpace, TextSpace};
use crate::metrics::bert_score::Score;
use crate::metrics::captions::{score, Item, Scores};
use clap::Args;
use serde_json::{json, Map, Value};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct CaptionsArgs {
    /// JSON lines: `{"id": "…", "prediction": "…", "references": ["…", …]}`. The order counts: see docs/evaluation.md.
    #[arg(long, value_name = "FILE.jsonl")]
    predictions: PathBuf,
    #[command(flatten)]
    bert: BertArgs,
    /// CLAP score too: the cosine of each caption with its clip, the line's `audio`, by AF-CLAP: the released .pt, a file of `af2
    /// clap`, or a folder that holds one.
    #[arg(long, value_name = "CHECKPOINT")]
    clap: Option<PathBuf>,
    /// Its tokenizer.json, or the folder of it. Default: beside the checkpoint.
    #[arg(long, value_name = "FILE", requires = "clap")]
    clap_tokenizer: Option<PathBuf>,
    /// From where the lines' `audio` is named. Default: the folder of --predictions.
    #[arg(long, value_name = "DIR", requires = "clap")]
    audio_root: Option<PathBuf>,
    /// Where BERTScore's encoder and AF-CLAP compute.
    #[arg(long, default_value = "auto")]
    device: String,
    /// One object: `corpus`, and `items` in the file's order with their tokens.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &CaptionsArgs) -> Result<()> {
    let captions = read(&args.predictions)?;
    let items: Vec<Item> = captions.iter().map(item).collect();
    let scored = score(&items)?;
    let others = others(&scored.items, scored.corpus.cider)?;
    let bert = args.bert.open(&args.device)?;
    let alike = bert.as_ref().map(|bert| bert.of(&items)).transpose()?;
    let clap = open_clap(args)?;
    let near = clap.as_ref().map(|clap| {
        let root = args.predictions.parent().unwrap_or(Path::new(""));
        let root = args.audio_root.as_deref().unwrap_or(root);
        clap.of(&args.predictions, &captions, root)
    });
    let near = near.transpose()?;
    let mean_near = near.as_ref().map(|near| {
        let all: Option<Vec<f64>> = near.iter().copied().collect();
        all.and_then(|all| crate::metrics::mean(&all))
    });
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
        if let Some(alike) = &alike {
            corpus.extend(bert_score(&alike.corpus));
        }
        if let Some(mean) = mean_near {
            corpus.insert(CLAP_SCORE.into(), json!(mean));
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
            if let Some(alike) = &alike {
                object.extend(bert_score(&alike.items[n]));
            }
            if let Some(near) = &near {
                object.insert(CLAP_SCORE.into(), json!(near[n]));
            }
            object.insert("tokens".into(), json!(item.tokens.join(" ")));
            Value::from(object)
        });
        let mut whole = json!({
            "n": captions.len(),
            "corpus": corpus,
            "official_tools": metrics,
            "items": items.collect::<Vec<_>>(),
        });
        if let Some(bert) = &bert {
            whole["bert_score"] = json!({
                "folder": bert.encoder.folder,
                "encoder": bert.encoder.identity()?,
                "layer": bert.encoder.layer,
                "idf": bert.idf,
                "baseline": bert.baseline.as_ref().map(|b| &b.path),
                "follows": FOLLOWS,
            });
        }
        if let Some(clap) = &clap {
            whole["clap_score"] = json!({
                "checkpoint": clap.texts.checkpoint,
                "tokenizer": clap.texts.tokenizer,
                "tower": clap.texts.identity()?,
                "audio": clap.sounds.identity()?,
                "windows": format!("mean of at most {MOST_WINDOWS}"),
            });
        }
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
    // Its names are longer than the others'.
    let width = if alike.is_some() || near.is_some() { 12 } else { 8 };
    let alike = alike.iter().flat_map(|alike| bert_score(&alike.corpus));
    let alike = alike.map(|(name, value)| (name, value.as_f64()));
    let near = mean_near.map(|mean| (CLAP_SCORE.to_owned(), mean));
    for (name, value) in own.chain(computed).chain(alike).chain(near) {
        match value {
            Some(value) => text.push_str(&format!("{name:<width$}{value:>9.4}\n")),
            None => text.push_str(&format!("{name:<width$}        – (a clip has none)\n")),
        }
    }
    for other in &others {
        if let Err(why) = &other.value {
            text.push_str(&format!("{:<width$} not computed: {why}\n", other.name));
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

const CLAP_SCORE: &str = "CLAPScore";

fn open_clap(args: &CaptionsArgs) -> Result<Option<ClapScore>> {
    let Some(clap) = &args.clap else {
        return Ok(None);
    };
    let device = device::of(&args.device)?;
    Ok(Some(ClapScore {
        texts: TextSpace::open(clap, args.clap_tokenizer.as_deref(), device)?,
        sounds: SoundSpace::open(clap, device)?,
    }))
}

/// F1 by the metric's name, as papers print it, and what it is made of.
fn bert_score(score: &Score) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert("BERTScore".into(), json!(score.f1));
    all.insert("BERTScore_P".into(), json!(score.precision));
    all.insert("BERTScore_R".into(), json!(score.recall));
    all
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
