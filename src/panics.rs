//! Faults of the program and of the libraries below it: caught where a file can cause one, else told in one line.

use crate::error::sentence;
use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// A panic of this thread is caught and told as an error: nothing is printed for it.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// From here on a panic that nobody catches is one line on standard error; `RUST_BACKTRACE` asks for Rust's own report.
pub(crate) fn in_one_line() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let rusts = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CAUGHT.get() {
                return;
            }
            if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
                return rusts(info);
            }
            let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line()));
            crate::say!(
                "error: a fault of af2: {}{}\n  hint: please report it with this line and the command; RUST_BACKTRACE=1 shows where \
                 it comes from",
                words(info.payload()),
                place.unwrap_or_default()
            );
        }));
    });
}

/// Runs `f`; a panic inside becomes its words, and prints nothing.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    in_one_line();
    let outer = CAUGHT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    CAUGHT.set(outer);
    result.map_err(|payload| words(&*payload))
}

/// What a panic says; of libtorch's pages the sentence before its list of frames.
pub(crate) fn words(payload: &(dyn Any + Send)) -> String {
    let text = match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(s), _) => s.as_str(),
        (_, Some(s)) => s,
        _ => return "a panic without words".into(),
    };
    sentence(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn a_panic_is_its_words() {
        assert_eq!(caught(|| 3), Ok(3));
        assert_eq!(caught(|| panic!("no room")), Err::<(), _>("no room".into()));
    }

    #[test]
    fn what_libtorch_refuses_is_a_sentence_without_frames() {
        let e = caught(|| {
            let a = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
            a.matmul(&a)
        });
        let text = e.unwrap_err();
        assert!(text.contains("cannot be multiplied"), "{text}");
        for frame in ["frame #", "Exception raised", "unwrap"] {
            assert!(!text.contains(frame), "{text}");
        }
    }
}
