//! Which events an endpoint wants, by the names of the history.

use super::EVENTS_MAX;

/// Everything that happens to something of an app. What concerns the shard as a whole is the operator's alone.
pub const VOCABULARY: [&str; 23] = [
    "app.changed",
    "attribute.changed",
    "attribute.deleted",
    "audience.changed",
    "audience.deleted",
    "callback.changed",
    "callback.deleted",
    "device.changed",
    "device.created",
    "device.deleted",
    "device.receipt",
    "devices.seen",
    "group.changed",
    "group.deleted",
    "message.created",
    "message.delivered",
    "message.edited",
    "message.left",
    "message.state",
    "message.withdrawn",
    "push.progress",
    "push.state",
    "token.removed",
];

/// Whether a name or pattern stands for an event: `message.state`, `message.*`, `*`.
fn covers(pattern: &str, event: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) if prefix.ends_with('.') => event.starts_with(prefix),
        _ => pattern == event,
    }
}

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
        if !VOCABULARY.iter().any(|known| covers(event, known)) {
            let shown: String = event.chars().take(64).collect();
            let known = VOCABULARY.join(", ");
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
        assert!(VOCABULARY.iter().all(|event| wants(&read(&["*"]).unwrap(), event)));
        for bad in ["", "message", "message*", "nothing.*", "shard.opened", "a b", "**", ".*", " *"]
        {
            let told = read(&[bad]).unwrap_err();
            assert!(told.contains("token.removed"), "{bad}: {told}");
        }
        assert!(read(&[]).is_err() && read(&["*"; EVENTS_MAX + 1]).is_err());
        assert!(VOCABULARY.is_sorted());
    }
}
