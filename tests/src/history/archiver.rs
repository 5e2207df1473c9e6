//! `carillon archive` as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::LOOK_EVERY;
use crate::cluster::ops_get;
use crate::process::{dies_with_us, end, free_address, signal, spawn_from_lasting_thread};

/// A loaded machine takes some seconds.
const END_MAX: Duration = Duration::from_secs(60);

/// Killed when dropped.
#[derive(Debug)]
pub struct Archiver {
    process: Child,
    ops: SocketAddr,
    log: PathBuf,
}

impl Archiver {
    /// Starts one with these flags and variables of the environment; its log goes to the folder, after that of those
    /// before it. Does not wait for anything.
    ///
    /// # Panics
    /// If `CARILLON_BIN` is not set.
    pub fn start(folder: &Path, flags: &[(&str, String)], variables: &[(&str, &str)]) -> Archiver {
        let binary = std::env::var_os("CARILLON_BIN")
            .expect("CARILLON_BIN names the executable; run `make test`");
        let log = folder.join("archive.log");
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let ops = free_address();
        let mut command = dies_with_us(Path::new(&binary));
        command.arg("archive").arg(format!("--archive-ops-listen={ops}"));
        command.args(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
        command.envs(variables.iter().copied()).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let process = spawn_from_lasting_thread(command).expect("start carillon");
        Archiver { process, ops, log }
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        end(&mut self.process);
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(&self.process, "TERM");
        self.ended()
    }

    /// How it has ended, if it has.
    ///
    /// # Panics
    /// If the system does not say.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("wait for a child")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(&mut self) -> ExitStatus {
        let asked = Instant::now();
        while asked.elapsed() < END_MAX {
            if let Some(status) = self.has_ended() {
                return status;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("the archiver does not end\n{}", self.log());
    }

    /// Waits until it reads the topic.
    ///
    /// # Panics
    /// If it ends before.
    pub async fn ready(&mut self) {
        while !ops_get(self.ops, "/readyz").await.is_ok_and(|(status, _)| status == 200) {
            let ended = self.process.try_wait().expect("wait for a child");
            assert!(ended.is_none(), "the archiver ended: {ended:?}\n{}", self.log());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The value of a counter or gauge, such as `archive_rows_total`.
    ///
    /// # Panics
    /// If it does not answer, or has no such.
    pub async fn metric(&self, name: &str) -> u64 {
        let (_, text) = ops_get(self.ops, "/metrics").await.expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a whole number")
    }

    /// What all archivers of the folder have logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}
