//! What central does where others can reach it: nothing without a token, and no stream without TLS.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use carillon_tests::admin::Admin;
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::process::free_address;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::PATIENCE;

/// Central ends with 2 before it opens a port, and names the key that is at fault.
#[test]
fn central_refuses_to_listen_with_half_of_what_protects_it() {
    let binary = std::env::var_os("CARILLON_BIN")
        .expect("CARILLON_BIN names the executable; run `make test`");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("write");
        path.display().to_string()
    };
    let (short, empty, pem) =
        (file("short", "0123456789"), file("empty", ""), file("pem", "no PEM"));
    let missing = folder.path().join("missing").display().to_string();
    let cases: [(&[&str], &str); 8] = [
        (&["--central-stream-certificate-file", &pem], "central.stream_key_file"),
        (&["--central-stream-key-file", &pem], "central.stream_certificate_file"),
        (
            &["--central-stream-certificate-file", &pem, "--central-stream-key-file", &pem],
            "central.stream_certificate_file",
        ),
        (&["--central-admin-token-file", &short], "central.admin_token"),
        (&["--central-admin-token-file", &empty], "central.admin_token"),
        (&["--central-admin-token-file", &missing], "central.admin_token"),
        (&["--central-link-token-file", &short], "central.link_token"),
        (&["--central-root-secret-file", &short], "central.root_secret"),
    ];
    for (flags, key) in cases {
        for listen in ["0.0.0.0:0", "127.0.0.1:0"] {
            let data = folder.path().join("data");
            let mut command = Command::new(&binary);
            command.args([
                "central",
                "--central-stream-listen",
                listen,
                "--central-listen",
                listen,
            ]);
            command.arg("--data").arg(&data).args(flags);
            let output = command.stdin(Stdio::null()).output().expect("run carillon");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{flags:?} on {listen}: {said}");
            assert!(said.contains(key), "{flags:?} on {listen}: {said}");
            assert!(!data.exists(), "{flags:?}: a refused configuration makes nothing");
        }
    }
}

/// On all addresses of the machine: the stream speaks nothing but TLS, an edge needs the token, and so does an admin.
#[tokio::test]
async fn a_central_that_others_can_reach_asks_for_tls_and_tokens() {
    let any = |address: std::net::SocketAddr| format!("0.0.0.0:{}", address.port());
    let (listen, stream) = (free_address(), free_address());
    let flags = ["--central-listen", &any(listen), "--central-stream-listen", &any(stream)];
    // The cluster's own central is not asked; it lends its folder's CA and tokens.
    let cluster = Cluster::start(Store::Sqlite, 0).await;
    let data = cluster.data().parent().expect("a parent").join("exposed");
    let data = data.display().to_string();
    let all: Vec<&str> = ["--data", &data].into_iter().chain(flags).collect();
    let mut exposed = cluster.beside("exposed", "central", &all);
    exposed.ready(listen).await;

    let mut stranger = Admin::new(&format!("http://{listen}"), &cluster.admin().token);
    stranger.call("GET", "/v1/apps", Value::Null).await.expect_problem(401, "unauthorized");
    for hello in [&b"\x00\x00\x00\x10\x01hello, central!"[..], b"GET /v1/apps HTTP/1.1\r\n\r\n"] {
        let mut plain = TcpStream::connect(stream).await.expect("it listens");
        plain.write_all(hello).await.expect("sent");
        let mut answer = Vec::new();
        // At most a TLS alert of 7 bytes; a reset is as good.
        let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer))
            .await
            .expect("it closes");
        assert!(answer.is_empty() || answer[0] == 21 && answer.len() == 7, "{answer:?}");
    }

    // The right CA, the wrong token.
    let token = std::fs::read_to_string(format!("{data}/link.token")).expect("central made it");
    let (secret, ca) = token.trim().split_once('.').expect("a secret and a CA");
    let wrong = format!("{}.{ca}", "0".repeat(secret.len()));
    let wrong_file = format!("{data}/wrong.token");
    std::fs::write(&wrong_file, wrong).expect("write");
    let right_file = format!("{data}/link.token");
    let central = stream.to_string();
    let edge = |name: &str, token: &str| {
        let (tls, ops) = (free_address(), free_address());
        let (tls, ops_flag) = (tls.to_string(), ops.to_string());
        let flags = [
            "--edge-central",
            &central,
            "--edge-link-token-file",
            token,
            "--edge-listen",
            &tls,
            "--edge-ops-listen",
            &ops_flag,
        ];
        (cluster.beside(name, "edge", &flags), ops)
    };
    let (mut good, ops) = edge("good", &right_file);
    good.ready(ops).await;
    let (mut bad, ops) = edge("bad", &wrong_file);
    let began = Instant::now();
    while !exposed.log().contains("an edge came with another token")
        || !bad.log().contains("central refuses this edge's token")
    {
        assert!(began.elapsed() < PATIENCE, "nobody says so: {}{}", exposed.log(), bad.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(bad.ended().is_none(), "it tries on: {}", bad.log());
    let ready = carillon_tests::cluster::ops_get(ops, "/readyz").await;
    assert!(!ready.is_ok_and(|(status, _)| status == 200), "an edge without the token has a world");
}
