//! AF-CLAP's space of texts, and what `af2 score` does in it: the nearest label, CLAP score.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use af2::checkpoint::{items, open_released, write_safetensors};
use af2::data::feed::{Clip, Ears};
use af2::load::TextSpace;
use af2::model::{
    audio::{self, htsat},
    clap::{self, Clap},
    mode::Mode,
    text::t5,
};
use af2::shapes::Seconds;
use common::{af2, assert_close, golden, Golden};
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The T5 of `Q_text_towers` as an AF-CLAP's text side, with projections into 24 dimensions, and its tokenizer beside it.
fn tower(folder: &Path) -> PathBuf {
    let t5 = Golden::open("Q_text_towers/t5/model.safetensors");
    let mut all: Vec<(String, Tensor)> = t5
        .names()
        .map(|n| (format!("text_branch.{n}"), t5.get(n)))
        .collect();
    tch::manual_seed(3);
    let cpu = (Kind::Float, Device::Cpu);
    for (name, shape) in [("0", [24i64, 32]), ("2", [24, 24])] {
        let named = |leaf: &str| format!("text_projection.{name}.{leaf}");
        all.push((named("weight"), Tensor::randn(shape, cpu) * 0.3));
        all.push((named("bias"), Tensor::randn([24], cpu) * 0.1));
    }
    // As `af2 clap` saves the other side; nothing reads it here.
    all.push(("audio_projection.2.bias".to_owned(), Tensor::zeros([24], cpu)));
    let file = folder.join("clap.safetensors");
    write_safetensors(&file, &items(all), &[("format", "pt")]).unwrap();
    fs::copy(
        golden("Q_text_towers/t5/tokenizer.json"),
        folder.join("tokenizer.json"),
    )
    .unwrap();
    file
}

fn rows(embedded: &[Vec<f32>]) -> Tensor {
    let flat: Vec<f32> = embedded.iter().flatten().copied().collect();
    Tensor::from_slice(&flat).reshape([embedded.len() as i64, -1])
}

/// From texts, through transformers' ids and T5's mean over all 77 places, to the joint space.
#[test]
fn texts_are_embedded_as_the_published_tokenizer_and_tower_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = tower(folder.path());
    let space = TextSpace::open(&file, None, Device::Cpu).unwrap();
    assert_eq!(space.tokenizer, folder.path().join("tokenizer.json"));
    let cases: Value =
        serde_json::from_str(&fs::read_to_string(golden("Q_text_towers/t5_tokenizer.json")).unwrap())
            .unwrap();
    // The texts behind the encoder's golden rows.
    let texts = [0, 1, 2, 4, 17].map(|i| cases["cases"][i]["text"].as_str().unwrap());
    let found = rows(&space.embed(&texts, &|_| {}).unwrap());
    let mean = Golden::open("Q_text_towers/t5_encoder.safetensors").get("captions77/mean_over_all_positions");
    let weights = Golden::of(&af2::checkpoint::Archive::open(&file).unwrap());
    let own = |n: &str| weights.get(&format!("text_projection.{n}"));
    let hidden = mean.linear(&own("0.weight"), Some(&own("0.bias"))).relu();
    let joint = hidden.linear(&own("2.weight"), Some(&own("2.bias")));
    let norm = joint.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    assert_close("text embeddings", &found, &(joint / norm), 1e-5);
    // Of all the texts the same, however many go together.
    let all: Vec<&str> = cases["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["text"].as_str().unwrap())
        .collect();
    let three: Vec<&str> = all.iter().copied().cycle().take(60).collect();
    let (once, more) = (
        space.embed(&all, &|_| {}).unwrap(),
        space.embed(&three, &|_| {}).unwrap(),
    );
    assert_eq!(once, more[..20]);
    assert_eq!(
        rows(&once).index_select(0, &Tensor::from_slice(&[0i64, 1, 2, 4, 17])),
        found
    );
}

/// Ids of all golden texts, by their embeddings: each row of ids gives its own.
#[test]
fn ids_are_cut_and_padded_as_transformers_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = tower(folder.path());
    let space = TextSpace::open(&file, None, Device::Cpu).unwrap();
    let ids = Golden::open("Q_text_towers/t5_tokenizer.safetensors");
    let cases: Value =
        serde_json::from_str(&fs::read_to_string(golden("Q_text_towers/t5_tokenizer.json")).unwrap())
            .unwrap();
    let texts: Vec<&str> = cases["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["text"].as_str().unwrap())
        .collect();
    let weights = Golden::of(&af2::checkpoint::Archive::open(&file).unwrap());
    let config = clap::Config {
        audio: tiny_audio(),
        text: t5::Config {
            vocab_size: 458,
            d_model: 32,
            d_kv: 12,
            d_ff: 64,
            num_layers: 3,
            num_heads: 4,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
        },
        joint_dim: 24,
    };
    let other_side = ["audio_branch", "audio_projection", "logit_scale"];
    let (model, _) = weights.build("", &other_side, |p| Clap::new(p, &config));
    let by_ids = model.embed_text(&ids.get("padded77"), &ids.get("mask77"), Mode::EVAL);
    let by_text = rows(&space.embed(&texts, &|_| {}).unwrap());
    assert_close("embeddings by text and by ids", &by_text, &by_ids, 1e-6);
}

fn tiny_audio() -> audio::Config {
    audio::Config::Htsat(htsat::Config {
        embed_dim: 8,
        depths: vec![1, 1, 2, 1],
        num_heads: vec![1, 2, 2, 4],
        class_num: 20,
    })
}

/// A unigram tokenizer of small letters, in the form of T5's.
fn letters(path: &Path) {
    let special = ["<pad>", "</s>", "<unk>"];
    let mut vocab: Vec<Value> = special.iter().map(|t| json!([t, 0.0])).collect();
    vocab.push(json!(["▁", -2.0]));
    vocab.extend(('a'..='z').map(|c| json!([c.to_string(), -3.0])));
    let added = special.iter().enumerate().map(|(id, t)| {
        json!({"id": id, "content": t, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}
        },
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false}
    });
    fs::write(path, tokenizer.to_string()).unwrap();
}

/// The reference's own file, whose names and sizes are found in it.
/// AF-CLAP of the tiny released folder, on its own weights.
fn released_clap() -> Clap {
    let weights = Golden::of(&open_released(&golden("F_tiny")).unwrap().clap.unwrap());
    let config = clap::Config {
        audio: tiny_audio(),
        text: t5::Config {
            vocab_size: 120,
            d_model: 32,
            d_kv: 8,
            d_ff: 48,
            num_layers: 2,
            num_heads: 4,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
        },
        joint_dim: 24,
    };
    let unused = ["spectrogram_extractor", "attn_mask", "num_batches_tracked"];
    let (model, _) = weights.build("", &unused, |p| Clap::new(p, &config));
    model
}

#[test]
fn the_released_file_is_opened_whole() {
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("words.json");
    letters(&words);
    let space = TextSpace::open(&golden("F_tiny"), Some(&words), Device::Cpu).unwrap();
    assert!(space.checkpoint.ends_with("clap_ckpt/epoch_16.pt"));
    let found = rows(&space.embed(&["ab", "b a"], &|_| {}).unwrap());
    let model = released_clap();
    // ▁ is 3, a is 4, and behind each text stands </s>.
    let own = [vec![3i64, 4, 5, 1], vec![3, 5, 3, 4, 1]];
    let (mut ids, mut real) = (vec![0i64; 2 * 77], vec![0i64; 2 * 77]);
    for (row, own) in own.iter().enumerate() {
        for (at, id) in own.iter().enumerate() {
            (ids[row * 77 + at], real[row * 77 + at]) = (*id, 1);
        }
    }
    let tensor = |v: &[i64]| Tensor::from_slice(v).reshape([2, 77]);
    let expected = model.embed_text(&tensor(&ids), &tensor(&real), Mode::EVAL);
    assert_close("embeddings", &found, &expected, 1e-6);
    // The same in another file has the same identity; other words have another.
    let again = TextSpace::open(&golden("F_tiny/clap_ckpt"), Some(&words), Device::Cpu).unwrap();
    assert_eq!(space.identity().unwrap(), again.identity().unwrap());
    let text = fs::read_to_string(&words).unwrap().replace("-2.0", "-2.5");
    fs::write(&words, text).unwrap();
    let other = TextSpace::open(&golden("F_tiny"), Some(&words), Device::Cpu).unwrap();
    assert_ne!(space.identity().unwrap(), other.identity().unwrap());
}

#[test]
fn what_cannot_be_a_tower_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let said = |checkpoint: &Path, words: Option<&Path>| {
        let e = TextSpace::open(checkpoint, words, Device::Cpu).err().unwrap();
        (e.exit_code(), e.to_string())
    };
    let file = tower(folder.path());
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let (code, text) = said(&file, None);
    assert!(
        code == 7 && text.contains("--clap-tokenizer") && text.contains("flan-t5-large"),
        "{text}"
    );
    let (code, text) = said(&folder.path().join("gone.pt"), None);
    assert!(code == 3 && text.contains("gone.pt"), "{text}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (code, text) = said(&empty, None);
    assert!(code == 7 && text.contains("clap_ckpt"), "{text}");
    // A language model's tokenizer of another size.
    let (code, text) = said(&file, Some(&golden("F_tiny/llm")));
    assert!(code == 7 && text.contains("458 embeddings"), "{text}");
    // T5's with more tokens than the tower has embeddings.
    let (code, text) = said(&golden("F_tiny"), Some(&golden("Q_text_towers/t5")));
    assert!(code == 7 && text.contains("120 embeddings"), "{text}");
    // No text side.
    let (code, text) = said(&golden("F_tiny/llm/model-00001-of-00004.safetensors"), None);
    assert!(code == 7 && text.contains("text_branch"), "{text}");
    // Half a tower.
    let half = folder.path().join("half.safetensors");
    let shared = Tensor::zeros([458, 32], (Kind::Float, Device::Cpu));
    write_safetensors(
        &half,
        &items(vec![("text_branch.shared.weight".to_owned(), shared)]),
        &[],
    )
    .unwrap();
    let (code, text) = said(&half, Some(&golden("Q_text_towers/t5")));
    assert!(code == 7 && text.contains("SelfAttention.q.weight"), "{text}");
}

// `af2 score` ------------------------------------------------------------------------------------------------------

const SAID: [(&str, &str); 7] = [
    ("dog", "dog"),
    ("a dog barks in the distance", "dog"),
    ("pouring water", "rain"),
    ("Sea Waves", "sea_waves"),
    ("  ", "rain"),
    ("I cannot tell what this is.", "rain"),
    ("dog", "an owl"),
];

fn predictions(folder: &Path) -> PathBuf {
    let line = |(i, (prediction, reference)): (usize, &(&str, &str))| {
        let item = json!({
            "id": format!("{i}"), "path": format!("{i}.wav"), "prompt": "classify this sound.", "prediction": prediction,
            "reference": reference, "task": "cls", "windows": 1, "labels": ["dog", "rain", "sea_waves", "pouring water"],
        });
        item.to_string() + "\n"
    };
    let path = folder.join("predictions.jsonl");
    let text: String = SAID.iter().enumerate().map(line).collect();
    fs::write(&path, text).unwrap();
    path
}

fn card_labels() -> Vec<String> {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data-manifests/benchmarks/esc-50.yaml"),
    )
    .unwrap();
    let card: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let of = card["labels"]["of"].as_sequence().unwrap();
    of.iter().map(|l| l.as_str().unwrap().to_owned()).collect()
}

#[test]
fn answers_are_the_labels_that_are_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = tower(folder.path());
    let file = predictions(folder.path());
    let (path, clap) = (file.display().to_string(), checkpoint.display().to_string());
    let out = folder.path().join("run");
    let out = out.display().to_string();
    let line = [
        "score",
        "--benchmark",
        "esc-50",
        "--predictions",
        &path,
        "--device",
        "cpu",
        "--json",
    ];
    let (code, text, err) = af2(&[&line[..], &["--clap", &clap, "--out", &out]].concat());
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&text).unwrap();

    let space = TextSpace::open(&checkpoint, None, Device::Cpu).unwrap();
    let labels = card_labels();
    let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
    let of_labels = rows(&space.embed(&texts, &|_| {}).unwrap());
    let said: Vec<&str> = SAID.iter().map(|(said, _)| *said).collect();
    let cosines = rows(&space.embed(&said, &|_| {}).unwrap()).matmul(&of_labels.tr());
    let (top, at) = cosines.topk(2, 1, true, true);
    let items = found["items"].as_array().unwrap();
    let mut right = 0;
    for (i, (item, (_, reference))) in items.iter().zip(SAID).enumerate() {
        let i = i as i64;
        match i {
            4 => assert_eq!(
                (item["state"].as_str(), &item["answer"]),
                (Some("empty"), &Value::Null)
            ),
            6 => {
                assert_eq!(item["state"], "error");
                assert!(item["reason"].as_str().unwrap().contains("an owl"), "{item}");
            }
            _ => {
                assert_eq!(
                    (item["state"].as_str(), item["by"].as_str()),
                    (Some("answered"), Some("clap_label.nearest"))
                );
                let best = &labels[at.int64_value(&[i, 0]) as usize];
                assert_eq!(item["answer"].as_str().unwrap(), best);
                let correct = *best == reference.replace('_', " ");
                assert_eq!(item["correct"], correct, "{item}");
                right += usize::from(correct);
                let value = |key: &str| item["nearest"][key].as_f64().unwrap();
                let (first, second) = (top.double_value(&[i, 0]), top.double_value(&[i, 1]));
                assert!((value("cosine") - first).abs() < 2e-6, "{item}, {first}");
                assert!((value("margin") - (first - second)).abs() < 2e-6, "{item}");
            }
        }
    }
    // A label that is said is itself.
    assert_eq!(
        (items[0]["answer"].as_str(), items[0]["correct"].as_bool()),
        (Some("dog"), Some(true))
    );
    let n = SAID.len() as f64;
    assert!((found["score"].as_f64().unwrap() - right as f64 / n).abs() < 1e-12);
    assert_eq!(
        (&found["rule"], &found["kind"]),
        (&json!("clap_label"), &json!("official"))
    );
    assert_eq!(found["other"]["rule"], "label");
    assert_eq!(found["states"], json!({"answered": 5, "empty": 1, "error": 1}));
    assert_eq!(found["space"]["tower"], space.identity().unwrap());
    assert_eq!(found["space"]["templates"], json!(["{label}"]));
    // What hears nothing: a label's own text is nearest to itself, and "dog", the first choice, is right twice.
    let first = found["frame"]["first"].as_f64().unwrap();
    assert!((first - 2.0 / n).abs() < 1e-12, "{}", found["frame"]);
    assert_eq!(found["frame"]["answered_by"], "text");

    // The same once more, and from the results alone.
    let (_, again, _) = af2(&[&line[..], &["--clap", &clap]].concat());
    let items_of = |text: &str| serde_json::from_str::<Value>(text).unwrap()["items"].clone();
    assert_eq!(items_of(&again), found["items"]);
    let (code, text, err) = af2(&["score", &out, "--check", "--device", "cpu"]);
    assert!(
        code == 0 && text.contains("the same byte for byte"),
        "{text} {err}"
    );

    // Under the fair rule no tower is wanted; the official one stands beside it where there is one.
    let (code, text, err) = af2(&[&line[..], &["--rule", "fair"]].concat());
    assert_eq!(code, 0, "{err}");
    let fair: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&fair["rule"], &fair["other"], &fair["space"]),
        (&json!("label"), &Value::Null, &Value::Null)
    );
    let (_, text, _) = af2(&[&line[..], &["--rule", "fair", "--clap", &clap]].concat());
    let both: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&both["other"]["rule"], &both["other"]["score"]),
        (&json!("clap_label"), &found["score"])
    );
    assert_eq!(found["other"]["score"], fair["score"]);

    // Another tower than then is refused, and taken where that is said.
    let words = folder.path().join("tokenizer.json");
    let mut changed: Value = serde_json::from_str(&fs::read_to_string(&words).unwrap()).unwrap();
    changed["model"]["vocab"][50][1] = json!(-3.5);
    fs::write(&words, changed.to_string()).unwrap();
    let (code, _, err) = af2(&["score", &out, "--check", "--device", "cpu"]);
    assert!(
        code != 0 && code != 9 && err.contains("text tower"),
        "{code} {err}"
    );
    // One that has gone is named, with what says where it is now.
    fs::remove_file(&checkpoint).unwrap();
    let (code, _, err) = af2(&["score", &out, "--check", "--device", "cpu"]);
    assert!(code == 3 && err.contains("--clap"), "{code} {err}");
}

/// Tags that a text names, each as near to the labels as its embedding is: the same score as of these sums, brought as numbers.
#[test]
fn tags_are_the_sums_of_what_a_text_names() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = tower(folder.path());
    let labels = ["dog", "rain", "sea waves", "pouring water"];
    let said = ["dog; rain.", "Sea Waves, a dog", "pouring water", " . "];
    let phrases: [&[&str]; 4] = [&["dog", "rain"], &["Sea Waves", "a dog"], &["pouring water"], &[]];
    let tags: [&[&str]; 4] = [
        &["dog", "rain"],
        &["sea waves"],
        &["rain", "pouring water"],
        &["dog"],
    ];
    let items: serde_json::Map<String, Value> = (0..4)
        .map(|i| {
            let item = json!({"name": format!("{i}.wav"), "prompt": "describe", "output": tags[i].join(", "), "tags": tags[i]});
            (i.to_string(), item)
        })
        .collect();
    let manifest = json!({"data": items, "benchmark": {"card": "fsd50k", "labels": labels}});
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let manifest = file("items.json", manifest.to_string());
    let lines = |of: &dyn Fn(usize) -> Value| (0..4).map(|i| of(i).to_string() + "\n").collect::<String>();
    let texts = file(
        "texts.jsonl",
        lines(
            &|i| json!({"id": i.to_string(), "path": format!("{i}.wav"), "prediction": said[i], "task": "fsd50k", "reference": ""}),
        ),
    );
    let space = TextSpace::open(&checkpoint, None, Device::Cpu).unwrap();
    let of_labels = rows(&space.embed(&labels, &|_| {}).unwrap());
    let sums = |i: usize| -> Vec<f64> {
        if phrases[i].is_empty() {
            return vec![0.0; 4];
        }
        let cosines = rows(&space.embed(phrases[i], &|_| {}).unwrap()).matmul(&of_labels.tr());
        Vec::<f64>::try_from(cosines.sum_dim_intlist([0i64].as_slice(), false, Kind::Double)).unwrap()
    };
    let numbers = file(
        "numbers.jsonl",
        lines(&|i| {
            let scores: serde_json::Map<String, Value> = labels
                .iter()
                .zip(sums(i))
                .map(|(l, s)| (l.to_string(), json!(s)))
                .collect();
            json!({"id": i.to_string(), "scores": scores})
        }),
    );
    let clap = checkpoint.display().to_string();
    let scored = |predictions: &str, more: &[&str]| {
        let line = [
            "score",
            "--benchmark",
            "fsd50k",
            "--json",
            "--device",
            "cpu",
            "--items",
            &manifest,
        ];
        let (code, text, err) = af2(&[&line[..], &["--predictions", predictions], more].concat());
        (
            code,
            serde_json::from_str::<Value>(&text).unwrap_or_default(),
            err,
        )
    };
    let (code, found, err) = scored(&texts, &["--clap", &clap]);
    assert_eq!(code, 0, "{err}");
    let (code, expected, err) = scored(&numbers, &[]);
    assert_eq!(code, 0, "{err}");
    for key in ["score", "interval", "parts", "n"] {
        assert_eq!(found[key], expected[key], "{key}");
    }
    assert_eq!(
        (&found["rule"], &found["states"], &found["unread"]),
        (
            &json!("clap_label"),
            &json!({"answered": 3, "empty": 1}),
            &json!(0.25)
        )
    );
    assert_eq!(found["space"]["tower"], space.identity().unwrap());
    let (code, _, err) = scored(&texts, &[]);
    assert!(
        code == 6 && err.contains("a generated text") && err.contains("--clap CHECKPOINT"),
        "{code} {err}"
    );
}

#[test]
fn a_tower_is_asked_for_where_one_is_wanted_and_only_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = predictions(folder.path()).display().to_string();
    let (code, _, err) = af2(&["score", "--benchmark", "gtzan", "--predictions", &file]);
    assert_eq!(code, 6, "{err}");
    for part in ["--clap CHECKPOINT", "--rule fair", "clap_label"] {
        assert!(err.contains(part), "{err}");
    }
    let clap = tower(folder.path()).display().to_string();
    let (code, _, err) = af2(&[
        "score",
        "--benchmark",
        "mmau",
        "--predictions",
        &file,
        "--clap",
        &clap,
    ]);
    assert!(code == 2 && err.contains("no rule of mmau"), "{err}");
}

/// A card's templates are what is embedded of a label, and of several the mean direction.
#[test]
fn templates_are_a_cards_data() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = tower(folder.path());
    let file = predictions(folder.path());
    let own = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data-manifests/benchmarks/esc-50.yaml"),
    )
    .unwrap();
    let templates = ["This is a sound of {label}.", "{label} in the distance"];
    let with = |templates: &str| {
        let text = own.replacen(
            "  count: 50\n",
            &format!("  count: 50\n  templates: {templates}\n"),
            1,
        );
        let text = text.replacen(
            "task: closed_label",
            "overrides: other templates\ntask: closed_label",
            1,
        );
        fs::create_dir_all(folder.path().join("cards")).unwrap();
        fs::write(folder.path().join("cards/esc-50.yaml"), text).unwrap();
    };
    let cards = folder.path().join("cards").display().to_string();
    with("[\"no place\"]");
    let (code, _, err) = af2(&["benchmark", "check", "--cards", &cards]);
    assert!(code == 6 && err.contains("labels.templates"), "{err}");
    with(&serde_json::to_string(&templates).unwrap());
    let (path, clap) = (file.display().to_string(), checkpoint.display().to_string());
    let (code, text, err) = af2(&[
        "score",
        "--benchmark",
        "esc-50",
        "--predictions",
        &path,
        "--clap",
        &clap,
        "--cards",
        &cards,
        "--device",
        "cpu",
        "--json",
    ]);
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["space"]["templates"], json!(templates));
    let space = TextSpace::open(&checkpoint, None, Device::Cpu).unwrap();
    let labels = card_labels();
    let mean = templates.map(|template| {
        let filled: Vec<String> = labels.iter().map(|l| template.replace("{label}", l)).collect();
        let filled: Vec<&str> = filled.iter().map(String::as_str).collect();
        rows(&space.embed(&filled, &|_| {}).unwrap())
    });
    let mean = (&mean[0] + &mean[1]) / 2.0;
    let unit = &mean / mean.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    let said = rows(&space.embed(&[SAID[1].0], &|_| {}).unwrap());
    let cosines = said.matmul(&unit.tr()).reshape([-1]);
    let best = i64::try_from(cosines.argmax(0, false)).unwrap();
    let item = &found["items"][1];
    assert_eq!(item["answer"], labels[best as usize]);
    assert!((item["nearest"]["cosine"].as_f64().unwrap() - cosines.double_value(&[best])).abs() < 2e-6);
}

// CLAP score -------------------------------------------------------------------------------------------------------

/// The cosine of a caption with the mean direction of its clip's windows, over the reference's own file.
#[test]
fn captions_are_compared_with_their_clips() {
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("words.json");
    letters(&words);
    let lines = [
        ("tones_16k_mono_10s.wav", "ab"),
        ("flac_16k_mono_12p5s.flac", "b a c"),
        ("tones_16k_mono_10s.wav", "zz top"),
    ];
    let write = |name: &str, more: &[Value]| {
        let all = lines.iter().enumerate().map(|(i, (audio, said))| {
            json!({"id": i.to_string(), "audio": audio, "prediction": said, "references": ["a b"]})
        });
        let text: String = all
            .chain(more.iter().cloned())
            .map(|l| l.to_string() + "\n")
            .collect();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (file, wavs) = (write("captions.jsonl", &[]), golden("wavs").display().to_string());
    let (clap, tokens) = (
        golden("F_tiny").display().to_string(),
        words.display().to_string(),
    );
    let line = [
        "score",
        "captions",
        "--clap",
        &clap,
        "--clap-tokenizer",
        &tokens,
        "--audio-root",
        &wavs,
        "--device",
        "cpu",
        "--json",
        "--predictions",
    ];
    let (code, text, err) = af2(&[&line[..], &[&file]].concat());
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&text).unwrap();

    let model = released_clap();
    let space = TextSpace::open(&golden("F_tiny"), Some(&words), Device::Cpu).unwrap();
    let ears = Ears::new(0);
    let mut sum = 0.0;
    for (item, (audio, said)) in found["items"].as_array().unwrap().iter().zip(lines) {
        let clip = Clip::new(golden("wavs").join(audio), Seconds(0.0), 30);
        let mel = ears.mel(&clip).unwrap();
        let windows: Vec<Tensor> = mel
            .outer_iter()
            .map(|window| {
                let flat: Vec<f32> = window.iter().copied().collect();
                let one = Tensor::from_slice(&flat).reshape([1, 1, 1001, 64]);
                model.embed_audio(&one.repeat([1, 4, 1, 1]), &[], Mode::EVAL)
            })
            .collect();
        assert_eq!(windows.len(), if audio.contains("12p5s") { 2 } else { 1 });
        let mean = Tensor::cat(&windows, 0).mean_dim(0i64, false, Kind::Float);
        let text = rows(&space.embed(&[said], &|_| {}).unwrap()).reshape([-1]);
        let cosine = (&mean * &text).sum(Kind::Float) / (mean.norm() * text.norm());
        let cosine = cosine.double_value(&[]);
        let own = item["CLAPScore"].as_f64().unwrap();
        assert!((own - cosine).abs() < 1e-5, "{item} {cosine}");
        sum += own;
    }
    assert!((found["corpus"]["CLAPScore"].as_f64().unwrap() - sum / 3.0).abs() < 1e-12);
    assert_eq!(found["clap_score"]["tower"], space.identity().unwrap());

    // A blank caption is near to nothing, and one without its clip cannot be compared.
    let blank = write(
        "blank.jsonl",
        &[json!({"id": "b", "audio": lines[0].0, "prediction": " ", "references": ["a"]})],
    );
    let (code, text, err) = af2(&[&line[..], &[&blank]].concat());
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&text).unwrap();
    assert!(found["items"][3]["CLAPScore"].is_null() && found["corpus"]["CLAPScore"].is_null());
    let bare = write(
        "bare.jsonl",
        &[json!({"id": "no-clip", "prediction": "a", "references": ["a"]})],
    );
    let (code, _, err) = af2(&[&line[..], &[&bare]].concat());
    assert!(
        code == 6 && err.contains("no-clip") && err.contains("--audio-root"),
        "{err}"
    );
    let gone = write(
        "gone.jsonl",
        &[json!({"id": "g", "audio": "gone.wav", "prediction": "a", "references": ["a"]})],
    );
    let (code, _, err) = af2(&[&line[..], &[&gone]].concat());
    assert!(code == 3 && err.contains("gone.wav"), "{err}");
    // A file that has the captions' side alone.
    let half = tower(folder.path()).display().to_string();
    let (code, _, err) = af2(&[
        "score",
        "captions",
        "--predictions",
        &file,
        "--clap",
        &half,
        "--audio-root",
        &wavs,
    ]);
    assert!(code == 7 && err.contains("audio_branch"), "{err}");
}
