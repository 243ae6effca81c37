//! `af2 train` on the reference's own YAML makes the reference's own run: its order of items, its prompts and labels, its loss,
//! clipping and schedule, micro-step by micro-step.

mod common;

use af2::train::record::{latest, read_events};
use common::golden;
use std::path::Path;
use std::process::Command;

/// The reference's `sft.yaml` with the sizes of its golden run.
fn reference(finetune: bool, epochs: usize) -> String {
    let (tiny, root) = (golden("F_tiny"), golden(""));
    let (tiny, root) = (tiny.display(), root.display());
    format!(
        "train_config:
  expdir: ./
  run_name: golden
  delete_previous_checkpoint: true
  batch_size: 2
  gradient_accumulation_steps: 2
  seed: 42
  learning_rate: 0.001
  lr_scheduler: constant
  loss_multiplier: 1.0
  warmup_steps: 3
  weight_decay: 0.1
  precision: fp32
  gradient_checkpointing: False
  num_epochs: {epochs}
  offline: false
  freeze_lm_embeddings: false
  logging_steps: 1
  dist_backend: nccl
  dist_url: env://
  no_set_device_rank: false
  fsdp: false
  fsdp_use_orig_params: false
  fsdp_sharding_strategy: full
  horovod: false

sft_config:
  pretrained_path: {tiny}
  pretrained_ckpt: safe_ckpt
  unfreeze_full_lm: false

data_config:
  dataset_blending_global_weight: 1.0
  dataset_blending_config:
    tiny-AQA/train:
      weight: 1.0
  dataset_file_root: {tiny}/manifests
  data_root: {root}
  dataset_blending_output: golden/dataset_blending.json
  max_tokens: 512
  num_workers: 2
  valid_dataset_config:
    tiny-AQA/train: true

clap_config:
  method: afclap-large
  audio_embed_dim: 64
  checkpoint: {tiny}/clap_ckpt/epoch_16.pt
  window_length: 10.0
  window_overlap: 0.0
  max_num_window: 3
  max_num_fewshot: 1
  finetune: {finetune}

model_config:
  cache_dir: ~/.cache
  lang_encoder_path: {tiny}/llm
  tokenizer_path: {tiny}/llm
  cross_attn_every_n_layers: 1
  audio_transformer_kwargs: {{
    n_head: 2,
    n_layers: 3,
    d_inner: 80,
    max_num_media: 128,
    max_window_per_audio: 1,
    common_encoder_embed_dim: 1024
  }}
"
    )
}

/// Trains in `folder` and returns every micro-step's loss. Attention dropout is off, as in the golden runs.
fn losses(folder: &Path, changes: &[&str]) -> Vec<f64> {
    let out = Command::new(env!("CARGO_BIN_EXE_af2"))
        .args(["train", "sft.yaml", "device=cpu"])
        .arg("model.audio_transformer.attention_dropout=0")
        .args(changes)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let events = latest(read_events(&folder.join("golden/events/sft/events.jsonl")).unwrap());
    let all = events.iter();
    all.filter_map(|e| Some(e.values.get("loss")?.0)).collect()
}

fn expected(file: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(golden(&format!("F_tiny/{file}.json"))).unwrap();
    let run: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(run["microstep_losses"].clone()).unwrap()
}

fn compare(file: &str, finetune: bool, epochs: usize, changes: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sft.yaml"), reference(finetune, epochs)).unwrap();
    let (found, expected) = (losses(folder.path(), changes), expected(file));
    assert_eq!(found.len(), expected.len(), "{file}");
    let off = found.iter().zip(&expected).map(|(f, e)| (f / e - 1.0).abs());
    let worst = off.fold(0.0, f64::max);
    println!("{file}: {} losses, the worst {worst:.2e} off", found.len());
    assert!(worst <= 1e-3, "{file}: {worst:e}");
}

/// The import's own frame rule is the training tree's.
#[test]
fn forty_losses_with_the_training_trees_mask() {
    compare("train_few_shot_mask", false, 10, &["stages.sft.clap_mode=eval"]);
}

#[test]
fn forty_losses_with_the_release_trees_mask() {
    let all = "model.cross_attention.frames=all";
    compare("train_none", false, 10, &["stages.sft.clap_mode=eval", all]);
}

/// CLAP in train mode; what is drawn there is held in the golden run.
#[test]
fn twelve_losses_with_clap_fine_tuned() {
    let held = "stages.sft.clap_train={longer: first, spec_augment: false, drop_path: false}";
    let all = "model.cross_attention.frames=all";
    compare("train_clap_finetune", true, 3, &[held, all]);
}
