//! `begun.json` in a stage's folder: from which checkpoint on the folder's are this run's.

use super::version;
use crate::error::Result;
use crate::fsutil::write_json;
use std::path::Path;

const NAME: &str = "begun.json";
const VERSION: u64 = 1;

/// Writes the number of the first checkpoint that is this run's.
pub(crate) fn write(stage: &Path, checkpoint: u64) -> Result<()> {
    write_json(
        &stage.join(NAME),
        &serde_json::json!({ "version": VERSION, "checkpoint": checkpoint }),
    )
}

/// That number; 0 where nothing says it.
///
/// # Errors
/// A file of a newer version.
pub(crate) fn read(stage: &Path) -> Result<u64> {
    let path = stage.join(NAME);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    version::check(text.as_bytes(), VERSION, &path, "version")?;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(value["checkpoint"].as_u64().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_and_what_older_runs_wrote_is_read() {
        let stage = tempfile::tempdir().unwrap();
        let path = stage.path().join(NAME);
        assert_eq!(read(stage.path()).unwrap(), 0);
        std::fs::write(&path, "{\n  \"checkpoint\": 3\n}").unwrap();
        assert_eq!(read(stage.path()).unwrap(), 3);
        std::fs::write(&path, "{\"version\": 2, \"first\": 3}").unwrap();
        let e = read(stage.path()).unwrap_err().to_string();
        assert!(e.contains("begun.json: version: "), "{e}");
        write(stage.path(), 5).unwrap();
        assert_eq!(read(stage.path()).unwrap(), 5);
    }
}
