//! URLs that lead inside: whatever central is told to call, nothing is connected to but what is public or allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::new_app;

/// `{}` stands for the port that a listener waits on.
const HOSTILE: [&str; 66] = [
    // Not https, or not a URL.
    "http://127.0.0.1:{}/",
    "http://localhost:{}/",
    "ftp://localhost:{}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{}/_x",
    "//127.0.0.1:{}/",
    "127.0.0.1:{}",
    "javascript:alert(1)",
    "https:127.0.0.1:{}/",
    "https:\\\\127.0.0.1:{}/",
    "",
    "https://",
    // Loopback and its spellings.
    "https://127.0.0.1:{}/",
    "https://127.0.0.1.:{}/",
    "https://127.1:{}/",
    "https://127.0.1:{}/",
    "https://0:{}/",
    "https://0.0.0.0:{}/",
    "https://2130706433:{}/",
    "https://0x7f000001:{}/",
    "https://0x7f.0x0.0x0.0x1:{}/",
    "https://017700000001:{}/",
    "https://0177.0.0.1:{}/",
    "https://127.0.0.1%2f:{}/",
    "https://①②⑦.⓪.⓪.①:{}/",
    "https://127。0。0。1:{}/",
    "https://[::1]:{}/",
    "https://[::]:{}/",
    "https://[0:0:0:0:0:0:0:1]:{}/",
    "https://[::ffff:127.0.0.1]:{}/",
    "https://[::ffff:7f00:1]:{}/",
    "https://[::127.0.0.1]:{}/",
    "https://[2002:7f00:1::]:{}/",
    "https://[64:ff9b::7f00:1]:{}/",
    "https://[64:ff9b:1::7f00:1]:{}/",
    "https://[2001:0:7f00:1::]:{}/",
    "https://[::1%25lo]:{}/",
    // Inside, link-local, metadata, multicast, documentation.
    "https://10.0.0.1:{}/",
    "https://172.16.0.1:{}/",
    "https://192.168.1.1:{}/",
    "https://100.64.0.1:{}/",
    "https://169.254.169.254:{}/latest/meta-data/",
    "https://[fd00:ec2::254]:{}/",
    "https://[fe80::1]:{}/",
    "https://224.0.0.1:{}/",
    "https://[ff02::1]:{}/",
    "https://192.0.2.1:{}/",
    "https://198.18.0.1:{}/",
    "https://255.255.255.255:{}/",
    "https://[2001:db8::1]:{}/",
    // Names that lead there.
    "https://localhost:{}/",
    "https://localhost.:{}/",
    "https://LOCALHOST:{}/",
    "https://nobody.invalid:{}/",
    // A second authority.
    "https://example.com@127.0.0.1:{}/",
    "https://example.com:443@127.0.0.1:{}/",
    "https://@127.0.0.1:{}/",
    "https://127.0.0.1:{}\\@example.com/",
    "https://example.com#@127.0.0.1:{}/",
    "https://localhost:{}/\r\nx: y",
    // Ports.
    "https://localhost:25/",
    "https://localhost:22/",
    "https://127.0.0.1:{}0000/",
    "https://127.0.0.1:+{}/",
    "https://127.0.0.1:0/",
    "https://localhost:{} /",
];

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
    for url in HOSTILE {
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
    assert_eq!((refused, made.len()), (HOSTILE.len() - 4, 4), "{made:?}");
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
