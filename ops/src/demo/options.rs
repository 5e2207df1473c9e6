//! What `carillon demo` can be told.

use carillon_edge::Sabotage;
use carillon_persist::StoreUrl;

/// The most clients: two open files each, and a million is what systems allow.
const CLIENTS_MAX: u64 = 400_000;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Devices to import.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(super) devices: u64,
    /// How many of them connect and poll over TLS.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    pub(super) clients: u64,
    /// Seconds over which messages are written.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,
    /// An empty database, mysql://USER:PASSWORD@HOST:PORT/DATABASE; without it an SQLite file that is deleted at the
    /// end.
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<StoreUrl>,
    /// Plant a fault in the edge, to see that the demo finds it.
    #[arg(long, value_enum, value_name = "FAULT")]
    sabotage: Option<Fault>,
    /// What the fleet and the order of events are drawn from.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Least level of the tiers' log that is shown, also by module, as tracing's EnvFilter takes it.
    #[arg(long, default_value = "error", value_name = "FILTER")]
    pub(super) log_filter: String,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Fault {
    /// Hide one message from each device.
    Drop,
    /// Leak one message to each device.
    Extra,
    /// Keep one message that was recalled.
    Stale,
}

impl Options {
    pub(super) fn sabotage(&self) -> Sabotage {
        match self.sabotage {
            None => Sabotage::None,
            Some(Fault::Drop) => Sabotage::Drop,
            Some(Fault::Extra) => Sabotage::Extra,
            Some(Fault::Stale) => Sabotage::Stale,
        }
    }

    /// Connected devices are among the imported ones.
    pub(super) fn fault(&self) -> Option<String> {
        (self.clients > self.devices)
            .then(|| format!("--clients {} is more than --devices {}", self.clients, self.devices))
    }
}
