//! `af2 score --benchmark`

use super::controls;
use super::encoder::{self, BertArgs};
use super::shown::show;
use super::told::differences;
use crate::benchmark::{Entry, Registry};
use crate::device;
use crate::error::{Error, Result};
use crate::eval::captions::{BertScore, FOLLOWS};
use crate::eval::scoring::{self, Kind, Overrides, Source, Way};
use crate::fsutil::{hex, sha256};
use crate::load::TextSpace;
use crate::metrics::bootstrap::Bootstrap;
use crate::run::predictions;
use crate::run::scored::{self, EncoderFacts, PredictionsFile, Scored, SpaceFacts};
use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct BenchmarkArgs {
    /// Results of a benchmark, a folder with results.json: makes them again from the files that they name, without a model.
    #[arg(value_name = "RUN", conflicts_with_all = ["benchmark", "predictions", "items", "rule", "model", "out"])]
    run: Option<PathBuf>,
    /// With RUN: writes nothing, and says what would differ.
    #[arg(long, requires = "run")]
    check: bool,
    /// With RUN: also from files or a card that have changed since.
    #[arg(long, requires = "run")]
    accept: bool,
    /// The benchmark, as `af2 benchmark ls` names it.
    #[arg(long, value_name = "NAME", requires = "predictions")]
    benchmark: Option<String>,
    /// What a model has said: `predictions.jsonl` of af2, the benchmark's own prediction file, samples of lm-evaluation-harness, a
    /// log of inspect (.eval, .json), captions with their references, or id and prediction with --items.
    #[arg(long, value_name = "FILE", requires = "benchmark")]
    predictions: Option<PathBuf>,
    /// The official file of the items or an imported manifest, for predictions that carry none.
    #[arg(long, value_name = "FILE", requires = "benchmark")]
    items: Option<PathBuf>,
    /// Which rule reads the answers; the other one's score stands beside it.
    #[arg(long, value_enum, default_value = "official")]
    rule: Kind,
    /// AF-CLAP, in whose space of texts the rule clap_label compares answers with labels: the released .pt, a file of `af2 clap`, or
    /// a folder that holds one. With RUN: default is the one that the results name.
    #[arg(long, value_name = "CHECKPOINT")]
    clap: Option<PathBuf>,
    /// Its tokenizer.json, or the folder of it. Default: beside the checkpoint.
    #[arg(long, value_name = "FILE", requires = "clap")]
    clap_tokenizer: Option<PathBuf>,
    #[command(flatten)]
    bert: BertArgs,
    /// Where AF-CLAP and BERTScore's encoder compute.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Whose predictions these are, for tables.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Corrections by hand: {"item", "verdict", "author", "reason"} a line. Default: overrides.jsonl in --out's folder or RUN, where it is.
    #[arg(long, value_name = "FILE.jsonl")]
    overrides: Option<PathBuf>,
    /// Leaves out what constant answers get: it costs a verdict for each option.
    #[arg(long)]
    no_frame: bool,
    /// One object: benchmark, rule, data, n, score, interval, categories, items.
    #[arg(long)]
    json: bool,
    /// Writes results.json there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A folder of cards of your own.
    #[arg(long, value_name = "DIR")]
    cards: Option<PathBuf>,
}

/// What is to be scored.
pub(in crate::cli) struct Wanted<'a> {
    pub entry: &'a Entry,
    pub predictions: &'a Path,
    pub items: Option<&'a Path>,
    pub kind: Kind,
    pub model: Option<String>,
    /// Where the results lie, or will.
    pub folder: Option<&'a Path>,
    pub overrides: Option<PathBuf>,
    pub frame: bool,
    pub bootstrap: Bootstrap,
    pub tower: Option<&'a TextSpace>,
    pub bert: Option<&'a BertScore>,
}

pub(crate) fn run(args: &BenchmarkArgs) -> Result<()> {
    if let Some(run) = &args.run {
        return again(args, run);
    }
    let (Some(name), Some(path)) = (&args.benchmark, &args.predictions) else {
        return Err(Error::usage(
            "expected --benchmark NAME --predictions FILE, a folder with results, or one of the verbs",
        )
        .hint("`af2 score --help`"));
    };
    let registry = Registry::with(args.cards.as_deref())?;
    let entry = registry.entry(name)?;
    // Before a tower is opened that nothing asks.
    let (card, models) = (
        entry.card()?,
        [args.clap.is_some(), args.bert.bertscore.is_some()],
    );
    scoring::fits(&card, Way::of(&card, args.rule)?, args.rule, models[0], models[1])?;
    let tower = match &args.clap {
        Some(clap) => Some(tower(args, clap, args.clap_tokenizer.as_deref())?),
        None => None,
    };
    let bert = args.bert.open(&args.device)?;
    let scored = score(Wanted {
        entry,
        predictions: path,
        items: args.items.as_deref(),
        kind: args.rule,
        model: args.model.clone(),
        folder: args.out.as_deref(),
        overrides: overrides(args, args.out.as_deref()),
        frame: !args.no_frame,
        bootstrap: Bootstrap::default(),
        tower: tower.as_ref(),
        bert: bert.as_ref(),
    })?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        scored.write(&scored::path(folder))?;
    }
    tell(args, &scored)
}

fn tower(args: &BenchmarkArgs, clap: &Path, tokenizer: Option<&Path>) -> Result<TextSpace> {
    TextSpace::open(clap, tokenizer, device::of(&args.device)?)
}

/// The file that was named, or the one that lies where the results do.
fn overrides(args: &BenchmarkArgs, folder: Option<&Path>) -> Option<PathBuf> {
    let beside = || folder.map(scored::overrides).filter(|file| file.is_file());
    args.overrides.clone().or_else(beside)
}

fn tell(args: &BenchmarkArgs, scored: &Scored) -> Result<()> {
    if args.json {
        let text = serde_json::to_string(scored).map_err(|e| Error::io("JSON", e.into()))?;
        crate::out!("{text}");
        return Ok(());
    }
    show(scored);
    Ok(())
}

pub(in crate::cli) fn score(wanted: Wanted) -> Result<Scored> {
    let path = wanted.predictions;
    let scored = by_card(wanted)?;
    Ok(scored.under(predictions::condition(path)?))
}

fn by_card(wanted: Wanted) -> Result<Scored> {
    let (path, card) = (wanted.predictions, wanted.entry.card()?);
    // Before anything is read: what cannot be scored so.
    let way = Way::of(&card, wanted.kind)?;
    let (tower, bert) = (wanted.tower.is_some(), wanted.bert.is_some());
    scoring::fits(&card, way, wanted.kind, tower, bert)?;
    let space = match wanted.tower {
        Some(tower) => Some(SpaceFacts {
            checkpoint: named_from(wanted.folder, &tower.checkpoint)?,
            tokenizer: named_from(wanted.folder, &tower.tokenizer)?,
            tower: tower.identity()?,
            templates: scoring::templates(&card),
        }),
        None => None,
    };
    let bert_score = match wanted.bert {
        Some(bert) => Some(EncoderFacts {
            folder: named_from(wanted.folder, &bert.encoder.folder)?,
            encoder: bert.encoder.identity()?,
            layer: bert.encoder.layer,
            idf: bert.idf,
            baseline: match &bert.baseline {
                Some(baseline) => Some(named_from(wanted.folder, &baseline.path)?),
                None => None,
            },
            follows: FOLLOWS.to_owned(),
        }),
        None => None,
    };
    let source = |form: &str, of_bytes: String| -> Result<Source> {
        let items = match wanted.items {
            Some(of) => Some(named_from(wanted.folder, of)?),
            None => None,
        };
        Ok(Source {
            items: match (wanted.items, &items) {
                (Some(of), Some(named)) => Some((sha256(of)?, named.display().to_string())),
                _ => None,
            },
            model: wanted.model.clone(),
            card_sha256: hex(&Sha256::digest(wanted.entry.text.as_bytes())),
            predictions: Some(PredictionsFile {
                path: named_from(wanted.folder, path)?,
                sha256: of_bytes,
                form: form.to_owned(),
                items,
            }),
            space: space.clone(),
            bert_score: bert_score.clone(),
        })
    };
    let by_hand = match &wanted.overrides {
        Some(file) => Some(scoring::read_overrides(
            file,
            named_from(wanted.folder, file)?,
            sha256(file)?,
        )?),
        None => None,
    };
    let refuse = |by_hand: Option<Overrides>| match (by_hand, &wanted.overrides) {
        (Some(_), Some(file)) => {
            let expected = "corrections of a benchmark whose answers are right or wrong";
            Err(Error::data(
                file,
                &card.name,
                expected,
                format!("the metric {}", card.metric),
            ))
        }
        _ => Ok(()),
    };
    match way {
        Way::Verdicts => {
            let file = scoring::open(path)?;
            let items = match wanted.items {
                Some(of) => Some((of, scoring::open(of)?)),
                None => None,
            };
            let items = items.as_ref().map(|(of, items)| (*of, items));
            // A tower's tensors stay on this thread.
            let (answers, of_bytes) = std::thread::scope(|scope| {
                let of_bytes = scope.spawn(|| sha256(path));
                let answers =
                    scoring::answers(path, &file, items, &card, wanted.kind, wanted.frame, wanted.tower);
                let joined = of_bytes.join();
                (answers, joined.unwrap_or_else(|e| std::panic::resume_unwind(e)))
            });
            let answers = answers?;
            mended(path, answers.mended);
            silent(path, answers.silent);
            if answers.elsewhere > 0 {
                crate::say!(
                    "note: {}: {} answers to other manifests are left out",
                    path.display(),
                    answers.elsewhere,
                );
            }
            let source = source(answers.form.name(), of_bytes?)?;
            let scored = scoring::score(&card, answers, source, wanted.bootstrap, by_hand)?;
            with_controls(scored, wanted)
        }
        Way::Texts => {
            refuse(by_hand)?;
            let pairs = scoring::pairs(path, wanted.items, &card)?;
            mended(path, pairs.mended);
            silent(path, pairs.silent);
            let source = source(pairs.form, sha256(path)?)?;
            let scored = scoring::texts(&card, &pairs.all, wanted.bert, source, wanted.bootstrap)?;
            with_controls(scored, wanted)
        }
        Way::Classes => {
            refuse(by_hand)?;
            let source = source("scores of labels", sha256(path)?)?;
            let (scored, halves) =
                scoring::classes(&card, path, wanted.items, wanted.tower, source, wanted.bootstrap)?;
            mended(path, halves);
            Ok(scored)
        }
    }
}

/// The same, with what the answers under controls show that lie beside.
fn with_controls(mut scored: Scored, wanted: Wanted) -> Result<Scored> {
    scored.listening = controls::beside(wanted.predictions, &scored, |other| {
        score(Wanted {
            predictions: other,
            overrides: None,
            frame: false,
            model: wanted.model.clone(),
            ..wanted
        })
    })?;
    Ok(scored)
}

fn mended(path: &Path, records: usize) {
    if records > 0 {
        crate::say!(
            "note: {}: {records} records hold half of a surrogate pair, which is no text; U+FFFD stands in its place",
            path.display(),
        );
    }
}

fn silent(path: &Path, answers: usize) {
    if answers > 0 {
        crate::say!(
            "note: {}: {answers} answers to silence in the sound's place are left out: they are the control, not the model's score",
            path.display(),
        );
    }
}

/// Makes results again from the files that they name.
fn again(args: &BenchmarkArgs, run: &Path) -> Result<()> {
    let (folder, file) = match run.is_dir() {
        true => (run.to_owned(), scored::path(run)),
        false => (run.parent().unwrap_or(Path::new("")).to_owned(), run.to_owned()),
    };
    let before = Scored::read(&file).map_err(|e| {
        e.hint("`af2 score --benchmark NAME --predictions FILE --out DIR` writes them; those of `af2 eval` are made again by `af2 eval RECIPE --score-only`")
    })?;
    let Some(of) = &before.predictions else {
        let e = Error::data(
            &file,
            "predictions",
            "the files that were scored",
            "none, as an older af2 wrote",
        );
        return Err(e.hint("score the predictions once more with --out"));
    };
    let registry = Registry::with(args.cards.as_deref())?;
    let entry = registry.entry(&before.benchmark)?;
    let (predictions, items) = (
        folder.join(&of.path),
        of.items.as_ref().map(|items| folder.join(items)),
    );
    // What is not what it was.
    let mut changed = Vec::new();
    let mut look = |path: &Path, key: &str, was: &str, is: String| {
        if was != is {
            changed.push(Error::data(
                path,
                key,
                format!("{was}, as {} names it", file.display()),
                is,
            ));
        }
    };
    look(&predictions, "sha256", &of.sha256, sha256(&predictions)?);
    if let Some(items) = &items {
        look(items, "sha256", &before.data.sha256, sha256(items)?);
    }
    let card_sha256 = hex(&Sha256::digest(entry.text.as_bytes()));
    look(
        Path::new(&entry.file),
        "sha256 of the card",
        &before.card.sha256,
        card_sha256,
    );
    // Another file than then, or the one that was named then.
    let named = before.space.as_ref().map(|space| {
        let (clap, words) = (folder.join(&space.checkpoint), folder.join(&space.tokenizer));
        match &args.clap {
            Some(clap) => (clap.clone(), args.clap_tokenizer.clone()),
            None => (clap, Some(words)),
        }
    });
    let own = args.clap.clone().map(|clap| (clap, args.clap_tokenizer.clone()));
    let tower = match named.or(own) {
        Some((clap, words)) => {
            let tower = tower(args, &clap, words.as_deref());
            Some(tower.map_err(|e| e.hint("--clap CHECKPOINT says where AF-CLAP lies now"))?)
        }
        None => None,
    };
    if let (Some(tower), Some(space)) = (&tower, &before.space) {
        look(
            &tower.checkpoint,
            "the text tower",
            &space.tower,
            tower.identity()?,
        );
    }
    let bert = match (args.bert.open(&args.device)?, &before.bert_score) {
        (None, Some(own)) => {
            let baseline = own.baseline.as_ref().map(|file| folder.join(file));
            let at = folder.join(&own.folder);
            let bert = encoder::open(&at, Some(own.layer), own.idf, baseline.as_deref(), &args.device);
            Some(bert.map_err(|e| e.hint("--bertscore FOLDER says where the encoder lies now"))?)
        }
        (given, _) => given,
    };
    if let (Some(bert), Some(own)) = (&bert, &before.bert_score) {
        let is = bert.encoder.identity()?;
        look(&bert.encoder.folder, "the encoder", &own.encoder, is);
    }
    if !args.accept && !changed.is_empty() {
        let last = changed.pop().map(|e| {
            e.hint("--accept makes the results from these; --cards DIR, if the card was one of yours")
        });
        changed.extend(last);
        return crate::error::all(changed);
    }
    for e in &changed {
        crate::say!("note: {e}");
    }
    let by_hand = match (&before.corrected, overrides(args, Some(&folder))) {
        (_, Some(file)) => Some(file),
        (Some(corrected), None) => Some(folder.join(&corrected.path)),
        (None, None) => None,
    };
    let after = score(Wanted {
        entry,
        predictions: &predictions,
        items: items.as_deref(),
        kind: Kind::from_str(&before.kind, false)
            .map_err(|e| Error::data(&file, "kind", "official or fair", e))?,
        model: before.model.clone(),
        folder: Some(&folder),
        overrides: by_hand,
        frame: !args.no_frame && (before.frame.is_some() || before.af2.is_none()),
        bootstrap: before.bootstrap,
        tower: tower.as_ref(),
        bert: bert.as_ref(),
    })?;
    let told = differences(&file, &before, &after)?;
    if args.check {
        return match told.differ {
            false => {
                crate::out!("{}", told.text);
                Ok(())
            }
            true => Err(Error::Mismatch(told.text)),
        };
    }
    after.write(&file)?;
    tell(args, &after)?;
    crate::say!("{}", told.text);
    Ok(())
}

/// A file as results in `folder` name it: from there where it lies within, so that the folder may be moved.
pub(in crate::cli) fn named_from(folder: Option<&Path>, path: &Path) -> Result<PathBuf> {
    let whole = |p: &Path| std::path::absolute(p).map_err(|e| Error::io(p, e));
    let Some(folder) = folder else {
        return Ok(path.to_owned());
    };
    let (folder, file) = (whole(folder)?, whole(path)?);
    Ok(file.strip_prefix(&folder).map_or(file.clone(), Path::to_owned))
}
