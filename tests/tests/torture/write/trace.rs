//! What the system calls of central say: no acknowledgement leaves before the sync that covers it (SQLite).
//!
//! `kill -9` leaves what the system has in memory, so it says nothing of syncs; a trace does. Each write carries a key,
//! which is seen in the page that SQLite writes to its log and in the answer that leaves by the socket. Between the
//! two, a sync of the log has to begin and end well.
//!
//! strace stops a thread at each end of a call and writes it down before the thread goes on, so the order of its lines
//! is that of the calls: what ended by one line was over before what begins by a later one.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use carillon_tests::admin::Admin;
use carillon_tests::cluster::{Cluster, Store};
use serde_json::json;

use super::state::{App, device_id};
use super::{PATIENCE, say};

/// Writes by one caller alone, and by each of many.
const ALONE: u64 = 60;
const CALLERS: u64 = 16;
const EACH: u64 = 20;
const CALLS: &str = "trace=write,writev,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync";
/// A page of the database, and more than an answer.
const SHOWN_BYTES: &str = "8192";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Bytes go to the log.
    Log,
    Sync,
    /// Bytes go to a socket.
    Send,
}

/// One call of central's, between its two lines.
#[derive(Clone, Debug)]
struct Event<'a> {
    call: Call,
    /// Numbers of the lines at which it began and ended; no end if it failed or was never seen to end.
    began: usize,
    ended: Option<usize>,
    text: &'a str,
}

/// What the lines of a trace say, by when each call began.
fn parse(trace: &str) -> Vec<Event<'_>> {
    let mut events: Vec<Event<'_>> = Vec::new();
    let mut unfinished: HashMap<&str, usize> = HashMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        let went_well = text.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'));
        if text.starts_with("<... ") {
            if let Some(event) = unfinished.remove(thread) {
                events[event].ended = went_well.then_some(number);
            }
            continue;
        }
        let Some((name, arguments)) = text.split_once('(') else { continue };
        let target = arguments.split_once('>').map_or("", |(target, _)| target);
        let call = match name {
            "pwrite64" | "pwritev" | "write" if target.ends_with("-wal") => Call::Log,
            "fsync" | "fdatasync" if target.ends_with("-wal") => Call::Sync,
            "write" | "writev" | "sendto" | "sendmsg" if target.contains("<TCP:") => Call::Send,
            _ => continue,
        };
        let is_whole = !text.ends_with("<unfinished ...>");
        if !is_whole {
            unfinished.insert(thread, events.len());
        }
        let ended = (is_whole && went_well).then_some(number);
        events.push(Event { call, began: number, ended, text });
    }
    events
}

/// The syncs between the first page of the log that has `key` and the answer that has it. SQLite syncs the log once a
/// commit, after all of its pages, so the first sync after a page covers the whole batch.
///
/// # Errors
/// In words, if there is none: the answer left before a sync that began after the page was written had ended well.
fn covered<'a>(events: &'a [Event<'a>], key: &str) -> Result<Vec<&'a Event<'a>>, String> {
    let first = |call| events.iter().find(|event| event.call == call && event.text.contains(key));
    let answer = first(Call::Send).ok_or_else(|| format!("no answer has {key}"))?;
    if !answer.text.contains("HTTP/1.1 2") {
        return Err(format!("what has {key} is no acknowledgement: {}", answer.text));
    }
    let page = first(Call::Log).ok_or_else(|| format!("no page of the log has {key}"))?;
    let covers = |event: &&Event<'_>| {
        let ended = event.ended.is_some_and(|ended| ended < answer.began);
        event.call == Call::Sync && event.began > page.began && ended
    };
    let syncs: Vec<_> = events.iter().filter(covers).collect();
    if syncs.is_empty() {
        return Err(format!(
            "the answer of line {} left before a sync covered the page of line {}: {key}",
            answer.began + 1,
            page.began + 1
        ));
    }
    Ok(syncs)
}

/// Sends writes, each with a key of its own, one after the other. Gives the keys.
async fn write(mut admin: Admin, app: App, caller: u64, writes: u64) -> Vec<String> {
    let device = device_id(caller, 1);
    let line = format!("{}\n", json!({"id": device}));
    let import = admin.request("POST", &app.path("/devices:import"), line);
    assert_eq!(admin.send(import).await.status, 200);
    let mut keys = Vec::new();
    for n in 0..writes {
        let key = format!("key-{caller:03}-{n:04}-end");
        if n % 2 == 0 {
            let message = json!({"to": "all", "body": {"key": key}});
            admin.ok("POST", &app.path("/messages"), message).await;
        } else {
            let patch = json!({"attributes": {"s": key}});
            admin.ok("PATCH", &app.path(&format!("/devices/{device}")), patch).await;
        }
        keys.push(key);
    }
    keys
}

/// The whole trace, once central and strace have ended.
async fn read_whole(file: &Path, central: u32) -> String {
    let last = format!("{central} +++ exited with 0 +++");
    let began = Instant::now();
    loop {
        let trace = std::fs::read(file).unwrap_or_default();
        let trace = String::from_utf8_lossy(&trace).into_owned();
        if trace.lines().rev().take(3).any(|line| line.replace("  ", " ") == last) {
            return trace;
        }
        assert!(began.elapsed() < PATIENCE, "strace does not end: {:?}", trace.lines().next_back());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn run() {
    let began = Instant::now();
    let mut cluster = Cluster::start(Store::Sqlite, 0).await;
    let app = App::create(&mut cluster.admin(), "traced".to_owned()).await;
    cluster.stop_central();
    let file = cluster.data().join("trace");
    let out = file.display().to_string();
    let strace = ["strace", "-D", "-f", "-q", "-yy", "-s", SHOWN_BYTES, "-e", CALLS, "-o", &out];
    let found = std::process::Command::new("strace").arg("-V").output();
    assert!(found.is_ok(), "strace is not installed: run scripts/install-test-deps.sh");
    cluster.start_central_under(&strace).await;
    let central = cluster.central_pid();
    let alone = write(cluster.admin(), app.clone(), 0, ALONE).await;
    let callers: Vec<_> = (1..=CALLERS)
        .map(|caller| tokio::spawn(write(cluster.admin(), app.clone(), caller, EACH)))
        .collect();
    let mut together = Vec::new();
    for caller in callers {
        together.extend(caller.await.expect("each write is acknowledged"));
    }
    cluster.stop_central();
    let trace = read_whole(&file, central).await;
    let events = parse(&trace);
    for key in alone.iter().chain(&together) {
        if let Err(why) = covered(&events, key) {
            panic!("{why}");
        }
    }
    // The check is seen to fail where the syncs that cover an answer are not in the trace.
    for key in alone.iter().chain(&together) {
        let cover: Vec<usize> =
            covered(&events, key).expect("as before").iter().map(|sync| sync.began).collect();
        assert!(cover.len() == 1 || together.contains(key), "{key} has {} syncs", cover.len());
        let without = events.iter().filter(|event| !cover.contains(&event.began));
        let without: Vec<_> = without.cloned().collect();
        assert!(covered(&without, key).is_err(), "{key} is covered by no sync, and nobody minds");
    }
    let count = |call| events.iter().filter(|event| event.call == call).count();
    say(&format!(
        "write trace, Sqlite: {} acknowledgements ({ALONE} of a lone caller, {} of {CALLERS} at a time), {} writes to the log, \
         {} syncs; 0 acknowledgements before their sync; without its sync in the trace each of them is found; {} s",
        alone.len() + together.len(),
        together.len(),
        count(Call::Log),
        count(Call::Sync),
        began.elapsed().as_secs()
    ));
    assert!(count(Call::Sync) as u64 >= ALONE, "a lone caller's writes are batches of their own");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"10 pwrite64(9</d/carillon.db-wal>, "\0key-1-end\0", 4096, 56) = 4096"#;
    const SYNC: &str = "10 fdatasync(9</d/carillon.db-wal>) = 0";
    const ANSWER: &str = r#"11 sendto(7<TCP:[127.0.0.1:1->127.0.0.1:2]>, "HTTP/1.1 201 C\r\nkey-1-end", 20, 0) = 20"#;

    fn judge(lines: &[&str]) -> Result<usize, String> {
        let trace = lines.join("\n");
        covered(&parse(&trace), "key-1-end").map(|syncs| syncs.len())
    }

    #[test]
    fn an_answer_needs_a_sync_that_began_after_its_page_and_ended_well_before_it_left() {
        let begins = "10 fdatasync(9</d/carillon.db-wal> <unfinished ...>";
        let ends = "10 <... fdatasync resumed>) = 0";
        assert_eq!(judge(&[PAGE, SYNC, ANSWER]), Ok(1));
        assert_eq!(judge(&[PAGE, begins, "12 +++", ends, ANSWER]), Ok(1));
        for uncovered in [
            &[PAGE, ANSWER][..],
            &[SYNC, PAGE, ANSWER],
            &[PAGE, ANSWER, SYNC],
            &[ANSWER, PAGE, SYNC],
            &[PAGE, begins, ANSWER, ends],
            &[begins, PAGE, ends, ANSWER],
            &[PAGE, "10 fdatasync(9</d/carillon.db-wal>) = -1 EIO (Input/output error)", ANSWER],
            &[PAGE, begins, "10 <... fdatasync resumed>) = -1 EIO (Input/output error)", ANSWER],
            &[PAGE, "10 fdatasync(9</d/carillon.db>) = 0", ANSWER],
        ] {
            let error = judge(uncovered).expect_err("not covered");
            assert!(error.contains("left before a sync"), "{error}");
        }
        assert!(judge(&[PAGE, SYNC]).is_err() && judge(&[SYNC, ANSWER]).is_err());
    }
}
