//! The cards of `data-manifests/benchmarks`, so that the program knows them wherever it runs. A card of the repository is its
//! file and its name here; `tests/benchmark_cards.rs` holds that none is forgotten.

/// `NAME`, and the text of `NAME.yaml`.
macro_rules! cards {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../data-manifests/benchmarks/", $name, ".yaml")))),+]
    };
}

/// The same of judges' protocols.
macro_rules! protocols {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../data-manifests/judges/", $name, ".yaml")))),+]
    };
}

/// By the paper's tables, then what came after it.
pub(super) const CARDS: &[(&str, &str)] = cards![
    "clotho-aqa-unanimous",
    "clotho-aqa-non-binary",
    "music-avqa-audio",
    "nonspeech7k",
    "cochl-scene",
    "nsynth-source",
    "nsynth-instrument",
    "fsd50k",
    "clotho-v2",
    "audiocaps",
    "crema-d",
    "ravdess",
    "gtzan",
    "medley-solos-db",
    "urbansound8k",
    "esc-50",
    "mmau-sound",
    "mmau-music",
    "audio-entailment-clotho",
    "audio-entailment-audiocaps",
    "compa-r-test",
    "muchomusic",
    "openaqa",
    "music-instruct-long",
    "music-qa",
    "cmm",
    "long-audio-bench",
    "audiocaps-retrieval",
    "clotho-retrieval",
    "esc-50-zero-shot",
    "urbansound8k-zero-shot",
    "vggsound-zero-shot",
    "fsd50k-zero-shot",
    "tut-zero-shot",
    "audioset-zero-shot",
    "nsynth-zero-shot",
    "mmau-mini-original",
    "mmau-mini-v05.15.25-first",
    "mmau-mini-v05.15.25",
    "mmau-v05.15.25",
    "mmau-pro",
    "mmar",
    "mmar-rubrics",
    "mmsu",
    "air-bench-foundation",
    "muchomusic-rul",
    "af-reasoning-eval-mcq",
    "af-reasoning-eval-yes-no",
    "af-reasoning-eval-classes",
];

/// The files of `data-manifests/judges`, in the same way.
pub(super) const PROTOCOLS: &[(&str, &str)] = protocols![
    "long-audio-bench",
    "compa-r-test",
    "openaqa",
    "music-instruct",
    "mmau-pro",
    "mmar-rubrics",
    "pairs",
];
