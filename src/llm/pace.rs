//! When a call may go: at most so many, and so many tokens, in any minute, and none while a server wants to be left alone.

use super::halt::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Calls at even distances. A burst at a minute's begin would be allowed by most servers, and rejected by those that look at
/// seconds.
pub(super) struct Pace {
    /// Between two calls.
    call: Duration,
    /// For each token.
    token: Duration,
    next: Mutex<Next>,
}

struct Next {
    call: Instant,
    token: Instant,
    /// No call before.
    quiet: Instant,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Pace {
    pub(super) fn new(calls_a_minute: Option<u32>, tokens_a_minute: Option<u64>) -> Self {
        let now = Instant::now();
        Pace {
            call: calls_a_minute.map_or(Duration::ZERO, |n| MINUTE / n.max(1)),
            token: tokens_a_minute.map_or(Duration::ZERO, |n| MINUTE.div_f64(n.max(1) as f64)),
            next: Mutex::new(Next {
                call: now,
                token: now,
                quiet: now,
            }),
        }
    }

    /// Takes the next place: when it is.
    pub(super) fn place(&self, tokens: u64, now: Instant) -> Instant {
        let mut next = lock(&self.next);
        let at = now.max(next.call).max(next.token).max(next.quiet);
        next.call = at + self.call;
        next.token = at + self.token.mul_f64(tokens as f64);
        at
    }

    /// Nothing goes before `then`.
    pub(super) fn quiet_until(&self, then: Instant) {
        let mut next = lock(&self.next);
        next.quiet = next.quiet.max(then);
    }

    /// Until when nothing goes.
    pub(super) fn quiet(&self) -> Instant {
        lock(&self.next).quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_their_distance() {
        let pace = Pace::new(Some(600), None);
        let now = Instant::now();
        let at = |n: u32| now + n * Duration::from_millis(100);
        let places: Vec<Instant> = (0..3).map(|_| pace.place(1_000_000, now)).collect();
        assert_eq!(places, [at(0), at(1), at(2)]);
        // Nothing is saved up.
        assert_eq!(pace.place(0, at(50)), at(50));
        assert_eq!(pace.place(0, at(50)), at(51));
    }

    #[test]
    fn tokens_take_their_time() {
        let pace = Pace::new(None, Some(60_000));
        let now = Instant::now();
        assert_eq!(pace.place(500, now), now);
        let second = pace.place(1500, now);
        assert_eq!((second - now).as_millis(), 500);
        assert_eq!((pace.place(1, now) - now).as_millis(), 2000);
    }

    #[test]
    fn without_bounds_all_go_at_once_but_for_a_pause() {
        let pace = Pace::new(None, None);
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(pace.place(9, now), now);
        assert_eq!(pace.place(9, now), now);
        let later = now + Duration::from_secs(3);
        pace.quiet_until(later);
        pace.quiet_until(now);
        assert_eq!(pace.place(9, now), later);
    }
}
