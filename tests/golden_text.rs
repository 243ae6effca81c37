//! Tokenizer, prompt layout, truncation and label mask against the reference.
#![allow(clippy::unwrap_used)]

mod common;

use af2::data::manifest::Manifest;
use af2::text::{labels, tokenizer::Tokenizer};
use common::{golden, Golden};
use serde_json::Value;
use tch::Tensor;

fn note() -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden("F_tiny/golden_forward.json")).unwrap()).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(&golden("F_tiny/llm")).unwrap()
}

#[test]
fn every_string_has_the_references_ids_and_decodes_to_its_text() {
    let (note, t) = (note(), tokenizer());
    let strings = note["strings"].as_object().unwrap();
    assert!(strings.len() >= 12);
    for (text, ids) in strings {
        let ids: Vec<i64> = ids
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i.as_i64().unwrap())
            .collect();
        assert_eq!(t.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(
            t.decode(&ids, false).unwrap(),
            note["decoded"][text].as_str().unwrap()
        );
    }
}

#[test]
fn added_tokens_have_the_references_ids() {
    let (note, t) = (note(), tokenizer());
    let id = |key: &str| {
        note["tokens"][key]
            .as_i64()
            .or(note["tokens"][key][0].as_i64())
            .unwrap()
    };
    assert_eq!(t.audio, id("audio"));
    assert_eq!(t.end_of_chunk, id("endofchunk"));
    assert_eq!((t.pad, t.sep, t.eos), (id("pad"), id("sep"), id("eos")));
    assert_eq!(t.len() as i64, id("len_tokenizer"));
}

#[test]
fn batches_have_the_references_ids_masks_and_labels() {
    let (note, t) = (note(), tokenizer());
    let manifest = Manifest::open(&golden("F_tiny/manifests/tiny-AQA/train.json")).unwrap();
    let items = manifest.items().unwrap();
    let g = Golden::open("F_tiny/golden_forward.safetensors");
    for (name, files, most) in [
        ("batch0", "batch0", 512),
        ("batch1", "batch1", 512),
        ("trunc14", "batch0", 14),
    ] {
        let pairs: Vec<(&str, &str)> = note[files]["filenames"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| {
                let file = f.as_str().unwrap().trim_start_matches("wavs/");
                let item = items.iter().find(|i| i.name == file).unwrap();
                (item.prompt.as_str(), item.output.as_str())
            })
            .collect();
        let batch = labels::collate(&t, &pairs, most).unwrap();
        let same = |key: &str, ours: Tensor| assert!(ours == g.get(&format!("{name}/{key}")), "{name}/{key}");
        same("input_ids", af2::model::input::matrix(&batch.input_ids));
        same("attention_mask", af2::model::input::matrix(&batch.attention_mask));
        same("labels", af2::model::input::matrix(&batch.labels));
    }
}
