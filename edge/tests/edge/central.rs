//! A central that a test holds in its hand: the real sending end of the stream over real TLS, and a world to which the
//! test commits. Devices' writes are decided in the simplest way that is honest.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use carillon_world::stream::{
    DerivedKey, FrameDecoder, KeyBytes, KeyPurpose, Keys, RefusalCode, Sender, SenderConfig,
    SenderEvent, encode_batch,
};
use carillon_world::{
    AppId, AppRow, Batch, Change, ChangeLog, DeviceId, DeviceRow, Environment, Epoch, Lineage,
    LineageEntry, LogBatch, MessageId, MessageRow, MessageState, Millis, Position, Priority,
    Problem, Seq, ShardId, Tag, UpstreamReply, UpstreamRequest, Variant, World,
};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(crate) const APP: AppId = AppId::new(0xa1);
pub(crate) const KEY: &str = "pk-test";
pub(crate) const TOKEN: &str = "the token";
pub(crate) const EPOCH: Epoch = Epoch { number: 1000, tag: 7 };

struct Truth {
    world: World,
    log: ChangeLog,
    /// (hash of the secret, device) of those enrolled.
    secrets: Vec<([u8; 32], DeviceId)>,
    /// Devices that edges reported as seen, each as often as it was.
    seen: Vec<DeviceId>,
    /// Replies are kept back, as if they were lost.
    mute: bool,
}

#[derive(Clone)]
pub(crate) struct Central {
    pub(crate) address: SocketAddr,
    /// The certificate, PEM.
    pub(crate) ca: String,
    truth: Arc<Mutex<Truth>>,
    /// Counts commits; links look at the log when it changes.
    commits: watch::Sender<u64>,
    /// While false, links are cut and refused.
    up: watch::Sender<bool>,
}

impl Central {
    pub(crate) async fn start() -> Central {
        let made =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate and its key");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let line = LineageEntry { epoch: EPOCH, began_after: Seq::ZERO, fork: false };
        let lineage = Lineage::try_new(vec![line]).expect("one line");
        let world = World::empty(ShardId::FIRST, lineage);
        let truth = Truth {
            world,
            log: ChangeLog::new(1 << 20, Seq::ZERO),
            secrets: Vec::new(),
            seen: Vec::new(),
            mute: false,
        };
        let central = Central {
            address,
            ca: made.cert.pem(),
            truth: Arc::new(Mutex::new(truth)),
            commits: watch::Sender::new(0),
            up: watch::Sender::new(true),
        };
        central.commit(vec![Change::App(Arc::new(AppRow {
            id: APP,
            name: "test".into(),
            environment: Environment::Sandbox,
            publishable_key: KEY.into(),
            created_at: Millis(0),
            quotas: carillon_world::Quotas::default(),
            push: None,
        }))]);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepting = central.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (central, acceptor) = (accepting.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let mut up = central.up.subscribe();
                    tokio::select! {
                        _ = up.wait_for(|up| !up) => {}
                        () = central.link(stream, acceptor) => {}
                    }
                });
            }
        });
        central
    }

    pub(crate) fn commit(&self, changes: Vec<Change>) -> Position {
        let mut truth = self.truth.lock().expect("no test panics here");
        let position = truth.commit(changes);
        drop(truth);
        self.commits.send_modify(|n| *n += 1);
        position
    }

    /// Cuts all links and refuses others, or accepts again.
    pub(crate) fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    pub(crate) fn set_mute(&self, mute: bool) {
        self.truth.lock().expect("no test panics here").mute = mute;
    }

    pub(crate) fn device(&self, id: DeviceId) -> Option<DeviceRow> {
        let truth = self.truth.lock().expect("no test panics here");
        truth.world.app(APP).and_then(|app| app.device(id)).map(|row| DeviceRow::clone(row))
    }

    async fn link(self, stream: TcpStream, acceptor: TlsAcceptor) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut sender = Sender::new(SenderConfig::default(), ShardId::FIRST, Instant::now());
        let mut decoder = FrameDecoder::new(sender.frame_bytes_max());
        let mut commits = self.commits.subscribe();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let next = || {
                let truth = self.truth.lock().expect("no test panics here");
                sender.poll_frame(Instant::now(), Millis(0), &truth.log, &truth.world)
            };
            let outgoing: Vec<_> = std::iter::from_fn(next).collect();
            for out in outgoing {
                if writer.write_all(&out.bytes).await.is_err()
                    || writer.flush().await.is_err()
                    || out.close
                {
                    return;
                }
            }
            tokio::select! {
                changed = commits.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(sender.poll_timeout().into()) => {
                    if sender.handle_timeout(Instant::now()).is_err() { return }
                }
                read = reader.read(&mut buffer) => {
                    let Ok(bytes @ 1..) = read else { return };
                    decoder.feed(&buffer[..bytes]);
                    while let Ok(Some((frame, _))) = decoder.next_frame() {
                        match sender.handle_frame(Instant::now(), frame) {
                            Err(_) => return,
                            Ok(None) => {}
                            Ok(Some(SenderEvent::Hello { token, .. })) => {
                                if token.as_bytes() == TOKEN.as_bytes() {
                                    sender.accept();
                                    sender.queue_keys(keys());
                                } else {
                                    sender.refuse(RefusalCode::TOKEN, "another token");
                                }
                            }
                            Ok(Some(SenderEvent::Write { id, body })) => {
                                let request = UpstreamRequest::decode(&body).expect("an edge sends requests");
                                let reply = self.truth.lock().expect("no test panics here").decide(request);
                                self.commits.send_modify(|n| *n += 1);
                                if let Some(reply) = reply {
                                    sender.queue_reply(id, reply.encode()).expect("it was asked");
                                }
                            }
                        }
                    }
                    decoder.set_limit(sender.frame_bytes_max());
                }
            }
        }
    }
}

impl Central {
    pub(crate) fn seen(&self) -> Vec<DeviceId> {
        self.truth.lock().expect("no test panics here").seen.clone()
    }
}

impl Truth {
    fn commit(&mut self, changes: Vec<Change>) -> Position {
        let batch = Batch { first: self.world.seq().next(), changes };
        self.world.apply(&batch).expect("a test commits what applies");
        let frame = encode_batch(EPOCH, &batch);
        self.log.push(Arc::new(LogBatch {
            epoch: EPOCH,
            first: batch.first,
            last: batch.last(),
            frame,
        }));
        self.world.position()
    }

    /// `None` if replies are muted.
    fn decide(&mut self, request: UpstreamRequest) -> Option<UpstreamReply> {
        let reply = match request {
            UpstreamRequest::Enrol { publishable_key, .. } if publishable_key != KEY => {
                refuse(401, "unknown-app")
            }
            UpstreamRequest::Enrol { secret, .. } => self.enrol(secret.0),
            UpstreamRequest::Session { device, secret, .. } => {
                let row = self.world.app(APP).and_then(|app| app.device(device)).cloned();
                match row {
                    None => refuse(401, "unknown"),
                    Some(_) if !self.secrets.contains(&(secret.0, device)) => {
                        refuse(401, "session")
                    }
                    Some(row) => {
                        let generation = Position { seq: row.generation, ..self.world.position() };
                        UpstreamReply::Session { generation, at: self.world.position() }
                    }
                }
            }
            UpstreamRequest::Forget { app, device, .. } => UpstreamReply::Written {
                committed: self.commit(vec![Change::DeviceGone { app, id: device }]),
            },
            UpstreamRequest::Patch { device, .. } => {
                let row = self.world.app(APP).and_then(|app| app.device(device)).cloned();
                let mut row = DeviceRow::clone(&row.expect("an edge knows its devices"));
                row.user = Some("patched".into());
                row.p = self.world.seq().next();
                UpstreamReply::Written {
                    committed: self.commit(vec![Change::Device(Arc::new(row))]),
                }
            }
            UpstreamRequest::ReceiptBatch { devices } => UpstreamReply::Receipts {
                committed: self.world.position(),
                outcomes: vec![None; devices.len()],
            },
            UpstreamRequest::Receipts { .. } | UpstreamRequest::Delivered { .. } => {
                UpstreamReply::Written { committed: self.world.position() }
            }
            UpstreamRequest::Seen { devices, .. } => {
                self.seen.extend(devices.into_iter().map(|(id, _)| id));
                UpstreamReply::Written { committed: self.world.position() }
            }
        };
        (!self.mute).then_some(reply)
    }

    fn enrol(&mut self, secret: [u8; 32]) -> UpstreamReply {
        let known =
            self.secrets.iter().find(|(hash, _)| *hash == secret).map(|(_, device)| *device);
        let created = known.is_none();
        let device = known.unwrap_or_else(|| {
            let seq = self.world.seq().next();
            let id = DeviceId::new(0xd000 + self.secrets.len() as u64);
            self.secrets.push((secret, id));
            let row = DeviceRow {
                id,
                app: APP,
                generation: seq,
                p: seq,
                created_at: Millis(0),
                user: None,
                attributes: Box::default(),
                groups: Box::default(),
                private: None,
                last_seen: Millis::ZERO,
            };
            self.commit(vec![Change::Device(Arc::new(row))]);
            id
        });
        let app = self.world.app(APP).expect("committed at the start");
        let generation = app.device(device).expect("enrolled").generation;
        let committed = self.world.position();
        UpstreamReply::Enrolled {
            app: APP,
            device,
            generation: Position { seq: generation, ..committed },
            committed,
            created,
        }
    }
}

fn refuse(status: u16, code: &str) -> UpstreamReply {
    let (code, title, detail) = (code.to_owned(), code.to_owned(), String::new());
    UpstreamReply::Refused {
        problem: Problem { status, code, title, detail, retry_after: None, extra: None },
    }
}

fn keys() -> Keys {
    let purposes = [KeyPurpose::Session, KeyPurpose::Cursor, KeyPurpose::Ticket];
    let key = |purpose: KeyPurpose, day: u32| DerivedKey {
        purpose,
        day,
        key: KeyBytes([purpose as u8 + 1; 32]),
    };
    let keys =
        (19_998..=20_002).flat_map(|day| purposes.map(|purpose| key(purpose, day))).collect();
    Keys { seal_day: 20_000, keys }
}

/// A message to everybody.
pub(crate) fn message(id: u64) -> Change {
    let (id, expires_at, body) = (MessageId::new(id), Millis(4_000_000_000_000), "{\"n\":1}");
    let tag = Tag::of(body.as_bytes(), Priority::Normal, expires_at);
    let wire = format!(
        r#"{{"id":"{id}","tag":"{tag}","priority":"normal","expires_at":"2096-10-02T07:06:40.000Z","body":{body}}}"#
    );
    Change::Message(Arc::new(MessageRow {
        id,
        app: APP,
        revision: 1,
        state: MessageState::Active,
        to: "all".into(),
        priority: Priority::Normal,
        collapse_key: None,
        created_at: Millis(0),
        not_before: None,
        expires_at,
        push: None,
        variants: vec![Variant { selector: None, tag, wire: wire.into() }],
    }))
}
