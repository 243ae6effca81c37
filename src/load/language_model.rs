//! A language model alone, from its own folder.

use crate::checkpoint::{canonical, names, Archive};
use crate::error::Result;
use crate::model::lm::{Config, Decoder, Naming};
use crate::model::params::{Lookup, Origin, Params, Store};
use std::path::Path;
use tch::Device;

/// Opens a Hugging Face folder of any family that is read, with as many embedding rows as it has.
///
/// # Errors
/// Those of its `config.json` and of its weights; tensors that are missing, that the family has not, or of another shape.
pub fn language_model(folder: &Path, device: Device) -> Result<(Config, Decoder, Params)> {
    let config = Config::read(folder)?;
    let sizes = config.decoder();
    let tensors = canonical(Archive::open(folder)?, folder)?;
    let lookup: Lookup = Box::new(|name, kind, device| match tensors.info(name) {
        Some(_) => tensors.get_as(name, kind, device).map(Some),
        None => Ok(None),
    });
    let origin = Origin::File {
        path: folder.to_path_buf(),
        lookup,
        fresh: Box::new(|_| false),
    };
    let store = Store::new(origin, device);
    let root = &store.root() / "lang_encoder";
    let lm = Decoder::new(&root, &sizes, sizes.vocab_size, Naming::Wrapped);
    let params = store.finish()?;
    params.train_only(|_| false);
    unread(folder, &tensors, &params, sizes.tie_word_embeddings)?;
    Ok((config, lm, params))
}

/// A weight that a layer has and we would not read, such as a bias, is another computation.
fn unread(folder: &Path, tensors: &Archive, params: &Params, tied: bool) -> Result<()> {
    let rests =
        |n: &str| names::at_rest(n) || n.ends_with("rotary_emb.inv_freq") || (tied && n == names::HEAD);
    let too_much = tensors.names().filter(|n| !params.contains(n) && !rests(n));
    crate::error::all(
        too_much
            .take(5)
            .map(|n| crate::error::Error::checkpoint(folder, n, "no such tensor in this family", "one"))
            .collect(),
    )
}
