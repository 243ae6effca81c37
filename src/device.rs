//! Which device a run computes on: what the recipe or the command line names, and what this machine has.

use crate::error::{Error, Result};
use crate::ffi::cuda::{self, State};
use crate::say;
use tch::Device;

const INSTALL: &str = "`make setup CUDA=1 && make build` installs libtorch's CUDA set";

/// What stands behind a choice, apart from the name.
struct Machine<'m> {
    state: &'m State,
    /// This process may open a GPU's file.
    has_gpu: bool,
    /// CUDA_VISIBLE_DEVICES.
    visible: Option<String>,
}

impl Machine<'static> {
    fn here() -> Self {
        Machine {
            state: cuda::state(),
            has_gpu: cuda::is_given_a_gpu(),
            visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        }
    }
}

/// The device that a name asks for: `auto`, `cpu`, `cuda`, `cuda:N`. A GPU is then this thread's own.
///
/// # Errors
/// [`Error::Device`] where it is not there, or does not answer: `auto` does not train on the CPU of a machine whose GPU cannot be
/// used. [`Error::Recipe`] for another name.
pub fn of(name: &str) -> Result<Device> {
    ready(match name {
        "cpu" => Device::Cpu,
        _ => chosen(name, None, &Machine::here())?,
    })
}

/// The device of the rank with number `local` on this machine: its own GPU, or the CPU. A rank that was given one GPU to see
/// (`srun --gpus-per-task=1`) takes that.
///
/// # Errors
/// As [`of`]; one GPU that is named for several ranks.
pub(crate) fn of_rank(name: &str, local: usize) -> Result<Device> {
    ready(match name {
        "cpu" => Device::Cpu,
        _ => chosen(name, Some(local), &Machine::here())?,
    })
}

fn ready(device: Device) -> Result<Device> {
    if let Device::Cuda(n) = device {
        cuda::make_current(n)?;
    }
    Ok(device)
}

fn chosen(name: &str, local: Option<usize>, machine: &Machine) -> Result<Device> {
    let index = match name {
        "auto" | "cuda" => None,
        "cpu" => return Ok(Device::Cpu),
        _ => Some(
            name.strip_prefix("cuda:")
                .and_then(|n| n.parse::<usize>().ok())
                .ok_or_else(|| {
                    let message = format!("expected auto, cpu, cuda or cuda:N, found `{name}`");
                    Error::recipe("device", message)
                })?,
        ),
    };
    if let (Some(_), Some(_)) = (index, local) {
        let message = format!("`{name}` is one GPU, but there are several ranks");
        return Err(Error::recipe("device", message).hint("`cuda` gives each rank its own"));
    }
    let visible = machine.visible.as_deref();
    let devices = match machine.state {
        State::Answers(devices) => *devices,
        state if name == "auto" => return without_cuda(state, machine).map(|()| Device::Cpu),
        state => {
            let hint = hint(state, visible);
            return Err(Error::device(format!("`{name}` was asked for, but {}", words(state))).hint(hint));
        }
    };
    let index = match (index, local) {
        (Some(n), _) => n,
        (None, None) => 0,
        (None, Some(local)) => match visible.unwrap_or_default() {
            "" => local,
            several if several.contains(',') => local,
            _ => 0,
        },
    };
    if index >= devices {
        let seen = visible.map_or(String::new(), |v| format!(" (CUDA_VISIBLE_DEVICES={v})"));
        let many = if devices == 1 {
            "is 1 device"
        } else {
            &format!("are {devices} devices")
        };
        let message = match local {
            Some(local) => format!("rank {local} of this machine has no GPU: there {many}{seen}"),
            None => format!("`{name}`: there {many}{seen}"),
        };
        return Err(Error::device(message));
    }
    Ok(Device::Cuda(index))
}

/// Whether `auto` may be the CPU. Says so where it may have been meant otherwise.
fn without_cuda(state: &State, machine: &Machine) -> Result<()> {
    if is_hidden(machine.visible.as_deref()) {
        return Ok(());
    }
    if machine.has_gpu {
        let message = format!("`auto`: this machine has a GPU, but {}", words(state));
        let hint = format!(
            "{}; `device: cpu` computes without it",
            hint(state, machine.visible.as_deref())
        );
        return Err(Error::device(message).hint(hint));
    }
    match state {
        State::Absent | State::Answers(_) => {}
        state => {
            // Once, however many models are opened.
            static SAID: std::sync::Once = std::sync::Once::new();
            SAID.call_once(|| say!("note: `auto` is the CPU: {}", words(state)));
        }
    }
    Ok(())
}

/// CUDA_VISIBLE_DEVICES, where it is set: the user, or a scheduler, has said that no GPU is to be seen.
pub(crate) fn is_hidden(visible: Option<&str>) -> bool {
    visible.is_some_and(|v| matches!(v.trim(), "" | "-1" | "NoDevFiles"))
}

/// Why CUDA is not there.
pub(crate) fn words(state: &State) -> String {
    match state {
        State::Absent => "this libtorch is the CPU set".into(),
        State::Unopened(why) => format!("libtorch_cuda.so does not open: {why}"),
        State::Silent(why) => format!("CUDA does not answer: {why}"),
        State::Answers(n) => format!("{n} devices answer"),
    }
}

/// What to do about it.
pub(crate) fn hint(state: &State, visible: Option<&str>) -> String {
    match state {
        State::Absent => INSTALL.into(),
        State::Unopened(_) => format!("the install may not be whole: {INSTALL} anew"),
        _ if is_hidden(visible) => "CUDA_VISIBLE_DEVICES hides every GPU".into(),
        _ => "CUDA 13 needs an NVIDIA driver of 580 or newer, and a container that passes the GPU on; `nvidia-smi` says \
              whether the driver works, `af2 doctor` what else is missing"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine<'m>(state: &'m State, has_gpu: bool, visible: Option<&str>) -> Machine<'m> {
        Machine {
            state,
            has_gpu,
            visible: visible.map(str::to_owned),
        }
    }

    const OLD: &str = "The NVIDIA driver on your system is too old (found version 12040).";

    #[test]
    fn auto_is_the_cpu_only_where_no_gpu_is_left_idle() {
        let silent = State::Silent(OLD.into());
        let unopened = State::Unopened("libcudnn.so.9: cannot open shared object file".into());
        for state in [&State::Absent, &silent, &unopened] {
            let without = chosen("auto", None, &machine(state, false, None)).unwrap();
            assert_eq!(without, Device::Cpu, "{state:?}");
            let hidden = chosen("auto", None, &machine(state, true, Some(""))).unwrap();
            assert_eq!(hidden, Device::Cpu, "{state:?}");
            for local in [None, Some(0)] {
                let e = chosen("auto", local, &machine(state, true, None)).unwrap_err();
                assert_eq!(e.exit_code(), 13);
                let text = e.to_string();
                assert!(
                    text.contains("has a GPU") && text.contains("device: cpu"),
                    "{text}"
                );
            }
        }
        let text = chosen("auto", None, &machine(&silent, true, None))
            .unwrap_err()
            .to_string();
        assert!(text.contains(OLD) && text.contains("580"), "{text}");
        let text = chosen("auto", None, &machine(&unopened, true, None))
            .unwrap_err()
            .to_string();
        assert!(text.contains("libcudnn.so.9"), "{text}");
    }

    #[test]
    fn each_rank_takes_its_own_gpu_or_the_one_it_was_given() {
        let eight = State::Answers(8);
        let of = |name, local, visible| chosen(name, local, &machine(&eight, true, visible));
        assert_eq!(of("auto", None, None).unwrap(), Device::Cuda(0));
        assert_eq!(of("cuda:3", None, None).unwrap(), Device::Cuda(3));
        assert_eq!(of("cuda", Some(5), None).unwrap(), Device::Cuda(5));
        assert_eq!(
            of("auto", Some(5), Some("0,1,2,3,4,5,6,7")).unwrap(),
            Device::Cuda(5)
        );
        let one = State::Answers(1);
        let given = chosen("auto", Some(5), &machine(&one, true, Some("5")));
        assert_eq!(given.unwrap(), Device::Cuda(0));
        for (e, code, words) in [
            (of("cuda:8", None, None), 13, "there are 8 devices"),
            (of("auto", Some(8), None), 13, "rank 8 of this machine has no GPU"),
            (of("cuda:1", Some(1), None), 4, "several ranks"),
            (of("gpu", None, None), 4, "expected auto, cpu, cuda or cuda:N"),
            (of("cuda:", None, None), 4, "expected auto"),
        ] {
            let e = e.unwrap_err();
            assert_eq!(e.exit_code(), code, "{e}");
            assert!(e.to_string().contains(words), "{e}");
        }
    }

    #[test]
    fn what_was_asked_for_and_is_not_there_says_why() {
        let silent = State::Silent(OLD.into());
        let e = chosen("cuda", None, &machine(&silent, false, Some("-1"))).unwrap_err();
        assert!(e.to_string().contains("hides every GPU"), "{e}");
        let e = chosen("cuda:0", None, &machine(&State::Absent, false, None)).unwrap_err();
        assert!(
            e.to_string().contains("CPU set") && e.to_string().contains("CUDA=1"),
            "{e}"
        );
    }
}
