//! Folders of checkpoints: Hugging Face's, and the released AF2's.

use super::{archive::Archive, names, safetensors};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Index files larger than this are not read.
const MOST_INDEX: u64 = 256 << 20;

/// A folder of tensors: `safe_ckpt` with `metadata.json`, or a Hugging Face model folder.
pub(super) fn open(path: &Path) -> Result<Archive> {
    let at = |name: &str| Some(path.join(name)).filter(|p| p.exists());
    if let Some(index) = at("metadata.json") {
        return chunks(path, &index);
    }
    for (index, single) in [
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ] {
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

fn json(path: &Path) -> Result<Value> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > MOST_INDEX {
        return Err(Error::checkpoint(path, "size", format!("at most {MOST_INDEX} bytes"), size.to_string()));
    }
    serde_json::from_str(&crate::fsutil::read_text(path)?)
        .map_err(|e| Error::checkpoint(path, "index", "JSON", e.to_string()))
}

/// A file name that an index gives: a plain name, so that no index leads out of its folder.
fn inside(folder: &Path, index: &Path, name: &str) -> Result<PathBuf> {
    let plain = Path::new(name).file_name().is_some_and(|f| f == name);
    let path = folder.join(name);
    if !plain || !path.is_file() {
        return Err(Error::checkpoint(index, name, "a file beside the index", "no such file"));
    }
    Ok(path)
}

/// `metadata.json`: a list of chunk names, or a map from chunk names to their tensors' names (of which only the
/// chunks' names count, as in the reference).
fn chunks(folder: &Path, index: &Path) -> Result<Archive> {
    let value = json(index)?;
    let listed: Option<Vec<String>> = match &value {
        Value::Object(map) => Some(map.keys().cloned().collect()),
        Value::Array(list) => list.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let listed = listed
        .filter(|l| !l.is_empty())
        .ok_or_else(|| Error::checkpoint(index, "chunks", "a list or a map of chunk names", value.to_string()))?;
    let mut all = Archive::default();
    for chunk in listed {
        let name = if chunk.ends_with(".safetensors") { chunk } else { format!("{chunk}.safetensors") };
        all = all.overlay(Archive::open(&inside(folder, index, &name)?)?);
    }
    Ok(all)
}

fn shards(folder: &Path, index: &Path) -> Result<Archive> {
    let value = json(index)?;
    let map = value
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::checkpoint(index, "weight_map", "a map from names to files", "none"))?;
    let files: Option<BTreeSet<&str>> = map.values().map(Value::as_str).collect();
    let files = files.ok_or_else(|| Error::checkpoint(index, "weight_map", "file names", "something else"))?;
    let mut all = Archive::default();
    for file in files {
        all = all.overlay(Archive::open(&inside(folder, index, file)?)?);
    }
    match map.keys().find(|k| all.info(k).is_none()) {
        Some(missing) => Err(Error::checkpoint(index, missing, "a tensor in its shard", "no such tensor")),
        None => Ok(all),
    }
}

/// A folder in the released layout.
pub struct ReleasedFolder {
    /// Under our names: the LM's, overlaid by AF-CLAP's, overlaid by `safe_ckpt`'s, as the reference loads them.
    pub tensors: Archive,
    /// The LM's folder: `config.json` and tokenizer.
    pub llm: PathBuf,
}

/// Opens DIR with `safe_ckpt/`, optional `clap_ckpt/*.pt`, and `llm/`.
pub fn open_released(dir: &Path) -> Result<ReleasedFolder> {
    let (safe, clap, llm) = (dir.join("safe_ckpt"), dir.join("clap_ckpt"), dir.join("llm"));
    for (folder, what) in [(&safe, "safe_ckpt/, the released weights"), (&llm, "llm/, the language model's folder")] {
        if !folder.is_dir() {
            return Err(Error::checkpoint(dir, what, "a folder", "none")
                .hint("a checkpoint folder holds safe_ckpt/, llm/ and, where the encoder is apart, clap_ckpt/"));
        }
    }
    // The LM's weights may be in safe_ckpt alone: a folder of config and tokenizer is enough then.
    let has_weights = std::fs::read_dir(&llm)
        .map_err(|e| Error::io(&llm, e))?
        .flatten()
        .any(|f| matches!(f.path().extension().and_then(|e| e.to_str()), Some("safetensors" | "bin")));
    let mut tensors = Archive::default();
    if has_weights {
        tensors = tensors.overlay(names::canonical(open(&llm)?, &llm)?);
    }
    if clap.is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&clap)
            .map_err(|e| Error::io(&clap, e))?
            .flatten()
            .map(|f| f.path())
            .filter(|p| matches!(p.extension().and_then(|e| e.to_str()), Some("pt" | "pth" | "safetensors")))
            .collect();
        files.sort();
        if let [file] = files.as_slice() {
            tensors = tensors.overlay(names::canonical(Archive::open(file)?, file)?);
        } else if files.len() > 1 {
            return Err(Error::checkpoint(&clap, "files", "one checkpoint", format!("{} of them", files.len())));
        }
    }
    tensors = tensors.overlay(names::canonical(open(&safe)?, &safe)?);
    Ok(ReleasedFolder { tensors, llm })
}

/// Writes `chunk_N.safetensors` of about `chunk_bytes` each, and last `metadata.json`, which makes them the
/// checkpoint; chunks of an earlier one that it no longer names are removed.
pub fn write_released(folder: &Path, tensors: &[(String, Tensor)], chunk_bytes: usize) -> Result<()> {
    let mut groups: Vec<Vec<(String, Tensor)>> = vec![Vec::new()];
    let mut size = 0;
    for (name, tensor) in tensors {
        let own = tensor.numel() * tensor.kind().elt_size_in_bytes();
        if size > 0 && size + own > chunk_bytes {
            groups.push(Vec::new());
            size = 0;
        }
        size += own;
        if let Some(last) = groups.last_mut() {
            last.push((name.clone(), tensor.shallow_clone()));
        }
    }
    let mut metadata: IndexMap<String, Vec<&str>> = IndexMap::new();
    for (i, group) in groups.iter().enumerate() {
        let name = format!("chunk_{i}");
        safetensors::write(&folder.join(format!("{name}.safetensors")), group, &[("format", "pt")])?;
        metadata.insert(name, group.iter().map(|(n, _)| n.as_str()).collect());
    }
    let index = folder.join("metadata.json");
    let text = serde_json::to_vec_pretty(&metadata)
        .map_err(|e| Error::checkpoint(&index, "metadata", "JSON", e.to_string()))?;
    crate::fsutil::write_atomic_bytes(&index, &text)?;
    for i in groups.len().. {
        let old = folder.join(format!("chunk_{i}.safetensors"));
        if !old.exists() {
            return Ok(());
        }
        std::fs::remove_file(&old).map_err(|e| Error::io(&old, e))?;
    }
    Ok(())
}
