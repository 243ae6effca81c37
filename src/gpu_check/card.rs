//! The card's name, and what its maker says that it can do.

use std::process::Command;

/// Names of the cards of this machine, each once; empty where nothing tells.
pub fn names() -> Vec<String> {
    let asked = Command::new("nvidia-smi")
        .args(["--query-gpu=name", "--format=csv,noheader"])
        .output();
    let told = match asked {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).into_owned(),
        _ => from_the_driver(),
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

/// Dense bf16 TFLOP/s of the maker's data sheets, longer names first.
const PEAKS: &[(&str, f64)] = &[
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("GH200", 989.0),
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("A40", 149.7),
    ("A10", 125.0),
    ("L4", 121.0),
];

/// Of the card where all cards of the machine have one name that is known.
pub fn peak_tflops(names: &[String]) -> Option<f64> {
    let [name] = names else { return None };
    // A whole word: an A1000 is no A100.
    let has = |known: &str| {
        name.match_indices(known).any(|(at, _)| {
            let ends = name[at + known.len()..].chars().next();
            let begins = name[..at].chars().next_back();
            !ends.is_some_and(char::is_alphanumeric) && !begins.is_some_and(char::is_alphanumeric)
        })
    };
    PEAKS.iter().find(|(known, _)| has(known)).map(|(_, peak)| *peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cards_peak_is_its_own() {
        for (name, peak) in [
            ("NVIDIA H100 80GB HBM3", Some(989.0)),
            ("NVIDIA H100 PCIe", Some(756.0)),
            ("NVIDIA H200", Some(989.0)),
            ("NVIDIA A100-SXM4-80GB", Some(312.0)),
            ("NVIDIA L40S", Some(362.0)),
            ("NVIDIA RTX A1000", None),
            ("NVIDIA A10G", None),
        ] {
            assert_eq!(peak_tflops(&[name.to_owned()]), peak, "{name}");
        }
        assert_eq!(peak_tflops(&["NVIDIA H100".into(), "NVIDIA L4".into()]), None);
        assert_eq!(peak_tflops(&[]), None);
    }
}
