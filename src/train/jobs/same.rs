//! What must be alike on all ranks once the files are open: where a machine has its own copies, nothing else says that they are
//! the same.

use crate::data::manifest::Manifest;
use crate::data::order::Order;
use crate::dist::{flatten, Facts};
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::model::params::Params;
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use std::fs::File;
use std::io::Read;

/// Of AF2 as a stage begins with it: see [`model`].
pub(crate) fn flamingo(model: &Loaded) -> Result<Facts> {
    let mut all = self::model(&model.model.config, &model.params, &model.tokenizer)?;
    all.push(("windows".into(), model.max_windows.to_string()));
    Ok(all)
}

/// Sizes and rules, names and shapes of all tensors, the tokenizer. Not their values: the first rank's are given to all.
pub(crate) fn model(config: &impl Serialize, params: &Params, tokenizer: &Tokenizer) -> Result<Facts> {
    let mut all = Facts::new();
    let config = serde_json::to_value(config)
        .map_err(|e| Error::recipe("the model", format!("its sizes cannot be written: {e}")))?;
    flatten("config", &config, &mut all);
    for (name, entry) in params.iter() {
        let shape = format!("{:?} {:?}", entry.tensor.kind(), entry.tensor.size());
        all.push((name.to_owned(), shape));
    }
    let digest = blake3::hash(tokenizer.to_json()?.as_bytes()).to_hex();
    all.push((
        "tokenizer".into(),
        format!("{} entries, {}", tokenizer.len(), &digest[..16]),
    ));
    Ok(all)
}

/// The sets in their order: how many items each has, and what is in its manifest. `validation`: batches of each set.
pub(crate) fn data(order: &Order, validation: &[(String, usize)]) -> Result<Facts> {
    let mut all = Facts::new();
    for set in &order.blend.sets {
        all.push((set.name.clone(), digest(&set.manifest)?));
    }
    let sets = validation.iter();
    all.extend(sets.map(|(name, n)| (format!("validation.{name}"), format!("{n} batches"))));
    Ok(all)
}

/// Of a manifest all that is in the file; of shards, which may be terabytes, names and places of the items.
fn digest(manifest: &Manifest) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    if manifest.in_shards() {
        for item in 0..manifest.len() {
            let key = manifest.key(item);
            for number in [key.len(), manifest.shard(item)] {
                hasher.update(&(number as u64).to_le_bytes());
            }
            hasher.update(key.as_bytes());
        }
    } else {
        let path = &manifest.path;
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece).map_err(|e| Error::io(path, e))? {
                0 => break,
                n => hasher.update(&piece[..n]),
            };
        }
    }
    Ok(format!(
        "{} items, {}",
        manifest.len(),
        &hasher.finalize().to_hex()[..16]
    ))
}
