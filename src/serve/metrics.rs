//! Counts of what happens, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histograms' buckets, in seconds.
const BOUNDS: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// All of it.
#[derive(Default)]
pub(super) struct Metrics {
    /// HTTP status → requests.
    answered: Mutex<BTreeMap<u16, u64>>,
    pub connections: AtomicU64,
    /// Requests in the house, from their first byte to their last.
    pub requests: AtomicU64,
    pub waiting: AtomicU64,
    pub running: AtomicU64,
    pub hang_ups: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub new_tokens: AtomicU64,
    pub windows: AtomicU64,
    /// The engine's: see [`crate::generate::engine::Stats`].
    pub windows_encoded: AtomicU64,
    pub prompt_tokens_shared: AtomicU64,
    pub steps: AtomicU64,
    pub spoken: AtomicU64,
    pub most_bytes: AtomicU64,
    /// From a sound's bytes to its mel.
    pub decoding: Histogram,
    /// From the engine's queue to the first token that is streamed.
    pub first_token: Histogram,
    /// From the engine's queue to the whole answer.
    pub answer: Histogram,
}

/// How often something took how long.
#[derive(Default)]
pub(super) struct Histogram {
    counts: [AtomicU64; BOUNDS.len()],
    all: AtomicU64,
    microseconds: AtomicU64,
}

impl Histogram {
    pub(super) fn see(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (count, _) in self.counts.iter().zip(BOUNDS).filter(|(_, b)| seconds <= *b) {
            count.fetch_add(1, Relaxed);
        }
        self.all.fetch_add(1, Relaxed);
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, "histogram", help);
        let all = self.all.load(Relaxed);
        for (count, bound) in self.counts.iter().zip(BOUNDS) {
            let count = count.load(Relaxed);
            let _ = writeln!(text, "af2_{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "af2_{name}_bucket{{le=\"+Inf\"}} {all}");
        let sum = self.microseconds.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "af2_{name}_sum {sum}\naf2_{name}_count {all}");
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP af2_{name} {help}\n# TYPE af2_{name} {kind}");
}

impl Metrics {
    pub(super) fn answered(&self, status: u16) {
        let mut all = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(status).or_default() += 1;
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        head(
            &mut text,
            "requests_total",
            "counter",
            "Requests by the status of their answer.",
        );
        for (status, n) in &*self.answered.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "af2_requests_total{{status=\"{status}\"}} {n}");
        }
        let gauges = [
            ("connections", &self.connections, "Open connections."),
            (
                "requests",
                &self.requests,
                "Questions between their first byte and their answer's last.",
            ),
            ("waiting", &self.waiting, "Questions that wait for a slot."),
            ("running", &self.running, "Questions that are being answered."),
            (
                "engine_most_bytes",
                &self.most_bytes,
                "The most bytes that the engine has held of what --memory bounds.",
            ),
        ];
        let counters = [
            (
                "hang_ups_total",
                &self.hang_ups,
                "Questions given up before their answer: by their client, or as their time was over.",
            ),
            ("prompt_tokens_total", &self.prompt_tokens, "Tokens of questions."),
            ("new_tokens_total", &self.new_tokens, "Tokens of answers."),
            (
                "windows_total",
                &self.windows,
                "Windows of 10 s in the sounds of questions.",
            ),
            (
                "windows_encoded_total",
                &self.windows_encoded,
                "Windows that were encoded: a sound that stays heard is not encoded again.",
            ),
            (
                "prompt_tokens_shared_total",
                &self.prompt_tokens_shared,
                "Tokens of questions that were not read, as another one about the same sound began with them.",
            ),
            ("steps_total", &self.steps, "Steps of all slots together."),
            (
                "step_tokens_total",
                &self.spoken,
                "Tokens that these steps wrote: over steps and slots, how busy the slots are.",
            ),
        ];
        let kinds = gauges.iter().map(|m| (m, "gauge"));
        for ((name, value, help), kind) in kinds.chain(counters.iter().map(|m| (m, "counter"))) {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "af2_{name} {}", value.load(Relaxed));
        }
        let histograms = [
            (
                &self.decoding,
                "decoding_seconds",
                "From a sound's bytes to its mel.",
            ),
            (
                &self.first_token,
                "first_token_seconds",
                "Streams: from the queue to the first token.",
            ),
            (
                &self.answer,
                "answer_seconds",
                "From the queue to the whole answer.",
            ),
        ];
        for (histogram, name, help) in histograms {
            histogram.write(&mut text, name, help);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_that_took_no_longer() {
        let metrics = Metrics::default();
        for ms in [1, 70, 400, 400_000] {
            metrics.answer.see(Duration::from_millis(ms));
        }
        metrics.answered(200);
        metrics.answered(200);
        metrics.answered(429);
        let text = metrics.text();
        for line in [
            "af2_requests_total{status=\"200\"} 2",
            "af2_requests_total{status=\"429\"} 1",
            "# TYPE af2_answer_seconds histogram",
            "af2_answer_seconds_bucket{le=\"0.05\"} 1",
            "af2_answer_seconds_bucket{le=\"0.1\"} 2",
            "af2_answer_seconds_bucket{le=\"0.5\"} 3",
            "af2_answer_seconds_bucket{le=\"300\"} 3",
            "af2_answer_seconds_bucket{le=\"+Inf\"} 4",
            "af2_answer_seconds_sum 400.471",
            "af2_answer_seconds_count 4",
            "af2_waiting 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }
}
