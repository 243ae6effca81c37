//! Reads a model's sizes off its tensors, where they tell.

use super::{audio_transformer, htsat};
use crate::error::{Error, Result};
use std::path::Path;

/// Looks a tensor's shape up by its canonical name.
pub type Shapes<'a> = &'a dyn Fn(&str) -> Option<Vec<i64>>;

/// A stack deeper than this is not believed.
const MOST_LAYERS: usize = 1024;

/// The audio encoder's sizes from tensors under `prefix` (such as `clap.nvclap`).
pub fn htsat(shapes: Shapes, prefix: &str, path: &Path) -> Result<htsat::Config> {
    let dim = |name: &str, axis: usize| -> Result<i64> {
        let key = format!("{prefix}.{name}");
        let shape = shapes(&key).ok_or_else(|| {
            Error::checkpoint(path, &key, "a tensor of the audio encoder", "no such tensor")
                .hint("is this a checkpoint with the audio encoder? clap_ckpt/ may hold it")
        })?;
        shape
            .get(axis)
            .copied()
            .filter(|n| (1..=1 << 20).contains(n))
            .ok_or_else(|| {
                Error::checkpoint(
                    path,
                    &key,
                    format!("a size at axis {axis}"),
                    format!("shape {shape:?}"),
                )
            })
    };
    let embed_dim = dim("patch_embed.proj.weight", 0)?;
    let mut depths = Vec::new();
    let mut num_heads = Vec::new();
    // Four stages take the 64 × 64 patches down to 8 × 8; nothing else folds back into 64 tokens.
    for stage in 0..4 {
        let block = |j: usize| format!("layers.{stage}.blocks.{j}.attn.relative_position_bias_table");
        num_heads.push(dim(&block(0), 1)?);
        depths.push(count(shapes, |j| format!("{prefix}.{}", block(j))));
    }
    for (stage, heads) in num_heads.iter().enumerate() {
        if (embed_dim << stage) % heads != 0 {
            return Err(Error::checkpoint(
                path,
                format!("{prefix}.layers.{stage}"),
                format!("a number of heads that divides {}", embed_dim << stage),
                heads.to_string(),
            ));
        }
    }
    Ok(htsat::Config {
        embed_dim,
        depths,
        num_heads,
        class_num: dim("head.weight", 0)?,
    })
}

/// The audio transformer's sizes. Its number of heads shows only in the rotary table:
/// `Err` never; `sure` is false where several numbers fit and `n_head` is the most likely of them.
pub fn audio_transformer(
    shapes: Shapes,
    path: &Path,
    width: i64,
) -> Result<(audio_transformer::Config, bool)> {
    let p = "audio_transformer_clap";
    let n_layers = count(shapes, |i| format!("{p}.layer_stack.{i}.pos_ffn.w_1.weight"));
    let first = |key: &str| shapes(key).and_then(|s| s.first().copied());
    let d_inner = match n_layers {
        0 => 1,
        _ => first(&format!("{p}.layer_stack.0.pos_ffn.w_1.weight")).unwrap_or(1),
    };
    let key = format!("{p}.position_enc.inv_freq");
    let rotated = match first(&key) {
        Some(n) if (1..=1 << 16).contains(&n) => Some(2 * n),
        Some(n) => {
            return Err(Error::checkpoint(
                path,
                key,
                "1 to 65536 frequencies",
                n.to_string(),
            ))
        }
        None => None,
    };
    let fits = |heads: i64| {
        let head = width / heads;
        let own = audio_transformer::rotary_dims(head);
        width % heads == 0 && own <= head && rotated.is_none_or(|r| r == own)
    };
    let candidates: Vec<i64> = (1..=width.min(4096)).filter(|h| fits(*h)).collect();
    let paper = audio_transformer::Config::paper().n_head;
    let n_head = match candidates.as_slice() {
        [] => {
            return Err(Error::checkpoint(
                path,
                key,
                format!("frequencies for heads that divide {width}"),
                format!("{rotated:?} rotated dimensions"),
            ))
        }
        c if c.contains(&paper) => paper,
        c => c[c.len() - 1],
    };
    let config = audio_transformer::Config {
        n_head,
        n_layers,
        d_inner,
        attention_dropout: 0.0,
    };
    Ok((config, candidates.len() == 1))
}

/// Every how many LM layers a cross-attention block stands.
pub fn cross_attention_every(shapes: Shapes, path: &Path, layers: usize) -> Result<usize> {
    let key = |i: usize| format!("lang_encoder.model.layers.{i}.gated_cross_attn_layer_sound.attn_gate");
    let have: Vec<usize> = (0..layers.min(MOST_LAYERS))
        .filter(|i| shapes(&key(*i)).is_some())
        .collect();
    let every = have.first().map(|i| i + 1).unwrap_or(1);
    let expected: Vec<usize> = (0..layers).filter(|i| (i + 1) % every == 0).collect();
    if !have.is_empty() && have != expected {
        return Err(Error::checkpoint(
            path,
            key(0),
            format!("a cross-attention block before every {every}. layer"),
            format!("blocks before layers {have:?}"),
        ));
    }
    Ok(every)
}

/// How many of name(0), name(1), … there are in a row.
fn count(shapes: Shapes, name: impl Fn(usize) -> String) -> usize {
    (0..MOST_LAYERS)
        .take_while(|i| shapes(&name(*i)).is_some())
        .count()
}
