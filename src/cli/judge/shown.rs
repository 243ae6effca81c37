//! What `af2 judge run` shows.

use crate::llm::{BatchRead, Estimate, Spent};
use crate::report::table::Table;
use crate::run::scored::Scored;
use std::path::Path;

pub(super) fn took(file: &Path, read: BatchRead) {
    crate::say!(
        "{}: {} answers taken, {} known before, {} failed, {} to other questions",
        file.display(),
        read.taken,
        read.known,
        read.failed,
        read.others
    );
}

pub(super) fn estimated(estimate: &Estimate) {
    let money = estimate
        .money
        .map_or(String::new(), |m| format!(", {m:.4} of money"));
    crate::out!(
        "{} requests to ask, {} answered already: at most about {} tokens of questions and {} of replies{money}",
        estimate.calls,
        estimate.stored,
        estimate.prompt_tokens,
        estimate.completion_tokens
    );
}

pub(super) fn spent(spent: &Spent) {
    let money = spent
        .money
        .map_or(String::new(), |m| format!(", {m:.4} of money"));
    let estimated = match spent.estimated {
        0 => String::new(),
        n => format!(" ({n} of them by an estimate)"),
    };
    crate::say!(
        "{} requests sent ({} again), {} answers were there: {} tokens of questions, {} of replies{estimated}{money}",
        spent.calls,
        spent.retries,
        spent.stored,
        spent.prompt_tokens,
        spent.completion_tokens
    );
}

pub(super) fn show(scored: &Scored) {
    let percent = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{:.2}", 100.0 * v));
    let interval = scored
        .interval
        .map(|i| format!("{:.2} to {:.2}", 100.0 * i.low, 100.0 * i.high));
    let Some(judge) = &scored.judge else { return };
    let model = match judge.answered_by.as_slice() {
        [one] if *one != judge.model => format!("{} (answered by {one})", judge.model),
        _ => judge.model.clone(),
    };
    crate::out!(
        "{}: {model}, protocol {} {}, {} run{} an answer ({}), marks {} to {}",
        scored.name,
        judge.protocol,
        judge.version,
        judge.runs,
        if judge.runs == 1 { "" } else { "s" },
        judge.aggregate,
        judge.scale[0],
        judge.scale[1]
    );
    let mut table = Table::new([
        "judge_mean, %",
        "95% interval over clips",
        "n",
        "unscored",
        "asked again",
    ]);
    table.row([
        percent(scored.score),
        interval.unwrap_or_else(|| "–".to_owned()),
        scored.n.to_string(),
        judge.unscored.to_string(),
        judge.asked_again.to_string(),
    ]);
    crate::out!("{}", table.terminal());
    if let Some(bounds) = judge.bounds {
        crate::out!(
            "{} items are unscored, and in no score: with the lowest marks for all of them it would be {}%, with the highest {}%",
            judge.unscored,
            percent(Some(bounds.low)),
            percent(Some(bounds.high))
        );
    }
    if let Some(same) = judge.same_winner {
        crate::out!(
            "of pairs {}% have the same winner in both orders",
            percent(Some(same))
        );
    }
    if let Some(r) = judge.length_correlation {
        crate::out!("marks beside the answers' length in words: Spearman {r:.3}");
    }
    let mut groups = Table::new(["category", "value", "n", "judge_mean, %"]);
    for (key, of) in &scored.categories {
        for (value, group) in of {
            groups.row([
                key.clone(),
                value.clone(),
                group.n.to_string(),
                percent(group.score),
            ]);
        }
    }
    if scored.categories.values().any(|of| of.len() > 1) {
        crate::out!("{}", groups.terminal());
    }
}
