//! A file's bytes as the decoder library shall see them: a stretch of it, behind a header of ours where its own would be
//! misread.

use std::{
    fs::File,
    io::{self, Cursor, Read, Seek, SeekFrom},
    ops::Range,
    sync::Arc,
};
use symphonia::core::io::MediaSource;

/// Where the bytes are.
pub(super) enum Body {
    OnDisk(File),
    InMemory(Cursor<Arc<[u8]>>),
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Body::OnDisk(file) => file.read(buffer),
            Body::InMemory(bytes) => bytes.read(buffer),
        }
    }
}

impl Seek for Body {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Body::OnDisk(file) => file.seek(to),
            Body::InMemory(bytes) => bytes.seek(to),
        }
    }
}

/// Bytes to read and seek in.
pub(super) struct View {
    file: Body,
    /// Shown before the body.
    header: Vec<u8>,
    /// The part of the file that is shown.
    body: Range<u64>,
    position: u64,
}

impl View {
    /// The bytes `shown` of `file`.
    pub(crate) fn new(file: Body, shown: Range<u64>) -> Self {
        View {
            file,
            header: Vec::new(),
            body: shown,
            position: 0,
        }
    }

    /// `header`, and behind it the bytes `body` of what is shown so far, which has no header.
    pub(crate) fn behind(self, header: Vec<u8>, body: Range<u64>) -> Self {
        let place = |at: u64| self.body.start.saturating_add(at).min(self.body.end);
        View {
            header,
            body: place(body.start)..place(body.end),
            file: self.file,
            position: 0,
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.header.len() as u64 + (self.body.end - self.body.start)
    }

    /// `N` bytes at `at`, or nothing when there are fewer.
    pub(crate) fn read_at<const N: usize>(&mut self, at: u64) -> io::Result<Option<[u8; N]>> {
        self.seek(SeekFrom::Start(at))?;
        let mut bytes = [0; N];
        match self.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// At most so many bytes from `at` on.
    pub(crate) fn bytes_at(&mut self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        self.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        self.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for View {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(self.position).unwrap_or(usize::MAX);
        let n = match self.header.get(start..).filter(|rest| !rest.is_empty()) {
            Some(rest) => {
                let n = rest.len().min(buffer.len());
                buffer[..n].copy_from_slice(&rest[..n]);
                n
            }
            None => {
                let left = self.length().saturating_sub(self.position);
                let n = left.min(buffer.len() as u64) as usize;
                self.file.read(&mut buffer[..n])?
            }
        };
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for View {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let wanted = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length().checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a seek before the beginning");
        let wanted = wanted.ok_or_else(before)?;
        // While the header is read, the file waits where the body begins.
        let inside = wanted.saturating_sub(self.header.len() as u64);
        self.file
            .seek(SeekFrom::Start(self.body.start.saturating_add(inside)))?;
        self.position = wanted;
        Ok(wanted)
    }
}

impl MediaSource for View {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_and_a_stretch_read_as_one_file_from_anywhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"..0123456789....").unwrap();
        let whole = b"head23456";
        let mut view = View::new(Body::OnDisk(file.reopen().unwrap()), 2..12).behind(b"head".to_vec(), 2..7);
        assert_eq!(view.length(), 9);
        for at in 0..=9 {
            for size in 1..10 {
                view.seek(SeekFrom::Start(at)).unwrap();
                let mut read: Vec<u8> = Vec::new();
                let mut piece = vec![0; size];
                loop {
                    match view.read(&mut piece).unwrap() {
                        0 => break,
                        n => read.extend(&piece[..n]),
                    }
                }
                assert_eq!(read, &whole[at as usize..]);
            }
        }
        assert_eq!(view.read_at::<2>(3).unwrap(), Some(*b"d2"));
        assert_eq!(view.read_at::<2>(8).unwrap(), None);
        assert_eq!(view.bytes_at(7, 100).unwrap(), b"56");
        assert_eq!(view.seek(SeekFrom::End(-1)).unwrap(), 8);
        assert!(view.seek(SeekFrom::Current(-9)).is_err());
    }

    #[test]
    fn a_stretch_ends_where_the_file_shown_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"0123456789").unwrap();
        let mut view = View::new(Body::OnDisk(file.reopen().unwrap()), 2..6).behind(Vec::new(), 1..u64::MAX);
        assert_eq!(view.bytes_at(0, 100).unwrap(), b"345");
    }
}
