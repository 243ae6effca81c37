//! Recipes over their bases, the reference's YAML as a recipe, and what a recipe is planned to cost.

mod common;

use common::af2;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `af2` in a folder, without what a launcher may have set.
fn in_folder(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let out = Command::new(assert_cmd::cargo::cargo_bin("af2"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("WORLD_SIZE")
        .output()
        .unwrap();
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    (
        out.status.code().unwrap_or(-1),
        text(out.stdout),
        text(out.stderr),
    )
}

/// Files in a folder of their own.
fn files(all: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in all {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// A sound recipe of two stages.
const BASE: &str = "# The smallest recipe that is one.
name: small
output: out
model: {lm: models/Qwen2.5-0.5B}
data:
  root: data
  sets: {a: A-AQA/train.json, b: B-AQA/train.json}
stages:
  - name: first
    train: [cross_attention]
    windows: 3
    sets: {a: 1, b: 0.5}
    optim: {steps: 10, batch_size: 4, learning_rate: 1.0e-4}
  - name: second
    train: [clap, cross_attention]
    windows: 9
    sets: {b: 1}
    optim: {steps: 20, batch_size: 2, learning_rate: 1.0e-5}
";

/// The keys of the reference's `sft.yaml`, few sets.
const REFERENCE: &str = "train_config:
  expdir: ./
  run_name: sft-3B
  delete_previous_checkpoint: true
  batch_size: 4
  gradient_accumulation_steps: 2
  seed: 42
  learning_rate: 0.00002
  lr_scheduler: constant
  loss_multiplier: 1.0
  warmup_steps: 1875
  weight_decay: 0.1
  precision: amp_bf16  # [\"amp_bf16\", \"amp_bfloat16\", \"bf16\", \"fp16\", \"fp32\"]
  gradient_checkpointing: False
  num_epochs: 200
  offline: false
  freeze_lm_embeddings: false
  logging_steps: 10
  dist_backend: nccl
  dist_url: env:// # tcp://localhost:7000
  no_set_device_rank: false
  fsdp: true
  fsdp_use_orig_params: false
  fsdp_sharding_strategy: full  # full, hybrid
  horovod: false

sft_config:
  pretrained_path: ./pretrain-3B
  pretrained_ckpt: checkpoint_199.pt
  unfreeze_full_lm: false

data_config:
  dataset_blending_global_weight: 0.005

  dataset_blending_config:
    Clotho-AQA-AQA/train:
      weight: 1.0
    Quiet-AQA/train:
      weight: 0
    CompA-R-AQA/train:
      weight: '2.5'
  dataset_file_root: manifests
  data_root: sounds
  dataset_blending_output: sft-3B/dataset_blending.json
  max_tokens: 512
  num_workers: 4
  valid_dataset_config:
    Clotho-AQA-AQA/test: true
    audiocaps-AudioCaptioning/test: true

clap_config:
  method: afclap-large
  audio_embed_dim: 2048
  checkpoint: PATH_TO_AFCLAP_CHECKPOINT
  window_length: 10.0  # seconds
  window_overlap: 0.0  # seconds
  max_num_window: 12  # 2 minutes
  max_num_fewshot: 1
  finetune: true

model_config:
  cache_dir: ~/.cache
  lang_encoder_path: Qwen/Qwen2.5-3B
  tokenizer_path: Qwen/Qwen2.5-3B
  cross_attn_every_n_layers: 1
  audio_transformer_kwargs: {
    n_head: 8,
    n_layers: 3,
    d_inner: 2048,
    max_num_media: 128,
    max_window_per_audio: 1,
    common_encoder_embed_dim: 1024
  }
";

/// A manifest of so many items in the reference's form.
fn manifest(items: usize) -> String {
    let data: serde_json::Map<String, serde_json::Value> = (0..items)
        .map(|i| {
            let item = serde_json::json!({"name": "x.wav", "prompt": "what?", "output": "a dog."});
            (i.to_string(), item)
        })
        .collect();
    serde_json::json!({
        "split": "train", "split_path": "x", "flamingo_task": "X-AQA", "total_num": items, "data": data
    })
    .to_string()
}

fn recipes() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in ["recipes", "ablations"] {
        for f in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = f.unwrap().path();
            if path.extension().is_some_and(|e| e == "yaml") {
                all.push(path);
            }
        }
    }
    all.sort();
    all
}

#[test]
fn every_recipe_of_the_house_is_sound() {
    let all = recipes();
    assert!(all.len() >= 15, "{all:?}");
    let names: Vec<String> = all.iter().map(|p| p.display().to_string()).collect();
    let mut arguments = vec!["recipe", "check"];
    arguments.extend(names.iter().map(String::as_str));
    let (code, out, err) = af2(&arguments);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        out.lines().filter(|l| l.contains(": sound; ")).count(),
        all.len(),
        "{out}"
    );
    let (code, out, err) = in_folder(root(), &["recipe", "ls"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("built in") && !out.contains("cannot be read"),
        "{out}"
    );
    assert!(out.contains("Table 6, three stages, first row"), "{out}");
    assert!(out.lines().all(|l| l.chars().count() <= 130), "{out}");
}

#[test]
fn the_papers_settings_stand_in_the_3b_recipe() {
    let recipe = af2::recipe::Recipe::load(&root().join("recipes/af2-3b.yaml"), &[]).unwrap();
    let windows: Vec<usize> = recipe.stages.iter().map(|s| s.windows).collect();
    assert_eq!(windows, [3, 9, 30]);
    assert_eq!(recipe.stages[0].optim.global_batch, Some(1024));
    assert_eq!(recipe.stages[0].optim.learning_rate, 1e-4);
    assert_eq!(recipe.stages[1].sets["JL-Corpus"], 6.0);
    assert_eq!(recipe.stages[0].sets["BBC"], 5.0);
    let clap: Vec<bool> = recipe
        .stages
        .iter()
        .map(|s| s.train.contains(&af2::recipe::Part::Clap))
        .collect();
    assert_eq!(clap, [false, true, false]);
    let seven = af2::recipe::Recipe::load(&root().join("recipes/af2-7b.yaml"), &[]).unwrap();
    assert_eq!(seven.lm_folder(), Path::new("checkpoints/Qwen2.5-7B"));
    assert!(seven.train.activation_checkpointing);
    assert_eq!(seven.stages[1].optim.steps, recipe.stages[1].optim.steps);
}

#[test]
fn an_overlay_merges_and_every_value_says_where_it_is_from() {
    let over = "base: ../base.yaml\nname: over\ntrain:\n  zero: true\nstages:\n  first:\n    optim: {steps: 11}\n    \
        sets: {b: null}\n  second: null\n";
    let folder = files(&[("base.yaml", BASE), ("more/over.yaml", over)]);
    let (code, out, err) = in_folder(
        folder.path(),
        &[
            "recipe",
            "show",
            "--origin",
            "more/over.yaml",
            "stages.first.optim.batch_size=8",
        ],
    );
    assert_eq!(code, 0, "{err}");
    let line = |key: &str| -> Vec<String> {
        let line = out.lines().find(|l| l.split_whitespace().next() == Some(key));
        let line = line.unwrap_or_else(|| panic!("{key} is not in\n{out}"));
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    assert_eq!(line("name"), ["more/over.yaml:2", "over"]);
    assert_eq!(line("output"), ["more/../base.yaml:3", "out"]);
    assert_eq!(line("train.zero"), ["more/over.yaml:4", "true"]);
    assert_eq!(line("train.loss_chunk"), ["default", "1024"]);
    assert_eq!(line("stages.first.optim.steps"), ["more/over.yaml:7", "11"]);
    assert_eq!(line("stages.first.optim.batch_size"), ["command", "line", "8"]);
    assert_eq!(line("stages.first.windows"), ["more/../base.yaml:11", "3"]);
    assert!(
        !out.contains("stages.first.sets.b") && !out.contains("stages.second"),
        "{out}"
    );
    // What is shown whole is a recipe again, and the same one.
    let (code, whole, _) = in_folder(folder.path(), &["recipe", "show", "more/over.yaml"]);
    assert_eq!(code, 0);
    std::fs::write(folder.path().join("whole.yaml"), &whole).unwrap();
    assert_eq!(
        in_folder(folder.path(), &["recipe", "show", "whole.yaml"]).1,
        whole
    );
}

fn check_fails(all: &[(&str, &str)], file: &str, pieces: &[&str]) {
    let folder = files(all);
    let (code, _, err) = in_folder(folder.path(), &["recipe", "check", file]);
    assert_eq!(code, 4, "{err}");
    for piece in pieces {
        assert!(err.contains(piece), "`{piece}` is not in: {err}");
    }
}

#[test]
fn what_is_wrong_in_an_overlay_points_into_the_overlay() {
    let over = |text: &str| format!("base: base.yaml\n{text}");
    let check = |text: &str, pieces: &[&str]| {
        check_fails(
            &[("base.yaml", BASE), ("over.yaml", &over(text))],
            "over.yaml",
            pieces,
        )
    };
    check(
        "stages:\n  first:\n    optim: {stepps: 3}\n",
        &[
            "over.yaml:4:13: ",
            "stages[0].optim: unknown field `stepps`",
            "did you mean `steps`?",
            "4 |     optim: {stepps",
        ],
    );
    check(
        "stages:\n  fist: {windows: 2}\n",
        &[
            "over.yaml:3:3: ",
            "no element is named `fist`",
            "did you mean `first`?",
        ],
    );
    check(
        "stages:\n  first:\n    optim: {steps: many}\n",
        &["over.yaml:4:20: ", "invalid type: string \"many\""],
    );
    // A rule that the types cannot say points at the key as well.
    check(
        "data:\n  skip_budget: 2\n",
        &["over.yaml:3:3: ", "data.skip_budget: 2 is not from 0 to 1"],
    );
    check(
        "stages:\n  first: {windows: 40}\n  second: {train: []}\n",
        &[
            "over.yaml:3:11: stages.first.windows: 40 windows",
            "over.yaml:4:12: stages.second.train: nothing to train",
        ],
    );
    // What the overlay leaves alone points into the base.
    let broken = BASE.replace("windows: 9", "windows: nine");
    check_fails(
        &[
            ("base.yaml", &broken),
            ("over.yaml", "base: base.yaml\nname: x\n"),
        ],
        "over.yaml",
        &["base.yaml:16:14: ", "string \"nine\""],
    );
}

#[test]
fn bases_that_are_not_there_or_lead_in_circles() {
    check_fails(
        &[("over.yaml", "name: x\nbase: gone.yaml\n")],
        "over.yaml",
        &["over.yaml:2:7: ", "gone.yaml", "No such file"],
    );
    check_fails(
        &[("a.yaml", "base: b.yaml\n"), ("b.yaml", "base: a.yaml\n")],
        "a.yaml",
        &["b.yaml:1:7: ", "each other's base", "a.yaml → "],
    );
    check_fails(
        &[("a.yaml", "base: a.yaml\n")],
        "a.yaml",
        &["a.yaml:1:7: ", "each other's base"],
    );
    check_fails(
        &[("a.yaml", "base: [b, c]\n")],
        "a.yaml",
        &["a.yaml:1:7: ", "expected the path"],
    );
}

#[test]
fn the_references_file_is_imported_and_says_what_it_leaves_out() {
    let folder = files(&[("sft.yaml", REFERENCE)]);
    let (code, out, err) = in_folder(folder.path(), &["recipe", "import", "sft.yaml"]);
    assert_eq!(code, 0, "{err}");
    for line in [
        "name: sft-3B  # train_config.run_name",
        "checkpoint: ./pretrain-3B/checkpoint_199.pt  # sft_config.pretrained_path, pretrained_ckpt",
        "learning_rate: 0.00002  # train_config.learning_rate",
        "accumulate: 2  # train_config.gradient_accumulation_steps",
        "frames: few_shot_mask",
        "loss: mean_of_means",
        "clip_at: micro_step",
        "order: reference",
        "bad_items: replace",
        "clap_mode: train",
        "train: [clap, audio_transformer, cross_attention, embeddings]",
        "windows: 12  # clap_config.max_num_window",
        "CompA-R-AQA/train: 2.5",
    ] {
        assert!(out.contains(line), "`{line}` is not in\n{out}");
    }
    assert!(!out.contains("Quiet-AQA"), "{out}");
    for key in [
        "train_config.fsdp",
        "train_config.fsdp_sharding_strategy",
        "train_config.dist_url",
        "data_config.valid_dataset_config",
        "model_config.cache_dir",
        "model_config.audio_transformer_kwargs.common_encoder_embed_dim",
        "Quiet-AQA/train.weight: 0",
        "optim.steps stays 0",
    ] {
        assert!(err.contains(key), "`{key}` is not in\n{err}");
    }
    // What is written is a recipe that says the same as the file itself.
    let (code, _, err) = in_folder(
        folder.path(),
        &["recipe", "import", "sft.yaml", "-o", "ours.yaml"],
    );
    assert_eq!(code, 0, "{err}");
    let show = |file: &str| in_folder(folder.path(), &["recipe", "show", file]).1;
    assert_eq!(show("ours.yaml"), show("sft.yaml"));
    let (_, origin, _) = in_folder(folder.path(), &["recipe", "show", "--origin", "sft.yaml"]);
    let place = |key: &str| origin.lines().find(|l| l.starts_with(key)).unwrap().to_owned();
    assert!(
        place("stages.sft.optim.learning_rate").contains("sft.yaml:8 "),
        "{origin}"
    );
    assert!(
        place("stages.sft.clip_at").contains("reference's trainer"),
        "{origin}"
    );
}

#[test]
fn the_references_epochs_become_steps_where_the_manifests_are() {
    let (a, b) = (manifest(1000), manifest(333));
    let folder = files(&[
        ("sft.yaml", REFERENCE),
        ("manifests/Clotho-AQA-AQA/train.json", &a),
        ("manifests/CompA-R-AQA/train.json", &b),
    ]);
    // 200 epochs of floor differences over 1000 · 0.005 and 333 · 0.0125, in batches of 4, two a step.
    let steps: usize = (0..200)
        .map(|e| {
            let part = |n: f64, w: f64| ((e + 1) as f64 * n * w) as usize - (e as f64 * n * w) as usize;
            (part(1000.0, 0.005) + part(333.0, 0.005 * 2.5))
                .div_ceil(4)
                .div_ceil(2)
        })
        .sum();
    let (code, out, err) = in_folder(folder.path(), &["recipe", "import", "sft.yaml"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("steps: {steps} ")), "{steps}\n{out}");
    assert!(
        err.contains(&format!("200 virtual epochs of the manifests are {steps} steps")),
        "{err}"
    );
    let (_, out, _) = in_folder(folder.path(), &["recipe", "import", "sft.yaml", "--ranks", "8"]);
    assert!(out.contains("steps: 200 "), "{out}");
    assert!(out.contains("every: 1"), "{out}");
}

#[test]
fn reference_values_that_mean_something_else_are_refused() {
    for (from, to, pieces) in [
        (
            "precision: amp_bf16",
            "precision: fp16",
            ["sft.yaml:13:", "expected amp_bf16 or fp32"],
        ),
        (
            "window_overlap: 0.0",
            "window_overlap: 5.25",
            ["window_overlap: expected 0", "do not overlap"],
        ),
        (
            "learning_rate: 0.00002\n",
            "\n",
            ["train_config.learning_rate: missing", "becomes stages.0.optim"],
        ),
        (
            "num_epochs: 200",
            "num_epochs: some",
            ["sft.yaml:15:", "num_epochs"],
        ),
        (
            "weight: '2.5'",
            "weight: lots",
            ["CompA-R-AQA/train.weight", "expected a number"],
        ),
    ] {
        let changed = REFERENCE.replace(from, to);
        let changed = changed.replace("  \n", "");
        check_fails(&[("sft.yaml", &changed)], "sft.yaml", &pieces);
    }
    let typo = REFERENCE.replace("logging_steps", "loging_steps");
    let folder = files(&[("sft.yaml", &typo)]);
    let (_, _, err) = in_folder(folder.path(), &["recipe", "import", "sft.yaml"]);
    assert!(
        err.contains("train_config.loging_steps (sft.yaml:18): not a key"),
        "{err}"
    );
}

#[test]
fn a_plan_counts_parameters_memory_and_steps() {
    let recipe = root().join("recipes/af2-3b.yaml").display().to_string();
    let (code, out, err) = in_folder(root(), &["plan", &recipe, "--gpus", "8", "--json"]);
    assert_eq!(code, 0, "{err}");
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    let number = |v: &serde_json::Value| v.as_f64().unwrap();
    let p = &plan["parameters"];
    let total: f64 = ["clap", "audio_transformer", "cross_attention", "embeddings", "lm"]
        .iter()
        .map(|k| number(&p[*k]))
        .sum();
    assert_eq!(total, 4_798_949_791.0);
    assert_eq!(number(&p["clap"]), 278_770_007.0);
    let first = &plan["stages"][0];
    let trained: f64 = first["trained"].as_object().unwrap().values().map(number).sum();
    // What the reference's own trainer counts as trainable in pre-training.
    assert_eq!(trained, 1_745_406_024.0);
    assert_eq!(number(&first["bytes"]["trained_weights"]), 4.0 * trained);
    assert_eq!(number(&first["bytes"]["gradients"]), 4.0 * trained);
    assert_eq!(number(&first["bytes"]["moments"]), trained);
    assert_eq!(
        (first["global_batch"].as_u64(), first["micro_steps"].as_u64()),
        (Some(1024), Some(16))
    );
    assert_eq!(number(&first["days"]), 4.0);
    assert_eq!(number(&plan["stages"][2]["days"]), 0.5);
    let second: f64 = plan["stages"][1]["trained"]
        .as_object()
        .unwrap()
        .values()
        .map(number)
        .sum();
    assert_eq!(second, 2_024_176_031.0);
    assert_eq!(plan["fits"], true);

    let (_, out, _) = in_folder(root(), &["plan", &recipe, "--gpus", "8"]);
    assert!(
        out.contains("manifests not found: steps as the recipe says"),
        "{out}"
    );
    assert!(out.contains("built-in sizes of Qwen2.5-3B"), "{out}");
    assert!(out.lines().all(|l| l.chars().count() <= 110), "{out}");
    // Too small a GPU: the keys to change, by what they save.
    let (_, out, _) = in_folder(
        root(),
        &[
            "plan",
            &recipe,
            "--gpus",
            "8",
            "--memory",
            "40G",
            "train.zero=false",
        ],
    );
    for key in [
        "train.activation_checkpointing=true saves",
        "train.zero=true saves",
        "stages.stage1.optim.batch_size=4",
    ] {
        assert!(out.contains(key), "`{key}` is not in\n{out}");
    }
    let (_, out, _) = in_folder(root(), &["plan", &recipe, "--gpus", "128"]);
    assert!(
        out.contains(
            "256 items do not divide into 4 at a time on 128 GPUs: stages.stage2.optim.batch_size=2"
        ),
        "{out}"
    );
    let (code, _, err) = in_folder(root(), &["plan", &recipe, "model.lm=checkpoints/other"]);
    assert_eq!(code, 4);
    assert!(err.contains("its name tells no size"), "{err}");
}

#[test]
fn a_plan_counts_the_manifests_where_they_are() {
    let (a, b) = (manifest(40), manifest(10));
    let folder = files(&[
        ("r.yaml", BASE),
        ("data/A-AQA/train.json", &a),
        ("data/B-AQA/train.json", &b),
    ]);
    let (code, out, err) = in_folder(folder.path(), &["plan", "r.yaml", "--json", "--days", "3"]);
    assert_eq!(code, 0, "{err}");
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    // 40 and half of 10.
    assert_eq!(plan["stages"][0]["epoch_items"], 45);
    assert_eq!(plan["stages"][0]["samples"], 40);
    let days: f64 = (0..2).map(|i| plan["stages"][i]["days"].as_f64().unwrap()).sum();
    assert!((days - 3.0).abs() < 1e-9);
    let (_, out, _) = in_folder(folder.path(), &["plan", "r.yaml", "--samples", "100"]);
    assert!(out.contains("--samples"), "{out}");
}
