//! The card's name, and what its maker says that it can do.

use crate::doctor::peak;
use crate::ffi::nvml;

/// Names of the cards of this machine, each once; empty where nothing tells.
pub(crate) fn names() -> Vec<String> {
    let told = match nvml::cards() {
        Ok(cards) => cards.into_iter().map(|c| c.name).collect::<Vec<_>>().join("\n"),
        Err(_) => from_the_driver(),
    };
    let mut names: Vec<String> = told.lines().map(|l| l.trim().to_owned()).collect();
    names.retain(|n| !n.is_empty());
    names.sort();
    names.dedup();
    names
}

/// A line a card, from the files that the driver's kernel module shows.
fn from_the_driver() -> String {
    let folders = std::fs::read_dir("/proc/driver/nvidia/gpus");
    let files = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|f| f.path().join("information"));
    let lines = files.filter_map(|f| {
        let text = std::fs::read_to_string(f).ok()?;
        let model = text.lines().find_map(|l| l.strip_prefix("Model:"))?;
        Some(model.trim().to_owned())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Dense bf16 TFLOP/s by the maker's data sheet, where all cards of the machine have one name that is known.
pub(crate) fn peak_tflops(names: &[String]) -> Option<f64> {
    let [name] = names else { return None };
    peak::of_gpu(name).map(|(bf16, _)| bf16 / 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_that_of_one_kind_of_card() {
        assert_eq!(peak_tflops(&["NVIDIA H100 80GB HBM3".into()]), Some(989.0));
        assert_eq!(
            peak_tflops(&["NVIDIA H100 80GB HBM3".into(), "NVIDIA L4".into()]),
            None
        );
        assert_eq!(peak_tflops(&[]), None);
    }
}
