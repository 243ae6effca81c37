//! Tar shards in WebDataset's form: consecutive members of one name, a sound and its text, are a sample.
//!
//! | member | what |
//! |---|---|
//! | `NAME.wav`, `.flac`, `.mp3`, `.ogg`, `.m4a`, … | the sound |
//! | `NAME.json` | an item (`prompt`, `output`, …), or a caption under `caption` or `text` |
//! | `NAME.txt` | a caption |
//!
//! Shards are never unpacked: a member's place is noted when they are opened, and its bytes are read from there.

use super::item::{self, Item, Member, Problems};
use super::manifest::{Entry, Form, Keys, Manifest};
use crate::audio::Stretch;
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is asked about a sound that comes with a caption only.
pub const CAPTION_PROMPT: &str = "Describe the sound in detail.";
/// A sample's text is not longer.
const MOST_TEXT: u64 = 1 << 20;
const SOUNDS: &[&str] = &[
    "wav", "flac", "mp3", "ogg", "oga", "m4a", "mp4", "aac", "aif", "aiff", "caf",
];
/// Beside the shards that [`super::pack`] writes.
pub const INDEX: &str = "index.json";

/// What a packed folder says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    pub task: String,
    pub split: String,
    /// Items of all shards.
    pub items: usize,
    pub shards: usize,
    /// Window budget that the sounds were cut to; another one would have normalised them differently.
    pub windows: usize,
    /// Samples per second of the sounds.
    pub sample_rate: u32,
}

/// Where a sample's sound is.
#[derive(Debug, Clone)]
pub(super) struct Sound {
    pub name: Box<str>,
    pub at: u64,
    pub len: u64,
    /// Whether the text is a caption and no JSON.
    pub plain: bool,
}

/// Opens one `.tar`, or all of a folder in the order of their names.
pub(super) fn open(path: &Path) -> Result<Manifest> {
    let mut shards = vec![path.to_path_buf()];
    if path.is_dir() {
        let listed = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
        shards = listed
            .map(|f| Ok(f.map_err(|e| Error::io(path, e))?.path()))
            .collect::<Result<_>>()?;
        shards.retain(|p| p.extension().is_some_and(|e| e == "tar"));
        shards.sort();
    }
    if shards.is_empty() {
        return Err(Error::data(path, "folder", "shards, *.tar", "none")
            .hint("a manifest is a .json or .jsonl file, or a folder of tar shards"));
    }
    let read: Vec<Result<Shard>> = shards.par_iter().map(|p| Shard::read(p)).collect();
    let mut all = Manifest {
        path: path.to_path_buf(),
        task: name(path.parent().and_then(Path::file_name)),
        split: name(path.file_stem()),
        audio_folder: PathBuf::new(),
        form: Form::Shards,
        files: Vec::new(),
        entries: Vec::new(),
        keys: Keys::InOrder,
        sounds: Vec::new(),
        file_order: None,
    };
    let (mut keys, mut errors) = (Vec::new(), Vec::new());
    for (number, shard) in read.into_iter().enumerate() {
        match shard {
            Err(e) => errors.push(e),
            Ok(shard) => {
                all.files.push((shard.path, shard.file));
                for sample in shard.samples {
                    keys.push(sample.key);
                    all.sounds.push(sample.sound);
                    all.entries.push(Entry {
                        at: sample.text.0,
                        len: sample.text.1 as u32,
                        file: number as u32,
                    });
                }
            }
        }
    }
    let index = path.join(INDEX);
    if path.is_dir() && index.exists() {
        let text = crate::fsutil::read_text(&index)?;
        let said: Index = serde_json::from_str(&text)
            .map_err(|e| Error::data(&index, format!("line {}", e.line()), "an index", e.to_string()))?;
        for (key, said, found) in [
            ("items", said.items, all.len()),
            ("shards", said.shards, all.files.len()),
        ] {
            if errors.is_empty() && said != found {
                let e = Error::data(&index, key, format!("{found}, what is there"), said.to_string());
                errors.push(e.hint("shards are missing, or were added: pack the manifest again"));
            }
        }
        (all.task, all.split) = (said.task, said.split);
    }
    crate::error::all(errors)?;
    all.keys = Keys::Texts(keys);
    Ok(all)
}

fn name(part: Option<&std::ffi::OsStr>) -> String {
    part.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A shard's samples, in its order.
struct Shard {
    path: Arc<Path>,
    file: File,
    samples: Vec<Sample>,
}

struct Sample {
    key: Box<str>,
    sound: Sound,
    /// First byte and number of bytes.
    text: (u64, u64),
}

/// The members of one name.
#[derive(Default)]
struct Group {
    key: String,
    sound: Option<(String, u64, u64)>,
    json: Option<(u64, u64)>,
    plain: Option<(u64, u64)>,
}

impl Shard {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let bad = |e: std::io::Error| {
            Error::data(path, "member", "a whole tar file", e.to_string()).hint("copy or download it again")
        };
        let mut problems = Problems::new(path);
        let mut samples = Vec::new();
        let mut group = Group::default();
        // The archive reads headers only: it seeks over what the members hold.
        let mut archive = tar::Archive::new(file.try_clone().map_err(|e| Error::io(path, e))?);
        for member in archive.entries_with_seek().map_err(bad)? {
            let member = member.map_err(bad)?;
            let kind = member.header().entry_type();
            let named = String::from_utf8_lossy(&member.path_bytes()).into_owned();
            if kind.is_dir() || file_name(&named).starts_with("._") {
                continue;
            }
            if !kind.is_file() {
                let found = Value::from(format!("{kind:?}"));
                problems.add(&named, "a regular file", Some(&found));
                continue;
            }
            let (at, len) = (member.raw_file_position(), member.size());
            if at.checked_add(len).is_none_or(|end| end > length) {
                let found = Value::from(format!("{}: the shard is cut off", length.saturating_sub(at)));
                problems.add(&named, &format!("{len} bytes"), Some(&found));
                break;
            }
            let (key, extension) = split(&named);
            if key != group.key {
                let done = std::mem::replace(
                    &mut group,
                    Group {
                        key,
                        ..Group::default()
                    },
                );
                samples.extend(done.finish(&file, path, &mut problems));
            }
            let place = match extension.as_str() {
                "json" => &mut group.json,
                "txt" => &mut group.plain,
                e if SOUNDS.contains(&e) => {
                    if group.sound.replace((named.clone(), at, len)).is_some() {
                        let found = Value::from("two");
                        problems.add(&named, "one sound of a name", Some(&found));
                    }
                    continue;
                }
                _ => continue,
            };
            if len > MOST_TEXT {
                let found = Value::from(format!("{len} bytes"));
                problems.add(&named, &format!("at most {MOST_TEXT} bytes"), Some(&found));
                continue;
            }
            *place = Some((at, len));
        }
        samples.extend(group.finish(&file, path, &mut problems));
        problems.finish()?;
        Ok(Shard {
            path: path.into(),
            file,
            samples,
        })
    }
}

impl Group {
    fn finish(self, file: &File, path: &Path, problems: &mut Problems) -> Option<Sample> {
        let found = |what: &str| Some(Value::from(what));
        let (Some((name, at, len)), Some(text)) = (&self.sound, self.json.or(self.plain)) else {
            // Members that are neither sound nor text are none of our business.
            if self.sound.is_some() {
                problems.add(
                    &self.key,
                    "a .json or .txt beside the sound",
                    found("none").as_ref(),
                );
            } else if self.json.is_some() || self.plain.is_some() {
                problems.add(&self.key, "a sound beside the text", found("none").as_ref());
            }
            return None;
        };
        let sound = Sound {
            name: name.as_str().into(),
            at: *at,
            len: *len,
            plain: self.json.is_none(),
        };
        let mut bytes = vec![0; text.1 as usize];
        if let Err(e) = file.read_exact_at(&mut bytes, text.0) {
            problems.add(&self.key, "a text that reads", found(&e.to_string()).as_ref());
            return None;
        }
        read(&self.key, &Arc::from(path), &sound, &bytes, problems)?;
        Some(Sample {
            key: self.key.into(),
            sound,
            text,
        })
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A member's sample and its kind: WebDataset's names end at the first dot behind the last slash.
fn split(path: &str) -> (String, String) {
    let base = path.len() - file_name(path).len();
    let dot = path[base..].find('.').map_or(path.len(), |i| base + i);
    let extension = path.rsplit_once('.').map_or("", |(_, e)| e);
    (path[..dot].to_owned(), extension.to_ascii_lowercase())
}

/// The item that a sample's text says.
pub(super) fn item(key: &str, shard: &Arc<Path>, sound: &Sound, text: &[u8]) -> Result<Item> {
    let mut problems = Problems::new(shard);
    let item = read(key, shard, sound, text, &mut problems);
    problems.finish()?;
    item.ok_or_else(|| Error::data(&**shard, key, "a sample", "none"))
}

fn read(key: &str, shard: &Arc<Path>, sound: &Sound, text: &[u8], problems: &mut Problems) -> Option<Item> {
    let mut value = if sound.plain {
        let caption = String::from_utf8_lossy(text).trim().to_owned();
        serde_json::json!({"prompt": CAPTION_PROMPT, "output": caption})
    } else {
        match serde_json::from_slice::<Value>(text) {
            Ok(value) => value,
            Err(e) => {
                problems.add(
                    &format!("{key}.json"),
                    "a JSON object",
                    Some(&Value::from(e.to_string())),
                );
                return None;
            }
        }
    };
    let mut packed = None;
    let mut own_key = key.to_owned();
    if let Value::Object(fields) = &mut value {
        if !fields.contains_key("output") {
            let caption = ["caption", "text"].iter().find_map(|k| fields.get(*k));
            let caption = match caption {
                // Several captions of one sound: the first.
                Some(Value::Array(all)) => all.first().cloned(),
                other => other.cloned(),
            };
            if let Some(caption) = caption {
                fields.insert("output".into(), caption);
                fields.entry("prompt").or_insert(CAPTION_PROMPT.into());
            }
        }
        let windows = fields
            .get("af2")
            .and_then(|a| a.get("windows"))
            .and_then(Value::as_u64);
        packed = windows.map(|w| w as usize);
        if let Some(k) = fields
            .get("key")
            .and_then(Value::as_str)
            .filter(|_| packed.is_some())
        {
            own_key = k.to_owned();
        }
        fields.insert("name".into(), Value::from(&*sound.name));
    }
    let mut item = item::parse(&own_key, &format!("{key}.json"), Some(&value), problems)?;
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
