//! How near an answer is to its label, and what is said where no tower could say it.

use super::Sample;
use crate::benchmark::Card;
use crate::error::Error;
use crate::eval::rules::retrieval::nearest_label;
use crate::eval::rules::Judged;
use crate::run::scored::NearestLabel;

/// Says that a rule cannot be applied without embeddings.
pub(super) fn wanted(card: &Card, kind: &str) -> Error {
    let e = Error::data(
        &card.name,
        format!("rules: {kind}: clap_label"),
        "AF-CLAP, whose text tower embeds answers and labels",
        "none",
    );
    e.hint(
        "--clap CHECKPOINT [--clap-tokenizer FILE] names the released .pt or one of `af2 clap`; `--rule fair` reads answers \
         without a tower",
    )
}

/// How near the answer of a rule that compares embeddings is. Rounded: another number of threads may say the last bits otherwise.
pub(super) fn nearest(sample: &Sample, judged: &Judged) -> Option<NearestLabel> {
    let near = (judged.by == "clap_label.nearest")
        .then(|| nearest_label(&sample.item()))
        .flatten()?;
    let rounded = |v: f64| (v * 1e6).round() / 1e6;
    Some(NearestLabel {
        cosine: rounded(near.cosine),
        margin: near.margin.map(rounded),
    })
}
