//! Files that are read here and there over a whole run. Few of them are open at a time: a data set of a thousand shards must
//! not use up the descriptors that sounds, sockets and threads need too.

use crate::error::{Error, Result};
use crate::fsutil::open_regular;
use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Files of all data sets that stay open; the usual limit of a process is 1,024.
const MOST_OPEN: usize = 64;

/// The same where the process may have few.
fn most_open() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"));
        let soft: Option<usize> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        soft.map_or(MOST_OPEN, |n| (n / 4).clamp(1, MOST_OPEN))
    })
}

/// Those that are open, the longest unused first.
static OPEN: Mutex<VecDeque<(u64, Arc<File>)>> = Mutex::new(VecDeque::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Files by their numbers.
#[derive(Debug, Default)]
pub(super) struct Files(Vec<Place>);

#[derive(Debug)]
struct Place {
    path: Arc<Path>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// Its number among all that the program reads, and what it was when it was opened first.
    File(u64, Stamp),
    /// Text that was not written in UTF-8.
    Text(Box<[u8]>),
}

/// What changes when a file is exchanged or written to.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([i64; 5]);

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Stamp([
            meta.dev() as i64,
            meta.ino() as i64,
            meta.size() as i64,
            meta.mtime(),
            meta.mtime_nsec(),
        ])
    }
}

impl Files {
    /// Keeps a file that was just opened.
    pub(crate) fn add(&mut self, path: &Path, file: File) -> Result<()> {
        let stamp = Stamp::of(&file.metadata().map_err(|e| Error::io(path, e))?);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        keep(number, Arc::new(file));
        self.0.push(Place {
            path: path.into(),
            held: Held::File(number, stamp),
        });
        Ok(())
    }

    /// Keeps a file's text in memory.
    pub(crate) fn add_text(&mut self, path: &Path, text: String) {
        self.0.push(Place {
            path: path.into(),
            held: Held::Text(text.into_bytes().into()),
        });
    }

    /// All files of another list, behind these.
    pub(crate) fn extend(&mut self, other: Files) {
        // What is dropped is empty.
        let mut other = other;
        self.0.append(&mut other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn path(&self, file: u32) -> &Arc<Path> {
        &self.0[file as usize].path
    }

    /// Bytes of a file from `at` on.
    ///
    /// # Errors
    /// A file that cannot be read, or that is another one than it was.
    pub(crate) fn read(&self, file: u32, at: u64, len: usize) -> Result<Vec<u8>> {
        let place = &self.0[file as usize];
        match &place.held {
            Held::Text(text) => {
                let at = at as usize;
                Ok(text.get(at..at + len).unwrap_or_default().to_vec())
            }
            Held::File(number, stamp) => {
                let mut bytes = vec![0; len];
                let file = match find(*number) {
                    Some(file) => file,
                    None => place.open_again(*number, stamp)?,
                };
                file.read_exact_at(&mut bytes, at).map_err(|e| match e.kind() {
                    ErrorKind::UnexpectedEof => changed(&place.path),
                    _ => Error::io(&place.path, e),
                })?;
                Ok(bytes)
            }
        }
    }
}

impl Place {
    fn open_again(&self, number: u64, stamp: &Stamp) -> Result<Arc<File>> {
        let file = open(&self.path)?;
        let meta = file.metadata().map_err(|e| Error::io(&self.path, e))?;
        if Stamp::of(&meta) != *stamp {
            return Err(changed(&self.path));
        }
        let file = Arc::new(file);
        keep(number, file.clone());
        Ok(file)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let own = |number: u64| {
            let is = |p: &Place| matches!(p.held, Held::File(n, _) if n == number);
            self.0.iter().any(is)
        };
        if !self.0.is_empty() {
            lock().retain(|(number, _)| !own(*number));
        }
    }
}

/// Opens a regular file. Where the process has too many open, those that only might be needed again are closed first.
pub(super) fn open(path: &Path) -> Result<File> {
    let too_many = |e: &Error| {
        let code = match e {
            Error::Io { source, .. } => source.raw_os_error(),
            _ => None,
        };
        matches!(code, Some(libc::EMFILE | libc::ENFILE))
    };
    match open_regular(path) {
        Err(e) if too_many(&e) => {
            lock().clear();
            open_regular(path).map_err(|e| match too_many(&e) {
                true => e.hint("the file itself was not looked at: `ulimit -n` shows how many may be open, `ulimit -n 4096` allows more"),
                false => e,
            })
        }
        opened => opened,
    }
}

pub(super) fn changed(path: &Path) -> Error {
    Error::data(
        path,
        "file",
        "the file that was there",
        "another, or other bytes in it",
    )
    .hint("the file changed while it was open")
}

fn find(number: u64) -> Option<Arc<File>> {
    let mut open = lock();
    let at = open.iter().rposition(|(n, _)| *n == number)?;
    let found = open.remove(at)?;
    let file = found.1.clone();
    open.push_back(found);
    Some(file)
}

fn keep(number: u64, file: Arc<File>) {
    let mut open = lock();
    if open.iter().any(|(n, _)| *n == number) {
        return;
    }
    while open.len() >= most_open() {
        open.pop_front();
    }
    open.push_back((number, file));
}

fn lock() -> MutexGuard<'static, VecDeque<(u64, Arc<File>)>> {
    // A list of handles: nothing is half done after a panic.
    OPEN.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_files_than_stay_open_are_all_read_and_a_changed_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |i: usize| folder.path().join(i.to_string());
        let mut files = Files::default();
        let many = 3 * MOST_OPEN;
        for i in 0..many {
            std::fs::write(path(i), format!("{i:05}")).unwrap();
            files.add(&path(i), open(&path(i)).unwrap()).unwrap();
        }
        for i in (0..many).chain((0..many).rev()) {
            assert_eq!(
                files.read(i as u32, 1, 4).unwrap(),
                format!("{i:05}").as_bytes()[1..]
            );
        }
        assert!(lock().len() <= MOST_OPEN);
        // The last ones were read at the beginning of the second round: they are closed by now.
        std::fs::write(path(many - 1), "longer than it was").unwrap();
        let e = files.read(many as u32 - 1, 0, 5).unwrap_err();
        assert!(e.to_string().contains("changed while it was open"), "{e}");
    }
}
