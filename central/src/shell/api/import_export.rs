//! A fleet as NDJSON, in and out, in bounded memory.
//!
//! An import is a sequence of writes, each of up to 500 lines; at most 4 are under way while further lines are read.
//! An export walks one world from beginning to end.

mod first_bad;
mod lines;

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use carillon_world::{App, AppId, DeviceId, DeviceRow, Position, PushToken, World};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use self::first_bad::FirstBad;
use self::lines::{Line, Lines};
use super::answer::{Answered, ProblemBody, Refusal, position, unexpected, written};
use super::extract::{Caller, Params, RawBody, object, slow};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::input::{GroupRef, ImportLine, Pairs, Scalar};
use crate::core::limits::{
    IMPORT_CHUNK_BYTES, IMPORT_CHUNK_LINES, IMPORT_LINE_BYTES_MAX, REPORT_MAX,
};
use crate::core::problem;
use crate::core::write::{Answer, BadLine, Reply, Write};
use crate::shell::random;
use crate::shell::write_handle::Waiting;

/// Writes of one import that are under way at a time.
const CHUNKS_MAX: usize = 4;
/// Bytes of one piece of an export; a few are under way at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// One device: its whole profile.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceLine {
    /// Made by central where it is absent; only lines with it can be repeated.
    #[schema(value_type = Option<String>)]
    id: Option<DeviceId>,
    /// SHA-256 of the device's secret, 64 hexadecimal digits. Without it the device can get no session.
    secret_sha256: Option<String>,
    #[schema(value_type = Option<String>)]
    user: Option<Arc<str>>,
    #[serde(default)]
    #[schema(value_type = Object)]
    attributes: Pairs<Scalar>,
    /// Names or ids.
    #[serde(default)]
    groups: Vec<String>,
    #[schema(value_type = Option<Vec<super::devices::TokenBody>>)]
    tokens: Option<Vec<PushToken>>,
}

impl DeviceLine {
    fn parse(number: u64, text: &[u8]) -> Result<ImportLine, BadLine> {
        let bad =
            |code: &str, detail: String| BadLine { line: number, code: code.to_owned(), detail };
        let line: DeviceLine = object(text).map_err(|e| bad("bad-line", e.to_string()))?;
        let secret = match &line.secret_sha256 {
            None => None,
            Some(hex) => Some(lines::hash(hex).ok_or_else(|| {
                bad("bad-line", "`secret_sha256` is not 64 hexadecimal digits".to_owned())
            })?),
        };
        Ok(ImportLine {
            line: number,
            id: line.id.unwrap_or_else(|| DeviceId::new(random::id())),
            secret,
            user: line.user,
            attributes: line.attributes.0,
            groups: line.groups.into_iter().map(GroupRef::Either).collect(),
            tokens: line.tokens,
        })
    }
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ImportBody {
    /// Without blank ones.
    lines: u64,
    created: u64,
    changed: u64,
    unchanged: u64,
    bad: u64,
    /// The first 1,000 bad lines.
    errors: Vec<LineError>,
    /// `<shard>/<epoch>/<seq>`; `null` if nothing was to be written.
    position: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineError {
    /// Counted from 1, blank lines too.
    line: u64,
    code: String,
    detail: String,
}

/// Imports devices, one JSON object a line. Good lines are kept whatever the others are; a repeat changes nothing.
#[utoipa::path(post, path = "/v1/apps/{app}/devices:import", tag = "devices", params(("app" = String, Path)),
    request_body(content = DeviceLine, content_type = "application/x-ndjson"), responses(
    (status = 200, body = ImportBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn import(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    body: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteDevices, &app)?;
    app_of(&api.world(), app)?;
    let mut import = Import::new(&api, app);
    let done = match import.read(body.into_body()).await {
        Ok(()) => import.finish().await,
        Err(refusal) => {
            // What was sent counts; the report says how it went.
            let settled = import.settle().await;
            Err(settled.err().unwrap_or(refusal))
        }
    };
    match done {
        Ok(()) => {
            let at = import.at.unwrap_or_else(|| api.world().position());
            Ok(written(StatusCode::OK, at, &import.report()))
        }
        Err(refusal) => {
            let report =
                serde_json::to_value(import.report()).expect("numbers and strings make JSON");
            Err(refusal.with("report", report))
        }
    }
}

/// One import under way.
struct Import<'a> {
    api: &'a Api,
    app: AppId,
    chunk: Vec<ImportLine>,
    chunk_bytes: usize,
    /// Oldest first, at most [`CHUNKS_MAX`].
    under_way: VecDeque<Waiting>,
    /// Lines read, blank ones too.
    number: u64,
    body: ImportBody,
    bad: FirstBad,
    at: Option<Position>,
}

impl<'a> Import<'a> {
    fn new(api: &'a Api, app: AppId) -> Import<'a> {
        Import {
            api,
            app,
            chunk: Vec::new(),
            chunk_bytes: 0,
            under_way: VecDeque::new(),
            number: 0,
            body: ImportBody::default(),
            bad: FirstBad::new(REPORT_MAX),
            at: None,
        }
    }

    async fn read(&mut self, mut body: Body) -> Result<(), Refusal> {
        let mut lines = Lines::new(IMPORT_LINE_BYTES_MAX);
        while !body.is_end_stream() {
            let frame = tokio::time::timeout(self.api.config.read_timeout, body.frame()).await;
            let data = match frame {
                Err(_) => return Err(slow().into()),
                Ok(None) => break,
                Ok(Some(Err(e))) => {
                    return Err(problem::bad_request(format!("the body ended early: {e}")).into());
                }
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            lines.feed(&data);
            while let Some(line) = lines.next_line() {
                self.take(line).await?;
            }
        }
        if let Some(line) = lines.finish() {
            self.take(line).await?;
        }
        Ok(())
    }

    async fn take(&mut self, line: Line) -> Result<(), Refusal> {
        self.api.shared.metrics.import_lines.inc();
        self.number += 1;
        let number = self.number;
        let parsed = match &line {
            Line::TooLong => {
                let detail = format!("a line has at most {IMPORT_LINE_BYTES_MAX} bytes");
                Err(BadLine { line: number, code: "too-large".to_owned(), detail })
            }
            // So that files may end as they like; it has a number, so that those after it keep theirs.
            Line::Text(text) if text.trim_ascii().is_empty() => return Ok(()),
            Line::Text(text) => DeviceLine::parse(number, text),
        };
        self.body.lines += 1;
        match parsed {
            Ok(parsed) => {
                self.chunk.push(parsed);
                if let Line::Text(text) = &line {
                    self.chunk_bytes += text.len();
                }
                if self.chunk.len() >= IMPORT_CHUNK_LINES || self.chunk_bytes >= IMPORT_CHUNK_BYTES
                {
                    self.send().await?;
                }
            }
            Err(bad) => self.bad.add(bad),
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Refusal> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        while self.under_way.len() >= CHUNKS_MAX {
            self.wait_for_one().await?;
        }
        let lines = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        let waiting = self.api.writes.begin(Write::ImportDevices { app: self.app, lines }).await;
        self.under_way.push_back(waiting);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Refusal> {
        let sent = self.send().await;
        self.settle().await.and(sent)
    }

    /// Waits for everything under way, and gives the first thing that went wrong.
    async fn settle(&mut self) -> Result<(), Refusal> {
        let mut first = Ok(());
        while !self.under_way.is_empty() {
            let one = self.wait_for_one().await;
            first = first.and(one);
        }
        first
    }

    async fn wait_for_one(&mut self) -> Result<(), Refusal> {
        let Some(waiting) = self.under_way.pop_front() else { return Ok(()) };
        let Answer { result, at } = waiting.answer().await;
        match result? {
            Reply::Imported(report) => {
                self.body.created += report.created;
                self.body.changed += report.changed;
                self.body.unchanged += report.unchanged;
                report.bad.into_iter().for_each(|bad| self.bad.add(bad));
                self.at = Some(at);
                Ok(())
            }
            _ => Err(unexpected()),
        }
    }

    fn report(mut self) -> ImportBody {
        let error = |bad: BadLine| LineError { line: bad.line, code: bad.code, detail: bad.detail };
        self.body.bad = self.bad.count();
        self.body.errors = self.bad.into_lines().into_iter().map(error).collect();
        self.body.position = self.at.map(position);
        self.body
    }
}

/// One device of an export, in the form that an import reads.
#[derive(Serialize)]
struct ExportLine<'a> {
    id: DeviceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    attributes: serde_json::Map<String, serde_json::Value>,
    groups: Vec<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tokens: &'a [PushToken],
}

/// Exports all devices of the app at one position, one JSON object a line, in the form of an import.
#[utoipa::path(get, path = "/v1/apps/{app}/devices:export", tag = "devices", params(("app" = String, Path)), responses(
    (status = 200, body = DeviceLine, content_type = "application/x-ndjson"),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn export(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
) -> Answered {
    let app = caller.may_in(Action::ReadDevices, &app)?;
    let world = api.world();
    app_of(&world, app)?;
    let permit = api.exports.clone().acquire_owned().await.map_err(|_| problem::overloaded())?;
    let (pieces, receiver) = mpsc::channel(2);
    // Ends when the caller goes away, since nobody takes the pieces then.
    tokio::task::spawn_blocking(move || {
        write_all(&world, app, &pieces);
        drop(permit);
    });
    let pieces =
        futures_util::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Bytes>| {
            let piece = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(piece), receiver))
        });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn write_all(world: &World, app: AppId, pieces: &mpsc::Sender<Bytes>) {
    let Some(app) = world.app(app) else { return };
    let mut piece = Vec::with_capacity(PIECE_BYTES + 1024);
    for row in app.devices() {
        serde_json::to_writer(&mut piece, &export_line(app, row))
            .expect("strings and numbers make JSON");
        piece.push(b'\n');
        if piece.len() >= PIECE_BYTES {
            let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES + 1024));
            if pieces.blocking_send(full.into()).is_err() {
                return;
            }
        }
    }
    // An error means that the caller is gone.
    let _ = pieces.blocking_send(piece.into());
}

fn export_line<'a>(app: &App, row: &'a DeviceRow) -> ExportLine<'a> {
    let private = row.private.as_deref();
    ExportLine {
        id: row.id,
        secret_sha256: private.and_then(|p| p.secret).map(|secret| lines::hex(&secret)),
        user: row.user.as_deref(),
        attributes: super::devices::attributes(app, row),
        groups: super::devices::groups(app, row),
        tokens: private.map_or(&[], |p| p.tokens.as_slice()),
    }
}
