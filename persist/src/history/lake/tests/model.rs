use std::collections::HashSet;

use super::super::LakeWriter;
use super::faults::{Fault, Id, Place, Renames, Way};
use super::*;
use crate::history::lake::{Committed, LakeError, ShardTail};

const SOURCE: &str = "shard-0";
/// How often one call that fails once is tried.
const TRIES: usize = 3;

/// What a source has to tell, and how: `flush` records a commit.
#[derive(Clone, Copy)]
struct Story {
    records: u64,
    flush: u64,
}

const LONG: Story = Story { records: 22, flush: 8 };
const SHORT: Story = Story { records: 5, flush: 3 };

impl Story {
    fn ids(self) -> HashSet<Id> {
        let id = |n| {
            let id = record(n).id;
            (id.shard.get().into(), id.epoch.number as i64, id.seq as i64)
        };
        (1..=self.records).map(id).collect()
    }

    /// Takes all that there is into the lake, as one process would that tries again what failed.
    async fn tell(self, lake: &Lake) -> Result<(), LakeError> {
        let mut writer = resume(lake).await?;
        let begin = writer.end().unwrap_or(0);
        // A source tells again what it is not sure of.
        let mut n = begin.saturating_sub(2);
        while n < self.records {
            n += 1;
            let is_pushed = writer.push(&record(n));
            assert_eq!(is_pushed, n > begin, "{n} of {begin}");
            if n.is_multiple_of(self.flush) || n == self.records {
                self.commit(&mut writer, &mut n).await?;
            }
        }
        // Nothing but that the source went on.
        commit(&mut writer, self.records + 1).await?;
        assert_eq!(writer.end(), Some(self.records + 1));
        Ok(())
    }

    /// With one more record each time that it fails.
    async fn commit(self, writer: &mut LakeWriter, n: &mut u64) -> Result<(), LakeError> {
        for _ in 0..TRIES {
            match writer.commit(*n).await {
                Err(LakeError::Unavailable { .. }) if *n < self.records => {
                    *n += 1;
                    assert!(writer.push(&record(*n)));
                }
                Err(LakeError::Unavailable { .. }) => {}
                other => return other.map(drop),
            }
        }
        writer.commit(*n).await.map(drop)
    }

    async fn check(self, place: &Arc<Place>, context: &str) {
        let lake = lake(Way::sound(place, Renames::AtOnce).store());
        self.tell(&lake).await.unwrap();
        assert_eq!(place.rows().await, self.ids(), "{context}");
        // And nothing is left over.
        lake.resume(SOURCE).await.unwrap();
        let others = place.others().await;
        assert!(!others.contains_key("_staging"), "{context}: {others:?}");
    }
}

async fn resume(lake: &Lake) -> Result<LakeWriter, LakeError> {
    for _ in 0..TRIES {
        match lake.resume(SOURCE).await {
            Err(LakeError::Unavailable { .. }) => {}
            other => return other,
        }
    }
    lake.resume(SOURCE).await
}

async fn commit(writer: &mut LakeWriter, end: u64) -> Result<Committed, LakeError> {
    for _ in 0..TRIES {
        match writer.commit(end).await {
            Err(LakeError::Unavailable { .. }) => {}
            other => return other,
        }
    }
    writer.commit(end).await
}

#[tokio::test]
async fn whatever_call_fails_each_row_is_there_once() {
    let ways = [Renames::AtOnce, Renames::ByCopy, Renames::Vaguely];
    for (fault, renames) in
        [Fault::Fails, Fault::Lost].into_iter().flat_map(|fault| ways.map(|way| (fault, way)))
    {
        let mut tried = 0;
        for at in 1.. {
            let place = Arc::new(Place::default());
            let way = Way::hurt(&place, renames, at, fault);
            let context = format!("{fault:?} at {at}, {renames:?}");
            LONG.tell(&lake(way.store())).await.expect(&context);
            // Before anyone resumes.
            assert_eq!(place.rows().await, LONG.ids(), "{context}");
            LONG.check(&place, &context).await;
            tried += 1;
            if !way.is_hurt() {
                break;
            }
        }
        assert!(tried > 40, "{tried}");
    }
}

#[tokio::test]
async fn after_whatever_call_the_process_ends_each_row_is_there_once() {
    for (fault, renames) in [
        (Fault::LastBefore, Renames::AtOnce),
        (Fault::LastAfter, Renames::AtOnce),
        (Fault::LastAfter, Renames::ByCopy),
    ] {
        for at in 1.. {
            let place = Arc::new(Place::default());
            let way = Way::hurt(&place, renames, at, fault);
            let told = LONG.tell(&lake(way.store())).await;
            let context = format!("{fault:?} at {at}, {renames:?}");
            assert_eq!(told.is_err(), way.is_hurt(), "{context}");
            // Once resumed, and before more is told, all of the newest commit and no more is there.
            let again = lake(Way::sound(&place, renames).store());
            let writer = again.resume(SOURCE).await.unwrap();
            let told_to = writer.end().unwrap_or(0).min(LONG.records);
            let committed = Story { records: told_to, ..LONG };
            assert_eq!(place.rows().await, committed.ids(), "{context}");
            LONG.check(&place, &context).await;
            if !way.is_hurt() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn the_end_of_a_lake_is_what_readers_see() {
    for renames in [Renames::AtOnce, Renames::ByCopy] {
        let mut behind = 0;
        for at in 1.. {
            let place = Arc::new(Place::default());
            let way = Way::hurt(&place, renames, at, Fault::LastAfter);
            let told = LONG.tell(&lake(way.store())).await;
            let context = format!("{renames:?} at {at}");
            assert_eq!(told.is_err(), way.is_hurt(), "{context}");
            let lake = lake(Way::sound(&place, renames).store());
            let newest = lake.chain(SOURCE).unwrap().newest().await.unwrap();
            let newest = newest.and_then(|commit| commit.end);
            let end = lake.end(SOURCE).await.unwrap();
            let seen = place.rows().await;
            let is_seen = |end: Option<u64>| {
                let records = end.unwrap_or(0).min(LONG.records);
                Story { records, ..LONG }.ids().is_subset(&seen)
            };
            let before = [16, 8].into_iter().find(|before| Some(*before) < newest);
            if end == newest {
                assert!(is_seen(end), "{context}");
            } else {
                // As little as there is to be read again; a copy is there before what is staged goes.
                assert_eq!(end, before, "{context}");
                assert!(is_seen(end), "{context}");
                assert!(renames == Renames::ByCopy || !is_seen(newest), "{context}");
                behind += 1;
            }
            let writer = lake.resume(SOURCE).await.unwrap();
            assert_eq!((lake.end(SOURCE).await.unwrap(), writer.end()), (newest, newest));
            assert!(is_all(&place, newest).await, "{context}");
            if !way.is_hurt() {
                break;
            }
        }
        assert!(behind > 5, "{behind}");
    }
}

/// Whether readers see the long story up to there.
async fn is_all(place: &Place, end: Option<u64>) -> bool {
    let records = end.unwrap_or(0).min(LONG.records);
    place.rows().await == Story { records, ..LONG }.ids()
}

#[tokio::test]
async fn a_commit_that_is_dropped_at_any_moment_is_made_again() {
    for (fault, renames) in
        [(Fault::WaitsBefore, Renames::AtOnce), (Fault::WaitsAfter, Renames::ByCopy)]
    {
        let mut dropped = 0;
        for at in 1.. {
            let place = Arc::new(Place::default());
            let way = Way::hurt(&place, renames, at, fault);
            let lake = lake(way.store());
            let mut writer = tokio::select! {
                writer = lake.resume(SOURCE) => writer.unwrap(),
                () = way.reached() => lake.resume(SOURCE).await.unwrap(),
            };
            for n in 1..=SHORT.records {
                assert!(writer.push(&record(n)));
                if n.is_multiple_of(2) {
                    continue;
                }
                tokio::select! {
                    done = writer.commit(n) => drop(done.unwrap()),
                    // The next one ends it.
                    () = way.reached() => dropped += 1,
                }
            }
            let context = format!("{fault:?} at {at}, {renames:?}");
            writer.commit(SHORT.records).await.expect(&context);
            assert_eq!((writer.end(), writer.rows()), (Some(SHORT.records), 0), "{context}");
            assert_eq!(place.rows().await, SHORT.ids(), "{context}");
            SHORT.check(&place, &context).await;
            if !way.is_hurt() {
                break;
            }
        }
        assert!(dropped > 10, "{dropped}");
    }
}

/// One stands still at each of its calls in turn while another takes over, does all that there is to do, and more
/// commits than are kept.
#[tokio::test]
async fn one_who_slept_while_another_wrote_does_no_harm() {
    let mut fenced = 0;
    for (fault, renames, kept) in [
        (Fault::WaitsBefore, Renames::AtOnce, 1),
        (Fault::WaitsBefore, Renames::ByCopy, 100),
        (Fault::WaitsAfter, Renames::AtOnce, 100),
        (Fault::WaitsAfter, Renames::ByCopy, 1),
    ] {
        for at in 1.. {
            let place = Arc::new(Place::default());
            let keeping = |way: &Way| Lake { commits_kept: kept, ..lake(way.store()) };
            let sleeper = Way::hurt(&place, renames, at, fault);
            let context = format!("{fault:?} at {at}, {renames:?}, {kept} kept");
            let sleeping = keeping(&sleeper);
            let sleep = tokio::spawn(async move { LONG.tell(&sleeping).await });
            tokio::select! {
                () = sleeper.reached() => {}
                () = async { while !sleep.is_finished() { tokio::task::yield_now().await } } => {}
            }
            let is_asleep = !sleep.is_finished();
            let other = Way::sound(&place, renames);
            LONG.tell(&keeping(&other)).await.expect(&context);
            assert_eq!(place.rows().await, LONG.ids(), "{context}");
            sleeper.release();
            match sleep.await.unwrap() {
                Ok(()) => {}
                Err(LakeError::Fenced { .. }) => fenced += 1,
                Err(error) => panic!("{context}: {error:?}"),
            }
            assert_eq!(place.rows().await, LONG.ids(), "{context}");
            LONG.check(&place, &context).await;
            if !is_asleep {
                break;
            }
        }
    }
    assert!(fenced > 100, "{fenced}");
}

/// The first sleeps at each of its calls, then the second at each of its own; the first goes on, then the second.
#[tokio::test]
async fn two_who_sleep_in_turn_do_no_harm() {
    for first_at in 1.. {
        let mut was_asleep = false;
        for second_at in 1.. {
            let place = Arc::new(Place::default());
            let context = format!("the first at {first_at}, the second at {second_at}");
            let mut sleeps = Vec::new();
            for at in [first_at, second_at] {
                let way = Way::hurt(&place, Renames::ByCopy, at, Fault::WaitsBefore);
                let lake = lake(way.store());
                let sleep = tokio::spawn(async move { SHORT.tell(&lake).await });
                tokio::select! {
                    () = way.reached() => {}
                    () = async { while !sleep.is_finished() { tokio::task::yield_now().await } } => {}
                }
                sleeps.push((way, sleep));
            }
            let is_asleep: Vec<bool> =
                sleeps.iter().map(|(_, sleep)| !sleep.is_finished()).collect();
            was_asleep |= is_asleep[0];
            for (way, sleep) in sleeps {
                way.release();
                match sleep.await.unwrap() {
                    Ok(()) | Err(LakeError::Fenced { .. }) => {}
                    Err(error) => panic!("{context}: {error:?}"),
                }
            }
            SHORT.check(&place, &context).await;
            if !is_asleep[1] {
                break;
            }
        }
        if !was_asleep {
            break;
        }
    }
}

#[tokio::test]
async fn who_is_fenced_stays_so_and_leaves_what_is_there() {
    let place = Arc::new(Place::default());
    let lake = lake(Way::sound(&place, Renames::AtOnce).store());
    let mut first = lake.resume(SOURCE).await.unwrap();
    first.push(&record(1));
    first.commit(1).await.unwrap();
    first.push(&record(2));
    let mut second = lake.resume(SOURCE).await.unwrap();
    for _ in 0..2 {
        let error = first.commit(2).await.unwrap_err();
        assert!(matches!(error, LakeError::Fenced { .. }), "{error:?}");
    }
    assert_eq!(second.end(), Some(1));
    assert!(second.push(&record(2)));
    second.commit(2).await.unwrap();
    assert_eq!(place.rows().await, Story { records: 2, ..LONG }.ids());
    // Other sources have nothing to do with it.
    let mut other = lake.resume("shard-0-1").await.unwrap();
    assert_eq!((other.end(), other.last(ShardId::FIRST)), (None, None));
    other.push(&record(3));
    other.commit(3).await.unwrap();
    second.push(&record(4));
    second.commit(4).await.unwrap();
}

#[tokio::test]
async fn a_writer_knows_how_far_it_is() {
    let place = Arc::new(Place::default());
    let lake = lake(Way::sound(&place, Renames::AtOnce).store());
    assert_eq!(lake.tail(SOURCE, ShardId::FIRST).await.unwrap(), None);
    let mut writer = lake.resume(SOURCE).await.unwrap();
    assert_eq!((writer.end(), writer.rows(), writer.bytes()), (None, 0, 0));
    assert_eq!(writer.last(ShardId::FIRST), None);
    for n in [2, 3] {
        assert!(writer.push(&record(n)));
    }
    for n in [1, 2, 3] {
        assert!(!writer.push(&record(n)), "{n} is not greater than 3");
    }
    assert!(writer.push(&record(5)), "of another shard");
    assert_eq!(writer.rows(), 3);
    assert!(writer.bytes() > 100);
    assert_eq!(writer.last(ShardId::FIRST), Some((record(3).id.epoch, 3)));
    let done = writer.commit(77).await.unwrap();
    // The third and fifth are of one folder.
    assert_eq!((done.files, done.rows), (2, 3));
    assert!(done.bytes > 1000);
    assert_eq!((writer.end(), writer.rows(), writer.bytes()), (Some(77), 0, 0));
    assert_eq!(writer.commit(77).await.unwrap(), Committed::default(), "nothing to say");
    // The third tells of no change, the second did.
    let tail = ShardTail { epoch: record(3).id.epoch, seq: 3, change: record(2).change };
    assert!(record(3).change.is_none() && record(2).change.is_some());
    assert_eq!(lake.tail(SOURCE, ShardId::FIRST).await.unwrap(), Some(tail));
    assert_eq!(lake.tail(SOURCE, ShardId::new(9)).await.unwrap(), None);
    // A later epoch counts anew.
    assert!(writer.push(&record(15)) && record(15).id.seq == record(5).id.seq);
    assert!(!writer.push(&record(10)));
}

#[tokio::test]
async fn only_the_newest_commits_are_kept() {
    let place = Arc::new(Place::default());
    let lake = Lake { commits_kept: 3, ..lake(Way::sound(&place, Renames::AtOnce).store()) };
    let mut writer = lake.resume(SOURCE).await.unwrap();
    for end in 1..=9 {
        writer.commit(end).await.unwrap();
    }
    let kept: Vec<String> = [8, 9, 10].iter().map(|n| format!("{SOURCE}/{n:020}.json")).collect();
    assert_eq!(place.others().await.get("_commits"), Some(&kept));
    let lake = Lake { commits_kept: 1, ..lake };
    assert_eq!(lake.resume(SOURCE).await.unwrap().end(), Some(9));
    let kept = vec![format!("{SOURCE}/{:020}.json", 11)];
    assert_eq!(place.others().await.get("_commits"), Some(&kept));
}

#[tokio::test]
async fn a_commit_that_is_not_understood_stops_the_writer() {
    use object_store::ObjectStoreExt;
    let place = Arc::new(Place::default());
    let lake = lake(Way::sound(&place, Renames::AtOnce).store());
    lake.resume(SOURCE).await.unwrap().commit(5).await.unwrap();
    let path = format!("_commits/{SOURCE}/{:020}.json", 2).into();
    let sound = place.inner.get(&path).await.unwrap().bytes().await.unwrap();
    let sound = String::from_utf8(sound.to_vec()).unwrap();
    for (from, to) in [("{", ""), (r#""v":1"#, r#""v":2"#), (r#""n":2"#, r#""n":3"#)] {
        assert!(sound.contains(from));
        let hurt = sound.replacen(from, to, 1);
        place.inner.put(&path, hurt.into_bytes().into()).await.unwrap();
        let error = lake.resume(SOURCE).await.unwrap_err();
        assert!(matches!(error, LakeError::Damaged { .. }), "{to}: {error:?}");
    }
    place.inner.put(&path, sound.into_bytes().into()).await.unwrap();
    assert_eq!(lake.resume(SOURCE).await.unwrap().end(), Some(5));
}

#[tokio::test]
async fn a_lake_in_a_folder_is_taken_up_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/deep/lake", folder.path().display());
    let options = LakeOptions::new(url.parse().unwrap());
    for n in 1..=20 {
        let lake = Lake::open(&options).unwrap();
        let mut writer = lake.resume("carillon.history-3").await.unwrap();
        assert_eq!(writer.end(), (n > 1).then(|| n - 1));
        assert!(n == 1 || !writer.push(&record(n - 1)));
        assert!(writer.push(&record(n)));
        writer.commit(n).await.unwrap();
    }
    let name = "deep/lake/app=00000000000000a1/event=message.created/day=2025-11-21/hour=10/\
                carillon.history-3-00000000000000000002.parquet";
    assert!(folder.path().join(name).exists());
    // What a process that was killed in the middle of a put leaves, and what may be another's.
    let root = folder.path().join("deep/lake");
    let left = [
        "_staging/carillon.history-3/00000000000000000041-00-0.parquet#1",
        "_commits/carillon.history-3/00000000000000000041.json#1",
    ];
    let later = "_staging/carillon.history-3/00000000000000000042-00-0.parquet#1";
    for name in left.iter().chain([&later]) {
        std::fs::write(root.join(name), "half").unwrap();
    }
    assert_eq!(
        Lake::open(&options).unwrap().resume("carillon.history-3").await.unwrap().end(),
        Some(20)
    );
    assert!(left.iter().all(|name| !root.join(name).exists()));
    assert!(root.join(later).exists());
}

#[test]
fn options_and_names_that_cannot_be_used_are_refused() {
    let sound = LakeOptions::new("s3://bucket".parse().unwrap());
    Lake::open(&sound).unwrap();
    for hurt in [
        LakeOptions { zstd_level: 23, ..sound.clone() },
        LakeOptions { file_rows_max: 0, ..sound.clone() },
        LakeOptions { row_group_rows_max: 0, ..sound.clone() },
    ] {
        Lake::open(&hurt).unwrap_err();
    }
    let lake = Lake::open(&sound).unwrap();
    for name in ["", ".", "..", "a/b", "A", "ö", &"x".repeat(101)] {
        assert!(matches!(lake.chain(name), Err(LakeError::SourceName(_))), "{name}");
    }
    lake.chain("carillon.history_x-3").unwrap();
}
