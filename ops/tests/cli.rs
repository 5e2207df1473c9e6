//! The executable as an operator meets it: what it prints, what it refuses, how it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn carillon() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.env_clear();
    command
}

fn run(arguments: &[&str]) -> Output {
    carillon().args(arguments).output().expect("run carillon")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn help_names_every_command_and_the_flags_of_each() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    for command in ["up", "central", "edge", "demo", "fleet", "import", "explain", "config"] {
        assert!(stdout(&help).contains(&format!("\n  {command} ")), "{}", stdout(&help));
    }
    let edge = stdout(&run(&["edge", "--help"]));
    for text in
        ["--check-config", "--config <PATH>", "--edge-central <HOST:PORT>", "[default: 10s]"]
    {
        assert!(edge.contains(text), "{text} in {edge}");
    }
    assert!(!edge.contains("--central-listen"), "an edge has no use for central's keys: {edge}");
    let central = stdout(&run(&["central", "--help"]));
    assert!(central.contains("--central-listen <ADDRESS>") && !central.contains("--edge-listen"));
}

#[test]
fn version_is_that_of_the_package() {
    for command in ["--version", "-V"] {
        assert_eq!(stdout(&run(&[command])), format!("carillon {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn printed_defaults_pass_the_check_and_an_unknown_key_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("carillon.toml");
    let defaults = stdout(&run(&["config", "print-defaults"]));
    assert!(defaults.contains("\nlisten = \"127.0.0.1:7700\"\n"), "{defaults}");
    fs::write(&path, &defaults).expect("write");
    let path = path.to_str().expect("UTF-8");
    for command in ["up", "central"] {
        let checked = run(&[command, "--config", path, "--check-config"]);
        assert!(checked.status.success(), "{command}: {}", stderr(&checked));
        assert_eq!(stdout(&checked), "the configuration is good\n");
    }
    fs::write(path, defaults + "coulour = true\n").expect("write");
    let checked = run(&["up", "--config", path, "--check-config"]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(stderr(&checked).contains("edge.coulour: unknown key"), "{}", stderr(&checked));
}

#[test]
fn all_faults_of_all_sources_are_told_at_once_with_exit_code_2() {
    let output = carillon()
        .args(["edge", "--edge-listen", "nowhere"])
        .env("CARILLON__LOG__FORMAT", "xml")
        .output()
        .expect("run carillon");
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.starts_with("carillon: the configuration has 3 faults\n"), "{text}");
    for key in ["edge.listen: ", "log.format: ", "edge.link_token: required"] {
        assert!(text.contains(&format!("\n  {key}")), "{key} in {text}");
    }
}

#[test]
fn the_check_makes_no_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let checked = run(&["up", "--data", data.to_str().expect("UTF-8"), "--check-config"]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    assert!(!data.exists());
}

#[test]
fn a_failure_is_one_chain_on_standard_error_with_exit_code_1() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("write");
    let data = file.join("data");
    let output = run(&["up", "--data", data.to_str().expect("UTF-8"), "--log-filter", "error"]);
    assert_eq!(output.status.code(), Some(1));
    let expected =
        format!("carillon: make the folder {}: Not a directory (os error 20)\n", data.display());
    assert_eq!(stderr(&output), expected);
}

#[test]
fn jemalloc_runs_with_the_built_in_configuration() {
    let output = carillon()
        .arg("--version")
        .env("_RJEM_MALLOC_CONF", "stats_print:true")
        .output()
        .expect("run carillon");
    let text = stderr(&output);
    for option in ["opt.background_thread: true", "opt.dirty_decay_ms: 1000"] {
        assert!(text.contains(option), "{option} in {text}");
    }
}

/// A tier that runs on free ports, ended with the test.
struct Running {
    child: Child,
    lines: Vec<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `carillon up` and waits for what it prints when all listens.
fn up(data: &Path) -> Running {
    let mut child = carillon()
        .args(["up", "--data", data.to_str().expect("UTF-8")])
        .args(["--central-listen", "127.0.0.1:0", "--central-stream-listen", "127.0.0.1:0"])
        .args(["--edge-listen", "127.0.0.1:0", "--edge-ops-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start carillon");
    let stdout = child.stdout.take().expect("piped");
    let lines = BufReader::new(stdout).lines().map(|line| line.expect("UTF-8"));
    let mut running = Running { child, lines: Vec::new() };
    for line in lines {
        let last = line.contains("/messages");
        running.lines.push(line);
        if last {
            return running;
        }
    }
    panic!("carillon up ended: {:?}", running.lines);
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().expect("kill").success());
}

#[test]
fn up_makes_its_secrets_once_and_a_signal_drains_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let mut first = up(&data);
    signal(&first.child, "-TERM");
    assert_eq!(first.child.wait().expect("wait").code(), Some(0));
    let names = ["admin.token", "link.token", "root.secret", "ca.pem", "central.pem", "edge.pem"];
    let read = || names.map(|name| fs::read_to_string(data.join(name)).expect(name));
    let made = read();
    assert!(!first.lines.join("\n").contains(made[0].trim()), "the token itself is not printed");

    let mut second = up(&data);
    assert_eq!(read(), made);
    signal(&second.child, "-INT");
    assert_eq!(second.child.wait().expect("wait").code(), Some(0));
}
