//! Bad requests to the device API, each with the status and the code of its refusal.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::shop::{Hand, new_secret};

const RECEIPT_AT: &str = "2026-11-21T00:00:00.250Z";

/// A bad request and its refusal.
pub(crate) struct Bad {
    pub(crate) what: String,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
}

/// Collects bad requests.
pub(crate) struct Cases {
    pub(crate) all: Vec<Bad>,
    pub(crate) session: String,
    pub(crate) key: String,
}

impl Cases {
    /// With the device's session.
    fn own(
        &mut self,
        method: &'static str,
        path: &str,
        body: impl Into<Bytes>,
        status: u16,
        code: &'static str,
    ) {
        let headers = vec![("authorization", format!("Bearer {}", self.session))];
        self.with(headers, method, path, body, status, code);
    }

    fn with(
        &mut self,
        headers: Vec<(&'static str, String)>,
        method: &'static str,
        path: &str,
        body: impl Into<Bytes>,
        status: u16,
        code: &'static str,
    ) {
        let body: Bytes = body.into();
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let what = format!("{method} {path} {shown}");
        self.all.push(Bad { what, method, path: path.to_owned(), headers, body, status, code });
    }

    /// An enrolment with these members beside or instead of good ones; null takes one away.
    fn enrol(&mut self, members: Value, status: u16, code: &'static str) {
        let mut body = json!({"key": self.key, "secret": new_secret()});
        for (name, value) in members.as_object().expect("an object") {
            match value {
                Value::Null => drop(body.as_object_mut().expect("an object").remove(name)),
                value => body[name] = value.clone(),
            }
        }
        self.with(Vec::new(), "POST", "/v1/devices", body.to_string(), status, code);
    }

    fn login(&mut self, body: Value, status: u16, code: &'static str) {
        self.with(Vec::new(), "POST", "/v1/devices/session", body.to_string(), status, code);
    }

    fn patch(&mut self, body: Value, status: u16, code: &'static str) {
        self.own("PATCH", "/v1/devices/self", body.to_string(), status, code);
    }

    fn fetch(&mut self, body: Value, status: u16, code: &'static str) {
        self.own("POST", "/v1/messages:fetch", body.to_string(), status, code);
    }

    fn receipt(&mut self, receipt: Value) {
        let body = json!({"receipts": [receipt]});
        self.own("POST", "/v1/receipts", body.to_string(), 400, "bad-request");
    }
}

/// What an enrolment and a patch refuse alike.
fn profiles(cases: &mut Cases, put: impl Fn(&mut Cases, Value, u16, &'static str)) {
    let many =
        |n: usize| (0..n).map(|k| (format!("a{k}"), json!(1))).collect::<serde_json::Map<_, _>>();
    let token = |text: &str| json!({"channel": "fcm", "token": text});
    for attributes in [json!([1]), json!("x"), json!(7), Value::Object(many(257))] {
        put(cases, json!({"attributes": attributes}), 400, "bad-request");
    }
    for (name, value) in [
        ("bucket", json!(1)),
        ("bucket", json!(true)),
        ("rank", json!("7")),
        ("beta", json!("true")),
        ("beta", json!(0)),
        ("build", json!(2.3)),
        ("build", json!("not a version")),
        ("bucket", json!(["b1"])),
        ("bucket", json!({"b": 1})),
    ] {
        put(cases, json!({"attributes": {name: value}}), 422, "wrong-type");
    }
    put(cases, json!({"attributes": {"bucket": "x".repeat(1025)}}), 422, "invalid");
    put(cases, json!({"attributes": {"colour": "red"}}), 422, "unknown-attribute");
    put(cases, json!({"attributes": {"": "red"}}), 422, "unknown-attribute");
    put(cases, json!({"attributes": {"tier": "gold"}}), 403, "not-allowed");
    // One bad member refuses the whole: the good one beside it is not applied.
    put(cases, json!({"attributes": {"bucket": "b9", "tier": "gold"}}), 403, "not-allowed");
    put(cases, json!({"attributes": {"bucket": "b9", "colour": "red"}}), 422, "unknown-attribute");
    for tokens in [
        json!("t"),
        json!({"channel": "fcm"}),
        json!([1]),
        json!([{"channel": "fcm"}]),
        json!([{"token": "t"}]),
        json!([{"channel": "pigeon", "token": "t"}]),
        json!([token("")]),
        json!([token(&"t".repeat(4097))]),
        json!(vec![token("t"); 17]),
    ] {
        put(cases, json!({"attributes": {"bucket": "b9"}, "tokens": tokens}), 400, "bad-request");
    }
    put(cases, json!({"tokens": vec![token("t"); 11]}), 422, "invalid");
}

pub(crate) fn bodies_that_are_none(cases: &mut Cases) {
    let pad = format!(r#"{{"attributes":{{"bucket":"{}"}}}}"#, "x".repeat(64 * 1024));
    let gzip: &[u8] =
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0, 0x43, 0xbf, 0xa6, 0xa3, 2, 0, 0, 0];
    for (method, path) in [
        ("POST", "/v1/devices"),
        ("POST", "/v1/devices/session"),
        ("PATCH", "/v1/devices/self"),
        ("POST", "/v1/messages:fetch"),
        ("POST", "/v1/receipts"),
    ] {
        for body in
            ["", "{", "null", "7", "\"x\"", "{} {}", "{'key':1}", "\u{feff}{}", "{\"ids\":}"]
        {
            cases.own(method, path, body, 400, "bad-request");
        }
        cases.own(method, path, &b"\xff\xfe{}"[..], 400, "bad-request");
        cases.own(method, path, "[".repeat(60_000), 400, "bad-request");
        cases.own(method, path, pad.clone(), 413, "too-large");
        // Bodies are taken as they are: what is compressed is no JSON, whatever its header says.
        let headers = vec![
            ("authorization", format!("Bearer {}", cases.session)),
            ("content-encoding", "gzip".to_owned()),
        ];
        cases.with(headers, method, path, gzip, 400, "bad-request");
    }
    for path in ["/v1/devices", "/v1/devices/session", "/v1/messages:fetch", "/v1/receipts"] {
        // An array is read as the members in their order, so these are too few.
        cases.own("POST", path, "[]", 400, "bad-request");
    }
    for twice in
        [r#"{"attributes":{"bucket":"b9","bucket":"b8"}}"#, r#"{"groups":{"g1":true,"g1":false}}"#]
    {
        cases.own("PATCH", "/v1/devices/self", twice, 400, "bad-request");
    }
}

pub(crate) fn enrolments(cases: &mut Cases) {
    for name in ["key", "secret"] {
        cases.enrol(json!({name: null}), 400, "bad-request");
        cases.enrol(json!({name: 7}), 400, "bad-request");
        cases.enrol(json!({name: ["x"]}), 400, "bad-request");
    }
    let good = new_secret();
    for secret in
        ["", &good[1..], &format!("{good}="), &format!("{good}A"), &"+".repeat(43), &"é".repeat(43)]
    {
        cases.enrol(json!({"secret": secret}), 400, "bad-request");
    }
    cases.enrol(json!({"key": "k".repeat(129)}), 400, "bad-request");
    for key in ["", "pk_sandbox_nobody", &"k".repeat(128)] {
        cases.enrol(json!({"key": key}), 401, "unknown-app");
    }
    for groups in [json!("g1"), json!({"g1": true}), json!([1]), json!(vec!["g1"; 257])] {
        cases.enrol(json!({"groups": groups}), 400, "bad-request");
    }
    cases.enrol(json!({"groups": ["nobody"]}), 422, "unknown-group");
    cases.enrol(json!({"groups": ["g1", "staff"]}), 403, "not-allowed");
    profiles(cases, Cases::enrol);
}

pub(crate) fn logins(cases: &mut Cases, device: &Hand, stranger_app: &str) {
    let (app, id, secret) = (&device.app, &device.id, &device.secret);
    let good = json!({"app": app, "id": id, "secret": secret});
    for name in ["app", "id", "secret"] {
        let mut missing = good.clone();
        missing.as_object_mut().expect("an object").remove(name);
        cases.login(missing, 400, "bad-request");
        let long = format!("{id}0");
        for wrong in
            [json!(7), json!(null), json!(""), json!("00"), json!(long), json!("zzzzzzzzzzzzzzzz")]
        {
            let mut body = good.clone();
            body[name] = wrong;
            cases.login(body, 400, "bad-request");
        }
    }
    let nobody = "0123456789abcdef";
    cases.login(json!({"app": app, "id": nobody, "secret": secret}), 401, "unknown");
    cases.login(json!({"app": nobody, "id": id, "secret": secret}), 401, "unknown");
    cases.login(json!({"app": stranger_app, "id": id, "secret": secret}), 401, "unknown");
    cases.login(json!({"app": app, "id": id, "secret": new_secret()}), 401, "session");
}

pub(crate) fn patches(cases: &mut Cases) {
    for groups in
        [json!(["g1"]), json!("g1"), json!({"g1": 1}), json!({"g1": null}), json!({"g1": "true"})]
    {
        cases.patch(json!({"groups": groups}), 400, "bad-request");
    }
    let many = (0..257).map(|k| (format!("g{k}"), json!(true))).collect::<serde_json::Map<_, _>>();
    cases.patch(json!({"groups": many}), 400, "bad-request");
    cases.patch(json!({"groups": {"g1": true, "nobody": true}}), 422, "unknown-group");
    cases.patch(
        json!({"attributes": {"bucket": "b9"}, "groups": {"staff": true}}),
        403,
        "not-allowed",
    );
    profiles(cases, Cases::patch);
}

pub(crate) fn polls_and_fetches(cases: &mut Cases, cursor: &str, message: &str) {
    for wait in ["", "61", "-1", "1.5", "x", "+1", "030", "99999999999999999999", "1%30", "0x1"] {
        cases.own("GET", &format!("/v1/messages?wait={wait}"), "", 400, "bad-request");
    }
    cases.own("GET", "/v1/messages?wait=1&wait=61", "", 400, "bad-request");
    cases.with(Vec::new(), "GET", "/v1/messages", "", 401, "session");
    let bearer = ("authorization", format!("Bearer {}", cases.session));
    let own = |more: Vec<(&'static str, String)>| [vec![bearer.clone()], more].concat();
    let twice =
        own(vec![("carillon-cursor", cursor.to_owned()), ("carillon-cursor", cursor.to_owned())]);
    cases.with(twice, "GET", "/v1/messages", "", 400, "bad-cursor");
    cases.with(
        own(vec![("carillon-cursor", "x".repeat(1025))]),
        "GET",
        "/v1/messages",
        "",
        400,
        "bad-cursor",
    );
    cases.with(
        own(vec![("carillon-app", "shop".to_owned())]),
        "GET",
        "/v1/messages",
        "",
        400,
        "bad-request",
    );

    for ids in [
        json!([]),
        json!(message),
        json!({}),
        json!([7]),
        json!([null]),
        json!([""]),
        json!([[message]]),
    ] {
        cases.fetch(json!({"ids": ids}), 400, "bad-request");
    }
    for id in [&message[1..], &format!("{message}0"), "zzzzzzzzzzzzzzzz", &message.to_uppercase()] {
        // An id of digits alone is the same in capitals.
        if id != message {
            cases.fetch(json!({"ids": [id]}), 400, "bad-request");
        }
    }
    cases.fetch(json!({"ids": vec![message; 201]}), 400, "bad-request");
    // Without a cursor there is no inventory that it could be about.
    cases.fetch(json!({"ids": [message]}), 400, "bad-request");
    let body = json!({"ids": [message]}).to_string();
    cases.with(Vec::new(), "POST", "/v1/messages:fetch", body, 401, "session");
}

pub(crate) fn receipts(cases: &mut Cases, message: &str) {
    let good =
        json!({"id": "00000000000000aa", "message": message, "kind": "opened", "at": RECEIPT_AT});
    for name in ["id", "message", "kind", "at"] {
        let mut missing = good.clone();
        missing.as_object_mut().expect("an object").remove(name);
        cases.receipt(missing);
        for wrong in [json!(7), json!(null), json!(""), json!("eaten"), json!([message])] {
            let mut receipt = good.clone();
            receipt[name] = wrong;
            cases.receipt(receipt);
        }
    }
    let with = |members: Value| {
        let mut receipt = good.clone();
        receipt
            .as_object_mut()
            .expect("an object")
            .extend(members.as_object().expect("an object").clone());
        receipt
    };
    cases.receipt(with(json!({"kind": "action"})));
    cases.receipt(with(json!({"kind": "action", "action": ""})));
    cases.receipt(with(json!({"kind": "action", "action": "a".repeat(65)})));
    cases.receipt(with(json!({"kind": "action", "action": 7})));
    cases.receipt(with(json!({"action": "buy"})));
    cases.receipt(with(json!({"at": "1969-12-31T23:59:59Z"})));
    cases.receipt(with(json!({"at": "2026-13-41T00:00:00Z"})));
    for list in [json!([]), json!({}), json!("x"), json!([7]), json!(vec![good.clone(); 201])] {
        let body = json!({"receipts": list}).to_string();
        cases.own("POST", "/v1/receipts", body, 400, "bad-request");
    }
    // One bad receipt among good ones refuses them all.
    let mixed = json!({"receipts": [good, with(json!({"kind": "eaten"}))]}).to_string();
    cases.own("POST", "/v1/receipts", mixed, 400, "bad-request");
    let body = json!({"receipts": [good]}).to_string();
    cases.with(Vec::new(), "POST", "/v1/receipts", body, 401, "session");
}

pub(crate) fn paths_and_methods(cases: &mut Cases) {
    for (path, methods) in [
        ("/v1/devices", &["GET", "PUT", "PATCH", "DELETE"][..]),
        ("/v1/devices/session", &["GET", "PUT", "PATCH", "DELETE"]),
        ("/v1/devices/self", &["GET", "PUT", "POST"]),
        ("/v1/messages", &["POST", "PUT", "PATCH", "DELETE"]),
        ("/v1/messages:fetch", &["GET", "PUT", "PATCH", "DELETE"]),
        ("/v1/receipts", &["GET", "PUT", "PATCH", "DELETE"]),
    ] {
        for method in methods {
            cases.own(method, path, "", 405, "method-not-allowed");
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/messages",
        "/v1/messages/",
        "//v1/messages",
        "/v1/messages%3Afetch",
        "/v1/Messages",
        "/v1/devices/self/",
        "/v1/devices/0123456789abcdef",
        "/v1/apps",
        "/v1/messages/../devices/self",
        "/metrics",
        "/readyz",
        "/openapi.json",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            cases.own(method, path, "", 404, "not-found");
        }
    }
}
