//! What stages begin with: the LM's folder, AF-CLAP's file, checkpoints.

use super::file::{self, no_folder, said};
use super::listing::{Kind, Lack, Report};
use super::published;
use crate::checkpoint::Parts;
use crate::load::{self, New, Sizes, Start, StartFrom};
use crate::model::lm;
use crate::model::presets::{preset, NAMES};
use crate::recipe::{Recipe, StageRecipe};
use crate::text::tokenizer::Tokenizer;
use std::collections::BTreeSet;
use std::path::{absolute, Path, PathBuf};

/// What a stage begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin<'r> {
    /// What the recipe's `model` says.
    Recipe,
    /// What this earlier stage of the run has written.
    Stage(&'r StageRecipe),
    /// A checkpoint from elsewhere.
    Path(&'r Path),
}

/// What stage number `index` begins with.
pub(crate) fn begin(recipe: &Recipe, index: usize) -> Begin<'_> {
    let before = &recipe.stages[..index];
    let Some(from) = recipe.stages.get(index).and_then(|s| s.from.as_ref()) else {
        return before.last().map_or(Begin::Recipe, Begin::Stage);
    };
    // A stage's folder is the stage, by whichever name.
    let same = |s: &&StageRecipe| s.name == *from || is(Path::new(from), &recipe.stage_folder(&s.name));
    match before.iter().find(same) {
        Some(stage) => Begin::Stage(stage),
        None => Begin::Path(Path::new(from)),
    }
}

fn is(a: &Path, b: &Path) -> bool {
    matches!((absolute(a), absolute(b)), (Ok(a), Ok(b)) if a == b)
}

/// A checkpoint of a recipe, with the parts that may lie elsewhere.
pub fn parts(recipe: &Recipe, checkpoint: &Path) -> Parts {
    Parts {
        checkpoint: checkpoint.to_path_buf(),
        llm: recipe.model.lm.clone(),
        clap: recipe.model.clap.clone(),
        base: recipe.model.base.clone(),
    }
}

/// The model that a recipe begins with, as `load` reads it: `model.checkpoint`, or a new one.
pub fn start(recipe: &Recipe) -> Start {
    let model = &recipe.model;
    let from = match &model.checkpoint {
        Some(checkpoint) => StartFrom::Checkpoint(parts(recipe, checkpoint)),
        None => StartFrom::New(New {
            llm: recipe.lm_folder(),
            clap: recipe.clap_file(),
            audio_transformer: model.audio_transformer(),
            cross_attention: model.cross_attention(),
            max_windows: model.max_windows,
            seed: recipe.seed,
        }),
    };
    let sizes = Sizes {
        encoder: recipe.clap.as_ref().map(|clap| clap.audio.clone()),
        audio_transformer: model.audio_transformer.clone(),
        cross_attention: model.cross_attention.clone(),
    };
    Start { from, sizes }
}

/// Looks at what these stages begin with, where none of them writes it.
pub(super) fn begins(recipe: &Recipe, stages: &[usize], report: &mut Report) {
    let runs = |stage: &StageRecipe| {
        let mut runs = stages.iter().filter_map(|i| recipe.stages.get(*i));
        runs.any(|s| s.name == stage.name)
    };
    for index in stages {
        let Some(stage) = recipe.stages.get(*index) else {
            continue;
        };
        let by = [stage.name.clone()];
        match begin(recipe, *index) {
            Begin::Stage(before) if runs(before) => {}
            Begin::Stage(before) => {
                let folder = recipe.stage_folder(&before.name);
                let key = format!("what stage {} has written", before.name);
                whole(recipe, &folder.as_path().into(), &key, &by, report);
            }
            Begin::Recipe => match &recipe.model.checkpoint {
                Some(path) => whole(recipe, &parts(recipe, path), "model.checkpoint", &by, report),
                None => new(recipe, &by, report),
            },
            Begin::Path(path) => {
                let written = |s: &StageRecipe| {
                    let folder = absolute(recipe.stage_folder(&s.name));
                    runs(s) && matches!((absolute(path), folder), (Ok(p), Ok(f)) if p.starts_with(&f))
                };
                // A file that an earlier stage will have written by then.
                if path.exists() || !recipe.stages[..*index].iter().any(written) {
                    let key = format!("stages.{}.from", stage.name);
                    whole(recipe, &parts(recipe, path), &key, &by, report);
                }
            }
        }
    }
}

/// Looks at a checkpoint and the parts that lie elsewhere.
pub(super) fn whole(recipe: &Recipe, parts: &Parts, key: &str, by: &[String], report: &mut Report) {
    let before = report.lacks.len();
    let path = &parts.checkpoint;
    let mut lack = |kind, key: &str, path: &Path, found: String, damaged| {
        let lack = Lack::new(kind, key, path, found, by);
        report.lacks.push(Lack { damaged, ..lack });
    };
    match std::fs::metadata(path) {
        Err(e) => lack(Kind::Checkpoint, key, path, said(path, &e), false),
        Ok(what) if what.is_dir() => {
            for folder in [
                path.clone(),
                path.join("safe_ckpt"),
                path.join("clap_ckpt"),
                path.join("llm"),
            ] {
                for (file, found) in strange_files(&folder) {
                    let there = file.exists();
                    lack(Kind::Checkpoint, key, &file, found, there);
                }
            }
        }
        Ok(_) => {
            if let Some(found) = file::wrong(path) {
                lack(Kind::Checkpoint, key, path, found, true);
            }
        }
    }
    if let Some(base) = &parts.base {
        if let Some(found) = no_folder(base) {
            lack(Kind::Checkpoint, "model.base", base, found, false);
        }
    }
    if let Some(clap) = &parts.clap {
        if let Some(found) = file::wrong(clap) {
            let there = clap.exists();
            lack(Kind::Clap, "model.clap", clap, found, there);
        }
    }
    if let Some(llm) = &parts.llm {
        // Its weights may be the checkpoint's.
        small_files(recipe, llm, by, report);
    }
    for lack in &mut report.lacks[before..] {
        lack.get = match lack.kind {
            Kind::Checkpoint if lack.path == *path && is_release(key, path) => {
                published::checkpoint(path, parts.llm.as_deref())
            }
            Kind::Clap => published::clap(&lack.path),
            _ => std::mem::take(&mut lack.get),
        };
    }
    if report.lacks.len() > before {
        return;
    }
    let fits = match recipe.model.checkpoint.as_ref() {
        Some(own) if *own == *path => load::check_start(&start(recipe)),
        _ => load::check(parts),
    };
    if let Err(e) = fits {
        let refused = Lack::refused(Kind::Checkpoint, key, path, &e, by);
        let no_llm = path.is_dir() && parts.llm.is_none() && no_folder(&path.join("llm")).is_some();
        let get = match no_llm && is_release(key, path) {
            true => published::checkpoint(path, None),
            false => Vec::new(),
        };
        report.lacks.push(refused.get(get));
    }
}

/// Whether a path may be meant to hold the published weights: not where it is a run's own.
fn is_release(key: &str, path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    key == "model.checkpoint" || name.contains("flamingo") || name.contains("af2")
}

/// Looks at the LM and the audio encoder of a new model.
fn new(recipe: &Recipe, by: &[String], report: &mut Report) {
    let before = report.lacks.len();
    let (llm, clap) = (recipe.lm_folder(), recipe.clap_file());
    small_files(recipe, &llm, by, report);
    if no_folder(&llm).is_none() {
        let get = get_lm(recipe);
        if weights(&llm).is_empty() {
            let found = "no weights: model.safetensors, pytorch_model.bin or shards of them";
            let lack = Lack::new(Kind::Lm, "model.lm", &llm, found, by);
            report.lacks.push(lack.get(get));
        }
    }
    if let Some(found) = file::wrong(&clap) {
        let get = match recipe.clap.is_some() && recipe.model.clap.is_none() {
            true => vec!["`af2 clap RECIPE` trains the recipe's own".to_owned()],
            false => published::clap(&clap),
        };
        let lack = Lack::new(Kind::Clap, "model.clap", &clap, found, by).get(get);
        report.lacks.push(Lack {
            damaged: clap.exists(),
            ..lack
        });
    }
    if report.lacks.len() > before {
        return;
    }
    if let Err(e) = load::check_start(&start(recipe)) {
        let key = "model.lm and model.clap";
        report
            .lacks
            .push(Lack::refused(Kind::Checkpoint, key, &llm, &e, by));
    }
    report.notes.extend(other_size(&llm));
}

/// Looks at an LM's tokenizer alone.
pub(super) fn tokenizer(recipe: &Recipe, by: &[String], report: &mut Report) {
    let before = report.lacks.len();
    let llm = recipe.lm_folder();
    small_files(recipe, &llm, by, report);
    if report.lacks.len() == before {
        if let Err(e) = Tokenizer::open(&llm) {
            report
                .lacks
                .push(Lack::refused(Kind::Lm, "model.lm", &llm, &e, by));
        }
    }
}

/// Looks at an LM's folder: configuration, tokenizer, and that no file is a pointer to one.
fn small_files(recipe: &Recipe, llm: &Path, by: &[String], report: &mut Report) {
    let get = get_lm(recipe);
    let mut lack = |path: &Path, found: String, damaged| {
        let lack = Lack::new(Kind::Lm, "model.lm", path, found, by).get(get.clone());
        report.lacks.push(Lack { damaged, ..lack });
    };
    if let Some(found) = no_folder(llm) {
        return lack(llm, found, llm.exists());
    }
    for (file, found) in strange_files(llm) {
        let there = file.exists();
        lack(&file, found, there);
    }
    let there = |name: &str| llm.join(name).exists();
    if !there("config.json") {
        lack(&llm.join("config.json"), "not there".into(), false);
    }
    let whole = there("tokenizer.json") || there("vocab.json") && there("merges.txt");
    if !whole {
        let found = "not there, nor vocab.json with merges.txt";
        lack(&llm.join("tokenizer.json"), found.into(), false);
    }
}

fn get_lm(recipe: &Recipe) -> Vec<String> {
    match recipe.lm.is_some() && recipe.model.lm.is_none() {
        true => vec!["`af2 lm RECIPE` trains the recipe's own".into()],
        false => published::lm(&recipe.lm_folder()),
    }
}

/// Files of a checkpoint's folder that are read and cannot be: pointers, empty ones, web pages, and those that an index names
/// and that are not there.
fn strange_files(folder: &Path) -> Vec<(PathBuf, String)> {
    let at = |name: &str| Some(folder.join(name)).filter(|p| p.symlink_metadata().is_ok());
    let mut small = vec![
        "config.json",
        "tokenizer_config.json",
        "generation_config.json",
        "tokenizer.json",
    ];
    if at("tokenizer.json").is_none() {
        small.extend(["vocab.json", "merges.txt"]);
    }
    let small = small.into_iter().filter_map(at);
    let all = small.chain(weights(folder));
    all.filter_map(|path| file::wrong(&path).map(|found| (path, found)))
        .collect()
}

/// The files of weights in a folder that are read, there or not.
fn weights(folder: &Path) -> Vec<PathBuf> {
    let json = |name: &str| -> Option<serde_json::Value> {
        let text = crate::fsutil::read_text(&folder.join(name)).ok()?;
        serde_json::from_str(&text).ok()
    };
    let all = |names: BTreeSet<String>| names.into_iter().map(|n| folder.join(n)).collect();
    if let Some(chunks) = json("metadata.json") {
        let list = chunks.as_array().into_iter().flatten().filter_map(|v| v.as_str());
        let keys = chunks.as_object().into_iter().flatten().map(|(k, _)| k.as_str());
        let file = |chunk: &str| format!("{}.safetensors", chunk.trim_end_matches(".safetensors"));
        return all(list.chain(keys).map(file).collect());
    }
    for single in ["model.safetensors", "pytorch_model.bin"] {
        if folder.join(single).symlink_metadata().is_ok() {
            return vec![folder.join(single)];
        }
        if let Some(index) = json(&format!("{single}.index.json")) {
            let map = index["weight_map"].as_object().into_iter().flatten();
            return all(map
                .filter_map(|(_, file)| file.as_str())
                .map(str::to_owned)
                .collect());
        }
    }
    // clap_ckpt/ holds the one file that it holds.
    let clap = |p: &PathBuf| p.extension().is_some_and(|e| e == "pt" || e == "pth");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .map(|f| f.path())
        .filter(|p| clap(p) && folder.ends_with("clap_ckpt"))
        .collect()
}

/// A note where a folder is named after one published size and holds another.
fn other_size(llm: &Path) -> Option<String> {
    let config = lm::Config::read(llm).ok()?.decoder();
    let name = llm.file_name()?.to_string_lossy().to_ascii_lowercase();
    let size = |known: &&str| name.contains(&format!("qwen2.5-{}", known.trim_start_matches("af2-")));
    let known = NAMES.into_iter().find(size)?;
    let theirs = preset(known).ok()?.lm.decoder();
    let of = |c: &lm::DecoderConfig| (c.hidden_size, c.num_hidden_layers);
    (of(&theirs) != of(&config)).then(|| {
        format!(
            "{}: named after an LM {} wide with {} layers; its config.json has {} and {}",
            llm.display(),
            theirs.hidden_size,
            theirs.num_hidden_layers,
            config.hidden_size,
            config.num_hidden_layers
        )
    })
}
