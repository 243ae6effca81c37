//! The released AF2's folder, read and written.

use super::item::{self, Item};
use super::model_of::canonical;
use super::torch_file::TorchFile;
use super::{archive::Archive, folder, foreign, names, safetensors, torch_open};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Where the three parts of a checkpoint lie.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// A folder in the released layout (`safe_ckpt/`, optional `clap_ckpt/`, `llm/`), a `safe_ckpt` folder itself, or
    /// one file: the reference trainer's `checkpoint_N.pt`, or weights in safetensors.
    pub checkpoint: PathBuf,
    /// The LM's Hugging Face folder. Default: `llm/` beside the weights, or the base's.
    pub llm: Option<PathBuf>,
    /// AF-CLAP's file. Default: the one in `clap_ckpt/` beside the weights, or the base's.
    pub clap: Option<PathBuf>,
    /// A folder in the released layout whose tensors stand where the checkpoint has none: a training checkpoint
    /// holds only what was trained.
    pub base: Option<PathBuf>,
}

impl From<&Path> for Parts {
    fn from(checkpoint: &Path) -> Self {
        Parts {
            checkpoint: checkpoint.to_path_buf(),
            ..Parts::default()
        }
    }
}

/// An opened checkpoint of AF2.
#[derive(Debug)]
pub struct ReleasedFolder {
    /// Under our names: the LM's, overlaid by AF-CLAP's, overlaid by the weights', as the reference loads them.
    pub tensors: Archive,
    /// The LM's folder: `config.json` and tokenizer.
    pub llm: PathBuf,
    /// The whole AF-CLAP file under its own names (`audio_branch.…`, `text_branch.…`, projections), where there is
    /// one: AF2 needs only its audio branch, retrieval and contrastive training the rest.
    pub clap: Option<Archive>,
    /// The weights' own file, where it is one of `torch.save`: it may hold an optimizer's state.
    pub torch: Option<TorchFile>,
}

/// Opens DIR with `safe_ckpt/`, optional `clap_ckpt/*.pt`, and `llm/`. No tensor is read.
///
/// # Errors
/// As [`open_parts`].
pub fn open_released(dir: &Path) -> Result<ReleasedFolder> {
    open_parts(&dir.into())
}

/// Opens a checkpoint whose parts may lie in several places. No tensor is read.
///
/// # Errors
/// A folder or file that is missing or broken; more than one checkpoint in `clap_ckpt/`.
pub fn open_parts(parts: &Parts) -> Result<ReleasedFolder> {
    let given = &parts.checkpoint;
    let is_dir = std::fs::metadata(given)
        .map_err(|e| Error::io(given, e))?
        .is_dir();
    // `root` is where the other parts are looked for.
    let (weights, root) = match is_dir {
        true if !given.join(folder::CHUNKS).is_file() => (given.join("safe_ckpt"), given.clone()),
        _ => (given.clone(), beside(given)),
    };
    if let Some(e) = foreign::file(&weights).filter(|_| !is_dir) {
        return Err(e);
    }
    if is_dir && !weights.is_dir() {
        if let Some(e) = foreign::folder(given) {
            return Err(e);
        }
        return Err(
            Error::checkpoint(given, "safe_ckpt/, the released weights", "a folder", "none").hint(
                "a checkpoint folder holds safe_ckpt/, llm/ and, where the encoder is apart, clap_ckpt/",
            ),
        );
    }
    let base = parts.base.as_deref().map(open_released).transpose()?;
    let own_llm = root.join("llm");
    let (llm, of_base) = match (&parts.llm, &base) {
        (Some(llm), _) => (llm.clone(), false),
        (None, Some(base)) if !own_llm.is_dir() => (base.llm.clone(), true),
        (None, _) => (own_llm, false),
    };
    if !llm.is_dir() {
        return Err(Error::checkpoint(given, "llm/, the language model's folder", "a folder", "none").hint(
            "--llm DIR names the language model's Hugging Face folder, --base DIR a whole released folder",
        ));
    }
    let mut tensors = Archive::default();
    // The LM's weights may be in safe_ckpt alone: a folder of config and tokenizer is enough then.
    if !of_base && folder::has_weights(&llm) {
        tensors = tensors.overlay(canonical(folder::open(&llm)?, &llm)?);
    }
    let clap = match &parts.clap {
        Some(file) => Some(file.clone()),
        None => clap_file(&root.join("clap_ckpt"))?,
    };
    let mut whole_clap = None;
    if let Some(file) = clap {
        let archive = Archive::open(&file)?;
        tensors = tensors.overlay(canonical(archive.clone(), &file)?);
        whole_clap = Some(archive.rename(|n| Some(names::unwrapped(n))));
    }
    if let Some(base) = base {
        tensors = base.tensors.overlay(tensors);
        whole_clap = whole_clap.or(base.clap);
    }
    let is_torch = weights.extension().is_some_and(|e| e != "safetensors");
    let torch = match is_dir || !is_torch {
        true => None,
        false => Some(torch_open::open(&weights)?),
    };
    let own = match &torch {
        Some(file) => file.model()?,
        None => Archive::open(&weights)?,
    };
    tensors = tensors.overlay(canonical(own, &weights)?);
    // Errors that name the whole are of more use than those that name its first part.
    tensors.source = given.clone();
    Ok(ReleasedFolder {
        tensors,
        llm,
        clap: whole_clap,
        torch,
    })
}

/// The folder that a file or folder stands in.
fn beside(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The one checkpoint of `clap_ckpt/`.
pub(crate) fn clap_file(folder: &Path) -> Result<Option<PathBuf>> {
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
pub fn write_released(folder: &Path, tensors: &[(String, Item)], chunk_bytes: usize) -> Result<()> {
    let index = folder.join(folder::CHUNKS);
    item::distinct(&index, tensors)?;
    // A list that cannot be read leads to no checkpoint that would have to be kept.
    let taken: HashSet<String> = folder::listed(&index).unwrap_or_default().into_iter().collect();
    let free = (0..)
        .map(|i| format!("chunk_{i}"))
        .filter(|name| !taken.contains(name));
    let mut metadata: IndexMap<String, Vec<&str>> = IndexMap::new();
    for (chunk, group) in free.zip(item::groups(tensors, chunk_bytes)) {
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

/// Removes `chunk_N.safetensors` that the list does not name; other files are not ours to touch.
fn remove_other_chunks(folder: &Path, named: &IndexMap<String, Vec<&str>>) -> Result<()> {
    for file in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let file = file.map_err(|e| Error::io(folder, e))?;
        let name = file.file_name();
        let chunk = name.to_str().and_then(|n| n.strip_suffix(".safetensors"));
        if name.to_str().is_some_and(folder::is_chunk) && !chunk.is_some_and(|c| named.contains_key(c)) {
            std::fs::remove_file(file.path()).map_err(|e| Error::io(file.path(), e))?;
        }
    }
    Ok(())
}
