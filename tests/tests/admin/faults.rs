//! The store goes away, central is killed, and another central takes the shard.

use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_client::HttpTransport;
use carillon_tests::admin::{Admin, text};
use carillon_tests::cluster::{Cluster, Store, ops_get};
use carillon_tests::process::free_address;
use http::Request;
use serde_json::{Value, json};

use crate::bench::{PATIENCE, say, seq};
use crate::import::id;
use crate::writers::Writers;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often central asks a store that is down whether it is back.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Waits until central's `/readyz` answers so, and gives what it says.
async fn readiness(cluster: &Cluster, status: u16) -> Value {
    let began = Instant::now();
    loop {
        let (found, body) = ops_get(cluster.admin_address(), "/readyz").await.expect("it answers");
        if found == status {
            return serde_json::from_str(&body).expect("JSON");
        }
        assert!(began.elapsed() < PATIENCE * 2, "{found} {body}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A lock that another process holds on the file, or no server.
#[derive(Debug)]
enum Outage {
    Locked(rusqlite::Connection),
    Stopped,
}

impl Outage {
    fn begin(cluster: &mut Cluster, kill: bool) -> Outage {
        let Some(server) = &mut cluster.mariadb else {
            let file = rusqlite::Connection::open(cluster.store_file()).expect("open the file");
            file.busy_timeout(PATIENCE).expect("set");
            file.execute_batch("BEGIN IMMEDIATE").expect("lock");
            return Outage::Locked(file);
        };
        if kill {
            server.kill9()
        } else {
            server.stop()
        }
        Outage::Stopped
    }

    fn end(self, cluster: &mut Cluster) {
        match self {
            Outage::Locked(file) => file.execute_batch("ROLLBACK").expect("unlock"),
            Outage::Stopped => cluster.mariadb.as_mut().expect("it was stopped").restart(),
        }
    }
}

/// A device of the app that enrols at the edge; gives its session.
async fn enrol(cluster: &Cluster, admin: &mut Admin) -> (HttpTransport, String, String) {
    let new = json!({"name": "phones", "environment": "sandbox"});
    let app = admin.ok("POST", "/v1/apps", new).await;
    let mut edge =
        HttpTransport::new(cluster.edge(0).url().parse().expect("an URL"), Some(cluster.tls()));
    let body = json!({"key": app["publishable_key"], "secret": "A".repeat(43)}).to_string();
    let request = Request::post("/v1/devices").body(Bytes::from(body)).expect("a request");
    let answer = edge.request(request, PATIENCE).await.expect("an answer");
    let body: Value = serde_json::from_slice(answer.body()).expect("JSON");
    (edge, text(&body, "session").to_owned(), text(&app, "id").to_owned())
}

async fn poll(edge: &mut HttpTransport, session: &str) -> (u16, Value) {
    let request = Request::get("/v1/messages").header("authorization", format!("Bearer {session}"));
    let request = request.body(Bytes::new()).expect("a request");
    let answer = edge.request(request, PATIENCE).await.expect("an answer");
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or(Value::Null))
}

/// Each write gets a definite answer or a 503 that says when to try again, reads and polls go on, and when the store is
/// back, so is central, by itself.
pub(crate) async fn store_down(store: Store) {
    // A locked file is given up after 5 s, which takes a while each time.
    let rounds = if store == Store::Sqlite { 2 } else { 4 };
    let mut cluster = Cluster::start(store, 1).await;
    let mut admin = cluster.admin();
    let (mut edge, session, app) = enrol(&cluster, &mut admin).await;
    let messages = format!("/v1/apps/{app}/messages");
    let message = admin.ok("POST", &messages, json!({"to": "all", "body": 1})).await;
    while poll(&mut edge, &session).await.0 != 200 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let writers = Writers::start(|| cluster.admin()).await;
    for round in 0..rounds {
        writers.acknowledged(30).await;
        let before = writers.counts();
        let outage = Outage::begin(&mut cluster, round % 2 == 1);
        let says = readiness(&cluster, 503).await;
        assert_eq!((&says["ready"], &says["store_up"]), (&json!(true), &json!(false)), "{says}");
        // Reads and polls do not need the store.
        let listed = admin.ok("GET", &messages, Value::Null).await;
        assert_eq!(listed["messages"][0]["id"], message["id"]);
        let (status, answer) = poll(&mut edge, &session).await;
        assert_eq!((status, &answer["messages"][0]["id"]), (200, &message["id"]), "{answer}");
        let preview = json!({"to": "all"});
        admin.ok("POST", &format!("/v1/apps/{app}/audience:preview"), preview).await;
        let (healthy, _) = ops_get(cluster.admin_address(), "/healthz").await.expect("it answers");
        assert_eq!(healthy, 200);
        let (_, metrics) = ops_get(cluster.admin_address(), "/metrics").await.expect("it answers");
        assert!(metrics.lines().any(|line| line == "central_store_up 0"), "{metrics}");
        let began = Instant::now();
        loop {
            let counts = writers.counts();
            if counts.refused + counts.unknown >= before.refused + before.unknown + 6 {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{counts:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        outage.end(&mut cluster);
        let says = readiness(&cluster, 200).await;
        assert_eq!(says["store_up"], json!(true), "{says}");
    }
    writers.acknowledged(30).await;
    let counts = writers.counts();
    writers.finish().await.check(&mut admin).await;
    assert!(
        counts.acknowledged >= 90 && counts.refused >= 1 && counts.refused + counts.unknown >= 12,
        "{counts:?}"
    );
    nobody_writes(&mut cluster, &mut admin, &app).await;
    say(&format!("{store:?}: {} outages, {counts:?}", rounds + 1));
}

/// The store is back before anybody writes again: central finds out by itself. An import says what it applied, and a
/// repeat completes it.
async fn nobody_writes(cluster: &mut Cluster, admin: &mut Admin, app: &str) {
    const LINES: u64 = 1_200;
    let messages = format!("/v1/apps/{app}/messages");
    let lines: String = (0..LINES).map(|n| format!("{}\n", json!({"id": id(n)}))).collect();
    let import = admin.request("POST", &format!("/v1/apps/{app}/devices:import"), lines);
    let outage = Outage::begin(cluster, true);
    let refused = admin.call("POST", &messages, json!({"to": "all", "body": "lost"})).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let half = admin.send(import.clone()).await;
    assert_eq!(half.status, 503, "{half:?}");
    assert!(!half.header("retry-after").is_empty(), "{half:?}");
    assert_eq!(
        (&half.json()["report"]["lines"], &half.json()["report"]["created"]),
        (&json!(LINES), &json!(0))
    );
    // And it stays so, though a locked file still tells the time.
    let began = Instant::now();
    while began.elapsed() < 2 * PROBE_EVERY {
        let (status, body) = ops_get(cluster.admin_address(), "/readyz").await.expect("it answers");
        assert_eq!(status, 503, "{body}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    outage.end(cluster);
    readiness(cluster, 200).await;
    let listed = admin.ok("GET", &messages, Value::Null).await;
    let lost = listed["messages"].as_array().expect("messages").iter().any(|m| m["body"] == "lost");
    assert!(!lost || refused.json()["code"] == "outcome-unknown", "{refused:?}");
    let whole = admin.send(import).await.json();
    let number = |name: &str| whole[name].as_u64().expect("a number");
    assert_eq!((number("created") + number("unchanged"), number("bad")), (LINES, 0), "{whole}");
    let preview = json!({"to": "all"});
    let preview = admin.ok("POST", &format!("/v1/apps/{app}/audience:preview"), preview).await;
    // And the one that polls.
    assert_eq!(preview["of"], json!(LINES + 1), "{preview}");
}

/// `kill -9` at any instant: what was acknowledged is there, and nothing is there by half.
pub(crate) async fn central_killed(store: Store) {
    const ROUNDS: u64 = 4;
    let mut cluster = Cluster::start(store, 0).await;
    let writers = Writers::start(|| cluster.admin()).await;
    for round in 0..ROUNDS {
        writers.acknowledged(40 + 7 * round).await;
        cluster.kill_central();
        let acknowledged = writers.seq();
        cluster.start_central().await;
        let (_, health) = ops_get(cluster.admin_address(), "/healthz").await.expect("it answers");
        let health: Value = serde_json::from_str(&health).expect("JSON");
        let head = health["head"].as_u64().expect("a seq");
        assert!(head >= acknowledged, "{head} after {acknowledged} was acknowledged");
    }
    writers.acknowledged(40).await;
    let counts = writers.counts();
    let finished = writers.finish().await;
    cluster.kill_central();
    cluster.start_central().await;
    finished.check(&mut cluster.admin()).await;
    assert!(counts.acknowledged >= 200, "{counts:?}");
    say(&format!("{store:?}: {} kills, {counts:?}", ROUNDS + 1));
}

/// A second central on the same store takes the shard: the first one writes nothing more, says so and ends.
pub(crate) async fn deposed(store: Store) {
    let mut cluster = Cluster::start(store, 0).await;
    let mut old = cluster.admin();
    let app = old.ok("POST", "/v1/apps", json!({"name": "a", "environment": "sandbox"})).await;
    let messages = format!("/v1/apps/{}/messages", text(&app, "id"));
    let before = old.call("POST", &messages, json!({"to": "all", "body": "before"})).await;
    let (listen, stream) = (free_address(), free_address());
    let url = cluster.store_url();
    let data = cluster.data().display().to_string();
    let flags = [
        ("--data", data.as_str()),
        ("--central-store", &url),
        ("--central-listen", &listen.to_string()),
        ("--central-stream-listen", &stream.to_string()),
    ];
    let flags: Vec<&str> = flags.into_iter().flat_map(|(flag, value)| [flag, value]).collect();
    let mut rival = cluster.beside("rival", "central", &flags);
    rival.ready(listen).await;
    let mut fresh = Admin::new(&format!("http://{listen}"), &old.token);
    let after = fresh.call("POST", &messages, json!({"to": "all", "body": "after"})).await;
    let epoch = |position: &str| position.split('/').nth(1).and_then(|n| n.parse::<u64>().ok());
    let (first, second) = (before.header("carillon-position"), after.header("carillon-position"));
    assert!(epoch(second) > epoch(first), "{first} {second}");
    assert_eq!(seq(&after), seq(&before) + 1);

    let request = old.request("POST", &messages, json!({"to": "all", "body": "late"}).to_string());
    if let Ok(answer) = old.try_send(request).await {
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        answer.expect_problem(503, &code);
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    }
    let began = Instant::now();
    let ended = loop {
        if let Some(ended) = cluster.central_ended() {
            break ended;
        }
        let ready = ops_get(cluster.admin_address(), "/readyz").await;
        assert!(
            !ready.is_ok_and(|(status, _)| status == 200),
            "it has no shard and says it is ready"
        );
        assert!(began.elapsed() < PATIENCE, "it goes on");
        tokio::time::sleep(LOOK_EVERY).await;
    };
    assert!(!ended.success(), "{ended}");
    let log = cluster.central_log();
    assert!(log.contains("\"ERROR\"") && log.contains("central gives the shard up"), "{log}");
    let listed = fresh.ok("GET", &messages, Value::Null).await;
    let mut bodies: Vec<&str> = listed["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .filter_map(|message| message["body"].as_str())
        .collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["after", "before"], "what the deposed one was asked for is nowhere");
    say(&format!("{store:?}: deposed, {ended}"));
}
