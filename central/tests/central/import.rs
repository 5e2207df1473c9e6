//! Imports that say how far they are.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::harness::{ADMIN, Bench, Reply, start};

/// Sends the parts one by one, each a while after the one before.
async fn import(bench: &Bench, app: &str, parts: Vec<String>) -> Reply {
    let parts = futures_util::stream::unfold((0, parts.into_iter()), async |(sent, mut parts)| {
        let part = Bytes::from(parts.next()?);
        if sent > 0 {
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        Some((Ok::<_, std::convert::Infallible>(Frame::data(part)), (sent + 1, parts)))
    });
    let token = format!("Bearer {ADMIN}");
    let headers = [("authorization", token.as_str()), ("accept", "application/x-ndjson")];
    let path = format!("{app}/devices:import");
    bench.stream(Method::POST, &path, &headers, StreamBody::new(parts)).await
}

/// Lines for as many devices, and one that is none.
fn part(first: u64, count: u64) -> String {
    let lines = (first..first + count).map(|id| format!("{{\"id\":\"{id:016x}\"}}\n"));
    lines.chain(["no device\n".to_owned()]).collect()
}

fn objects(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.headers["content-type"], "application/x-ndjson");
    reply.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_says_how_far_it_is_and_ends_with_its_report() {
    let bench = start().await;
    let app = bench.app().await;
    let parts = [1, 10_001, 20_001, 30_001].map(|first| part(first, 10_000));
    let reply = import(&bench, &app, parts.into()).await;
    let mut told = objects(&reply);
    let last = told.pop().unwrap();
    let report = &last["report"];
    assert_eq!(
        (&report["lines"], &report["created"], &report["bad"]),
        (&json!(40_004), &json!(40_000), &json!(4))
    );
    assert!(report["position"].is_string(), "{report}");
    assert!(told.len() >= 2, "{told:?}");
    let mut before = 0;
    for line in &told {
        let progress = &line["progress"];
        let [lines, created] = ["lines", "created"].map(|name| progress[name].as_u64().unwrap());
        assert!(created > before && created <= lines && lines <= 40_004, "{told:?}");
        assert!(progress["bad"].as_u64().is_some_and(|bad| bad <= 4), "{told:?}");
        before = created;
    }
    // The same as without progress, to who asks for nothing.
    let again = bench.post_text(&format!("{app}/devices:import"), &part(1, 10)).await.json(200);
    assert_eq!((&again["unchanged"], &again["bad"]), (&json!(10), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_cut_ends_with_the_problem_and_what_it_did() {
    let bench = start().await;
    let app = bench.app().await;
    let path = format!("{app}/devices:import");
    // Found before the answer begins.
    let headers = [("accept", "application/x-ndjson")];
    bench.send(Method::POST, &path, &headers, "").await.problem(401, "unauthorized");
    let bench =
        bench.restart_with(|config| config.admin.read_timeout = Duration::from_millis(500)).await;
    let reply = import(&bench, &app, vec![part(1, 1_000), part(2_000, 1)]).await;
    let problem = &objects(&reply).pop().unwrap()["problem"];
    assert_eq!(problem["status"], json!(408), "{problem}");
    assert_eq!(problem["report"]["created"], json!(1_000), "{problem}");
}
