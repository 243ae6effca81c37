//! libtorch's refusals inside a step as errors: tch's plain operations panic with them.

use crate::error::{Error, Result};
use crate::panics::caught;
use crate::recipe::{Held, Precision, TrainRecipe};
use tch::TchError;

/// Runs a part of training; a panic of libtorch's becomes its error, and where memory ran out the recipe's keys that help are
/// named. `section`: where the job's own stand.
pub(crate) fn catch<T>(t: &TrainRecipe, section: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = caught(f).unwrap_or_else(|words| Err(Error::Torch(TchError::Torch(words))));
    result.map_err(|e| explain(e, t, section))
}

fn explain(error: Error, t: &TrainRecipe, section: &str) -> Error {
    let text = match &error {
        Error::Torch(e) => e.to_string(),
        _ => return error,
    };
    let signs = ["out of memory", "can't allocate memory", "not enough memory"];
    if !signs.iter().any(|s| text.contains(s)) {
        return error;
    }
    let mut keys = vec![format!(
        "lower {section}.optim.batch_size (and raise accumulate, or give global_batch)"
    )];
    if section.starts_with("stages.") {
        keys.push(format!("lower {section}.windows or data.max_tokens"));
    }
    let switches = [
        (
            !t.activation_checkpointing,
            "train.activation_checkpointing: true",
        ),
        (t.loss_chunk == 0 || t.loss_chunk > 256, "train.loss_chunk: 256"),
        (t.precision == Precision::Fp32, "train.precision: amp_bf16"),
        (t.frozen == Held::Fp32, "train.frozen: bf16"),
        (!t.zero, "train.zero: true, with several ranks"),
    ];
    keys.extend(
        switches
            .into_iter()
            .filter(|(helps, _)| *helps)
            .map(|(_, key)| key.to_owned()),
    );
    Error::Training {
        message: format!(
            "{section}: memory ran out: {}",
            text.lines().next().unwrap_or_default()
        ),
        hint: Some(format!("{}; `af2 plan` says what a stage needs", keys.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe_file;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn memory_that_runs_out_names_the_keys_that_help() {
        let recipe = recipe_file::demo(&[]).unwrap();
        let e = catch(&recipe.train, "stages.stage1", || {
            let _ = Tensor::zeros([1i64 << 45], (Kind::Float, Device::Cpu));
            Ok(())
        })
        .unwrap_err();
        let text = e.to_string();
        for piece in [
            "stages.stage1: memory ran out",
            "stages.stage1.optim.batch_size",
            "train.activation_checkpointing",
        ] {
            assert!(text.contains(piece), "{text}");
        }
        assert_eq!(e.exit_code(), 8);
    }

    #[test]
    fn another_refusal_keeps_its_words() {
        let recipe = recipe_file::demo(&[]).unwrap();
        let e = catch(&recipe.train, "stages.stage1", || {
            let a = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
            let _ = a.matmul(&a);
            Ok(())
        });
        assert!(e.unwrap_err().to_string().contains("cannot be multiplied"));
    }
}
