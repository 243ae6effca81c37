//! Two runs over the same items: do they differ, and how small a difference could these items show. And several runs of one recipe.

use crate::error::{Error, Result};
use crate::eval::rules::RuleName;
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::statistics::clusters::Clusters;
use crate::metrics::statistics::mcnemar::McNemar;
use crate::metrics::statistics::power::Power;
use crate::metrics::statistics::{randomisation, seeds as over_seeds};
use crate::run::scored::Scored;
use indexmap::IndexMap;
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// Signs that are drawn where not all can be counted.
const FLIPS: u64 = 100_000;
/// z of 5% two-sided and of 80% power, together.
const SEEN: f64 = 1.959_963_984_540_054 + 0.841_621_233_572_914_3;

/// Two runs, item by item. Shares are from 0 to 1; differences are the first less the second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// The benchmark.
    pub benchmark: String,
    /// What is compared: `correct`, or a metric that items have values of.
    pub value: String,
    /// The rule, where items have verdicts.
    pub rule: String,
    /// Items that both have.
    pub n: usize,
    /// The clips that they are about, where the results name them all.
    pub clips: Option<usize>,
    /// The first run's mean over these items.
    pub first: f64,
    /// The second's.
    pub second: f64,
    /// The first less the second.
    pub difference: f64,
    /// Of the difference: clips, or else items, drawn again, each with both runs' values.
    pub interval: Interval,
    /// How it was made.
    pub bootstrap: Bootstrap,
    /// Of verdicts.
    pub agreement: Option<Agreement>,
    /// McNemar's exact p: of verdicts, items taken for independent.
    pub mcnemar_exact_p: Option<f64>,
    /// Paired randomisation: signs of clips' (else items') differences turned over.
    pub randomisation_p: f64,
    /// Whether all signs were counted.
    pub randomisation_exact: bool,
    /// The smallest difference that as many items show in 80% of tries at α = 5%, by how many items tell these runs apart. None where
    /// not even the largest would.
    pub smallest_difference: Option<f64>,
    /// The same for two runs over items of their own, of verdicts, at the lower of the two shares.
    pub smallest_unpaired: Option<f64>,
    /// Whether both were made of the same items by their hash.
    pub same_data: bool,
    /// Ids of items that the first alone has.
    pub only_first: Vec<String>,
    /// Ids of items that the second alone has.
    pub only_second: Vec<String>,
}

/// Items by what two runs have right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Both.
    pub both_right: usize,
    /// The first alone.
    pub only_first_right: usize,
    /// The second alone.
    pub only_second_right: usize,
    /// Neither.
    pub both_wrong: usize,
}

/// Several runs that differ by their seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seeds {
    /// The benchmark.
    pub benchmark: String,
    /// As [`Compared::value`].
    pub value: String,
    /// The rule, where items have verdicts.
    pub rule: String,
    /// Items.
    pub n: usize,
    /// As [`Compared::clips`].
    pub clips: Option<usize>,
    /// Mean of the runs.
    pub mean: f64,
    /// Each run's.
    pub runs: Vec<f64>,
    /// Standard deviation between runs (divisor runs − 1): what training again would change. None of one.
    pub between_seeds_deviation: Option<f64>,
    /// What other clips would change for these very models. More seeds do not narrow it.
    pub sampling_interval: Interval,
    /// How it was made.
    pub bootstrap: Bootstrap,
}

/// An item's value, by its id and how many of this id came before, with its clip.
type Values<'a> = IndexMap<(&'a str, usize), (f64, Option<&'a str>)>;

/// What of the items is compared: their verdicts, or the values of a metric.
fn value_of(file: &Path, scored: &Scored, wanted: Option<&str>) -> Result<String> {
    if scored.has_verdicts() {
        return match wanted {
            None | Some("correct" | "accuracy") => Ok("correct".to_owned()),
            Some(other) => Err(Error::data(file, "items", other, "verdicts: right or wrong")),
        };
    }
    let names: IndexMap<&str, ()> = scored
        .items
        .iter()
        .flat_map(|item| item.scores.keys())
        .map(|name| (name.as_str(), ()))
        .collect();
    let name = wanted.unwrap_or(&scored.metric);
    if names.contains_key(name) {
        return Ok(name.to_owned());
    }
    let known = names.keys().copied().collect::<Vec<_>>().join(", ");
    let e = Error::data(
        file,
        "items",
        format!("values of {name} for each item"),
        format!("those of {known}"),
    );
    Err(e.hint("--value NAME compares another one"))
}

fn values<'a>(file: &Path, scored: &'a Scored, value: &str) -> Result<Values<'a>> {
    let mut before: HashMap<&str, usize> = HashMap::new();
    let mut all = IndexMap::with_capacity(scored.items.len());
    for item in &scored.items {
        let n = before.entry(&item.id).or_default();
        let key = (item.id.as_str(), *n);
        *n += 1;
        if !item.counted {
            continue;
        }
        let own = match value {
            "correct" => Some(f64::from(u8::from(item.correct))),
            name => item.scores.get(name).copied().flatten(),
        };
        let Some(own) = own else {
            let place = format!("item {}", crate::error::short(&item.id));
            return Err(Error::data(file, place, format!("a value of {value}"), "none"));
        };
        all.insert(key, (own, item.clip.as_deref()));
    }
    Ok(all)
}

/// That two results are about the same thing. With `accept` other items and another version of the card are no fault.
fn comparable(first: (&Path, &Scored), other: (&Path, &Scored), accept: bool) -> Result<()> {
    let ((a_file, a), (b_file, b)) = (first, other);
    let refuse = |what: &str, expected: &str, found: &str| {
        let expected = format!("{expected}, as {} has", a_file.display());
        Error::data(b_file, what, expected, found)
    };
    if a.benchmark != b.benchmark {
        return Err(refuse("benchmark", &a.benchmark, &b.benchmark));
    }
    for (what, a, b) in [("rule", &a.rule, &b.rule), ("metric", &a.metric, &b.metric)] {
        if a != b {
            let e = refuse(what, a, b);
            return Err(e.hint(
                "score both by one rule: `af2 score --benchmark NAME --predictions FILE --rule … --out DIR`",
            ));
        }
    }
    // Another tower is another rule.
    let tower = |scored: &Scored| scored.space.as_ref().map(|space| space.tower.clone());
    if let (Some(own), Some(other)) = (tower(a), tower(b)) {
        if own != other && a.rule == RuleName::ClapLabel.name() {
            let e = refuse("space.tower", &own, &other);
            return Err(e.hint("answers were compared with labels in two spaces: score both with one --clap"));
        }
    }
    let hint = "--accept compares the items of the same id all the same, and says so";
    if a.card.sha256 != b.card.sha256 && !accept {
        let found = format!("{} (version {})", b.card.sha256, b.card.version);
        let expected = format!("{} (version {})", a.card.sha256, a.card.version);
        return Err(refuse("card.sha256", &expected, &found).hint(hint));
    }
    if a.data.sha256 != b.data.sha256 && !accept {
        return Err(refuse("sha256 of the data", &a.data.sha256, &b.data.sha256).hint(hint));
    }
    Ok(())
}

/// Compares two results, each with its file's name for messages.
///
/// # Errors
/// Results of other benchmarks, rules or (unless accepted) items; no item that both have; metrics of which items have no value.
pub fn compare(
    first: (&Path, &Scored),
    second: (&Path, &Scored),
    value: Option<&str>,
    accept: bool,
    bootstrap: Bootstrap,
) -> Result<Compared> {
    comparable(first, second, accept)?;
    let value = value_of(first.0, first.1, value)?;
    let (a, b) = (
        values(first.0, first.1, &value)?,
        values(second.0, second.1, &value)?,
    );
    let alone = |own: &Values, other: &Values| -> Vec<String> {
        let own = own.keys().filter(|key| !other.contains_key(*key));
        own.map(|(id, _)| (*id).to_owned()).collect()
    };
    let (only_first, only_second) = (alone(&a, &b), alone(&b, &a));
    let both: Vec<(f64, f64, Option<&str>)> = a
        .iter()
        .filter_map(|(key, (own, clip))| Some((*own, b.get(key)?.0, *clip)))
        .collect();
    if both.is_empty() {
        return Err(Error::data(
            second.0,
            "items",
            "at least one item that both have",
            "none",
        ));
    }
    let n = both.len();
    let share = |sum: f64| sum / n as f64;
    // Of each clip the sums of both runs, and its items.
    let named = both.iter().all(|(.., clip)| clip.is_some());
    let mut clips: IndexMap<(Option<&str>, usize), [f64; 3]> = IndexMap::new();
    for (i, (own, other, clip)) in both.iter().enumerate() {
        let key = if clip.is_some() { (*clip, 0) } else { (None, i) };
        let sums = clips.entry(key).or_default();
        *sums = [sums[0] + own, sums[1] + other, sums[2] + 1.0];
    }
    let pairs = clips.values().flat_map(|[own, other, n]| [own - other, *n]);
    let clusters = Clusters::of_sums(2, pairs.collect())?;
    let sums = |at: usize| clips.values().map(|sums| sums[at]).collect::<Vec<f64>>();
    let randomised = randomisation::paired(&sums(0), &sums(1), FLIPS, bootstrap.seed)?;
    let verdicts = value == "correct";
    let count = |wanted: (f64, f64)| both.iter().filter(|(a, b, _)| (*a, *b) == wanted).count();
    let agreement = verdicts.then(|| Agreement {
        both_right: count((1.0, 1.0)),
        only_first_right: count((1.0, 0.0)),
        only_second_right: count((0.0, 1.0)),
        both_wrong: count((0.0, 0.0)),
    });
    let difference = share(both.iter().map(|(a, b, _)| a - b).sum());
    let (share_a, share_b) = (
        share(both.iter().map(|(a, ..)| a).sum()),
        share(both.iter().map(|(_, b, _)| b).sum()),
    );
    let (paired, unpaired) = match &agreement {
        Some(agreement) => {
            let apart = (agreement.only_first_right + agreement.only_second_right) as f64;
            let power = Power::default();
            (
                power.paired(apart / n as f64, n as u64)?,
                power.unpaired(share_a.min(share_b), n as u64)?,
            )
        }
        None => (seen(clips.values(), difference, n), None),
    };
    Ok(Compared {
        benchmark: first.1.benchmark.clone(),
        rule: first.1.rule.clone(),
        n,
        clips: named.then_some(clips.len()),
        first: share_a,
        second: share_b,
        difference,
        interval: bootstrap.clustered_mean(&clusters)?,
        bootstrap,
        mcnemar_exact_p: agreement.map(|agreement| {
            let test = McNemar {
                only_first: agreement.only_first_right as u64,
                only_second: agreement.only_second_right as u64,
            };
            test.exact()
        }),
        agreement,
        randomisation_p: randomised.p,
        randomisation_exact: randomised.exact,
        smallest_difference: paired,
        smallest_unpaired: unpaired,
        same_data: first.1.data.sha256 == second.1.data.sha256,
        only_first,
        only_second,
        value,
    })
}

/// By the standard error of the difference over clips; none of one clip, and where no clip differs from the others.
fn seen<'a>(clips: impl Iterator<Item = &'a [f64; 3]>, difference: f64, n: usize) -> Option<f64> {
    let off: Vec<f64> = clips
        .map(|[own, other, n]| (own - other - difference * n).powi(2))
        .collect();
    let (k, apart) = (off.len() as f64, off.iter().any(|o| *o > 0.0));
    (k > 1.0 && apart).then(|| SEEN * (k / (k - 1.0) * off.iter().sum::<f64>()).sqrt() / n as f64)
}

/// Several results of runs that differ by their seed.
///
/// # Errors
/// As of [`compare`], and an item that one of them lacks.
pub fn seeds(
    runs: &[(&Path, &Scored)],
    value: Option<&str>,
    accept: bool,
    bootstrap: Bootstrap,
) -> Result<Seeds> {
    let Some(first) = runs.first() else {
        return Err(Error::usage("expected results of at least one run"));
    };
    let value = value_of(first.0, first.1, value)?;
    let of_first = values(first.0, first.1, &value)?;
    if of_first.is_empty() {
        return Err(Error::data(
            first.0,
            "items",
            "at least one item in the score",
            "none",
        ));
    }
    let mut all = Vec::with_capacity(runs.len());
    for run in runs {
        comparable(*first, *run, accept)?;
        let own = values(run.0, run.1, &value)?;
        let lacks = |own: &Values, of: &Values| {
            of.keys()
                .find(|key| !own.contains_key(*key))
                .map(|k| k.0.to_owned())
        };
        if let Some(id) = lacks(&own, &of_first).or_else(|| lacks(&of_first, &own)) {
            let expected = format!("the items of {}", first.0.display());
            let found = format!("others: {} is in one of them alone", crate::error::short(&id));
            return Err(Error::data(run.0, "items", expected, found));
        }
        all.push(
            of_first
                .keys()
                .filter_map(|key| Some(vec![own.get(key)?.0]))
                .collect(),
        );
    }
    let clusters: Vec<(Option<&str>, usize)> = of_first
        .values()
        .enumerate()
        .map(|(i, (_, clip))| (*clip, if clip.is_some() { 0 } else { i }))
        .collect();
    let named = clusters.iter().all(|(clip, _)| clip.is_some());
    let distinct: std::collections::HashSet<_> = clusters.iter().collect();
    let found = over_seeds::aggregate(&all, &clusters, &bootstrap)?;
    Ok(Seeds {
        benchmark: first.1.benchmark.clone(),
        rule: first.1.rule.clone(),
        value,
        n: clusters.len(),
        clips: named.then_some(distinct.len()),
        mean: found.score,
        runs: found.seeds,
        between_seeds_deviation: found.between_seeds,
        sampling_interval: found.sampling,
        bootstrap,
    })
}
