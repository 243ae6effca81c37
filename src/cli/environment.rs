//! What a run says of itself when it begins.

use crate::dist::Ranks;
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use crate::recipe::Recipe;
use crate::run::{
    self,
    environment::{Environment, Rank},
};
use std::time::{SystemTime, UNIX_EPOCH};
use tch::Device;

/// Writes `plan.yaml`, the recipe with every default and override in it, and `environment.json`, where it ran.
pub(crate) fn describe(recipe: &Recipe, device: Device, ranks: &Ranks) -> Result<()> {
    let plan = serde_yaml::to_string(recipe).map_err(|e| Error::recipe("plan.yaml", e.to_string()))?;
    write_atomic_bytes(&run::plan(&recipe.output), plan.as_bytes())?;
    let environment = Environment {
        af2: env!("CARGO_PKG_VERSION"),
        libtorch: env!("AF2_LIBTORCH"),
        device: format!("{device:?}"),
        threads: tch::get_num_threads(),
        cpus: crate::cores::allowed(),
        ranks: ranks
            .seats()
            .iter()
            .map(|seat| Rank {
                host: seat.host.clone(),
                cpus: seat.cpus.clone(),
                cores: seat.cores,
            })
            .collect(),
        cpu: cpu_model(),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        started_unix: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        command: std::env::args().skip(1).collect(),
    };
    environment.write(&recipe.output)
}

fn cpu_model() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|t| {
            t.lines()
                .find_map(|l| l.strip_prefix("model name"))
                .map(|l| l.trim_start_matches([' ', '\t', ':']).to_owned())
        })
        .unwrap_or_default()
}
