//! Where weights are published, and the commands that put them where a recipe looks for them.

use std::path::Path;

/// The released AF2; the other sizes have theirs behind it. AF-CLAP lies in its `clap_ckpt/`.
const RELEASED: &str = "nvidia/audio-flamingo-2";
/// Sizes that are released, and how the repository's name ends.
const SIZES: [(&str, &str); 3] = [("0.5b", "-0.5B"), ("1.5b", "-1.5B"), ("3b", "")];

/// The LM's folder.
pub(crate) fn lm(folder: &Path) -> Vec<String> {
    let Some(repository) = qwen(folder) else {
        return vec![format!(
            "from Hugging Face: hf download ORGANISATION/MODEL --local-dir {}",
            quoted(folder)
        )];
    };
    vec![format!("hf download {repository} --local-dir {}", quoted(folder))]
}

/// AF-CLAP's file.
pub(crate) fn clap(file: &Path) -> Vec<String> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let download = |to: &Path| {
        let to = if to.as_os_str().is_empty() {
            Path::new(".")
        } else {
            to
        };
        let to = quoted(to);
        format!("hf download {RELEASED} --include \"clap_ckpt/*\" --local-dir {to}")
    };
    let known = file.extension().and_then(|e| e.to_str());
    if !matches!(known, Some("pt" | "pth" | "safetensors" | "bin" | "ckpt")) {
        // A place to be filled in, as in the reference's file.
        let to = Path::new("checkpoints/audio-flamingo-2");
        return vec![
            download(to),
            format!("and model.clap={}/clap_ckpt/epoch_16.pt", to.display()),
        ];
    }
    if folder.file_name().is_some_and(|name| name == "clap_ckpt") {
        return vec![download(folder.parent().unwrap_or(Path::new("")))];
    }
    let from = folder.join("clap_ckpt");
    vec![
        download(folder),
        format!("mv {}/*.pt {}", quoted(&from), quoted(file)),
    ]
}

/// A whole model: the released weights, and its LM beside them.
pub(crate) fn checkpoint(folder: &Path, lm_folder: Option<&Path>) -> Vec<String> {
    if folder
        .extension()
        .is_some_and(|e| e == "pt" || e == "safetensors")
    {
        return Vec::new();
    }
    let text = |path: &Path| path.to_string_lossy().to_ascii_lowercase();
    let names = [Some(folder), lm_folder];
    let names: Vec<String> = names.into_iter().flatten().map(text).collect();
    let named = |size: &str| names.iter().any(|name| name.contains(size));
    let (size, ending) = SIZES
        .into_iter()
        .find(|(size, _)| named(size))
        .unwrap_or(SIZES[2]);
    let mut commands = vec![format!(
        "the released AF2: hf download {RELEASED}{ending} --local-dir {}",
        quoted(folder)
    )];
    if lm_folder.is_none() {
        commands.push(format!(
            "and its LM: hf download Qwen/Qwen2.5-{} --local-dir {}",
            size.to_ascii_uppercase(),
            quoted(&folder.join("llm"))
        ));
    }
    commands
}

/// `Qwen/Qwen2.5-3B` for a folder that is named after it.
fn qwen(folder: &Path) -> Option<String> {
    let name = folder.file_name()?.to_str()?;
    let lower = name.to_ascii_lowercase();
    let at = lower.find("qwen2.5-")? + "qwen2.5-".len();
    let (size, rest) = lower[at..].split_once('b')?;
    let known = ["0.5", "1.5", "3", "7", "14", "32", "72"].contains(&size);
    let tuned = if rest.contains("instruct") {
        "-Instruct"
    } else {
        ""
    };
    known.then(|| format!("Qwen/Qwen2.5-{size}B{tuned}"))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_put_where_the_recipe_looks() {
        let lm = |path: &str| lm(Path::new(path)).join("; ");
        assert_eq!(
            lm("checkpoints/Qwen2.5-3B"),
            "hf download Qwen/Qwen2.5-3B --local-dir checkpoints/Qwen2.5-3B"
        );
        assert_eq!(
            lm("Qwen/Qwen2.5-0.5B"),
            "hf download Qwen/Qwen2.5-0.5B --local-dir Qwen/Qwen2.5-0.5B"
        );
        assert!(lm("/a b/qwen2.5-7b-instruct")
            .ends_with("Qwen/Qwen2.5-7B-Instruct --local-dir '/a b/qwen2.5-7b-instruct'"));
        assert!(lm("models/mine").contains("ORGANISATION/MODEL --local-dir models/mine"));
        let clap = |path: &str| clap(Path::new(path));
        let released = "hf download nvidia/audio-flamingo-2 --include \"clap_ckpt/*\" --local-dir";
        assert_eq!(
            clap("checkpoints/afclap/epoch_16.pt"),
            [
                format!("{released} checkpoints/afclap"),
                "mv checkpoints/afclap/clap_ckpt/*.pt checkpoints/afclap/epoch_16.pt".into()
            ]
        );
        assert_eq!(clap("af2/clap_ckpt/epoch_16.pt"), [format!("{released} af2")]);
        assert_eq!(clap("clap_ckpt/epoch_16.pt"), [format!("{released} .")]);
        assert_eq!(
            clap("PATH_TO_AFCLAP_CHECKPOINT")[1],
            "and model.clap=checkpoints/audio-flamingo-2/clap_ckpt/epoch_16.pt"
        );
        let whole = |path: &str, lm: Option<&str>| checkpoint(Path::new(path), lm.map(Path::new)).join("; ");
        assert_eq!(
            whole("af2-0.5b", None),
            "the released AF2: hf download nvidia/audio-flamingo-2-0.5B --local-dir af2-0.5b; \
             and its LM: hf download Qwen/Qwen2.5-0.5B --local-dir af2-0.5b/llm"
        );
        assert_eq!(
            whole("released", Some("Qwen2.5-1.5B")),
            "the released AF2: hf download nvidia/audio-flamingo-2-1.5B --local-dir released"
        );
        assert_eq!(whole("run/checkpoint_3.pt", None), "");
    }
}
