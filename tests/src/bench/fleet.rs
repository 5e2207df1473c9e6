//! The demo's fleet, imported through the public API, and read back.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::BenchError;
use crate::admin::{Admin, text};

/// Groups that are declared at a time.
const DECLARE_AT_A_TIME: usize = 64;

/// Writes the fleet's lines to a file by `carillon fleet`, and gives what an app has to declare.
///
/// # Errors
/// If the command fails.
pub(super) fn write_lines(devices: u64, file: &Path) -> Result<Value, BenchError> {
    let lines = File::create(file).map_err(|error| BenchError(format!("{error}")))?;
    run(&["fleet", "--devices", &devices.to_string()], Stdio::from(lines))?;
    let schema = run(&["fleet", "--schema"], Stdio::piped())?;
    serde_json::from_str(&schema).map_err(|error| BenchError(format!("carillon fleet: {error}")))
}

fn run(arguments: &[&str], stdout: Stdio) -> Result<String, BenchError> {
    let binary = std::env::var_os("CARILLON_BIN")
        .ok_or_else(|| BenchError("CARILLON_BIN names the executable".to_owned()))?;
    let output = Command::new(binary).args(arguments).stdout(stdout).output();
    let output = output.map_err(|error| BenchError(format!("run carillon: {error}")))?;
    if !output.status.success() {
        return Err(BenchError(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes an app with everything that the fleet needs, and gives its path: `/v1/apps/<id>`.
///
/// # Panics
/// If central refuses.
pub(super) async fn declare(connect: impl Fn() -> Admin, schema: &Value) -> String {
    let mut admin = connect();
    let app = json!({"name": "fleet", "environment": "sandbox"});
    let app = admin.ok("POST", "/v1/apps", app).await;
    let path = format!("/v1/apps/{}", text(&app, "id"));
    for (name, kind) in schema["attributes"].as_object().into_iter().flatten() {
        let declared = json!({"type": kind, "set_by": "server"});
        admin.ok("PUT", &format!("{path}/attributes/{name}"), declared).await;
    }
    let groups: Vec<String> = (schema["groups"].as_array().into_iter().flatten())
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let tasks: Vec<_> = (0..DECLARE_AT_A_TIME)
        .map(|part| {
            let mine: Vec<_> =
                groups.iter().skip(part).step_by(DECLARE_AT_A_TIME).cloned().collect();
            let (mut admin, path) = (connect(), format!("{path}/groups"));
            tokio::spawn(async move {
                for name in mine {
                    admin.ok("POST", &path, json!({"name": name, "set_by": "server"})).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a group is made");
    }
    path
}

/// Sends a file as one request, as `curl -T` would, and gives the report and the time until it came.
///
/// # Errors
/// If the connection fails or the answer is no 200.
pub(super) fn import(
    at: SocketAddr,
    token: &str,
    app: &str,
    lines: &Path,
) -> Result<(Value, Duration), BenchError> {
    let send = || -> std::io::Result<(String, Duration)> {
        let mut file = File::open(lines)?;
        let length = file.metadata()?.len();
        let mut stream = TcpStream::connect(at)?;
        let began = Instant::now();
        write!(
            stream,
            "POST {app}/devices:import HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/x-ndjson\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )?;
        std::io::copy(&mut file, &mut stream)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok((answer, began.elapsed()))
    };
    let (answer, took) = send().map_err(|error| BenchError(format!("import: {error}")))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(BenchError(format!("import: {answer}")));
    }
    let report = serde_json::from_str(body)
        .map_err(|error| BenchError(format!("import: {error}: {body}")))?;
    Ok((report, took))
}

/// Compares an export with the lines that were imported: how many devices are the same.
///
/// # Errors
/// If one is missing, more or different.
pub(super) fn compare(
    at: SocketAddr,
    token: &str,
    app: &str,
    lines: &Path,
) -> Result<u64, BenchError> {
    let hasher = RandomState::new();
    let failed = |what: String| BenchError(format!("read back: {what}"));
    let mut expected = HashMap::new();
    let file = File::open(lines).map_err(|error| failed(error.to_string()))?;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| failed(error.to_string()))?;
        let (id, digest) = canonical(&line, &hasher)?;
        expected.insert(id, digest);
    }
    let mut stream = TcpStream::connect(at).map_err(|error| failed(error.to_string()))?;
    write!(
        stream,
        "GET {app}/devices:export HTTP/1.0\r\nhost: {at}\r\nauthorization: Bearer {token}\r\n\r\n"
    )
    .map_err(|error| failed(error.to_string()))?;
    let mut same = 0;
    let mut in_body = false;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|error| failed(error.to_string()))?;
        if !in_body {
            in_body = line.is_empty();
            continue;
        }
        let (id, digest) = canonical(&line, &hasher)?;
        if expected.remove(&id) != Some(digest) {
            return Err(failed(format!("device {id} is not what was imported: {line}")));
        }
        same += 1;
    }
    if let Some(missing) = expected.keys().next() {
        return Err(failed(format!("{} devices are missing, as {missing}", expected.len())));
    }
    Ok(same)
}

/// A line's id, and a hash of it that is the same however its members and groups are ordered.
fn canonical(line: &str, hasher: &RandomState) -> Result<(String, u64), BenchError> {
    let mut value: Value = serde_json::from_str(line)
        .map_err(|error| BenchError(format!("a line is no JSON: {error}: {line}")))?;
    if let Some(groups) = value["groups"].as_array_mut() {
        groups.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    // Versions have one form: 1.9.0 is 1.9.
    if let Some(version) = value["attributes"]["app_version"].as_str() {
        let bare = version.trim_end_matches(".0").to_owned();
        value["attributes"]["app_version"] = bare.into();
    }
    let id = text(&value, "id").to_owned();
    // Maps of serde_json are sorted by key.
    Ok((id, hasher.hash_one(value.to_string())))
}
