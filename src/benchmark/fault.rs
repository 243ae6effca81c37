//! Errors of what is data and written in YAML.

use crate::error::Error;

/// The reader's errors are of any YAML; a card is data.
pub(super) fn of_a_card(error: Error) -> Error {
    match error {
        Error::Recipe {
            file,
            line,
            message,
            hint,
        } => Error::Card {
            file,
            line,
            message,
            hint,
        },
        Error::Many(all) => Error::Many(all.into_iter().map(of_a_card).collect()),
        error => error,
    }
}
