//! The sizes of a recipe's model, from the best source that is at hand.

use crate::checkpoint::{canonical, names, Archive, Parts};
use crate::error::{Error, Result};
use crate::load;
use crate::model::flamingo::Config;
use crate::model::parts::PerPart;
use crate::model::presets::{preset, NAMES, QWEN25_AUDIO_TOKEN, QWEN25_VOCAB};
use crate::model::{audio, lm};
use crate::recipe::{Recipe, StageRecipe};
use crate::text::tokenizer::Tokenizer;
use tch::Device;

/// The configuration, and in words where it is from. No tensor is read.
pub fn config(recipe: &Recipe) -> Result<(Config, String)> {
    if let Some(checkpoint) = recipe.model.checkpoint.as_ref().filter(|p| p.exists()) {
        let parts = Parts {
            checkpoint: checkpoint.clone(),
            llm: recipe.model.lm.clone(),
            clap: recipe.model.clap.clone(),
            base: recipe.model.base.clone(),
        };
        let plan = load::plan(&parts, &load::Options::new(Device::Cpu))?;
        return Ok((plan.config, format!("read off {}", checkpoint.display())));
    }
    let (lm, vocab, audio_token, lm_from) = language(recipe)?;
    let (encoder, clap_from) = encoder(recipe)?;
    let config = Config {
        encoder,
        audio_transformer: recipe.model.audio_transformer(),
        cross_attention: recipe.model.cross_attention(),
        lm,
        vocab,
        audio_token,
    };
    Ok((config, format!("LM: {lm_from}; audio encoder: {clap_from}")))
}

fn language(recipe: &Recipe) -> Result<(lm::Config, i64, i64, String)> {
    let folder = recipe.lm_folder();
    let shown = folder.display().to_string();
    if folder.join("config.json").is_file() {
        let lm = lm::Config::read(&folder)?;
        let (vocab, audio) = match Tokenizer::open(&folder) {
            Ok(t) => (t.len() as i64, t.audio),
            Err(_) => without_tokenizer(&lm),
        };
        return Ok((lm, vocab, audio, shown));
    }
    if let Some(lm) = &recipe.lm {
        // Three special tokens of its own and the four that AF2 adds, at most.
        let vocab = lm.vocab_size as i64 + 7;
        let config = lm.config(vocab);
        return Ok((
            lm::Config::Qwen2(config),
            vocab,
            vocab - 4,
            "the recipe's section lm".into(),
        ));
    }
    let name = shown.to_ascii_lowercase();
    for known in NAMES {
        let size = known.trim_start_matches("af2-");
        if name.contains(&format!("qwen2.5-{size}")) {
            let from = format!(
                "built-in sizes of Qwen2.5-{} ({shown} is not here)",
                size.to_uppercase()
            );
            return Ok((preset(known)?.lm, QWEN25_VOCAB, QWEN25_AUDIO_TOKEN, from));
        }
    }
    let e = format!("model.lm: {shown} has no config.json, and its name tells no size");
    Err(Error::recipe(&recipe.name, e).hint("a path that ends in Qwen2.5-0.5B, -1.5B, -3B or -7B is known"))
}

/// Rows of the embedding and a place for `<audio>`, where no tokenizer tells.
fn without_tokenizer(lm: &lm::Config) -> (i64, i64) {
    let rows = lm.decoder().vocab_size;
    (rows, QWEN25_AUDIO_TOKEN.min(rows - 1))
}

fn encoder(recipe: &Recipe) -> Result<(audio::Config, String)> {
    let file = recipe.clap_file();
    if file.exists() {
        let tensors = canonical(Archive::open(&file)?, &file)?;
        let shapes = |n: &str| tensors.info(n).map(|i| i.shape.clone());
        return Ok((
            audio::Config::read(&shapes, names::CLAP, &file)?,
            file.display().to_string(),
        ));
    }
    Ok(match &recipe.clap {
        Some(clap) => (clap.audio.clone(), "the recipe's section clap".into()),
        None => (
            audio::Config::published(),
            format!("built-in sizes of AF-CLAP's ({} is not here)", file.display()),
        ),
    })
}

/// The parts of a stage as the cost functions take them.
pub fn trains(stage: &StageRecipe) -> PerPart<bool> {
    PerPart::of(|part| stage.train.contains(&part))
}
