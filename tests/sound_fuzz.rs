//! Every kind of sound file, cut and with changed bytes: a sound or an error, and no more memory than a sound of that length
//! is worth. Alone in its process: every allocation of Rust is counted.
#![allow(clippy::unwrap_used)]

#[path = "common/counting.rs"]
mod counting;

use af2::audio::{self, Span};
use af2::shapes::Seconds;
use counting::{Counting, NOW, PEAK};
use rand::Rng;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

#[global_allocator]
static COUNTING: Counting = Counting;

/// A second of the highest rate in 64-bit float, several times over, and what decoders keep for themselves.
const MOST_MEMORY: usize = 96 << 20;
/// Bytes of a file that are kept: its headers and some of its sound.
const MOST_BYTES: usize = 60_000;
const CUTS: usize = 25;
const CHANGES: usize = 100;

fn fixtures() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut all = Vec::new();
    for folder in ["formats", "formats_more", "wavs"] {
        let files = std::fs::read_dir(golden.join(folder))
            .unwrap()
            .map(|f| f.unwrap().path());
        all.extend(files.filter(|p| !p.extension().is_some_and(|e| e == "md" || e == "json")));
    }
    all.sort();
    all
}

#[test]
fn cut_and_changed_files_give_a_sound_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let all = fixtures();
    assert!(all.len() > 45);
    let (mut sounds, mut errors) = (0, 0);
    for path in all {
        let whole = std::fs::read(&path).unwrap();
        let name = folder.path().join(path.file_name().unwrap());
        let mut members = Vec::new();
        for i in 0..CUTS {
            // Of the first bytes each, and anywhere.
            let at = if i < 10 {
                4 * i
            } else {
                rng.gen_range(0..whole.len())
            };
            members.push(whole[..at.min(whole.len())].to_vec());
        }
        for _ in 0..CHANGES {
            let mut bytes = whole[..whole.len().min(MOST_BYTES)].to_vec();
            for _ in 0..rng.gen_range(1..6) {
                // Headers are where it hurts.
                let within = [64, 600, bytes.len()][rng.gen_range(0..3)].min(bytes.len());
                let at = rng.gen_range(0..within);
                match rng.gen_range(0..4) {
                    0 => bytes[at] ^= 1 << rng.gen_range(0..8),
                    1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][rng.gen_range(0..5)],
                    2 => {
                        let end = (at + 4).min(bytes.len());
                        bytes[at..end].fill(0xFF);
                    }
                    _ => {
                        let to = rng.gen_range(at..bytes.len().min(at + 9));
                        bytes.drain(at..to);
                    }
                }
            }
            members.push(bytes);
        }
        for bytes in members {
            let _ = std::fs::remove_file(&name);
            std::fs::write(&name, &bytes).unwrap();
            let span = Span {
                start: Seconds([0.0, 0.01, 0.3][rng.gen_range(0..3)]),
                duration: Seconds(1.0),
            };
            PEAK.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
            let before = NOW.load(Ordering::Relaxed);
            match audio::load(&name, span) {
                Ok(samples) => {
                    assert!(
                        !samples.is_empty() && samples.len() <= 16_000,
                        "{}",
                        samples.len()
                    );
                    assert!(samples.iter().all(|v| v.abs() <= 1.0));
                    sounds += 1;
                }
                Err(e) => {
                    let file = name.file_name().unwrap().to_str().unwrap();
                    assert!(e.exit_code() == 5 && e.to_string().contains(file), "{e}");
                    errors += 1;
                }
            }
            let used = PEAK.load(Ordering::Relaxed).saturating_sub(before);
            if used > MOST_MEMORY {
                let kept = std::env::temp_dir().join("sound_fuzz_member");
                std::fs::write(&kept, &bytes).unwrap();
                panic!(
                    "{}: {used} bytes of memory; the file is kept as {}",
                    name.display(),
                    kept.display()
                );
            }
        }
    }
    assert!(sounds > 500 && errors > 500, "{sounds} sounds, {errors} errors");
}
