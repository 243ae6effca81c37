//! Every name that a file uses for a tensor, and the one that we use.
//!
//! Ours are the released checkpoint's: `clap.nvclap.…`, `audio_transformer_clap.…`,
//! `lang_encoder.model.layers.N.{decoder_layer,gated_cross_attn_layer_sound}.…`.

use super::Archive;
use crate::error::{Error, Result};
use std::path::Path;

/// Where the audio encoder stands.
pub const CLAP: &str = "clap.nvclap";

/// Wrappers that PyTorch puts before or into names.
const WRAPPERS: [&str; 3] = ["module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];

/// Our name for a file's; none for tensors that AF2 has no use for.
pub fn rename(name: &str) -> Option<String> {
    let mut name = name.to_owned();
    // DistributedDataParallel and FSDP wrap modules at any depth; activation checkpointing too.
    for wrapper in WRAPPERS {
        if let Some(rest) = name.strip_prefix(wrapper) {
            name = rest.to_owned();
        }
        name = name.replace(&format!(".{wrapper}"), ".");
    }
    let part = |prefix: &str| name.strip_prefix(prefix).map(str::to_owned);
    // The training tree calls the encoder afclap, the release tree nvclap.
    if let Some(rest) = part("clap.afclap.") {
        return Some(format!("{CLAP}.{rest}"));
    }
    // AF-CLAP's own file: the audio branch is the encoder; its text side and projections AF2 does not use.
    if let Some(rest) = part("audio_branch.") {
        return Some(format!("{CLAP}.{rest}"));
    }
    let text_side = ["text_branch.", "text_projection.", "text_transform.", "audio_projection.", "audio_transform."];
    if text_side.iter().any(|p| name.starts_with(p)) || name.starts_with("logit_scale_") {
        return None;
    }
    // The reference's modules hold the same tensors a second time.
    if let Some((n, rest)) = part("lang_encoder.old_decoder_blocks.").as_deref().and_then(|r| r.split_once('.')) {
        return Some(format!("lang_encoder.model.layers.{n}.decoder_layer.{rest}"));
    }
    let second = part("lang_encoder.gated_cross_attn_layers_sound.");
    if let Some((n, rest)) = second.as_deref().and_then(|r| r.split_once('.')) {
        return Some(format!("lang_encoder.model.layers.{n}.gated_cross_attn_layer_sound.{rest}"));
    }
    // A plain Hugging Face LM: AF2 wraps each decoder layer.
    if let Some((n, rest)) = part("model.layers.").as_deref().and_then(|r| r.split_once('.')) {
        return Some(format!("lang_encoder.model.layers.{n}.decoder_layer.{rest}"));
    }
    if name.starts_with("model.") || name.starts_with("lm_head.") {
        return Some(format!("lang_encoder.{name}"));
    }
    Some(name)
}

/// An archive under our names. It is an error when nothing of it is a part of AF2.
pub fn canonical(archive: Archive, path: &Path) -> Result<Archive> {
    let found: Vec<String> = archive.names().take(3).map(str::to_owned).collect();
    // First the names that are ours already, so that a duplicate never displaces the tensor itself.
    let (own, other): (Vec<_>, Vec<_>) = archive
        .entries
        .into_iter()
        .partition(|(n, _)| rename(n).as_deref() == Some(n.as_str()));
    let ordered = Archive {
        entries: own.into_iter().chain(other).collect(),
    };
    let archive = ordered.rename(rename);
    let known = |n: &str| ["clap.", "audio_transformer_clap.", "lang_encoder."].iter().any(|p| n.starts_with(p));
    if !archive.names().any(known) {
        return Err(Error::checkpoint(
            path,
            "names",
            "tensors of AF2, AF-CLAP or a Qwen2 LM",
            format!("names like {found:?}"),
        ));
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layout_falls_on_our_names() {
        let cases = [
            ("module.clap.afclap.bn0.weight", Some("clap.nvclap.bn0.weight")),
            ("module.audio_branch.norm.bias", Some("clap.nvclap.norm.bias")),
            ("module.text_branch.shared.weight", None),
            ("logit_scale_a", None),
            (
                "lang_encoder.old_decoder_blocks.3.mlp.up_proj.weight",
                Some("lang_encoder.model.layers.3.decoder_layer.mlp.up_proj.weight"),
            ),
            (
                "lang_encoder.gated_cross_attn_layers_sound.0.attn_gate",
                Some("lang_encoder.model.layers.0.gated_cross_attn_layer_sound.attn_gate"),
            ),
            (
                "model.layers.11.self_attn.q_proj.bias",
                Some("lang_encoder.model.layers.11.decoder_layer.self_attn.q_proj.bias"),
            ),
            ("model.norm.weight", Some("lang_encoder.model.norm.weight")),
            (
                "_fsdp_wrapped_module.audio_transformer_clap._checkpoint_wrapped_module.layer_norm.bias",
                Some("audio_transformer_clap.layer_norm.bias"),
            ),
            ("audio_transformer_clap.layer_norm.bias", Some("audio_transformer_clap.layer_norm.bias")),
        ];
        for (theirs, ours) in cases {
            assert_eq!(rename(theirs).as_deref(), ours, "{theirs}");
        }
    }
}
