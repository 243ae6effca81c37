//! Which AAC it is. The decoder library knows Low Complexity alone and takes HE-AAC for it: then the upper half of the
//! spectrum is missing and the rate is half of what it is.
//!
//! HE-AAC is told in three ways (ISO/IEC 14496-3, 1.6.5): by the object type of the configuration, by an extension behind a
//! configuration that says LC, or by nothing but the data for spectral band replication (SBR) in a fill element of each frame,
//! which is all that ADTS has.

use symphonia::core::{
    codecs::audio::AudioDecoder,
    packet::Packet,
    units::{Duration, Timestamp},
};

/// The marks of an extension behind a configuration.
const SBR_FOLLOWS: u32 = 0x2B7;
const PS_FOLLOWS: u32 = 0x548;
/// Object types.
const LC: u32 = 2;
const SBR: u32 = 5;
const PS: u32 = 29;
/// Elements of a frame.
const DATA: u32 = 4;
const FILL: u32 = 6;
const END: u32 = 7;

/// What a configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Low Complexity; the frames may say otherwise.
    Lc,
    /// Low Complexity, expressly without SBR.
    OnlyLc,
    /// HE-AAC, v2 with parametric stereo.
    He { stereo: bool },
    /// Another object type.
    Other(u32),
    /// Too short.
    Unknown,
}

/// How a kind that is refused is called.
pub(super) fn name(kind: Kind) -> Option<String> {
    match kind {
        Kind::Lc | Kind::OnlyLc | Kind::Unknown => None,
        Kind::He { stereo: false } => Some("HE-AAC (AAC with spectral band replication)".into()),
        Kind::He { stereo: true } => Some("HE-AAC v2 (AAC with parametric stereo)".into()),
        Kind::Other(kind) => Some(match kind {
            1 => "AAC Main".into(),
            3 => "AAC SSR".into(),
            4 => "AAC LTP".into(),
            17 => "ER AAC LC".into(),
            23 => "AAC LD".into(),
            32..=34 => "MPEG layer 1, 2 or 3 in an AAC track".into(),
            36 => "MPEG-4 ALS".into(),
            39 => "AAC ELD".into(),
            42 => "xHE-AAC (USAC)".into(),
            other => format!("MPEG-4 audio of object type {other}"),
        }),
    }
}

/// Reads an AudioSpecificConfig.
pub(super) fn configured(bytes: &[u8]) -> Kind {
    read(&mut Bits { bytes, at: 0 }).unwrap_or(Kind::Unknown)
}

fn read(bits: &mut Bits) -> Option<Kind> {
    let kind = object_type(bits)?;
    frequency(bits)?;
    let channels = bits.take(4)?;
    match kind {
        SBR | PS => return Some(Kind::He { stereo: kind == PS }),
        LC => {}
        other => return Some(Kind::Other(other)),
    }
    // Frame length, what it depends on, extension.
    let general = (|| {
        bits.take(1)?;
        if bits.take(1)? == 1 {
            bits.take(14)?;
        }
        bits.take(1)
    })();
    // Channels in a table of their own: refused elsewhere, and its length is not known here.
    if general.is_none() || channels == 0 {
        return Some(Kind::Lc);
    }
    Some(extension(bits).unwrap_or(Kind::Lc))
}

/// What stands behind a configuration that says LC, if anything does.
fn extension(bits: &mut Bits) -> Option<Kind> {
    if bits.take(11)? != SBR_FOLLOWS || object_type(bits)? != SBR {
        return None;
    }
    if bits.take(1)? == 0 {
        return Some(Kind::OnlyLc);
    }
    let stereo = frequency(bits).and_then(|()| Some(bits.take(11)? == PS_FOLLOWS && bits.take(1)? == 1));
    Some(Kind::He {
        stereo: stereo.unwrap_or(false),
    })
}

fn object_type(bits: &mut Bits) -> Option<u32> {
    match bits.take(5)? {
        31 => Some(32 + bits.take(6)?),
        kind => Some(kind),
    }
}

fn frequency(bits: &mut Bits) -> Option<()> {
    if bits.take(4)? == 15 {
        bits.take(24)?;
    }
    Some(())
}

/// The object type of an ADTS header.
pub(super) fn adts(header: &[u8]) -> Option<Kind> {
    match header {
        [0xFF, second, third, ..] if second & 0xF6 == 0xF0 => match u32::from(third >> 6) + 1 {
            LC => Some(Kind::Lc),
            other => Some(Kind::Other(other)),
        },
        _ => None,
    }
}

/// Whether a frame holds data for spectral band replication.
///
/// A fill element with them is looked for at every bit, so that no Huffman table is needed: from it on there must be fill and
/// data elements to the frame's end, and what is before it must be whole elements. That the decoder tells: a frame that is cut
/// there and ended decodes.
pub(super) fn replicates(frame: &[u8], decoder: impl Fn() -> Option<Box<dyn AudioDecoder>>) -> bool {
    let candidates = (0..frame.len() * 8).filter(|at| {
        let mut bits = Bits {
            bytes: frame,
            at: *at,
        };
        bits.take(3) == Some(FILL) && bits.fill() == Some(true) && bits.ends()
    });
    candidates.into_iter().any(|at| {
        let mut cut = frame[..at.div_ceil(8)].to_vec();
        cut.push(0);
        for bit in at..cut.len() * 8 {
            let mask = 0x80 >> (bit % 8);
            cut[bit / 8] &= !mask;
            // The end: three bits that are set.
            cut[bit / 8] |= if bit < at + 3 { mask } else { 0 };
        }
        cut.truncate((at + 3).div_ceil(8));
        let packet = Packet::new(0, Timestamp::new(0), Duration::new(1024), cut);
        decoder().is_some_and(|mut decoder| decoder.decode(&packet).is_ok())
    })
}

/// Reads bits, the highest of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// At most 32 of them, or nothing when there are fewer.
    fn take(&mut self, n: usize) -> Option<u32> {
        let end = self
            .at
            .checked_add(n)
            .filter(|end| *end <= self.bytes.len() * 8)?;
        let bit = |at: usize| u32::from(self.bytes[at / 8] >> (7 - at % 8) & 1);
        let value = (self.at..end).fold(0, |value, at| value << 1 | bit(at));
        self.at = end;
        Some(value)
    }

    fn skip(&mut self, n: usize) -> Option<()> {
        self.at = self
            .at
            .checked_add(n)
            .filter(|end| *end <= self.bytes.len() * 8)?;
        Some(())
    }

    /// Passes over a fill element's body; whether it holds SBR data.
    fn fill(&mut self) -> Option<bool> {
        let mut bytes = self.take(4)? as usize;
        if bytes == 15 {
            bytes = 14 + self.take(8)? as usize;
        }
        let start = self.at;
        let replicates = bytes > 0 && matches!(self.take(4)?, 0xD | 0xE);
        self.at = start;
        self.skip(8 * bytes)?;
        Some(replicates)
    }

    /// Whether nothing but fill and data elements follows, up to the end in the last byte.
    fn ends(&mut self) -> bool {
        let mut element = || -> Option<bool> {
            match self.take(3)? {
                FILL => self.fill().map(|_| false),
                DATA => {
                    self.take(4)?;
                    let align = self.take(1)? == 1;
                    let mut bytes = self.take(8)? as usize;
                    if bytes == 255 {
                        bytes += self.take(8)? as usize;
                    }
                    if align {
                        self.at = self.at.next_multiple_of(8);
                    }
                    self.skip(8 * bytes).map(|()| false)
                }
                END => (self.bytes.len() * 8 - self.at < 8).then_some(true),
                _ => None,
            }
        };
        loop {
            match element() {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_tell_their_kind() {
        let he = Kind::He { stereo: false };
        let v2 = Kind::He { stereo: true };
        for (bytes, kind) in [
            // LC at 44.1 kHz, 2 channels; with 24 bits for the rate; with bytes behind that say nothing.
            (&[0x12, 0x10][..], Kind::Lc),
            (&[0x17, 0x80, 0x56, 0x22, 0x10], Kind::Lc),
            (&[0x12, 0x10, 0, 0, 0], Kind::Lc),
            (&[0x12, 0x10, 0x56, 0xE5, 0x00], Kind::OnlyLc),
            // HE-AAC by its object type: mono at 22.05 to 44.1 kHz; with parametric stereo.
            (&[0x2B, 0x8A, 0x08, 0x00], he),
            (&[0xEB, 0x8A, 0x08, 0x00], v2),
            // By an extension: 0x2B7, object type 5, present; and 0x548, present.
            (&[0x13, 0x88, 0x56, 0xE5, 0xA0], he),
            (&[0x13, 0x88, 0x56, 0xE5, 0xA5, 0x48, 0x80], v2),
            (&[0x13, 0x88, 0x56, 0xE5, 0xA5, 0x48, 0x00], he),
            (&[0x0A, 0x10], Kind::Other(1)),
            (&[0x22, 0x10], Kind::Other(4)),
            // Escaped object types: ELD (39) and USAC (42).
            (&[0xF8, 0xE8, 0x50, 0x00], Kind::Other(39)),
            (&[0xF9, 0x48, 0x40, 0x00], Kind::Other(42)),
            (&[0x12], Kind::Unknown),
            (&[], Kind::Unknown),
        ] {
            assert_eq!(configured(bytes), kind, "{bytes:02x?}");
        }
    }

    #[test]
    fn adts_headers_tell_their_profile() {
        assert_eq!(adts(&[0xFF, 0xF1, 0x50, 0x80]), Some(Kind::Lc));
        assert_eq!(adts(&[0xFF, 0xF9, 0x10, 0x80]), Some(Kind::Other(1)));
        assert_eq!(adts(&[0xFF, 0xF0, 0xD0, 0x80]), Some(Kind::Other(4)));
        assert_eq!(adts(&[0xFF, 0xFB, 0x50, 0x80]), None);
    }
}
