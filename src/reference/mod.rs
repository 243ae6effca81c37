//! The reference's own YAML (`pretrain.yaml`, `sft.yaml`) as one of our recipes, in parity mode: what its trainer does without
//! being told is written out, and what has no counterpart here is said.

mod blending;
mod reading;
pub(crate) mod sizes;

pub use blending::Blending;

use crate::error::{all, Result};
use crate::run;
use crate::shapes::WINDOW_SECONDS;
use crate::yaml::{Content, Node, Place};
use indexmap::IndexMap;
use reading::{yes, Import, SAME};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Optimizer steps.
pub(crate) struct Counted {
    /// In all.
    pub steps: usize,
    /// Of one virtual epoch.
    pub an_epoch: usize,
    /// What the reference gives its schedule for their number: it counts micro-steps, whole ones, of the first epoch.
    pub schedule: usize,
}

/// What a reference file gave beside the recipe.
#[derive(Debug, Clone)]
pub(crate) struct Imported {
    /// What has no counterpart, one line each.
    pub notes: Vec<String>,
    /// Virtual epochs.
    epochs: u64,
    /// Our key → where its value is from.
    comments: IndexMap<String, String>,
}

/// Whether this is a file of the reference's trainer: by its top keys.
pub(crate) fn is_reference(root: &Node) -> bool {
    let sections = ["train_config", "data_config", "model_config", "clap_config"];
    sections.iter().filter(|s| root.get(s).is_some()).count() >= 2
}

/// The file as a recipe's tree.
///
/// # Errors
/// Keys that a recipe needs and the file lacks, and values that mean something that cannot be done here.
pub(crate) fn convert(root: &Node) -> Result<(Node, Imported)> {
    let mut to = Node::map(&root.place);
    let mut stage = Node::map(&root.place);
    stage.content = Content::List(vec![stage.clone()]);
    if let Content::Map(map) = &mut to.content {
        // Set first, so that paths lead into it; stands last in the end.
        map.insert("stages".into(), (root.place.clone(), stage));
    }
    let mut i = Import {
        from: root,
        to,
        comments: IndexMap::new(),
        used: BTreeSet::new(),
        notes: Vec::new(),
        errors: Vec::new(),
        habit: Place::whole("reference's trainer", ""),
    };
    i.name();
    i.run();
    i.model();
    i.data();
    i.stage();
    let epochs = i.epochs();
    i.say_what_is_left();
    all(std::mem::take(&mut i.errors))?;
    if let Some(stages) = i.to.take("stages") {
        let _ = i.to.set("stages", stages);
    }
    let imported = Imported {
        notes: i.notes,
        epochs,
        comments: i.comments,
    };
    Ok((i.to, imported))
}

impl Import<'_> {
    /// The stage's name, which its folder bears.
    fn name(&mut self) {
        let tuned = self.from.get("sft_config").is_some();
        let name = if tuned { "sft" } else { "pretrain" };
        self.habit("stages.0.name", name, "which of the reference's files this is");
    }

    /// Name, seed, output, and how it runs.
    fn run(&mut self) {
        let name = self.text("train_config.run_name").unwrap_or("reference".into());
        self.habit("name", &name, "train_config.run_name");
        self.take("name", "train_config.run_name", SAME);
        self.take("seed", "train_config.seed", SAME);
        let output = PathBuf::from(self.text("train_config.expdir").unwrap_or(".".into())).join(&name);
        let place = self.place("train_config.expdir");
        let comment = "train_config.expdir, run_name".to_owned();
        self.put(
            "output",
            Node::plain(output.display().to_string(), &place),
            comment,
        );
        self.take("train.precision", "train_config.precision", &|text| match text {
            "amp_bf16" | "amp_bfloat16" => Ok("amp_bf16".into()),
            "fp32" => Ok("fp32".into()),
            _ => Err(format!(
                "expected amp_bf16 or fp32, found `{text}`: weights that train are kept in fp32"
            )),
        });
        self.habit(
            "train.loss",
            "mean_of_means",
            "per rank and micro-step, as the reference",
        );
        let checkpointing = "train_config.gradient_checkpointing";
        self.take("train.activation_checkpointing", checkpointing, &|t| {
            yes(t).map(|b| b.to_string())
        });
        if self.flag("train_config.fsdp") {
            self.sharded();
        }
        self.take("train.log_every", "train_config.logging_steps", SAME);
        self.only(
            "train_config.loss_multiplier",
            "1",
            "scale optim.learning_rate instead",
        );
    }

    /// What FSDP changes in the reference beside where weights lie.
    fn sharded(&mut self) {
        let place = self.place("train_config.fsdp");
        let why = "the nearest to train_config.fsdp";
        self.put("train.zero", Node::plain("true", &place), why.into());
        let (theirs, ours) = match self.flag("train_config.fsdp_use_orig_params") {
            true => ("", ""),
            // It then sees flattened weights without names.
            false => (
                "decays every weight and ",
                "weight decay is on cross-attention only, and ",
            ),
        };
        self.notes.push(format!(
            "train_config.fsdp: the reference then {theirs}clips each part by itself; here {ours}one norm is clipped"
        ));
        if self.text("train_config.precision").is_none_or(|p| p != "fp32") {
            self.notes.push(
                "train_config.fsdp: the reference then reduces gradients and holds buffers in bf16; here both are fp32"
                    .into(),
            );
        }
        if self.flag("clap_config.finetune") {
            self.notes.push(
                "train_config.fsdp: the reference then never shares CLAP's gradients between the ranks; here they are"
                    .into(),
            );
        }
        if self.flag("sft_config.unfreeze_full_lm") {
            self.notes.push(
                "train_config.fsdp: the reference then leaves the LM's layers out of its optimizer; here they train"
                    .into(),
            );
        }
    }

    /// What fine-tuning starts from.
    fn checkpoint(&mut self) {
        let (folder, file) = ("sft_config.pretrained_path", "sft_config.pretrained_ckpt");
        let comment = "sft_config.pretrained_path, pretrained_ckpt";
        let place = self.place(file);
        let (path, name) = match (self.text(folder), self.text(file)) {
            (Some(path), Some(name)) => (path, name),
            (None, None) => return,
            (path, _) => {
                let missing = if path.is_none() { folder } else { file };
                let e = self.from.place.error(format!("{missing}: missing"));
                return self.fault(e.hint("both become model.checkpoint"));
            }
        };
        let named = Path::new(&path).join(name);
        let ours = run::checkpoints(Path::new(&path));
        let mut start = named.clone();
        if !named.exists() {
            let gone = format!("{file}: `{}` is not there", named.display());
            self.notes.push(match own_stages(&ours).as_slice() {
                [stage] => {
                    start = stage.clone();
                    format!(
                        "{gone}; the run starts from `{}`, which af2 wrote",
                        stage.display()
                    )
                }
                [] => format!(
                    "{gone}; af2's own run of pretrain.yaml writes `{}` (or what its stage is called), which is taken once it \
                     is there",
                    ours.join("pretrain").display()
                ),
                many => format!(
                    "{gone}, and `{}` holds {} stages: set model.checkpoint to one of them",
                    ours.display(),
                    many.len()
                ),
            });
        }
        let node = Node::plain(start.display().to_string(), &place);
        self.put("model.checkpoint", node, comment.into());
    }

    fn model(&mut self) {
        self.checkpoint();
        let lm = "model_config.lang_encoder_path";
        self.need("model.lm", lm, SAME);
        if let Some(lm) = self.text(lm).filter(|p| !Path::new(p).is_dir()) {
            self.notes.push(format!(
                "model_config.lang_encoder_path: `{lm}` is no folder here: download the LM there, or set model.lm"
            ));
            self.only(
                "model_config.tokenizer_path",
                &lm,
                "the tokenizer is read from the LM's folder",
            );
        }
        self.look("model_config.tokenizer_path");
        self.take("model.clap", "clap_config.checkpoint", SAME);
        for size in ["n_head", "n_layers", "d_inner"] {
            let theirs = format!("model_config.audio_transformer_kwargs.{size}");
            self.need(&format!("model.audio_transformer.{size}"), &theirs, SAME);
        }
        let why = "active in the reference, whatever it is told";
        self.habit("model.audio_transformer.attention_dropout", "0.1", why);
        let every = "model_config.cross_attn_every_n_layers";
        self.take("model.cross_attention.every", every, SAME);
        let why = "the training tree's mask; the release tree's is `all`";
        self.habit("model.cross_attention.frames", "few_shot_mask", why);
        let span = "model_config.audio_transformer_kwargs.max_window_per_audio";
        self.take("model.cross_attention.max_window_per_audio", span, SAME);
        self.need("model.max_windows", "clap_config.max_num_window", SAME);
        // One encoder under its names in the training and in the release tree.
        let why = "afclap-large and nvclap-large are one; no other encoder is known";
        match self.text("clap_config.method").as_deref() {
            Some("nvclap-large") => {}
            _ => self.only("clap_config.method", "afclap-large", why),
        }
        let seconds = format!("{WINDOW_SECONDS}");
        self.only("clap_config.window_length", &seconds, "the encoder takes 10 s");
        self.only("clap_config.window_overlap", "0", "windows do not overlap here");
        self.only("clap_config.max_num_fewshot", "1", "one sound an item here");
    }

    fn data(&mut self) {
        self.need("data.root", "data_config.data_root", SAME);
        self.take("data.max_tokens", "data_config.max_tokens", SAME);
        self.take("data.threads", "data_config.num_workers", SAME);
        self.take(
            "data.global_weight",
            "data_config.dataset_blending_global_weight",
            SAME,
        );
        self.habit(
            "data.order",
            "reference",
            "numpy's shuffles, torch's DistributedSampler",
        );
        self.habit(
            "data.bad_items",
            "replace",
            "item (i - 42) % 99, then (i - 84) % 99",
        );
        self.habit(
            "data.special_tokens_in_texts",
            "as_tokens",
            "its tokenizer reads them wherever they stand",
        );
        let root = self.text("data_config.data_root").unwrap_or_default();
        let manifests = self.text("data_config.dataset_file_root").unwrap_or(root.clone());
        // A set's path is relative to data.root, theirs to the current folder.
        let folder = match manifests == root {
            true => PathBuf::new(),
            false => std::path::absolute(&manifests).unwrap_or(manifests.into()),
        };
        let blending = "data_config.dataset_blending_config";
        let Some((place, sets)) = self.look(blending) else {
            let e = self.from.place.error(format!("{blending}: missing"));
            return self.fault(e.hint("it becomes data.sets and the stage's sets"));
        };
        let (mut paths, mut weights) = (Node::map(&place), Node::map(&place));
        let add = |into: &mut Node, name: &str, at: &Place, text: String| {
            if let Content::Map(map) = &mut into.content {
                map.insert(name.into(), (at.clone(), Node::plain(text, at)));
            }
        };
        for (name, at, set) in sets.entries() {
            let key = format!("{blending}.{name}.weight");
            self.used.insert(key.clone());
            let weight = set
                .get("weight")
                .and_then(Node::text)
                .and_then(|t| t.trim().parse().ok());
            match weight.filter(|w: &f64| w.is_finite() && *w >= 0.0) {
                Some(0.0) => self.notes.push(format!("{key}: 0: the set is left out")),
                Some(w) => {
                    add(
                        &mut paths,
                        name,
                        at,
                        folder.join(format!("{name}.json")).display().to_string(),
                    );
                    add(&mut weights, name, at, format!("{w:?}"));
                }
                None => self.fault(at.error(format!("{key}: expected a number, 0 or more"))),
            }
        }
        self.put("data.sets", paths, format!("{blending}, dataset_file_root"));
        self.put("stages.0.sets", weights, blending.into());
    }

    fn stage(&mut self) {
        let mut parts = vec!["audio_transformer", "cross_attention"];
        if self.flag("clap_config.finetune") {
            parts.insert(0, "clap");
        }
        let frozen = self.flag("train_config.freeze_lm_embeddings");
        let lm = self.flag("sft_config.unfreeze_full_lm");
        // The whole LM is thawed last, its embeddings with it.
        if !frozen || lm {
            parts.push("embeddings");
        }
        if lm {
            parts.push("lm");
        }
        let mut train = Node::map(&self.habit);
        train.content = Content::List(parts.iter().map(|p| Node::plain(*p, &self.habit)).collect());
        let why = "by finetune, freeze_lm_embeddings, unfreeze_full_lm";
        self.put("stages.0.train", train, why.into());
        let flat = self.flag("train_config.fsdp") && !self.flag("train_config.fsdp_use_orig_params");
        let (rows, why) = match (flat, frozen && lm) {
            (true, _) => ("all", "under FSDP the reference masks no gradient"),
            (false, true) => ("all", "freeze_lm_embeddings turns the reference's mask off"),
            (false, false) => ("added", "the reference's mask on the embeddings' gradient"),
        };
        self.habit("stages.0.embedding_rows", rows, why);
        self.habit("stages.0.clap_mode", "train", "model.train(), frozen or not");
        self.habit("stages.0.clip_at", "micro_step", "after every backward pass");
        // Where it is missing, model.max_windows has said so.
        self.take("stages.0.windows", "clap_config.max_num_window", SAME);
        self.habit("stages.0.optim.steps", "0", "counted when the manifests are read");
        self.need("stages.0.optim.batch_size", "train_config.batch_size", SAME);
        let accumulate = "train_config.gradient_accumulation_steps";
        let micro_steps = self.take("stages.0.optim.accumulate", accumulate, SAME);
        self.need("stages.0.optim.learning_rate", "train_config.learning_rate", SAME);
        let schedule = self.take("stages.0.optim.schedule", "train_config.lr_scheduler", SAME);
        if let (Some("linear" | "cosine"), Some(n)) = (schedule.as_deref(), micro_steps.filter(|n| n != "1"))
        {
            self.notes.push(format!(
                "train_config.lr_scheduler: the reference's way down is as many steps long as there are micro-steps, and \
                 with {accumulate}: {n} it ends after 1/{n} of it; so it does here, and optim.schedule_steps says where"
            ));
        }
        self.take("stages.0.optim.warmup", "train_config.warmup_steps", SAME);
        self.take("stages.0.optim.weight_decay", "train_config.weight_decay", SAME);
        let why = "one stays, and every fifth";
        match self
            .from
            .get("train_config")
            .and_then(|t| t.get("delete_previous_checkpoint"))
        {
            Some(_) if !self.flag("train_config.delete_previous_checkpoint") => self.habit(
                "stages.0.save.keep_last",
                "1000000",
                "delete_previous_checkpoint: false",
            ),
            _ => self.habit("stages.0.save.keep_last", "1", why),
        }
    }

    fn epochs(&mut self) -> u64 {
        let Some((place, node)) = self.look("train_config.num_epochs") else {
            return 1;
        };
        let epochs = node.text().and_then(|t| t.parse().ok());
        epochs.filter(|e| (1..=1_000_000).contains(e)).unwrap_or_else(|| {
            self.fault(place.error("train_config.num_epochs: expected a number from 1 to 1000000"));
            1
        })
    }
}

/// The stages below a run's `checkpoints` that are written whole.
fn own_stages(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut stages: Vec<PathBuf> = all.map(|entry| entry.path()).collect();
    stages.retain(|stage| stage.join("safe_ckpt/metadata.json").is_file());
    stages.sort();
    stages
}

impl Imported {
    /// What the reference's epochs make of its sets (items, and the share of them in an epoch), on so many ranks.
    pub(crate) fn steps(
        &self,
        sets: &[(usize, f64)],
        batch: usize,
        accumulate: usize,
        ranks: usize,
    ) -> Counted {
        let [batch, accumulate, ranks] = [batch, accumulate, ranks].map(|n| n.max(1));
        let items = |epoch: u64| -> usize {
            let share = |&(n, w): &(usize, f64)| {
                let n = n as f64;
                ((epoch + 1) as f64 * n * w) as u64 - (epoch as f64 * n * w) as u64
            };
            sets.iter().map(share).sum::<u64>() as usize
        };
        // The last step of an epoch may hold fewer micro-steps.
        let of = |epoch| items(epoch).div_ceil(ranks).div_ceil(batch).div_ceil(accumulate);
        let steps: usize = (0..self.epochs).map(of).sum();
        let epochs = self.epochs.max(1) as usize;
        Counted {
            steps,
            an_epoch: steps / epochs,
            schedule: items(0) / (batch * ranks) * epochs,
        }
    }

    /// Virtual epochs of the file.
    pub(crate) fn epochs(&self) -> u64 {
        self.epochs
    }

    /// Where our key's value is from, in words.
    pub(crate) fn comment(&self, key: &str) -> Option<&str> {
        self.comments.get(key).map(String::as_str)
    }
}
