//! Writing that loses nothing: temporary file beside the target, fsync, rename.

use crate::error::{Error, Result};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A file in the making: what was written may be gone back to.
pub(crate) trait Out: Write + Seek {}
impl<T: Write + Seek> Out for T {}

/// Writes `path` whole or not at all; makes its folder when it is missing.
pub(crate) fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Out) -> Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let io = |e| Error::io(path, e);
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    // Named by what it becomes, so that one that a killed writer left can be told.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut how = tempfile::Builder::new();
    let (prefix, suffix) = (format!(".{name}."), ".tmp");
    how.prefix(&prefix).suffix(suffix);
    // tempfile makes files 0600; a result that others may not read surprises on shared disks. The umask takes off what it must.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        how.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = how.tempfile_in(folder).map_err(io)?;
    let mut out = BufWriter::new(temporary);
    fill(&mut out)?;
    let temporary = out.into_inner().map_err(|e| Error::io(path, e.into_error()))?;
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(path).map_err(|e| Error::io(path, e.error))?;
    // The rename itself must survive a power cut.
    File::open(folder)
        .and_then(|d| d.sync_all())
        .map_err(|e| Error::io(folder, e))
}

/// [`write_atomic`] of bytes at hand.
pub(crate) fn write_atomic_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |w| w.write_all(bytes).map_err(|e| Error::io(path, e)))
}

/// A file to append to that no other process has: the first of these names that is free. Makes the folder when it is missing.
pub(crate) fn create_next(folder: &Path, name: impl Fn(usize) -> String) -> Result<(PathBuf, File)> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let mut n = 0;
    loop {
        let path = folder.join(name(n));
        match File::options().append(true).create_new(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => n += 1,
            Err(e) => return Err(Error::io(path, e)),
            Ok(file) => {
                // Its name must survive a power cut as well.
                let synced = File::open(folder).and_then(|d| d.sync_all());
                synced.map_err(|e| Error::io(folder, e))?;
                return Ok((path, file));
            }
        }
    }
}

/// Bytes of a hash, in small letters.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The sha256 of a file's bytes, in small letters.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = open_regular(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Text files larger than this are not believed.
pub(crate) const MOST_TEXT: u64 = 256 << 20;

/// What every pointer of git-lfs begins with.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Opens a file for reading: a regular one, or a link to one. A named pipe would hold the program until somebody writes into
/// it, a device may have no end.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let refused = |found: &str| Error::Io {
        path: path.to_path_buf(),
        source: std::io::Error::new(
            ErrorKind::InvalidInput,
            format!("expected a regular file, found {found}"),
        ),
        hint: Some("write it into a file first".into()),
    };
    let io = |e| Error::io(path, e);
    // Before it is opened, which is not without effect on some devices, and after: it may have been exchanged between.
    if let Some(found) = irregular(&fs::metadata(path).map_err(io)?) {
        return Err(refused(found));
    }
    let mut how = fs::OpenOptions::new();
    how.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        how.custom_flags(libc::O_NONBLOCK);
    }
    let file = how.open(path).map_err(io)?;
    match irregular(&file.metadata().map_err(io)?) {
        Some(found) => Err(refused(found)),
        None => Ok(file),
    }
}

/// What a path leads to where that is no regular file.
fn irregular(what: &fs::Metadata) -> Option<&'static str> {
    let kind = what.file_type();
    if kind.is_file() {
        return None;
    }
    if kind.is_dir() {
        return Some("a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a pipe");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
        if kind.is_char_device() || kind.is_block_device() {
            return Some("a device");
        }
    }
    Some("something else")
}

/// Reads a text file of at most [`MOST_TEXT`] bytes, naming it when that fails.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    read_text_within(path, MOST_TEXT)
}

/// Reads a text file of at most so many bytes: UTF-8, with a byte order mark or without, or UTF-16 with one.
pub(crate) fn read_text_within(path: &Path, most: u64) -> Result<String> {
    let mut file = open_regular(path)?;
    let io = |e| Error::io(path, e);
    let size = file.metadata().map_err(io)?.len();
    let mut bytes = Vec::new();
    if size <= most {
        bytes = match size {
            LARGE.. => in_parts(&mut file, size as usize).map_err(io)?,
            size => Vec::with_capacity(size as usize),
        };
        // Some file systems give their files no size.
        let left = (most + 1).saturating_sub(bytes.len() as u64);
        file.take(left).read_to_end(&mut bytes).map_err(io)?;
    }
    let found = size.max(bytes.len() as u64);
    if found > most {
        return Err(invalid(
            path,
            format!("expected a text file of at most {most} bytes, found {found}"),
            "is it the right file?",
        ));
    }
    text_from_bytes(path, bytes)
}

/// From so many bytes on, a file is read in parts at once.
const LARGE: u64 = 16 << 20;

/// The first bytes of a file, as many as it is said to have or fewer; it goes on behind them.
fn in_parts(file: &mut File, size: usize) -> std::io::Result<Vec<u8>> {
    const PART: usize = 8 << 20;
    let mut bytes = vec![0; size];
    let shared = &*file;
    let read: Vec<usize> = bytes
        .par_chunks_mut(PART)
        .enumerate()
        .map(|(i, part)| {
            let mut got = 0;
            while got < part.len() {
                match shared.read_at(&mut part[got..], (i * PART + got) as u64) {
                    Ok(0) => break,
                    Ok(n) => got += n,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(got)
        })
        .collect::<std::io::Result<_>>()?;
    // It may have become shorter since.
    let whole = read.iter().take_while(|got| **got == PART).count();
    bytes.truncate(whole * PART + read.get(whole).copied().unwrap_or(0));
    file.seek(SeekFrom::Start(bytes.len() as u64))?;
    Ok(bytes)
}

/// A text file's bytes as text: UTF-8, with a byte order mark or without, or UTF-16 with one.
pub(crate) fn text_from_bytes(path: &Path, mut bytes: Vec<u8>) -> Result<String> {
    if let Some(says) = lfs_pointer(&bytes) {
        return Err(lfs_error(path, &says));
    }
    match bytes.as_slice() {
        [0xef, 0xbb, 0xbf, ..] => {
            bytes.drain(..3);
        }
        [0xff, 0xfe, rest @ ..] => return utf16(path, rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return utf16(path, rest, u16::from_be_bytes),
        _ => {}
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        invalid(
            path,
            format!(
                "expected text in UTF-8, found the byte {:#04x} in line {line} (byte {at} of the file)",
                e.as_bytes()[at]
            ),
            "save it as UTF-8",
        )
    })
}

fn utf16(path: &Path, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String> {
    let refused = |what: &str| {
        invalid(
            path,
            format!("expected text in UTF-16, as its byte order mark says, found {what}"),
            "save it as UTF-8",
        )
    };
    if !bytes.len().is_multiple_of(2) {
        return Err(refused("half a character at its end"));
    }
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    char::decode_utf16(units)
        .collect::<std::result::Result<String, _>>()
        .map_err(|e| refused(&format!("the lone surrogate {:#06x}", e.unpaired_surrogate())))
}

fn invalid(path: &Path, what: String, hint: &str) -> Error {
    Error::io(path, std::io::Error::new(ErrorKind::InvalidData, what)).hint(hint)
}

/// What stands in the place of a file that git-lfs keeps elsewhere: how large the file itself is, in words.
pub(crate) fn lfs_pointer(first_bytes: &[u8]) -> Option<String> {
    let rest = first_bytes.strip_prefix(LFS)?;
    let text = String::from_utf8_lossy(&rest[..rest.len().min(1024)]);
    let size = text.lines().find_map(|l| l.strip_prefix("size "));
    Some(match size.and_then(|s| s.trim().parse::<u64>().ok()) {
        Some(bytes) => format!("a git-lfs pointer to a file of {bytes} bytes"),
        None => "a git-lfs pointer".into(),
    })
}

/// A file that is a git-lfs pointer, as [`lfs_pointer`] words it.
pub(crate) fn lfs_error(path: &Path, says: &str) -> Error {
    invalid(
        path,
        format!("expected the file itself, found {says}"),
        "`git lfs pull` fetches it in a git checkout, `hf download REPOSITORY` from Hugging Face",
    )
}

/// Writes a JSON file, indented.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::data(path, "value", "something that JSON can say", e.to_string()))?;
    write_atomic_bytes(path, &text)
}

/// Reads a YAML file of at most [`crate::yaml::MOST_BYTES`]; errors name the line.
pub(crate) fn read_yaml(path: &Path) -> Result<serde_yaml::Value> {
    let text = read_text_within(path, crate::yaml::MOST_BYTES)?;
    crate::yaml::value(&text, &path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<String> {
        text_from_bytes(Path::new("m.json"), bytes.to_vec())
    }

    #[test]
    fn text_of_other_tools_is_read_whatever_its_byte_order_mark() {
        let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}aé𝄞".encode_utf16().flat_map(unit).collect()
        };
        for bytes in [
            "aé𝄞".as_bytes().to_vec(),
            "\u{feff}aé𝄞".as_bytes().to_vec(),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
        ] {
            assert_eq!(text(&bytes).unwrap(), "aé𝄞");
        }
        assert_eq!(text(b"").unwrap(), "");
    }

    #[test]
    fn what_is_no_text_is_named() {
        for (bytes, found) in [
            (&b"a\nb\xe9"[..], "0xe9 in line 2 (byte 3 of the file)"),
            (b"\xff\xfea", "half a character"),
            (b"\xff\xfe\x3d\xd8a\0", "lone surrogate 0xd83d"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n",
                "a git-lfs pointer to a file of 123 bytes",
            ),
        ] {
            let e = text(bytes).unwrap_err().to_string();
            assert!(e.starts_with("m.json: ") && e.contains(found), "{e}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pipes_devices_and_folders_are_no_text_files() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success());
        let socket = folder.path().join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, found) in [
            (fifo.as_path(), "a pipe"),
            (Path::new("/dev/zero"), "a device"),
            (Path::new("/dev/null"), "a device"),
            (folder.path(), "a folder"),
            (socket.as_path(), "a socket"),
        ] {
            let e = read_text(path).unwrap_err();
            assert!(e.to_string().contains(found), "{e}");
            assert_eq!(e.exit_code(), 3);
        }
    }

    #[test]
    fn a_text_file_beyond_belief_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let e = read_text(&path).unwrap_err().to_string();
        assert!(e.contains("at most 268435456 bytes, found 1099511627776"), "{e}");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text_within(&path, 5).unwrap(), "12345");
        assert!(read_text_within(&path, 4).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_open_to_others_as_the_umask_says() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [plain, atomic] = ["plain", "atomic"].map(|n| folder.path().join(n));
        fs::write(&plain, "x").unwrap();
        write_atomic_bytes(&atomic, b"x").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&atomic), mode(&plain));
    }
}
