//! What a checkpoint has for a model, what it lacks, and what is too much: told whole, and before any tensor is read.

use crate::checkpoint::{names, Archive, Clash, TensorInfo};
use crate::error::{Error, Result};
use crate::model::flamingo::{Config, Flamingo};
use crate::model::params::{Origin, Store};
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::path::Path;
use tch::{Device, Kind};

/// Of each kind of fault, so many are told one by one.
const MOST_TOLD: usize = 5;

/// What may be missing and what may be too much.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Every tensor of the model must be in the file and the other way round: also what we would compute, and what
    /// no forward pass reads.
    pub strict: bool,
    /// Names that may be missing, with `*` for any run of characters; such tensors are initialised.
    pub allow_missing: GlobSet,
    /// Tensors that the model does not know are left aside.
    pub allow_unexpected: bool,
}

impl Rules {
    /// # Errors
    /// A pattern that cannot be understood.
    pub fn new(strict: bool, allow_missing: &[String], allow_unexpected: bool) -> Result<Self> {
        let wrong = |e: globset::Error| Error::usage(format!("--allow-missing: {e}"));
        let mut patterns = GlobSetBuilder::new();
        for pattern in allow_missing {
            patterns.add(Glob::new(pattern).map_err(wrong)?);
        }
        Ok(Rules {
            strict,
            allow_missing: patterns.build().map_err(wrong)?,
            allow_unexpected,
        })
    }
}

/// A tensor that is missing or too much.
#[derive(Debug, Clone, PartialEq)]
pub struct Odd {
    pub name: String,
    pub shape: Vec<i64>,
    /// Why that is to be expected; none where it is not.
    pub why: Option<&'static str>,
}

/// A tensor of another shape.
#[derive(Debug, Clone, PartialEq)]
pub struct MisShaped {
    pub name: String,
    pub expected: Vec<i64>,
    pub found: Vec<i64>,
}

/// How a checkpoint and a model fit.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Tensors that the model takes from the file, and their bytes there.
    pub loaded: usize,
    /// Bytes of what is loaded, as the file has it.
    pub bytes: usize,
    /// Tensors that the file lacks.
    pub missing: Vec<Odd>,
    /// Tensors that the model does not know.
    pub unexpected: Vec<Odd>,
    /// Tensors of another shape than the model's.
    pub mis_shaped: Vec<MisShaped>,
    /// Rows are cut or added: name, rows in the file, rows in the model.
    pub resized: Vec<(String, i64, i64)>,
    /// Name, dtype in the file, dtype in the model.
    pub converted: Vec<(String, Kind, Kind)>,
    /// Second copies under another name that may not be the same.
    pub clashes: Vec<Clash>,
}

/// Compares a model's tensors with an archive's by name, shape and dtype.
///
/// Embeddings that come from `llm` may have another number of rows. `absent` says why a tensor may be missing, where
/// the caller knows a reason.
///
/// # Errors
/// None of its own: what is wrong is in the report.
pub(crate) fn compare(
    config: &Config,
    tensors: &Archive,
    llm: Option<&Path>,
    rules: &Rules,
    absent: &dyn Fn(&str) -> Option<&'static str>,
) -> Result<Report> {
    let store = Store::new(Origin::Shapes, Device::Cpu);
    Flamingo::new(&store.root(), config);
    let model = store.finish()?;
    let mut report = Report {
        clashes: tensors.clashes().to_vec(),
        ..Report::default()
    };
    let fuses = |name: &str| names::of_the_encoder(name).is_some_and(|n| config.encoder.fuses(n));
    let computed = |name: &str| names::of_the_encoder(name).is_some_and(|n| config.encoder.computes(n));
    let no_fusion = !tensors.names().any(fuses);
    for (name, entry) in model.iter() {
        let (shape, kind) = (entry.tensor.size(), entry.tensor.kind());
        let Some(info) = tensors.info(name) else {
            let why = if no_fusion && fuses(name) {
                Some("initialised: an encoder without fusion, which windows of 10 s never use")
            } else if computed(name) {
                Some("computed")
            } else if let Some(reason) = absent(name) {
                Some(reason)
            } else if rules.allow_missing.is_match(name) {
                Some("initialised: --allow-missing")
            } else {
                None
            };
            report.missing.push(Odd {
                name: name.to_owned(),
                shape,
                why,
            });
            continue;
        };
        let same_rows = info.shape.first() == shape.first();
        if info.shape != shape {
            let rows_only = info.shape.len() == shape.len() && info.shape[1..] == shape[1..];
            if !(rows_only && resizable(name, info, llm)) {
                report.mis_shaped.push(MisShaped {
                    name: name.to_owned(),
                    expected: shape,
                    found: info.shape.clone(),
                });
                continue;
            }
        }
        if !same_rows {
            report.resized.push((name.to_owned(), info.shape[0], shape[0]));
        }
        if info.kind != kind {
            report.converted.push((name.to_owned(), info.kind, kind));
        }
        report.loaded += 1;
        report.bytes += info.bytes();
    }
    for name in tensors.names().filter(|n| !model.contains(n)) {
        report.unexpected.push(Odd {
            name: name.to_owned(),
            shape: tensors.info(name).map(|i| i.shape.clone()).unwrap_or_default(),
            why: rests(name, config),
        });
    }
    Ok(report)
}

impl Report {
    /// Fails with what is wrong: of each kind the first few, and how many there are.
    pub(crate) fn check(&self, path: &Path, rules: &Rules) -> Result<()> {
        let missing = self.missing.iter().filter(|o| o.why.is_none() || rules.strict);
        let unexpected = self.unexpected.iter().filter(|o| o.why.is_none() || rules.strict);
        let unexpected = unexpected.filter(|_| !rules.allow_unexpected);
        let unlike = self.clashes.iter().filter(|c| !c.alike);
        let kinds: [(&str, Vec<Error>); 4] = [
            (
                "is this the right checkpoint for the model? --config sets sizes the file does not tell, --allow-missing PATTERN initialises what is missing",
                missing
                    .map(|o| {
                        let expected = format!("a tensor of shape {:?}", o.shape);
                        Error::checkpoint(path, &o.name, expected, "no such tensor")
                    })
                    .collect(),
            ),
            (
                "a checkpoint of another size?",
                self.mis_shaped
                    .iter()
                    .map(|m| {
                        let (expected, found) = (format!("shape {:?}", m.expected), format!("shape {:?}", m.found));
                        Error::checkpoint(path, &m.name, expected, found)
                    })
                    .collect(),
            ),
            (
                "a misspelt name? --allow-unexpected leaves such tensors aside",
                unexpected
                    .map(|o| {
                        let found = format!("one of shape {:?}", o.shape);
                        Error::checkpoint(path, &o.name, "no such tensor", found)
                    })
                    .collect(),
            ),
            (
                "two names of the file mean the same tensor",
                unlike
                    .map(|c| {
                        let found = format!("two unlike tensors, {} and {}", c.kept, c.dropped);
                        Error::checkpoint(path, &c.name, "one tensor", found)
                    })
                    .collect(),
            ),
        ];
        let mut told = Vec::new();
        for (hint, errors) in kinds {
            let more = errors.len().saturating_sub(MOST_TOLD);
            let last = errors.len().min(MOST_TOLD);
            for (i, e) in errors.into_iter().take(MOST_TOLD).enumerate() {
                let more = match more {
                    0 => String::new(),
                    n => format!("{n} more like this; `af2 checkpoint verify` lists all\n  hint: "),
                };
                told.push(if i + 1 == last {
                    e.hint(format!("{more}{hint}"))
                } else {
                    e
                });
            }
        }
        crate::error::all(told)
    }

    /// Lines for people: counts first, then every name that needs a look.
    pub fn lines(&self) -> Vec<String> {
        let mut out = vec![format!(
            "loaded      {} tensors, {} bytes",
            self.loaded, self.bytes
        )];
        let odd = |kind: &str, list: &[Odd], out: &mut Vec<String>| {
            let (known, strange): (Vec<_>, Vec<_>) = list.iter().partition(|o| o.why.is_some());
            let mut reasons: Vec<&str> = known.iter().filter_map(|o| o.why).collect();
            reasons.sort_unstable();
            reasons.dedup();
            for reason in reasons {
                let n = known.iter().filter(|o| o.why == Some(reason)).count();
                out.push(format!("{kind:<11} {n} as expected: {reason}"));
            }
            for o in strange {
                out.push(format!("{kind:<11} {} {:?}", o.name, o.shape));
            }
        };
        odd("missing", &self.missing, &mut out);
        odd("unexpected", &self.unexpected, &mut out);
        for m in &self.mis_shaped {
            out.push(format!(
                "mis-shaped  {}: expected {:?}, found {:?}",
                m.name, m.expected, m.found
            ));
        }
        for (name, from, to) in &self.resized {
            out.push(format!("resized     {name}: {from} rows to {to}"));
        }
        let mut kinds: Vec<(Kind, Kind)> = Vec::new();
        for (_, from, to) in &self.converted {
            if !kinds.contains(&(*from, *to)) {
                kinds.push((*from, *to));
            }
        }
        for (from, to) in kinds {
            let n = self
                .converted
                .iter()
                .filter(|(_, a, b)| (*a, *b) == (from, to))
                .count();
            out.push(format!("converted   {n} tensors from {from:?} to {to:?}"));
        }
        for c in &self.clashes {
            let alike = if c.alike { "same shape and dtype" } else { "unlike" };
            out.push(format!(
                "twice       {}: {} stays, {} goes ({alike})",
                c.name, c.kept, c.dropped
            ));
        }
        out
    }
}

/// Whether a tensor's rows follow the tokenizer: embeddings of the LM's own folder.
pub(super) fn resizable(name: &str, info: &TensorInfo, llm: Option<&Path>) -> bool {
    (name == names::EMBEDDING || name == names::HEAD)
        // An embedding without rows says nothing of what new ones should be.
        && matches!(info.shape[..], [rows, _] if rows > 0)
        && llm.is_some_and(|llm| info.file.starts_with(llm))
}

/// Why published files hold tensors that no forward pass reads.
fn rests(name: &str, config: &Config) -> Option<&'static str> {
    if config.lm.decoder().tie_word_embeddings && name == names::HEAD {
        return Some("the embedding itself, tied");
    }
    let old = names::at_rest(name) || name.ends_with("rotary_emb.inv_freq");
    old.then_some("read by no forward pass")
}
