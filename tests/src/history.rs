//! What the history goes to, as servers of the test's own: a broker that speaks Kafka's protocol, an object store that
//! speaks S3's, and DuckDB, which reads the files as an analyst would. `scripts/install-test-deps.sh` puts all three
//! into the clone.

mod archiver;
mod broker;
mod duckdb;
mod errors;
mod moves;
mod s3;
mod tls_front;
mod told;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use archiver::Archiver;
pub use broker::Broker;
pub use duckdb::{duckdb, duckdb_all};
pub use errors::{BrokerError, BrokerErrors};
pub use moves::Moves;
pub use s3::S3;
pub use tls_front::TlsFront;
pub use told::{by_name, check_told, outbox, read_lake};

use crate::process::{end, spawn_from_lasting_thread};

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A loaded machine takes some seconds.
const START_MAX: Duration = Duration::from_secs(60);

/// Where the programs are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("history/.python")
}

/// # Panics
/// If it is not installed.
fn program(path: &str) -> PathBuf {
    let program = folder().join(path);
    assert!(
        program.is_file(),
        "{} is not there, and no test goes without it: run scripts/install-test-deps.sh",
        program.display()
    );
    program
}

/// Starts a server and waits until `is_ready`; `None` if it ends before, as when another took its port.
fn start(mut command: Command, is_ready: impl Fn() -> bool) -> Option<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = spawn_from_lasting_thread(command).expect("start a server");
    let started_at = Instant::now();
    while !is_ready() {
        if matches!(server.try_wait(), Ok(Some(_))) {
            return None;
        }
        if started_at.elapsed() > START_MAX {
            end(&mut server);
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Some(server)
}

fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}
