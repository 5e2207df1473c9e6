//! `carillon import`: streams a file of devices into an app, shows how far it is, and says what came of it.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_world::AppId;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::failure::{Failure, say};
use crate::remote::{Remote, RemoteError};

const NDJSON: &str = "application/x-ndjson";
/// Bytes read at a time; a few pieces wait to be sent.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_WAITING: usize = 4;
/// How often it says how far it is where there is no terminal.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// A line of the answer: a report of a thousand bad lines is far below.
const ANSWER_LINE_BYTES_MAX: usize = 16 << 20;

/// What `carillon import` can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The app.
    #[arg(long, value_name = "ID")]
    app: AppId,
    /// One JSON object a line, as `devices:import` takes it; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    central: Remote,
}

/// The devices are not, or not all, imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("the import was cut short: {told}; {done}")]
    CutShort { told: String, done: String },
    #[error("{bad} bad lines")]
    BadLines { bad: u64 },
}

/// One line of central's answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Progress(Counts),
    Report(Report),
    Problem(Value),
}

#[derive(Debug, Default, Deserialize)]
struct Counts {
    lines: u64,
    created: u64,
    changed: u64,
    unchanged: u64,
    bad: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { lines, created, changed, unchanged, bad } = self;
        write!(
            f,
            "lines={lines} created={created} changed={changed} unchanged={unchanged} bad={bad}"
        )
    }
}

#[derive(Debug, Deserialize)]
struct Report {
    #[serde(flatten)]
    counts: Counts,
    /// The first of them.
    errors: Vec<BadLine>,
}

#[derive(Debug, Deserialize)]
struct BadLine {
    line: u64,
    code: String,
    detail: String,
}

/// Imports, and prints the counts; bad lines go to standard error.
///
/// # Errors
/// [`Failure::Import`] if central refused, the import was cut short, or a line was bad.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let report = runtime.block_on(import(options));
    // A reader of a pipe that never ends is not waited for.
    runtime.shutdown_background();
    let report = report?;
    for BadLine { line, code, detail } in &report.errors {
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(io::stderr(), "line {line}: {code}: {detail}");
    }
    say(&format!("import: {}\n", report.counts))?;
    match report.counts.bad {
        0 => Ok(()),
        bad => Err(ImportError::BadLines { bad }.into()),
    }
}

async fn import(options: &Options) -> Result<Report, ImportError> {
    let failed = |source| ImportError::Read { path: options.file.clone(), source };
    let (input, bytes) = open(&options.file).map_err(failed)?;
    let sent = Arc::new(AtomicU64::new(0));
    let (pieces, receiver) = mpsc::channel(PIECES_WAITING);
    let reader = tokio::task::spawn_blocking(move || read(input, &pieces));
    let path = format!("/v1/apps/{}/devices:import", options.app);
    let upload = Upload { pieces: receiver, sent: sent.clone() };
    let request = options.central.post(&path, NDJSON, NDJSON, upload)?;
    let answer = options.central.send(request).await;
    let mut show = Show::new(bytes, sent);
    let told = match answer {
        Ok(answer) => last_line(answer.into_body(), &mut show).await,
        Err(error) => Err(error),
    };
    show.end();
    // A file that could not be read is the cause of whatever central made of it.
    if reader.is_finished()
        && let Ok(Err(source)) = reader.await
    {
        return Err(failed(source));
    }
    match told? {
        Told::Report(report) => Ok(report),
        Told::Problem(problem) => {
            let counts = serde_json::from_value(problem["report"].clone()).unwrap_or_default();
            let done = Counts::to_string(&counts);
            let told = problem["detail"].as_str().unwrap_or("no detail").to_owned();
            Err(ImportError::CutShort { told, done })
        }
        Told::Progress(_) => Err(RemoteError::CutAnswer.into()),
    }
}

/// The input and, where it is a file, how long it is.
fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let about = file.metadata()?;
    Ok((Box::new(file), about.is_file().then_some(about.len())))
}

/// Reads until the end, an error, or until nobody takes the pieces any more.
fn read(
    mut input: Box<dyn Read + Send>,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = match input.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Ends the body as one that was cut, so that what is missing is not taken for the end.
                let _ = pieces.blocking_send(Err(error.kind().into()));
                return Err(error);
            }
        };
        if pieces.blocking_send(Ok(Bytes::copy_from_slice(&piece[..length]))).is_err() {
            return Ok(());
        }
    }
}

/// Shows each line of progress, and gives the last line.
async fn last_line(mut answer: Incoming, show: &mut Show) -> Result<Told, RemoteError> {
    let mut buffer = Vec::new();
    let mut last = None;
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let told = serde_json::from_slice(&line).map_err(|_| RemoteError::CutAnswer)?;
            if let Told::Progress(counts) = &told {
                show.progress(counts);
            }
            last = Some(told);
        }
        if buffer.len() > ANSWER_LINE_BYTES_MAX {
            return Err(RemoteError::CutAnswer);
        }
    }
    last.ok_or(RemoteError::CutAnswer)
}

/// A body of pieces as they come.
struct Upload {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    sent: Arc<AtomicU64>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces.poll_recv(context).map(|piece| {
            let piece = piece?;
            if let Ok(piece) = &piece {
                self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            Some(piece.map(Frame::data))
        })
    }
}

/// What a person sees meanwhile, on standard error: a bar at a terminal, else a line now and then.
struct Show {
    bar: Option<ProgressBar>,
    sent: Arc<AtomicU64>,
    began: Instant,
    said: Instant,
}

impl Show {
    /// `bytes`: how much there is to send, where that is known.
    fn new(bytes: Option<u64>, sent: Arc<AtomicU64>) -> Show {
        let bar = io::stderr().is_terminal().then(|| match bytes {
            Some(bytes) => {
                let style = "{bar:40} {bytes} of {total_bytes}, {eta} left; {msg}";
                let style = ProgressStyle::with_template(style).expect("a template");
                ProgressBar::new(bytes).with_style(style)
            }
            None => {
                let style = ProgressStyle::with_template("{spinner} {bytes}; {msg}");
                ProgressBar::new_spinner().with_style(style.expect("a template"))
            }
        });
        Show { bar, sent, began: Instant::now(), said: Instant::now() }
    }

    fn progress(&mut self, counts: &Counts) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.sent.load(Ordering::Relaxed));
                bar.set_message(counts.to_string());
            }
            None if self.said.elapsed() >= SAY_EVERY => {
                self.said = Instant::now();
                let seconds = self.began.elapsed().as_secs_f64();
                // Nobody is left to tell if standard error is closed.
                let _ = writeln!(io::stderr(), "{seconds:6.1} s  {counts}");
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
