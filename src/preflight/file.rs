//! A file's first and last bytes: enough to tell what is not there, or is something else.

use crate::fsutil;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// So much of a file's beginning is looked at.
pub(crate) const HEAD: usize = 64 << 10;

/// What is wrong with what should be a file of data; none where it may be one.
pub(crate) fn wrong(path: &Path) -> Option<String> {
    match head(path) {
        Ok(head) => strange(&head),
        Err(found) => Some(found),
    }
}

/// Its first bytes.
///
/// # Errors
/// What was found instead, in words.
pub(crate) fn head(path: &Path) -> Result<Vec<u8>, String> {
    let file = open(path)?;
    let mut head = Vec::new();
    let read = file.take(HEAD as u64).read_to_end(&mut head);
    read.map_err(|e| said(path, &e)).map(|_| head)
}

/// Its last bytes that are no space; also of UTF-16.
pub(crate) fn last(path: &Path) -> Option<u8> {
    let mut file = open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(HEAD as u64)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(HEAD as u64).read_to_end(&mut tail).ok()?;
    let blank = |b: &u8| b.is_ascii_whitespace() || *b == 0;
    tail.into_iter().rev().find(|b| !blank(b))
}

/// What first bytes tell of a file that is none of data.
pub(crate) fn strange(head: &[u8]) -> Option<String> {
    if head.is_empty() {
        return Some("empty".into());
    }
    if let Some(says) = fsutil::lfs_pointer(head) {
        return Some(format!("{says}, not the file itself"));
    }
    let text = String::from_utf8_lossy(&head[..head.len().min(64)]).to_ascii_lowercase();
    let page = ["<!doctype html", "<html"];
    let page = page.iter().any(|sign| text.trim_start().starts_with(sign));
    page.then(|| "a web page: the download failed".into())
}

fn open(path: &Path) -> Result<File, String> {
    fsutil::open_regular(path).map_err(|e| match &e {
        crate::Error::Io { source, .. } => said(path, source),
        _ => e.to_string(),
    })
}

/// An error of the file system in few words.
pub(crate) fn said(path: &Path, e: &std::io::Error) -> String {
    match e.kind() {
        ErrorKind::NotFound if path.is_symlink() => "a link to what is not there".into(),
        // A file where a folder should be on the way is as good as none.
        ErrorKind::NotFound | ErrorKind::NotADirectory => "not there".into(),
        ErrorKind::PermissionDenied => "not to be read: no permission".into(),
        _ => {
            let text = e.to_string();
            let found = text.split_once("found ").map(|(_, found)| found.to_owned());
            found.unwrap_or(text)
        }
    }
}

/// What is wrong with what should be a folder.
pub(crate) fn no_folder(path: &Path) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(what) if what.is_dir() => None,
        Ok(_) => Some("no folder".into()),
        Err(e) => Some(said(path, &e)),
    }
}
