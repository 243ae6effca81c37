//! CUDA: whether it answers, and the libraries that it needs.

use super::line::{Line, DEVICE};
use crate::device;
use crate::ffi::cuda::{self, State};
use crate::ffi::{c10d, nvml};

pub(super) const NAMES: [&str; 6] = [
    "cuda",
    "driver",
    "cuda_runtime",
    "nvrtc",
    "cudnn_attention",
    "nccl",
];

/// The oldest driver that CUDA 13 works with.
const DRIVER: u32 = 580;
const INSTALL: &str = "`make setup CUDA=1 && make build` installs the whole set";

/// What there is to judge by.
struct Seen<'s> {
    state: &'s State,
    /// This process may open a GPU's file.
    has_gpu: bool,
    /// CUDA_VISIBLE_DEVICES.
    visible: Option<&'s str>,
    /// The driver's version.
    driver: Option<&'s str>,
}

impl Seen<'_> {
    /// A GPU that a run would use.
    fn wanted(&self) -> bool {
        self.has_gpu && !device::is_hidden(self.visible)
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Silent(_) | State::Answers(_))
    }
}

/// How many devices answer, and the lines.
pub(super) fn look() -> (usize, Vec<Line>) {
    let state = cuda::state();
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let driver = cuda::driver();
    let seen = Seen {
        state,
        has_gpu: cuda::is_given_a_gpu(),
        visible: visible.as_deref(),
        driver: driver.as_deref(),
    };
    let devices = match state {
        State::Answers(n) => *n,
        _ => 0,
    };
    let lines = vec![
        answers(&seen),
        driver_line(&seen),
        runtime(&seen),
        nvrtc(&seen),
        cudnn_attention(&seen),
        nccl(&seen, devices),
    ];
    (devices, lines)
}

fn answers(seen: &Seen) -> Line {
    const NAME: &str = "cuda";
    let kind = match seen.state {
        State::Absent => "absent",
        State::Unopened(_) => "unopened",
        State::Silent(_) => "silent",
        State::Answers(_) => "answers",
    };
    let line = match seen.state {
        State::Answers(1) => Line::ok(NAME, "1 device answers"),
        State::Answers(_) => Line::ok(NAME, device::words(seen.state)),
        state @ State::Unopened(_) => {
            let advice = device::hint(state, None);
            Line::broken(NAME, DEVICE, device::words(state), advice)
        }
        state if seen.wanted() => {
            let words = format!("this machine has a GPU{}, but {}", cards(), device::words(state));
            Line::broken(NAME, DEVICE, words, device::hint(state, seen.visible))
        }
        State::Absent => Line::ok(
            NAME,
            "none, and no GPU is asked for: this libtorch is the CPU set",
        ),
        State::Silent(_) if seen.has_gpu => {
            let visible = seen.visible.unwrap_or_default();
            Line::ok(NAME, format!("hidden by CUDA_VISIBLE_DEVICES=`{visible}`"))
        }
        State::Silent(why) => Line::ok(NAME, format!("no GPU for this process; libtorch says: {why}")),
    };
    let devices = match seen.state {
        State::Answers(n) => *n,
        _ => 0,
    };
    line.value("kind", kind)
        .value("devices", devices)
        .value("gpu_file", seen.has_gpu)
}

/// The GPUs' names as the driver's library of management has them, where CUDA has none.
fn cards() -> String {
    let names = nvml::cards().unwrap_or_default();
    let names: Vec<String> = names.into_iter().map(|g| g.name).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(" ({})", names.join(", ")),
    }
}

fn driver_line(seen: &Seen) -> Line {
    const NAME: &str = "driver";
    let answers = matches!(seen.state, State::Answers(_));
    let Some(version) = seen.driver else {
        return match seen.wanted() && !answers {
            true => Line::broken(
                NAME,
                DEVICE,
                "a GPU's file is there, and no NVIDIA driver says its version",
                format!(
                    "install NVIDIA's driver, {DRIVER} or newer; in a container `--gpus all` passes it on"
                ),
            ),
            false if answers => Line::ok(NAME, "answers; its version is not told here"),
            false => Line::ok(NAME, "none, and no GPU that would need one"),
        };
    };
    let knows = nvml::cuda_of_driver();
    let cuda = knows.map_or(String::new(), |(a, b)| format!(", for CUDA to {a}.{b}"));
    let found = format!("{version}{cuda}");
    let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
    let old = major.is_some_and(|n| n < DRIVER);
    // NVIDIA's package for compatibility lets some older ones do.
    let line = match old && !answers && seen.wanted() {
        true => Line::broken(
            NAME,
            DEVICE,
            format!("{found}; CUDA 13 needs {DRIVER} or newer"),
            format!("install NVIDIA's driver, {DRIVER} or newer, on the host"),
        ),
        false => Line::ok(NAME, found),
    };
    line.value("version", version)
}

/// What a library of CUDA's is where libtorch's half of it is not open.
fn not_open(name: &'static str, seen: &Seen) -> Option<Line> {
    if seen.is_open() {
        return None;
    }
    let why = match seen.state {
        State::Absent => "none: the CPU set",
        _ => "not looked at: libtorch_cuda.so does not open",
    };
    Some(Line::ok(name, why))
}

fn runtime(seen: &Seen) -> Line {
    const NAME: &str = "cuda_runtime";
    if let Some(line) = not_open(NAME, seen) {
        return line;
    }
    match nvml::cuda_runtime() {
        Some((a, b)) => {
            let version = format!("{a}.{b}");
            Line::ok(NAME, &version).value("version", version)
        }
        None => Line::ok(
            NAME,
            "open under another name than CUDA 13's: its version is not told",
        ),
    }
}

fn nvrtc(seen: &Seen) -> Line {
    const NAME: &str = "nvrtc";
    if let Some(line) = not_open(NAME, seen) {
        return line;
    }
    match cuda::nvrtc() {
        Ok(()) => Line::ok(NAME, "compiles a kernel"),
        Err(why) => Line::broken(
            NAME,
            DEVICE,
            format!("compiles nothing: {why}"),
            format!("cuDNN and fused kernels need it, and libnvrtc-builtins beside it: {INSTALL}"),
        ),
    }
}

fn cudnn_attention(seen: &Seen) -> Line {
    const NAME: &str = "cudnn_attention";
    if let Some(line) = not_open(NAME, seen) {
        return line;
    }
    match cuda::cudnn_attention() {
        false => Line::ok(NAME, "off, as it should be"),
        true => Line::broken(
            NAME,
            DEVICE,
            "on: gradients under a mask may be NaN",
            "af2 turns it off when it opens CUDA: something has turned it on again, which is an error of af2's",
        ),
    }
}

fn nccl(seen: &Seen, devices: usize) -> Line {
    const NAME: &str = "nccl";
    let built = c10d::has_nccl();
    let version = nvml::nccl().filter(|_| seen.is_open());
    let of = version
        .as_ref()
        .map_or(String::new(), |v| format!("; the library is {v}"));
    let line = match (built, seen.is_open()) {
        (false, _) if devices > 1 => Line::broken(
            NAME,
            DEVICE,
            format!("this program was built without it, and {devices} GPUs are there{of}"),
            "ranks on GPUs need it: `make setup CUDA=1 && make build` has its headers",
        ),
        (false, _) => Line::ok(
            NAME,
            format!("this program was built without it; only ranks on GPUs need it{of}"),
        ),
        (true, false) => Line::ok(NAME, "built in; libtorch's CUDA half is not open"),
        (true, true) => match c10d::nccl_opens() {
            Ok(()) => Line::ok(NAME, format!("built in, and opens{of}")),
            Err(e) => Line::broken(
                NAME,
                DEVICE,
                crate::error::sentence(&e.to_string()) + &of,
                format!("it was built with another libtorch than this one: {INSTALL}"),
            ),
        },
    };
    line.value("built", built).value("version", version)
}

#[cfg(test)]
mod tests {
    use super::super::State as How;
    use super::*;

    fn seen<'s>(
        state: &'s State,
        has_gpu: bool,
        visible: Option<&'s str>,
        driver: Option<&'s str>,
    ) -> Seen<'s> {
        Seen {
            state,
            has_gpu,
            visible,
            driver,
        }
    }

    #[test]
    fn without_a_gpu_nothing_is_broken_but_a_half_that_does_not_open() {
        let silent = State::Silent("Found no NVIDIA driver on your system.".into());
        for state in [&State::Absent, &silent] {
            for (has_gpu, visible) in [(false, None), (true, Some("")), (true, Some("-1"))] {
                let seen = seen(state, has_gpu, visible, None);
                for line in [answers(&seen), driver_line(&seen)] {
                    assert_eq!(line.state, How::Ok, "{line:?}");
                }
            }
        }
        let unopened = State::Unopened("libcudnn.so.9: cannot open shared object file".into());
        let line = answers(&seen(&unopened, false, None, None));
        assert_eq!((line.state, line.code), (How::Broken, 13));
        assert!(line.found.contains("libcudnn.so.9") && line.advice.unwrap().contains("CUDA=1"));
    }

    #[test]
    fn a_gpu_that_is_not_used_is_broken_and_says_why() {
        let silent = State::Silent("The NVIDIA driver on your system is too old".into());
        let old = seen(&silent, true, None, Some("550.54.15"));
        let line = answers(&old);
        assert_eq!((line.state, line.code), (How::Broken, 13));
        assert!(
            line.found.contains("has a GPU") && line.found.contains("too old"),
            "{}",
            line.found
        );
        let line = driver_line(&old);
        assert_eq!(line.state, How::Broken);
        assert!(
            line.found.contains("550.54.15") && line.found.contains("580"),
            "{}",
            line.found
        );
        let line = answers(&seen(&State::Absent, true, None, Some("580.65.06")));
        assert!(
            line.state == How::Broken && line.found.contains("CPU set"),
            "{}",
            line.found
        );
        assert_eq!(
            driver_line(&seen(&State::Absent, true, None, Some("580.65.06"))).state,
            How::Ok
        );
        assert_eq!(driver_line(&seen(&silent, true, None, None)).state, How::Broken);
    }

    #[test]
    fn an_old_driver_that_answers_is_well() {
        let eight = State::Answers(8);
        for driver in [None, Some("550.54.15"), Some("580.65.06")] {
            let seen = seen(&eight, true, None, driver);
            assert_eq!(driver_line(&seen).state, How::Ok, "{driver:?}");
            assert_eq!(answers(&seen).found, "8 devices answer");
        }
    }
}
