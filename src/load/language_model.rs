//! A language model alone, from its own folder.

use crate::checkpoint::{canonical, names, Archive};
use crate::error::Result;
use crate::model::lm::{Config, Decoder, Naming};
use crate::model::params::{Lookup, Origin, Params, Store};
use crate::model::parts::Precision;
use std::path::Path;
use tch::{Device, Kind};

/// Opens a Hugging Face folder of any family that is read, with as many embedding rows as it has.
///
/// # Errors
/// Those of its `config.json` and of its weights; tensors that are missing, that the family has not, or of another shape.
pub fn language_model(folder: &Path, device: Device) -> Result<(Config, Decoder, Params)> {
    held_in(folder, device, Precision::Fp32)
}

/// The same for one that is only asked, in a precision: see [`Store::held_in`].
pub(super) fn held_in(
    folder: &Path,
    device: Device,
    precision: Precision,
) -> Result<(Config, Decoder, Params)> {
    let config = Config::read(folder)?;
    let sizes = config.decoder();
    let tensors = canonical(Archive::open(folder)?, folder)?;
    let lookup: Lookup = Box::new(|name, kind, device| {
        let Some(info) = tensors.info(name) else {
            return Ok(None);
        };
        // What the file has in bf16, and the model will, is not widened in between.
        let stays = precision == Precision::AmpBf16 && info.kind == Kind::BFloat16 && info.shape.len() >= 2;
        let kind = if stays && kind == Kind::Float {
            Kind::BFloat16
        } else {
            kind
        };
        tensors.get_as(name, kind, device).map(Some)
    });
    let origin = Origin::File {
        path: folder.to_path_buf(),
        lookup,
        fresh: Box::new(|_| false),
    };
    let store = Store::new(origin, device).held_in(precision);
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
