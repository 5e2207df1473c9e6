//! A secret is shown by the answer that made it, and nowhere else: no answer, log, metric, file or other event has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_tests::admin::text;
use carillon_tests::cluster::{Store, ops_get};
use serde_json::{Value, json};

use crate::bench::{Bench, is_idle};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_is_in_no_log_metric_answer_event_or_file() {
    let flags = ["--history-to", "discard", "--log-filter", "debug"];
    let mut bench = Bench::start(Store::Sqlite, &flags).await;
    let all = bench.endpoint("/all", &["*"]).await;
    let endpoint = bench.endpoint("/path-with-a-password", &["message.created"]).await;
    let rotate = format!("{}/rotate-secret", endpoint.path);
    let second = text(&bench.admin.ok("POST", &rotate, json!({})).await, "secret").to_owned();
    let mut heard = Vec::new();
    for (method, path, input) in [
        ("GET", endpoint.path.clone(), Value::Null),
        ("GET", format!("{}/callbacks", bench.app), Value::Null),
        ("PATCH", endpoint.path.clone(), json!({"description": "d"})),
        ("PATCH", endpoint.path.clone(), json!({"state": "paused"})),
        ("PATCH", endpoint.path.clone(), json!({"state": "active"})),
        ("POST", format!("{}/test", endpoint.path), Value::Null),
        ("POST", format!("{}/replay", endpoint.path), json!({"from": "2020-01-01T00:00:00Z"})),
        ("PATCH", endpoint.path.clone(), json!({"url": endpoint.secret})),
    ] {
        let answer = bench.admin.call(method, &path, input).await;
        heard.push(String::from_utf8_lossy(&answer.body).into_owned());
    }
    bench.messages(5).await;
    bench.until_received("/path-with-a-password", 6).await;
    bench.until(&endpoint, is_idle).await;
    bench.until(&all, is_idle).await;
    heard.push(bench.cluster.central_log());
    heard.push(ops_get(bench.cluster.admin_address(), "/metrics").await.expect("an answer").1);
    let events: Vec<String> = bench
        .receiver
        .received("/all")
        .iter()
        .map(|call| String::from_utf8_lossy(&call.body).into_owned())
        .collect();
    assert!(events.iter().any(|event| event.contains("callback.changed")), "{events:?}");
    assert!(!events.iter().any(|event| event.contains("password")), "no URL is told");
    assert!(!heard[heard.len() - 2].contains("password"), "nor logged");
    heard.extend(events);
    let secrets = [all.secret.clone(), endpoint.secret.clone(), second];
    for secret in &secrets {
        let plain = secret.strip_prefix("whsec_").expect("it begins so");
        for text in &heard {
            assert!(!text.contains(plain), "a secret is in {text}");
        }
    }
    bench.cluster.stop_central();
    let mut looked = 0;
    for entry in std::fs::read_dir(bench.cluster.data()).expect("central's folder") {
        let path = entry.expect("an entry").path();
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        looked += usize::from(bytes.windows(8).any(|part| part == b"password"));
        for secret in &secrets {
            let plain = secret.trim_start_matches("whsec_");
            let raw = STANDARD.decode(plain).expect("base64");
            let holds = |part: &[u8]| bytes.windows(part.len()).any(|at| at == part);
            assert!(!holds(plain.as_bytes()) && !holds(&raw), "a secret is in {}", path.display());
        }
    }
    assert!(looked > 0, "the database was looked at");
}
