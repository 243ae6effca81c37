//! The tables of `af2 eval --benchmarks`: scores in their frame, and what other ways to ask show.

use super::paper::{in_unit, plain};
use super::table::Table;
use crate::benchmark::Card;
use crate::metrics::bootstrap::Interval;
use crate::run::scored::Scored;

/// A table a question: how good, who has marked it, and does it listen; the second only where a judge has, the others where controls
/// were asked.
pub(crate) fn tables(all: &[(&Card, Scored)]) -> Vec<Table> {
    let mut tables = vec![scores(all)];
    tables.extend(judges(all));
    tables.extend(listens(all));
    tables.extend(orders(all));
    tables
}

fn scores(all: &[(&Card, Scored)]) -> Table {
    let mut table = Table::new([
        "benchmark",
        "metric",
        "score",
        "95% interval",
        "n",
        "rule",
        "not read, %",
        "other rule",
        "chance",
        "first",
        "longest",
        "shortest",
        "AF2, paper",
    ]);
    for (card, scored) in all {
        let value = |v: Option<f64>| v.map_or(String::new(), |v| plain(in_unit(v, card), card));
        let frame =
            |of: fn(&crate::run::scored::Frame) -> Option<f64>| value(scored.frame.as_ref().and_then(of));
        table.row([
            // Says of how many items, where they are not all.
            scored.name.clone(),
            scored.metric.clone(),
            scored.score.map_or("none".to_owned(), |v| value(Some(v))),
            scored.interval.map_or("–".to_owned(), |i| {
                format!("{} to {}", value(Some(i.low)), value(Some(i.high)))
            }),
            scored.n.to_string(),
            format!("{} ({})", scored.rule, scored.kind),
            percent(scored.unread),
            scored
                .other
                .as_ref()
                .map_or(String::new(), |o| format!("{} {}", value(o.score), o.rule)),
            frame(|f| f.chance),
            frame(|f| f.first),
            frame(|f| f.longest),
            frame(|f| f.shortest),
            card.numbers.paper.value.map_or(String::new(), |v| plain(v, card)),
        ]);
    }
    table
}

/// Who has marked, and what no mark was got for.
fn judges(all: &[(&Card, Scored)]) -> Option<Table> {
    let mut table = Table::new([
        "benchmark",
        "judge",
        "protocol",
        "unscored",
        "score, these with the lowest and the highest marks",
        "asked again",
    ]);
    for (card, scored) in all {
        let Some(judge) = &scored.judge else { continue };
        let value = |v: f64| plain(in_unit(v, card), card);
        table.row([
            scored.name.clone(),
            judge.model.clone(),
            format!("{} {}", judge.protocol, judge.version),
            judge.unscored.to_string(),
            judge.bounds.map_or(String::new(), |b| {
                format!("{} to {}", value(b.low), value(b.high))
            }),
            judge.asked_again.to_string(),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn listens(all: &[(&Card, Scored)]) -> Option<Table> {
    let mut table = Table::new([
        "benchmark",
        "asked with",
        "right, %, or the metric",
        "95% interval",
        "plain less this",
        "95% interval, paired",
        "n",
        "audio gain, %",
    ]);
    for (card, scored) in all {
        let Some(listening) = &scored.listening else {
            continue;
        };
        // Right ones are counted in percent; other metrics have their card's unit and digits.
        let value = |v: f64| match scored.has_verdicts() {
            true => format!("{:.1}", 100.0 * v),
            false => plain(in_unit(v, card), card),
        };
        let between = |i: Interval| format!("{} to {}", value(i.low), value(i.high));
        for (control, c) in &listening.controls {
            let gain = listening.audio_gain.as_ref().filter(|g| g.against == *control);
            let less = value(c.difference);
            let sign = if less.starts_with('-') { "" } else { "+" };
            table.row([
                scored.name.clone(),
                control.clone(),
                value(c.score),
                between(c.interval),
                format!("{sign}{less}"),
                between(c.difference_interval),
                c.n.to_string(),
                gain.map_or(String::new(), |g| {
                    let within = g.interval.map_or("–".to_owned(), |i| {
                        format!("{} to {}", percent(Some(i.low)), percent(Some(i.high)))
                    });
                    format!("{} [{within}]", percent(g.value))
                }),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn orders(all: &[(&Card, Scored)]) -> Option<Table> {
    let mut table = Table::new([
        "benchmark",
        "orders of options",
        "items",
        "same option in every order, %",
        "right in every order, %",
        "right by place of the right option, %",
    ]);
    for (_, scored) in all {
        let Some(p) = scored.listening.as_ref().and_then(|l| l.permutations.as_ref()) else {
            continue;
        };
        let places: Vec<String> = (p.positions.iter())
            .map(|(place, g)| format!("{place} {} of {}", percent(g.score), g.n))
            .collect();
        table.row([
            scored.name.clone(),
            format!("{:.1}", p.orders),
            p.n.to_string(),
            percent(Some(p.consistency)),
            percent(Some(p.correctness)),
            places.join(", "),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |s| format!("{:.1}", 100.0 * s))
}
