//! The learning rate, step by step.

use crate::recipe::{OptimRecipe, Schedule};

/// The learning rate of optimizer step `step` (from 0), as transformers' schedules with warm-up.
pub(crate) fn learning_rate(o: &OptimRecipe, step: usize) -> f64 {
    if step < o.warmup {
        return o.learning_rate * step as f64 / o.warmup as f64;
    }
    let end = o.schedule_steps.unwrap_or(o.steps);
    let span = end.saturating_sub(o.warmup).max(1) as f64;
    let done = (step - o.warmup) as f64 / span;
    o.learning_rate
        * match o.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => (1.0 - done).max(0.0),
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(schedule: Schedule) -> OptimRecipe {
        OptimRecipe {
            steps: 13,
            batch_size: 1,
            accumulate: 1,
            global_batch: None,
            learning_rate: 1e-3,
            optimizer: Default::default(),
            betas: (0.9, 0.999),
            groups: Default::default(),
            schedule,
            schedule_steps: None,
            warmup: 3,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }

    #[test]
    fn the_first_step_has_rate_zero_and_schedules_end_where_they_should() {
        let o = recipe(Schedule::Cosine);
        assert_eq!(learning_rate(&o, 0), 0.0);
        assert!((learning_rate(&o, 1) - 1e-3 / 3.0).abs() < 1e-12);
        assert_eq!(learning_rate(&o, 3), 1e-3);
        assert!((learning_rate(&o, 8) - 0.5e-3).abs() < 1e-9);
        assert!(learning_rate(&o, 13) < 1e-12);
        assert!((learning_rate(&recipe(Schedule::Linear), 8) - 0.5e-3).abs() < 1e-12);
        assert_eq!(learning_rate(&recipe(Schedule::Constant), 99), 1e-3);
    }

    /// By hand, from transformers' `get_linear_schedule_with_warmup(optimizer, 3, 7)` and the cosine's.
    #[test]
    fn a_schedule_that_ends_elsewhere_is_transformers() {
        let rates = |schedule, end| {
            let o = OptimRecipe {
                schedule_steps: Some(end),
                ..recipe(schedule)
            };
            [4, 5, 7, 9].map(|step| (learning_rate(&o, step) / o.learning_rate * 1e4).round() / 1e4)
        };
        assert_eq!(rates(Schedule::Linear, 7), [0.75, 0.5, 0.0, 0.0]);
        assert_eq!(rates(Schedule::Linear, 23), [0.95, 0.9, 0.8, 0.7]);
        assert_eq!(rates(Schedule::Cosine, 7), [0.8536, 0.5, 0.0, 0.5]);
        assert_eq!(rates(Schedule::Cosine, 23), [0.9938, 0.9755, 0.9045, 0.7939]);
    }
}
