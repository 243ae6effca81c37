//! Benchmarks' cards and their imported manifests as sets of questions, asked by the one runner.
//!
//! ```text
//! cards ─► manifests (MANIFESTS/NAME/SPLIT.json) ─► asked.rs, questions.rs ─► asking.rs ─► RUN/NAME/predictions.jsonl, controls/, asked.json
//! ```

use super::asking::{Job, Output};
use super::cascade;
use super::control::Control;
use super::question::{InWords, Paraphrase, Wanted, Way};
use super::questions::{evaluation, Questions};
use super::scoring::Kind;
use crate::benchmark::names::Task;
use crate::benchmark::{Card, Entry, Registry};
use crate::dist::Ranks;
use crate::error::{self, Error, Result};
use crate::fsutil::{read_text_within, sha256};
use crate::generate::decoding::Decoding;
use crate::load::Loaded;
use crate::recipe::EvalRecipe;
use crate::run::asked::{self, Asked, Cascade};
use crate::run::predictions::Prediction;
use crate::run::{journal, predictions};
use crate::text::tokenizer::Tokenizer;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A manifest of a benchmark is no larger.
const MOST_BYTES: u64 = 1 << 30;

/// A card with its items.
pub(crate) struct Benchmark<'a> {
    pub entry: &'a Entry,
    pub card: Card,
    /// As imported.
    pub manifest: PathBuf,
    /// Below it lie the sounds.
    pub audio: PathBuf,
}

/// What is to be asked, and where the answers go.
pub(crate) struct Request<'a> {
    pub benchmarks: &'a [Benchmark<'a>],
    /// The run's folder; each benchmark has one in it.
    pub out: &'a Path,
    pub controls: &'a [Control],
    pub limit: Option<usize>,
    pub paraphrase: Paraphrase,
    pub way: Way,
    /// Which of a card's rules gives the score.
    pub rule: Kind,
    /// What is said of decoding beside the cards.
    pub decoding: Changes,
    pub strip_thinking: bool,
    /// Asked of captions of the clips' pieces alone.
    pub cascade: Option<&'a Cascade>,
    /// As the results name it.
    pub model: &'a str,
    /// Ask all of it again.
    pub afresh: bool,
}

/// How answers are chosen otherwise than a card says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Changes {
    pub temperature: Option<f64>,
    pub samples: usize,
    pub seed: u64,
    pub max_new_tokens: Option<usize>,
}

impl Changes {
    /// How the answers of a card's items are chosen.
    ///
    /// # Errors
    /// Several samples that would all be the same.
    pub(crate) fn of(&self, card: &Card) -> Result<Decoding> {
        let Some(own) = &card.decoding else {
            let e = Error::data(
                &card.name,
                "decoding",
                "a benchmark whose items are asked",
                "one that compares embeddings",
            );
            return Err(e.hint(
                "`af2 score retrieval` and `af2 score --benchmark` take embeddings and scores of labels",
            ));
        };
        let temperature = self.temperature.unwrap_or(own.temperature);
        let do_sample = temperature != 0.0;
        if self.samples > 1 && !do_sample {
            return Err(Error::usage(format!(
                "--samples {}: expected a temperature above 0, found {temperature} for {}: all samples would be the same",
                self.samples, card.name
            ))
            .hint("--temperature 0.7"));
        }
        let decoding = Decoding {
            do_sample,
            temperature: if do_sample { temperature } else { 1.0 },
            num_beams: match do_sample {
                true => 1,
                false => own.num_beams as usize,
            },
            num_return_sequences: self.samples.max(1),
            max_new_tokens: self.max_new_tokens.unwrap_or(own.max_new_tokens as usize),
            seed: self.seed,
            ..Decoding::default()
        };
        match decoding.check().into_iter().next() {
            Some(wrong) => Err(Error::usage(format!(
                "{}: {}: expected {}, found {}",
                card.name, wrong.key, wrong.expected, wrong.found
            ))),
            None => Ok(decoding),
        }
    }
}

/// What of a manifest says which benchmark it is.
#[derive(Deserialize)]
struct Imported {
    benchmark: Option<Facts>,
}

#[derive(Deserialize)]
struct Facts {
    card: String,
    card_sha256: String,
    /// None in manifests of before it was written down.
    audio: Option<PathBuf>,
}

/// The cards of these names, `all`, or those of a table (`table1`): each once, in their order; and whether each was asked for by its
/// own name.
///
/// # Errors
/// A name that is none.
pub(crate) fn named<'a>(registry: &'a Registry, names: &[String]) -> Result<Vec<(&'a Entry, bool)>> {
    let mut all: Vec<(&Entry, bool)> = Vec::new();
    let mut add = |entry: &'a Entry, own: bool| match all.iter_mut().find(|(e, _)| e.file == entry.file) {
        Some((_, before)) => *before |= own,
        None => all.push((entry, own)),
    };
    for name in names {
        let table = name.strip_prefix("table").and_then(|n| n.parse::<u32>().ok());
        match (name.as_str(), table) {
            ("all", _) => registry.entries().iter().for_each(|e| add(e, false)),
            (_, Some(table)) => {
                let mut any = false;
                for entry in registry.entries() {
                    if entry.card()?.paper.iter().any(|row| row.table == table) {
                        add(entry, false);
                        any = true;
                    }
                }
                if !any {
                    let e = Error::usage(format!(
                        "--benchmarks {name}: no card has a row of the paper's table {table}"
                    ));
                    return Err(e.hint("`af2 benchmark ls --table N` shows those of a table"));
                }
            }
            (name, None) => add(registry.entry(name)?, true),
        }
    }
    Ok(all)
}

/// What of benchmarks is there to be asked, and what is not, each with the reason and what to do.
pub(crate) struct Found<'a> {
    pub there: Vec<Benchmark<'a>>,
    pub absent: Vec<String>,
}

/// Looks for the manifests of cards in `manifests`, and for their sounds where the manifest says, or below `audio`: folders by the
/// card's name, or one for all (the empty name).
///
/// # Errors
/// A manifest that cannot be read, or is another benchmark's; what was asked for by its own name and is not there.
pub(crate) fn find<'a>(
    entries: &[(&'a Entry, bool)],
    manifests: &Path,
    audio: &[(String, PathBuf)],
) -> Result<Found<'a>> {
    let mut found = Found {
        there: Vec::new(),
        absent: Vec::new(),
    };
    let (mut errors, mut missing) = (Vec::new(), Vec::new());
    for (entry, own) in entries {
        let card = entry.card()?;
        let manifest = manifests.join(&card.name).join(format!("{}.json", card.scored));
        let lacks = if card.decoding.is_none() {
            Some(format!(
                "{}: it compares embeddings, no model is asked",
                card.name
            ))
        } else if !manifest.is_file() {
            Some(format!(
                "{}: no {}; af2 benchmark import {} --from OFFICIAL_FILES --audio DIR --out {}",
                card.name,
                manifest.display(),
                card.name,
                manifests.display()
            ))
        } else {
            None
        };
        match lacks {
            Some(why) if *own => missing.push(why),
            Some(why) => found.absent.push(why),
            None => match benchmark(entry, card, manifest, audio) {
                Ok(one) => found.there.push(one),
                Err(e) => errors.push(e),
            },
        }
    }
    if !missing.is_empty() || (found.there.is_empty() && errors.is_empty()) {
        missing.extend(std::mem::take(&mut found.absent));
        return Err(Error::Missing {
            listing: format!(
                "benchmarks that cannot be asked here:\n  {}",
                missing.join("\n  ")
            ),
            code: 3,
        });
    }
    error::all(errors)?;
    Ok(found)
}

fn benchmark<'a>(
    entry: &'a Entry,
    card: Card,
    manifest: PathBuf,
    audio: &[(String, PathBuf)],
) -> Result<Benchmark<'a>> {
    let text = read_text_within(&manifest, MOST_BYTES)?;
    let imported: Imported = serde_json::from_str(&text).map_err(|e| {
        Error::data(
            &manifest,
            "file",
            "a manifest as `af2 benchmark import` writes it",
            e.to_string(),
        )
    })?;
    let Some(facts) = imported.benchmark else {
        let e = Error::data(
            &manifest,
            "benchmark",
            "what `af2 benchmark import` says of a manifest",
            "nothing",
        );
        return Err(e.hint("import the official files, or name the set in a recipe: af2 eval RECIPE"));
    };
    if facts.card != card.name {
        return Err(Error::data(
            &manifest,
            "benchmark.card",
            card.name.clone(),
            facts.card,
        ));
    }
    if facts.card_sha256 != entry.sha256() {
        crate::say!(
            "note: {}: it was imported by another version of the card {}; its questions are asked as they stand there",
            manifest.display(),
            card.name
        );
    }
    let said = |name: &str| {
        audio
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, folder)| folder.clone())
    };
    let audio = said(&card.name).or_else(|| said("")).or(facts.audio);
    let Some(audio) = audio else {
        let e = Error::data(
            &manifest,
            "benchmark.audio",
            "the folder of the sounds",
            "nothing, as an older af2 wrote",
        );
        return Err(e.hint(format!("--audio {}=DIR", card.name)));
    };
    Ok(Benchmark {
        entry,
        card,
        manifest,
        audio,
    })
}

/// Where a benchmark's answers and results lie.
pub(crate) fn folder(run: &Path, card: &Card) -> PathBuf {
    run.join(&card.name)
}

/// The file of a benchmark's answers under a control.
pub(crate) fn answers(folder: &Path, control: Control) -> PathBuf {
    match control {
        Control::None => predictions::path(folder),
        // A colon is no character of a file's name everywhere.
        other => predictions::controls(folder).join(format!("{}.jsonl", other.to_string().replace(':', "-"))),
    }
}

/// All that is to be asked, and where the answers go.
pub(super) struct Prepared {
    pub questions: Questions,
    /// A hash of whom is asked and how.
    pub evaluation: String,
    /// Of benchmarks whose answers are not all there.
    pub outputs: Vec<Output>,
    /// By benchmark.
    asked: Vec<Asked>,
}

/// Asks a model all questions of the benchmarks, each way, and writes `NAME/predictions.jsonl`, `NAME/controls/` and `NAME/asked.json`.
/// What a run before has asked to its end, of the same model in the same way, is taken as it is; what it has left half asked is gone
/// on with.
///
/// # Errors
/// As [`super::run`]; a paraphrase that a card does not have.
pub(crate) fn ask(request: &Request, eval: &EvalRecipe, model: &Loaded, ranks: &Ranks) -> Result<()> {
    let evaluation = evaluation(model, eval, None)?;
    // Captions have journals of their own: what is left of the items' waits meanwhile.
    let own = blake3::hash(format!("captions {evaluation}").as_bytes());
    let own = own.to_hex().to_string();
    let journals = journal::folder(request.out, &own);
    let tokenizer = Some(&model.tokenizer);
    let in_words = in_words(
        request,
        eval.windows,
        tokenizer,
        &evaluation,
        Some(ranks),
        |questions| {
            let output = Output {
                path: request.out.to_owned(),
                sets: 0..questions.sets.len(),
                control: None,
            };
            let job = Job {
                questions,
                folder: journals.clone(),
                evaluation: own.clone(),
                eval,
                model,
                ranks,
                threads: 0,
                outputs: &[output],
            };
            job.asked(request.out, request.afresh)
        },
    )?;
    // They are written, all of them.
    if in_words.is_some() && ranks.first() {
        journal::remove(&journals)?;
    }
    let prepared = prepare(
        request,
        eval.windows,
        tokenizer,
        evaluation,
        in_words.as_ref(),
        ranks.first(),
    )?;
    let job = Job {
        questions: &prepared.questions,
        folder: journal::folder(request.out, &prepared.evaluation),
        evaluation: prepared.evaluation.clone(),
        eval,
        model,
        ranks,
        threads: 0,
        outputs: &prepared.outputs,
    };
    job.run(request.out, request.afresh)?;
    match ranks.first() {
        true => finish(request, &prepared),
        false => Ok(()),
    }
}

/// The clips in words, where that is how the items are asked; `ask` has captioned what is not yet.
pub(super) fn in_words(
    request: &Request,
    windows: usize,
    tokenizer: Option<&Tokenizer>,
    evaluation: &str,
    ranks: Option<&Ranks>,
    ask: impl FnOnce(&Questions) -> Result<Option<HashMap<String, Vec<Prediction>>>>,
) -> Result<Option<InWords>> {
    let Some(cascade) = request.cascade else {
        return Ok(None);
    };
    let sets = request.benchmarks.iter().map(|one| cascade::Set {
        folder: folder(request.out, &one.card),
        manifest: &one.manifest,
        root: &one.audio,
    });
    let wanted = cascade::Wanted {
        cascade,
        sets: sets.collect(),
        limit: request.limit,
        windows,
        tokenizer,
        evaluation,
        ranks,
        afresh: request.afresh,
    };
    // Before anything is captioned.
    for set in &wanted.sets {
        same_way(request, &set.folder)?;
    }
    wanted.in_words(ask).map(Some)
}

/// Answers to sounds and answers to captions of them do not take each other's place.
fn same_way(request: &Request, folder: &Path) -> Result<()> {
    let said = |cascade: Option<&Cascade>| cascade.map_or("heard".to_owned(), Cascade::condition);
    let Some(before) = Asked::read(folder)? else {
        return Ok(());
    };
    let (was, is) = (said(before.cascade.as_ref()), said(request.cascade));
    match was == is {
        true => Ok(()),
        false => {
            let e = Error::data(asked::path(folder), "cascade", format!("answers of: {is}"), was);
            Err(e.hint("--out names a folder of its own for each of them"))
        }
    }
}

/// Words the questions, and looks which of them are answered.
pub(super) fn prepare(
    request: &Request,
    windows: usize,
    tokenizer: Option<&Tokenizer>,
    evaluation: String,
    in_words: Option<&InWords>,
    tell: bool,
) -> Result<Prepared> {
    askable(request, tell)?;
    for one in request.benchmarks {
        same_way(request, &folder(request.out, &one.card))?;
    }
    let sets = request
        .benchmarks
        .iter()
        .map(|one| wanted(request, one, in_words));
    let sets = sets.collect::<Result<Vec<_>>>()?;
    let questions = Questions::read(&sets, windows, tokenizer)?;
    let (mut outputs, mut all) = (Vec::new(), Vec::new());
    for (i, (one, set)) in request.benchmarks.iter().zip(&sets).enumerate() {
        let folder = folder(request.out, &one.card);
        let asked = Asked {
            benchmark: one.card.name.clone(),
            card_sha256: one.entry.sha256(),
            evaluation: evaluation.clone(),
            questions: questions.sets[i].hash.clone(),
            manifest: std::path::absolute(&one.manifest).map_err(|e| Error::io(&one.manifest, e))?,
            manifest_sha256: sha256(&one.manifest)?,
            model: request.model.to_owned(),
            decoding: serde_json::to_value(&set.decoding)
                .map_err(|e| Error::recipe("decoding", e.to_string()))?,
            controls: set.controls.iter().map(Control::to_string).collect(),
            paraphrase: match set.paraphrase {
                Paraphrase::Chosen => None,
                Paraphrase::Of(n) => Some(n.to_string()),
                Paraphrase::All => Some("all".to_owned()),
            },
            limit: request.limit,
            strip_thinking: request.strip_thinking,
            cascade: request.cascade.cloned(),
        };
        let files: Vec<(Control, PathBuf)> = (set.controls.iter())
            .map(|control| (*control, answers(&folder, *control)))
            .collect();
        let same =
            |before: Asked| (&before.evaluation, &before.questions) == (&asked.evaluation, &asked.questions);
        let there = !request.afresh && files.iter().all(|(_, path)| path.is_file());
        if there && Asked::read(&folder)?.is_some_and(same) {
            if tell {
                crate::say!(
                    "{}: all answers are there, and are taken as they are",
                    one.card.name
                );
            }
        } else {
            outputs.extend(files.into_iter().map(|(control, path)| Output {
                path,
                sets: i..i + 1,
                control: Some(control),
            }));
        }
        all.push(asked);
    }
    Ok(Prepared {
        questions,
        evaluation,
        outputs,
        asked: all,
    })
}

/// Says beside the answers whose they are.
pub(super) fn finish(request: &Request, prepared: &Prepared) -> Result<()> {
    for (one, asked) in request.benchmarks.iter().zip(&prepared.asked) {
        asked.write(&folder(request.out, &one.card))?;
    }
    Ok(())
}

/// Whether the items of a card can be asked so.
pub(crate) fn takes(card: &Card, control: Control) -> bool {
    match control {
        Control::Permute(_) => card.task == Task::Mcq,
        Control::Likelihood => matches!(card.task, Task::Mcq | Task::YesNo | Task::ClosedLabel),
        Control::Rephrase => card.prompt.pool.len() > 1,
        _ => true,
    }
}

/// The ways in which the items of a card are asked.
fn controls(request: &Request, card: &Card) -> Vec<Control> {
    let all = request.controls.iter().copied();
    all.filter(|control| takes(card, *control)).collect()
}

/// Says of which benchmarks a control is not asked.
///
/// # Errors
/// One that none of them takes.
fn askable(request: &Request, tell: bool) -> Result<()> {
    for control in request.controls {
        let without = request.benchmarks.iter().filter(|b| !takes(&b.card, *control));
        let names: Vec<&str> = without.map(|b| b.card.name.as_str()).collect();
        let why = match control {
            Control::Permute(_) | Control::Likelihood => "its items have no options of their own",
            _ => "its pool has no other wording",
        };
        if names.len() == request.benchmarks.len() {
            let e = Error::usage(format!(
                "--control {control}: no benchmark takes it: {}",
                names.join(", ")
            ));
            return Err(e.hint(why));
        }
        for name in names.iter().filter(|_| tell) {
            crate::say!("note: {control} is not asked of {name}: {why}");
        }
    }
    Ok(())
}

fn wanted<'a>(request: &Request, one: &'a Benchmark, in_words: Option<&'a InWords>) -> Result<Wanted<'a>> {
    let card = &one.card;
    let pool = card.prompt.pool.len();
    let few = match request.paraphrase {
        Paraphrase::Of(n) => n >= pool && n != card.prompt.chosen,
        Paraphrase::Chosen | Paraphrase::All => false,
    };
    if few {
        let expected = "another wording in the card's pool";
        let e = Error::data(&card.name, "prompt.pool", expected, format!("{pool} in all"));
        return Err(e.hint(format!("af2 benchmark show {}", card.name)));
    }
    Ok(Wanted {
        name: card.name.clone(),
        manifest: one.manifest.clone(),
        root: one.audio.clone(),
        limit: request.limit,
        decoding: request.decoding.of(card)?,
        own_decoding: true,
        controls: controls(request, card),
        card: Some(card),
        paraphrase: match pool {
            0 => Paraphrase::Chosen,
            _ => request.paraphrase,
        },
        way: request.way,
        rule: request
            .rule
            .rule(card)
            .ok()
            .filter(|rule| !rule.compares_embeddings()),
        strip_thinking: request.strip_thinking,
        in_words,
    })
}
