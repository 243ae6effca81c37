//! A file of answers before a judge: what `af2 judge run` and `af2 eval --benchmarks` have in common.

use super::shown;
use crate::benchmark::{Card, Entry, Protocol};
use crate::cli::score::named_from;
use crate::error::{Error, Result};
use crate::eval::judge::{items, judge, results, About, How, JudgeItems, Local, Marked};
use crate::fsutil::{hex, sha256};
use crate::llm::{Answers, AtHand, Client};
use crate::metrics::bootstrap::Bootstrap;
use crate::progress::Progress;
use crate::run::scored::{self, PredictionsFile, Scored};
use crate::run::{judgements, predictions};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The protocol that is asked for, or the one that a card names, with its file's text.
///
/// # Errors
/// None of this name, a file that says something else, a card that names none.
pub(in crate::cli) fn protocol(asked_for: Option<&str>, card: &Card) -> Result<(Protocol, String)> {
    let built_in = |name: &str| Protocol::built_in(name).map(|(protocol, text)| (protocol, text.to_owned()));
    match (asked_for, card.judge.as_ref().and_then(|j| j.prompt.as_deref())) {
        (Some(file), _) if file.ends_with(".yaml") => Protocol::read(Path::new(file)),
        (Some(name), _) => built_in(name),
        (None, Some(name)) => built_in(name),
        (None, None) => {
            let e = Error::usage(format!("the card of {} names no judge's protocol", card.name));
            Err(e.hint(format!(
                "--judge NAME or FILE.yaml; there are {}",
                Protocol::names().join(", ")
            )))
        }
    }
}

/// Who marks.
pub(in crate::cli) struct Judge<'a> {
    /// Asks its server, or, without one, nobody; keeps all answers.
    pub client: Client,
    /// Asked in the place of a server.
    pub local: Option<&'a Local>,
}

impl Judge<'_> {
    fn ask<T>(&self, with: impl FnOnce(&dyn Answers) -> Result<T>) -> Result<T> {
        match self.local {
            Some(local) => with(&AtHand::new(&self.client, local)),
            None => with(&self.client),
        }
    }

    /// What there is to know beside the marks: whether replies were held to their form, and what they have cost.
    pub(in crate::cli) fn tell(&self) {
        let free = match self.local {
            Some(_) => Some("a model at hand"),
            None if self.client.takes_schema() => None,
            None => Some("the server"),
        };
        if let Some(who) = free {
            crate::say!("note: {who} takes no JSON schema; replies were held to their form by words alone");
        }
        shown::spent(&self.client.spent());
    }
}

/// Answers, and how they are marked.
pub(in crate::cli) struct Task<'a> {
    pub entry: &'a Entry,
    pub card: &'a Card,
    /// With its file's text.
    pub protocol: &'a (Protocol, String),
    pub how: How,
    pub predictions: &'a Path,
    pub items: Option<&'a Path>,
    /// Whose answers.
    pub of: Option<&'a str>,
    /// Where judgements.jsonl and results.json are written.
    pub out: &'a Path,
}

impl Task<'_> {
    /// The answers, with their items; says what of them is left out.
    pub(in crate::cli) fn read(&self) -> Result<JudgeItems> {
        let read = items(&self.protocol.0, self.card, self.predictions, self.items)?;
        let path = self.predictions.display();
        for (n, what) in [
            (
                read.mended,
                "records hold half of a surrogate pair, which is no text; U+FFFD stands in its place",
            ),
            (
                read.silent,
                "answers to silence in the sound's place are left out",
            ),
            (read.left_out, "items have no prediction, and are in no score"),
            (read.others, "items are not for this judge"),
        ] {
            if n > 0 {
                crate::say!("note: {path}: {n} {what}");
            }
        }
        Ok(read)
    }

    /// Has them marked, and writes judgements.jsonl and results.json.
    ///
    /// # Errors
    /// Those of the judge, whose answers so far are kept; no item with a mark.
    pub(in crate::cli) fn mark(&self, whom: &Judge, read: &JudgeItems) -> Result<Scored> {
        let (protocol, text) = self.protocol;
        let marked = whom.ask(|judge| self.ask(judge, read))?;
        let scored = results(
            About {
                card: self.card,
                card_sha256: hex(&Sha256::digest(self.entry.text.as_bytes())),
                protocol,
                protocol_sha256: hex(&Sha256::digest(text.as_bytes())),
                judge: self.how.model.clone(),
                runs: self.how.runs,
                model: self.of.map(str::to_owned),
                predictions: self.files(&read.form)?,
                items: match self.items {
                    Some(of) => Some((sha256(of)?, named_from(Some(self.out), of)?.display().to_string())),
                    None => None,
                },
                bootstrap: Bootstrap::default(),
            },
            read,
            &marked.all,
        );
        // What was marked is worth looking at also where no score comes of it.
        judgements::write(&judgements::path(self.out), &marked.all)?;
        let scored = scored?.under(predictions::condition(self.predictions)?);
        scored.write(&scored::path(self.out))?;
        Ok(scored)
    }

    fn ask(&self, answers: &dyn Answers, read: &JudgeItems) -> Result<Marked> {
        let progress = std::cell::OnceCell::new();
        let marked = judge(
            &self.protocol.0,
            &read.all,
            &self.how,
            answers,
            &mut |done, all| {
                progress
                    .get_or_init(|| Progress::new("judged", all as u64))
                    .set(done as u64);
            },
        )?;
        if let Some(progress) = progress.get() {
            progress.finish(&format!("{} judgements", marked.all.len()));
        }
        Ok(marked)
    }

    fn files(&self, form: &str) -> Result<PredictionsFile> {
        let folder = Some(self.out);
        Ok(PredictionsFile {
            path: named_from(folder, self.predictions)?,
            sha256: sha256(self.predictions)?,
            form: form.to_owned(),
            items: self.items.map(|of| named_from(folder, of)).transpose()?,
        })
    }
}
