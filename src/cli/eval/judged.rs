//! `af2 eval --benchmarks`: answers that a judge marks, marked behind the asking.

use crate::cli::endpoint::ServerArgs;
use crate::cli::judge::{no_limits, protocol, Judge, Task};
use crate::error::{Error, Result};
use crate::eval::benchmarks::{folder, Benchmark};
use crate::eval::judge::{How, Local};
use crate::ffi::kernels;
use crate::llm::Client;
use crate::lock;
use crate::recipe::Precision;
use crate::run::predictions;
use crate::run::scored::Scored;
use clap::Args;
use std::path::{Path, PathBuf};
use tch::Device;

/// How often a reply that cannot be read is asked for again: `af2 judge run --again`, where it is not said.
const AGAIN: u32 = 2;

/// Who marks.
#[derive(Args)]
pub(super) struct JudgeArgs {
    /// Has answers that a judge marks marked by this server, as `af2 judge run --endpoint`; --at-once, budgets and so on count for it.
    #[arg(
        long,
        value_name = "URL",
        requires = "benchmarks",
        conflicts_with = "judge_checkpoint"
    )]
    judge_endpoint: Option<String>,
    /// Who is asked there. Default: the snapshot of each protocol.
    #[arg(long, value_name = "NAME", requires = "judge_endpoint")]
    judge_model: Option<String>,
    /// A file with that server's key, which its owner alone may read. Default: AF2_JUDGE_API_KEY; without --endpoint AF2_API_KEY, too.
    #[arg(long, value_name = "FILE", requires = "judge_endpoint")]
    judge_key_file: Option<PathBuf>,
    /// In the place of a server: an instruction-tuned language model's folder, as `af2 judge run --checkpoint`.
    #[arg(long, value_name = "DIR", requires = "benchmarks")]
    judge_checkpoint: Option<PathBuf>,
}

/// Answers that are there, and how they came.
pub(super) struct Marking<'a> {
    /// The options of `--endpoint`, whose limits count for the judge as well.
    pub server: &'a ServerArgs,
    /// Whose answers.
    pub model: &'a str,
    /// The run's folder.
    pub out: &'a Path,
    /// Where a judge at hand computes, and in what.
    pub device: &'a dyn Fn() -> Result<Device>,
    pub precision: Precision,
}

impl JudgeArgs {
    /// Whether somebody marks.
    pub(super) fn given(&self) -> bool {
        self.judge_endpoint.is_some() || self.judge_checkpoint.is_some()
    }

    /// Whether all can be marked: said before anything is asked.
    ///
    /// # Errors
    /// A card without a protocol; several answers an item; a key, an address or a folder that cannot be used; answers of a judge that
    /// are stored and cannot be read.
    pub(super) fn look(
        &self,
        marked: &[&Benchmark],
        server: &ServerArgs,
        out: &Path,
        samples: usize,
    ) -> Result<()> {
        if !self.given() {
            return Ok(());
        }
        if marked.is_empty() {
            crate::say!("note: no judge is needed: rules read the answers of all these benchmarks");
            return Ok(());
        }
        for one in marked {
            protocol(None, &one.card)?;
            self.client(server, &folder(out, &one.card))?;
        }
        if samples > 1 {
            let e = Error::usage(format!(
                "--samples {samples}: expected one answer an item for a judge, which marks those of {}",
                marked[0].card.name
            ));
            return Err(
                e.hint("without --judge-endpoint and --judge-checkpoint they are asked and not marked")
            );
        }
        match &self.judge_checkpoint {
            Some(folder) => {
                if server.endpoint.is_none() {
                    no_limits(server)?;
                }
                Local::look(folder)
            }
            None => Ok(()),
        }
    }

    /// Has the answers of these benchmarks marked, one after the other, and writes what `af2 judge run --out RUN/NAME` writes. `each`
    /// gets results as soon as they are there.
    ///
    /// # Errors
    /// The first that cannot be marked; what was answered is kept.
    pub(super) fn mark<'b>(
        &self,
        marked: &[&'b Benchmark<'b>],
        of: &Marking,
        each: &mut dyn FnMut(&'b Benchmark<'b>, Scored),
    ) -> Result<()> {
        let local = match &self.judge_checkpoint {
            Some(folder) if !marked.is_empty() => {
                // Its answers are kept under what it is, and --tf32 is no part of that.
                kernels::allow_tf32(false)?;
                let device = (of.device)()?;
                Some(Local::open(folder, device, of.precision, of.server.at_once())?)
            }
            _ => None,
        };
        for &one in marked {
            let own = folder(of.out, &one.card);
            let _held = lock::hold(&own, false)?;
            let protocol = protocol(None, &one.card)?;
            let model = match &local {
                Some(local) => local.name(),
                None => self.judge_model.as_deref().unwrap_or(&protocol.0.model),
            };
            let task = Task {
                entry: one.entry,
                card: &one.card,
                how: How {
                    model: model.to_owned(),
                    runs: protocol.0.runs,
                    again: AGAIN,
                },
                protocol: &protocol,
                predictions: &predictions::path(&own),
                items: Some(&one.manifest),
                of: Some(of.model),
                out: &own,
            };
            let read = task.read()?;
            let whom = Judge {
                client: self.client(of.server, &own)?,
                local: local.as_ref(),
            };
            let scored = task.mark(&whom, &read)?;
            whom.tell();
            each(one, scored);
        }
        Ok(())
    }

    /// Keeps a benchmark's answers where `af2 judge run` does.
    fn client(&self, server: &ServerArgs, own: &Path) -> Result<Client> {
        let key_file = self.judge_key_file.as_deref();
        server.judge(self.judge_endpoint.as_deref(), key_file, &own.join("answers"))
    }
}
