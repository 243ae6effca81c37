use super::scenes::Content;
use super::*;
use crate::data::manifest::Manifest;
use std::collections::{BTreeMap, HashMap, HashSet};

fn small() -> CorpusSpec {
    CorpusSpec {
        seed: 7,
        singles_per_class: 3,
        counting: 48,
        scenes: 12,
        attributes: 20,
        long: 3,
        val_fraction: 0.1,
        test_fraction: 0.2,
    }
}

fn made(spec: &CorpusSpec) -> (tempfile::TempDir, Corpus) {
    let folder = tempfile::tempdir().unwrap();
    let corpus = write(folder.path(), spec, &|_, _| {}).unwrap();
    (folder, corpus)
}

#[test]
fn a_seed_gives_the_same_bytes_and_another_gives_others() {
    let (a, corpus) = made(&small());
    let (b, _) = made(&small());
    let (c, _) = made(&CorpusSpec { seed: 8, ..small() });
    let files: Vec<_> = std::fs::read_dir(a.path().join("wavs"))
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    assert_eq!(files.len(), corpus.clips);
    let mut differ = 0;
    for f in &files {
        let read = |d: &Path| std::fs::read(d.join("wavs").join(f)).unwrap_or_default();
        assert_eq!(read(a.path()), read(b.path()), "{f:?}");
        differ += usize::from(read(a.path()) != read(c.path()));
    }
    assert_eq!(differ, files.len());
    for task in Task::ALL {
        let read =
            |d: &Path| std::fs::read(d.join("manifests").join(task.name()).join("train.json")).unwrap();
        assert_eq!(read(a.path()), read(b.path()));
    }
}

#[test]
fn no_sound_is_in_two_splits_and_none_is_empty() {
    let (d, _) = made(&small());
    let mut seen: HashMap<Vec<u8>, String> = HashMap::new();
    for f in std::fs::read_dir(d.path().join("wavs")).unwrap() {
        let path = f.unwrap().path();
        let mut wav = hound::WavReader::open(&path).unwrap();
        let loud = wav
            .samples::<i16>()
            .map(|s| s.unwrap().unsigned_abs())
            .max()
            .unwrap();
        assert!(loud > 3000, "{} is nearly silent", path.display());
        let other = seen.insert(std::fs::read(&path).unwrap(), path.display().to_string());
        assert_eq!(other, None);
    }
}

#[test]
fn answers_are_balanced_in_every_split_whatever_the_question() {
    let (d, corpus) = made(&small());
    for task in [Task::Counting, Task::Order, Task::Attribute, Task::Classification] {
        for split in Split::ALL {
            let path = d
                .path()
                .join("manifests")
                .join(task.name())
                .join(format!("{}.json", split.name()));
            let items = Manifest::open(&path).unwrap().items().unwrap();
            assert_eq!(items.len(), corpus.questions[task.name()][split.name()]);
            // Order: a pair asked one way round is always asked the other way round too.
            let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
            for item in &items {
                assert!(item.labels.contains(&item.output));
                *answers.entry(&item.output).or_default() += 1;
            }
            assert_eq!(answers.len(), items[0].labels.len(), "{task:?} {split:?}");
            let counts: HashSet<usize> = answers.values().copied().collect();
            assert_eq!(counts.len(), 1, "{task:?} {split:?}: {answers:?}");
        }
    }
}

#[test]
fn long_clips_ask_as_often_for_what_is_there_as_for_what_is_not() {
    let (d, _) = made(&small());
    let manifest = Manifest::open(&d.path().join("manifests/demo-LongAudio/train.json")).unwrap();
    let items = manifest.items().unwrap();
    let count = |word: &str| items.iter().filter(|i| i.output == word).count();
    assert_eq!(count("yes"), count("no"));
    assert!(items.iter().all(|i| i.duration.unwrap().0 >= 30.0));
}

/// The truth is read off the sound itself: a scene's events are apart in time, and the louder half-seconds of a
/// counting clip come in as many groups as the count says.
#[test]
fn counts_can_be_heard() {
    for clip in plan(&small()) {
        let Content::Counting(class, n) = &clip.content else {
            continue;
        };
        let sound = clip.render();
        let frame = (sound.rate / 20) as usize;
        let energy: Vec<f32> = sound.channels[0]
            .chunks(frame)
            .map(|c| c.iter().map(|x| x * x).sum::<f32>() / frame as f32)
            .collect();
        let most = energy.iter().copied().fold(0.0, f32::max);
        // A group begins where the level rises from below 2% of the loudest after at least a quarter of a second.
        let (mut groups, mut quiet) = (0, 100);
        for e in energy {
            if e > 0.02 * most {
                groups += usize::from(quiet >= 4);
                quiet = 0;
            } else {
                quiet += 1;
            }
        }
        assert_eq!(groups, *n, "{} {}", class.label, clip.name);
    }
}

#[test]
fn a_corpus_that_is_there_is_kept_and_a_half_written_one_is_not() {
    let (d, corpus) = made(&small());
    let called = std::sync::atomic::AtomicBool::new(false);
    let note = |_: usize, _: usize| called.store(true, Ordering::Relaxed);
    assert_eq!(write(d.path(), &small(), &note).unwrap(), corpus);
    assert!(!called.load(Ordering::Relaxed));
    std::fs::remove_file(d.path().join(SUMMARY)).unwrap();
    write(d.path(), &small(), &note).unwrap();
    assert!(called.load(Ordering::Relaxed));
}
