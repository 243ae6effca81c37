//! Sound files as other programs leave them: read as ffmpeg reads them, or refused by a name.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use af2::audio::decode::Reader;
use af2::audio::{self, Span};
use af2::shapes::Seconds;
use common::golden;
use serde_json::Value;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// All frames from `start` on, interleaved.
fn read(path: &Path, start: u64) -> af2::Result<Vec<f64>> {
    let mut all = Vec::new();
    Reader::open(path)?.read(start, u64::MAX, |block| all.extend_from_slice(block))?;
    Ok(all)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// What reading bytes gives.
    fn samples(&self, bytes: &[u8]) -> Vec<f64> {
        read(&self.file("x.wav", bytes), 0).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The message of the refusal of bytes; it names the file.
    fn refused(&self, name: &str, bytes: &[u8]) -> String {
        refused(&self.file(name, bytes))
    }
}

fn refused(path: &Path) -> String {
    let span = Span {
        start: Seconds(0.0),
        duration: Seconds(10.0),
    };
    let e = audio::load(path, span).unwrap_err();
    let message = e.to_string();
    assert!(message.starts_with(&path.display().to_string()), "{message}");
    assert!(message.contains("hint: "), "{message}");
    assert!([3, 5].contains(&e.exit_code()), "{message}");
    message
}

fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut chunk = name.to_vec();
    chunk.extend((body.len() as u32).to_le_bytes());
    chunk.extend(body);
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}

/// A `fmt ` chunk's body of `size` bytes: mono, 16 kHz.
fn fmt(tag: u16, bits: u16, size: usize) -> Vec<u8> {
    let align = bits.div_ceil(8);
    let mut body = Vec::new();
    for field in [tag, 1, 16_000, 0, 16_000 * align % u16::MAX, 0, align, bits] {
        body.extend(field.to_le_bytes());
    }
    body.resize(size, 0);
    body
}

fn riff(form: &[u8; 4], size: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut file = form.to_vec();
    file.extend(size.to_le_bytes());
    file.extend(b"WAVE");
    file.extend(chunks.concat());
    file
}

const THREE: [f64; 3] = [0.5, -0.25, 0.125];

/// [`THREE`] as 16-bit whole numbers.
fn three(bytes: fn(i16) -> [u8; 2]) -> Vec<u8> {
    THREE.iter().flat_map(|v| bytes((v * 32768.0) as i16)).collect()
}

#[test]
fn files_of_other_programs_decode_as_ffmpeg_decodes_them() {
    let text = std::fs::read_to_string(golden("formats_more/expected.json")).unwrap();
    let all: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 9);
    for (name, expected) in all {
        let number = |key: &str| expected[key].as_u64().unwrap() as usize;
        let path = golden("formats_more").join(&name);
        let reader = Reader::open(&path).unwrap();
        let channels = reader.channels;
        assert_eq!(
            (reader.rate as usize, channels),
            (number("rate"), number("channels")),
            "{name}"
        );
        let whole = read(&path, 0).unwrap();
        assert_eq!(whole.len() / channels, number("frames"), "{name}");
        // Its ADPCM rounds in another place.
        let near = if name.starts_with("adpcm_ima") { 2e-3 } else { 3e-6 };
        for (i, frame) in expected["samples"].as_array().unwrap().iter().enumerate() {
            for (c, value) in frame.as_array().unwrap().iter().enumerate() {
                let own = whole[i * number("every") * channels + c];
                let difference = (own - value.as_f64().unwrap()).abs();
                assert!(
                    difference < near,
                    "{name}, frame {}: {difference:e}",
                    i * number("every")
                );
            }
        }
        // From the middle, of what keeps every sample.
        if !name.contains("mp3") {
            assert_eq!(read(&path, 700).unwrap(), whole[700 * channels..], "{name}");
        }
    }
}

#[test]
fn rf64_and_bw64_are_wav_with_sizes_of_64_bits() {
    let folder = Folder::new();
    let data = three(i16::to_le_bytes);
    let ds64 = |data: u64, table: &[(&[u8; 4], u64)]| {
        let mut body = Vec::new();
        for size in [0, data, 0] {
            body.extend(size.to_le_bytes());
        }
        body.extend((table.len() as u32).to_le_bytes());
        for (name, size) in table {
            body.extend(*name);
            body.extend(size.to_le_bytes());
        }
        chunk(b"ds64", &body)
    };
    let open = |name: &[u8; 4], body: &[u8]| [name, &u32::MAX.to_le_bytes(), body].concat();
    for form in [b"RF64", b"BW64"] {
        for chunks in [
            vec![
                ds64(6, &[]),
                chunk(b"fmt ", &fmt(1, 16, 16)),
                open(b"data", &data),
            ],
            // Nothing behind the data is sound.
            vec![
                ds64(6, &[]),
                chunk(b"fmt ", &fmt(1, 16, 16)),
                open(b"data", &data),
                chunk(b"axml", b"<a/>"),
            ],
            // The small size holds where it is there; an open one goes to the end.
            vec![
                ds64(9, &[]),
                chunk(b"fmt ", &fmt(1, 16, 18)),
                chunk(b"data", &data),
            ],
            vec![
                ds64(0, &[]),
                chunk(b"fmt ", &fmt(1, 16, 40)),
                open(b"data", &data),
            ],
            vec![
                ds64(u64::MAX, &[]),
                chunk(b"fmt ", &fmt(1, 16, 16)),
                open(b"data", &data),
            ],
            vec![chunk(b"fmt ", &fmt(1, 16, 16)), open(b"data", &data)],
            // A chunk before the data whose size stands in the table.
            vec![
                ds64(6, &[(b"bext", 4)]),
                open(b"bext", b"abcd"),
                chunk(b"fmt ", &fmt(1, 16, 16)),
                open(b"data", &data),
            ],
        ] {
            let bytes = riff(form, u32::MAX, &chunks);
            let path = folder.file("x.wav", &bytes);
            assert_eq!(read(&path, 0).unwrap(), THREE);
            assert_eq!(Reader::open(&path).unwrap().frames, Some(3));
        }
        let cut = riff(
            form,
            u32::MAX,
            &[
                ds64(1 << 40, &[]),
                chunk(b"fmt ", &fmt(1, 16, 16)),
                open(b"data", &data),
            ],
        );
        let message = folder.refused("cut.wav", &cut);
        assert!(
            message.contains("1099511627776 bytes of sound") && message.contains("cut off"),
            "{message}"
        );
    }
}

/// 5 GiB, nearly all of it a hole in the file.
#[test]
fn frames_beyond_4_gib_are_found() {
    let folder = Folder::new();
    let frames = 5u64 << 29;
    let mut ds64 = vec![0; 8];
    ds64.extend((2 * frames).to_le_bytes());
    ds64.extend([0; 12]);
    let head = riff(
        b"RF64",
        u32::MAX,
        &[
            chunk(b"ds64", &ds64),
            chunk(b"fmt ", &fmt(1, 16, 16)),
            b"data\xff\xff\xff\xff".to_vec(),
        ],
    );
    let path = folder.file("long.wav", &head);
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(head.len() as u64 + 2 * (frames - 3)))
        .unwrap();
    file.write_all(&three(i16::to_le_bytes)).unwrap();
    drop(file);
    assert_eq!(Reader::open(&path).unwrap().frames, Some(frames));
    let end = read(&path, frames - 5).unwrap();
    assert_eq!(end, [[0.0; 2].as_slice(), &THREE].concat());
}

#[test]
fn fmt_chunks_of_every_length() {
    let folder = Folder::new();
    let float: Vec<u8> = THREE.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
    let int16 = three(i16::to_le_bytes);
    // A-law and µ-law of silence, and of the largest of each sign.
    let companded = [0xD5u8, 0xAA, 0x2A];
    let mu = [0xFFu8, 0x80, 0x00];
    for size in [16, 18, 20, 22, 28, 40, 50] {
        for (tag, bits, data, expected) in [
            (1, 16, &int16[..], THREE),
            // A sample that is no whole number of bytes fills them from the top.
            (1, 12, &int16[..], THREE),
            (3, 32, &float[..], THREE),
            (
                6,
                8,
                &companded[..],
                [8.0 / 32768.0, 32256.0 / 32768.0, -32256.0 / 32768.0],
            ),
            (7, 8, &mu[..], [0.0, 32124.0 / 32768.0, -32124.0 / 32768.0]),
        ] {
            let chunks = [chunk(b"fmt ", &fmt(tag, bits, size)), chunk(b"data", data)];
            let found = folder.samples(&riff(b"RIFF", 0, &chunks));
            assert_eq!(found, expected, "tag {tag}, fmt chunk of {size} bytes");
        }
    }
    // The oldest chunks have no bits a sample.
    let chunks = [chunk(b"fmt ", &fmt(1, 16, 14)), chunk(b"data", &int16)];
    assert_eq!(folder.samples(&riff(b"RIFF", 0, &chunks)), THREE);
}

#[test]
fn codecs_in_wav_are_named() {
    let folder = Folder::new();
    for (tag, bits, name) in [
        (0x31, 0, "GSM 6.10 (format tag 0x0031)"),
        (0x161, 16, "Windows Media Audio"),
        (0x2000, 0, "Dolby AC-3"),
        (0xFF, 16, "AAC"),
        (0x704F, 16, "Opus"),
        (0x674F, 16, "Vorbis"),
        (0xF1AC, 16, "FLAC"),
        (0x45, 4, "G.726"),
        (0x22, 1, "TrueSpeech"),
        (0x200, 4, "ADPCM"),
        (0x9999, 16, "an unknown codec (format tag 0x9999)"),
        (1, 64, "whole numbers of 64 bits"),
        (3, 16, "float of 16 bits"),
        (0xFFFE, 16, "fmt chunk has 18 bytes"),
    ] {
        let bytes = riff(
            b"RIFF",
            0,
            &[chunk(b"fmt ", &fmt(tag, bits, 18)), chunk(b"data", &[1; 64])],
        );
        let message = folder.refused("x.wav", &bytes);
        assert!(
            message.contains(name) && message.contains("ffmpeg -i"),
            "{message}"
        );
    }
    // 24 bits in 4 bytes, of which nobody says whether they are float.
    let mut fmt24 = fmt(1, 24, 16);
    fmt24[12] = 4;
    let bytes = riff(b"RIFF", 0, &[chunk(b"fmt ", &fmt24), chunk(b"data", &[1; 64])]);
    assert!(folder.refused("x.wav", &bytes).contains("24 bits in 4 bytes"));
    // Without one of the two chunks.
    for chunks in [
        vec![chunk(b"data", &[1; 8])],
        vec![chunk(b"fmt ", &fmt(1, 16, 16))],
        vec![],
    ] {
        let message = folder.refused("x.wav", &riff(b"RIFF", 0, &chunks));
        assert!(message.contains("a WAV file without"), "{message}");
    }
}

#[test]
fn nist_sphere_is_read_and_shortened_is_refused() {
    let folder = Folder::new();
    let sphere = |fields: &str, data: &[u8]| {
        let mut file = format!("NIST_1A\n   1024\n{fields}\nend_head\n").into_bytes();
        file.resize(1024, b' ');
        file.extend(data);
        file
    };
    let about = "database_id -s5 TIMIT\nchannel_count -i 1\nsample_rate -i 16000\nsample_count -i 3\nsample_n_bytes -i ";
    let (little, big) = (three(i16::to_le_bytes), three(i16::to_be_bytes));
    for (fields, data, expected) in [
        (
            "2\nsample_byte_format -s2 01\nsample_sig_bits -i 16",
            &little[..],
            THREE,
        ),
        (
            "2\nsample_byte_format -s2 10\nsample_coding -s3 pcm",
            &big[..],
            THREE,
        ),
        (
            "1\nsample_coding -s4 ulaw",
            &[0xFF, 0x80, 0x00],
            [0.0, 32124.0 / 32768.0, -32124.0 / 32768.0],
        ),
        (
            "1\nsample_coding -s4 alaw\nsample_byte_format -s1 1",
            &[0xD5, 0xAA, 0x2A],
            [8.0 / 32768.0, 32256.0 / 32768.0, -32256.0 / 32768.0],
        ),
    ] {
        // What stands behind the samples is none of them.
        let bytes = sphere(&format!("{about}{fields}"), &[data, b"\0"].concat());
        let path = folder.file("x.wav", &bytes);
        let reader = Reader::open(&path).unwrap();
        assert_eq!(
            (reader.rate, reader.channels, reader.frames),
            (16_000, 1, Some(3)),
            "{fields}"
        );
        assert_eq!(read(&path, 0).unwrap(), expected, "{fields}");
        assert_eq!(read(&path, 1).unwrap(), expected[1..], "{fields}");
        let message = folder.refused("cut.sph", &bytes[..1024 + data.len() - 1]);
        assert!(message.contains("cut off"), "{message}");
    }
    for (fields, name) in [
        (
            "2\nsample_coding -s26 pcm,embedded-shorten-v2.00\nsample_byte_format -s2 10",
            "pcm,embedded-shorten-v2.00",
        ),
        (
            "1\nsample_coding -s27 ulaw,embedded-shorten-v2.00",
            "ulaw,embedded-shorten-v2.00",
        ),
        ("2\nsample_coding -s3 pcm", "of pcm in 2 bytes"),
        ("9\nsample_byte_format -s2 01", "of pcm in 9 bytes"),
    ] {
        let message = folder.refused("x.sph", &sphere(&format!("{about}{fields}"), &big));
        assert!(
            message.contains("NIST SPHERE") && message.contains(name),
            "{message}"
        );
    }
    assert!(folder.refused("x.sph", b"NIST_1A\n").contains("NIST SPHERE"));
}

#[test]
fn he_aac_is_refused_however_it_is_told() {
    let folder = Folder::new();
    let bytes = |name: &str| std::fs::read(golden("formats_more").join(name)).unwrap();
    // Nothing but the frames tells it.
    for name in ["he.aac", "he.m4a", "he.mka"] {
        let message = folder.refused(name, &bytes(name));
        assert!(
            message.contains("HE-AAC") && message.contains("ffmpeg -i"),
            "{message}"
        );
    }
    // An ID3 tag before ADTS.
    let tagged = [b"ID3\x04\0\0\0\0\0\x0a".as_slice(), &[0; 10], &bytes("he.aac")].concat();
    assert!(folder.refused("tagged.aac", &tagged).contains("HE-AAC"));
    // By the configuration, for which the frames do not matter.
    let configured = |name: &str, configuration: [u8; 5]| {
        let mut bytes = bytes(name);
        let at = (bytes.windows(5))
            .position(|w| w == [0x13, 0x88, 0, 0, 0])
            .unwrap();
        bytes[at..at + 5].copy_from_slice(&configuration);
        folder.file(name, &bytes)
    };
    for name in ["he.m4a", "he.mka"] {
        for (configuration, expected) in [
            (
                [0x2B, 0x8A, 0x08, 0, 0],
                "HE-AAC (AAC with spectral band replication)",
            ),
            ([0xEB, 0x8A, 0x08, 0, 0], "HE-AAC v2 (AAC with parametric stereo)"),
            (
                [0x13, 0x88, 0x56, 0xE5, 0xA0],
                "HE-AAC (AAC with spectral band replication)",
            ),
            ([0x0B, 0x88, 0, 0, 0], "AAC Main"),
            ([0xF9, 0x48, 0x40, 0, 0], "xHE-AAC (USAC)"),
            ([0xF8, 0xE8, 0x50, 0, 0], "AAC ELD"),
        ] {
            let message = refused(&configured(name, configuration));
            assert!(message.contains(expected), "{name}: {message}");
        }
        // Expressly without: what ffmpeg writes, and then does not look for it.
        assert!(read(&configured(name, [0x13, 0x88, 0x56, 0xE5, 0]), 0).is_ok());
    }
    // Main profile in ADTS.
    let mut main = std::fs::read(golden("formats/mono_44k.aac")).unwrap();
    assert!(read(&folder.file("lc.aac", &main), 0).is_ok());
    main[2] &= 0x3F;
    assert!(folder.refused("main.aac", &main).contains("AAC Main"));
}

#[test]
fn what_has_no_decoder_is_named() {
    for (name, found) in [
        ("opus.ogg", "Opus"),
        ("opus.webm", "Opus"),
        ("opus.mp4", "Opus"),
        ("amr.3gp", "AMR narrowband"),
        ("video.mp4", "video and no sound"),
        ("video.webm", "an audio track"),
    ] {
        let message = refused(&golden("formats_more").join(name));
        assert!(
            message.contains(found) && message.contains("ffmpeg -i"),
            "{message}"
        );
    }
    let folder = Folder::new();
    let rest = vec![0x55u8; 3000];
    for (name, first, found) in [
        ("x.amr", &b"#!AMR\n\x3c"[..], "AMR narrowband"),
        ("x.awb", b"#!AMR-WB\n\x3c", "AMR wideband"),
        (
            "x.wma",
            b"\x30\x26\xB2\x75\x8E\x66\xCF\x11\xA6\xD9\0\xAA\0\x62\xCE\x6C",
            "Windows Media",
        ),
        ("x.mid", b"MThd\0\0\0\x06\0\x01\0\x02\x01\xe0", "MIDI"),
        ("x.rmi", b"RIFF\0\x01\0\0RMIDdata", "MIDI"),
        ("x.avi", b"RIFF\0\x01\0\0AVI LIST", "AVI"),
        ("x.wv", b"wvpk\0\0\0\0", "WavPack"),
        ("x.ape", b"MAC \x96\x0f", "Monkey's Audio"),
        ("x.ra", b".ra\xfd\0\x04", "RealAudio"),
        ("x.dsf", b"DSD \x1c\0", "DSD"),
        ("x.voc", b"Creative Voice File\x1a", "Creative Voice"),
        ("x.w64", b"riff\x2E\x91\xCF\x11\xA5\xD6", "Wave64"),
        ("x.wav", b"RIFX\0\0\0\x24WAVEfmt ", "RIFX"),
        ("x.ac3", b"\x0B\x77\x12\x34", "AC-3"),
        ("x.wav.gz", b"\x1F\x8B\x08\0", "gzip"),
        ("x.wav", b"PK\x03\x04\x14\0", "zip archive"),
        ("x.mp3", b"%PDF-1.7\n\xe2", "PDF"),
        ("x.mp3", b"\xFF\xD8\xFF\xE0\0\x10JFIF", "JPEG"),
        ("._x.wav", b"\0\x05\x16\x07\0\x02", "AppleDouble"),
    ] {
        let message = folder.refused(name, &[first, &rest].concat());
        assert!(message.contains(found), "{message}");
    }
    // Where no name is known, and where frames of MP3 stand somewhere in a file of something else.
    let mut junk = vec![0x11u8; 300_000];
    let mp3 = std::fs::read(golden("formats/mono_22k_cbr.mp3")).unwrap();
    junk.extend(mp3);
    assert!(folder.refused("x.bin", &junk).contains("no suitable format"));
    assert!(folder.refused("x.wav", &[0; 4000]).contains("no suitable format"));
}

#[test]
fn pages_and_pointers_in_a_sounds_place_are_named() {
    let folder = Folder::new();
    for (name, bytes, found) in [
        (
            "x.mp3",
            &b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head></html>"[..],
            "an HTML page: \"403 Forbidden\"",
        ),
        (
            "x.wav",
            b"{\"error\": \"rate limit\"}",
            "a JSON text: \"{\\\"error\\\": \\\"rate limit\\\"}\"",
        ),
        (
            "x.flac",
            b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
            "an XML text",
        ),
        ("x.wav", b"Entry not found", "a text: \"Entry not found\""),
        ("x.m3u", b"#EXTM3U\na.mp3\n", "a playlist"),
        (
            "x.wav",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 321\n",
            "a git-lfs pointer to a file of 321 bytes",
        ),
    ] {
        let message = folder.refused(name, bytes);
        assert!(message.contains(found), "{message}");
    }
    let empty = folder.file("empty.wav", b"");
    let e = Reader::open(&empty).err().unwrap().to_string();
    assert!(e.contains("0 bytes"), "{e}");
}

/// A file's content says what it is, whatever it is called.
#[test]
fn a_wrong_extension_does_no_harm() {
    let folder = Folder::new();
    for (from, to) in [
        ("formats/mono_22k_cbr.mp3", "x.wav"),
        ("formats/stereo_44k.flac", "x.mp4"),
        ("formats/mono_8k.ogg", "x"),
        ("formats/mono_44k.aac", "x.flac"),
        ("formats_more/mulaw_8k.wav", "x.ogg"),
    ] {
        let original = golden(from);
        let renamed = folder.file(to, &std::fs::read(&original).unwrap());
        assert_eq!(read(&renamed, 0).unwrap(), read(&original, 0).unwrap(), "{from}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_and_devices_are_refused_and_not_waited_for() {
    let folder = Folder::new();
    let fifo = folder.0.path().join("fifo.wav");
    assert!(std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap()
        .success());
    let linked = folder.0.path().join("linked.wav");
    std::os::unix::fs::symlink(&fifo, &linked).unwrap();
    for (path, found) in [
        (fifo.as_path(), "a pipe"),
        (&linked, "a pipe"),
        (Path::new("/dev/zero"), "a device"),
        (Path::new("/dev/null"), "a device"),
    ] {
        let message = refused(path);
        assert!(
            message.contains(found) && message.contains("ffmpeg -i INPUT"),
            "{message}"
        );
        let source = audio::Source::from(path);
        assert!(source.hash().is_err());
    }
}

#[test]
fn a_name_in_another_unicode_form_is_hinted_at() {
    let folder = Folder::new();
    let [composed, decomposed] = ["caf\u{e9}", "cafe\u{301}"];
    let bytes = std::fs::read(golden("formats_more/mulaw_8k.wav")).unwrap();
    for (there, asked, form) in [
        (decomposed, composed, "decomposed (NFD), as macOS"),
        (composed, decomposed, "is there, composed (NFC)"),
    ] {
        // In the file's name, and in the folder's.
        for inside in [format!("{there}.wav"), format!("{there}/b.wav")] {
            let root = folder
                .0
                .path()
                .join(there.len().to_string())
                .join(inside.len().to_string());
            let path = root.join(&inside);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path, 0).is_ok());
            let message = refused(&root.join(inside.replace(there, asked)));
            assert!(
                message.contains("another Unicode form") && message.contains(form),
                "{message}"
            );
        }
    }
    let missing = Reader::open(&folder.0.path().join("none.wav"))
        .err()
        .unwrap()
        .to_string();
    assert!(!missing.contains("Unicode"), "{missing}");
}
