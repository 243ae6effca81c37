//! Opening a manifest: which form it has, and who reads that.

use super::kinds::{self, Kind};
use super::manifest::Manifest;
use super::problems::hinted;
use super::{files, json, lines, nearby, shards};
use crate::error::{Error, Result};
use std::path::Path;

const WHOLE: &str = "the file is one JSON value, not a value a line: let its name end in .json";

impl Manifest {
    /// Opens a manifest of any form: the reference's JSON, a list of items, JSON lines, a tar shard or a folder of them.
    /// Everything that is wrong with the file is told at once.
    ///
    /// # Errors
    /// What is no regular file, and what is none of these, by its name where that is known.
    pub fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path)
            .map_err(|e| Error::io(path, e).hint("data.sets names manifests relative to data.root"))
            .map_err(nearby::hinted)?;
        if meta.is_dir() {
            return shards::open(path);
        }
        let file = files::open(path)?;
        let first = kinds::first(path, &file)?;
        let is = |extensions: &[&str]| {
            let own = path.extension().map(|e| e.to_ascii_lowercase());
            own.is_some_and(|e| extensions.iter().any(|x| e == *x))
        };
        let kind = match is(&["tar"]) {
            true => Kind::Tar,
            false => kinds::of(path, &first)?,
        };
        match kind {
            Kind::Tar => shards::open(path),
            kind if is(&["jsonl", "ndjson", "jsonlines"]) => {
                // A JSON manifest under the other's name.
                lines::open(path, file, kind).map_err(|e| match json::whole(path) {
                    true => hinted(e, WHOLE),
                    false => e,
                })
            }
            kind => json::open(path, file, kind),
        }
    }
}
