//! Every name that a file uses for a tensor, and the one that we use.
//!
//! Ours are the released checkpoint's: `clap.nvclap.…`, `audio_transformer_clap.…`,
//! `lang_encoder.model.layers.N.{decoder_layer,gated_cross_attn_layer_sound}.…`.

use super::Archive;
use crate::error::{Error, Result};
use std::path::Path;

/// Where the audio encoder stands.
pub const CLAP: &str = "clap.nvclap";

/// Modules that PyTorch wraps around others, at any depth: DistributedDataParallel, FSDP, activation checkpointing,
/// `torch.compile`. None of the model's own modules bears such a name.
const WRAPPERS: [&str; 4] = [
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_orig_mod",
];

/// Prefixes and what stands for them in our names.
const PREFIXES: [(&str, &str); 3] = [
    // The training tree calls the encoder afclap, the release tree nvclap.
    ("clap.afclap.", "clap.nvclap."),
    // AF-CLAP's own file: its audio branch is the encoder.
    ("audio_branch.", "clap.nvclap."),
    // A plain Hugging Face LM's head; its embedding and last norm (`model.…`) follow below its layers.
    ("lm_head.", "lang_encoder.lm_head."),
];

/// Prefixes before a layer's number, and what stands before and behind it in our names.
const LAYERS: [(&str, &str, &str); 3] = [
    // The reference keeps each decoder layer and each cross-attention block in a list of their own as well. They
    // are the same tensors: a state dict holds them twice.
    (
        "lang_encoder.old_decoder_blocks.",
        "lang_encoder.model.layers.",
        ".decoder_layer.",
    ),
    (
        "lang_encoder.gated_cross_attn_layers_sound.",
        "lang_encoder.model.layers.",
        ".gated_cross_attn_layer_sound.",
    ),
    // A plain Hugging Face LM: AF2 wraps each decoder layer, also those without cross attention.
    ("model.layers.", "lang_encoder.model.layers.", ".decoder_layer."),
];

/// AF-CLAP's text side and the projections of both sides, which AF2 does not use.
const CLAP_ONLY: [&str; 7] = [
    "text_branch.",
    "text_projection.",
    "text_transform.",
    "audio_projection.",
    "audio_transform.",
    "logit_scale_a",
    "logit_scale_t",
];

/// A name without PyTorch's wrappers.
pub fn unwrapped(name: &str) -> String {
    let own: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    own.join(".")
}

/// Our name for a file's; none for tensors that AF2 has no use for. Unknown names stay.
pub fn rename(name: &str) -> Option<String> {
    let name = unwrapped(name);
    if CLAP_ONLY.iter().any(|p| name.starts_with(p)) {
        return None;
    }
    for (theirs, ours) in PREFIXES {
        if let Some(rest) = name.strip_prefix(theirs) {
            return Some(format!("{ours}{rest}"));
        }
    }
    for (theirs, before, behind) in LAYERS {
        if let Some((number, rest)) = name.strip_prefix(theirs).and_then(|r| r.split_once('.')) {
            return Some(format!("{before}{number}{behind}{rest}"));
        }
    }
    if name.starts_with("model.") {
        return Some(format!("lang_encoder.{name}"));
    }
    Some(name)
}

/// Tensors under our names that files hold and no forward pass reads: the STFT as convolutions (we compute it) and
/// the position numbers of older transformers. A model may lack them without harm.
pub fn at_rest(name: &str) -> bool {
    let encoder = name.strip_prefix(CLAP).and_then(|n| n.strip_prefix('.'));
    encoder.is_some_and(|n| n.starts_with("spectrogram_extractor.stft.")) || name.ends_with("position_ids")
}

/// An archive under our names; duplicates give way to the tensor that bears our name already.
///
/// # Errors
/// When nothing of it is a part of AF2.
pub fn canonical(archive: Archive, path: &Path) -> Result<Archive> {
    let found: Vec<String> = archive.names().take(3).map(str::to_owned).collect();
    let archive = archive.rename(rename);
    let known = |n: &str| {
        ["clap.", "audio_transformer_clap.", "lang_encoder."]
            .iter()
            .any(|p| n.starts_with(p))
    };
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
            ("clap.nvclap.bn0.weight", Some("clap.nvclap.bn0.weight")),
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
            (
                "model.embed_tokens.weight",
                Some("lang_encoder.model.embed_tokens.weight"),
            ),
            ("model.norm.weight", Some("lang_encoder.model.norm.weight")),
            ("lm_head.weight", Some("lang_encoder.lm_head.weight")),
            (
                "_fsdp_wrapped_module.audio_transformer_clap._checkpoint_wrapped_module.layer_norm.bias",
                Some("audio_transformer_clap.layer_norm.bias"),
            ),
            (
                "module._fsdp_wrapped_module.module.lm_head.weight",
                Some("lang_encoder.lm_head.weight"),
            ),
            (
                "audio_transformer_clap.layer_norm.bias",
                Some("audio_transformer_clap.layer_norm.bias"),
            ),
            ("unknown.weight", Some("unknown.weight")),
        ];
        for (theirs, ours) in cases {
            assert_eq!(rename(theirs).as_deref(), ours, "{theirs}");
        }
    }

    #[test]
    fn our_names_stay_as_they_are_when_renamed_again() {
        for theirs in [
            "model.layers.0.mlp.up_proj.weight",
            "audio_branch.bn0.bias",
            "model.norm.weight",
            "lm_head.weight",
        ] {
            let ours = rename(theirs).unwrap();
            assert_eq!(rename(&ours), Some(ours));
        }
    }

    #[test]
    fn only_what_no_forward_pass_reads_rests() {
        assert!(at_rest("clap.nvclap.spectrogram_extractor.stft.conv_real.weight"));
        assert!(!at_rest("clap.nvclap.logmel_extractor.melW"));
        assert!(!at_rest("audio_transformer_clap.position_enc.inv_freq"));
    }
}
