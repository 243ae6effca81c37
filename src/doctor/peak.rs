//! What a processor can do at most, in operations a second: what measured products are held against.

use super::cores::Cores;

/// Of an NVIDIA GPU by its name: dense bf16 on tensor cores and plain fp32, in 10^12 a second, as NVIDIA's data sheets have them
/// (those that say a number "with sparsity" count twice what is dense). No other card is judged.
const GPUS: [(&str, f64, f64); 8] = [
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100 80GB HBM3", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("A10", 125.0, 31.2),
    ("L40S", 362.0, 91.6),
    ("L4", 121.0, 30.3),
    ("RTX 4090", 165.0, 82.6),
];
/// Other cards of the same letters, and parts of one.
const OTHERS: [&str; 4] = ["NVL", "Laptop", "4090 D", "MIG"];
/// A large product reaches two thirds and more.
pub(super) const OF_GPU: f64 = 0.4;

/// Dense bf16 and fp32, operations a second.
pub(crate) fn of_gpu(name: &str) -> Option<(f64, f64)> {
    if OTHERS.iter().any(|other| name.contains(other)) {
        return None;
    }
    let words = |card: &str| {
        // A10 is not A100, L4 not L40S.
        let after = name.find(card).map(|at| &name[at + card.len()..]);
        after.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
    };
    let found = GPUS.iter().find(|(card, ..)| words(card));
    found.map(|(_, bf16, fp32)| (bf16 * 1e12, fp32 * 1e12))
}

/// A product of one thread should reach this part of what its core can do by the simplest count; even disturbed.
const OF_CORE: f64 = 0.2;

/// Fp32 operations a second of one core: a multiplication and an addition in each lane of its vectors, two units of AVX2 or one of
/// AVX-512; and in words what that was read off.
pub(super) fn of_core(cores: &Cores) -> Option<(f64, String)> {
    let hertz = cores.hertz?;
    let has = |flag: &str| cores.flags.contains(flag);
    let (a_turn, vectors) = match () {
        () if has("avx512f") => (32.0, "AVX-512"),
        () if has("avx2") && has("fma") => (32.0, "AVX2"),
        () if has("avx") => (16.0, "AVX"),
        () if has("sse2") => (8.0, "SSE2"),
        () => return None,
    };
    let words = format!(
        "{:.0}% of {:.1} GHz × {a_turn:.0} ({vectors})",
        100.0 * OF_CORE,
        hertz / 1e9
    );
    Some((OF_CORE * hertz * a_turn, words))
}

/// How many times one thread's rate all threads should reach on so many real cores: many share memory, and a clock that is higher
/// for one alone.
pub(super) fn together(worth: f64) -> f64 {
    let part = match worth {
        n if n <= 1.0 => 0.7,
        n if n <= 4.0 => 0.6,
        n if n <= 16.0 => 0.5,
        _ => 0.4,
    };
    part * worth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_told_apart_by_their_whole_names() {
        for (name, bf16) in [
            ("NVIDIA H100 80GB HBM3", Some(989e12)),
            ("NVIDIA H100 PCIe", Some(756e12)),
            ("NVIDIA H100 NVL", None),
            ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
            ("NVIDIA H200", Some(989e12)),
            ("NVIDIA A100-SXM4-80GB", Some(312e12)),
            ("NVIDIA A100 80GB PCIe", Some(312e12)),
            ("NVIDIA A10", Some(125e12)),
            ("NVIDIA A10G", None),
            ("NVIDIA L4", Some(121e12)),
            ("NVIDIA L40", None),
            ("NVIDIA L40S", Some(362e12)),
            ("NVIDIA GeForce RTX 4090", Some(165e12)),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
            ("Tesla V100-SXM2-32GB", None),
        ] {
            assert_eq!(of_gpu(name).map(|p| p.0), bf16, "{name}");
        }
    }

    #[test]
    fn one_thread_is_never_enough_for_two_cores() {
        for cores in 2..=512 {
            let expected = together(cores as f64);
            assert!(expected > 1.1 && expected < cores as f64, "{cores}: {expected}");
        }
        assert!(together(1.0) < 1.0);
    }
}
