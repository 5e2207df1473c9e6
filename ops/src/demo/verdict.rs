//! Whether a run was good: promise P1 for every client, and enough of everything to have put it to the test.

use std::collections::BTreeMap;

use carillon_client::{Message as Held, MessageId};

use super::expressions::EXPRESSIONS;
use super::plan::Kind;
use super::record::{Message, Record};

/// Examples that a failure names.
const EXAMPLES_MAX: usize = 3;
/// Deliveries that each client has to get.
const DELIVERIES_FLOOR: u64 = 10;

/// How often each kind of event happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Happened([u64; Kind::ALL.len()]);

impl Happened {
    pub(super) fn note(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    pub(super) fn count(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }
}

/// What clients hold against what they should.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) missing: u64,
    pub(super) extra: u64,
    pub(super) examples: Vec<String>,
}

impl Difference {
    /// Adds one client. A wrong body counts as both: what should be there is missing, what is there is extra.
    pub(super) fn add(
        &mut self,
        client: &str,
        should: &BTreeMap<MessageId, &Message>,
        holds: &BTreeMap<MessageId, Held>,
    ) {
        let mut found = |missing, extra, what: &str, id: &MessageId, to: &str| {
            self.missing += missing;
            self.extra += extra;
            if self.examples.len() < EXAMPLES_MAX {
                self.examples.push(format!("{client} {what} {id}{to}"));
            }
        };
        for (id, message) in should {
            let to = || format!(" to {}", EXPRESSIONS[message.to].text);
            match holds.get(id) {
                None => found(1, 0, "lacks", id, &to()),
                Some(held) if held.body != message.body => {
                    found(1, 1, "has an old or wrong body of", id, &to());
                }
                Some(_) => {}
            }
        }
        for id in holds.keys().filter(|id| !should.contains_key(id)) {
            found(0, 1, "should not have", id, "");
        }
    }
}

/// Everything that a good run has to have had and did not, as sentences.
/// `fewest` is the number of deliveries of the client that had fewest.
pub(super) fn missed_floors(record: &Record, happened: &Happened, fewest: u64) -> Vec<String> {
    let mut missed = Vec::new();
    for kind in Kind::ALL {
        let (count, floor) = (happened.count(kind), kind.floor());
        if count < floor {
            missed.push(format!(
                "{} happened {count} times, at least {floor} are needed",
                kind.name()
            ));
        }
    }
    for (expression, used) in EXPRESSIONS.iter().zip(record.uses()) {
        let text = expression.text;
        if !used.described {
            missed.push(format!("`{text}` had no recipient among the clients"));
        }
        if !used.passed_over {
            missed.push(format!("`{text}` had no client that is not a recipient"));
        }
    }
    if fewest < DELIVERIES_FLOOR {
        missed.push(format!(
            "a client had {fewest} deliveries, at least {DELIVERIES_FLOOR} are needed"
        ));
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::expressions::Profile;
    use crate::demo::record::State;
    use crate::fleet::Fleet;

    fn held(body: &str) -> Held {
        serde_json::from_value(serde_json::json!({
            "tag": "0000000000000001", "body": body,
        }))
        .expect("a message")
    }

    #[test]
    fn a_hidden_a_leaked_and_an_old_message_are_each_found() {
        let message = |id| Message {
            id: MessageId::new(id),
            to: 0,
            content: 1,
            body: "\"good\"".into(),
            state: State::Active { until: None },
        };
        let messages = [message(1), message(2)];
        let should = messages.iter().map(|message| (message.id, message)).collect();
        let difference = |holds: &[(u64, &str)]| {
            let holds = holds.iter().map(|(id, body)| (MessageId::new(*id), held(body)));
            let mut difference = Difference::default();
            difference.add("d", &should, &holds.collect());
            (difference.missing, difference.extra, difference.examples.join("; "))
        };
        assert_eq!(difference(&[(1, "good"), (2, "good")]), (0, 0, String::new()));
        let to = r#" to platform == "ios""#;
        let text = |what, id, to| format!("d {what} 000000000000000{id}{to}");
        assert_eq!(difference(&[(2, "good")]), (1, 0, text("lacks", 1, to)));
        let three = [(1, "good"), (2, "good"), (3, "good")];
        assert_eq!(difference(&three), (0, 1, text("should not have", 3, "")));
        let old = text("has an old or wrong body of", 2, to);
        assert_eq!(difference(&[(1, "good"), (2, "old")]), (1, 1, old));
    }

    #[test]
    fn a_run_without_enough_of_everything_is_not_good() {
        let device = Fleet::new(1).device(0);
        let profile = Profile { traits: device.traits, groups: device.groups.to_vec() };
        let record = Record::new(vec![profile], 1);
        let missed = missed_floors(&record, &Happened::default(), 9);
        assert_eq!(missed.len(), Kind::ALL.len() + 2 * EXPRESSIONS.len() + 1);
        assert_eq!(missed[0], "send happened 0 times, at least 5 are needed");
        assert_eq!(missed[7], "edge kill happened 0 times, at least 1 are needed");
        assert!(missed_floors(&record, &Happened([5; 8]), 10).len() == 2 * EXPRESSIONS.len());
    }
}
