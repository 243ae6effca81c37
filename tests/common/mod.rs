//! What the golden tests share: reading the tensors and measuring the distance to them.
#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub
)]

use af2::checkpoint::{Archive, Item};
use af2::dist::Ranks;
use af2::load::{self, Loaded};
use af2::model::params::{Lookup, Origin, Params, Scope, Store};
use af2::recipe::{LossMean, StageRecipe, TrainRecipe};
use af2::train::jobs::curriculum::Stage;
use af2::train::Steps;
use std::rc::Rc;
use std::{collections::HashMap, path::PathBuf, process::Command};
use tch::{Device, Kind, Tensor};

/// A file below `tests/golden`.
pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

/// The tensors of one golden file.
pub struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub fn open(path: &str) -> Self {
        let file = golden(path);
        let tensors = Tensor::read_safetensors(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Golden(tensors.into_iter().collect())
    }

    /// The tensors of any checkpoint.
    pub fn of(archive: &Archive) -> Self {
        Golden(
            archive
                .names()
                .map(|n| (n.to_owned(), archive.get(n).unwrap()))
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Tensor {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("the golden file has no {name}"))
            .shallow_clone()
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Builds a module on the tensors under `prefix`; whatever the module asks for and the file lacks
    /// must be in `allowed`.
    pub fn build<T>(&self, prefix: &str, allowed: &[&str], make: impl FnOnce(&Scope) -> T) -> (T, Params) {
        let lookup: Lookup =
            Box::new(move |n, _, _| Ok(self.0.get(&format!("{prefix}{n}")).map(|t| t.copy())));
        let origin = Origin::File {
            path: prefix.into(),
            lookup,
            fresh: Box::new(|n| allowed.iter().any(|a| n.contains(a))),
        };
        let store = Store::new(origin, Device::Cpu);
        let module = make(&store.root());
        let params = store.finish().unwrap_or_else(|e| panic!("{e}"));
        (module, params)
    }
}

/// Largest absolute difference divided by the largest absolute value of what is expected.
pub fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let scale = f64::try_from(expected.abs().max()).unwrap().max(1e-30);
    f64::try_from((found - &expected).abs().max()).unwrap() / scale
}

/// Fails, naming the case, when `found` is further than `bound` (relative to the tensor's max) from `expected`.
pub fn assert_close(case: &str, found: &Tensor, expected: &Tensor, bound: f64) {
    let distance = relative(found, expected);
    println!("{case}: {distance:.2e} (bound {bound:.0e})");
    assert!(
        distance <= bound,
        "{case}: relative distance {distance:.3e} exceeds {bound:.0e}"
    );
}

pub fn scalar(t: &Tensor) -> f64 {
    f64::try_from(t.to_kind(Kind::Double)).unwrap()
}

/// A tensor under `name` from a fresh initialisation must not hide in a golden test.
pub const NOTHING: &[&str] = &[];

/// Tensors as what checkpoint writers take.
pub fn as_items(tensors: &[(String, Tensor)]) -> Vec<(String, Item<'static>)> {
    tensors
        .iter()
        .map(|(n, t)| (n.clone(), t.shallow_clone().into()))
        .collect()
}

/// Runs the program: exit code, standard output, standard error.
pub fn af2(arguments: &[&str]) -> (i32, String, String) {
    af2_in(".".as_ref(), arguments)
}

/// The same in a folder.
pub fn af2_in(folder: &std::path::Path, arguments: &[&str]) -> (i32, String, String) {
    let out = Command::new(assert_cmd::cargo::cargo_bin("af2"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    (
        out.status.code().unwrap_or(-1),
        text(out.stdout),
        text(out.stderr),
    )
}

/// How the tiny AF2 is opened: with the sizes that its tensors do not tell.
pub fn tiny_options() -> load::Options {
    load::Options {
        config: Some(golden("F_tiny/config.yaml")),
        ..load::Options::new(Device::Cpu)
    }
}

/// The tiny AF2 of the reference.
pub fn tiny() -> Loaded {
    load::open(&golden("F_tiny"), &tiny_options()).unwrap()
}

/// Gives every element of every trainable tensor this gradient.
pub fn constant_gradients(params: &Params, value: f64) {
    let sums: Vec<Tensor> = params
        .trainable()
        .iter()
        .map(|(_, p)| (p * value).sum(Kind::Float))
        .collect();
    Tensor::stack(&sums, 0).sum(Kind::Float).backward();
}

/// As the reference trains: means of means.
fn reference() -> TrainRecipe {
    TrainRecipe {
        loss: LossMean::MeanOfMeans,
        ..TrainRecipe::default()
    }
}

/// A stage over a model; freezes the rest of it.
pub fn new_stage<'a>(model: &'a Loaded, stage: &'a StageRecipe) -> Stage<'a> {
    Stage::new(model, stage, &reference())
}

/// Steps of one process, as the reference trains: means of means, clipping in every micro-step (which the stage must say).
pub fn new_steps<'a>(job: &'a Stage<'a>) -> Steps<'a, Stage<'a>> {
    Steps::new(job, &reference(), &Rc::new(Ranks::alone())).unwrap()
}

/// A sound file of noise.
pub fn wav(path: &std::path::Path, samples: usize) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    let mut x = samples as u32;
    for _ in 0..samples {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        writer.write_sample((x >> 17) as i16).unwrap();
    }
    writer.finalize().unwrap();
}
