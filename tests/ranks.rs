//! Runs and ranks that meet: on one folder, with different recipes, at an address where somebody else listens.
#![allow(clippy::panic, clippy::unwrap_used, unsafe_code)]

mod common;

use common::{af2, golden};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder with four short clips, a model to start from, and a recipe whose run lasts until it is killed.
struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let run = Run {
            folder: tempfile::tempdir().unwrap(),
        };
        let root = run.folder.path();
        run.model("base", "config.yaml");
        run.data("data", 4);
        let text = format!(
            "name: ranks\nseed: 7\ndevice: cpu\noutput: {0}/run\nmodel: {{checkpoint: {0}/base}}\n\
             data: {{root: {0}/data, sets: {{a: a/train.json}}}}\ntrain: {{timeout: 60, log_every: 1}}\nstages:\n  \
             - {{name: one, train: [cross_attention], windows: 1, sets: {{a: 1}}, optim: {{steps: 100000, batch_size: 1, \
             learning_rate: 1.0e-4}}}}\neval: {{sets: [a], windows: 1}}\n",
            root.display()
        );
        fs::write(run.path("recipe.yaml"), text).unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The tiny model; `config` says what its tensors do not.
    fn model(&self, name: &str, config: &str) {
        let base = self.path(name);
        fs::create_dir_all(&base).unwrap();
        for part in ["safe_ckpt", "clap_ckpt", "llm"] {
            symlink(golden("F_tiny").join(part), base.join(part)).unwrap();
        }
        fs::copy(golden("F_tiny").join(config), base.join("af2.yaml")).unwrap();
    }

    fn data(&self, name: &str, items: usize) {
        let folder = self.path(name).join("a");
        fs::create_dir_all(&folder).unwrap();
        let mut data = serde_json::Map::new();
        for i in 0..items {
            common::wav(&folder.join(format!("{i}.wav")), 2_000 + i);
            let item = json!({"name": format!("{i}.wav"), "prompt": "What is heard?", "output": "a sound"});
            data.insert(i.to_string(), item);
        }
        let set = json!({"split": "train", "split_path": "a", "flamingo_task": "a", "total_num": items, "data": data});
        fs::write(folder.join("train.json"), set.to_string()).unwrap();
    }

    fn command(&self, before: &[&str], more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
        command
            .args(before)
            .arg("train")
            .arg(self.path("recipe.yaml"))
            .args(more);
        command
            .env("OMP_NUM_THREADS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// One of several ranks that nobody starts together.
    fn rank(&self, rank: usize, world: usize, address: SocketAddr, more: &[&str]) -> Child {
        self.as_rank(rank, world, address, more).spawn().unwrap()
    }

    fn as_rank(&self, rank: usize, world: usize, address: SocketAddr, more: &[&str]) -> Command {
        let mut command = self.command(&[], more);
        for (name, value) in [
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", world.to_string()),
            ("MASTER_ADDR", address.ip().to_string()),
            ("MASTER_PORT", address.port().to_string()),
        ] {
            command.env(name, value);
        }
        command
    }

    /// What the first rank has written of where the ranks are.
    fn environment(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path("run/environment.json")).unwrap()).unwrap()
    }

    /// The losses that it has logged.
    fn losses(&self) -> Vec<f64> {
        let events = fs::read_to_string(self.path("run/events/one/events.jsonl")).unwrap();
        let lines = events
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        lines.filter_map(|l| l["loss"].as_f64()).collect()
    }

    /// Waits until the run has made a step.
    fn wait_for_a_step(&self, child: &mut Child) {
        let events = self.path("run/events/one/events.jsonl");
        let until = Instant::now() + Duration::from_secs(60);
        while fs::metadata(&events).map_or(0, |m| m.len()) == 0 {
            assert!(Instant::now() < until, "no step");
            if let Some(status) = child.try_wait().unwrap() {
                panic!("ended before its first step: {status}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The exit code and what was said; a process that does not end is killed.
fn ended(mut child: Child) -> (i32, String) {
    let until = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap_or(-1), said)
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_second_run_on_a_folder_is_refused_and_names_the_first() {
    let run = Run::new();
    let mut first = run.command(&[], &[]).spawn().unwrap();
    run.wait_for_a_step(&mut first);
    let (recipe, output) = (run.text("recipe.yaml"), run.text("run"));
    let plan = fs::read(run.path("run/plan.yaml")).unwrap();
    // Under another name, too, and by whatever else writes into it.
    let same = run.text("link");
    symlink(run.path("run"), &same).unwrap();
    let process = format!("process {} on ", first.id());
    for second in [
        &["train", &recipe, "seed=8"][..],
        &["train", &recipe, "--resume", "auto", &format!("output={same}")],
        &["launch", "-n", "2", "--", "train", &recipe],
        &["eval", &recipe, "--score-only"],
        &["demo", "--smallest", "--output", &output],
        &["synth", "recipes/demo.yaml", &format!("output={output}")],
        &["lm", "recipes/demo.yaml", &format!("output={output}")],
        &["clap", "recipes/demo.yaml", &format!("output={output}")],
    ] {
        let (code, out, said) = af2(second);
        assert_eq!(code, 3, "{second:?}: {out}{said}");
        for piece in [
            "run.lock: another run has this folder: ",
            &process,
            " since ",
            &recipe,
        ] {
            assert!(said.contains(piece), "{second:?}: `{piece}` is not in {said}");
        }
    }
    assert!(
        fs::read(run.path("run/plan.yaml")).unwrap() == plan,
        "a second run has written"
    );
    // A report only reads.
    let (code, _, said) = af2(&["report", &output]);
    assert!(code != 0 && !said.contains("another run"), "{said}");
    kill(first);
    let (code, said) = ended(run.command(&[], &["stages.one.optim.steps=1"]).spawn().unwrap());
    assert_eq!(code, 0, "{said}");
    assert!(!run.path("run/run.lock").exists());
}

#[test]
fn ranks_that_were_given_different_runs_are_named_with_the_keys() {
    let run = Run::new();
    let address = free();
    let other = [
        "seed=9",
        "stages.one.optim.batch_size=2",
        "stages.one.train=[lm]",
        "train.precision=amp_bf16",
        // A machine's own.
        "data.threads=1",
    ];
    let ranks: Vec<Child> = (0..3)
        .map(|rank| run.rank(rank, 3, address, if rank == 1 { &other } else { &[] }))
        .collect();
    for child in ranks {
        let (code, said) = ended(child);
        assert_eq!(code, 11, "{said}");
        for piece in [
            "the ranks were not given the same run: rank 1 differs from ranks 0, 2:",
            "\n  seed: 9 on rank 1, 7 on ranks 0, 2",
            "\n  stages.one.optim.batch_size: 2 on rank 1, 1 on ranks 0, 2",
            "\n  stages.one.train.0: lm on rank 1, cross_attention on ranks 0, 2",
            "\n  train.precision: amp_bf16 on rank 1, fp32 on ranks 0, 2",
        ] {
            assert!(said.contains(piece), "`{piece}` is not in {said}");
        }
        assert!(!said.contains("data.threads"), "{said}");
    }
    assert!(!run.path("run").exists());
}

/// Machines may have their own copies of what a recipe names: these must be copies.
#[test]
fn ranks_that_read_other_files_are_named_with_what_differs() {
    let run = Run::new();
    run.data("more", 5);
    run.model("other", "config.yaml");
    let config = fs::read_to_string(golden("F_tiny/config.yaml")).unwrap();
    let config = config.replace("max_num_window: 3", "max_num_window: 2");
    fs::write(run.path("other/af2.yaml"), config).unwrap();
    for (other, expected) in [
        (
            format!("data.root={}", run.text("more")),
            "one: its data: rank 1 differs from rank 0:\n  a/train: 5 items, ",
        ),
        (
            format!("model.checkpoint={}", run.text("other")),
            "one: its model: rank 1 differs from rank 0:\n  windows: 2 on rank 1, 3 on rank 0",
        ),
    ] {
        let address = free();
        let ranks = [run.rank(0, 2, address, &[]), run.rank(1, 2, address, &[&other])];
        for child in ranks {
            let (code, said) = ended(child);
            assert_eq!(code, 11, "{said}");
            assert!(said.contains(expected), "`{expected}` is not in {said}");
        }
    }
}

#[test]
fn who_listens_and_is_no_store_holds_no_rank_beyond_the_timeout() {
    let run = Run::new();
    let (silent, babbling) = (listener(b""), listener(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let ranks = [silent, babbling].map(|address| run.rank(1, 2, address, &["train.timeout=2"]));
    for child in ranks {
        let (code, said) = ended(child);
        assert_eq!(code, 11, "{said}");
        assert!(said.contains("rank 1 of 2: no meeting at 127.0.0.1:"), "{said}");
        assert!(said.contains(" within 2 s: "), "{said}");
    }
}

/// Accepts whoever comes, answers with these words, and waits.
fn listener(words: &'static [u8]) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let serve = move |mut peer: TcpStream| {
        let mut heard = [0; 64];
        while peer.read(&mut heard).is_ok_and(|n| n > 0) {
            let _ = peer.write_all(words);
        }
    };
    std::thread::spawn(move || {
        for peer in socket.incoming().flatten() {
            std::thread::spawn(move || serve(peer));
        }
    });
    address
}

#[test]
fn ranks_of_one_machine_listen_to_it_alone() {
    let run = Run::new();
    let mut launcher = run.command(&["launch", "-n", "2", "--"], &[]).spawn().unwrap();
    run.wait_for_a_step(&mut launcher);
    let id = launcher.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let mut all: Vec<u32> = children.split_whitespace().map(|p| p.parse().unwrap()).collect();
    assert_eq!(all.len(), 2);
    all.push(id);
    let addresses: Vec<String> = all.iter().flat_map(|p| listening(*p)).collect();
    kill(launcher);
    // The store, and each rank's Gloo.
    assert!(addresses.len() >= 3, "{addresses:?}");
    for address in &addresses {
        assert!(address.starts_with("0100007F:"), "{addresses:?}");
    }
}

/// Where a process's sockets listen, as the kernel writes it.
fn listening(process: u32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let own: Vec<String> = links
        .filter_map(|f| Some(fs::read_link(f.path()).ok()?.display().to_string()))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let parts: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (parts[1], parts[3], parts[9]);
            if state == "0A" && own.contains(&format!("socket:[{inode}]")) {
                found.push(address.to_owned());
            }
        }
    }
    found
}

#[test]
fn half_an_environment_is_refused_by_its_variables() {
    let run = Run::new();
    let refused = |variables: &[(&str, &str)]| {
        let mut command = run.command(&[], &[]);
        command.envs(variables.iter().copied());
        ended(command.spawn().unwrap())
    };
    for (variables, expected) in [
        (&[("WORLD_SIZE", "4")][..], "WORLD_SIZE=4 is set, but not RANK"),
        (
            &[("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")],
            "by OMPI_COMM_WORLD_RANK=1 and OMPI_COMM_WORLD_SIZE=2 (Open MPI) this process is one of 2",
        ),
        (&[("PMIX_RANK", "1")], "PMIX_RANK=1 is set, but not RANK"),
    ] {
        let (code, said) = refused(variables);
        assert_eq!(code, 11, "{said}");
        assert!(said.contains(expected), "`{expected}` is not in {said}");
        assert!(!Path::new(&run.path("run")).exists());
    }
}

/// Threads of a process that decode.
fn loaders(process: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let names = tasks.filter_map(|t| fs::read_to_string(t.path().join("comm")).ok());
    names.filter(|n| n.starts_with("loader-")).count()
}

/// Binds what a command starts to one core.
fn bind(command: &mut Command, core: usize) {
    use std::os::unix::process::CommandExt;
    let only = move || {
        // SAFETY: a mask on the stack, all zero but for one core.
        let bound = unsafe {
            let mut mask: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(core, &mut mask);
            libc::sched_setaffinity(0, size_of_val(&mask), &mask)
        };
        match bound {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call, which may be made between fork and exec.
    unsafe { command.pre_exec(only) };
}

/// The environment's OMP_NUM_THREADS=1 is libtorch's matter: the threads that decode are as many as the cores.
#[test]
fn a_rank_decodes_on_its_share_of_the_cores() {
    let run = Run::new();
    let all = af2::cores::allowed();
    for (more, expected) in [(&[][..], all), (&["data.threads=3"], 3)] {
        let _ = fs::remove_dir_all(run.path("run"));
        let mut alone = run.command(&[], more).spawn().unwrap();
        run.wait_for_a_step(&mut alone);
        let (found, told) = (loaders(alone.id()), run.environment());
        kill(alone);
        assert_eq!(found, expected, "{more:?}");
        assert_eq!(
            (&told["threads"], &told["ranks"][0]["cores"]),
            (&json!(1), &json!(all))
        );
    }
    // Two ranks, each with all cores, then each with one of its own.
    let cores: Vec<usize> = (0..1024).filter(|n| may_use(*n)).take(2).collect();
    let [first, second] = cores[..] else {
        return;
    };
    for bound in [false, true] {
        let _ = fs::remove_dir_all(run.path("run"));
        let address = free();
        let mut ranks = [first, second].map(|core| {
            let rank = usize::from(core == second);
            let mut command = run.as_rank(rank, 2, address, &[]);
            if bound {
                bind(&mut command, core);
            }
            command.spawn().unwrap()
        });
        run.wait_for_a_step(&mut ranks[0]);
        let told = run.environment();
        let found = [0, 1].map(|rank: usize| loaders(ranks[rank].id()));
        ranks.into_iter().for_each(kill);
        let expected = if bound { 1 } else { (all / 2).max(1) };
        assert_eq!(found, [expected; 2], "{bound}");
        for (rank, core) in [first, second].iter().enumerate() {
            let told = &told["ranks"][rank];
            assert_eq!(told["cores"], json!(expected), "{told}");
            assert_eq!(told["cpus"] == json!(core.to_string()), bound, "{told}");
        }
    }
}

fn may_use(core: usize) -> bool {
    // SAFETY: a mask on the stack to write to.
    unsafe {
        let mut mask: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&mask), &mut mask) == 0 && libc::CPU_ISSET(core, &mask)
    }
}

#[test]
fn clips_whose_features_are_kept_are_encoded_once_by_all_ranks_together() {
    let run = Run::new();
    run.data("data", 19);
    fs::write(run.path("data/a/7.wav"), "no sound").unwrap();
    let train = |world: &str, keep: bool| {
        let _ = fs::remove_dir_all(run.path("run"));
        let keep = format!("stages.one.cache_features={keep}");
        let more = [&keep, "stages.one.optim.steps=4", "data.skip_budget=1"];
        let (code, said) = ended(
            run.command(&["launch", "-n", world, "--"], &more)
                .spawn()
                .unwrap(),
        );
        assert_eq!(code, 0, "{said}");
        (run.losses(), said)
    };
    for (world, encoded) in [
        ("2", "18 encoded by 2 ranks, 8 to 10 by each"),
        ("3", "18 encoded by 3 ranks, 2 to 8 by each"),
    ] {
        let (losses, said) = train(world, true);
        assert!(
            said.contains("one: encode: 19/19 (100%)") && said.contains(encoded),
            "{said}"
        );
        let (plain, said) = train(world, false);
        assert!(!said.contains("encode"), "{said}");
        assert_eq!((losses.len(), plain.len()), (4, 4));
        for (kept, plain) in losses.iter().zip(&plain) {
            assert!((kept - plain).abs() < 1e-5 * plain, "{losses:?} {plain}");
        }
    }
}
