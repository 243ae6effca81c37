//! Writing that loses nothing: temporary file beside the target, fsync, rename.

use crate::error::{Error, Result};
use std::{
    fs::{self, File},
    io::{BufWriter, Seek, Write},
    path::Path,
};

/// A file in the making: what was written may be gone back to.
pub trait Out: Write + Seek {}
impl<T: Write + Seek> Out for T {}

/// Writes `path` whole or not at all; makes its folder when it is missing.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Out) -> Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let io = |e| Error::io(path, e);
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    // Named by what it becomes, so that one that a killed writer left can be told.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".tmp")
        .tempfile_in(folder)
        .map_err(io)?;
    let mut out = BufWriter::new(temporary);
    fill(&mut out)?;
    let temporary = out.into_inner().map_err(|e| Error::io(path, e.into_error()))?;
    temporary.as_file().sync_all().map_err(io)?;
    // tempfile makes files 0600; a result that others may not read surprises on shared disks.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temporary
            .as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))
            .map_err(io)?;
    }
    temporary.persist(path).map_err(|e| Error::io(path, e.error))?;
    // The rename itself must survive a power cut.
    File::open(folder)
        .and_then(|d| d.sync_all())
        .map_err(|e| Error::io(folder, e))
}

/// [`write_atomic`] of bytes at hand.
pub fn write_atomic_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |w| w.write_all(bytes).map_err(|e| Error::io(path, e)))
}

/// Reads a text file, naming it when that fails.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

/// Writes a JSON file, indented.
pub fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::data(path, "value", "something that JSON can say", e.to_string()))?;
    write_atomic_bytes(path, &text)
}

/// Reads a YAML file; errors name the line.
pub fn read_yaml(path: &Path) -> Result<serde_yaml::Value> {
    serde_yaml::from_str(&read_text(path)?).map_err(|e| Error::Recipe {
        file: path.display().to_string(),
        line: e.location().map(|l| (l.line(), l.column())),
        message: e.to_string(),
        hint: None,
    })
}
