//! Label retrieval in a space of text embeddings: the paper's rule for its foundational benchmarks (Pengi's protocol).
//!
//! The prediction and every label, in its template, are embedded by a text tower; the answer is the label whose embedding has the
//! largest cosine with the prediction's, the first of equals. The embeddings come from elsewhere; what is here is what is done
//! with them. Such a rule always finds an answer: "punk metal" is the label metal where rock is right.

/// A label's text in a template: the template with the label in place of each `{}`.
///
/// # Errors
/// A template without `{}`, which would be the same text for every label.
pub fn fill(template: &str, label: &str) -> Result<String, String> {
    match template.contains("{}") {
        true => Ok(template.replace("{}", label)),
        false => Err(format!(
            "a template with {{}} where the label belongs, found {template:?}"
        )),
    }
}

/// The cosine of two vectors, summed in their order in double precision; not a number where one has no length.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    dot / (length(a) * length(b))
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

    #[test]
    fn a_template_has_a_place_for_its_label() {
        assert_eq!(
            fill("this is a sound of {}", "rain").unwrap(),
            "this is a sound of rain"
        );
        assert!(fill("a sound", "rain").is_err());
    }
}
