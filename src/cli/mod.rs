//! The command line: one file per verb, each a thin call into the library.

mod asking;
mod benchmark;
mod chat;
mod checkpoint;
mod data;
mod demo;
mod doctor;
mod endpoint;
mod environment;
mod eval;
mod export;
mod files;
mod generate;
mod gpu_check;
mod judge;
mod parts;
mod plan;
mod recipe;
mod same;
mod score;
mod serve;
mod sounds;
mod steps;
mod tables;
mod trace;

use crate::cores;
use crate::error::Result;
use crate::ffi::kernels;
use crate::train::Which;
use clap::{CommandFactory, Parser, Subcommand};
use parts::{out, RecipeArgs};

/// Research training toolkit for Audio Flamingo 2.
///
/// Train, ask and measure audio-language models: AF-CLAP's HTSAT encoder, an audio transformer with rotary
/// positions, and gated cross-attention into a language model. Recipes are YAML; checkpoints are
/// those of the PyTorch reference.
#[derive(Parser)]
#[command(name = "af2", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 libtorch, 2 usage (also KEY=VALUE of no key), 3 files, 4 recipe, 5 audio, 6 data, \
    7 checkpoint, 8 training, 9 comparison past its tolerance, 10 too many items skipped, 11 ranks, 12 stopped by a signal after saving, 13 a device that cannot be used, 14 slow (`af2 doctor --strict`), 15 a server that refuses or does not answer, 16 a budget that is spent, 130 interrupted (training: twice)."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// No progress output.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Threads of libtorch's. Default: OMP_NUM_THREADS, else the cores that this process may use.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
}

#[derive(Subcommand)]
enum Verb {
    /// The whole line on an embedded recipe: corpus, LM, AF-CLAP, three stages, evaluation, table.
    Demo(demo::DemoArgs),
    /// Write a recipe's synthetic corpus.
    Synth(RecipeArgs),
    /// Train a recipe's tokenizer and language model on text alone: `train --job lm`.
    Lm(steps::JobArgs),
    /// Train a recipe's AF-CLAP on clip–caption pairs: `train --job clap`.
    Clap(steps::JobArgs),
    /// Train the stages of a recipe, each from the checkpoint of the one before; or another of its jobs.
    Train(steps::TrainArgs),
    /// Run a command as several ranks on this machine, without torchrun.
    Launch(steps::LaunchArgs),
    /// Ask a trained model the questions of a recipe's evaluation sets, or of benchmarks, and score the answers.
    Eval(Box<eval::EvalArgs>),
    /// Score predictions of any model by a benchmark's own rule, and embeddings, tags and captions by official metrics.
    Score(score::ScoreArgs),
    /// Have open answers marked by a language model, and hold its marks against people's.
    #[command(subcommand)]
    Judge(judge::JudgeVerb),
    /// Write results of benchmarks in the forms of Every Eval Ever, Hugging Face, inspect and lm-evaluation-harness.
    Export(export::ExportArgs),
    /// Print the table and draw the curves of a run, from its files alone.
    Report(steps::ReportArgs),
    /// Answer a question about a sound file, or many of them.
    Generate(generate::GenerateArgs),
    /// Ask about sounds at a prompt, one question after another.
    Chat(chat::ChatArgs),
    /// Answer questions over HTTP, in the form of OpenAI's chat completions.
    Serve(serve::ServeArgs),
    /// What a recipe costs, before anything runs: memory, steps, FLOPs, time.
    Plan(plan::PlanArgs),
    /// What this machine offers a run: CUDA, cores, memory, disk; each thing ok, slow or broken.
    Doctor(doctor::DoctorArgs),
    /// Check a GPU: numbers beside the CPU's, memory beside the plan's, kernels, speed; a report to send back.
    GpuCheck(gpu_check::GpuCheckArgs),
    /// Look at recipes, check them, take over the reference's.
    #[command(subcommand)]
    Recipe(recipe::RecipeVerb),
    /// Look into checkpoints, compare, convert and verify them.
    #[command(subcommand)]
    Checkpoint(checkpoint::CheckpointVerb),
    /// Look at training data: what an epoch holds, in which order.
    #[command(subcommand)]
    Data(data::DataVerb),
    /// Look at benchmarks: what is known about each, from its card.
    #[command(subcommand)]
    Benchmark(benchmark::BenchmarkVerb),
    /// The paper's tables of results with what was measured here, from files alone.
    Tables(tables::TablesArgs),
    /// Run manifest items as one batch and write every tensor between; compare with a dump.
    Trace(trace::TraceArgs),
    /// Print what a shell needs to complete af2's verbs and options; `make install` puts it in place.
    Completions { shell: clap_complete::Shell },
}

impl Verb {
    /// Whether it keeps libtorch busy.
    fn computes(&self) -> bool {
        match self {
            Verb::Demo(_) | Verb::Lm(_) | Verb::Clap(_) | Verb::Train(_) | Verb::Eval(_) => true,
            Verb::Generate(_) | Verb::Chat(_) | Verb::Serve(_) | Verb::Trace(_) => true,
            // It measures what those would have.
            Verb::Doctor(_) => true,
            Verb::GpuCheck(args) => args.computes(),
            Verb::Synth(_) | Verb::Launch(_) | Verb::Report(_) | Verb::Plan(_) | Verb::Recipe(_) => false,
            Verb::Checkpoint(_) | Verb::Data(_) | Verb::Benchmark(_) | Verb::Score(_) => false,
            Verb::Judge(_) | Verb::Tables(_) | Verb::Export(_) | Verb::Completions { .. } => false,
        }
    }
}

/// Runs the command line; returns the exit code.
pub fn main() -> i32 {
    crate::panics::in_one_line();
    let cli = Cli::parse();
    crate::progress::set_quiet(cli.quiet);
    let threads = cli.threads.map(usize::from);
    let _yielding = cli.verb.computes().then(|| {
        cores::bound_the_spin(threads);
        cores::give(threads);
        cores::Yielding::begin()
    });
    // A panic has said its line. Whoever waits for a code gets one of ours.
    let result = std::panic::catch_unwind(|| run(&cli.verb, threads));
    let (code, result) = match result {
        Ok(Ok(code)) => (code, Ok(())),
        Ok(Err(e)) => (0, Err(e)),
        Err(_) => return 1,
    };
    match result.and_then(|()| crate::screen::finish()) {
        Ok(()) => code,
        Err(e) => {
            crate::say!("error: {e}");
            e.exit_code()
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "af2", &mut text);
    out(&String::from_utf8_lossy(&text))
}

/// Runs a verb; returns the exit code where it is another program's, or what was found is in it.
fn run(verb: &Verb, threads: Option<usize>) -> Result<i32> {
    if verb.computes() {
        // Off unless a recipe or an option turns it on, whatever libtorch begins with.
        kernels::allow_tf32(false)?;
    }
    match verb {
        Verb::Demo(args) => demo::run(args),
        Verb::Synth(args) => args.load().and_then(|r| steps::synth(&r)),
        Verb::Lm(args) => args.run(Some(Which::Lm)),
        Verb::Clap(args) => args.run(Some(Which::Clap)),
        Verb::Train(args) => args.run(),
        Verb::Launch(args) => return args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Score(args) => score::run(args),
        Verb::Judge(verb) => judge::run(verb),
        Verb::Export(args) => export::run(args),
        Verb::Report(args) => args.run(),
        Verb::Generate(args) => generate::run(args),
        Verb::Chat(args) => chat::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Plan(args) => args.run(),
        Verb::Doctor(args) => return args.run(threads),
        Verb::GpuCheck(args) => return args.run(),
        Verb::Recipe(verb) => recipe::run(verb),
        Verb::Checkpoint(verb) => checkpoint::run(verb),
        Verb::Data(verb) => data::run(verb),
        Verb::Benchmark(verb) => benchmark::run(verb),
        Verb::Tables(args) => tables::run(args),
        Verb::Trace(args) => trace::run(args),
        Verb::Completions { shell } => completions(*shell),
    }
    .map(|()| 0)
}
