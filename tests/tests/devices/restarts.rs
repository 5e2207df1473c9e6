//! Edges killed with -9 and started again under clients that poll over TLS.

use std::time::Duration;

use carillon_client::Client;
use carillon_tests::cluster::{Cluster, Store};
use tokio::time::Instant;

use crate::fleet::Fleet;
use crate::say;

const CLIENTS: u64 = 100;
const ROUNDS: usize = 12;
const WRITES: usize = 12;

async fn killed_edges(store: Store) {
    let many = ["--edge-enrol-burst", "1000"];
    let mut cluster = Cluster::start_with(store, &[], &[&many, &many]).await;
    let (urls, tls) = (cluster.edge_urls(), cluster.tls());
    let client =
        || Client::builder().edges(urls.clone()).tls(tls.clone()).wait(Duration::from_secs(10));
    let mut fleet = Fleet::start(&cluster, 4, CLIENTS, client).await;
    fleet.settle().await;
    let began = Instant::now();
    let mut kills = 0;
    for round in 0..ROUNDS {
        // In every sixth round nobody is there to go to.
        let victims = if round % 6 == 5 { vec![0, 1] } else { vec![round % 2] };
        for _ in 0..WRITES {
            fleet.write().await;
        }
        for victim in &victims {
            cluster.kill_edge(*victim);
            kills += 1;
        }
        for _ in 0..WRITES {
            fleet.write().await;
        }
        for victim in &victims {
            cluster.start_edge(*victim).await;
        }
    }
    let seen = fleet.settle().await;
    say(&format!(
        "{store:?}: {kills} edges killed under {CLIENTS} clients, {} writes, {seen:?}, {:?}",
        fleet.writes,
        began.elapsed()
    ));
    // Each kill leaves about half of the clients without their edge; all of them where both are killed.
    assert!(seen.unreachable + seen.broken >= CLIENTS * 4, "{seen:?}");
    assert!(seen.messages >= CLIENTS * 30, "{seen:?}");
    assert_eq!(fleet.shop.device_count().await as u64, CLIENTS, "nobody enrolled twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_are_killed_under_polling_clients_and_nothing_is_missing_on_sqlite() {
    killed_edges(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_are_killed_under_polling_clients_and_nothing_is_missing_on_mariadb() {
    killed_edges(Store::MariaDb).await;
}
