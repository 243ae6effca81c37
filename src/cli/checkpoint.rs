//! `af2 checkpoint`

use super::parts::{self, OpenArgs};
use crate::checkpoint::{self, canonical, named, Archive, Difference, Plain, TensorInfo};
use crate::error::{Error, Result};
use crate::load::convert::{convert, Choice, Layout};
use crate::load::{self, Report};
use crate::model::presets;
use crate::recipe::Part;
use crate::report::table::Table;
use clap::{Args, Subcommand};
use indexmap::IndexMap;
use serde_json::json;
use std::path::{Path, PathBuf};
use tch::Kind;

#[derive(Subcommand)]
pub(crate) enum CheckpointVerb {
    /// The tensors of a file or folder: name, shape, dtype, bytes.
    Ls(LsArgs),
    /// What differs between two checkpoints; exit code 9 where something does. A NaN is equal to a NaN at the same place.
    Diff(DiffArgs),
    /// Write a checkpoint in another layout, every bit of its tensors kept.
    Convert(ConvertArgs),
    /// Compare names, shapes and dtypes with a model's, and read every tensor once.
    Verify(VerifyArgs),
}

#[derive(Args)]
pub(crate) struct LsArgs {
    /// .safetensors, .pt, .bin, a Hugging Face folder, safe_ckpt/, or a released folder.
    path: PathBuf,
    /// One JSON object: tensors, plain values, totals.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct DiffArgs {
    first: PathBuf,
    second: PathBuf,
    /// Largest difference that passes, relative to the tensor's largest value.
    #[arg(long, default_value_t = 0.0)]
    tolerance: f64,
    /// Compare under the files' own names, and all that a .pt holds; else under ours, and its model alone.
    #[arg(long)]
    raw: bool,
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// A released folder, a safe_ckpt folder, or a checkpoint_N.pt.
    input: PathBuf,
    /// A folder, or for the reference's layout a .pt file.
    out: PathBuf,
    #[arg(long, value_enum)]
    layout: Layout,
    /// In the reference's layout: everything, not only what its trainer saves.
    #[arg(long)]
    full: bool,
    /// In the reference's layout: the parts that count as trained.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "audio_transformer,cross_attention,embeddings"
    )]
    train: Vec<Part>,
    #[command(flatten)]
    how: OpenArgs,
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    path: PathBuf,
    /// A published size: af2-0.5b, af2-1.5b, af2-3b, af2-7b. Default: the sizes that the files themselves tell.
    #[arg(long)]
    model: Option<String>,
    /// Names, shapes and dtypes only: no tensor is read, no checksum looked at.
    #[arg(long)]
    headers: bool,
    #[command(flatten)]
    how: OpenArgs,
}

pub(crate) fn run(verb: &CheckpointVerb) -> Result<()> {
    match verb {
        CheckpointVerb::Ls(args) => ls(args),
        CheckpointVerb::Diff(args) => compare(args),
        CheckpointVerb::Convert(args) => {
            let choice = Choice {
                full: args.full,
                train: args.train.clone(),
            };
            let done = convert(
                &args.how.parts(args.input.clone()),
                &args.out,
                args.layout,
                &choice,
            )?;
            parts::say(&done.notes);
            crate::out!("{} tensors in {}", done.tensors, args.out.display());
            done.left_out
                .iter()
                .for_each(|line| crate::out!("left out: {line}"));
            Ok(())
        }
        CheckpointVerb::Verify(args) => verify(args),
    }
}

/// Everything at a path under its own names, with a `.pt` file's plain values.
fn open_raw(path: &Path) -> Result<(Archive, IndexMap<String, Plain>)> {
    if path.join("safe_ckpt").is_dir() {
        return Ok((checkpoint::open_released(path)?.tensors, IndexMap::new()));
    }
    let torch = path.extension().and_then(|e| e.to_str());
    if path.is_file() && matches!(torch, Some("pt" | "pth" | "bin" | "ckpt")) {
        let file = checkpoint::open_torch(path)?;
        return Ok((file.tensors, file.plain));
    }
    Ok((Archive::open(path)?, IndexMap::new()))
}

/// The model at a path under our names, where we know them.
fn open_named(path: &Path) -> Result<Archive> {
    if path.join("safe_ckpt").is_dir() {
        return Ok(checkpoint::open_released(path)?.tensors);
    }
    named(Archive::open(path)?)
}

/// PyTorch's name.
fn dtype(kind: Kind) -> String {
    let name = match kind {
        Kind::Double => "float64",
        Kind::Float => "float32",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Int => "int32",
        other => return format!("{other:?}").to_lowercase(),
    };
    name.into()
}

fn ls(args: &LsArgs) -> Result<()> {
    let (archive, plain) = open_raw(&args.path)?;
    parts::say(archive.notes());
    let infos: Vec<(&str, &TensorInfo)> = archive
        .names()
        .filter_map(|n| Some((n, archive.info(n)?)))
        .collect();
    let bytes: usize = infos.iter().map(|(_, i)| i.bytes()).sum();
    let elements: i64 = infos.iter().map(|(_, i)| i.shape.iter().product::<i64>()).sum();
    if args.json {
        let tensors: Vec<_> = infos
            .iter()
            .map(|(n, i)| json!({"name": n, "shape": i.shape, "dtype": dtype(i.kind), "bytes": i.bytes(), "file": i.file}))
            .collect();
        let plain: serde_json::Map<_, _> = plain.iter().map(|(n, v)| (n.clone(), to_json(v))).collect();
        let all = json!({"path": args.path, "tensors": tensors, "values": plain, "elements": elements, "bytes": bytes});
        crate::out!("{all}");
        return Ok(());
    }
    let mut table = Table::new(["tensor", "shape", "dtype", "bytes"]);
    for (name, info) in &infos {
        table.row([
            name.to_string(),
            format!("{:?}", info.shape),
            dtype(info.kind),
            info.bytes().to_string(),
        ]);
    }
    crate::out!("{}", table.terminal());
    for (name, value) in &plain {
        crate::out!("{name} = {value}");
    }
    crate::out!("{} tensors, {elements} elements, {bytes} bytes", infos.len());
    Ok(())
}

/// JSON has no NaN and no infinity: they become text.
fn to_json(value: &Plain) -> serde_json::Value {
    match value {
        Plain::None => serde_json::Value::Null,
        Plain::Bool(b) => (*b).into(),
        Plain::Int(i) => (*i).into(),
        Plain::Float(x) if x.is_finite() => (*x).into(),
        Plain::Float(x) => x.to_string().into(),
        Plain::Text(t) => t.as_str().into(),
        Plain::List(items) => items.iter().map(to_json).collect(),
    }
}

fn compare(args: &DiffArgs) -> Result<()> {
    let open = |path: &Path| match args.raw {
        true => open_raw(path).map(|(archive, _)| archive),
        false => open_named(path),
    };
    let (first, second) = (open(&args.first)?, open(&args.second)?);
    parts::say(first.notes());
    parts::say(second.notes());
    let found = checkpoint::diff(&first, &second)?;
    if args.json {
        crate::out!("{}", diff_json(&found));
    } else {
        print_diff(&found);
    }
    if found.within(args.tolerance) {
        return Ok(());
    }
    let (first, second) = (args.first.display(), args.second.display());
    Err(Error::Mismatch(format!(
        "{first} and {second} differ past {:e}",
        args.tolerance
    )))
}

fn print_diff(found: &Difference) {
    for (mark, list) in [
        ("only in the first ", &found.only_first),
        ("only in the second", &found.only_second),
    ] {
        list.iter().for_each(|name| crate::out!("{mark} {name}"));
    }
    for u in &found.shapes {
        crate::out!(
            "shape              {}: {:?}, {:?}",
            u.name,
            u.shapes.0,
            u.shapes.1
        );
    }
    for u in &found.kinds {
        crate::out!(
            "dtype              {}: {}, {}",
            u.name,
            dtype(u.kinds.0),
            dtype(u.kinds.1)
        );
    }
    if !found.values.is_empty() {
        let mut table = Table::new(["tensor", "max difference", "relative to its maximum"]);
        for d in &found.values {
            table.row([
                d.name.clone(),
                format!("{:.3e}", d.absolute),
                format!("{:.3e}", d.relative),
            ]);
        }
        crate::out!("{}", table.terminal());
    }
    if let [first, more @ ..] = &found.nan[..] {
        let more = match more.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        crate::out!("NaN at the same places in both, which counts as equal: {first}{more}");
    }
    crate::out!(
        "{} equal, {} differ, {} of other shape, {} only in the first, {} only in the second",
        found.equal,
        found.values.len(),
        found.shapes.len(),
        found.only_first.len(),
        found.only_second.len()
    );
}

fn diff_json(found: &Difference) -> serde_json::Value {
    let finite = |x: f64| {
        if x.is_finite() {
            json!(x)
        } else {
            json!(x.to_string())
        }
    };
    let unlike = |list: &[checkpoint::Unlike]| -> Vec<serde_json::Value> {
        list.iter()
            .map(|u| {
                let kinds = [u.kinds.0, u.kinds.1].map(dtype);
                json!({"name": u.name, "shapes": [u.shapes.0, u.shapes.1], "dtypes": kinds})
            })
            .collect()
    };
    let values: Vec<_> = found
        .values
        .iter()
        .map(|d| json!({"name": d.name, "max_abs": finite(d.absolute), "max_rel": finite(d.relative)}))
        .collect();
    json!({
        "only_first": found.only_first, "only_second": found.only_second, "shapes": unlike(&found.shapes),
        "dtypes": unlike(&found.kinds), "values": values, "equal": found.equal,
        "nan": found.nan,
    })
}

fn verify(args: &VerifyArgs) -> Result<()> {
    let parts = args.how.parts(args.path.clone());
    let options = args.how.options()?;
    let (archive, report) = match &args.model {
        None => {
            let plan = load::plan(&parts, &options)?;
            parts::say(&plan.notes);
            let tensors = plan.files.tensors;
            let report = load::compare(
                &plan.config,
                &tensors,
                Some(&plan.files.llm),
                &options.rules,
                &|_| None,
            )?;
            (tensors, report)
        }
        Some(name) => {
            let config = presets::preset(name)?;
            // A part of a checkpoint can be looked at alone: then what it never holds is no fault of it.
            let (tensors, llm) = match checkpoint::open_parts(&parts) {
                Ok(files) => (files.tensors, Some(files.llm)),
                Err(_) if parts.llm.is_none() && parts.base.is_none() => {
                    (canonical(Archive::open(&args.path)?, &args.path)?, None)
                }
                Err(e) => return Err(e),
            };
            let absent = elsewhere(&tensors);
            let report = load::compare(&config, &tensors, llm.as_deref(), &options.rules, &absent)?;
            (tensors, report)
        }
    };
    print_report(&report);
    report.check(&args.path, &options.rules)?;
    if !args.headers {
        let progress = crate::progress::Progress::new("read every tensor", archive.names().count() as u64);
        for name in archive.names() {
            let _ = archive.get(name)?;
            progress.inc(1);
        }
        progress.finish("");
    }
    crate::out!("{}: fits", args.path.display());
    Ok(())
}

/// Why a checkpoint by itself may lack whole parts: the LM and AF-CLAP have files of their own.
fn elsewhere(tensors: &Archive) -> impl Fn(&str) -> Option<&'static str> {
    let has = |part: Part, piece: &str| tensors.names().any(|n| Part::of(n) == part && n.contains(piece));
    let (lm, clap) = (
        has(Part::Lm, ".decoder_layer."),
        has(Part::Clap, ".attn.qkv.weight"),
    );
    move |name| match Part::of(name) {
        Part::Lm if !lm => Some("in the language model's own folder (--llm)"),
        Part::Clap if !clap => Some("in AF-CLAP's own file (--clap)"),
        _ => None,
    }
}

fn print_report(report: &Report) {
    report.lines().iter().for_each(|line| crate::out!("{line}"));
}
