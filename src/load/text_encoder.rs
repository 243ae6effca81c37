//! A Hugging Face encoder of text, from a text to one vector a token: what BERTScore compares.

use super::identity::{cached_name, identity};
use crate::checkpoint::{names, Archive};
use crate::cores;
use crate::error::{nearest, Error, Result};
use crate::model::params::{Lookup, Origin, Params, Store};
use crate::model::text::bert::{BertEncoder, Config, Family};
use crate::text::prompt;
use crate::text::tower::{TowerTokenizer, FILE};
use ndarray::Array2;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use tch::{no_grad, Device, Kind, Tensor};

/// Texts that are read at once.
const AT_ONCE: usize = 64;

/// The layer whose states agree best with people's marks, by the model's name: `model2layers` of `bert_score` 0.3.13, of the
/// architectures that are read here.
const LAYERS: [(&str, usize); 51] = [
    ("bert-base-uncased", 9),
    ("bert-large-uncased", 18),
    ("bert-base-cased-finetuned-mrpc", 9),
    ("bert-base-multilingual-cased", 9),
    ("bert-base-chinese", 8),
    ("roberta-base", 10),
    ("roberta-large", 17),
    ("roberta-large-mnli", 19),
    ("roberta-base-openai-detector", 7),
    ("roberta-large-openai-detector", 15),
    ("scibert_scivocab_uncased", 8),
    ("scibert_scivocab_cased", 9),
    ("scibert_basevocab_uncased", 9),
    ("distilroberta-base", 5),
    ("xlm-roberta-base", 9),
    ("xlm-roberta-large", 17),
    ("bert_uncased_L-2_H-128_A-2", 1),
    ("bert_uncased_L-2_H-256_A-4", 1),
    ("bert_uncased_L-2_H-512_A-8", 1),
    ("bert_uncased_L-2_H-768_A-12", 2),
    ("bert_uncased_L-4_H-128_A-2", 3),
    ("bert_uncased_L-4_H-256_A-4", 3),
    ("bert_uncased_L-4_H-512_A-8", 3),
    ("bert_uncased_L-4_H-768_A-12", 3),
    ("bert_uncased_L-6_H-128_A-2", 5),
    ("bert_uncased_L-6_H-256_A-4", 5),
    ("bert_uncased_L-6_H-512_A-8", 5),
    ("bert_uncased_L-6_H-768_A-12", 5),
    ("bert_uncased_L-8_H-128_A-2", 7),
    ("bert_uncased_L-8_H-256_A-4", 7),
    ("bert_uncased_L-8_H-512_A-8", 6),
    ("bert_uncased_L-8_H-768_A-12", 7),
    ("bert_uncased_L-10_H-128_A-2", 8),
    ("bert_uncased_L-10_H-256_A-4", 8),
    ("bert_uncased_L-10_H-512_A-8", 9),
    ("bert_uncased_L-10_H-768_A-12", 8),
    ("bert_uncased_L-12_H-128_A-2", 10),
    ("bert_uncased_L-12_H-256_A-4", 11),
    ("bert_uncased_L-12_H-512_A-8", 10),
    ("bert_uncased_L-12_H-768_A-12", 9),
    ("spanbert-base-cased", 8),
    ("spanbert-large-cased", 17),
    ("finbert", 10),
    ("unsup-simcse-bert-base-uncased", 10),
    ("unsup-simcse-bert-large-uncased", 18),
    ("unsup-simcse-roberta-base", 8),
    ("unsup-simcse-roberta-large", 13),
    ("sup-simcse-bert-base-uncased", 10),
    ("sup-simcse-bert-large-uncased", 18),
    ("sup-simcse-roberta-base", 10),
    ("sup-simcse-roberta-large", 16),
];

/// The first layers of a BERT or a RoBERTa with its tokenizer.
pub struct TextEncoder {
    model: BertEncoder,
    params: Params,
    tokenizer: TowerTokenizer,
    config: Config,
    device: Device,
    /// Whether a blank is put before each text.
    spaced: bool,
    /// What stands around every text: a token before it and one behind it.
    pub special: [i64; 2],
    /// Its folder.
    pub folder: PathBuf,
    /// Whose states are the tokens' vectors; 0 is what the first layer is given.
    pub layer: usize,
}

impl TextEncoder {
    /// Opens a folder with `config.json`, `tokenizer.json` and weights (safetensors or `pytorch_model.bin`), up to a layer: the one
    /// that is told, or `bert_score`'s for a model of this name.
    ///
    /// # Errors
    /// Another architecture; files that are missing or do not fit each other; a layer that it has not, or none where the name is
    /// not known.
    pub fn open(folder: &Path, layer: Option<usize>, device: Device) -> Result<Self> {
        let (config, name) = Config::read(folder)?;
        let most = config.num_hidden_layers;
        let layer = match layer {
            Some(layer) if layer > most => {
                return Err(Error::usage(format!(
                    "--bertscore-layer {layer}: expected 0 to {most}, the layers of {}",
                    folder.display()
                )));
            }
            Some(layer) => layer,
            None => known_layer(folder, name.as_deref(), most)?,
        };
        let tokenizer = tokenizer(folder, &config)?;
        let special = match tokenizer.ids("")?.as_slice() {
            [before, behind] => [*before, *behind],
            other => {
                let expected = "one token before each text and one behind it";
                let found = format!("{} around an empty text", other.len());
                return Err(Error::checkpoint(
                    folder.join(FILE),
                    "post_processor",
                    expected,
                    found,
                ));
            }
        };
        let prefix = match config.family {
            Family::Bert => "bert.",
            Family::Roberta => "roberta.",
        };
        let archive = Archive::open(folder)?.rename(|n| Some(own_name(&names::unwrapped(n), prefix)));
        let lookup: Lookup = Box::new(|name, kind, device| match archive.info(name) {
            Some(_) => archive.get_as(name, kind, device).map(Some),
            None => Ok(None),
        });
        let origin = Origin::File {
            path: folder.to_owned(),
            lookup,
            fresh: Box::new(|_| false),
        };
        let store = Store::new(origin, device);
        let model = BertEncoder::new(&store.root(), &config, layer);
        let params = store.finish()?;
        params.train_only(|_| false);
        cores::at_most(cores::enough_for(params.count()));
        // As the package: with the slow tokenizer of RoBERTa it asks for one, with no other.
        let spaced = config.model_type == "roberta" && !tokenizer.is_unigram();
        Ok(TextEncoder {
            model,
            params,
            tokenizer,
            config,
            device,
            spaced,
            special,
            folder: folder.to_owned(),
            layer,
        })
    }

    /// A text's ids with the special tokens around them; white space around the text does not count.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>> {
        match prompt::strip(text) {
            "" => Ok(self.special.to_vec()),
            text if self.spaced => self.tokenizer.ids(&format!(" {text}")),
            text => self.tokenizer.ids(text),
        }
    }

    /// The tokens' vectors of each text, (its tokens, D). `done` is told how many more texts there are, time and again.
    ///
    /// # Errors
    /// Ids that are none of [`TextEncoder::ids`]; a device that does not do its part.
    pub fn embed(&self, texts: &[Vec<i64>], done: &dyn Fn(usize)) -> Result<Vec<Array2<f32>>> {
        // Texts of like lengths go together.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(texts[*i].len()));
        let mut all: Vec<Array2<f32>> = vec![Array2::zeros((0, 0)); texts.len()];
        let d = self.config.hidden_size.unsigned_abs() as usize;
        for some in order.chunks(AT_ONCE) {
            let t = some.iter().map(|i| texts[*i].len()).max().unwrap_or(0);
            let (mut ids, mut real) = (
                vec![self.config.pad_token_id; some.len() * t],
                vec![0i64; some.len() * t],
            );
            for (row, i) in some.iter().enumerate() {
                let own = &texts[*i];
                let there = |id: &i64| (0..self.config.vocab_size).contains(id);
                if !own.iter().all(there) || own.len() as i64 > self.config.max_tokens() {
                    let expected = "the ids of a text";
                    return Err(Error::checkpoint(&self.folder, "ids", expected, "others"));
                }
                ids[row * t..row * t + own.len()].copy_from_slice(own);
                real[row * t..row * t + own.len()].fill(1);
            }
            let tensor = |v: &[i64]| {
                Tensor::from_slice(v)
                    .reshape([some.len() as i64, t as i64])
                    .to_device(self.device)
            };
            let (ids, real) = (tensor(&ids), tensor(&real));
            let states = no_grad(|| self.model.forward(&ids, &real));
            let states = states.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?;
            let flat = Vec::<f32>::try_from(states.f_reshape([-1])?)?;
            for (row, i) in some.iter().enumerate() {
                let n = texts[*i].len();
                let own = flat[row * t * d..(row * t + n) * d].to_vec();
                all[*i] = Array2::from_shape_vec((n, d), own)
                    .map_err(|e| Error::checkpoint(&self.folder, "states", "a row a token", e.to_string()))?;
            }
            done(some.len());
        }
        Ok(all)
    }

    /// Of all that a vector comes from: names, dtypes, sizes and values of the tensors up to the layer, the configuration, the
    /// tokenizer. Another folder with the same contents has the same.
    ///
    /// # Errors
    /// A device that does not give a tensor back.
    pub fn identity(&self) -> Result<String> {
        let tokenizer = self.tokenizer.to_json()?;
        let hash = identity(&self.params, &self.config, tokenizer, &self.folder)?;
        Ok(hash.to_hex().to_string())
    }
}

/// A file's name for a tensor as `BertModel` and `RobertaModel` have it: models with a head put theirs before it, and TensorFlow's
/// call the weights of a norm otherwise.
fn own_name(name: &str, prefix: &str) -> String {
    let own = name.strip_prefix(prefix).unwrap_or(name);
    for (theirs, ours) in [
        ("LayerNorm.gamma", "LayerNorm.weight"),
        ("LayerNorm.beta", "LayerNorm.bias"),
    ] {
        if let Some(stem) = own.strip_suffix(theirs) {
            return format!("{stem}{ours}");
        }
    }
    own.to_owned()
}

/// The part of `tokenizer_config.json` that says where texts are cut.
#[derive(Deserialize)]
struct Cut {
    model_max_length: Option<f64>,
}

fn tokenizer(folder: &Path, config: &Config) -> Result<TowerTokenizer> {
    let file = folder.join(FILE);
    if folder.is_dir() && !file.exists() {
        let e = Error::checkpoint(folder, FILE, "the tokenizer in one file", "none");
        return Err(e.hint(
            "python -c 'from transformers import AutoTokenizer as T; T.from_pretrained(\"DIR\").save_pretrained(\"DIR\")' writes it",
        ));
    }
    let beside = folder.join("tokenizer_config.json");
    let said = match beside.exists() {
        true => {
            let text = crate::fsutil::read_text(&beside)?;
            let cut: Cut = serde_json::from_str(&text).map_err(|e| {
                let found = crate::error::short(&e);
                Error::checkpoint(&beside, "model_max_length", "a number", found)
            })?;
            // "No bound" is written as 1e30.
            cut.model_max_length.filter(|n| *n >= 2.0 && *n < 1e9)
        }
        false => None,
    };
    let most = config.max_tokens();
    let most = said.map_or(most, |n| most.min(n as i64));
    let tokenizer = TowerTokenizer::open(&file, most.unsigned_abs() as usize)?;
    match tokenizer.rows() {
        n if n > config.vocab_size => {
            let expected = format!("ids below vocab_size, {}", config.vocab_size);
            Err(Error::checkpoint(&file, "vocab", expected, (n - 1).to_string()))
        }
        _ => Ok(tokenizer),
    }
}

/// By the names that a folder may have: its own, the one in its configuration, the one in Hugging Face's cache.
fn known_layer(folder: &Path, said: Option<&str>, most: usize) -> Result<usize> {
    let last = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let whole = std::path::absolute(folder).map_err(|e| Error::io(folder, e))?;
    let cached = cached_name(&whole);
    let said = said.and_then(|name| last(Path::new(name)));
    let names: Vec<String> = [last(&whole), said, cached].into_iter().flatten().collect();
    let known = names.iter().find_map(|name| {
        let own = LAYERS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        own.map(|(_, layer)| *layer).filter(|layer| *layer <= most)
    });
    known.ok_or_else(|| {
        let names = names.join(", ");
        let e = Error::usage(format!(
            "--bertscore {}: no layer is known for a model of this name ({names}), and it has {most}",
            folder.display()
        ));
        let near = names
            .split(", ")
            .find_map(|n| nearest(n, LAYERS.iter().map(|(known, _)| *known)));
        let near = near.map_or(String::new(), |near| format!("; is it {near}?"));
        e.hint(format!(
            "--bertscore-layer N says it: bert_score takes 17 of roberta-large, 9 of bert-base-uncased{near}"
        ))
    })
}
