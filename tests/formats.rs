//! Every kind of sound file that is promised: what it decodes to, reading from the middle of it, lengths at every
//! boundary, and headers that lie.

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
    assert_eq!(all.len(), 14);
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

#[test]
fn the_middle_of_a_file_is_the_middle_of_the_whole() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (name, expected) in fixtures() {
        let path = golden("formats").join(&name);
        let (channels, frames) = (number(&expected, "channels"), number(&expected, "frames"));
        let whole = read(&path, 0, u64::MAX).unwrap();
        let near_the_end = frames - 10;
        let mut starts = vec![0, 1, 1023, 1024, 1025, near_the_end];
        starts.extend((0..20).map(|_| rng.gen_range(0..frames)));
        for start in starts {
            let end = (start + rng.gen_range(1..5000)).min(frames);
            let part = read(&path, start as u64, end as u64).unwrap();
            let same = &whole[start * channels..end * channels];
            assert_eq!(part.len(), same.len(), "{name} from {start} to {end}");
            let worst = part
                .iter()
                .zip(same)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            // AAC fills bands with noise that the decoder draws: one that starts anew draws other noise.
            let near = if name.ends_with("m4a") || name.ends_with("aac") {
                5e-2
            } else {
                1e-6
            };
            assert!(worst < near, "{name} from {start}: {worst:e}");
        }
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

/// A WAV file by hand: format tag, bits, channels, rate and the data's bytes.
fn wav(tag: u16, bits: u16, channels: u16, rate: u32, data: &[u8]) -> Vec<u8> {
    let align = channels * bits.div_ceil(8);
    let extensible = tag == 0xFFFE;
    let mut fmt = Vec::new();
    fmt.extend(tag.to_le_bytes());
    fmt.extend(channels.to_le_bytes());
    fmt.extend(rate.to_le_bytes());
    fmt.extend((rate.wrapping_mul(u32::from(align))).to_le_bytes());
    fmt.extend(align.to_le_bytes());
    fmt.extend(bits.to_le_bytes());
    if extensible {
        fmt.extend(22u16.to_le_bytes());
        fmt.extend(bits.to_le_bytes());
        fmt.extend(((1u32 << channels) - 1).to_le_bytes());
        fmt.extend([1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]);
    }
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

#[test]
fn every_kind_of_wav() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wav");
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let rates = [
        8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400,
        192_000,
    ];
    for (tag, bits) in [
        (1, 8),
        (1, 16),
        (1, 24),
        (1, 32),
        (3, 32),
        (3, 64),
        (0xFFFE, 16),
        (0xFFFE, 24),
    ] {
        for channels in 1..=8u16 {
            let rate = *rates.choose(&mut rng).unwrap();
            let frames = 2000;
            let (mut data, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..frames * usize::from(channels) {
                let x: i32 = rng.gen();
                match (tag, bits) {
                    (3, 32) => data.extend((x as f32 / 3e9).to_le_bytes()),
                    (3, _) => data.extend((f64::from(x) / 3e9).to_le_bytes()),
                    (_, 8) => data.push((x >> 24) as u8 ^ 0x80),
                    (_, bits) => data.extend(&x.to_le_bytes()[4 - usize::from(bits) / 8..]),
                }
                expected.push(match (tag, bits) {
                    (3, 32) => f64::from(x as f32 / 3e9),
                    (3, _) => f64::from(x) / 3e9,
                    (_, bits) => f64::from(x >> (32 - bits)) / f64::from(1u32 << (bits - 1)),
                });
            }
            std::fs::write(&path, wav(tag, bits, channels, rate, &data)).unwrap();
            let found = read(&path, 0, u64::MAX).unwrap();
            assert_eq!(
                found, expected,
                "tag {tag}, {bits} bits, {channels} channels, {rate} Hz"
            );
        }
    }
    for rate in rates {
        let data = vec![0x11; 2 * 2 * 3000];
        std::fs::write(&path, wav(1, 16, 2, rate, &data)).unwrap();
        let samples = audio::load(
            &path,
            Span {
                start: Seconds(0.0),
                duration: Seconds(10.0),
            },
        )
        .unwrap();
        assert_eq!(
            samples.len(),
            (3000.0 * (16e3 / f64::from(rate))).ceil() as usize,
            "{rate} Hz"
        );
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
            wav(tag, bits, rng.gen_range(1..9), 16_000, &data)
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
            // Another chunk in between, of an odd size.
            let extra = [b"LIST".as_slice(), &3u32.to_le_bytes(), b"abc\0"].concat();
            bytes.splice(12..12, extra);
        }
        if rng.gen_bool(0.3) {
            bytes.truncate(rng.gen_range(0..bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
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
    let sample = |i: usize| ((i * 7919) % 65_535) as i32 - 32_767;
    let one = WINDOW_SAMPLES;
    let lengths = |budget: usize| {
        let around = [0, 1, 1599, 1600, one - 1, one, one + 1];
        let end = budget * one;
        around.into_iter().chain([end - 1, end, end + 1])
    };
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for budget in [1, 2, 3, 12] {
        for n in lengths(budget).chain([rng.gen_range(2..one), rng.gen_range(one..4 * one)]) {
            let data: Vec<u8> = (0..n).flat_map(|i| (sample(i) as i16).to_le_bytes()).collect();
            std::fs::write(&path, wav(1, 16, 1, 16_000, &data)).unwrap();
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
            // The peak is 32,767 or less and becomes it; a file of one sign is moved, which short ones are.
            let peak = (0..n.min(budget * one)).map(|i| sample(i).abs()).max().unwrap();
            if peak == 32_767 && n > 1600 {
                let heard = windows.concat();
                for i in (0..n.min(budget * one)).step_by(997) {
                    assert!((f64::from(heard[i]) * 32_767.0 - f64::from(sample(i))).abs() <= 1.001);
                }
                assert!(heard[n.min(heard.len())..].iter().all(|v| *v == 0.0));
            }
        }
    }
}
