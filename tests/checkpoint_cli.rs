//! `af2 checkpoint`, and what opening a checkpoint says of it, as a user sees them.
#![allow(clippy::unwrap_used)]

mod common;

use af2::checkpoint::{names, open_released, write_released, write_torch, Archive, Item, Node, Parts};
use af2::load::{self, Options, Rules};
use af2::preflight;
use af2::recipe_file;
use common::{af2, golden, tiny, tiny_options};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Runs, expects this exit code and every one of these pieces in what is printed.
fn says(arguments: &[&str], code: i32, pieces: &[&str]) -> String {
    let (found, out, err) = af2(arguments);
    assert_eq!(found, code, "{arguments:?}\n{out}{err}");
    for piece in pieces {
        assert!(
            out.contains(piece) || err.contains(piece),
            "{arguments:?}: no {piece:?} in\n{out}{err}"
        );
    }
    assert!(!err.contains("panicked"), "{err}");
    out
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn ls_names_every_tensor_and_value() {
    let file = text(&golden("F_tiny/train_ckpt/checkpoint_0_zeroed.pt"));
    says(
        &["checkpoint", "ls", &file],
        0,
        &[
            "model_state_dict.module.clap.afclap.bn0.running_mean",
            "optimizer_state_dict.state.82.exp_avg_sq",
            "epoch = 0",
            "377 tensors, 2403412 elements, 9695588 bytes",
        ],
    );
    let json: serde_json::Value =
        serde_json::from_str(&says(&["checkpoint", "ls", &file, "--json"], 0, &[])).unwrap();
    assert_eq!(json["tensors"].as_array().unwrap().len(), 377);
    assert_eq!(json["bytes"], 9695588);
    assert_eq!(
        json["values"]["optimizer_state_dict.param_groups.0.lr"],
        0.0006666666666666666
    );
    let first = &json["tensors"][0];
    assert_eq!(
        (&first["shape"], &first["dtype"], &first["bytes"]),
        (&serde_json::json!([64]), &"float32".into(), &256.into())
    );
    says(
        &["checkpoint", "ls", &text(&golden("F_tiny"))],
        0,
        &["260 tensors"],
    );
    says(
        &["checkpoint", "ls", &text(&golden("F_tiny/llm"))],
        0,
        &["model.norm.weight"],
    );
    says(&["checkpoint", "ls", "nowhere.pt"], 3, &["nowhere.pt"]);
    says(
        &["checkpoint", "ls", &text(&golden("README.md"))],
        7,
        &[".safetensors, .pt"],
    );
}

#[test]
fn diff_tells_equal_from_near_and_near_from_far() {
    let d = tempfile::tempdir().unwrap();
    let tiny = text(&golden("F_tiny"));
    says(&["checkpoint", "diff", &tiny, &tiny], 0, &["260 equal, 0 differ"]);
    let tensors = open_released(&golden("F_tiny")).unwrap().tensors;
    let gate = "lang_encoder.model.layers.1.gated_cross_attn_layer_sound.ff_gate";
    let items: Vec<(String, Item)> = tensors
        .names()
        .map(|n| {
            let t = tensors.get(n).unwrap();
            let t = if n == gate { t * 1.5 } else { t };
            (
                if n == names::HEAD {
                    "strange".to_owned()
                } else {
                    n.to_owned()
                },
                t.into(),
            )
        })
        .collect();
    let other = d.path().join("safe_ckpt");
    write_released(&other, &items, 1 << 30).unwrap();
    let other = text(&other);
    let pieces = [
        gate,
        "5.000e-1",
        "only in the first  lang_encoder.lm_head.weight",
        "only in the second strange",
        "differ past 0e0",
    ];
    says(&["checkpoint", "diff", &tiny, &other], 9, &pieces);
    let json = says(&["checkpoint", "diff", &tiny, &other, "--json"], 9, &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["equal"].as_u64(), json["values"][0]["max_rel"].as_f64()),
        (Some(258), Some(0.5))
    );
    let files = |name: &str| text(&golden(&format!("F_tiny/safe_ckpt/{name}.safetensors")));
    says(
        &[
            "checkpoint",
            "diff",
            &files("chunk_0"),
            &files("chunk_0"),
            "--raw",
        ],
        0,
        &["0 differ"],
    );
}

#[test]
fn verify_fits_what_fits_and_lists_what_does_not() {
    let (tiny, config) = (text(&golden("F_tiny")), text(&golden("F_tiny/config.yaml")));
    says(
        &["checkpoint", "verify", &tiny, "--config", &config],
        0,
        &[
            "loaded      259 tensors",
            "missing     2 as expected: computed",
            "the embedding itself, tied",
            "fits",
        ],
    );
    // PyTorch's strict=True would refuse it: the STFT matrices are not in the file, the tied head is.
    says(
        &["checkpoint", "verify", &tiny, "--config", &config, "--strict"],
        7,
        &[
            "spectrogram_extractor.stft.conv_real.weight",
            "lang_encoder.lm_head.weight",
        ],
    );
    says(
        &["checkpoint", "verify", &tiny, "--model", "af2-3b"],
        7,
        &[
            "mis-shaped  lang_encoder.model.norm.weight: expected [2048], found [64]",
            "more like this",
        ],
    );
    says(
        &["checkpoint", "verify", &tiny, "--model", "af2-3"],
        2,
        &["did you mean `af2-3b`?"],
    );
    let training = text(&golden("F_tiny/train_ckpt/checkpoint_0_zeroed.pt"));
    says(
        &["checkpoint", "verify", &training, "--config", &config],
        7,
        &["llm/", "--base"],
    );
    says(
        &[
            "checkpoint",
            "verify",
            &training,
            "--base",
            &tiny,
            "--config",
            &config,
        ],
        0,
        &["259 tensors", "fits"],
    );
}

#[test]
fn convert_says_what_it_leaves_out_and_the_results_answer_alike() {
    let d = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&d.path().join(name));
    let (tiny, config) = (text(&golden("F_tiny")), text(&golden("F_tiny/config.yaml")));
    let full = at("checkpoint_1.pt");
    says(
        &[
            "checkpoint",
            "convert",
            &tiny,
            &full,
            "--layout",
            "reference",
            "--full",
        ],
        0,
        &["260 tensors", "optimizer's state"],
    );
    says(
        &[
            "checkpoint",
            "convert",
            &full,
            &at("released"),
            "--layout",
            "released",
            "--llm",
            &text(&golden("F_tiny/llm")),
        ],
        0,
        &["260 tensors"],
    );
    says(
        &["checkpoint", "convert", &tiny, &at("hf"), "--layout", "hf"],
        0,
        &["50 tensors", "not the language model's"],
    );
    says(&["checkpoint", "diff", &tiny, &at("released")], 0, &["260 equal"]);
    let wav = text(&golden("wavs/speech_16k_mono_3p7s.wav"));
    let ask = |more: &[&str]| {
        let mut arguments = vec![
            "generate",
            "--audio",
            &wav,
            "--prompt",
            "what is it?",
            "--json",
            "--max-new-tokens",
            "12",
            "--config",
            &config,
        ];
        arguments.extend(more);
        let line: serde_json::Value = serde_json::from_str(&says(&arguments, 0, &[])).unwrap();
        line["tokens"].clone()
    };
    let expected = ask(&["--checkpoint", &tiny]);
    assert!(!expected.as_array().unwrap().is_empty());
    let llm = text(&golden("F_tiny/llm"));
    let safe = text(&golden("F_tiny/safe_ckpt"));
    let clap = text(&golden("F_tiny/clap_ckpt/epoch_16.pt"));
    // Three parts named one by one, one folder, a safe_ckpt folder, a training file over a folder.
    assert_eq!(
        ask(&["--checkpoint", &safe, "--llm", &llm, "--clap", &clap]),
        expected
    );
    assert_eq!(ask(&["--checkpoint", &at("released")]), expected);
    assert_eq!(ask(&["--checkpoint", &safe]), expected);
    assert_eq!(ask(&["--checkpoint", &full, "--base", &tiny]), expected);
    // Without the reference's --base there is no LM.
    says(
        &[
            "generate",
            "--audio",
            &wav,
            "--prompt",
            "x",
            "--checkpoint",
            &full,
        ],
        7,
        &["checkpoint_1.pt", "--llm DIR"],
    );
}

/// The tiny model's tensors, changed, as safe_ckpt with the LM's configuration beside it.
fn changed(folder: &Path, change: impl Fn(String, Tensor) -> Option<(String, Tensor)>) {
    let tensors = open_released(&golden("F_tiny")).unwrap().tensors;
    let items: Vec<(String, Item)> = tensors
        .names()
        .filter_map(|n| change(n.to_owned(), tensors.get(n).unwrap()))
        .map(|(n, t)| (n, t.into()))
        .collect();
    write_released(&folder.join("safe_ckpt"), &items, 1 << 30).unwrap();
    let llm = folder.join("llm");
    std::fs::create_dir(&llm).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden(&format!("F_tiny/llm/{file}")), llm.join(file)).unwrap();
    }
}

fn options(rules: Rules) -> Options {
    Options {
        rules,
        ..tiny_options()
    }
}

fn open(folder: &Path, rules: Rules) -> af2::error::Result<load::Loaded> {
    load::open_parts(&folder.into(), &options(rules))
}

#[test]
fn what_may_be_missing_is_named_by_a_pattern_and_told() {
    let d = tempfile::tempdir().unwrap();
    changed(d.path(), |n, t| {
        (!n.contains("layers.2.gated_cross_attn_layer_sound.ff.")).then_some((n, t))
    });
    let e = open(d.path(), Rules::default()).err().unwrap().to_string();
    assert!(
        e.contains("layers.2.gated_cross_attn_layer_sound.ff.1.weight") && e.contains("--allow-missing"),
        "{e}"
    );
    let rules = Rules::new(false, &["*.layers.2.*_sound.ff.*".into()], false).unwrap();
    let model = open(d.path(), rules).unwrap();
    let why: Vec<_> = model
        .report
        .missing
        .iter()
        .filter(|o| o.why == Some("initialised: --allow-missing"))
        .collect();
    assert_eq!(why.len(), 4);
    assert!(Rules::new(false, &["[".into()], false).is_err());
}

#[test]
fn half_precision_files_become_what_the_model_computes_in_and_the_report_says_so() {
    let d = tempfile::tempdir().unwrap();
    let half = |t: Tensor| {
        if t.kind() == Kind::Float {
            t.to_kind(Kind::BFloat16)
        } else {
            t
        }
    };
    changed(d.path(), |n, t| Some((n, half(t))));
    let model = open(d.path(), Rules::default()).unwrap();
    assert!(model.report.converted.len() > 200);
    assert!(model
        .report
        .lines()
        .iter()
        .any(|l| l.contains("tensors from BFloat16 to Float")));
    let exact = open_released(&golden("F_tiny")).unwrap().tensors;
    for (name, entry) in model.params.iter() {
        let Some(info) = exact.info(name) else { continue };
        assert_eq!(entry.tensor.kind(), info.kind, "{name}");
        let rounded = half(exact.get(name).unwrap()).to_kind(info.kind);
        assert!(entry.tensor.detach() == rounded, "{name}");
    }
}

#[test]
fn a_gate_that_is_no_number_is_refused_by_name() {
    let d = tempfile::tempdir().unwrap();
    let gate = "lang_encoder.model.layers.3.gated_cross_attn_layer_sound.attn_gate";
    changed(d.path(), |n, t| {
        Some((n.clone(), if n == gate { t * f64::NAN } else { t }))
    });
    let e = open(d.path(), Rules::default()).err().unwrap();
    assert_eq!(e.exit_code(), 7);
    assert!(
        e.to_string().contains(gate) && e.to_string().contains("a finite number"),
        "{e}"
    );
}

/// Its values are places in a table: libtorch would stop the program at one that is none.
#[test]
fn an_index_table_that_leads_out_of_its_table_is_refused_by_name() {
    let d = tempfile::tempdir().unwrap();
    let table = "layers.0.blocks.0.attn.relative_position_index";
    changed(d.path(), |n, t| {
        Some((n.clone(), if n.ends_with(table) { t + 200 } else { t }))
    });
    let e = open(d.path(), Rules::default()).err().unwrap();
    assert_eq!(e.exit_code(), 7);
    assert!(
        e.to_string().contains(table) && e.to_string().contains("0 to 224"),
        "{e}"
    );
}

/// The zip writer ends its file when it is dropped, and said so on standard error before the error itself was told.
#[test]
fn a_disk_that_is_full_is_one_error() {
    let d = tempfile::tempdir().unwrap();
    let out = d.path().join("checkpoint_1.pt");
    // Files may have 64 blocks, and to have more is an error, not a signal.
    let limited =
        "trap '' XFSZ; ulimit -f 64; exec \"$0\" checkpoint convert \"$1\" \"$2\" --layout reference --full";
    let run = std::process::Command::new("sh")
        .args(["-c", limited])
        .arg(assert_cmd::cargo::cargo_bin("af2"))
        .arg(golden("F_tiny"))
        .arg(&out)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(3), "{err}");
    assert!(err.contains("checkpoint_1.pt: File too large"), "{err}");
    assert!(!err.contains("ZipWriter"), "{err}");
    assert_eq!(std::fs::read_dir(d.path()).unwrap().count(), 0);
}

/// LAION-CLAP's files: `module.`, a RoBERTa text branch with its position numbers or without, an encoder without fusion,
/// and the trainer's plain values around it.
#[test]
fn a_laion_clap_file_is_an_audio_encoder() {
    let d = tempfile::tempdir().unwrap();
    changed(d.path(), |n, t| (!n.starts_with(names::CLAP)).then_some((n, t)));
    let clap = Archive::open(&golden("F_tiny/clap_ckpt/epoch_16.pt")).unwrap();
    for positions in [true, false] {
        let mut items: Vec<(String, Item)> = clap
            .names()
            .filter(|n| {
                !n.contains("mel_conv2d") && !n.contains("fusion_model") && !n.contains("text_branch")
            })
            .map(|n| (n.to_owned(), Item::There(&clap, n.to_owned())))
            .collect();
        let float = (Kind::Float, Device::Cpu);
        let words = Tensor::zeros([7, 4], float);
        items.push((
            "module.text_branch.embeddings.word_embeddings.weight".into(),
            words.into(),
        ));
        if positions {
            let ids = Tensor::arange(514, (Kind::Int64, Device::Cpu)).view([1, 514]);
            items.push(("module.text_branch.embeddings.position_ids".into(), ids.into()));
        }
        let file = d.path().join(format!("laion_{positions}.pt"));
        let node = Node::dict([
            ("epoch", Node::Plain(af2::checkpoint::Plain::Int(45))),
            ("state_dict", Node::tensors(items)),
        ]);
        write_torch(&file, &node).unwrap();
        let parts = Parts {
            clap: Some(file),
            ..d.path().into()
        };
        let model = load::open_parts(&parts, &options(Rules::default())).unwrap();
        let unfused: Vec<_> = model
            .report
            .missing
            .iter()
            .filter(|o| o.why.is_some_and(|w| w.contains("without fusion")))
            .collect();
        assert!(unfused.iter().all(|o| o.name.contains("patch_embed")) && unfused.len() > 10);
        let name = "clap.nvclap.layers.0.blocks.0.attn.qkv.weight";
        let own = clap
            .get("module.audio_branch.layers.0.blocks.0.attn.qkv.weight")
            .unwrap();
        assert!(*model.params.get(name).unwrap() == own);
    }
}

#[test]
fn a_recipe_and_a_checkpoint_that_disagree_on_a_size() {
    let d = tempfile::tempdir().unwrap();
    let folder = d.path().join("model");
    load::save(&folder, &tiny()).unwrap();
    let start = |model: &str| {
        let checkpoint = folder.display();
        let text = format!(
            "name: r\noutput: out\nmodel: {{checkpoint: {checkpoint}, {model}}}\ndata: {{sets: {{}}}}\n"
        );
        let recipe = recipe_file::parse(&text, "r.yaml", &[]).unwrap();
        load::start(&preflight::start(&recipe), Device::Cpu)
    };
    assert!(start("max_windows: 3").is_ok());
    assert!(start("audio_transformer: {n_head: 2, n_layers: 3, d_inner: 80}").is_ok());
    for (model, said) in [
        (
            "cross_attention: {every: 2}",
            "model.cross_attention: expected a block before every 2. layer",
        ),
        (
            "audio_transformer: {n_head: 2, n_layers: 4, d_inner: 80}",
            "model.audio_transformer: expected 4 layers of 2 heads and 80 inner units, as the recipe says, found 3",
        ),
    ] {
        let e = start(model).err().unwrap();
        assert!(e.to_string().contains(said) && e.exit_code() == 7, "{e}");
    }
}
