//! URLs that lead inside: whatever central is told to call, nothing is connected to but what is public or allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::new_app;

/// URLs that are to be refused wherever they are given; `{}` stands for the port that a listener waits on.
const HOSTILE: &str = include_str!("../../hostile-urls.txt");

/// These have no line.
const HOSTILE_HERE: [&str; 2] = ["", "https://localhost:{}/\r\nx: y"];

#[tokio::test(flavor = "multi_thread")]
async fn no_url_of_the_table_makes_a_connection() {
    let trap = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = trap.local_addr().expect("it is bound").port();
    let sprung = Arc::new(AtomicUsize::new(0));
    let count = sprung.clone();
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let ports = format!("443,{port}");
    let flags = [
        "--history-to",
        "discard",
        "--callbacks-ports",
        &ports,
        "--callbacks-retry-after",
        "100ms",
    ];
    let cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
    let mut admin = cluster.admin();
    let app = new_app(&mut admin, "shop").await;
    let path = format!("{app}/callbacks");
    let (mut refused, mut made) = (0, Vec::new());
    let everywhere = HOSTILE.lines().filter(|line| !line.starts_with('#'));
    let urls: Vec<&str> = everywhere.chain(HOSTILE_HERE).collect();
    assert!(urls.len() >= 60, "the table shrank");
    for url in &urls {
        let url = url.replace("{}", &port.to_string());
        let answer = admin.call("POST", &path, json!({"url": url, "events": ["*"]})).await;
        if answer.status == 201 {
            made.push((url, format!("{path}/{}", text(&answer.json(), "id"))));
        } else {
            answer.expect_problem(422, "invalid-callback");
            refused += 1;
        }
    }
    // Only names are left, of which nobody knows where they lead before they are asked for.
    assert!(
        made.iter().all(|(url, _)| url.contains("local")
            || url.contains("LOCAL")
            || url.contains("nobody")),
        "{made:?}"
    );
    assert_eq!((refused, made.len()), (urls.len() - 4, 4), "{made:?}");
    for (url, path) in &made {
        let told = admin.ok("POST", &format!("{path}/test"), Value::Null).await;
        let error = text(&told, "error");
        let expected = ["the address is not allowed", "the name does not resolve"];
        assert!(told["delivered"] == false && expected.contains(&error), "{url}: {told}");
    }
    // What happens is not told to them either.
    admin.ok("POST", &format!("{app}/groups"), json!({"name": "vip"})).await;
    for (url, path) in &made {
        let began = std::time::Instant::now();
        loop {
            let found = admin.ok("GET", path, Value::Null).await;
            if found["last_error"].is_string() {
                assert_eq!(found["delivered"], 0, "{url}: {found}");
                break;
            }
            assert!(began.elapsed() < crate::PATIENCE, "{url}: {found}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    assert_eq!(sprung.load(Ordering::Relaxed), 0);
    // The trap works.
    TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    while sprung.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
}
