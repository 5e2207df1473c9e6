use std::sync::Arc;
use std::time::Instant;

use carillon_world::{Change, Millis, Position};

use super::super::fixture::{
    APP, DEVICE, HEAD, OTHER, OTHER_APP, VIP, after, device, message, message_of, position, recall,
    vip, world,
};
use super::*;

const DEVICES: [(AppId, DeviceId); 3] = [(APP, DEVICE), (APP, OTHER), (OTHER_APP, DEVICE)];

fn park(world: &World, app: AppId, device: DeviceId) -> Park {
    let row = world.app(app).and_then(|a| a.device(device)).expect("the device is there").clone();
    let volatile = volatile_digest(world, &row);
    Park { app, device, until: Instant::now(), awaits: Awaits::News { device: row, volatile } }
}

fn wait_for(awaits: Awaits) -> Park {
    Park { app: APP, device: DEVICE, until: Instant::now(), awaits }
}

/// One poll of each device, parked, each with its place in [`DEVICES`] as waiter.
fn parked(world: &World) -> Parking<usize> {
    let mut parking = Parking::new(100, 4);
    for (n, (app, device)) in DEVICES.into_iter().enumerate() {
        parking.park(&park(world, app, device), n).expect("there is room");
    }
    parking
}

/// Whom the changes wake, in the order of [`DEVICES`].
fn woken(world: &World, changes: Vec<Change>) -> Vec<usize> {
    let mut parking = parked(world);
    let (next, applied) = after(world, changes);
    let mut woken: Vec<_> = parking
        .woken_by(&next, &applied)
        .into_iter()
        .filter_map(|ticket| parking.remove(ticket))
        .collect();
    woken.sort_unstable();
    woken
}

#[test]
fn a_message_wakes_exactly_those_whom_it_addresses() {
    let w = world();
    assert_eq!(woken(&w, vec![message(1, &vip())]), [0]);
    assert_eq!(woken(&w, vec![message(1, "all")]), [0, 1]);
    assert_eq!(woken(&w, vec![message_of(OTHER_APP, 1, "all", "1")]), [2]);
    assert_eq!(woken(&w, vec![message(1, "not all")]), [0; 0]);
}

#[test]
fn an_edit_or_a_recall_wakes_those_who_had_it() {
    let (w, _) = after(&world(), vec![message(1, &vip())]);
    assert_eq!(woken(&w, vec![message(1, "not all")]), [0]);
    assert_eq!(woken(&w, vec![recall(1)]), [0]);
    assert_eq!(woken(&w, vec![message(1, "all")]), [0, 1]);
}

#[test]
fn a_device_that_changed_or_is_gone_is_woken_alone() {
    let w = world();
    assert_eq!(woken(&w, vec![Change::Device(Arc::new(device(APP, OTHER, &[VIP])))]), [1]);
    assert_eq!(woken(&w, vec![Change::DeviceGone { app: APP, id: DEVICE }]), [0]);
}

#[test]
fn a_request_is_woken_once_for_several_changes() {
    let w = world();
    let parking = parked(&w);
    let (next, applied) = after(&w, vec![message(1, "all"), message(2, "all"), message(3, &vip())]);
    assert_eq!(parking.woken_by(&next, &applied).len(), 2);
}

#[test]
fn what_waits_for_a_world_is_woken_when_it_is_there() {
    let w = world();
    let mut parking = Parking::new(10, 4);
    let next =
        parking.park(&wait_for(Awaits::Position(position(HEAD + 1))), 0).expect("room").ticket;
    let later =
        parking.park(&wait_for(Awaits::Position(position(HEAD + 2))), 1).expect("room").ticket;
    let epoch = carillon_world::Epoch { number: 5000, tag: 1 };
    parking.park(&wait_for(Awaits::Position(Position { epoch, ..position(1) })), 2).expect("room");
    assert_eq!(parking.woken_by_world(&w), []);
    let (w, applied) = after(&w, vec![message_of(OTHER_APP, 1, "all", "1")]);
    assert_eq!(parking.woken_by(&w, &applied), [next]);
    let (w, applied) = after(&w, vec![message_of(OTHER_APP, 2, "all", "1")]);
    assert_eq!(
        parking.woken_by(&w, &applied),
        [next, later],
        "who was not taken out is woken again"
    );
}

#[test]
fn the_link_wakes_those_who_wait_for_it_or_for_a_world_and_not_those_who_wait_for_news() {
    let w = world();
    let mut parking = parked(&w);
    let link = parking.park(&wait_for(Awaits::Link), 9).expect("room").ticket;
    let (next, applied) = after(&w, vec![message(1, "all")]);
    assert!(!parking.woken_by(&next, &applied).contains(&link), "a publish alone does not tell");
    assert_eq!(parking.woken_by_link(), [link]);
    assert_eq!(parking.all().len(), 4);
}

#[test]
fn the_oldest_poll_of_a_device_gives_way_and_others_are_not_concerned() {
    let w = world();
    let mut parking = Parking::new(100, 2);
    let own = park(&w, APP, DEVICE);
    parking.park(&park(&w, APP, OTHER), 99).expect("room");
    assert_eq!(parking.park(&own, 1).expect("room").evicted, None);
    assert_eq!(parking.park(&own, 2).expect("room").evicted, None);
    assert_eq!(parking.park(&own, 3).expect("room").evicted, Some(1));
    assert_eq!(parking.park(&own, 4).expect("room").evicted, Some(2));
    assert_eq!(parking.len(), 3);
}

#[test]
fn a_full_registry_refuses_but_a_device_may_replace_its_own() {
    let w = world();
    let mut parking = Parking::new(2, 1);
    parking.park(&park(&w, APP, DEVICE), 1).expect("room");
    let other = parking.park(&park(&w, APP, OTHER), 2).expect("room").ticket;
    assert_eq!(
        parking.park(&park(&w, OTHER_APP, DEVICE), 3).expect_err("full"),
        Full { places: 2 }
    );
    assert_eq!(parking.park(&park(&w, APP, DEVICE), 4).expect("in its own place").evicted, Some(1));
    assert_eq!(parking.remove(other), Some(2));
    parking.park(&park(&w, OTHER_APP, DEVICE), 5).expect("there is room again");
}

#[test]
fn a_ticket_is_good_once_even_when_its_place_is_taken_again() {
    let w = world();
    let mut parking = Parking::new(1, 1);
    let first = parking.park(&park(&w, APP, DEVICE), 1).expect("room").ticket;
    assert_eq!(parking.remove(first), Some(1));
    assert_eq!(parking.remove(first), None);
    parking.park(&park(&w, APP, OTHER), 2).expect("room");
    assert_eq!(parking.remove(first), None, "the place belongs to another");
    assert_eq!(parking.len(), 1);
    assert!(!parking.is_empty());
}

#[test]
fn who_is_woken_together_is_woken_in_the_order_of_places() {
    let mut parking = Parking::new(100, 100);
    let places: Vec<Ticket> = (0..50)
        .map(|n| parking.park(&wait_for(Awaits::Link), n).expect("there is room").ticket)
        .collect();
    assert_eq!(parking.woken_by_link(), places);
}

/// A world of which the clock runs, with a message to whoever was seen in the last two hours.
fn ticking() -> World {
    let to_seen = message(1, "last_seen within 2h");
    after(&world(), vec![clock(1_000), to_seen]).0
}

fn clock(hours: u64) -> Change {
    Change::Clock { at: Millis(hours * HOUR) }
}

fn seen(hours: u64, devices: &[DeviceId]) -> Change {
    Change::Seen { app: APP, at: Millis(hours * HOUR), devices: devices.to_vec() }
}

const HOUR: u64 = 60 * 60 * 1000;

/// Who is woken by a sweep, in parts of so many evaluations, and in how many parts.
fn swept(parking: &mut Parking<usize>, world: &World, evaluations: u64) -> (Vec<usize>, usize) {
    let (mut woken, mut parts) = (Vec::new(), 0);
    parking.begin_sweep();
    while parking.is_sweeping() {
        parts += 1;
        for ticket in parking.sweep(world, evaluations) {
            woken.extend(parking.remove(ticket));
        }
    }
    (woken, parts)
}

#[test]
fn a_report_wakes_those_for_whom_it_alters_something_and_nobody_else() {
    let w = ticking();
    assert_eq!(woken(&w, vec![seen(1_000, &[DEVICE])]), [0], "comes in");
    assert_eq!(woken(&w, vec![seen(900, &[DEVICE, OTHER])]), [0; 0], "still out");
    let (w, _) = after(&w, vec![seen(1_000, &[DEVICE])]);
    assert_eq!(woken(&w, vec![seen(1_001, &[DEVICE])]), [0; 0], "still in");
    assert_eq!(woken(&world(), vec![seen(1_000, &[DEVICE])]), [0; 0], "nothing volatile");
}

#[test]
fn a_tick_wakes_those_who_come_in_or_fall_out_and_nobody_else() {
    let (w, _) = after(&ticking(), vec![seen(1_000, &[DEVICE])]);
    let mut parking = parked(&w);
    let (same, applied) = after(&w, vec![clock(1_001)]);
    assert_eq!(parking.woken_by(&same, &applied), []);
    assert_eq!(swept(&mut parking, &same, u64::MAX), (vec![], 1));
    let (late, _) = after(&same, vec![clock(1_003)]);
    assert_eq!(swept(&mut parking, &late, u64::MAX), (vec![0], 1));
    let ahead = message(2, "not last_seen < now - 5h");
    let (w, _) = after(&late, vec![ahead, seen(1_000, &[DEVICE, OTHER])]);
    let mut parking = parked(&w);
    let (out, _) = after(&w, vec![clock(1_006)]);
    assert_eq!(swept(&mut parking, &out, u64::MAX), (vec![0, 1], 1));
}

#[test]
fn a_sweep_goes_in_parts_and_looks_at_everybody_once() {
    let (w, _) = after(&ticking(), vec![seen(1_000, &[DEVICE, OTHER])]);
    let (late, _) = after(&w, vec![clock(1_003)]);
    let mut parking = parked(&w);
    let first = parking.sweep(&late, 1);
    assert!(first.is_empty() && !parking.is_sweeping(), "nothing ticked");
    assert_eq!(swept(&mut parking, &late, 1), (vec![0, 1], 3));
    // A tick within a sweep begins it anew, where it is.
    let mut parking = parked(&w);
    parking.begin_sweep();
    assert_eq!(parking.sweep(&w, 1), []);
    let (woken, parts) = swept(&mut parking, &late, 1);
    assert_eq!((woken, parts), (vec![1, 0], 3));
}

/// An edit that changes nobody's truth by the clock of now may still take something from those who had it.
#[test]
fn a_change_of_a_volatile_message_wakes_who_had_it() {
    let (w, _) = after(&ticking(), vec![seen(1_000, &[DEVICE])]);
    assert_eq!(woken(&w, vec![clock(1_005), message(1, "not all")]), [0]);
    assert_eq!(woken(&w, vec![clock(1_005), recall(1)]), [0]);
    assert_eq!(woken(&w, vec![recall(1)]), [0]);
}
