//! Whether a device computes right in bf16, and how fast it multiplies.

use super::cores::Cores;
use super::line::{gib, Line, State, DEVICE, LIBTORCH};
use super::peak;
use crate::ffi::nvml;
use std::time::Instant;
use tch::{Cuda, Device, Kind, TchError, Tensor};

pub(super) const NAMES: [&str; 4] = ["device", "bf16", "product_fp32", "product_bf16"];

/// Bf16 keeps 8 bits; what is summed stays in fp32. The largest difference, of the largest value, that passes; tests measure 1e-2.
const BOUND: f64 = 5e-2;

const DISTRUST: &str = "bf16 on this device is not to be trusted: train.precision=fp32 computes without it";

/// The lines, and how much of a product's time threads waited for a core.
pub(super) fn cpu(cores: &Cores, quick: bool) -> (Option<f64>, Vec<Line>) {
    let has = |words: &[&str]| words.iter().any(|w| cores.flags.contains(*w));
    let bf16 = has(&["avx512_bf16", "amx_bf16", "bf16"]);
    let vectors = [
        ("AVX2", has(&["avx2"])),
        ("AVX-512", has(&["avx512f"])),
        ("bf16", bf16),
        ("AMX", has(&["amx_bf16"])),
    ];
    let vectors: Vec<&str> = vectors.iter().filter(|v| v.1).map(|v| v.0).collect();
    let name = [vec![cores.name.as_str()], vectors].concat().join(", ");
    let mut lines = vec![
        Line::ok("device", name).value("name", cores.name.as_str()),
        works(Device::Cpu, LIBTORCH),
    ];
    if quick {
        lines.extend(untimed());
        return (None, lines);
    }
    let threads = tch::get_num_threads();
    let side = if cores.usable > 8 { 2048 } else { 1024 };
    let fp32 = |threads: i32| {
        tch::set_num_threads(threads);
        rate(side, Kind::Float, Device::Cpu)
    };
    let alone = fp32(1);
    let (all, waited) = crate::cores::waiting(|| fp32(threads));
    let half = rate(side, Kind::BFloat16, Device::Cpu);
    lines.extend(match (alone, all, half) {
        (Ok(alone), Ok(all), Ok(half)) => vec![
            fp32_of_cpu(cores, threads, alone, all),
            bf16_of_cpu(bf16, all, half),
        ],
        (alone, all, half) => {
            let error = [alone, all, half].into_iter().find_map(Result::err);
            let words = error.map_or(String::new(), |e| crate::error::sentence(&e.to_string()));
            failed(&words, LIBTORCH)
        }
    });
    (waited, lines)
}

fn fp32_of_cpu(cores: &Cores, threads: i32, alone: f64, all: f64) -> Line {
    const NAME: &str = "product_fp32";
    let worth = cores.worth();
    let by_one = peak::together(worth) * alone;
    let (floor, words) = match peak::of_core(cores) {
        Some((core, words)) if core * worth > by_one => (core * worth, format!("{worth:.1} × {words}")),
        _ => (
            by_one,
            format!("{:.1} × one thread's {}", peak::together(worth), rated(alone)),
        ),
    };
    let s = if threads == 1 { "" } else { "s" };
    let found = format!(
        "{} by {threads} thread{s}; expected {} at least: {words}",
        rated(all),
        rated(floor)
    );
    let line = match all >= floor {
        true => Line::ok(NAME, found),
        false => Line::slow(
            NAME,
            found,
            "too few threads, other programs on the cores, two threads of one core, or a clock held back: see threads and other \
             programs",
        ),
    };
    line.value("rate", all)
        .value("expected", floor)
        .value("one_thread", alone)
}

fn bf16_of_cpu(has: bool, fp32: f64, bf16: f64) -> Line {
    const NAME: &str = "product_bf16";
    let line = match has {
        false => Line::ok(
            NAME,
            format!(
                "{}; no instructions for bf16: nothing is expected of it",
                rated(bf16)
            ),
        ),
        true => {
            let floor = 0.8 * fp32;
            let found = format!(
                "{}; expected {} at least: 0.8 × fp32's",
                rated(bf16),
                rated(floor)
            );
            let advice =
                "the processor says it has bf16, and libtorch gains nothing by it: train.precision=fp32";
            let line = match bf16 >= floor {
                true => Line::ok(NAME, found),
                false => Line::slow(NAME, found, advice),
            };
            line.value("expected", floor)
        }
    };
    line.value("rate", bf16)
}

pub(super) fn gpu(index: usize, quick: bool) -> Vec<Line> {
    let gpu = match nvml::of_cuda(index) {
        Ok(gpu) => gpu,
        Err(why) => {
            let advice = "`nvidia-smi` says whether the GPU is well; a process may hold it for itself";
            let line = |name| Line::broken(name, DEVICE, why.clone(), advice);
            return NAMES.iter().map(|name| line(name)).collect();
        }
    };
    let device = Device::Cuda(index);
    let mut lines = vec![of_gpu(&gpu)];
    let works = works(device, DEVICE);
    let well = works.state != State::Broken;
    lines.push(match gpu.capability {
        Some((major, minor)) if major < 8 && well => Line::slow(
            "bf16",
            format!(
                "{}, without units for it (capability {major}.{minor})",
                works.found
            ),
            "GPUs before Ampere (8.0) only imitate bf16: train.precision=fp32",
        ),
        _ => works,
    });
    if quick || !well {
        lines.extend(untimed());
        return lines;
    }
    let rates = rate(4096, Kind::Float, device).and_then(|a| Ok((a, rate(8192, Kind::BFloat16, device)?)));
    lines.extend(match rates {
        Ok((fp32, bf16)) => {
            let peak = peak::of_gpu(&gpu.name);
            vec![
                of_peak("product_fp32", fp32, peak.map(|p| p.1)),
                of_peak("product_bf16", bf16, peak.map(|p| p.0)),
            ]
        }
        Err(e) => failed(&crate::error::sentence(&e.to_string()), DEVICE),
    });
    lines
}

fn of_gpu(gpu: &nvml::Gpu) -> Line {
    const NAME: &str = "device";
    let capability = gpu.capability.map_or(String::new(), |(major, minor)| {
        format!(", capability {major}.{minor}")
    });
    let memory = gpu.memory.map_or(String::new(), |m| {
        format!(", {} of {} free", gib(m.free), gib(m.total))
    });
    let found = format!("{}{capability}{memory}", gpu.name);
    // What this process took to ask is far from that.
    let line = match gpu.memory.is_some_and(|m| m.free < m.total / 2) {
        true => Line::slow(
            NAME,
            found,
            "other processes hold its memory: `nvidia-smi` names them; CUDA_VISIBLE_DEVICES chooses another",
        ),
        false => Line::ok(NAME, found),
    };
    line.value("name", gpu.name.as_str())
        .value("capability", gpu.capability.map(|(a, b)| format!("{a}.{b}")))
        .value("memory", gpu.memory.map(|m| m.total))
        .value("memory_free", gpu.memory.map(|m| m.free))
}

fn of_peak(name: &'static str, rate: f64, peak: Option<f64>) -> Line {
    let Some(peak) = peak else {
        let found = format!("{}; what this card can do is not known here", rated(rate));
        return Line::ok(name, found).value("rate", rate);
    };
    let floor = peak::OF_GPU * peak;
    let found = format!(
        "{}, {:.0}% of the card's {}; expected {:.0}% at least",
        rated(rate),
        100.0 * rate / peak,
        rated(peak),
        100.0 * peak::OF_GPU
    );
    let line = match rate >= floor {
        true => Line::ok(name, found),
        false => Line::slow(
            name,
            found,
            "another process computes on it, or its clock is held back (power, heat): `nvidia-smi -q -d PERFORMANCE`",
        ),
    };
    line.value("rate", rate).value("expected", floor)
}

fn untimed() -> [Line; 2] {
    ["product_fp32", "product_bf16"].map(|name| Line::ok(name, "not timed"))
}

fn failed(words: &str, code: i32) -> Vec<Line> {
    let advice = "libtorch refuses a plain matrix product on this device: is its memory full?";
    let line = |name| Line::broken(name, code, words, advice);
    vec![line("product_fp32"), line("product_bf16")]
}

/// Operations a second, for people.
fn rated(rate: f64) -> String {
    match rate {
        r if r >= 1e12 => format!("{:.1} TFLOP/s", r / 1e12),
        r => format!("{:.0} GFLOP/s", r / 1e9),
    }
}

/// Operations a second of a product of two square matrices: the median of several.
fn rate(side: i64, kind: Kind, device: Device) -> Result<f64, TchError> {
    // A GPU multiplies ones with less power, and so faster, than what training multiplies.
    let matrix = || Tensor::f_randn([side, side], (Kind::Float, device))?.f_to_kind(kind);
    let (a, b) = (matrix()?, matrix()?);
    let out = a.f_zeros_like()?;
    // A GPU is asked for several at once: it starts one sooner than it ends it.
    let at_once = if device.is_cuda() { 8 } else { 1 };
    let once = || -> Result<f64, TchError> {
        let begun = Instant::now();
        for _ in 0..at_once {
            let _ = a.f_matmul_out(&out, &b)?;
        }
        if let Device::Cuda(n) = device {
            Cuda::synchronize(n as i64);
        }
        Ok(begun.elapsed().as_secs_f64())
    };
    once()?;
    let begun = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < 3 || begun.elapsed().as_secs_f64() < 0.3 {
        seconds.push(once()?);
        if begun.elapsed().as_secs_f64() > 3.0 {
            break;
        }
    }
    seconds.sort_by(f64::total_cmp);
    let operations = 2.0 * (side as f64).powi(3) * f64::from(at_once);
    Ok(operations / seconds[seconds.len() / 2].max(1e-9))
}

/// Whether bf16 gives what fp32 gives.
fn works(device: Device, code: i32) -> Line {
    match distances(device) {
        Err(e) => Line::broken("bf16", code, crate::error::sentence(&e.to_string()), DISTRUST),
        Ok(all) => judged(&all, code),
    }
}

fn judged(all: &[(&'static str, f64)], code: i32) -> Line {
    const NAME: &str = "bf16";
    let wrong: Vec<String> = all
        .iter()
        .filter(|(_, d)| d.is_nan() || *d > BOUND)
        .map(|(name, d)| format!("{name}: {d:.1e}"))
        .collect();
    let worst = all.iter().map(|(_, d)| *d).fold(0.0, f64::max);
    let line = match wrong.is_empty() {
        true => {
            let found = format!("product and attention, forward and backward: {worst:.1e} from fp32");
            Line::ok(NAME, found)
        }
        false => {
            let found = format!("further from fp32 than {BOUND:.0e}: {}", wrong.join(", "));
            Line::broken(NAME, code, found, DISTRUST)
        }
    };
    line.value("distance", Some(worst).filter(|_| wrong.is_empty()))
}

/// The largest difference between bf16 and fp32, of fp32's largest value, of results and of all gradients; NaN where something
/// is not finite. Lengths are no multiples of a kernel's blocks.
fn distances(device: Device) -> Result<Vec<(&'static str, f64)>, TchError> {
    const T: i64 = 77;
    tch::manual_seed(20_260_101);
    let random = |shape: &[i64]| -> Result<Tensor, TchError> {
        let plain = Tensor::f_randn(shape, (Kind::Float, Device::Cpu))?;
        // What bf16 can say: both sides start from the same numbers.
        plain.f_to_kind(Kind::BFloat16)?.f_to_device(device)
    };
    let product = [random(&[96, 160])?, random(&[160, 64])?];
    let [heads, pair] = [[1, 4, T, 64], [1, 2, T, 64]];
    let whole = [random(&heads)?, random(&heads)?, random(&heads)?];
    let grouped = [random(&heads)?, random(&pair)?, random(&pair)?];
    // Each row sees what is not after it; the last 13 columns are padding.
    let mask = Tensor::f_ones([1, 1, T, T], (Kind::Bool, device))?.f_tril(0)?;
    let _ = mask.f_narrow(-1, T - 13, 13)?.f_fill_(0)?;

    let multiply = |x: &[Tensor]| x[0].f_matmul(&x[1]);
    let masked = |x: &[Tensor]| {
        Tensor::f_scaled_dot_product_attention(&x[0], &x[1], &x[2], Some(&mask), 0.0, false, None, false)
    };
    let causal = |x: &[Tensor]| {
        let none: Option<&Tensor> = None;
        Tensor::f_scaled_dot_product_attention(&x[0], &x[1], &x[2], none, 0.0, true, None, true)
    };
    Ok(vec![
        ("product", distance(&product, &multiply)?),
        ("attention with a mask", distance(&whole, &masked)?),
        ("causal attention", distance(&grouped, &causal)?),
    ])
}

type Operation<'o> = dyn Fn(&[Tensor]) -> Result<Tensor, TchError> + 'o;

fn distance(inputs: &[Tensor], operation: &Operation) -> Result<f64, TchError> {
    let side = |kind: Kind| -> Result<Vec<Tensor>, TchError> {
        let leaves = inputs.iter().map(|x| {
            let leaf = x.f_to_dtype(kind, false, true)?;
            leaf.f_detach()?.f_set_requires_grad(true)
        });
        let leaves = leaves.collect::<Result<Vec<_>, _>>()?;
        let out = operation(&leaves)?;
        // A gradient that differs from place to place.
        let weights = Tensor::f_arange(out.numel() as i64, (Kind::Float, out.device()))?;
        let weights = weights.f_sin()?.f_view(&out.size()[..])?;
        (out.f_to_kind(Kind::Float)? * weights)
            .f_sum(Kind::Float)?
            .f_backward()?;
        let results = std::iter::once(out.f_detach()).chain(leaves.iter().map(Tensor::f_grad));
        results.collect()
    };
    let mut worst: f64 = 0.0;
    for (exact, found) in side(Kind::Float)?.iter().zip(side(Kind::BFloat16)?) {
        let scale = f64::try_from(exact.f_abs()?.f_max()?)?;
        let off = found.f_to_kind(Kind::Float)?.f_sub(exact)?.f_abs()?.f_max()?;
        let off = f64::try_from(off)? / scale.max(1e-30);
        // f64::max would leave NaN out.
        worst = if off.is_finite() && worst.is_finite() {
            worst.max(off)
        } else {
            f64::NAN
        };
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn bf16_works_here_and_what_is_not_finite_is_broken() {
        for (name, distance) in distances(Device::Cpu).unwrap() {
            println!("{name}: {distance:.1e}");
            assert!(distance > 0.0 && distance <= BOUND, "{name}: {distance:.1e}");
        }
        let nan = |x: &[Tensor]| Ok(&x[0] / &x[0].zeros_like() * &x[1]);
        let inputs = [1.0, 2.0].map(|v| Tensor::full([4, 4], v, (Kind::BFloat16, Device::Cpu)));
        assert!(distance(&inputs, &nan).unwrap().is_nan());
        assert_eq!(judged(&[("product", 1e-3)], 13).state, State::Ok);
        for bad in [f64::NAN, f64::INFINITY, 2.0 * BOUND] {
            let line = judged(&[("product", 1e-3), ("causal attention", bad)], 13);
            assert_eq!((line.state, line.code), (State::Broken, 13));
            assert!(line.found.contains("causal attention"), "{}", line.found);
        }
    }

    fn cores(physical: usize, quota: Option<f64>) -> Cores {
        Cores {
            machine: physical,
            affinity: (0..physical).collect(),
            physical,
            quota,
            usable: physical,
            name: "A Processor".into(),
            flags: ["avx2", "fma"].map(str::to_owned).into(),
            hertz: Some(2.5e9),
        }
    }

    #[test]
    fn one_thread_on_two_cores_and_a_clock_held_back_are_slow() {
        let two = cores(2, None);
        assert_eq!(fp32_of_cpu(&two, 2, 60e9, 100e9).state, State::Ok);
        let line = fp32_of_cpu(&two, 1, 60e9, 60e9);
        assert_eq!(line.state, State::Slow);
        assert!(
            line.found.contains("60 GFLOP/s by 1 thread; expected 72 GFLOP/s"),
            "{}",
            line.found
        );
        // 20% of 2 × 2.5 GHz × 32 is 32e9.
        let line = fp32_of_cpu(&two, 2, 15e9, 30e9);
        assert!(
            line.state == State::Slow && line.found.contains("AVX2"),
            "{}",
            line.found
        );
        // A quota of one core asks for no more.
        assert_eq!(fp32_of_cpu(&cores(2, Some(1.0)), 1, 60e9, 58e9).state, State::Ok);
        assert_eq!(bf16_of_cpu(true, 100e9, 70e9).state, State::Slow);
        assert_eq!(bf16_of_cpu(false, 100e9, 7e9).state, State::Ok);
    }

    #[test]
    fn a_gpu_is_held_against_its_data_sheet() {
        let fast = of_peak("product_bf16", 620e12, Some(989e12));
        assert_eq!(fast.state, State::Ok);
        assert_eq!(
            fast.found,
            "620.0 TFLOP/s, 63% of the card's 989.0 TFLOP/s; expected 40% at least"
        );
        assert_eq!(of_peak("product_bf16", 300e12, Some(989e12)).state, State::Slow);
        assert_eq!(of_peak("product_bf16", 1e12, None).state, State::Ok);
        let gpu = |free| nvml::Gpu {
            name: "NVIDIA H100 80GB HBM3".into(),
            capability: Some((9, 0)),
            memory: Some(nvml::Memory {
                total: 80 << 30,
                free,
            }),
        };
        let line = of_gpu(&gpu(79 << 30));
        assert_eq!(
            line.found,
            "NVIDIA H100 80GB HBM3, capability 9.0, 79.0 GiB of 80.0 GiB free"
        );
        assert_eq!(of_gpu(&gpu(8 << 30)).state, State::Slow);
    }
}
