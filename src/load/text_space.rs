//! AF-CLAP's space of texts: the text side of a checkpoint with its tokenizer, from a text to plain numbers.

use super::identity::identity;
use crate::checkpoint::{clap_file, names, Archive};
use crate::cores;
use crate::error::{Error, Result};
use crate::model::clap::{TextConfig, TextSide, TEXT_BRANCH, TEXT_TOKENS};
use crate::model::mode::Mode;
use crate::model::params::{Lookup, Origin, Params, Store};
use crate::text::tokenizer::Tokenizer;
use crate::text::tower::{TowerTokenizer, FILE};
use std::path::{Path, PathBuf};
use tch::{no_grad, Device, Kind, Tensor};

/// Texts that are embedded at once. Always as many: how many go together can change the last bit of each.
const AT_ONCE: usize = 32;
/// Flan-T5's padding.
const PAD: &str = "<pad>";
/// Folders beside the checkpoint in which its tokenizer is looked for.
const BESIDE: [&str; 4] = ["tokenizer", "flan-t5-large", "google/flan-t5-large", "t5"];

/// How a text becomes ids.
enum Words {
    /// As the published AF-CLAP: Flan-T5's tokenizer, the text as it is.
    T5(Box<TowerTokenizer>),
    /// As `af2 clap` trains: the language model's tokenizer, the text cleaned.
    Lm(Box<Tokenizer>),
}

/// The text side of an AF-CLAP checkpoint.
pub struct TextSpace {
    model: TextSide,
    params: Params,
    words: Words,
    config: TextConfig,
    device: Device,
    /// The file of the weights.
    pub checkpoint: PathBuf,
    /// The tokenizer's file, or the folder of a language model's.
    pub tokenizer: PathBuf,
}

impl TextSpace {
    /// Opens the text side of an AF-CLAP: a file (`.pt` as released, `.safetensors` as `af2 clap` writes it), or a folder that holds
    /// one: `clap_ckpt/` or what it lies in, or a run's folder. The tokenizer is a `tokenizer.json` or a folder with one; where none
    /// is named it is looked for beside the file, for a run's `clap/` in its `llm/`.
    ///
    /// # Errors
    /// No such file or tokenizer; no text side in it; another text tower than T5; a tokenizer that is not the tower's.
    pub fn open(given: &Path, tokenizer: Option<&Path>, device: Device) -> Result<Self> {
        let checkpoint = file(given)?;
        let archive = Archive::open(&checkpoint)?.rename(|n| Some(names::unwrapped(n)));
        if !archive.names().any(|n| n.starts_with(TEXT_BRANCH)) {
            let expected = format!("AF-CLAP's text side, {TEXT_BRANCH}.…");
            let names: Vec<&str> = archive.names().take(3).collect();
            let found = format!("none among names like {names:?}");
            return Err(Error::checkpoint(&checkpoint, "names", expected, found));
        }
        let shapes = |n: &str| archive.info(n).map(|i| i.shape.clone());
        let config = TextConfig::read(&shapes, &checkpoint)?;
        let tokenizer = match tokenizer {
            Some(path) if path.is_dir() => path.join(FILE),
            Some(path) => path.to_owned(),
            None => beside(&checkpoint)?,
        };
        let (words, tokenizer) = words(&tokenizer, &config)?;
        let lookup: Lookup = Box::new(|name, kind, device| match archive.info(name) {
            Some(_) => archive.get_as(name, kind, device).map(Some),
            None => Ok(None),
        });
        let origin = Origin::File {
            path: checkpoint.clone(),
            lookup,
            fresh: Box::new(|_| false),
        };
        let store = Store::new(origin, device);
        let model = TextSide::new(&store.root(), &config);
        let params = store.finish()?;
        params.train_only(|_| false);
        cores::at_most(cores::enough_for(params.count()));
        Ok(TextSpace {
            model,
            params,
            words,
            config,
            device,
            checkpoint,
            tokenizer,
        })
    }

    /// Embeddings of texts, of length 1 and as wide as the joint space. `done` is told how many more there are, time and again.
    ///
    /// # Errors
    /// The tokenizer's; a device that does not do its part.
    pub fn embed(&self, texts: &[&str], done: &dyn Fn(usize)) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::with_capacity(texts.len());
        for some in texts.chunks(AT_ONCE) {
            let (ids, real) = self.ids(some)?;
            let embedded = no_grad(|| self.model.embed(&ids, &real, Mode::EVAL));
            let flat = embedded.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?;
            let flat = Vec::<f32>::try_from(flat.f_reshape([-1])?)?;
            let width = self.config.joint_dim.unsigned_abs() as usize;
            all.extend(flat.chunks(width).take(some.len()).map(<[f32]>::to_vec));
            done(some.len());
        }
        Ok(all)
    }

    /// (B, 77) ids and what of them is text; B is always the same, filled up with empty texts.
    fn ids(&self, texts: &[&str]) -> Result<(Tensor, Tensor)> {
        let pad = match &self.words {
            Words::T5(t5) => t5.id(PAD)?,
            Words::Lm(lm) => lm.pad,
        };
        let mut ids = vec![pad; AT_ONCE * TEXT_TOKENS];
        let mut real = vec![0i64; ids.len()];
        for (row, text) in texts.iter().enumerate() {
            let own = match &self.words {
                Words::T5(t5) => t5.ids(text)?,
                Words::Lm(lm) => lm.caption(text, TEXT_TOKENS)?,
            };
            for (at, id) in own.into_iter().enumerate() {
                ids[row * TEXT_TOKENS + at] = id;
                real[row * TEXT_TOKENS + at] = 1;
            }
        }
        for row in texts.len()..AT_ONCE {
            real[row * TEXT_TOKENS] = 1;
        }
        let shape = [AT_ONCE as i64, TEXT_TOKENS as i64];
        let tensor = |v: &[i64]| Tensor::from_slice(v).reshape(shape).to_device(self.device);
        Ok((tensor(&ids), tensor(&real)))
    }

    /// Of all that an embedding comes from: names, dtypes, sizes and values of the text side's tensors, its configuration, its
    /// tokenizer. Another file with the same contents has the same.
    ///
    /// # Errors
    /// A device that does not give a tensor back.
    pub fn identity(&self) -> Result<String> {
        let tokenizer = match &self.words {
            Words::T5(t5) => t5.to_json()?,
            Words::Lm(lm) => lm.to_json()?,
        };
        let hash = identity(&self.params, &self.config, tokenizer, &self.checkpoint)?;
        Ok(hash.to_hex().to_string())
    }
}

/// The one AF-CLAP file that is meant.
pub(super) fn file(given: &Path) -> Result<PathBuf> {
    if !given.is_dir() {
        return Ok(given.to_owned());
    }
    let own = given.join("clap").join("clap.safetensors");
    if own.is_file() {
        return Ok(own);
    }
    for folder in [given.join("clap_ckpt"), given.to_owned()] {
        if let Some(file) = clap_file(&folder)? {
            return Ok(file);
        }
    }
    let e = Error::checkpoint(
        given,
        "files",
        "an AF-CLAP checkpoint (.pt, .pth, .safetensors)",
        "none",
    );
    Err(e.hint("a released folder holds it in clap_ckpt/, a run of `af2 clap` in clap/clap.safetensors"))
}

/// Where a checkpoint's tokenizer lies, when nobody says.
fn beside(checkpoint: &Path) -> Result<PathBuf> {
    let folder = match checkpoint.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let own = folder.join(FILE);
    let named = BESIDE.iter().map(|name| folder.join(name).join(FILE));
    let candidates = std::iter::once(own).chain(named);
    if let Some(found) = candidates.into_iter().find(|path| path.is_file()) {
        return Ok(found);
    }
    let llm = folder.join("..").join("llm");
    if folder.file_name().is_some_and(|name| name == "clap") && llm.is_dir() {
        return Ok(llm);
    }
    let expected = format!("{FILE} beside it, or in {} there", BESIDE.join(", "));
    Err(Error::checkpoint(checkpoint, "tokenizer", expected, "none").hint(
        "--clap-tokenizer FILE names it: for the released AF-CLAP tokenizer.json of google/flan-t5-large, for one of `af2 clap` \
         the run's llm folder",
    ))
}

/// The tokenizer, whichever of the two it is, and what it was opened from.
fn words(path: &Path, config: &TextConfig) -> Result<(Words, PathBuf)> {
    let rows = config.text.vocab_size;
    let other = |path: &Path, found: i64| {
        let expected = format!("tokens of a text tower with {rows} embeddings");
        Err(Error::checkpoint(path, "vocab", expected, found.to_string())
            .hint("--clap-tokenizer FILE names another tokenizer"))
    };
    let file = match path.is_dir() {
        true => path.join(FILE),
        false => path.to_owned(),
    };
    // A language model's folder may have no tokenizer.json.
    if file.is_file() || !path.is_dir() {
        let t5 = TowerTokenizer::open(&file, TEXT_TOKENS)?;
        if t5.is_unigram() {
            t5.id(PAD)?;
            return match t5.rows() {
                n if n > rows => other(&file, n),
                _ => Ok((Words::T5(Box::new(t5)), file)),
            };
        }
    }
    let folder = match path.is_dir() {
        true => path.to_owned(),
        false => path.parent().unwrap_or(Path::new("")).to_owned(),
    };
    let lm = Tokenizer::open(&folder)?;
    match lm.len() as i64 {
        // Its embedding was made for exactly these.
        n if n != rows => other(&folder, n),
        _ => Ok((Words::Lm(Box::new(lm)), folder)),
    }
}
