//! A central in this process and a small HTTP client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use carillon_central::config::{RootSecret, Token};
use carillon_central::{Central, Config, Identity};
use carillon_persist::history::{OutboxRow, PseudonymRow};
use carillon_persist::{
    AnyStore, CallbackLogFrom, CallbackLogRow, CommitError, Committed, EpochClaim, IdempotencyRow,
    Kept, Opening, ProviderTokenId, Store, StoreBatch, StoreError, StoreOptions, StoreUrl, Tally,
    UnsafeSetting,
};
use carillon_world::{AppId, DeviceId, Millis, Row, ShardId};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

pub(crate) const ADMIN: &str = "an-admin-token-of-the-tests";
pub(crate) const LINK: &str = "a-link-token-of-the-tests";

/// What the store does with the next batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<AtomicU8>);

impl Faults {
    pub(crate) fn none(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    /// Refuse every batch.
    pub(crate) fn down(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    /// Keep every batch until told otherwise, then commit it.
    pub(crate) fn hang(&self) {
        self.0.store(4, Ordering::SeqCst);
    }

    /// Commit the next batch but do not say so.
    pub(crate) fn lose_answer(&self) {
        self.0.store(2, Ordering::SeqCst);
    }

    /// Lose every batch, say that nothing is known, and do not answer when asked.
    pub(crate) fn away(&self) {
        self.0.store(AWAY, Ordering::SeqCst);
    }

    /// Lose the next batch, and say that nothing is known.
    pub(crate) fn lose_batch(&self) {
        self.0.store(3, Ordering::SeqCst);
    }
}

const AWAY: u8 = 5;

/// A store that fails on request.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: AnyStore,
    faults: Faults,
}

fn broken() -> StoreError {
    StoreError::Timeout { attempted: "a test", after: Duration::ZERO }
}

impl Store for FaultyStore {
    async fn begin_epoch(
        &mut self,
        shard: ShardId,
        claim: EpochClaim,
    ) -> Result<Opening, StoreError> {
        if self.faults.0.load(Ordering::SeqCst) == AWAY {
            return Err(broken());
        }
        self.inner.begin_epoch(shard, claim).await
    }
    async fn load(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Row) + Send),
    ) -> Result<(), StoreError> {
        self.inner.load(shard, sink).await
    }
    async fn load_idempotency(
        &mut self,
        shard: ShardId,
        since: Millis,
    ) -> Result<Vec<IdempotencyRow>, StoreError> {
        self.inner.load_idempotency(shard, since).await
    }
    async fn load_kept(&mut self, shard: ShardId) -> Result<Kept, StoreError> {
        self.inner.load_kept(shard).await
    }
    async fn load_tallies(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Tally) + Send),
    ) -> Result<(), StoreError> {
        self.inner.load_tallies(shard, sink).await
    }
    async fn commit(&mut self, batch: &StoreBatch) -> Result<Committed, CommitError> {
        while self.faults.0.load(Ordering::SeqCst) == 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let fault = self.faults.0.load(Ordering::SeqCst);
        if fault >= 2 && fault != AWAY {
            self.faults.none();
        }
        match fault {
            0 => self.inner.commit(batch).await,
            1 => Err(CommitError::Refused { source: broken() }),
            2 => {
                self.inner.commit(batch).await?;
                Err(CommitError::Unknown { source: broken() })
            }
            _ => Err(CommitError::Unknown { source: broken() }),
        }
    }
    async fn outbox(
        &mut self,
        shard: ShardId,
        after: u64,
        bytes_max: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.inner.outbox(shard, after, bytes_max).await
    }

    async fn outbox_after_epoch(
        &mut self,
        shard: ShardId,
        epoch: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        self.inner.outbox_after_epoch(shard, epoch).await
    }

    async fn pseudonyms(
        &mut self,
        shard: ShardId,
        devices: &[(AppId, DeviceId)],
    ) -> Result<Vec<PseudonymRow>, StoreError> {
        self.inner.pseudonyms(shard, devices).await
    }

    async fn provider_token(
        &mut self,
        id: &ProviderTokenId,
        now: Millis,
        lasts: Duration,
    ) -> Result<Millis, StoreError> {
        self.inner.provider_token(id, now, lasts).await
    }

    async fn callback_log(
        &mut self,
        shard: ShardId,
        from: CallbackLogFrom,
        bytes_max: u64,
    ) -> Result<Vec<CallbackLogRow>, StoreError> {
        self.inner.callback_log(shard, from, bytes_max).await
    }

    async fn clock(&mut self) -> Result<Millis, StoreError> {
        if matches!(self.faults.0.load(Ordering::SeqCst), 1 | AWAY) {
            Err(broken())
        } else {
            self.inner.clock().await
        }
    }
    async fn ping(&mut self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
    fn shards(&self) -> u16 {
        self.inner.shards()
    }
    fn unsafe_settings(&self) -> &[UnsafeSetting] {
        self.inner.unsafe_settings()
    }
}

pub(crate) struct Bench {
    pub(crate) central: Central,
    pub(crate) faults: Faults,
    pub(crate) certificate: String,
    folder: Arc<tempfile::TempDir>,
}

pub(crate) fn config() -> (Config, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.pem();
    let mut config = Config::default();
    config.admin.listen = "127.0.0.1:0".parse().unwrap();
    config.admin.token = Token::new(ADMIN);
    config.link.listen = "127.0.0.1:0".parse().unwrap();
    config.link.token = Token::new(LINK);
    config.link.identity = Some(Identity::Pem {
        certificate: certificate.clone(),
        key: made.signing_key.serialize_pem(),
    });
    config.root_secret = Some(RootSecret::new([5; 32]));
    config.drain_max = Duration::from_secs(5);
    (config, certificate)
}

pub(crate) async fn start() -> Bench {
    start_with(|_| ()).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Bench {
    start_in(Arc::new(tempfile::tempdir().unwrap()), change).await
}

async fn start_in(folder: Arc<tempfile::TempDir>, change: impl FnOnce(&mut Config)) -> Bench {
    let (mut config, certificate) = config();
    change(&mut config);
    let url = StoreUrl::Sqlite(folder.path().join("carillon.db"));
    let inner = AnyStore::open(&url, &StoreOptions::default()).await.unwrap();
    let faults = Faults::default();
    let central =
        Central::start(config, FaultyStore { inner, faults: faults.clone() }).await.unwrap();
    Bench { central, faults, certificate, folder }
}

/// An answer: status, headers, body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    /// The body as JSON; fails unless the status is `status`.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// Fails unless this is a whole problem with this status and code.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.json(status);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(body["code"], code, "{}", self.text);
        assert_eq!(body["type"], format!("https://carillon.dev/problems/{code}"));
        assert_eq!(body["status"], status);
        assert!(body["title"].is_string() && body["detail"].is_string());
        body
    }
}

impl Bench {
    /// Stops it and starts another on the same store.
    pub(crate) async fn restart(self) -> Bench {
        self.restart_with(|_| ()).await
    }

    /// As [`Bench::restart`], with a change of the default configuration.
    pub(crate) async fn restart_with(self, change: impl FnOnce(&mut Config)) -> Bench {
        let folder = self.folder.clone();
        self.central.stop().await.unwrap();
        start_in(folder, change).await
    }

    /// Posts a message to everyone; gives its path.
    pub(crate) async fn post_message(&self, app: &str, body: u32) -> String {
        let message = serde_json::json!({"to": "all", "body": body});
        let created = self.post(&format!("{app}/messages"), message).await.json(201);
        format!("{app}/messages/{}", created["id"].as_str().unwrap())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.stream(method, path, headers, Full::new(body.into())).await
    }

    /// As [`Bench::send`], with a body that may come in its own time.
    pub(crate) async fn stream<B>(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: B,
    ) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = tokio::net::TcpStream::connect(self.central.addresses().admin).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request =
            http::Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Box::pin(body)).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(headers["cache-control"], "no-store");
        Reply { status: status.as_u16(), headers, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn with_token(&self, method: Method, path: &str, body: String) -> Reply {
        let token = format!("Bearer {ADMIN}");
        self.send(method, path, &[("authorization", &token)], body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.with_token(Method::GET, path, String::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.with_token(Method::DELETE, path, String::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.with_token(Method::POST, path, body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: &str) -> Reply {
        self.with_token(Method::POST, path, body.to_owned()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.with_token(Method::PUT, path, body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.with_token(Method::PATCH, path, body.to_string()).await
    }

    pub(crate) async fn patch_if(&self, path: &str, revision: &str, body: Value) -> Reply {
        let token = format!("Bearer {ADMIN}");
        let headers = [("authorization", token.as_str()), ("if-match", revision)];
        self.send(Method::PATCH, path, &headers, body.to_string()).await
    }

    /// An app with two attributes and a group; gives its path.
    pub(crate) async fn app(&self) -> String {
        let app = self
            .post("/v1/apps", serde_json::json!({"name": "Shop", "environment": "sandbox"}))
            .await
            .json(201);
        let path = format!("/v1/apps/{}", app["id"].as_str().unwrap());
        let declare =
            |kind: &str, set_by: &str| serde_json::json!({"type": kind, "set_by": set_by});
        self.put(&format!("{path}/attributes/country"), declare("string", "both")).await.json(200);
        self.put(&format!("{path}/attributes/app_version"), declare("version", "server"))
            .await
            .json(200);
        self.post(&format!("{path}/groups"), serde_json::json!({"name": "vip", "set_by": "both"}))
            .await
            .json(201);
        path
    }
}

pub(crate) fn ok(status: u16) -> bool {
    StatusCode::from_u16(status).is_ok_and(|status| status.is_success())
}

impl Bench {
    /// Another central on the same store, which deposes this one.
    pub(crate) async fn second_owner(&self) -> Central {
        let (config, _) = config();
        let url = StoreUrl::Sqlite(self.folder.path().join("carillon.db"));
        let store = AnyStore::open(&url, &StoreOptions::default()).await.unwrap();
        Central::start(config, store).await.unwrap()
    }
}
