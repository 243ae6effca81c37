//! Which weights share their settings.

use globset::GlobMatcher;
use tch::Tensor;

/// Weights that share their settings.
pub struct Group {
    /// By what the recipe calls it; none of the two that every job begins with.
    pub name: Option<String>,
    /// Their names, and the weights.
    pub params: Vec<(String, Tensor)>,
    /// Weight decay; 0 for none.
    pub weight_decay: f64,
    /// Multiplies the schedule's learning rate.
    pub rate: f64,
    /// Of the running means of gradients and of their squares.
    pub betas: (f64, f64),
}

/// Weights that get settings of their own, by their names.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    pub name: String,
    pub pattern: GlobMatcher,
    /// Multiplies the schedule's learning rate.
    pub rate: f64,
    /// None: as the weights would have it without this.
    pub weight_decay: Option<f64>,
    pub betas: Option<(f64, f64)>,
}

impl Split {
    /// Whether it changes anything: weights are summed group by group, so that one more group is another rounding.
    fn matters(&self) -> bool {
        self.rate != 1.0 || self.weight_decay.is_some() || self.betas.is_some()
    }
}

/// Weights that decay, those that do not, and behind these two (which are always there: the reference's files have them) the groups
/// of each split. A weight is of the first split that it matches.
pub(crate) fn groups(
    params: Vec<(String, Tensor)>,
    weight_decay: f64,
    betas: (f64, f64),
    decays: impl Fn(&str, &Tensor) -> bool,
    splits: &[Split],
) -> Vec<Group> {
    let group = |name: Option<&String>, weight_decay, rate, betas| Group {
        name: name.cloned(),
        params: Vec::new(),
        weight_decay,
        rate,
        betas,
    };
    let mut all = vec![
        group(None, weight_decay, 1.0, betas),
        group(None, 0.0, 1.0, betas),
    ];
    let splits: Vec<&Split> = splits.iter().filter(|s| s.matters()).collect();
    let mut own: Vec<[Group; 2]> = (splits.iter())
        .map(|s| {
            let betas = s.betas.unwrap_or(betas);
            [weight_decay, 0.0]
                .map(|otherwise| group(Some(&s.name), s.weight_decay.unwrap_or(otherwise), s.rate, betas))
        })
        .collect();
    for (name, weight) in params {
        let other = usize::from(!decays(&name, &weight));
        let place = match splits.iter().position(|s| s.pattern.is_match(&name)) {
            // One decay for all of it is one group.
            Some(i) if splits[i].weight_decay.is_some() => &mut own[i][0],
            Some(i) => &mut own[i][other],
            None => &mut all[other],
        };
        place.params.push((name, weight));
    }
    all.extend(own.into_iter().flatten().filter(|g| !g.params.is_empty()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use globset::Glob;
    use tch::{Device, Kind};

    fn split(name: &str, pattern: &str, rate: f64, weight_decay: Option<f64>) -> Split {
        Split {
            name: name.into(),
            pattern: Glob::new(pattern).unwrap().compile_matcher(),
            rate,
            weight_decay,
            betas: None,
        }
    }

    fn named(splits: &[Split]) -> Vec<(Option<String>, Vec<String>, f64, f64)> {
        let weight = || Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let params = ["a.w", "a.b", "b.w", "b.b", "c.w"].map(|n| (n.to_owned(), weight()));
        let all = groups(params.into(), 0.1, (0.9, 0.999), |n, _| n.ends_with('w'), splits);
        let names = |g: &Group| g.params.iter().map(|(n, _)| n.clone()).collect();
        all.iter()
            .map(|g| (g.name.clone(), names(g), g.weight_decay, g.rate))
            .collect()
    }

    #[test]
    fn a_weight_is_of_the_first_that_it_matches_and_keeps_its_decay() {
        let all = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let name = |n: &str| Some(n.to_owned());
        assert_eq!(
            named(&[split("a", "a.*", 2.0, None), split("w", "*.w", 3.0, Some(0.2))]),
            [
                (None, all(&[]), 0.1, 1.0),
                (None, all(&["b.b"]), 0.0, 1.0),
                (name("a"), all(&["a.w"]), 0.1, 2.0),
                (name("a"), all(&["a.b"]), 0.0, 2.0),
                (name("w"), all(&["b.w", "c.w"]), 0.2, 3.0),
            ]
        );
        // What changes nothing, or matches nothing, is no group.
        let none = named(&[split("a", "a.*", 1.0, None), split("d", "d.*", 2.0, None)]);
        assert_eq!(none.len(), 2);
        assert_eq!(none[0].1, ["a.w", "b.w", "c.w"]);
    }
}
