//! `af2 judge check`

use crate::error::{Error, Result};
use crate::eval::judge::{check, labels, Agreement};
use crate::metrics::bootstrap::Bootstrap;
use crate::report::table::Table;
use crate::run::judgements;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// People's marks on the judge's scale: a table or JSON lines with an id and one of human, label, mark, score, rating; several of
    /// an item are averaged.
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// The judge's marks, judgements.jsonl.
    #[arg(long, value_name = "FILE")]
    judgements: PathBuf,
    /// Another judge's, of the same answers.
    #[arg(long, value_name = "FILE")]
    second: Option<PathBuf>,
    /// One object with every number.
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    pub(super) fn run(&self) -> Result<()> {
        let labels = labels(&self.labels)?;
        let own = judgements::read(&self.judgements)?;
        let second = self.second.as_deref().map(judgements::read).transpose()?;
        let found = check(&labels, &own, second.as_deref(), &Bootstrap::default())?;
        if self.json {
            let text = serde_json::to_string(&found).map_err(|e| Error::io("JSON", e.into()))?;
            crate::out!("{text}");
            return Ok(());
        }
        let mut table = Table::new([
            "the judge beside",
            "n",
            "Spearman",
            "Kendall",
            "Pearson",
            "kappa, quadratic",
            "bias",
            "95% interval",
            "apart",
        ]);
        let mut row = |name: &str, a: &Agreement| {
            let cells = [a.spearman, a.kendall, a.pearson, a.kappa].map(maybe);
            let interval = format!("{:+.3} to {:+.3}", a.bias_interval.low, a.bias_interval.high);
            let begin = [name.to_owned(), a.n.to_string()];
            let end = [format!("{:+.3}", a.bias), interval, format!("{:.3}", a.absolute)];
            table.row(begin.into_iter().chain(cells).chain(end));
        };
        row("people", &found.people);
        if let Some(second) = &found.second {
            row("the other judge", second);
        }
        crate::out!("{}", table.terminal());
        let all = &found.all;
        crate::out!(
            "mean mark of {} items {:.3}; without the bias {:.3} ({:.3} to {:.3}): it moves by {:+.3}",
            all.n,
            all.mean,
            all.without_bias,
            all.interval.low,
            all.interval.high,
            all.without_bias - all.mean
        );
        crate::out!(
            "marks beside the answers' length in words: Spearman {}",
            maybe(all.length_correlation)
        );
        if all.unscored > 0 {
            crate::out!(
                "{} items are unscored, and in none of these numbers",
                all.unscored
            );
        }
        if found.unmatched > 0 {
            crate::out!("{} labels are of items without a mark", found.unmatched);
        }
        Ok(())
    }
}

fn maybe(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |v| format!("{v:.3}"))
}
