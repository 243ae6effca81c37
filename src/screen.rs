//! The one way to print. Losing the screen must never lose the run: what cannot be shown is dropped, and what was wrong with
//! standard output is said at the end, when all files are written.

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// What became of standard output.
static LOST: Mutex<Option<Lost>> = Mutex::new(None);

enum Lost {
    /// Who read it has seen enough: `| head`.
    Reader,
    Error(io::Error),
}

impl From<io::Error> for Lost {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Lost::Reader,
            _ => Lost::Error(e),
        }
    }
}

/// A line on standard output: a result. Nothing is printed any more once a reader has left or the disk is full:
/// `finish` tells.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::screen::out(&format!("{}\n", format_args!($($text)*))) };
}

/// A line on standard error: a note, progress, an error. Never fails.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::screen::note(&format!($($text)*)) };
}

/// Text as it is on standard output; control characters are made visible where it is a terminal.
pub fn out(text: &str) {
    print(text, false);
}

/// A part of a line on standard output that is seen at once.
pub(crate) fn piece(text: &str) {
    print(text, true);
}

fn print(text: &str, at_once: bool) {
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    if lost.is_some() {
        return;
    }
    let mut to = io::stdout().lock();
    let shown = match to.is_terminal() {
        true => visible(text),
        false => Cow::Borrowed(text),
    };
    let mut taken = to.write_all(shown.as_bytes());
    if at_once {
        taken = taken.and_then(|()| to.flush());
    }
    *lost = taken.err().map(Lost::from);
}

/// Prints what is left, and from then on nothing, so that no other thread's words come behind a last line on the terminal. A
/// reader who does not take what another thread is just printing is not waited for.
pub fn close() {
    let patience = Instant::now() + Duration::from_millis(200);
    let mut lost = loop {
        match LOST.try_lock() {
            Ok(lost) => break lost,
            Err(TryLockError::Poisoned(e)) => break e.into_inner(),
            Err(TryLockError::WouldBlock) if Instant::now() >= patience => return,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    if lost.is_none() {
        let _ = io::stdout().flush();
        *lost = Some(Lost::Reader);
    }
}

/// A line on standard error, in one piece; control characters are made visible.
pub fn note(text: &str) {
    let line = format!("{}\n", visible(text));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Whether nobody is left to print to: what only prints may stop.
pub(crate) fn lost() -> bool {
    LOST.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Prints what is left. To be asked when all else is done.
///
/// # Errors
/// Standard output that took less than there was to print. A reader who has left is none.
pub(crate) fn finish() -> Result<()> {
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    let error = match lost.take() {
        Some(Lost::Reader) => {
            *lost = Some(Lost::Reader);
            return Ok(());
        }
        Some(Lost::Error(e)) => Some(e),
        None => io::stdout()
            .flush()
            .err()
            .filter(|e| e.kind() != io::ErrorKind::BrokenPipe),
    };
    match error {
        Some(e) => Err(Error::io("standard output", e).hint("what the command writes to files is written")),
        None => Ok(()),
    }
}

/// Text without characters that would steer a terminal or turn its direction of writing; line ends and tabs stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match steers(c) {
            true => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_made_visible() {
        for (text, shown) in [
            ("a clip\n\tof 3 s", "a clip\n\tof 3 s"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\rb\u{7}", "a\\u{d}b\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}gpj", "\\u{202e}gpj"),
            ("größe 音", "größe 音"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }
}
