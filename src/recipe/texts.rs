//! What the names and paths of a recipe may be.

use super::Recipe;
use std::path::Path;

/// A name stands in tables, file names and on screens.
const LONGEST_NAME: usize = 128;
/// What a file system takes.
const LONGEST_PATH: usize = 4096;

/// What to do about a [`variable`].
pub(crate) const WRITE_OUT: &str =
    "paths are taken as they are written, nothing in them is replaced: write it out, or give it on the command line, \
     where the shell replaces it: output=$HOME/run";

/// What a shell would replace at the beginning of or within a path, in words; none where a path is what it says.
pub(crate) fn variable(path: &str) -> Option<String> {
    let first = path.split('/').next().unwrap_or_default();
    if first.starts_with('~') {
        return Some(format!("`{first}` is not replaced by a home folder"));
    }
    let name = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = &text[..end.unwrap_or(text.len())];
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        good.then(|| name.to_owned())
    };
    path.match_indices('$').find_map(|(at, _)| {
        let rest = &path[at + 1..];
        let shown = match rest.strip_prefix('{') {
            // `${A%b}` is only replaced by some: that is no more than a word of warning worth.
            Some(inner) => name(inner)
                .filter(|n| inner[n.len()..].starts_with('}'))
                .map(|n| format!("${{{n}}}"))?,
            None => format!("${}", name(rest)?),
        };
        Some(format!("`{shown}` is not replaced by a variable's value"))
    })
}

fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What is wrong with a name, in words.
pub(super) fn odd_name(name: &str) -> Option<String> {
    if let Some(c) = name.chars().find(|c| steers(*c)) {
        return Some(format!("the character {} stands in no name", c.escape_unicode()));
    }
    if name.trim().is_empty() {
        return Some("an empty name".into());
    }
    let n = name.chars().count();
    (n > LONGEST_NAME).then(|| format!("a name of {n} characters: {LONGEST_NAME} are the most"))
}

/// What is wrong with a path, in words, and what to do about it.
fn odd_path(path: &str) -> Option<(String, Option<&'static str>)> {
    if let Some(c) = path.chars().find(|c| steers(*c) && !matches!(c, '\t' | '\n')) {
        return Some((
            format!("the character {} stands in no path", c.escape_unicode()),
            None,
        ));
    }
    if path.len() > LONGEST_PATH {
        return Some((
            format!("a path of {} bytes: {LONGEST_PATH} are the most", path.len()),
            None,
        ));
    }
    variable(path).map(|v| (format!("`{path}`: {v}"), Some(WRITE_OUT)))
}

/// The recipe's paths by their keys.
fn paths(recipe: &Recipe) -> Vec<(String, String)> {
    let text = |p: &Path| p.to_string_lossy().into_owned();
    let mut all = vec![("output".to_owned(), text(&recipe.output))];
    let model = &recipe.model;
    for (key, path) in [
        ("model.checkpoint", &model.checkpoint),
        ("model.lm", &model.lm),
        ("model.clap", &model.clap),
        ("model.base", &model.base),
        ("data.root", &recipe.data.root),
    ] {
        all.extend(path.iter().map(|p| (key.to_owned(), text(p))));
    }
    let sets = recipe.data.sets.iter();
    all.extend(sets.map(|(set, path)| (format!("data.sets.{set}"), text(path))));
    for stage in &recipe.stages {
        let from = stage.from.iter();
        all.extend(from.map(|from| (format!("stages.{}.from", stage.name), from.clone())));
    }
    all
}

/// What is wrong with names and paths: message, which begins with the key, and hint.
pub(super) fn wrong(recipe: &Recipe) -> Vec<(String, Option<String>)> {
    let mut all = Vec::new();
    if let Some(odd) = odd_name(&recipe.name) {
        all.push((format!("name: {odd}"), None));
    }
    for set in recipe.data.sets.keys() {
        if let Some(odd) = odd_name(set) {
            all.push((format!("data.sets.{set}: {odd}"), None));
        }
    }
    for (key, path) in paths(recipe) {
        // An empty root is the current folder.
        if path.is_empty() && key != "data.root" {
            all.push((format!("{key}: an empty path"), None));
        } else if let Some((odd, hint)) = odd_path(&path) {
            all.push((format!("{key}: {odd}"), hint.map(str::to_owned)));
        }
    }
    let device = recipe.device.as_str();
    let number = device.strip_prefix("cuda:").map(str::parse::<u16>);
    if !matches!(device, "auto" | "cpu" | "cuda") && !matches!(number, Some(Ok(_))) {
        let message = format!("device: expected auto, cpu, cuda or cuda:N, found `{device}`");
        let near = crate::error::nearest(device, ["auto", "cpu", "cuda"]);
        all.push((message, near.map(|n| format!("did you mean `{n}`?"))));
    }
    all
}

/// Paths that are taken as they are although they may not look so.
pub(crate) fn notes(recipe: &Recipe) -> Vec<String> {
    let odd = paths(recipe).into_iter().filter(|(_, path)| path.contains('$'));
    odd.map(|(key, path)| format!("{key}: `{path}` is taken as it is written: nothing in it is replaced"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_replace_is_told_from_what_it_would_not() {
        for path in [
            "~",
            "~/x",
            "~ann/x",
            "$HOME/x",
            "a/${HOME}",
            "a/$SCRATCH",
            "${A}${B}",
            "x$_y",
        ] {
            assert!(variable(path).is_some(), "{path}");
        }
        for path in [
            "", "a/~", "a~b", "./~", "cost$", "a$1", "$(pwd)", "${A%b}", "${", "data",
        ] {
            assert_eq!(variable(path), None, "{path}");
        }
    }

    #[test]
    fn names_do_not_steer_a_terminal() {
        for name in [
            "",
            " ",
            "a\u{1b}[31m",
            "a\nb",
            "a\tb",
            "\u{9b}2J",
            "a\u{202e}b",
            &"x".repeat(129),
        ] {
            assert!(odd_name(name).is_some(), "{name:?}");
        }
        for name in ["af2-3b", "a # b", "größe", "Name-Task/train", "'&a'"] {
            assert_eq!(odd_name(name), None, "{name}");
        }
    }
}
