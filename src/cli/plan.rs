//! `af2 plan`

use super::RecipeArgs;
use crate::error::{Error, Result};
use crate::plan::memory::GIB;
use crate::plan::{self, Plan, Request, StagePlan, MEAN_TEXT_TOKENS, MOST};
use crate::report::table::Table;
use clap::Args;

#[derive(Args)]
pub struct PlanArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// GPUs over all nodes, one rank each.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    gpus: u32,
    /// Memory of one GPU in GiB, such as 80G.
    #[arg(long, default_value = "80G", value_parser = gib)]
    memory: f64,
    /// Days for all stages together; default: the paper's, where it names them.
    #[arg(long, value_name = "D")]
    days: Option<f64>,
    /// Items that each stage sees; default: steps times batch, as the recipe says.
    #[arg(long, value_name = "N")]
    samples: Option<u64>,
    /// Text tokens of an average item. Memory goes by data.max_tokens, the longest.
    #[arg(long, default_value_t = MEAN_TEXT_TOKENS, value_name = "N")]
    tokens: usize,
    /// Everything as JSON, in bytes and plain numbers.
    #[arg(long)]
    json: bool,
}

fn gib(text: &str) -> std::result::Result<f64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let number = ["gib", "gb", "g"]
        .iter()
        .find_map(|unit| lower.strip_suffix(unit));
    match number.unwrap_or(&lower).trim().parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 => Ok(n),
        _ => Err("expected a size in GiB, such as 80G".into()),
    }
}

impl PlanArgs {
    pub fn run(&self) -> Result<()> {
        let recipe = self.recipe.load_for(self.gpus as usize)?;
        super::say(&recipe.notes);
        if self.days.is_some_and(|d| !(d.is_finite() && d > 0.0)) {
            return Err(Error::recipe("command line", "--days: must be above 0"));
        }
        let request = Request {
            gpus: self.gpus as usize,
            memory: self.memory * GIB,
            days: self.days,
            samples: self.samples,
            text_tokens: self.tokens,
        };
        let plan = plan::plan(&recipe, &request)?;
        if self.json {
            let text = serde_json::to_string_pretty(&plan);
            let text = text.map_err(|e| Error::recipe(&recipe.name, e.to_string()))?;
            return super::out(&format!(
                "{text}
"
            ));
        }
        super::out(&shown(&plan, self.tokens, recipe.data.max_tokens))
    }
}

fn shown(plan: &Plan, tokens: usize, most: usize) -> String {
    let mut out = String::new();
    let mut say = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    let s = if plan.gpus == 1 { "" } else { "s" };
    say(format!(
        "{} on {} GPU{s} of {:.0} GiB",
        plan.name,
        plan.gpus,
        plan.memory_bytes / GIB
    ));
    for part in plan.sizes.split("; ") {
        say(format!("  {part}"));
    }
    let parts = plan.parameters.named();
    let parts: Vec<String> = parts
        .iter()
        .map(|(n, v)| format!("{n} {}", millions(*v)))
        .collect();
    say(format!("  parameters, millions: {}", parts.join(", ")));
    say(format!("  in all {}", grouped(plan.parameters.total())));

    let columns = |title: &str| {
        let names = plan.stages.iter().map(|s| s.name.clone());
        Table::new(std::iter::once(title.to_owned()).chain(names))
    };
    let row = |table: &mut Table, name: &str, cell: &dyn Fn(&StagePlan) -> String| {
        let cells: Vec<String> = plan.stages.iter().map(cell).collect();
        if cells.iter().any(|c| !c.is_empty() && c != "0.0") {
            table.row(std::iter::once(name.to_owned()).chain(cells));
        }
    };
    let size = |bytes: f64| format!("{:.1}", bytes / GIB);
    let mut memory = columns("GiB of one GPU, longest batch");
    row(&mut memory, "micro-batch × windows", &|s| {
        format!("{} × {}", s.micro_batch, s.windows)
    });
    row(&mut memory, "weights, trained, fp32", &|s| {
        size(s.bytes.trained_weights)
    });
    row(&mut memory, "weights, frozen", &|s| size(s.bytes.frozen_weights));
    row(&mut memory, "gradients, fp32", &|s| size(s.bytes.gradients));
    row(&mut memory, "AdamW moments, fp32", &|s| size(s.bytes.moments));
    row(&mut memory, "bf16 copies of weights", &|s| size(s.bytes.copies));
    row(&mut memory, "gradient buckets", &|s| size(s.bytes.buckets));
    row(&mut memory, "activations: audio encoder", &|s| {
        size(s.bytes.activations.clap)
    });
    row(&mut memory, "… audio transformer", &|s| {
        size(s.bytes.activations.audio_transformer)
    });
    row(&mut memory, "… cross-attention", &|s| {
        size(s.bytes.activations.cross_attention)
    });
    row(&mut memory, "… LM", &|s| size(s.bytes.activations.lm));
    row(&mut memory, "… block computed again", &|s| {
        size(s.bytes.activations.recomputed)
    });
    row(&mut memory, "logits of a chunk", &|s| size(s.bytes.logits));
    row(&mut memory, "CUDA and libraries", &|s| size(s.bytes.libraries));
    row(&mut memory, "total", &|s| size(s.total_bytes));
    row(&mut memory, "fits", &|s| if s.fits { "yes" } else { "NO" }.into());
    say(memory.terminal());

    let number = |n: Option<f64>| n.map_or("–".into(), grouped);
    let mut work = columns("work");
    row(&mut work, "parameters trained, millions", &|s| {
        millions(s.trained.total())
    });
    row(&mut work, "batch over all GPUs", &|s| {
        grouped(s.global_batch as f64)
    });
    row(&mut work, "micro-steps of a step", &|s| {
        s.micro_steps.map_or("not evenly".into(), |n| n.to_string())
    });
    row(&mut work, "optimizer steps", &|s| grouped(s.steps as f64));
    row(&mut work, "items seen", &|s| grouped(s.samples as f64));
    row(&mut work, "passes over the manifests", &|s| {
        let epochs = s
            .epoch_items
            .filter(|n| *n > 0)
            .map(|n| s.samples as f64 / n as f64);
        epochs.map_or(String::new(), |e| format!("{e:.2}"))
    });
    row(&mut work, "operations of a step", &|s| {
        operations(s.flops_per_step)
    });
    row(&mut work, "time to end in", &|s| {
        s.days.map_or("–".into(), duration)
    });
    row(&mut work, "items a second", &|s| number(s.samples_per_second));
    row(&mut work, "windows a second", &|s| number(s.windows_per_second));
    row(&mut work, "text tokens a second", &|s| {
        number(s.tokens_per_second)
    });
    row(&mut work, "TFLOP/s of each GPU", &|s| {
        s.tflops_per_gpu.map_or("–".into(), |t| format!("{t:.1}"))
    });
    row(&mut work, "at 40% of train.peak_tflops", &|s| {
        s.days_at_40_percent.map_or(String::new(), duration)
    });
    row(&mut work, "share of train.peak_tflops", &|s| {
        s.utilisation
            .map_or(String::new(), |u| format!("{:.1}%", 100.0 * u))
    });
    say(work.terminal());
    notes(plan, tokens, most, &mut say);
    out
}

fn notes(plan: &Plan, tokens: usize, most: usize, say: &mut dyn FnMut(String)) {
    let mut said: Vec<String> = Vec::new();
    for stage in &plan.stages {
        for line in [
            format!("items: {}", stage.items_from),
            format!("time: {}", stage.days_from),
        ] {
            if !said.contains(&line) {
                said.push(line);
            }
        }
    }
    for line in said {
        say(line);
    }
    say(format!(
        "work: every item at its full length in windows and {tokens} text tokens: an upper bound"
    ));
    say(format!(
        "memory: an estimate, for a batch of {most} text tokens; fits is at most {:.0}%",
        100.0 * MOST
    ));
    for s in plan.stages.iter().filter(|s| s.micro_steps.is_none()) {
        let (name, batch, gpus) = (&s.name, s.global_batch, plan.gpus);
        let near = batch.checked_next_multiple_of(gpus);
        let near = near.map_or(String::new(), |n| {
            format!(": stages.{name}.optim.global_batch={n}")
        });
        say(format!(
            "{name}: {gpus} GPUs cannot share {batch} items evenly{near}"
        ));
    }
    for stage in plan.stages.iter().filter(|s| !s.fits) {
        say(format!(
            "{}: {:.1} GiB do not fit:",
            stage.name,
            stage.total_bytes / GIB
        ));
        for change in &stage.changes {
            say(format!("  {change}"));
        }
    }
}

fn operations(n: f64) -> String {
    match n {
        n if n >= 1e14 => format!("{:.2} PFLOP", n / 1e15),
        n if n >= 1e11 => format!("{:.2} TFLOP", n / 1e12),
        _ => format!("{:.2} GFLOP", n / 1e9),
    }
}

fn duration(days: f64) -> String {
    match days {
        d if d >= 1.0 => format!("{d:.2} d"),
        d if d * 24.0 >= 1.0 => format!("{:.1} h", d * 24.0),
        d => format!("{:.0} min", d * 1440.0),
    }
}

fn millions(n: f64) -> String {
    let n = n / 1e6;
    if n < 1000.0 {
        format!("{n:.1}")
    } else {
        grouped(n)
    }
}

/// 12345.6 as 12,346.
fn grouped(n: f64) -> String {
    if n < 10.0 && n.fract() != 0.0 {
        return format!("{n:.2}");
    }
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}
