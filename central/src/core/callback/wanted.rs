//! Which events an endpoint wants, by the names of the history.

use super::EVENTS_MAX;
use crate::core::history::{covers, events_of_apps};

/// Whether an endpoint wants an event; `events` as [`parse`] gives them.
pub fn wants(events: &str, event: &str) -> bool {
    events.split(' ').any(|pattern| covers(pattern, event))
}

/// The names and patterns as one text, each once, in order.
///
/// # Errors
/// In words, if one of them stands for nothing, or there are none or too many.
pub fn parse(events: &[String]) -> Result<String, String> {
    if events.is_empty() || events.len() > EVENTS_MAX {
        return Err(format!("`events` has 1 to {EVENTS_MAX} names"));
    }
    for event in events {
        if !events_of_apps().any(|known| covers(event, known)) {
            let shown: String = event.chars().take(64).collect();
            let known = events_of_apps().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "there is no event {shown:?}; there are {known}, and `message.*` or `*` for many"
            ));
        }
    }
    let mut events: Vec<&str> = events.iter().map(String::as_str).collect();
    events.sort_unstable();
    events.dedup();
    Ok(events.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prefixes_are_wanted_and_what_stands_for_nothing_is_refused() {
        let read = |events: &[&str]| {
            parse(&events.iter().map(|event| (*event).to_owned()).collect::<Vec<_>>())
        };
        let events = read(&["message.state", "device.*", "message.state"]).unwrap();
        assert_eq!(events, "device.* message.state");
        for (event, is_wanted) in [
            ("message.state", true),
            ("device.created", true),
            ("devices.seen", false),
            ("message.created", false),
            ("message.statement", false),
        ] {
            assert_eq!(wants(&events, event), is_wanted, "{event}");
        }
        assert!(events_of_apps().all(|event| wants(&read(&["*"]).unwrap(), event)));
        for bad in ["", "message", "message*", "nothing.*", "shard.opened", "a b", "**", ".*", " *"]
        {
            let told = read(&[bad]).unwrap_err();
            assert!(told.contains("token.removed"), "{bad}: {told}");
        }
        assert!(read(&[]).is_err() && read(&["*"; EVENTS_MAX + 1]).is_err());
        assert_eq!(events_of_apps().count(), 23);
    }
}
