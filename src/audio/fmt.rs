//! What a WAV file's `fmt ` chunk says of its samples, and the header that the decoder library takes for them.

use super::{kind::not_sound, view::View};
use crate::error::{Error, Result};
use std::{ops::Range, path::Path};

/// More channels have no places of loudspeakers in the decoder library.
const MAX_CHANNELS: u16 = 26;
const PCM: u16 = 1;
const MS_ADPCM: u16 = 2;
const FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const IMA_ADPCM: u16 = 0x11;
const MPEG: u16 = 0x50;
const MP3: u16 = 0x55;
const EXTENSIBLE: u16 = 0xFFFE;
/// Behind the tag in the sub-format of an extensible `fmt ` chunk: Microsoft's, and that of ambisonic sound.
const FAMILIES: [[u8; 14]; 2] = [
    [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71],
    [
        0, 0, 0x21, 0x07, 0xD3, 0x11, 0x86, 0x44, 0xC8, 0xC1, 0xCA, 0, 0, 0,
    ],
];
/// The coefficients of Microsoft's ADPCM that the decoder library takes for granted.
const COEFFICIENTS: [[i16; 2]; 7] = [
    [256, 0],
    [512, -256],
    [0, 0],
    [192, 64],
    [240, 0],
    [460, -208],
    [392, -232],
];

/// What the decoder shall read.
pub(super) struct Wave {
    pub view: View,
    /// How many frames there are, where a header of 32 bits cannot say it.
    pub frames: Option<u64>,
}

/// What a `fmt ` chunk says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    tag: u16,
    channels: u16,
    rate: u32,
    /// Bytes a frame or block.
    align: u16,
    bits: u16,
}

impl Format {
    pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Self> {
        let number =
            |at: usize| -> Option<u16> { Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)) };
        let read = || {
            Some(Format {
                tag: number(0)?,
                channels: number(2)?,
                rate: u32::from(number(4)?) | u32::from(number(6)?) << 16,
                align: number(12)?,
                // The oldest chunks have none, and frames that say it.
                bits: match number(14) {
                    Some(bits) => bits,
                    None => (number(12)?.checked_div(number(2)?)?).saturating_mul(8),
                },
            })
        };
        let short = || {
            not_sound(
                path,
                &format!("a WAV file whose fmt chunk has {} bytes", bytes.len()),
            )
        };
        let mut format = read().ok_or_else(short)?;
        if format.tag == EXTENSIBLE {
            let family = bytes.get(26..40).ok_or_else(short)?;
            if !FAMILIES.iter().any(|known| known == family) {
                return Err(not_sound(path, "a WAV file with an unknown sub-format"));
            }
            // The samples fill their bytes from the top, so that all bits count whatever is said to be valid.
            format.tag = number(24).unwrap_or(0);
        }
        Ok(format)
    }

    /// Refuses what cannot be read, or would be read as something else.
    pub(crate) fn check(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let Format { channels, bits, .. } = *self;
        if !(1..=MAX_CHANNELS).contains(&channels) {
            let expected = format!("1 to {MAX_CHANNELS} channels");
            return Err(Error::audio(path, expected, channels.to_string()));
        }
        let wrong = |what: &str| Err(not_sound(path, &format!("a WAV file with {what}")));
        match self.tag {
            PCM if !(1..=32).contains(&bits) => wrong(&format!("whole numbers of {bits} bits")),
            // Some programs write float so, others fill up: which of them, the file does not say.
            PCM if bits == 24 && u32::from(self.align) == 4 * u32::from(channels) => {
                wrong("24 bits in 4 bytes a sample")
            }
            FLOAT if ![32, 64].contains(&bits) => wrong(&format!("float of {bits} bits")),
            A_LAW | MU_LAW if ![0, 8].contains(&bits) => wrong(&format!("A-law or µ-law of {bits} bits")),
            MS_ADPCM | IMA_ADPCM if bits != 4 => wrong(&format!("ADPCM of {bits} bits")),
            MS_ADPCM if !coefficients(bytes) => wrong("ADPCM with coefficients of its own"),
            PCM | FLOAT | A_LAW | MU_LAW | MS_ADPCM | IMA_ADPCM | MPEG | MP3 => Ok(()),
            tag => wrong(&format!("{} (format tag {tag:#06x})", codec(tag))),
        }
    }

    /// The data with the header that the decoder library takes; MPEG frames need none.
    pub(crate) fn behind_header(self, view: View, data: Range<u64>) -> Wave {
        if [MPEG, MP3].contains(&self.tag) {
            let view = view.behind(Vec::new(), data);
            return Wave { view, frames: None };
        }
        // Less than a byte is filled up.
        let bits = match self.tag {
            PCM => self.bits.next_multiple_of(8),
            A_LAW | MU_LAW => 8,
            _ => self.bits,
        };
        let (align, extra) = match self.tag {
            MS_ADPCM => (self.align, Some(32u16)),
            IMA_ADPCM => (self.align, Some(2)),
            tag => (
                self.channels * (bits / 8),
                [A_LAW, MU_LAW].contains(&tag).then_some(0),
            ),
        };
        let whole = (data.end - data.start) / u64::from(align.max(1)) * u64::from(align.max(1));
        // All bits: to the end.
        let size = u32::try_from(whole).unwrap_or(u32::MAX);
        let mut fmt = Vec::new();
        fmt.extend(self.tag.to_le_bytes());
        fmt.extend(self.channels.to_le_bytes());
        fmt.extend(self.rate.to_le_bytes());
        fmt.extend(self.rate.wrapping_mul(u32::from(align)).to_le_bytes());
        fmt.extend(align.to_le_bytes());
        fmt.extend(bits.to_le_bytes());
        if let Some(extra) = extra {
            fmt.extend(extra.to_le_bytes());
            fmt.resize(fmt.len() + usize::from(extra), 0);
        }
        let mut header = b"RIFF\xff\xff\xff\xffWAVEfmt ".to_vec();
        header.extend((fmt.len() as u32).to_le_bytes());
        header.extend(fmt);
        header.extend(b"data");
        header.extend(size.to_le_bytes());
        Wave {
            view: view.behind(header, data.start..data.start + whole),
            frames: (size == u32::MAX).then(|| whole / u64::from(align.max(1))),
        }
    }
}

/// Whether a chunk names the usual coefficients, or none.
fn coefficients(fmt: &[u8]) -> bool {
    // The size of what follows, samples a block, and how many pairs there are.
    let named = fmt.get(20..22).map_or(0, |n| u16::from_le_bytes([n[0], n[1]]));
    let usual = COEFFICIENTS.iter().flatten().flat_map(|c| c.to_le_bytes());
    named == 0
        || (usize::from(named) == COEFFICIENTS.len()
            && fmt.get(22..50).is_some_and(|f| usual.eq(f.iter().copied())))
}

/// What a format tag that is refused stands for.
fn codec(tag: u16) -> &'static str {
    match tag {
        0x0008 | 0x2001 => "DTS",
        0x0092 | 0x2000 => "Dolby AC-3",
        0x000A | 0x000B => "Windows Media Voice",
        0x0010
        | 0x0012..=0x0014
        | 0x0017
        | 0x0020
        | 0x0038
        | 0x0040
        | 0x0061
        | 0x0062
        | 0x0069
        | 0x0170
        | 0x0200 => "ADPCM",
        0x0022 | 0x1501 => "TrueSpeech",
        0x0031 | 0x0032 | 0x1500 => "GSM 6.10",
        0x0042 | 0x0059 | 0x0111 | 0xA100 => "G.723",
        0x0041 => "G.728",
        0x0045 | 0x0064 => "G.726",
        0x0065 => "G.722",
        0x0057 => "AMR narrowband",
        0x0058 => "AMR wideband",
        0x0083 => "G.729",
        0x00FF | 0x1600..=0x1610 | 0x4143 | 0xA106 => "AAC",
        0x0160..=0x0163 => "Windows Media Audio",
        0x0165 | 0x0166 => "XMA",
        0x0270 => "ATRAC3",
        0x566F | 0x674F..=0x6751 | 0x676F..=0x6771 => "Vorbis",
        0x704F => "Opus",
        0xA109 => "Speex",
        0xF1AC => "FLAC",
        _ => "an unknown codec",
    }
}
