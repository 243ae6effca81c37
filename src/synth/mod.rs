//! The demo corpus: sound files by parametric synthesis, and manifests of true questions about them.

pub(crate) mod questions;
pub mod scenes;
pub(crate) mod sounds;

pub use scenes::CorpusSpec;

use crate::error::{Error, Result};
use crate::fsutil::{read_text, write_atomic_bytes};
use questions::{about, Task};
use rayon::prelude::*;
use scenes::{plan, Clip, Rendered, Split};
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the sound files lie below the root: the manifests' `split_path`.
const AUDIO: &str = "wavs";
/// What the corpus says of itself; written last, so that a half-written corpus is made again.
const SUMMARY: &str = "corpus.json";

/// A corpus on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Corpus {
    pub spec: CorpusSpec,
    #[serde(skip)]
    pub root: PathBuf,
    pub clips: usize,
    /// Of sound, over all clips.
    pub seconds: f64,
    /// task → split → questions.
    pub questions: BTreeMap<String, BTreeMap<String, usize>>,
}

/// Reads what a corpus says of itself.
pub(crate) fn open(root: &Path) -> Result<Corpus> {
    let path = root.join(SUMMARY);
    let mut corpus: Corpus = serde_json::from_str(&read_text(&path)?)
        .map_err(|e| Error::data(&path, "corpus", "the summary of a corpus", e.to_string()))?;
    corpus.root = root.to_path_buf();
    Ok(corpus)
}

/// Writes the corpus below `root`: `wavs/*.wav`, `manifests/TASK/SPLIT.json`, `corpus.json`. One that is there
/// with the same specification is kept. `progress` is told (clips done, clips in all), from any thread.
pub(crate) fn write(
    root: &Path,
    spec: &CorpusSpec,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Corpus> {
    spec.check()?;
    if let Some(corpus) = open(root).ok().filter(|c| c.spec == *spec) {
        return Ok(corpus);
    }
    let summary = root.join(SUMMARY);
    if summary.exists() {
        // From here on the old corpus is no longer what its summary says.
        std::fs::remove_file(&summary).map_err(|e| Error::io(&summary, e))?;
    }
    let folder = root.join(AUDIO);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    let clips = plan(spec);
    let done = AtomicUsize::new(0);
    let seconds: Vec<f64> = clips
        .par_iter()
        .map(|clip| {
            let sound = clip.render();
            write_wav(&folder.join(&clip.name), &sound)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, clips.len());
            Ok(sound.seconds())
        })
        .collect::<Result<_>>()?;
    let questions = write_manifests(root, spec, &clips, &seconds)?;
    let corpus = Corpus {
        spec: spec.clone(),
        root: root.to_path_buf(),
        clips: clips.len(),
        seconds: seconds.iter().sum(),
        questions,
    };
    let text = serde_json::to_vec_pretty(&corpus)
        .map_err(|e| Error::data(&summary, "corpus", "JSON", e.to_string()))?;
    write_atomic_bytes(&summary, &text)?;
    Ok(corpus)
}

fn write_wav(path: &Path, sound: &Rendered) -> Result<()> {
    let spec = hound::WavSpec {
        channels: sound.channels.len() as u16,
        sample_rate: sound.rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let failed = |e: hound::Error| match e {
        hound::Error::IoError(e) => Error::io(path, e),
        other => Error::audio(path, "a WAV file that can be written", other.to_string()),
    };
    let mut writer = hound::WavWriter::create(path, spec).map_err(failed)?;
    for i in 0..sound.channels.first().map_or(0, Vec::len) {
        for channel in &sound.channels {
            writer
                .write_sample((channel[i] * 32767.0) as i16)
                .map_err(failed)?;
        }
    }
    writer.finalize().map_err(failed)
}

fn write_manifests(
    root: &Path,
    spec: &CorpusSpec,
    clips: &[Clip],
    seconds: &[f64],
) -> Result<BTreeMap<String, BTreeMap<String, usize>>> {
    let mut sets: BTreeMap<(Task, Split), Map<String, Value>> = BTreeMap::new();
    for task in Task::ALL {
        for split in Split::ALL {
            sets.insert((task, split), Map::new());
        }
    }
    for (i, (clip, seconds)) in clips.iter().zip(seconds).enumerate() {
        for q in about(clip, spec.seed.wrapping_add(i as u64)) {
            let items = sets.entry((q.task, clip.split)).or_default();
            let mut item = json!({
                "name": clip.name,
                "prompt": q.prompt,
                "output": q.output,
                "duration": (seconds * 1000.0).round() / 1000.0,
            });
            if !q.labels.is_empty() {
                // Our own fields beside the reference's: the answers among which a guess would choose.
                item["chance"] = json!(1.0 / q.labels.len() as f64);
                item["labels"] = json!(q.labels);
            }
            items.insert(items.len().to_string(), item);
        }
    }
    let mut counts: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for ((task, split), items) in sets {
        let path = root
            .join("manifests")
            .join(task.name())
            .join(format!("{}.json", split.name()));
        let of_task = counts.entry(task.name().into()).or_default();
        of_task.insert(split.name().into(), items.len());
        let manifest = json!({
            "split": split.name(),
            "split_path": AUDIO,
            "flamingo_task": task.name(),
            "total_num": items.len(),
            "data": items,
        });
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::data(&path, "manifest", "JSON", e.to_string()))?;
        write_atomic_bytes(&path, &text)?;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests;
