use carillon_world::{Epoch, Seq, ShardId};
use proptest::prelude::*;

use super::*;

const ENTROPY: Entropy = Entropy([7; 12]);

fn ring() -> KeyRing {
    ring_of(20_000, 19_600..=20_002)
}

fn ring_of(seal_day: u32, days: std::ops::RangeInclusive<u32>) -> KeyRing {
    let keys = days.flat_map(|day| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&day.to_be_bytes());
        [(Purpose::Session, day, key), (Purpose::Cursor, day, key.map(|byte| !byte))]
    });
    KeyRing::new(seal_day, keys)
}

fn position(seq: u64) -> Position {
    Position {
        shard: ShardId::FIRST,
        epoch: Epoch { number: 1_764_000_000_000, tag: u64::MAX },
        seq: Seq::new(seq),
    }
}

fn session() -> Session {
    Session { app: AppId::new(1), device: DeviceId::new(2), generation: position(3) }
}

fn cursor() -> Cursor {
    let (held, floor) = (Some(position(10)), Some(position(12)));
    Cursor { held, floor, fresh: true, digest: Some(99), volatile: None }
}

/// What version 1 sealed opens for as long as version 1 is accepted. The file holds text made with the keys above;
/// a change here means that every device in the field has to enrol again.
#[test]
fn what_was_sealed_in_the_field_opens() {
    let golden = include_str!("golden_v1.txt");
    let line = |name: &str| {
        let line =
            golden.lines().find(|line| line.starts_with(name)).expect("a line for each case");
        line.split_once(' ').expect("name and text").1.to_owned()
    };
    assert_eq!(open_session(&ring(), &line("session")), Ok(session()));
    let (app, device) = (AppId::new(1), DeviceId::new(2));
    assert_eq!(open_cursor(&ring(), app, device, &line("cursor-full")), Ok(cursor()));
    assert_eq!(open_cursor(&ring(), app, device, &line("cursor-empty")), Ok(Cursor::EMPTY));
}

#[test]
fn sealing_with_given_entropy_gives_the_golden_text() {
    let (app, device) = (AppId::new(1), DeviceId::new(2));
    let made = format!(
        "session {}\ncursor-full {}\ncursor-empty {}\n",
        seal_session(&ring(), ENTROPY, &session()).unwrap(),
        seal_cursor(&ring(), ENTROPY, app, device, &cursor()).unwrap(),
        seal_cursor(&ring(), ENTROPY, app, device, &Cursor::EMPTY).unwrap(),
    );
    expect_test::expect_file!["golden_v1.txt"].assert_eq(&made);
}

#[test]
fn elements_that_a_later_version_appended_are_ignored() {
    let body = rmp_serde::to_vec(&(
        Some(position(10)),
        Some(position(12)),
        true,
        Some(99u64),
        None::<u64>,
        "later",
        [1, 2],
    ))
    .unwrap();
    let (app, device) = (AppId::new(1), DeviceId::new(2));
    let text = seal(&ring(), Purpose::Cursor, &cursor_aad(app, device), ENTROPY, body).unwrap();
    assert_eq!(open_cursor(&ring(), app, device, &text), Ok(cursor()));
    let body = rmp_serde::to_vec(&(AppId::new(1), DeviceId::new(2), position(3), 0u8)).unwrap();
    let text = seal(&ring(), Purpose::Session, b"session", ENTROPY, body).unwrap();
    assert_eq!(open_session(&ring(), &text), Ok(session()));
}

#[test]
fn another_device_or_app_opens_nothing() {
    let (app, device) = (AppId::new(1), DeviceId::new(2));
    let text = seal_cursor(&ring(), ENTROPY, app, device, &cursor()).unwrap();
    assert_eq!(open_cursor(&ring(), app, DeviceId::new(3), &text), Err(OpenError::Forged));
    assert_eq!(open_cursor(&ring(), AppId::new(3), device, &text), Err(OpenError::Forged));
}

#[test]
fn a_cursor_is_no_session_and_a_session_no_cursor() {
    let (app, device) = (AppId::new(1), DeviceId::new(2));
    let text = seal_cursor(&ring(), ENTROPY, app, device, &cursor()).unwrap();
    assert!(open_session(&ring(), &text).is_err());
    let text = seal_session(&ring(), ENTROPY, &session()).unwrap();
    assert!(open_cursor(&ring(), app, device, &text).is_err());
}

#[test]
fn what_is_older_than_400_days_is_refused() {
    let old = ring_of(19_600, 19_600..=19_600);
    let text = seal_session(&old, ENTROPY, &session()).unwrap();
    assert_eq!(open_session(&ring(), &text), Ok(session()));
    let next_day = ring_of(20_001, 19_600..=20_003);
    assert_eq!(
        open_session(&next_day, &text),
        Err(OpenError::UnknownDay { day: 19_600, ahead: false })
    );
}

#[test]
fn a_day_that_no_key_here_reaches_is_told_apart() {
    let text = seal_session(&ring_of(20_003, 20_003..=20_003), ENTROPY, &session()).unwrap();
    assert_eq!(
        open_session(&ring(), &text),
        Err(OpenError::UnknownDay { day: 20_003, ahead: true })
    );
}

#[test]
fn an_empty_ring_seals_and_opens_nothing() {
    let text = seal_session(&ring(), ENTROPY, &session()).unwrap();
    assert_eq!(seal_session(&KeyRing::default(), ENTROPY, &session()), None);
    assert!(open_session(&KeyRing::default(), &text).is_err());
}

#[test]
fn truncated_text_is_refused_at_every_length() {
    let text = seal_session(&ring(), ENTROPY, &session()).unwrap();
    for end in 0..text.len() {
        assert!(open_session(&ring(), &text[..end]).is_err(), "{end} characters opened");
    }
    assert!(open_session(&ring(), &"A".repeat(SEALED_MAX + 1)).is_err());
}

proptest! {
    #[test]
    fn any_changed_character_is_refused(at in 0usize..1000, to in "[A-Za-z0-9_-]") {
        let (app, device) = (AppId::new(1), DeviceId::new(2));
        let mut text = seal_cursor(&ring(), ENTROPY, app, device, &cursor()).unwrap();
        let at = at % text.len();
        if text[at..=at] != to {
            text.replace_range(at..=at, &to);
            prop_assert!(open_cursor(&ring(), app, device, &text).is_err());
        }
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,200}") {
        prop_assert!(open_session(&ring(), &text).is_err());
    }

    #[test]
    fn what_is_sealed_opens(
        held in proptest::option::of(0u64..1 << 62), floor in proptest::option::of(0u64..1 << 62),
        fresh: bool, digest in proptest::option::of(any::<u64>()),
        volatile in proptest::option::of(any::<u64>()), entropy: [u8; 12], app: u64, device: u64,
    ) {
        let (held, floor) = (held.map(position), floor.map(position));
        let cursor = Cursor { held, floor, fresh, digest, volatile };
        let (app, device) = (AppId::new(app), DeviceId::new(device));
        let text = seal_cursor(&ring(), Entropy(entropy), app, device, &cursor).unwrap();
        prop_assert!(text.len() < SEALED_MAX / 4);
        prop_assert_eq!(open_cursor(&ring(), app, device, &text), Ok(cursor));
    }
}
