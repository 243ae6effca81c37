//! Writing while training goes on, keeping the right files, and dying in the middle.
#![allow(clippy::unwrap_used)]

mod common;

use af2::checkpoint::{numbered, open_released, open_torch, training, Archive};
use af2::data::feed::{texts, Clip, Ears, Example};
use af2::data::item::Item;
use af2::dist::Ranks;
use af2::load::Loaded;
use af2::recipe::{LossMean, StageRecipe, TrainRecipe};
use af2::shapes::Seconds;
use af2::train::engine::saver::Saver;
use af2::train::engine::state;
use af2::train::job::Batch;
use af2::train::jobs::curriculum::batch::{self, Input};
use af2::train::jobs::curriculum::encoded::Encoded;
use af2::train::jobs::curriculum::Stage;
use af2::train::Steps;
use common::{constant_gradients, golden, new_stage, new_steps, scalar, tiny};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;
use tch::Tensor;

fn stage(more: &str) -> StageRecipe {
    let text = format!(
        "name: saving\nclip_at: micro_step\ntrain: [cross_attention, embeddings]\nwindows: 3\nsets: {{}}\n\
         optim: {{steps: 9, batch_size: 2, learning_rate: 0.001, groups: {{gates: {{match: \"*_gate\", rate: 3}}}}, clip: 1.0}}\n{more}"
    );
    serde_yaml::from_str(&text).unwrap()
}

#[test]
fn a_snapshot_is_of_its_step_and_the_folder_keeps_what_the_recipe_says() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    let stage = stage("save: {every: 1, keep_last: 2, keep_every: 3}");
    let job = new_stage(&model, &stage);
    let mut steps = new_steps(&job);
    let mut saver = Saver::new(folder.path().into(), stage.save).unwrap();
    let watched = "lang_encoder.model.layers.0.gated_cross_attn_layer_sound.attn.to_q.weight";
    let mut history = Vec::new();
    for i in 0..6 {
        constant_gradients(&model.params, 0.01 * (i + 1) as f64);
        steps.step(false).unwrap();
        steps.cursor.batches = 7 + i;
        saver.save(&steps).unwrap();
        // The next step moves the weights while the thread writes: the file must not see it.
        history.push(model.params.get(watched).unwrap().detach().copy());
    }
    saver.finish().unwrap();
    let kept = numbered(folder.path()).unwrap();
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [0, 3, 4, 5]);
    for (n, path) in &kept {
        let file = open_torch(path).unwrap();
        let weight = file
            .tensors
            .get(&format!("model_state_dict.module.{watched}"))
            .unwrap();
        assert!(weight == history[*n as usize], "checkpoint {n}");
        let state = training::read(&file).unwrap();
        assert_eq!(
            (state.epoch, state.steps, state.stage.as_deref()),
            (*n as i64, *n as i64 + 1, Some("saving"))
        );
        let data: af2::data::order::Cursor = serde_json::from_str(&state.data.unwrap()).unwrap();
        assert_eq!((data.epoch, data.batches), (0, 7 + n));
        // Three groups: gates have a rate of their own.
        let rates: Vec<f64> = state.groups.iter().map(|g| g.initial_lr).collect();
        assert_eq!(rates, [0.001, 0.001, 0.003]);
    }
    // A second run goes on behind the first: its checkpoint is the newest.
    let mut saver = Saver::new(folder.path().into(), stage.save).unwrap();
    saver.save(&steps).unwrap();
    saver.finish().unwrap();
    assert_eq!(
        numbered(folder.path()).unwrap().into_keys().collect::<Vec<_>>(),
        [0, 3, 5, 6]
    );
    // A frozen LM is not saved, its embedding and every buffer are.
    let names: Vec<String> = Archive::open(&kept[&5])
        .unwrap()
        .names()
        .map(str::to_owned)
        .collect();
    assert!(
        names.iter().any(|n| n.ends_with("embed_tokens.weight"))
            && names.iter().any(|n| n.ends_with("running_var"))
    );
    assert!(!names
        .iter()
        .any(|n| n.contains("decoder_layer") || n.contains("audio_transformer_clap.layer_stack")));
}

#[test]
fn a_state_goes_back_only_into_the_stage_that_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint_0.pt");
    let model = tiny();
    let own = stage("");
    let job = new_stage(&model, &own);
    let mut steps = new_steps(&job);
    constant_gradients(&model.params, 0.01);
    steps.step(false).unwrap();
    let snapshot = state::Snapshot::of(&steps, 0, false).unwrap().unwrap();
    snapshot.write(&path).unwrap();
    let file = open_torch(&path).unwrap();
    let job = new_stage(&model, &own);
    let mut again = new_steps(&job);
    assert_eq!(state::restore(&mut again, &file).unwrap(), 0);
    assert_eq!(again.done, 1);
    let with = |key: &str, value: &str| {
        let text = serde_yaml::to_string(&own).unwrap().replace(key, value);
        serde_yaml::from_str::<StageRecipe>(&text).unwrap()
    };
    for (other, said) in [
        (
            with("learning_rate: 0.001", "learning_rate: 0.002"),
            "param_groups.0.initial_lr: expected 2e-3, as the recipe says, found 1e-3",
        ),
        (
            with("rate: 3.0", "rate: 1.0"),
            "param_groups: expected 2 groups, as the recipe says, found 3 groups",
        ),
        (
            with("weight_decay: 0.1", "weight_decay: 0.2"),
            "weight_decay: expected 0.2",
        ),
        (with("- embeddings", "- lm"), "param_groups.1.params: expected"),
    ] {
        let job = new_stage(&model, &other);
        let mut steps = new_steps(&job);
        let e = state::restore(&mut steps, &file).unwrap_err();
        assert!(e.to_string().contains(said) && e.exit_code() == 7, "{e}");
        assert_eq!((steps.done, steps.optimizer.kept().count()), (0, 0));
    }
}

/// A writer that is killed at any moment leaves the checkpoint before it whole, or the new one.
#[test]
fn a_killed_writer_leaves_a_checkpoint_that_opens() {
    let folder = tempfile::tempdir().unwrap();
    let (file, released) = (
        folder.path().join("checkpoint_0.pt"),
        folder.path().join("released"),
    );
    let binary = assert_cmd::cargo::cargo_bin("af2");
    let start = |out: &Path, layout: &str| {
        Command::new(&binary)
            .args(["checkpoint", "convert"])
            .args([&golden("F_tiny"), out])
            .args(["--layout", layout, "--full", "--quiet"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    assert!(start(&file, "reference").wait().unwrap().success());
    assert!(start(&released, "released").wait().unwrap().success());
    let mut killed = 0;
    for delay in (0..240).step_by(12) {
        for (out, layout) in [(&file, "reference"), (&released, "released")] {
            let mut child = start(out, layout);
            std::thread::sleep(Duration::from_millis(delay));
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
        }
        let archive = Archive::open(&file).unwrap();
        let tensors = open_released(&released).unwrap().tensors;
        for (archive, expected) in [(archive, 260), (tensors, 260)] {
            let read = archive.names().filter(|n| archive.get(n).is_ok()).count();
            assert_eq!(read, expected, "after {delay} ms");
        }
    }
    assert!(
        killed > 3,
        "only {killed} of the writers were killed before they were done"
    );
}

#[test]
fn a_checkpoint_of_weights_that_are_not_finite_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    let stage = stage("save: {every: 1}");
    let job = new_stage(&model, &stage);
    let mut steps = new_steps(&job);
    let mut saver = Saver::new(folder.path().into(), stage.save).unwrap();
    let watched = "lang_encoder.model.layers.1.gated_cross_attn_layer_sound.attn.to_q.weight";
    for value in [f64::NAN, f64::INFINITY] {
        constant_gradients(&model.params, 0.01);
        steps.step(false).unwrap();
        let weight = model.params.get(watched).unwrap().detach();
        let before = weight.copy();
        let _ = weight.get(3).get(5).fill_(value);
        for e in [saver.save(&steps).unwrap_err(), saver.rescue(&steps).unwrap_err()] {
            assert!(e.to_string().contains(watched) && e.exit_code() == 8, "{e}");
        }
        weight.shallow_clone().copy_(&before);
    }
    assert!(numbered(folder.path()).unwrap().is_empty());
}

/// An item of the tiny set; a prompt of so many words.
fn batch(model: &Loaded, ears: &Ears, words: usize) -> Batch<Input> {
    let clip = Clip::new(golden("wavs/nonneg_16k_1s.wav"), Seconds(0.0), 3);
    let item = Item {
        key: "0".into(),
        name: "nonneg_16k_1s.wav".into(),
        prompt: "listen well ".repeat(words),
        output: "a low tone".into(),
        duration: None,
        audio_start: Seconds(0.0),
        labels: Vec::new(),
        chance: None,
        sound: None,
    };
    let all = [Example { clip, item }];
    let mels = [ears.mel(&all[0].clip).unwrap()];
    let text = texts(&all, &model.tokenizer, 40).unwrap();
    batch::of(&all, &mels, &text, &Encoded::default(), model.device)
}

/// Weight decay, the momentum of the steps before and the running averages of CLAP's batch norms would move it.
#[test]
fn a_step_in_which_nothing_counts_leaves_every_tensor_as_it_was() {
    let model = tiny();
    let ears = Ears::new(16);
    let (full, cut) = (batch(&model, &ears, 1), batch(&model, &ears, 60));
    assert!(full.counted > 2 && cut.counted == 0);
    let everything = || -> Vec<Tensor> {
        model
            .params
            .iter()
            .map(|(_, e)| e.tensor.detach().copy())
            .collect()
    };
    for (loss, clip_at) in [(LossMean::Tokens, "step"), (LossMean::MeanOfMeans, "micro_step")] {
        let mut stage = stage("clap_mode: train");
        stage.optim.accumulate = 2;
        stage.clip_at = serde_yaml::from_str(clip_at).unwrap();
        let train = TrainRecipe {
            loss,
            ..TrainRecipe::default()
        };
        let job = Stage::new(&model, &stage, &train);
        let mut steps = Steps::new(&job, &train, &Rc::new(Ranks::alone())).unwrap();
        steps.remember().unwrap();
        // Whole, of nothing, of half, whole.
        let made = [[&full, &full], [&cut, &cut], [&full, &cut], [&full, &full]];
        for (i, micro) in made.iter().enumerate() {
            let before = everything();
            for batch in micro {
                let micro = steps.micro_step(batch).unwrap();
                assert!(scalar(&micro.loss).is_finite());
            }
            let done = steps.step(true).unwrap();
            let same = everything().iter().zip(&before).all(|(a, b)| a.equal(b));
            assert_eq!(
                (same, done.counted, scalar(&done.skipped)),
                (i == 1, i != 1, f64::from(u8::from(i == 1)))
            );
            assert!(scalar(&done.grad_norm).is_finite() && done.micro_steps == 2);
        }
        let (_, m) = steps.optimizer.kept().next().unwrap();
        assert_eq!((scalar(&m.steps), steps.done), (3.0, 4));
    }
}
