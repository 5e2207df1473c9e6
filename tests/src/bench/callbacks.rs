//! Many endpoints hear of the same events, and some of them never answer.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{BenchError, Figure, Goal, Spread, Usage, print, progress};
use crate::admin::{Admin, text};
use crate::callbacks::{Behaviour, Receiver};
use crate::cluster::{Cluster, Store};

const ENDPOINTS: usize = 900;
/// Beside them, where some hang.
const HANGING: usize = 100;
const ROUNDS: usize = 5;
/// In a round; each is told to each endpoint.
const MESSAGES: usize = 100;
const LOOK_EVERY: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// # Errors
/// If an endpoint is not told something, or twice.
pub(super) async fn run() -> Result<(), BenchError> {
    progress(&format!("{ENDPOINTS} endpoints, and as many with {HANGING} that hang"));
    let mut well = Side::start(0).await;
    let mut beside = Side::start(HANGING).await;
    let (mut quick, mut rates, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut beside_rates, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let one = well.round(1).await?;
        quick.push(one.took.as_secs_f64() * 1e3);
        let (of_well, of_beside) = (well.round(MESSAGES).await?, beside.round(MESSAGES).await?);
        rates.push(of_well.rate());
        costs.push(of_well.cpu.as_secs_f64() * 1e6 / (ENDPOINTS * MESSAGES) as f64);
        beside_rates.push(of_beside.rate());
        ratios.push(of_beside.rate() / of_well.rate());
    }
    well.check()?;
    beside.check()?;
    let (rates, beside_rates) = (Spread::of(&rates), Spread::of(&beside_rates));
    let quick = Spread::of(&quick);
    let figure = |figure: &str, value, unit, against, goal| {
        print(&Figure { figure: figure.to_owned(), value, unit, against, goal });
    };
    let told = format!("{MESSAGES} messages told to {ENDPOINTS} endpoints, SQLite: {rates}");
    figure("callbacks_rate", rates.median, "calls/s", told, Goal::None);
    let costs = Spread::of(&costs);
    let told = format!("central's processor time, creating the messages included: {costs}");
    figure("callbacks_cpu", costs.median, "us/call", told, Goal::None);
    let told = format!("until the last of {ENDPOINTS} endpoints had one message: {quick}");
    figure("callbacks_one_event", quick.median, "ms", told, Goal::None);
    let ratios = Spread::of(&ratios);
    let told = format!(
        "the same endpoints while {HANGING} others hang: {beside_rates} calls/s, without them {rates}; {ratios}"
    );
    figure("callbacks_beside_hanging", ratios.median, "ratio", told, Goal::AtLeast(0.8));
    Ok(())
}

struct Side {
    cluster: Cluster,
    receiver: Receiver,
    admin: Admin,
    app: String,
    made: usize,
}

struct Round {
    took: Duration,
    cpu: Duration,
}

impl Round {
    fn rate(&self) -> f64 {
        (ENDPOINTS * MESSAGES) as f64 / self.took.as_secs_f64()
    }
}

impl Side {
    async fn start(hanging: usize) -> Side {
        let receiver = Receiver::start().await;
        let own = receiver.flags();
        let mut flags: Vec<&str> = own.iter().map(String::as_str).collect();
        flags.extend(["--history-to", "discard"]);
        let cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
        let mut admin = cluster.admin();
        let app = json!({"name": "shop", "environment": "sandbox"});
        let app = admin.ok("POST", "/v1/apps", app).await;
        let app = format!("/v1/apps/{}", text(&app, "id"));
        for n in 0..ENDPOINTS + hanging {
            if n >= ENDPOINTS {
                receiver.behave(&path(n), Behaviour::Hang);
            }
            let input = json!({"url": receiver.url(&path(n)), "events": ["message.created"]});
            admin.ok("POST", &format!("{app}/callbacks"), input).await;
        }
        let mut side = Side { cluster, receiver, admin, app, made: 0 };
        // Connections are made, and those who hang have had their first calls.
        side.round(10).await.expect("all are told");
        side
    }

    /// Creates so many messages at once and waits until every endpoint that answers was told of them all.
    async fn round(&mut self, messages: usize) -> Result<Round, BenchError> {
        let pid = self.cluster.central_pid();
        let failed = |error: std::io::Error| BenchError(error.to_string());
        let before = Usage::of(pid).map_err(failed)?.cpu;
        let began = Instant::now();
        let path = format!("{}/messages", self.app);
        for n in 0..messages {
            self.admin.ok("POST", &path, json!({"to": "all", "body": {"n": n}})).await;
        }
        self.made += messages;
        while self.receiver.answered() < ENDPOINTS * self.made {
            if began.elapsed() > PATIENCE {
                let (found, all) = (self.receiver.answered(), ENDPOINTS * self.made);
                return Err(BenchError(format!("{found} calls of {all}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let took = began.elapsed();
        Ok(Round { took, cpu: Usage::of(pid).map_err(failed)?.cpu - before })
    }

    /// Every endpoint was told of every message once.
    fn check(&self) -> Result<(), BenchError> {
        let mut told: HashSet<(String, String)> = HashSet::new();
        for call in self.receiver.all() {
            if path_number(&call.path) < ENDPOINTS {
                let message = text(&call.json()["data"], "message").to_owned();
                if !told.insert((call.path.clone(), message)) {
                    return Err(BenchError(format!("{} was told twice", call.path)));
                }
            }
        }
        if told.len() == ENDPOINTS * self.made {
            Ok(())
        } else {
            Err(BenchError(format!("{} were told of {}", told.len(), ENDPOINTS * self.made)))
        }
    }
}

fn path(n: usize) -> String {
    format!("/{n}")
}

fn path_number(path: &str) -> usize {
    path.trim_start_matches('/').parse().expect("one of ours")
}
