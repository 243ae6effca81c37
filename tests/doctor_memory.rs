//! What the data doctor keeps of an item does not grow with its texts. Alone in its process: every allocation of Rust is
//! counted.
#![allow(clippy::unwrap_used)]

#[path = "common/counting.rs"]
mod counting;

use af2::data::doctor::{examine, Checks};
use counting::{Counting, NOW, PEAK};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Different questions of half a kilobyte about one file that is missing.
fn manifest(folder: &Path, items: usize) -> PathBuf {
    let path = folder.join("many.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for i in 0..items {
        let prompt = format!("{i} {}", "what is heard? ".repeat(20));
        let output = format!("{} {i}", "a tone, ".repeat(20));
        writeln!(
            file,
            r#"{{"name": "gone.wav", "prompt": "{prompt}", "output": "{output}"}}"#
        )
        .unwrap();
    }
    path
}

#[test]
fn an_item_costs_some_hundred_bytes_whatever_its_texts() {
    let folder = tempfile::tempdir().unwrap();
    let peak = |items: usize| {
        let path = manifest(folder.path(), items);
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let checks = Checks {
            root: folder.path(),
            windows: 1,
            batch: 16,
            hash: true,
            tokenizer: None,
        };
        let found = examine(&[path], &checks).unwrap();
        assert_eq!(found.counts.values().sum::<usize>(), items);
        assert_eq!(
            found.findings.len() + found.left_out().values().sum::<usize>(),
            items
        );
        PEAK.load(Ordering::Relaxed) - before
    };
    // Findings are kept up to a hundred thousand, so that both hold the same number of them.
    let (few, many) = (peak(110_000), peak(160_000));
    let each = (many - few) / 50_000;
    println!("peak of {few} bytes at 110,000 items, {each} bytes for each more");
    assert!(each < 200, "{each} bytes for an item more");
    assert!(many < 100 << 20, "{many}");
}
