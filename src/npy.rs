//! numpy's `.npy` files ([format 1.0 to 3.0](https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)), which may
//! come from anywhere: nothing of a header is believed before it fits the file.

use crate::error::{short, Error, Result};
use crate::fsutil;
use half::f16;
use ndarray::{Array2, ShapeBuilder};
use std::fs::File;
use std::io::Read;
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// numpy itself refuses to parse headers above 10,000 bytes.
const MOST_HEADER: usize = 1 << 16;
/// 2 GiB as float64.
const MOST_VALUES: u64 = 1 << 28;

/// A matrix of numbers, as float64, in row-major or column-major order as the file has it. float16, float32, float64, integers
/// and booleans are read, of either byte order; NaN and infinities are left as they are.
///
/// # Errors
/// A file that cannot be read; one that is no `.npy` file, is cut short or longer than its header says, holds objects, records,
/// text or complex numbers, has other than two dimensions or more than 2²⁸ values; an integer beyond 2⁵³, which float64 has not.
pub(crate) fn matrix(path: &Path) -> Result<Array2<f64>> {
    let mut file = fsutil::open_regular(path)?;
    let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let (header, begin) = header(path, &mut file, size)?;
    let refuse = |key: &str, expected: &str, found: String| Error::data(path, key, expected, found);
    let [rows, columns] = match header.shape.as_slice() {
        [rows, columns] => [*rows, *columns],
        other => {
            let shape: Vec<String> = other.iter().map(u64::to_string).collect();
            let found = format!("{}: ({})", dimensions(other.len()), shape.join(", "));
            let hint = match other {
                [_] => "a single row is np.save(…, x[None, :]), a single column x[:, None]",
                _ => "x.reshape(-1, x.shape[-1]) puts all leading dimensions into rows",
            };
            return Err(refuse("shape", "two dimensions: (rows, columns)", found).hint(hint));
        }
    };
    let kind = Kind::of(&header.descr).map_err(|(expected, hint)| {
        let e = refuse("descr", expected, format!("'{}'", short(&header.descr)));
        match hint {
            Some(hint) => e.hint(hint),
            None => e,
        }
    })?;
    let values = rows.checked_mul(columns).filter(|n| *n <= MOST_VALUES);
    let Some(values) = values else {
        let expected = format!("at most {MOST_VALUES} values");
        return Err(refuse("shape", &expected, format!("({rows}, {columns})")));
    };
    let bytes = values * kind.width() as u64;
    if begin + bytes != size {
        let expected = format!(
            "{} bytes: a header of {begin}, and ({rows}, {columns}) values of {}",
            begin + bytes,
            kind.width()
        );
        let hint = match begin + bytes > size {
            true => "the file was cut short: write or copy it again",
            false => "one array a file: are there several in it?",
        };
        return Err(refuse("size", &expected, size.to_string()).hint(hint));
    }
    let values = read(path, &mut file, values as usize, kind)?;
    let shape = (rows as usize, columns as usize);
    let array = match header.fortran_order {
        true => Array2::from_shape_vec(shape.f(), values),
        false => Array2::from_shape_vec(shape, values),
    };
    array.map_err(|e| refuse("shape", "one that fits the values", e.to_string()))
}

fn dimensions(n: usize) -> String {
    match n {
        0 => "a single value".into(),
        1 => "one dimension".into(),
        n => format!("{n} dimensions"),
    }
}

/// What the header says, and where the values begin.
fn header(path: &Path, file: &mut File, size: u64) -> Result<(Header, u64)> {
    let refuse = |key: &str, expected: &str, found: String| Error::data(path, key, expected, found);
    let mut first = Vec::new();
    let io = |e| Error::io(path, e);
    file.by_ref().take(10).read_to_end(&mut first).map_err(io)?;
    let (Some(rest), 10) = (first.strip_prefix(MAGIC), first.len()) else {
        // A pointer's size stands behind its first bytes.
        file.take(256).read_to_end(&mut first).map_err(io)?;
        if let Some(says) = fsutil::lfs_pointer(&first) {
            return Err(fsutil::lfs_error(path, &says));
        }
        let e = refuse(
            "first bytes",
            "those of an .npy file, as np.save writes it",
            beginning(&first),
        );
        return Err(match &first[..] {
            [b'P', b'K', 3 | 5, ..] => {
                e.hint("this is an .npz or another zip: write the one array with np.save")
            }
            [0x80, ..] => {
                e.hint("this looks like a pickle, which could run code: write the array with np.save")
            }
            _ => e.hint("np.save(\"name.npy\", array)"),
        });
    };
    let version = (rest[0], rest[1]);
    let mut length = [rest[2], rest[3], 0, 0];
    let begin = match version {
        (1, 0) => 10,
        (2 | 3, 0) => {
            file.read_exact(&mut length[2..]).map_err(|e| cut(path, e))?;
            12
        }
        (major, minor) => {
            return Err(refuse("version", "1.0, 2.0 or 3.0", format!("{major}.{minor}")));
        }
    };
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_HEADER || begin + length as u64 > size {
        let expected = format!("a header of at most {MOST_HEADER} bytes, within the file's {size}");
        return Err(refuse("header length", &expected, length.to_string()));
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(|e| cut(path, e))?;
    let header = Parser { text: &text, at: 0 }.header();
    let header = header.map_err(|wrong| {
        let e = refuse(
            &format!("header, byte {}", begin + wrong.at as u64),
            wrong.expected,
            wrong.found,
        );
        if wrong.record {
            return e.hint("records hold several arrays: save one field, such as x['score']");
        }
        e
    })?;
    Ok((header, begin + length as u64))
}

fn cut(path: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            Error::data(path, "size", "as much as its header says", "the end of the file")
                .hint("the file was cut short: write or copy it again")
        }
        _ => Error::io(path, source),
    }
}

/// The first bytes, so that one sees what it is.
fn beginning(bytes: &[u8]) -> String {
    match bytes {
        [] => "an empty file".into(),
        bytes => format!("\"{}\"", bytes[..bytes.len().min(10)].escape_ascii()),
    }
}

#[derive(Debug, Default, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// A header is a Python dictionary of three entries.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

struct Wrong {
    at: usize,
    expected: &'static str,
    found: String,
    /// Of a type that is a list of fields.
    record: bool,
}

impl Parser<'_> {
    fn header(mut self) -> Result<Header, Wrong> {
        let mut header = Header::default();
        let mut seen = [false; 3];
        self.take(b'{', "a dictionary: {")?;
        while !self.next_is(b'}') {
            let at = self.at;
            let key = self.string("a key in quotes, or }")?;
            let place = ["descr", "fortran_order", "shape"].iter().position(|k| *k == key);
            let Some(place) = place.filter(|p| !seen[*p]) else {
                self.at = at;
                return Err(self.wrong("descr, fortran_order and shape, each once"));
            };
            seen[place] = true;
            self.take(b':', "a colon")?;
            match place {
                0 => {
                    if self.peek() == Some(b'[') {
                        let wrong = self.wrong("one type for all values");
                        return Err(Wrong {
                            record: true,
                            ..wrong
                        });
                    }
                    header.descr = self.string("a type in quotes")?;
                }
                1 => header.fortran_order = self.truth()?,
                _ => header.shape = self.shape()?,
            }
            if !self.next_is(b',') && self.peek() != Some(b'}') {
                return Err(self.wrong("a comma, or }"));
            }
        }
        if self.peek().is_some() {
            return Err(self.wrong("nothing behind }"));
        }
        match seen {
            [true, true, true] => Ok(header),
            _ => Err(self.wrong("descr, fortran_order and shape")),
        }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn next_is(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), Wrong> {
        match self.next_is(byte) {
            true => Ok(()),
            false => Err(self.wrong(expected)),
        }
    }

    fn string(&mut self, expected: &'static str) -> Result<String, Wrong> {
        let quote = match self.peek() {
            Some(quote @ (b'\'' | b'"')) => quote,
            _ => return Err(self.wrong(expected)),
        };
        let rest = &self.text[self.at + 1..];
        match rest.iter().position(|b| *b == quote || *b == b'\\') {
            Some(end) if rest[end] == quote => {
                self.at += end + 2;
                Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
            }
            _ => Err(self.wrong("a text with an end and no backslash")),
        }
    }

    fn truth(&mut self) -> Result<bool, Wrong> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("True or False"))
    }

    fn shape(&mut self) -> Result<Vec<u64>, Wrong> {
        /// numpy's own most.
        const MOST: usize = 64;
        let mut shape = Vec::new();
        self.take(b'(', "a shape: (")?;
        while !self.next_is(b')') {
            if shape.len() == MOST {
                return Err(self.wrong("at most 64 dimensions"));
            }
            self.peek();
            let digits = self.text[self.at..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
            let text = String::from_utf8_lossy(&self.text[self.at..self.at + digits]);
            let Ok(length) = text.parse() else {
                return Err(self.wrong("a length, or )"));
            };
            shape.push(length);
            self.at += digits;
            // Python 2 wrote long integers so.
            self.next_is(b'L');
            if !self.next_is(b',') && self.peek() != Some(b')') {
                return Err(self.wrong("a comma, or )"));
            }
        }
        Ok(shape)
    }

    fn wrong(&self, expected: &'static str) -> Wrong {
        let rest = &self.text[self.at.min(self.text.len())..];
        Wrong {
            at: self.at,
            expected,
            found: match rest {
                [] => "the header's end".into(),
                rest => format!("\"{}\"", rest[..rest.len().min(20)].escape_ascii()),
            },
            record: false,
        }
    }
}

/// How a value lies in the file.
#[derive(Debug, Clone, Copy)]
struct Kind {
    letter: u8,
    width: usize,
    big_endian: bool,
}

impl Kind {
    /// From what numpy calls `descr`: byte order, letter, bytes. Else what is expected, and a hint.
    fn of(descr: &str) -> Result<Self, (&'static str, Option<&'static str>)> {
        let expected = "numbers: f2, f4, f8, integers or b1";
        let mut letters = descr.bytes();
        let (order, letter) = (letters.next(), letters.next());
        let width = descr.get(2..).and_then(|w| w.parse().ok());
        let big_endian = order == Some(b'>');
        let known = matches!(order, Some(b'<' | b'>' | b'|' | b'='));
        match (letter, width) {
            (Some(letter @ b'f'), Some(width @ (2 | 4 | 8)))
            | (Some(letter @ (b'i' | b'u')), Some(width @ (1 | 2 | 4 | 8)))
            | (Some(letter @ b'b'), Some(width @ 1))
                if known =>
            {
                Ok(Kind {
                    letter,
                    width,
                    big_endian,
                })
            }
            (Some(b'O'), _) => Err((
                expected,
                Some("objects are pickled, which could run code: save x.astype(np.float32) with allow_pickle=False"),
            )),
            (Some(b'f'), _) => Err((expected, Some("save x.astype(np.float64)"))),
            (Some(b'U' | b'S'), _) => Err((expected, Some("these are texts, not numbers"))),
            (Some(b'c'), _) => Err((expected, Some("complex numbers have no order: save x.real or abs(x)"))),
            _ => Err((expected, None)),
        }
    }

    fn width(self) -> usize {
        self.width
    }

    /// Of as many bytes as its width, the lowest first. `None` of an integer that float64 has not.
    fn value(self, bytes: [u8; 8]) -> Option<f64> {
        const WHOLE: u64 = 1 << 53;
        let unsigned = u64::from_le_bytes(bytes);
        Some(match (self.letter, self.width) {
            (b'f', 2) => f16::from_bits(unsigned as u16).to_f64(),
            (b'f', 4) => f64::from(f32::from_bits(unsigned as u32)),
            (b'f', _) => f64::from_bits(unsigned),
            (b'i', width) => {
                // The sign of narrower ones is their highest bit.
                let unused = 64 - 8 * width as u32;
                let signed = ((unsigned << unused) as i64) >> unused;
                return (signed.unsigned_abs() <= WHOLE).then_some(signed as f64);
            }
            _ => return (unsigned <= WHOLE).then_some(unsigned as f64),
        })
    }
}

fn read(path: &Path, file: &mut File, values: usize, kind: Kind) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    all.try_reserve_exact(values).map_err(|e| {
        let found = format!("{values} values: {e}");
        Error::data(path, "shape", "as many values as memory holds", found)
    })?;
    // A whole number of values of any width.
    let mut buffer = vec![0; 1 << 16];
    while all.len() < values {
        let bytes = buffer.len().min((values - all.len()) * kind.width());
        file.read_exact(&mut buffer[..bytes]).map_err(|e| cut(path, e))?;
        for value in buffer[..bytes].chunks_exact(kind.width()) {
            let mut eight = [0; 8];
            eight[..kind.width()].copy_from_slice(value);
            if kind.big_endian {
                eight[..kind.width()].reverse();
            }
            let Some(value) = kind.value(eight) else {
                let found = match kind.letter {
                    b'i' => i64::from_le_bytes(eight).to_string(),
                    _ => u64::from_le_bytes(eight).to_string(),
                };
                let key = format!("value {}", all.len());
                return Err(Error::data(path, key, "an integer of at most 2^53", found));
            };
            all.push(value);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file of this header and these values, as numpy 1.0 writes it.
    fn bytes(header: &str, values: &[u8]) -> Vec<u8> {
        let mut all = MAGIC.to_vec();
        all.extend([1, 0]);
        all.extend((header.len() as u16).to_le_bytes());
        all.extend(header.as_bytes());
        all.extend(values);
        all
    }

    fn read_bytes(all: &[u8]) -> Result<Array2<f64>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, all).unwrap();
        matrix(&path)
    }

    fn read(header: &str, values: &[u8]) -> Result<Array2<f64>> {
        read_bytes(&bytes(header, values))
    }

    fn of(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}    \n")
    }

    #[track_caller]
    fn refused(header: &str, values: &[u8], says: &[&str]) {
        let e = read(header, values).unwrap_err();
        assert_eq!(e.exit_code(), 6, "{e}");
        for says in says {
            assert!(e.to_string().contains(says), "{says}: {e}");
        }
    }

    #[test]
    fn every_type_and_order_is_read() {
        let two = ndarray::arr2(&[[1.0, -2.5]]);
        let f2 = [0x00, 0x3c, 0x00, 0xc1];
        assert_eq!(read(&of("<f2", "False", "(1, 2)"), &f2).unwrap(), two);
        let f4: Vec<u8> = [1.0f32, -2.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(&of("<f4", "False", "(1, 2)"), &f4).unwrap(), two);
        let f8: Vec<u8> = [1.0f64, -2.5].iter().flat_map(|v| v.to_be_bytes()).collect();
        assert_eq!(read(&of(">f8", "False", "(1, 2)"), &f8).unwrap(), two);
        let row = |header: String, values: &[u8]| read(&header, values).unwrap().into_raw_vec_and_offset().0;
        assert_eq!(row(of("|b1", "False", "(1, 2)"), &[0, 1]), [0.0, 1.0]);
        assert_eq!(row(of("|i1", "False", "(1, 2)"), &[255, 7]), [-1.0, 7.0]);
        assert_eq!(row(of("|u1", "False", "(1, 2)"), &[255, 7]), [255.0, 7.0]);
        assert_eq!(row(of(">i2", "False", "(1, 1)"), &[0xff, 0xfe]), [-2.0]);
        assert_eq!(
            row(of("<u4", "False", "(1, 1)"), &[1, 0, 0, 0x80]),
            [2_147_483_649.0]
        );
        assert_eq!(
            row(of("<i8", "False", "(1, 1)"), &(-(1i64 << 53)).to_le_bytes()),
            [-(2f64.powi(53))]
        );
        // Columns first.
        let file = read(&of("|u1", "True", "(2, 3)"), &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(file, ndarray::arr2(&[[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]));
        // No values are no fault of the file's.
        assert_eq!(read(&of("<f4", "False", "(0, 3)"), &[]).unwrap().dim(), (0, 3));
        // Python 2's long integers, other quotes, another order.
        let old = "{\"shape\":(1L,1L),\"fortran_order\":False,\"descr\":\"|u1\"}";
        assert_eq!(row(old.into(), &[9]), [9.0]);
        // Versions 2 and 3.
        for version in [2, 3] {
            let header = of("|u1", "False", "(1, 1)");
            let mut all = MAGIC.to_vec();
            all.extend([version, 0]);
            all.extend((header.len() as u32).to_le_bytes());
            all.extend(header.as_bytes());
            all.push(4);
            assert_eq!(read_bytes(&all).unwrap(), ndarray::arr2(&[[4.0]]));
        }
    }

    #[test]
    fn what_is_no_plain_matrix_is_named() {
        refused(
            &of("|O", "False", "(1, 1)"),
            b"\x80\x04",
            &["descr", "'|O'", "could run code"],
        );
        refused(
            "{'descr': [('a', '<f4')], ",
            &[],
            &["header, byte 20", "one type for all values", "x['score']"],
        );
        refused(&of("<c8", "False", "(1, 1)"), &[0; 8], &["descr", "x.real"]);
        refused(&of("<U3", "False", "(1, 1)"), &[0; 12], &["texts"]);
        refused(&of("<f16", "False", "(1, 1)"), &[0; 16], &["np.float64"]);
        refused(&of("<M8[us]", "False", "(1, 1)"), &[0; 8], &["numbers: f2"]);
        refused(&of("", "False", "(1, 1)"), &[0; 8], &["numbers: f2"]);
        refused(&of("é4", "False", "(1, 1)"), &[0; 4], &["numbers: f2"]);
        refused(
            &of("<f4", "False", "(4,)"),
            &[0; 16],
            &["shape", "one dimension: (4)", "x[None, :]"],
        );
        refused(&of("<f4", "False", "()"), &[0; 4], &["a single value"]);
        refused(
            &of("<f4", "False", "(1, 5, 2)"),
            &[0; 40],
            &["3 dimensions: (1, 5, 2)", "reshape(-1"],
        );
        let e = read(
            &of("<i8", "False", "(1, 2)"),
            &[[0; 8], (1i64 << 62).to_le_bytes()].concat(),
        );
        assert!(e
            .unwrap_err()
            .to_string()
            .contains("value 1: expected an integer of at most 2^53, found 4611686018427387904"));
    }

    #[test]
    fn what_a_header_says_must_fit_the_file() {
        refused(&of("<f4", "False", "(2, 2)"), &[0; 15], &["size", "cut short"]);
        refused(
            &of("<f4", "False", "(2, 2)"),
            &[0; 17],
            &["size", "several in it"],
        );
        refused(
            &of("<f4", "False", "(99999999, 99999999)"),
            &[0; 4],
            &["at most 268435456 values"],
        );
        refused(
            &of("<f8", "False", "(4294967296, 4294967296)"),
            &[0; 8],
            &["at most"],
        );
        refused(
            &of("<f8", "False", "(99999999999999999999, 1)"),
            &[0; 8],
            &["a length"],
        );
        refused(&of("<f8", "False", "(-1, 1)"), &[0; 8], &["a length"]);
        refused(
            &of("<f8", "False", &format!("({})", "1,".repeat(99))),
            &[0; 8],
            &["64 dimensions"],
        );
        let mut long = bytes(&of("<f8", "False", "(1, 1)"), &[0; 8]);
        long[8..10].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(read_bytes(&long)
            .unwrap_err()
            .to_string()
            .contains("header length"));
        let mut longer = MAGIC.to_vec();
        longer.extend([2, 0, 0xff, 0xff, 0xff, 0xff]);
        assert!(read_bytes(&longer)
            .unwrap_err()
            .to_string()
            .contains("4294967295"));
        longer[6] = 9;
        assert!(read_bytes(&longer).unwrap_err().to_string().contains("9.0"));
        // A hole of a file: as long as it says, and more than is read.
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("hole.npy");
        let header = bytes(&of("<f8", "False", "(1048576, 1048576)"), &[]);
        std::fs::write(&path, &header).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(header.len() as u64 + (8 << 40)).unwrap();
        assert!(matrix(&path)
            .unwrap_err()
            .to_string()
            .contains("at most 268435456 values"));
    }

    #[test]
    fn other_files_are_called_what_they_are() {
        let e = |all: &[u8]| read_bytes(all).unwrap_err().to_string();
        assert!(e(b"").contains("an empty file"));
        assert!(e(b"PK\x03\x04............").contains(".npz"));
        assert!(e(b"\x80\x04\x95..............").contains("pickle"));
        assert!(e(b"hello").contains("\"hello\""));
        assert!(e(MAGIC).contains("NUMPY"));
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n";
        assert!(e(pointer).contains("a git-lfs pointer to a file of 123 bytes"));
        assert_eq!(matrix(Path::new("/nowhere/a.npy")).unwrap_err().exit_code(), 3);
    }

    /// Every cut and every changed byte of a sound file is read, or refused without a panic.
    #[test]
    fn no_header_ends_the_program() {
        let sound = bytes(&of("<f4", "True", "(2, 3)"), &[7; 24]);
        assert!(read_bytes(&sound).is_ok());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let mut tried = 0;
        let mut try_it = |all: &[u8]| {
            std::fs::write(&path, all).unwrap();
            if let Ok(read) = matrix(&path) {
                assert!(read.len() <= 24);
            }
            tried += 1;
        };
        for end in 0..sound.len() {
            try_it(&sound[..end]);
        }
        for at in 0..sound.len() - 24 {
            for byte in [0, 1, 0xff, b'\'', b'{', b'}', b'(', b')', b',', b'\\', b'9', b' '] {
                let mut all = sound.clone();
                all[at] = byte;
                try_it(&all);
            }
        }
        assert!(tried > 900, "{tried}");
    }
}
