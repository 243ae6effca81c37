//! The samples of a tar shard: which of its members belong together, and which of them count.

use super::fields::Fields;
use super::files::{self, Files};
use super::item::{self, Item, Member};
use super::problems::Problems;
use super::tar;
use crate::audio::Stretch;
use crate::error::{Error, Result};
use crate::fsutil;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What is asked about a sound that comes with a caption only.
pub const CAPTION_PROMPT: &str = "Describe the sound in detail.";
/// A sample's text is not longer.
const MOST_TEXT: u64 = 1 << 20;
/// No sound is shorter; what is may be a pointer to one.
const SHORTEST: u64 = 1 << 10;
/// Members of a sample; two of them are looked for.
const MOST_PARTS: usize = 1000;
/// Names of sounds, also of those that are refused by name when they are opened.
const SOUNDS: &[&str] = &[
    "wav", "flac", "mp3", "ogg", "oga", "m4a", "mp4", "aac", "aif", "aiff", "aifc", "caf", "au", "snd",
    "sph", "rf64", "bw64", "bwf", "w64", "opus", "mp2", "mka", "webm", "wma", "amr", "ape", "wv", "3gp",
];

/// Where a sample's sound is.
#[derive(Debug, Clone)]
pub(super) struct Sound {
    pub name: Box<str>,
    pub at: u64,
    pub len: u64,
    /// Whether the text is a caption and no JSON.
    pub plain: bool,
}

/// A shard's samples, in its order.
pub(super) struct Shard {
    pub files: Files,
    pub samples: Vec<Sample>,
}

pub(super) struct Sample {
    pub key: Box<str>,
    pub sound: Sound,
    /// First byte and number of bytes.
    pub text: (u64, u64),
}

/// The members of one name.
#[derive(Default)]
struct Group {
    key: String,
    parts: Vec<Part>,
}

struct Part {
    name: String,
    /// Between the first dot and the last; mostly nothing.
    middle: String,
    /// Behind the last dot.
    extension: String,
    at: u64,
    len: u64,
}

impl Part {
    fn is_sound(&self) -> bool {
        SOUNDS.contains(&self.extension.as_str())
    }

    fn is_text(&self) -> bool {
        ["json", "txt"].contains(&self.extension.as_str())
    }
}

impl Shard {
    /// Looks at all members, and reads the texts.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = files::open(path)?;
        let shared: Arc<Path> = path.into();
        let mut problems = Problems::new(path);
        let mut samples = Vec::new();
        let mut group = Group::default();
        tar::members(path, &file, &mut problems, |member, problems| {
            let Some((key, part)) = split(member) else {
                return;
            };
            if key != group.key {
                let done = std::mem::replace(
                    &mut group,
                    Group {
                        key,
                        parts: Vec::new(),
                    },
                );
                done.finish(&file, &shared, problems, &mut samples);
            }
            match group.parts.len() {
                MOST_PARTS => problems.add(
                    &part.name,
                    &format!("at most {MOST_PARTS} members of a name"),
                    "more",
                ),
                _ if part.is_sound() || part.is_text() => group.parts.push(part),
                _ => {}
            }
        })?;
        group.finish(&file, &shared, &mut problems, &mut samples);
        problems.finish()?;
        let mut files = Files::default();
        files.add(path, file)?;
        Ok(Shard { files, samples })
    }
}

impl Group {
    /// Its sample. Several where the sounds differ behind the first dot only.
    fn finish(mut self, file: &File, shard: &Arc<Path>, problems: &mut Problems, out: &mut Vec<Sample>) {
        for i in 1..self.parts.len() {
            let same = |p: &Part| p.middle == self.parts[i].middle && p.extension == self.parts[i].extension;
            if self.parts[..i].iter().any(same) {
                problems.add(&self.parts[i].name, "each member once", "it twice");
                return;
            }
        }
        let plain = self.parts.iter().any(|p| p.is_sound() && p.middle.is_empty());
        let sounds = self.parts.iter().filter(|p| p.is_sound()).count();
        if !plain && sounds > 1 {
            while let Some(first) = self.parts.iter().find(|p| p.is_sound()) {
                let middle = first.middle.clone();
                let (own, rest) = self.parts.into_iter().partition(|p| p.middle == middle);
                self.parts = rest;
                let key = format!("{}.{middle}", self.key);
                out.extend(Group { key, parts: own }.sample(file, shard, problems));
            }
            if let Some(text) = self.parts.iter().find(|p| p.is_text()) {
                problems.add(&text.name, "a sound beside the text", "several, none of its name");
            }
            return;
        }
        out.extend(self.sample(file, shard, problems));
    }

    fn sample(self, file: &File, shard: &Arc<Path>, problems: &mut Problems) -> Option<Sample> {
        let mut sounds: Vec<&Part> = self.parts.iter().filter(|p| p.is_sound()).collect();
        if sounds.iter().any(|p| p.middle.is_empty()) {
            sounds.retain(|p| p.middle.is_empty());
        }
        let texts: Vec<&Part> = self.parts.iter().filter(|p| p.is_text()).collect();
        let apart = "the members of a sample follow one another, as `tar --sort=name` writes them";
        let sound = match sounds[..] {
            [sound] => sound,
            [] if texts.is_empty() => return None, // neither sound nor text: none of our business
            [] => {
                problems.hint(&self.key, "a sound beside the text", "none", apart);
                return None;
            }
            [_, second, ..] => {
                problems.add(&second.name, "one sound of a name", "two");
                return None;
            }
        };
        let named = |middle: &str, extension: &str| {
            let is = |p: &&&Part| p.middle == middle && p.extension == extension;
            texts.iter().find(is).copied()
        };
        let own = &sound.middle;
        let text = named(own, "json")
            .or(named(own, "txt"))
            .or(named("", "json"))
            .or(named("", "txt"));
        let text = match (text, &texts[..]) {
            (Some(text), _) | (None, &[text]) => text,
            (None, &[]) => {
                problems.hint(&self.key, "a .json or .txt beside the sound", "none", apart);
                return None;
            }
            (None, &[first, second, ..]) => {
                let found = format!("{} and {}", first.name, second.name);
                problems.add(&self.key, "one text of a sound, NAME.json or NAME.txt", &found);
                return None;
            }
        };
        if text.len > MOST_TEXT {
            problems.add(
                &text.name,
                &format!("at most {MOST_TEXT} bytes"),
                &format!("{} bytes", text.len),
            );
            return None;
        }
        let mut bytes = |part: &Part| {
            let mut bytes = vec![0; part.len as usize];
            match file.read_exact_at(&mut bytes, part.at) {
                Ok(()) => Some(bytes),
                Err(e) => {
                    problems.add(&part.name, "bytes that can be read", &e.to_string());
                    None
                }
            }
        };
        let begins = match sound.len {
            0..SHORTEST => bytes(sound)?,
            _ => Vec::new(),
        };
        let written = bytes(text)?;
        if let Some(says) = fsutil::lfs_pointer(&begins) {
            problems.push(fsutil::lfs_error(&shard.join(&sound.name), &says));
            return None;
        }
        let place = Sound {
            name: sound.name.as_str().into(),
            at: sound.at,
            len: sound.len,
            plain: text.extension == "txt",
        };
        read(&self.key, &text.name, shard, &place, &written, problems)?;
        Some(Sample {
            key: self.key.into(),
            sound: place,
            text: (text.at, text.len),
        })
    }
}

/// A member's sample and what it is of it. None for what WebDataset passes over too, and what a Mac leaves.
fn split(member: tar::Member) -> Option<(String, Part)> {
    let tar::Member { name, at, len } = member;
    let (folder, base) = name.rsplit_once('/').unwrap_or(("", &name));
    let left = folder.split('/').any(|part| part == "__MACOSX") || base.starts_with('.');
    let about = name.starts_with("__") && name.ends_with("__");
    if left || about {
        return None;
    }
    let (stem, behind) = base.split_once('.')?;
    let key = name[..name.len() - base.len() + stem.len()].to_owned();
    let behind = behind.to_lowercase();
    let (middle, extension) = behind.rsplit_once('.').unwrap_or(("", &behind));
    let (middle, extension) = (middle.to_owned(), extension.to_owned());
    Some((
        key,
        Part {
            name,
            middle,
            extension,
            at,
            len,
        },
    ))
}

/// The item that a sample's text says.
pub(super) fn item(key: &str, shard: &Arc<Path>, sound: &Sound, text: &[u8]) -> Result<Item> {
    let mut problems = Problems::new(shard);
    let named = format!("{key}.json");
    let item = read(key, &named, shard, sound, text, &mut problems);
    problems.finish()?;
    item.ok_or_else(|| Error::data(&**shard, key, "a sample", "none"))
}

/// The text `named` of the sample `key`.
fn read(
    key: &str,
    named: &str,
    shard: &Arc<Path>,
    sound: &Sound,
    text: &[u8],
    problems: &mut Problems,
) -> Option<Item> {
    let text = match fsutil::text_from_bytes(&shard.join(named), text.to_vec()) {
        Ok(text) => text,
        Err(e) => {
            problems.push(e);
            return None;
        }
    };
    let mut own_key = key.to_owned();
    let (mut packed, mut fields) = (None, Fields::default());
    if sound.plain {
        fields.set("prompt", CAPTION_PROMPT.into());
        fields.set("output", text.trim().into());
    } else {
        let wanted = [item::FIELDS, &["caption", "text", "af2", "key"]].concat();
        fields = Fields::read(text.as_bytes(), &wanted, named, problems)?;
        let caption = ["caption", "text"].into_iter().find(|k| fields.get(k).is_some());
        if let Some(caption) = caption.filter(|_| fields.get("output").is_none()) {
            // Several captions of one sound: the first.
            let first = fields
                .get(caption)
                .and_then(Value::as_array)
                .and_then(|all| all.first());
            match first.cloned().filter(|_| fields.odd(caption).is_none()) {
                Some(first) => fields.set("output", first),
                None => fields.copy(caption, "output"),
            }
            if fields.get("prompt").is_none() {
                fields.set("prompt", CAPTION_PROMPT.into());
            }
        }
        let windows = fields.get("af2").and_then(|a| a.get("windows"));
        packed = windows.and_then(Value::as_u64).map(|w| w as usize);
        if let Some(k) = fields
            .get("key")
            .and_then(Value::as_str)
            .filter(|_| packed.is_some())
        {
            own_key = k.to_owned();
        }
    }
    fields.set("name", Value::from(&*sound.name));
    let mut item = item::parse(&own_key, named, &fields, problems)?;
    item.sound = Some(Member {
        place: Stretch {
            file: shard.clone(),
            at: sound.at,
            len: sound.len,
        },
        packed,
    });
    Some(item)
}
