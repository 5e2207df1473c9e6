//! An endpoint that hangs, fails, redirects or is gone holds up nobody else.

use std::collections::BTreeSet;
use std::time::Duration;

use carillon_tests::admin::text;
use carillon_tests::callbacks::Behaviour;
use carillon_tests::cluster::Store;
use serde_json::json;

use crate::bench::{Bench, is_idle, messages_of};

const MESSAGES: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_fails_redirects_or_is_gone_holds_up_nobody_else() {
    let mut bench = Bench::start(Store::Sqlite, &["--history-to", "discard"]).await;
    let inside = bench.receiver.url("/trap");
    let found = vec![("location", inside)];
    for (at, behaviour) in [
        ("/hangs", Behaviour::Hang),
        ("/slow", Behaviour::Slow(Duration::from_secs(1))),
        ("/fails", Behaviour::Status(500)),
        ("/redirects", Behaviour::Answer(302, found, String::new())),
        ("/gone", Behaviour::Status(410)),
        ("/waits", Behaviour::Answer(429, vec![("retry-after", "3600".to_owned())], String::new())),
    ] {
        bench.receiver.behave(at, behaviour);
    }
    let mut bad = Vec::new();
    for at in ["/hangs", "/slow", "/fails", "/redirects", "/gone", "/waits"] {
        bad.push(bench.endpoint(at, &["message.created"]).await);
    }
    let good = bench.endpoint("/good", &["message.created"]).await;
    // The bad ones are at it before the good one has anything.
    let mut made = bench.messages(10).await;
    bench.until_received("/hangs", 4).await;
    made.extend(bench.messages(MESSAGES).await);
    let calls = bench.until_received("/good", made.len()).await;
    assert_eq!(BTreeSet::from_iter(messages_of(&calls)), BTreeSet::from_iter(made.clone()));
    // Each once, while the one that hangs has not had an answer to its first four.
    assert_eq!(calls.len(), made.len());
    let hanging = bench.receiver.received("/hangs").len();
    assert!((4..=8).contains(&hanging), "{hanging} calls hang");
    let shown = bench.until(&good, is_idle).await;
    assert_eq!(shown["delivered"], made.len(), "{shown}");

    let gone = bench.until(&bad[4], |found| found["state"] == "paused").await;
    assert_eq!(gone["paused"], "gone", "{gone}");
    assert!(text(&gone, "last_error").contains("410"), "{gone}");
    let asked = bench.receiver.received("/gone").len();
    assert!(asked <= 4, "{asked}");
    let fails = bench.until(&bad[2], |found| found["retrying"].as_u64() >= Some(3)).await;
    assert_eq!((&fails["state"], &fails["delivered"]), (&json!("active"), &json!(0)), "{fails}");
    assert!(
        fails["waiting"]["events"].as_u64() > Some(100),
        "hardly anything new is tried: {fails}"
    );
    let redirects = bench.get(&bad[3]).await;
    assert!(text(&redirects, "last_error").contains("302"), "{redirects}");
    assert_eq!(bench.receiver.received("/trap").len(), 0, "no redirect is followed");
    let waits = bench.receiver.received("/waits").len();
    assert!(waits <= 4, "it said when to come again: {waits}");
    // A second look: those that are to wait still do.
    bench.until_received("/slow", 12).await;
    assert_eq!(bench.receiver.received("/waits").len(), waits);
    assert_eq!(bench.receiver.received("/gone").len(), asked);
    let metrics = carillon_tests::cluster::ops_get(bench.cluster.admin_address(), "/metrics").await;
    let metrics = metrics.expect("central answers").1;
    assert!(metrics.contains("central_callback_paused 1\n"), "{metrics}");
    assert!(metrics.contains("central_callbacks_total{outcome=\"Gone\"}"), "{metrics}");
}
