//! The whole path with the real executable: an admin writes, a device has it, through real sockets, TLS and stores.
//!
//! `CARILLON_BIN` names the executable; `make test` builds it first.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carillon_client::{Client, ClientTls, Event, MessageId};
use carillon_tests::admin::{Admin, text};
use carillon_tests::mariadb::MariaDb;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// `carillon up`, killed with -9 when dropped.
struct Tiers {
    child: Child,
    admin: String,
    devices: String,
    stream: String,
}

impl Drop for Tiers {
    fn drop(&mut self) {
        self.child.kill().expect("kill carillon");
        self.child.wait().expect("wait for carillon");
    }
}

impl Tiers {
    /// Starts the tiers on these addresses ("127.0.0.1:0" for any) and waits until all listens.
    fn start(data: &Path, store: Option<&str>, admin: &str, stream: &str, devices: &str) -> Tiers {
        let binary = std::env::var("CARILLON_BIN")
            .expect("CARILLON_BIN names the executable; run `make test`");
        let mut command = Command::new(binary);
        command.args(["up", "--data", data.to_str().expect("UTF-8")]);
        command.args(["--central-listen", admin, "--central-stream-listen", stream]);
        command.args(["--edge-listen", devices, "--edge-ops-listen", "127.0.0.1:0"]);
        command.args(["--central-clock-tick", "1s"]);
        command.args(store.iter().flat_map(|url| ["--central-store", *url]));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start");
        let mut tiers =
            Tiers { child, admin: String::new(), devices: String::new(), stream: String::new() };
        let stdout = tiers.child.stdout.take().expect("piped");
        for line in BufReader::new(stdout).lines().map(|line| line.expect("UTF-8")) {
            let word = |n: usize| line.split_whitespace().nth(n).unwrap_or_default().to_owned();
            if line.contains("admin API") {
                tiers.admin = word(2);
            } else if line.contains("edges  ") {
                tiers.stream = word(1);
            } else if line.contains("devices  ") {
                tiers.devices = word(1);
            } else if line.contains("/messages") {
                return tiers;
            }
        }
        panic!("carillon up ended before it was up");
    }
}

fn host(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

fn admin_of(tiers: &Tiers, data: &Path) -> Admin {
    let token = std::fs::read_to_string(data.join("admin.token")).expect("the admin's token");
    Admin::new(&tiers.admin, &token)
}

/// Polls until the client holds exactly `want`.
async fn holds(client: &mut Client, want: &[&str]) {
    let mut want: Vec<MessageId> = want.iter().map(|id| id.parse().expect("an id")).collect();
    want.sort();
    let reached = tokio::time::timeout(PATIENCE, async {
        loop {
            let event: Option<Event> = client.next_event().await;
            assert!(event.is_some(), "the client ended");
            if client.messages().keys().copied().eq(want.iter().copied()) {
                return;
            }
        }
    });
    let timely = reached.await.is_ok();
    assert!(timely, "wants {want:?}, holds {:?}", client.messages().keys());
}

async fn whole_path(store: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let any = "127.0.0.1:0";
    let tiers = Tiers::start(&data, store, any, any, any);
    let mut admin = admin_of(&tiers, &data);
    let app = admin.ok("POST", "/v1/apps", json!({"name": "shop", "environment": "sandbox"})).await;
    let at = format!("/v1/apps/{}", text(&app, "id"));
    let declared = json!({"type": "string", "set_by": "device"});
    admin.ok("PUT", &format!("{at}/attributes/country"), declared).await;
    admin.ok("POST", &format!("{at}/groups"), json!({"name": "vip", "set_by": "device"})).await;

    let tls =
        ClientTls::with_roots(&std::fs::read(data.join("ca.pem")).expect("the CA")).expect("PEM");
    let device = |country: &str, groups: &[&str], seed: u64| {
        Client::builder()
            .edges([tiers.devices.as_str()])
            .app_key(text(&app, "publishable_key"))
            .tls(tls.clone())
            .attributes([("country", json!(country))])
            .groups(groups.iter().copied())
            .wait(Duration::from_secs(2))
            .seed(seed)
            .build()
            .expect("a client")
    };
    let (mut kenyan, mut swede) = (device("KE", &["vip"], 1), device("SE", &[], 2));
    let messages = format!("{at}/messages");
    let vip = json!({"to": "#vip and country in (\"KE\", \"NO\")", "body": {"text": "hello"}});
    let vip = admin.ok("POST", &messages, vip).await;
    let everyone = admin.ok("POST", &messages, json!({"to": "all", "body": 1})).await;
    let (vip, everyone) = (text(&vip, "id"), text(&everyone, "id"));
    holds(&mut kenyan, &[vip, everyone]).await;
    holds(&mut swede, &[everyone]).await;

    // An edit of the recipients moves the message from one device to the other; a recall takes one from both.
    let to_swede = json!({"to": "country == \"SE\""});
    admin.ok("PATCH", &format!("{messages}/{vip}"), to_swede).await;
    holds(&mut kenyan, &[everyone]).await;
    holds(&mut swede, &[vip, everyone]).await;
    admin.ok("POST", &format!("{messages}/{everyone}:recall"), Value::Null).await;
    holds(&mut kenyan, &[]).await;
    holds(&mut swede, &[vip]).await;

    // Killed with -9 and started again: what was acknowledged is there, and the same clients go on.
    let (address, stream, devices) =
        (host(&tiers.admin).to_owned(), tiers.stream.clone(), tiers.devices.clone());
    let port = devices.rsplit(':').next().expect("a port").to_owned();
    drop(tiers);
    let again = Tiers::start(&data, store, &address, &stream, &format!("127.0.0.1:{port}"));
    let mut admin = admin_of(&again, &data);
    let kept = admin.ok("GET", &format!("{messages}/{vip}"), Value::Null).await;
    assert_eq!((text(&kept, "state"), &kept["revision"]), ("active", &json!(2)));
    let last = admin.ok("POST", &messages, json!({"to": "not #vip", "body": "after"})).await;
    holds(&mut swede, &[vip, text(&last, "id")]).await;
    holds(&mut kenyan, &[]).await;

    // Bad input is refused and changes nothing.
    let refused = admin.call("POST", &messages, json!({"to": "#vap", "body": 1})).await;
    refused.expect_problem(422, "bad-expression");
    let missing = admin.call("GET", "/v1/apps/0000000000000001", Value::Null).await;
    missing.expect_problem(404, "not-found");
    admin.token = "wrong".into();
    admin.call("GET", &messages, Value::Null).await.expect_problem(401, "unauthorized");
}

/// RFC 3339, so many seconds from now.
fn in_seconds(seconds: i64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
    let ms = i64::try_from(now).expect("before the year 9999") + seconds * 1_000;
    carillon_expr::Time::from_ms(ms).expect("before the year 9999").to_fixed()
}

/// The count and the clock of a preview.
async fn previewed(admin: &mut Admin, at: &str, to: &str) -> (u64, String) {
    let body = admin.ok("POST", &format!("{at}/audience:preview"), json!({"to": to})).await;
    (body["count"].as_u64().expect("a count"), text(&body, "at").to_owned())
}

/// What the clock alone does: a device comes in and falls out of a message while its polls are held longer than the test
/// has patience, so that it is woken or not at all.
async fn by_the_clock(store: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let any = "127.0.0.1:0";
    let tiers = Tiers::start(&data, store, any, any, any);
    let mut admin = admin_of(&tiers, &data);
    let app = admin.ok("POST", "/v1/apps", json!({"name": "shop", "environment": "sandbox"})).await;
    let at = format!("/v1/apps/{}", text(&app, "id"));
    let declared = json!({"type": "time", "set_by": "device"});
    admin.ok("PUT", &format!("{at}/attributes/starts"), declared).await;
    let messages = format!("{at}/messages");
    let soon = json!({"to": "starts within next 8s", "body": "soon"});
    let soon = admin.ok("POST", &messages, soon).await;
    let soon = text(&soon, "id");
    let seen = json!({"to": "last_seen within 2h", "body": "hello"});
    let seen = admin.ok("POST", &messages, seen).await;
    let seen = text(&seen, "id");
    let (nobody, _) = previewed(&mut admin, &at, "has last_seen").await;
    assert_eq!(nobody, 0);

    let tls =
        ClientTls::with_roots(&std::fs::read(data.join("ca.pem")).expect("the CA")).expect("PEM");
    let mut device = Client::builder()
        .edges([tiers.devices.as_str()])
        .app_key(text(&app, "publishable_key"))
        .tls(tls)
        .attributes([("starts", json!(in_seconds(20)))])
        .wait(Duration::from_secs(60))
        .seed(1)
        .build()
        .expect("a client");
    // Its first poll is parked, and reported two seconds later.
    holds(&mut device, &[seen]).await;
    holds(&mut device, &[seen, soon]).await;
    holds(&mut device, &[seen]).await;

    let (count, before) = previewed(&mut admin, &at, "last_seen within 2h").await;
    assert_eq!(count, 1);
    let (address, stream, devices) =
        (host(&tiers.admin).to_owned(), tiers.stream.clone(), tiers.devices.clone());
    let port = devices.rsplit(':').next().expect("a port").to_owned();
    drop(tiers);
    let again = Tiers::start(&data, store, &address, &stream, &format!("127.0.0.1:{port}"));
    let mut admin = admin_of(&again, &data);
    let (count, after) = previewed(&mut admin, &at, "last_seen within 2h").await;
    assert_eq!(count, 1, "a restart forgets nobody");
    assert!(after >= before, "the clock ran back from {before} to {after}");
    admin.ok("POST", &format!("{messages}/{seen}:recall"), Value::Null).await;
    holds(&mut device, &[]).await;
}

#[tokio::test]
async fn a_device_comes_in_and_falls_out_by_the_clock_on_sqlite() {
    by_the_clock(None).await;
}

#[tokio::test]
async fn a_device_comes_in_and_falls_out_by_the_clock_on_mariadb() {
    let server = MariaDb::start();
    by_the_clock(Some(&server.url("carillon_clock"))).await;
}

#[tokio::test]
async fn an_admin_writes_and_a_device_has_it_on_sqlite() {
    whole_path(None).await;
}

#[tokio::test]
async fn an_admin_writes_and_a_device_has_it_on_mariadb() {
    let server = MariaDb::start();
    whole_path(Some(&server.url("carillon_path"))).await;
}
