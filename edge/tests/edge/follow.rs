//! How an edge follows central over connections that come and go.

use super::*;

async fn snapshots(edge: &Edge) -> f64 {
    metric(edge, "edge_snapshots_total").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_was_away_goes_on_from_the_log_and_takes_no_second_snapshot() {
    let central = Central::start().await;
    let (edge, mut device) = start(config(&central)).await;
    device.enrol().await;
    until_status(&device, 200).await;
    assert_eq!(snapshots(&edge).await, 1.0);
    for id in 1..=3 {
        central.set_up(false);
        wait_for_metric(&edge, "edge_link_up", 0.0).await;
        central.commit(vec![message(id)]);
        central.set_up(true);
        wait_for_metric(&edge, "edge_link_up", 1.0).await;
        let seq = central.commit(vec![message(100 + id)]).seq.get();
        wait_for_metric(&edge, "edge_world_seq", seq as f64).await;
    }
    assert_eq!(device.poll(0, None).await.ids().len(), 6);
    assert_eq!(snapshots(&edge).await, 1.0, "its position was in the past and in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_the_log_no_longer_reaches_takes_a_snapshot_and_serves_meanwhile() {
    let central = Central::start().await;
    let (edge, mut device) = start(config(&central)).await;
    device.enrol().await;
    central.commit(vec![message(1)]);
    until_status(&device, 200).await;
    central.set_up(false);
    wait_for_metric(&edge, "edge_link_up", 0.0).await;
    // More than the log of the scripted central holds.
    let mut seq = 0;
    for round in 0..40 {
        seq =
            central.commit((0..400).map(|n| message(1_000 + round * 400 + n)).collect()).seq.get();
    }
    assert!(device.poll(0, None).await.ids().contains(&"0000000000000001".to_owned()));
    central.set_up(true);
    wait_for_metric(&edge, "edge_world_seq", seq as f64).await;
    assert_eq!(snapshots(&edge).await, 2.0);
}
