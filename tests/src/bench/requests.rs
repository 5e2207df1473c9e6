//! A database is limited by requests, not by rows: many callers that each change one device, on a database that is
//! some way off, with batches and with batches of one; and a lone caller against a bare commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use serde_json::json;

use super::store::{connect, mariadb_work};
use super::{BenchError, Figure, Goal, Spread, print, progress, quantile};
use crate::admin::{Admin, text};
use crate::cluster::{Cluster, Store};
use crate::mariadb::MariaDb;
use crate::proxy::{Faults, Flow, Proxy};

const CALLERS: usize = 256;
const TIMES: usize = 5;
const LASTS: Duration = Duration::from_secs(3);
/// Each way, so 5 ms a round trip.
const ON_THE_WAY: Duration = Duration::from_micros(2500);
const LONE_CALLS: usize = 300;

/// # Errors
/// If a change is not read back.
pub(super) async fn run() -> Result<(), BenchError> {
    let (mut batched, mut single, mut changes_a_commit) = (Vec::new(), Vec::new(), Vec::new());
    let mut lone = Vec::new();
    for _ in 0..TIMES {
        let (rate, a_commit) = many(&[]).await?;
        let (rate_single, _) = many(&["--central-batch-changes-max", "1"]).await?;
        let difference = one().await?;
        progress(&format!(
            "{rate:.0} changes/s, {a_commit:.0} a transaction; {rate_single:.0} one by one; lone caller {difference:.2} ms over a bare commit"
        ));
        batched.push(rate);
        single.push(rate_single);
        changes_a_commit.push(a_commit);
        lone.push(difference);
    }
    let (batched, single) = (Spread::of(&batched), Spread::of(&single));
    print(&Figure {
        figure: "requests_batched".to_owned(),
        value: batched.median / single.median,
        unit: "ratio",
        against: format!("batches of one: {single} changes/s; batches: {batched}"),
        goal: Goal::AtLeast(20.0),
    });
    let spread = Spread::of(&changes_a_commit);
    print(&Figure {
        figure: "requests_changes_a_transaction".to_owned(),
        value: spread.median,
        unit: "changes",
        against: format!("Com_commit; {spread}"),
        goal: Goal::AtLeast(20.0),
    });
    let spread = Spread::of(&lone);
    print(&Figure {
        figure: "requests_lone_caller_over_bare_commit".to_owned(),
        value: spread.median,
        unit: "ms at p50",
        against: format!("one statement and its commit on one connection; {spread}"),
        goal: Goal::AtMost(1.0),
    });
    Ok(())
}

/// Central on a MariaDB of its own, that far off if it is, with an app that has an attribute.
struct Bench {
    server: MariaDb,
    cluster: Cluster,
    app: String,
    /// The way to the server, if it is some way off.
    _proxy: Option<Proxy>,
}

impl Bench {
    async fn start(flags: &[&str], on_the_way: Option<Duration>) -> Bench {
        let server = MariaDb::start();
        let mut url = server.url("carillon");
        // A proxy that delays nothing would still pass on by the ticks of a timer, a millisecond each way.
        let mut proxy = None;
        if let Some(delay) = on_the_way {
            let way = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
            let flow = Flow { delay, ..Flow::default() };
            way.set(Faults { up: flow, down: flow, ..Faults::default() });
            let port = way.address().port();
            url = url.replace(&format!(":{}/", server.port()), &format!(":{port}/"));
            proxy = Some(way);
        }
        let mut flags = flags.to_vec();
        flags.extend(["--central-store", &url]);
        let cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
        let mut admin = cluster.admin();
        let app = json!({"name": "bench", "environment": "sandbox"});
        let app = admin.ok("POST", "/v1/apps", app).await;
        let app = format!("/v1/apps/{}", text(&app, "id"));
        let number = json!({"type": "number", "set_by": "server"});
        admin.ok("PUT", &format!("{app}/attributes/n"), number).await;
        let lines: String = (0..CALLERS).map(|n| format!("{{\"id\":\"{n:016x}\"}}\n")).collect();
        let request = admin.request("POST", &format!("{app}/devices:import"), lines);
        let answer = admin.send(request).await;
        assert_eq!(answer.json()["created"], CALLERS, "{answer:?}");
        Bench { server, cluster, app, _proxy: proxy }
    }

    /// Sets `n` of a device.
    async fn change(&self, admin: &mut Admin, device: usize, n: u64) {
        set(admin, &self.app, device, n).await;
    }
}

async fn set(admin: &mut Admin, app: &str, device: usize, n: u64) {
    let path = format!("{app}/devices/{device:016x}");
    admin.ok("PATCH", &path, json!({"attributes": {"n": n}})).await;
}

/// Changes a second, and changes a transaction, of callers that each change their own device.
async fn many(flags: &[&str]) -> Result<(f64, f64), BenchError> {
    let bench = Bench::start(flags, Some(ON_THE_WAY)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let before = mariadb_work(&bench.server);
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|device| {
            let (mut admin, app, stop) = (bench.cluster.admin(), bench.app.clone(), stop.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    done += 1;
                    set(&mut admin, &app, device, done).await;
                }
                done
            })
        })
        .collect();
    tokio::time::sleep(LASTS).await;
    stop.store(true, Ordering::Relaxed);
    let mut done = Vec::new();
    for caller in callers {
        done.push(caller.await.map_err(|error| BenchError(format!("a caller: {error}")))?);
    }
    let took = began.elapsed().as_secs_f64();
    let did = mariadb_work(&bench.server) - before;
    let mut admin = bench.cluster.admin();
    for (device, last) in done.iter().enumerate() {
        let read =
            admin.ok("GET", &format!("{}/devices/{device:016x}", bench.app), json!(null)).await;
        if read["attributes"]["n"] != *last {
            return Err(BenchError(format!("device {device} after {last} changes: {read}")));
        }
    }
    let changes = done.iter().sum::<u64>() as f64;
    Ok((changes / took, changes / did.transactions as f64))
}

/// How much longer than a bare commit a lone caller waits, in milliseconds at the median.
async fn one() -> Result<f64, BenchError> {
    let bench = Bench::start(&[], None).await;
    let mut admin = bench.cluster.admin();
    let failed = |error: mysql_async::Error| BenchError(format!("a bare commit: {error}"));
    let mut conn = connect(&bench.server.url("bare")).await.map_err(failed)?;
    conn.query_drop("CREATE TABLE bare (id INT PRIMARY KEY, n INT) ENGINE=InnoDB")
        .await
        .map_err(failed)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for n in 0..LONE_CALLS {
        let began = Instant::now();
        bench.change(&mut admin, 0, n as u64 + 1).await;
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        let began = Instant::now();
        conn.query_drop(format!("REPLACE INTO bare VALUES (1, {n})")).await.map_err(failed)?;
        conn.query_drop("COMMIT").await.map_err(failed)?;
        bare.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(quantile(&ours, 0.5) - quantile(&bare, 0.5))
}
