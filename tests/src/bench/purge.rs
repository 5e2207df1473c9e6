//! What writers notice while a million old rows are forgotten: their p99 with and without it, in turns.
//!
//! The rows are put into the store behind central's back, as a week of a busy installation would have left them: ended
//! messages, tombstones of devices, and idempotency keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::{BenchError, Figure, Goal, Spread, print, progress, quantile};
use crate::admin::text;
use crate::cluster::{Cluster, Store};

const TOMBSTONES: u64 = 400_000;
const MESSAGES: u64 = 300_000;
const KEYS: u64 = 300_000;
const EXPIRED: u64 = TOMBSTONES + MESSAGES + KEYS;
const LIVE: u64 = 2_000;
const WRITERS: u64 = 16;
const TURNS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(1);
const LASTS: Duration = Duration::from_secs(4);
/// For what is left after the last turn.
const REST_MAX: Duration = Duration::from_secs(600);
const RATIO_MOST: f64 = 2.0;
/// Between two steps: none within a turn.
const NEVER: [&str; 2] = ["--central-purge-pause", "1h"];
const AS_IT_COMES: [&str; 2] = ["--central-purge-pause", "10ms"];

/// # Errors
/// If anything that should go stays, or anything that should stay goes.
pub(super) async fn run() -> Result<(), BenchError> {
    for store in super::stores() {
        one(store).await?;
    }
    Ok(())
}

async fn one(store: Store) -> Result<(), BenchError> {
    let mut cluster = Cluster::start_with(store, &NEVER, &[]).await;
    let app = prepare(&cluster).await;
    cluster.stop_central();
    progress(&format!("{store:?}: put {EXPIRED} rows"));
    for statement in fill(store) {
        sql(&cluster, &statement)?;
    }
    if left(&cluster)? != EXPIRED {
        return Err(BenchError(format!("{} rows put", left(&cluster)?)));
    }
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut gone, mut purging) = (0, Duration::ZERO);
    for turn in 1..=TURNS {
        cluster.start_central_with(&NEVER).await;
        let quiet = turn_of_writers(&cluster, &app).await?;
        cluster.stop_central();
        let before = left(&cluster)?;
        cluster.start_central_with(&AS_IT_COMES).await;
        let began = Instant::now();
        let busy = turn_of_writers(&cluster, &app).await?;
        cluster.stop_central();
        purging += began.elapsed();
        let after = left(&cluster)?;
        if after == 0 {
            return Err(BenchError(format!("nothing was left to forget in turn {turn}")));
        }
        gone += before - after;
        progress(&format!(
            "{store:?}: p99 {:.1} ms of {} writes without, {:.1} ms of {} with {} rows forgotten",
            quantile(&quiet, 0.99),
            quiet.len(),
            quantile(&busy, 0.99),
            busy.len(),
            before - after
        ));
        ratios.push(quantile(&busy, 0.99) / quantile(&quiet, 0.99));
        without.push(quantile(&quiet, 0.99));
        with.push(quantile(&busy, 0.99));
    }
    let name = format!("{store:?}").to_lowercase();
    print(&Figure {
        figure: format!("purge_p99_{name}"),
        value: Spread::of(&ratios).median,
        unit: "ratio",
        against: format!(
            "{WRITERS} writers' p99 without purge: {} ms; with: {} ms, while {:.0} rows/s were forgotten",
            Spread::of(&without),
            Spread::of(&with),
            gone as f64 / purging.as_secs_f64()
        ),
        goal: Goal::AtMost(RATIO_MOST),
    });
    cluster.start_central_with(&AS_IT_COMES).await;
    let rest = left(&cluster)?;
    let began = Instant::now();
    while left(&cluster)? > 0 {
        if began.elapsed() > REST_MAX {
            return Err(BenchError(format!("{} rows are still there", left(&cluster)?)));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    print(&Figure {
        figure: format!("purge_rate_{name}"),
        value: rest as f64 / began.elapsed().as_secs_f64(),
        unit: "rows/s",
        against: format!("the last {rest} of {EXPIRED} rows, nobody writing"),
        goal: Goal::None,
    });
    check(&cluster, &app).await
}

/// An app with its live devices, and one message that is over.
async fn prepare(cluster: &Cluster) -> String {
    let mut admin = cluster.admin();
    let app = json!({"name": "purge", "environment": "sandbox"});
    let app = admin.ok("POST", "/v1/apps", app).await;
    let app = format!("/v1/apps/{}", text(&app, "id"));
    let number = json!({"type": "number"});
    admin.ok("PUT", &format!("{app}/attributes/n"), number).await;
    let lines: String = (1..=LIVE).map(|n| format!("{{\"id\":\"{n:016x}\"}}\n")).collect();
    let import = admin.request("POST", &format!("{app}/devices:import"), lines);
    assert_eq!(admin.send(import).await.json()["created"], LIVE);
    let message = json!({"to": "all", "body": {"text": "x".repeat(200)}});
    let message = admin.ok("POST", &format!("{app}/messages"), message).await;
    let recall = format!("{app}/messages/{}:recall", text(&message, "id"));
    admin.ok("POST", &recall, json!(null)).await;
    app
}

/// Statements that make the expired rows, each of a seq of its own, and say that all of it was committed long ago.
fn fill(store: Store) -> Vec<String> {
    let (random, cast) = match store {
        Store::Sqlite => ("random()", "TEXT"),
        Store::MariaDb => ("CAST(CONV(SUBSTR(MD5(seq), 1, 16), 16, 10) AS UNSIGNED)", "CHAR"),
    };
    let with = |rows: u64| match store {
        Store::Sqlite => format!(
            "WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < {rows})"
        ),
        Store::MariaDb => format!("WITH n AS (SELECT seq FROM seq_1_to_{rows})"),
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let day = 24 * 60 * 60 * 1000;
    let (old_key, old_seq) = (now - 2 * day, now - 8 * day);
    let head = "(SELECT head FROM lease)";
    let state = "(SELECT state FROM messages AS m LIMIT 1)";
    let of_message = format!(
        "shard, app, {random}, revision, state, to_expression, priority, collapse_key, created_at, not_before, expires_at, variants"
    );
    let messages = "messages (shard, app, message, revision, state, to_expression, priority, collapse_key, created_at, \
                    not_before, expires_at, variants, changed_seq)";
    vec![
        format!(
            "INSERT INTO devices (shard, app, device, generation_seq, p_seq, created_at, attributes, group_ids, changed_seq, \
             deleted) {} SELECT 0, (SELECT app FROM apps), {random}, 0, 0, 0, '{{}}', '[]', {head} + seq, 1 FROM n",
            with(TOMBSTONES)
        ),
        format!("UPDATE lease SET head = head + {TOMBSTONES}"),
        format!(
            "INSERT INTO {messages} {} SELECT {of_message}, {head} + seq FROM n CROSS JOIN (SELECT * FROM messages) AS first",
            with(MESSAGES)
        ),
        format!("UPDATE lease SET head = head + {MESSAGES}"),
        format!(
            "INSERT INTO message_revisions (shard, app, message, from_seq, active, to_expression, heads) \
             SELECT m.shard, m.app, m.message, m.changed_seq, 0, m.to_expression, first.heads FROM messages AS m \
             CROSS JOIN (SELECT heads FROM message_revisions LIMIT 1) AS first \
             WHERE m.state = {state} AND m.changed_seq > {head} - {MESSAGES}"
        ),
        format!(
            "INSERT INTO idempotency (shard, app, idempotency_key, request_sha256, response, created_at) {} \
             SELECT 0, (SELECT app FROM apps), CAST({random} AS {cast}), X'{}', X'7b7d', {old_key} + seq FROM n",
            with(KEYS),
            "ab".repeat(32)
        ),
        "DELETE FROM seq_times".to_owned(),
        format!("INSERT INTO seq_times (shard, seq, at) SELECT shard, head, {old_seq} FROM lease"),
    ]
}

/// Expired rows that are still there. (The recalled message is one of `MESSAGES` more, and not counted.)
fn left(cluster: &Cluster) -> Result<u64, BenchError> {
    let count = "SELECT (SELECT COUNT(*) FROM devices WHERE deleted = 1) + (SELECT COUNT(*) FROM idempotency) + \
                 (SELECT COUNT(*) FROM messages WHERE state = 'recalled' AND changed_seq > 10000)";
    sql(cluster, count)?
        .trim()
        .parse()
        .map_err(|_| BenchError("the store does not count".to_owned()))
}

/// Runs a statement past central. Gives the first column of the first row.
fn sql(cluster: &Cluster, statement: &str) -> Result<String, BenchError> {
    if let Some(server) = &cluster.mariadb {
        return Ok(server.sql(&format!("USE carillon; {statement}")));
    }
    let run = || -> rusqlite::Result<String> {
        let connection = rusqlite::Connection::open(cluster.store_file())?;
        connection.busy_timeout(Duration::from_secs(30))?;
        let mut statement = connection.prepare(statement)?;
        if statement.column_count() == 0 {
            return statement.execute([]).map(|rows| rows.to_string());
        }
        statement.query_row([], |row| row.get::<_, i64>(0)).map(|n| n.to_string())
    };
    run().map_err(|error| BenchError(format!("{statement}: {error}")))
}

/// How long each write of one turn took, in ms.
async fn turn_of_writers(cluster: &Cluster, app: &str) -> Result<Vec<f64>, BenchError> {
    let (counts, ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let mut admin = cluster.admin();
        let (counts, ends, app) = (counts.clone(), ends.clone(), app.to_owned());
        writers.push(tokio::spawn(async move {
            let mut took = Vec::new();
            for n in 0.. {
                // Each writer has devices of its own.
                let device = 1 + writer + WRITERS * (n % (LIVE / WRITERS));
                let path = format!("{app}/devices/{device:016x}");
                let edit = json!({"attributes": {"n": n}});
                let began = Instant::now();
                let answer = admin.call("PATCH", &path, edit).await;
                if answer.status != 200 {
                    return Err(BenchError(format!("a write: {answer:?}")));
                }
                if counts.load(Ordering::Relaxed) {
                    took.push(began.elapsed().as_secs_f64() * 1e3);
                }
                if ends.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(took)
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    counts.store(true, Ordering::Relaxed);
    tokio::time::sleep(LASTS).await;
    ends.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for writer in writers {
        all.extend(writer.await.map_err(|error| BenchError(error.to_string()))??);
    }
    Ok(all)
}

/// All that expired is gone, with its revisions, and nothing else.
async fn check(cluster: &Cluster, app: &str) -> Result<(), BenchError> {
    for (what, query, expected) in [
        ("messages", "SELECT COUNT(*) FROM messages", 0),
        ("revisions", "SELECT COUNT(*) FROM message_revisions", 0),
        ("devices", "SELECT COUNT(*) FROM devices", LIVE),
    ] {
        let found = sql(cluster, query)?;
        if found.trim() != expected.to_string() {
            return Err(BenchError(format!("{} {what} instead of {expected}", found.trim())));
        }
    }
    let mut admin = cluster.admin();
    let device = admin.ok("GET", &format!("{app}/devices/{:016x}", LIVE), json!(null)).await;
    if device["attributes"]["n"].is_null() {
        return Err(BenchError(format!("a device that was written: {device}")));
    }
    Ok(())
}
