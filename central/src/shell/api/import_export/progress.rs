//! An import that says how far it is while it goes on, as lines of JSON.

use std::future::Future;
use std::time::Instant;

use axum::response::Response;
use bytes::Bytes;
use carillon_world::Position;
use http::{HeaderMap, header};
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::ImportBody;
use crate::core::limits::IMPORT_PROGRESS_PAUSE;
use crate::shell::api::answer::{NDJSON, ProblemBody, Refusal, ndjson};

/// Lines that wait for a caller that reads slowly; what does not fit is left out, for the next says more.
const LINES_WAITING: usize = 4;

/// One line of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImportLines {
    /// What is committed so far. Numbers never fall.
    Progress(ProgressBody),
    /// The last line of an import that was read to its end.
    Report(ImportBody),
    /// The last line of one that was not; with a member `report`.
    #[schema(value_type = ProblemBody)]
    Problem(serde_json::Value),
}

/// As in the report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProgressBody {
    /// Lines read, of which the last few thousand may not be committed.
    lines: u64,
    created: u64,
    changed: u64,
    unchanged: u64,
    bad: u64,
}

/// Where an import says how far it is.
#[derive(Debug)]
pub(super) struct Progress {
    lines: Option<mpsc::Sender<Bytes>>,
    told: Instant,
}

impl Progress {
    /// Nobody asked.
    pub(super) fn unheard() -> Progress {
        Progress { lines: None, told: Instant::now() }
    }

    /// Says it if it is time to. Never waits.
    pub(super) fn tell(&mut self, so_far: &ImportBody) {
        let Some(lines) = &self.lines else { return };
        if self.told.elapsed() < IMPORT_PROGRESS_PAUSE {
            return;
        }
        self.told = Instant::now();
        let &ImportBody { lines: read, created, changed, unchanged, bad, .. } = so_far;
        let body = ProgressBody { lines: read, created, changed, unchanged, bad };
        // An error means that the caller reads slowly, or is gone.
        let _ = lines.try_send(line(&ImportLines::Progress(body)));
    }
}

fn line(of: &ImportLines) -> Bytes {
    let mut text = serde_json::to_vec(of).expect("strings and numbers make JSON");
    text.push(b'\n');
    text.into()
}

/// Whether the caller asked for lines.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = accepted.flat_map(|value| value.split(','));
    kinds
        .filter_map(|kind| kind.split(';').next())
        .any(|kind| kind.trim().eq_ignore_ascii_case(NDJSON))
}

/// An answer that goes on for as long as the import does. The import ends when its body does, whether or not somebody
/// reads what it says.
pub(super) fn answer<F>(import: impl FnOnce(Progress) -> F) -> Response
where
    F: Future<Output = Result<(Position, ImportBody), Refusal>> + Send + 'static,
{
    let (lines, receiver) = mpsc::channel(LINES_WAITING);
    let running = import(Progress { lines: Some(lines.clone()), told: Instant::now() });
    tokio::spawn(async move {
        let last = match running.await {
            Ok((_, report)) => ImportLines::Report(report),
            Err(refusal) => ImportLines::Problem(refusal.body()),
        };
        let _ = lines.send(line(&last)).await;
    });
    ndjson(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_who_accepts_them_by_name() {
        let wanted = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            is_wanted(&headers)
        };
        assert!(wanted(&["application/x-ndjson"]));
        assert!(wanted(&["application/json, Application/X-NDJSON; q=0.5"]));
        assert!(wanted(&["text/html", "application/x-ndjson"]));
        assert!(!wanted(&[]) && !wanted(&["*/*"]) && !wanted(&["application/json"]));
    }
}
