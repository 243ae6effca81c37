//! Formats that are a small header and then plain samples, which the decoder library is shown as WAV or AIFF-C: NIST SPHERE
//! (the `.wav` and `.sph` of speech corpora, TIMIT for one) and Sun's AU.

use super::{fmt::Wave, kind::not_sound, view::View};
use crate::error::{Error, Result};
use std::path::Path;

/// SPHERE headers are one or more times as long; so much is looked at.
const MOST_HEADER: usize = 1 << 16;
const MAX_CHANNELS: u32 = 26;

/// What samples are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Samples {
    /// Whole numbers of so many bytes, the lowest or the highest first.
    Little(u16),
    Big(u16),
    /// IEEE float of so many bytes, the highest first.
    Float(u16),
    MuLaw,
    ALaw,
}

/// What a header says.
struct Plain {
    samples: Samples,
    channels: u32,
    rate: u32,
    /// Where the samples begin, and how many bytes of them are promised.
    at: u64,
    bytes: Option<u64>,
}

/// The sound of a NIST SPHERE file.
///
/// # Errors
/// [`Error::Audio`] when it is compressed by shorten, its header does not say what a sample is, or it is cut off; [`Error::Io`].
pub(super) fn sphere(path: &Path, mut view: View) -> Result<Wave> {
    let bytes = view.bytes_at(0, MOST_HEADER).map_err(|e| Error::io(path, e))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let wrong = |what: &str| not_sound(path, &format!("a NIST SPHERE file {what}"));
    let length: u64 = (lines.nth(1))
        .and_then(|l| l.trim().parse().ok())
        .ok_or_else(|| wrong("without the length of its header"))?;
    // "name -i value", "name -s5 value".
    let fields: Vec<(&str, &str)> = lines
        .take_while(|l| l.trim() != "end_head")
        .filter_map(|l| {
            let (name, rest) = l.trim().split_once(' ')?;
            Some((name, rest.trim_start().split_once(' ')?.1.trim()))
        })
        .collect();
    let field = |name: &str| {
        fields
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| *value)
    };
    let number = |name: &str| field(name).and_then(|v| v.parse::<u32>().ok());
    let coding = field("sample_coding").unwrap_or("pcm");
    if coding.contains("shorten") || coding.contains("wavpack") {
        return Err(wrong(&format!("that is compressed ({coding})"))
            .hint("`sph2pipe -f wav FILE out.wav` of the Linguistic Data Consortium unpacks it, or: ffmpeg -i FILE out.wav"));
    }
    let samples = match (coding, number("sample_n_bytes"), field("sample_byte_format")) {
        ("ulaw" | "mu-law" | "mulaw", _, _) => Samples::MuLaw,
        ("alaw" | "a-law", _, _) => Samples::ALaw,
        ("pcm", Some(width @ 2..=4), Some(order)) if order.starts_with('0') => Samples::Little(width as u16),
        ("pcm", Some(width @ 2..=4), Some(order)) if order.ends_with('0') => Samples::Big(width as u16),
        (coding, width, order) => {
            let what = format!("of {coding} in {width:?} bytes in the order {order:?}");
            return Err(wrong(
                &what.replace("Some(", "").replace(')', "").replace("None", "?"),
            ));
        }
    };
    let channels = number("channel_count").unwrap_or(1);
    let frames = number("sample_count").filter(|n| *n > 0);
    let bytes = frames.map(|n| u64::from(n) * u64::from(channels) * u64::from(samples.width()));
    let plain = Plain {
        samples,
        channels,
        rate: number("sample_rate").ok_or_else(|| wrong("without a sample_rate"))?,
        at: length,
        bytes,
    };
    plain.behind_header(path, view)
}

/// The sound of an AU file (`.au`, `.snd`).
///
/// # Errors
/// [`Error::Audio`] when its samples are of another kind than whole numbers, float, A-law and µ-law, or it is cut off;
/// [`Error::Io`].
pub(super) fn au(path: &Path, mut view: View) -> Result<Wave> {
    let header = view.read_at::<24>(0).map_err(|e| Error::io(path, e))?;
    let header = header.ok_or_else(|| not_sound(path, "the beginning of an AU file and no more"))?;
    let [_, at, bytes, encoding, rate, channels] = [0, 4, 8, 12, 16, 20].map(|at| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| header[at + i]);
        u32::from_be_bytes([a, b, c, d])
    });
    let samples = match encoding {
        1 => Samples::MuLaw,
        2..=5 => Samples::Big(encoding as u16 - 1),
        6 => Samples::Float(4),
        7 => Samples::Float(8),
        27 => Samples::ALaw,
        23..=26 => return Err(not_sound(path, "an AU file of ADPCM")),
        other => return Err(not_sound(path, &format!("an AU file of encoding {other}"))),
    };
    let plain = Plain {
        samples,
        channels,
        rate,
        at: u64::from(at),
        bytes: (bytes != u32::MAX).then_some(u64::from(bytes)),
    };
    plain.behind_header(path, view)
}

impl Samples {
    /// Bytes.
    fn width(self) -> u16 {
        match self {
            Samples::Little(width) | Samples::Big(width) | Samples::Float(width) => width,
            Samples::MuLaw | Samples::ALaw => 1,
        }
    }
}

impl Plain {
    fn behind_header(self, path: &Path, view: View) -> Result<Wave> {
        if !(1..=MAX_CHANNELS).contains(&self.channels) {
            let expected = format!("1 to {MAX_CHANNELS} channels");
            return Err(Error::audio(path, expected, self.channels.to_string()));
        }
        let there = view.length().saturating_sub(self.at);
        let bytes = self.bytes.unwrap_or(there);
        if bytes > there {
            let expected = format!("{bytes} bytes of sound, as its header says");
            let found = format!("{there}: the file is cut off");
            return Err(Error::audio(path, expected, found).hint("copy or download it again"));
        }
        let frame = u64::from(self.samples.width()) * u64::from(self.channels);
        // The sizes of AIFF and WAV have 32 bits; longer recordings were never made so.
        let most = u64::from(u32::MAX) - 1024;
        if bytes > most {
            return Err(Error::audio(
                path,
                format!("at most {most} bytes of sound"),
                bytes.to_string(),
            ));
        }
        let whole = bytes / frame * frame;
        let header = match self.samples {
            Samples::Little(width) => wav(1, &self, width, whole as u32),
            Samples::MuLaw => wav(7, &self, 1, whole as u32),
            Samples::ALaw => wav(6, &self, 1, whole as u32),
            Samples::Big(width) => aiff(b"NONE", &self, width, whole as u32),
            Samples::Float(4) => aiff(b"fl32", &self, 4, whole as u32),
            Samples::Float(width) => aiff(b"fl64", &self, width, whole as u32),
        };
        Ok(Wave {
            view: view.behind(header, self.at..self.at + whole),
            frames: None,
        })
    }
}

fn wav(tag: u16, plain: &Plain, width: u16, bytes: u32) -> Vec<u8> {
    let align = width * plain.channels as u16;
    let mut header = b"RIFF\xff\xff\xff\xffWAVEfmt \x12\0\0\0".to_vec();
    header.extend(tag.to_le_bytes());
    header.extend((plain.channels as u16).to_le_bytes());
    header.extend(plain.rate.to_le_bytes());
    header.extend(plain.rate.wrapping_mul(u32::from(align)).to_le_bytes());
    header.extend(align.to_le_bytes());
    header.extend((8 * width).to_le_bytes());
    header.extend(b"\0\0data");
    header.extend(bytes.to_le_bytes());
    header
}

/// AIFF-C of a compression type; `NONE` is whole numbers.
fn aiff(kind: &[u8; 4], plain: &Plain, width: u16, bytes: u32) -> Vec<u8> {
    let frames = bytes / (u32::from(width) * plain.channels).max(1);
    let mut header = b"FORM".to_vec();
    // The form's type, two chunks' headers, and what is in the chunks.
    header.extend((4 + 8 + 24 + 8 + 8 + bytes).to_be_bytes());
    header.extend(b"AIFCCOMM\0\0\0\x18");
    header.extend((plain.channels as u16).to_be_bytes());
    header.extend(frames.to_be_bytes());
    header.extend((8 * width).to_be_bytes());
    header.extend(extended(plain.rate));
    header.extend(kind);
    // A name of no letters, filled up.
    header.extend([0, 0]);
    header.extend(b"SSND");
    header.extend((8 + bytes).to_be_bytes());
    header.extend([0; 8]);
    header
}

/// A whole number as an 80-bit float.
fn extended(n: u32) -> [u8; 10] {
    let shift = u64::from(n).leading_zeros();
    let exponent = if n == 0 { 0 } else { 16383 + 63 - shift as u16 };
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&exponent.to_be_bytes());
    bytes[2..].copy_from_slice(&u64::from(n).checked_shl(shift).unwrap_or(0).to_be_bytes());
    bytes
}
