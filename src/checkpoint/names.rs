//! Every name that a file uses for a tensor, and the one that we use.
//!
//! Ours are the released checkpoint's: `clap.nvclap.…`, `audio_transformer_clap.…`,
//! `lang_encoder.model.layers.N.{decoder_layer,gated_cross_attn_layer_sound}.…`.

/// Where the audio encoder stands.
pub const CLAP: &str = "clap.nvclap";

/// Where the audio transformer stands.
pub(crate) const AUDIO_TRANSFORMER: &str = "audio_transformer_clap";

/// The gate of the cross-attention block before a layer of the LM.
pub(crate) fn gate(layer: usize) -> String {
    format!("lang_encoder.model.layers.{layer}.gated_cross_attn_layer_sound.attn_gate")
}

/// A tensor's name within the audio encoder, where it is one of its.
pub(crate) fn of_the_encoder(name: &str) -> Option<&str> {
    name.strip_prefix(CLAP)?.strip_prefix('.')
}

/// The LM's output head; in a tied model the embedding under a second name.
pub const HEAD: &str = "lang_encoder.lm_head.weight";
/// The LM's input embedding.
pub const EMBEDDING: &str = "lang_encoder.model.embed_tokens.weight";

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

/// Whether a piece of a name is one of PyTorch's wrappers.
pub(super) fn is_wrapper(piece: &str) -> bool {
    WRAPPERS.contains(&piece)
}

/// A name without PyTorch's wrappers.
pub(crate) fn unwrapped(name: &str) -> String {
    let own: Vec<&str> = name.split('.').filter(|piece| !is_wrapper(piece)).collect();
    own.join(".")
}

/// Whether a name without wrappers is a part of AF2, of AF-CLAP or of a plain Hugging Face LM, in any layout that is read.
pub(super) fn is_known(name: &str) -> bool {
    const OURS: [&str; 3] = ["clap.nvclap.", "audio_transformer_clap.", "lang_encoder."];
    const LM: [&str; 3] = ["model.layers.", "model.embed_tokens.", "model.norm."];
    let all = OURS.iter().chain(&LM).chain(&CLAP_ONLY);
    all.copied()
        .chain(PREFIXES.iter().map(|(theirs, _)| *theirs))
        .any(|p| name.starts_with(p))
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

/// The reference trainer's name for ours: its tree calls the encoder afclap, and DistributedDataParallel puts
/// `module.` before everything.
pub fn in_training_tree(ours: &str) -> String {
    let name = match ours.strip_prefix(CLAP) {
        Some(rest) => format!("clap.afclap{rest}"),
        None => ours.to_owned(),
    };
    format!("module.{name}")
}

/// transformers' name for ours; none for what is not the language model's.
pub(crate) fn in_hugging_face(ours: &str) -> Option<String> {
    let name = ours.strip_prefix("lang_encoder.")?;
    let Some((number, rest)) = name.strip_prefix("model.layers.").and_then(|r| r.split_once('.')) else {
        return Some(name.to_owned());
    };
    let rest = rest.strip_prefix("decoder_layer.")?;
    Some(format!("model.layers.{number}.{rest}"))
}

/// PyTorch's buffers among our names: state that is saved and never a parameter.
pub(crate) fn is_buffer(name: &str) -> bool {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    let buffers = [
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "attn_mask",
        "relative_position_index",
        "inv_freq",
    ];
    buffers.contains(&leaf)
}

/// Whether the reference's trainer saves a tensor: what trains, everything with `embed` in its name (the frozen
/// `patch_embed` too), all buffers, and the head where it is the embedding itself.
pub fn saved_by_trainer(name: &str, trains: bool, tied_head: bool) -> bool {
    trains || name.contains("embed") || is_buffer(name) || (tied_head && name == HEAD)
}

/// What a model's tensors are called in a training checkpoint, and which are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "`tied_head`: whether the head is the embedding")]
pub enum Tree {
    /// AF2, as the reference's trainer saves it.
    Flamingo { tied_head: bool },
    /// A model by itself under its own names, whole: AF-CLAP, or a language model, whose head may be its embedding.
    Plain { tied_head: bool },
}

impl Tree {
    /// Whether a tensor of ours is saved where not everything is.
    pub(crate) fn saves(self, name: &str, trains: bool) -> bool {
        match self {
            Tree::Flamingo { tied_head } => saved_by_trainer(name, trains, tied_head),
            Tree::Plain { .. } => true,
        }
    }

    /// The file's name for ours.
    pub(crate) fn outside(self, ours: &str) -> String {
        match self {
            Tree::Flamingo { .. } => in_training_tree(ours),
            Tree::Plain { .. } => ours.to_owned(),
        }
    }

    /// Our name for the file's; none for what is known to be nothing of ours.
    pub(crate) fn inside(self, theirs: &str) -> Option<String> {
        match self {
            Tree::Flamingo { .. } => rename(theirs),
            Tree::Plain { .. } => Some(theirs.to_owned()),
        }
    }

    /// The embedding and its second name, as the head, where they are one: they share their storage in the file.
    pub(crate) fn tied(self) -> Option<(&'static str, &'static str)> {
        match self {
            Tree::Flamingo { tied_head: true } => Some((EMBEDDING, HEAD)),
            Tree::Plain { tied_head: true } => Some(("model.embed_tokens.weight", "lm_head.weight")),
            _ => None,
        }
    }
}

/// Tensors under our names that files hold and no forward pass reads: the STFT as convolutions (we compute it) and
/// the position numbers of older transformers. A model may lack them without harm.
pub fn at_rest(name: &str) -> bool {
    of_the_encoder(name).is_some_and(|n| n.starts_with("spectrogram_extractor.stft."))
        || name.ends_with("position_ids")
}

/// Whether a name is ours for a part of AF2.
pub(super) fn is_ours(name: &str) -> bool {
    ["clap.", "audio_transformer_clap.", "lang_encoder."]
        .iter()
        .any(|p| name.starts_with(p))
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
    fn the_way_to_another_layout_and_back() {
        for (ours, training, hf) in [
            ("clap.nvclap.bn0.weight", "module.clap.afclap.bn0.weight", None),
            (
                "lang_encoder.model.layers.3.decoder_layer.mlp.up_proj.weight",
                "module.lang_encoder.model.layers.3.decoder_layer.mlp.up_proj.weight",
                Some("model.layers.3.mlp.up_proj.weight"),
            ),
            (
                "lang_encoder.model.layers.3.gated_cross_attn_layer_sound.attn_gate",
                "module.lang_encoder.model.layers.3.gated_cross_attn_layer_sound.attn_gate",
                None,
            ),
            (HEAD, "module.lang_encoder.lm_head.weight", Some("lm_head.weight")),
            (
                "lang_encoder.model.norm.weight",
                "module.lang_encoder.model.norm.weight",
                Some("model.norm.weight"),
            ),
        ] {
            assert_eq!(in_training_tree(ours), training);
            assert_eq!(rename(training).as_deref(), Some(ours));
            assert_eq!(in_hugging_face(ours).as_deref(), hf);
            if let Some(hf) = hf {
                assert_eq!(rename(hf).as_deref(), Some(ours));
            }
        }
    }

    #[test]
    fn only_what_no_forward_pass_reads_rests() {
        assert!(at_rest("clap.nvclap.spectrogram_extractor.stft.conv_real.weight"));
        assert!(!at_rest("clap.nvclap.logmel_extractor.melW"));
        assert!(!at_rest("audio_transformer_clap.position_enc.inv_freq"));
    }
}
