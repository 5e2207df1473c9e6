//! What is counted beside the changes: written as whole values, loaded back, wiped with its device and forgotten in
//! steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon_persist::{
    AnyStore, BookRow, Committed, CountRow, CountSpan, Erase, ForgetCounts, OldCounts, Store,
    StoreBatch, StoreError, Tallies, Tally,
};
use carillon_world::{AppId, Batch, Change, DeviceId, MessageId, Millis, Seq, ShardId};
use rand::Rng;

use crate::model::Generator;
use crate::suite::{DATABASE, batch_of, claim, options, side_rows};
use crate::{Bench, open};

const SPANS: [CountSpan; 4] =
    [CountSpan::Total, CountSpan::Minute, CountSpan::Hour, CountSpan::Day];
/// As long as one may be, and as short; nothing is folded or trimmed.
const COUNTERS: [&str; 4] = ["delivered", "Delivered", "failed:apns:it's \\ é", "x "];

type Books = BTreeMap<(AppId, DeviceId), (Seq, Arc<[u8]>)>;
type Counts = BTreeMap<(AppId, MessageId, CountSpan, Arc<str>, Millis), u64>;

async fn load(store: &mut AnyStore, shard: ShardId) -> (Books, Counts) {
    let (mut books, mut counts) = (Books::new(), Counts::new());
    let mut sink = |tally| match tally {
        Tally::Book(row) => {
            let before = books.insert((row.app, row.device), (row.held, row.marks));
            assert!(before.is_none(), "twice: {}", row.device);
        }
        Tally::Count(row) => {
            let key = (row.app, row.message, row.span, row.counter, row.at);
            assert!(counts.insert(key, row.n).is_none(), "twice");
        }
    };
    store.load_tallies(shard, &mut sink).await.unwrap();
    (books, counts)
}

fn marks(entries: &[(u64, u8)]) -> Arc<[u8]> {
    entries.iter().flat_map(|(id, bits)| id.to_be_bytes().into_iter().chain([*bits])).collect()
}

fn add(tallies: &Tallies, books: &mut Books, counts: &mut Counts) {
    for row in &tallies.books {
        books.insert((row.app, row.device), (row.held, row.marks.clone()));
    }
    for row in &tallies.counts {
        let key = (row.app, row.message, row.span, row.counter.clone(), row.at);
        counts.insert(key, row.n);
    }
}

pub(crate) async fn run(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(21);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let (mut books, mut counts) = load(&mut store, shard).await;
    assert!(books.is_empty() && counts.is_empty());
    let made = generator.devices(50, false);
    let devices: Vec<(AppId, DeviceId)> = made
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Device(row) => Some((row.app, row.id)),
            _ => None,
        })
        .collect();
    store.commit(&batch_of(shard, &opening, &made)).await.unwrap();
    let mut head = made.last();
    for round in 0..12 {
        let mut tallies = Tallies::default();
        for (app, device) in &devices {
            if generator.random.random_bool(0.5) {
                continue;
            }
            let held = Seq::new(generator.random.random_range(0..=head.get()));
            let from = generator.random.random_range(1..3_u64);
            let marks =
                marks(&[(from, generator.random.random()), (u64::MAX >> from, 1), (u64::MAX, 255)]);
            tallies.books.push(BookRow { app: *app, device: *device, held, marks });
        }
        for _ in 0..40 {
            let n = generator.random.random_range(0..3_usize);
            let span = SPANS[generator.random.random_range(0..4)];
            let at = Millis(generator.random.random_range(0..5) * 60_000);
            let counter = COUNTERS[generator.random.random_range(0..4)].into();
            let message = MessageId::new([1, 2, u64::MAX][n]);
            let row = CountRow { app: devices[0].0, message, span, at, counter, n: round };
            // The last of a key counts, also within one batch.
            tallies.counts.push(row);
        }
        let side = StoreBatch { tallies, ..side_rows(shard, opening.epoch, head) };
        // A repeat changes nothing.
        for _ in 0..2 {
            store.commit(&side).await.unwrap();
            add(&side.tallies, &mut books, &mut counts);
            assert_eq!(load(&mut store, shard).await, (books.clone(), counts.clone()));
        }
    }

    // A device that is gone leaves nothing, at once; one that comes back has its book of afterwards.
    let (gone, back) = (&devices[..10], devices[9]);
    let changes = gone.iter().map(|&(app, id)| Change::DeviceGone { app, id });
    let again = made
        .changes
        .iter()
        .find(|change| matches!(change, Change::Device(row) if (row.app, row.id) == back));
    let changes = changes.chain(again.cloned()).collect();
    let changes = Arc::new(Batch { first: head.next(), changes });
    head = changes.last();
    let mut batch = batch_of(shard, &opening, &changes);
    let (app, device) = back;
    let row = BookRow { app, device, held: head, marks: marks(&[(5, 1)]) };
    batch.tallies.books.push(row.clone());
    store.commit(&batch).await.unwrap();
    gone.iter().for_each(|device| drop(books.remove(device)));
    books.insert(back, (row.held, row.marks.clone()));
    assert_eq!(load(&mut store, shard).await.0, books);
    let mut step = side_rows(shard, opening.epoch, head);
    step.upkeep.erase = Some(Erase { devices: gone.to_vec(), rows_max: 10 });
    store.commit(&step).await.unwrap();
    assert_eq!(load(&mut store, shard).await.0, books);
    let rows = format!("SELECT COUNT(*) FROM device_books WHERE shard = {shard}");
    assert_eq!(bench.sql(DATABASE, &rows).trim(), books.len().to_string());

    // In steps of three, and nothing but what was asked for.
    let before = OldCounts::Before(CountSpan::Minute, Millis(120_000));
    let of = OldCounts::Of(vec![(app, MessageId::new(u64::MAX)), (app, MessageId::new(2))]);
    for which in [before, of] {
        let is_old = |key: &(AppId, MessageId, CountSpan, Arc<str>, Millis)| match &which {
            OldCounts::Before(span, at) => key.2 == *span && key.4 < *at,
            OldCounts::Of(messages) => messages.contains(&(key.0, key.1)),
        };
        let mut left = counts.keys().filter(|key| is_old(key)).count() as u64;
        assert!(left > 6, "{left}");
        while left > 0 {
            let mut step = side_rows(shard, opening.epoch, head);
            step.upkeep.forget_counts = Some(ForgetCounts { which: which.clone(), rows_max: 3 });
            let found = store.commit(&step).await.unwrap();
            let counts_forgotten = left.min(3);
            assert_eq!(found, Committed { counts_forgotten, ..Committed::default() });
            left -= counts_forgotten;
            let there = load(&mut store, shard).await.1;
            assert_eq!(there.keys().filter(|key| is_old(key)).count() as u64, left);
        }
        counts.retain(|key, _| !is_old(key));
        assert_eq!(load(&mut store, shard).await.1, counts);
    }

    // What cannot be a book is neither taken nor believed.
    for bad in [vec![0; 8], [marks(&[(2, 1)]), marks(&[(2, 1)])].concat()] {
        let mut side = side_rows(shard, opening.epoch, head);
        side.tallies.books.push(BookRow { marks: bad.into(), ..row.clone() });
        assert!(store.commit(&side).await.is_err());
    }
    for damage in ["held_seq = 9000000", "marks = X'00'"] {
        let damage = format!("UPDATE device_books SET {damage} WHERE shard = {shard}");
        bench.sql(DATABASE, &damage);
        let error = store.load_tallies(shard, &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { table: "device_books", .. }), "{error:?}");
    }
    // For an operator.
    for view in ["device_books_view", "message_counts_view"] {
        let rows = bench.sql(DATABASE, &format!("SELECT * FROM {view} WHERE shard = {shard}"));
        assert!(rows.contains(&app.to_string()), "{rows}");
    }
}
