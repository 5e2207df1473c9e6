//! Pages of lists, and previews of audiences, against a plain record of what is there.

use std::collections::{BTreeMap, BTreeSet};

use carillon_tests::admin::text;
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call};
use crate::import::id;

const DEVICES: &str = "GET /v1/apps/{app}/devices";
const MESSAGES: &str = "GET /v1/apps/{app}/messages";
const GROUPS: &str = "GET /v1/apps/{app}/groups";
const PREVIEW: &str = "POST /v1/apps/{app}/audience:preview";

pub(crate) async fn check(bench: &mut Bench) {
    bad_pages(bench).await;
    pages_under_change(bench).await;
    previews(bench).await;
}

async fn bad_pages(bench: &mut Bench) {
    let app = bench.app().await;
    for list in [DEVICES, MESSAGES, GROUPS] {
        for query in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=1.5",
            "limit=",
            "limit=ten",
            "limit=99999999999999999999",
            "after=",
            "after=1",
            "after=zzzzzzzzzzzzzzzz",
            "after=00000000000000ff0",
            "limit=1&limit=2",
        ] {
            bench.refused(Call::to(list, &[&app.id]).query(query), 400, "bad-request").await;
        }
        // An id that is not there is a place in the order all the same.
        for query in
            ["limit=1", "limit=1000", "after=00000000000000ff", "after=00000000000000FF&limit=3"]
        {
            let page = bench.read(Call::to(list, &[&app.id]).query(query)).await.json();
            assert_eq!(page["next"], Value::Null, "{page}");
        }
    }
}

/// The ids of one page and where the next begins.
async fn page(
    bench: &mut Bench,
    list: &str,
    app: &App,
    limit: usize,
    after: Option<&str>,
) -> (Vec<String>, Option<String>) {
    let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
    let call = Call::to(list, &[&app.id]).query(&format!("limit={limit}{after}"));
    let page = bench.read(call).await.json();
    let (_, items) = page
        .as_object()
        .expect("an object")
        .iter()
        .find(|(name, _)| *name != "next")
        .expect("items");
    let ids: Vec<String> =
        items.as_array().expect("a list").iter().map(|item| text(item, "id").to_owned()).collect();
    assert!(ids.len() <= limit);
    let next = page["next"].as_str().map(str::to_owned);
    assert!(next.is_none() || next.as_ref() == ids.last(), "{page}");
    (ids, next)
}

/// What is there from the first page to the last is listed once, whatever comes and goes meanwhile.
async fn pages_under_change(bench: &mut Bench) {
    let app = bench.app().await;
    let mut stay: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let lines: Vec<Value> =
        (0..300_u64).map(|n| json!({"id": id(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))})).collect();
    bench.import(&app, &lines).await;
    stay.insert(DEVICES, lines.iter().map(|line| text(line, "id").to_owned()).collect());
    for n in 0..60 {
        let message = bench.message(&app, json!({"to": "all", "body": n})).await;
        stay.entry(MESSAGES).or_default().insert(message);
        let group = bench.group(&app, &format!("g{n}"), "server").await;
        stay.entry(GROUPS).or_default().insert(group);
    }
    for (list, limit) in [(DEVICES, 17), (MESSAGES, 7), (GROUPS, 7), (GROUPS, 1), (MESSAGES, 60)] {
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        let mut gone = Vec::new();
        loop {
            let (ids, next) = page(bench, list, &app, limit, after.as_deref()).await;
            seen.extend(ids);
            pages += 1;
            // Before and behind the place, something comes, changes and goes; also the very item that a page ended with.
            gone.extend(disturb(bench, list, &app, pages, next.as_deref()).await);
            after = next;
            if after.is_none() {
                break;
            }
        }
        let unique: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len(), "{list}: an item is repeated");
        let kept = stay.get_mut(list).expect("listed");
        kept.retain(|id| !gone.contains(id));
        assert!(kept.iter().all(|id| unique.contains(id)), "{list}: an item is missing");
        assert!(pages >= 45 / limit, "{list}: {pages} pages");
    }
}

async fn disturb(
    bench: &mut Bench,
    list: &str,
    app: &App,
    n: usize,
    last: Option<&str>,
) -> Vec<String> {
    let mut gone = Vec::new();
    match list {
        DEVICES => {
            let fresh = (n as u64).wrapping_mul(0xD134_2543_DE82_EF95) | 1;
            bench
                .import(
                    app,
                    &[json!({"id": id(fresh)}), json!({"id": id(fresh ^ (1 << 63)), "user": "u"})],
                )
                .await;
            let delete = |device: &str| {
                Call::to("DELETE /v1/apps/{app}/devices/{device}", &[&app.id, device])
            };
            bench.written(delete(&id(fresh))).await;
            if let Some(last) = last.filter(|_| n.is_multiple_of(3)) {
                bench.written(delete(last)).await;
                gone.push(last.to_owned());
            }
        }
        MESSAGES => {
            let message = bench.message(app, json!({"to": "all", "body": "passing"})).await;
            let recall = "POST /v1/apps/{app}/messages/{message}:recall";
            bench.written(Call::to(recall, &[&app.id, &message])).await;
        }
        _ => {
            let group = bench.group(app, &format!("passing-{n}"), "server").await;
            let delete =
                |group: &str| Call::to("DELETE /v1/apps/{app}/groups/{group}", &[&app.id, group]);
            bench.written(delete(&group)).await;
            if let Some(last) = last.filter(|_| n.is_multiple_of(5)) {
                bench.written(delete(last)).await;
                gone.push(last.to_owned());
            }
        }
    }
    gone
}

/// One device of the record, with nothing of ours in it.
#[derive(Debug)]
struct Record {
    id: u64,
    country: Option<&'static str>,
    age: Option<f64>,
    premium: Option<bool>,
    version: Option<[u32; 3]>,
    vip: bool,
    staff: bool,
}

impl Record {
    fn line(&self) -> Value {
        let mut attributes = serde_json::Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            value.map(|value| attributes.insert(name.to_owned(), value))
        };
        set("country", self.country.map(Value::from));
        set("age", self.age.map(Value::from));
        set("premium", self.premium.map(Value::from));
        set("version", self.version.map(|[a, b, c]| Value::from(format!("{a}.{b}.{c}"))));
        let groups = [("vip", self.vip), ("staff", self.staff)];
        let groups: Vec<&str> =
            groups.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect();
        json!({"id": id(self.id), "attributes": attributes, "groups": groups})
    }
}

type Predicate = fn(&Record) -> bool;

async fn previews(bench: &mut Bench) {
    let app = bench.app().await;
    for (name, kind) in
        [("country", "string"), ("age", "number"), ("premium", "bool"), ("version", "version")]
    {
        bench.attribute(&app, name, kind, "server").await;
    }
    for group in ["vip", "staff", "nobody"] {
        bench.group(&app, group, "server").await;
    }
    let some = |n: u64, seldom: u64| !n.is_multiple_of(seldom);
    let fleet: Vec<Record> = (1..=2_000_u64)
        .map(|n| Record {
            id: n.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            country: some(n, 7).then(|| ["KE", "SE", "ke", ""][(n % 4) as usize]),
            age: some(n, 5).then(|| (n % 90) as f64 / 2.0),
            premium: some(n, 3).then_some(n.is_multiple_of(4)),
            version: some(n, 11).then_some([2, (n % 12) as u32, (n % 3) as u32]),
            vip: n.is_multiple_of(13),
            staff: n.is_multiple_of(17),
        })
        .collect();
    let lines: Vec<Value> = fleet.iter().map(Record::line).collect();
    bench.import(&app, &lines).await;
    // Not true is not false: what a device lacks is neither.
    let cases: [(&str, Predicate); 16] = [
        ("all", |_| true),
        ("not all", |_| false),
        ("#nobody", |_| false),
        ("not #nobody", |_| true),
        ("#vip and not #staff", |r| r.vip && !r.staff),
        ("country == \"KE\"", |r| r.country == Some("KE")),
        ("not country == \"KE\"", |r| r.country.is_some_and(|c| c != "KE")),
        ("country != \"KE\"", |r| r.country.is_some_and(|c| c != "KE")),
        ("country in (\"KE\",\"SE\") or has age", |r| {
            matches!(r.country, Some("KE" | "SE")) || r.age.is_some()
        }),
        ("country not in (\"KE\",\"\")", |r| r.country.is_some_and(|c| c != "KE" && !c.is_empty())),
        ("not has country", |r| r.country.is_none()),
        ("age >= 17.5 and age < 30", |r| r.age.is_some_and(|a| (17.5..30.0).contains(&a))),
        ("premium", |r| r.premium == Some(true)),
        ("not premium and #vip", |r| r.premium == Some(false) && r.vip),
        ("version >= v2.10", |r| r.version.is_some_and(|v| v >= [2, 10, 0])),
        ("not (version < v2.3.1 or age > 20) and not #staff", |r| {
            r.version.is_some_and(|v| v >= [2, 3, 1])
                && r.age.is_some_and(|a| a <= 20.0)
                && !r.staff
        }),
    ];
    let mut told_apart = 0;
    for (to, predicate) in cases {
        let expected: BTreeSet<String> =
            fleet.iter().filter(|r| predicate(r)).map(|r| id(r.id)).collect();
        told_apart += usize::from(!expected.is_empty() && expected.len() < fleet.len());
        for sample in [0, 3, 1_000] {
            let call = Call::to(PREVIEW, &[&app.id]).json(json!({"to": to, "sample": sample}));
            let answer = bench.read(call).await.json();
            assert_eq!(
                (&answer["count"], &answer["of"]),
                (&json!(expected.len()), &json!(2_000)),
                "{to}"
            );
            let sampled: BTreeSet<&str> = answer["sample"]
                .as_array()
                .expect("ids")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            assert_eq!(sampled.len(), expected.len().min(sample), "{to}: {answer}");
            assert!(sampled.iter().all(|id| expected.contains(*id)), "{to}: {answer}");
        }
    }
    assert!(told_apart >= 12, "{told_apart} expressions tell devices apart");
    let ten =
        bench.read(Call::to(PREVIEW, &[&app.id]).json(json!({"to": " ( all )"}))).await.json();
    assert_eq!((ten["sample"].as_array().map(Vec::len), text(&ten, "to")), (Some(10), "all"));
    bench
        .refused(
            Call::to(PREVIEW, &[&app.id]).json(json!({"to": "all", "sample": 1_001})),
            422,
            "invalid",
        )
        .await;
}
