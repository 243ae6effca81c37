//! The mean of marks, over items or over categories, with its interval.

use super::items::JudgeItem;
use crate::benchmark::names::Aggregation;
use crate::benchmark::Card;
use crate::error::{Error, Result};
use crate::metrics::bootstrap::{Bootstrap, Interval};
use crate::metrics::statistics::clusters::Clusters;
use indexmap::IndexMap;

/// A mean over items or over the means of categories, as the card says; marks are those of its columns.
pub(super) struct Means<'a> {
    /// Of each item its places among the categories' means; one place for all without categories.
    places: Vec<Vec<usize>>,
    clips: Vec<Option<&'a str>>,
    names: Vec<String>,
}

impl<'a> Means<'a> {
    pub(super) fn of(card: &Card, items: &'a [JudgeItem]) -> Result<Self> {
        let clips = items.iter().map(|i| i.clip.as_deref()).collect();
        let over = card
            .over
            .as_deref()
            .filter(|_| card.aggregation == Aggregation::Macro);
        let Some(over) = over else {
            let places = vec![vec![0]; items.len()];
            return Ok(Means {
                places,
                clips,
                names: vec![String::new()],
            });
        };
        let mut names: IndexMap<String, usize> = IndexMap::new();
        let mut places = Vec::with_capacity(items.len());
        for item in items {
            let groups = item.groups(card);
            let Some((_, own)) = groups.iter().find(|(key, _)| key == over) else {
                let id = crate::error::short(&item.id);
                let expected = "the category over whose means the score goes";
                let e = Error::data(format!("item {id}"), over, expected, "none");
                return Err(e.hint("--items FILE takes what the predictions lack from an imported manifest"));
            };
            let place = |name: &String| {
                let next = names.len();
                *names.entry(name.clone()).or_insert(next)
            };
            places.push(own.iter().map(place).collect());
        }
        Ok(Means {
            places,
            clips,
            names: names.into_keys().collect(),
        })
    }

    /// The mean of these marks with its interval; items without one are left out.
    pub(super) fn measure(
        &self,
        marks: &[Option<f64>],
        bootstrap: Option<Bootstrap>,
    ) -> Result<(Option<f64>, Option<Interval>)> {
        let width = 2 * self.names.len();
        let mut sums: IndexMap<(Option<&str>, usize), Vec<f64>> = IndexMap::new();
        for (i, mark) in marks.iter().enumerate() {
            let Some(mark) = mark else { continue };
            let clip = self.clips[i];
            let own = sums
                .entry((clip, if clip.is_some() { 0 } else { i }))
                .or_insert_with(|| vec![0.0; width]);
            for place in &self.places[i] {
                own[2 * place] += mark;
                own[2 * place + 1] += 1.0;
            }
        }
        if sums.is_empty() {
            return Ok((None, None));
        }
        let statistic = |sums: &[f64]| {
            let means = sums
                .chunks_exact(2)
                .filter(|pair| pair[1] > 0.0)
                .map(|pair| pair[0] / pair[1]);
            let (sum, n) = means.fold((0.0, 0.0), |(sum, n), mean| (sum + mean, n + 1.0));
            sum / n
        };
        let clusters = Clusters::of_sums(width, sums.into_values().flatten().collect())?;
        let score = clusters.totals(0..clusters.len()).map(|sums| statistic(&sums));
        let interval = bootstrap.map(|b| b.of_sums(&clusters, statistic)).transpose()?;
        Ok((score, interval))
    }
}
