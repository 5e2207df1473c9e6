//! What an app may hold, and what a person leaves behind when forgotten.

use serde_json::{Value, json};

use crate::bench::{App, Bench, Call};

const APP: &str = "GET /v1/apps/{app}";
const PATCH_APP: &str = "PATCH /v1/apps/{app}";
const GROUPS: &str = "POST /v1/apps/{app}/groups";
const MESSAGES: &str = "POST /v1/apps/{app}/messages";
const ERASE: &str = "POST /v1/apps/{app}/users/{user}:erase";

pub(crate) async fn check(bench: &mut Bench) {
    quotas(bench).await;
    erasure(bench).await;
}

async fn set(bench: &mut Bench, app: &App, quotas: Value) -> Value {
    let patch = Call::to(PATCH_APP, &[&app.id]).json(json!({"quotas": quotas}));
    bench.written(patch).await.json()
}

async fn quotas(bench: &mut Bench) {
    let app = bench.app().await;
    let defaults = bench.read(Call::to(APP, &[&app.id])).await.json()["limits"].clone();
    assert!(defaults["groups_max"].as_u64().is_some_and(|limit| limit > 1), "{defaults}");
    let patched =
        set(bench, &app, json!({"groups_max": 1, "live_messages_max": 0, "devices_max": 2})).await;
    assert_eq!(
        patched["quotas"],
        json!({"groups_max": 1, "live_messages_max": 0, "devices_max": 2, "bodies_bytes_max": null})
    );
    assert_eq!(
        (&patched["limits"]["groups_max"], &patched["limits"]["bodies_bytes_max"]),
        (&json!(1), &defaults["bodies_bytes_max"])
    );
    assert_eq!(bench.read(Call::to(APP, &[&app.id])).await.json(), patched);

    let group =
        |name: &str| Call::to(GROUPS, &[&app.id]).json(json!({"name": name, "set_by": "server"}));
    let message = Call::to(MESSAGES, &[&app.id]).json(json!({"to": "all", "body": 1}));
    bench.written(group("one")).await;
    let refused = bench.refused(group("two"), 403, "quota-exceeded").await;
    assert_eq!((&refused["limit"], &refused["used"]), (&json!(1), &json!(1)), "{refused}");
    bench.refused(message.clone(), 403, "quota-exceeded").await;
    let lines: Vec<Value> = (1..=3).map(|n| json!({"id": format!("{n:016x}")})).collect();
    let report = bench.import(&app, &lines).await;
    assert_eq!((&report["created"], &report["bad"]), (&json!(2), &json!(1)), "{report}");
    assert_eq!(report["errors"][0]["code"], "quota-exceeded", "{report}");

    // Back to what holds for every app. A quota below what is there takes nothing away.
    set(bench, &app, json!({"groups_max": null, "live_messages_max": null, "devices_max": 1}))
        .await;
    bench.written(group("two")).await;
    bench.written(message).await;
    let usage = bench.read(Call::to(APP, &[&app.id])).await.json()["usage"].clone();
    assert_eq!(
        [&usage["groups"], &usage["live_messages"], &usage["devices"]],
        [&json!(2), &json!(1), &json!(2)]
    );
}

async fn erasure(bench: &mut Bench) {
    let app = bench.app().await;
    let user = "ann/é b:erase";
    let line = |n: u64, user: &str| json!({"id": format!("{n:016x}"), "user": user});
    bench.import(&app, &[line(1, user), line(2, "ben"), line(3, user)]).await;
    let erased = bench.written(Call::to(ERASE, &[&app.id, user])).await.json();
    assert_eq!((&erased["user"], &erased["devices"]), (&json!(user), &json!(2)), "{erased}");
    let left = bench.read(Call::to("GET /v1/apps/{app}/devices", &[&app.id])).await.json();
    assert_eq!(
        (left["devices"].as_array().map(Vec::len), &left["devices"][0]["user"]),
        (Some(1), &json!("ben"))
    );
    let again = bench.unchanged(Call::to(ERASE, &[&app.id, user])).await.json();
    assert_eq!((&again["devices"], &again["position"]), (&json!(0), &erased["position"]));
}
