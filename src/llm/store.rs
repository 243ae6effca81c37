//! `answers-N.jsonl`: what was asked and what came back, one a line, for good. Each process that asks has a file of its own, so
//! that none is written by two; what any of them holds is not asked again.
//!
//! A line has `hash` (the sha256 of `request` as it stands there), `request` ([`Request::canonical`](super::Request::canonical)),
//! `host`, `dialect` (in which words it was sent), `tries`, `usage` and `answer`, the server's own JSON.

use super::answer::{self, Answer, Usage};
use super::halt::lock;
use super::request::{hash, Dialect};
use crate::error::{Error, Result};
use crate::fsutil::{create_next, open_regular};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const VERSION: u64 = 1;
/// A longer line is not one of ours.
pub(super) const MOST_LINE: u64 = 64 << 20;
/// A power cut takes at most so many answers…
const MOST_UNSYNCED: usize = 64;
/// …or those of so long a time. A killed process loses none.
const LONGEST_UNSYNCED: Duration = Duration::from_secs(2);

/// What is kept of a call.
pub(super) struct Kept<'a> {
    pub hash: &'a str,
    pub request: &'a Value,
    pub host: &'a str,
    pub dialect: Option<Dialect>,
    pub tries: u32,
    pub usage: Usage,
    pub answer: &'a Value,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    hash: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialect: Option<Dialect>,
    tries: u32,
    usage: [u64; 2],
    estimated: bool,
    request: &'a Value,
    answer: &'a Value,
}

#[derive(Deserialize)]
struct Line<'a> {
    version: u64,
    hash: String,
    usage: [u64; 2],
    estimated: bool,
    #[serde(borrow)]
    request: &'a RawValue,
    answer: Value,
}

/// Answers by their requests' hashes.
pub(super) struct Store {
    folder: Option<PathBuf>,
    known: Mutex<HashMap<String, Answer>>,
    file: Mutex<Writer>,
}

#[derive(Default)]
struct Writer {
    /// From the first answer on.
    open: Option<(PathBuf, File)>,
    unsynced: usize,
    synced: Option<Instant>,
}

impl Store {
    /// All answers of a folder, which is made with the first one; without a folder they are kept in memory alone.
    ///
    /// # Errors
    /// The first line that is none of ours, by file and number. A last line without its end was being written when its process was
    /// killed, and is left out.
    pub(super) fn open(folder: Option<PathBuf>) -> Result<Self> {
        let mut known = HashMap::new();
        for path in folder
            .iter()
            .map(|f| files(f))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
        {
            lines(&path, |place, line| {
                if line.last() == Some(&b'\n') {
                    let (hash, answer) = read(&path, place, line)?;
                    known.entry(hash).or_insert(answer);
                }
                Ok(())
            })?;
        }
        Ok(Store {
            folder,
            known: Mutex::new(known),
            file: Mutex::default(),
        })
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub(super) fn get(&self, hash: &str) -> Option<Answer> {
        lock(&self.known).get(hash).cloned()
    }

    pub(super) fn has(&self, hash: &str) -> bool {
        lock(&self.known).contains_key(hash)
    }

    /// Keeps an answer: in its file when this returns, on the disk soon after.
    pub(super) fn add(&self, kept: &Kept, answer: &Answer) -> Result<()> {
        if let Some(folder) = &self.folder {
            let written = Written {
                version: VERSION,
                hash: kept.hash,
                host: kept.host,
                dialect: kept.dialect,
                tries: kept.tries,
                usage: [kept.usage.prompt, kept.usage.completion],
                estimated: kept.usage.estimated,
                request: kept.request,
                answer: kept.answer,
            };
            let mut text = serde_json::to_vec(&written)
                .map_err(|e| Error::data(folder, "answer", "something that JSON can say", e.to_string()))?;
            text.push(b'\n');
            lock(&self.file).add(folder, &text)?;
        }
        let stored = Answer {
            stored: true,
            ..answer.clone()
        };
        lock(&self.known).entry(kept.hash.to_owned()).or_insert(stored);
        Ok(())
    }

    /// All of it is on the disk.
    pub(super) fn sync(&self) -> Result<()> {
        lock(&self.file).sync()
    }
}

impl Writer {
    fn add(&mut self, folder: &Path, text: &[u8]) -> Result<()> {
        let (path, file) = match &mut self.open {
            Some(open) => open,
            none => none.insert(create_next(folder, |n| format!("answers-{n:04}.jsonl"))?),
        };
        file.write_all(text).map_err(|e| {
            Error::io(&*path, e)
                .hint("what was answered before is kept: the same command asks only what is left")
        })?;
        self.unsynced += 1;
        let since = *self.synced.get_or_insert_with(Instant::now);
        match self.unsynced >= MOST_UNSYNCED || since.elapsed() > LONGEST_UNSYNCED {
            true => self.sync(),
            false => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<()> {
        if let Some((path, file)) = self.open.as_ref().filter(|_| self.unsynced > 0) {
            file.sync_data().map_err(|e| Error::io(path, e))?;
        }
        self.unsynced = 0;
        self.synced = Some(Instant::now());
        Ok(())
    }
}

fn read(path: &Path, place: &str, line: &[u8]) -> Result<(String, Answer)> {
    let wrong = |expected: &str, found: String| Error::data(path, place, expected, found);
    let line: Line = serde_json::from_slice(line).map_err(|e| {
        let e = wrong("a stored answer as JSON", e.to_string());
        e.hint("take the line out to have its question asked again")
    })?;
    if line.version > VERSION {
        let e = wrong("version 1 of this file", format!("version {}", line.version));
        return Err(e.hint("a newer af2 has written it: that one reads it"));
    }
    let own = hash(line.request.get().as_bytes());
    if own != line.hash {
        let e = wrong(
            &format!("the hash of its request, {own}"),
            crate::error::short(&line.hash),
        );
        return Err(e.hint("the line was changed: an answer belongs to the request that it was given to"));
    }
    let usage = Usage {
        prompt: line.usage[0],
        completion: line.usage[1],
        estimated: line.estimated,
    };
    let answer =
        answer::read(&line.answer, usage.prompt).map_err(|e| wrong("an answer of chat completions", e))?;
    Ok((
        line.hash,
        Answer {
            usage,
            stored: true,
            ..answer
        },
    ))
}

/// A folder's files, by their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("answers-") && name.ends_with(".jsonl") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Every line with its end, where it has one, and its number in words, from 1.
pub(super) fn lines(path: &Path, mut each: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, open_regular(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        let place = format!("line {number}");
        line.clear();
        let mut bounded = (&mut reader).take(MOST_LINE + 1);
        match bounded
            .read_until(b'\n', &mut line)
            .map_err(|e| Error::io(path, e))?
        {
            0 => break,
            n if n as u64 > MOST_LINE => {
                return Err(Error::data(
                    path,
                    place,
                    format!("at most {MOST_LINE} bytes"),
                    "more",
                ));
            }
            _ => each(&place, &line)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::request::{Message, Request, Sampling};
    use super::*;
    use serde_json::json;

    fn request(n: usize) -> Request {
        Request {
            model: "m".into(),
            messages: vec![Message::user(format!("question {n}: why \"so\"?"))],
            sampling: Sampling::default(),
            schema: None,
            run: 0,
            about: String::new(),
        }
    }

    fn add(store: &Store, n: usize) {
        let (request, body) = (
            request(n),
            json!({"choices": [{"message": {"content": format!("since {n}")}}]}),
        );
        let answer = answer::read(&body, 7).unwrap();
        let kept = Kept {
            hash: &request.hash(),
            request: &request.canonical(),
            host: "h:1",
            dialect: None,
            tries: 1,
            usage: answer.usage,
            answer: &body,
        };
        store.add(&kept, &answer).unwrap();
    }

    fn found(folder: &Path) -> Vec<usize> {
        let store = Store::open(Some(folder.to_owned())).unwrap();
        (0..9)
            .filter(|n| {
                store
                    .get(&request(*n).hash())
                    .is_some_and(|a| a.text == format!("since {n}"))
            })
            .collect()
    }

    #[test]
    fn what_was_answered_is_there_again_but_for_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(found(folder.path()), [0; 0]);
        let first = Store::open(Some(folder.path().to_owned())).unwrap();
        add(&first, 0);
        add(&first, 1);
        let again = Store::open(Some(folder.path().to_owned())).unwrap();
        add(&again, 2);
        first.sync().unwrap();
        assert_eq!(found(folder.path()), [0, 1, 2]);
        let file = folder.path().join("answers-0001.jsonl");
        let whole = fs::read(&file).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            assert_eq!(found(folder.path()), [0, 1], "{cut}");
        }
        let open = || Store::open(Some(folder.path().to_owned()));
        for (broken, says) in [
            ("\n".to_owned(), "a stored answer as JSON"),
            (
                String::from_utf8(whole.clone())
                    .unwrap()
                    .replace("question 2", "question 3"),
                "the hash of its request",
            ),
            (
                String::from_utf8(whole.clone())
                    .unwrap()
                    .replace("\"version\":1", "\"version\":2"),
                "found version 2",
            ),
        ] {
            fs::write(&file, broken).unwrap();
            let e = open().err().unwrap();
            let text = e.to_string();
            assert!(
                text.contains("answers-0001.jsonl: line 1: ") && text.contains(says),
                "{text}"
            );
            assert_eq!(e.exit_code(), 6);
        }
    }

    #[test]
    fn without_a_folder_answers_are_kept_in_memory() {
        let store = Store::open(None).unwrap();
        add(&store, 0);
        assert!(store.has(&request(0).hash()) && !store.has(&request(1).hash()));
        assert!(store.get(&request(0).hash()).unwrap().stored);
    }
}
