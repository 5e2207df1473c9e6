use std::sync::Arc;
use std::time::Instant;

use carillon_world::{Change, Position};

use super::super::fixture::{
    APP, DEVICE, HEAD, OTHER, OTHER_APP, VIP, after, device, message, message_of, position, recall,
    vip, world,
};
use super::*;

const DEVICES: [(AppId, DeviceId); 3] = [(APP, DEVICE), (APP, OTHER), (OTHER_APP, DEVICE)];

fn park(world: &World, app: AppId, device: DeviceId) -> Park {
    let row = world.app(app).and_then(|a| a.device(device)).expect("the device is there").clone();
    Park { app, device, until: Instant::now(), awaits: Awaits::News(row) }
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
