//! What central says of itself, to whoever asks.

use carillon_tests::cluster::ops_get;
use serde_json::{Value, json};

use crate::bench::{Bench, Call};

pub(crate) async fn check(bench: &mut Bench) {
    let app = bench.app().await;
    let head = bench.head().await;
    for path in ["GET /healthz", "GET /readyz"] {
        let mut health = bench.read(Call::to(path, &[])).await.json();
        let members = health.as_object_mut().expect("an object");
        let bytes = members.remove("world_bytes").expect("what the world takes");
        assert!(bytes.as_u64().is_some_and(|bytes| (1_000..1 << 20).contains(&bytes)), "{bytes}");
        let well = json!({"ready": true, "store_up": true, "durability": "safe", "clock_jumped": false,
                          "head": head, "links": 1, "world_bytes_max": 8_u64 << 30, "world_nearly_full": false,
                          "outbox_half_full": false});
        assert_eq!(health, well);
    }
    bench.message(&app, json!({"to": "all", "body": 1})).await;
    let metrics = bench.read(Call::to("GET /metrics", &[])).await;
    let metrics = String::from_utf8(metrics.body.to_vec()).expect("text");
    assert!(metrics.ends_with("# EOF\n"), "OpenMetrics ends so");
    for line in ["central_store_up 1".to_owned(), format!("central_head_seq {}", head + 1)] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    let document = bench.read(Call::to("GET /openapi.json", &[])).await.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    assert_ne!(document["components"]["schemas"]["ProblemBody"], Value::Null);
    // None of them asks who is there.
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        let (status, _) = ops_get(bench.cluster.admin_address(), path).await.expect("an answer");
        assert_eq!(status, 200, "{path}");
    }
}
