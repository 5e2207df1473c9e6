//! Sessions and cursors that are forged, truncated, of another device, of another app, of an old generation: refused,
//! each in its own way, and nothing of anybody is told or changed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use carillon_tests::admin::{Admin, Answer, text};
use carillon_tests::cluster::{Cluster, Store};
use http::Request;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::shop::{Hand, Shop, ids};
use crate::{PATIENCE, say};

/// Stands in the body of the message that nobody may get.
const MARK: &str = "for-its-own-device-alone";

/// What a refusal has to be.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Session,
    BadCursor,
}

impl Refusal {
    #[track_caller]
    fn check(self, answer: &Answer) {
        match self {
            Refusal::Session => answer.expect_problem(401, "session"),
            Refusal::BadCursor => answer.expect_problem(400, "bad-cursor"),
        };
        assert!(!String::from_utf8_lossy(&answer.body).contains(MARK));
        assert!(!answer.headers.contains_key("set-cookie"), "{answer:?}");
    }
}

/// Every text that differs from a sealed one by a bit of its bytes, is shorter or longer, or is in another alphabet.
fn forgeries(sealed: &str) -> Vec<String> {
    let bytes = URL_SAFE_NO_PAD.decode(sealed).expect("base64url");
    let mut all = Vec::new();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            all.push(URL_SAFE_NO_PAD.encode(flipped));
        }
    }
    for length in 0..bytes.len() {
        all.push(URL_SAFE_NO_PAD.encode(&bytes[..length]));
    }
    // By characters, too: lengths that no bytes have.
    all.extend((1..sealed.len()).map(|length| sealed[..length].to_owned()));
    for more in ["A", "AA", "AAAA", "=", "==", ".", "%00"] {
        all.push(format!("{sealed}{more}"));
    }
    // A version from the future, with everything else as it was, and a day far ahead.
    let mut future = bytes.clone();
    future[0] = 2;
    all.push(URL_SAFE_NO_PAD.encode(&future));
    let mut ahead = bytes;
    ahead[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    all.push(URL_SAFE_NO_PAD.encode(&ahead));
    all.extend(["A".repeat(1024), "A".repeat(1025), "A".repeat(8000), "*".repeat(50)]);
    all.retain(|text| text != sealed);
    all
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request.body(body.into()).expect("a request")
}

/// The calls that show a session, each with a body that would do something.
fn calls(message: &str) -> [(&'static str, &'static str, Value); 5] {
    let receipt = json!({"id": "00000000000000aa", "message": message, "kind": "opened", "at": "2026-11-21T00:00:00Z"});
    [
        ("GET", "/v1/messages?wait=0", Value::Null),
        ("POST", "/v1/messages:fetch", json!({"ids": [message]})),
        ("PATCH", "/v1/devices/self", json!({"attributes": {"bucket": "stolen"}})),
        ("POST", "/v1/receipts", json!({"receipts": [receipt]})),
        ("DELETE", "/v1/devices/self", Value::Null),
    ]
}

struct Stage {
    cluster: Cluster,
    shop: Shop,
    victim: Hand,
    message: String,
}

async fn stage(store: Store) -> Stage {
    let cluster = Cluster::start(store, 1).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let url = cluster.edge(0).plain_url();
    let mut victim = shop.enrol(&url, json!({"attributes": {"bucket": "b1"}})).await;
    let message = shop.say("bucket == \"b1\"", json!(MARK)).await;
    victim.receive(&message).await;
    victim.settle().await;
    Stage { cluster, shop, victim, message }
}

impl Stage {
    fn http(&self) -> Admin {
        Admin::new(&self.cluster.edge(0).plain_url(), "")
    }

    /// The victim is as it was, and what it shows is still good.
    async fn expect_untouched(&mut self, before: &Value) {
        assert_eq!(self.shop.device(&self.victim.id).await, *before);
        assert_eq!(self.victim.poll(0).await.status, 204);
    }
}

async fn altered(store: Store) {
    let mut stage = stage(store).await;
    let before = stage.shop.device(&stage.victim.id).await;
    let session = format!("Bearer {}", stage.victim.http.token);
    let cursor = stage.victim.cursor.clone().expect("one");
    let mut http = stage.http();
    let mut refused = 0;
    let calls = calls(&stage.message);
    for (n, forged) in forgeries(&stage.victim.http.token).into_iter().enumerate() {
        // Each forgery with another call, those that write among them; with the true cursor.
        let (method, path, body) = &calls[n % calls.len()];
        let bearer = format!("Bearer {forged}");
        let headers = [("authorization", &*bearer), ("carillon-cursor", &*cursor)];
        Refusal::Session.check(&http.send(request(method, path, &headers, body)).await);
        let cookie = format!("__Host-carillon-{}={forged}", stage.shop.app);
        let headers = [("cookie", &*cookie), ("carillon-cursor", &*cursor)];
        Refusal::Session.check(&http.send(request(method, path, &headers, body)).await);
        refused += 2;
    }
    for (n, forged) in forgeries(&cursor).into_iter().enumerate() {
        // Those that look at the cursor: a poll, a fetch, a patch.
        let (method, path, body) = &calls[n % 3];
        let headers = [("authorization", &*session), ("carillon-cursor", &*forged)];
        Refusal::BadCursor.check(&http.send(request(method, path, &headers, body)).await);
        refused += 1;
    }
    stage.expect_untouched(&before).await;
    say(&format!("{store:?}: {refused} altered sessions and cursors refused"));
    assert!(refused >= 2_000, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_sessions_and_cursors_are_refused_on_sqlite() {
    altered(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_sessions_and_cursors_are_refused_on_mariadb() {
    altered(Store::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_another_device_or_app_is_refused() {
    let mut stage = stage(Store::Sqlite).await;
    let before = stage.shop.device(&stage.victim.id).await;
    let url = stage.cluster.edge(0).plain_url();
    let other = stage.shop.enrol(&url, json!({})).await;
    // A device of another app with the same id, the same secret and the same profile.
    let mut twin_shop = Shop::open(&stage.cluster, "twin").await;
    let path = stage.shop.path("devices:export");
    let export = stage.shop.admin.request("GET", &path, "");
    let export = stage.shop.admin.send(export).await;
    let export = String::from_utf8(export.body.to_vec()).expect("UTF-8");
    let line = export.lines().find(|line| line.contains(&stage.victim.id)).expect("its line");
    let path = twin_shop.path("devices:import");
    let import = twin_shop.admin.request("POST", &path, line.to_owned());
    let report = twin_shop.admin.send(import).await.json();
    assert_eq!((&report["created"], &report["bad"]), (&json!(1), &json!(0)), "{report}");
    let login = json!({"app": twin_shop.app, "id": stage.victim.id, "secret": stage.victim.secret});
    let mut http = stage.http();
    let answer = http.call("POST", "/v1/devices/session", login).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let twin_session = text(&answer.json(), "session").to_owned();
    let mut twin = Hand {
        http: Admin::new(&url, &twin_session),
        app: twin_shop.app.clone(),
        id: stage.victim.id.clone(),
        secret: stage.victim.secret.clone(),
        cursor: None,
    };
    let began = Instant::now();
    while twin.poll(1).await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "the edge does not learn of the twin");
    }
    twin.settle().await;

    let cursor = |hand: &Hand| hand.cursor.clone().expect("one");
    let (own, others) = (stage.victim.http.token.clone(), other.http.token.clone());
    let (own_cursor, other_cursor, twin_cursor) =
        (cursor(&stage.victim), cursor(&other), cursor(&twin));
    let calls = calls(&stage.message);
    // A cursor of another device, or of the same id in another app; a session as a cursor.
    for (session, shown) in [
        (&own, &other_cursor),
        (&own, &twin_cursor),
        (&others, &own_cursor),
        (&twin_session, &own_cursor),
        (&own, &own),
    ] {
        for (method, path, body) in &calls[..3] {
            let bearer = format!("Bearer {session}");
            let headers = [("authorization", &*bearer), ("carillon-cursor", &**shown)];
            Refusal::BadCursor.check(&http.send(request(method, path, &headers, body)).await);
        }
    }
    for (method, path, body) in &calls {
        // A cursor as a session; nothing at all; another scheme.
        let as_session = format!("Bearer {own_cursor}");
        let basic = format!("Basic {own}");
        let mut shown: Vec<Vec<(&str, String)>> =
            vec![vec![("authorization", as_session)], vec![], vec![("authorization", basic)]];
        // A session under another app's name, as a header says it or a cookie is called.
        let (app, twin_app) = (&stage.shop.app, &twin_shop.app);
        shown.push(vec![
            ("authorization", format!("Bearer {own}")),
            ("carillon-app", twin_app.clone()),
        ]);
        shown.push(vec![("cookie", format!("__Host-carillon-{twin_app}={own}"))]);
        shown.push(vec![("cookie", format!("__Host-carillon-{app}={twin_session}"))]);
        shown.push(vec![
            ("cookie", format!("__Host-carillon-{app}={own}")),
            ("carillon-app", twin_app.clone()),
        ]);
        shown.push(vec![("cookie", format!("carillon-{app}={own}"))]);
        for headers in shown {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Refusal::Session.check(&http.send(request(method, path, &headers, body)).await);
        }
    }
    // Two apps' cookies side by side: the header chooses, and nothing chooses by itself.
    let both = format!(
        "__Host-carillon-{}={own}; __Host-carillon-{}={twin_session}",
        stage.shop.app, twin_shop.app
    );
    let answer =
        http.send(request("GET", "/v1/messages", &[("cookie", &both)], &Value::Null)).await;
    answer.expect_problem(400, "bad-request");
    for (app, got) in [(&stage.shop.app, 1), (&twin_shop.app, 0)] {
        let headers = [("cookie", &*both), ("carillon-app", &**app)];
        let answer = http.send(request("GET", "/v1/messages", &headers, &Value::Null)).await;
        assert_eq!((answer.status, ids(&answer).len()), (200, got), "{answer:?}");
    }
    // With a good session of its own, another device neither gets nor learns of the message.
    let bearer = format!("Bearer {others}");
    let headers = [("authorization", &*bearer), ("carillon-cursor", &*other_cursor)];
    let (method, path, body) = &calls[1];
    let answer = http.send(request(method, path, &headers, body)).await;
    assert_eq!(answer.json()["gone"], json!([stage.message]));
    assert!(!String::from_utf8_lossy(&answer.body).contains(MARK));
    // Another device's secret, or another app's name for the device, gives no session.
    for (app, id, secret, code) in [
        (&stage.shop.app, &stage.victim.id, &other.secret, "session"),
        (&twin_shop.app, &other.id, &other.secret, "unknown"),
    ] {
        let login = json!({"app": app, "id": id, "secret": secret});
        http.call("POST", "/v1/devices/session", login).await.expect_problem(401, code);
    }
    stage.expect_untouched(&before).await;
}

/// Polls until the edge has learnt that the session is not good any more.
async fn until_refused(device: &mut Hand, code: &str) {
    let began = Instant::now();
    loop {
        let answer = device.poll(0).await;
        if answer.status == 401 {
            answer.expect_problem(401, code);
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
    }
}

async fn generations(store: Store) {
    let mut stage = stage(store).await;
    let id = stage.victim.id.clone();
    let calls = calls(&stage.message);
    let mut http = stage.http();
    let login = |secret: &str, app: &str| json!({"app": app, "id": id, "secret": secret});
    for reset in ["revoke", "secret", "delete"] {
        let old = stage.victim.http.token.clone();
        let mut secret = stage.victim.secret.clone();
        match reset {
            "revoke" => {
                stage.shop.ok("POST", &format!("devices/{id}/revoke"), Value::Null).await;
            }
            "secret" => {
                // Another device's hash frees a secret that this test knows: that device is deleted first.
                let url = stage.cluster.edge(0).plain_url();
                let donor = stage.shop.enrol(&url, json!({"attributes": {"bucket": "b1"}})).await;
                let hash = secret_hash(&mut stage.shop, &donor.id).await;
                stage.shop.ok("DELETE", &format!("devices/{}", donor.id), Value::Null).await;
                secret = donor.secret;
                import(&mut stage.shop, &id, &hash).await;
            }
            _ => {
                let hash = secret_hash(&mut stage.shop, &id).await;
                stage.shop.ok("DELETE", &format!("devices/{id}"), Value::Null).await;
                until_refused(&mut stage.victim, "unknown").await;
                let login = login(&secret, &stage.shop.app);
                let answer = http.call("POST", "/v1/devices/session", login).await;
                answer.expect_problem(401, "unknown");
                // The same id with the same secret comes back, and is another registration.
                import(&mut stage.shop, &id, &hash).await;
            }
        }
        let before = stage.shop.device(&id).await;
        if reset == "delete" {
            until_known(&mut stage.victim).await;
        }
        until_refused(&mut stage.victim, "session").await;
        // A parked poll, a write: nothing goes on with the session of before.
        for (method, path, body) in &calls {
            let bearer = format!("Bearer {old}");
            let headers = [("authorization", &*bearer)];
            Refusal::Session.check(&http.send(request(method, path, &headers, body)).await);
        }
        assert_eq!(stage.shop.device(&id).await, before, "{reset}");
        if reset == "secret" {
            let login = login(&stage.victim.secret, &stage.shop.app);
            let answer = http.call("POST", "/v1/devices/session", login).await;
            answer.expect_problem(401, "session");
        }
        // The secret gives a session of the generation that holds, and the cursor is still the device's.
        let login = login(&secret, &stage.shop.app);
        let answer = http.call("POST", "/v1/devices/session", login).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        stage.victim.http.token = text(&answer.json(), "session").to_owned();
        stage.victim.secret = secret;
        stage.victim.settle().await;
    }
}

/// Until the edge knows the device again, whatever it thinks of its session.
async fn until_known(device: &mut Hand) {
    let began = Instant::now();
    while device.poll(0).await.json()["code"] == "unknown" {
        assert!(began.elapsed() < PATIENCE, "the edge does not learn of the device");
    }
}

async fn secret_hash(shop: &mut Shop, id: &str) -> String {
    let path = shop.path("devices:export");
    let export = shop.admin.request("GET", &path, "");
    let export = shop.admin.send(export).await;
    let export = String::from_utf8(export.body.to_vec()).expect("UTF-8");
    let line = export.lines().find(|line| line.contains(id)).expect("its line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    text(&line, "secret_sha256").to_owned()
}

async fn import(shop: &mut Shop, id: &str, hash: &str) {
    let line = json!({"id": id, "secret_sha256": hash, "attributes": {"bucket": "b1"}});
    let path = shop.path("devices:import");
    let import = shop.admin.request("POST", &path, line.to_string());
    let report = shop.admin.send(import).await.json();
    assert_eq!(report["bad"], 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_an_old_generation_is_refused_on_sqlite() {
    generations(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_an_old_generation_is_refused_on_mariadb() {
    generations(Store::MariaDb).await;
}
