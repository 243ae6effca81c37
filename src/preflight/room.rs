//! Whether what a run keeps fits on the disk.

use super::listing::{Kind, Lack, Report};
use crate::plan;
use crate::plan::disk::{self, Disk, Shapes};
use crate::recipe::Recipe;
use std::path::Path;

/// Looks at the file system of the run's folder. Sizes that nothing tells are not looked at: what they would be read off is
/// missing, and told.
pub(super) fn look(recipe: &Recipe, stages: &[usize], ranks: usize, report: &mut Report) {
    let Some((need, free)) = short_of(recipe, stages, ranks) else {
        return;
    };
    let gb = |n: u64| format!("{:.1} GB", n as f64 / 1e9);
    let found = format!(
        "{} to be written and kept, {} free on its file system",
        gb(need),
        gb(free)
    );
    let mut get = Vec::new();
    let mut fewer = recipe.clone();
    let mut keys = Vec::new();
    for (i, stage) in fewer.stages.iter_mut().enumerate() {
        if stages.contains(&i) && stage.save.every > 0 && stage.save.keep_every > 0 {
            stage.save.keep_every = 0;
            keys.push(format!("stages.{}.save.keep_every=0", stage.name));
        }
    }
    if let Some(n) = needed(&fewer, stages, ranks).filter(|_| !keys.is_empty()) {
        get.push(format!("{}: the newest alone stay, {}", keys.join(" "), gb(n)));
    }
    get.push("output=DIR, on a larger disk; `af2 plan RECIPE` says what takes how much".into());
    get.push("train.check_room=false starts all the same".into());
    let lack = Lack::new(Kind::Room, "output", &recipe.output, found, &[]).get(get);
    match recipe.train.check_room {
        true => report.lacks.push(lack),
        false => report
            .notes
            .push(format!("output: {}: {}", lack.path.display(), lack.found)),
    }
}

/// Bytes that these stages need, and bytes that are free, where those are fewer.
fn short_of(recipe: &Recipe, stages: &[usize], ranks: usize) -> Option<(u64, u64)> {
    let need = needed(recipe, stages, ranks)?;
    let free = free(&recipe.output)?;
    (need > free).then_some((need, free))
}

/// Bytes that these stages need beside what they have written already; none where nothing tells the model's sizes.
pub(crate) fn needed(recipe: &Recipe, stages: &[usize], ranks: usize) -> Option<u64> {
    let (config, _) = plan::config(recipe).ok()?;
    let shapes = Shapes::of(&config).ok()?;
    let mut written = 0u64;
    let mut disks: Vec<Disk> = Vec::new();
    for stage in stages.iter().filter_map(|i| recipe.stages.get(*i)) {
        let (steps, micro) = (
            stage.optim.steps as u64,
            stage.optim.split(ranks).map_or(1, |(_, n)| n),
        );
        disks.push(shapes.stage(recipe, stage, &config, steps, micro as u64));
        let folder = recipe.stage_folder(&stage.name);
        written += bytes_in(&folder) + bytes_in(&folder.join("safe_ckpt"));
    }
    let (_, most) = disk::run(disks);
    Some(most.saturating_sub(written))
}

/// Bytes of the files in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |f: std::fs::DirEntry| f.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
    files.filter_map(size).sum()
}

/// Bytes that this user may still write where a folder is, or would be made. None where the file system does not say.
pub(crate) fn free(folder: &Path) -> Option<u64> {
    let folder = std::path::absolute(folder).ok()?;
    let there = folder.ancestors().find(|p| p.exists())?;
    let system = rustix::fs::statvfs(there).ok()?;
    // Some network file systems count nothing.
    (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
}
