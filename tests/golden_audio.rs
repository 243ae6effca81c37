//! Audio features against the reference implementation: `tests/golden/{A_mel,H_load_audio,wavs}`.
#![allow(clippy::panic, clippy::unwrap_used)]

use af2::{
    audio::{self, mel, LogMel, Span},
    shapes::{Seconds, WINDOW_SAMPLES},
};
use ndarray::{Array2, ArrayView2};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, fs, path::PathBuf};

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

/// A golden file's tensors as float32 (int16 exactly so) and its note.
struct Golden {
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
    note: Value,
}

impl Golden {
    fn open(stem: &str) -> Self {
        let bytes = fs::read(golden(&format!("{stem}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = (file.iter())
            .map(|(name, view)| {
                let data = view.data();
                let values = match view.dtype() {
                    Dtype::F32 => (data.chunks_exact(4))
                        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                        .collect(),
                    Dtype::I16 => (data.chunks_exact(2))
                        .map(|b| f32::from(i16::from_le_bytes(b.try_into().unwrap())))
                        .collect(),
                    other => panic!("{name} is {other:?}"),
                };
                (name.to_string(), (view.shape().to_vec(), values))
            })
            .collect();
        let note = fs::read_to_string(golden(&format!("{stem}.json"))).unwrap();
        Golden {
            tensors,
            note: serde_json::from_str(&note).unwrap(),
        }
    }

    fn get(&self, name: &str) -> &[f32] {
        &self.tensors[name].1
    }

    fn matrix(&self, name: &str) -> ArrayView2<'_, f32> {
        let (shape, values) = &self.tensors[name];
        ArrayView2::from_shape((shape[0], shape[1]), values).unwrap()
    }
}

/// 30 s from `start` on, as `load_audio.json` read them.
fn load(name: &str, start: f64) -> Vec<f64> {
    let span = Span {
        start: Seconds(start),
        duration: Seconds(30.0),
    };
    audio::load(&golden("wavs").join(name), span).unwrap()
}

/// A mono 16 kHz WAV file of the golden set as soundfile reads it into float32.
fn wave(name: &str) -> Vec<f32> {
    let mut reader = hound::WavReader::open(golden("wavs").join(name)).unwrap();
    reader
        .samples::<i16>()
        .map(|s| f32::from(s.unwrap()) / 32768.0)
        .collect()
}

fn worst(a: impl IntoIterator<Item = f64>, b: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let differences: Vec<f64> = a.into_iter().zip(b).map(|(a, b)| (a - b).abs()).collect();
    let rms = (differences.iter().map(|d| d * d).sum::<f64>() / differences.len() as f64).sqrt();
    (differences.into_iter().fold(0.0, f64::max), rms)
}

#[test]
fn loaded_files_equal_the_reference() {
    let g = Golden::open("H_load_audio/load_audio");
    for (key, facts) in g.note["files"].as_object().unwrap() {
        let (name, start) = key.split_once('@').unwrap_or((key, "0"));
        let start: f64 = start.parse().unwrap();
        let samples = load(name, start);
        let n = facts["n"].as_u64().unwrap() as usize;
        // The reference also returns the surplus that `start` makes it read.
        assert_eq!(samples.len(), n.min(30 * 16_000), "{key}");

        // A silent file is NaN there.
        let expected = g.get(&format!("load_audio/{key}"));
        let silent = facts["nan"].as_bool().unwrap();
        let expected: Vec<f64> = expected
            .iter()
            .map(|v| if silent { 0.0 } else { f64::from(*v) })
            .collect();
        let (max, rms) = worst(samples.iter().copied(), expected.iter().copied());

        let windows = audio::windows(&samples, 3);
        let shape = [windows.len() as u64, windows[0].len() as u64];
        assert_eq!(facts["windows"], serde_json::json!(shape), "{key}");
        let int16: Vec<i16> = windows.concat().iter().map(|x| audio::to_int16(*x)).collect();
        let mut hash = Sha256::new();
        int16.iter().for_each(|i| hash.update(i.to_le_bytes()));
        let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        let identical = facts["window_int16_sha256"] == hash.as_str();
        let head: Vec<i16> = (int16.chunks(WINDOW_SAMPLES))
            .flat_map(|w| w[..4000].to_vec())
            .collect();
        let golden_head = g.get(&format!("windows_int16_head/{key}"));
        let off = head
            .iter()
            .zip(golden_head)
            .filter(|(a, b)| f32::from(**a) != **b)
            .count();
        let furthest = (head.iter().zip(golden_head))
            .map(|(a, b)| (f32::from(*a) - b).abs())
            .fold(0.0, f32::max);
        println!(
            "{key}: max {max:.1e} rms {rms:.1e}, int16 {off} of {} off by at most {furthest}, sha256 {}",
            head.len(),
            if identical { "equal" } else { "differs" }
        );
        if name.ends_with(".mp3") {
            // Two decoders, each rounding to 16 bits: now and then the next integer, which the
            // normalisation stretches a little; the length and the place of every sample are the same.
            assert!(max <= 1e-4 && rms <= 1e-5, "{key}: {max:e} {rms:e}");
            assert!(furthest <= 3.0, "{key}: {furthest}");
        } else if name.contains("16k") {
            // No resampling: the same integers, all of them; the floats were stored as float32.
            assert!(identical, "{key}: other int16 windows");
            assert!(max <= 6e-8, "{key}: {max:e}");
        } else {
            // soxr computes in float32: a few 1e-7, and 7e-6 in the very first sample, where its two
            // stages start. Truncation to int16 then differs where a value lies that near an integer.
            let (later, _) = worst(samples[1..].iter().copied(), expected[1..].iter().copied());
            assert!(
                max <= 1e-5 && later <= 1.5e-6 && rms <= 2e-7,
                "{key}: {max:e} {later:e} {rms:e}"
            );
            assert!(
                furthest <= 1.0 && off * 200 <= head.len(),
                "{key}: {off} off by {furthest}"
            );
        }
    }
}

#[test]
fn int16_and_its_round_trip_equal_the_reference() {
    let g = Golden::open("A_mel/mel");
    for (name, wave) in waves(&g) {
        let int16 = g.get(&format!("{name}/int16"));
        for (i, (x, expected)) in wave.iter().zip(int16).enumerate() {
            assert_eq!(f32::from(audio::to_int16(*x)), *expected, "{name} {i}");
        }
        if let Some((_, expected)) = g.tensors.get(&format!("{name}/roundtrip")) {
            let mut wave = wave[..expected.len()].to_vec();
            audio::int16_round_trip(&mut wave);
            assert_eq!(&wave, expected, "{name}");
        }
    }
}

/// The clips of `mel.json`: three synthetic ones in the file, two from `wavs`.
fn waves(g: &Golden) -> Vec<(&'static str, Vec<f32>)> {
    let stored = |name: &str| g.get(&format!("{name}/wave")).to_vec();
    vec![
        ("tones_10s", wave("tones_16k_mono_10s.wav")),
        ("speech", wave("speech_16k_mono_3p7s.wav")),
        ("silence_1s", stored("silence_1s")),
        ("impulse_0p5s", stored("impulse_0p5s")),
        ("noise_clipping_0p25s", stored("noise_clipping_0p25s")),
    ]
}

#[test]
fn window_and_filterbank_equal_the_reference() {
    let g = Golden::open("A_mel/mel");
    let (max, _) = worst(
        LogMel::filterbank().iter().map(|v| f64::from(*v)),
        g.get("fbank_513x64").iter().map(|v| f64::from(*v)),
    );
    println!("filterbank: {max:.1e}");
    // The reference builds it in float32: steps of 5e-4 Hz near 8000 Hz, in bands some 100 Hz wide.
    assert_eq!(LogMel::filterbank().dim(), (mel::FREQUENCIES, 64));
    assert!(max <= 1e-5, "{max:e}");
    let hann = LogMel::window().into_iter().map(f64::from);
    let (max, _) = worst(hann, g.get("hann_window_1024").iter().map(|v| f64::from(*v)));
    println!("window: {max:.1e}");
    assert!(max <= 1e-6, "{max:e}");
}

/// The largest difference in dB where the expected value is above −80 dB, and anywhere.
fn decibels(found: &Array2<f32>, expected: ArrayView2<f32>) -> (f32, f32) {
    assert_eq!(found.dim(), expected.dim());
    let (mut above, mut all) = (0f32, 0f32);
    for (a, b) in found.iter().zip(expected) {
        let d = (a - b).abs();
        all = all.max(d);
        if *b > -80.0 {
            above = above.max(d);
        }
    }
    (above, all)
}

/// The reference's float32 transform is off by some 1e-7 of a frame's loudest amplitude. In a band 60 dB below
/// that is 1e-4 of the amplitude, 2e-4 of the power, 1e-3 dB; twice that leaves room for another machine's
/// order of summation.
const BOUND_DB: f32 = 2e-3;

#[test]
fn mels_equal_the_reference() {
    let g = Golden::open("A_mel/mel");
    let log_mel = LogMel::new();
    for (name, wave) in waves(&g) {
        let (above, all) = decibels(&log_mel.log_mel(&wave), g.matrix(&format!("{name}/get_mel")));
        println!("{name}: {above:.1e} dB above -80 dB, {all:.1e} dB anywhere");
        assert!(above <= BOUND_DB, "{name}: {above}");
        if !g.tensors.contains_key(&format!("{name}/load_audio_mel0")) {
            continue;
        }
        let mut wave = wave;
        audio::int16_round_trip(&mut wave);
        let padded = audio::repeat_pad(&wave, WINDOW_SAMPLES);
        assert_eq!(padded.len(), WINDOW_SAMPLES);
        if name == "speech" {
            let tail = g.get("speech/load_audio_waveform_tail");
            assert_eq!(&padded[WINDOW_SAMPLES - tail.len()..], tail);
        }
        let found = log_mel.batch(&[padded]).index_axis_move(ndarray::Axis(0), 0);
        let (above, all) = decibels(&found, g.matrix(&format!("{name}/load_audio_mel0")));
        println!("{name}, whole window: {above:.1e} dB above -80 dB, {all:.1e} dB anywhere");
        assert!(above <= BOUND_DB, "{name}: {above}");
    }
}

#[test]
fn the_fusion_of_a_longer_clip_equals_the_reference() {
    let g = Golden::open("A_mel/mel_fusion_longer");
    let number = |v: &Value| v.as_u64().unwrap() as usize;
    let samples = wave("long_16k_mono.wav")[..number(&g.note["n_samples"])].to_vec();
    let total = number(&g.note["total_frames"]);
    let ranges = mel::fusion_ranges(total);
    for (range, expected) in ranges.iter().zip(g.note["ranges"].as_array().unwrap()) {
        assert_eq!(
            [range.start, range.end - 1],
            [number(&expected[0]), number(&expected[1])]
        );
    }
    let offsets = [0, 1, 2].map(|i| number(&g.note["idx_front_middle_back"][i]));
    let log_mel = LogMel::new();
    let path = golden("wavs/long_16k_mono.wav");
    let fused = log_mel.fusion_longer(&path, &samples, offsets).unwrap();
    let shrunk = fused.index_axis(ndarray::Axis(0), 0).to_owned();
    let (above, all) = decibels(&shrunk, g.matrix("shrink_antialias_false"));
    println!("shrunk: {above:.1e} dB above -80 dB, {all:.1e} dB anywhere");
    assert!(above <= BOUND_DB, "{above}");
    let whole = log_mel.log_mel(&samples);
    assert_eq!(whole.nrows(), total);
    for (i, offset) in offsets.into_iter().enumerate() {
        let chunk = whole.slice(ndarray::s![offset..offset + 1001, ..]);
        assert_eq!(fused.index_axis(ndarray::Axis(0), i + 1), chunk);
    }
}
