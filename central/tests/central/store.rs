use serde_json::json;

use crate::harness::{config, ok, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_gives_503_applies_nothing_and_recovers_by_itself() {
    let bench = start().await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    bench.faults.down();
    let refused = bench.post(&messages, json!({"to": "all", "body": 1})).await;
    refused.problem(503, "unavailable");
    assert_eq!(refused.headers["retry-after"], "2");
    assert_eq!(bench.get(&messages).await.json(200)["messages"], json!([]));
    bench.get("/readyz").await.json(503);
    bench.get("/healthz").await.json(200);
    let import = bench
        .post_text(&format!("{app}/devices:import"), "{}\n{}")
        .await
        .problem(503, "unavailable");
    assert_eq!((&import["report"]["lines"], &import["report"]["created"]), (&json!(2), &json!(0)));
    bench.faults.none();
    bench.post(&messages, json!({"to": "all", "body": 1})).await.json(201);
    bench.get("/readyz").await.json(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_comes_back_without_a_write() {
    let bench = start().await;
    let app = bench.app().await;
    bench.faults.down();
    bench
        .post(&format!("{app}/messages"), json!({"to": "all", "body": 1}))
        .await
        .problem(503, "unavailable");
    bench.faults.none();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !ok(bench.get("/readyz").await.status) {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_settled_by_a_new_epoch_and_the_write_counts_once() {
    let bench = start().await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    bench.faults.lose_answer();
    let created = bench.post(&messages, json!({"to": "all", "body": 1})).await.json(201);
    let next = bench.post(&messages, json!({"to": "all", "body": 2})).await.json(201);
    assert_eq!(created["position"]["seq"], 5);
    assert_eq!(next["position"]["seq"], 6);
    assert!(next["position"]["epoch"].as_u64() > created["position"]["epoch"].as_u64());
    assert_eq!(bench.get(&messages).await.json(200)["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_batch_is_settled_by_a_new_epoch_and_never_was() {
    let bench = start().await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    bench.faults.lose_batch();
    bench.post(&messages, json!({"to": "all", "body": 1})).await.problem(503, "unavailable");
    let next = bench.post(&messages, json!({"to": "all", "body": 2})).await.json(201);
    assert_eq!(next["position"]["seq"], 5);
    let bench = bench.restart().await;
    assert_eq!(bench.get(&messages).await.json(200)["messages"].as_array().unwrap().len(), 1);
}

/// One batch is in doubt for as long as the store is away; what comes behind it is not, and is told at once.
#[tokio::test(flavor = "multi_thread")]
async fn writes_behind_a_doubt_are_refused_and_never_applied() {
    let bench = start().await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    bench.faults.away();
    let began = std::time::Instant::now();
    let doubted = bench.post(&messages, json!({"to": "all", "body": "in doubt"}));
    let others = async {
        for n in 0..20 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            let refused = bench.post(&messages, json!({"to": "all", "body": n})).await;
            refused.problem(503, "unavailable");
            assert_eq!(refused.headers["retry-after"], "2");
        }
        bench.get("/readyz").await.json(503);
        bench.faults.none();
    };
    let (doubted, ()) = tokio::join!(doubted, others);
    doubted.problem(503, "unavailable");
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "nobody waited for a timeout");
    bench.post(&messages, json!({"to": "all", "body": "after"})).await.json(201);
    let listed = bench.get(&messages).await.json(200);
    assert_eq!(listed["messages"].as_array().unwrap().len(), 1, "{listed}");
    bench.get("/readyz").await.json(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_written_is_there_after_a_restart() {
    let bench = start().await;
    let app = bench.app().await;
    let lines: String = (0..700)
        .map(|n| format!("{{\"id\":\"{n:016x}\",\"attributes\":{{\"country\":\"KE\"}}}}\n"))
        .collect();
    bench.post_text(&format!("{app}/devices:import"), &lines).await.json(200);
    bench
        .post(
            &format!("{app}/messages"),
            json!({"to": "#vip or country == \"SE\"", "body": {"x": [1]}}),
        )
        .await
        .json(201);
    let paths = ["", "/attributes", "/groups", "/devices?limit=1000", "/messages"]
        .map(|rest| format!("{app}{rest}"));
    let mut before = Vec::new();
    for path in &paths {
        before.push(bench.get(path).await.json(200));
    }
    let bench = bench.restart().await;
    for (path, before) in paths.iter().zip(before) {
        assert_eq!(bench.get(path).await.json(200), before, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_owner_fences_the_first_which_gives_up() {
    let mut bench = start().await;
    let app = bench.app().await;
    let second = bench.second_owner().await;
    bench.post(&format!("{app}/messages"), json!({"to": "all", "body": 1})).await.json(503);
    let error = bench.central.failed().await;
    assert!(matches!(error, carillon_central::CentralError::Fenced { .. }), "{error}");
    bench.get("/readyz").await.json(503);
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn central_refuses_to_start_without_secrets_and_says_all_that_is_missing() {
    let (mut config, _) = config();
    config.link.listen = "0.0.0.0:0".parse().unwrap();
    config.link.identity = None;
    config.link.token = None;
    let error =
        carillon_central::run(config, std::future::pending()).await.unwrap_err().to_string();
    assert!(
        error.contains("token") && error.contains("certificate") && error.contains("0.0.0.0"),
        "{error}"
    );
}
