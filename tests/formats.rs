//! Every kind of sound file that is promised: what it decodes to, reading from the middle of it, lengths at every
//! boundary, and headers that lie.
#![allow(clippy::unwrap_used)]

mod common;

use af2::audio::decode::Reader;
use af2::audio::{self, Span};
use af2::shapes::{Seconds, WINDOW_SAMPLES};
use common::golden;
use rand::seq::SliceRandom;
use rand::Rng;
use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
use serde_json::Value;
use std::path::Path;

/// Frames from `start` to `end`, interleaved.
fn read(path: &Path, start: u64, end: u64) -> af2::Result<Vec<f64>> {
    let mut all = Vec::new();
    Reader::open(path)?.read(start, end, |block| all.extend_from_slice(block))?;
    Ok(all)
}

/// Writes a file anew. Over an old one some file systems wait for the disk: a hundred times as long.
fn put(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, bytes).unwrap();
}

/// What ffmpeg made of each fixture.
fn fixtures() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(golden("formats/expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Surround sound that the decoder library cannot do, or does wrong.
const REFUSED: [(&str, &str); 2] = [
    ("six_48k.ogg", "1 or 2 channels in Ogg Vorbis"),
    ("six_48k.m4a", "aac too complex"),
];

/// Lossless: rounding of the stored numbers. Lossy: float32 transforms in another order; mp3's synthesis by 1.3e-6.
const NEAR: f64 = 3e-6;

#[test]
fn every_format_decodes_as_ffmpeg_does() {
    let all = fixtures();
    assert_eq!(all.len(), 16);
    for (name, expected) in all {
        let path = golden("formats").join(&name);
        let reader = Reader::open(&path).unwrap();
        let channels = reader.channels;
        assert_eq!(
            (reader.rate, channels),
            (number(&expected, "rate") as u32, number(&expected, "channels"))
        );
        let samples = read(&path, 0, u64::MAX).unwrap();
        assert_eq!(samples.len() / channels, number(&expected, "frames"), "{name}");
        let every = number(&expected, "every");
        for (i, frame) in expected["samples"].as_array().unwrap().iter().enumerate() {
            for (c, value) in frame.as_array().unwrap().iter().enumerate() {
                let own = samples[i * every * channels + c];
                let difference = (own - value.as_f64().unwrap()).abs();
                assert!(
                    difference < NEAR,
                    "{name}, frame {}, channel {c}: {difference:e}",
                    i * every
                );
            }
        }
    }
    for (name, message) in REFUSED {
        let e = Reader::open(&golden("formats").join(name))
            .err()
            .unwrap()
            .to_string();
        assert!(e.contains(message) && e.contains("ffmpeg -i"), "{e}");
    }
}

fn number(of: &Value, key: &str) -> usize {
    of[key].as_u64().unwrap() as usize
}

/// AAC files without noise of the decoder's own drawing (`-aac_pns 0`).
const WITHOUT_NOISE: [&str; 2] = ["mono_96k.m4a", "mono_16k_fragments.m4a"];

/// Reads stretches from everywhere in a file and compares them with the whole, which comes back.
fn middles(path: &Path, channels: usize, near: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let name = path.display();
    let whole = read(path, 0, u64::MAX).unwrap();
    let frames = whole.len() / channels;
    let mut starts = vec![0, 1, 1023, 1024, 1025, frames - 10, frames - 1];
    starts.extend((0..20).map(|_| rng.gen_range(0..frames)));
    for start in starts {
        let end = (start + rng.gen_range(1..5000)).min(frames);
        let part = read(path, start as u64, end as u64).unwrap();
        let same = &whole[start * channels..end * channels];
        assert_eq!(part.len(), same.len(), "{name} from {start} to {end}");
        let worst = distance(&part, same);
        assert!(worst <= near, "{name} from {start}: {worst:e}");
    }
    whole
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn the_middle_of_a_file_is_the_middle_of_the_whole() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (name, expected) in fixtures() {
        let path = golden("formats").join(&name);
        let near = match path.extension().and_then(|e| e.to_str()) {
            _ if name.contains("alac") || name.ends_with("flac") => 0.0,
            // AAC fills bands with noise that the decoder draws: one that starts anew draws other noise.
            Some("m4a" | "aac") if !WITHOUT_NOISE.contains(&&*name) => 5e-2,
            _ => 1e-6,
        };
        let channels = number(&expected, "channels");
        let frames = middles(&path, channels, near, &mut rng).len() / channels;
        let late = Span {
            start: Seconds(frames as f64 / number(&expected, "rate") as f64 + 1.0),
            duration: Seconds(10.0),
        };
        let e = audio::load(&path, late).unwrap_err();
        assert!(
            e.exit_code() == 5 && e.to_string().contains("the end before it"),
            "{name}: {e}"
        );
    }
}

/// Files that were cut or put together by bytes, whose headers and clocks do not tell what is in them.
#[test]
fn cut_and_joined_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut middles = |name: &str, bytes: &[u8], channels| {
        let path = folder.path().join(name);
        put(&path, bytes);
        let whole = middles(&path, channels, 1e-6, &mut rng);
        (whole, Reader::open(&path).unwrap().frames.unwrap() as usize)
    };
    let original = |name: &str| {
        let path = golden("formats").join(name);
        (std::fs::read(&path).unwrap(), read(&path, 0, u64::MAX).unwrap())
    };

    // A variable bit rate, and no header that counts the packets: an estimate from the first says 53 of 59.
    let (bytes, _) = original("stereo_44k_vbr.mp3");
    let (whole, _) = middles("no_header.mp3", &bytes[208..], 2);
    assert_eq!(whole.len(), 59 * 1152 * 2);

    // The header counts the first file only. The second begins with its delay, and with what rings on from the first.
    let (bytes, alone) = original("mono_22k_cbr.mp3");
    let (whole, _) = middles("joined.mp3", &bytes.repeat(2), 1);
    assert_eq!(whole[..alone.len()], alone);
    let again = &whole[alone.len() + 1105..];
    assert!(again.len() >= alone.len() && distance(&again[2000..], &alone[2000..]) < 1e-6);

    // A chain of streams.
    let (bytes, alone) = original("mono_8k.ogg");
    let (whole, _) = middles("joined.ogg", &bytes.repeat(2), 1);
    assert_eq!(whole, alone.repeat(2));

    // Three pages of headers and the sound from its fifth page on, as a recorder of radio stations makes: the first
    // timestamp is 65,024, or a little more.
    let (bytes, alone) = original("long_mono_16k.ogg");
    let (whole, frames) = middles("cut.ogg", &[&bytes[..3361], &bytes[7363..]].concat(), 1);
    assert!((140_000..=208_000 - 65_024).contains(&whole.len()));
    assert_eq!(frames, whole.len());
    let end = &alone[alone.len() - 140_000..];
    assert!(distance(&whole[whole.len() - 140_000..], end) < 1e-6);
}

/// A WAV file by hand: format tag, bits, channels, rate and the data's bytes.
fn wav(tag: u16, bits: u16, channels: u16, rate: u32, data: &[u8]) -> Vec<u8> {
    let align = channels * bits.div_ceil(8);
    let mut fmt = Vec::new();
    fmt.extend(tag.to_le_bytes());
    fmt.extend(channels.to_le_bytes());
    fmt.extend(rate.to_le_bytes());
    fmt.extend((rate.wrapping_mul(u32::from(align))).to_le_bytes());
    fmt.extend(align.to_le_bytes());
    fmt.extend(bits.to_le_bytes());
    riff(&fmt, data)
}

/// WAVE_FORMAT_EXTENSIBLE of `sub` format, whose valid bits and mask of loudspeakers are `valid` and `mask`.
fn extensible(sub: u16, bits: u16, channels: u16, rate: u32, valid: u16, mask: u32, data: &[u8]) -> Vec<u8> {
    let mut fmt = wav(0xFFFE, bits, channels, rate, &[])[20..36].to_vec();
    fmt.extend(22u16.to_le_bytes());
    fmt.extend(valid.to_le_bytes());
    fmt.extend(mask.to_le_bytes());
    fmt.extend(sub.to_le_bytes());
    fmt.extend([0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]);
    riff(&fmt, data)
}

fn riff(fmt: &[u8], data: &[u8]) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend((20 + fmt.len() as u32 + data.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend((fmt.len() as u32).to_le_bytes());
    file.extend(fmt);
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

/// Random samples of a kind, as bytes and as what they mean.
fn samples(float: bool, bits: u16, n: usize, rng: &mut ChaCha8Rng) -> (Vec<u8>, Vec<f64>) {
    let (mut data, mut meant) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let x: i32 = rng.gen();
        match (float, bits) {
            (true, 32) => data.extend((x as f32 / 3e9).to_le_bytes()),
            (true, _) => data.extend((f64::from(x) / 3e9).to_le_bytes()),
            (_, 8) => data.push((x >> 24) as u8 ^ 0x80),
            (_, bits) => data.extend(&x.to_le_bytes()[4 - usize::from(bits) / 8..]),
        }
        meant.push(match (float, bits) {
            (true, 32) => f64::from(x as f32 / 3e9),
            (true, _) => f64::from(x) / 3e9,
            (_, bits) => f64::from(x >> (32 - bits)) / f64::from(1u32 << (bits - 1)),
        });
    }
    (data, meant)
}

/// 8 to 192 kHz.
const RATES: [u32; 13] = [
    8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000,
];

#[test]
fn every_kind_of_wav() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wav");
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    // None of a recorder's, one of stereo, "all", all bits, one that has no name.
    let masks = [0, 3, 0x63F, 0x8000_0000, u32::MAX, 0x2_0000];
    for (float, bits) in [
        (false, 8),
        (false, 16),
        (false, 24),
        (false, 32),
        (true, 32),
        (true, 64),
    ] {
        for channels in 1..=8u16 {
            for rate in RATES {
                let (data, meant) = samples(float, bits, 300 * usize::from(channels), &mut rng);
                let tag = if float { 3 } else { 1 };
                let (mask, valid) = (*masks.choose(&mut rng).unwrap(), [bits, 0][rng.gen_range(0..2)]);
                for bytes in [
                    wav(tag, bits, channels, rate, &data),
                    extensible(tag, bits, channels, rate, valid, mask, &data),
                ] {
                    put(&path, &bytes);
                    let reader = Reader::open(&path).unwrap();
                    assert_eq!(
                        (reader.rate, reader.channels, reader.frames),
                        (rate, usize::from(channels), Some(300))
                    );
                    let found = read(&path, 0, u64::MAX).unwrap();
                    let what =
                        format!("{bits} bits, float {float}, {channels} channels, {rate} Hz, mask {mask:x}");
                    assert_eq!(found, meant, "{what}");
                    let start = rng.gen_range(0..300);
                    assert_eq!(
                        read(&path, start as u64, u64::MAX).unwrap(),
                        meant[start * usize::from(channels)..],
                        "{what} from {start}"
                    );
                }
            }
        }
    }
    for rate in RATES {
        let frames = rng.gen_range(1..5000usize);
        let (data, _) = samples(false, 16, 2 * frames, &mut rng);
        put(&path, &wav(1, 16, 2, rate, &data));
        let span = Span {
            start: Seconds(0.0),
            duration: Seconds(10.0),
        };
        let samples = audio::load(&path, span).unwrap();
        let expected = (frames * 16_000).div_ceil(rate as usize);
        assert_eq!(samples.len(), expected, "{frames} frames, {rate} Hz");
    }
}

/// Whatever a header says: a sound or an error.
#[test]
fn no_header_makes_the_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wav");
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut sounds, mut errors) = (0, 0);
    for _ in 0..4000 {
        let tags = [0u16, 1, 2, 3, 6, 7, 0x11, 0x55, 0xFFFE, rng.gen()];
        let bits = [0u16, 1, 4, 8, 12, 16, 20, 24, 32, 64, rng.gen()];
        let some_rates = [0u32, 1, 8_000, 16_000, 44_100, u32::MAX, rng.gen()];
        let channels = [0u16, 1, 2, 6, 8, 65, u16::MAX][rng.gen_range(0..7)];
        let data: Vec<u8> = (0..rng.gen_range(0..4000)).map(|_| rng.gen()).collect();
        let mut bytes = if rng.gen_bool(0.5) {
            let (tag, bits) = [(1, 16), (1, 24), (3, 32), (0xFFFE, 16)][rng.gen_range(0..4)];
            let channels = rng.gen_range(1..9);
            match tag {
                0xFFFE => extensible(
                    rng.gen_range(0..8),
                    bits,
                    channels,
                    16_000,
                    bits,
                    rng.gen(),
                    &data,
                ),
                _ => wav(tag, bits, channels, 16_000, &data),
            }
        } else {
            // What `wav` computes with must not overflow; the file's own fields are spoilt below.
            let (tag, bits) = (*tags.choose(&mut rng).unwrap(), *bits.choose(&mut rng).unwrap());
            let rate = *some_rates.choose(&mut rng).unwrap();
            wav(tag, bits.min(64), channels.min(16), rate, &data)
        };
        if rng.gen_bool(0.2) {
            bytes[22..24].copy_from_slice(&channels.to_le_bytes());
        }
        for _ in 0..rng.gen_range(0..3) {
            let at = rng.gen_range(0..bytes.len().min(80));
            bytes[at] = *[0, 1, 0x7F, 0x80, 0xFF, rng.gen()].choose(&mut rng).unwrap();
        }
        if rng.gen_bool(0.3) {
            // Another chunk in between, of an odd size, with its padding or without; and one that lies about its size.
            let kind = *[b"LIST", b"fact", b"JUNK", b"fmt ", b"data", b"id3 "]
                .choose(&mut rng)
                .unwrap();
            let size = [3u32, 3, 4, u32::MAX, rng.gen()][rng.gen_range(0..5)];
            let body: &[u8] = [b"abc\0".as_slice(), b"abc"][rng.gen_range(0..2)];
            let extra = [kind.as_slice(), &size.to_le_bytes(), body].concat();
            bytes.splice(12..12, extra);
        }
        if rng.gen_bool(0.3) {
            bytes.truncate(rng.gen_range(0..bytes.len()));
        }
        put(&path, &bytes);
        match audio::load(
            &path,
            Span {
                start: Seconds(0.0),
                duration: Seconds(10.0),
            },
        ) {
            Ok(samples) => {
                assert!(!samples.is_empty() && samples.len() <= WINDOW_SAMPLES);
                assert!(samples.iter().all(|v| v.abs() <= 1.0));
                sounds += 1;
            }
            Err(e) => {
                assert!(e.exit_code() == 5 && e.to_string().contains("x.wav"), "{e}");
                errors += 1;
            }
        }
    }
    println!("{sounds} sounds, {errors} errors");
    assert!(sounds > 200 && errors > 200);
}

/// Reference: `get_num_windows` with an overlap of 0, and each window padded with zeros.
#[test]
fn windows_at_every_boundary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wav");
    // The first is the largest and negative, so that normalisation leaves all as they are, up to one step.
    let sample = |i: usize| ((i * 7919) % 65_535) as i32 - 32_767;
    let one = WINDOW_SAMPLES;
    let lengths = |budget: usize| {
        let around = [0, 1, 1599, 1600, one - 1, one, one + 1];
        let end = budget * one;
        around.into_iter().chain([end - 1, end, end + 1])
    };
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for budget in [1, 2, 3, 12, 30] {
        for n in lengths(budget).chain([rng.gen_range(2..one), rng.gen_range(one..4 * one)]) {
            let data: Vec<u8> = (0..n).flat_map(|i| (sample(i) as i16).to_le_bytes()).collect();
            put(&path, &wav(1, 16, 1, 16_000, &data));
            let span = Span {
                start: Seconds(0.0),
                duration: Seconds(budget as f64 * 10.0),
            };
            let loaded = audio::load(&path, span);
            if n == 0 {
                assert_eq!(loaded.unwrap_err().exit_code(), 5);
                continue;
            }
            let samples = loaded.unwrap();
            assert_eq!(samples.len(), n.min(budget * one));
            let windows = audio::windows(&samples, budget);
            assert_eq!(
                windows.len(),
                n.div_ceil(one).clamp(1, budget),
                "{n} samples, {budget} windows"
            );
            assert!(windows.iter().all(|w| w.len() == one));
            let heard = windows.concat();
            let (sound, silence) = heard.split_at(samples.len());
            for (i, x) in sound.iter().enumerate() {
                assert!(
                    (f64::from(*x) * 32_767.0 - f64::from(sample(i))).abs() <= 1.001,
                    "{i} of {n}"
                );
            }
            assert!(silence.iter().all(|v| *v == 0.0));
        }
    }
}
