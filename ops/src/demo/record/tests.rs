use std::time::Duration;

use super::*;
use crate::fleet::Traits;

fn profile(country: Option<&'static str>, groups: &[u16]) -> Profile {
    let traits = Traits {
        platform: "ios",
        country,
        locale: "sv-SE",
        app_version: None,
        premium: None,
        age: None,
    };
    Profile { traits, groups: groups.to_vec() }
}

/// The place of an expression.
fn to(text: &str) -> usize {
    EXPRESSIONS.iter().position(|expression| expression.text == text).expect("in the table")
}

fn message(id: u64, text: &str, state: State) -> Message {
    Message { id: MessageId::new(id), to: to(text), content: 1, body: "1".into(), state }
}

const NOW: State = State::Active { until: None };

/// Two clients, of which the second is in group 0, and a third device.
fn record() -> (Record, Instant) {
    let devices = vec![profile(Some("SE"), &[]), profile(None, &[0]), profile(None, &[0])];
    (Record::new(devices, 2), Instant::now())
}

fn due(client: usize, message: u32, content: u32, since: Instant) -> Due {
    Due { client, edition: Edition { message, content }, since }
}

fn held(record: &Record, client: usize) -> Vec<u64> {
    record.should_hold(client).keys().map(|id| id.get()).collect()
}

#[test]
fn a_message_is_due_to_the_clients_it_describes_until_it_is_recalled() {
    let (mut record, at) = record();
    assert_eq!(record.created(at, message(7, "#g0", NOW)), [due(1, 0, 1, at)]);
    assert_eq!(record.created(at, message(5, "not #g1", NOW)).len(), 2);
    assert_eq!((held(&record, 0), held(&record, 1)), (vec![5], vec![5, 7]));
    record.recalled(1);
    assert_eq!((held(&record, 0), held(&record, 1)), (vec![], vec![7]));
    let uses = record.uses();
    assert_eq!(uses[to("#g0")], Use { described: true, passed_over: true });
    assert_eq!(uses[to("not #g1")], Use { described: true, passed_over: false });
    assert_eq!(uses[to("premium")], Use::default());
}

#[test]
fn an_edit_of_content_is_due_to_all_and_one_of_recipients_to_those_it_adds() {
    let (mut record, at) = record();
    let _ = record.created(at, message(7, "#g0", NOW));
    assert_eq!(record.content_edited(at, 0, "2".into()), [due(1, 0, 2, at)]);
    assert_eq!(&*record.should_hold(1)[&MessageId::new(7)].body, "2");
    assert_eq!(record.recipients_edited(at, 0, to("not #g1")), [due(0, 0, 2, at)]);
    assert!(record.recipients_edited(at, 0, to("premium")).is_empty());
    assert!(record.active().len() == 1 && held(&record, 0).is_empty());
}

#[test]
fn a_move_is_due_to_clients_whose_messages_it_adds() {
    let (mut record, at) = record();
    let _ = record.created(at, message(7, "#g0", NOW));
    let _ = record.created(at, message(8, "all and not #g0", NOW));
    assert_eq!(record.moved(at, 0, true, &[0, 1, 2]), [due(0, 0, 1, at)]);
    assert_eq!((held(&record, 0), held(&record, 1)), (vec![7], vec![7]));
    assert_eq!(record.moved(at, 0, false, &[1, 2]), [due(1, 1, 1, at)]);
    assert_eq!((held(&record, 0), held(&record, 1)), (vec![7], vec![8]));
    assert!(!record.devices()[2].is_in(0));
}

#[test]
fn time_starts_what_is_scheduled_and_ends_what_expires() {
    let (mut record, at) = record();
    let later = |ms| at + Duration::from_millis(ms);
    assert!(record.created(at, message(7, "#g0", State::Scheduled(later(10)))).is_empty());
    let ends = State::Active { until: Some(later(20)) };
    assert_eq!(record.created(at, message(8, "#g0", ends)).len(), 1);
    assert!(record.content_edited(at, 0, "2".into()).is_empty(), "not before it starts");
    assert_eq!(record.next_change(), Some(later(10)));
    assert!(record.pass_time(later(9)).is_empty());
    assert_eq!(record.pass_time(later(15)), [due(1, 0, 2, later(10))]);
    assert_eq!(held(&record, 1), [7, 8]);
    assert_eq!(record.next_change(), Some(later(20)));
    assert!(record.pass_time(later(20)).is_empty());
    assert_eq!(held(&record, 1), [7]);
    assert_eq!(record.next_change(), None);
}
