//! Where a sound's bytes are.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A file of its own, or a stretch of another file such as a tar shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// What messages call it; the extension tells mp3 files from others.
    pub name: PathBuf,
    /// The file to open, where it is not `name`.
    pub container: Option<Stretch>,
}

/// Bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stretch {
    pub file: std::sync::Arc<Path>,
    pub at: u64,
    pub len: u64,
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
            None => drop(hasher.update_mmap(&self.name).map_err(io)?),
            Some(Stretch { file, at, len }) => {
                let mut file = File::open(file).map_err(io)?;
                file.seek(SeekFrom::Start(*at)).map_err(io)?;
                hasher.update_reader(file.take(*len)).map_err(io)?;
            }
        }
        Ok(hasher.finalize())
    }
}
