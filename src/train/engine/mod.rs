//! What every job is trained by: optimizer steps over ranks, their record, checkpoints, and what happens when something goes wrong.

pub mod board;
pub mod clock;
mod copies;
pub mod finite;
pub mod frozen;
pub mod guard;
mod made_with;
pub mod random;
pub mod record;
pub mod resume;
pub mod saver;
pub mod schedule;
pub mod signals;
pub mod skipped;
pub mod state;
pub mod steps;
pub mod watch;
