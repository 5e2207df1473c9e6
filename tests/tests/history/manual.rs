//! Every query of docs/history.md, run by DuckDB over a lake that central made, a fork included.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use carillon_tests::admin::{Admin, Answer, text};
use carillon_tests::cluster::{Store, copy_store};
use carillon_tests::history::duckdb_all;
use carillon_tests::pushes::PushBench;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{PATIENCE, report};

const MANUAL: &str = include_str!("../../../docs/history.md");
const DEVICES: u64 = 20;

/// The queries of the manual in its order, views first, each with its first comment as its name.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for block in MANUAL.split("```sql\n").skip(1) {
        let (query, _) = block.split_once("\n```").expect("a block has an end");
        let name = match query.strip_prefix("-- ") {
            Some(named) => named.lines().next().expect("a line"),
            None => query.split(" AS").next().expect("a view"),
        };
        queries.push((name.to_owned(), query.to_owned()));
    }
    // The manual says what a fork is before it says how to ask.
    queries.sort_by_key(|(name, _)| match name.as_str() {
        "CREATE VIEW history" => 0,
        "CREATE VIEW truth" => 1,
        _ => 2,
    });
    queries
}

/// Its two views, over a lake.
pub(super) fn views(lake: &Path) -> Vec<String> {
    let place = lake.display().to_string();
    let real = |(_, query): (String, String)| query.replace("/var/lib/carillon/history", &place);
    queries().into_iter().take(2).map(real).collect()
}

/// What each query gives where the manual's examples stand for these.
fn answers(lake: &Path, names: &[(&str, &str)]) -> BTreeMap<String, Vec<Value>> {
    let queries = queries();
    let real = |query: &str| {
        let mut query = query.replace("/var/lib/carillon/history", &lake.display().to_string());
        for (example, name) in names {
            query = query.replace(example, name);
        }
        query
    };
    let texts: Vec<String> = queries.iter().map(|(_, query)| real(query)).collect();
    let answers = duckdb_all(&texts);
    queries.into_iter().map(|(name, _)| name).zip(answers).collect()
}

/// A device that polls by hand.
struct Hand {
    http: Admin,
    cursor: Option<String>,
}

impl Hand {
    async fn call(&mut self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = self.http.request(method, path, body);
        if let Some(cursor) = &self.cursor {
            let value = cursor.parse().expect("a cursor is visible ASCII");
            request.headers_mut().insert("carillon-cursor", value);
        }
        self.http.send(request).await
    }

    /// Polls until there is nothing new; so the edge sees that what came before is stored.
    async fn settle(&mut self) {
        let began = Instant::now();
        loop {
            let answer = self.call("GET", "/v1/messages?wait=0", Value::Null).await;
            match answer.status {
                204 => return,
                200 => self.cursor = Some(text(&answer.json(), "cursor").to_owned()),
                503 => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => panic!("{answer:?}"),
            }
            assert!(began.elapsed() < PATIENCE, "news without end");
        }
    }
}

/// Polls until the funnel of a message says so.
async fn until(
    bench: &mut PushBench,
    hand: &mut Hand,
    message: &str,
    is_so: impl Fn(&Value) -> bool,
) {
    let began = Instant::now();
    loop {
        hand.settle().await;
        let funnel = bench.admin.ok("GET", &format!("{message}/funnel"), Value::Null).await;
        if is_so(&funnel) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{funnel}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// All of it happened in an hour or two, whichever those are.
fn without_hours(rows: &[Value]) -> Vec<Value> {
    let rest = |row: &Value| {
        let row = row.as_array().expect("a row");
        assert!(row[0].as_str().is_some_and(|day| day.starts_with("20")), "{row:?}");
        row[2..].to_vec()
    };
    rows.iter().map(rest).map(Value::from).collect()
}

/// Adds up what is alike but for the hour, by the column that is named.
fn sums(rows: &[Value]) -> BTreeMap<String, Vec<u64>> {
    let mut sums: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in without_hours(rows) {
        let row = row.as_array().expect("a row");
        let counts = row[1..]
            .iter()
            .map(|n| n.to_string().trim_matches('"').parse::<u64>().expect("a number"));
        let sum = sums.entry(row[0].as_str().expect("a name").to_owned()).or_default();
        for (at, count) in counts.enumerate() {
            sum.resize(sum.len().max(at + 1), 0);
            sum[at] += count;
        }
    }
    sums
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_manual_says_what_happened() {
    let central = ["--history-flush-every", "300ms"];
    let mut bench = PushBench::start(Store::Sqlite, DEVICES, &[], &central).await;
    let edge = bench.cluster.add_edge(&[]).await;
    let edge = bench.cluster.edge(edge).plain_url();
    let path = bench.path.clone();
    let app = path.rsplit('/').next().expect("an id").to_owned();

    let about = bench.admin.ok("GET", &path, Value::Null).await;
    let secret = format!("{:A<43}", "hand");
    let enrol = json!({"key": text(&about, "publishable_key"), "secret": secret});
    let enrolled = Admin::new(&edge, "").call("POST", "/v1/devices", enrol).await;
    assert_eq!(enrolled.status, 201, "{enrolled:?}");
    let enrolled = enrolled.json();
    let mut hand = Hand {
        http: Admin::new(&edge, text(&enrolled, "session")),
        cursor: Some(text(&enrolled, "cursor").to_owned()),
    };
    for name in ["vip", "staff"] {
        let group = json!({"name": name, "set_by": "server"});
        bench.admin.ok("POST", &format!("{path}/groups"), group).await;
    }
    let device = format!("{path}/devices/{}", text(&enrolled, "id"));
    for (of, groups) in [
        (device.clone(), json!({"vip": true, "staff": true})),
        (device.clone(), json!({"vip": false})),
        (format!("{path}/devices/{:016x}", 1), json!({"staff": true})),
    ] {
        bench.admin.ok("PATCH", &of, json!({"groups": groups})).await;
    }
    let alert = bench.alert("hello").await;
    bench.until_state(&alert, "done", PATIENCE).await;
    let message = json!({"to": "#staff", "body": {"n": 1}});
    let message = bench.admin.ok("POST", &format!("{path}/messages"), message).await;
    let message = format!("{path}/messages/{}", text(&message, "id"));
    until(&mut bench, &mut hand, &message, |funnel| funnel["delivered"] == 1).await;
    let id = message.rsplit('/').next().expect("an id").to_owned();
    let receipt = json!({"id": format!("{:016x}", 1), "message": id, "kind": "displayed", "at": "2026-11-21T00:00:00Z"});
    let answer = hand.call("POST", "/v1/receipts", json!({"receipts": [receipt]})).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    until(&mut bench, &mut hand, &message, |funnel| funnel["displayed"] == 1).await;
    bench.admin.ok("PATCH", &message, json!({"body": {"n": 2}})).await;
    bench.admin.ok("POST", &format!("{message}:recall"), Value::Null).await;
    until(&mut bench, &mut hand, &message, |funnel| funnel["withdrawn"]["confirmed"] == 1).await;

    // What follows is lost with the store, and something else happens in its place.
    bench.cluster.stop_central();
    let data = bench.cluster.data();
    let backup = tempfile::tempdir().expect("a folder");
    copy_store(&data, backup.path());
    bench.cluster.start_central().await;
    bench.admin = bench.cluster.admin();
    bench.admin.ok("PATCH", &device, json!({"groups": {"vip": true}})).await;
    bench.admin.ok("DELETE", &format!("{path}/devices/{:016x}", 2), Value::Null).await;
    bench.cluster.stop_central();
    copy_store(backup.path(), &data);
    bench.cluster.start_central_with(&["--history-accept-restore", "true"]).await;
    bench.admin = bench.cluster.admin();
    bench
        .admin
        .ok("PATCH", &format!("{path}/devices/{:016x}", 3), json!({"groups": {"vip": true}}))
        .await;
    bench.cluster.stop_central();

    let shown = |flags: &[&str]| {
        let data = format!("--data={}", data.display());
        super::query::records(&[&[&data, "--limit=100000"], flags].concat())
    };
    let all = shown(&[]);
    let of_hand = shown(&[&format!("--message={id}"), "--event=message.delivered"]);
    let pseudonym = of_hand[0].device.expect("a device").to_string();
    let names = [
        ("00000000000000a1", &*app),
        ("00000000000000b2", &*id),
        ("7d000000000000000000000000000000", &*pseudonym),
    ];
    let answers = answers(&data.join("history"), &names);
    let [has, counts]: [fn(&Value) -> bool; 2] =
        [|row| row[0].as_str().is_some_and(|at| at.starts_with("20")), |row| row.is_array()];
    let answer = |name: &str| {
        let found: Vec<_> = answers.iter().filter(|(of, _)| of.starts_with(name)).collect();
        assert_eq!(found.len(), 1, "{name} in {:?}", answers.keys());
        found[0].1.clone()
    };

    let rows = answer("What happened to a device");
    let told: Vec<&str> = rows.iter().map(|row| row[1].as_str().expect("an event")).collect();
    assert!(rows.iter().all(has));
    assert_eq!(
        told,
        [
            "device.created",
            "device.changed",
            "device.changed",
            "message.delivered",
            "device.receipt",
            "message.withdrawn",
            // Of the history that never was.
            "device.changed"
        ]
        .as_slice(),
        "{rows:?}"
    );
    let pushed = sums(&answer("Pushes that providers took"));
    assert_eq!(pushed, BTreeMap::from([("apns".to_owned(), vec![DEVICES])]));
    let funnel = without_hours(&answer("What became of a message"));
    let mut sum = [0; 4];
    for row in &funnel {
        for (sum, n) in sum.iter_mut().zip(row.as_array().expect("a row")) {
            *sum += n.as_u64().expect("a number");
        }
    }
    assert_eq!(sum, [1, 1, 0, 1], "delivered, displayed, opened, withdrawn: {funnel:?}");
    let rows = answer("Who had a message");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0][0], pseudonym);
    assert!(rows[0][1].as_str() < rows[0][2].as_str(), "{rows:?}");
    let rows = answer("What a message said");
    // By the group's id: its name may change.
    let to = rows[0][4].clone();
    assert!(to.as_str().is_some_and(|to| to.starts_with("#:")), "{to}");
    let told: Vec<Value> =
        rows.iter().map(|row| json!([row[1], row[2], row[3], row[4], row[5]])).collect();
    assert_eq!(
        told,
        [
            json!(["message.created", "1", "active", to, "{\"n\":1}"]),
            json!(["message.edited", "2", "active", to, "{\"n\":2}"]),
            json!(["message.state", null, "recalled", null, null]),
        ]
    );
    let moved = sums(&answer("Devices that joined and left"));
    // Once more into vip after the restore; the one before it never was.
    let expected = [("staff", vec![2, 0]), ("vip", vec![2, 1])];
    assert_eq!(moved, expected.map(|(name, counts)| (name.to_owned(), counts)).into());
    assert!(answers.values().flatten().all(counts));
    assert_eq!(answer("How many devices each group had"), [json!(["staff", 2]), json!(["vip", 1])]);

    // What the command leaves out is what the view leaves out.
    let truth = shown(&["--without-forks"]);
    let lost: Vec<&str> = all
        .iter()
        .filter(|record| !truth.contains(record))
        .map(|record| record.event.as_str())
        .collect();
    assert_eq!(lost.iter().filter(|name| **name == "device.deleted").count(), 1, "{lost:?}");
    assert_eq!(lost.iter().filter(|name| **name == "device.changed").count(), 1, "{lost:?}");
    let counts = ["history", "truth"].map(|view| format!("SELECT count(*) FROM {view}"));
    let counted = duckdb_all(&[views(&data.join("history")), counts.to_vec()].concat());
    assert_eq!(counted[2], [json!([all.len()])]);
    assert_eq!(counted[3], [json!([truth.len()])]);
    report(&format!(
        "the manual's {} queries over {} events, {} of which never were",
        answers.len(),
        all.len(),
        all.len() - truth.len()
    ));
}
