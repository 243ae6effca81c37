//! Who may have a folder, and what is said to the second.

use super::*;

fn other(boot: &str) -> Holder {
    Holder {
        host: "node7".into(),
        boot: boot.into(),
        process: 4711,
        command: "af2 train there.yaml".into(),
        since_unix: 1_000_000_000,
        launcher: None,
        word: "another".into(),
        renewed: count(3),
    }
}

#[test]
fn a_folder_is_one_runs_and_its_own_process_may_hold_it_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = run::lock::path(folder.path());
    let first = hold(folder.path(), false).unwrap();
    let nested = hold(folder.path(), false).unwrap();
    drop(first);
    // Whoever opens the file itself is as another process.
    let e = take(&path, false).err().unwrap();
    assert_eq!(e.exit_code(), 3);
    let text = e.to_string();
    for piece in [
        "run.lock: another run has this folder: process ",
        &std::process::id().to_string(),
        &machine::host(),
        " UTC: ",
        "hint: ",
    ] {
        assert!(text.contains(piece), "`{piece}` is not in {text}");
    }
    assert!(!text.contains("another host"), "{text}");
    drop(nested);
    assert!(!path.exists());
    drop(hold(folder.path(), false).unwrap());
}

#[test]
fn a_newer_versions_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = run::lock::path(folder.path());
    let text = "{\"version\": 2, \"owner\": {\"host\": \"node7\"}}";
    fs::write(&path, text).unwrap();
    let e = take(&path, false).err().unwrap().to_string();
    assert!(
        e.contains("run.lock: version: ") && e.contains("found version 2"),
        "{e}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn what_a_crash_leaves_is_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let path = run::lock::path(folder.path());
    // A process of this host that is gone; a host that has not renewed its name; half a file, and none of ours.
    let here = serde_json::to_string(&other(&machine::boot())).unwrap();
    let there = serde_json::to_string(&other("elsewhere")).unwrap();
    for (text, old) in [
        (&here[..], false),
        (&there, true),
        (&there[..40], false),
        ("", false),
    ] {
        fs::write(&path, text).unwrap();
        if old {
            let then = SystemTime::now() - 2 * STALE;
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(then)
                .unwrap();
        }
        let held = hold(folder.path(), false).unwrap();
        assert_eq!(
            Holder::read(&File::open(&path).unwrap()).unwrap().process,
            std::process::id()
        );
        drop(held);
    }
}

#[test]
fn another_host_that_renews_its_name_has_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = run::lock::path(folder.path());
    let mut there = other("elsewhere");
    let file = open(&path).unwrap();
    there.write(&file).unwrap();
    let said = std::thread::scope(|scope| {
        let second = scope.spawn(|| hold(folder.path(), false).err().unwrap().to_string());
        while !second.is_finished() {
            there.renewed = count(there.renewed.parse::<u64>().unwrap() + 1);
            there.write(&file).unwrap();
            std::thread::sleep(LOOK);
        }
        second.join().unwrap()
    });
    for piece in [
        "process 4711 on node7, since 2001-09-09 01:46:40 UTC: af2 train there.yaml",
        "that is another host",
        "cannot be seen from here",
        "where node7 is known to be gone, remove this file",
    ] {
        assert!(said.contains(piece), "`{piece}` is not in {said}");
    }
}

#[test]
fn a_run_that_is_started_again_waits_for_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = run::lock::path(folder.path());
    let before = take(&path, false).unwrap();
    std::thread::scope(|scope| {
        let next = scope.spawn(|| take(&path, true).is_ok());
        std::thread::sleep(2 * BRIEFLY);
        assert!(!next.is_finished());
        drop(before);
        assert!(next.join().unwrap());
    });
}

#[test]
fn a_job_that_starts_again_is_known_and_a_users_shell_in_it_is_not() {
    let of = |variables: &[(&str, &str)]| {
        launcher(|name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, v)| v.to_string())
        })
    };
    let job = ("SLURM_JOB_ID", "7");
    assert_eq!(of(&[job, ("SLURM_STEP_ID", "0")]).unwrap(), "Slurm job 7");
    assert_eq!(of(&[job, ("SLURM_RESTART_COUNT", "1")]).unwrap(), "Slurm job 7");
    assert_eq!(of(&[("TORCHELASTIC_RUN_ID", "x")]).unwrap(), "torchrun's x");
    for alone in [
        &[job][..],
        &[job, ("SLURM_STEP_ID", "4294967290")],
        &[("TORCHELASTIC_RUN_ID", "none")],
        &[],
    ] {
        assert_eq!(of(alone), None, "{alone:?}");
    }
}

#[test]
fn seconds_are_days() {
    for (unix, day) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (951_827_696, "2000-02-29 12:34:56 UTC"),
        (4_107_542_400, "2100-03-01 00:00:00 UTC"),
    ] {
        assert_eq!(utc(unix), day);
    }
}
