//! Results of a benchmark on the terminal.

use crate::metrics::bootstrap::Interval;
use crate::report::table::Table;
use crate::run::scored::Scored;

/// The score, what it is made of, and what must stand beside it.
pub(super) fn show(scored: &Scored) {
    let known = match scored.data.known {
        true => "the card's file",
        false => "not a file that the card knows",
    };
    let form = scored.predictions.as_ref().map_or("predictions", |p| &p.form);
    crate::out!(
        "{}: {form}, items of sha256 {}… ({known})",
        scored.name,
        &scored.data.sha256[..12]
    );
    match scored.rule.as_str() {
        "musicqa" | "pycocoevalcap" => metrics(scored, &plain, ""),
        "scores" => metrics(scored, &percent, ", %"),
        _ => verdicts(scored),
    }
    for (name, why) in &scored.not_scored {
        crate::out!("not scored: {name}: {why}");
    }
    let states = scored.states.iter().map(|(s, n)| format!("{s} {n}"));
    crate::out!("{}", states.collect::<Vec<_>>().join(", "));
    if scored.left_out > 0 {
        let why = match scored.has_verdicts() {
            true => "by the official script, as no part of the split, or as not scored",
            false => "without a prediction",
        };
        crate::out!("{} left out: {why}", items(scored.left_out));
    }
    if let Some(whole) = &scored.whole {
        crate::out!("over all {} items of the file: {}%", whole.n, share(whole.score));
    }
    by_hand(scored);
    frame(scored);
    categories(scored);
}

fn items(n: usize) -> String {
    format!("{n} item{}", if n == 1 { "" } else { "s" })
}

/// One row a metric.
fn metrics(scored: &Scored, number: &dyn Fn(f64) -> String, unit: &str) {
    let mut table = Table::new([
        "metric".to_owned(),
        format!("value{unit}"),
        "95% interval over clips".to_owned(),
    ]);
    for (name, value) in &scored.parts {
        let interval = scored.intervals.get(name);
        table.row([name.clone(), number(*value), between(interval.copied(), number)]);
    }
    crate::out!("{}", table.terminal());
    if !scored.parts.contains_key(&scored.metric) {
        crate::out!("{}, the benchmark's metric, is not computed", scored.metric);
    }
}

fn verdicts(scored: &Scored) {
    let mut table = Table::new([
        "read by".to_owned(),
        "rule".to_owned(),
        format!("{}, %", scored.metric),
        "95% interval".to_owned(),
        "n".to_owned(),
        "not read, %".to_owned(),
    ]);
    table.row([
        scored.kind.clone(),
        scored.rule.clone(),
        share(scored.score),
        between(scored.interval, &percent),
        scored.n.to_string(),
        share(scored.unread),
    ]);
    if let Some(other) = &scored.other {
        let kind = if scored.kind == "official" {
            "fair"
        } else {
            "official"
        };
        let apart = other
            .difference
            .map_or(String::new(), |d| format!(" ({:+.2})", 100.0 * d));
        table.row([
            kind.to_owned(),
            other.rule.clone(),
            share(other.score) + &apart,
            String::new(),
            scored.n.to_string(),
            share(other.unread),
        ]);
    }
    if let Some(corrected) = &scored.corrected {
        table.row([
            "corrected".to_owned(),
            "by hand".to_owned(),
            share(corrected.score),
            between(corrected.interval, &percent),
            scored.n.to_string(),
        ]);
    }
    crate::out!("{}", table.terminal());
    for (name, value) in &scored.parts {
        crate::out!("{name} {}%", percent(*value));
    }
}

fn by_hand(scored: &Scored) {
    let Some(corrected) = &scored.corrected else {
        return;
    };
    crate::out!(
        "corrections by hand ({}): {} verdicts changed, {}",
        corrected.path.display(),
        corrected.changed,
        corrected
            .difference
            .map_or("no difference known".to_owned(), points)
    );
    for (author, by) in &corrected.authors {
        let confirmed = by.n - by.to_right - by.to_wrong;
        crate::out!(
            "  {author}: {} ({} to right, {} to wrong, {confirmed} as ruled)",
            by.n,
            by.to_right,
            by.to_wrong
        );
    }
}

fn frame(scored: &Scored) {
    let Some(frame) = &scored.frame else {
        return;
    };
    let mut table = Table::new([
        "answers that do not depend on the sound".to_owned(),
        format!("{}, %", scored.metric),
    ]);
    for (name, value) in [
        ("chance", frame.chance),
        ("always the first option", frame.first),
        ("always the longest option", frame.longest),
        ("always the shortest option", frame.shortest),
    ] {
        table.row([name.to_owned(), share(value)]);
    }
    crate::out!("{}", table.terminal());
    crate::out!(
        "the option's {} stands for it, read by the rule {}",
        frame.answered_by,
        scored.rule
    );
}

fn categories(scored: &Scored) {
    let mut groups = Table::new(["category", "value", "n", "right", "share, %", "95% (Wilson)"]);
    for (key, of) in &scored.categories {
        for (value, group) in of {
            groups.row([
                key.clone(),
                value.clone(),
                group.n.to_string(),
                group.correct.to_string(),
                share(group.score),
                between(group.interval, &percent),
            ]);
        }
    }
    if scored.categories.values().any(|of| of.len() > 1) {
        crate::out!("{}", groups.terminal());
    }
}

pub(super) fn between(interval: Option<Interval>, number: &dyn Fn(f64) -> String) -> String {
    interval.map_or("–".to_owned(), |i| {
        format!("{} to {}", number(i.low), number(i.high))
    })
}

fn points(difference: f64) -> String {
    format!("{:+.2} points", 100.0 * difference)
}

fn share(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), percent)
}

/// A share, in percent with two digits.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

/// A metric as its tools print it.
pub(super) fn plain(value: f64) -> String {
    format!("{value:.4}")
}
