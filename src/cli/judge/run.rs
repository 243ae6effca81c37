//! `af2 judge run`

use super::shown;
use crate::benchmark::{Protocol, Registry};
use crate::cli::endpoint::ServerArgs;
use crate::cli::score::named_from;
use crate::error::{Error, Result};
use crate::eval::judge::{first_requests, items, judge, results, About, How, JudgeItems, Marked};
use crate::fsutil::{hex, sha256};
use crate::llm::{Answers, BatchRead, Client, Pending};
use crate::metrics::bootstrap::Bootstrap;
use crate::progress::Progress;
use crate::run::scored::{self, PredictionsFile};
use crate::run::{judgements, predictions};
use clap::Args;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct RunArgs {
    /// The benchmark, as `af2 benchmark ls` names it.
    #[arg(long, value_name = "NAME")]
    benchmark: String,
    /// What a model has said: as `af2 score --predictions`.
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// The items, an imported manifest or the official file, where the predictions lack references, categories or rubrics.
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// Whose predictions these are, for tables.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// Where judgements.jsonl, results.json and answers/ are written.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    /// Who is asked. Default: the protocol's snapshot.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// A protocol of your own. Default: the one that the benchmark's card names.
    #[arg(long, value_name = "NAME or FILE.yaml")]
    judge: Option<String>,
    /// How often each answer is marked. Default: the protocol's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,
    /// How often a reply that cannot be read is asked for again.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=20))]
    again: u32,
    /// Says what would be asked and what that costs, and asks nothing.
    #[arg(long)]
    estimate: bool,
    /// Asks nothing: every answer must be stored already.
    #[arg(long, conflicts_with = "endpoint")]
    offline: bool,
    /// The folder of stored answers. Default: answers/ in --out.
    #[arg(long, value_name = "DIR")]
    answers: Option<PathBuf>,
    /// Writes what is not stored as a provider's batch file, and asks nothing.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "endpoint")]
    batch_out: Option<PathBuf>,
    /// Stores the answers of a provider's batch file first.
    #[arg(long, value_name = "FILE.jsonl")]
    batch_in: Option<PathBuf>,
    /// One object: the results.
    #[arg(long)]
    json: bool,
    /// A folder of cards of your own.
    #[arg(long, value_name = "DIR")]
    cards: Option<PathBuf>,
}

impl RunArgs {
    pub(super) fn run(&self) -> Result<()> {
        let registry = Registry::with(self.cards.as_deref())?;
        let entry = registry.entry(&self.benchmark)?;
        let card = entry.card()?;
        let (protocol, text) = self.protocol(card.judge.as_ref().and_then(|j| j.prompt.as_deref()))?;
        let asked = self.server.endpoint.is_some();
        if !(asked || self.offline || self.estimate || self.batch_out.is_some() || self.batch_in.is_some()) {
            let e = Error::usage("expected a server to ask, or what to do without one");
            return Err(e.hint("--endpoint URL; or --estimate, --offline, --batch-out FILE, --batch-in FILE"));
        }
        let how = How {
            model: self.model.clone().unwrap_or_else(|| protocol.model.clone()),
            runs: self.runs.unwrap_or(protocol.runs),
            again: self.again,
        };
        let read = items(&protocol, &card, &self.predictions, self.items.as_deref())?;
        self.tell(&read);
        let _held = match self.estimate {
            true => None,
            false => Some(crate::lock::hold(&self.out, false)?),
        };
        let client = self.client()?;
        if self.estimate {
            shown::estimated(&client.estimate(&first_requests(&protocol, &read.all, &how)?));
            return Ok(());
        }
        if let Some(file) = &self.batch_in {
            shown::took(file, self.take(&client, file, &protocol, &read, &how)?);
        }
        if let Some(file) = &self.batch_out {
            let pending = Pending::new(&client);
            let marked = judge(&protocol, &read.all, &how, &pending, &mut |_, _| ())?;
            if marked.pending > 0 {
                pending.write(file)?;
                crate::out!(
                    "{}: {} requests; --batch-in takes their answers",
                    file.display(),
                    pending.len()
                );
                return Ok(());
            }
            crate::out!("nothing is left to ask: {} is not written", file.display());
        }
        let marked = self.ask(&client, &protocol, &read, &how)?;
        let scored = results(
            About {
                card: &card,
                card_sha256: hex(&Sha256::digest(entry.text.as_bytes())),
                protocol: &protocol,
                protocol_sha256: hex(&Sha256::digest(text.as_bytes())),
                judge: how.model.clone(),
                runs: how.runs,
                model: self.of.clone(),
                predictions: self.files(&read.form)?,
                items: match &self.items {
                    Some(of) => Some((
                        sha256(of)?,
                        named_from(Some(&self.out), of)?.display().to_string(),
                    )),
                    None => None,
                },
                bootstrap: Bootstrap::default(),
            },
            &read,
            &marked.all,
        );
        // What was marked is worth looking at also where no score comes of it.
        judgements::write(&judgements::path(&self.out), &marked.all)?;
        let scored = scored?.under(predictions::condition(&self.predictions)?);
        scored.write(&scored::path(&self.out))?;
        if self.json {
            let text = serde_json::to_string(&scored).map_err(|e| Error::io("JSON", e.into()))?;
            crate::out!("{text}");
        } else {
            shown::show(&scored);
        }
        if !client.takes_schema() {
            crate::say!(
                "note: the server takes no JSON schema; replies were held to their form by words alone"
            );
        }
        shown::spent(&client.spent());
        Ok(())
    }

    fn protocol(&self, of_card: Option<&str>) -> Result<(Protocol, String)> {
        let built_in =
            |name: &str| Protocol::built_in(name).map(|(protocol, text)| (protocol, text.to_owned()));
        match (&self.judge, of_card) {
            (Some(file), _) if file.ends_with(".yaml") => Protocol::read(Path::new(file)),
            (Some(name), _) => built_in(name),
            (None, Some(name)) => built_in(name),
            (None, None) => {
                let e = Error::usage(format!(
                    "the card of {} names no judge's protocol",
                    self.benchmark
                ));
                Err(e.hint(format!(
                    "--judge NAME or FILE.yaml; there are {}",
                    Protocol::names().join(", ")
                )))
            }
        }
    }

    fn tell(&self, read: &JudgeItems) {
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
    }

    fn client(&self) -> Result<Client> {
        let own = self.out.join("answers");
        self.server.client(self.answers.as_deref().unwrap_or(&own))
    }

    /// Answers of a batch: those to first questions, then, with these known, those to the questions behind them.
    fn take(
        &self,
        client: &Client,
        file: &Path,
        protocol: &Protocol,
        read: &JudgeItems,
        how: &How,
    ) -> Result<BatchRead> {
        let mut all = BatchRead::default();
        loop {
            let pending = Pending::new(client);
            judge(protocol, &read.all, how, &pending, &mut |_, _| ())?;
            let found = pending.read(file)?;
            all = BatchRead {
                taken: all.taken + found.taken,
                known: found.known - all.taken.min(found.known),
                ..found
            };
            if found.taken == 0 {
                return Ok(all);
            }
        }
    }

    fn ask(&self, client: &dyn Answers, protocol: &Protocol, read: &JudgeItems, how: &How) -> Result<Marked> {
        let progress = std::cell::OnceCell::new();
        let marked = judge(protocol, &read.all, how, client, &mut |done, all| {
            progress
                .get_or_init(|| Progress::new("judged", all as u64))
                .set(done as u64);
        })?;
        if let Some(progress) = progress.get() {
            progress.finish(&format!("{} judgements", marked.all.len()));
        }
        Ok(marked)
    }

    fn files(&self, form: &str) -> Result<PredictionsFile> {
        let folder = Some(self.out.as_path());
        Ok(PredictionsFile {
            path: named_from(folder, &self.predictions)?,
            sha256: sha256(&self.predictions)?,
            form: form.to_owned(),
            items: self
                .items
                .as_deref()
                .map(|of| named_from(folder, of))
                .transpose()?,
        })
    }
}
