//! What the verbs share: where cards lie, and values on standard output.

use crate::benchmark::Registry;
use crate::cli::parts::out;
use crate::error::{Error, Result};
use clap::Args;
use std::path::PathBuf;

/// Where cards of one's own lie.
#[derive(Args)]
pub(crate) struct CardsArgs {
    /// A folder of cards of your own, NAME.yaml each, beside those that are built in.
    #[arg(long, value_name = "DIR")]
    cards: Option<PathBuf>,
}

impl CardsArgs {
    pub(super) fn registry(&self) -> Result<Registry> {
        Registry::with(self.cards.as_deref())
    }
}

/// As JSON.
pub(super) fn printed(value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| {
        Error::data(
            "standard output",
            "value",
            "something that JSON can say",
            e.to_string(),
        )
    })?;
    out(&format!("{text}\n"))
}
