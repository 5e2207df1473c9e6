//! Endpoints as the writer decides them, and what their rows cost everybody else: nothing.

use carillon_persist::{
    BatchCallbacks, CallbackEvent, CallbackId, CallbackLogRow, CallbackRetry, CallbackState,
    SealedSecret,
};

use super::*;
use crate::core::callback::delivery::Report;
use crate::core::callback::state::Endpoint;
use crate::core::write::{CallbackReport, CallbackWrite, CreateCallback, Missed, PatchCallback};

const ID: CallbackId = CallbackId::new(7);

fn bench(endpoints_max: usize) -> Bench {
    let history = Some(HistoryConfig { outbox_bytes_max: 1 << 20, attributes: false });
    let callbacks = CallbackLimits { endpoints_max };
    let config = WriterConfig { history, callbacks, ..WriterConfig::default() };
    let mut bench =
        Bench::configured(config, World::empty(ShardId::FIRST, lineage(&[(1, 0)])), Vec::new());
    bench.app(APP, KEY);
    bench
}

fn write(write: CallbackWrite) -> Write {
    Write::Callback(Box::new(write))
}

fn secret(byte: u8) -> SealedSecret {
    SealedSecret { sealed: vec![byte].into(), until: None }
}

fn creation(id: u64) -> Write {
    creation_in(APP, id)
}

fn creation_in(app: AppId, id: u64) -> Write {
    write(CallbackWrite::Create(CreateCallback {
        app,
        id: CallbackId::new(id),
        url: "https://a.example/".into(),
        events: "message.*".into(),
        description: "".into(),
        secret: secret(1),
    }))
}

fn patch(active: Option<bool>) -> Write {
    let (url, events, description) = (None, None, None);
    write(CallbackWrite::Patch(PatchCallback {
        app: APP,
        id: ID,
        url,
        events,
        description,
        active,
    }))
}

fn endpoint(bench: &Bench) -> Endpoint {
    endpoint_of(bench, ID)
}

fn endpoint_of(bench: &Bench, id: CallbackId) -> Endpoint {
    bench.writer.ledger.committed.callbacks.get(id).unwrap().clone()
}

fn report(bench: &Bench, run: u32, cursor: u64, pause: Option<CallbackState>) -> Write {
    let retry =
        |event| CallbackRetry { event, attempts: 4, began: bench.now, due: bench.now.plus(9) };
    let report = Report {
        cursor,
        retries: vec![retry(cursor - 1), retry(cursor)],
        delivered: 5,
        failed: 1,
        missed: 0,
        last_success_at: Some(bench.now),
        last_failure_at: None,
        failing_since: Some(bench.now),
        last_error: None,
        pause,
    };
    write(CallbackWrite::Report(CallbackReport { id: ID, run, report }))
}

fn logged(n: u64) -> CallbackLogRow {
    let event = CallbackEvent { n, at: Millis(1), id: "i", kind: "message.created", body: "{}" };
    let payload = CallbackEvent::write(&[event]);
    CallbackLogRow { app: APP, first: n, last: n, first_at: Millis(1), payload }
}

#[test]
fn an_endpoint_hears_of_what_comes_after_it_and_reports_of_runs_that_are_over_do_not_count() {
    let mut bench = bench(2);
    let Reply::Callback(made) = bench.ok(creation(7)) else { panic!("an endpoint") };
    let events = bench.writer.ledger.committed.events;
    assert_eq!((made.progress.cursor, made.row.run), (events, 1));
    assert_eq!(
        bench.code(write(CallbackWrite::Delete { app: AppId::new(9), id: ID })),
        "not-found"
    );

    bench.ok(report(&bench, 1, events + 5, None));
    let of = endpoint(&bench);
    assert_eq!((of.progress.cursor, of.progress.delivered), (events + 5, 5));
    bench.ok(report(&bench, 9, events + 8, None));
    assert_eq!(endpoint(&bench).progress, of.progress, "not of this run");

    // Nothing succeeds: it is paused, and a later report of the same run changes nothing.
    bench.ok(report(&bench, 1, events + 6, Some(CallbackState::Failing)));
    assert_eq!(endpoint(&bench).row.state, CallbackState::Failing);
    bench.ok(report(&bench, 1, events + 9, None));
    assert_eq!(endpoint(&bench).progress.cursor, events + 6);

    // It goes on with what waits, at once.
    bench.now = bench.now.plus(1_000);
    bench.ok(patch(Some(true)));
    let of = endpoint(&bench);
    assert_eq!((of.row.state, of.progress.failing_since), (CallbackState::Active, None));
    assert!(of.progress.retries.iter().all(|of| (of.began, of.due) == (bench.now, bench.now)));
    let run = of.row.run;
    bench.ok(patch(Some(true)));
    assert_eq!(endpoint(&bench).row.run, run, "nothing changed");

    // From an earlier event on: what had failed after it comes again by itself.
    let back = events + 5;
    bench.ok(write(CallbackWrite::Replay { app: APP, id: ID, cursor: back }));
    let of = endpoint(&bench);
    let retries: Vec<u64> = of.progress.retries.iter().map(|retry| retry.event).collect();
    assert_eq!((of.progress.cursor, retries, of.row.run), (back, vec![back], run + 1));

    bench.ok(creation(8));
    assert_eq!(bench.code(creation(9)), "too-many-callbacks");
    bench.ok(write(CallbackWrite::Delete { app: APP, id: ID }));
    assert!(bench.writer.ledger.committed.callbacks.get(ID).is_none());
    assert_eq!(bench.code(patch(None)), "not-found");
    bench.ok(report(&bench, run + 1, back, None));
}

#[test]
fn a_secret_ends_at_the_time_it_was_given_and_no_fourth_is_used() {
    let mut bench = bench(1);
    bench.ok(creation(7));
    let rotate = |byte, until| {
        write(CallbackWrite::Rotate { app: APP, id: ID, secret: secret(byte), until })
    };
    let secrets = |bench: &Bench| {
        let row = endpoint(bench).row;
        row.secrets.iter().map(|of| (of.sealed[0], of.until)).collect::<Vec<_>>()
    };
    let (now, later) = (bench.now, bench.now.plus(500));
    bench.ok(rotate(2, later));
    assert_eq!(secrets(&bench), [(2, None), (1, Some(later))]);
    // As after an answer that was lost: what the endpoint works with is used as long as was said.
    bench.ok(rotate(3, later.plus(900)));
    let expected = [(3, None), (2, Some(later.plus(900))), (1, Some(later))];
    assert_eq!(secrets(&bench), expected);
    // No fourth; and none is used for longer than was said last.
    bench.ok(rotate(4, later.plus(100)));
    let end = Some(later.plus(100));
    assert_eq!(secrets(&bench), [(4, None), (3, end), (2, end)]);
    bench.ok(rotate(5, now));
    assert_eq!(secrets(&bench), [(5, None)], "at once");
}

#[test]
fn the_log_takes_each_event_once_and_forgetting_moves_who_is_behind() {
    let mut bench = bench(2);
    bench.ok(creation(7));
    let cursor = endpoint(&bench).progress.cursor;
    let log = |n: u64| write(CallbackWrite::Log { rows: [logged(n)].into(), through: n });
    bench.write(log(cursor + 1));
    let batch = bench.batch().unwrap().history.callbacks;
    assert_eq!((batch.log.len(), batch.logged), (1, Some(cursor + 1)));
    // It was not committed: it comes again, with more, and once more.
    bench.refused();
    bench.ok(log(cursor + 2));
    bench.write(log(cursor + 2));
    assert!(bench.batch().is_none(), "it is there");
    let bytes = logged(1).payload.len() as u64;
    assert_eq!(bench.writer.ledger.committed.callbacks.log_bytes, bytes);
    assert_eq!(bench.writer.ledger.committed.callbacks.last(APP), cursor + 2);

    // Each goes on after what went of its own app's, and one that was deleted meanwhile is passed over.
    let (other, their_id) = (AppId::new(0xb), CallbackId::new(8));
    bench.app(other, "pk_b");
    bench.ok(creation_in(other, 8));
    let theirs = endpoint_of(&bench, their_id).progress.cursor;
    let missed = vec![
        Missed { id: ID, events: 1, through: theirs + 9 },
        Missed { id: their_id, events: 3, through: theirs + 4 },
        Missed { id: CallbackId::new(1), events: 9, through: theirs + 9 },
    ];
    bench.ok(write(CallbackWrite::Forget { through: cursor + 2, bytes, missed }));
    let of = endpoint(&bench).progress;
    assert_eq!((of.cursor, of.missed), (theirs + 9, 1));
    let of = endpoint_of(&bench, their_id).progress;
    assert_eq!((of.cursor, of.missed), (theirs + 4, 3));
    assert_eq!(bench.writer.ledger.committed.callbacks.log_bytes, 0);
}

#[test]
fn a_write_of_a_caller_costs_nothing_more_with_callbacks_and_none_is_made_without_a_history() {
    let mut bench = bench(10);
    bench.ok(creation(7));
    for write in [import(vec![line(1, 5, "KE")]), create(message(1)), group(5, "vip")] {
        bench.write(write);
        while let Some(batch) = bench.batch() {
            assert_eq!(batch.history.callbacks, BatchCallbacks::default());
            bench.committed();
        }
    }
    let mut silent = Bench::with_app();
    assert_eq!(silent.code(creation(7)), "callbacks-off");
}
