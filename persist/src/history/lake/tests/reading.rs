use std::ops::ControlFlow;

use super::super::{Fork, LakeError, Query};
use super::faults::{Place, Renames, Way};
use super::*;

const RECORDS: u64 = 40;

async fn filled(place: &Arc<Place>) -> Lake {
    let lake = lake(Way::sound(place, Renames::AtOnce).store());
    let mut writer = lake.resume("shard-0").await.unwrap();
    for n in 1..=RECORDS {
        writer.push(&record(n));
        if n.is_multiple_of(25) {
            writer.commit(n).await.unwrap();
        }
    }
    writer.commit(RECORDS).await.unwrap();
    lake
}

async fn found(lake: &Lake, query: &Query) -> Vec<Record> {
    let mut found = Vec::new();
    let sink = |record| {
        found.push(record);
        ControlFlow::Continue(())
    };
    let given = lake.read(query, sink).await.unwrap();
    assert_eq!(given, found.len());
    found
}

fn expected(wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
    let mut all: Vec<Record> = (1..=RECORDS).map(record).filter(wanted).collect();
    all.sort_by_key(|record| (record.at, record.id.shard, record.id.order()));
    all
}

#[tokio::test]
async fn all_that_was_written_is_read_back() {
    let lake = filled(&Arc::new(Place::default())).await;
    let all = found(&lake, &Query::first(usize::MAX)).await;
    assert_eq!(all, expected(|_| true));
    assert_eq!(all.len() as u64, RECORDS);
}

#[tokio::test]
async fn a_query_gives_what_it_asks_for_and_nothing_else() {
    let lake = filled(&Arc::new(Place::default())).await;
    let all = Query::first(usize::MAX);
    let device = Some(Pseudonym::new([8; 16]));
    let query = Query { device, ..all.clone() };
    assert_eq!(found(&lake, &query).await, expected(|of| of.device == device));
    assert_eq!(found(&lake, &query).await.len(), 1);
    let message = Some(MessageId::new(2));
    let query = Query { message, ..all.clone() };
    assert_eq!(found(&lake, &query).await, expected(|of| of.message == message));
    let app = Some(AppId::new(0xa1));
    let event = Some(EventName::of("push.sent"));
    for query in [
        Query { app, ..all.clone() },
        Query { event: event.clone(), ..all.clone() },
        Query { app: Some(AppId::new(0xa0)), event: event.clone(), ..all.clone() },
        Query { app: Some(AppId::new(5)), ..all.clone() },
    ] {
        let wanted = |of: &Record| {
            query.app.is_none_or(|app| of.app == Some(app))
                && query.event.as_ref().is_none_or(|event| of.event == *event)
        };
        assert_eq!(found(&lake, &query).await, expected(wanted), "{query:?}");
    }
    // Each border in turn: of an hour, of a record, and beside both.
    let hour = AT / HOUR * HOUR;
    for from in [0, AT, AT + 1, AT + 2, hour + HOUR, hour + 2 * HOUR - 1, AT + 2 * HOUR] {
        for until in [0, AT + 1, AT + HOUR, hour + HOUR, hour + 3 * HOUR, u64::MAX] {
            let query =
                Query { from: Some(Millis(from)), until: Some(Millis(until)), ..all.clone() };
            let wanted = |of: &Record| (from..until).contains(&of.at.0);
            assert_eq!(found(&lake, &query).await, expected(wanted), "{query:?}");
        }
    }
}

#[tokio::test]
async fn the_first_so_many_are_given_in_order() {
    let lake = filled(&Arc::new(Place::default())).await;
    let all = expected(|_| true);
    for limit in 0..=all.len() + 1 {
        let given = found(&lake, &Query::first(limit)).await;
        assert_eq!(given, all[..limit.min(all.len())]);
    }
    let mut seen = 0;
    let sink = move |_| {
        seen += 1;
        if seen == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let seven = async move { lake.read(&Query::first(9), sink).await.unwrap() };
    assert_eq!(tokio::spawn(seven).await.unwrap(), 7, "in a task, too");
}

#[tokio::test]
async fn little_is_fetched_for_a_device_that_is_not_there() {
    let place = Arc::new(Place::default());
    filled(&place).await;
    let files = place.inner.list(Some(&"app=00000000000000a0".into()));
    let files = futures_util::StreamExt::count(files).await;
    let calls = async |query: &Query| {
        let way = Way::sound(&place, Renames::AtOnce);
        let found = found(&lake(way.store()), query).await.len();
        (found, way.calls())
    };
    let app = Some(AppId::new(0xa0));
    let device = Some(Pseudonym::new([9; 16]));
    let (none, whole) = calls(&Query { app, device, ..Query::first(9) }).await;
    let until = Some(Millis(AT));
    let (_, of_hour) = calls(&Query { app, until, ..Query::first(9) }).await;
    assert_eq!(none, 0);
    assert!(files > 6 && whole >= files, "{files} {whole}");
    assert!(of_hour < whole / 2, "{of_hour} of {whole}");
}

#[tokio::test]
async fn extremes_are_kept() {
    let place = Arc::new(Place::default());
    let lake = lake(Way::sound(&place, Renames::AtOnce).store());
    let mut writer = lake.resume("shard-65535").await.unwrap();
    let largest = Record {
        id: RecordId {
            shard: ShardId::new(u16::MAX),
            epoch: Epoch { number: u64::MAX, tag: u64::MAX },
            seq: u64::MAX,
        },
        change: Some(Seq::new(u64::MAX)),
        at: Millis(u64::MAX),
        app: Some(AppId::new(u64::MAX)),
        ..record(4)
    };
    assert!(writer.push(&largest));
    writer.commit(u64::MAX).await.unwrap();
    let first = Record { at: Millis(0), app: None, ..record(3) };
    assert!(writer.push(&first));
    writer.commit(0).await.unwrap();
    assert_eq!(found(&lake, &Query::first(9)).await, [first, largest]);
    let writer = lake.resume("shard-65535").await.unwrap();
    assert_eq!(writer.end(), Some(0));
    assert_eq!(writer.last(ShardId::new(u16::MAX)).unwrap().1, u64::MAX);
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_reported() {
    use object_store::ObjectStoreExt;
    let place = Arc::new(Place::default());
    filled(&place).await;
    let lake = lake(place.inner.clone());
    let path = "app=none/event=x/day=2025-11-21/hour=10/x.parquet".into();
    place.inner.put(&path, vec![7; 3000].into()).await.unwrap();
    let read = lake.read(&Query::first(9), |_| ControlFlow::Continue(())).await;
    assert!(matches!(read, Err(LakeError::Damaged { path, .. }) if path.contains("x.parquet")));
    // What lies beside the files is no concern of ours.
    place.inner.delete(&path).await.unwrap();
    place.inner.put(&"app=none/_SUCCESS".into(), vec![7].into()).await.unwrap();
    assert_eq!(found(&lake, &Query::first(9)).await.len(), 9);
}

/// A store: its epochs, and what it told of, by epoch and number.
#[derive(Clone, Default)]
struct Past {
    epochs: Vec<u64>,
    told: Vec<(u64, u64)>,
}

impl Past {
    fn open(&mut self, history: &mut Vec<Record>, epoch: u64, fork: bool) {
        let (from, events) = (self.epochs.last().copied().unwrap_or(0), self.told.len());
        self.epochs.push(epoch);
        let data =
            format!(r#"{{"epoch":{epoch},"from_epoch":{from},"events":{events},"fork":{fork}}}"#);
        self.tell(history, Fork::EVENT, data);
    }

    fn tell(&mut self, history: &mut Vec<Record>, event: &'static str, data: String) {
        let (number, seq) = (*self.epochs.last().unwrap(), self.told.len() as u64 + 1);
        self.told.push((number, seq));
        let id = RecordId { shard: ShardId::FIRST, epoch: Epoch { number, tag: 1 }, seq };
        let data = RawValue::from_string(data).unwrap();
        history.push(Record { id, event: EventName::of(event), data, ..record(1) });
    }
}

/// Restarts, backups and restores of any of them in every order.
#[test]
fn what_no_fork_cuts_off_is_what_the_store_has() {
    for script in 0..5_usize.pow(6) {
        let mut history = Vec::new();
        let (mut store, mut backups) = (Past::default(), vec![Past::default()]);
        store.open(&mut history, 1, false);
        for step in 0..6_u32 {
            let epoch = u64::from(step) + 2;
            match script / 5_usize.pow(step) % 5 {
                0 => store.open(&mut history, epoch, false),
                1 => backups.push(store.clone()),
                which => {
                    store = backups[which % backups.len()].clone();
                    store.open(&mut history, epoch, true);
                }
            }
            store.tell(&mut history, "message.created", "{}".to_owned());
        }
        // In any order, and some of them twice.
        let told = history.iter().chain(&history[history.len() / 2..]);
        let forks = Fork::standing(told.filter_map(Fork::of).collect());
        let query = Query { forks, ..Query::first(usize::MAX) };
        let truth = history.iter().filter(|record| query.wants(record));
        let truth: Vec<_> = truth.map(|record| (record.id.epoch.number, record.id.seq)).collect();
        assert_eq!(truth, store.told, "{script}");
    }
}

#[test]
fn a_fork_that_does_not_tell_from_where_cuts_by_number_alone() {
    let mut history = Vec::new();
    let mut store = Past { epochs: vec![7], told: Vec::new() };
    let data = r#"{"epoch":9,"events":2,"fork":true}"#;
    for (event, data) in [("app.changed", "{}"); 3].into_iter().chain([(Fork::EVENT, data)]) {
        store.tell(&mut history, event, data.to_owned());
    }
    let forks: Vec<Fork> = Fork::standing(history.iter().filter_map(Fork::of).collect());
    let is_cut = |record: &Record| forks.iter().any(|fork| fork.cuts_off(record));
    let cut: Vec<bool> = history[..3].iter().map(is_cut).collect();
    assert_eq!(cut, [false, false, true]);
}
