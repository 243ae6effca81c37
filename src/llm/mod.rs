//! A client of servers that speak OpenAI's chat completions, whoever they are: judges, models that are compared, makers of data.
//!
//! ```text
//! request.rs ─► client.rs: was it answered (store.rs)? may it be sent (account.rs), and when (pace.rs)?
//!                  └► server.rs: one call (wire.rs), and what it means; once more (retry.rs)? ─► answer.rs ─► store.rs
//! provider.rs: the same requests through a provider's files; at_hand.rs: answered by a model at hand
//! ```
//!
//! What is asked once is asked once: every answer is kept under the hash of its request, and a second run reads it from there.
//!
//! ```
//! use af2::llm::{Answers, Client, Message, Request, Sampling, Settings};
//!
//! # fn main() -> af2::Result<()> {
//! # let here = tempfile::tempdir().unwrap();
//! let settings = Settings { store: Some(here.path().join("answers")), offline: true, ..Settings::default() };
//! let client = Client::open(settings)?;
//! let request = Request {
//!     model: "gpt-4o-2024-11-20".into(),
//!     messages: vec![Message::user("Is it raining?")],
//!     sampling: Sampling { temperature: Some(0.0), max_tokens: Some(8), ..Sampling::default() },
//!     schema: None,
//!     run: 0,
//!     about: String::new(),
//! };
//! // Nothing is stored there yet, and nothing may be asked.
//! let missing = client.answers(&[request], &mut |_, _| Ok(())).unwrap_err();
//! assert!(missing.to_string().contains("Is it raining?"));
//! # Ok(())
//! # }
//! ```

mod account;
mod answer;
mod at_hand;
mod client;
mod endpoint;
mod halt;
mod key;
mod pace;
mod provider;
mod proxy;
mod request;
mod retry;
mod server;
mod settings;
mod store;
mod wire;

pub use account::{Budget, Estimate, Prices, Spent};
pub use answer::{Answer, Answers, Failure, Outcome, Usage, Why};
pub use at_hand::AtHand;
pub use client::Client;
pub use endpoint::Endpoint;
pub use key::Key;
pub use provider::{BatchRead, Pending};
pub use request::{Audio, Message, Part, Request, Role, Sampling, Schema};
pub use retry::Backoff;
pub use settings::Settings;
pub use wire::TimeOuts;
