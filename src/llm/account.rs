//! What asking costs, and the end of it before it costs more than it may.

use super::answer::Usage;
use super::halt::lock;
use crate::error::{Error, Result};
use serde::Serialize;
use std::sync::{Condvar, Mutex, PoisonError};

/// What may be spent at most; `None` is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Budget {
    /// Requests that are sent, those included that are sent again.
    pub calls: Option<u64>,
    /// Of questions and answers.
    pub tokens: Option<u64>,
    /// In the money of the prices.
    pub money: Option<f64>,
}

/// Of a million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// Of questions.
    pub prompt: f64,
    /// Of answers.
    pub completion: f64,
}

/// What was spent, by one [`Client`](super::Client).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Requests that were sent.
    pub calls: u64,
    /// Of these, such as were sent again.
    pub retries: u64,
    /// Of questions.
    pub prompt_tokens: u64,
    /// Of answers.
    pub completion_tokens: u64,
    /// Where prices are known.
    pub money: Option<f64>,
    /// Answers whose tokens the server has not counted; an estimate by their bytes is in the sums.
    pub estimated: u64,
    /// Answers that were there already, and cost nothing.
    pub stored: u64,
}

/// What is about to be spent: an upper bound for most texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Requests that are not stored yet.
    pub calls: u64,
    /// Those that are.
    pub stored: u64,
    /// Of the questions.
    pub prompt_tokens: u64,
    /// Of answers as long as they may be.
    pub completion_tokens: u64,
    /// Where prices are known.
    pub money: Option<f64>,
}

/// The cost of one call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub calls: u64,
    pub prompt: u64,
    pub completion: u64,
}

impl Cost {
    fn add(self, other: Cost) -> Cost {
        Cost {
            calls: self.calls + other.calls,
            prompt: self.prompt.saturating_add(other.prompt),
            completion: self.completion.saturating_add(other.completion),
        }
    }

    fn less(self, other: Cost) -> Cost {
        Cost {
            calls: self.calls.saturating_sub(other.calls),
            prompt: self.prompt.saturating_sub(other.prompt),
            completion: self.completion.saturating_sub(other.completion),
        }
    }
}

impl Prices {
    pub(super) fn of(&self, prompt: u64, completion: u64) -> f64 {
        (self.prompt * prompt as f64 + self.completion * completion as f64) / 1e6
    }
}

/// A purse that several threads pay from.
pub(super) struct Account {
    budget: Budget,
    prices: Option<Prices>,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Default)]
struct State {
    spent: Cost,
    /// What calls on their way may still cost.
    reserved: Cost,
    shown: Spent,
}

impl Account {
    pub(super) fn new(budget: Budget, prices: Option<Prices>) -> Result<Self> {
        if budget.money.is_some() && prices.is_none() {
            let e = Error::usage("a budget in money wants the prices of a million tokens");
            return Err(e.hint("--price-in and --price-out"));
        }
        let fine = |v: f64| v.is_finite() && v >= 0.0;
        let numbers = [
            budget.money,
            prices.map(|p| p.prompt),
            prices.map(|p| p.completion),
        ];
        if let Some(wrong) = numbers.into_iter().flatten().find(|v| !fine(*v)) {
            return Err(Error::usage(format!("expected money from 0 on, found {wrong}")));
        }
        Ok(Account {
            budget,
            prices,
            state: Mutex::default(),
            settled: Condvar::new(),
        })
    }

    /// What a cost would go beyond.
    fn beyond(&self, cost: Cost) -> Option<String> {
        let over = |most: Option<u64>, is: u64| most.filter(|most| is > *most);
        if let Some(most) = over(self.budget.calls, cost.calls) {
            return Some(format!("{most} calls"));
        }
        if let Some(most) = over(self.budget.tokens, cost.prompt.saturating_add(cost.completion)) {
            return Some(format!("{most} tokens"));
        }
        let money = self.prices.map(|p| p.of(cost.prompt, cost.completion));
        match (self.budget.money, money) {
            (Some(most), Some(is)) if is > most => Some(format!("{most} of money")),
            _ => None,
        }
    }

    /// Sets a call's cost aside. Where it fits only once calls on their way have cost less than they might, it waits for them.
    ///
    /// # Errors
    /// It does not fit: what is spent, in words.
    pub(super) fn reserve(&self, cost: Cost) -> std::result::Result<(), String> {
        let mut state = lock(&self.state);
        loop {
            let State { spent, reserved, .. } = *state;
            if self.beyond(spent.add(reserved).add(cost)).is_none() {
                state.reserved = reserved.add(cost);
                return Ok(());
            }
            if let Some(what) = self.beyond(spent.add(cost)) {
                return Err(what);
            }
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What a call has cost in the end. `None`: it never reached the server.
    pub(super) fn settle(&self, reserved: Cost, usage: Option<Usage>, again: bool) {
        let mut state = lock(&self.state);
        state.reserved = state.reserved.less(reserved);
        if let Some(usage) = usage {
            let cost = Cost {
                calls: 1,
                prompt: usage.prompt,
                completion: usage.completion,
            };
            state.spent = state.spent.add(cost);
            state.shown.retries += u64::from(again);
            state.shown.estimated += u64::from(usage.estimated);
        }
        drop(state);
        self.settled.notify_all();
    }

    pub(super) fn found(&self, stored: u64) {
        lock(&self.state).shown.stored += stored;
    }

    pub(super) fn spent(&self) -> Spent {
        let state = lock(&self.state);
        Spent {
            calls: state.spent.calls,
            prompt_tokens: state.spent.prompt,
            completion_tokens: state.spent.completion,
            money: self
                .prices
                .map(|p| p.of(state.spent.prompt, state.spent.completion)),
            ..state.shown
        }
    }

    pub(super) fn prices(&self) -> Option<Prices> {
        self.prices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    const COST: Cost = Cost {
        calls: 1,
        prompt: 10,
        completion: 90,
    };
    fn used(prompt: u64, completion: u64) -> Option<Usage> {
        Some(Usage {
            prompt,
            completion,
            estimated: false,
        })
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let calls = Account::new(
            Budget {
                calls: Some(2),
                ..Budget::default()
            },
            None,
        )
        .unwrap();
        for _ in 0..2 {
            calls.reserve(COST).unwrap();
            calls.settle(COST, used(1, 1), false);
        }
        assert_eq!(calls.reserve(COST).unwrap_err(), "2 calls");
        let prices = Prices {
            prompt: 1.0,
            completion: 10.0,
        };
        let money = Account::new(
            Budget {
                money: Some(0.001),
                ..Budget::default()
            },
            Some(prices),
        )
        .unwrap();
        money.reserve(COST).unwrap();
        money.settle(COST, used(10, 90), true);
        // 0.00091 are spent.
        assert_eq!(money.reserve(COST).unwrap_err(), "0.001 of money");
        let spent = money.spent();
        assert_eq!(
            (
                spent.calls,
                spent.retries,
                spent.prompt_tokens,
                spent.completion_tokens
            ),
            (1, 1, 10, 90)
        );
        assert!((spent.money.unwrap() - 0.00091).abs() < 1e-12);
    }

    #[test]
    fn a_call_waits_for_what_others_may_give_back() {
        let account = Arc::new(
            Account::new(
                Budget {
                    tokens: Some(150),
                    ..Budget::default()
                },
                None,
            )
            .unwrap(),
        );
        account.reserve(COST).unwrap();
        let other = account.clone();
        let waits = std::thread::spawn(move || other.reserve(COST));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waits.is_finished());
        account.settle(COST, used(10, 20), false);
        assert_eq!(waits.join().unwrap(), Ok(()));
        // 30 spent, 100 set aside, 100 do not fit even if nothing of these is used.
        account.settle(COST, used(10, 90), false);
        assert_eq!(account.reserve(COST).unwrap_err(), "150 tokens");
    }

    #[test]
    fn what_never_arrived_costs_nothing() {
        let account = Account::new(
            Budget {
                calls: Some(1),
                ..Budget::default()
            },
            None,
        )
        .unwrap();
        for _ in 0..3 {
            account.reserve(COST).unwrap();
            account.settle(COST, None, false);
        }
        assert_eq!(account.spent(), Spent::default());
    }

    #[test]
    fn money_wants_prices() {
        let budget = Budget {
            money: Some(1.0),
            ..Budget::default()
        };
        assert!(Account::new(budget, None).is_err());
        let prices = Prices {
            prompt: f64::NAN,
            completion: 1.0,
        };
        assert!(Account::new(budget, Some(prices)).is_err());
    }
}
