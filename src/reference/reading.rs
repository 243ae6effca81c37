//! Reading the reference's keys one by one: each that is asked for is accounted for, and what is left is said.

use crate::error::Error;
use crate::yaml::{Content, Node, Place};
use indexmap::IndexMap;
use std::collections::BTreeSet;

/// Keys of the reference that need no counterpart, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "train_config.offline",
        "keeps transformers off the network; af2 downloads nothing",
    ),
    ("train_config.dist_backend", "chosen by the device"),
    ("train_config.dist_url", "comes from the launcher's environment"),
    (
        "train_config.no_set_device_rank",
        "comes from the launcher's environment",
    ),
    (
        "train_config.horovod",
        "ranks are launched by af2 launch, torchrun or Slurm",
    ),
    (
        "train_config.fsdp_use_orig_params",
        "weights are whole on every rank, under their own names",
    ),
    (
        "train_config.fsdp_sharding_strategy",
        "weights are whole on every rank; train.zero shards the optimizer's state",
    ),
    (
        "data_config.dataset_blending_output",
        "`af2 data blend` writes that list",
    ),
    (
        "data_config.valid_dataset_config",
        "validation reads the val.json beside each training manifest, every train.validate_every steps; the reference reads at \
         most 64 items of each of these sets after every fifth virtual epoch, from the first on",
    ),
    ("clap_config.audio_embed_dim", "read off the encoder's file"),
    ("model_config.cache_dir", "nothing is downloaded"),
    (
        "model_config.audio_transformer_kwargs.max_num_media",
        "acts in the reference as \"above 0\" only",
    ),
    (
        "model_config.audio_transformer_kwargs.common_encoder_embed_dim",
        "the reference ignores it",
    ),
];

/// The file, what was asked of it, and what it becomes.
pub(super) struct Import<'a> {
    pub from: &'a Node,
    pub to: Node,
    pub comments: IndexMap<String, String>,
    pub used: BTreeSet<String>,
    pub notes: Vec<String>,
    pub errors: Vec<Error>,
    /// What the reference's code does whatever its file says.
    pub habit: Place,
}

/// A conversion of a scalar's text.
pub(super) type Convert<'c> = &'c dyn Fn(&str) -> Result<String, String>;

pub(super) const SAME: Convert = &|text| Ok(text.to_owned());

pub(super) fn yes(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("expected true or false, found `{text}`")),
    }
}

impl Import<'_> {
    /// A fault, told once however often its key is asked for.
    pub(crate) fn fault(&mut self, e: Error) {
        let told = e.to_string();
        if self.errors.iter().all(|other| other.to_string() != told) {
            self.errors.push(e);
        }
    }

    fn find(&self, key: &str) -> Option<(&Place, &Node)> {
        let mut at = (&self.from.place, self.from);
        for part in key.split('.') {
            at = at.1.child(part)?;
        }
        Some(at)
    }

    /// The value under a key of the file, which is then accounted for.
    pub(crate) fn look(&mut self, key: &str) -> Option<(Place, Node)> {
        let (place, node) = self.find(key)?;
        let found = (place.clone(), node.clone());
        self.used.insert(key.to_owned());
        Some(found)
    }

    /// Where a key stands; what the reference does unasked where it does not.
    pub(crate) fn place(&self, key: &str) -> Place {
        let found = self.find(key).map(|(place, _)| place);
        found.unwrap_or(&self.habit).clone()
    }

    pub(crate) fn put(&mut self, key: &str, node: Node, comment: String) {
        if let Err(m) = self.to.set(key, node) {
            self.fault(self.from.place.error(format!("{key}: {m}")));
        }
        self.comments.insert(key.to_owned(), comment);
    }

    /// Their key as ours, where the file has it.
    pub(crate) fn take(&mut self, key: &str, theirs: &str, convert: Convert) -> Option<String> {
        let (place, node) = self.look(theirs)?;
        let text = match node.text() {
            Some(text) => convert(text.trim()),
            None => Err("expected a plain value".into()),
        };
        match text {
            Ok(text) => {
                self.put(key, Node::plain(text.clone(), &place), theirs.to_owned());
                Some(text)
            }
            Err(m) => {
                self.fault(place.error(format!("{theirs}: {m}")));
                None
            }
        }
    }

    pub(crate) fn need(&mut self, key: &str, theirs: &str, convert: Convert) {
        if self.look(theirs).is_none() {
            let e = self.from.place.error(format!("{theirs}: missing"));
            self.fault(e.hint(format!("it becomes {key}")));
        }
        self.take(key, theirs, convert);
    }

    /// What the reference does unasked.
    pub(crate) fn habit(&mut self, key: &str, value: &str, why: &str) {
        let node = Node::plain(value, &self.habit);
        self.put(key, node, why.to_owned());
    }

    pub(crate) fn flag(&mut self, theirs: &str) -> bool {
        let Some((place, node)) = self.look(theirs) else {
            return false;
        };
        yes(node.text().unwrap_or_default()).unwrap_or_else(|m| {
            self.fault(place.error(format!("{theirs}: {m}")));
            false
        })
    }

    /// A value that must be this one.
    pub(crate) fn only(&mut self, theirs: &str, expected: &str, why: &str) {
        let Some((place, node)) = self.look(theirs) else {
            return;
        };
        let found = node.text().unwrap_or_default();
        let same = match (found.parse::<f64>(), expected.parse::<f64>()) {
            (Ok(a), Ok(b)) => a == b,
            _ => found == expected,
        };
        if !same {
            let e = place.error(format!("{theirs}: expected {expected}, found `{found}`"));
            self.fault(e.hint(why));
        }
    }

    pub(crate) fn text(&mut self, theirs: &str) -> Option<String> {
        let node = self.look(theirs)?.1;
        node.text().map(str::to_owned)
    }

    /// Keys that nothing above asked for.
    pub(crate) fn say_what_is_left(&mut self) {
        let mut left = Vec::new();
        leaves(self.from, "", &self.used, &mut left);
        for (key, place) in left {
            let why = LEFT_OUT
                .iter()
                .find(|(k, _)| key == *k || key.starts_with(&format!("{k}.")));
            let line = match why {
                // One line for a whole section.
                Some((k, why)) => format!("{k}: {why}"),
                None => format!(
                    "{key} ({}): not a key that af2 knows of the reference",
                    place.short()
                ),
            };
            if !self.notes.contains(&line) {
                self.notes.push(line);
            }
        }
    }
}

fn leaves(node: &Node, prefix: &str, used: &BTreeSet<String>, out: &mut Vec<(String, Place)>) {
    for (key, place, value) in node.entries() {
        let key = match prefix {
            "" => key.to_owned(),
            _ => format!("{prefix}.{key}"),
        };
        match &value.content {
            Content::Map(map) if !map.is_empty() => leaves(value, &key, used, out),
            _ if used.contains(&key) => {}
            _ => out.push((key, place.clone())),
        }
    }
}
