//! Callbacks as the API shows them; what they do is in `tests/callbacks`. They move no seq: edges know nothing of them.

use carillon_tests::admin::text;
use serde_json::json;

use crate::bench::{Bench, Call};
use crate::generic::hearer;

const ALL: &str = "/v1/apps/{app}/callbacks";
const ONE: &str = "/v1/apps/{app}/callbacks/{callback}";

pub(crate) async fn check(bench: &mut Bench) {
    let app = bench.app().await.id;
    let one = |call: &str, id: &str| Call::to(&format!("{call} {ONE}"), &[&app, id]);
    let action = |name: &str, id: &str| Call::to(&format!("POST {ONE}/{name}"), &[&app, id]);
    let made = Call::to(&format!("POST {ALL}"), &[&app]).json(hearer());
    let mut made = bench.unchanged(made).await.json();
    let id = text(&made, "id").to_owned();
    assert!(text(&made, "secret").starts_with("whsec_"), "{made}");
    made.as_object_mut().expect("an object").remove("secret");
    let listed = bench.read(Call::to(&format!("GET {ALL}"), &[&app])).await.json();
    assert_eq!(listed, json!({"callbacks": [made]}));
    let shown = bench.read(one("GET", &id)).await.json();
    assert_eq!(shown["waiting"]["events"], 0, "{shown}");

    let patch = json!({"description": "another", "state": "paused"});
    let patched = bench.unchanged(one("PATCH", &id).json(patch)).await.json();
    assert_eq!((&patched["state"], &patched["paused"]), (&json!("paused"), &json!("admin")));
    let rotated = bench.unchanged(action("rotate-secret", &id).json(json!({}))).await.json();
    assert_eq!(rotated["old_secrets_until"].as_array().map(Vec::len), Some(1), "{rotated}");
    let from = json!({"from": "2026-01-01T00:00:00Z"});
    bench.unchanged(action("replay", &id).json(from)).await;
    let told = bench.read(action("test", &id)).await.json();
    let expected =
        json!({"delivered": false, "status": null, "error": "the name does not resolve"});
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&told[name], value, "{told}");
    }
    for bad in [
        one("PATCH", &id).json(json!({"url": "http://a.example/"})),
        one("PATCH", &id).json(json!({"events": ["message.sent"]})),
        action("rotate-secret", &id).json(json!({"overlap_s": 1_u64 << 40})),
    ] {
        bench.refused(bad, 422, "invalid-callback").await;
    }
    let bad = action("replay", &id).json(json!({"from": "yesterday"}));
    bench.refused(bad, 400, "bad-request").await;
    bench.unchanged(one("DELETE", &id)).await;
    bench.refused(one("DELETE", &id), 404, "not-found").await;
}
