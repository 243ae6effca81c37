//! Folders of tensors: Hugging Face's shards, and the released chunks.

use super::archive::Archive;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Index files larger than this are not read.
const MOST_INDEX: u64 = 256 << 20;
/// The list of released chunks.
pub(super) const CHUNKS: &str = "metadata.json";
/// Hugging Face's indices, each with the file that stands alone when there is no index.
pub(super) const SHARDS: [(&str, &str); 2] = [
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
];

/// A folder of tensors: `safe_ckpt` with `metadata.json`, or a Hugging Face model folder.
pub(super) fn open(path: &Path) -> Result<Archive> {
    let at = |name: &str| Some(path.join(name)).filter(|p| p.exists());
    if let Some(index) = at(CHUNKS) {
        return chunks(path, &index);
    }
    for (index, single) in SHARDS {
        if let Some(index) = at(index) {
            return shards(path, &index);
        }
        if let Some(single) = at(single) {
            return Archive::open(&single);
        }
    }
    Err(Error::checkpoint(
        path,
        "files",
        "metadata.json, model.safetensors, pytorch_model.bin, or an index of shards",
        "none of them",
    ))
}

/// Whether a Hugging Face folder has weights beside its configuration.
pub(super) fn has_weights(path: &Path) -> bool {
    SHARDS
        .iter()
        .any(|(index, single)| path.join(index).exists() || path.join(single).exists())
}

fn json(path: &Path) -> Result<Value> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > MOST_INDEX {
        return Err(Error::checkpoint(
            path,
            "size",
            format!("at most {MOST_INDEX} bytes"),
            size.to_string(),
        ));
    }
    serde_json::from_str(&crate::fsutil::read_text(path)?)
        .map_err(|e| Error::checkpoint(path, "index", "JSON", e.to_string()))
}

/// A file name that an index gives: a plain name, so that no index leads out of its folder.
fn inside(folder: &Path, index: &Path, name: &str) -> Result<PathBuf> {
    let plain = Path::new(name).file_name().is_some_and(|f| f == name);
    let path = folder.join(name);
    if !plain || !path.is_file() {
        return Err(Error::checkpoint(
            index,
            name,
            "a file beside the index",
            "no such file",
        ));
    }
    Ok(path)
}

/// The chunks that `metadata.json` names, without `.safetensors`.
pub(super) fn listed(index: &Path) -> Result<Vec<String>> {
    chunk_names(index, json(index)?)
}

/// A list of names, or a map from them to their tensors' names (of which only the chunks count, as in the reference).
fn chunk_names(index: &Path, value: Value) -> Result<Vec<String>> {
    let listed = match value {
        Value::Object(map) => map.into_iter().map(|(name, _)| Some(name)).collect(),
        Value::Array(list) => list
            .iter()
            .map(|v| v.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let listed = listed.filter(|l| !l.is_empty()).ok_or_else(|| {
        Error::checkpoint(
            index,
            "chunks",
            "a list or a map of chunk names",
            "something else",
        )
    })?;
    let bare = |name: String| {
        name.strip_suffix(".safetensors")
            .map_or_else(|| name.clone(), str::to_owned)
    };
    Ok(listed.into_iter().map(bare).collect())
}

/// The map from tensors to shards of a Hugging Face index.
fn weight_map<'v>(index: &Path, value: &'v Value) -> Result<Vec<(&'v str, &'v str)>> {
    let map = value
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::checkpoint(index, "weight_map", "a map from names to files", "none"))?;
    map.iter()
        .map(|(name, file)| {
            let file = file
                .as_str()
                .ok_or_else(|| Error::checkpoint(index, name, "a file name", file.to_string()))?;
            Ok((name.as_str(), file))
        })
        .collect()
}

/// Both index files' readers on bytes at hand; `path` names them in errors.
pub(super) fn parse_index(path: &Path, bytes: &[u8]) -> Result<()> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| Error::checkpoint(path, "index", "JSON", e.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    if value.get("weight_map").is_some() {
        for (_, file) in weight_map(path, &value)? {
            inside(folder, path, file)?;
        }
        return Ok(());
    }
    for chunk in chunk_names(path, value)? {
        inside(folder, path, &format!("{chunk}.safetensors"))?;
    }
    Ok(())
}

fn chunks(folder: &Path, index: &Path) -> Result<Archive> {
    let mut all = Archive::new(folder);
    for chunk in listed(index)? {
        all = all.overlay(Archive::open(&inside(
            folder,
            index,
            &format!("{chunk}.safetensors"),
        )?)?);
    }
    Ok(all)
}

fn shards(folder: &Path, index: &Path) -> Result<Archive> {
    let value = json(index)?;
    let map = weight_map(index, &value)?;
    let files: BTreeSet<&str> = map.iter().map(|(_, file)| *file).collect();
    let mut all = Archive::new(folder);
    for file in files {
        all = all.overlay(Archive::open(&inside(folder, index, file)?)?);
    }
    match map.iter().find(|(name, _)| all.info(name).is_none()) {
        Some((missing, _)) => Err(Error::checkpoint(
            index,
            *missing,
            "a tensor in its shard",
            "no such tensor",
        )),
        None => Ok(all),
    }
}
