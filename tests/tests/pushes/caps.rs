//! A frequency cap: how often a device is disturbed, whatever how many messages there are.

use carillon_tests::cluster::Store;
use serde_json::json;

use crate::bench::{Bench, Channel, Device, alert};

const DEVICES: u64 = 30;

async fn capped(store: Store) {
    let mut bench = Bench::start(store, "shop", &[], &[]).await;
    let devices: Vec<Device> =
        (0..DEVICES).map(|n| Device::new(n, vec![bench.token(Channel::Apns, n)])).collect();
    bench.import(&devices).await;
    bench.ok("PATCH", "push", json!({"cap": {"pushes": 2, "period_s": 86400}})).await;
    // The first half has its second push with the second message, the others with the third.
    let mut pushed = Vec::new();
    for to in ["rank >= 0", "rank < 15", "rank >= 0", "rank >= 0"] {
        let message = bench.push(to, alert("one more")).await;
        bench.until_state(&message, "done").await;
        let funnel = bench.funnel(&message).await;
        pushed.push((funnel["pushed"]["apns"].clone(), funnel["skipped"]["capped"].clone()));
        // What counts survives.
        bench.cluster.kill_central();
        bench.cluster.start_central().await;
        bench.admin = bench.cluster.admin();
    }
    let none = json!(null);
    let expected = [
        (json!(DEVICES), none.clone()),
        (json!(15), none.clone()),
        (json!(15), json!(15)),
        (none.clone(), json!(DEVICES)),
    ];
    assert_eq!(pushed, expected);

    // Its author may say that a message is above that, and it counts for nothing then.
    let mut above = alert("the house is on fire");
    above["ignore_cap"] = json!(true);
    let message = bench.push("rank >= 0", above).await;
    bench.until_state(&message, "done").await;
    let funnel = bench.funnel(&message).await;
    assert_eq!((&funnel["pushed"], &funnel["skipped"]), (&json!({"apns": DEVICES}), &json!({})));

    // Another cap looks at the same pushes; without one there is none.
    bench.ok("PATCH", "push", json!({"cap": null})).await;
    let message = bench.push("rank >= 0", alert("as often as may be")).await;
    bench.until_state(&message, "done").await;
    assert_eq!(bench.funnel(&message).await["pushed"], json!({"apns": DEVICES}));
    bench.no_breaches().await;
}

#[tokio::test]
async fn no_device_is_pushed_more_often_than_the_cap_allows_on_sqlite() {
    capped(Store::Sqlite).await;
}

#[tokio::test]
async fn no_device_is_pushed_more_often_than_the_cap_allows_on_mariadb() {
    capped(Store::MariaDb).await;
}
