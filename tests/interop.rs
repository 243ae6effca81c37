//! PyTorch, safetensors and transformers as judges: what we write they open, what they write we read. And those for whom results are
//! exported.
//!
//! `make test-interop` runs these; they need its Python environment, so plain `cargo test` leaves them out.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use af2::checkpoint::{open_torch, training, write_safetensors, write_torch, Archive, Node, Parts};
use af2::load;
use af2::load::convert::{convert, Choice, Layout};
use af2::model::lm::{self, Decoder, Naming};
use af2::model::params::{Lookup, Origin, Role, Store};
use af2::recipe::{Part, StageRecipe};
use af2::train::engine::state::Snapshot;
use af2::{checkpoint::names, text::tokenizer::Tokenizer};
use common::{as_items, constant_gradients, golden, new_stage, new_steps, relative, tiny};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use tch::{no_grad, Device, Kind, Tensor};

fn judge(check: &str, folder: &Path) {
    judge_by("judge.py", check, folder);
}

fn judge_by(script: &str, check: &str, folder: &Path) {
    let python = std::env::var_os("AF2_INTEROP_PYTHON").expect("`make test-interop` sets AF2_INTEROP_PYTHON");
    let folder_of_scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let status = Command::new(python)
        .arg(folder_of_scripts.join(script))
        .arg(check)
        .arg(folder)
        .status()
        .unwrap();
    assert!(
        status.success(),
        "{script} {check} says no: its reason stands above"
    );
}

fn stage() -> StageRecipe {
    serde_yaml::from_str(
        "name: interop\nclip_at: micro_step\ntrain: [audio_transformer, cross_attention, embeddings]\nwindows: 3\nsets: {}\n\
         optim: {steps: 20, batch_size: 2, learning_rate: 0.001, warmup: 3, weight_decay: 0.1, clip: 1.0}",
    )
    .unwrap()
}

fn plain_names(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let name = |n: String| {
        names::in_training_tree(&n)
            .trim_start_matches("module.")
            .to_owned()
    };
    tensors.into_iter().map(|(n, t)| (name(n), t)).collect()
}

#[test]
#[ignore = "make test-interop"]
fn torch_files_of_both_formats_read_as_torch_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    judge("make_torch_files", folder.path());
    let mut files = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".pt") || name.starts_with("training") || name.starts_with("laion") {
            continue;
        }
        let expected = folder
            .path()
            .join(format!("{}.safetensors", name.split('.').next().unwrap()));
        let expected = Archive::open(&expected).unwrap();
        let found = open_torch(&path).unwrap().tensors;
        let d = af2::checkpoint::diff(&expected, &found).unwrap();
        assert!(
            d.within(0.0) && d.kinds.is_empty() && d.equal > 0,
            "{name}: {d:?}"
        );
        files += 1;
    }
    assert_eq!(files, 13);
    let nested = open_torch(&folder.path().join("nested.zip.pt")).unwrap().plain;
    let said: Vec<String> = nested.iter().map(|(n, v)| format!("{n} = {v}")).collect();
    let expected = [
        "n = 3",
        "s = \"text\"",
        "none = none",
        "f = 0.5",
        "list = [1, 2.5, true]",
        "big = 1099511627776",
    ];
    assert_eq!(said, expected);
    let layer = Archive::open(&folder.path().join("state_dict.safetensors")).unwrap();
    for protocol in [2, 4] {
        let file = open_torch(&folder.path().join(format!("laion_{protocol}.pt"))).unwrap();
        let d = af2::checkpoint::diff(&layer, &file.model().unwrap()).unwrap();
        assert!(d.within(0.0) && d.equal == 8, "{d:?}");
        let said: Vec<String> = file.plain.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        let expected = [
            "epoch = 45",
            "name = \"x\"",
            "best = 0.25",
            "steps = 7",
            "f = 0.5",
            "flag = true",
        ];
        assert_eq!(said, expected, "protocol {protocol}");
    }
    for name in ["training.pt", "training_legacy.pt"] {
        let file = open_torch(&folder.path().join(name)).unwrap();
        let state = training::read(&file).unwrap();
        assert_eq!(
            (state.epoch, state.groups.len(), state.groups[0].params.len()),
            (3, 1, 5)
        );
        // The convolution and the norm had no gradient.
        assert_eq!(state.state.keys().collect::<Vec<_>>(), [&0, &1]);
    }
}

#[test]
#[ignore = "make test-interop"]
fn the_references_classes_take_our_training_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = tiny();
    let stage = stage();
    let job = new_stage(&model, &stage);
    let mut steps = new_steps(&job);
    for value in [0.02, -0.03] {
        constant_gradients(&model.params, value);
        steps.step(false).unwrap();
    }
    Snapshot::of(&steps, 0, false)
        .unwrap()
        .unwrap()
        .write(&at("checkpoint_0.pt"))
        .unwrap();

    let mut layout = Vec::new();
    let mut all = plain_names(model.params.tensors());
    for (name, entry) in model.params.iter() {
        let kind = if entry.tensor.kind() == Kind::Int64 {
            "int64"
        } else {
            "float32"
        };
        layout.push(serde_json::json!({
            "name": names::in_training_tree(name).trim_start_matches("module."), "shape": entry.tensor.size(),
            "dtype": kind, "buffer": entry.role == Role::Buffer, "trains": entry.tensor.requires_grad(), "tied_to": null,
        }));
    }
    let embedding = model.params.get(names::EMBEDDING).unwrap();
    layout.push(serde_json::json!({
        "name": names::HEAD, "shape": embedding.size(), "dtype": "float32", "buffer": false, "trains": true,
        "tied_to": names::EMBEDDING,
    }));
    all.push((names::HEAD.into(), embedding.detach().copy()));
    std::fs::write(at("layout.json"), serde_json::to_vec(&layout).unwrap()).unwrap();
    write_safetensors(&at("model.safetensors"), &as_items(&all), &[("format", "pt")]).unwrap();
    judge("check_training", folder.path());

    // PyTorch made one more step with known gradients; so do we.
    constant_gradients(&model.params, 0.01);
    steps.step(false).unwrap();
    let theirs = Archive::open(&at("after_step.safetensors")).unwrap();
    let ours = plain_names(model.params.trainable());
    assert_eq!(theirs.names().count(), ours.len());
    for (name, tensor) in ours {
        let off = relative(&tensor.detach(), &theirs.get(&name).unwrap());
        // One AdamW step in float32, with its operations in another order.
        assert!(off <= 1e-6, "{name}: {off:.2e}");
    }
}

#[test]
#[ignore = "make test-interop"]
fn safetensors_reads_our_released_folder() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    load::save(&folder.path().join("released"), &model).unwrap();
    let all = as_items(&model.params.tensors());
    write_safetensors(&folder.path().join("model.safetensors"), &all, &[]).unwrap();
    judge("check_released", folder.path());
}

/// A plain LM on a Hugging Face folder's tensors, and nothing else.
fn plain_lm(folder: &Path, vocab: i64) -> Decoder {
    let archive = Archive::open(folder).unwrap();
    let lookup: Lookup = Box::new(|n, kind, device| {
        archive
            .info(n)
            .map(|_| archive.get_as(n, kind, device))
            .transpose()
    });
    let origin = Origin::File {
        path: folder.into(),
        lookup,
        fresh: Box::new(|_| false),
    };
    let store = Store::new(origin, Device::Cpu);
    let lm = Decoder::new(
        &store.root(),
        &lm::Config::read(folder).unwrap().decoder(),
        vocab,
        Naming::Plain,
    );
    store.finish().unwrap();
    lm
}

#[test]
#[ignore = "make test-interop"]
fn transformers_opens_the_language_model_that_we_export() {
    let parts: Parts = golden("F_tiny").as_path().into();
    exported(&parts, "Qwen2ForCausalLM");
    for (family, class) in [
        ("qwen3_tied", "Qwen3ForCausalLM"),
        ("llama3_scaled", "LlamaForCausalLM"),
        ("llama_untied", "LlamaForCausalLM"),
    ] {
        let llm = Some(golden("U_lm_families").join(family));
        let clap = golden("F_tiny/clap_ckpt/epoch_16.pt");
        exported(
            &Parts {
                llm,
                ..clap.as_path().into()
            },
            class,
        );
    }
}

/// Converts a language model, and lets transformers open it, say its class, and compute the logits that we do.
fn exported(parts: &Parts, class: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let choice = Choice {
        full: false,
        train: vec![Part::Embeddings],
    };
    std::fs::write(at("class.txt"), class).unwrap();
    convert(parts, &at("hf"), Layout::Hf, &choice).unwrap();
    // Again in several shards with an index.
    std::fs::create_dir(at("hf_sharded")).unwrap();
    let tensors = Archive::open(&at("hf")).unwrap();
    let items = af2::checkpoint::items_of(&tensors, |n| Some(n.to_owned()));
    af2::checkpoint::hugging_face::copy_files(&at("hf"), &at("hf_sharded")).unwrap();
    af2::checkpoint::hugging_face::write_shards(&at("hf_sharded"), &items, 200_000).unwrap();
    assert!(at("hf_sharded/model.safetensors.index.json").exists());

    let tokenizer = Tokenizer::open(&at("hf")).unwrap();
    let text = "<audio>what is the sound?<SEP>a dog barks<|endofchunk|><|endoftext|>";
    std::fs::write(at("text.txt"), text).unwrap();
    let text_ids = tokenizer.encode(text).unwrap();
    assert!(text_ids.contains(&tokenizer.audio));
    tch::manual_seed(3);
    let ids = Tensor::randint(tokenizer.len() as i64, [2, 23], (Kind::Int64, Device::Cpu));
    let lm = plain_lm(&at("hf"), tokenizer.len() as i64);
    let logits = no_grad(|| lm.forward(&ids));
    let out = [
        ("ids".to_owned(), ids),
        ("logits".to_owned(), logits),
        ("text_ids".to_owned(), Tensor::from_slice(&text_ids)),
    ];
    write_safetensors(&at("logits.safetensors"), &as_items(&out), &[]).unwrap();
    judge("check_lm", folder.path());
}

#[test]
#[ignore = "make test-interop"]
fn language_models_of_todays_transformers_give_its_logits_here() {
    let folder = tempfile::tempdir().unwrap();
    judge("make_lm", folder.path());
    for name in ["tied", "untied"] {
        let expected = Archive::open(&folder.path().join(format!("{name}.safetensors"))).unwrap();
        for form in ["", "_bin"] {
            let lm = plain_lm(&folder.path().join(format!("{name}{form}")), 97);
            let logits = no_grad(|| lm.forward(&expected.get("ids").unwrap()));
            let off = relative(&logits, &expected.get("logits").unwrap());
            assert!(off <= 1e-4, "{name}{form}: {off:.2e}");
        }
    }
}

#[test]
#[ignore = "make test-interop"]
fn a_file_past_four_gibibytes_opens_in_torch_and_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.pt");
    let large = Tensor::zeros([1_080_000_000], (Kind::Float, Device::Cpu));
    let _ = large.get(0).fill_(1.0);
    let _ = large.get(-1).fill_(2.0);
    let tensors = [
        ("large".to_owned(), large),
        ("behind".to_owned(), Tensor::arange(5, (Kind::Float, Device::Cpu))),
    ];
    let model = Node::tensors(as_items(&tensors));
    write_torch(&path, &Node::dict([("model_state_dict", model)])).unwrap();
    drop(tensors);
    let archive = Archive::open(&path).unwrap();
    assert!(archive.get("behind").unwrap() == Tensor::arange(5, (Kind::Float, Device::Cpu)));
    assert_eq!(archive.info("large").unwrap().shape, [1_080_000_000]);
    judge("check_large", folder.path());
}

/// Exit code 0, or what was said.
fn af2(arguments: &[&str]) {
    let done = Command::new(assert_cmd::cargo::cargo_bin("af2"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {said}");
}

/// Texts and ids that no reader may stumble over: what ends lines for Python, what YAML and file names do not take.
fn hostile(path: &Path) {
    let texts = [
        "",
        "\u{1}\u{7f}\u{85}\u{2028}\u{2029}\u{feff}",
        "---\n<script> 🐕 狗",
        "\"quoted\" \\u0041",
        "A dog",
    ];
    let ids = ["../x", "a\nb", "same", "same", "CON:*? 🐕"];
    let items = texts.iter().zip(ids).map(|(text, id)| {
        json!({"id": id, "audio_id": "x.wav", "question": format!("{text}?"), "choices": ["A dog", text], "answer": "A dog", "task": "sound",
            "difficulty": text, "sub-category": "s", "model_output": text})
    });
    std::fs::write(path, json!(items.collect::<Vec<_>>()).to_string()).unwrap();
}

/// inspect, lm-evaluation-harness, huggingface_hub and Every Eval Ever's validator and converters.
#[test]
#[ignore = "make test-interop"]
fn other_tools_open_what_we_export() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    hostile(Path::new(&at("hostile.json")));
    let rules = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/M_metrics/rules")
            .join(name);
        file.to_str().unwrap().to_owned()
    };
    std::fs::create_dir(at("logs")).unwrap();
    for (name, benchmark, predictions, rule) in [
        ("mmau", "mmau", rules("mmau_input.json"), "official"),
        ("mmau_fair", "mmau", rules("mmau_input.json"), "fair"),
        ("mmar", "mmar", rules("mmar_input.jsonl"), "official"),
        (
            "muchomusic",
            "muchomusic",
            rules("muchomusic_input.json"),
            "official",
        ),
        ("cmm", "cmm", rules("cmm_input.jsonl"), "official"),
        (
            "air_bench",
            "air-bench",
            rules("airbench_foundation_input.jsonl"),
            "official",
        ),
        ("hostile", "mmau", at("hostile.json"), "official"),
    ] {
        let run = at(&format!("runs/{name}"));
        let line = [
            "score",
            "--benchmark",
            benchmark,
            "--predictions",
            &predictions,
            "--rule",
            rule,
            "--out",
            &run,
        ];
        af2(&[&line[..], &["--model", "our-lab/tiny"]].concat());
        for form in ["json", "eval"] {
            let log = at(&format!("logs/{name}.{form}"));
            af2(&["export", &run, "--format", "inspect", "--out", &log]);
        }
    }
    let runs = at("runs");
    for (format, out) in [
        ("eee", "eee"),
        ("hf", "hf"),
        ("lm-eval", "lm"),
        ("inspect", "many"),
    ] {
        af2(&["export", &runs, "--format", format, "--out", &at(out)]);
    }
    let hub = ["--hub-dataset", "lab/mmau", "--hub-task", "test-mini"];
    let line = [
        "export",
        &at("runs/mmau"),
        "--format",
        "hf",
        "--out",
        &at("hf_one"),
    ];
    af2(&[&line[..], &hub].concat());
    for check in [
        "check_inspect",
        "check_lm_eval",
        "check_hugging_face",
        "check_every_eval_ever",
    ] {
        judge_by("exports.py", check, folder.path());
    }
}
