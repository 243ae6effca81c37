//! `af2 plan`

use super::parts::{self, RecipeArgs};
use crate::error::{Error, Result};
use crate::model::parts::Part;
use crate::plan::memory::GIB;
use crate::plan::{self, Plan, Request, StagePlan, MEAN_TEXT_TOKENS, MOST};
use crate::recipe::Recipe;
use crate::report::table::Table;
use clap::Args;

#[derive(Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// GPUs over all nodes, one rank each.
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    gpus: u32,
    /// Memory of one GPU in GiB, such as 80, 80G or 40GiB; GB as its maker writes it is GiB.
    #[arg(long, default_value = "80G", allow_hyphen_values = true, value_parser = gib)]
    memory: f64,
    /// Days for all stages together; default: the paper's, for its own model, schedule and GPUs.
    #[arg(long, value_name = "D", allow_hyphen_values = true, value_parser = days)]
    days: Option<f64>,
    /// Items that each stage sees; default: steps times batch, as the recipe says.
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(1..=1 << 50))]
    samples: Option<u64>,
    /// Text tokens of an average item: an assumption that operations and time go by; default: 80, the paper's own figure, or
    /// data.max_tokens where that is less. Memory goes by data.max_tokens.
    #[arg(long, visible_alias = "tokens", value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    text_tokens: Option<u32>,
    /// Everything as JSON, in bytes and plain numbers.
    #[arg(long)]
    json: bool,
}

/// Units of memory in GiB, longer names first.
const UNITS: [(&str, f64); 9] = [
    ("tib", 1024.0),
    ("tb", 1024.0),
    ("t", 1024.0),
    ("gib", 1.0),
    ("gb", 1.0),
    ("g", 1.0),
    ("mib", 1.0 / 1024.0),
    ("mb", 1.0 / 1024.0),
    ("m", 1.0 / 1024.0),
];
/// More memory than one device will have for a while, in GiB.
const MOST_MEMORY: f64 = 1024.0 * 1024.0;

/// A size such as 80, 80G or 40GiB, in GiB.
pub(super) fn gib(text: &str) -> std::result::Result<f64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let with_unit = UNITS
        .iter()
        .find_map(|(unit, worth)| Some((lower.strip_suffix(unit)?, *worth)));
    let (number, worth) = with_unit.unwrap_or((&lower, 1.0));
    match number.trim().parse::<f64>().map(|n| n * worth) {
        Ok(n) if n > 0.0 && n <= MOST_MEMORY => Ok(n),
        _ => Err(format!(
            "expected a size in GiB, above 0 and at most {MOST_MEMORY}, such as 80, 80G or 40GiB"
        )),
    }
}

fn days(text: &str) -> std::result::Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(n) if n > 0.0 && n.is_finite() => Ok(n),
        _ => Err("expected a number of days above 0".into()),
    }
}

impl PlanArgs {
    pub(crate) fn run(&self) -> Result<()> {
        let recipe = self.recipe.load_for(self.gpus as usize)?;
        parts::say(&recipe.notes);
        let request = Request {
            gpus: self.gpus as usize,
            memory: self.memory * GIB,
            days: self.days,
            samples: self.samples,
            text_tokens: self
                .text_tokens
                .map_or(MEAN_TEXT_TOKENS.min(recipe.data.max_tokens.max(1)), |n| {
                    n as usize
                }),
        };
        let plan = plan::plan(&recipe, &request)?;
        if self.json {
            let text = serde_json::to_string_pretty(&plan);
            let text = text.map_err(|e| Error::recipe(&recipe.name, e.to_string()))?;
            return parts::out(&format!("{text}\n"));
        }
        parts::out(&shown(&plan, &recipe))
    }
}

fn shown(plan: &Plan, recipe: &Recipe) -> String {
    let mut out = String::new();
    let mut say = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    let s = if plan.gpus == 1 { "" } else { "s" };
    say(format!(
        "{} on {} GPU{s} of {} GiB",
        plan.name,
        plan.gpus,
        (100.0 * plan.memory_bytes / GIB).round() / 100.0
    ));
    for part in plan.sizes.split("; ") {
        say(format!("  {part}"));
    }
    let parts = Part::ALL.map(|part| format!("{} {}", part.name(), millions(plan.parameters[part])));
    say(format!("  parameters, millions: {}", parts.join(", ")));
    say(format!("  in all {}", grouped(plan.parameters.total())));

    let columns = |title: &str| {
        let names = plan.stages.iter().map(|s| s.name.clone());
        Table::new(std::iter::once(title.to_owned()).chain(names))
    };
    let row = |table: &mut Table, name: &str, cell: &dyn Fn(&StagePlan) -> String| {
        let cells: Vec<String> = plan.stages.iter().map(cell).collect();
        if cells
            .iter()
            .any(|c| !matches!(c.as_str(), "" | "0" | "0.0" | "0.000" | "–"))
        {
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
    row(&mut memory, "optimizer's state, fp32", &|s| size(s.bytes.moments));
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

    let gb = |bytes: u64| gigabytes(bytes);
    let mut disk = columns("GB of disk (10^9 bytes)");
    row(&mut disk, "one checkpoint", &|s| gb(s.disk.checkpoint));
    row(&mut disk, "checkpoints written", &|s| {
        grouped(s.disk.written as f64)
    });
    row(&mut disk, "… kept, by save", &|s| grouped(s.disk.kept as f64));
    row(&mut disk, "kept checkpoints", &|s| {
        gb(s.disk.kept.saturating_mul(s.disk.checkpoint))
    });
    row(&mut disk, "the stage's model", &|s| gb(s.disk.model));
    row(&mut disk, "log", &|s| gb(s.disk.events));
    row(&mut disk, "total", &|s| gb(s.disk.left));
    say(disk.terminal());

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
    let counted = |n: f64| if n > 0.0 { grouped(n) } else { "not known".into() };
    row(&mut work, "optimizer steps", &|s| counted(s.steps as f64));
    row(&mut work, "items seen", &|s| counted(s.samples as f64));
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
    notes(plan, recipe, &mut say);
    out
}

fn notes(plan: &Plan, recipe: &Recipe, say: &mut dyn FnMut(String)) {
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
        if stage.steps == 0 {
            said.push(format!(
                "{}: its steps are counted from the manifests, and those are not here",
                stage.name
            ));
        }
    }
    for line in said {
        say(line);
    }
    let (tokens, most) = (plan.text_tokens, recipe.data.max_tokens);
    say("work: every item at its full length in windows, which bounds the audio's part from above".into());
    let times: Vec<String> = plan
        .stages
        .iter()
        .map(|s| format!("{:.1}", s.flops_at_longest_texts))
        .collect();
    say(format!(
        "      {tokens} text tokens an item: an assumption (--text-tokens), no bound; with {most}, the longest that\n      \
         data.max_tokens lets through, operations and time are {} times as many",
        times.join(", ")
    ));
    if let Some(hours) = &plan.a100_hours {
        say(format!(
            "By its operations the curriculum needs {} A100-hours at 40% of their peak; the paper says {}.",
            grouped(hours.by_operations),
            grouped(hours.paper)
        ));
    }
    say(format!(
        "memory: an estimate, for a batch of {most} text tokens; fits is at most {:.0}%",
        100.0 * MOST
    ));
    say(format!(
        "disk: {} GB are left in {}; at most {} GB while it runs",
        gigabytes(plan.disk_left),
        recipe.output.display(),
        gigabytes(plan.disk_most)
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

fn gigabytes(bytes: u64) -> String {
    match bytes as f64 / 1e9 {
        n if n < 0.1 => format!("{n:.3}"),
        n if n < 1000.0 => format!("{n:.1}"),
        n => grouped(n),
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
