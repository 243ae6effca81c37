//! Features of a frozen encoder: each clip is encoded by one of the ranks, and all have the bits that one process has.
#![allow(clippy::unwrap_used)]

mod common;

use af2::data::feed::{Clip, Ears};
use af2::dist::{Facts, Place, Ranks};
use af2::ffi::c10d::StoreServer;
use af2::recipe::Precision;
use af2::shapes::Seconds;
use af2::train::jobs::curriculum::encoded::Encoded;
use common::tiny;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tch::Device;

/// What each of so many ranks, in threads of this process, makes of it.
fn ranks<T: Send>(world: usize, each: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
    let server = StoreServer::start().unwrap();
    let one = |rank: usize| {
        let place = Place {
            rank,
            world,
            local: rank,
            host: "127.0.0.1".into(),
            port: server.port,
            agent: true,
            again: false,
        };
        let ranks = Ranks::join(&place, Ok(Device::Cpu), Duration::from_secs(60), &Facts::new());
        each(&ranks.unwrap().0)
    };
    std::thread::scope(|scope| {
        let one = &one;
        let all: Vec<_> = (0..world).map(|rank| scope.spawn(move || one(rank))).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// The features of each clip, as numbers; none where there are none. Also the clips that could not be heard here.
type Heard = (Vec<Option<(Vec<i64>, Vec<f32>)>>, usize);

fn heard(clips: &[Clip], ranks: &Ranks) -> af2::Result<Heard> {
    let (model, ears) = (tiny(), Ears::new(0).on_threads(1)?);
    let (encoded, bad) = Encoded::of(&model, &ears, clips.iter(), Precision::Fp32, ranks, "test")?;
    let features = clips.iter().map(|clip| {
        let found = encoded.get(clip)?;
        Some((found.size(), Vec::try_from(found.flatten(0, -1)).unwrap()))
    });
    Ok((features.collect(), bad.len()))
}

/// Sounds of one to three windows, some of them heard twice from other places; one file is no sound.
fn clips(folder: &Path, count: usize, names: impl Fn(usize) -> PathBuf) -> Vec<Clip> {
    let mut all = Vec::new();
    for i in 0..count {
        let path = folder.join(names(i));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match i == 5 {
            true => fs::write(&path, "no sound").unwrap(),
            false => common::wav(&path, 3_000 + 170_000 * (i % 3) + i),
        }
        all.push(Clip::new(path.clone(), Seconds(0.0), 3));
        if i % 4 == 0 {
            all.push(Clip::new(path, Seconds(0.05), 3));
        }
    }
    all
}

fn plain(i: usize) -> PathBuf {
    format!("{i}.wav").into()
}

#[test]
fn every_rank_has_the_bits_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    for (world, count) in [(2, 22), (3, 22), (3, 2), (2, 6)] {
        let clips = clips(&folder.path().join(count.to_string()), count, plain);
        let (alone, bad) = heard(&clips, &Ranks::alone()).unwrap();
        assert_eq!(
            (bad, alone.iter().flatten().count() + bad),
            (usize::from(count > 5), clips.len())
        );
        let all = ranks(world, |ranks| heard(&clips, ranks).unwrap());
        assert_eq!(all.iter().map(|(_, bad)| bad).sum::<usize>(), bad);
        for (rank, (features, _)) in all.iter().enumerate() {
            for (i, (own, expected)) in features.iter().zip(&alone).enumerate() {
                assert!(own == expected, "{world} ranks, rank {rank}: {:?}", clips[i]);
            }
        }
    }
    // Nothing at all.
    for (features, bad) in ranks(2, |ranks| heard(&[], ranks).unwrap()) {
        assert!(features.is_empty() && bad == 0);
    }
}

#[test]
fn clips_that_cannot_be_heard_anywhere_are_known_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let clips: Vec<Clip> = (0..20)
        .map(|i| Clip::new(folder.path().join(plain(i)), Seconds(0.0), 1))
        .collect();
    let all = ranks(2, |ranks| heard(&clips, ranks).unwrap());
    for (features, _) in &all {
        assert!(features.iter().all(Option::is_none));
    }
    assert_eq!(all.iter().map(|(_, bad)| *bad).collect::<Vec<_>>(), [12, 8]);
}

#[test]
fn names_that_are_ordered_otherwise_on_a_rank_are_the_same_clips() {
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let names = [
        |i: usize| PathBuf::from(format!("{i:02}.wav")),
        |i: usize| PathBuf::from(format!("{:02}.wav", 50 - i)),
    ];
    let own = [0, 1].map(|rank| clips(folders[rank].path(), 12, names[rank]));
    let (alone, _) = heard(&own[0], &Ranks::alone()).unwrap();
    for (features, _) in ranks(2, |ranks| heard(&own[ranks.rank], ranks).unwrap()) {
        assert!(features == alone);
    }
}

#[test]
fn ranks_that_bring_other_clips_or_are_gone_leave_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let clips = clips(folder.path(), 4, plain);
    let said = ranks(2, |ranks| {
        heard(&clips[ranks.rank..], ranks).unwrap_err().to_string()
    });
    assert!(
        said.iter().all(|s| s.contains("not at the same place")),
        "{said:?}"
    );
    let said = ranks(2, |ranks| match ranks.rank {
        0 => heard(&clips, ranks).err().map(|e| e.exit_code()),
        _ => None,
    });
    assert_eq!(said, [Some(11), None]);
}
