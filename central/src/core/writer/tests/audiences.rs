//! Audiences: what an edit is, what it may not break, and the limits.

use carillon_expr::{AudienceId, Limits};
use carillon_world::Change;

use super::*;
use crate::core::audience::AudienceLimits;
use crate::core::budget::Budgets;
use crate::core::write::PutAudience;

fn put(id: u64, name: &str, expression: &str) -> Write {
    put_if(id, name, expression, None)
}

fn put_if(id: u64, name: &str, expression: &str, if_match: Option<u32>) -> Write {
    let (id, expression) = (AudienceId::new(id), expression.to_owned());
    let name = name.into();
    Write::PutAudience(Box::new(PutAudience { app: APP, id, name, expression, if_match }))
}

fn rename(audience: &str, name: &str) -> Write {
    let (audience, name) = (audience.into(), name.into());
    Write::RenameAudience { app: APP, audience, name, if_match: None }
}

fn delete(audience: &str) -> Write {
    Write::DeleteAudience { app: APP, audience: audience.into(), if_match: None }
}

fn to(id: u64, to: &str) -> Write {
    create(CreateMessage { to: to.to_owned(), ..message(id) })
}

fn readdress(id: u64, to: &str) -> Write {
    let Write::EditMessage(edit) = edit(id, None, "1") else { unreachable!("it is an edit") };
    Write::EditMessage(Box::new(EditMessage { to: Some(to.into()), body: None, ..*edit }))
}

fn limited(budgets: Budgets) -> Bench {
    let bench = Bench::with_app();
    let config = WriterConfig { budgets, ..WriterConfig::default() };
    Bench::configured(config, bench.writer.committed().clone(), Vec::new())
}

fn extra(bench: &mut Bench, write: Write, code: &str) -> serde_json::Value {
    let refused = bench.done(write).result.expect_err("it is refused");
    assert_eq!(refused.code, code, "{refused:?}");
    serde_json::from_str(&refused.extra.expect("it says more")).unwrap()
}

/// The seqs since which revisions of the message are in force, and who of devices 1 (KE) and 2 (SE) has the last.
fn told(bench: &Bench, id: u64) -> (Vec<u64>, Vec<u64>) {
    let world = bench.writer.committed();
    let message = world.app(APP).unwrap().message(MessageId::new(id)).unwrap();
    let last = message.revisions().last().unwrap();
    let has = |id: &u64| last.addresses(bench.device(*id).unwrap(), world.clock()).is_some();
    let froms = message.revisions().iter().map(|revision| revision.from().get()).collect();
    (froms, [1, 2].into_iter().filter(has).collect())
}

#[test]
fn an_edit_is_one_change_and_readdresses_every_message_that_uses_it() {
    let mut bench = Bench::with_app();
    bench.ok(import(vec![line(1, 1, "KE"), line(2, 2, "SE")]));
    bench.ok(put(1, "home", "country == \"KE\""));
    bench.ok(put(2, "else", "not @home"));
    bench.ok(to(7, "@home"));
    bench.ok(to(8, "@else"));
    let before = bench.writer.committed().seq().get();
    assert_eq!((told(&bench, 7).1, told(&bench, 8).1), (vec![1], vec![2]));
    let id = bench.write(put(9, "home", "country == \"SE\""));
    let batch = bench.batch().expect("it changes something");
    let changes = &batch.changes.unwrap().changes;
    assert!(matches!(&**changes, [Change::Audience(row)] if row.id == AudienceId::new(1)));
    bench.committed();
    assert_eq!(bench.state(id), "ok");
    assert_eq!(told(&bench, 7), (vec![before - 1, before + 1], vec![2]));
    assert_eq!(told(&bench, 8), (vec![before, before + 1], vec![1]));
    assert_eq!(bench.message(7).revision, 1, "nobody edited the message itself");
}

#[test]
fn what_is_not_committed_yet_is_used_and_decided_again_without_it() {
    let mut bench = Bench::with_app();
    bench.ok(group(5, "other"));
    let first = bench.write(put(1, "a", "#vip"));
    bench.batch().unwrap();
    let second = bench.write(put(2, "b", "@a"));
    let third = bench.write(to(7, "@b"));
    bench.refused();
    bench.settle();
    assert_eq!(
        [first, second, third].map(|id| bench.state(id).to_owned()),
        ["unavailable", "bad-expression", "bad-expression"]
    );
    let ids = [put(1, "a", "#vip"), put(2, "b", "@a"), put(3, "a", "#other"), to(7, "@b")]
        .map(|write| bench.write(write));
    bench.settle();
    assert!(ids.iter().all(|id| bench.state(*id) == "ok"));
    let app = bench.writer.committed().app(APP).unwrap();
    assert_eq!(app.audience_by_name("b").unwrap().expression().groups(), [GroupId::new(5)]);
}

#[test]
fn the_same_again_changes_nothing_and_a_rename_nothing_but_print() {
    let mut bench = Bench::with_app();
    bench.ok(put(1, "vips", "#vip"));
    bench.ok(to(7, "@vips"));
    let seq = bench.writer.committed().seq();
    let Reply::Audience { row, expression, created } = bench.ok(put(2, "vips", " #vip  ")) else {
        panic!("an audience")
    };
    assert_eq!((row.revision, &*expression, created), (1, "#vip", false));
    assert_eq!(bench.writer.committed().seq(), seq);
    bench.ok(rename("vips", "gold"));
    assert_eq!(told_froms(&bench, 7), [seq.get()], "no revision of the message");
    bench.ok(rename("gold", "gold"));
    let Reply::Audience { row, .. } = bench.ok(put_if(3, "gold", "all", Some(2))) else {
        panic!("an audience")
    };
    assert_eq!((row.revision, row.id), (3, AudienceId::new(1)));
    for (write, code) in [
        (put_if(3, "gold", "#vip", Some(2)), "revision-mismatch"),
        (put_if(3, "none", "all", Some(1)), "revision-mismatch"),
        (put(3, ":x", "all"), "invalid"),
        (rename("gold", "a b"), "invalid"),
        (rename("none", "x"), "not-found"),
        (delete("none"), "not-found"),
        (put(3, "gold", "#nobody"), "bad-expression"),
    ] {
        assert_eq!(bench.code(write), code);
    }
    bench.ok(put(4, "other", "all"));
    assert_eq!(bench.code(rename("gold", "other")), "exists");
}

fn told_froms(bench: &Bench, id: u64) -> Vec<u64> {
    let app = bench.writer.committed().app(APP).unwrap();
    let message = app.message(MessageId::new(id)).unwrap();
    message.revisions().iter().map(|revision| revision.from().get()).collect()
}

#[test]
fn what_an_audience_refers_to_and_what_refers_to_it_stays() {
    let mut bench = Bench::with_app();
    bench.ok(put(1, "vips", "#vip and country == \"KE\""));
    bench.ok(put(2, "others", "not @vips"));
    let group = Write::DeleteGroup { app: APP, group: GroupRef::Id(VIP) };
    let attribute = || Write::DeleteAttribute { app: APP, name: "country".into() };
    let both = serde_json::json!(["others", "vips"]);
    for write in [group.clone(), attribute()] {
        let told = extra(&mut bench, write, "referenced");
        let mut audiences = told["audiences"].as_array().unwrap().clone();
        audiences.sort_by_key(|name| name.to_string());
        assert_eq!(
            (&told["messages"], serde_json::json!(audiences)),
            (&serde_json::json!([]), both.clone())
        );
    }
    let retyped = Write::DeclareAttribute {
        app: APP,
        id: AttributeId::new(99),
        name: "country".into(),
        kind: Type::Number,
        set_by: SetBy::Both,
    };
    extra(&mut bench, retyped, "referenced");
    bench.ok(to(7, "@others"));
    let told = extra(&mut bench, delete("vips"), "referenced");
    assert_eq!(told, serde_json::json!({"messages": [MessageId::new(7)], "audiences": ["others"]}));
    // What it said before is still held.
    bench.ok(put(1, "vips", "all"));
    extra(&mut bench, attribute(), "referenced");
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(7) });
    extra(&mut bench, delete("others"), "referenced");
}

#[test]
fn an_audience_that_would_use_itself_is_refused_where_it_is_written() {
    let mut bench = Bench::with_app();
    bench.ok(put(1, "a", "#vip"));
    bench.ok(put(2, "b", "@a"));
    bench.ok(put(3, "c", "@b or all"));
    for (name, text) in [("a", "@a"), ("a", "all and @c"), ("b", "not @b")] {
        let told = extra(&mut bench, put(9, name, text), "bad-expression");
        assert_eq!(told["errors"][0]["kind"], "audience_cycle", "{name} {text}");
    }
}

#[test]
fn an_edit_that_would_break_what_uses_it_names_it() {
    let expressions = Limits { nodes_max: 8, audience_depth_max: 2, ..Limits::default() };
    let mut bench = limited(Budgets { expressions, ..Budgets::default() });
    bench.ok(put(1, "a", "#vip"));
    bench.ok(put(2, "b", "@a and all"));
    bench.ok(to(7, "#vip and #vip and #vip and @a"));
    let long = "#vip or not #vip or #vip or all";
    let told = extra(&mut bench, put(1, "a", long), "audience-breaks");
    let broken = told["broken"].as_array().unwrap();
    assert_eq!(broken.len(), 2, "{told}");
    assert_eq!(broken[0]["audience"], "b");
    assert_eq!(broken[1]["message"], "0000000000000007");
    assert!(broken[1]["why"].as_str().unwrap().contains("nodes, at most 8"), "{told}");
    // Nested deeper than may be: `@b` is two deep when `@a` names an audience.
    bench.ok(put(3, "c", "#vip"));
    bench.ok(to(8, "@b"));
    let told = extra(&mut bench, put(1, "a", "@c"), "audience-breaks");
    assert_eq!(told["broken"][0]["message"], "0000000000000008", "{told}");
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(8) });
    bench.ok(put(1, "a", "@c"));
}

#[test]
fn audiences_and_the_messages_that_use_them_are_limited() {
    let audiences = AudienceLimits { per_app_max: 2, messages_max: 2 };
    let mut bench = limited(Budgets { audiences, ..Budgets::default() });
    bench.ok(put(1, "a", "#vip"));
    bench.ok(put(2, "b", "all"));
    assert_eq!(extra(&mut bench, put(3, "c", "all"), "too-many-audiences")["limit"], 2);
    bench.ok(put(3, "b", "not all"));
    bench.ok(to(7, "@a"));
    bench.ok(to(8, "all"));
    bench.ok(readdress(8, "@a"));
    let told = extra(&mut bench, to(9, "@a"), "audience-reach");
    assert_eq!(told, serde_json::json!({"audience": "a", "messages": 3, "limit": 2}));
    bench.ok(to(9, "@b"));
    extra(&mut bench, readdress(9, "not @a"), "audience-reach");
    extra(&mut bench, put(3, "b", "@a"), "audience-reach");
    // Those that use it may go on doing so, and who is over makes room.
    bench.ok(readdress(8, "not @a"));
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(7) });
    bench.ok(put(3, "b", "@a"));
    bench.ok(readdress(9, "@a and @b"));
}

#[test]
fn an_edit_that_would_fill_the_world_is_refused_whole() {
    let mut bench = Bench::with_app();
    bench.ok(put(1, "a", "#vip"));
    for id in 10..60 {
        bench.ok(to(id, "@a and #vip"));
    }
    let used = bench.writer.committed().usage().total();
    // Beyond the reserve that edits have, of a sixteenth.
    let budgets = Budgets { world_bytes_max: used * 17 / 18, ..Budgets::default() };
    let config = WriterConfig { budgets, ..WriterConfig::default() };
    let world = bench.writer.committed().clone();
    let mut bench = Bench::configured(config, world, Vec::new());
    assert_eq!(bench.code(put(1, "a", "not #vip")), "world-full");
    assert_eq!(bench.writer.committed().usage().total(), used);
    assert_eq!(told_froms(&bench, 10).len(), 1);
}

#[test]
fn an_edit_that_makes_messages_look_at_the_clock_counts_and_brings_it_up_to_date() {
    let budgets = Budgets { volatile_messages_max: 2, ..Budgets::default() };
    let mut bench = limited(budgets);
    bench.ok(put(1, "all", "all"));
    bench.ok(put(2, "lately", "@all"));
    (7..10).for_each(|id| drop(bench.ok(to(id, "@lately"))));
    assert_eq!(bench.writer.committed().clock(), Millis::ZERO, "nothing follows it");
    let refused = put(1, "all", "last_seen within 7d");
    assert_eq!(bench.code(refused), "too-many-volatile-messages");
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(9) });
    bench.ok(put(1, "all", "last_seen within 7d"));
    let world = bench.writer.committed();
    assert_eq!((world.clock(), world.app(APP).unwrap().volatile_messages()), (bench.now, 2));
    bench.ok(put(1, "all", "#vip"));
    assert!(!bench.writer.committed().follows_clock());
}
