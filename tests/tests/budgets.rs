//! What happens when memory is used up: at central, for an app, at an edge. By the real executable.

use std::time::{Duration, Instant};

use carillon_tests::admin::{Admin, text};
use carillon_tests::cluster::{Cluster, Store, ops_get};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An app with an attribute and a group: its path, and its publishable key.
async fn app(admin: &mut Admin) -> (String, String) {
    let app = admin.ok("POST", "/v1/apps", json!({"name": "shop", "environment": "sandbox"})).await;
    let path = format!("/v1/apps/{}", text(&app, "id"));
    let declared = json!({"type": "string", "set_by": "both"});
    admin.ok("PUT", &format!("{path}/attributes/country"), declared).await;
    admin.ok("POST", &format!("{path}/groups"), json!({"name": "vip", "set_by": "server"})).await;
    (path, text(&app, "publishable_key").to_owned())
}

fn lines(ids: std::ops::Range<u64>) -> String {
    let line = |id| format!("{{\"id\":\"{id:016x}\",\"attributes\":{{\"country\":\"KE\"}}}}\n");
    ids.map(line).collect()
}

async fn import(admin: &mut Admin, path: &str, ids: std::ops::Range<u64>) -> Value {
    let request = admin.request("POST", &format!("{path}/devices:import"), lines(ids));
    let answer = admin.send(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn enrol(edge: &mut Admin, key: &str, secret: u8) -> carillon_tests::admin::Answer {
    // 32 bytes of one value in base64url; the values used are such that their text is one letter.
    let secret = String::from(char::from(secret)).repeat(42) + "A";
    edge.call("POST", "/v1/devices", json!({"key": key, "secret": secret})).await
}

/// Asks until the answer of an ops listener is as wanted.
async fn until(
    at: std::net::SocketAddr,
    path: &str,
    wanted: impl Fn(u16, &Value) -> bool,
) -> Value {
    let began = Instant::now();
    loop {
        if let Ok((status, body)) = ops_get(at, path).await {
            let json = serde_json::from_str(&body).unwrap_or(Value::String(body));
            if wanted(status, &json) {
                return json;
            }
            assert!(began.elapsed() < PATIENCE, "{path}: {status} {json}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

async fn full_world(store: Store) {
    let mut cluster =
        Cluster::start_with(store, &["--central-world-bytes-max", "1MiB"], &[&[]]).await;
    let mut admin = cluster.admin();
    let (path, key) = app(&mut admin).await;
    let mut edge = Admin::new(&cluster.edge(0).plain_url(), "");
    let enrolled = enrol(&mut edge, &key, b'B').await;
    assert_eq!(enrolled.status, 201, "{enrolled:?}");
    let message = json!({"to": "all", "body": "hello"});
    let message = admin.ok("POST", &format!("{path}/messages"), message).await;

    let report = import(&mut admin, &path, 1..10_001).await;
    let (created, bad) = (number(&report["created"]), number(&report["bad"]));
    assert_eq!(created + bad, 10_000);
    assert!(created > 1_000 && bad > 1_000, "{created} of a few hundred bytes fit");
    assert!(report["errors"].as_array().into_iter().flatten().all(|e| e["code"] == "world-full"));
    let health = until(cluster.admin_address(), "/healthz", |_, _| true).await;
    let bytes = number(&health["world_bytes"]);
    assert!(bytes <= 1 << 20 && bytes > 1_000_000, "{health}");
    assert_eq!(
        (&health["world_bytes_max"], &health["world_nearly_full"]),
        (&json!(1 << 20), &json!(true))
    );
    assert!(cluster.central_log().contains("80 %"), "it was said in time");
    let detail = admin.ok("GET", &path, Value::Null).await;
    let usage = &detail["usage"];
    assert_eq!(usage["devices"].as_u64(), Some(created + 1));
    let parts = usage["bytes_by_part"].as_object().expect("parts");
    assert_eq!(parts.values().filter_map(Value::as_u64).sum::<u64>(), bytes, "{usage}");
    let (_, metrics) = ops_get(cluster.admin_address(), "/metrics").await.expect("metrics");
    let devices = format!("central_world_bytes{{part=\"devices\"}} {}", parts["devices"]);
    assert!(metrics.contains(&devices), "{devices}\n{metrics}");
    let id = path.rsplit('/').next().expect("an id");
    assert!(metrics.contains(&format!("central_app_bytes{{app=\"{id}\"}} {bytes}")), "{metrics}");

    // A device is refused in central's words, but learns no number; polls go on.
    let refused = enrol(&mut edge, &key, b'C').await.expect_problem(507, "world-full");
    assert_eq!(refused.get("world_bytes"), None);
    admin
        .call("POST", &format!("{path}/messages"), json!({"to": "#vip", "body": "x".repeat(2_000)}))
        .await
        .expect_problem(507, "world-full");
    edge.token = text(&enrolled.json(), "session").to_owned();
    let poll = edge.ok("GET", "/v1/messages?wait=30", Value::Null).await;
    assert_eq!(poll["messages"][0]["id"], message["id"]);

    // What shrinks goes through, and makes room. All of it is there after a restart.
    admin
        .ok("POST", &format!("{path}/messages/{}:recall", text(&message, "id")), Value::Null)
        .await;
    for id in 1..40 {
        admin.call("DELETE", &format!("{path}/devices/{id:016x}"), Value::Null).await;
    }
    assert_eq!(enrol(&mut edge, &key, b'C').await.status, 201);
    let before = admin.ok("GET", &path, Value::Null).await["usage"].clone();
    cluster.kill_central();
    cluster.start_central().await;
    let after = cluster.admin().ok("GET", &path, Value::Null).await["usage"].clone();
    assert_eq!(after, before, "counted on the way, and counted at the start");
}

#[tokio::test]
async fn a_full_world_refuses_what_grows_while_polls_go_on_on_sqlite() {
    full_world(Store::Sqlite).await;
}

#[tokio::test]
async fn a_full_world_refuses_what_grows_while_polls_go_on_on_mariadb() {
    full_world(Store::MariaDb).await;
}

async fn quotas(store: Store) {
    let mut cluster = Cluster::start_with(store, &["--central-quota-devices", "3"], &[&[]]).await;
    let mut admin = cluster.admin();
    let (path, key) = app(&mut admin).await;
    let report = import(&mut admin, &path, 1..6).await;
    assert_eq!((&report["created"], &report["bad"]), (&json!(3), &json!(2)));
    assert_eq!(report["errors"][0]["code"], "quota-exceeded");
    let mut edge = Admin::new(&cluster.edge(0).plain_url(), "");
    enrol(&mut edge, &key, b'B').await.expect_problem(403, "quota-exceeded");

    let patch = json!({"quotas": {"devices_max": 4, "live_messages_max": 1}});
    let patched = admin.ok("PATCH", &path, patch).await;
    assert_eq!(patched["limits"]["devices_max"], 4);
    assert_eq!(
        patched["quotas"],
        json!({"devices_max": 4, "groups_max": null, "live_messages_max": 1, "bodies_bytes_max": null})
    );
    assert_eq!(enrol(&mut edge, &key, b'B').await.status, 201);
    enrol(&mut edge, &key, b'C').await.expect_problem(403, "quota-exceeded");

    // Quotas outlive central.
    cluster.kill_central();
    cluster.start_central().await;
    let mut admin = cluster.admin();
    let messages = format!("{path}/messages");
    admin.ok("POST", &messages, json!({"to": "all", "body": 1})).await;
    let refused = admin.call("POST", &messages, json!({"to": "all", "body": 2})).await;
    let refused = refused.expect_problem(403, "quota-exceeded");
    assert_eq!(
        (&refused["quota"], &refused["limit"], &refused["used"]),
        (&json!("live_messages_max"), &json!(1), &json!(1))
    );
    let patch = json!({"quotas": {"live_messages_max": null}});
    let back = admin.ok("PATCH", &path, patch).await;
    assert_eq!(back["limits"]["live_messages_max"], 100_000);
    admin.ok("POST", &messages, json!({"to": "all", "body": 2})).await;
    let wrong = json!({"quotas": {"device_max": 1}});
    admin.call("PATCH", &path, wrong).await.expect_problem(400, "bad-request");
}

#[tokio::test]
async fn quotas_of_an_app_are_kept_and_changed_on_sqlite() {
    quotas(Store::Sqlite).await;
}

#[tokio::test]
async fn quotas_of_an_app_are_kept_and_changed_on_mariadb() {
    quotas(Store::MariaDb).await;
}

#[tokio::test]
async fn an_edge_with_too_little_memory_is_not_ready_and_says_which_number_is_missing() {
    // 1.5 MiB for worlds.
    let small = ["--edge-memory-max", "66MiB", "--edge-backoff-max", "500ms"];
    let mut cluster = Cluster::start_with(Store::Sqlite, &[], &[&small]).await;
    let mut admin = cluster.admin();
    let (path, key) = app(&mut admin).await;
    let mut edge = Admin::new(&cluster.edge(0).plain_url(), "");
    let enrolled = enrol(&mut edge, &key, b'B').await.json();
    edge.token = text(&enrolled, "session").to_owned();
    admin.ok("POST", &format!("{path}/messages"), json!({"to": "all", "body": "hello"})).await;
    edge.ok("GET", "/v1/messages?wait=30", Value::Null).await;

    // The world outgrows it: what it has it serves, but it is not ready.
    let ops = cluster.edge(0).ops;
    let mut devices = 0;
    while ops_get(ops, "/readyz").await.is_ok_and(|(status, _)| status == 200) {
        assert!(devices < 10_000, "1.5 MiB are not so many");
        import(&mut admin, &path, 1 + devices..201 + devices).await;
        devices += 200;
    }
    let told =
        until(ops, "/readyz", |status, body| status == 503 && !body["memory"].is_null()).await;
    let available = number(&told["memory"]["available_bytes"]);
    let needed = number(&told["memory"]["needed_bytes"]);
    assert_eq!(available, (2 << 20) / 4 * 3);
    assert!(needed > available && told["world"] == json!(true), "{told}");
    assert_eq!(told["memory"]["missing_bytes"], needed - available);
    assert!(cluster.edge_log(0).contains("90 %"), "it was said before");
    assert_eq!(edge.call("GET", "/v1/messages", Value::Null).await.status, 200);

    // Started again it takes nothing of the world, and lives.
    cluster.kill_edge(0);
    cluster.launch_edge(0);
    let told =
        until(ops, "/readyz", |status, body| status == 503 && !body["memory"].is_null()).await;
    assert_eq!(told["world"], json!(false));
    let world = admin.ok("GET", &path, Value::Null).await["usage"].clone();
    let private = number(&world["bytes_by_part"]["private"]);
    assert_eq!(told["memory"]["needed_bytes"], number(&world["bytes"]) - private);
    assert!(cluster.edge_log(0).contains("needed_bytes"), "the log says so, too");
    let (_, metrics) = ops_get(ops, "/metrics").await.expect("metrics");
    assert!(metrics.contains(&format!("edge_world_max_bytes {available}")), "{metrics}");

    // As soon as it fits it is there.
    for id in 1..=devices / 2 {
        admin.call("DELETE", &format!("{path}/devices/{id:016x}"), Value::Null).await;
    }
    let ready = until(ops, "/readyz", |status, _| status == 200).await;
    assert_eq!((&ready["world"], &ready["memory"]), (&json!(true), &Value::Null));
}
