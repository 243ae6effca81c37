//! A language model's folder as transformers reads and writes it: `config.json`, shards with their index, tokenizer.

use super::item::{self, Item};
use super::{folder, safetensors};
use crate::error::{Error, Result};
use crate::fsutil::{write_atomic_bytes, write_json};
use serde_json::{json, Map, Value};
use std::path::Path;

/// Writes the shards of about `shard_bytes` each and, where there are several, their index; then removes what another
/// sharding left there.
///
/// # Errors
/// As [`super::write_safetensors`]; a name given twice.
pub fn write_shards(dir: &Path, tensors: &[(String, Item)], shard_bytes: usize) -> Result<()> {
    let (index, single) = folder::SHARDS[0];
    let at = dir.join(index);
    item::distinct(&at, tensors)?;
    let groups = item::groups(tensors, shard_bytes);
    let format = [("format", "pt")];
    if let [all] = groups[..] {
        safetensors::write(&dir.join(single), all, &format)?;
        return remove_others(dir, &[single.to_owned()]);
    }
    let (n, mut map) = (groups.len(), Map::new());
    let mut written = vec![index.to_owned()];
    for (i, group) in groups.iter().enumerate() {
        let file = format!("model-{:05}-of-{n:05}.safetensors", i + 1);
        safetensors::write(&dir.join(&file), group, &format)?;
        map.extend(
            group
                .iter()
                .map(|(name, _)| (name.clone(), Value::from(file.as_str()))),
        );
        written.push(file);
    }
    let size: usize = tensors.iter().map(|(_, item)| item.len()).sum();
    write_json(&at, &json!({"metadata": {"total_size": size}, "weight_map": map}))?;
    remove_others(dir, &written)
}

/// Removes safetensors of another sharding: a file that stands alone would be read before an index.
fn remove_others(dir: &Path, written: &[String]) -> Result<()> {
    for file in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = file.map_err(|e| Error::io(dir, e))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let ours = folder::is_weights(name) && name.contains(".safetensors");
        if ours && !written.iter().any(|w| w == name) {
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
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

/// Copies `config.json` with the vocabulary's new size, and `generation_config.json` where there is one; both say the end
/// of text that the model was trained with.
pub(crate) fn copy_config(from: &Path, to: &Path, vocab: i64, eos: i64) -> Result<()> {
    let ends = |config: &mut Map<String, Value>| {
        let said = config.get("eos_token_id");
        let there = said.is_some_and(|v| *v == eos || v.as_array().is_some_and(|l| l.contains(&eos.into())));
        if !there {
            config.insert("eos_token_id".into(), eos.into());
        }
    };
    const GENERATION: &str = "generation_config.json";
    if from.join(GENERATION).is_file() {
        change_json(from, to, GENERATION, ends)?;
    }
    change_json(from, to, "config.json", |config| {
        config.insert("vocab_size".into(), vocab.into());
        ends(config);
    })
}

/// Copies `tokenizer_config.json`, where there is one, with tokens added to its list, which from then on is the only one
/// that counts, and the end of text.
pub(crate) fn copy_tokenizer_config(
    from: &Path,
    to: &Path,
    added: Map<String, Value>,
    end: &str,
) -> Result<()> {
    const FILE: &str = "tokenizer_config.json";
    if !from.join(FILE).is_file() {
        return Ok(());
    }
    change_json(from, to, FILE, |config| {
        config.insert("added_tokens_decoder".into(), added.into());
        config.insert("eos_token".into(), end.into());
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
