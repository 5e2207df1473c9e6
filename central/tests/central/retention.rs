//! What is forgotten in time, over a real store and across restarts.

use std::time::{Duration, Instant};

use carillon_central::Config;
use carillon_world::stream::Frame;
use carillon_world::{DeviceId, Millis, UpstreamReply, UpstreamRequest};
use serde_json::json;

use crate::harness::{Bench, LINK, start, start_with};
use crate::links::Edge;

const PATIENCE: Duration = Duration::from_secs(30);

async fn gone(bench: &Bench, path: &str) {
    let until = Instant::now() + PATIENCE;
    while bench.get(path).await.status != 404 {
        assert!(Instant::now() < until, "{path} is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn short(retention: u64) -> impl FnOnce(&mut Config) {
    move |config| config.writer.retention = retention
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_central_still_knows_how_old_everything_is() {
    let bench = start().await;
    let app = bench.app().await;
    let create = |body: u32| bench.post_message(&app, body);
    let (recalled, kept) = (create(1).await, create(2).await);
    bench.post(&format!("{recalled}:recall"), json!(null)).await.json(200);
    // The sample that covers the recall is written when it is due; an operator who shortens the retention makes it so.
    let bench = bench.restart_with(short(1_000)).await;
    gone(&bench, &recalled).await;
    bench.get(&kept).await.json(200);
    // What was forgotten stays so, whoever loads the store, and what was kept is whole.
    let bench = bench.restart_with(|_| ()).await;
    bench.get(&recalled).await.problem(404, "not-found");
    assert_eq!(bench.get(&kept).await.json(200)["body"], json!(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_nobody_saw_is_forgotten_and_one_that_an_edge_reported_is_not() {
    let ttl = |config: &mut Config| config.writer.device_ttl = Some(2_000);
    let bench = start_with(|_| ()).await;
    let app = bench.app().await;
    let lines: String = [1, 2].map(|id| format!("{{\"id\":\"{}\"}}\n", DeviceId::new(id))).concat();
    bench.post_text(&format!("{app}/devices:import"), &lines).await.json(200);
    let mut edge = Edge::connect(&bench, LINK).await;
    edge.until(|frame| matches!(frame, Frame::Welcome(_)).then_some(())).await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let hour = Millis(now.try_into().unwrap()).hour();
    let id = app.rsplit('/').next().unwrap().parse().unwrap();
    let report = UpstreamRequest::Seen { app: id, devices: vec![(DeviceId::new(1), hour)] };
    let UpstreamReply::Written { committed } = edge.ask(1, &report).await else {
        panic!("refused")
    };
    assert_eq!(committed.seq.get(), 7, "a report is a change");
    drop(edge);

    let bench = bench.restart_with(ttl).await;
    gone(&bench, &format!("{app}/devices/{}", DeviceId::new(2))).await;
    // In the hour in which it was seen it is not yet old. (The test may run across an hour's end, by two seconds.)
    bench.get(&format!("{app}/devices/{}", DeviceId::new(1))).await.json(200);
    let metrics = bench.get("/metrics").await.text;
    assert!(metrics.contains("central_forget_steps_total{kind=\"Devices\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_erased_with_all_devices_and_nobody_else() {
    let bench = start().await;
    let app = bench.app().await;
    let line = |id: u64, user: &str| format!("{{\"id\":\"{id:016x}\",\"user\":\"{user}\"}}\n");
    let mut lines: String = (1..=450).map(|id| line(id, "ann/e b")).collect();
    lines += &line(900, "ben");
    bench.post_text(&format!("{app}/devices:import"), &lines).await.json(200);
    let erase = format!("{app}/users/ann%2Fe%20b:erase");
    let erased = bench.post(&erase, json!(null)).await.json(200);
    assert_eq!((&erased["user"], &erased["devices"]), (&json!("ann/e b"), &json!(450)));
    assert!(erased["position"].is_string());
    let left = bench.get(&format!("{app}/devices")).await.json(200);
    assert_eq!(left["devices"].as_array().unwrap().len(), 1);
    assert_eq!(left["devices"][0]["user"], "ben");
    let again = bench.post(&erase, json!(null)).await.json(200);
    assert_eq!((&again["devices"], &again["position"]), (&json!(0), &erased["position"]));
    bench.post(&format!("{app}/users/ann"), json!(null)).await.problem(405, "method-not-allowed");
    let nobody = format!("/v1/apps/{:016x}/users/ann:erase", 1);
    bench.post(&nobody, json!(null)).await.problem(404, "not-found");

    // If the store goes away meanwhile, the caller is told how far it came.
    bench.faults.down();
    let cut = bench.post(&format!("{app}/users/ben:erase"), json!(null)).await;
    assert_eq!(cut.problem(503, "unavailable")["devices"], 0);
    bench.faults.none();
    let erased = bench.post(&format!("{app}/users/ben:erase"), json!(null)).await.json(200);
    assert_eq!(erased["devices"], 1);
}
