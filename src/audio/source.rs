//! Where a sound's bytes are.

use crate::error::{Error, Result};
use crate::fsutil::open_regular;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use unicode_normalization::UnicodeNormalization;

/// A sound up to this size is read whole for its [fingerprint](Source::fingerprint)…
const WHOLE: u64 = 256 << 10;
/// …a larger one in so many pieces, from its first byte to its last.
const PIECES: u64 = 16;

/// A file of its own, or a stretch of another file such as a tar shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// What messages call it; the extension tells mp3 files from others.
    pub name: PathBuf,
    /// The file to open, where it is not `name`.
    pub container: Option<Stretch>,
}

/// Bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stretch {
    /// The file that holds them.
    pub file: Arc<Path>,
    /// The first byte, from 0.
    pub at: u64,
    /// How many bytes.
    pub len: u64,
}

/// Where the bytes of a sound are that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'p> {
    /// In the file of its name.
    Named,
    Within(&'p Stretch),
    InMemory(&'p Arc<[u8]>),
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Source {
            name: path.to_path_buf(),
            container: None,
        }
    }
}

impl Source {
    /// A hash of its bytes, whatever it is called.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be read.
    pub fn hash(&self) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        let io = |e| Error::io(&self.name, e);
        match &self.container {
            None => {
                open(&self.name)?;
                hasher.update_mmap(&self.name).map_err(io)?;
            }
            Some(Stretch { file, at, len }) => {
                let mut file = open(file)?;
                file.seek(SeekFrom::Start(*at)).map_err(io)?;
                hasher.update_reader(file.take(*len)).map_err(io)?;
            }
        }
        Ok(hasher.finalize())
    }

    /// Tells this sound from others, whatever it is called and wherever it lies, for the price of reading 256 KiB: a hash of its
    /// size and, up to that size, of its bytes; of 16 pieces spread evenly over a larger one. A change of a few samples within a
    /// large file of the same size can go unseen; an encoding, a loudness or a length that is another does not.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn fingerprint(&self) -> Result<blake3::Hash> {
        let io = |e| Error::io(&self.name, e);
        let (mut file, begins, len) = match &self.container {
            None => {
                let file = open(&self.name)?;
                let len = file.metadata().map_err(io)?.len();
                (file, 0, len)
            }
            Some(Stretch { file, at, len }) => (open(file)?, *at, *len),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&len.to_le_bytes());
        let (pieces, each) = match len <= WHOLE {
            true => (1, len),
            false => (PIECES, WHOLE / PIECES),
        };
        for piece in 0..pieces {
            let at = u128::from(len - each) * u128::from(piece) / u128::from(PIECES - 1);
            file.seek(SeekFrom::Start(begins + at as u64)).map_err(io)?;
            hasher.update_reader((&mut file).take(each)).map_err(io)?;
        }
        Ok(hasher.finalize())
    }
}

/// Opens a sound file: a regular one, for a sound is read from its middle and more than once.
///
/// # Errors
/// [`Error::Io`], with a hint for pipes and devices, and where the same name is there in another Unicode form.
pub(super) fn open(path: &Path) -> Result<File> {
    open_regular(path).map_err(|e| match &e {
        Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => other_form(path).unwrap_or(e),
        Error::Io { source, .. } if source.kind() == ErrorKind::InvalidInput && !path.is_dir() => {
            e.hint("a sound is read from its middle, and more than once: write it into a file, for example: ffmpeg -i INPUT out.wav")
        }
        _ => e,
    })
}

/// The error of a name that is there in another Unicode form: looks the same, and is another to the file system.
fn other_form(path: &Path) -> Option<Error> {
    let (mut there, mut decomposed) = (PathBuf::new(), None);
    for part in path.components() {
        let asked = there.join(part);
        if asked.symlink_metadata().is_ok() {
            there = asked;
            continue;
        }
        let name = part.as_os_str().to_str()?;
        let (composed, apart): (String, String) = (name.nfc().collect(), name.nfd().collect());
        let mut forms = [(composed, false), (apart, true)]
            .into_iter()
            .filter(|(form, _)| form != name);
        let (form, is_apart) = forms.find(|(form, _)| there.join(form).symlink_metadata().is_ok())?;
        there.push(form);
        decomposed = Some(is_apart);
    }
    let [asked, found] = match decomposed? {
        true => ["composed (NFC)", "decomposed (NFD), as macOS writes it"],
        false => ["decomposed (NFD)", "composed (NFC)"],
    };
    let what = format!("no file of this name, which is {asked}; the same name is there, {found}");
    let form = if decomposed? { "--nfc" } else { "--nfd" };
    Some(
        Error::io(path, std::io::Error::new(ErrorKind::NotFound, what)).hint(format!(
            "another Unicode form is another name: rename it, for example: convmv -f utf8 -t utf8 {form} --notest FILE"
        )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_sound_is_told_by_its_bytes_and_not_by_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let of = |path: &Path| Source::from(path).fingerprint().unwrap();
        let noise = |n: usize| -> Vec<u8> { (0..n).map(|i| (i * i / 7 % 251) as u8).collect() };
        for n in [0, 1, WHOLE as usize, WHOLE as usize + 1, 3_000_001] {
            let bytes = noise(n);
            let here = of(&write("a.wav", &bytes));
            assert_eq!(here, of(&write("b.wav", &bytes)));
            let held = [&[7; 5][..], &bytes, &[9; 3]].concat();
            let stretch = Source {
                name: "a.tar/b.wav".into(),
                container: Some(Stretch {
                    file: Arc::from(write("a.tar", &held)),
                    at: 5,
                    len: n as u64,
                }),
            };
            assert_eq!(stretch.fingerprint().unwrap(), here);
            for at in [0, n / 2, n.saturating_sub(1)].into_iter().filter(|at| *at < n) {
                let mut other = bytes.clone();
                other[at] ^= 1;
                let seen = n < 3_000_000 || at != n / 2;
                assert_eq!(of(&write("c.wav", &other)) != here, seen, "{n} {at}");
            }
            assert_ne!(of(&write("d.wav", &[&bytes[..], &[0]].concat())), here);
        }
        assert_eq!(
            Source::from(folder.path().join("e.wav").as_path())
                .fingerprint()
                .unwrap_err()
                .exit_code(),
            3
        );
    }
}
