//! Models and batches without files: random weights in the shapes of a configuration, made on the device.

use super::part::Check;
use crate::error::{Error, Result};
use crate::load::{Loaded, Report};
use crate::model::flamingo::{Config, Flamingo};
use crate::model::params::{Origin, Params, Role, Scope, Store};
use crate::model::parts::Part;
use crate::model::{
    audio::{self, htsat},
    audio_transformer, cross_attention, lm, presets,
};
use crate::text::bpe;
use crate::text::labels::{labels, Batch as TextBatch, IGNORED};
use crate::text::tokenizer::Tokenizer;
use crate::train::job::Batch;
use crate::train::jobs::curriculum::batch::{self, Input};
use crate::train::jobs::curriculum::encoded::Encoded;
use ndarray::{Array2, Array3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use tch::{no_grad, Device, Kind, Tensor};

/// Weights from here on are made on the device; smaller ones as the model begins them.
const LARGE: i64 = 1 << 16;
const SEED: i64 = 7;

/// A tokenizer of bytes alone: its special tokens are all that is asked of it.
pub(crate) fn tokenizer() -> Result<Tokenizer> {
    let folder = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
    bpe::train(["a sound"].into_iter(), 256, folder.path())
}

/// A model of `config` on the device. The LM's weights are exactly bf16, as a published one's are.
pub(crate) fn loaded(config: &Config, device: Device) -> Result<Loaded> {
    tch::manual_seed(SEED);
    let tokenizer = tokenizer()?;
    let config = &Config {
        audio_token: tokenizer.audio,
        ..config.clone()
    };
    let shapes: HashMap<String, Vec<i64>> = {
        let store = Store::new(Origin::Shapes, Device::Cpu);
        Flamingo::new(&store.root(), config);
        let params = store.finish()?;
        let large = |t: &Tensor| t.size().iter().product::<i64>() >= LARGE;
        let weights = params
            .iter()
            .filter(|(_, e)| e.role == Role::Weight && large(&e.tensor));
        weights.map(|(n, e)| (n.to_owned(), e.tensor.size())).collect()
    };
    let origin = Origin::File {
        path: PathBuf::from("random weights"),
        lookup: Box::new(|name, kind, device| {
            let Some(shape) = shapes.get(name) else {
                return Ok(None);
            };
            let random = Tensor::f_empty(shape, (kind, device))?.f_normal_(0.0, 0.02)?;
            Ok(Some(match Part::of(name).of_the_lm() {
                true => random.f_to_kind(Kind::BFloat16)?.f_to_kind(kind)?,
                false => random,
            }))
        }),
        fresh: Box::new(|_| true),
    };
    let store = Store::new(origin, device);
    let model = Flamingo::new(&store.root(), config);
    let params = store.finish()?;
    open_gates(&params);
    params.train_only(|_| false);
    Ok(Loaded {
        model,
        params,
        tokenizer,
        max_windows: 1,
        llm: PathBuf::new(),
        device,
        report: Report::default(),
        torch: None,
        notes: Vec::new(),
    })
}

/// A part of a model, or all of it, with weights from a seed made on the CPU.
pub(crate) fn fresh<M>(build: &dyn Fn(&Scope) -> M) -> Result<(M, Params)> {
    tch::manual_seed(SEED);
    let store = Store::new(Origin::Fresh, Device::Cpu);
    let model = build(&store.root());
    let params = store.finish()?;
    open_gates(&params);
    Ok((model, params))
}

/// The same with copies of its weights on a device.
pub(crate) fn copied<M>(of: &Params, device: Device, build: &dyn Fn(&Scope) -> M) -> Result<(M, Params)> {
    let origin = Origin::File {
        path: PathBuf::from("the CPU's weights"),
        lookup: Box::new(|name, _, device| {
            let own = of.get(name).map(|t| t.detach().copy().f_to_device(device));
            Ok(own.transpose()?)
        }),
        fresh: Box::new(|_| false),
    };
    let store = Store::new(origin, device);
    let model = build(&store.root());
    let params = store.finish()?;
    Ok((model, params))
}

/// Behind closed gates the cross-attention would be left out of every comparison.
fn open_gates(params: &Params) {
    for (_, entry) in params.iter().filter(|(n, _)| n.ends_with("_gate")) {
        let _ = no_grad(|| entry.tensor.shallow_clone().fill_(0.5));
    }
}

/// Normal numbers from a seed, made on the CPU.
pub(crate) fn noise(seed: i64, shape: &[i64], device: Device) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_device(device)
}

/// A batch's sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub items: usize,
    pub windows: usize,
    pub text: usize,
    /// Later items are shorter, in windows and in text, so that there is padding.
    pub ragged: bool,
}

/// Mels as noise, texts of which two thirds are an answer.
pub(crate) fn batch(shape: Shape, t: &Tokenizer, device: Device) -> Batch<Input> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let less = |item: usize, all: usize| match shape.ragged {
        true => (all - (item * all).div_ceil(4).min(all - 1)).max(1),
        false => all,
    };
    let front_end = audio::Config::published().front_end();
    let mels = (0..shape.items).map(|i| {
        let windows = less(i, shape.windows);
        let shape = (windows, front_end.frames(), front_end.mel_bins);
        Arc::new(Array3::from_shape_simple_fn(shape, || rng.gen_range(-2.0..2.0)))
    });
    let mels: Vec<_> = mels.collect();
    let size = (shape.items, shape.text);
    let mut text = TextBatch {
        input_ids: Array2::from_elem(size, t.pad),
        attention_mask: Array2::zeros(size),
        labels: Array2::from_elem(size, IGNORED),
    };
    for b in 0..shape.items {
        let mut ids = prompt(&mut rng, less(b, shape.text), t);
        let last = ids.len() - 1;
        (ids[last / 3], ids[last - 1], ids[last]) = (t.sep, t.end_of_chunk, t.eos);
        for (i, (id, label)) in ids.iter().zip(labels(&ids, t)).enumerate() {
            text.input_ids[[b, i]] = *id;
            text.attention_mask[[b, i]] = 1;
            text.labels[[b, i]] = label;
        }
    }
    batch::of(&[], &mels, &text, &Encoded::default(), device)
}

/// A row of its own: the model with which a part begins; none where it could not be made.
pub(crate) fn model(check: &mut Check, config: &Config) -> Result<Option<Loaded>> {
    let (device, mut made) = (check.device, None);
    check.row("the model", |m| {
        let model = loaded(config, device)?;
        m.note(format!("{} parameters", model.params.count()));
        made = Some(model);
        Ok(())
    })?;
    Ok(made)
}

/// Words of a question; the special tokens are the last of the vocabulary.
pub(crate) fn prompt(rng: &mut impl Rng, tokens: usize, t: &Tokenizer) -> Vec<i64> {
    let mut ids: Vec<i64> = (0..tokens).map(|_| rng.gen_range(0..t.eos)).collect();
    ids[0] = t.audio;
    ids
}

/// The LM of the 3B model with other numbers of layers, inner width and tokens: 16 heads of 128 dimensions over 2 of keys.
pub(crate) fn lm_3b(layers: usize, inner: i64, vocab: i64) -> Result<lm::Config> {
    Ok(match presets::preset("af2-3b")?.lm {
        lm::Config::Qwen2(whole) => lm::Config::Qwen2(lm::qwen2::Config {
            vocab_size: vocab,
            intermediate_size: inner,
            num_hidden_layers: layers,
            ..whole
        }),
        other => other,
    })
}

/// A model whose attention has the head sizes of the 3B model's in every module: 64 in the encoder, 256 in the audio transformer,
/// 64 in cross-attention, 128 in 16 to 2 groups in the LM.
pub(crate) fn small() -> Result<Config> {
    let (encoder, vocab) = (encoder(), 512);
    let width = encoder.width();
    Ok(Config {
        audio_transformer: joiner(width),
        encoder,
        cross_attention: cross_attention::Config {
            ff_mult: 1,
            ..cross_attention::Config::default()
        },
        lm: lm_3b(2, 1024, vocab)?,
        vocab,
        audio_token: 0,
    })
}

pub(crate) fn encoder() -> audio::Config {
    audio::Config::Htsat(htsat::Config {
        embed_dim: 64,
        depths: vec![2, 2, 2, 2],
        num_heads: vec![1, 2, 4, 8],
        class_num: 16,
    })
}

/// The published encoder with two blocks a stage.
pub(crate) fn shallow_encoder() -> audio::Config {
    audio::Config::Htsat(htsat::Config {
        depths: vec![2, 2, 2, 2],
        ..htsat::Config::large()
    })
}

pub(crate) fn joiner(width: i64) -> audio_transformer::Config {
    audio_transformer::Config {
        n_head: width / 256,
        n_layers: 3,
        d_inner: width,
        attention_dropout: 0.0,
    }
}

/// A model that a CPU runs in a moment; its heads are too small for CUDA's fused kernels.
pub(crate) fn tiny() -> Config {
    let vocab = 512;
    Config {
        encoder: audio::Config::Htsat(htsat::Config {
            embed_dim: 8,
            depths: vec![1, 2, 1, 1],
            num_heads: vec![1, 2, 2, 4],
            class_num: 4,
        }),
        audio_transformer: audio_transformer::Config {
            n_head: 2,
            n_layers: 1,
            d_inner: 64,
            attention_dropout: 0.0,
        },
        cross_attention: cross_attention::Config {
            heads: 2,
            head_dim: 16,
            ff_mult: 1,
            ..cross_attention::Config::default()
        },
        lm: lm::Config::Qwen2(lm::qwen2::Config {
            vocab_size: vocab,
            hidden_size: 64,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: 1024,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            tie_word_embeddings: true,
        }),
        vocab,
        audio_token: 0,
    }
}

/// Runs `f` in fp32, or under bf16 autocast.
pub(crate) fn under<T>(bf16: bool, device: Device, f: impl FnOnce() -> T) -> Result<T> {
    Ok(match bf16 {
        true => crate::ffi::kernels::autocast_bf16(device, f)?,
        false => f(),
    })
}

/// The stage of a comparison: these parts train, the encoder in evaluation, weights move without a warm-up.
pub(crate) fn stage(parts: &str, items: usize, windows: usize) -> Result<crate::recipe::StageRecipe> {
    let yaml = format!(
        "name: check\ntrain: [{parts}]\nwindows: {windows}\nsets: {{}}\n\
         optim: {{steps: 1000000, batch_size: {items}, learning_rate: 1.0e-4}}"
    );
    serde_yaml::from_str(&yaml).map_err(|e| Error::recipe("gpu-check", e.to_string()))
}
