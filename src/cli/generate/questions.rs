//! What is asked, and about what.

use super::args::GenerateArgs;
use crate::audio::decode::Reader;
use crate::cli::sounds::{self, is_stdin, Piece};
use crate::data::feed::Ears;
use crate::error::{Error, Result};
use crate::generate::engine::{Given, Sound};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Questions among which those about one clip are asked one after another: more would let the first answers wait.
const GROUPED: usize = 1024;
/// A line of `--input`.
#[derive(Deserialize)]
struct Written {
    path: PathBuf,
    prompt: String,
    choices: Option<Vec<String>>,
    #[serde(flatten)]
    piece: Piece,
}

/// A question on its way.
pub(super) struct Question {
    pub(super) path: PathBuf,
    pub(super) prompt: String,
    pub(super) choices: Option<Vec<String>>,
    pub(super) piece: Piece,
    /// Of `--input`, from 1.
    pub(super) line: Option<usize>,
    /// What it is among others, for the seed: its path as it was written, its prompt, and its piece where that is said.
    pub(super) item: String,
}

/// What is asked, and whether more than one sound may be meant.
pub(super) fn questions(args: &GenerateArgs) -> Result<(Vec<Question>, bool)> {
    let own = |all: &Vec<String>| all.iter().map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let choices = args.choices.as_ref().map(own);
    if choices.iter().flatten().any(String::is_empty) {
        return Err(Error::usage(
            "--choices: expected answers between the bars, found an empty one",
        ));
    }
    let (mut questions, many) = match (&args.prompt, &args.input) {
        (_, Some(file)) => (read_questions(file)?, false),
        (Some(prompt), None) => {
            let sounds = sounds::find(&args.audio)?;
            let of = |path: PathBuf| Question {
                path,
                prompt: prompt.clone(),
                choices: None,
                piece: Piece::default(),
                line: None,
                item: String::new(),
            };
            (sounds.paths.into_iter().map(of).collect(), sounds.many)
        }
        (None, None) => return Err(Error::usage("--audio with --prompt, or --input, is needed")),
    };
    if let ([only], None) = (&questions[..], &args.input) {
        if !is_stdin(&only.path) {
            Reader::open(&only.path)?;
        }
    }
    for q in &mut questions {
        q.piece = q.piece.or(args.piece);
        q.item = format!("{}\n{}{}", q.path.display(), q.prompt, q.piece.item());
        q.choices = q.choices.take().or_else(|| choices.clone());
        if let (Some(root), Some(_)) = (&args.data_root, &args.input) {
            q.path = root.join(&q.path);
        }
    }
    Ok((questions, many))
}

fn read_questions(file: &Path) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    for (i, line) in crate::fsutil::read_text(file)?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |found: String| {
            let expected = r#"{"path": "…", "prompt": "…"}"#;
            Error::data(file, format!("line {}", i + 1), expected, found)
        };
        if line.trim_start().starts_with('[') {
            return Err(wrong("a list".into()));
        }
        let q: Written = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        if let Some(choices) = &q.choices {
            let empty = choices.iter().any(|c| c.trim().is_empty());
            if empty || choices.is_empty() {
                let found = if empty { "an empty choice" } else { "choices: []" };
                return Err(wrong(found.to_owned()));
            }
        }
        if is_stdin(&q.path) {
            return Err(wrong("standard input, which --audio - is".to_owned()));
        }
        all.push(Question {
            path: q.path,
            prompt: q.prompt,
            choices: q.choices,
            piece: q.piece,
            line: Some(i + 1),
            item: String::new(),
        });
    }
    Ok(all)
}

/// What a question is about.
pub(super) fn sound(
    question: &Question,
    windows: usize,
    args: &GenerateArgs,
    ears: &Ears,
    stdin: Option<&Arc<[u8]>>,
) -> Result<Sound> {
    let path = match is_stdin(&question.path) {
        true => "standard input".into(),
        false => question.path.clone(),
    };
    let clip = question.piece.of(path, windows).map_err(|[expected, found]| {
        let error = match (&args.input, question.line) {
            (Some(file), Some(line)) => Error::data(file, format!("line {line}: seconds"), expected, found),
            _ => Error::usage(format!("--seconds: expected {expected}, found {found}")),
        };
        error.hint("--windows hears more")
    })?;
    Ok(match stdin.filter(|_| is_stdin(&question.path)) {
        Some(bytes) => Sound::Given(Given {
            key: "standard input".to_owned(),
            mel: Arc::new(ears.mel_in_memory(&clip, bytes, false)?),
        }),
        None => Sound::Clip(clip),
    })
}

/// Questions in the order in which they are asked: those about one clip in a row.
pub(super) fn clip_major(sounds: &[Sound]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sounds.len()).collect();
    for group in order.chunks_mut(GROUPED) {
        let mut first = HashMap::new();
        for i in group.iter() {
            first.entry(&sounds[*i]).or_insert(*i);
        }
        group.sort_by_key(|i| (first[&sounds[*i]], *i));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::feed::Clip;
    use crate::shapes::Seconds;

    #[test]
    fn questions_about_one_clip_are_asked_in_a_row_and_not_too_late() {
        let sound = |name: &str| Sound::Clip(Clip::new(name.into(), Seconds(0.0), 3));
        let of = |names: &str| clip_major(&names.chars().map(|c| sound(&c.to_string())).collect::<Vec<_>>());
        assert_eq!(of("abacba"), [0, 2, 5, 1, 4, 3]);
        // The first is asked before all of the next thousand.
        let far = of(&format!("a{}a", "b".repeat(GROUPED)));
        assert_eq!(
            (far[0], far[1], far[GROUPED], far[GROUPED + 1]),
            (0, 1, GROUPED, GROUPED + 1)
        );
    }
}
