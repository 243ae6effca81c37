//! Tar shards in WebDataset's form: consecutive members of one name, a sound and its text, are a sample.
//!
//! | member | what |
//! |---|---|
//! | `NAME.wav`, `.flac`, `.mp3`, `.ogg`, `.m4a`, … | the sound |
//! | `NAME.json` | an item (`prompt`, `output`, …), or a caption under `caption` or `text` |
//! | `NAME.txt` | a caption |
//!
//! As in WebDataset a name ends at the first dot behind the last slash: `a.meta.json` is the member `meta.json` of `a`, and
//! no item where `a.json` is one. Sounds that differ only behind that dot (`a.1.wav`, `a.2.wav`), each with a text of its own
//! full name, are samples of their own here. Hidden files, folders and `__MACOSX` are passed over.
//!
//! Shards are never unpacked: a member's place is noted when they are opened, and its bytes are read from there.

use super::manifest::{Entry, Form, Keys, Manifest};
use super::samples::Shard;
pub use super::samples::CAPTION_PROMPT;
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Ends of names of shards that were packed once more.
const PACKED: &[&str] = &[
    ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.lz4",
];
/// Beside the shards that [`super::pack`] writes.
pub(crate) const INDEX: &str = "index.json";

/// What a packed folder says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// The task's name.
    pub task: String,
    /// Train, val or test.
    pub split: String,
    /// Items of all shards.
    pub items: usize,
    /// Tar files.
    pub shards: usize,
    /// Window budget that the sounds were cut to; another one would have normalised them differently.
    pub windows: usize,
    /// Samples per second of the sounds.
    pub sample_rate: u32,
}

/// Opens one `.tar`, or all of a folder in the order of their names.
pub(super) fn open(path: &Path) -> Result<Manifest> {
    let shards = match path.is_dir() {
        true => listed(path)?,
        false => vec![path.to_path_buf()],
    };
    let read: Vec<Result<Shard>> = shards.par_iter().map(|p| Shard::read(p)).collect();
    let mut all = Manifest {
        form: Form::Shards,
        ..Manifest::named(path)
    };
    let (mut keys, mut errors) = (Vec::new(), Vec::new());
    for (number, shard) in read.into_iter().enumerate() {
        match shard {
            Err(e) => errors.push(e),
            Ok(shard) => {
                all.files.extend(shard.files);
                for sample in shard.samples {
                    keys.push(sample.key);
                    all.sounds.push(sample.sound);
                    all.entries.push(Entry {
                        at: sample.text.0,
                        len: sample.text.1 as u32,
                        file: number as u32,
                    });
                }
            }
        }
    }
    let index = path.join(INDEX);
    if path.is_dir() && index.exists() {
        let text = crate::fsutil::read_text(&index)?;
        let said: Index = serde_json::from_str(&text)
            .map_err(|e| Error::data(&index, format!("line {}", e.line()), "an index", e.to_string()))?;
        for (key, said, found) in [
            ("items", said.items, all.len()),
            ("shards", said.shards, all.files.len()),
        ] {
            if errors.is_empty() && said != found {
                let e = Error::data(&index, key, format!("{found}, what is there"), said.to_string());
                errors.push(e.hint("shards are missing, or were added: pack the manifest again"));
            }
        }
        (all.task, all.split) = (said.task, said.split);
    }
    crate::error::all(errors)?;
    all.keys = Keys::Texts(keys);
    Ok(all)
}

/// The shards of a folder.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let (mut shards, mut errors) = (Vec::new(), Vec::new());
    for file in std::fs::read_dir(folder).map_err(io)? {
        let path = file.map_err(io)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        // What a Mac leaves, and what a writer that was killed leaves.
        if name.starts_with('.') {
            continue;
        }
        if name.ends_with(".tar") {
            shards.push(path);
        } else if PACKED.iter().any(|end| name.ends_with(end)) {
            let e = Error::data(&path, "file", "a tar shard", "one that is packed once more");
            errors.push(e.hint("unpack it (gunzip, zstd -d, …): sounds are read from the middle of shards"));
        }
    }
    errors.truncate(20);
    crate::error::all(errors)?;
    if shards.is_empty() {
        return Err(Error::data(folder, "folder", "shards, *.tar", "none")
            .hint("a manifest is a .json or .jsonl file, or a folder of tar shards"));
    }
    shards.sort();
    Ok(shards)
}
