//! Firebase Cloud Messaging, by the REST reference of HTTP v1 (`projects.messages`, `ErrorCode`) and Google's
//! "Using OAuth 2.0 for Server to Server Applications" (RFC 7523).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::fcm_message::{self, Message};
use super::jwt::Jwt;
use super::provider::{Answer, Connection, Extra, Judged, Payload, Provider, Push, Refusal};
use super::provider::{json as answer, random};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
];
const ASSERTION_LIFE_MAX_S: u64 = 60 * 60;
const ACCESS_LIFE_S: u64 = 60 * 60;
const CLOCK_LEEWAY_S: u64 = 2;
/// A message of 4096 bytes with the overrides of three platforms.
const BODY_MAX: usize = 64 * 1024;
/// Access tokens that are remembered; a sender in order has one an hour.
const ACCESS_MAX: usize = 10_000;

/// The rules of FCM, and the service accounts that were made for senders.
#[derive(Debug)]
pub struct Fcm {
    token_uri: String,
    inner: Mutex<Inner>,
    ids: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    /// By the account's address.
    accounts: HashMap<String, Account>,
    /// By the `authorization` header.
    access: HashMap<Box<[u8]>, Access>,
    access_life_s: u64,
    /// What the token endpoint answers to everybody; 0 is what they deserve.
    token_status: u16,
    grants: u64,
}

#[derive(Debug)]
struct Account {
    project: String,
    key_id: String,
    public: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Access {
    project: String,
    expires_ms: u64,
}

const fn invalid(breach: &'static str) -> Refusal {
    Refusal::new(400, "INVALID_ARGUMENT", breach)
}

impl Fcm {
    /// `url` is the simulator's own.
    pub fn new(url: &str) -> Fcm {
        let inner = Inner {
            accounts: HashMap::new(),
            access: HashMap::new(),
            access_life_s: ACCESS_LIFE_S,
            token_status: 0,
            grants: 0,
        };
        let token_uri = format!("{url}/token");
        Fcm { token_uri, inner: Mutex::new(inner), ids: AtomicU64::new(0) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an account; the answer is the file that Google lets its owner download.
    fn make_account(&self, input: &Value) -> Result<Value, String> {
        let project = input["project"].as_str().ok_or("project is a text")?;
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).map_err(|error| error.to_string())?;
        let key_id = random()?;
        let address = format!("carillon-{key_id}@{project}.iam.gserviceaccount.com");
        let account = Account {
            project: project.to_owned(),
            key_id: key_id.clone(),
            public: pair.public_key_raw().to_vec(),
        };
        self.inner().accounts.insert(address.clone(), account);
        Ok(json!({
            "type": "service_account",
            "project_id": project,
            "private_key_id": key_id,
            "private_key": pair.serialize_pem(),
            "client_email": address,
            "client_id": "100000000000000000001",
            "token_uri": self.token_uri,
        }))
    }

    /// The token endpoint.
    fn grant(&self, now_ms: u64, head: &Parts, body: &Payload) -> Result<Value, Refusal> {
        const GRANT: fn(&'static str) -> Refusal =
            |breach| Refusal::new(400, "invalid_grant", breach);
        let mut inner = self.inner();
        if inner.token_status != 0 {
            return Err(Refusal { status: inner.token_status, reason: "told", breach: None });
        }
        if head.method != Method::POST {
            return Err(Refusal::new(405, "invalid_request", "token_method"));
        }
        let is_form = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        if !is_form {
            return Err(Refusal::new(400, "invalid_request", "token_content_type"));
        }
        let Payload::Whole(body) = body else {
            return Err(Refusal::new(400, "invalid_request", "token_size"));
        };
        let body = std::str::from_utf8(body).unwrap_or_default();
        let field = |name: &str| {
            let mut fields = body.split('&').filter_map(|field| field.split_once('='));
            fields.find(|(known, _)| *known == name).map(|(_, value)| unescape(value))
        };
        if field("grant_type").as_deref() != Some(GRANT_TYPE) {
            return Err(Refusal::new(400, "unsupported_grant_type", "token_grant_type"));
        }
        let assertion = field("assertion").ok_or(GRANT("assertion_missing"))?;
        let jwt = Jwt::parse(&assertion).ok_or(GRANT("assertion_malformed"))?;
        let account = jwt.claim("iss").and_then(|address| inner.accounts.get(address));
        let account = account.ok_or(GRANT("assertion_issuer"))?;
        if jwt.header["alg"] != "RS256" {
            return Err(GRANT("assertion_algorithm"));
        }
        if jwt.header.get("kid").is_some_and(|kid| *kid != account.key_id.as_str()) {
            return Err(GRANT("assertion_key"));
        }
        if !jwt.is_signed("RS256", &RSA_PKCS1_2048_8192_SHA256, &account.public) {
            return Err(GRANT("assertion_signature"));
        }
        if jwt.claim("aud") != Some(&self.token_uri) {
            return Err(GRANT("assertion_audience"));
        }
        let scopes = jwt.claim("scope").unwrap_or_default();
        if !scopes.split(' ').any(|scope| SCOPES.contains(&scope)) {
            return Err(Refusal::new(400, "invalid_scope", "assertion_scope"));
        }
        let (Some(issued_s), Some(expires_s)) = (jwt.time("iat"), jwt.time("exp")) else {
            return Err(GRANT("assertion_times"));
        };
        let now_s = now_ms / 1000;
        if issued_s > now_s + CLOCK_LEEWAY_S || expires_s <= now_s {
            return Err(GRANT("assertion_not_of_this_time"));
        }
        if expires_s.saturating_sub(issued_s) > ASSERTION_LIFE_MAX_S {
            return Err(GRANT("assertion_lives_too_long"));
        }
        let token = random().map_err(|_| Refusal {
            status: 500,
            reason: "internal_failure",
            breach: None,
        })?;
        let token = format!("ya29.{token}");
        let access = Access {
            project: account.project.clone(),
            expires_ms: now_ms + inner.access_life_s * 1000,
        };
        if inner.access.len() >= ACCESS_MAX {
            inner.access.clear();
        }
        inner.access.insert(format!("Bearer {token}").into_bytes().into(), access);
        inner.grants += 1;
        Ok(json!({
            "access_token": token, "expires_in": inner.access_life_s, "token_type": "Bearer"
        }))
    }

    fn check_access(&self, now_ms: u64, head: &Parts, project: &str) -> Result<(), Refusal> {
        const UNAUTHENTICATED: fn(&'static str) -> Refusal =
            |breach| Refusal::new(401, "UNAUTHENTICATED", breach);
        let header = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let header = header.ok_or(UNAUTHENTICATED("access_token_missing"))?;
        let inner = self.inner();
        let access = inner.access.get(header).ok_or(UNAUTHENTICATED("access_token_unknown"))?;
        if access.expires_ms <= now_ms {
            return Err(UNAUTHENTICATED("access_token_expired"));
        }
        if access.project != project {
            return Err(Refusal::new(403, "PERMISSION_DENIED", "project_of_another"));
        }
        Ok(())
    }
}

/// Of `application/x-www-form-urlencoded`; what is no escape stands for itself.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let escaped = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (*byte, escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(escaped)) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// The project of a path.
fn project(head: &Parts) -> Option<&str> {
    let project = head.uri.path().strip_prefix("/v1/projects/")?.strip_suffix("/messages:send")?;
    (!project.is_empty() && !project.contains('/')).then_some(project)
}

fn is_token_endpoint(head: &Parts) -> bool {
    head.uri.path() == "/token"
}

impl Provider for Fcm {
    const PROTOCOLS: &'static [&'static [u8]] = &[b"h2", b"http/1.1"];
    const BODY_MAX: usize = BODY_MAX;

    fn judge<'a>(
        &self,
        now_ms: u64,
        _: &Connection,
        head: &'a Parts,
        body: &'a Payload,
    ) -> Result<Judged<'a>, Refusal> {
        if is_token_endpoint(head) {
            return Ok(Judged::Done(answer(200, &self.grant(now_ms, head, body)?)));
        }
        let project = project(head).ok_or(Refusal::new(404, "NOT_FOUND", "path"))?;
        if head.method != Method::POST {
            return Err(Refusal::new(404, "NOT_FOUND", "method"));
        }
        self.check_access(now_ms, head, project)?;
        let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if !kind.starts_with(b"application/json") {
            return Err(invalid("content_type"));
        }
        let Payload::Whole(body) = body else { return Err(invalid("message_size")) };
        let Message { token, kind, collapse } = fcm_message::check(body).map_err(invalid)?;
        let collapse = collapse.map(Cow::Owned);
        Ok(Judged::Push(Push { token: Cow::Owned(token), kind, collapse, breach: None }))
    }

    fn accept(&self, head: &Parts) -> Response<Answer> {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        let project = project(head).unwrap_or_default();
        answer(200, &json!({ "name": format!("projects/{project}/messages/0:{n:020}") }))
    }

    fn refuse(&self, head: &Parts, status: u16, reason: &str, extra: &Extra) -> Response<Answer> {
        if is_token_endpoint(head) {
            return answer(status, &json!({ "error": reason, "error_description": "refused" }));
        }
        // The code of the API as a whole, beside FCM's own.
        let (canonical, has_own) = match reason {
            "UNREGISTERED" => ("NOT_FOUND", true),
            "SENDER_ID_MISMATCH" => ("PERMISSION_DENIED", true),
            "QUOTA_EXCEEDED" => ("RESOURCE_EXHAUSTED", true),
            "THIRD_PARTY_AUTH_ERROR" => ("UNAUTHENTICATED", true),
            "INVALID_ARGUMENT" | "UNAVAILABLE" | "INTERNAL" => (reason, true),
            _ => (reason, false),
        };
        let mut error = json!({ "code": status, "message": "refused", "status": canonical });
        if has_own {
            let own = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
            error["details"] = json!([{ "@type": own, "errorCode": reason }]);
        }
        let mut response = answer(status, &json!({ "error": error }));
        if let Some(retry_after) = &extra.retry_after {
            response.headers_mut().insert(RETRY_AFTER, retry_after.clone());
        }
        response
    }

    fn control(&self, call: &str, input: &Value) -> Option<Result<Value, String>> {
        let number = |key: &str| input[key].as_u64().ok_or_else(|| format!("{key} is a number"));
        Some(match call {
            "accounts" => self.make_account(input),
            "grants" => Ok(json!({ "grants": self.inner().grants })),
            "expire" => {
                self.inner().access.values_mut().for_each(|access| access.expires_ms = 0);
                Ok(json!({}))
            }
            "access_life" => number("seconds").map(|seconds| {
                self.inner().access_life_s = seconds;
                json!({})
            }),
            "token_endpoint" => number("status").and_then(|status| {
                self.inner().token_status = u16::try_from(status).map_err(|e| e.to_string())?;
                Ok(json!({}))
            }),
            _ => return None,
        })
    }
}
