//! What a file is that is no sound the decoder library knows, by how it begins: so that the error says it.

use crate::error::Error;
use std::path::Path;

/// Bytes of a file's beginning that are looked at.
pub(super) const BEGINNING: usize = 4096;
/// Characters that are quoted of a text.
const QUOTED: usize = 60;

const CONVERT: &str = "convert it, for example: ffmpeg -i FILE out.wav";
const NO_SOUND: &str = "is it the right file?";
const UNPACK: &str = "unpack it, and name the sound inside";
const PAGE: &str =
    "a server sent this in the sound's place: download it again, signed in where that is needed";

/// A file that is refused: what was found, and what to do.
pub(super) struct Refusal {
    pub found: String,
    pub hint: &'static str,
}

/// Beginnings, from a byte on.
const BEGINNINGS: &[(usize, &[u8], &str, &str)] = &[
    // Sound
    (0, b"#!AMR-WB", "AMR wideband speech", CONVERT),
    (0, b"#!AMR", "AMR narrowband speech", CONVERT),
    (0, b"#!SILK", "SILK speech", CONVERT),
    (0, b"\x02#!SILK", "SILK speech", CONVERT),
    (
        0,
        b"\x30\x26\xB2\x75\x8E\x66\xCF\x11",
        "Windows Media (ASF: WMA or WMV)",
        CONVERT,
    ),
    (0, b"riff\x2E\x91\xCF\x11", "Sony Wave64", CONVERT),
    (0, b"RIFX", "a WAV file of the highest byte first (RIFX)", CONVERT),
    (0, b"wvpk", "WavPack", CONVERT),
    (0, b"MAC ", "Monkey's Audio", CONVERT),
    (0, b"TTA1", "True Audio", CONVERT),
    (0, b"TTA2", "True Audio", CONVERT),
    (0, b"MPCK", "Musepack", CONVERT),
    (0, b"MP+", "Musepack", CONVERT),
    (0, b"OFR ", "OptimFROG", CONVERT),
    (0, b"tBaK", "TAK", CONVERT),
    (0, b"ajkg", "shorten", CONVERT),
    (0, b"DSD ", "DSD (DSF)", CONVERT),
    (0, b"FRM8", "DSD (DSDIFF)", CONVERT),
    (0, b".RMF", "RealMedia", CONVERT),
    (0, b".ra\xFD", "RealAudio", CONVERT),
    (0, b"Creative Voice File", "Creative Voice (VOC)", CONVERT),
    (0, b"qoaf", "QOA", CONVERT),
    (0, b"ADIF", "AAC in ADIF", CONVERT),
    (0, b"\x0B\x77", "Dolby AC-3", CONVERT),
    (0, b"\x7F\xFE\x80\x01", "DTS", CONVERT),
    (0, b"FLV\x01", "Flash video", CONVERT),
    (0, b"\0\0\x01\xBA", "an MPEG program stream", CONVERT),
    (0, b"\0\0\x01\xB3", "MPEG video", CONVERT),
    (8, b"AVI ", "an AVI video", CONVERT),
    (8, b"XWMA", "Windows Media Audio (xWMA)", CONVERT),
    (
        0,
        b"MThd",
        "MIDI: notes and no sound",
        "play it into a sound file, for example: fluidsynth -F out.wav SOUNDFONT FILE",
    ),
    (
        8,
        b"RMID",
        "MIDI: notes and no sound",
        "play it into a sound file, for example: fluidsynth -F out.wav SOUNDFONT FILE",
    ),
    // No sound
    (0, b"\x1F\x8B", "gzip", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", NO_SOUND),
    (0, b"7z\xBC\xAF\x27\x1C", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"BZh", "bzip2", UNPACK),
    (0, b"\xFD7zXZ\0", "xz", UNPACK),
    (0, b"\x28\xB5\x2F\xFD", "zstd", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"%PDF-", "a PDF", NO_SOUND),
    (0, b"\x89PNG", "a PNG image", NO_SOUND),
    (0, b"\xFF\xD8\xFF", "a JPEG image", NO_SOUND),
    (0, b"GIF8", "a GIF image", NO_SOUND),
    (8, b"WEBP", "a WebP image", NO_SOUND),
    (0, b"\x89HDF\r\n", "an HDF5 file", NO_SOUND),
    (0, b"PAR1", "a Parquet file", "write its sounds out, a file each"),
    (
        0,
        b"\x93NUMPY",
        "a numpy array",
        "write it out, for example: soundfile.write('out.wav', array, rate)",
    ),
    (0, b"\x7FELF", "a program", NO_SOUND),
    (0, b"SQLite format 3", "an SQLite database", NO_SOUND),
    (0, b"bplist00", "a property list", NO_SOUND),
    (
        0,
        b"Mac OS X        ",
        "what macOS keeps beside a file (AppleDouble)",
        NO_SOUND,
    ),
    (
        0,
        b"\0\x05\x16\x07",
        "what macOS keeps beside a file (AppleDouble)",
        NO_SOUND,
    ),
];

/// The error of a file that is no sound that can be read.
pub(super) fn not_sound(path: &Path, found: &str) -> Error {
    let expected = "WAV, FLAC, MP3, Ogg Vorbis, AAC or another known format";
    Error::audio(path, expected, found).hint(CONVERT)
}

/// What begins so, where that is no sound that can be read. None where it may be one.
pub(super) fn refused(first: &[u8]) -> Option<Refusal> {
    let known = BEGINNINGS.iter().find(|(at, mark, ..)| {
        first.get(*at..).is_some_and(|rest| rest.starts_with(mark))
            // The form of a RIFF file.
            && (*at != 8 || first.starts_with(b"RIFF"))
    });
    if let Some((_, _, found, hint)) = known {
        let found = (*found).to_owned();
        return Some(Refusal { found, hint });
    }
    stream(first).or_else(|| text(first))
}

/// Streams that repeat a mark, and Ogg by its first pages.
fn stream(first: &[u8]) -> Option<Refusal> {
    let refusal = |found: &str| {
        Some(Refusal {
            found: found.to_owned(),
            hint: CONVERT,
        })
    };
    let byte = |at: usize| first.get(at).copied();
    if [0, 188, 376].iter().all(|at| byte(*at) == Some(0x47))
        || [4, 196, 388].iter().all(|at| byte(*at) == Some(0x47))
    {
        return refusal("an MPEG transport stream");
    }
    // The length of a LOAS frame leads to the next one.
    if let [0x56, high, low, ..] = first {
        let length = usize::from(high & 0x1F) << 8 | usize::from(*low);
        if high & 0xE0 == 0xE0 && byte(3 + length) == Some(0x56) {
            return refusal("AAC in LATM/LOAS");
        }
    }
    let codecs: Vec<&str> = ogg(first);
    let heard = codecs.iter().any(|c| READ.contains(c));
    match codecs.iter().find(|c| !VIDEO.contains(c)) {
        _ if heard => None,
        Some(codec) => refusal(&format!("Ogg {codec}")),
        None if codecs.is_empty() => None,
        None => refusal(&format!("Ogg {} and no sound", codecs.join(", "))),
    }
}

const READ: [&str; 2] = ["Vorbis", "FLAC"];
const VIDEO: [&str; 3] = ["Theora video", "Dirac video", "a skeleton"];

/// The codecs of an Ogg file's streams, by their first pages.
fn ogg(first: &[u8]) -> Vec<&'static str> {
    let mut codecs = Vec::new();
    let mut rest = first;
    // A page that begins a stream: its header with the sizes of its segments, and the first packet.
    while let Some(page) = rest
        .strip_prefix(b"OggS")
        .filter(|p| p.get(1).is_some_and(|flags| flags & 2 != 0))
    {
        let segments = usize::from(page.get(22).copied().unwrap_or(0));
        let Some(packet) = page.get(23 + segments..) else {
            break;
        };
        codecs.push(match packet {
            p if p.starts_with(b"\x01vorbis") => "Vorbis",
            p if p.starts_with(b"\x7FFLAC") || p.starts_with(b"fLaC") => "FLAC",
            p if p.starts_with(b"OpusHead") => "Opus",
            p if p.starts_with(b"Speex   ") => "Speex",
            p if p.starts_with(b"CELT    ") => "CELT",
            p if p.starts_with(b"PCM     ") => "PCM",
            p if p.starts_with(b"\x80theora") => "Theora video",
            p if p.starts_with(b"BBCD\0") => "Dirac video",
            p if p.starts_with(b"fishead") => "a skeleton",
            _ => "an unknown codec",
        });
        let size: usize = page
            .get(23..23 + segments)
            .map_or(0, |s| s.iter().map(|n| usize::from(*n)).sum());
        let Some(next) = packet.get(size..) else {
            break;
        };
        rest = next;
    }
    codecs
}

/// Text, and what kind of it: no sound begins with nothing but letters.
fn text(first: &[u8]) -> Option<Refusal> {
    let bytes = first.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(first);
    let bytes = &bytes[..bytes.len().min(1024)];
    let wide = matches!(first, [0xFF, 0xFE, _, 0, _, 0, ..] | [0xFE, 0xFF, 0, _, 0, _, ..]);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // Cut inside a character.
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => {
            std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) if wide => "text in UTF-16",
        Err(_) => return None,
    };
    if text.is_empty()
        || text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}'))
    {
        return None;
    }
    let begins = text.trim_start().to_ascii_lowercase();
    let quote = |text: &str| -> String {
        let line = text.trim().lines().next().unwrap_or_default();
        line.chars().take(QUOTED).collect()
    };
    let page = ["<!doctype html", "<html", "<head", "<body"]
        .iter()
        .any(|tag| begins.starts_with(tag));
    let (found, hint) = if page {
        let title = begins.find("<title>").map(|at| at + "<title>".len());
        let title = title.and_then(|at| text.trim_start().get(at..)?.split('<').next());
        (format!("an HTML page: {:?}", quote(title.unwrap_or(text))), PAGE)
    } else if begins.starts_with("<?xml") || begins.starts_with("<error") {
        (format!("an XML text: {:?}", quote(text)), PAGE)
    } else if begins.starts_with(['{', '[']) {
        (format!("a JSON text: {:?}", quote(text)), PAGE)
    } else if begins.starts_with("#extm3u") || begins.starts_with("[playlist]") {
        ("a playlist".to_owned(), "name the sounds that it names")
    } else {
        (format!("a text: {:?}", quote(text)), NO_SOUND)
    };
    Some(Refusal { found, hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_named_and_quoted() {
        for (bytes, found) in [
            (
                &b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head>"[..],
                "an HTML page: \"403 Forbidden\"",
            ),
            (b"\n <HTML>\n<body>Sign in</body>", "an HTML page: \"<HTML>\""),
            (
                b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>",
                "an XML text",
            ),
            (
                b"{\"error\": \"not found\"}",
                "a JSON text: \"{\\\"error\\\": \\\"not found\\\"}\"",
            ),
            (b"\xEF\xBB\xBF[1, 2]", "a JSON text"),
            (b"#EXTM3U\nhttp://x/a.mp3\n", "a playlist"),
            (
                b"Invalid username or password.",
                "a text: \"Invalid username or password.\"",
            ),
            ("größe 音".as_bytes(), "a text: \"größe 音\""),
            (b"\xFF\xFEh\0i\0", "a text: \"text in UTF-16\""),
        ] {
            assert!(
                refused(bytes).unwrap().found.starts_with(found),
                "{}",
                refused(bytes).unwrap().found
            );
        }
        for sound in [
            &b"RIFF\x24\0\0\0WAVEfmt "[..],
            b"fLaC\0\0\0\x22",
            b"ID3\x04\0\0\0\0\0\0",
            b"\xFF\xFB\x90\x64",
            b"\0\0\0\x20ftypM4A ",
            b"",
        ] {
            assert!(refused(sound).is_none(), "{sound:?}");
        }
    }

    #[test]
    fn ogg_streams_are_named_by_their_first_pages() {
        let page = |flags: u8, packet: &[u8]| {
            let mut page = b"OggS\0".to_vec();
            page.push(flags);
            page.extend([0; 20]);
            page.extend([1, packet.len() as u8]);
            page.extend(packet);
            page
        };
        let name = |pages: &[Vec<u8>]| refused(&pages.concat()).map(|r| r.found);
        assert_eq!(name(&[page(2, b"OpusHead\x01")]).unwrap(), "Ogg Opus");
        assert_eq!(
            name(&[page(2, b"Speex   1.2"), page(0, b"x")]).unwrap(),
            "Ogg Speex"
        );
        assert_eq!(
            name(&[page(2, b"\x80theora"), page(2, b"OpusHead")]).unwrap(),
            "Ogg Opus"
        );
        assert_eq!(
            name(&[page(2, b"\x80theora"), page(2, b"fishead\0")]).unwrap(),
            "Ogg Theora video, a skeleton and no sound"
        );
        assert_eq!(name(&[page(2, b"\x80theora"), page(2, b"\x01vorbis")]), None);
        assert_eq!(name(&[page(2, b"\x7FFLAC\x01")]), None);
        assert_eq!(name(&[page(2, b"what")]).unwrap(), "Ogg an unknown codec");
        let whole = page(2, b"OpusHead\x01");
        for cut in 0..whole.len() {
            let _ = refused(&whole[..cut]);
        }
    }
}
