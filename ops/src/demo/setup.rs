//! Before the first message: an app with its schema and groups, and the fleet, through the public API.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use carillon_client::AppId;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::admin::Admin;
use super::error::DemoError;
use super::expressions::Profile;
use crate::fleet::{ATTRIBUTES, Fleet, GROUPS, group_name};

/// Groups that are being created at a time. One commit takes all that wait for it.
const GROUPS_AT_A_TIME: usize = 64;
/// Bytes of the file that are sent at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Creates the app and declares its attributes.
pub(super) async fn create_app(admin: &mut Admin) -> Result<AppId, DemoError> {
    // The name is unique, so that a database can be used again.
    let name = format!("demo-{:016x}", rand::random::<u64>());
    let app = admin.post("/v1/apps", &json!({"name": name, "environment": "sandbox"})).await?;
    let id = app["id"].as_str().and_then(|id| id.parse().ok());
    let id: AppId = id.ok_or(DemoError::Answer { path: "/v1/apps".to_owned(), field: "id" })?;
    for (name, kind) in ATTRIBUTES {
        let path = format!("/v1/apps/{id}/attributes/{name}");
        admin.put(&path, &json!({"type": kind})).await?;
    }
    Ok(id)
}

/// Creates all groups that the fleet names: an import refuses lines with a group that is not there.
pub(super) async fn create_groups(
    admin: &Admin,
    app: AppId,
    bar: &ProgressBar,
) -> Result<(), DemoError> {
    let next = Arc::new(AtomicU16::new(0));
    let mut tasks: JoinSet<Result<(), DemoError>> = JoinSet::new();
    for _ in 0..GROUPS_AT_A_TIME {
        let (mut admin, next, bar) = (admin.clone(), next.clone(), bar.clone());
        tasks.spawn(async move {
            let path = format!("/v1/apps/{app}/groups");
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= GROUPS {
                    return Ok(());
                }
                admin.post(&path, &json!({"name": group_name(number)})).await?;
                bar.inc(1);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|_| DemoError::Panicked("a task that creates groups"))??;
    }
    Ok(())
}

/// Writes the fleet as NDJSON and gives what the demo remembers of it. The first `clients` can log in.
pub(super) async fn write_fleet(
    path: PathBuf,
    fleet: Fleet,
    devices: u64,
    clients: u64,
) -> Result<Vec<Profile>, DemoError> {
    let write = move || {
        let mut file = BufWriter::new(File::create(path)?);
        let mut profiles = Vec::new();
        let mut line = Vec::new();
        for index in 0..devices {
            let device = fleet.device(index);
            line.clear();
            device.write_line(index < clients, &mut line);
            file.write_all(&line)?;
            profiles.push(Profile { traits: device.traits, groups: device.groups.to_vec() });
        }
        file.flush()?;
        Ok(profiles)
    };
    let written = tokio::task::spawn_blocking(write).await;
    written
        .map_err(|_| DemoError::Panicked("the writer of the fleet"))?
        .map_err(DemoError::io("write the fleet"))
}

/// Imports the file; `bar` counts lines as central takes them.
pub(super) async fn import(
    admin: &Admin,
    app: AppId,
    path: &Path,
    devices: u64,
    bar: &ProgressBar,
) -> Result<(), DemoError> {
    let (pieces, received) = mpsc::channel(1);
    let (path, bar) = (path.to_owned(), bar.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut file = File::open(path)?;
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let length = file.read(&mut piece)?;
            piece.truncate(length);
            let lines = piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            // An error means that central has answered already; the answer tells.
            if length == 0 || pieces.blocking_send(Bytes::from(piece)).is_err() {
                return Ok(());
            }
            bar.inc(lines);
        }
    });
    let report = admin.import(&format!("/v1/apps/{app}/devices:import"), received).await?;
    read.await
        .map_err(|_| DemoError::Panicked("the reader of the fleet"))?
        .map_err(DemoError::io("read the fleet"))?;
    let kept = report["created"].as_u64().unwrap_or(0);
    if kept == devices {
        return Ok(());
    }
    Err(DemoError::Imported { kept, devices, report: report.to_string() })
}
