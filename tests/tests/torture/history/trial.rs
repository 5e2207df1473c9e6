//! Central, a broker behind a proxy, the archiver and the lake.

use std::path::Path;
use std::time::Duration;

use carillon_persist::history::Record;
use carillon_persist::history::lake::{Lake, LakeOptions};
use carillon_tests::cluster::{Cluster, Store, ops_get};
use carillon_tests::history::{Archiver, Broker, BrokerErrors, outbox, read_lake};
use carillon_tests::process::free_address;
use carillon_tests::proxy::Proxy;
use carillon_tests::pushes::metric;
use carillon_world::ShardId;
use tempfile::TempDir;

use super::PATIENCE;

const TOPIC: &str = "carillon.history";
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Trial {
    pub(super) cluster: Cluster,
    pub(super) archiver: Archiver,
    pub(super) proxy: Proxy,
    pub(super) errors: BrokerErrors,
    lake: Lake,
    place: String,
    brokers: String,
    folder: TempDir,
    _broker: Broker,
}

impl Trial {
    pub(super) async fn start(store: Store, flags: &[&str]) -> Trial {
        let folder = tempfile::Builder::new().prefix("carillon-").tempdir().expect("a folder");
        let listen = free_address();
        let proxy = Proxy::start(listen).await;
        let errors = BrokerErrors::at(&proxy);
        let broker = Broker::start_behind(listen, proxy.address());
        let brokers = proxy.address().to_string();
        let place = folder.path().join("lake").display().to_string();
        let mut central = vec!["--history-to", "kafka", "--history-kafka-brokers", &brokers];
        // A stall is sometimes waited for and sometimes given up.
        central.extend(["--history-kafka-timeout", "2s", "--history-kafka-partitions", "1"]);
        central.extend(flags);
        let cluster = Cluster::start_with(store, &central, &[]).await;
        let archiver = archiver(&folder, &brokers, &place);
        let options = LakeOptions::new(place.parse().expect("an absolute path"));
        let lake = Lake::open(&options).expect("options that work");
        Trial { cluster, archiver, proxy, errors, lake, place, brokers, folder, _broker: broker }
    }

    /// `kill -9`, and another in its place.
    pub(super) fn replace_archiver(&mut self) {
        self.archiver.kill9();
        self.archiver = archiver(&self.folder, &self.brokers, &self.place);
    }

    /// Stops both once everything that was committed has arrived; gives the number of the last event.
    ///
    /// # Panics
    /// If it does not arrive.
    pub(super) async fn settle(&mut self) -> u64 {
        let mut head = 0;
        for round in 0.. {
            self.cluster.stop_central();
            let kept = outbox(&self.cluster).await;
            head = kept.head;
            if kept.bytes == 0 {
                break;
            }
            // It ended before it had told all, as its time to end is bounded.
            assert!(round < 3, "{kept:?} waits");
            self.cluster.start_central().await;
            self.all_taken().await;
        }
        self.arrived(head).await;
        assert!(self.archiver.terminate().success(), "{}", self.archiver.log());
        head
    }

    /// Waits until the lake ends with this event.
    ///
    /// # Panics
    /// If it does not.
    pub(super) async fn arrived(&self, last: u64) {
        let arrived = async {
            while self.in_lake().await != last {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let arrived = tokio::time::timeout(PATIENCE, arrived).await;
        assert!(arrived.is_ok(), "{last} has not arrived\n{}", self.archiver.log());
    }

    /// Waits until the broker has everything.
    ///
    /// # Panics
    /// If the history does not go on.
    pub(super) async fn all_taken(&self) {
        let taken = async {
            while self.metric("central_outbox_bytes").await != 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("the history goes on");
    }

    /// Of central's metrics, such as `central_outbox_bytes`.
    ///
    /// # Panics
    /// If central does not answer, or has no such.
    pub(super) async fn metric(&self, name: &str) -> u64 {
        let metrics = ops_get(self.cluster.admin_address(), "/metrics").await;
        let (_, text) = metrics.expect("central answers");
        metric(&text, name).unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// The number of the last event of the lake.
    pub(super) async fn in_lake(&self) -> u64 {
        let tail = self.lake.tail(&format!("{TOPIC}-0"), ShardId::FIRST).await;
        tail.expect("a lake").map_or(0, |tail| tail.seq)
    }

    /// What the lake has, in the order of the shard.
    pub(super) async fn read(&self) -> Vec<Record> {
        read_lake(Path::new(&self.place)).await
    }
}

fn archiver(folder: &TempDir, brokers: &str, lake: &str) -> Archiver {
    let flags = [
        ("history-kafka-brokers", brokers.to_owned()),
        ("history-kafka-timeout", "5s".to_owned()),
        ("history-lake", lake.to_owned()),
        ("archive-flush-interval", "400ms".to_owned()),
    ];
    Archiver::start(folder.path(), &flags, &[])
}
