//! What the paper says of the time of its own training, and whether a recipe is that training.

use super::model::trains;
use crate::error::Result;
use crate::model::cost;
use crate::model::flamingo::Config;
use crate::model::parts::{Part, PerPart};
use crate::model::presets::{preset, NAMES};
use crate::recipe::Recipe;

/// GPUs of its runs: A100 of 80 GB.
pub(crate) const GPUS: usize = 128;
/// Peak of one of them in bf16.
pub(crate) const A100_TFLOPS: f64 = 312.0;
/// Hours of all stages on them (table 20), in the order of [`NAMES`].
const HOURS: [f64; 4] = [104.0, 160.0, 228.0, 510.0];
/// The size whose stages it tells apart, and days of each: 4 d, 5 d, 12 h.
const TOLD: (&str, [f64; 3]) = ("af2-3b", [4.0, 5.0, 0.5]);
/// Windows and items of its stages: pairs times epochs of table 21, and LongAudio once.
const STAGES: [(usize, f64); 3] = [(3, 4_158_500.0), (9, 13_805_927.0), (30, 262_928.0)];
/// A schedule whose items differ by more is another.
const NEAR: f64 = 0.02;

/// The published time of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Published {
    /// On [`GPUS`], for all stages.
    pub hours: f64,
    /// Days of each stage, where they are told apart.
    pub days: Option<[f64; 3]>,
}

/// The paper's time for a recipe of one of its sizes and of its schedule; `samples` are the items that each stage sees.
///
/// # Errors
/// None but of building a published size.
pub(crate) fn published(
    recipe: &Recipe,
    config: &Config,
    parameters: &PerPart<f64>,
    samples: &[u64],
) -> Result<Option<Published>> {
    let its_own = recipe.stages.len() == STAGES.len()
        && recipe.stages.iter().zip(samples).zip(STAGES).enumerate().all(
            |(i, ((stage, n), (windows, items)))| {
                let t = trains(stage);
                stage.windows == windows
                && (*n as f64 / items - 1.0).abs() <= NEAR
                && t.audio_transformer
                && t.cross_attention
                && !t.lm
                // The audio encoder trains in the second stage alone.
                && t.clap == (i == 1)
            },
        );
    if !its_own {
        return Ok(None);
    }
    for (name, hours) in NAMES.into_iter().zip(HOURS) {
        let known = preset(name)?;
        if known.lm.decoder().hidden_size == config.lm.decoder().hidden_size
            && same(&cost::parameters(&known)?, parameters)
        {
            let days = (name == TOLD.0).then_some(TOLD.1);
            return Ok(Some(Published { hours, days }));
        }
    }
    Ok(None)
}

/// Part for part; tokenizers of a few tokens more are the same size.
fn same(a: &PerPart<f64>, b: &PerPart<f64>) -> bool {
    let close = |part: &Part| (a[*part] / b[*part] - 1.0).abs() < 1e-3;
    Part::ALL.iter().all(close)
}
