//! Files that are wrong, and the rules of loading, on files made on the spot.

use super::*;
use hound::{SampleFormat, WavSpec, WavWriter};
use std::path::PathBuf;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Interleaved samples as a WAV file of 16 bit, or 32-bit float.
    fn wav<S: hound::Sample + Copy>(&self, rate: u32, channels: u16, samples: &[S]) -> PathBuf {
        let float = std::mem::size_of::<S>() == 4;
        let spec = WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: if float { 32 } else { 16 },
            sample_format: if float {
                SampleFormat::Float
            } else {
                SampleFormat::Int
            },
        };
        let path = self
            .0
            .path()
            .join(format!("{rate}-{channels}-{}.wav", samples.len()));
        let mut writer = WavWriter::create(&path, spec).unwrap();
        samples.iter().for_each(|s| writer.write_sample(*s).unwrap());
        writer.finalize().unwrap();
        path
    }
}

fn span(start: f64, duration: f64) -> Span {
    Span {
        start: Seconds(start),
        duration: Seconds(duration),
    }
}

/// The message of the error that loading `path` gives; it must name the path.
fn refused(path: &Path) -> String {
    let message = load(path, span(0.0, 10.0)).unwrap_err().to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    message
}

#[test]
fn a_missing_file_is_an_io_error() {
    let folder = Folder::new();
    let error = load(&folder.0.path().join("none.wav"), span(0.0, 10.0)).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("none.wav"));
    assert!(refused(folder.0.path()).contains("a folder"));
}

#[test]
fn empty_files_are_refused() {
    let folder = Folder::new();
    assert!(refused(&folder.file("zero.wav", b"")).contains("0 bytes"));
    assert!(refused(&folder.wav::<i16>(16_000, 1, &[])).contains("found none"));
}

#[test]
fn a_truncated_wav_is_refused_wherever_the_span_lies() {
    let folder = Folder::new();
    let path = folder.wav(16_000, 1, &[1000i16; 16_000]);
    let bytes = std::fs::read(&path).unwrap();
    let cut = folder.file("cut.wav", &bytes[..bytes.len() - 1000]);
    assert!(refused(&cut).contains("cut off"));
    assert!(load(&cut, span(0.0, 0.1)).is_err());
}

#[test]
fn sizes_left_open_by_a_pipe_are_read_to_the_end() {
    let folder = Folder::new();
    let mut bytes = std::fs::read(folder.wav(16_000, 1, &[1000i16, -500, 250])).unwrap();
    let expected = vec![1.0, -0.5, 0.25];
    for size in [0u32, u32::MAX] {
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
        bytes[40..44].copy_from_slice(&size.to_le_bytes());
        let path = folder.file("pipe.wav", &bytes);
        assert_eq!(load(&path, span(0.0, 10.0)).unwrap(), expected, "{size}");
    }
}

#[test]
fn samples_that_are_not_numbers_are_refused() {
    let folder = Folder::new();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut samples = vec![0.1f32; 5000];
        samples[4321] = bad;
        // In a channel that is not used, too: the peak of all of them divides the first.
        assert!(refused(&folder.wav(16_000, 2, &samples)).contains("NaN or infinity"));
    }
}

#[test]
fn what_is_not_sound_is_refused() {
    let folder = Folder::new();
    let text = "this is a text and not a sound\n".repeat(100);
    assert!(refused(&folder.file("text.wav", text.as_bytes())).contains("known format"));
    let zeros = vec![0; 20_000];
    refused(&folder.file("zeros.mp3", &zeros));
    refused(&folder.file("short.flac", b"fLaC"));
}

#[test]
fn absurd_headers_are_refused() {
    let folder = Folder::new();
    for rate in [1u32, 999, 1_000_000, u32::MAX] {
        let mut bytes = std::fs::read(folder.wav(16_000, 1, &[1000i16; 100])).unwrap();
        bytes[24..28].copy_from_slice(&rate.to_le_bytes());
        refused(&folder.file("rate.wav", &bytes));
    }
    for channels in [0u16, 200, u16::MAX] {
        let mut bytes = std::fs::read(folder.wav(16_000, 1, &[1000i16; 100])).unwrap();
        bytes[22..24].copy_from_slice(&channels.to_le_bytes());
        refused(&folder.file("channels.wav", &bytes));
    }
}

#[test]
fn a_header_cannot_claim_memory() {
    // A CAF file whose packets hold 2^32 − 1 frames each: 8 GiB of room if believed.
    let mut bytes = b"caff\0\x01\0\0desc".to_vec();
    bytes.extend(32u64.to_be_bytes());
    bytes.extend(16_000f64.to_be_bytes());
    bytes.extend(b"lpcm");
    // Flags, bytes per packet, frames per packet, channels, bits.
    for field in [0u32, 2, u32::MAX, 1, 16] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(b"data");
    bytes.extend(104u64.to_be_bytes());
    bytes.extend([0; 104]);
    let message = refused(&Folder::new().file("claim.caf", &bytes));
    assert!(message.contains("4294967295"), "{message}");
}

#[test]
fn every_prefix_and_many_changed_bytes_give_a_result_and_no_panic() {
    let folder = Folder::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wavs");
    let wav = folder.wav(8_000, 2, &[300i16; 400]);
    for path in [
        wav,
        golden.join("mono_16k_1p2s.mp3"),
        golden.join("mono_48k_1p1s.flac"),
    ] {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(8000);
        let extension = path.extension().unwrap().to_str().unwrap();
        let name = format!("changed.{extension}");
        for length in (0..bytes.len().min(200)).chain((200..bytes.len()).step_by(997)) {
            let _ = load(&folder.file(&name, &bytes[..length]), span(0.0, 1.0));
        }
        for at in (0..bytes.len().min(160)).chain((160..bytes.len()).step_by(499)) {
            for value in [0, 0x7f, 0xff, bytes[at] ^ 1] {
                let kept = std::mem::replace(&mut bytes[at], value);
                let _ = load(&folder.file(&name, &bytes), span(0.01, 1.0));
                bytes[at] = kept;
            }
        }
    }
}

#[test]
fn start_and_duration_choose_the_samples() {
    let folder = Folder::new();
    let ramp: Vec<i16> = (0..32_000).map(|i| -(i as i16 % 16_384)).collect();
    let path = folder.wav(16_000, 1, &ramp);
    let loaded = load(&path, span(0.5, 0.25)).unwrap();
    // Read are 0.75 s from 0.5 s on; their peak is 16,383, of which the first 0.25 s know nothing.
    assert_eq!(loaded.len(), 4000);
    assert_eq!(loaded[0], -8000.0 / 16383.0);
    let after = load(&path, span(2.0, 1.0)).unwrap_err().to_string();
    assert!(after.contains("from 2 s on"), "{after}");
    assert!(load(&path, span(-1.0, 1.0)).is_err());
    assert!(load(&path, span(f64::NAN, 1.0)).is_err());
}

#[test]
fn normalisation_follows_the_reference() {
    let folder = Folder::new();
    let load =
        |samples: &[f32], channels| load(&folder.wav(16_000, channels, samples), span(0.0, 1.0)).unwrap();
    assert_eq!(load(&[0.25, -0.5, 0.125], 1), [0.5, -1.0, 0.25]);
    assert_eq!(load(&[0.0, 0.25, 0.5], 1), [-1.0, 0.0, 1.0]);
    assert_eq!(load(&[0.0, 0.0], 1), [0.0, 0.0]);
    // The second channel's peak of 4 divides first, and then the first channel's own.
    assert_eq!(load(&[1.0, 4.0, -2.0, 0.0], 2), [0.5, -1.0]);
}

/// The Ogg file is not from the reference: libsndfile made it from a sweep and noise, for this test.
#[test]
fn seeking_finds_the_same_samples_as_reading_on() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wavs");
    for name in [
        "flac_16k_mono_12p5s.flac",
        "stereo_22k_4p5s.wav",
        "stereo_44k_1p5s.mp3",
        "vorbis_16k_mono_4s.ogg",
    ] {
        let path = golden.join(name);
        let collect = |start: u64| {
            let mut all = Vec::new();
            let reader = Reader::open(&path).unwrap();
            let channels = reader.channels;
            let n = reader
                .read(start, u64::MAX, |b| all.extend_from_slice(b))
                .unwrap();
            assert_eq!(n as usize * channels, all.len());
            (all, channels)
        };
        let (whole, channels) = collect(0);
        for start in [1u64, 5000, 23_457] {
            let (part, _) = collect(start);
            let expected = &whole[start as usize * channels..];
            assert_eq!(part.len(), expected.len(), "{name} {start}");
            let worst = (part.iter().zip(expected))
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(worst < 1e-6, "{name} {start}: {worst:e}");
        }
    }
}

#[test]
fn a_sound_in_memory_is_that_of_its_file() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wavs");
    let mut sounds = 0;
    for file in std::fs::read_dir(golden).unwrap() {
        let path = file.unwrap().path();
        let bytes: std::sync::Arc<[u8]> = std::fs::read(&path).unwrap().into();
        let mp3 = path.extension().is_some_and(|e| e == "mp3");
        for at in [span(0.0, 30.0), span(0.5, 1.0)] {
            let (on_disk, in_memory) = (load(&path, at), load_bytes("the sound".as_ref(), &bytes, mp3, at));
            match (on_disk, in_memory) {
                (Ok(one), Ok(other)) => assert!(one == other, "{}", path.display()),
                (Err(one), Err(other)) => {
                    let expected = one.to_string().replace(&path.display().to_string(), "the sound");
                    assert_eq!(other.to_string(), expected);
                }
                _ => panic!("{}: only one of the two", path.display()),
            }
            sounds += 1;
        }
    }
    assert!(sounds > 10, "{sounds}");
    let e = load_bytes("the sound".as_ref(), &Vec::new().into(), false, span(0.0, 1.0)).unwrap_err();
    assert_eq!(e.to_string(), "the sound: expected a sound file, found 0 bytes");
}

#[test]
fn a_start_behind_the_end_names_the_length() {
    let wavs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wavs");
    for (name, length) in [
        ("speech_16k_mono_3p7s.wav", "3.7 s long"),
        ("stereo_44k_1p5s.mp3", "1.5 s long"),
        ("vorbis_16k_mono_4s.ogg", "4.0 s long"),
    ] {
        let span = Span {
            start: Seconds(80.0),
            duration: Seconds(10.0),
        };
        let e = load(&wavs.join(name), span).unwrap_err().to_string();
        assert!(e.contains("from 80 s on") && e.contains(length), "{e}");
    }
}
