//! What every job is trained by: optimizer steps over ranks, their record, checkpoints, and what happens when something goes wrong.

pub(crate) mod board;
pub mod clock;
mod copies;
pub(crate) mod finite;
pub mod frozen;
pub(crate) mod guard;
mod made_with;
pub(crate) mod random;
pub(crate) mod record;
pub(crate) mod resume;
pub mod saver;
pub(crate) mod schedule;
pub(crate) mod signals;
pub(crate) mod skipped;
pub mod state;
pub mod steps;
pub(crate) mod watch;
