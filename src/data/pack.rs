//! Shards of sound that is ready to be heard: decoded, resampled, normalised and cut once, then read without any of it.

use super::feed::Example;
use super::item::Item;
use super::manifest::Manifest;
use super::shards::{Index, INDEX};
use super::skips::Ledger;
use crate::audio::{load_source, to_int16_f64};
use crate::error::{Error, Result};
use crate::fsutil::{write_atomic, write_json};
use crate::shapes::SAMPLE_RATE;
use rand::seq::SliceRandom;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use rayon::prelude::*;
use serde_json::json;
use std::io::{Cursor, Write};
use std::path::Path;

/// Items that are decoded at once: the memory is theirs.
const AT_ONCE: usize = 64;
/// A header of a member, and what rounds it up.
const TAR_BLOCK: usize = 512;

/// How a manifest is packed.
pub(crate) struct Packing<'a> {
    /// Audio paths are relative to this.
    pub root: &'a Path,
    /// Most windows of 10 s of an item: what the stage that hears it says.
    pub windows: usize,
    /// A shard is closed before it grows larger.
    pub shard_bytes: usize,
    /// Mixes the items, because shards are read from front to back; none keeps the manifest's order.
    pub shuffle: Option<u64>,
}

/// Writes `shard-000000.tar`, … and the index into `folder`. `step` is called with the number of items done.
///
/// Members are `NNNNNNNNN.wav` (16 kHz, mono, int16, exactly what the model would hear of the file) and
/// `NNNNNNNNN.json` (the item, where it came from, and the window budget).
///
/// # Errors
/// A folder that holds shards already; files that cannot be written; more bad items than the ledger's budget allows.
pub(crate) fn pack(
    manifest: &Manifest,
    folder: &Path,
    packing: &Packing,
    ledger: &Ledger,
    step: impl Fn(usize),
) -> Result<Index> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let listed = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let is_shard = |p: &Path| p.extension().is_some_and(|e| e == "tar");
    if let Some(old) = listed.flatten().map(|f| f.path()).find(|p| is_shard(p)) {
        return Err(Error::data(&old, "folder", "no shards yet", "one")
            .hint("name another folder with --out, or remove the old shards"));
    }
    let mut order: Vec<usize> = (0..manifest.len()).collect();
    if let Some(seed) = packing.shuffle {
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    }
    let mut samples = order.chunks(AT_ONCE).flat_map(|items| {
        let made: Vec<Result<Sample>> = items.par_iter().map(|i| sample(manifest, *i, packing)).collect();
        step(items.len());
        let kept = items.iter().zip(made).filter_map(|(i, made)| match made {
            Ok(sample) => Some(Ok(sample)),
            Err(reason) => {
                let path = match manifest.item(*i) {
                    Ok(item) => manifest.audio_path(packing.root, &item),
                    Err(_) => manifest.path.clone(),
                };
                let noted = ledger.skip(&path, &manifest.key(*i), &reason, None);
                noted.err().map(Err)
            }
        });
        kept.collect::<Vec<_>>()
    });
    let (mut written, mut shards) = (0, 0);
    let mut next = samples.next();
    while next.is_some() {
        let path = folder.join(format!("shard-{shards:06}.tar"));
        write_atomic(&path, |w| {
            let mut tar = tar::Builder::new(w);
            let mut size = 0;
            while let Some(sample) = next.take() {
                let sample = sample?;
                let more = sample.wav.len() + sample.json.len() + 4 * TAR_BLOCK;
                if size > 0 && size + more > packing.shard_bytes {
                    next = Some(Ok(sample));
                    break;
                }
                size += more;
                for (extension, bytes) in [("wav", &sample.wav), ("json", &sample.json)] {
                    add(&mut tar, &format!("{written:09}.{extension}"), bytes)
                        .map_err(|e| Error::io(&path, e))?;
                }
                written += 1;
                next = samples.next();
            }
            tar.finish().map_err(|e| Error::io(&path, e))
        })?;
        shards += 1;
    }
    let index = Index {
        task: manifest.task.clone(),
        split: manifest.split.clone(),
        items: written,
        shards,
        windows: packing.windows,
        sample_rate: SAMPLE_RATE,
    };
    write_json(&folder.join(INDEX), &json!(index))?;
    Ok(index)
}

/// A member with a header that says nothing of when and by whom: the same items make the same bytes.
fn add<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}

struct Sample {
    wav: Vec<u8>,
    json: Vec<u8>,
}

fn sample(manifest: &Manifest, index: usize, packing: &Packing) -> Result<Sample> {
    let example = Example::read(manifest, index, packing.root, packing.windows)?;
    let samples = load_source(&example.clip.source, example.clip.span())?;
    let ints: Vec<i16> = samples.into_iter().map(to_int16_f64).collect();
    let json = json_of(&example.item, ints.len(), packing.windows);
    Ok(Sample {
        wav: wav(&ints).map_err(|e| Error::audio(example.clip.path(), "samples that pack", e.to_string()))?,
        json: json.to_string().into_bytes(),
    })
}

fn json_of(item: &Item, samples: usize, windows: usize) -> serde_json::Value {
    let mut json = json!({
        "key": item.key,
        "prompt": item.prompt,
        "output": item.output,
        "duration": samples as f64 / f64::from(SAMPLE_RATE),
        "source": {"name": item.name, "audio_start": item.audio_start.0},
        "af2": {"windows": windows},
    });
    if !item.labels.is_empty() {
        json["labels"] = json!(item.labels);
    }
    if let Some(chance) = item.chance {
        json["chance"] = json!(chance);
    }
    json
}

fn wav(samples: &[i16]) -> std::result::Result<Vec<u8>, hound::Error> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = Cursor::new(Vec::with_capacity(44 + 2 * samples.len()));
    let mut writer = hound::WavWriter::new(&mut bytes, spec)?;
    let mut fast = writer.get_i16_writer(samples.len() as u32);
    samples.iter().for_each(|s| fast.write_sample(*s));
    fast.flush()?;
    writer.finalize()?;
    Ok(bytes.into_inner())
}
