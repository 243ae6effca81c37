//! Vectors of texts and what is nearest to what: the arithmetic of the rules that compare embeddings.

use rayon::prelude::*;
use std::collections::HashMap;

/// The cosine of two vectors, summed in their order in double precision; not a number where one has no length.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    dot / (length(a) * length(b))
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The label nearest to a prediction: its place and its cosine. The first of equals; `None` where no cosine is a number.
pub fn nearest(prediction: &[f64], labels: &[&[f64]]) -> Option<(usize, f64)> {
    let cosines: Vec<f64> = labels.iter().map(|label| cosine(prediction, label)).collect();
    let place = argmax(&cosines)?;
    Some((place, cosines[place]))
}

/// The place of the largest value, the first of equals; what is not a number is none.
pub fn argmax(values: &[f64]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (i, value) in values.iter().enumerate() {
        if !value.is_nan() && best.is_none_or(|b| *value > values[b]) {
            best = Some(i);
        }
    }
    best
}

/// The mean of vectors that are brought to length 1 first: one vector of a label's several templates, as CLIP makes it. `None` of
/// nothing.
pub fn mean_direction(vectors: &[Vec<f64>]) -> Option<Vec<f64>> {
    let mut sum = vec![0.0; vectors.first()?.len()];
    for vector in vectors {
        let length = length(vector);
        sum.iter_mut().zip(vector).for_each(|(s, x)| *s += x / length);
    }
    let n = vectors.len() as f64;
    Some(sum.into_iter().map(|s| s / n).collect())
}

/// How near texts are to labels.
#[derive(Debug, Clone, Default)]
pub struct Space {
    labels: Vec<String>,
    places: HashMap<String, usize>,
    /// Whether all items have this one set of labels; else each has its own choices, which are among them.
    shared: bool,
    /// Of a text, the cosine with each label.
    cosines: HashMap<String, Vec<f64>>,
}

/// The label nearest to a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Its place among the item's labels.
    pub place: usize,
    /// Its cosine.
    pub cosine: f64,
    /// That less the next label's; none where there is one label.
    pub margin: Option<f64>,
}

impl Space {
    /// Labels and texts with their embeddings.
    pub fn new(labels: Vec<(String, Vec<f64>)>, shared: bool, texts: Vec<(String, Vec<f64>)>) -> Self {
        let unit = |v: Vec<f64>| -> Vec<f64> {
            let length = length(&v);
            v.into_iter().map(|x| x / length).collect()
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum();
        let (labels, directions): (Vec<String>, Vec<Vec<f64>>) =
            labels.into_iter().map(|(label, v)| (label, unit(v))).unzip();
        let of_text = |(text, v): (String, Vec<f64>)| {
            let own = unit(v);
            (text, directions.iter().map(|label| dot(&own, label)).collect())
        };
        let cosines = texts.into_par_iter().map(of_text).collect();
        Space {
            places: labels.iter().cloned().zip(0..).collect(),
            labels,
            shared,
            cosines,
        }
    }

    /// The labels of an item with these choices.
    pub(super) fn labels<'a>(&'a self, choices: &'a [String]) -> &'a [String] {
        match self.shared {
            true => &self.labels,
            false => choices,
        }
    }

    /// The cosine of a text with each label of the space; none of a text that is not in it.
    pub fn cosines(&self, text: &str) -> Option<&[f64]> {
        self.cosines.get(text).map(Vec::as_slice)
    }

    /// The label nearest to a text, among these.
    pub(super) fn nearest(&self, text: &str, labels: &[String]) -> Option<Nearest> {
        let all = self.cosines(text)?;
        let own = labels.iter().map(|label| Some(all[*self.places.get(label)?]));
        let own: Vec<f64> = own.collect::<Option<_>>()?;
        let place = argmax(&own)?;
        let others = own.iter().enumerate().filter(|(i, c)| *i != place && !c.is_nan());
        let next = others.map(|(_, c)| *c).max_by(f64::total_cmp);
        Some(Nearest {
            place,
            cosine: own[place],
            margin: next.map(|next| own[place] - next),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_wins_and_length_does_not_count() {
        let labels: [&[f64]; 3] = [&[0.0, 1.0], &[2.0, 2.0], &[5.0, 5.0]];
        assert_eq!(nearest(&[3.0, 3.0], &labels).unwrap().0, 1);
        assert_eq!(nearest(&[0.0, 0.0], &labels), None);
        assert_eq!(nearest(&[1.0], &[]), None);
        assert_eq!(argmax(&[f64::NAN, -1.0, -1.0]), Some(1));
    }

    /// By hand: unit vectors at 0° and 90° have the mean direction of 45°, at half of √2.
    #[test]
    fn several_templates_are_one_direction() {
        let mean = mean_direction(&[vec![3.0, 0.0], vec![0.0, 0.5]]).unwrap();
        assert_eq!(mean, [0.5, 0.5]);
        assert_eq!(mean_direction(&[]), None);
    }
}
