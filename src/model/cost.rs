//! What the model costs: parameters, floating-point operations and the memory that a backward pass needs, part by part.
//!
//! Operations are those of matrix products, two for each multiplication and addition; norms, activations and the optimizer are
//! left out, and attention counts every pair of positions although half are masked in the text. Memory is an estimate from
//! what libtorch's autograd keeps of each operation; `af2 plan` says so where it prints it. Each architecture's file says what it
//! costs by itself, here they are joined.

use super::flamingo::{Config, Flamingo};
use super::params::{Origin, Store};
use super::parts::{Part, PerPart};
use crate::error::Result;
use tch::Device;

/// Whether a gradient flows through the audio transformer.
fn hearing(trains: PerPart<bool>) -> bool {
    trains.clap || trains.audio_transformer
}

/// Parameters of each part. Exact: the model is built without its memory and counted by its tensors' names.
///
/// # Errors
/// Sizes that no model can have.
pub fn parameters(config: &Config) -> Result<PerPart<f64>> {
    let store = Store::new(Origin::Shapes, Device::Cpu);
    let _ = Flamingo::new(&store.root(), config);
    let params = store.finish()?;
    Ok(PerPart::of(|part| {
        params.count_where(|name| Part::of(name) == part) as f64
    }))
}

/// Operations of one forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Flops {
    /// The audio encoder; all windows, padded ones too.
    pub clap: f64,
    /// What joins the windows.
    pub audio_transformer: f64,
    /// Keys and values from the audio.
    pub cross_listen: f64,
    /// Queries, attention and feed-forward over the text.
    pub cross_attention: f64,
    /// The decoder layers.
    pub lm: f64,
    /// The output head.
    pub head: f64,
}

impl Flops {
    /// All of it.
    pub(crate) fn total(&self) -> f64 {
        self.clap + self.audio_transformer + self.cross_listen + self.cross_attention + self.lm + self.head
    }
}

/// Operations of a forward pass over `items` clips of `windows` windows with `text_tokens` tokens each.
pub(crate) fn forward_flops(config: &Config, items: usize, windows: usize, text_tokens: usize) -> Flops {
    let (b, t) = (items as f64, text_tokens as f64);
    let (encoder, cross, lm) = (&config.encoder, &config.cross_attention, config.lm.decoder());
    let l = windows as f64 * encoder.tokens_per_window() as f64;
    let (d, audio) = (lm.hidden_size as f64, encoder.width() as f64);
    let blocks = cross.blocks(lm.num_hidden_layers) as f64;
    Flops {
        clap: b * windows as f64 * encoder.operations(),
        audio_transformer: b * config.audio_transformer.operations(l, audio),
        cross_listen: b * blocks * cross.listen_operations(l, audio),
        cross_attention: b * blocks * cross.operations(t, l, d),
        lm: b * lm.num_hidden_layers as f64 * lm.layer_operations(t),
        head: b * 2.0 * t * d * config.vocab as f64,
    }
}

/// Operations of one training step's forward and backward pass.
///
/// A part whose weights train costs its forward pass once more for their gradient, and once more for its input's where anything
/// before it trains; what lies before everything that trains costs its forward pass alone. `recompute` adds a second forward
/// pass of what activation checkpointing computes again.
pub fn train_flops(
    config: &Config,
    items: usize,
    windows: usize,
    text_tokens: usize,
    trains: PerPart<bool>,
    recompute: bool,
) -> f64 {
    let f = forward_flops(config, items, windows, text_tokens);
    let one = |yes: bool| if yes { 1.0 } else { 0.0 };
    // LM layers before the first cross-attention block, where neither they nor the embeddings train.
    let layers = config.lm.decoder().num_hidden_layers as f64;
    let untouched = match trains.embeddings || trains.lm {
        true => 0.0,
        false => (config.cross_attention.every.max(1) as f64 - 1.0) / layers.max(1.0),
    };
    let any = one(trains.any());
    // Per part: how many forward passes its backward pass is worth.
    let backward = f.clap * 2.0 * one(trains.clap)
        + f.audio_transformer * (one(trains.audio_transformer) + one(trains.clap))
        + f.cross_listen * (one(trains.cross_attention) + one(hearing(trains)))
        + f.cross_attention * (any + one(trains.cross_attention))
        + f.lm * (any * (1.0 - untouched) + one(trains.lm));
    let again = f.clap * one(trains.clap)
        + f.audio_transformer * one(hearing(trains))
        + (f.cross_listen + f.cross_attention + f.lm) * any;
    let head = head_flops(config, (items * text_tokens) as f64, trains);
    f.total() - f.head + head + backward + if recompute { again } else { 0.0 }
}

/// Operations of the output head in one training step, for so many states: training asks it about counted labels only.
pub(crate) fn head_flops(config: &Config, states: f64, trains: PerPart<bool>) -> f64 {
    let lm = config.lm.decoder();
    let trained = match lm.tie_word_embeddings {
        true => trains.embeddings,
        false => trains.lm,
    };
    let passes = 1 + usize::from(trains.any()) + usize::from(trained);
    passes as f64 * 2.0 * states * (lm.hidden_size * config.vocab) as f64
}

/// How a training step computes, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Matrix products in bf16 under autocast, else everything in fp32.
    pub amp: bool,
    /// Only block inputs are kept.
    pub checkpointing: bool,
    /// In the audio encoder, too: not where it goes clip by clip.
    pub checkpointing_clap: bool,
}

/// Bytes that stay between forward and backward pass of one micro-batch, at the end of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Activations {
    /// Kept by the audio encoder where it trains; else what its forward pass needs for a moment.
    pub clap: f64,
    /// What joins the windows.
    pub audio_transformer: f64,
    /// The blocks between the LM's layers.
    pub cross_attention: f64,
    /// The decoder layers.
    pub lm: f64,
    /// With checkpointing: the largest block, while it is computed again.
    pub recomputed: f64,
}

impl Activations {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.clap + self.audio_transformer + self.cross_attention + self.lm + self.recomputed
    }
}

/// Estimates [`Activations`] for `items` clips of `windows` windows with `text_tokens` tokens each.
pub(crate) fn activations(
    config: &Config,
    items: usize,
    windows: usize,
    text_tokens: usize,
    trains: PerPart<bool>,
    memory: Memory,
) -> Activations {
    // Bytes of an element in matrix products and in norms and sums.
    let (low, full) = (if memory.amp { 2.0 } else { 4.0 }, 4.0);
    let (b, t) = (items as f64, text_tokens as f64);
    let (cross, lm) = (&config.cross_attention, config.lm.decoder());
    let l = windows as f64 * config.encoder.tokens_per_window() as f64;
    let (d, audio) = (lm.hidden_size as f64, config.encoder.width() as f64);

    let encoder = config.encoder.activations(b * windows as f64, low, full);
    let at_block = b * l * config.audio_transformer.layer_activations(audio, low, full);
    let at_layers = config.audio_transformer.n_layers as f64;
    let listen = b * l * cross.listen_activations(audio, low);
    let over_text = b * t * cross.activations(d, low, full);
    let blocks = cross.blocks(lm.num_hidden_layers) as f64;
    let decoder = b * t * lm.layer_activations(t, trains.lm, low, full);
    let layers = lm.num_hidden_layers as f64;

    // A frozen encoder runs under no_grad: a block's tensors at a time.
    let passing = encoder.largest;
    let clap = match (trains.clap, memory.checkpointing_clap) {
        (false, _) => passing,
        (true, false) => encoder.kept,
        (true, true) => encoder.inputs,
    };
    if !trains.any() {
        return Activations {
            clap: passing,
            audio_transformer: 0.0,
            cross_attention: 0.0,
            lm: 0.0,
            recomputed: 0.0,
        };
    }
    if !memory.checkpointing {
        return Activations {
            clap,
            audio_transformer: if hearing(trains) {
                at_layers * at_block
            } else {
                0.0
            },
            cross_attention: blocks * (listen + over_text),
            lm: layers * decoder,
            recomputed: 0.0,
        };
    }
    let held = b * t * d * full;
    let largest = at_block.max(over_text + decoder);
    Activations {
        clap,
        audio_transformer: if hearing(trains) {
            (at_layers + 1.0) * b * l * audio * full
        } else {
            0.0
        },
        // Keys and values are inputs of the blocks, and made once.
        cross_attention: blocks * (held + listen),
        lm: layers * held,
        recomputed: if trains.clap && memory.checkpointing_clap {
            largest.max(passing)
        } else {
            largest
        },
    }
}

/// Bytes of the logits of so many tokens, with their gradient and what the loss keeps of them.
pub(crate) fn logits(config: &Config, tokens: usize) -> f64 {
    tokens as f64 * config.vocab as f64 * 12.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::presets::{preset, NAMES};

    const ALL: PerPart<bool> = PerPart {
        clap: true,
        audio_transformer: true,
        cross_attention: true,
        embeddings: true,
        lm: true,
    };

    #[test]
    fn parameters_are_the_published_ones() {
        // reference.md: totals as the reference's own model counts them; the paper's table 20 rounds them.
        let totals = [
            1_074_680_455.0,
            2_529_027_471.0,
            4_798_949_791.0,
            11_006_268_303.0,
        ];
        for (name, total) in NAMES.iter().zip(totals) {
            let p = parameters(&preset(name).unwrap()).unwrap();
            assert_eq!(p.clap, 278_770_007.0);
            assert_eq!(p.total(), total, "{name}: {p:?}");
        }
        let p = parameters(&preset("af2-3b").unwrap()).unwrap();
        let trained = p.audio_transformer + p.cross_attention + p.embeddings;
        assert_eq!((trained / 1e7).round(), 175.0);
        assert_eq!((p.cross_attention / 1e6).round(), 1359.0);
        assert_eq!((p.audio_transformer / 1e5).round(), 755.0);
    }

    #[test]
    fn operations_follow_the_weights() {
        let config = preset("af2-3b").unwrap();
        let p = parameters(&config).unwrap();
        // Two operations a weight and token, beside attention.
        let f = forward_flops(&config, 1, 1, 1);
        assert!((f.lm / (2.0 * p.lm) - 1.0).abs() < 0.01, "{f:?}");
        assert!((f.head / (2.0 * p.embeddings) - 1.0).abs() < 1e-9);
        let two = forward_flops(&config, 2, 1, 1);
        assert!((two.total() / f.total() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn backward_costs_what_needs_it() {
        let config = preset("af2-3b").unwrap();
        let f = forward_flops(&config, 4, 3, 80);
        let cost = |trains, again| train_flops(&config, 4, 3, 80, trains, again);
        assert_eq!(cost(PerPart::default(), true), f.total());
        assert!((cost(ALL, false) / f.total() - 3.0).abs() < 1e-12);
        assert!((cost(ALL, true) - 4.0 * f.total() + f.head).abs() < 1e-3 * f.head);
        // A frozen encoder costs its forward pass; the frozen LM behind it passes the gradient on.
        let head_only = PerPart {
            cross_attention: true,
            ..PerPart::default()
        };
        let expected = f.total() + f.cross_listen + 2.0 * f.cross_attention + f.lm + f.head;
        assert!((cost(head_only, false) / expected - 1.0).abs() < 1e-12);
    }

    #[test]
    fn checkpointing_saves_memory_and_batches_cost_it() {
        let config = preset("af2-0.5b").unwrap();
        let bytes = |items, amp, checkpointing| {
            let memory = |checkpointing_clap| Memory {
                amp,
                checkpointing,
                checkpointing_clap,
            };
            let [kept, again] =
                [false, true].map(|c| activations(&config, items, 9, 256, ALL, memory(checkpointing && c)));
            assert_eq!(kept.clap > again.clap, checkpointing);
            again.total()
        };
        assert!(bytes(8, true, true) < 0.5 * bytes(8, true, false));
        // All but the masks of HTSAT's windows, which a batch shares.
        assert!((bytes(8, true, false) / bytes(4, true, false) - 2.0).abs() < 1e-2);
        assert!(bytes(8, true, false) < bytes(8, false, false));
    }

    /// Flash attention keeps nothing that grows with the square of the text; the plain path of fp32 does.
    #[test]
    fn the_lm_keeps_no_attention_weights_in_bf16() {
        let config = preset("af2-3b").unwrap();
        let lm = |amp, text_tokens| {
            let memory = Memory {
                amp,
                checkpointing: false,
                checkpointing_clap: false,
            };
            activations(&config, 8, 3, text_tokens, ALL, memory).lm
        };
        assert!((lm(true, 1024) / lm(true, 512) - 2.0).abs() < 1e-12);
        // 3 · (B, H, T, T) · fp32 of each layer.
        let (b, h, t, layers) = (8.0, 16.0, 512.0, 36.0);
        let grown = lm(false, 1024) - 2.0 * lm(false, 512);
        assert!((grown / (3.0 * b * h * 2.0 * t * t * 4.0 * layers) - 1.0).abs() < 1e-9);
    }
}
