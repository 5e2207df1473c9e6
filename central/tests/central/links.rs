//! Links as a scripted edge sees them.

use std::sync::Arc;
use std::time::Duration;

use carillon_world::stream::{
    Envelope, Frame, FrameDecoder, Hello, KeyPurpose, LinkToken, Progress, RefusalCode, VERSIONS,
    encode,
};
use carillon_world::{
    Position, ProfilePatch, SecretHash, Seq, ShardId, UpstreamReply, UpstreamRequest,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Bench, LINK, start, start_with};

pub(crate) struct Edge {
    stream: TlsStream<TcpStream>,
    decoder: FrameDecoder,
}

pub(crate) async fn connect_tls(bench: &Bench) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bench.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(bench.central.addresses().link).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

impl Edge {
    pub(crate) async fn connect(bench: &Bench, token: &str) -> Edge {
        Edge::connect_at(bench, token, None).await
    }

    /// `at`: where its world is.
    async fn connect_at(bench: &Bench, token: &str, at: Option<Position>) -> Edge {
        let stream = connect_tls(bench).await;
        let mut edge = Edge { stream, decoder: FrameDecoder::new(8 << 20) };
        edge.send(Frame::Hello(Hello {
            versions: VERSIONS.to_vec(),
            token: LinkToken::new(token.as_bytes().to_vec()),
            edge: "test".to_owned(),
            shard: ShardId::FIRST,
            at,
            stamps: None,
        }))
        .await;
        edge
    }

    async fn send(&mut self, frame: Frame) {
        self.stream.write_all(&encode(&frame)).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next frame but heartbeats; `None` when the link ends.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next_frame().unwrap() {
                Some((Frame::Heartbeat(_), _)) => continue,
                Some((frame, _)) => return Some(frame),
                None => {}
            }
            let mut buffer = [0; 16 * 1024];
            let read = tokio::time::timeout(Duration::from_secs(10), self.stream.read(&mut buffer));
            match read.await.expect("central says something in time") {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.decoder.feed(&buffer[..n]),
            }
        }
    }

    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(Frame) -> Option<T>) -> T {
        loop {
            let frame = self.next().await.expect("the link lives");
            if let Some(found) = wanted(frame) {
                return found;
            }
        }
    }

    pub(crate) async fn ask(&mut self, id: u64, request: &UpstreamRequest) -> UpstreamReply {
        self.send(Frame::Write(Envelope { id, body: request.encode() })).await;
        let body = self
            .until(|frame| match frame {
                Frame::Reply(reply) if reply.id == id => Some(reply.body),
                _ => None,
            })
            .await;
        UpstreamReply::decode(&body).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_with_another_token_is_refused() {
    let bench = start().await;
    let mut edge = Edge::connect(&bench, "another-token-of-the-same-length").await;
    let Some(Frame::Refused(refused)) = edge.next().await else { panic!("not refused") };
    assert_eq!(refused.code, RefusalCode::TOKEN);
    assert!(edge.next().await.is_none(), "and closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_closes_the_link() {
    let bench = start().await;
    let mut edge = Edge::connect(&bench, LINK).await;
    edge.stream.write_all(&[0xff; 64]).await.unwrap();
    edge.stream.flush().await.unwrap();
    while edge.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_gets_the_keys_the_shard_and_then_each_batch() {
    let bench = start().await;
    let app = bench.app().await;
    let mut edge = Edge::connect(&bench, LINK).await;
    let Some(Frame::Welcome(welcome)) = edge.next().await else { panic!("no welcome") };
    assert_eq!((welcome.version, welcome.shard), (VERSIONS[0], ShardId::FIRST));
    let (mut keys, mut rows, mut chunks) = (None, 0, 0);
    while rows < 4 || keys.is_none() {
        match edge.next().await.expect("the link lives") {
            Frame::Keys(k) => keys = Some(k),
            Frame::Chunk(chunk) => {
                rows += chunk.rows.len();
                chunks += 1;
                edge.send(Frame::Ack(Progress { seq: Seq::new(4), chunks })).await;
            }
            Frame::SnapshotBegin(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let keys = keys.unwrap();
    let root = carillon_central::config::RootSecret::new([5; 32]);
    let day = keys.seal_day + 2;
    let session =
        keys.keys.iter().find(|k| k.purpose == KeyPurpose::Session && k.day == day).unwrap();
    assert_eq!(session.key, root.derive(KeyPurpose::Session, day));

    bench.post(&format!("{app}/messages"), json!({"to": "all", "body": 1})).await.json(201);
    let batch = edge
        .until(|frame| match frame {
            Frame::Batch(batch) => Some(batch),
            _ => None,
        })
        .await;
    assert_eq!((batch.batch.first, batch.batch.changes.len()), (Seq::new(5), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_enrol_and_write_through_an_edge() {
    let bench = start().await;
    let path = bench.app().await;
    let key = bench.get(&path).await.json(200)["publishable_key"].as_str().unwrap().to_owned();
    let mut edge = Edge::connect(&bench, LINK).await;
    edge.until(|frame| matches!(frame, Frame::Welcome(_)).then_some(())).await;
    let secret = SecretHash([3; 32]);
    let attributes = vec![("country".to_owned(), Some("\"KE\"".to_owned()))];
    let profile = ProfilePatch { attributes, groups: vec![("vip".to_owned(), true)], tokens: None };
    let enrol = UpstreamRequest::Enrol { publishable_key: key.clone(), secret, profile };
    let UpstreamReply::Enrolled { app, device, generation, committed, created: true } =
        edge.ask(1, &enrol).await
    else {
        panic!("not enrolled")
    };
    assert_eq!(generation, committed);
    let again = edge.ask(2, &enrol).await;
    assert!(
        matches!(again, UpstreamReply::Enrolled { device: d, created: false, .. } if d == device),
        "{again:?}"
    );
    let shown = bench.get(&format!("{path}/devices/{device}")).await.json(200);
    assert_eq!(
        (&shown["attributes"], &shown["groups"]),
        (&json!({"country": "KE"}), &json!(["vip"]))
    );

    let session = edge.ask(3, &UpstreamRequest::Session { app, device, secret }).await;
    assert!(
        matches!(session, UpstreamReply::Session { generation: g, .. } if g == generation),
        "{session:?}"
    );
    let wrong =
        edge.ask(4, &UpstreamRequest::Session { app, device, secret: SecretHash([4; 32]) }).await;
    assert!(
        matches!(&wrong, UpstreamReply::Refused { problem } if problem.code == "session"),
        "{wrong:?}"
    );
    let patch = ProfilePatch {
        attributes: vec![("app_version".into(), Some("\"2\"".into()))],
        ..Default::default()
    };
    let refused = edge
        .ask(5, &UpstreamRequest::Patch { app, device, generation: generation.seq, patch })
        .await;
    assert!(
        matches!(&refused, UpstreamReply::Refused { problem } if problem.code == "not-allowed"),
        "{refused:?}"
    );
    let forgot =
        edge.ask(6, &UpstreamRequest::Forget { app, device, generation: generation.seq }).await;
    assert!(
        matches!(forgot, UpstreamReply::Written { committed: c } if c.seq > committed.seq),
        "{forgot:?}"
    );
    bench.get(&format!("{path}/devices/{device}")).await.problem(404, "not-found");
    let none = UpstreamRequest::Enrol {
        publishable_key: "pk_none".into(),
        secret,
        profile: ProfilePatch::default(),
    };
    let refused = edge.ask(7, &none).await;
    assert!(
        matches!(&refused, UpstreamReply::Refused { problem } if problem.code == "unknown-app"),
        "{refused:?}"
    );
    bench.central.stop().await.unwrap();
    while edge.next().await.is_some() {}
}

/// The first frame that is neither `Welcome` nor keys: what central sends of the truth.
async fn first_of(edge: &mut Edge) -> Frame {
    edge.until(|frame| match frame {
        Frame::Welcome(_) | Frame::Keys(_) => None,
        other => Some(other),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_comes_back_gets_what_follows_its_position_and_else_a_snapshot() {
    let bench = start_with(|config| config.link.sender.window = 1 << 20).await;
    let app = bench.app().await;
    let mut edge = Edge::connect(&bench, LINK).await;
    let Some(Frame::Welcome(welcome)) = edge.next().await else { panic!("no welcome") };
    assert_eq!(welcome.window, 1 << 20, "as configured");
    let epoch = welcome.lineage.newest().epoch;
    let at = |seq| Some(Position { shard: ShardId::FIRST, epoch, seq: Seq::new(seq) });
    assert!(matches!(first_of(&mut edge).await, Frame::SnapshotBegin(_)), "it has no world");
    drop(edge);
    bench.post(&format!("{app}/messages"), json!({"to": "all", "body": 1})).await.json(201);

    for held in 1..=4 {
        let mut edge = Edge::connect_at(&bench, LINK, at(held)).await;
        let Frame::Batch(batch) = first_of(&mut edge).await else { panic!("not from the log") };
        assert_eq!(batch.batch.first, Seq::new(held + 1));
    }
    let unheard = Position { epoch: carillon_world::Epoch { tag: 1, ..epoch }, ..at(4).unwrap() };
    let mut cut_off = Edge::connect_at(&bench, LINK, Some(unheard)).await;
    assert!(matches!(first_of(&mut cut_off).await, Frame::SnapshotBegin(_)));

    // A restart begins an empty log: who has everything goes on, who lacks something gets a snapshot.
    let bench = bench.restart().await;
    let mut whole = Edge::connect_at(&bench, LINK, at(5)).await;
    let mut lacking = Edge::connect_at(&bench, LINK, at(4)).await;
    assert!(matches!(first_of(&mut lacking).await, Frame::SnapshotBegin(_)));
    bench.post(&format!("{app}/messages"), json!({"to": "all", "body": 2})).await.json(201);
    let Frame::Batch(batch) = first_of(&mut whole).await else { panic!("not from the log") };
    assert_eq!(batch.batch.first, Seq::new(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_the_log_does_not_reach_gets_a_snapshot() {
    let bench = start_with(|config| config.log_bytes_max = 1).await;
    let app = bench.app().await;
    let mut edge = Edge::connect(&bench, LINK).await;
    let Some(Frame::Welcome(welcome)) = edge.next().await else { panic!("no welcome") };
    let epoch = welcome.lineage.newest().epoch;
    let at = |seq| Some(Position { shard: ShardId::FIRST, epoch, seq: Seq::new(seq) });
    bench.post(&format!("{app}/messages"), json!({"to": "all", "body": 1})).await.json(201);
    let mut late = Edge::connect_at(&bench, LINK, at(3)).await;
    assert!(matches!(first_of(&mut late).await, Frame::SnapshotBegin(_)), "trimmed");
    let mut near = Edge::connect_at(&bench, LINK, at(4)).await;
    assert!(matches!(first_of(&mut near).await, Frame::Batch(_)), "the newest batch is kept");
}
