//! `carillon demo` as whoever tries it meets it: a good run is good, and a run with a planted fault is not.
//!
//! Small, with the same floors as a large one.

use std::process::{Command, Output, Stdio};

fn demo(devices: u32, clients: u32, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_carillon"))
        .env_clear()
        .args(["demo", "--seconds", "4"])
        .args(["--devices", &devices.to_string(), "--clients", &clients.to_string()])
        .args(arguments)
        .output()
        .expect("run carillon")
}

/// The one line of standard output, and all of standard error for whoever has to find out.
fn verdict(output: &Output) -> (&str, &str) {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| str::from_utf8(bytes).expect("UTF-8"));
    assert_eq!(stdout.lines().count(), 1, "{stdout}\n{stderr}");
    (stdout.trim_end(), stderr)
}

#[track_caller]
fn number(line: &str, name: &str) -> f64 {
    let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let value = value.unwrap_or_else(|| panic!("{name} in {line}"));
    value.trim_end_matches(':').parse().unwrap_or_else(|_| panic!("{name} in {line}"))
}

#[test]
fn a_good_run_ends_with_ok() {
    let output = demo(2_000, 50, &[]);
    let (line, log) = verdict(&output);
    assert!(line.starts_with("demo ok: devices=2000 clients=50 messages="), "{line}\n{log}");
    assert!(output.status.success());
    assert!(number(line, "messages") >= 15.0, "{line}");
    assert!(number(line, "deliveries") >= 500.0, "{line}");
    assert!(number(line, "p50_ms") <= number(line, "p99_ms"), "{line}");
    assert!(line.ends_with(" missing=0 extra=0"), "{line}");
    assert!(log.contains("edge kill 1"), "{log}");
}

/// The numbers of missing and extra messages of a run whose edge has a fault.
fn found(fault: &str) -> (f64, f64) {
    let output = demo(2_000, 50, &["--sabotage", fault]);
    let (line, log) = verdict(&output);
    assert_eq!(output.status.code(), Some(1), "{line}\n{log}");
    assert!(line.starts_with("demo FAILED: missing="), "{line}\n{log}");
    assert!(line.contains("device "), "an example is named: {line}");
    (number(line, "missing"), number(line, "extra"))
}

#[test]
fn an_edge_that_hides_a_message_is_found_out() {
    // Where it hides an edit, the client still has what was said before, which is extra.
    let (missing, extra) = found("drop");
    assert!(missing >= 1.0 && extra < missing, "{missing} {extra}");
}

#[test]
fn an_edge_that_leaks_a_message_is_found_out() {
    let (missing, extra) = found("extra");
    assert!(missing == 0.0 && extra >= 1.0, "{missing} {extra}");
}

#[test]
fn an_edge_that_keeps_a_recalled_message_is_found_out() {
    let (missing, extra) = found("stale");
    assert!(missing == 0.0 && extra >= 1.0, "{missing} {extra}");
}

#[test]
fn a_run_in_which_too_little_can_happen_is_not_good() {
    // One client cannot be both a recipient and none of an expression that nothing changes.
    let output = demo(10, 1, &[]);
    let (line, log) = verdict(&output);
    assert_eq!(output.status.code(), Some(1), "{line}\n{log}");
    assert!(line.starts_with("demo FAILED: missing=0 extra=0: `"), "{line}\n{log}");
    assert!(line.contains("among the clients"), "{line}");
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let output = demo(2_000, 2_001, &[]);
    assert_eq!(verdict(&output).0, "demo FAILED: --clients 2001 is more than --devices 2000");
    assert_eq!(output.status.code(), Some(1));
    let output = demo(400_000, 400_000, &[]);
    let (line, _) = verdict(&output);
    assert!(line.starts_with("demo FAILED: 400000 clients need 800512 open files"), "{line}");
}

#[test]
fn an_interrupt_ends_it_cleanly() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_carillon"))
        .args(["demo", "--devices", "2000", "--clients", "10", "--seconds", "3600"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start carillon");
    let log = child.stderr.take().expect("piped");
    let polls = std::io::BufRead::lines(std::io::BufReader::new(log))
        .map_while(Result::ok)
        .any(|line| line.contains("clients long-poll"));
    assert!(polls, "it came as far as that");
    let interrupted = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    assert!(interrupted.expect("run kill").success());
    let output = child.wait_with_output().expect("wait");
    assert_eq!(str::from_utf8(&output.stdout), Ok("demo FAILED: ended by SIGINT\n"));
    assert_eq!(output.status.code(), Some(1));
    let left = std::fs::read_dir(folder.path()).expect("list").count();
    assert_eq!(left, 0, "the temporary folder is gone");
}
