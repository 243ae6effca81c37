//! The options of BERTScore, shared by the verbs that compare texts.

use crate::device;
use crate::error::Result;
use crate::eval::captions::{Baseline, BertScore};
use crate::load::TextEncoder;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct BertArgs {
    /// BERTScore too, by the tokens of this encoder: a Hugging Face folder of a BERT or RoBERTa with tokenizer.json. bert_score
    /// takes roberta-large for English.
    #[arg(long, value_name = "FOLDER")]
    pub(super) bertscore: Option<PathBuf>,
    /// The layer whose states are compared, 0 for what the first is given. Default: bert_score's for a model of this name.
    #[arg(long, value_name = "N", requires = "bertscore")]
    pub(super) bertscore_layer: Option<usize>,
    /// Tokens count by how rare they are among the references.
    #[arg(long, requires = "bertscore")]
    pub(super) bertscore_idf: bool,
    /// Rescales by this table, LAYER,P,R,F a line, as bert_score's rescale_baseline has it.
    #[arg(long, value_name = "FILE.tsv", requires = "bertscore")]
    pub(super) bertscore_baseline: Option<PathBuf>,
}

impl BertArgs {
    /// The encoder that is named, if one is.
    pub(super) fn open(&self, device: &str) -> Result<Option<BertScore>> {
        let Some(folder) = &self.bertscore else {
            return Ok(None);
        };
        let baseline = self.bertscore_baseline.as_deref();
        open(folder, self.bertscore_layer, self.bertscore_idf, baseline, device).map(Some)
    }
}

/// Opens an encoder as it was told, or as results name it.
pub(super) fn open(
    folder: &Path,
    layer: Option<usize>,
    idf: bool,
    baseline: Option<&Path>,
    device: &str,
) -> Result<BertScore> {
    let encoder = TextEncoder::open(folder, layer, device::of(device)?)?;
    let baseline = baseline.map(|path| Baseline::read(path, encoder.layer));
    Ok(BertScore {
        baseline: baseline.transpose()?,
        encoder,
        idf,
    })
}
