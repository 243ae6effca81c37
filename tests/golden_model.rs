//! Every architecture against tensors of the PyTorch reference, on its weights.
//!
//! The bounds are those of float32 on two different orders of summation (fused attention here, explicit
//! softmax there); each test prints what it reaches.

mod common;

use af2::checkpoint::open_released;
use af2::model::{
    audio::{
        self,
        htsat::{self, Htsat},
    },
    audio_transformer::{self, AudioTransformer},
    clap::{self, Clap},
    cross_attention::{self, frame_mask, Frames, GatedCrossAttention},
    flamingo::Flamingo,
    mode::{EncoderMode, Mode},
    params::{Origin, Store},
    presets,
    text::t5,
};
use common::{assert_close, golden, relative, scalar, Golden, NOTHING};
use tch::{Device, IndexOp, Kind, Tensor};

/// The golden files leave these out: never read, and deterministic.
const UNUSED: &[&str] = &["spectrogram_extractor", "attn_mask", "num_batches_tracked"];

fn tiny_htsat() -> htsat::Config {
    htsat::Config {
        embed_dim: 16,
        depths: vec![2, 1, 2, 1],
        num_heads: vec![2, 2, 4, 4],
        class_num: 20,
    }
}

fn four_fold(mel: &Tensor) -> Tensor {
    mel.unsqueeze(1).repeat([1, 4, 1, 1])
}

/// Clips 0 and 2 longer than a window, as the note of `tiny_eval_longer` builds them.
fn longer_mels(mel: &Tensor) -> Tensor {
    let m1 = mel.i(1);
    let rolled = |n: i64| m1.roll([n], [0]);
    let first = Tensor::stack(&[mel.i(0), rolled(37), rolled(74), rolled(111)], 0);
    let third = first.flip([0]).roll([100], [1]);
    Tensor::stack(&[first, m1.unsqueeze(0).repeat([4, 1, 1]), third], 0)
}

#[test]
fn htsat_every_stage_on_ten_second_clips() {
    let weights = Golden::open("B_htsat/tiny_weights.safetensors");
    let g = Golden::open("B_htsat/tiny_eval_short.safetensors");
    let (htsat, _) = weights.build("", UNUSED, |p| Htsat::new(p, &tiny_htsat()));
    let mel = g.get("mel");
    let t = htsat.trace(&four_fold(&mel), &[]);
    assert_close("image", &t.image.i((0, 0)), &g.get("image_clip0"), 1e-4);
    assert_close(
        "patch embedding",
        &t.patch_embed.i(0),
        &g.get("patch_embed_clip0"),
        1e-4,
    );
    assert_close("layer 0", &t.layers[0].narrow(0, 0, 1), &g.get("layer0"), 1e-4);
    for i in 1..4 {
        assert_close(
            &format!("layer {i}"),
            &t.layers[i],
            &g.get(&format!("layer{i}")),
            1e-4,
        );
    }
    assert_close("norm", &t.norm, &g.get("norm"), 1e-4);
    assert_close("encodings", &t.encodings, &g.get("encodings"), 1e-4);
    let windows = htsat.forward_windows(&mel, Mode::EVAL);
    assert_close(
        "windows without the four-fold copy",
        &windows,
        &g.get("encodings"),
        1e-4,
    );
    let embedding = t.encodings.mean_dim(1i64, false, Kind::Float);
    let out = Golden::open("B_htsat/tiny_afclap_outputs.safetensors");
    assert_close("embedding", &embedding, &out.get("short/embedding"), 1e-4);
}

#[test]
fn htsat_fuses_longer_clips() {
    let weights = Golden::open("B_htsat/tiny_weights.safetensors");
    let g = Golden::open("B_htsat/tiny_eval_longer.safetensors");
    let (htsat, _) = weights.build("", UNUSED, |p| Htsat::new(p, &tiny_htsat()));
    let mels = longer_mels(&Golden::open("B_htsat/tiny_eval_short.safetensors").get("mel"));
    let t = htsat.trace(&mels, &[0, 2]);
    assert_close(
        "fused patches",
        &t.patch_embed.i(0),
        &g.get("patch_embed_f32_clip0"),
        1e-4,
    );
    assert_close(
        "clips 0 and 2 longer",
        &t.encodings,
        &g.get("encodings_f32"),
        1e-4,
    );
    let one = htsat.forward(&mels, &[1], Mode::EVAL);
    assert_close(
        "clip 1 longer",
        &one,
        &g.get("encodings_f32_only_clip1_longer"),
        1e-4,
    );
    let out = Golden::open("B_htsat/tiny_afclap_outputs.safetensors");
    let embedding = t.encodings.mean_dim(1i64, false, Kind::Float);
    assert_close(
        "embedding of longer clips",
        &embedding,
        &out.get("longer/embedding"),
        1e-4,
    );
}

#[test]
fn htsat_train_mode_moves_statistics_and_gives_the_reference_gradients() {
    let weights = Golden::open("B_htsat/tiny_weights.safetensors");
    let g = Golden::open("B_htsat/tiny_train_deterministic.safetensors");
    let (htsat, params) = weights.build("", UNUSED, |p| Htsat::new(p, &tiny_htsat()));
    params.train_only(|_| true);
    let mel = Golden::open("B_htsat/tiny_eval_short.safetensors").get("mel");
    let mode = Mode {
        encoder: EncoderMode {
            batch_norm: true,
            ..EncoderMode::EVAL
        },
        ..Mode::EVAL
    };
    let out = htsat.forward(&four_fold(&mel), &[1], mode);
    assert_close("encodings", &out, &g.get("encodings"), 1e-4);
    let ramp = Tensor::linspace(-1.0, 1.0, out.numel() as i64, (Kind::Float, Device::Cpu));
    let loss = (out.flatten(0, 2) * ramp).mean(Kind::Float);
    loss.backward();
    for name in ["bn0.running_mean", "bn0.running_var"] {
        assert_close(name, params.get(name).unwrap(), &g.get(name), 1e-5);
    }
    let statistics = [
        ("aff.local_att.1", "local_att.1"),
        ("aff.global_att.2", "global_att.2"),
    ];
    for (theirs, ours) in statistics {
        for part in ["running_mean", "running_var"] {
            let found = params
                .get(&format!("patch_embed.fusion_model.{ours}.{part}"))
                .unwrap();
            assert_close(theirs, found, &g.get(&format!("{theirs}.{part}")), 1e-4);
        }
    }
    let mut checked = 0;
    let norms: Vec<&String> = g.names().filter(|n| n.starts_with("grad_norm/")).collect();
    let largest = norms.iter().map(|n| scalar(&g.get(n))).fold(0.0, f64::max);
    for name in norms {
        let parameter = name.trim_start_matches("grad_norm/");
        let (found, expected) = (
            scalar(&params.get(parameter).unwrap().grad().norm()),
            scalar(&g.get(name)),
        );
        // Biases before a BatchNorm have a gradient of zero in theory: what is there is rounding, on both sides.
        let tolerance = 1e-3 * expected + 1e-6 * largest;
        assert!(
            (found - expected).abs() <= tolerance,
            "{parameter}: {found} instead of {expected}"
        );
        checked += 1;
    }
    assert!(checked > 80, "only {checked} gradients compared");
}

#[test]
fn audio_transformer_on_1_3_and_30_windows_with_padding() {
    let g = Golden::open("D_audio_transformer/transformer.safetensors");
    let config = audio_transformer::Config {
        n_head: 2,
        n_layers: 3,
        d_inner: 96,
        attention_dropout: 0.0,
    };
    let (transformer, params) = g.build("weights/", NOTHING, |p| AudioTransformer::new(p, &config, 128));
    let inputs = |case: &str| {
        let x = g.get(&format!("{case}/input_f16exact")).to_kind(Kind::Float);
        let real = g
            .get(&format!("{case}/window_mask"))
            .repeat_interleave_self_int(64, Some(1), None)
            .ne(0.0);
        (x, real)
    };
    for (case, stride) in [("w1", 1), ("w3", 1), ("w30", 8)] {
        let (x, real) = inputs(case);
        let out = transformer
            .forward(&x, Some(&real), Mode::EVAL)
            .slice(1, None, None, stride);
        assert_close(case, &out, &g.get(&format!("{case}/output")), 1e-5);
    }
    // Where every window is real, no mask is the same as one that hides nothing.
    let (x, _) = inputs("w3");
    let all = Tensor::ones([x.size()[0], x.size()[1]], (Kind::Bool, Device::Cpu));
    let [with, without] = [Some(&all), None].map(|real| transformer.forward(&x, real, Mode::EVAL));
    assert!(with.equal(&without));
    params.train_only(|_| true);
    let (x, real) = inputs("grad");
    let x = x.set_requires_grad(true);
    let out = transformer.forward(&x, Some(&real), Mode::EVAL);
    let ramp = Tensor::linspace(-1.0, 1.0, out.numel() as i64, (Kind::Float, Device::Cpu));
    let loss = (out.flatten(0, 2) * ramp).mean(Kind::Float);
    // A mean over terms of both signs that nearly cancel: what remains carries their rounding.
    assert_close("loss", &loss, &g.get("grad/loss"), 1e-4);
    loss.backward();
    assert_close("input gradient", &x.grad(), &g.get("grad/input_grad"), 1e-5);
    for (name, tensor) in params.trainable() {
        assert_close(
            &name,
            &tensor.grad().norm(),
            &g.get(&format!("grad_norm/{name}")),
            1e-4,
        );
    }
}

#[test]
fn cross_attention_both_switch_positions_all_masks() {
    let g = Golden::open("E_cross_attention/xattn.safetensors");
    let note: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden("E_cross_attention/xattn.json")).unwrap())
            .unwrap();
    let base = cross_attention::Config::default();
    let (block, _) = g.build("weights/", NOTHING, |p| {
        GatedCrossAttention::new(p, &base, 48, 32)
    });
    let (x, media) = (g.get("x"), g.get("media").squeeze_dim(2));
    let kv = block.key_value(&media);
    let cases = note["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 20);
    for (name, case) in cases {
        let config = cross_attention::Config {
            frames: if name.starts_with("none") {
                Frames::All
            } else {
                Frames::FewShotMask
            },
            max_window_per_audio: case["max_window_per_audio"].as_i64().unwrap(),
            ..base.clone()
        };
        let rows: Vec<f64> = case["window_mask"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|r| r.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()))
            .collect();
        let windows = Tensor::from_slice(&rows).to_kind(Kind::Float).reshape([3, 3]);
        let seen = Tensor::zeros([3, 12], (Kind::Int64, Device::Cpu));
        for (b, places) in case["media_token_positions"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
        {
            for t in places.as_array().unwrap() {
                let _ = seen.i((b as i64, t.as_i64().unwrap()..)).g_add_scalar_(1);
            }
        }
        let mask = frame_mask(&config, 64, &windows, &seen);
        let out = block.forward(&x, &kv, Some(&mask));
        assert_close(name, &out, &g.get(&format!("{name}/out")), 1e-5);
        let attended = format!("{name}/attn_out");
        if g.names().any(|n| *n == attended) {
            assert_close(
                &attended,
                &block.attend(&x, &kv, Some(&mask)),
                &g.get(&attended),
                1e-5,
            );
        }
    }
    let seen = Tensor::ones([3, 12], (Kind::Int64, Device::Cpu));
    let mask = frame_mask(
        &base,
        64,
        &Tensor::zeros([3, 3], (Kind::Float, Device::Cpu)),
        &seen,
    );
    let out = block.attend(&x, &kv, Some(&mask));
    assert_close(
        "all windows padded",
        &out,
        &g.get("none/all_padded/attn_out"),
        1e-5,
    );
}

#[test]
fn af_clap_text_audio_and_similarity() {
    let g = Golden::open("C_clap/clap_tiny.safetensors");
    let weights = Golden::of(&open_released(&golden("F_tiny")).unwrap().clap.unwrap());
    let config = clap::Config {
        audio: audio::Config::Htsat(htsat::Config {
            embed_dim: 8,
            depths: vec![1, 1, 2, 1],
            num_heads: vec![1, 2, 2, 4],
            class_num: 20,
        }),
        text: t5::Config {
            vocab_size: 120,
            d_model: 32,
            d_kv: 8,
            d_ff: 48,
            num_layers: 2,
            num_heads: 4,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
        },
        joint_dim: 24,
    };
    let (model, _) = weights.build("", UNUSED, |p| Clap::new(p, &config));
    let (ids, real) = (g.get("input_ids"), g.get("attention_mask"));
    let states = model.text_states(&ids, &real);
    let kept = g.get("t5_last_hidden_state");
    assert_close("T5 states", &states.narrow(0, 0, kept.size()[0]), &kept, 1e-5);
    assert_close(
        "text projection",
        &model.project_text(&states),
        &g.get("text_proj_unnormalised"),
        1e-5,
    );
    let text = model.embed_text(&ids, &real, Mode::EVAL);
    assert_close("text embedding", &text, &g.get("text_embedding"), 1e-5);
    let mel = g.get("mel");
    let longer = Tensor::stack(&[mel.i(0), mel.i(1), mel.i(2), mel.i(1).flip([0])], 0);
    let mels = Tensor::cat(&[four_fold(&mel), longer.unsqueeze(0)], 0);
    let audio = model.embed_audio(&mels, &[3], Mode::EVAL);
    assert_close("audio embedding", &audio, &g.get("audio_embedding"), 1e-4);
    assert_close(
        "similarity",
        &audio.matmul(&text.tr()),
        &g.get("similarity"),
        1e-4,
    );
    assert!(relative(&model.logit_scale_a.exp(), &g.get("fwd_logit_scale_a")) < 1e-6);
}

/// Built on one-element views: no memory for 11 billion parameters.
#[test]
fn presets_have_the_published_names_shapes_and_counts() {
    let summary: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden("B_layouts/summary.json")).unwrap()).unwrap();
    let htsat_keys: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden("B_layouts/htsat_large_keys.json")).unwrap())
            .unwrap();
    for (name, size) in [
        ("af2-0.5b", "0.5B"),
        ("af2-1.5b", "1.5B"),
        ("af2-3b", "3B"),
        ("af2-7b", "7B"),
    ] {
        let store = Store::new(Origin::Shapes, Device::Cpu);
        Flamingo::new(&store.root(), &presets::preset(name).unwrap());
        let params = store.finish().unwrap();
        let published = &summary[size];
        assert_eq!(
            params.count(),
            published["unique_parameters"].as_i64().unwrap(),
            "{name}"
        );
        let part = |piece: &str| params.count_where(|n| n.contains(piece));
        assert_eq!(part("nvclap."), published["clap"].as_i64().unwrap());
        assert_eq!(
            part("audio_transformer_clap."),
            published["audio_transformer"].as_i64().unwrap()
        );
        assert_eq!(
            part("gated_cross_attn_layer_sound"),
            published["gated_xattn"].as_i64().unwrap()
        );

        let text = std::fs::read_to_string(golden(&format!("B_layouts/af2_{size}_keys.json"))).unwrap();
        let layout: serde_json::Value = serde_json::from_str(&text).unwrap();
        let whole = layout
            .get("state_dict")
            .or(layout.get("state_dict_without_clap"))
            .unwrap();
        let mut expected = std::collections::BTreeMap::new();
        for (key, value) in whole.as_object().unwrap() {
            // Names under which the reference holds the same tensor again.
            let tied =
                published["unique_parameters"].as_i64().unwrap() < 5_000_000_000 && key.contains("lm_head");
            let twice = key.contains("old_decoder_blocks") || key.contains("gated_cross_attn_layers_sound.");
            if !(tied || twice) {
                expected.insert(key.replace("clap.afclap", "clap.nvclap"), value[0].clone());
            }
        }
        for (key, value) in htsat_keys["state_dict"].as_object().unwrap() {
            expected.insert(format!("clap.nvclap.{key}"), value[0].clone());
        }
        let found: std::collections::BTreeMap<_, _> = params
            .iter()
            .map(|(n, e)| (n.to_owned(), serde_json::json!(e.tensor.size())))
            .collect();
        for (key, shape) in &expected {
            assert_eq!(found.get(key), Some(shape), "{name}: {key}");
        }
        for key in found.keys() {
            assert!(
                expected.contains_key(key),
                "{name}: we have {key}, the reference has not"
            );
        }
    }
}
