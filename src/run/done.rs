//! `done.json` in a stage's folder: the stage's model is written, and the stage is not run again.

use super::version;
use crate::error::Result;
use crate::fsutil::write_json;
use std::path::{Path, PathBuf};

const VERSION: u64 = 1;

pub(crate) fn path(stage: &Path) -> PathBuf {
    stage.join("done.json")
}

/// Writes that a stage is done, in so many steps.
pub(crate) fn write(stage: &Path, steps: usize) -> Result<()> {
    write_json(
        &path(stage),
        &serde_json::json!({ "version": VERSION, "steps": steps }),
    )
}

/// The steps of a stage that is done; 0 where nothing says so.
///
/// # Errors
/// A file of a newer version.
pub(crate) fn read(stage: &Path) -> Result<u64> {
    let path = path(stage);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    version::check(text.as_bytes(), VERSION, &path, "version")?;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(value["steps"].as_u64().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_and_what_older_runs_wrote_is_read() {
        let stage = tempfile::tempdir().unwrap();
        let read_of = |text: &str| {
            std::fs::write(path(stage.path()), text).unwrap();
            read(stage.path())
        };
        assert_eq!(read(stage.path()).unwrap(), 0);
        assert_eq!(read_of("{\n  \"steps\": 12\n}").unwrap(), 12);
        assert_eq!(read_of("{\"ste").unwrap(), 0);
        let e = read_of("{\"version\": 2, \"steps\": 12}")
            .unwrap_err()
            .to_string();
        assert!(e.contains("done.json: version: "), "{e}");
        write(stage.path(), 7).unwrap();
        assert_eq!(read(stage.path()).unwrap(), 7);
        let text = std::fs::read_to_string(path(stage.path())).unwrap();
        assert_eq!(text, "{\n  \"version\": 1,\n  \"steps\": 7\n}");
    }
}
