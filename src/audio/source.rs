//! Where a sound's bytes are.

use crate::error::{Error, Result};
use crate::fsutil::open_regular;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use unicode_normalization::UnicodeNormalization;

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
