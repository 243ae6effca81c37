//! The metrics that programs of their own give: METEOR, SPICE, and SPIDEr, which is made of SPICE.

use super::official::{meteor, spice, Found, Tool};
use crate::error::Result;
use crate::metrics::captions::Scored;

/// A metric of the corpus and of each clip, or why it is not there.
pub struct Other {
    /// Its name.
    pub name: &'static str,
    /// Of the corpus, and of each clip, where they are defined.
    pub value: Result<(Option<f64>, Vec<Option<f64>>), String>,
    /// The program.
    pub by: Option<Found>,
}

/// METEOR, SPICE and SPIDEr of clips whose CIDEr-D over all is `cider`.
///
/// # Errors
/// A program that is there and fails.
pub fn others(items: &[Scored], cider: f64) -> Result<[Other; 3]> {
    let meteor = match Tool::Meteor.find() {
        Ok(found) => {
            let (values, all) = meteor(&found, items)?;
            (
                Ok((Some(all), values.into_iter().map(Some).collect())),
                Some(found),
            )
        }
        Err(why) => (Err(why), None),
    };
    let spice = match Tool::Spice.find() {
        Ok(found) => {
            let (values, all) = spice(&found, items)?;
            (Ok((all, values)), Some(found))
        }
        Err(why) => (Err(why), None),
    };
    // Half of both.
    let spider = match &spice.0 {
        Ok((all, values)) => {
            let half =
                |(spice, item): (&Option<f64>, &Scored)| spice.map(|spice| (spice + item.scores.cider) / 2.0);
            Ok((
                all.map(|all| (all + cider) / 2.0),
                values.iter().zip(items).map(half).collect(),
            ))
        }
        Err(_) => Err("it is half CIDEr-D and half SPICE, which is not there".to_owned()),
    };
    let other = |name, (value, by)| Other { name, value, by };
    Ok([
        other("METEOR", meteor),
        other("SPICE", spice),
        other("SPIDEr", (spider, None)),
    ])
}
