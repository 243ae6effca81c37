//! `environment.json`: where a run was started, and by what.

use super::version::Versioned;
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use serde::Serialize;
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;

pub(crate) fn path(run: &Path) -> PathBuf {
    run.join("environment.json")
}

/// Where a rank ran.
#[derive(Debug, Serialize)]
pub(crate) struct Rank {
    pub host: String,
    /// Cores that it may run on, as the kernel lists them, and its share of them.
    pub cpus: String,
    pub cores: usize,
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub(crate) struct Environment {
    /// Versions.
    pub af2: &'static str,
    pub libtorch: &'static str,
    pub device: String,
    /// Threads of libtorch, and cores that the process may run on.
    pub threads: i32,
    pub cpus: usize,
    /// Each rank's place.
    pub ranks: Vec<Rank>,
    /// The processor's name.
    pub cpu: String,
    pub os: &'static str,
    pub arch: &'static str,
    /// Seconds since 1970.
    pub started_unix: u64,
    /// The command line behind the program's name.
    pub command: Vec<String>,
}

impl Environment {
    pub(crate) fn write(&self, run: &Path) -> Result<()> {
        let written = Versioned {
            version: VERSION,
            value: self,
        };
        let text = serde_json::to_vec_pretty(&written)
            .map_err(|e| Error::recipe("environment.json", e.to_string()))?;
        write_atomic_bytes(&path(run), &text)
    }
}
