//! The files of a manifest, each opened once, and those that have the same bytes.

use super::found::{short, sound, Checks, Diagnosis, Fault, Hash, MOST_KEPT};
use crate::audio::{decode::Reader, Source};
use crate::data::feed::Clip;
use crate::data::item::Item;
use crate::data::manifest::Manifest;
use crate::data::nearby;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// What a header tells of a file.
#[derive(Clone, Copy)]
pub(super) enum Heard {
    /// Seconds, where the container says.
    Sound(Option<f64>),
    /// A fault, and where its words are.
    Bad(Fault, u32),
}

/// The files of one manifest.
#[derive(Default)]
pub(super) struct Files {
    /// What stands for a sound → its number.
    known: HashMap<Hash, u32>,
    all: Vec<Heard>,
    /// What was wrong with missing files, and with unreadable ones.
    words: [Vec<Box<str>>; 2],
}

impl Files {
    /// Different files so far.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// What is known of the file of each item. New ones are opened, in parallel, and their bytes noted in `sounds`.
    pub(crate) fn hear(
        &mut self,
        (manifest, number): (&Manifest, u32),
        first: usize,
        items: &[Item],
        checks: &Checks,
        sounds: &mut Sounds,
    ) -> Vec<Heard> {
        let mut numbers = Vec::with_capacity(items.len());
        let mut new = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let next = self.known.len() as u32;
            let own = *self.known.entry(sound(item)).or_insert(next);
            if own == next {
                new.push(i);
            }
            numbers.push(own);
        }
        let open = |i: &usize| {
            let clip = Clip::of(manifest, &items[*i], checks.root, checks.windows);
            header(&clip.source, checks.hash).map_err(nearby::hinted)
        };
        let headers: Vec<Result<(Option<f64>, Option<blake3::Hash>)>> = new.par_iter().map(open).collect();
        for (i, header) in new.into_iter().zip(headers) {
            let heard = match header {
                Ok((seconds, bytes)) => {
                    let item = (first + i) as u32;
                    sounds.0.extend(bytes.map(|b| (short(&b), number, item)));
                    Heard::Sound(seconds)
                }
                Err(e) => self.bad(&e),
            };
            self.all.push(heard);
        }
        numbers.into_iter().map(|n| self.all[n as usize]).collect()
    }

    fn bad(&mut self, e: &Error) -> Heard {
        let missing = matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
        let (fault, words) = match missing {
            true => (Fault::MissingAudio, &mut self.words[0]),
            false => (Fault::UnreadableAudio, &mut self.words[1]),
        };
        // Behind these the items are counted only.
        if words.len() < MOST_KEPT {
            words.push(e.to_string().replace("\n  hint: ", "; ").into());
        }
        Heard::Bad(fault, words.len() as u32 - 1)
    }

    /// What is wrong with a file.
    pub(crate) fn words(&self, fault: Fault, number: u32) -> String {
        let of = usize::from(fault != Fault::MissingAudio);
        self.words[of]
            .get(number as usize)
            .map(|w| w.to_string())
            .unwrap_or_default()
    }
}

fn header(source: &Source, bytes: bool) -> Result<(Option<f64>, Option<blake3::Hash>)> {
    let reader = Reader::open_source(source)?;
    let seconds = reader.frames.map(|n| n as f64 / f64::from(reader.rate));
    let hash = match bytes {
        false => None,
        true => Some(source.hash()?),
    };
    Ok((seconds, hash))
}

/// The bytes of all files: whose they are, as manifest and item.
#[derive(Default)]
pub(super) struct Sounds(Vec<(Hash, u32, u32)>);

impl Sounds {
    /// Notes files with the same bytes in one manifest, and in two splits. Two sets of one split may ask about the same clips.
    pub(crate) fn twice(mut self, manifests: &[Manifest], checks: &Checks, all: &mut Diagnosis) {
        self.0.sort_unstable();
        for group in self.0.chunk_by_mut(|a, b| a.0 == b.0).filter(|g| g.len() > 1) {
            let place = |(_, m, item): &(Hash, u32, u32)| {
                let manifest = &manifests[*m as usize];
                (manifest.split.as_str(), manifest.path.as_path(), *item)
            };
            group.sort_by(|a, b| place(a).cmp(&place(b)));
            let file = |(_, m, item): &(Hash, u32, u32)| name(&manifests[*m as usize], *item, checks.root);
            let (split, path, _) = place(&group[0]);
            let mut first = None;
            for other in &group[1..] {
                let manifest = &manifests[other.1 as usize];
                let fault = match (manifest.split == split, manifest.path == path) {
                    (false, _) => Fault::Leak,
                    (true, true) => Fault::DuplicateAudio,
                    (true, false) => continue,
                };
                let what = || {
                    let first = first.get_or_insert_with(|| file(&group[0]));
                    format!(
                        "{} has the bytes of {first} in {} ({split})",
                        file(other),
                        path.display()
                    )
                };
                all.add(fault, &manifest.path, || manifest.key(other.2 as usize), what);
            }
        }
    }
}

/// The file of an item.
fn name(manifest: &Manifest, item: u32, root: &Path) -> String {
    match manifest.item(item as usize) {
        Ok(item) => manifest.audio_path(root, &item).display().to_string(),
        Err(e) => e.to_string(),
    }
}
