//! Whether a request is worth asking again, and when.

use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, SystemTime};

/// How long is waited between two tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first; each further one waits twice as long…
    pub first: Duration,
    /// …but no longer than this.
    pub most: Duration,
    /// A server that asks for a longer wait than this is not waited for.
    pub patience: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(500),
            most: Duration::from_secs(30),
            patience: Duration::from_secs(300),
        }
    }
}

impl Backoff {
    /// The wait behind try `tried`, from 1: between half and all of what is doubled each time, drawn by the seed and the request, so
    /// that those that failed together do not come again together.
    pub(super) fn wait(&self, tried: u32, seed: u64, request: &str) -> Duration {
        let whole = self
            .first
            .saturating_mul(1 << tried.saturating_sub(1).min(20))
            .min(self.most);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let own = request
            .bytes()
            .take(16)
            .fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
        rng.set_stream(own ^ u64::from(tried));
        let share = f64::from(rng.next_u32()) / f64::from(u32::MAX);
        whole.mul_f64(0.5 + 0.5 * share)
    }
}

/// What a status says of the request, of its server, or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An answer.
    Fine,
    /// It may go better later.
    Again,
    /// This request will never be taken.
    Never,
    /// No request will be taken.
    None,
    /// Somewhere else.
    Elsewhere,
}

pub(super) fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Fine,
        300..=399 => Verdict::Elsewhere,
        408 | 409 | 425 | 429 => Verdict::Again,
        // A key, an address, an account.
        401..=405 | 407 | 410 => Verdict::None,
        500.. => Verdict::Again,
        _ => Verdict::Never,
    }
}

/// `Retry-After`: seconds, with a fraction or without, or a date.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let then = httpdate::parse_http_date(text).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_differ() {
        let backoff = Backoff::default();
        for tried in 1..=40 {
            let whole = Duration::from_millis(500)
                .saturating_mul(1 << (tried - 1).min(20))
                .min(backoff.most);
            let wait = backoff.wait(tried, 1, "abc");
            assert!(
                wait >= whole / 2 && wait <= whole,
                "{tried}: {wait:?} of {whole:?}"
            );
            assert_eq!(wait, backoff.wait(tried, 1, "abc"));
        }
        assert_ne!(backoff.wait(1, 1, "abc"), backoff.wait(1, 1, "abd"));
        assert_ne!(backoff.wait(1, 1, "abc"), backoff.wait(1, 2, "abc"));
    }

    #[test]
    fn statuses_are_told_apart() {
        for (statuses, expected) in [
            (&[200, 201][..], Verdict::Fine),
            (&[408, 409, 425, 429, 500, 502, 503, 504, 529], Verdict::Again),
            (&[400, 413, 415, 422, 451], Verdict::Never),
            (&[401, 402, 403, 404, 405], Verdict::None),
            (&[301, 302, 307, 308], Verdict::Elsewhere),
        ] {
            for status in statuses {
                assert_eq!(verdict(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn a_server_says_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Fri, 27 Nov 2026 07:00:00 GMT").unwrap();
        let of = |text: &str| retry_after(text, now);
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of(" 0.25 "), Some(Duration::from_millis(250)));
        assert_eq!(of("Fri, 27 Nov 2026 07:01:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(of("Fri, 27 Nov 2026 06:00:00 GMT"), Some(Duration::ZERO));
        for wrong in ["", "-3", "soon", "NaN", "1e300"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
