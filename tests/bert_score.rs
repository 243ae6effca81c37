//! BERTScore beside what the `bert_score` package gives, and the encoder below it beside transformers'.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use af2::checkpoint::{items, write_torch, Archive, Node};
use af2::load::TextEncoder;
use common::{af2, assert_close, golden, Golden};
use ndarray::Array2;
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Device, IndexOp, Tensor};

const ROBERTA: &str = "Q_text_towers/roberta";
const BERT: &str = "V_bert_score/bert";
/// The package differs from itself by up to 3.6e-7 when it is given each clip alone, in float32; rescaling makes 1.35 times of it.
const BOUND: f64 = 2e-6;

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn tensor(rows: &Array2<f32>) -> Tensor {
    let flat: Vec<f32> = rows.iter().copied().collect();
    Tensor::from_slice(&flat).reshape([rows.nrows() as i64, rows.ncols() as i64])
}

/// Each layer's states of texts of 2 to 77 tokens, padded and together.
#[test]
fn states_are_those_of_transformers() {
    let g = Golden::open("Q_text_towers/roberta.safetensors");
    let (ids, real) = (g.get("captions77/input_ids"), g.get("captions77/attention_mask"));
    let lengths: Vec<i64> = Vec::try_from(real.sum_dim_intlist(1i64, false, tch::Kind::Int64)).unwrap();
    let texts: Vec<Vec<i64>> = lengths
        .iter()
        .enumerate()
        .map(|(row, n)| Vec::try_from(ids.i((row as i64, ..*n))).unwrap())
        .collect();
    for (layer, name) in [(0, "hidden_0"), (1, "hidden_1"), (2, "last_hidden_state")] {
        let encoder = TextEncoder::open(&golden(ROBERTA), Some(layer), Device::Cpu).unwrap();
        let found = encoder.embed(&texts, &|_| {}).unwrap();
        let expected = g.get(&format!("captions77/{name}"));
        for (row, (found, n)) in found.iter().zip(&lengths).enumerate() {
            let own = expected.i((row as i64, ..*n));
            assert_close(&format!("{name} of text {row}"), &tensor(found), &own, 1e-5);
        }
    }
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

fn scored(encoder: &Path, layer: usize, more: &[&str]) -> Value {
    let (file, encoder) = (text_of(&golden("V_bert_score/captions.jsonl")), text_of(encoder));
    let layer = layer.to_string();
    let line = [
        "score",
        "captions",
        "--predictions",
        &file,
        "--bertscore",
        &encoder,
        "--bertscore-layer",
        &layer,
        "--device",
        "cpu",
        "--json",
    ];
    let (code, out, err) = af2(&[&line[..], more].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// Both encoders, every layer, with and without idf and baseline: candidates that are empty, blank, too long, hold special tokens
/// and what no vocabulary has; several references.
#[test]
fn scores_are_the_packages() {
    let golden_scores = json_of(&golden("V_bert_score/scores.json"));
    let baseline = text_of(&golden("V_bert_score/baseline.tsv"));
    let runs = golden_scores["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 18);
    let mut most: f64 = 0.0;
    for run in runs {
        let encoder = match run["encoder"].as_str().unwrap() {
            "bert" => golden(BERT),
            _ => golden(ROBERTA),
        };
        let mut more = Vec::new();
        if run["idf"] == true {
            more.push("--bertscore-idf");
        }
        if run["rescaled"] == true {
            more.extend(["--bertscore-baseline", baseline.as_str()]);
        }
        let layer = run["layer"].as_u64().unwrap() as usize;
        let found = scored(&encoder, layer, &more);
        let of = |key: &str| -> Vec<f64> {
            let all = run[key].as_array().unwrap();
            all.iter().map(|v| v.as_f64().unwrap()).collect()
        };
        for (own, theirs) in [("BERTScore_P", "P"), ("BERTScore_R", "R"), ("BERTScore", "F")] {
            let theirs = of(theirs);
            for (item, theirs) in found["items"].as_array().unwrap().iter().zip(&theirs) {
                let difference = (item[own].as_f64().unwrap() - theirs).abs();
                most = most.max(difference);
                let (id, run) = (&item["id"], (&run["hash"], run["rescaled"] == true));
                assert!(difference < BOUND, "{run:?}: {id}: {own} {} {theirs}", item[own]);
            }
            let mean = theirs.iter().sum::<f64>() / theirs.len() as f64;
            assert!((found["corpus"][own].as_f64().unwrap() - mean).abs() < BOUND);
        }
        let facts = &found["bert_score"];
        assert_eq!((&facts["layer"], &facts["idf"]), (&run["layer"], &run["idf"]));
        assert_eq!(facts["follows"], "bert_score 0.3.13");
    }
    println!("largest difference from the package: {most:.1e} (bound {BOUND:.0e})");
}

/// A folder with the golden one's files, in which one is changed.
fn changed(from: &str, file: &str, change: impl FnOnce(Value) -> Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(from)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join(file);
    fs::write(&path, change(json_of(&path)).to_string()).unwrap();
    folder
}

fn refused(folder: &Path, layer: Option<usize>) -> (i32, String) {
    let e = TextEncoder::open(folder, layer, Device::Cpu).err().unwrap();
    (e.exit_code(), e.to_string())
}

#[test]
fn the_layer_is_the_packages_for_a_name_that_it_knows() {
    let (code, text) = refused(&golden(ROBERTA), None);
    assert!(
        code == 2 && text.contains("--bertscore-layer N") && text.contains("17 of roberta-large"),
        "{text}"
    );
    let (code, text) = refused(&golden(ROBERTA), Some(3));
    assert!(code == 2 && text.contains("0 to 2"), "{text}");
    // google/bert_uncased_L-2_H-128_A-2 takes its first layer, wherever the name stands.
    let name = "bert_uncased_L-2_H-128_A-2";
    let said = changed(BERT, "config.json", |mut c| {
        c["_name_or_path"] = json!(format!("google/{name}"));
        c
    });
    let layer = |folder: &Path| TextEncoder::open(folder, None, Device::Cpu).unwrap().layer;
    assert_eq!(layer(said.path()), 1);
    let own = changed(BERT, "config.json", |c| c);
    let cached = own.path().join(format!("models--google--{name}/snapshots/0123"));
    fs::create_dir_all(&cached).unwrap();
    for file in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ] {
        fs::copy(own.path().join(file), cached.join(file)).unwrap();
    }
    assert_eq!(layer(&cached), 1);
}

#[test]
fn what_is_no_such_encoder_is_told_by_its_key() {
    let config = |key: &'static str, value: Value| {
        let folder = changed(BERT, "config.json", |mut c| {
            c[key] = value;
            c
        });
        refused(folder.path(), Some(1))
    };
    for (key, value, says) in [
        ("model_type", json!("deberta"), "bert, roberta or xlm-roberta"),
        ("hidden_act", json!("silu"), "gelu"),
        ("position_embedding_type", json!("relative_key"), "absolute"),
        ("hidden_size", json!(33), "multiple of 4"),
        ("num_hidden_layers", json!(1_000_000), "1 to 1024"),
        ("vocab_size", json!(-5), "1 to"),
        ("intermediate_size", json!(40), "shape"),
        ("vocab_size", json!(20), "vocab"),
    ] {
        let (code, text) = config(key, value);
        assert!(code == 7 && text.contains(says), "{key}: {text}");
    }
    let folder = changed(BERT, "config.json", |c| c);
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let (code, text) = refused(folder.path(), Some(1));
    assert!(code == 7 && text.contains("save_pretrained"), "{text}");
    let (code, _) = refused(Path::new("gone"), Some(1));
    assert_eq!(code, 3);
    // A tokenizer that puts nothing around a text.
    let folder = changed(BERT, "tokenizer.json", |mut t| {
        t["post_processor"] = Value::Null;
        t
    });
    let (code, text) = refused(folder.path(), Some(1));
    assert!(code == 7 && text.contains("post_processor"), "{text}");
}

/// `pytorch_model.bin` with TensorFlow's names of norms.
#[test]
fn older_files_give_the_same() {
    let folder = changed(BERT, "config.json", |c| c);
    let file = folder.path().join("model.safetensors");
    let weights = Archive::open(&file).unwrap();
    let all = weights.names().map(|name| {
        let old = name
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        (old, weights.get(name).unwrap())
    });
    let tensors = items(all.collect());
    let bin = folder.path().join("pytorch_model.bin");
    write_torch(&bin, &Node::tensors(tensors)).unwrap();
    fs::remove_file(&file).unwrap();
    let (own, old) = (
        TextEncoder::open(&golden(BERT), Some(2), Device::Cpu).unwrap(),
        TextEncoder::open(folder.path(), Some(2), Device::Cpu).unwrap(),
    );
    assert_eq!(own.identity().unwrap(), old.identity().unwrap());
    let ids = vec![own.ids("a dog barks").unwrap()];
    assert_eq!(
        own.embed(&ids, &|_| {}).unwrap(),
        old.embed(&ids, &|_| {}).unwrap()
    );
}

#[test]
fn a_table_of_baselines_is_read_by_its_layers() {
    let folder = tempfile::tempdir().unwrap();
    let captions = text_of(&golden("V_bert_score/captions.jsonl"));
    let encoder = text_of(&golden(BERT));
    for (text, says) in [
        ("P,R,F\n0,1,2,3\n", "LAYER,P,R,F"),
        ("LAYER,P,R,F\n0,0.1,0.1,0.1\n", "one for layer 1"),
        ("LAYER,P,R,F\n0,0.1,0.1,0.1\n2,0.1,0.1,0.1\n", "layer 1"),
        ("LAYER,P,R,F\n0,0.1,0.1,0.1\n1,0.1,1,0.1\n", "none of them 1"),
        ("LAYER,P,R,F\n0,0.1,0.1,0.1\n1,0.1,x\n", "three numbers"),
    ] {
        let file = folder.path().join("table.tsv");
        fs::write(&file, text).unwrap();
        let table = text_of(&file);
        let (code, _, err) = af2(&[
            "score",
            "captions",
            "--predictions",
            &captions,
            "--bertscore",
            &encoder,
            "--bertscore-layer",
            "1",
            "--bertscore-baseline",
            &table,
        ]);
        assert!(
            code == 6 && err.contains(says) && err.contains("table.tsv"),
            "{err}"
        );
    }
}

/// Of MusicQA, whose metric it is: the recall, as the script takes it.
#[test]
fn a_cards_texts_get_it_too_and_results_are_made_again() {
    let rules = |file: &str| text_of(&golden(&format!("M_metrics/rules/{file}")));
    let (predictions, questions) = (
        rules("musicqa_predictions.json"),
        rules("musicqa_EvalMusicQA.json"),
    );
    let line = [
        "score",
        "--benchmark",
        "music-qa",
        "--predictions",
        &predictions,
        "--items",
        &questions,
        "--device",
        "cpu",
    ];
    let folder = tempfile::tempdir().unwrap();
    let encoder: PathBuf = folder.path().join("encoder");
    fs::create_dir(&encoder).unwrap();
    for entry in fs::read_dir(golden(ROBERTA)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, encoder.join(path.file_name().unwrap())).unwrap();
    }
    let (out, encoder) = (text_of(&folder.path().join("run")), text_of(&encoder));
    let more = [
        "--bertscore",
        &encoder,
        "--bertscore-layer",
        "2",
        "--out",
        &out,
        "--json",
    ];
    let (code, text, err) = af2(&[&line[..], &more].concat());
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["metric"], "bert_score");
    assert_eq!(found["score"], found["parts"]["bert_score_recall"]);
    assert!(found["score"].as_f64().unwrap() > 0.0 && found["interval"].is_object());
    assert!(found["not_scored"].get("bert_score").is_none());
    let facts = &found["bert_score"];
    assert_eq!(
        (&facts["layer"], facts["encoder"].as_str().unwrap().len()),
        (&json!(2), 64)
    );
    let recalls: Vec<f64> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| i["scores"]["bert_score"].as_f64())
        .collect();
    let mean = recalls.iter().sum::<f64>() / recalls.len() as f64;
    assert!((mean - found["score"].as_f64().unwrap()).abs() < 1e-12);

    let (code, text, err) = af2(&["score", &out, "--check", "--device", "cpu"]);
    assert!(
        code == 0 && text.contains("the same byte for byte"),
        "{text} {err}"
    );
    // Another encoder is refused.
    let config = Path::new(&encoder).join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("1e-05", "1e-06")).unwrap();
    let (code, _, err) = af2(&["score", &out, "--check", "--device", "cpu"]);
    assert!(code == 6 && err.contains("the encoder"), "{code} {err}");
    // Without one the metric is missing, and what would give it is said; verdicts have no use for one.
    let (_, text, _) = af2(&[&line[..], &["--json"]].concat());
    let without: Value = serde_json::from_str(&text).unwrap();
    assert!(without["score"].is_null());
    assert!(without["not_scored"]["bert_score"]
        .as_str()
        .unwrap()
        .contains("--bertscore"));
    let mmau = rules("mmau_input.json");
    let (code, _, err) = af2(&[
        "score",
        "--benchmark",
        "mmau",
        "--predictions",
        &mmau,
        "--bertscore",
        &encoder,
    ]);
    assert!(code == 2 && err.contains("--bertscore"), "{err}");
}
