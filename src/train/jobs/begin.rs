//! How jobs begin, on all ranks alike.

use crate::data::feed::Ears;
use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::model::params::Params;
use crate::preflight::Report;
use crate::recipe::Recipe;
use tch::Device;

/// What was missing before a job begins is told once, by the first rank that misses something, and all ranks end alike.
///
/// # Errors
/// [`Error::Missing`] on every rank.
pub(crate) fn look(own: Report, ranks: &Ranks) -> Result<()> {
    let code = own.code();
    let misses = if code == 0 { 0 } else { ranks.world - ranks.rank };
    let mut seen = [f64::from(code), misses as f64];
    ranks.max(&mut seen)?;
    let (code, teller) = (seen[0] as i32, ranks.world - seen[1] as usize);
    match own.error() {
        _ if code == 0 && !ranks.first() => Ok(()),
        _ if code == 0 => own.result(),
        Some(Error::Missing { listing, .. }) if teller == ranks.rank => {
            let listing = match ranks.many() {
                true => format!("rank {teller}: {listing}"),
                false => listing,
            };
            Err(Error::Missing { listing, code })
        }
        _ => Err(Error::Missing {
            listing: format!("rank {}: rank {teller} lists what is missing", ranks.rank),
            code,
        }),
    }
}

/// What the first rank alone finds out, where all must end if it fails; `tells` says on the others what it tells.
///
/// # Errors
/// Those of `look`, and on the other ranks that there is one.
pub(crate) fn by_the_first<T: Default>(
    ranks: &Ranks,
    tells: &str,
    look: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let own = match ranks.first() {
        true => look(),
        false => Ok(T::default()),
    };
    let mut failed = [f64::from(u8::from(own.is_err()))];
    ranks.of_first(&mut failed)?;
    match failed[0] > 0.0 && !ranks.first() {
        true => Err(Error::Training {
            message: format!("rank 0 {tells}"),
            hint: None,
        }),
        false => own,
    }
}

/// A fault of a section, with its place in the recipe.
pub(crate) fn placed(recipe: &Recipe, section: &str, error: Error) -> Error {
    match error {
        Error::Recipe {
            message, hint, line, ..
        } => Error::Recipe {
            file: recipe.name.clone(),
            message: format!("{section}.{message}"),
            hint,
            line,
        },
        e => e,
    }
}

/// Gives all ranks the first one's weights and buffers: they have read the same files, but what was initialised is each one's own.
pub(crate) fn given_by_the_first(params: &Params, device: Device, ranks: &Ranks) -> Result<()> {
    let all: Vec<_> = params.iter().map(|(_, e)| e.tensor.detach()).collect();
    let _guarded = ranks.guarded();
    ranks.broadcast(&all, 0)?;
    ranks.settled(device)
}

/// Threads of this rank that decode: what the recipe says, else one for each of its cores.
pub(crate) fn threads(recipe: &Recipe, ranks: &Ranks) -> usize {
    match recipe.data.threads {
        0 => ranks.cores(),
        n => n,
    }
}

/// What hears a rank's clips.
pub(crate) fn ears(recipe: &Recipe, ranks: &Ranks) -> Result<Ears> {
    Ears::new(recipe.data.cache_mib).on_threads(threads(recipe, ranks))
}
