//! A fleet as NDJSON, in and out.

use carillon_tests::admin::text;
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call, seq};
use crate::wire::Wire;

const IMPORT: &str = "POST /v1/apps/{app}/devices:import";
const EXPORT: &str = "GET /v1/apps/{app}/devices:export";
const LINE_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn check(bench: &mut Bench) {
    each_kind_of_line(bench).await;
    forms_of_a_file(bench).await;
    many_bad_lines(bench).await;
    a_stream_and_a_cut(bench).await;
    out_and_in_again(bench).await;
}

pub(crate) fn id(n: u64) -> String {
    format!("{n:016x}")
}

/// An app with something of each kind to set.
async fn app(bench: &mut Bench) -> App {
    let app = bench.app().await;
    for (name, kind) in [("s", "string"), ("n", "number"), ("b", "bool"), ("v", "version")] {
        bench.attribute(&app, name, kind, "server").await;
    }
    bench.attribute(&app, "own", "string", "device").await;
    bench.group(&app, "vip", "server").await;
    bench.group(&app, "self", "device").await;
    app
}

fn import(app: &App, body: impl Into<bytes::Bytes>) -> Call {
    Call::to(IMPORT, &[&app.id]).text(body)
}

/// (lines, created, changed, unchanged, bad)
fn counts(report: &Value) -> [u64; 5] {
    ["lines", "created", "changed", "unchanged", "bad"]
        .map(|name| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}")))
}

async fn each_kind_of_line(bench: &mut Bench) {
    let app = app(bench).await;
    let secret = "ab".repeat(32);
    let long = "x".repeat(1_024);
    let too_long = "x".repeat(1_025);
    let token = |n: usize| vec![json!({"channel": "fcm", "token": "t"}); n];
    let good = [
        json!({"id": id(1), "secret_sha256": secret, "user": "ann", "groups": ["vip"],
               "attributes": {"s": "é\u{0}\"\\", "n": -1.5e300, "b": false, "v": "2.10.3"},
               "tokens": [{"channel": "apns", "token": "a"}, {"channel": "web_push", "token": "w"}]}),
        json!({"id": id(u64::MAX), "attributes": {"s": "", "n": 0, "v": "v1"}, "tokens": token(10)}),
        json!({"id": id(0), "user": null, "attributes": {"s": long}, "groups": ["vip", "vip"]}),
        json!({}),
    ];
    let bad: Vec<(Vec<u8>, &str)> = [
        ("{", "bad-line"),
        ("[]", "bad-line"),
        ("null", "bad-line"),
        ("{} {}", "bad-line"),
        ("{\"id\":\"1\"}", "bad-line"),
        ("{\"id\":1}", "bad-line"),
        ("{\"surprise\":1}", "bad-line"),
        ("{\"user\":\"a\",\"user\":\"a\"}", "bad-line"),
        ("{\"user\":\"\"}", "invalid"),
        ("{\"secret_sha256\":\"ab\"}", "bad-line"),
        ("{\"attributes\":{\"s\":\"a\",\"s\":\"a\"}}", "bad-line"),
        ("{\"attributes\":{\"s\":null}}", "bad-line"),
        ("{\"attributes\":{\"s\":[\"a\"]}}", "bad-line"),
        ("{\"attributes\":{\"n\":1e999}}", "bad-line"),
        ("{\"attributes\":{\"nothing\":1}}", "unknown-attribute"),
        ("{\"attributes\":{\"s\":1}}", "wrong-type"),
        ("{\"attributes\":{\"n\":\"1\"}}", "wrong-type"),
        ("{\"attributes\":{\"b\":0}}", "wrong-type"),
        ("{\"attributes\":{\"v\":\"two\"}}", "wrong-type"),
        ("{\"attributes\":{\"own\":\"a\"}}", "not-allowed"),
        ("{\"groups\":[\"nothing\"]}", "unknown-group"),
        ("{\"groups\":[\"self\"]}", "not-allowed"),
        ("{\"groups\":\"vip\"}", "bad-line"),
        ("{\"tokens\":[{\"channel\":\"pigeon\",\"token\":\"t\"}]}", "bad-line"),
        ("{\"tokens\":[{\"channel\":\"fcm\",\"token\":\"\"}]}", "invalid"),
        ("\u{feff}{}", "bad-line"),
    ]
    .into_iter()
    .map(|(line, code)| (line.as_bytes().to_vec(), code))
    .chain([
        (b"{\"user\":\"\xff\"}".to_vec(), "bad-line"),
        (vec![0xff, 0xfe], "bad-line"),
        (json!({"user": "u".repeat(257)}).to_string().into(), "invalid"),
        (json!({"attributes": {"s": too_long}}).to_string().into(), "invalid"),
        (json!({"tokens": token(11)}).to_string().into(), "invalid"),
        // Another device has it.
        (json!({"id": id(2), "secret_sha256": secret}).to_string().into(), "secret-taken"),
        (json!({"user": "u".repeat(LINE_BYTES_MAX)}).to_string().into(), "too-large"),
    ])
    .collect();
    // The good ones between the bad ones.
    let mut file = Vec::new();
    let mut expected = Vec::new();
    let mut good_lines = good.iter();
    for (index, (line, code)) in bad.iter().enumerate() {
        if index % 8 == 0 {
            file.extend(
                good_lines.next().map(|line| format!("{line}\n")).unwrap_or_default().bytes(),
            );
        }
        file.extend_from_slice(line);
        file.push(b'\n');
        expected.push((file.iter().filter(|b| **b == b'\n').count() as u64, *code));
    }
    assert!(good_lines.next().is_none(), "all good lines are in the file");
    let answer = bench.written(import(&app, file)).await;
    let report = answer.json();
    let found: Vec<(u64, &str)> = report["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| {
            assert!(!text(error, "detail").is_empty());
            (error["line"].as_u64().expect("a number"), text(error, "code"))
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(counts(&report), [(good.len() + bad.len()) as u64, 4, 0, 0, bad.len() as u64]);
    assert_eq!(text(&report, "position"), answer.header("carillon-position"));
    let device = Call::to("GET /v1/apps/{app}/devices/{device}", &[&app.id, &id(1)]);
    let device = bench.read(device).await.json();
    assert_eq!(device["attributes"], good[0]["attributes"], "{device}");
    assert_eq!((&device["groups"], &device["tokens"]), (&json!(["vip"]), &json!(2)));
    // A line is the whole profile: what it does not say is gone. The secret and the tokens stay.
    let line = json!({"id": id(1), "attributes": {"s": "b"}});
    let report = bench.import(&app, &[line]).await;
    assert_eq!(counts(&report), [1, 0, 1, 0, 0]);
    let export = bench.read(Call::to(EXPORT, &[&app.id])).await;
    let lines: Vec<Value> = ndjson(&export.body);
    let line = lines.iter().find(|line| line["id"] == id(1)).expect("exported");
    let expected = json!({"id": id(1), "secret_sha256": secret, "attributes": {"s": "b"}, "groups": [],
                          "tokens": good[0]["tokens"]});
    assert_eq!(*line, expected);
}

fn ndjson(body: &[u8]) -> Vec<Value> {
    let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

async fn forms_of_a_file(bench: &mut Bench) {
    let app = app(bench).await;
    let line = |n: u64, user: &str| json!({"id": id(n), "user": user}).to_string();
    // CRLF, blank lines, spaces, and no end of the last line.
    let file =
        format!("\r\n{}\r\n\n  \n\t{} \r\n\n{{\r\n{}", line(1, "a"), line(2, "b"), line(3, "c"));
    let report = bench.written(import(&app, file.clone())).await.json();
    assert_eq!(counts(&report), [4, 3, 0, 0, 1]);
    assert_eq!(report["errors"][0]["line"], 7, "as an editor counts them: {report}");
    let report = bench.unchanged(import(&app, file)).await.json();
    assert_eq!(counts(&report), [4, 0, 0, 3, 1], "identical lines change nothing");
    for nothing in ["", "\n", "\r\n \n\n"] {
        let report = bench.unchanged(import(&app, nothing)).await.json();
        assert_eq!((counts(&report), &report["position"]), ([0; 5], &Value::Null));
    }
    // The same device twice: the later line counts.
    let file = format!("{}\n{}\n{}\n", line(4, "x"), line(4, "y"), line(4, "y"));
    let report = bench.written(import(&app, file)).await.json();
    assert_eq!(counts(&report), [3, 1, 1, 1, 0]);
    // As long as a line may be, and one byte longer.
    let fill = LINE_BYTES_MAX - json!({"attributes": {}, "user": "z"}).to_string().len();
    let longest = format!("{{\"attributes\":{{{}}},\"user\":\"z\"}}", " ".repeat(fill));
    assert_eq!(longest.len(), LINE_BYTES_MAX);
    let file = format!("{longest}\n{longest} \n{longest}\n{longest}x");
    let report = bench.written(import(&app, file)).await.json();
    assert_eq!(counts(&report), [4, 2, 0, 0, 2]);
    assert_eq!(
        (&report["errors"][0]["line"], &report["errors"][1]["line"]),
        (&json!(2), &json!(4))
    );
}

/// Lines that the parser refuses at once and lines that the writer refuses later: the first 1,000 of all are listed.
async fn many_bad_lines(bench: &mut Bench) {
    let app = app(bench).await;
    let mut file = String::new();
    for n in 0..6_000_u64 {
        match n {
            // One chunk that the writer will find bad, behind it a flood that the parser finds bad.
            0..500 => file += &format!("{}\n", json!({"id": id(n), "attributes": {"nothing": n}})),
            2_000 | 5_999 => file += &format!("{}\n", json!({"id": id(n)})),
            _ => file += "{\n",
        }
    }
    let report = bench.written(import(&app, file)).await.json();
    assert_eq!(counts(&report), [6_000, 2, 0, 0, 5_998]);
    let lines: Vec<u64> = report["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| error["line"].as_u64().expect("a number"))
        .collect();
    assert_eq!(lines, (1..=1_000).collect::<Vec<u64>>());
    let codes = |code: &str| {
        report["errors"]
            .as_array()
            .map_or(0, |all| all.iter().filter(|e| e["code"] == code).count())
    };
    assert_eq!((codes("unknown-attribute"), codes("bad-line")), (500, 500));
}

/// 20,000 lines without a length, in pieces that end anywhere; cut off, what came is kept, and a repeat completes it.
async fn a_stream_and_a_cut(bench: &mut Bench) {
    const LINES: u64 = 20_000;
    let app = app(bench).await;
    bench.watch_nothing();
    let line = |n: u64| {
        format!("{}\n", json!({"id": id(n + 1), "attributes": {"n": n}, "groups": ["vip"]}))
    };
    let file: Vec<u8> = (0..LINES).flat_map(|n| line(n).into_bytes()).collect();
    let (at, call) =
        (bench.cluster.admin_address(), format!("POST /v1/apps/{}/devices:import", app.id));
    let before = bench.head().await;
    let mut wire = Wire::begin(at, &bench.admin, &call, "transfer-encoding: chunked").await;
    for piece in file[..file.len() / 2].chunks(10_007) {
        wire.chunk(piece).await.expect("an import is read");
    }
    drop(wire);
    // Whatever reached the writer is committed; wait until it is quiet.
    let device = Call::to("GET /v1/apps/{app}/devices/{device}", &[&app.id, &id(1)]);
    while bench.send(&device).await.status == 404 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let kept = settled(bench).await - before;
    assert!((500..=LINES / 2 + 1).contains(&kept), "{kept} lines were kept of the half that came");

    let mut wire = Wire::begin(at, &bench.admin, &call, "transfer-encoding: chunked").await;
    for piece in file.chunks(60_013) {
        wire.chunk(piece).await.expect("an import is read");
    }
    wire.chunk(b"").await.expect("the end is read");
    let answer = wire.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(counts(&answer.json()), [LINES, LINES - kept, 0, kept, 0]);
    assert_eq!(seq(&answer), bench.head().await);
    let report = bench.unchanged(import(&app, file.clone())).await.json();
    assert_eq!(counts(&report), [LINES, 0, 0, LINES, 0]);

    // A body whose length is a lie is no whole import, but what came counts as well.
    let framing = format!("content-length: {}", file.len());
    let mut wire = Wire::begin(at, &bench.admin, &call, &framing).await;
    wire.send(&file[..1_000]).await.expect("taken");
    drop(wire);
    assert_eq!(settled(bench).await, seq(&answer), "identical lines change nothing");
    let export = bench.read(Call::to(EXPORT, &[&app.id])).await;
    assert_eq!(ndjson(&export.body).len() as u64, LINES);
}

/// The newest seq once it stays.
async fn settled(bench: &Bench) -> u64 {
    let mut head = bench.head().await;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let after = bench.head().await;
        if after == head {
            return head;
        }
        head = after;
    }
}

async fn out_and_in_again(bench: &mut Bench) {
    let (from, to) = (app(bench).await, app(bench).await);
    let lines: Vec<Value> = (0..700_u64)
        .map(|n| {
            let attributes = match n % 4 {
                0 => json!({"s": format!("é{n}\n\"\u{7f}"), "v": format!("{n}.0.1")}),
                1 => json!({"n": n as f64 / 7.0, "b": n % 3 == 0}),
                2 => json!({"n": 9_007_199_254_740_993_i64 - n as i64, "v": "4294967295.0"}),
                _ => json!({}),
            };
            let groups = if n % 5 == 0 { json!(["vip"]) } else { json!([]) };
            let mut line = json!({"id": id(n * n), "attributes": attributes, "groups": groups});
            if n % 2 == 0 {
                line["secret_sha256"] = json!(format!("{n:064x}"));
            }
            if n % 3 == 0 {
                line["user"] = json!(format!("用户 {n}"));
                line["tokens"] = json!([{"channel": "fcm", "token": format!("t{n}")}]);
            }
            line
        })
        .collect();
    bench.import(&from, &lines).await;
    let first = bench.read(Call::to(EXPORT, &[&from.id])).await;
    assert_eq!(ndjson(&first.body).len(), lines.len());
    let report = bench.written(import(&to, first.body.clone())).await.json();
    assert_eq!(counts(&report), [700, 700, 0, 0, 0]);
    let second = bench.read(Call::to(EXPORT, &[&to.id])).await;
    let sorted = |body: &[u8]| {
        let mut lines: Vec<String> = ndjson(body).iter().map(Value::to_string).collect();
        lines.sort_unstable();
        lines
    };
    assert!(sorted(&first.body) == sorted(&second.body), "what went out and in came out otherwise");
    for app in [&from, &to] {
        let report = bench.unchanged(import(app, first.body.clone())).await.json();
        assert_eq!(counts(&report), [700, 0, 0, 700, 0]);
    }
}
