//! `carillon demo`: the whole path under load, judged by someone who knows nothing of how it works.
//!
//! The real tiers run on loopback; a fleet is imported through the public API; clients long-poll over TLS while
//! messages are sent, scheduled, edited and recalled, devices change groups, and the edge is killed. In the end every
//! client must hold exactly what the demo's own [`record`] says, and enough must have happened for that to mean
//! something.

mod admin;
mod campaign;
mod clients;
mod deliveries;
mod error;
mod expressions;
mod live;
mod options;
mod plan;
mod record;
mod setup;
mod show;
mod tiers;
mod verdict;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use self::campaign::{Campaign, EdgeState};
use self::clients::{Clients, Rested, Target};
use self::error::DemoError;
use self::live::Live;
pub(crate) use self::options::Options;
use self::record::Record;
use self::show::Show;
use self::tiers::Tiers;
use self::verdict::{Difference, missed_floors};
use crate::failure::{Failure, say};
use crate::fleet::{Fleet, GROUPS, Random};
use crate::signals::Signals;
use crate::{log, open_files};

/// Open files beside two a client: listeners, the store, calls to central.
const OTHER_FILES: u64 = 512;
/// Deliveries are over when none came for this long.
const QUIET: Duration = Duration::from_secs(1);
/// When to stop waiting for that; what is still missing comes, or not, with the clients' last polls.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);
/// Sets the order of events apart from the fleet of the same seed.
const EVENTS: u64 = 0x6576_656e_7473_2121;

/// Runs the demo and prints its verdict, the last line of standard output.
///
/// # Errors
/// Neither a runtime could be made nor the verdict be printed.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    log::start_text(&options.log_filter);
    let runtime = |name: &str| -> Result<Runtime, Failure> {
        Builder::new_multi_thread().thread_name(name).enable_all().build().map_err(Failure::Runtime)
    };
    let (central, clients) = (runtime("carillon")?, runtime("demo-clients")?);
    let outcome = central.block_on(until_signal(options, clients.handle()));
    // What still runs belongs to a run that was given up.
    clients.shutdown_background();
    central.shutdown_background();
    match outcome {
        Ok(good) => {
            say(&format!("demo ok: {good}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(&format!("demo FAILED: {}\n", error.chain()))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn until_signal(options: &Options, clients: &Handle) -> Result<String, DemoError> {
    let mut signals = Signals::catch().map_err(Failure::Signals)?;
    tokio::select! {
        outcome = demo(options, clients) => outcome,
        signal = signals.next() => Err(DemoError::Signal(signal)),
    }
}

/// Gives what follows `demo ok:`.
async fn demo(options: &Options, runtime: &Handle) -> Result<String, DemoError> {
    check(options)?;
    let show = Show::new();
    let folder = tempfile::Builder::new()
        .prefix("carillon-demo-")
        .tempdir()
        .map_err(DemoError::io("make a temporary folder"))?;
    let mut tiers = Tiers::start(folder.path(), options).await?;
    show.say("central and one edge are up");

    let (count, fleet) = (options.clients as usize, Fleet::new(options.seed));
    let mut admin = tiers.admin();
    let app = setup::create_app(&mut admin).await?;
    let bar = show.bar("groups", GROUPS.into());
    setup::create_groups(&admin, app, &bar).await?;
    bar.finish_and_clear();
    show.say(&format!("{GROUPS} groups created"));
    let file = folder.path().join("fleet.ndjson");
    let profiles =
        setup::write_fleet(file.clone(), fleet.clone(), options.devices, options.clients).await?;
    show.say(&format!("{} devices written to {}", options.devices, file.display()));
    let bar = show.bar("import", options.devices);
    setup::import(&admin, app, &file, options.devices, &bar).await?;
    bar.finish_and_clear();
    show.say(&format!("{} devices imported", options.devices));

    let live = Arc::new(Live::new(count));
    let watch = show.watch(live.clone(), options.clients);
    let target = Target { app, edge: tiers.devices(), tls: tiers.tls() };
    let clients = Clients::start(runtime, &target, &fleet, count, &live);
    clients.connected().await?;
    show.say(&format!("{count} clients long-poll over TLS"));
    let mut campaign = Campaign {
        admin,
        app,
        fleet: &fleet,
        clients: count,
        record: Record::new(profiles, count),
        live: &live,
        random: Random::new(options.seed ^ EVENTS),
        next_expression: 0,
        edge: EdgeState::Serving,
    };
    campaign.run(&mut tiers, &plan::events(options.seed ^ EVENTS, options.seconds)).await?;
    let Campaign { admin, record, .. } = campaign;
    tiers.edge_applied(admin.seq()).await?;
    show.say("writes have stopped");
    quiet(&live).await;
    let before = live.deliveries();
    let rested = clients.rest().await?;
    let late = live.deliveries() - before;
    drop(watch);
    let counts = live.counts();
    show.say(&format!(
        "all clients were asked; {late} messages came only with their last polls; each client had {} deliveries or more",
        counts.fewest,
    ));
    show.say(&format!(
        "the edge was away for {:.1} s; without what fell due then or just after, p99 is {:.1} ms; the slowest of all \
         took {:.1} ms",
        counts.edge_absence.as_secs_f64(),
        counts.calm_p99_ms,
        counts.slowest_ms,
    ));
    tiers.stop().await?;
    judge(options, &record, &live, &rested)
}

fn check(options: &Options) -> Result<(), DemoError> {
    if let Some(fault) = options.fault() {
        return Err(DemoError::Options(fault));
    }
    let clients = options.clients;
    let needed = 2 * clients + OTHER_FILES;
    match open_files::allowed() {
        Some(allowed) if allowed < needed => Err(DemoError::OpenFiles { clients, needed, allowed }),
        _ => Ok(()),
    }
}

/// Waits until long polls bring nothing any more.
async fn quiet(live: &Live) {
    let deadline = Instant::now() + QUIET_PATIENCE;
    let mut before = None;
    while before != Some(live.deliveries()) && Instant::now() < deadline {
        before = Some(live.deliveries());
        tokio::time::sleep(QUIET).await;
    }
}

fn judge(
    options: &Options,
    record: &Record,
    live: &Live,
    rested: &[Rested],
) -> Result<String, DemoError> {
    let counts = live.counts();
    let mut difference = Difference::default();
    for (client, Rested { device, holds, .. }) in rested.iter().enumerate() {
        difference.add(&format!("device {device}"), &record.should_hold(client), holds);
    }
    let Difference { missing, extra, examples: mut faults } = difference;
    let restless = rested.iter().filter(|rested| !rested.at_rest).count();
    if restless > 0 {
        faults.push(format!("{restless} clients were never told that they have everything"));
    }
    faults.extend(missed_floors(record, &counts.happened, counts.fewest));
    if missing + extra > 0 || !faults.is_empty() {
        return Err(DemoError::Wrong { missing, extra, faults });
    }
    Ok(format!(
        "devices={} clients={} messages={} deliveries={} p50_ms={:.1} p99_ms={:.1} missing={missing} extra={extra}",
        options.devices,
        options.clients,
        record.messages().len(),
        counts.deliveries,
        counts.p50_ms,
        counts.p99_ms,
    ))
}
