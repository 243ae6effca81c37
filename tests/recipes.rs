//! Recipes over their bases, the reference's YAML as a recipe, and what a recipe is planned to cost.
#![allow(clippy::unwrap_used)]

mod common;

use af2::recipe::{Recipe, StageRecipe};
use af2::recipe_file;
use common::{af2, af2_in as in_folder};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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
    // No stage of many steps keeps nothing.
    assert!(!err.contains("no checkpoint in"), "{err}");
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
    let recipe = house("recipes/af2-3b.yaml");
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
    // Where the reference does something else, the recipe says what it does itself.
    let path = root().join("recipes/af2-3b.yaml").display().to_string();
    let (_, origin, _) = in_folder(root(), &["recipe", "show", "--origin", &path]);
    let of_stages = ["embedding_rows", "clap_mode", "clip_at", "optim.weight_decay"];
    let of_stages = ["stage1", "stage2", "stage3"].map(|s| of_stages.map(|k| format!("stages.{s}.{k}")));
    let others = [
        "data.order",
        "data.bad_items",
        "train.loss",
        "model.cross_attention.frames",
        "model.audio_transformer.attention_dropout",
    ];
    for key in of_stages.concat().into_iter().chain(others.map(str::to_owned)) {
        let line = origin.lines().find(|l| l.split_whitespace().next() == Some(&key));
        let line = line.unwrap_or_else(|| panic!("{key} is not in\n{origin}"));
        assert!(line.contains("af2-3b.yaml:"), "{line}");
    }
    let seven = house("recipes/af2-7b.yaml");
    assert_eq!(seven.lm_folder(), Path::new("checkpoints/Qwen2.5-7B"));
    assert!(seven.train.activation_checkpointing);
    assert_eq!(seven.stages[1].optim.steps, recipe.stages[1].optim.steps);
}

/// The recipe's name of a set, thousands of pairs, epochs in pre-training and in fine-tuning.
type Row = (&'static str, f64, Option<f64>, Option<f64>);

/// Table 21. AudioSet's weight is not printed; 1 is ours.
#[rustfmt::skip]
const TABLE_21: &[Row] = &[
    ("AudioSkills", 4200.0, None, Some(2.0)),
    ("CompA-R", 350.0, None, Some(2.0)),
    ("MusicBench", 686.0, None, Some(2.0)),
    ("MU-LLAMA", 70.0, None, Some(2.0)),
    ("SalmonnAQA", 270.0, None, Some(1.0)),
    ("ClothoAQA", 9.7, None, Some(1.0)),
    ("OpenAQA", 1959.8, Some(1.0), Some(1.0)),
    ("Clotho-v2", 19.2, None, Some(1.0)),
    ("MACS", 17.3, None, Some(1.0)),
    ("FSD50k", 41.0, None, Some(1.0)),
    ("CochlScene", 60.9, None, Some(1.0)),
    ("NonSpeech7k", 6.3, None, Some(1.0)),
    ("Chime-home", 4.5, None, Some(1.0)),
    ("SONYC-UST", 27.9, None, Some(1.0)),
    ("Emov-DB", 6.8, None, Some(1.0)),
    ("JL-Corpus", 2.4, None, Some(6.0)),
    ("TESS", 2.8, None, Some(2.5)),
    ("OMGEmotion", 1.7, None, Some(3.0)),
    ("MusicAVQA-audio", 5.7, None, Some(3.0)),
    ("MusicQA", 70.0, Some(1.2), None),
    ("LP-MusicCaps-MSD", 1331.8, None, Some(0.026)),
    ("LP-MusicCaps-MTT", 46.9, None, Some(1.0)),
    ("LP-MusicCaps-MC", 7.9, None, Some(2.0)),
    ("MusicCaps", 2.6, None, Some(6.0)),
    ("NSynth", 289.2, None, Some(1.5)),
    ("MTG-Jamendo", 55.6, Some(1.0), Some(1.0)),
    ("MusDB-HQ", 10.2, None, Some(2.0)),
    ("FMA", 104.2, None, Some(1.0)),
    ("BBC", 15.1, Some(5.0), None),
    ("Freesound", 306.5, Some(1.0), None),
    ("SoundDescs", 23.1, Some(1.0), None),
    ("WavCaps", 402.6, Some(1.0), None),
    ("AudioSet", 950.8, Some(1.0), None),
    ("WavText5K", 4.3, Some(3.0), None),
    ("MSP-Podcast", 45.1, Some(3.0), None),
    ("MELD", 32.9, Some(3.0), None),
    ("MusicAVQA", 17.9, Some(3.0), None),
];

fn house(file: &str) -> Recipe {
    recipe_file::load(&root().join(file), &[]).unwrap()
}

#[test]
fn every_weight_of_table_21_stands_in_its_stage() {
    let recipe = house("recipes/af2-3b.yaml");
    let columns: [fn(&Row) -> Option<f64>; 2] = [|r| r.2, |r| r.3];
    for (stage, column) in recipe.stages.iter().zip(columns) {
        let rows = TABLE_21.iter().filter_map(|r| Some((r.0, r.1, column(r)?)));
        let rows: Vec<(&str, f64, f64)> = rows.collect();
        assert_eq!(rows.len(), stage.sets.len(), "{}", stage.name);
        for (set, _, weight) in &rows {
            assert_eq!(stage.sets.get(*set), Some(weight), "{} of {}", set, stage.name);
        }
        // One pass.
        let items: f64 = rows
            .iter()
            .map(|(_, thousands, weight)| 1000.0 * thousands * weight)
            .sum();
        let batch = stage.optim.global_batch.unwrap() as f64;
        assert_eq!(stage.optim.steps, (items / batch) as usize, "{}", stage.name);
    }
    assert_eq!(recipe.data.sets.len(), TABLE_21.len() + 1);
    assert_eq!(recipe.stages[2].sets, [("LongAudio".to_owned(), 1.0)].into());
    // Everything at once is the sum of it all.
    for file in ["a", "b"] {
        let all = house(&format!("ablations/table6-1stage-{file}.yaml"));
        let mut sum = recipe.stages[2].sets.clone();
        for (set, _, first, second) in TABLE_21 {
            sum.insert((*set).into(), first.unwrap_or(0.0) + second.unwrap_or(0.0));
        }
        assert_eq!(all.stages[0].sets, sum);
    }
}

#[test]
fn four_stages_are_the_three_of_their_base_and_one_more() {
    let whole = |s: &StageRecipe| serde_yaml::to_string(s).unwrap();
    let base = house("recipes/af2-3b.yaml");
    for file in ["a", "b"] {
        let four = house(&format!("ablations/table6-4stage-{file}.yaml"));
        let names: Vec<&str> = four.stages.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["stage1", "stage2", "stage2-lm", "stage3"]);
        for (own, of_base) in [(0, 0), (1, 1), (3, 2)] {
            assert_eq!(whole(&four.stages[own]), whole(&base.stages[of_base]));
        }
        // The repetition differs in what trains alone, and in how many items are there at once.
        let mut again = four.stages[2].clone();
        again.name = "stage2".into();
        again.train.clone_from(&base.stages[1].train);
        again.optim.batch_size = base.stages[1].optim.batch_size;
        assert_eq!(whole(&again), whole(&base.stages[1]));
    }
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
    // The paper's days are of its own 128 GPUs.
    assert!(first["days"].is_null() && plan["stages"][2]["days"].is_null());
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
    let (code, _, err) = in_folder(root(), &["plan", &recipe, "model.lm=checkpoints/other"]);
    assert_eq!(code, 4);
    assert!(err.contains("its name tells no size"), "{err}");
}

#[test]
fn the_papers_time_is_said_of_the_papers_run_alone() {
    let [base, small, tuned] = [
        "recipes/af2-3b.yaml",
        "recipes/af2-0.5b.yaml",
        "ablations/table6-3stage-b.yaml",
    ]
    .map(|file| root().join(file).display().to_string());
    for (arguments, days, hours, said) in [
        (
            vec![&*base, "--gpus", "128"],
            Some(4.0),
            Some(29_184.0),
            "the paper's, on 128 A100",
        ),
        (
            vec![&base, "--gpus", "8"],
            None,
            Some(29_184.0),
            "the paper's 228 h are of 128 A100 for all stages; --days says one for 8",
        ),
        (
            vec![&small, "--gpus", "128"],
            None,
            Some(13_312.0),
            "how these share it is not printed",
        ),
        // Another schedule, another model, another number of items: none is published.
        (
            vec![&tuned, "--gpus", "128"],
            None,
            None,
            "none is published for this model and schedule",
        ),
        (
            vec![&base, "--gpus", "128", "model.cross_attention.every=3"],
            None,
            None,
            "none is published",
        ),
        (
            vec![&base, "--gpus", "128", "stages.stage2.windows=12"],
            None,
            None,
            "none is published",
        ),
        (
            vec![&base, "--gpus", "128", "--samples", "1000"],
            None,
            None,
            "none is published",
        ),
    ] {
        let plan = planned(root(), &arguments);
        assert_eq!(plan["stages"][0]["days"].as_f64(), days, "{arguments:?}");
        assert_eq!(plan["a100_hours"]["paper"].as_f64(), hours, "{arguments:?}");
        let from = plan["stages"][0]["days_from"].as_str().unwrap();
        assert!(from.contains(said), "{arguments:?}: {from}");
    }
    let (_, out, _) = in_folder(root(), &["plan", &base, "--gpus", "8"]);
    for piece in [
        "the curriculum needs 192 A100-hours at 40% of their peak; the paper says 29,184.",
        "80 text tokens an item: an assumption (--text-tokens), no bound; with 512,",
        "5.2, 2.7, 2.3 times as many",
    ] {
        assert!(out.contains(piece), "`{piece}` is not in\n{out}");
    }
    // It is said of no other schedule, and the assumption scales.
    let (_, out, _) = in_folder(root(), &["plan", &tuned, "--text-tokens", "512"]);
    assert!(
        !out.contains("the paper says") && out.contains("1.0, 1.0, 1.0 times"),
        "{out}"
    );
}

#[test]
fn a_plan_counts_the_disk_as_the_recipe_keeps_it() {
    let recipe = root().join("recipes/af2-3b.yaml").display().to_string();
    let plan = planned(root(), &[&recipe]);
    let disk = |stage: usize, key: &str| plan["stages"][stage]["disk"][key].as_u64().unwrap();
    assert_eq!((disk(1, "written"), disk(1, "kept")), (53, 13));
    let left: u64 = (0..3).map(|i| disk(i, "left")).sum();
    assert_eq!(plan["disk_left"].as_u64(), Some(left));
    assert!(plan["disk_most"].as_u64().unwrap() > left);
    // Fewer are kept, none is, everything is.
    let of = |change: &str| planned(root(), &[&recipe, change])["stages"][1]["disk"].clone();
    assert_eq!(
        of("stages.stage2.save={every: 1000, keep_last: 1, keep_every: 0}")["kept"],
        1
    );
    assert_eq!(of("stages.stage2.save={every: 0}")["kept"], 0);
    let full = of("stages.stage2.save={every: 1000, full: true}");
    assert!(full["checkpoint"].as_u64() > Some(disk(1, "checkpoint")));
    let (_, out, _) = in_folder(root(), &["plan", &recipe]);
    for piece in [
        "one checkpoint",
        "24.",
        "kept checkpoints",
        "are left in experiments/af2-3b; at most",
    ] {
        assert!(out.contains(piece), "`{piece}` is not in\n{out}");
    }
}

#[test]
fn arguments_of_a_plan_that_mean_nothing_are_refused_as_usage() {
    let recipe = root().join("recipes/af2-3b.yaml").display().to_string();
    for (argument, value, size) in [
        // A unit may stand behind the number, and must be one of memory.
        ("--memory", "80", Some("80")),
        ("--memory", "80G", Some("80")),
        ("--memory", "80GB", Some("80")),
        ("--memory", "80GiB", Some("80")),
        ("--memory", " 40.5 gib ", Some("40.5")),
        ("--memory", "81920MiB", Some("80")),
        ("--memory", "0", None),
        ("--memory", "-80G", None),
        ("--memory", "NaN", None),
        ("--memory", "infG", None),
        ("--memory", "1e300", None),
        ("--memory", "80 apples", None),
        ("--memory", "G", None),
        ("--memory", "", None),
        ("--gpus", "0", None),
        ("--gpus", "-1", None),
        ("--gpus", "8.5", None),
        ("--gpus", "99999999999999999999", None),
        ("--days", "0", None),
        ("--days", "-1", None),
        ("--days", "nan", None),
        ("--samples", "0", None),
        ("--samples", "-3", None),
        ("--text-tokens", "0", None),
        ("--text-tokens", "-80", None),
    ] {
        let (code, out, err) = in_folder(root(), &["plan", &recipe, argument, value]);
        match size {
            Some(size) => {
                assert_eq!(code, 0, "{value}: {err}");
                assert!(
                    out.contains(&format!("on 1 GPU of {size} GiB\n")),
                    "{value}: {out}"
                );
            }
            None => {
                assert_eq!(code, 2, "{argument} {value}: {err}{out}");
                assert!(
                    err.contains(&format!("'{argument} <")),
                    "{argument} {value}: {err}"
                );
            }
        }
    }
}

#[test]
fn every_recipe_of_the_house_and_the_references_file_have_a_plan() {
    let mut all: Vec<(String, Recipe)> = recipes()
        .iter()
        .map(|p| (p.display().to_string(), recipe_file::load(p, &[]).unwrap()))
        .collect();
    // Without its manifests it makes no steps.
    let folder = files(&[("sft.yaml", REFERENCE)]);
    let path = folder.path().join("sft.yaml");
    all.push(("sft.yaml".into(), recipe_file::load(&path, &[]).unwrap()));
    for (file, recipe) in &all {
        for gpus in [1, 8, 7, 1 << 20] {
            let request = af2::plan::Request {
                gpus,
                memory: 80.0 * af2::plan::memory::GIB,
                days: None,
                samples: None,
                text_tokens: 80,
            };
            let plan = af2::plan::plan(recipe, &request).unwrap_or_else(|e| panic!("{file}: {e}"));
            let text = serde_json::to_string(&plan).unwrap();
            assert!(
                plan.disk_left > 0 && plan.disk_most >= plan.disk_left,
                "{file}: {text}"
            );
        }
    }
    let (code, out, err) = in_folder(folder.path(), &["plan", "sft.yaml", "--gpus", "8"]);
    assert_eq!(code, 0, "{err}");
    for piece in [
        "not known",
        "its steps are counted from the manifests, and those are not here",
    ] {
        assert!(out.contains(piece), "`{piece}` is not in\n{out}");
    }
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

/// A plan as JSON.
fn planned(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let (code, out, err) = in_folder(folder, &[&["plan", "--json"], arguments].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn any_number_of_gpus_that_divides_a_batch_shares_it() {
    let recipe = root().join("recipes/af2-3b.yaml").display().to_string();
    for (gpus, most) in [(1, [8, 4, 2]), (8, [8, 4, 2]), (128, [8, 2, 1])] {
        let plan = planned(root(), &[&recipe, "--gpus", &gpus.to_string()]);
        for (stage, most) in plan["stages"].as_array().unwrap().iter().zip(most) {
            let number = |key: &str| stage[key].as_u64().unwrap_or_else(|| panic!("{key} of {stage}"));
            assert_eq!(number("micro_batch"), most, "{gpus} GPUs: {stage}");
            let shared = number("micro_batch") * number("micro_steps") * gpus;
            assert_eq!(shared, number("global_batch"), "{gpus} GPUs: {stage}");
        }
        house("recipes/af2-3b.yaml").ready(gpus as usize).unwrap();
    }
    // 96 divides none of them: said by the plan, and by training before it begins.
    let (code, out, err) = in_folder(root(), &["plan", &recipe, "--gpus", "96"]);
    assert_eq!(code, 0, "{err}");
    let refused = house("recipes/af2-3b.yaml").ready(96).unwrap_err();
    assert_eq!(refused.exit_code(), 4);
    let refused = refused.to_string();
    for (stage, items, near) in [("stage1", 1024, 1056), ("stage2", 256, 288), ("stage3", 128, 192)] {
        let line = format!(
            "{stage}: 96 GPUs cannot share {items} items evenly: stages.{stage}.optim.global_batch={near}"
        );
        assert!(out.contains(&line), "`{line}` is not in\n{out}");
        let line = format!("stages.{stage}.optim.global_batch: 96 ranks cannot share {items} items evenly");
        assert!(refused.contains(&line), "`{line}` is not in\n{refused}");
    }
}

#[test]
fn a_plan_of_a_budget_is_for_the_batch_that_takes_most() {
    let recipe = root().join("recipes/af2-3b.yaml").display().to_string();
    let budget = |budget: &str| {
        let budget = format!("stages.stage2.batch_budget={budget}");
        let others = [
            "stages.stage2.optim.global_batch=null",
            "stages.stage2.optim.accumulate=4",
        ];
        let plan = planned(
            root(),
            &[&[recipe.as_str(), "--gpus", "8", &budget], &others[..]].concat(),
        );
        plan["stages"][1].clone()
    };
    // Four clips of nine windows are as many windows as 36 of one, but the texts of 36 take more.
    let loose = budget("{windows: 36}");
    assert_eq!(
        (loose["micro_batch"].as_u64(), loose["windows"].as_u64()),
        (Some(36), Some(1))
    );
    assert_eq!(loose["fits"], false);
    let fixed = planned(root(), &[&recipe, "--gpus", "8"])["stages"][1].clone();
    assert!(loose["total_bytes"].as_f64() > fixed["total_bytes"].as_f64());
    // What the recipe's comment advises.
    let advised = budget("{windows: 36, items: 32, tokens: 4096}");
    assert_eq!(advised["fits"], true, "{advised}");
    assert_eq!(advised["global_batch"], 128);
}

#[test]
fn a_plan_shares_the_references_epochs_out_between_the_gpus() {
    let (a, b) = (manifest(1000), manifest(333));
    let folder = files(&[
        ("sft.yaml", REFERENCE),
        ("manifests/Clotho-AQA-AQA/train.json", &a),
        ("manifests/CompA-R-AQA/train.json", &b),
    ]);
    // 5 and about 4 items an epoch: one step of each on 8 ranks, two on one.
    let eight = planned(folder.path(), &["sft.yaml", "--gpus", "8"]);
    assert_eq!(eight["stages"][0]["steps"], 200);
    let one = planned(folder.path(), &["sft.yaml"]);
    assert!(one["stages"][0]["steps"].as_u64() > Some(200), "{one}");
}

#[test]
fn all_faults_are_told_at_once() {
    let wrong = BASE.replace("model:", "modell:").replace("data:", "datta:");
    check_fails(
        &[("r.yaml", &wrong)],
        "r.yaml",
        &[
            "r.yaml:4:1: ",
            "unknown field `modell`",
            "did you mean `model`?",
            "r.yaml:5:1: ",
            "unknown field `datta`",
            "did you mean `data`?",
        ],
    );
    let wrong = BASE.replace("windows: 9", "windows: nine");
    let wrong = wrong.replace("steps: 20", "steps: many");
    check_fails(
        &[("r.yaml", &wrong)],
        "r.yaml",
        &[
            "stages[1].windows: invalid type",
            "stages[1].optim.steps: invalid type",
        ],
    );
    // Also those behind a key that the first one makes impossible to read.
    let wrong = BASE.replace("windows: 3", "windows: three");
    let wrong = wrong.replace("learning_rate: 1.0e-5", "learning_rates: 1.0e-5");
    check_fails(
        &[("r.yaml", &wrong)],
        "r.yaml",
        &[
            "stages[0].windows: invalid type",
            "stages[1].optim: unknown field `learning_rates`",
        ],
    );
}

#[test]
fn sizes_out_of_bounds_are_refused_by_name() {
    let demo = root().join("recipes/demo.yaml").display().to_string();
    for (change, piece) in [
        ("lm.heads=0", "lm.heads: 0 is not from 1 to"),
        (
            "model.cross_attention.ff_mult=-1",
            "model.cross_attention.ff_mult: -1 is not from 1 to",
        ),
        (
            "stages.stage1.optim.batch_size=1000000000000",
            "stages.stage1.optim.batch_size: 1000000000000 is not from 1 to",
        ),
    ] {
        for verb in [&["recipe", "show"][..], &["plan"], &["train"]] {
            let (code, _, err) = in_folder(root(), &[verb, &[demo.as_str(), change]].concat());
            assert_eq!(code, 4, "{verb:?} {change}: {err}");
            assert!(
                err.contains(piece) && !err.contains("panicked"),
                "{verb:?} {change}: {err}"
            );
        }
    }
}

#[test]
fn what_is_nested_without_end_is_refused_at_once() {
    for deep in [
        "[".repeat(100) + &"]".repeat(100),
        "[".repeat(200_000),
        "{a: ".repeat(200_000),
        "\n".to_owned() + &"- ".repeat(200_000),
    ] {
        let folder = files(&[("deep.yaml", &format!("name: {deep}"))]);
        let begun = Instant::now();
        let (code, _, err) = in_folder(folder.path(), &["recipe", "check", "deep.yaml"]);
        assert_eq!(code, 4, "{err}");
        // The parser, which reads ahead, has a limit of its own.
        let said = ["more than 64 lists and mappings", "recursion limit exceeded"];
        assert!(said.iter().any(|piece| err.contains(piece)), "{err}");
        assert!(err.len() < 1000, "{}", err.len());
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_stage_begins_with_one_that_there_is() {
    let recipe = root().join("recipes/af2-3b.yaml").display().to_string();
    let (code, _, err) = in_folder(root(), &["recipe", "show", &recipe, "stages.stage2.from=stgae1"]);
    assert_eq!(code, 4);
    for piece in [
        "stages.stage2.from: `stgae1` is no stage",
        "did you mean `stage1`?",
    ] {
        assert!(err.contains(piece), "`{piece}` is not in: {err}");
    }
}

/// The reference's file with lines replaced, as a recipe: exit code, recipe, notes.
fn imported(changes: &[(&str, &str)]) -> (i32, String, String) {
    let changed = changes.iter().fold(REFERENCE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    let folder = files(&[("sft.yaml", &changed)]);
    in_folder(folder.path(), &["recipe", "import", "sft.yaml"])
}

#[test]
fn what_trains_is_what_the_references_code_thaws() {
    let (no_clap, no_fsdp) = (
        ("finetune: true", "finetune: false"),
        ("fsdp: true", "fsdp: false"),
    );
    let frozen = ("freeze_lm_embeddings: false", "freeze_lm_embeddings: true");
    let full = ("unfreeze_full_lm: false", "unfreeze_full_lm: true");
    for (changes, train, rows) in [
        (
            vec![no_clap, no_fsdp],
            "[audio_transformer, cross_attention, embeddings]",
            "added",
        ),
        (
            vec![no_clap],
            "[audio_transformer, cross_attention, embeddings]",
            "all",
        ),
        (
            vec![no_fsdp, frozen],
            "[clap, audio_transformer, cross_attention]",
            "added",
        ),
        // The whole LM is thawed after its embeddings were left frozen, and no mask is on them.
        (
            vec![no_clap, no_fsdp, frozen, full],
            "[audio_transformer, cross_attention, embeddings, lm]",
            "all",
        ),
    ] {
        let (code, out, err) = imported(&changes);
        assert_eq!(code, 0, "{err}");
        for line in [format!("train: {train}"), format!("embedding_rows: {rows}")] {
            assert!(out.contains(&line), "{changes:?}: `{line}` is not in\n{out}");
        }
    }
    // Keys that its code never reads.
    let keys = "  unfreeze_clap: true\n  unfreeze_full_lm: true\n  horovod: false\n\nsft_config:";
    let (code, out, err) = imported(&[no_clap, ("  horovod: false\n\nsft_config:", keys)]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("train: [audio_transformer, cross_attention, embeddings]"),
        "{out}"
    );
    for key in ["unfreeze_clap", "unfreeze_full_lm"] {
        let known = format!("train_config.{key} (sft.yaml:");
        let line = err
            .lines()
            .find(|l| l.contains(&known))
            .unwrap_or_else(|| panic!("{key}: {err}"));
        assert!(line.contains("not a key that af2 knows"), "{line}");
    }
}

#[test]
fn an_import_says_how_the_references_training_differs() {
    let (_, _, err) = imported(&[]);
    assert!(
        err.contains("decays every weight and clips each part by itself"),
        "{err}"
    );
    assert!(
        err.contains("train_config.offline: keeps transformers off the network"),
        "{err}"
    );
    assert!(!err.contains("train_config.lr_scheduler"), "{err}");
    // Weights keep their names there: its decay is ours.
    let names = ("fsdp_use_orig_params: false", "fsdp_use_orig_params: true");
    let (_, out, err) = imported(&[names]);
    assert!(
        err.contains("clips each part by itself") && !err.contains("decay"),
        "{err}"
    );
    assert!(out.contains("embedding_rows: added"), "{out}");
    let (_, _, err) = imported(&[("fsdp: true", "fsdp: false")]);
    assert!(!err.contains("train_config.fsdp: the reference"), "{err}");
    // Its horizon is counted in micro-steps.
    for schedule in ["linear", "cosine"] {
        let schedule = format!("lr_scheduler: {schedule}");
        let (code, _, err) = imported(&[("lr_scheduler: constant", &schedule)]);
        assert_eq!(code, 0, "{err}");
        assert!(
            err.contains("gradient_accumulation_steps: 2 it ends after 1/2"),
            "{err}"
        );
        let one = ("gradient_accumulation_steps: 2", "gradient_accumulation_steps: 1");
        let (_, _, err) = imported(&[("lr_scheduler: constant", &schedule), one]);
        assert!(!err.contains("train_config.lr_scheduler"), "{err}");
    }
    // What is wrong is told once.
    for (changes, fault) in [
        (
            vec![("fsdp: true", "fsdp: yes")],
            "train_config.fsdp: expected true or false",
        ),
        (
            vec![("  max_num_window: 12", "  # 12")],
            "clap_config.max_num_window: missing",
        ),
        (
            vec![("  pretrained_ckpt:", "  # ")],
            "sft_config.pretrained_ckpt: missing",
        ),
    ] {
        let (code, _, err) = imported(&changes);
        assert_eq!(code, 4, "{err}");
        assert_eq!(err.matches(fault).count(), 1, "`{fault}` in: {err}");
    }
}

#[test]
fn an_import_takes_both_names_of_the_encoder_and_another_of_the_stage() {
    let method = |to: &'static str| imported(&[("method: afclap-large", to)]);
    let (code, out, err) = method("method: nvclap-large");
    assert_eq!((code, out.contains("frames: few_shot_mask")), (0, true), "{err}");
    let (code, _, err) = method("method: microsoft-clap");
    assert_eq!(code, 4);
    assert!(
        err.contains("found `microsoft-clap`") && err.contains("afclap-large and nvclap-large are one"),
        "{err}"
    );
    // What its trainer does beside: under FSDP in bf16, and when it validates.
    let bf16 = "reduces gradients and holds buffers in bf16";
    for (changes, said) in [
        (vec![], true),
        (vec![("precision: amp_bf16", "precision: fp32")], false),
        (vec![("fsdp: true", "fsdp: false")], false),
    ] {
        let (_, _, err) = imported(&changes);
        assert_eq!(err.contains(bf16), said, "{changes:?}: {err}");
        assert!(err.contains("after every fifth virtual epoch"), "{err}");
    }
    let folder = files(&[("sft.yaml", REFERENCE)]);
    let import = |name: &str| in_folder(folder.path(), &["recipe", "import", "sft.yaml", "--stage", name]);
    let (code, out, err) = import("tuned: 9");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("- name: 'tuned: 9'"), "{out}");
    for name in ["", "a/b", "7", "..", "\u{1b}[31m"] {
        let (code, _, err) = import(name);
        assert_eq!(code, 4, "{name:?}: {err}");
    }
}

#[test]
fn fine_tuning_goes_on_from_our_own_pre_training() {
    let folder = files(&[("sft.yaml", REFERENCE)]);
    let made = |path: &str| std::fs::create_dir_all(folder.path().join(path)).unwrap();
    let whole = |path: &str| {
        made(path);
        std::fs::write(folder.path().join(path).join("metadata.json"), "[]").unwrap();
    };
    let start = || {
        let (code, out, err) = in_folder(folder.path(), &["recipe", "show", "--origin", "sft.yaml"]);
        assert_eq!(code, 0, "{err}");
        let line = out.lines().find(|l| l.starts_with("model.checkpoint ")).unwrap();
        (line.split_whitespace().last().unwrap().to_owned(), err)
    };
    let (path, err) = start();
    assert_eq!(path, "./pretrain-3B/checkpoint_199.pt");
    let note = "sft_config.pretrained_ckpt: `./pretrain-3B/checkpoint_199.pt` is not there";
    assert!(
        err.contains(note) && err.contains("writes `./pretrain-3B/checkpoints/pretrain`"),
        "{err}"
    );
    // A stage that is still in training has no weights of its own yet.
    made("pretrain-3B/checkpoints/pretrain/safe_ckpt");
    assert_eq!(start().0, "./pretrain-3B/checkpoint_199.pt");
    whole("pretrain-3B/checkpoints/pretrain/safe_ckpt");
    let (path, err) = start();
    assert_eq!(path, "./pretrain-3B/checkpoints/pretrain");
    assert!(
        err.contains(note) && err.contains("starts from `./pretrain-3B/checkpoints/pretrain`"),
        "{err}"
    );
    whole("pretrain-3B/checkpoints/other/safe_ckpt");
    let (path, err) = start();
    assert_eq!(path, "./pretrain-3B/checkpoint_199.pt");
    assert!(err.contains("holds 2 stages: set model.checkpoint"), "{err}");
    // The file that is named comes first.
    std::fs::write(folder.path().join("pretrain-3B/checkpoint_199.pt"), "x").unwrap();
    let (path, err) = start();
    assert_eq!(path, "./pretrain-3B/checkpoint_199.pt");
    assert!(!err.contains("sft_config.pretrained_ckpt"), "{err}");
}

#[test]
fn a_recipe_without_steps_is_written_but_not_called_sound() {
    let folder = files(&[("sft.yaml", REFERENCE)]);
    let import = ["recipe", "import", "sft.yaml", "-o", "ours.yaml"];
    assert_eq!(in_folder(folder.path(), &import).0, 0);
    let ours = std::fs::read_to_string(folder.path().join("ours.yaml")).unwrap();
    let line = 1 + ours
        .lines()
        .position(|l| l.trim_start().starts_with("steps: 0"))
        .unwrap();
    for (file, place) in [
        ("ours.yaml", format!("ours.yaml:{line}:")),
        ("sft.yaml", "sft.yaml: ".into()),
    ] {
        let (code, out, err) = in_folder(folder.path(), &["recipe", "check", file]);
        assert_eq!(code, 4, "{err}");
        assert!(out.contains(": 1 error") && !out.contains("sound"), "{out}");
        for piece in [&place, "stages.sft.optim.steps: 0", "import it where they are"] {
            assert!(err.contains(piece), "`{piece}` is not in: {err}");
        }
    }
    // Where the manifests are, both are.
    for set in ["Clotho-AQA-AQA", "CompA-R-AQA"] {
        let path = folder.path().join("manifests").join(set);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("train.json"), manifest(400)).unwrap();
    }
    assert_eq!(in_folder(folder.path(), &import).0, 0);
    let (code, out, err) = in_folder(folder.path(), &["recipe", "check", "ours.yaml", "sft.yaml"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.matches(": sound; 1 stage, ").count(), 2, "{out}");
}

#[test]
fn names_that_look_like_yaml_are_written_as_names() {
    for (name, data) in [
        ("'a # b'", "'/data/my: set'"),
        ("'5'", "\"tab\\tand \\\"marks\\\"\""),
        ("'- x'", "'*sounds'"),
        ("'&a'", "'{root}'"),
        ("' #'", "'two\n\n    lines'"),
    ] {
        let changed = REFERENCE.replace("run_name: sft-3B", &format!("run_name: {name}"));
        let changed = changed.replace("data_root: sounds", &format!("data_root: {data}"));
        let changed = changed.replace("CompA-R-AQA/train:", "'odd: set, [one] # of two/train':");
        let folder = files(&[("sft.yaml", &changed)]);
        let import = ["recipe", "import", "sft.yaml", "-o", "ours.yaml"];
        let (code, _, err) = in_folder(folder.path(), &import);
        assert_eq!(code, 0, "{name}: {err}");
        let show = |file: &str| in_folder(folder.path(), &["recipe", "show", file]);
        let (code, ours, err) = show("ours.yaml");
        assert_eq!(code, 0, "{name}: {err}");
        assert_eq!(ours, show("sft.yaml").1, "{name}");
    }
}
