//! Membership in bulk.

use carillon_tests::admin::text;
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call, holds};

const ADD: &str = "POST /v1/apps/{app}/groups/{group}/members:add";
const REMOVE: &str = "POST /v1/apps/{app}/groups/{group}/members:remove";
const MEMBERS_MAX: u64 = 10_000;

fn id(n: u64) -> String {
    format!("{n:016x}")
}

fn call(operation: &str, app: &App, group: &str, devices: impl IntoIterator<Item = u64>) -> Call {
    let devices: Vec<String> = devices.into_iter().map(id).collect();
    Call::to(operation, &[&app.id, group]).json(json!({"devices": devices}))
}

/// (changed, unchanged, unknown)
fn counts(report: &Value) -> (u64, u64, usize) {
    assert_eq!(report["full"], json!([]), "{report}");
    let number = |name: &str| report[name].as_u64().expect("a number");
    (number("changed"), number("unchanged"), report["unknown"].as_array().expect("ids").len())
}

pub(crate) async fn check(bench: &mut Bench) {
    let app = bench.app().await;
    let vip = bench.group(&app, "vip", "both").await;
    bench.group(&app, "self", "device").await;
    let lines: Vec<Value> = (1..=2_500).map(|n| json!({"id": id(n)})).collect();
    bench.import(&app, &lines).await;
    let members = async |bench: &mut Bench| {
        let group =
            bench.read(Call::to("GET /v1/apps/{app}/groups/{group}", &[&app.id, &vip])).await;
        group.json()["members"].as_u64().expect("a number")
    };
    // More than one write, with ids that nobody has and one twice.
    let added = bench.written(call(ADD, &app, &vip, (1..=1_200).chain([7, 90_001, 90_002]))).await;
    assert_eq!(text(&added.json(), "position"), added.header("carillon-position"));
    assert_eq!(counts(&added.json()), (1_200, 1, 2));
    assert_eq!(added.json()["unknown"], json!([id(90_001), id(90_002)]));
    assert_eq!(members(bench).await, 1_200);
    let again = bench.unchanged(call(ADD, &app, &vip, 1..=1_200)).await.json();
    assert_eq!(counts(&again), (0, 1_200, 0));
    let removed = bench.written(call(REMOVE, &app, "name:vip", 1_000..=1_300)).await.json();
    assert_eq!(counts(&removed), (201, 100, 0));
    assert_eq!(members(bench).await, 999);
    let none = bench.unchanged(call(ADD, &app, &vip, [])).await.json();
    assert_eq!(counts(&none), (0, 0, 0));
    // All unknown: the first 1,000 are named.
    let unknown = bench.unchanged(call(ADD, &app, &vip, 90_000..100_000)).await.json();
    assert_eq!(counts(&unknown), (0, 0, 1_000));
    assert_eq!(unknown["unknown"][999], json!(id(90_999)));

    bench.refused(call(ADD, &app, &vip, 0..=MEMBERS_MAX), 413, "too-large").await;
    bench.refused(call(ADD, &app, "name:self", [1]), 403, "not-allowed").await;
    bench.refused(call(ADD, &app, "name:nobody", []), 404, "not-found").await;
    for devices in
        [json!(["1"]), json!([1]), json!([id(1), null]), json!([id(1) + " "]), json!("all")]
    {
        for operation in [ADD, REMOVE] {
            let call = Call::to(operation, &[&app.id, &vip]).json(json!({"devices": devices}));
            bench.refused(call, 400, "bad-request").await;
        }
    }
    let most = bench.written(call(REMOVE, &app, &vip, 1..=MEMBERS_MAX)).await.json();
    assert_eq!(counts(&most), (999, 1_501, 1_000));
    a_full_device_is_named(bench).await;
    devices_follow(bench).await;
}

/// A device is in at most 1,024 groups: it is left as it is, and the others join.
async fn a_full_device_is_named(bench: &mut Bench) {
    let app = bench.app().await;
    bench.watch_nothing();
    let mut names = Vec::new();
    for n in 0..=1_024 {
        let name = format!("g{n}");
        let new = Call::to("POST /v1/apps/{app}/groups", &[&app.id]).json(json!({"name": name}));
        assert_eq!(bench.send(&new).await.status, 201);
        names.push(name);
    }
    let full = json!({"id": id(1), "groups": names[..1_024]});
    let over = json!({"id": id(3), "groups": names});
    let report = bench.import(&app, &[full, json!({"id": id(2)}), over]).await;
    assert_eq!((&report["created"], &report["bad"]), (&json!(2), &json!(1)), "{report}");
    assert_eq!(
        (&report["errors"][0]["line"], &report["errors"][0]["code"]),
        (&json!(3), &json!("limit"))
    );
    let report = bench.written(call(ADD, &app, "name:g1024", 1..=2)).await.json();
    assert_eq!((&report["changed"], &report["full"]), (&json!(1), &json!([id(1)])), "{report}");
    let patch = Call::to("PATCH /v1/apps/{app}/devices/{device}", &[&app.id, &id(1)]);
    bench.refused(patch.clone().json(json!({"groups": {"g1024": true}})), 422, "limit").await;
    bench.written(patch.json(json!({"groups": {"g1024": true, "g0": false}}))).await;
}

/// Who joins gets what the group is sent, and who leaves loses it.
async fn devices_follow(bench: &mut Bench) {
    let app = bench.app().await;
    let vip = bench.group(&app, "vip", "server").await;
    let message = bench.message(&app, json!({"to": "#vip", "body": 1})).await;
    let everyone = bench.message(&app, json!({"to": "all", "body": 2})).await;
    let mut phone = bench.phone(&app).build().expect("a client");
    holds(&mut phone, &[&everyone]).await;
    let (_, device) = phone.status().registered.expect("it polled");
    bench.reported(&app, &device.to_string()).await;
    let devices = json!({"devices": [device.to_string()]});
    bench.written(Call::to(ADD, &[&app.id, &vip]).json(devices.clone())).await;
    holds(&mut phone, &[&everyone, &message]).await;
    bench.written(Call::to(REMOVE, &[&app.id, &vip]).json(devices)).await;
    holds(&mut phone, &[&everyone]).await;
}
