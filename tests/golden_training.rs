//! `af2 train` on the reference's own YAML makes the reference's own run: its order of items, its prompts and labels, its loss,
//! clipping and schedule, micro-step by micro-step.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod common;

use af2::data::feed::{examples, texts, Ears};
use af2::data::manifest::Manifest;
use af2::load;
use af2::model::cross_attention::Frames;
use af2::preflight;
use af2::recipe::Part;
use af2::recipe_file;
use af2::run::events::{latest, read_events};
use af2::train::jobs::curriculum::batch;
use af2::train::jobs::curriculum::encoded::Encoded;
use common::{golden, scalar};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use tch::{no_grad, Device, Kind, Tensor};

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

/// Items in the order in which the reference's trainer sees nine of them, by epoch: numpy's shuffle of `nine-AQA/train` and its
/// two reshuffles, then torch's `randperm` seeded by the epoch.
const SEEN: [[usize; 9]; 3] = [
    [0, 4, 5, 8, 2, 1, 3, 6, 7],
    [7, 8, 3, 6, 1, 2, 4, 0, 5],
    [8, 7, 2, 5, 4, 6, 0, 1, 3],
];

/// What a rank trains on: optimizer steps, their micro-steps, the items of each.
type Steps = Vec<Vec<Vec<usize>>>;

/// Batches of two, two micro-steps a step: five batches an epoch, whose last step has one.
fn in_batches_of_two() -> Steps {
    vec![
        vec![vec![0, 4], vec![5, 8]],
        vec![vec![2, 1], vec![3, 6]],
        vec![vec![7]],
        vec![vec![7, 8], vec![3, 6]],
        vec![vec![1, 2], vec![4, 0]],
        vec![vec![5]],
        vec![vec![8, 7], vec![2, 5]],
        vec![vec![4, 6], vec![0, 1]],
        vec![vec![3]],
    ]
}

/// Batches of three, two micro-steps a step: three batches an epoch, two steps.
fn in_batches_of_three() -> Steps {
    vec![
        vec![vec![0, 4, 5], vec![8, 2, 1]],
        vec![vec![3, 6, 7]],
        vec![vec![7, 8, 3], vec![6, 1, 2]],
        vec![vec![4, 0, 5]],
        vec![vec![8, 7, 2], vec![5, 4, 6]],
        vec![vec![0, 1, 3]],
    ]
}

/// Two ranks with batches of two: the first item of an epoch is dealt twice, so that each rank has five, in three batches.
fn of_two_ranks() -> [Steps; 2] {
    [
        vec![
            vec![vec![0, 5], vec![2, 3]],
            vec![vec![7]],
            vec![vec![7, 3], vec![1, 4]],
            vec![vec![5]],
            vec![vec![8, 2], vec![4, 0]],
            vec![vec![3]],
        ],
        vec![
            vec![vec![4, 8], vec![1, 6]],
            vec![vec![0]],
            vec![vec![8, 6], vec![2, 0]],
            vec![vec![7]],
            vec![vec![7, 5], vec![6, 1]],
            vec![vec![8]],
        ],
    ]
}

/// The reference's YAML over nine items, and what is changed of it from the command line.
fn nine(folder: &Path, batch: usize) -> Vec<String> {
    let manifests = folder.join("manifests");
    std::fs::create_dir_all(manifests.join("nine-AQA")).unwrap();
    let sounds = [
        "short_16k_mono_0p2s.wav",
        "nonneg_16k_1s.wav",
        "mono_8k_2s.wav",
        "stereo_16k_3p1s.flac",
    ];
    let items: serde_json::Map<_, _> = (0..9usize)
        .map(|i| {
            let (sound, words) = (sounds[i % 4], "a low tone, ".repeat(1 + i % 5));
            let item = json!({"name": sound, "prompt": format!("What is sound {i}?"), "output": words});
            (i.to_string(), item)
        })
        .collect();
    let set = json!({"split": "train", "split_path": "wavs", "flamingo_task": "nine-AQA", "total_num": 9, "data": items});
    std::fs::write(manifests.join("nine-AQA/train.json"), set.to_string()).unwrap();
    let tiny = golden("F_tiny/manifests").display().to_string();
    let text = reference(false, 3)
        .replace("tiny-AQA/train", "nine-AQA/train")
        .replace(&tiny, &manifests.display().to_string())
        .replace("batch_size: 2", &format!("batch_size: {batch}"));
    std::fs::write(folder.join("sft.yaml"), text).unwrap();
    vec!["stages.sft.clap_mode=eval".into()]
}

/// (step, micro-step, loss) of every micro-step.
fn curve(folder: &Path) -> Vec<(u64, u64, f64)> {
    let events = read_events(&folder.join("golden/events/sft/events.jsonl")).unwrap();
    let all = events.iter();
    all.filter_map(|e| Some((e.step, e.micro_step?, e.values.get("loss")?.0)))
        .collect()
}

/// Trains by hand as the reference's loop is written, with nothing of ours but the model, the batches and their loss.
fn by_hand(folder: &Path, changes: &[String], ranks: &[Steps]) -> Vec<(u64, u64, f64)> {
    let mut changes = changes.to_vec();
    changes.push("model.audio_transformer.attention_dropout=0".into());
    let recipe = recipe_file::load(&folder.join("sft.yaml"), &changes).unwrap();
    let stage = &recipe.stages[0];
    let mut model = load::start(&preflight::start(&recipe), Device::Cpu).unwrap();
    model.model.config.cross_attention.frames = Frames::FewShotMask;
    model
        .params
        .train_only(|name| stage.train.contains(&Part::of(name)));
    let manifest = Manifest::open(&folder.join("manifests/nine-AQA/train.json")).unwrap();
    let all = examples(&manifest, &golden(""), 3, 9).unwrap();
    let ears = Ears::new(64);
    let weights = model.params.trainable();
    let embedding = model
        .params
        .get("lang_encoder.model.embed_tokens.weight")
        .unwrap();
    let learn = Tensor::zeros([embedding.size()[0], 1], (Kind::Float, Device::Cpu));
    for row in [model.tokenizer.audio, model.tokenizer.end_of_chunk] {
        let _ = learn.get(row).fill_(1.0);
    }
    let mut moments: Vec<[Tensor; 2]> = weights
        .iter()
        .map(|(_, p)| [p.detach().zeros_like(), p.detach().zeros_like()])
        .collect();
    let mode = stage.mode(&recipe.train, 0.0);
    let mut curve = Vec::new();
    for step in 0..ranks[0].len() {
        for micro in 0..ranks[0][step].len() {
            let mut loss = 0.0;
            for rank in ranks {
                let own: Vec<_> = rank[step][micro].iter().map(|i| all[*i].clone()).collect();
                let mels = ears.mels(&own.iter().map(|e| &e.clip).collect::<Vec<_>>());
                let text = texts(&own, &model.tokenizer, 512).unwrap();
                let batch = batch::of(&own, &mels.unwrap(), &text, &Encoded::default(), Device::Cpu);
                let mean = batch.input.loss_sum(&model.model, mode, 0) / batch.counted as f64;
                loss += scalar(&mean) / ranks.len() as f64;
                // Two, however many micro-steps this step has; DDP averages over the ranks.
                (mean / 2.0 / ranks.len() as f64).backward();
            }
            let grads: Vec<Tensor> = no_grad(|| {
                let _ = embedding.grad().g_mul_(&learn);
                weights.iter().map(|(_, p)| p.grad()).collect()
            });
            let squares: f64 = grads.iter().map(|g| scalar(&g.square().sum(Kind::Double))).sum();
            let factor = (1.0 / (squares.sqrt() + 1e-6)).min(1.0);
            for grad in &grads {
                let _ = grad.shallow_clone().g_mul_scalar_(factor);
            }
            curve.push((step as u64 + 1, micro as u64 + 1, loss));
        }
        let rate = 1e-3 * (step as f64 / 3.0).min(1.0);
        let n = step as i32 + 1;
        no_grad(|| {
            for ((name, p), [mean, square]) in weights.iter().zip(&mut moments) {
                let (mut p, grad) = (p.detach(), p.grad());
                let decay = if name.contains("gated_cross_attn") {
                    0.1
                } else {
                    0.0
                };
                *mean = &*mean * 0.9 + &grad * 0.1;
                *square = &*square * 0.999 + grad.square() * 0.001;
                let root = (&*square / (1.0 - 0.999f64.powi(n))).sqrt() + 1e-8;
                let moved = &p * (1.0 - rate * decay) - &*mean / (1.0 - 0.9f64.powi(n)) / root * rate;
                p.copy_(&moved);
            }
        });
        for (_, p) in &weights {
            p.shallow_clone().zero_grad();
        }
    }
    curve
}

fn agree(what: &str, found: &[(u64, u64, f64)], expected: &[(u64, u64, f64)]) {
    let places = |all: &[(u64, u64, f64)]| all.iter().map(|(s, m, _)| (*s, *m)).collect::<Vec<_>>();
    assert_eq!(places(found), places(expected), "{what}");
    let off = found.iter().zip(expected).map(|(f, e)| (f.2 / e.2 - 1.0).abs());
    let worst = off.fold(0.0, f64::max);
    println!("{what}: {} losses, the worst {worst:.2e} off", found.len());
    assert!(worst <= 1e-5, "{what}: {worst:e}");
    let (first, last) = (expected[0].2, expected[expected.len() - 1].2);
    assert!(
        last < 0.9 * first,
        "{what}: nothing was learned: {first} to {last}"
    );
}

/// An epoch whose batches are no multiple of the accumulation ends with a step of fewer micro-steps, divided all the same, and
/// the next one begins a new step: alone, on two ranks, and where the run is broken off at an epoch's end and inside one.
#[test]
fn the_references_last_step_of_an_epoch_is_short() {
    for (batch, steps) in [(2, in_batches_of_two()), (3, in_batches_of_three())] {
        for (epoch, own) in steps.chunks(steps.len() / 3).enumerate() {
            assert_eq!(own.concat().concat(), SEEN[epoch]);
        }
        let folder = tempfile::tempdir().unwrap();
        let changes = nine(folder.path(), batch);
        let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
        losses(folder.path(), &changes);
        let whole = curve(folder.path());
        let expected = by_hand(folder.path(), &["stages.sft.clap_mode=eval".into()], &[steps]);
        agree(&format!("batches of {batch}"), &whole, &expected);
        if batch == 3 {
            continue;
        }
        for steps in ["steps=3", "steps=4", "steps=9"] {
            let steps = format!("stages.sft.optim.{steps}");
            let broken = [
                "output=golden",
                "stages.sft.save.every=1",
                "--resume=auto",
                &steps,
                changes[0],
            ];
            let parts = folder.path().join("parts");
            std::fs::create_dir_all(&parts).unwrap();
            std::fs::copy(folder.path().join("sft.yaml"), parts.join("sft.yaml")).unwrap();
            losses(&parts, &broken);
        }
        assert_eq!(curve(&folder.path().join("parts")), whole);
    }
}

#[test]
fn the_references_short_steps_on_two_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let changes = nine(folder.path(), 2);
    let out = Command::new(env!("CARGO_BIN_EXE_af2"))
        .args(["launch", "-n", "2", "--", "train", "sft.yaml", "device=cpu"])
        .arg("model.audio_transformer.attention_dropout=0")
        .args(&changes)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let expected = by_hand(folder.path(), &changes, &of_two_ranks());
    agree("two ranks", &curve(folder.path()), &expected);
}
