//! The released AF2's folder, read and written.

use super::{archive::Archive, folder, names, safetensors};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A folder in the released layout.
#[derive(Debug)]
pub struct ReleasedFolder {
    /// Under our names: the LM's, overlaid by AF-CLAP's, overlaid by `safe_ckpt`'s, as the reference loads them.
    pub tensors: Archive,
    /// The LM's folder: `config.json` and tokenizer.
    pub llm: PathBuf,
    /// The whole AF-CLAP file under its own names (`audio_branch.…`, `text_branch.…`, projections), where there is
    /// one: AF2 needs only its audio branch, retrieval and contrastive training the rest.
    pub clap: Option<Archive>,
}

/// Opens DIR with `safe_ckpt/`, optional `clap_ckpt/*.pt`, and `llm/`. No tensor is read.
///
/// # Errors
/// A folder or file that is missing or broken; more than one checkpoint in `clap_ckpt/`.
pub fn open_released(dir: &Path) -> Result<ReleasedFolder> {
    let (safe, clap, llm) = (dir.join("safe_ckpt"), dir.join("clap_ckpt"), dir.join("llm"));
    for (folder, what) in [
        (&safe, "safe_ckpt/, the released weights"),
        (&llm, "llm/, the language model's folder"),
    ] {
        if !folder.is_dir() {
            return Err(Error::checkpoint(dir, what, "a folder", "none").hint(
                "a checkpoint folder holds safe_ckpt/, llm/ and, where the encoder is apart, clap_ckpt/",
            ));
        }
    }
    let mut tensors = Archive::default();
    // The LM's weights may be in safe_ckpt alone: a folder of config and tokenizer is enough then.
    if folder::has_weights(&llm) {
        tensors = tensors.overlay(names::canonical(folder::open(&llm)?, &llm)?);
    }
    let mut whole_clap = None;
    if let Some(file) = clap_file(&clap)? {
        let archive = Archive::open(&file)?;
        tensors = tensors.overlay(names::canonical(archive.clone(), &file)?);
        whole_clap = Some(archive.rename(|n| Some(names::unwrapped(n))));
    }
    tensors = tensors.overlay(names::canonical(folder::open(&safe)?, &safe)?);
    // Errors that name the folder are of more use than those that name its first part.
    tensors.source = dir.to_path_buf();
    Ok(ReleasedFolder {
        tensors,
        llm,
        clap: whole_clap,
    })
}

/// The one checkpoint of `clap_ckpt/`.
fn clap_file(folder: &Path) -> Result<Option<PathBuf>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = file.map_err(|e| Error::io(folder, e))?.path();
        if matches!(
            path.extension().and_then(|e| e.to_str()),
            Some("pt" | "pth" | "safetensors")
        ) {
            files.push(path);
        }
    }
    if files.len() > 1 {
        let found = format!("{} of them", files.len());
        return Err(Error::checkpoint(folder, "files", "one checkpoint", found));
    }
    Ok(files.pop())
}

/// Writes chunks of about `chunk_bytes` each (a tensor is never divided) and last `metadata.json`, which makes them
/// the checkpoint.
///
/// A checkpoint that is there already stays whole until that moment: its chunks keep their names, the new ones take
/// other numbers, and only afterwards the old ones are removed. So a folder needs room for both.
///
/// # Errors
/// As [`super::write_safetensors`]; a name given twice.
pub fn write_released(folder: &Path, tensors: &[(String, Tensor)], chunk_bytes: usize) -> Result<()> {
    let index = folder.join(folder::CHUNKS);
    let mut names = HashSet::new();
    if let Some((twice, _)) = tensors.iter().find(|(name, _)| !names.insert(name)) {
        return Err(Error::checkpoint(&index, twice, "each name once", "it twice"));
    }
    // A list that cannot be read leads to no checkpoint that would have to be kept.
    let taken: HashSet<String> = folder::listed(&index).unwrap_or_default().into_iter().collect();
    let free = (0..)
        .map(|i| format!("chunk_{i}"))
        .filter(|name| !taken.contains(name));
    let mut metadata: IndexMap<String, Vec<&str>> = IndexMap::new();
    for (chunk, group) in free.zip(groups(tensors, chunk_bytes)) {
        safetensors::write(
            &folder.join(format!("{chunk}.safetensors")),
            group,
            &[("format", "pt")],
        )?;
        metadata.insert(chunk, group.iter().map(|(n, _)| n.as_str()).collect());
    }
    let text = serde_json::to_vec_pretty(&metadata)
        .map_err(|e| Error::checkpoint(&index, "metadata", "JSON", e.to_string()))?;
    crate::fsutil::write_atomic_bytes(&index, &text)?;
    remove_other_chunks(folder, &metadata)
}

/// Neighbours that fit into one chunk together.
fn groups(tensors: &[(String, Tensor)], chunk_bytes: usize) -> Vec<&[(String, Tensor)]> {
    let (mut groups, mut from, mut size) = (Vec::new(), 0, 0usize);
    for (i, (_, tensor)) in tensors.iter().enumerate() {
        let own = if tensor.defined() {
            tensor.numel() * tensor.kind().elt_size_in_bytes()
        } else {
            0
        };
        if i > from && size + own > chunk_bytes {
            groups.push(&tensors[from..i]);
            (from, size) = (i, 0);
        }
        size += own;
    }
    groups.push(&tensors[from..]);
    groups
}

/// Removes `chunk_N.safetensors` that the list does not name; other files are not ours to touch.
fn remove_other_chunks(folder: &Path, named: &IndexMap<String, Vec<&str>>) -> Result<()> {
    for file in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let file = file.map_err(|e| Error::io(folder, e))?;
        let name = file.file_name();
        let chunk = name.to_str().and_then(|n| n.strip_suffix(".safetensors"));
        let number = chunk.and_then(|c| c.strip_prefix("chunk_"));
        let ours = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if ours && !chunk.is_some_and(|c| named.contains_key(c)) {
            std::fs::remove_file(file.path()).map_err(|e| Error::io(file.path(), e))?;
        }
    }
    Ok(())
}
