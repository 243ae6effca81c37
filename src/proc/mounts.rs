//! What is mounted where, by `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The folder of its file system that is seen at `at`.
    pub root: PathBuf,
    pub at: PathBuf,
    pub kind: String,
    /// The device, or the server and its path.
    pub source: String,
    /// Options of the file system itself.
    pub options: String,
}

/// All mounts, in the order in which they were made.
pub(crate) fn read(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; before the dash any number of fields.
fn line(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    Some(Mount {
        root: unescaped(before.next()?).into(),
        at: unescaped(before.next()?).into(),
        kind: after.next()?.into(),
        source: unescaped(after.next()?),
        options: after.next().unwrap_or_default().into(),
    })
}

/// A space is `\040`, a tab `\011`, a new line `\012`, a backslash `\134`.
fn unescaped(text: &str) -> String {
    let mut plain = text.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, character);
    }
    plain
}

/// The mount that a path without links lies on: the deepest, and of several at one place the last.
pub(crate) fn of<'m>(mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    let over = mounts.iter().filter(|m| path.starts_with(&m.at));
    over.max_by_key(|m| m.at.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_is_a_paths() {
        let mounts = read(
            "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
             27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n\
             28 27 0:40 / /data rw - nfs4 server:/export/a\\040b rw,vers=4.2\n\
             29 28 0:41 / /data/my\\040runs rw - ext4 /dev/vdb rw\n\
             30 28 0:42 /sub /data/my\\040runs rw - tmpfs none rw,size=4k\n\
             a line of something else\n",
        );
        assert_eq!(mounts.len(), 5);
        let kind = |path: &str| of(&mounts, Path::new(path)).unwrap().kind.as_str();
        assert_eq!(kind("/home"), "ext4");
        assert_eq!(kind("/data/x"), "nfs4");
        assert_eq!(kind("/data/my runs/1"), "tmpfs");
        assert_eq!(kind("/database"), "ext4");
        assert_eq!(
            of(&mounts, Path::new("/data")).unwrap().source,
            "server:/export/a b"
        );
        assert_eq!(mounts[4].root, Path::new("/sub"));
    }
}
