//! Checkpoints as other tools leave them: several savings in one folder, pointers instead of files, formats that are not read.
#![allow(clippy::unwrap_used)]

mod common;

use af2::checkpoint::{
    hugging_face, items, open_parts, write_safetensors, write_torch, Archive, Node, Parts,
};
use af2::load;
use af2::model::lm;
use af2::text::tokenizer::Tokenizer;
use common::{af2, golden, tiny_options};
use serde_json::json;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";
const INDEX: &str = "model.safetensors.index.json";
const LFS: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:abab\nsize 4295032833\n";

fn tensors(names: &[&str], value: f64) -> Vec<(String, Tensor)> {
    let one = |n: &&str| {
        (
            n.to_string(),
            Tensor::full([2], value, (Kind::Float, Device::Cpu)),
        )
    };
    names.iter().map(one).collect()
}

fn save(path: &Path, names: &[&str], value: f64) {
    write_safetensors(path, &items(tensors(names, value)), &[]).unwrap();
}

fn save_bin(path: &Path, names: &[&str], value: f64) {
    write_torch(path, &Node::tensors(items(tensors(names, value)))).unwrap();
}

fn index(path: &Path, map: serde_json::Value) {
    std::fs::write(path, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
}

fn value(archive: &Archive, name: &str) -> f64 {
    f64::try_from(archive.get(name).unwrap().get(0)).unwrap()
}

/// transformers' order, and what lies beside is said.
#[test]
fn of_several_savings_in_a_folder_the_one_that_transformers_takes_is_read() {
    let d = tempfile::tempdir().unwrap();
    let at = |name: &str| d.path().join(name);
    let open = || Archive::open(d.path()).unwrap();
    // The last in the order first: each that is added takes the place of those before.
    save_bin(&at("pytorch_model-00001-of-00001.bin"), &[NORM], 1.0);
    index(
        &at("pytorch_model.bin.index.json"),
        json!({NORM: "pytorch_model-00001-of-00001.bin"}),
    );
    assert_eq!((value(&open(), NORM), open().notes().len()), (1.0, 0));
    save_bin(&at("pytorch_model.bin"), &[NORM], 2.0);
    assert_eq!(value(&open(), NORM), 2.0);
    assert!(open().notes()[0].contains("pytorch_model-00001-of-00001.bin"));
    save(&at("model-00001-of-00002.safetensors"), &[NORM], 3.0);
    save(&at("model-00002-of-00002.safetensors"), &[HEAD], 3.0);
    let map = json!({NORM: "model-00001-of-00002.safetensors", HEAD: "model-00002-of-00002.safetensors"});
    index(&at(INDEX), map);
    assert_eq!(value(&open(), NORM), 3.0);
    assert!(open().notes()[0].contains("pytorch_model.bin"));
    save(&at("model.safetensors"), &[NORM], 4.0);
    assert_eq!(value(&open(), NORM), 4.0);
    let notes = open().notes().to_vec();
    assert_eq!(notes.len(), 1);
    for piece in [
        "model.safetensors is read",
        "model-00001-of-00002.safetensors",
        INDEX,
        "more",
    ] {
        assert!(notes[0].contains(piece), "{notes:?}");
    }
}

#[test]
fn leftovers_of_another_sharding_are_said_and_never_read() {
    let d = tempfile::tempdir().unwrap();
    let at = |name: &str| d.path().join(name);
    let shard = |i: usize| format!("model-{i:05}-of-00004.safetensors");
    save(&at(&shard(1)), &[NORM], 1.0);
    // The second shard holds a tensor that an earlier saving had put there.
    save(&at(&shard(2)), &[HEAD, NORM], 2.0);
    index(&at(INDEX), json!({NORM: shard(1), HEAD: shard(2)}));
    save(&at("model-00001-of-00002.safetensors"), &[NORM, HEAD], 9.0);
    let archive = Archive::open(d.path()).unwrap();
    assert_eq!((value(&archive, NORM), value(&archive, HEAD)), (1.0, 2.0));
    let notes = archive.notes().join("\n");
    assert!(notes.contains("model-00001-of-00002.safetensors"), "{notes}");
    assert!(
        notes.contains("lie in two shards") && notes.contains(NORM),
        "{notes}"
    );
    // An index and shards of two savings.
    index(
        &at(INDEX),
        json!({NORM: shard(1), HEAD: shard(1), "model.x": shard(2)}),
    );
    let e = Archive::open(d.path()).unwrap_err().to_string();
    assert!(e.contains(HEAD) && e.contains("two savings"), "{e}");
    // What is written over an earlier saving, whole or in shards, is read, and alone.
    for (bytes, files) in [(4, 3), (1 << 20, 1)] {
        let all = tensors(&[NORM, HEAD], bytes as f64);
        hugging_face::write_shards(d.path(), &items(all), bytes).unwrap();
        let archive = Archive::open(d.path()).unwrap();
        assert_eq!(value(&archive, HEAD), bytes as f64);
        assert!(archive.notes().is_empty(), "{:?}", archive.notes());
        assert_eq!(std::fs::read_dir(d.path()).unwrap().count(), files);
    }
}

#[test]
fn a_chunk_that_no_list_names_is_said() {
    let d = tempfile::tempdir().unwrap();
    let at = |name: &str| d.path().join(name);
    for (i, name) in [NORM, HEAD].iter().enumerate() {
        save(&at(&format!("chunk_{i}.safetensors")), &[name], i as f64);
    }
    save(&at("mine.safetensors"), &["mine"], 0.0);
    std::fs::write(at("metadata.json"), json!(["chunk_1"]).to_string()).unwrap();
    let archive = Archive::open(d.path()).unwrap();
    assert_eq!(archive.names().collect::<Vec<_>>(), [HEAD]);
    assert_eq!(archive.notes().len(), 1);
    let note = &archive.notes()[0];
    assert!(
        note.contains("chunk_0.safetensors") && !note.contains("mine"),
        "{note}"
    );
}

/// The tiny model's files, one of them replaced.
fn tiny_with(name: &str, content: &[u8]) -> tempfile::TempDir {
    let d = tempfile::tempdir().unwrap();
    for folder in ["safe_ckpt", "clap_ckpt", "llm"] {
        let to = d.path().join(folder);
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(golden("F_tiny").join(folder)).unwrap() {
            let file = file.unwrap();
            std::os::unix::fs::symlink(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    let path = d.path().join(name);
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, content).unwrap();
    d
}

#[test]
fn a_git_lfs_pointer_in_the_place_of_any_file_is_named() {
    for name in [
        "safe_ckpt/chunk_1.safetensors",
        "safe_ckpt/metadata.json",
        "clap_ckpt/epoch_16.pt",
        "llm/tokenizer.json",
        "llm/tokenizer_config.json",
        "llm/config.json",
        "llm/generation_config.json",
        "llm/model-00002-of-00004.safetensors",
        "llm/model.safetensors.index.json",
        "llm/model.safetensors",
        "af2.yaml",
    ] {
        let d = tiny_with(name, LFS.as_bytes());
        let options = load::Options::new(Device::Cpu);
        let e = load::open(d.path(), &options).err().expect(name);
        let told = e.to_string();
        assert!(told.contains(name.rsplit('/').next().unwrap()), "{name}: {told}");
        assert!(
            told.contains("a git-lfs pointer to a file of 4295032833 bytes"),
            "{name}: {told}"
        );
        assert!(told.contains("git lfs pull"), "{told}");
        assert_eq!(e.exit_code(), 3);
    }
    let d = tempfile::tempdir().unwrap();
    for name in ["x.pt", "x.bin", "x.ckpt", "x.safetensors"] {
        std::fs::write(d.path().join(name), LFS).unwrap();
        let e = Archive::open(&d.path().join(name)).unwrap_err().to_string();
        assert!(e.contains("git-lfs pointer"), "{name}: {e}");
    }
}

#[test]
fn a_format_that_is_not_read_is_named_with_the_way_to_one_that_is() {
    let dcp = "dcp_to_torch";
    let cases: [(&[&str], &str); 7] = [
        (&[".metadata", "__0_0.distcp"], dcp),
        (&["__0_0.distcp", "__1_0.distcp"], dcp),
        (&["zero_to_fp32.py", "latest"], "zero_to_fp32.py"),
        (&["zero_pp_rank_0_mp_rank_00_optim_states.pt"], "DeepSpeed"),
        (&["adapter_model.safetensors", "adapter_config.json"], "PEFT"),
        (&["model-Q4_K_M.gguf"], "GGUF"),
        (&["tf_model.h5"], "TensorFlow"),
    ];
    for (files, told) in cases {
        let d = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(d.path().join(file), "\u{2}").unwrap();
        }
        let whole = load::open(d.path(), &tiny_options()).err().unwrap();
        let folder = Archive::open(d.path()).unwrap_err();
        for e in [whole, folder] {
            assert_eq!(e.exit_code(), 7);
            assert!(e.to_string().contains(told), "{files:?}: {e}");
        }
        // The file itself, as a checkpoint or as weights.
        if told == dcp || told == "GGUF" {
            let file = d.path().join(files[0]);
            let parts = Parts::from(file.as_path());
            for e in [Archive::open(&file).unwrap_err(), open_parts(&parts).unwrap_err()] {
                assert!(e.to_string().contains(told), "{files:?}: {e}");
            }
        }
    }
}

/// `af2.yaml` and tensors with sizes that the model cannot have: told by their key, before libtorch sees them.
#[test]
fn a_size_that_cannot_be_is_refused_before_the_model_is_built() {
    for (text, told) in [
        (
            "audio_transformer: {n_head: 2}\ncross_attention: {heads: -8, head_dim: -64}",
            "cross_attention.heads",
        ),
        ("audio_transformer: {n_head: 0}", "n_head"),
        ("audio_transformer: {n_head: 3}", "audio_transformer.n_head"),
        ("audio_transformer: {n_head: 64}", "audio_transformer.n_head"),
        ("max_windows: 1000000000000", "max_windows"),
    ] {
        let d = tiny_with("af2.yaml", text.as_bytes());
        let e = load::open(d.path(), &load::Options::new(Device::Cpu))
            .err()
            .expect(text);
        assert!(e.to_string().contains(told), "{text}: {e}");
    }
    let d = tiny_with("af2.yaml", b"cross_attention: {heads: -8}");
    let folder = d.path().display().to_string();
    let (code, out, err) = af2(&["checkpoint", "verify", &folder]);
    assert_eq!(code, 4, "{out}{err}");
    assert!(
        err.contains("cross_attention.heads: expected a number from 1 to 4096, found -8"),
        "{err}"
    );
}

/// The exported folder says the end of text that training used.
#[test]
fn an_exported_language_model_ends_where_the_tokenizer_does() {
    let config = std::fs::read_to_string(golden("F_tiny/llm/tokenizer_config.json")).unwrap();
    let config = config.replace(
        "\"eos_token\": \"<|endoftext|>\"",
        "\"eos_token\": \"<|im_end|>\"",
    );
    let d = tiny_with("llm/tokenizer_config.json", config.as_bytes());
    let parts = Parts::from(d.path());
    let choice = load::convert::Choice {
        full: false,
        train: Vec::new(),
    };
    let out = d.path().join("hf");
    let done = load::convert::convert(&parts, &out, load::convert::Layout::Hf, &choice).unwrap();
    assert!(
        done.notes
            .iter()
            .any(|n| n.contains("ends a text with <|im_end|>")),
        "{:?}",
        done.notes
    );
    let tokenizer = Tokenizer::open(&out).unwrap();
    assert_eq!(tokenizer.end_of_text, "<|im_end|>");
    assert!(tokenizer.notes.is_empty(), "{:?}", tokenizer.notes);
    assert_eq!(
        lm::Config::read(&out).unwrap().decoder().vocab_size,
        tokenizer.len() as i64
    );
}
