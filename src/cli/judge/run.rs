//! `af2 judge run`

use super::shown;
use super::task::{protocol, Judge, Task};
use crate::benchmark::{Protocol, Registry};
use crate::cli::endpoint::ServerArgs;
use crate::device;
use crate::error::{Error, Result};
use crate::eval::judge::{first_requests, judge, How, JudgeItems, Local};
use crate::llm::{BatchRead, Client, Pending};
use crate::recipe::Precision;
use clap::Args;
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
    /// In the place of a server: the Hugging Face folder of Qwen2-Instruct, Qwen2.5-Instruct or Qwen3, which is told not to think.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["endpoint", "model", "batch_out", "batch_in"])]
    checkpoint: Option<PathBuf>,
    /// Where it computes.
    #[arg(long, default_value = "auto", requires = "checkpoint")]
    device: String,
    /// In what it computes. amp_bf16: half the memory, and other rounding.
    #[arg(long, value_enum, default_value = "fp32", requires = "checkpoint")]
    precision: Precision,
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
        let protocol = protocol(self.judge.as_deref(), &card)?;
        let asked = self.server.endpoint.is_some() || self.checkpoint.is_some();
        if !(asked || self.offline || self.estimate || self.batch_out.is_some() || self.batch_in.is_some()) {
            let e = Error::usage("expected a server or a model to ask, or what to do without one");
            return Err(e.hint(
                "--endpoint URL or --checkpoint DIR; or --estimate, --offline, --batch-out FILE, --batch-in FILE",
            ));
        }
        if let Some(folder) = &self.checkpoint {
            Local::look(folder)?;
            no_limits(&self.server)?;
        }
        let mut task = Task {
            entry,
            card: &card,
            how: How {
                model: self.model.clone().unwrap_or_else(|| protocol.0.model.clone()),
                runs: self.runs.unwrap_or(protocol.0.runs),
                again: self.again,
            },
            protocol: &protocol,
            predictions: &self.predictions,
            items: self.items.as_deref(),
            of: self.of.as_deref(),
            out: &self.out,
        };
        let read = task.read()?;
        let local = self.local()?;
        if let Some(local) = &local {
            task.how.model = local.name().to_owned();
        }
        let (task, protocol) = (task, &protocol.0);
        let _held = match self.estimate {
            true => None,
            false => Some(crate::lock::hold(&self.out, false)?),
        };
        let whom = Judge {
            client: self.client()?,
            local: local.as_ref().filter(|_| !self.offline),
        };
        let client = &whom.client;
        if self.estimate {
            shown::estimated(&client.estimate(&first_requests(protocol, &read.all, &task.how)?));
            return Ok(());
        }
        if let Some(file) = &self.batch_in {
            shown::took(file, take(client, file, protocol, &read, &task.how)?);
        }
        if let Some(file) = &self.batch_out {
            let pending = Pending::new(client);
            let marked = judge(protocol, &read.all, &task.how, &pending, &mut |_, _| ())?;
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
        let scored = task.mark(&whom, &read)?;
        if self.json {
            let text = serde_json::to_string(&scored).map_err(|e| Error::io("JSON", e.into()))?;
            crate::out!("{text}");
        } else {
            shown::show(&scored);
        }
        whom.tell();
        Ok(())
    }

    /// The model at hand. Its name says what its answers come from, and so do their hashes: its weights are read also where all is
    /// stored.
    fn local(&self) -> Result<Option<Local>> {
        let Some(folder) = &self.checkpoint else {
            return Ok(None);
        };
        let device = device::of(&self.device)?;
        Local::open(folder, device, self.precision, self.server.at_once()).map(Some)
    }

    fn client(&self) -> Result<Client> {
        let own = self.out.join("answers");
        self.server.client(self.answers.as_deref().unwrap_or(&own))
    }
}

/// Limits of what a server is sent bound no model at hand.
///
/// # Errors
/// One that is given.
pub(in crate::cli) fn no_limits(server: &ServerArgs) -> Result<()> {
    match server.bounds() {
        Some(option) => Err(Error::usage(format!(
            "{option} bounds what a server is sent, and none is asked: the judge is a model at hand"
        ))),
        None => Ok(()),
    }
}

/// Answers of a batch: those to first questions, then, with these known, those to the questions behind them.
fn take(
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
