//! One batch through the model with everything that is between, and its distance to another implementation's dump.

use crate::checkpoint::{items, write_safetensors, Archive};
use crate::data::feed::{texts, Ears, Example};
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::load::Loaded;
use crate::model::cross_attention::Frames;
use crate::model::flamingo::{Audio, Text};
use crate::model::input::{matrix, targets};
use crate::model::lm::{Decoder, Padding};
use std::path::Path;
use tch::{no_grad, Kind, Tensor};

/// Runs the manifest's items, named by their keys, as one batch; returns tensors under the golden files' names:
///
/// | name | shape |
/// |---|---|
/// | `input_ids`, `labels` | (B, T) int64 |
/// | `attention_mask` | (B, T) uint8 |
/// | `audio_embed_mask` | (B, W) float32 |
/// | `mel` | (B, W, 1001, 64) |
/// | `clap_out` | (B, W, 64, D) |
/// | `audio_transformer_out` | (B, 64·W, D) |
/// | `layerN` | (B, T, D_lm) after LM layer N |
/// | `logits` | (B, T, V) |
/// | `loss` | scalar |
pub fn run(
    model: &Loaded,
    manifest: &Manifest,
    root: &Path,
    items: &[String],
    max_tokens: usize,
) -> Result<Vec<(String, Tensor)>> {
    let batch = select(manifest, root, items, model.max_windows)?;
    let ears = Ears::new(0);
    let mels = ears.mels(&batch.iter().map(|e| &e.clip).collect::<Vec<_>>())?;
    let audio = Audio::from_mels(mels.iter().map(|m| &**m), model.device);
    let arrays = texts(&batch, &model.tokenizer, max_tokens)?;
    let text = Text::from_arrays(&arrays.input_ids, &arrays.attention_mask, model.device);
    let traced = no_grad(|| model.model.trace(&audio, &text));
    let (wanted, positions) = targets(&arrays.labels, model.device);
    let picked = traced.logits.flatten(0, 1).index_select(0, &positions);
    let loss = picked.cross_entropy_loss::<Tensor>(&wanted, None, tch::Reduction::Mean, -100, 0.0);
    let mel = audio.padded_mels();
    let mut out = vec![
        ("input_ids".to_owned(), matrix(&arrays.input_ids)),
        ("attention_mask".to_owned(), matrix(&arrays.attention_mask)),
        ("labels".to_owned(), matrix(&arrays.labels)),
        ("audio_embed_mask".to_owned(), audio.windows_bw),
        ("mel".to_owned(), mel),
        ("clap_out".to_owned(), traced.clap_out),
        ("audio_transformer_out".to_owned(), traced.audio_transformer_out),
    ];
    for (i, layer) in traced.layers.into_iter().enumerate() {
        out.push((format!("layer{i}"), layer));
    }
    out.push(("logits".to_owned(), traced.logits));
    out.push(("loss".to_owned(), loss));
    Ok(out)
}

/// Runs a language model alone over `input_ids` (B, T) of a file, with its `attention_mask` (B, T) where it has one; returns
/// tensors under the names of transformers' outputs:
///
/// | name | shape |
/// |---|---|
/// | `input_ids` | (B, T) int64 |
/// | `attention_mask` | (B, T) uint8, where the file has one |
/// | `hidden_0` | (B, T, D), the embeddings |
/// | `hidden_N` | (B, T, D) after layer N; the last is normed |
/// | `logits` | (B, T, V) |
///
/// What stands at padded positions means nothing.
///
/// # Errors
/// Ids that are no integers, none of the vocabulary's, or not (B, T); a mask of another shape or of other values.
pub fn language_model(lm: &Decoder, ids: &Path) -> Result<Vec<(String, Tensor)>> {
    let archive = Archive::open(ids)?;
    let wrong = |name: &str, expected: String, found: String| Err(Error::data(ids, name, expected, found));
    let Some(info) = archive.info("input_ids") else {
        let names: Vec<&str> = archive.names().take(3).collect();
        return wrong("input_ids", "token ids".into(), format!("names like {names:?}"));
    };
    let whole = matches!(info.kind, Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Uint8);
    if !whole || info.shape.len() != 2 || info.shape.contains(&0) {
        let found = format!("{:?} of shape {:?}", info.kind, info.shape);
        return wrong("input_ids", "integers (B, T)".into(), found);
    }
    let ids_bt = archive.get("input_ids")?.to_kind(Kind::Int64);
    let rows = lm.embed_tokens.size()[0];
    let (least, most) = (i64::try_from(ids_bt.min())?, i64::try_from(ids_bt.max())?);
    if least < 0 || most >= rows {
        return wrong(
            "input_ids",
            format!("ids from 0 to {}", rows - 1),
            format!("{least} to {most}"),
        );
    }
    let mut mask_bt = None;
    if let Some(mask) = archive.info("attention_mask") {
        if mask.shape != info.shape {
            let expected = format!("shape {:?}, as input_ids", info.shape);
            return wrong("attention_mask", expected, format!("{:?}", mask.shape));
        }
        let mask = archive.get("attention_mask")?;
        if i64::try_from(mask.eq(0).logical_or(&mask.eq(1)).all())? != 1 {
            return wrong("attention_mask", "0 and 1".into(), "other values".into());
        }
        mask_bt = Some(mask.to_kind(Kind::Uint8));
    }
    let device = lm.embed_tokens.device();
    let on_device = mask_bt.as_ref().map(|m| m.to_device(device));
    let padding = on_device.as_ref().map_or(Padding::Behind, Padding::Masked);
    let mut hidden = Vec::new();
    let (states, logits) = no_grad(|| {
        let keep = &mut |x: &Tensor| hidden.push(x.shallow_clone());
        let states = lm.states(&ids_bt.to_device(device), padding, None, keep);
        let logits = lm.logits(&states);
        (states, logits)
    });
    // transformers' last one is normed.
    hidden.pop();
    hidden.push(states);
    let mut out = vec![("input_ids".to_owned(), ids_bt)];
    out.extend(mask_bt.map(|m| ("attention_mask".to_owned(), m)));
    let hidden = hidden.into_iter().enumerate();
    out.extend(hidden.map(|(i, x)| (format!("hidden_{i}"), x)));
    out.push(("logits".to_owned(), logits));
    Ok(out)
}

/// The named items in the order in which they are named.
fn select(manifest: &Manifest, root: &Path, items: &[String], windows: usize) -> Result<Vec<Example>> {
    items
        .iter()
        .map(|key| {
            let found = (0..manifest.len()).find(|i| manifest.key(*i) == *key);
            let index = found.ok_or_else(|| {
                Error::data(&manifest.path, format!("data.{key}"), "an item", "no such key")
                    .hint(format!("the manifest holds {} items", manifest.len()))
            })?;
            Example::read(manifest, index, root, windows)
        })
        .collect()
}

/// How far one tensor is from its counterpart.
pub struct Distance {
    /// The tensor's name.
    pub name: String,
    /// The counterpart's name; none where there is none.
    pub other: Option<String>,
    /// Largest absolute difference; infinite where shapes differ.
    pub absolute: f64,
    /// That over the counterpart's largest absolute value.
    pub relative: f64,
    /// Why it could not be compared; empty where it was.
    pub remark: String,
}

/// Compares each tensor with the one that another file holds under `prefix`: `P/name`, or `P/<mask mode>/name`
/// (`none` or `few_shot`, after the frame rule in force), or, for what does not depend on the mode, `name`
/// beside the last part of the prefix.
///
/// Without `frames`, a language model alone: where there is an `attention_mask`, only what it says is real is compared.
pub fn compare(
    ours: &[(String, Tensor)],
    other: &Path,
    prefix: &str,
    frames: Option<Frames>,
) -> Result<Vec<Distance>> {
    let archive = Archive::open(other)?;
    let prefix = prefix.trim_end_matches('/');
    let mode = match frames {
        Some(Frames::FewShotMask) => "few_shot",
        _ => "none",
    };
    let mask = ours.iter().find(|(name, _)| name == "attention_mask");
    let real_bt = mask.filter(|_| frames.is_none()).map(|(_, mask)| mask);
    let parent = prefix.rsplit_once('/').map(|(p, _)| p);
    let mut found = 0;
    let mut table = Vec::new();
    for (name, tensor) in ours {
        let candidates = [
            Some(if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            }),
            Some(format!("{prefix}/{mode}/{name}")),
            parent.map(|p| format!("{p}/{name}")),
        ];
        let other = candidates
            .into_iter()
            .flatten()
            .find(|c| archive.info(c).is_some());
        let mut row = Distance {
            name: name.clone(),
            other: other.clone(),
            absolute: 0.0,
            relative: 0.0,
            remark: String::new(),
        };
        if let Some(key) = other {
            found += 1;
            measure(&mut row, tensor, &archive.get(&key)?, real_bt)?;
        }
        table.push(row);
    }
    if found == 0 {
        return Err(Error::data(
            other,
            format!("prefix `{prefix}`"),
            "tensors such as `input_ids` or `logits` under it",
            format!("names like {:?}", archive.names().take(3).collect::<Vec<_>>()),
        ));
    }
    Ok(table)
}

fn measure(row: &mut Distance, ours: &Tensor, theirs: &Tensor, real_bt: Option<&Tensor>) -> Result<()> {
    let mut ours = ours.to_device(tch::Device::Cpu).to_kind(Kind::Double);
    let mut theirs = theirs.to_kind(Kind::Double);
    let mut real_bt = real_bt.filter(|m| is_over(&ours, m)).map(Tensor::shallow_clone);
    let (own, wanted) = (ours.size(), theirs.size());
    if own != wanted {
        // Dumps keep every n-th row of long tensors to stay small.
        let stride = match (own.get(1), wanted.get(1)) {
            (Some(a), Some(b)) if own.len() == wanted.len() && *b > 0 && a % b == 0 => a / b,
            _ => 1,
        };
        if stride > 1 {
            ours = ours.slice(1, None, None, stride);
            real_bt = real_bt.map(|m| m.slice(1, None, None, stride));
        }
        if ours.size() != wanted {
            (row.absolute, row.relative) = (f64::INFINITY, f64::INFINITY);
            row.remark = format!("shape {own:?} against {wanted:?}");
            return Ok(());
        }
        row.remark = format!("every {stride}th row");
    }
    if let Some(real_bt) = real_bt {
        let padded = real_bt.to_device(tch::Device::Cpu).eq(0).unsqueeze(-1);
        (ours, theirs) = (ours.masked_fill(&padded, 0.0), theirs.masked_fill(&padded, 0.0));
    }
    if theirs.numel() == 0 {
        return Ok(());
    }
    let value = |t: Tensor| f64::try_from(t).map_err(Error::from);
    row.absolute = value((&ours - &theirs).abs().max())?;
    // A NaN on either side must not pass for small.
    if row.absolute.is_nan() {
        row.absolute = f64::INFINITY;
    }
    row.relative = match value(theirs.abs().max())? {
        s if s > 0.0 => row.absolute / s,
        _ => row.absolute,
    };
    Ok(())
}

/// Whether a tensor is (B, T, …) over a mask (B, T).
fn is_over(tensor: &Tensor, mask_bt: &Tensor) -> bool {
    tensor.dim() == 3 && tensor.size()[..2] == mask_bt.size()
}

/// Writes the traced tensors.
pub(crate) fn write(out: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let tensors = tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone()));
    write_safetensors(out, &items(tensors.collect()), &[("format", "pt")])
}
