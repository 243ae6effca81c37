//! A language model's folder as transformers reads and writes it: `config.json`, shards with their index, tokenizer.

use super::item::{self, Item};
use super::{folder, safetensors};
use crate::error::{Error, Result};
use crate::fsutil::{write_atomic_bytes, write_json};
use serde_json::{json, Map, Value};
use std::path::Path;

/// Writes the shards of about `shard_bytes` each and, where there are several, their index.
///
/// # Errors
/// As [`super::write_safetensors`]; a name given twice.
pub fn write_shards(dir: &Path, tensors: &[(String, Item)], shard_bytes: usize) -> Result<()> {
    let (index, single) = folder::SHARDS[0];
    let index = dir.join(index);
    item::distinct(&index, tensors)?;
    let groups = item::groups(tensors, shard_bytes);
    let format = [("format", "pt")];
    if let [all] = groups[..] {
        safetensors::write(&dir.join(single), all, &format)?;
        // The index of an earlier, larger model would be read before the file that stands alone.
        return match std::fs::remove_file(&index) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&index, e)),
            _ => Ok(()),
        };
    }
    let (n, mut map) = (groups.len(), Map::new());
    for (i, group) in groups.iter().enumerate() {
        let file = format!("model-{:05}-of-{n:05}.safetensors", i + 1);
        safetensors::write(&dir.join(&file), group, &format)?;
        map.extend(
            group
                .iter()
                .map(|(name, _)| (name.clone(), Value::from(file.as_str()))),
        );
    }
    let size: usize = tensors.iter().map(|(_, item)| item.len()).sum();
    write_json(
        &index,
        &json!({"metadata": {"total_size": size}, "weight_map": map}),
    )
}

/// Copies a folder's configuration and tokenizer: its `.json` and `.txt` files but for indices of weights.
pub fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for file in std::fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let file = file.map_err(|e| Error::io(from, e))?.path();
        let name = file.file_name().unwrap_or_default();
        let text = file.extension().is_some_and(|e| e == "json" || e == "txt");
        let index = folder::SHARDS.iter().any(|(index, _)| name == *index);
        if text && !index && file.is_file() {
            let bytes = std::fs::read(&file).map_err(|e| Error::io(&file, e))?;
            write_atomic_bytes(&to.join(name), &bytes)?;
        }
    }
    Ok(())
}

/// Copies `config.json` with the vocabulary's new size.
pub fn copy_config(from: &Path, to: &Path, vocab: i64) -> Result<()> {
    change_json(from, to, "config.json", |config| {
        config.insert("vocab_size".into(), vocab.into());
    })
}

/// Copies `tokenizer_config.json`, where there is one, with tokens added to its list.
pub fn copy_tokenizer_config(from: &Path, to: &Path, added: Map<String, Value>) -> Result<()> {
    const FILE: &str = "tokenizer_config.json";
    if !from.join(FILE).is_file() {
        return Ok(());
    }
    change_json(from, to, FILE, |config| {
        let list = config.entry("added_tokens_decoder").or_insert_with(|| json!({}));
        if let Some(list) = list.as_object_mut() {
            list.extend(added);
        }
    })
}

fn change_json(
    from: &Path,
    to: &Path,
    file: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<()> {
    let path = from.join(file);
    let text = crate::fsutil::read_text(&path)?;
    let mut object: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|e| Error::checkpoint(&path, file, "a JSON object", e.to_string()))?;
    change(&mut object);
    write_json(&to.join(file), &object.into())
}
