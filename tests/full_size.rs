//! A random AF2 over a 0.5B LM, 1.07 billion parameters: it loads whole, inside its memory bounds, and answers.
//! Alone in its process, so that the memory it measures is its own.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "common/full_size.rs"]
mod full_size;

use af2::checkpoint::Parts;
use af2::data::feed::{Clip, Ears};
use af2::generate::{
    generate,
    sampling::{Sampler, Sampling},
    Options,
};
use af2::load::convert::{convert, Choice, Layout};
use af2::load::{self, Loaded};
use af2::model::flamingo::Audio;
use af2::model::mode::Mode;
use af2::model::parts::Precision;
use af2::shapes::Seconds;
use af2::text::prompt;
use std::path::Path;
use tch::{no_grad, Device};

const PARAMETERS: i64 = 1_074_680_455;

/// Loads, and says the peak of memory above that of the empty process as a share of the tensors' bytes.
fn open(parts: &Parts, before: usize) -> (Loaded, f64) {
    open_in(parts, before, Precision::Fp32)
}

fn open_in(parts: &Parts, before: usize, held_in: Precision) -> (Loaded, f64) {
    // What the model before has left to the allocator is none of this one's.
    // SAFETY: it gives free pages back and takes nothing that is in use.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
    full_size::forget_peak();
    let options = load::Options {
        held_in,
        ..load::Options::new(Device::Cpu)
    };
    let model = load::open_parts(parts, &options).unwrap();
    let peak = full_size::memory("VmHWM:") - before;
    let share = peak as f64 / model.report.bytes as f64;
    println!(
        "{}: {} tensors, {} bytes, peak {peak} bytes, {share:.3} times",
        parts.checkpoint.display(),
        model.report.loaded,
        model.report.bytes
    );
    (model, share)
}

fn answer(model: &Loaded) -> Vec<i64> {
    let wav = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wavs/short_16k_mono_0p2s.wav");
    let mel = Ears::new(0).mel(&Clip::new(wav, Seconds(0.0), 1)).unwrap();
    let audio = Audio::from_mels([&*mel], Device::Cpu);
    let heard = no_grad(|| model.model.hear(&audio, Mode::EVAL));
    let ids = model
        .tokenizer
        .encode(&prompt::question(&model.tokenizer, "what is it?"))
        .unwrap();
    let options = Options {
        max_new_tokens: 4,
        eos: model.tokenizer.eos,
        cache: true,
    };
    generate(
        &model.model,
        &heard,
        &ids,
        &options,
        &mut Sampler::new(Sampling::GREEDY, 0),
    )
}

#[test]
fn a_checkpoint_of_the_0_5b_size_loads_inside_its_memory_bounds_and_answers() {
    let before = full_size::memory("VmRSS:");
    let folder = tempfile::tempdir().unwrap();
    let released = folder.path().join("af2");
    full_size::write("af2-0.5b", &full_size::golden_llm(), &released);

    let (model, share) = open(&released.as_path().into(), before);
    assert_eq!(model.params.count(), PARAMETERS);
    assert_eq!(model.report.missing, []);
    assert!(model.report.bytes as i64 > 4 * PARAMETERS);
    assert!(share <= 1.15, "safetensors: {share:.3} times the tensors' bytes");
    let said = answer(&model);
    assert!(
        !said.is_empty() && said.iter().all(|id| (0..151_669).contains(id)),
        "{said:?}"
    );
    drop(model);

    // Half of it, but for the embeddings (random ones lose something in bf16) and for one tensor that is being cast.
    let (model, share) = open_in(&released.as_path().into(), before, Precision::AmpBf16);
    assert!(
        share <= 0.85,
        "fp32 file, held in bf16: {share:.3} times the tensors' bytes"
    );
    assert!(
        model.notes.iter().any(|n| n.contains("rounded")),
        "{:?}",
        model.notes
    );
    let half = folder.path().join("half");
    load::save(&half, &model).unwrap();
    drop(model);
    // What is bf16 in the file is there once: as it is, or widened.
    let (model, share) = open_in(&half.as_path().into(), before, Precision::AmpBf16);
    assert!(
        share <= 1.15,
        "bf16 file, held so: {share:.3} times the tensors' bytes"
    );
    assert!(
        !model.notes.iter().any(|n| n.contains("rounded")),
        "{:?}",
        model.notes
    );
    drop(model);
    let (model, share) = open(&half.as_path().into(), before);
    assert!(
        share <= 2.15,
        "bf16 file, held in fp32: {share:.3} times the tensors' bytes"
    );
    drop(model);
    std::fs::remove_dir_all(&half).unwrap();

    let file = folder.path().join("checkpoint_0.pt");
    let whole = Choice {
        full: true,
        train: Vec::new(),
    };
    convert(&released.as_path().into(), &file, Layout::Reference, &whole).unwrap();
    let llm = Some(released.join("llm"));
    // The chunks are not needed any more, and 4 GB are much.
    std::fs::remove_dir_all(released.join("safe_ckpt")).unwrap();
    let parts = Parts {
        llm,
        ..file.as_path().into()
    };
    let (model, share) = open(&parts, before);
    assert_eq!(model.params.count(), PARAMETERS);
    assert!(share <= 1.3, ".pt: {share:.3} times the tensors' bytes");
    assert_eq!(answer(&model), said);
}
