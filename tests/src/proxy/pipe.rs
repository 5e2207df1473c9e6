//! One direction of one connection: what is read, what waits, what is passed on.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use super::answers::{AnswerReader, Requests, Verdict};
use super::{Chunk, Direction, End, Fate, Flow, READ_BYTES, Shared};

/// Bytes that may wait for their time; beyond it the sender is not read.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What is to be passed on, in order.
#[derive(Debug)]
enum Item {
    Bytes(Instant, Bytes),
    End(End),
}

pub(super) struct Pipe<'a> {
    shared: &'a Shared,
    direction: Direction,
    /// The connection's number, from 0.
    connection: u64,
    requests: &'a Mutex<Requests>,
    answers: AnswerReader,
    waiting: VecDeque<Item>,
    waiting_bytes: usize,
    passed: u64,
    /// A drip pauses until then.
    rests_until: Instant,
    /// Nothing further will be read.
    read_all: bool,
    /// The receiver has its FIN: what still comes is swallowed.
    closed: bool,
    /// A tap wants nothing further passed on.
    lost: bool,
}

impl<'a> Pipe<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        direction: Direction,
        connection: u64,
        requests: &'a Mutex<Requests>,
    ) -> Pipe<'a> {
        Pipe {
            shared,
            direction,
            connection,
            requests,
            answers: AnswerReader::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            passed: 0,
            rests_until: Instant::now(),
            read_all: false,
            closed: false,
            lost: false,
        }
    }

    /// Until the sender has ended and all of it is passed on.
    ///
    /// # Errors
    /// How the whole connection is to end, if before.
    pub(super) async fn run(
        mut self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> Result<(), End> {
        let mut faults = self.shared.faults.subscribe();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let flow = match self.direction {
                Direction::Up => faults.borrow_and_update().up,
                Direction::Down => faults.borrow_and_update().down,
            };
            if let Some(cut) = flow.cut.filter(|cut| cut.after_bytes <= self.passed) {
                self.cut(cut.end, &mut to).await?;
            }
            if self.read_all && self.waiting.is_empty() {
                if !self.closed {
                    // Fails only if the receiver has ended, which the other direction sees.
                    let _ = to.shutdown().await;
                }
                return Ok(());
            }
            let due = match self.waiting.front() {
                Some(Item::Bytes(at, _)) => Some((*at).max(self.rests_until)),
                Some(Item::End(_)) => Some(self.rests_until),
                None => None,
            };
            let room = self.waiting_bytes < WAITING_BYTES_MAX;
            tokio::select! {
                changed = faults.changed() => changed.map_err(|_| End::Close)?,
                read = from.read(&mut buffer), if !flow.stalled && !self.read_all && room => match read {
                    Ok(0) => {
                        self.read_all = true;
                        let rest = self.answers.take_rest();
                        self.push(Instant::now() + flow.delay, rest);
                    }
                    Ok(bytes) => self.take(&flow, &buffer[..bytes]),
                    Err(_) => return Err(End::Reset),
                },
                () = sleep_until(due.unwrap_or(self.rests_until)), if due.is_some() && !flow.stalled => {
                    self.pass_on(&flow, &mut to).await?;
                }
            }
        }
    }

    fn take(&mut self, flow: &Flow, bytes: &[u8]) {
        if flow.swallowed || self.closed || self.lost {
            self.shared.counters.swallowed_bytes.fetch_add(bytes.len() as u64, Relaxed);
            return;
        }
        let at = Instant::now() + flow.delay;
        let chunk = Chunk { connection: self.connection, direction: self.direction, bytes };
        let (after, end) = match self.shared.fate(&chunk) {
            Fate::Pass => return self.take_whole(at, bytes),
            Fate::Instead(other) => return self.take_whole(at, &other),
            Fate::Swallow { after } => (after, None),
            Fate::Cut { after, end } => (after, Some(end)),
        };
        self.lost = true;
        let (kept, lost) = bytes.split_at(after.min(bytes.len()));
        self.push(at, Bytes::copy_from_slice(kept));
        self.shared.counters.swallowed_bytes.fetch_add(lost.len() as u64, Relaxed);
        self.waiting.extend(end.map(Item::End));
    }

    fn take_whole(&mut self, at: Instant, bytes: &[u8]) {
        let scripted = self.shared.with_script(|script| script.is_some());
        match self.direction {
            Direction::Up => {
                if scripted {
                    self.requests.lock().expect("nothing panics with it").take(bytes);
                }
                self.push(at, Bytes::copy_from_slice(bytes));
            }
            Direction::Down if !scripted => {
                let mut all = self.answers.take_rest().to_vec();
                all.extend_from_slice(bytes);
                self.push(at, all.into());
            }
            Direction::Down => self.judge(at, bytes),
        }
    }

    /// Hands every answer that is whole to the script.
    fn judge(&mut self, at: Instant, bytes: &[u8]) {
        self.answers.feed(bytes);
        while let Some(answer) = self.answers.next_answer() {
            let verdict = {
                let mut requests = self.requests.lock().expect("nothing panics with it");
                let request = requests.answered();
                let exchange = answer.exchange(self.connection, &request);
                self.shared.with_script(|script| {
                    script.as_mut().map_or(Verdict::Pass, |script| script(&exchange))
                })
            };
            self.shared.counters.answers.fetch_add(1, Relaxed);
            match verdict {
                Verdict::Pass => self.push(at, answer.bytes),
                Verdict::Late(by) => self.push(at + by, answer.bytes),
                Verdict::Instead(other) => self.push(at, other),
                Verdict::Cut { body_bytes, end } => {
                    let kept = answer.bytes.len().min(answer.head_bytes + body_bytes);
                    self.push(at, answer.bytes.slice(..kept));
                    self.waiting.push_back(Item::End(end));
                    return;
                }
            }
        }
        let unframed = self.answers.take_unframed();
        self.push(at, unframed);
    }

    fn push(&mut self, at: Instant, bytes: Bytes) {
        if !bytes.is_empty() {
            self.waiting_bytes += bytes.len();
            self.waiting.push_back(Item::Bytes(at, bytes));
        }
    }

    /// Writes what is due, as much of it as cut and drip allow.
    async fn pass_on(&mut self, flow: &Flow, to: &mut WriteHalf<'_>) -> Result<(), End> {
        let (at, mut bytes) = match self.waiting.pop_front() {
            Some(Item::Bytes(at, bytes)) => (at, bytes),
            Some(Item::End(end)) => return self.cut(end, to).await,
            None => return Ok(()),
        };
        self.waiting_bytes -= bytes.len();
        let until_cut =
            flow.cut.map_or(u64::MAX, |cut| cut.after_bytes.saturating_sub(self.passed));
        let most = flow.drip.map_or(usize::MAX, |drip| drip.bytes.max(1));
        let most = most.min(usize::try_from(until_cut).unwrap_or(usize::MAX));
        let rest = bytes.split_off(bytes.len().min(most));
        if !rest.is_empty() {
            self.waiting_bytes += rest.len();
            self.waiting.push_front(Item::Bytes(at, rest));
        }
        to.write_all(&bytes).await.map_err(|_| End::Reset)?;
        self.passed += bytes.len() as u64;
        self.passed_counter().fetch_add(bytes.len() as u64, Relaxed);
        if let Some(drip) = flow.drip {
            self.rests_until = Instant::now() + drip.every;
        }
        Ok(())
    }

    fn passed_counter(&self) -> &AtomicU64 {
        match self.direction {
            Direction::Up => &self.shared.counters.up_bytes,
            Direction::Down => &self.shared.counters.down_bytes,
        }
    }

    /// Ends the connection, or this direction of it.
    async fn cut(&mut self, end: End, to: &mut WriteHalf<'_>) -> Result<(), End> {
        if self.closed {
            return Ok(());
        }
        self.shared.counters.cuts.fetch_add(1, Relaxed);
        if end != End::HalfClose {
            return Err(end);
        }
        self.closed = true;
        self.waiting.clear();
        self.waiting_bytes = 0;
        to.shutdown().await.map_err(|_| End::Reset)
    }
}
