//! A fleet as NDJSON, in and out, in bounded memory.
//!
//! An import is a sequence of writes, each of up to 500 lines; at most 16 are under way while further lines are read.
//! An export walks one world from beginning to end.

mod first_bad;
mod lines;
mod progress;

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use bytes::Bytes;
use carillon_world::{App, AppId, DeviceId, DeviceRow, Position, PushToken, World};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use self::first_bad::FirstBad;
use self::lines::{Line, Lines};
use self::progress::{ImportLines, Progress};
use super::answer::{Answered, ProblemBody, Refusal, ndjson, position, unexpected, written};
use super::extract::{Caller, Params, RawBody, object, slow};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::input::{GroupRef, ImportLine, Pairs};
use crate::core::limits::{
    IMPORT_CHUNK_BYTES, IMPORT_CHUNK_LINES, IMPORT_CHUNKS_MAX, IMPORT_LINE_BYTES_MAX, REPORT_MAX,
};
use crate::core::problem;
use crate::core::value::Given;
use crate::core::write::{Answer, BadLine, Reply, Write};
use crate::shell::random;
use crate::shell::write_handle::Waiting;

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
    /// By name. Versions, dates and times are strings, a point is `{"lat": …, "lon": …}` in degrees, a set is an array
    /// of strings.
    #[serde(default)]
    #[schema(value_type = Object)]
    attributes: Pairs<Given>,
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

#[derive(Clone, Debug, Default, Serialize, ToSchema)]
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

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LineError {
    /// Counted from 1, blank lines too.
    line: u64,
    code: String,
    detail: String,
}

/// Imports devices, one JSON object a line. Good lines are kept whatever the others are; a repeat changes nothing.
///
/// With `Accept: application/x-ndjson` the answer begins at once, as 200, and says about once a second how far the
/// import is; its last line is the report, or the problem that ended it.
#[utoipa::path(post, path = "/v1/apps/{app}/devices:import", tag = "devices", params(("app" = String, Path)),
    request_body(content = DeviceLine, content_type = "application/x-ndjson"), responses(
    (status = 200, content(
        (ImportBody = "application/json"),
        (ImportLines = "application/x-ndjson"),
    )),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn import(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    headers: HeaderMap,
    body: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteDevices, &app)?;
    app_of(&api.world(), app)?;
    let body = body.into_body();
    if progress::is_wanted(&headers) {
        return Ok(progress::answer(|progress| Import::new(api, app, progress).run(body)));
    }
    let (at, report) = Import::new(api, app, Progress::unheard()).run(body).await?;
    Ok(written(StatusCode::OK, at, &report))
}

/// One import under way.
struct Import {
    api: Api,
    app: AppId,
    progress: Progress,
    chunk: Vec<ImportLine>,
    chunk_bytes: usize,
    /// Oldest first, at most [`IMPORT_CHUNKS_MAX`].
    under_way: VecDeque<Waiting>,
    /// Lines read, blank ones too.
    number: u64,
    body: ImportBody,
    bad: FirstBad,
    at: Option<Position>,
}

impl Import {
    fn new(api: Api, app: AppId, progress: Progress) -> Import {
        Import {
            api,
            app,
            progress,
            chunk: Vec::new(),
            chunk_bytes: 0,
            under_way: VecDeque::new(),
            number: 0,
            body: ImportBody::default(),
            bad: FirstBad::new(REPORT_MAX),
            at: None,
        }
    }

    /// Gives where the last of it was committed, and the report; a refusal has the report with it.
    async fn run(mut self, body: Body) -> Result<(Position, ImportBody), Refusal> {
        let done = match self.read(body).await {
            Ok(()) => self.finish().await,
            Err(refusal) => {
                // What was sent counts; the report says how it went.
                let settled = self.settle().await;
                Err(settled.err().unwrap_or(refusal))
            }
        };
        let at = self.at.unwrap_or_else(|| self.api.world().position());
        let report = self.report();
        match done {
            Ok(()) => Ok((at, report)),
            Err(refusal) => {
                let report = serde_json::to_value(report).expect("numbers and strings make JSON");
                Err(refusal.with("report", report))
            }
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

    async fn take(&mut self, line: Line<'_>) -> Result<(), Refusal> {
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
        while self.under_way.len() >= IMPORT_CHUNKS_MAX {
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
                self.body.bad = self.bad.count();
                self.progress.tell(&self.body);
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
    Ok(ndjson(receiver))
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
