//! A small byte-level BPE in Qwen2's form, trained on lines of text.

use super::byte_level::{description, shell, SPECIAL};
use super::special::END_OF_TEXT;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::Path;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Trains at most `vocab_size` entries (256 bytes included) and writes `tokenizer.json`,
/// `tokenizer_config.json`, `vocab.json` and `merges.txt` to `out`. The same lines give the same files.
pub(crate) fn train<'a>(
    lines: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
    out: &Path,
) -> Result<Tokenizer> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::recipe("lm.vocab_size", format!("the BPE could not be trained: {e}"))
    };
    let mut inner = shell(&json!({"type": "BPE", "vocab": {}, "merges": []}), out)?;
    let mut trainer = tokenizers::models::TrainerWrapper::from(
        BpeTrainer::builder()
            .vocab_size(vocab_size.max(256))
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build(),
    );
    inner.train(&mut trainer, lines).map_err(|e| failed(&e))?;
    let trained: Value = serde_json::to_value(inner.get_model()).map_err(|e| failed(&e))?;
    let (vocab, merges) = (trained.get("vocab").cloned(), trained.get("merges").cloned());
    let (vocab, merges) = match (vocab, merges) {
        (Some(Value::Object(v)), Some(Value::Array(m))) => (v, m),
        _ => return Err(failed(&"no vocabulary came back")),
    };
    // By id, so that the file does not depend on a hash's order.
    let by_id: BTreeMap<u64, &String> = vocab.iter().filter_map(|(k, v)| Some((v.as_u64()?, k))).collect();
    let sorted: serde_json::Map<String, Value> =
        by_id.iter().map(|(i, k)| ((*k).clone(), json!(i))).collect();
    let pair = |m: &Value| match m {
        Value::Array(p) => p.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let lines: Vec<String> = merges.iter().map(pair).collect();
    let pairs: Vec<Vec<&str>> = lines.iter().map(|m| m.split(' ').collect()).collect();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": sorted, "merges": pairs,
    });
    let first = sorted.len();
    let full = description(&model, first);
    let pretty = |v: &Value| serde_json::to_vec_pretty(v).map_err(|e| failed(&e));
    write_atomic_bytes(&out.join("tokenizer.json"), &pretty(&full)?)?;
    write_atomic_bytes(&out.join("vocab.json"), &pretty(&Value::Object(sorted))?)?;
    let merges = format!("#version: 0.2\n{}\n", lines.join("\n"));
    write_atomic_bytes(&out.join("merges.txt"), merges.as_bytes())?;
    write_atomic_bytes(&out.join("tokenizer_config.json"), &pretty(&config(first))?)?;
    Tokenizer::open(out)
}

fn config(first_special: usize) -> Value {
    let decoder: serde_json::Map<String, Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let one = json!({"content": t, "lstrip": false, "normalized": false, "rstrip": false,
                             "single_word": false, "special": true});
            ((first_special + i).to_string(), one)
        })
        .collect();
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": SPECIAL[1..],
        "bos_token": null,
        "clean_up_tokenization_spaces": false,
        "eos_token": END_OF_TEXT,
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 3] = [
        "what is the sound?\na siren",
        "how many times is the bell heard?\ntwo",
        "is the bell high?\nlow",
    ];

    #[test]
    fn the_same_lines_give_the_same_files_and_text_goes_round() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let t = train(LINES.iter().copied(), 300, a.path()).unwrap();
        train(LINES.iter().copied(), 300, b.path()).unwrap();
        for file in [
            "tokenizer.json",
            "vocab.json",
            "merges.txt",
            "tokenizer_config.json",
        ] {
            let read = |d: &Path| std::fs::read(d.join(file)).unwrap();
            assert_eq!(read(a.path()), read(b.path()), "{file}");
        }
        let text = "is the siren heard? Zoë 音\n<SEP>";
        assert_eq!(t.decode(&t.encode(text).unwrap(), false).unwrap(), text);
        assert!(t.encode("the bell").unwrap().len() < "the bell".len());
        assert_eq!(t.sep, t.audio + 3);
        assert_eq!(t.len() as i64, t.sep + 1);
    }

    #[test]
    fn vocab_and_merges_alone_give_the_same_ids() {
        let folder = tempfile::tempdir().unwrap();
        let whole = train(LINES.iter().copied(), 300, folder.path()).unwrap();
        std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        let parts = Tokenizer::open(folder.path()).unwrap();
        for text in LINES.iter().chain(&["<audio>two bells<SEP>"]) {
            assert_eq!(whole.encode(text).unwrap(), parts.encode(text).unwrap());
        }
    }
}
