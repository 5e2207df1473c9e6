//! Funnels and their series: shapes, and what a query may say. That the counts are right is judged where devices are.

use serde_json::{Value, json};

use crate::bench::{Bench, Call};

const FUNNEL: &str = "GET /v1/apps/{app}/messages/{message}/funnel";
const SERIES: &str = "GET /v1/apps/{app}/messages/{message}/funnel/series";

pub(crate) async fn check(bench: &mut Bench) {
    let app = bench.app().await;
    bench.import(&app, &[json!({"id": "00000000000000d1"})]).await;
    let message = bench.message(&app, json!({"to": "all", "body": 1})).await;
    let path = [&*app.id, &*message];
    let funnel = bench.read(Call::to(FUNNEL, &path)).await.json();
    assert_eq!((&funnel["addressed"], &funnel["delivered"]), (&json!(1), &json!(0)), "{funnel}");
    assert_eq!(funnel.get("withdrawn"), None, "{funnel}");
    bench.written(Call::to("POST /v1/apps/{app}/messages/{message}:recall", &path)).await;
    let funnel = bench.read(Call::to(FUNNEL, &path)).await.json();
    let nothing = json!({"confirmed": 0, "still_out": 0, "pushed": {}});
    assert_eq!(funnel["withdrawn"], nothing, "{funnel}");
    for query in
        ["", "bucket=day", "counter=failed:apns&from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z"]
    {
        let series = bench.read(Call::to(SERIES, &path).query(query)).await.json();
        assert_eq!((&series["points"], &series["next"]), (&json!([]), &Value::Null), "{series}");
    }
    for query in [
        "counter=",
        "counter=sold",
        "counter=pushed:sms",
        "bucket=week",
        "bucket=",
        "from=yesterday",
        "to=1",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "limit=3",
        "bucket=day&bucket=hour",
    ] {
        bench.refused(Call::to(SERIES, &path).query(query), 400, "bad-request").await;
    }
}
