//! An edge with too little memory for the world.

use super::*;

const WIDE: u64 = 4 << 20;

/// A receiver that may have worlds of so many bytes, and its central's sender.
fn pair(world_bytes_max: u64) -> Pair {
    let config = ReceiverConfig { world_bytes_max, ..ReceiverConfig::default() };
    let mut pair = Pair::new(WIDE);
    pair.receiver = Receiver::new(config, SHARD, token(), "e".into());
    pair.receiver.handle_connected(pair.now);
    pair
}

/// Runs until the link fails, which it must.
fn fault(pair: &mut Pair, central: &Central) -> ReceiveError {
    for _ in 0..STEPS_MAX {
        match pair.step(central) {
            Ok(true) => {}
            Ok(false) => panic!("the link came to rest"),
            Err(error) => return error,
        }
    }
    panic!("the link never comes to rest")
}

fn no_room(error: &ReceiveError) -> (u64, u64) {
    match error {
        ReceiveError::NoRoom { needed, available } => (*needed, *available),
        other => panic!("{other}"),
    }
}

#[test]
fn a_world_that_does_not_fit_is_refused_before_any_of_it_comes() {
    let central = Central::with_devices(1, 50);
    let needed = central.world.usage().total();
    let mut tight = pair(needed - 1);
    assert_eq!(no_room(&fault(&mut tight, &central)), (needed, needed - 1));
    assert!(!names(&tight.to_edge).contains(&"Chunk"));
    assert_eq!(tight.receiver.snapshot_partitions(), None, "nothing is kept of it");
    let mut enough = pair(needed);
    enough.run(&central);
    assert_eq!(enough.seq(), Some(central.world.seq()));
    assert_eq!(enough.receiver.world().expect("it is whole").usage(), central.world.usage());
}

#[test]
fn it_is_taken_as_soon_as_it_fits() {
    let mut central = Central::with_devices(1, 50);
    let mut pair = pair(central.world.usage().total() - 1);
    fault(&mut pair, &central);
    central.commit(vec![Change::DeviceGone { app: APP, id: DeviceId::new(7) }]);
    pair.reconnect(WIDE);
    pair.run(&central);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

/// A central of the release before says only how many rows will come.
#[test]
fn without_its_bytes_a_world_is_judged_by_its_counts() {
    let central = Central::with_devices(1, 50);
    let mut pair = pair(50 * 800 - 1);
    pair.receiver.handle_frame(pair.now, Frame::Alive, 0).unwrap_err();
    let hello = pair.receiver.poll_frame(pair.now).expect("the hello");
    let Frame::Hello(hello) = hello else { panic!("{hello:?}") };
    let old = Hello { versions: vec![1], ..hello };
    let mut sender = accepted(WIDE, old, &central, pair.now);
    let welcome = Frame::Welcome(Welcome {
        version: 1,
        shard: SHARD,
        lineage: central.world.lineage().clone(),
        window: WIDE,
    });
    let _ = pair.receiver.handle_frame(pair.now, welcome, 1).expect("a welcome");
    let begin = poll(&mut sender, pair.now, &central).expect("a snapshot begins");
    let Frame::SnapshotBegin(SnapshotBegin { bytes: None, .. }) = &begin else {
        panic!("{begin:?} in version 1")
    };
    let error = pair.receiver.handle_frame(pair.now, begin, 1).expect_err("too little");
    assert_eq!(no_room(&error), (50 * 800, 50 * 800 - 1));
}

#[test]
fn rows_beyond_what_was_announced_are_not_kept_either() {
    let central = Central::with_devices(1, 50);
    let needed = central.world.usage().total();
    let mut pair = pair(needed / 2);
    // What central announces is not what it sends.
    loop {
        if let Some(frame) = pair.receiver.poll_frame(pair.now) {
            if let Some(SenderEvent::Hello { .. }) =
                pair.sender.handle_frame(pair.now, frame).unwrap()
            {
                pair.sender.accept();
            }
            continue;
        }
        let mut frame =
            poll(&mut pair.sender, pair.now, &central).expect("it goes on to the fault");
        if let Frame::SnapshotBegin(begin) = &mut frame {
            begin.bytes = Some(1);
        }
        match pair.receiver.handle_frame(pair.now, frame, 1) {
            Ok(_) => assert!(pair.receiver.world().is_none()),
            Err(error) => {
                assert!(no_room(&error).0 > needed / 2);
                assert_eq!(pair.receiver.snapshot_partitions(), None);
                return;
            }
        }
    }
}

#[test]
fn a_batch_without_room_is_not_served_and_the_world_before_it_is() {
    let mut central = Central::with_devices(1 << 20, 50);
    let mut pair = pair(central.world.usage().total() + 100);
    pair.run(&central);
    let seq = pair.seq();
    central.commit_device(51, 500);
    let needed = central.world.usage().total();
    assert_eq!(no_room(&fault(&mut pair, &central)).0, needed);
    assert_eq!(pair.seq(), seq, "still served");
    // The next link judges by the whole again, and does not wait for the batch that had no room.
    pair.reconnect(WIDE);
    fault(&mut pair, &central);
    assert_eq!((names(&pair.to_edge).last(), pair.seq()), (Some(&"SnapshotBegin"), seq));
    central.commit(vec![Change::DeviceGone { app: APP, id: DeviceId::new(51) }]);
    pair.reconnect(WIDE);
    pair.run(&central);
    assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
}

#[test]
fn a_batch_that_shrinks_a_world_that_is_too_large_is_taken() {
    let mut central = Central::with_devices(1 << 20, 50);
    let mut pair = pair(u64::MAX);
    pair.run(&central);
    let config = ReceiverConfig { world_bytes_max: 1, ..ReceiverConfig::default() };
    pair.receiver.set_config(config);
    central.commit(vec![Change::DeviceGone { app: APP, id: DeviceId::new(7) }]);
    pair.run(&central);
    assert_eq!(pair.seq(), Some(central.world.seq()));
}

#[test]
fn the_world_served_gives_way_to_a_snapshot_only_where_both_have_no_room() {
    for (room, gives_way) in [(3, false), (1, true)] {
        let mut central = Central::with_devices(1 << 20, 50);
        let bytes = central.world.usage().total();
        let mut pair = pair(bytes * room + 1_000);
        pair.run(&central);
        // The log is gone, so a snapshot comes.
        central.restart(9);
        central.commit_device(1, 50);
        central.log = ChangeLog::new(1, central.world.seq());
        pair.reconnect(WIDE);
        pair.run(&central);
        let unserved = pair.actions.iter().any(|a| matches!(a, Action::Unserve(Unserved::NoRoom)));
        assert_eq!(unserved, gives_way, "{room}");
        assert_eq!(contents(pair.receiver.world().unwrap()), contents(&central.world));
    }
}
