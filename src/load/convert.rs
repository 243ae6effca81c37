//! A checkpoint in another layout: read tensor by tensor, written as it is read.

use super::{resize, CHUNK_BYTES, SETTINGS};
use crate::checkpoint::{
    self, canonical, hugging_face, names, training, Archive, Item, Parts, ReleasedFolder, TorchFile,
};
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use crate::model::lm;
use crate::model::parts::Part;
use crate::text::tokenizer::Tokenizer;
use std::path::Path;

/// The layouts that we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// A folder: safe_ckpt/ with chunks and metadata.json, llm/ with configuration and tokenizer.
    Released,
    /// One file: checkpoint_N.pt under the names of the reference's training tree.
    Reference,
    /// A folder: the language model alone, as transformers opens it.
    Hf,
}

/// What is taken along.
#[derive(Debug, Clone)]
pub struct Choice {
    /// In the reference's layout: everything, not only what its trainer saves.
    pub full: bool,
    /// In the reference's layout: the parts that count as trained.
    pub train: Vec<Part>,
}

/// What was written and what was not.
#[derive(Debug, Default)]
pub struct Converted {
    /// Tensors in the new checkpoint.
    pub tensors: usize,
    /// One line for each kind of thing that the layout has no place for.
    pub left_out: Vec<String>,
    /// Things a user may want to know of what was read, one line each.
    pub notes: Vec<String>,
}

/// Writes `parts` into `out` in another layout. Tensors keep their dtype and every bit.
///
/// # Errors
/// Those of reading and writing; a checkpoint that lacks what the layout needs.
pub fn convert(parts: &Parts, out: &Path, layout: Layout, choice: &Choice) -> Result<Converted> {
    let given = &parts.checkpoint;
    // A training checkpoint goes into its own layout by itself, with the optimizer's state.
    let is_file = given.is_file() && given.extension().is_some_and(|e| e != "safetensors");
    if layout == Layout::Reference && is_file && parts.llm.is_none() && parts.base.is_none() {
        return again(&checkpoint::open_torch(given)?, out);
    }
    let files = checkpoint::open_parts(parts)?;
    let tokenizer = Tokenizer::open(&files.llm)?;
    let mut done = match layout {
        Layout::Released => released(given, &files, &tokenizer, out),
        Layout::Reference => reference(&files, &tokenizer, out, choice),
        Layout::Hf => hf(given, &files, &tokenizer, out),
    }?;
    done.notes = files.tensors.notes().to_vec();
    done.notes.extend(tokenizer.notes);
    Ok(done)
}

/// The embedding as the tokenizer needs it: an LM's own may have other rows.
fn item<'a>(files: &'a ReleasedFolder, name: &str, vocab: i64) -> Result<Item<'a>> {
    let tensors: &'a Archive = &files.tensors;
    let from_lm = |i: &checkpoint::TensorInfo| super::report::resizable(name, i, Some(&files.llm));
    match tensors.info(name) {
        Some(info) if from_lm(info) && info.shape[0] != vocab => {
            Ok(resize(tensors.get(name)?, vocab).to_kind(info.kind).into())
        }
        _ => Ok(Item::There(tensors, name.to_owned())),
    }
}

fn released(given: &Path, files: &ReleasedFolder, tokenizer: &Tokenizer, out: &Path) -> Result<Converted> {
    let vocab = tokenizer.len() as i64;
    let tensors = files
        .tensors
        .names()
        .map(|n| Ok((n.to_owned(), item(files, n, vocab)?)))
        .collect::<Result<Vec<_>>>()?;
    let llm = out.join("llm");
    std::fs::create_dir_all(&llm).map_err(|e| Error::io(&llm, e))?;
    hugging_face::copy_files(&files.llm, &llm)?;
    for folder in [Some(given), given.parent()].into_iter().flatten() {
        let settings = folder.join(SETTINGS);
        if settings.is_file() {
            let text = crate::fsutil::read_text(&settings)?;
            write_atomic_bytes(&out.join(SETTINGS), text.as_bytes())?;
            break;
        }
    }
    checkpoint::write_released(&out.join("safe_ckpt"), &tensors, CHUNK_BYTES)?;
    let mut left_out = Vec::new();
    if let Some(clap) = &files.clap {
        let n = clap.names().filter(|n| names::rename(n).is_none()).count();
        left_out.push(format!(
            "{n} tensors of AF-CLAP's text side and projections, which AF2 does not use"
        ));
    }
    if files.torch.as_ref().is_some_and(training::has_state) {
        left_out.push("the optimizer's state".into());
    }
    Ok(Converted {
        tensors: tensors.len(),
        left_out,
        ..Converted::default()
    })
}

fn reference(
    files: &ReleasedFolder,
    tokenizer: &Tokenizer,
    out: &Path,
    choice: &Choice,
) -> Result<Converted> {
    let vocab = tokenizer.len() as i64;
    let tied = lm::Config::read(&files.llm)?.decoder().tie_word_embeddings;
    let mut left = 0;
    let mut model = Vec::new();
    for name in files.tensors.names() {
        let trains = choice.train.contains(&Part::of(name));
        if choice.full || names::saved_by_trainer(name, trains, tied) {
            model.push((names::in_training_tree(name), item(files, name, vocab)?));
        } else {
            left += 1;
        }
    }
    // The tied head is a second name for the embedding, also where the checkpoint has it once.
    let head = names::in_training_tree(names::HEAD);
    if tied && !model.iter().any(|(n, _)| *n == head) {
        model.push((head, item(files, names::EMBEDDING, vocab)?));
    }
    let tensors = model.len();
    let mut left_out = Vec::new();
    if left > 0 {
        left_out.push(format!(
            "{left} frozen tensors, which the reference loads from the LM and AF-CLAP (--full takes them)"
        ));
    }
    match files.torch.as_ref().filter(|t| training::has_state(t)) {
        Some(file) => training::write(out, model, &training::read(file)?)?,
        None => {
            left_out.push("an optimizer's state: this checkpoint has none".into());
            training::write_model(out, model)?;
        }
    }
    Ok(Converted {
        tensors,
        left_out,
        ..Converted::default()
    })
}

/// A training checkpoint once more.
fn again(file: &TorchFile, out: &Path) -> Result<Converted> {
    let tensors = canonical(file.model()?, file.tensors.source())?;
    let model = checkpoint::items_of(&tensors, |n| Some(names::in_training_tree(n)));
    let count = model.len();
    if training::has_state(file) {
        training::write(out, model, &training::read(file)?)?;
    } else {
        training::write_model(out, model)?;
    }
    Ok(Converted {
        tensors: count,
        notes: tensors.notes().to_vec(),
        ..Converted::default()
    })
}

fn hf(given: &Path, files: &ReleasedFolder, tokenizer: &Tokenizer, out: &Path) -> Result<Converted> {
    let config = lm::Config::read(&files.llm)?.decoder();
    let mut left = 0;
    let mut tensors = Vec::new();
    for name in files.tensors.names() {
        let head = config.tie_word_embeddings && name == names::HEAD;
        match names::in_hugging_face(name) {
            Some(theirs) if !head => tensors.push((theirs, item(files, name, tokenizer.len() as i64)?)),
            _ => left += 1,
        }
    }
    let missing = (0..config.num_hidden_layers).find(|i| {
        let first = format!("model.layers.{i}.input_layernorm.weight");
        !tensors.iter().any(|(n, _)| *n == first)
    });
    if let Some(layer) = missing {
        return Err(
            Error::checkpoint(given, format!("model.layers.{layer}"), "the LM's tensors", "none")
                .hint("--llm DIR names the language model's folder with its weights"),
        );
    }
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    hugging_face::copy_files(&files.llm, out)?;
    hugging_face::copy_config(&files.llm, out, tokenizer.len() as i64, tokenizer.eos)?;
    let (added, end) = (tokenizer.added_tokens_decoder(), &tokenizer.end_of_text);
    hugging_face::copy_tokenizer_config(&files.llm, out, added, end)?;
    write_atomic_bytes(&out.join("tokenizer.json"), tokenizer.to_json()?.as_bytes())?;
    hugging_face::write_shards(out, &tensors, CHUNK_BYTES)?;
    Ok(Converted {
        tensors: tensors.len(),
        left_out: vec![format!(
            "{left} tensors that are not the language model's: audio encoder, audio transformer, cross-attention, a tied head"
        )],
        ..Converted::default()
    })
}
