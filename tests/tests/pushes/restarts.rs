//! Central is told to end in the middle of a push, as at every upgrade: it drains, and whoever is left is pushed when it
//! is back.

use std::time::Duration;

use carillon_tests::cluster::Store;
use serde_json::json;

use crate::bench::{Bench, Channel, Device, alert};

const DEVICES: u64 = 600;

async fn restarted(store: Store) {
    let mut bench = Bench::start(store, "shop", &["--push-batch", "100"], &[]).await;
    let devices: Vec<Device> = (0..DEVICES)
        .map(|n| Device::new(n, Channel::ALL.map(|of| bench.token(of, n)).to_vec()))
        .collect();
    bench.import(&devices).await;
    for channel in Channel::ALL {
        // So that there always are requests in flight.
        bench.simulator(channel).behave(json!([{"slow_ms": 400}])).await;
    }
    let message = bench.push("rank >= 0", alert("whatever comes")).await;
    for restart in 1..=2 {
        let some = restart * 100;
        bench.until_counts(Channel::Apns, |counts| counts.tokens.alerted >= some).await;
        // Answers are on their way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        bench.cluster.stop_central();
        let counts = bench.apns.counts().await;
        assert!(counts.tokens.alerted < DEVICES, "it was not in the middle: {counts:?}");
        bench.cluster.start_central().await;
        bench.admin = bench.cluster.admin();
    }
    bench.until_state(&message, "done").await;
    for channel in Channel::ALL {
        let counts = bench.simulator(channel).counts().await;
        assert_eq!(counts.tokens.alerted, DEVICES, "{channel:?}: {counts:?}");
        assert_eq!(counts.total.received.alerts, DEVICES, "handed over twice: {counts:?}");
    }
    let funnel = bench.funnel(&message).await;
    let everyone = json!({"apns": DEVICES, "fcm": DEVICES, "web_push": DEVICES});
    assert_eq!((&funnel["pushed"], &funnel["failed"]), (&everyone, &json!({})), "{funnel}");
    bench.no_breaches().await;
}

#[tokio::test]
async fn central_ends_in_the_middle_of_a_push_and_nobody_is_pushed_twice_on_sqlite() {
    restarted(Store::Sqlite).await;
}

#[tokio::test]
async fn central_ends_in_the_middle_of_a_push_and_nobody_is_pushed_twice_on_mariadb() {
    restarted(Store::MariaDb).await;
}
