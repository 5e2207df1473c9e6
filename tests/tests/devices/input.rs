//! Each endpoint of the device API with good input: it does what it says, and says what it did.

use bytes::Bytes;
use carillon_client::HttpTransport;
use carillon_tests::admin::{Admin, text};
use carillon_tests::cluster::{Cluster, Store};
use http::Request;
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::shop::{Hand, Shop, ids, new_secret};

const RECEIPT_AT: &str = "2026-11-21T00:00:00.250Z";

async fn good_input(store: Store) {
    let cluster = Cluster::start(store, 1).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let edge = cluster.edge(0);
    let mut http = Admin::new(&edge.plain_url(), "");
    let secret = new_secret();
    let body = json!({
        "key": shop.key,
        "secret": secret,
        "attributes": {"bucket": "b1", "rank": 1.5, "beta": true, "build": "2.3"},
        "groups": ["g0"],
        "tokens": [{"channel": "fcm", "token": "t".repeat(4096)}],
        "from_a_later_release": [1],
    });
    let answer = http.call("POST", "/v1/devices", body.clone()).await;
    let first = answer.json();
    assert_eq!((answer.status, text(&first, "app")), (201, &*shop.app), "{answer:?}");
    let session = text(&first, "session").to_owned();
    let cookie = format!(
        "__Host-carillon-{}={session}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=34560000",
        shop.app
    );
    assert_eq!(answer.header("set-cookie"), cookie);
    assert_eq!(
        (answer.header("cache-control"), answer.header("content-type")),
        ("no-store", "application/json")
    );
    // A repeat finds the same device and leaves its profile as it is.
    let again = json!({"key": shop.key, "secret": secret, "attributes": {"bucket": "b2"}});
    let answer = http.call("POST", "/v1/devices", again).await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &first["id"]));
    let id = text(&first, "id").to_owned();
    let seen = shop.device(&id).await;
    assert_eq!(
        seen["attributes"],
        json!({"bucket": "b1", "rank": 1.5, "beta": true, "build": "2.3"})
    );
    assert_eq!((&seen["groups"], &seen["tokens"]), (&json!(["g0"]), &json!(1)));
    assert_eq!(shop.device_count().await, 1);

    let mut device =
        Hand { http, app: shop.app.clone(), id: id.clone(), secret: secret.clone(), cursor: None };
    device.http.token = session;
    device.cursor = Some(text(&first, "cursor").to_owned());
    let message = shop.say("bucket == \"b2\" and not #g0", json!({"text": "hé"})).await;
    device.settle().await;
    let change = json!({
        "attributes": {"bucket": "b2", "rank": null, "build": "3"},
        "groups": {"g0": false, "g1": true},
        "tokens": [],
        "from_a_later_release": 1,
    });
    let answer = device.call("PATCH", "/v1/devices/self", change).await;
    assert_eq!((answer.status, answer.json()["after"].as_str()), (200, device.cursor.as_deref()));
    device.cursor = Some(text(&answer.json(), "cursor").to_owned());
    let seen = shop.device(&id).await;
    assert_eq!(seen["attributes"], json!({"bucket": "b2", "beta": true, "build": "3"}));
    assert_eq!((&seen["groups"], &seen["tokens"]), (&json!(["g1"]), &json!(0)));
    // Nothing named, nothing changed.
    let answer = device.call("PATCH", "/v1/devices/self", json!({})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(shop.device(&id).await, seen);

    // The write's floor is reached, so the inventory shows it; its body is fetched with its cursor.
    let answer = device.poll(30).await;
    let json = answer.json();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(json["inventory"][0][0], message, "{json}");
    assert_eq!(json["inventory"].as_array().map(Vec::len), Some(1));
    assert!(json["poll_after"].is_number());
    device.cursor = Some(text(&json, "cursor").to_owned());
    let many: Vec<&str> = std::iter::once(&*message).chain(["0123456789abcdef"; 199]).collect();
    let answer = device.call("POST", "/v1/messages:fetch", json!({"ids": many})).await;
    assert_eq!(ids(&answer), [&*message]);
    let fetched = answer.json();
    assert_eq!(fetched["messages"][0]["body"], json!({"text": "hé"}));
    assert_eq!(fetched["messages"][0]["tag"], json["inventory"][0][1], "the tag of the inventory");
    assert_eq!(
        (&fetched["after"], &fetched["gone"][0]),
        (&json["cursor"], &json!("0123456789abcdef"))
    );
    device.cursor = Some(text(&fetched, "cursor").to_owned());
    device.settle().await;
    for wait in ["", "?wait=0", "?wait=00", "?other=1&wait=0", "?wait=61&wait=0"] {
        let answer = device.call("GET", &format!("/v1/messages{wait}"), Value::Null).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{wait}: {answer:?}");
    }

    // Receipts: the same answer whether or not the message is the device's.
    let receipt = |n: u64, message: &str, kind: Value| {
        let mut receipt = json!({"id": format!("{n:016x}"), "message": message, "at": RECEIPT_AT});
        receipt
            .as_object_mut()
            .expect("an object")
            .extend(kind.as_object().expect("an object").clone());
        receipt
    };
    let mut all: Vec<Value> =
        (0..196).map(|n| receipt(n, "0123456789abcdef", json!({"kind": "opened"}))).collect();
    all.push(receipt(1_000, &message, json!({"kind": "displayed"})));
    all.push(receipt(1_001, &message, json!({"kind": "opened"})));
    all.push(receipt(1_002, &message, json!({"kind": "dismissed"})));
    all.push(receipt(1_003, &message, json!({"kind": "action", "action": "a".repeat(64)})));
    for _ in 0..2 {
        let answer = device.call("POST", "/v1/receipts", json!({"receipts": all})).await;
        assert_eq!((answer.status, answer.json()), (202, json!({})));
    }

    // A session for the secret, by TLS; the cookie is as good as the bearer.
    let mut tls = HttpTransport::new(edge.url().parse().expect("an URL"), Some(cluster.tls()));
    let login = json!({"app": shop.app, "id": id, "secret": secret});
    let request = Request::post("/v1/devices/session").body(Bytes::from(login.to_string()));
    let answer = tls.request(request.expect("a request"), PATIENCE).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let given: Value = serde_json::from_slice(answer.body()).expect("JSON");
    let session = text(&given, "session");
    let cookie = answer.headers()["set-cookie"].to_str().expect("text");
    assert!(cookie.starts_with(&format!("__Host-carillon-{}={session}; ", shop.app)), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair");
    let request = Request::get("/v1/messages").header("cookie", cookie).body(Bytes::new());
    let answer = tls.request(request.expect("a request"), PATIENCE).await.expect("an answer");
    assert_eq!(answer.status(), 200, "an empty store gets all");
    device.http.token = session.to_owned();
    assert_eq!(device.poll(0).await.status, 204);

    let answer = device.call("DELETE", "/v1/devices/self", Value::Null).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert!(answer.header("set-cookie").ends_with("Max-Age=0"), "{answer:?}");
    assert_eq!(shop.device_count().await, 0);
    let began = tokio::time::Instant::now();
    while device.poll(0).await.status != 401 {
        assert!(began.elapsed() < PATIENCE, "the edge does not learn of it");
    }
    device.poll(0).await.expect_problem(401, "unknown");
    let login = json!({"app": shop.app, "id": id, "secret": secret});
    device.call("POST", "/v1/devices/session", login).await.expect_problem(401, "unknown");
    // The same secret is another device from here on.
    let answer = device.http.call("POST", "/v1/devices", body).await;
    assert_eq!(answer.status, 201);
    assert_ne!(answer.json()["id"], json!(id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_input_does_what_it_says_on_sqlite() {
    good_input(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_input_does_what_it_says_on_mariadb() {
    good_input(Store::MariaDb).await;
}

#[tokio::test]
async fn enrolments_beyond_the_rate_are_refused_and_make_no_device() {
    let slow = ["--edge-enrol-burst", "3", "--edge-enrol-every", "1h"];
    let cluster = Cluster::start_with(Store::Sqlite, &[], &[&slow]).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let url = cluster.edge(0).plain_url();
    for _ in 0..3 {
        shop.enrol(&url, json!({})).await;
    }
    let mut http = Admin::new(&url, "");
    let body = json!({"key": shop.key, "secret": new_secret()});
    let answer = http.call("POST", "/v1/devices", body).await;
    answer.expect_problem(429, "rate-limited");
    let retry_after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=3600).contains(&retry_after), "{retry_after}");
    assert_eq!(shop.device_count().await, 3);
}
