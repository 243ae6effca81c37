//! Answers in free text, marked by a judge: a language model that is asked by a protocol
//! ([`Protocol`](crate::benchmark::Protocol)), wherever it runs ([`Answers`](crate::llm::Answers)).
//!
//! ```text
//! items.rs: predictions with their items ─► prompt.rs: a request ─► llm ─► reply.rs: marks, or what is wrong ─► run/judgements.rs
//!                     ask.rs: all of them, and those again that could not be read ──┘                            │
//! local.rs: a language model's folder that is asked in the place of a server
//! results.rs: one mark an item, their mean with its interval ─► run/scored.rs   check.rs: beside people, another judge ◄─┘
//! ```
//!
//! No mark is ever put in the place of one that could not be read: such an item is unscored, counted and shown.

mod ask;
mod check;
mod items;
mod local;
mod means;
mod prompt;
mod reply;
mod results;

pub use ask::{first_requests, judge, How, Marked};
pub use check::{check, labels, Agreement, Checked, Label, Measured};
pub use items::{items, JudgeItem, JudgeItems};
pub use local::Local;
pub use prompt::Asked;
pub use reply::read;
pub use results::{results, About};
