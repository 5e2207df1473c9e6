//! `carillon import` against a running central: what it prints, and how it ends.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store};
use serde_json::{Value, json};

struct Bench {
    cluster: Cluster,
    folder: tempfile::TempDir,
    app: String,
}

async fn bench() -> Bench {
    let cluster = Cluster::start(Store::Sqlite, 0).await;
    let mut admin = cluster.admin();
    let new = json!({"name": "shop", "environment": "sandbox"});
    let app = text(&admin.ok("POST", "/v1/apps", new).await, "id").to_owned();
    let country = json!({"type": "string", "set_by": "both"});
    admin.ok("PUT", &format!("/v1/apps/{app}/attributes/country"), country).await;
    Bench { cluster, folder: tempfile::tempdir().expect("a folder"), app }
}

impl Bench {
    fn lines(&self, name: &str, devices: u64, more: &str) -> std::path::PathBuf {
        let line =
            |id: u64| format!("{{\"id\":\"{id:016x}\",\"attributes\":{{\"country\":\"KE\"}}}}\n");
        let text: String = (1..=devices).map(line).collect();
        let path = self.folder.path().join(name);
        std::fs::write(&path, text + more).expect("a file");
        path
    }

    /// The command, told of this central but of no file.
    fn import(&self, app: &str) -> Command {
        let binary = std::env::var_os("CARILLON_BIN").expect("run `make test`");
        let mut command = Command::new(binary);
        let url = format!("http://{}", self.cluster.admin_address());
        command.args(["import", "--app", app, "--url", &url]);
        command.env("CARILLON_ADMIN_TOKEN", self.cluster.admin().token);
        command
    }

    fn run(&self, file: &Path) -> Output {
        self.import(&self.app).arg(file).output().expect("it runs")
    }

    async fn devices(&self) -> usize {
        let path = format!("/v1/apps/{}/devices?limit=1000", self.app);
        let page = self.cluster.admin().ok("GET", &path, Value::Null).await;
        page["devices"].as_array().expect("a list").len()
    }
}

fn said(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[tokio::test]
async fn a_file_is_imported_and_a_repeat_changes_nothing() {
    let bench = bench().await;
    let file = bench.lines("fleet", 700, "");
    let (out, err, code) = said(&bench.run(&file));
    assert_eq!(out, "import: lines=700 created=700 changed=0 unchanged=0 bad=0\n", "{err}");
    assert_eq!((code, &*err), (Some(0), ""));
    assert_eq!(bench.devices().await, 700);

    // From a pipe as well.
    let mut piped = bench.import(&bench.app);
    let mut child =
        piped.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let text = std::fs::read(&file).expect("the file");
    child.stdin.take().expect("a pipe").write_all(&text).expect("it reads");
    let (out, ..) = said(&child.wait_with_output().expect("it ends"));
    assert_eq!(out, "import: lines=700 created=0 changed=0 unchanged=700 bad=0\n");
}

#[tokio::test]
async fn bad_lines_are_named_and_the_good_ones_stay() {
    let bench = bench().await;
    let bad = "{\"id\":\"00000000000000ff\",\"attributes\":{\"contry\":\"KE\"}}\nnothing\n";
    let (out, err, code) = said(&bench.run(&bench.lines("fleet", 10, bad)));
    assert_eq!(out, "import: lines=12 created=10 changed=0 unchanged=0 bad=2\n");
    let lines: Vec<&str> = err.lines().collect();
    assert!(lines[0].starts_with("line 11: unknown-attribute: "), "{err}");
    assert!(lines[1].starts_with("line 12: bad-line: "), "{err}");
    assert_eq!((lines.len(), lines[2], code), (3, "carillon: 2 bad lines", Some(1)));
    assert_eq!(bench.devices().await, 10);
}

#[tokio::test]
async fn what_cannot_be_imported_is_said_in_a_sentence() {
    let bench = bench().await;
    let file = bench.lines("fleet", 3, "");
    let of = |command: &mut Command| {
        let (out, err, code) = said(&command.arg(&file).output().expect("it runs"));
        assert_eq!((&*out, code), ("", Some(1)), "{err}");
        err
    };
    let unknown = of(&mut bench.import("00000000000000aa"));
    assert!(unknown.starts_with("carillon: central refused with 404"), "{unknown}");
    let stranger =
        of(bench.import(&bench.app).env("CARILLON_ADMIN_TOKEN", "a-token-of-nobody-at-all"));
    assert!(stranger.starts_with("carillon: central refused with 401"), "{stranger}");
    let nowhere = of(bench.import(&bench.app).args(["--token-file", "/nowhere"]));
    assert!(nowhere.starts_with("carillon: read /nowhere"), "{nowhere}");
    let (_, missing, code) = said(&bench.run(Path::new("/nowhere/fleet")));
    assert!(missing.starts_with("carillon: read /nowhere/fleet: No such file"), "{missing}");
    assert_eq!((code, bench.devices().await), (Some(1), 0));
}
