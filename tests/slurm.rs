//! `scripts/slurm.sh` between stand-ins of Slurm's commands: what is told to whom, what is queued again, what is not.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    /// `ranks` is what stands for all ranks together: a shell script's body.
    fn new(ranks: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let job = Job { folder };
        job.program(
            "srun",
            "echo \"srun $*\" >> \"$LOG\"\nwhile [[ $1 == --* ]]; do shift; done\nexec \"$@\"",
        );
        let met = "echo \"meet at $MASTER_ADDR:$MASTER_PORT\" >> \"$LOG\"";
        job.program("af2", &format!("{met}\necho $$ > \"$LOG.pid\"\n{ranks}"));
        job.program(
            "scancel",
            "echo \"scancel $*\" >> \"$LOG\"\nkill -TERM \"$(cat \"$LOG.pid\")\"",
        );
        job.program(
            "scontrol",
            "[[ $1 == show ]] && echo first-node || echo \"scontrol $*\" >> \"$LOG\"",
        );
        job
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, body: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/usr/bin/env bash\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn start(&self) -> Child {
        self.start_on(2)
    }

    fn start_on(&self, nodes: usize) -> Child {
        let path = format!(
            "{}:{}",
            self.folder.path().display(),
            std::env::var("PATH").unwrap()
        );
        Command::new("bash")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/slurm.sh"))
            .args(["recipe.yaml", "seed=3"])
            .env("PATH", path)
            .env("LOG", self.path("log"))
            .env("AF2", self.path("af2"))
            .env("AF2_RESTARTS", "2")
            .env("SLURM_JOB_ID", "77")
            .env("SLURM_JOB_NODELIST", "n[1-2]")
            .env("SLURM_JOB_NUM_NODES", nodes.to_string())
            .env("SLURM_CPUS_PER_TASK", "12")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Waits for the ranks, sends the script USR1, and returns its exit code.
    fn told(&self) -> i32 {
        let mut job = self.start();
        let until = Instant::now() + Duration::from_secs(20);
        while !self.path("log.pid").exists() {
            assert!(Instant::now() < until && job.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(200));
        let done = Command::new("kill")
            .args(["-USR1", &job.id().to_string()])
            .status();
        assert!(done.unwrap().success());
        ended(&mut job)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }
}

/// The exit code; −1 where the script does not end.
fn ended(job: &mut Child) -> i32 {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if let Some(status) = job.try_wait().unwrap() {
            return status.code().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    job.kill().unwrap();
    -1
}

#[test]
fn near_its_end_a_job_saves_and_is_queued_again() {
    for slow in ["", "sleep 0.7; "] {
        // Ranks that save for longer, or shorter, than the shell takes to wait again.
        let job = Job::new(&format!(
            "trap '{slow}echo saved >> \"$LOG\"; exit 12' TERM\nfor i in {{1..600}}; do sleep 0.1; done"
        ));
        assert_eq!(job.told(), 12);
        let log = job.log();
        for line in [
            "srun --cpus-per-task=12 ",
            "train recipe.yaml seed=3 --resume auto",
            "scancel --signal=TERM 77.0",
            "saved",
            "scontrol requeue 77",
        ] {
            assert!(log.contains(line), "`{line}` is not in\n{log}");
        }
    }
}

#[test]
fn ranks_that_die_while_they_save_do_not_keep_the_job_from_the_queue() {
    let job = Job::new("trap 'kill -KILL $$' TERM\nfor i in {1..600}; do sleep 0.1; done");
    assert_eq!(job.told(), 137);
    assert!(job.log().contains("scontrol requeue 77"), "{}", job.log());
}

#[test]
fn lost_ranks_are_started_again_a_few_times_and_faults_are_not() {
    for (code, starts) in [(11, 3), (137, 3), (4, 1), (12, 1), (0, 1)] {
        let job = Job::new(&format!("exit {code}"));
        assert_eq!(ended(&mut job.start()), code);
        let log = job.log();
        assert_eq!(log.matches("srun ").count(), starts, "{code}: {log}");
        assert!(!log.contains("requeue"), "{code}: {log}");
    }
}

#[test]
fn ranks_of_one_node_meet_where_nobody_else_listens() {
    for (nodes, address) in [(1, "127.0.0.1"), (2, "first-node")] {
        let job = Job::new("exit 0");
        assert_eq!(ended(&mut job.start_on(nodes)), 0);
        let expected = format!("meet at {address}:{}", 20_000 + 77);
        assert!(job.log().contains(&expected), "{}", job.log());
    }
}
