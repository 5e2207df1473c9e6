//! What `/metrics` shows is sent to Graphite and StatsD too, by central, an edge and the archiver. `CARILLON_BIN` names the
//! executable.

use std::collections::BTreeMap;
use std::time::Duration;

use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store, ops_get};
use carillon_tests::history::{Archiver, Broker};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

async fn lines(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) =
        timeout(PATIENCE, listener.accept()).await.expect("it comes").expect("a connection");
    BufReader::new(stream)
}

/// Reads until all of these were seen, and gives their values.
async fn seen(stream: &mut BufReader<TcpStream>, wanted: &[&str]) -> BTreeMap<String, f64> {
    let mut seen = BTreeMap::new();
    let mut line = String::new();
    while !wanted.iter().all(|name| seen.contains_key(*name)) {
        line.clear();
        let read = timeout(PATIENCE, stream.read_line(&mut line))
            .await
            .expect("it is sent")
            .expect("a line");
        assert!(read > 0, "it ended after {seen:?}");
        let mut parts = line.split_whitespace();
        let (name, value) = (parts.next().expect("a name"), parts.next().expect("a value"));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{line}");
        seen.insert(name.to_owned(), value.parse().expect("a number"));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_gauges_of_central_and_an_edge_are_sent() {
    let graphite = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let statsd = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let (to, datagrams) = (
        graphite.local_addr().expect("bound").to_string(),
        statsd.local_addr().expect("bound").to_string(),
    );
    let central = [
        "--metrics-graphite",
        &to,
        "--metrics-statsd",
        &datagrams,
        "--metrics-interval",
        "100ms",
        "--metrics-prefix",
        "eu.central-1",
    ];
    let mut cluster = Cluster::start_with(Store::Sqlite, &central, &[]).await;
    let mut stream = lines(&graphite).await;
    let mut admin = cluster.admin();
    let app = admin.ok("POST", "/v1/apps", json!({"name": "shop", "environment": "sandbox"})).await;
    let path = format!("/v1/apps/{}/groups", text(&app, "id"));
    for n in 0..9 {
        admin.ok("POST", &path, json!({"name": format!("g{n}"), "set_by": "server"})).await;
    }
    // Of the one that is cut off, another takes the place.
    seen(&mut stream, &["eu.central-1.central_store_up"]).await;
    drop(stream);
    let mut stream = lines(&graphite).await;
    let changes = "eu.central-1.central_changes_total";
    let names =
        [changes, "eu.central-1.central_apps", "eu.central-1.export_lost_total.to.graphite"];
    let all = seen(&mut stream, &names).await;
    assert_eq!((all[changes], all["eu.central-1.central_apps"]), (10.0, 1.0));
    assert!(all.contains_key("eu.central-1.central_http_requests_total.status.Success"), "{all:?}");
    // As a scrape shows them.
    let (_, scraped) = ops_get(cluster.admin_address(), "/metrics").await.expect("metrics");
    assert!(scraped.contains("\ncentral_changes_total 10\n"), "{scraped}");
    let (mut sum, mut datagram) = (0.0, [0; 2000]);
    while sum < 10.0 {
        let read =
            timeout(PATIENCE, statsd.recv(&mut datagram)).await.expect("it is sent").expect("one");
        assert!(read <= 1432);
        for line in std::str::from_utf8(&datagram[..read]).expect("UTF-8").lines() {
            if let Some(grown) = line.strip_prefix("eu.central-1.central_changes_total:") {
                sum +=
                    grown.strip_suffix("|c").expect("a counter").parse::<f64>().expect("a number");
            }
        }
    }
    assert_eq!(sum, 10.0);

    // An edge, whose places take nothing: it serves.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().expect("bound").to_string();
    let edge = cluster
        .add_edge(&[
            "--metrics-graphite",
            &silent,
            "--metrics-statsd",
            "127.0.0.1:9",
            "--metrics-interval",
            "50ms",
        ])
        .await;
    assert_eq!(ops_get(cluster.edge(edge).ops, "/readyz").await.expect("it answers").0, 200);
    cluster.stop_edge(edge);
    let edge = cluster
        .add_edge(&[
            "--metrics-graphite",
            &to,
            "--metrics-interval",
            "100ms",
            "--metrics-prefix",
            "edge",
        ])
        .await;
    let mut stream = lines(&graphite).await;
    // The first may be sent before central is found.
    let all = loop {
        let all = seen(&mut stream, &["edge.edge_link_up", "edge.edge_world_seq"]).await;
        if all["edge.edge_link_up"] == 1.0 {
            break all;
        }
    };
    assert!(!all.contains_key(changes));
    cluster.stop_edge(edge);
    cluster.stop_central();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archiver_sends_what_it_counts() {
    let graphite = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start();
    let flags = [
        ("history-kafka-brokers", broker.brokers().to_owned()),
        ("history-kafka-topic", broker.topic()),
        ("history-lake", folder.path().join("lake").display().to_string()),
        ("metrics-graphite", graphite.local_addr().expect("bound").to_string()),
        ("metrics-interval", "100ms".to_owned()),
    ];
    let mut archiver = Archiver::start(folder.path(), &flags, &[]);
    let mut stream = lines(&graphite).await;
    seen(&mut stream, &["carillon.archive_records_total", "carillon.archive_ready"]).await;
    assert!(archiver.terminate().success(), "{}", archiver.log());
}
