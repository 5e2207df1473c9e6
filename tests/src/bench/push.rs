//! Pushes through TLS and HTTP/2 to the simulator of APNs, against what `h2load` reaches with the same requests; and an
//! alert to a million devices: when the first push leaves, what central takes, and what its API's callers notice.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{BenchError, Figure, Goal, Spread, Usage, print, progress, quantile};
use crate::admin::Admin;
use crate::cluster::Store;
use crate::pushes::{PushBench, token};

const TIMES: usize = 5;
/// Devices of the turns against `h2load`.
const DEVICES: u64 = 200_000;
const MANY: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(300);
/// Writes of the API a second, before and while it is pushed.
const CALLS_EVERY: Duration = Duration::from_millis(5);
/// What central may take beyond what it held before the alert.
const GROWTH_MAX: f64 = 128.0;

/// # Errors
/// If a push is missing, or `h2load` cannot be run.
pub(super) async fn run() -> Result<(), BenchError> {
    rate().await?;
    million().await
}

async fn rate() -> Result<(), BenchError> {
    let mut bench = PushBench::start(Store::Sqlite, DEVICES, &[], &[]).await;
    // The first opens the connections, and shows what a request looks like.
    let message = bench.alert("first").await;
    bench.until_state(&message, "done", PATIENCE).await;
    let request = bench.apns.captured().await.into_iter().next();
    let request = request.ok_or_else(|| BenchError("no request was captured".to_owned()))?;
    let folder = tempfile::tempdir().map_err(|error| BenchError(error.to_string()))?;
    let body = folder.path().join("body");
    std::fs::write(&body, request.bytes()).map_err(|error| BenchError(error.to_string()))?;
    let mut flags = vec!["-d".to_owned(), body.display().to_string()];
    for (name, value) in &request.headers {
        // The client makes those of its own.
        if !name.starts_with(':') && name != "content-length" && name != "host" {
            flags.extend(["-H".to_owned(), format!("{name}: {value}")]);
        }
    }
    let (mut ours, mut theirs, mut server) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TIMES {
        bench.apns.reset().await;
        let before = cpu(&bench)?;
        let began = Instant::now();
        let message = bench.alert(&format!("turn {turn}")).await;
        bench.until_state(&message, "done", PATIENCE).await;
        let rate = DEVICES as f64 / began.elapsed().as_secs_f64();
        let micros = (cpu(&bench)? - before).as_secs_f64() * 1e6 / DEVICES as f64;
        let counts = bench.apns.counts().await;
        if counts.tokens.alerted != DEVICES || !counts.breaches.is_empty() {
            return Err(BenchError(format!("not everybody was pushed rightly: {counts:?}")));
        }
        let peer = h2load(&bench, &flags).await?;
        progress(&format!("{rate:.0} pushes/s, {micros:.1} µs of central each; h2load {peer:.0}"));
        ours.push(rate);
        theirs.push(peer);
        server.push(micros);
    }
    let (ours, theirs, server) = (Spread::of(&ours), Spread::of(&theirs), Spread::of(&server));
    print(&Figure {
        figure: "push_rate".to_owned(),
        value: ours.median,
        unit: "pushes/s",
        against: format!("from the call of the API to the last committed report; {ours}"),
        goal: Goal::AtLeast(20_000.0),
    });
    print(&Figure {
        figure: "push_rate_of_h2load".to_owned(),
        value: ours.median / theirs.median,
        unit: "ratio",
        against: format!("h2load on the same simulator, 4 connections: {theirs} requests/s"),
        goal: Goal::AtLeast(0.5),
    });
    print(&Figure {
        figure: "push_processor_time".to_owned(),
        value: server.median,
        unit: "µs of central a push",
        against: format!("{server}"),
        goal: Goal::None,
    });
    Ok(())
}

fn cpu(bench: &PushBench) -> Result<Duration, BenchError> {
    let usage = Usage::of(bench.cluster.central_pid());
    Ok(usage.map_err(|error| BenchError(error.to_string()))?.cpu)
}

/// As many requests as there are devices; gives requests a second.
async fn h2load(bench: &PushBench, flags: &[String]) -> Result<f64, BenchError> {
    let url = format!("{}/3/device/{}", bench.apns.url(), token(0));
    let mut command = std::process::Command::new("h2load");
    command.args(["-n", &DEVICES.to_string(), "-c", "4", "-m", "500", "-t", "1"]);
    command.args(flags).arg(url).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(|error| BenchError(format!("h2load: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = || BenchError(format!("h2load: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let line = text.lines().find(|line| line.starts_with("finished in")).ok_or_else(wrong)?;
    let rate = line.split(", ").find_map(|part| part.strip_suffix(" req/s"));
    let rate = rate.and_then(|rate| rate.trim().parse().ok()).ok_or_else(wrong)?;
    let all = format!("status codes: {DEVICES} 2xx, 0 3xx, 0 4xx, 0 5xx");
    if text.contains(&all) { Ok(rate) } else { Err(wrong()) }
}

async fn million() -> Result<(), BenchError> {
    let mut bench = PushBench::start(Store::Sqlite, MANY, &[], &[]).await;
    // Opens the connections; a million times nobody.
    let warm = json!({"to": "rank == 5 and rank == 6", "body": 1, "push": {"kind": "wake"}});
    bench.admin.ok("POST", &format!("{}/messages", bench.path), warm).await;
    bench.until_idle(PATIENCE).await;
    let calls = Calls::start(&bench, 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let quiet = calls.stop().await;
    let pid = bench.cluster.central_pid();
    let before = peak(pid)?;
    let mut control = bench.apns.control();
    let first = tokio::spawn(async move {
        loop {
            let counts = control.ok("GET", "/counts", serde_json::Value::Null).await;
            if counts["total"]["received"]["alerts"].as_u64().unwrap_or(0) > 0 {
                return Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let calls = Calls::start(&bench, 1);
    // Callers are there already when it begins.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let message = bench.alert("to a million").await;
    let committed = Instant::now();
    let arrived = first.await.map_err(|error| BenchError(error.to_string()))?;
    bench.until_state(&message, "done", PATIENCE).await;
    let took = committed.elapsed();
    let busy = calls.stop().await;
    let counts = bench.apns.counts().await;
    if counts.tokens.alerted != MANY || !counts.breaches.is_empty() {
        return Err(BenchError(format!("not everybody was pushed rightly: {counts:?}")));
    }
    let after = peak(pid)?;
    progress(&format!("a million in {:.1} s", took.as_secs_f64()));
    print(&Figure {
        figure: "push_first_of_a_million".to_owned(),
        value: arrived.saturating_duration_since(committed).as_secs_f64() * 1e3,
        unit: "ms after the commit was answered",
        against: format!("seen by the simulator; all of {MANY} in {:.1} s", took.as_secs_f64()),
        goal: Goal::AtMost(100.0),
    });
    print(&Figure {
        figure: "push_memory".to_owned(),
        value: (after.saturating_sub(before)) as f64 / f64::from(1 << 20),
        unit: "MiB more at the peak",
        against: format!("{} MiB before, with {MANY} devices", before >> 20),
        goal: Goal::AtMost(GROWTH_MAX),
    });
    let (p99, quiet_p99) = (quantile(&busy, 0.99), quantile(&quiet, 0.99));
    print(&Figure {
        figure: "push_api_p99".to_owned(),
        value: p99 / quiet_p99,
        unit: "ratio",
        against: format!(
            "the same writes without pushes: {quiet_p99:.2} ms of {} calls; with: {p99:.2} ms of {}",
            quiet.len(),
            busy.len()
        ),
        goal: Goal::AtMost(2.0),
    });
    Ok(())
}

/// The most RAM that a process ever had.
fn peak(pid: u32) -> Result<u64, BenchError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.map_err(|error| BenchError(error.to_string()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| BenchError("no peak is told".to_owned()))
}

/// A caller of the API who creates a group every few milliseconds.
struct Calls {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<f64>>,
}

impl Calls {
    fn start(bench: &PushBench, series: u32) -> Calls {
        let (mut admin, path): (Admin, _) =
            (bench.cluster.admin(), format!("{}/groups", bench.path));
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let task = tokio::spawn(async move {
            let mut millis = Vec::new();
            while !seen.load(Ordering::Relaxed) {
                let name = format!("s{series}n{}", millis.len());
                let began = Instant::now();
                admin.ok("POST", &path, json!({"name": name, "set_by": "server"})).await;
                millis.push(began.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(CALLS_EVERY).await;
            }
            millis
        });
        Calls { stop, task }
    }

    /// How long each call took, in ms.
    async fn stop(self) -> Vec<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("calls are answered")
    }
}
