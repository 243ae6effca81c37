//! `run.lock`: who has the folder, while a run has it.

use super::version::{self, Versioned};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;
/// The file is not larger.
const MOST_BYTES: usize = 16 << 10;

pub(crate) fn path(run: &Path) -> PathBuf {
    run.join("run.lock")
}

/// Who has a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub host: String,
    /// Names the host since it was started: names of hosts are given twice.
    pub boot: String,
    pub process: u32,
    pub command: String,
    pub since_unix: u64,
    /// What would start this run again.
    pub launcher: Option<String>,
    /// This process's own word.
    pub word: String,
    /// How often it was written; of one length, so that the file never shrinks.
    pub renewed: String,
}

impl Holder {
    /// None where the file says nobody.
    pub(crate) fn read(file: &File) -> Option<Self> {
        serde_json::from_slice(&bytes(file)?).ok()
    }

    pub(crate) fn write(&self, file: &File) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&Versioned {
            version: VERSION,
            value: self,
        })?;
        text.push(b'\n');
        if file.metadata()?.len() != text.len() as u64 {
            file.set_len(0)?;
        }
        file.write_all_at(&text, 0)?;
        // Other hosts see what the file system has.
        file.sync_data()
    }
}

/// Fails where the file is of a newer version: whoever wrote it may have the folder, and may not.
pub(crate) fn check(file: &File, path: &Path) -> Result<()> {
    version::check(&bytes(file).unwrap_or_default(), VERSION, path, "version")
}

fn bytes(file: &File) -> Option<Vec<u8>> {
    let mut bytes = vec![0; MOST_BYTES];
    let n = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(n);
    Some(bytes)
}
