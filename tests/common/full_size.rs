//! A random checkpoint of a published size in the released layout, made on the spot.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub)]

use af2::checkpoint::{write_released, write_safetensors, Item};
use af2::model::flamingo::Flamingo;
use af2::model::params::{Origin, Store};
use af2::model::{lm, presets};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Entries of the vocabulary before the special tokens: with these it has Qwen2.5's 151,665.
const VOCAB: usize = 151_662;

/// Names and shapes of a preset with random values. All are views of one pool: they cost no memory of their own.
fn tensors(preset: &str) -> Vec<(String, Item<'static>)> {
    let store = Store::new(Origin::Shapes, Device::Cpu);
    Flamingo::new(&store.root(), &presets::preset(preset).unwrap());
    let params = store.finish().unwrap();
    let largest = params.iter().map(|(_, e)| numel(&e.tensor)).max().unwrap();
    tch::manual_seed(7);
    let spare = 1 << 16;
    let pool = Tensor::empty([largest + spare], (Kind::Float, Device::Cpu)).uniform_(-0.02, 0.02);
    let mut all = Vec::new();
    for (i, (name, entry)) in params.iter().enumerate() {
        let shape = entry.tensor.size();
        let value = if entry.tensor.kind() == Kind::Int64 {
            // Counters, and places in the bias tables.
            Tensor::zeros(&shape, (Kind::Int64, Device::Cpu))
        } else if name.ends_with("running_var") || name.contains("norm") && name.ends_with("weight") {
            Tensor::ones(&shape, (Kind::Float, Device::Cpu))
        } else if name.ends_with("inv_freq") {
            let n = shape[0];
            Tensor::arange(n, (Kind::Float, Device::Cpu))
                .g_mul_scalar(-9.2 / n as f64)
                .exp()
        } else {
            // Neighbours must not be equal.
            let from = (i as i64 * 977) % spare;
            pool.narrow(0, from, numel(&entry.tensor)).view(shape.as_slice())
        };
        all.push((name.to_owned(), value.into()));
    }
    all
}

fn numel(t: &Tensor) -> i64 {
    t.size().iter().product()
}

/// Writes `safe_ckpt/` and `llm/` (configuration and a tokenizer of Qwen2.5's length) below `out`.
/// `golden_llm` is a folder whose small vocabulary is filled up.
pub fn write(preset: &str, golden_llm: &Path, out: &Path) {
    write_released(&out.join("safe_ckpt"), &tensors(preset), 1 << 30).unwrap();
    let llm = out.join("llm");
    std::fs::create_dir_all(&llm).unwrap();
    let config = presets::preset(preset).unwrap();
    let lm::Config::Qwen2(lm) = config.lm else {
        panic!("a published size over another LM");
    };
    let json = lm.to_json(VOCAB as i64);
    std::fs::write(llm.join("config.json"), json.to_string()).unwrap();
    let text = std::fs::read_to_string(golden_llm.join("vocab.json")).unwrap();
    let mut vocab: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for id in vocab.len()..VOCAB {
        vocab.insert(format!("filler{id}"), id.into());
    }
    std::fs::write(llm.join("vocab.json"), serde_json::to_vec(&vocab).unwrap()).unwrap();
    std::fs::copy(golden_llm.join("merges.txt"), llm.join("merges.txt")).unwrap();
    // Without this list only the end of text would follow the vocabulary, as in transformers.
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let listed = special.iter().enumerate().map(|(i, content)| {
        let token = serde_json::json!({"content": content, "special": true});
        ((VOCAB + i).to_string(), token)
    });
    let listed: serde_json::Map<String, serde_json::Value> = listed.collect();
    let config = serde_json::json!({"added_tokens_decoder": listed, "eos_token": "<|endoftext|>"});
    std::fs::write(llm.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// The same tensors as one safetensors file.
#[allow(dead_code)]
pub fn write_one(preset: &str, file: &Path) {
    write_safetensors(file, &tensors(preset), &[("format", "pt")]).unwrap();
}

/// This process's memory as the kernel counts it, in bytes.
#[allow(dead_code)]
pub fn memory(key: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Lets the peak start again from what is used now.
#[allow(dead_code)]
pub fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[allow(dead_code)]
pub fn golden_llm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/F_tiny/llm")
}
