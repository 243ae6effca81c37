//! What most programs over this library need: `use af2::prelude::*;`.
//!
//! | to | names |
//! |---|---|
//! | open a checkpoint | [`open`], [`OpenOptions`], [`Loaded`], [`Device`], [`Precision`] |
//! | hear a sound | [`Clip`], [`Seconds`], [`Ears`], [`hear`] |
//! | ask and read the answer | [`ask`], [`AskOptions`], [`Sampler`], [`Sampling`], [`Answer`] |
//! | say what went wrong | [`Error`], [`Result`] |
//!
//! Two types of other rooms are named `Options` there; here each says of what.

pub use crate::data::feed::{Clip, Ears};
pub use crate::error::{Error, Result};
pub use crate::generate::sampling::{Sampler, Sampling};
pub use crate::generate::{ask, hear, Answer, Options as AskOptions};
pub use crate::load::{open, Loaded, Options as OpenOptions};
pub use crate::model::parts::Precision;
pub use crate::shapes::Seconds;
pub use tch::Device;
