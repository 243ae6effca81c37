//! Folders of tensors: Hugging Face's shards, and the released chunks.

use super::archive::Archive;
use super::foreign;
use crate::error::{Error, Result};
use indexmap::IndexSet;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The list of released chunks.
pub(super) const CHUNKS: &str = "metadata.json";
/// Hugging Face's indices, each with the file that stands alone.
pub(super) const SHARDS: [(&str, &str); 2] = [
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
];
/// Of the files that are left aside so many are named.
const MOST_NAMED: usize = 4;

/// A folder of tensors: `safe_ckpt` with `metadata.json`, or a Hugging Face model folder.
///
/// Reference: transformers takes `model.safetensors`, else its index's shards, else `pytorch_model.bin`, else its index's
/// shards. What else lies there is left aside, and [`Archive::notes`] says it.
pub(super) fn open(path: &Path) -> Result<Archive> {
    let at = |name: &str| Some(path.join(name)).filter(|p| p.exists());
    if let Some(index) = at(CHUNKS) {
        return chunks(path, &index);
    }
    for (index, single) in SHARDS {
        if let Some(file) = at(single) {
            let mut all = Archive::open(&file)?;
            let read = BTreeSet::from([single.to_owned()]);
            all.notes
                .extend(left_aside(path, single, AS_TRANSFORMERS, &read, is_weights));
            return Ok(all);
        }
        if let Some(file) = at(index) {
            return shards(path, &file);
        }
    }
    Err(foreign::folder(path).unwrap_or_else(|| {
        Error::checkpoint(
            path,
            "files",
            "metadata.json, model.safetensors, pytorch_model.bin, or an index of shards",
            "none of them",
        )
    }))
}

/// Whether a Hugging Face folder has weights beside its configuration.
pub(super) fn has_weights(path: &Path) -> bool {
    SHARDS
        .iter()
        .any(|(index, single)| path.join(index).exists() || path.join(single).exists())
}

/// Whether a name is one that weights of a Hugging Face folder have: `model.safetensors`, `model-00001-of-00004.safetensors`,
/// `pytorch_model.bin` and so on, and their indices.
pub(super) fn is_weights(name: &str) -> bool {
    SHARDS.iter().any(|(index, single)| {
        let (stem, extension) = single.rsplit_once('.').unwrap_or((single, ""));
        let shard = || {
            let middle = name.strip_prefix(stem)?.strip_suffix(extension)?;
            let (number, of) = middle.strip_prefix('-')?.strip_suffix('.')?.split_once("-of-")?;
            let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
            (digits(number) && digits(of)).then_some(())
        };
        name == *index || name == *single || shard().is_some()
    })
}

const AS_TRANSFORMERS: &str = "is read, as transformers does";

/// Whether a name is one that we give to a chunk.
pub(super) fn is_chunk(name: &str) -> bool {
    let number = name
        .strip_prefix("chunk_")
        .and_then(|n| n.strip_suffix(".safetensors"));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// A line that names the weights beside those that are `read`, where there are others: of an earlier saving, another
/// sharding, another format. Which of them is meant cannot be told.
fn left_aside(
    folder: &Path,
    what: &str,
    how: &str,
    read: &BTreeSet<String>,
    is_weights: fn(&str) -> bool,
) -> Option<String> {
    let mut others: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|f| f.ok()?.file_name().into_string().ok())
        .filter(|n| is_weights(n) && !read.contains(n))
        .collect();
    others.sort();
    if others.is_empty() {
        return None;
    }
    let more = match others.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    others.truncate(MOST_NAMED);
    Some(format!(
        "{}: {what} {how}; other weights lie beside it and are left aside: {}{more}",
        folder.display(),
        others.join(", ")
    ))
}

fn json(path: &Path) -> Result<Value> {
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
    // A chunk that is named a thousand times is read once.
    let distinct: IndexSet<String> = listed.into_iter().map(bare).collect();
    Ok(distinct.into_iter().collect())
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
    let mut read = BTreeSet::new();
    for chunk in listed(index)? {
        let file = format!("{chunk}.safetensors");
        all = all.overlay(Archive::open(&inside(folder, index, &file)?)?);
        read.insert(file);
    }
    let how = "names the chunks that are read";
    all.notes.extend(left_aside(folder, CHUNKS, how, &read, is_chunk));
    Ok(all)
}

/// Each tensor from the shard that the index says: another shard may hold one of its name from an earlier saving.
fn shards(folder: &Path, index: &Path) -> Result<Archive> {
    let value = json(index)?;
    let map: HashMap<&str, &str> = weight_map(index, &value)?.into_iter().collect();
    let files: BTreeSet<&str> = map.values().copied().collect();
    let mut all = Archive::new(folder);
    let mut elsewhere: BTreeMap<String, String> = BTreeMap::new();
    for file in &files {
        let shard = Archive::open(&inside(folder, index, file)?)?;
        let own = |name: &str| map.get(name).is_none_or(|f| f == file);
        let stray = shard.names().filter(|n| !own(n));
        elsewhere.extend(stray.map(|n| (n.to_owned(), file.to_string())));
        all = all.overlay(shard.rename(|n| own(n).then(|| n.to_owned())));
    }
    if let Some(missing) = map.keys().filter(|n| all.info(n).is_none()).min() {
        let e = Error::checkpoint(index, *missing, "a tensor in its shard", "no such tensor");
        return Err(match elsewhere.get(*missing) {
            Some(file) => e.hint(format!(
                "{file} has one: an index and shards of two savings? Copy the folder again"
            )),
            None => e,
        });
    }
    if let Some((name, file)) = elsewhere.first_key_value() {
        all.notes.push(format!(
            "{}: {} tensors lie in two shards ({name} also in {file}): those that the index names are read",
            index.display(),
            elsewhere.len()
        ));
    }
    let name = index.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let read = files.iter().copied().chain([name]).map(str::to_owned).collect();
    all.notes
        .extend(left_aside(folder, name, AS_TRANSFORMERS, &read, is_weights));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of 200,000 times one chunk opened it as often: 18 s.
    #[test]
    fn a_chunk_that_is_named_again_and_again_is_opened_once() {
        let name = |n: &str| Value::from(n);
        let many: Vec<Value> = (0..200_000)
            .map(|i| name(["chunk_1", "chunk_0.safetensors", "chunk_0"][i % 3]))
            .collect();
        let names = chunk_names(Path::new("metadata.json"), many.into()).unwrap();
        assert_eq!(names, ["chunk_1", "chunk_0"]);
    }

    #[test]
    fn weights_are_told_from_other_files() {
        for (name, weights) in [
            ("model.safetensors", true),
            ("model-00001-of-00004.safetensors", true),
            ("pytorch_model-00001-of-00002.bin", true),
            ("pytorch_model.bin.index.json", true),
            ("model-x-of-00004.safetensors", false),
            ("model-00001.safetensors", false),
            ("adapter_model.safetensors", false),
            ("training_args.bin", false),
            ("config.json", false),
        ] {
            assert_eq!(is_weights(name), weights, "{name}");
        }
    }
}
