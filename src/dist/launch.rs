//! Several ranks on this machine, without Python: `af2 launch -n N -- train …`.

use crate::error::{Error, Result};
use crate::ffi::c10d::StoreServer;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{
    atomic::{AtomicBool, Ordering},
    Arc,
};
use std::time::{Duration, Instant};

/// How often the ranks are looked after.
const LOOK: Duration = Duration::from_millis(50);
/// After this a rank that was asked to end is killed.
const FAREWELL: Duration = Duration::from_secs(15);

/// A rank's exit code where it lost others.
const RANKS_LOST: i32 = 11;
/// What a shell says of a program that SIGINT has ended.
pub(crate) const INTERRUPTED: i32 = 130;

/// What is started, and how.
pub(crate) struct Launch {
    pub ranks: usize,
    /// What follows the program's name.
    pub arguments: Vec<String>,
    /// Start all ranks again so often after one has failed.
    pub restarts: usize,
    /// Seconds for the others to find out, save and end by themselves when one has failed.
    pub grace: Duration,
}

impl Launch {
    /// Runs the ranks to their end. Returns the exit code: 0, or that of the rank that failed first.
    ///
    /// # Errors
    /// A store or a process that cannot be started.
    pub(crate) fn run(&self) -> Result<i32> {
        let server = StoreServer::start()?;
        let program = std::env::current_exe().map_err(|e| Error::io("af2", e))?;
        let signals = Signals::forward()?;
        for attempt in 0.. {
            let mut running = Vec::with_capacity(self.ranks);
            for rank in 0..self.ranks {
                let mut command = Command::new(&program);
                command.args(&self.arguments);
                self.environment(&mut command, rank, server.port, attempt);
                if rank > 0 {
                    // Every rank but the first speaks under its name.
                    command.stdout(Stdio::piped()).stderr(Stdio::piped());
                }
                crate::ffi::ends_with_us(&mut command);
                let mut child = command.spawn().map_err(|e| Error::io(&program, e))?;
                speak_for(rank, &mut child);
                running.push(Some(child));
            }
            let code = self.wait(&mut running, &signals)?;
            if code == 0 || attempt >= self.restarts || signals.ended() {
                return Ok(code);
            }
            crate::say!(
                "launch: starting all ranks again ({} of {})",
                attempt + 1,
                self.restarts
            );
        }
        Ok(0)
    }

    fn environment(&self, command: &mut Command, rank: usize, port: u16, attempt: usize) {
        let world = self.ranks.to_string();
        for (name, value) in [
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("WORLD_SIZE", world.clone()),
            ("LOCAL_WORLD_SIZE", world),
            ("MASTER_ADDR", "127.0.0.1".into()),
            ("MASTER_PORT", port.to_string()),
            ("TORCHELASTIC_USE_AGENT_STORE", "True".into()),
            ("TORCHELASTIC_RESTART_COUNT", attempt.to_string()),
        ] {
            command.env(name, value);
        }
        let cores = crate::cores::allowed() / self.ranks;
        for (name, value) in [
            ("OMP_NUM_THREADS", cores.max(1).to_string()),
            // NCCL's own meeting, too, is this machine's alone.
            ("NCCL_SOCKET_IFNAME", "lo".into()),
        ] {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
    }

    fn wait(&self, running: &mut [Option<Child>], signals: &Signals) -> Result<i32> {
        let mut first_failure: Option<(i32, Instant)> = None;
        let mut asked: Option<Instant> = None;
        let mut interrupts = 0;
        while running.iter().any(Option::is_some) {
            for signal in signals.take() {
                if signal == libc::SIGINT {
                    interrupts += 1;
                }
                // A terminal tells the ranks, too: SIGINT from both would be their second.
                let passed = match signal {
                    libc::SIGUSR1 => libc::SIGUSR1,
                    _ => libc::SIGTERM,
                };
                running.iter().flatten().for_each(|child| send(child, passed));
            }
            if interrupts > 1 {
                for child in running.iter_mut().flatten() {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                return Ok(INTERRUPTED);
            }
            let mut failed: Vec<i32> = Vec::new();
            for (rank, place) in running.iter_mut().enumerate() {
                let Some(child) = place else { continue };
                let Some(status) = child
                    .try_wait()
                    .map_err(|e| Error::io(format!("rank {rank}"), e))?
                else {
                    continue;
                };
                *place = None;
                if !status.success() {
                    use std::os::unix::process::ExitStatusExt;
                    crate::say!("launch: rank {rank} ended with {status}");
                    failed.push(status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(1));
                }
            }
            // Of those that ended together the one that had a fault of its own, not those that lost it.
            let cause = failed.iter().find(|code| **code != RANKS_LOST).or(failed.first());
            if let (Some(code), None) = (cause, first_failure) {
                first_failure = Some((*code, Instant::now()));
            }
            // The others find out by themselves, save what they can and end; who does not is asked, then made to.
            if first_failure.is_some_and(|(_, at)| at.elapsed() > self.grace) {
                match asked {
                    None => {
                        running
                            .iter()
                            .flatten()
                            .for_each(|child| send(child, libc::SIGTERM));
                        asked = Some(Instant::now());
                    }
                    Some(at) if at.elapsed() > FAREWELL => {
                        for child in running.iter_mut().flatten() {
                            let _ = child.kill();
                        }
                    }
                    Some(_) => {}
                }
            }
            std::thread::sleep(LOOK);
        }
        Ok(first_failure.map_or(0, |(code, _)| code))
    }
}

/// Passes on what a rank writes, line by line, each behind its number.
fn speak_for(rank: usize, child: &mut Child) {
    fn lines(rank: usize, from: impl std::io::Read + Send + 'static) {
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(|l| l.ok()) {
                crate::say!("[rank {rank}] {}", String::from_utf8_lossy(&line));
            }
        });
    }
    if let Some(out) = child.stdout.take() {
        lines(rank, out);
    }
    if let Some(err) = child.stderr.take() {
        lines(rank, err);
    }
}

fn send(child: &Child, signal: i32) {
    crate::ffi::signal(child.id(), signal);
}

/// Signals that go on to the ranks.
struct Signals(Vec<(i32, Arc<AtomicBool>, AtomicBool)>);

impl Signals {
    fn forward() -> Result<Self> {
        let mut all = vec![libc::SIGTERM, libc::SIGINT, libc::SIGUSR1];
        // Under nohup a closed terminal ends nothing.
        if !crate::ffi::ignores(libc::SIGHUP) {
            all.push(libc::SIGHUP);
        }
        let flags = all.into_iter().map(|signal| {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, flag.clone())
                .map_err(|e| Error::io(format!("signal {signal}"), e))?;
            Ok((signal, flag, AtomicBool::new(false)))
        });
        Ok(Signals(flags.collect::<Result<_>>()?))
    }

    fn take(&self) -> Vec<i32> {
        let come = self.0.iter().filter(|(_, flag, seen)| {
            let now = flag.swap(false, Ordering::SeqCst);
            seen.fetch_or(now, Ordering::SeqCst);
            now
        });
        come.map(|(signal, ..)| *signal).collect()
    }

    /// Whether the run was asked to end: then it is not started again.
    fn ended(&self) -> bool {
        let end = |s: i32| s != libc::SIGUSR1;
        self.0
            .iter()
            .any(|(s, _, seen)| end(*s) && seen.load(Ordering::SeqCst))
    }
}
