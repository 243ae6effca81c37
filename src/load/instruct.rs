//! An instruction-tuned language model from its own folder, with the layout of its chats: who answers requests in words.

use super::identity::{cached_name, identity};
use super::language_model;
use crate::checkpoint::Archive;
use crate::cores;
use crate::error::{Error, Result};
use crate::model::lm::{Cache, Config, Decoder, DecoderConfig, Padding, Slots};
use crate::model::parts::Precision;
use crate::text::chat::Chat;
use std::io::ErrorKind;
use std::path::Path;
use tch::{no_grad, Device, Kind, Tensor};

/// So many letters of a hash tell models apart.
const SHOWN: usize = 16;
/// What the folder must be, for errors.
const EXPECTED: &str =
    "the folder of an instruction-tuned language model: config.json, tokenizer.json and weights";
const SUCH_AS: &str =
    "such as Qwen2.5-7B-Instruct or Qwen3-8B: hf download Qwen/Qwen2.5-7B-Instruct --local-dir DIR";

/// A language model that answers chats.
pub(crate) struct ChatModel {
    lm: Decoder,
    sizes: DecoderConfig,
    /// How its chats are laid out.
    pub chat: Chat,
    device: Device,
    precision: Precision,
    /// The folder's name and a hash of all that its answers come from: weights as they are held, configuration, tokenizer, layout.
    /// Another folder of the same name and contents has the same.
    pub name: String,
}

impl ChatModel {
    /// Opens a folder of any family whose chats are laid out as ChatML, to be asked in a precision.
    ///
    /// # Errors
    /// Those of [`ChatModel::look`]; weights that do not fit.
    pub(crate) fn open(folder: &Path, device: Device, precision: Precision) -> Result<Self> {
        let (config, chat) = Self::look(folder)?;
        let (_, lm, params) = language_model::held_in(folder, device, precision)?;
        cores::at_most(cores::enough_for(params.count()));
        let hash = identity(&params, &config, chat.described()?, folder)?;
        let name = called(folder)?;
        Ok(ChatModel {
            lm,
            sizes: config.decoder(),
            chat,
            device,
            precision,
            name: format!("{name}@{}", &hash.to_hex()[..SHOWN]),
        })
    }

    /// Whether a folder can be opened, but for its weights' shapes: no tensor is read.
    ///
    /// # Errors
    /// No such folder; an audio checkpoint, or another thing than a language model's folder; a family that is none of ours; another
    /// layout of chats; a tokenizer of more tokens than the model has rows.
    pub(crate) fn look(folder: &Path) -> Result<(Config, Chat)> {
        let wrong = |found: &str| Error::checkpoint(folder, "folder", EXPECTED, found).hint(SUCH_AS);
        if !folder.exists() {
            return Err(
                Error::io(folder, ErrorKind::NotFound.into()).hint(format!("expected {EXPECTED}, {SUCH_AS}"))
            );
        }
        if !folder.is_dir() {
            return Err(wrong("a file"));
        }
        if ["safe_ckpt", "clap_ckpt"]
            .iter()
            .any(|part| folder.join(part).exists())
        {
            return Err(wrong(
                "a checkpoint of Audio Flamingo 2, which hears and is not tuned to mark",
            ));
        }
        if !folder.join("config.json").is_file() {
            return Err(wrong("a folder without config.json"));
        }
        let config = Config::read(folder)?;
        let chat = Chat::open(folder, matches!(config, Config::Qwen3(_)))?;
        let rows = config.decoder().vocab_size;
        if chat.rows() > rows {
            let path = folder.join("tokenizer.json");
            let expected = format!("ids below vocab_size, {rows}");
            return Err(Error::checkpoint(
                path,
                "vocab",
                expected,
                (chat.rows() - 1).to_string(),
            ));
        }
        Archive::open(folder)?;
        Ok((config, chat))
    }

    /// Tokens that a question and its answer may have together.
    pub(crate) fn most_tokens(&self) -> usize {
        usize::try_from(self.sizes.max_position_embeddings).unwrap_or(0)
    }

    /// Without a text: room for those that are written on together.
    pub(crate) fn slots(&self) -> Slots {
        let kind = match self.precision {
            Precision::Fp32 => Kind::Float,
            Precision::AmpBf16 => Kind::BFloat16,
        };
        let (depth, heads) = (self.sizes.num_hidden_layers, self.sizes.num_key_value_heads);
        Slots::new(depth, heads, self.sizes.head_dim, kind, self.device)
    }

    /// Reads a text from its beginning.
    ///
    /// # Shapes
    /// → logits (V) float32 of what follows
    ///
    /// # Errors
    /// A device that does not compute in the precision.
    pub(crate) fn read(&self, text: &[i64]) -> Result<(Cache, Tensor)> {
        let mut cache = Cache::default();
        let ids = Tensor::from_slice(text).unsqueeze(0).to_device(self.device);
        let logits = self.precision.compute(self.device, || {
            no_grad(|| {
                let states = self
                    .lm
                    .states(&ids, Padding::Behind, Some(&mut cache), &mut |_| {});
                self.lm.logits(&states.narrow(1, text.len() as i64 - 1, 1))
            })
        })?;
        Ok((cache, logits.flatten(0, -1).to_kind(Kind::Float)))
    }

    /// One more token of each text in `slots`.
    ///
    /// # Shapes
    /// `tokens` (n) → logits (n, V) float32 of what follows
    ///
    /// # Errors
    /// As [`ChatModel::read`].
    pub(crate) fn speak(&self, tokens: &[i64], slots: &mut Slots) -> Result<Tensor> {
        self.precision
            .compute(self.device, || no_grad(|| self.lm.speak(tokens, slots)))
    }
}

/// A folder's name; of one in Hugging Face's cache the model's.
fn called(folder: &Path) -> Result<String> {
    let whole = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
    let own = || {
        whole
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    Ok(cached_name(&whole).unwrap_or_else(own))
}
