//! `af2 gpu-check`

use crate::error::Result;
use crate::gpu_check::{self, One, Options};
use clap::Args;
use std::path::PathBuf;

/// What a GPU computes beside the CPU, in which memory, with which kernels, how fast: a report to send back. 13 where there is no GPU
/// that can be used, 9 where a bound is broken.
#[derive(Args)]
pub(crate) struct GpuCheckArgs {
    /// cuda, cuda:N; with --tiny also cpu.
    #[arg(long, default_value = "cuda")]
    device: String,
    /// Sizes that a CPU computes in a minute or two: shows that the check works.
    #[arg(long)]
    tiny: bool,
    /// These parts only: environment, modules, attention, collectives, resume, steps, speed.
    #[arg(long, value_delimiter = ',', value_name = "PART,…")]
    parts: Vec<String>,
    /// Minutes at most; what finds no time says so.
    #[arg(long, default_value_t = gpu_check::MINUTES, value_parser = minutes, allow_hyphen_values = true)]
    minutes: f64,
    /// A Python with torch for the comparison of speed; default: python3, where it has torch.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// The card's peak in bf16, for MFU, where its name does not tell (A100 312, H100 989).
    #[arg(long, value_name = "TFLOPS", value_parser = minutes, allow_hyphen_values = true)]
    peak_tflops: Option<f64>,
    /// Where gpu-check.md and gpu-check.json go.
    #[arg(long, value_name = "DIR", default_value = "gpu-check")]
    out: PathBuf,
    /// Something that goes wrong on purpose.
    #[arg(long, hide = true)]
    fault: Option<String>,
    /// One part, in a process that another one has started.
    #[arg(long, hide = true, requires_all = ["rows", "seconds"])]
    only: Option<String>,
    #[arg(long, hide = true)]
    rows: Option<PathBuf>,
    #[arg(long, hide = true)]
    seconds: Option<f64>,
}

fn minutes(text: &str) -> std::result::Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 1e6 => Ok(n),
        _ => Err("expected a number above 0".into()),
    }
}

impl GpuCheckArgs {
    /// Whether this process computes: its parts do so in processes of their own.
    pub(crate) fn computes(&self) -> bool {
        self.only.is_some()
    }

    /// Returns the exit code.
    pub(crate) fn run(&self) -> Result<i32> {
        let options = Options {
            device: self.device.clone(),
            tiny: self.tiny,
            parts: self.parts.clone(),
            minutes: self.minutes,
            python: self.python.clone(),
            peak_tflops: self.peak_tflops,
            out: self.out.clone(),
            fault: self.fault.clone(),
        };
        match (&self.only, &self.rows, self.seconds) {
            (Some(part), Some(rows), Some(seconds)) => {
                let one = One {
                    part: part.clone(),
                    rows: rows.clone(),
                    seconds,
                    fault: self.fault.clone(),
                };
                gpu_check::run_one(&one, &options)
            }
            _ => gpu_check::run(&options),
        }
    }
}
