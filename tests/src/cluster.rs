//! The real executable as separate processes: `carillon central` on a store of the test's own, and edges that follow it.
//!
//! Addresses are drawn once and kept, so that a tier that is killed and started again is found where it was.
//! `CARILLON_BIN` names the executable; `make test` builds it first.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_client::{ClientTls, HttpTransport};
use http::Request;
use tempfile::TempDir;

use crate::admin::Admin;
use crate::mariadb::MariaDb;
use crate::process::{dies_with_us, end, free_address, signal, spawn_from_lasting_thread};

/// A loaded machine takes some seconds.
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const STORE_FILE: &str = "carillon.db";

/// Puts the SQLite store of one folder in the place of another's, as a backup is made and restored.
///
/// # Panics
/// If a file cannot be copied.
pub fn copy_store(from: &Path, to: &Path) {
    for end in ["", "-wal", "-shm"] {
        let name = format!("{STORE_FILE}{end}");
        let _ = std::fs::remove_file(to.join(&name));
        if from.join(&name).exists() {
            std::fs::copy(from.join(&name), to.join(&name)).expect("copy the store");
        }
    }
}

/// Which store central has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    MariaDb,
}

impl Store {
    pub const ALL: [Store; 2] = [Store::Sqlite, Store::MariaDb];
}

/// Central and its edges. Everything ends when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    central: Tier,
    edges: Vec<Tier>,
    addresses: Addresses,
    /// The server behind [`Store::MariaDb`].
    pub mariadb: Option<MariaDb>,
    /// Last, so that the folder outlives the processes.
    folder: TempDir,
}

#[derive(Debug)]
struct Addresses {
    admin: SocketAddr,
    stream: SocketAddr,
    edges: Vec<EdgeAddresses>,
}

/// Where one edge listens.
#[derive(Clone, Copy, Debug)]
pub struct EdgeAddresses {
    pub tls: SocketAddr,
    pub plain: SocketAddr,
    pub ops: SocketAddr,
}

impl EdgeAddresses {
    fn draw() -> EdgeAddresses {
        EdgeAddresses { tls: free_address(), plain: free_address(), ops: free_address() }
    }

    /// The device API by TLS; [`Cluster::tls`] trusts it.
    pub fn url(&self) -> String {
        format!("https://{}", self.tls)
    }

    /// The device API without TLS, for faults that must see the bytes.
    pub fn plain_url(&self) -> String {
        format!("http://{}", self.plain)
    }
}

/// One process: its arguments stay, it may come and go.
#[derive(Debug)]
struct Tier {
    name: String,
    /// What the executable is run by, with that program's arguments; nothing, if it is run as it is.
    under: Vec<String>,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
}

impl Cluster {
    /// Starts central and this many edges, and waits until all are ready.
    ///
    /// # Panics
    /// If something does not start; the end of its log is in the message.
    pub async fn start(store: Store, edges: usize) -> Cluster {
        Cluster::start_with(store, &[], &vec![&[][..]; edges]).await
    }

    /// As [`Cluster::start`], with further flags for central and for each edge. A flag given here wins over the
    /// cluster's own: `--edge-central 127.0.0.1:4000` puts a proxy between an edge and central.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub async fn start_with(store: Store, central: &[&str], edges: &[&[&str]]) -> Cluster {
        let folder = tempfile::Builder::new().prefix("carillon-").tempdir().expect("a folder");
        let mariadb = (store == Store::MariaDb).then(MariaDb::start);
        let addresses =
            Addresses { admin: free_address(), stream: free_address(), edges: Vec::new() };
        let data = folder.path().join("data");
        let mut arguments = flags([
            ("data", data.display().to_string()),
            ("central-listen", addresses.admin.to_string()),
            ("central-stream-listen", addresses.stream.to_string()),
        ]);
        if let Some(server) = &mariadb {
            arguments.extend(flags([("central-store", server.url("carillon"))]));
        }
        let central = Tier::new("central", folder.path(), arguments, central);
        let mut cluster = Cluster { central, edges: Vec::new(), addresses, mariadb, folder };
        cluster.start_central().await;
        for extra in edges {
            cluster.add_edge(extra).await;
        }
        cluster
    }

    /// Starts one more edge, with further flags as for [`Cluster::start_with`], and waits until it is ready. Gives its
    /// index. For flags that need to know where central is.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn add_edge(&mut self, extra: &[&str]) -> usize {
        let index = self.edges.len();
        let at = EdgeAddresses::draw();
        let name = format!("edge-{index}");
        let data = self.data();
        let arguments = flags([
            ("edge-name", name.clone()),
            ("edge-central", self.addresses.stream.to_string()),
            ("edge-link-token-file", data.join("link.token").display().to_string()),
            ("edge-listen", at.tls.to_string()),
            ("edge-plain-listen", at.plain.to_string()),
            ("edge-ops-listen", at.ops.to_string()),
            // Central's development certificate names localhost too.
            ("edge-certificate-file", data.join("central.pem").display().to_string()),
            ("edge-key-file", data.join("central.key").display().to_string()),
        ]);
        self.edges.push(Tier::new(&name, self.folder.path(), arguments, extra));
        self.addresses.edges.push(at);
        self.start_edge(index).await;
        index
    }

    /// An admin with the token that central made.
    pub fn admin(&self) -> Admin {
        Admin::new(&format!("http://{}", self.addresses.admin), &self.secret("admin.token"))
    }

    /// Where the admin API, central's health and its metrics are.
    pub fn admin_address(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// Where central's stream is.
    pub fn stream_address(&self) -> SocketAddr {
        self.addresses.stream
    }

    pub fn edge(&self, index: usize) -> EdgeAddresses {
        self.addresses.edges[index]
    }

    /// The edges' URLs, as a client takes them.
    pub fn edge_urls(&self) -> Vec<String> {
        self.addresses.edges.iter().map(EdgeAddresses::url).collect()
    }

    /// Trusts the edges.
    ///
    /// # Panics
    /// If central's folder is not there.
    pub fn tls(&self) -> ClientTls {
        let ca = std::fs::read(self.data().join("ca.pem")).expect("the development CA");
        ClientTls::with_roots(&ca).expect("PEM")
    }

    /// Central's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Central's store, as its flag takes it.
    pub fn store_url(&self) -> String {
        match &self.mariadb {
            Some(server) => server.url("carillon"),
            None => format!("sqlite:{}", self.store_file().display()),
        }
    }

    /// The file that central has where the store is SQLite.
    pub fn store_file(&self) -> PathBuf {
        self.data().join(STORE_FILE)
    }

    fn secret(&self, file: &str) -> String {
        let text = std::fs::read_to_string(self.data().join(file)).expect("central made it");
        text.trim().to_owned()
    }

    /// Central's process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn central_pid(&self) -> u32 {
        self.central.process.as_ref().expect("central runs").id()
    }

    /// An edge's process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn edge_pid(&self, index: usize) -> u32 {
        self.edges[index].process.as_ref().expect("the edge runs").id()
    }

    /// `kill -9`.
    pub fn kill_central(&mut self) {
        self.central.kill();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// If it does not end in time, or with a failure.
    pub fn stop_central(&mut self) {
        self.central.stop();
    }

    /// Starts central where it was and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_central(&mut self) {
        self.central.start("central");
        self.central.ready(self.addresses.admin).await;
    }

    /// As [`Cluster::start_central`], with flags that win over those it had, and stay.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_central_with(&mut self, flags: &[&str]) {
        self.central.set(flags);
        self.start_central().await;
    }

    /// As [`Cluster::start_central`], run by another program, here and whenever it is started again: `strace -D` and
    /// its arguments. The program must become central, as `exec` does, rather than be its parent.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_central_under(&mut self, program: &[&str]) {
        self.central.under = program.iter().map(|&word| word.to_owned()).collect();
        self.start_central().await;
    }

    /// `kill -9`.
    pub fn kill_edge(&mut self, index: usize) {
        self.edges[index].kill();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// If it does not end in time, or with a failure.
    pub fn stop_edge(&mut self, index: usize) {
        self.edges[index].stop();
    }

    /// Starts an edge where it was and waits until it has a world.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_edge(&mut self, index: usize) {
        self.edges[index].start("edge");
        self.edges[index].ready(self.addresses.edges[index].ops).await;
    }

    /// Starts an edge where it was and does not wait, for when central is away.
    pub fn launch_edge(&mut self, index: usize) {
        self.edges[index].start("edge");
    }

    /// Whether central ended by itself, and how.
    pub fn central_ended(&mut self) -> Option<ExitStatus> {
        self.central.ended()
    }

    /// Runs `carillon` with a subcommand and flags of the caller's own, beside the cluster's processes.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn beside(&self, name: &str, subcommand: &str, flags: &[&str]) -> Beside {
        let mut tier = Tier::new(name, self.folder.path(), Vec::new(), flags);
        tier.start(subcommand);
        Beside(tier)
    }

    /// What central has logged so far, one JSON object a line.
    pub fn central_log(&self) -> String {
        self.central.log()
    }

    /// What an edge has logged so far.
    pub fn edge_log(&self, index: usize) -> String {
        self.edges[index].log()
    }
}

/// A process that [`Cluster::beside`] started; killed when dropped.
#[derive(Debug)]
pub struct Beside(Tier);

impl Beside {
    /// Waits until it is ready.
    ///
    /// # Panics
    /// If that never comes.
    pub async fn ready(&mut self, ops: SocketAddr) {
        self.0.ready(ops).await;
    }

    /// As [`Cluster::stop_central`].
    ///
    /// # Panics
    /// As there.
    pub fn stop(&mut self) {
        self.0.stop();
    }

    /// Whether it ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.ended()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.0.log()
    }
}

impl Tier {
    fn new(name: &str, folder: &Path, arguments: Vec<String>, extra: &[&str]) -> Tier {
        let log = folder.join(format!("{name}.log"));
        let mut tier =
            Tier { name: name.to_owned(), under: Vec::new(), arguments, log, process: None };
        tier.set(extra);
        tier
    }

    fn set(&mut self, flags: &[&str]) {
        for pair in flags.chunks(2) {
            if let Some(at) = self.arguments.iter().position(|flag| flag == pair[0]) {
                self.arguments.drain(at..at + 2);
            }
            self.arguments.extend(pair.iter().map(|&word| word.to_owned()));
        }
    }

    fn start(&mut self, subcommand: &str) {
        assert!(self.process.is_none(), "{} runs", self.name);
        let binary = std::env::var_os("CARILLON_BIN")
            .expect("CARILLON_BIN names the executable; run `make test`");
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut words = self.under.iter().map(OsString::from).chain([binary]);
        let mut command = dies_with_us(Path::new(&words.next().expect("the executable")));
        command.args(words).arg(subcommand).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(spawn_from_lasting_thread(command).expect("start carillon"));
    }

    async fn ready(&mut self, ops: SocketAddr) {
        let began = Instant::now();
        loop {
            if ops_get(ops, "/readyz").await.is_ok_and(|(status, _)| status == 200) {
                return;
            }
            let ended = self.ended();
            assert!(ended.is_none(), "{} ended: {ended:?}\n{}", self.name, self.log());
            assert!(began.elapsed() < START_MAX, "{} is not ready\n{}", self.name, self.log());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.try_wait().expect("wait for a child")
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            end(&mut process);
        }
    }

    fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        signal(&process, "TERM");
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX {
            if let Some(status) = process.try_wait().expect("wait for a child") {
                assert!(status.success(), "{} ended with {status}\n{}", self.name, self.log());
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        end(&mut process);
        panic!("{} does not end\n{}", self.name, self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Tier {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4000);
            let end = log.get(log.ceil_char_boundary(from)..).unwrap_or_default();
            print_to_test(&format!("log of {} ends with\n{end}", self.name));
        }
    }
}

/// A test's output shows it only where the test failed.
#[expect(clippy::print_stderr, reason = "what a failed test is read by")]
fn print_to_test(text: &str) {
    eprintln!("{text}");
}

/// `GET` on an ops listener, or central's admin listener: status and body.
///
/// # Errors
/// If no answer comes; in words.
pub async fn ops_get(at: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let url = format!("http://{at}").parse().expect("an URL");
    let request = Request::get(path).body(Bytes::new()).expect("a request");
    let answer = HttpTransport::new(url, None).request(request, Duration::from_secs(5)).await;
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    Ok((answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned()))
}

fn flags<const N: usize>(pairs: [(&str, String); N]) -> Vec<String> {
    pairs.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]).collect()
}
