//! Checkpoints of other tools that are not read: each by its name, with the command that makes one that is.

use crate::error::Error;
use std::path::Path;

const DCP: &str = "PyTorch's distributed checkpoint (DCP): .metadata and .distcp files";

/// The error for a file in a format that is known and not read.
pub(super) fn file(path: &Path) -> Option<Error> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let shown = parent.unwrap_or(Path::new("."));
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if name == ".metadata" || extension == "distcp" {
        return Some(dcp(path, shown));
    }
    let (found, hint) = match (name, extension) {
        (_, "gguf") => (
            "a GGUF file of llama.cpp",
            "take the Hugging Face folder that it was made from",
        ),
        (_, "h5") => ("a file of TensorFlow or Keras", TRANSFORMERS),
        (_, "msgpack") => ("a file of Flax", TRANSFORMERS),
        (_, "onnx") => ("an ONNX graph", "take the weights that it was exported from"),
        (_, "npz") => (
            "arrays of numpy",
            "safetensors.numpy.save_file(dict(numpy.load(FILE)), \"weights.safetensors\") writes them as safetensors",
        ),
        _ => return None,
    };
    Some(refused(path, found).hint(hint))
}

const TRANSFORMERS: &str =
    "AutoModelForCausalLM.from_pretrained(FOLDER, from_tf=True or from_flax=True).save_pretrained(OUT) writes safetensors";

/// The error for a folder in a layout that is known and not read.
pub(super) fn folder(path: &Path) -> Option<Error> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .ok()?
        .filter_map(|f| f.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let has = |f: &dyn Fn(&str) -> bool| names.iter().find(|n| f(n));
    if has(&|n| n == ".metadata" || n.ends_with(".distcp")).is_some() {
        return Some(dcp(path, path));
    }
    if has(&|n| n == "zero_to_fp32.py" || n.starts_with("zero_pp_rank_")).is_some() {
        let out = "python zero_to_fp32.py . pytorch_model.bin";
        let hint = format!("`{out}`, run in the folder that holds zero_to_fp32.py, joins them into one file");
        return Some(refused(path, "DeepSpeed's files, a part of the state for each rank").hint(hint));
    }
    if let Some(adapter) = has(&|n| n.starts_with("adapter_model.")) {
        return Some(
            refused(
                path,
                &format!("an adapter of PEFT ({adapter}) without its base model"),
            )
            .hint("merge_and_unload() of peft joins it with its base; save_pretrained writes the whole"),
        );
    }
    let known = names.iter().find_map(|n| file(&path.join(n)))?;
    Some(known)
}

fn dcp(path: &Path, folder: &Path) -> Error {
    refused(path, DCP).hint(format!(
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch {} checkpoint.pt",
        folder.display()
    ))
}

fn refused(path: &Path, found: &str) -> Error {
    let expected = "safetensors, a file of torch.save, a Hugging Face folder or safe_ckpt/";
    Error::checkpoint(path, "format", expected, found)
}
