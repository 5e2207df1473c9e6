//! One test for each rule of the stream.

use super::*;
use crate::{MessageId, MessageState};

const WIDE: u64 = 4 << 20;

/// An edge that is where central is, so that only batches flow.
fn following(window: u64, central: &Central, now: Instant) -> Sender {
    accepted(window, hello(Some(central.world.position()), None), central, now)
}

fn ack(seq: Seq) -> Frame {
    Frame::Ack(Progress { seq, chunks: 0 })
}

fn send_after(seq: Seq) -> Frame {
    Frame::SendAfter(Progress { seq, chunks: 0 })
}

#[test]
fn batches_that_fill_the_window_exactly_go_and_one_byte_more_awaits() {
    for (room, expected) in [
        (-1, vec!["Batch", "MoreAwaits"]),
        (0, vec!["Batch", "Batch", "MoreAwaits"]),
        (1, vec!["Batch", "Batch", "MoreAwaits"]),
    ] {
        let mut central = Central::with_devices(1 << 20, 0);
        let mut ahead = Central::with_devices(1 << 20, 0);
        let both = ahead.commit_device(1, 90) + ahead.commit_device(2, 200);
        let now = Instant::now();
        let mut sender = following(both.checked_add_signed(room).unwrap(), &central, now);
        for (id, bytes) in [(1, 90), (2, 200), (3, 10)] {
            central.commit_device(id, bytes);
        }
        assert_eq!(names(&poll_all(&mut sender, now, &central)), expected, "{room} bytes of room");
    }
}

#[test]
fn a_batch_larger_than_the_window_goes_alone() {
    let mut central = Central::with_devices(1 << 20, 0);
    let now = Instant::now();
    let mut sender = following(100, &central, now);
    central.commit_device(1, 5_000);
    central.commit_device(2, 5_000);
    assert_eq!(names(&poll_all(&mut sender, now, &central)), ["Batch", "MoreAwaits"]);
    assert!(sender.unacknowledged() > 5_000);
    sender.handle_frame(now, send_after(Seq::new(2))).unwrap();
    assert_eq!(names(&poll_all(&mut sender, now, &central)), ["Batch"]);
}

#[test]
fn more_awaits_and_send_after_alternate() {
    let mut central = Central::with_devices(1 << 20, 0);
    let now = Instant::now();
    let mut sender = following(100, &central, now);
    (1..=4).for_each(|id| {
        central.commit_device(id, 200);
    });
    for seq in 2..=4 {
        let frames = poll_all(&mut sender, now, &central);
        assert_eq!(names(&frames), ["Batch", "MoreAwaits"]);
        assert_eq!(frames[1], Frame::MoreAwaits(MoreAwaits { head: Seq::new(5) }));
        sender.handle_frame(now, ack(Seq::new(seq))).unwrap();
        assert_eq!(sender.unacknowledged(), 0);
        assert_eq!(poll(&mut sender, now, &central), None, "an Ack does not end the silence");
        sender.handle_frame(now, send_after(Seq::new(seq))).unwrap();
    }
    assert_eq!(names(&poll_all(&mut sender, now, &central)), ["Batch"]);
}

#[test]
fn a_lost_repeated_or_lower_acknowledgement_does_no_harm() {
    let mut central = Central::with_devices(1 << 20, 0);
    let now = Instant::now();
    let mut sender = following(WIDE, &central, now);
    let sizes: Vec<u64> = (1..=3).map(|id| central.commit_device(id, 40)).collect();
    poll_all(&mut sender, now, &central);
    sender.handle_frame(now, ack(Seq::new(3))).unwrap();
    assert_eq!(sender.unacknowledged(), sizes[2]);
    for seq in [3, 1, 0] {
        sender.handle_frame(now, ack(Seq::new(seq))).unwrap();
        assert_eq!(sender.unacknowledged(), sizes[2]);
    }
    assert_eq!(sender.acknowledged(), Some(Progress { seq: Seq::new(3), chunks: 0 }));
}

#[test]
fn an_acknowledgement_from_the_future_closes_the_link() {
    let mut central = Central::with_devices(1 << 20, 0);
    let now = Instant::now();
    let mut sender = following(WIDE, &central, now);
    central.commit_device(1, 40);
    let fault = sender.handle_frame(now, ack(Seq::new(2))).unwrap_err();
    assert!(matches!(fault, SenderError::AckOfUnsent { .. }), "committed is not sent");
    assert_eq!(poll(&mut sender, now, &central), None);

    let mut sender = following(WIDE, &central, now);
    let chunks = Frame::Ack(Progress { seq: Seq::new(2), chunks: 1 });
    assert!(matches!(sender.handle_frame(now, chunks), Err(SenderError::AckOfUnsent { .. })));
}

#[test]
fn small_frames_go_while_the_window_is_shut() {
    let mut central = Central::with_devices(1 << 20, 0);
    let now = Instant::now();
    let mut sender = following(1, &central, now);
    central.commit_device(1, 40);
    central.commit_device(2, 40);
    assert_eq!(names(&poll_all(&mut sender, now, &central)), ["Batch", "MoreAwaits"]);
    let request = Frame::Write(Envelope { id: 8, body: body("w") });
    assert!(matches!(
        sender.handle_frame(now, request),
        Ok(Some(SenderEvent::Write { id: 8, .. }))
    ));
    sender.queue_reply(8, body("r")).unwrap();
    sender.queue_keys(Keys { seal_day: 1, keys: vec![] });
    sender.queue_keys(Keys { seal_day: 2, keys: vec![] });
    let now = later(now, 5_000);
    assert_eq!(sender.poll_timeout(), now);
    assert_eq!(
        poll_all(&mut sender, now, &central),
        [
            Frame::Keys(Keys { seal_day: 2, keys: vec![] }),
            Frame::Reply(Envelope { id: 8, body: body("r") }),
            Frame::Heartbeat(Heartbeat { sent: Seq::new(2), head: Seq::new(3), clock: CLOCK }),
        ]
    );
    assert_eq!(sender.poll_timeout(), later(now, 5_000));
    central.begin_epoch(2, false);
    assert_eq!(names(&poll_all(&mut sender, now, &central)), ["Lineage"]);
}

#[test]
fn a_peer_that_is_not_accepted_gets_nothing_and_may_say_nothing() {
    let central = Central::with_devices(1 << 20, 3);
    let now = Instant::now();
    let new = || Sender::new(SenderConfig::default(), SHARD, now);
    let mut sender = new();
    assert_eq!(sender.frame_bytes_max(), UNKNOWN_PEER_FRAME_BYTES_MAX);
    assert!(matches!(
        sender.handle_frame(now, ack(Seq::ZERO)),
        Err(SenderError::Unexpected { frame: "Ack" })
    ));
    let mut sender = new();
    sender.handle_frame(now, Frame::Hello(hello(None, None))).unwrap();
    assert_eq!(poll(&mut sender, now, &central), None, "the shell has not looked at the token");
    assert_eq!(sender.frame_bytes_max(), UNKNOWN_PEER_FRAME_BYTES_MAX);
    sender.refuse(RefusalCode::TOKEN, "wrong token");
    let outgoing = sender.poll_frame(now, CLOCK, &central.log, &central.world).unwrap();
    assert!(outgoing.close);
    assert!(matches!(
        decode(&outgoing.bytes),
        Frame::Refused(Refused { code: RefusalCode::TOKEN, .. })
    ));
    assert_eq!(poll(&mut sender, now, &central), None);
    let request = Frame::Write(Envelope { id: 8, body: body("w") });
    assert!(
        sender.handle_frame(now, request).unwrap().is_none(),
        "what comes after the end is not heeded"
    );
}

#[test]
fn another_version_or_shard_is_refused_with_its_reason() {
    let central = Central::with_devices(1 << 20, 3);
    let now = Instant::now();
    let versions = Hello { versions: vec![7, 8], ..hello(None, None) };
    let shard = Hello { shard: ShardId::new(9), ..hello(None, None) };
    for (hello, code) in [(versions, RefusalCode::VERSION), (shard, RefusalCode::SHARD)] {
        let mut sender = Sender::new(SenderConfig::default(), SHARD, now);
        assert!(sender.handle_frame(now, Frame::Hello(hello)).unwrap().is_none());
        let outgoing = sender.poll_frame(now, CLOCK, &central.log, &central.world).unwrap();
        assert!(outgoing.close);
        assert!(matches!(decode(&outgoing.bytes), Frame::Refused(refused) if refused.code == code));
    }
}

#[test]
fn a_hello_that_makes_no_sense_closes_the_link() {
    let now = Instant::now();
    let stamps = |ranges| hello(None, Some(Stamps { epoch: epoch(1), ranges }));
    let at = Seq::new(1);
    let last = u16::try_from(Partition::COUNT).unwrap();
    for hello in [
        Hello { edge: "e".repeat(129), ..hello(None, None) },
        stamps(vec![(2, 1, at)]),
        stamps(vec![(0, 1, at), (1, 2, at)]),
        stamps(vec![(0, last, at)]),
        stamps(vec![(0, 0, at); 1_001]),
    ] {
        let mut sender = Sender::new(SenderConfig::default(), SHARD, now);
        assert!(matches!(
            sender.handle_frame(now, Frame::Hello(hello)),
            Err(SenderError::BadHello { .. })
        ));
    }
}

#[test]
fn writes_without_replies_are_bounded_at_both_ends() {
    let central = Central::with_devices(1 << 20, 1);
    let mut pair = Pair::new(WIDE);
    assert_eq!(pair.receiver.queue_write(0, body("w")), Err(WriteQueueFull), "no welcome yet");
    pair.run(&central);
    for id in 0..1024 {
        pair.receiver.queue_write(id, body("w")).unwrap();
    }
    assert_eq!(pair.receiver.queue_write(1024, body("w")), Err(WriteQueueFull));
    pair.run(&central);
    pair.sender.queue_reply(0, body("r")).unwrap();
    pair.run(&central);
    assert!(matches!(pair.actions.last(), Some(Action::Reply { id: 0, .. })));
    pair.receiver.queue_write(1024, body("w")).unwrap();
    pair.run(&central);
    let flood = Frame::Write(Envelope { id: 1025, body: body("w") });
    let fault = pair.sender.handle_frame(pair.now, flood).unwrap_err();
    assert_eq!(fault, SenderError::TooManyWrites { writes_max: 1024 });

    let mut idle = Pair::new(WIDE);
    idle.run(&central);
    assert_eq!(idle.sender.queue_reply(5, body("r")), Err(SenderError::ReplyUnasked));
}

#[test]
fn who_cannot_write_a_heartbeat_that_is_due_has_silence_to_wait_for() {
    let central = Central::with_devices(1 << 20, 1);
    let now = Instant::now();
    let sender = following(WIDE, &central, now);
    let due = later(now, 6_000);
    assert!(sender.poll_timeout() < due, "as long as it is not polled");
    assert_eq!(sender.silent_at(), later(now, 15_000));
    let (pair, _) = follower();
    assert!(pair.receiver.poll_timeout().is_some_and(|at| at < later(pair.now, 6_000)));
    assert_eq!(pair.receiver.silent_at(), Some(later(pair.now, 15_000)));
}

#[test]
fn a_silent_edge_is_given_up_and_a_heard_one_is_not() {
    let central = Central::with_devices(1 << 20, 1);
    let now = Instant::now();
    let mut sender = following(WIDE, &central, now);
    sender.handle_frame(later(now, 9_000), Frame::Alive).unwrap();
    assert_eq!(sender.handle_timeout(later(now, 23_999)), Ok(()));
    assert!(matches!(sender.handle_timeout(later(now, 24_000)), Err(SenderError::Silent(_))));
}

#[test]
fn an_edge_in_the_past_gets_the_changes_after_its_position_and_no_snapshot() {
    let mut central = Central::with_devices(1 << 20, 3);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    assert_eq!(names(&pair.to_edge), ["Welcome", "SnapshotBegin", "Chunk"]);
    pair.reconnect(WIDE);
    central.commit_device(9, 10);
    central.restart(5);
    // What the log of the process before had is gone, so this one needs a snapshot; the next does not.
    pair.run(&central);
    pair.reconnect(WIDE);
    central.commit_device(10, 10);
    pair.run(&central);
    assert_eq!(names(&pair.to_edge), ["Welcome", "Batch"]);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn an_edge_that_the_log_does_not_reach_gets_a_snapshot_and_serves_its_old_world_meanwhile() {
    let mut central = Central::with_devices(600, 3);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    let old = pair.receiver.world().unwrap().clone();
    pair.reconnect(WIDE);
    (10..30).for_each(|id| {
        central.commit_device(id, 40);
    });
    while !pair.to_edge.iter().any(|frame| matches!(frame, Frame::SnapshotBegin(_))) {
        assert!(pair.step(&central).unwrap());
    }
    assert!(Arc::ptr_eq(pair.receiver.world().unwrap(), &old));
    pair.run(&central);
    assert!(matches!(pair.actions[..], [Action::Publish { snapshot: true, .. }]));
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_slow_edge_that_the_log_left_behind_gets_a_snapshot_within_the_connection() {
    let mut central = Central::with_devices(600, 3);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    (10..30).for_each(|id| {
        central.commit_device(id, 40);
    });
    pair.to_edge.clear();
    pair.run(&central);
    assert_eq!(names(&pair.to_edge), ["SnapshotBegin", "Chunk"]);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn changes_during_a_walk_reach_the_partitions_that_were_sent_and_come_with_the_others() {
    let mut central = Central::with_devices(1 << 20, 40);
    let mut pair = Pair::new(1_600);
    let mut id = 100;
    while pair.step(&central).unwrap() {
        if pair.receiver.snapshot_partitions().is_some_and(|there| there > 0) && id < 110 {
            id += 1;
            let seq = central.world.seq().next();
            let gone = Change::DeviceGone { app: APP, id: DeviceId::new(id - 100) };
            central.commit(vec![
                device_row(id, "later", seq),
                device_row(id - 99, "edited", seq.next()),
                gone,
            ]);
        }
    }
    assert_eq!(id, 110);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
    assert!(
        matches!(pair.actions[..], [Action::Publish { snapshot: true, .. }, ..]),
        "nothing half was published"
    );
}

#[test]
fn a_purge_during_a_walk_raises_the_horizon_of_the_whole() {
    let mut central = Central::with_devices(1 << 20, 40);
    let mut pair = Pair::new(1_600);
    while pair.receiver.snapshot_partitions().is_none_or(|there| there == 0) {
        assert!(pair.step(&central).unwrap());
    }
    central.commit(vec![Change::Purge { horizon: Seq::new(9) }]);
    pair.run(&central);
    assert_eq!(pair.receiver.world().unwrap().horizon(), Seq::new(9));
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_partition_larger_than_a_chunk_goes_in_parts_without_a_batch_in_between() {
    let mut central = Central::with_devices(1 << 20, 0);
    // Apps share partition 0.
    (2..60).for_each(|id| {
        central.commit(vec![app_row(AppId::new(id), "another app")]);
    });
    let mut pair = Pair::new(1_600);
    let mut commits = 0;
    while pair.step(&central).unwrap() {
        if commits < 30 && matches!(pair.to_edge.last(), Some(Frame::Chunk(chunk)) if chunk.more) {
            commits += 1;
            central.commit(vec![app_row(AppId::new(100 + commits), "in between")]);
        }
    }
    let parts = pair
        .to_edge
        .iter()
        .filter(|frame| matches!(frame, Frame::Chunk(chunk) if chunk.more))
        .count();
    assert!(parts > 10, "{parts}");
    for frames in pair.to_edge.windows(2) {
        if let [Frame::Chunk(Chunk { more: true, .. }), next] = frames {
            assert!(!matches!(next, Frame::Batch(_)), "{next:?}");
        }
    }
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_part_of_a_partition_does_not_outlive_its_connection() {
    let mut central = Central::with_devices(1 << 20, 3_000);
    let mut pair = Pair::new(1_600);
    let cut = loop {
        assert!(pair.step(&central).unwrap(), "no two devices share a partition");
        let Some(Frame::Chunk(Chunk { from: 1.., more: true, rows, .. })) = pair.to_edge.last()
        else {
            continue;
        };
        if let Some(Row::Device(row)) = rows.last() {
            break row.id;
        }
    };
    pair.reconnect(1_600);
    central.commit(vec![Change::DeviceGone { app: APP, id: cut }]);
    pair.run(&central);
    assert!(matches!(&pair.to_edge[1], Frame::SnapshotBegin(begin) if begin.resumed));
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_walk_never_exceeds_the_window() {
    let central = Central::with_devices(1 << 20, 200);
    let now = Instant::now();
    let mut sender = accepted(1_600, hello(None, None), &central, now);
    let frames = poll_all(&mut sender, now, &central);
    assert_eq!(frames.last().map(Frame::name), Some("MoreAwaits"));
    assert!(
        sender.unacknowledged() <= 1_600 && sender.unacknowledged() > 1_200,
        "{}",
        sender.unacknowledged()
    );
}

#[test]
fn a_reconnect_goes_on_with_the_partitions_that_are_there() {
    let mut central = Central::with_devices(1 << 20, 200);
    let mut pair = Pair::new(3_200);
    let half = Partition::COUNT / 2;
    while pair.receiver.snapshot_partitions().is_none_or(|there| there < half) {
        assert!(pair.step(&central).unwrap());
    }
    let there = pair.receiver.snapshot_partitions().unwrap();
    pair.reconnect(3_200);
    central.commit_device(3, 20);
    pair.run(&central);
    let Some(Frame::SnapshotBegin(begin)) = pair.to_edge.get(1) else {
        panic!("{:?}", names(&pair.to_edge))
    };
    assert!(begin.resumed);
    let again = pair
        .to_edge
        .iter()
        .filter(|frame| matches!(frame, Frame::Chunk(chunk) if usize::from(chunk.from) < there));
    assert_eq!(again.count(), 0, "no partition was sent twice");
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_reconnect_after_the_log_was_trimmed_starts_the_walk_again() {
    let mut central = Central::with_devices(600, 200);
    let mut pair = Pair::new(3_200);
    while pair.receiver.snapshot_partitions().is_none_or(|there| there < Partition::COUNT / 2) {
        assert!(pair.step(&central).unwrap());
    }
    pair.reconnect(3_200);
    (1..30).for_each(|id| {
        central.commit_device(id, 20);
    });
    pair.run(&central);
    assert!(matches!(&pair.to_edge[1], Frame::SnapshotBegin(begin) if !begin.resumed));
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_reconnect_with_stamps_of_a_branch_that_was_cut_off_starts_from_scratch() {
    let mut central = Central::with_devices(1 << 20, 100);
    let backup = central.world.clone();
    (1..40).for_each(|id| {
        central.commit_device(id, 20);
    });
    let mut pair = Pair::new(3_200);
    while pair.receiver.snapshot_partitions().is_none_or(|there| there < Partition::COUNT / 2) {
        assert!(pair.step(&central).unwrap());
    }
    pair.reconnect(3_200);
    central.restore(&backup, 9);
    (50..99).for_each(|id| {
        central.commit_device(id, 30);
    });
    pair.run(&central);
    assert!(matches!(&pair.to_edge[1], Frame::SnapshotBegin(begin) if !begin.resumed));
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn stamps_that_only_partly_reach_the_log_keep_the_rest() {
    let mut central = Central::with_devices(600, 200);
    let reach = (1..)
        .find(|&seq| !matches!(central.log.after(Seq::new(seq)), crate::LogRead::Trimmed))
        .unwrap();
    central.commit_device(1, 1);
    let stamps =
        vec![(0, 2, Seq::new(reach)), (3, 5, Seq::new(reach + 3)), (6, 7, Seq::new(reach + 2))];
    let hello = hello(None, Some(Stamps { epoch: epoch(1), ranges: stamps }));
    let now = Instant::now();
    let mut sender = accepted(WIDE, hello, &central, now);
    let Some(Frame::SnapshotBegin(begin)) = poll(&mut sender, now, &central) else {
        panic!("no walk")
    };
    let kept = begin.from.get();
    assert!(begin.resumed && kept > reach && kept <= reach + 2, "{kept} {reach}");
    let frames = poll_all(&mut sender, now, &central);
    let Some(Frame::Batch(first)) = frames.first() else { panic!("{:?}", names(&frames)) };
    assert_eq!(first.batch.first, begin.from.next());
    let chunk = |frame: &Frame| {
        if let Frame::Chunk(chunk) = frame { Some((chunk.from, chunk.to)) } else { None }
    };
    let chunks: Vec<_> = frames.iter().filter_map(chunk).collect();
    assert_eq!(chunks[0], (0, 2));
    assert_eq!(chunks[1].0, 8);
}

#[test]
fn a_new_epoch_is_told_before_its_first_batch_and_resets_nobody() {
    let mut central = Central::with_devices(1 << 20, 3);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    pair.to_edge.clear();
    central.begin_epoch(4, false);
    central.commit_device(9, 10);
    pair.run(&central);
    assert_eq!(names(&pair.to_edge), ["Lineage", "Batch"]);
    assert!(!pair.actions.iter().any(|action| matches!(action, Action::Unserve(_))));
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_slow_edge_still_gets_the_batches_of_the_epoch_before() {
    let mut central = Central::with_devices(1 << 20, 3);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    central.commit_device(9, 10);
    central.begin_epoch(4, false);
    central.commit_device(10, 10);
    pair.to_edge.clear();
    pair.run(&central);
    assert_eq!(names(&pair.to_edge), ["Lineage", "Batch", "Batch"]);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn an_edge_that_is_cut_off_serves_nothing_until_it_has_the_restored_truth() {
    let mut central = Central::with_devices(1 << 20, 3);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    let backup = central.world.clone();
    central.commit_device(9, 10);
    pair.run(&central);
    central.restore(&backup, 8);
    central.commit_device(10, 90);
    pair.actions.clear();

    let outgoing = pair.sender.poll_frame(pair.now, CLOCK, &central.log, &central.world).unwrap();
    assert!(outgoing.close, "central closes: acknowledgements of two branches must not mix");
    let action = pair
        .receiver
        .handle_frame(pair.now, decode(&outgoing.bytes), outgoing.bytes.len())
        .unwrap();
    assert!(matches!(action, Action::Unserve(Unserved::CutOff)));
    assert!(pair.receiver.world().is_none());
    assert_eq!(poll(&mut pair.sender, pair.now, &central), None);
    pair.reconnect(WIDE);
    pair.run(&central);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn an_edge_that_was_away_during_a_restore_is_cut_off_by_the_welcome() {
    let mut central = Central::with_devices(1 << 20, 3);
    let backup = central.world.clone();
    central.commit_device(9, 10);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    central.restore(&backup, 8);
    central.commit_device(10, 90);
    central.commit_device(11, 90);
    pair.reconnect(WIDE);
    pair.run(&central);
    assert!(matches!(
        pair.actions[..],
        [Action::Unserve(Unserved::CutOff), Action::Publish { snapshot: true, .. }]
    ));
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_deposed_owner_is_refused_and_what_it_could_overwrite_stays() {
    let mut central = Central::with_devices(1 << 20, 3);
    let mut deposed = Central::with_devices(1 << 20, 3);
    central.begin_epoch(4, false);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    pair.reconnect(WIDE);
    deposed.commit_device(50, 10);
    let fault = loop {
        if let Err(fault) = pair.step(&deposed) {
            break fault;
        }
    };
    assert!(matches!(fault, ReceiveError::StaleLineage { .. }), "{fault:?}");
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_snapshot_from_before_what_is_served_in_the_same_lineage_is_refused() {
    let mut central = Central::with_devices(1 << 20, 3);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    pair.reconnect(WIDE);
    // The same history, but the store lost its end and nobody has declared that.
    central = Central::with_devices(1 << 20, 2);
    let fault = loop {
        if let Err(fault) = pair.step(&central) {
            break fault;
        }
    };
    assert!(matches!(fault, ReceiveError::Rollback { .. }), "{fault:?}");
    assert_eq!(pair.seq(), Some(Seq::new(4)), "what was served is served on");
}

/// An edge at seq 4 that follows.
fn follower() -> (Pair, Central) {
    let central = Central::with_devices(1 << 20, 3);
    let mut pair = Pair::new(WIDE);
    pair.run(&central);
    (pair, central)
}

fn batch_frame(of: Epoch, first: u64, devices: u64) -> Frame {
    let first = Seq::new(first);
    let changes = (0..devices).map(|k| device_row(900 + k, "x", first.plus(k))).collect();
    Frame::Batch(EpochBatch { epoch: of, batch: Batch { first, changes } })
}

#[test]
fn a_repeated_batch_is_ignored_and_a_gap_or_an_overlap_is_not() {
    let (mut pair, _) = follower();
    let now = pair.now;
    assert!(matches!(
        pair.receiver.handle_frame(now, batch_frame(epoch(1), 3, 2), 9),
        Ok(Action::Nothing)
    ));
    assert_eq!(pair.seq(), Some(Seq::new(4)));
    for (first, devices) in [(6, 1), (4, 2)] {
        let fault = pair.receiver.handle_frame(now, batch_frame(epoch(1), first, devices), 9);
        assert!(matches!(fault, Err(ReceiveError::Gap { .. })), "{fault:?}");
    }
    let applied = pair.receiver.handle_frame(now, batch_frame(epoch(1), 5, 2), 9);
    assert!(matches!(applied, Ok(Action::Publish { snapshot: false, .. })));
    assert_eq!(pair.seq(), Some(Seq::new(6)));
}

#[test]
fn a_batch_of_an_epoch_that_the_lineage_does_not_have_there_is_an_error() {
    let (mut pair, mut central) = follower();
    central.begin_epoch(4, false);
    pair.run(&central);
    for wrong in [epoch(1), epoch(3), epoch(9), Epoch { number: 4, tag: 1 }] {
        let fault = pair.receiver.handle_frame(pair.now, batch_frame(wrong, 5, 1), 9);
        assert!(matches!(fault, Err(ReceiveError::WrongEpoch { .. })), "{fault:?}");
    }
    assert!(pair.receiver.handle_frame(pair.now, batch_frame(epoch(4), 5, 1), 9).is_ok());
}

#[test]
fn a_heartbeat_tells_the_lag_and_whether_anything_was_lost() {
    let (mut pair, _) = follower();
    assert_eq!(pair.receiver.lag(), Some(0));
    let heartbeat = |sent, head| {
        Frame::Heartbeat(Heartbeat { sent: Seq::new(sent), head: Seq::new(head), clock: CLOCK })
    };
    assert!(pair.receiver.handle_frame(pair.now, heartbeat(4, 11), 9).is_ok());
    assert_eq!(pair.receiver.lag(), Some(7));
    let fault = pair.receiver.handle_frame(pair.now, heartbeat(5, 11), 9);
    assert!(matches!(fault, Err(ReceiveError::Lost { .. })));
}

#[test]
fn a_batch_that_does_not_apply_leads_to_a_snapshot_and_spoils_nothing() {
    let (mut pair, central) = follower();
    let state = MessageState::Recalled;
    let unknown = Change::MessageState { app: APP, id: MessageId::new(404), state };
    let batch =
        Batch { first: Seq::new(5), changes: vec![device_row(1, "half", Seq::new(5)), unknown] };
    let frame = Frame::Batch(EpochBatch { epoch: epoch(1), batch });
    let fault = pair.receiver.handle_frame(pair.now, frame, 9);
    assert!(matches!(fault, Err(ReceiveError::Apply(_))), "{fault:?}");
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
    pair.reconnect(WIDE);
    pair.run(&central);
    assert_eq!(names(&pair.to_edge), ["Welcome", "SnapshotBegin", "Chunk"]);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn an_acknowledgement_comes_after_50_ms_or_an_eighth_of_a_window() {
    let (mut pair, _) = follower();
    pair.now = later(pair.now, 50);
    while pair.receiver.poll_frame(pair.now).is_some() {}
    let now = pair.now;
    let eighth = usize::try_from(WIDE / 8).unwrap();
    let take = |edge: &mut Receiver, seq, bytes| {
        assert!(edge.handle_frame(now, batch_frame(epoch(1), seq, 1), bytes).is_ok());
    };
    take(&mut pair.receiver, 5, eighth - 1);
    assert_eq!(pair.receiver.poll_frame(later(now, 49)), None);
    assert_eq!(pair.receiver.poll_timeout(), Some(later(now, 50)));
    let upto = |seq| Some(Frame::Ack(Progress { seq: Seq::new(seq), chunks: 1 }));
    assert_eq!(pair.receiver.poll_frame(later(now, 50)), upto(5));
    assert_eq!(pair.receiver.poll_frame(later(now, 51)), None);
    take(&mut pair.receiver, 6, eighth - 1);
    assert_eq!(pair.receiver.poll_frame(now), None);
    take(&mut pair.receiver, 7, 1);
    assert_eq!(pair.receiver.poll_frame(now), upto(7));
}

#[test]
fn an_edge_says_send_after_once_for_each_more_awaits() {
    let (mut pair, _) = follower();
    let now = pair.now;
    let upto = |seq| Some(Frame::SendAfter(Progress { seq: Seq::new(seq), chunks: 1 }));
    assert!(pair.receiver.handle_frame(now, batch_frame(epoch(1), 5, 1), 9).is_ok());
    assert!(
        pair.receiver
            .handle_frame(now, Frame::MoreAwaits(MoreAwaits { head: Seq::new(40) }), 9)
            .is_ok()
    );
    assert_eq!(pair.receiver.poll_frame(now), upto(5));
    assert_eq!(pair.receiver.poll_frame(later(now, 60)), None, "it was an Ack too");
    assert_eq!(pair.receiver.lag(), Some(35));
}

#[test]
fn an_edge_that_hears_nothing_is_not_live_but_keeps_its_world() {
    let (mut pair, central) = follower();
    let now = pair.now;
    assert!(pair.receiver.live(later(now, 14_999)));
    assert!(!pair.receiver.live(later(now, 15_000)));
    pair.receiver.handle_disconnected();
    assert!(!pair.receiver.live(now));
    assert_eq!(pair.receiver.poll_timeout(), None);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
    pair.receiver.handle_connected(now);
    assert!(!pair.receiver.live(now), "not before the welcome");
}

#[test]
fn an_edge_says_that_it_is_there() {
    let (mut pair, _) = follower();
    let at = later(pair.now, 5_000);
    while pair.receiver.poll_frame(later(pair.now, 4_999)).is_some() {}
    assert_eq!(pair.receiver.poll_timeout(), Some(at));
    assert_eq!(pair.receiver.poll_frame(at), Some(Frame::Alive));
    assert_eq!(pair.receiver.poll_frame(at), None);
}

#[test]
fn a_broken_walk_is_refused() {
    let central = Central::with_devices(1 << 20, 3);
    let walking = || {
        let mut pair = Pair::new(WIDE);
        while !pair.to_edge.iter().any(|frame| matches!(frame, Frame::SnapshotBegin(_))) {
            assert!(pair.step(&central).unwrap());
        }
        pair
    };
    let chunk = |from, to, stamp, more, rows| {
        Frame::Chunk(Chunk { from, to, stamp: Seq::new(stamp), more, rows })
    };
    let row = contents(&central.world)
        .3
        .concat()
        .into_iter()
        .find(|row| matches!(row, Row::Device(_)))
        .unwrap();
    let elsewhere = row.partition().get() + 1;
    for frames in [
        vec![chunk(0, 0, 3, false, vec![])],
        vec![chunk(elsewhere, elsewhere, 4, false, vec![row])],
        vec![chunk(0, 0, 4, true, vec![]), chunk(1, 1, 4, false, vec![])],
        vec![chunk(0, 0, 4, true, vec![]), chunk(0, 0, 5, false, vec![])],
        vec![chunk(0, 0, 4, true, vec![]), batch_frame(epoch(1), 5, 1)],
    ] {
        let mut pair = walking();
        let now = pair.now;
        let outcomes: Vec<_> =
            frames.into_iter().map(|frame| pair.receiver.handle_frame(now, frame, 9)).collect();
        assert!(
            matches!(outcomes.last(), Some(Err(ReceiveError::BrokenWalk { .. }))),
            "{outcomes:?}"
        );
    }
    let mut pair = Pair::new(WIDE);
    pair.step(&central).unwrap();
    pair.step(&central).unwrap();
    let batch = pair.receiver.handle_frame(pair.now, batch_frame(epoch(1), 5, 1), 9);
    assert!(
        matches!(batch, Err(ReceiveError::Unexpected { .. })),
        "there is nothing to apply it to"
    );
}

#[test]
fn a_world_ahead_of_its_log_gives_chunks_to_which_the_log_adds_nothing_twice() {
    let mut central = Central::with_devices(1 << 20, 60);
    let mut pair = Pair::new(1_600);
    while pair.receiver.snapshot_partitions().is_none_or(|there| there < 10) {
        assert!(pair.step(&central).unwrap());
    }
    let changes = (1..=30).map(|id| device_row(id, "ahead", Seq::new(70))).collect();
    let held_back = central.apply(changes);
    pair.run(&central);
    assert_eq!(pair.seq(), None, "the partitions are not at one seq");
    central.log.push(held_back);
    pair.run(&central);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}
