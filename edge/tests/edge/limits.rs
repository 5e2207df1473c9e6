//! What an edge refuses so that nothing in it grows; the rates and the slow peers are in `main.rs`.

use std::time::Duration;

use carillon_edge::Edge;
use socket2::{Domain, Socket, Type};

use super::*;

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("not zero")
}

/// An edge with one core and these settings, and a device with a cursor whose next poll parks.
async fn settled(central: &Central, change: impl FnOnce(&mut Config)) -> (Edge, Device, String) {
    let mut config = config(central);
    config.cores = NonZeroUsize::new(1);
    change(&mut config);
    let (edge, mut device) = start(config).await;
    let cursor = device.enrol().await.text("cursor");
    let cursor = device.settle(&cursor).await;
    (edge, device, cursor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_beyond_the_places_to_park_is_told_to_come_again() {
    let central = Central::start().await;
    let (edge, device, cursor) =
        settled(&central, |config| config.limits.parked_max = NonZeroUsize::MIN).await;
    let (held, ()) = tokio::join!(device.poll(60, Some(&cursor)), async {
        wait_for_metric(&edge, "edge_parked_polls", 1.0).await;
        let refused = device.poll(60, Some(&cursor)).await;
        assert_eq!(refused.problem(), (503, "unavailable".into()));
        assert!(refused.headers.contains_key("retry-after"));
        assert_eq!(device.poll(0, Some(&cursor)).await.status, 204, "who does not wait is served");
        central.commit(vec![message(1)]);
    });
    assert_eq!(held.ids(), ["0000000000000001"], "the one that was there first keeps its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_its_bytes_is_refused_with_431() {
    let central = Central::start().await;
    let (edge, device, _) = settled(&central, |config| config.limits.head_bytes_max = 8192).await;
    let with = |bytes: usize| {
        let mut call = device.call(Method::GET, "/v1/messages", None, "");
        call.headers_mut().insert("x-pad", "x".repeat(bytes).parse().expect("a value"));
        call
    };
    assert_eq!(device.send(with(7_000)).await.status, 200);
    let to = edge.addresses().http.expect("it listens");
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    let head = format!("GET /v1/messages HTTP/1.1\r\nhost: x\r\nx-pad: {}\r\n", "x".repeat(9_000));
    stream.write_all(head.as_bytes()).await.expect("taken");
    let mut start = [0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut start)).await;
    read.expect("in time").expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 431");

    let certificate = edge.certificate_der().expect("it shows one");
    let h2 = client::tls(certificate, b"h2");
    let tls = edge.addresses().tls.expect("it listens");
    let over_h2 = |bytes| {
        let mut call = with(bytes);
        call.headers_mut().remove("host");
        *call.uri_mut() = "https://localhost/v1/messages".parse().expect("a URI");
        call
    };
    let answer = client::send_h2(client::connect_tls(tls, &h2).await, over_h2(7_000)).await;
    assert_eq!(answer.status, 200);
    let mut sender = client::h2(client::connect_tls(tls, &h2).await).await;
    let answer = sender.send_request(over_h2(9_000)).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 431));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_connection_beyond_the_streams_wait_for_the_others() {
    let central = Central::start().await;
    let (edge, device, cursor) = settled(&central, |config| config.limits.h2_streams_max = 1).await;
    let h2 = client::tls(edge.certificate_der().expect("it shows one"), b"h2");
    let tls = edge.addresses().tls.expect("it listens");
    let sender = client::h2(client::connect_tls(tls, &h2).await).await;
    let poll = |wait: u32| {
        let mut call = device.call(Method::GET, "/", Some(&cursor), "");
        call.headers_mut().remove("host");
        let uri = format!("https://localhost/v1/messages?wait={wait}");
        *call.uri_mut() = uri.parse().expect("a URI");
        let mut sender = sender.clone();
        async move { sender.send_request(call).await.expect("an answer").status().as_u16() }
    };
    // The first answer brings the edge's settings with it.
    assert_eq!(poll(0).await, 204);
    let began = Instant::now();
    assert_eq!(tokio::join!(poll(1), poll(1), poll(1)), (204, 204, 204));
    assert!(began.elapsed() >= Duration::from_secs(3), "one after the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_of_what_was_sent_is_dropped() {
    let central = Central::start().await;
    let (edge, device, _) = settled(&central, |config| {
        config.limits.send_timeout = Duration::from_millis(500);
        config.limits.head_timeout = Duration::from_secs(600);
        config.limits.answer_bytes_max = 64 << 20;
    })
    .await;
    let mut seq = 0;
    for id in 1..=64 {
        seq = central.commit(vec![large_message(id)]).seq.get();
    }
    wait_for_metric(&edge, "edge_world_seq", seq as f64).await;
    wait_for_metric(&edge, "edge_connections", 0.0).await;
    // Far less room than the answer has, also with what the edge's kernel takes.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set before connecting");
    socket.connect(&device.http.into()).expect("it listens");
    socket.set_nonblocking(true).expect("a flag");
    let mut stream = TcpStream::from_std(socket.into()).expect("a stream");
    let head = format!(
        "GET /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        device.session
    );
    stream.write_all(head.as_bytes()).await.expect("taken");
    wait_for_metric(&edge, "edge_connections", 1.0).await;
    wait_for_metric(&edge, "edge_connections", 0.0).await;
    drop(stream);
}

/// 256 KiB.
fn large_message(id: u64) -> carillon_world::Change {
    let carillon_world::Change::Message(row) = message(id) else { unreachable!("it is a message") };
    let mut row = (*row).clone();
    let wire = format!(r#"{{"id":"{}","pad":"{}"}}"#, row.id, "x".repeat(256 * 1024));
    row.variants[0].wire = wire.into();
    carillon_world::Change::Message(std::sync::Arc::new(row))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_holds_no_more_bodies_than_its_bytes_and_names_the_others() {
    let central = Central::start().await;
    let (_edge, device, cursor) =
        settled(&central, |config| config.limits.answer_bytes_max = 300).await;
    central.commit((1..=5).map(message).collect());
    let answer = device.poll(5, Some(&cursor)).await;
    let inventory = answer.json()["inventory"].as_array().map(Vec::len);
    assert_eq!((answer.ids().len(), inventory), (2, Some(5)), "{answer:?}");
    let body = r#"{"ids":["0000000000000003","0000000000000004","0000000000000005"]}"#;
    let cursor = answer.text("cursor");
    let fetched =
        device.send(device.call(Method::POST, "/v1/messages:fetch", Some(&cursor), body)).await;
    assert_eq!(fetched.ids(), ["0000000000000003", "0000000000000004"], "the rest is asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_beyond_those_on_their_way_are_refused_at_once() {
    let central = Central::start().await;
    let (_edge, device, _) = settled(&central, |config| {
        config.central.writes_max = count(1);
        config.central.write_timeout = Duration::from_secs(3);
    })
    .await;
    central.set_mute(true);
    let patch = || device.send(device.call(Method::PATCH, "/v1/devices/self", None, "{}"));
    let (a, b, c, d) = tokio::join!(patch(), patch(), patch(), patch());
    let said: Vec<String> = [a, b, c, d]
        .iter()
        .map(|answer| {
            assert_eq!(answer.problem(), (503, "unavailable".into()));
            answer.text("detail")
        })
        .collect();
    let count = |text: &str| said.iter().filter(|said| said.contains(text)).count();
    // One is with central, one waits for it; whether the queue was emptied in between is chance.
    assert!(count("nothing was written") >= 2, "{said:?}");
    assert!(count("outcome unknown") >= 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_by_itself_is_cut_at_the_end_of_draining() {
    let central = Central::start().await;
    let (edge, device, _) = settled(&central, |config| {
        config.drain_max = Duration::from_millis(300);
        config.limits.body_timeout = Duration::from_secs(600);
    })
    .await;
    let mut stream = TcpStream::connect(device.http).await.expect("it listens");
    stream
        .write_all(b"POST /v1/devices HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        .await
        .expect("taken");
    wait_for_metric(&edge, "edge_connections", 1.0).await;
    tokio::time::timeout(PATIENCE, edge.stop()).await.expect("in time").expect("no panic");
    assert_closes(&mut stream).await;
}
