//! The refusals that central gives, as one vocabulary for the admin API and the link.
//!
//! A code is part of the protocol: clients branch on it, so it never changes its meaning.

use carillon_expr::Diagnostics;
pub use carillon_world::Problem;
use carillon_world::{App, MessageId, References};
use serde_json::json;

use super::limits::REFERENCES_MAX;

/// Seconds after which a caller may try again when the store does not answer.
pub const RETRY_AFTER: u32 = 2;

pub fn problem(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Problem {
    Problem {
        status,
        code: code.to_owned(),
        title: title.to_owned(),
        detail: detail.into(),
        retry_after: None,
        extra: None,
    }
}

pub fn bad_request(detail: impl Into<String>) -> Problem {
    problem(400, "bad-request", "The request cannot be understood", detail)
}

pub fn not_found(what: &str) -> Problem {
    problem(404, "not-found", "Not found", format!("there is no such {what}"))
}

pub fn invalid(detail: impl Into<String>) -> Problem {
    problem(422, "invalid", "A value is not allowed", detail)
}

pub fn invalid_push(detail: impl Into<String>) -> Problem {
    problem(422, "invalid-push", "The push policy is not allowed", detail)
}

pub fn invalid_credential(detail: impl Into<String>) -> Problem {
    problem(422, "invalid-credential", "The credential cannot be used", detail)
}

pub fn invalid_callback(detail: impl Into<String>) -> Problem {
    problem(422, "invalid-callback", "The callback is not allowed", detail)
}

/// Nothing is told that somebody could be called for.
pub fn callbacks_off() -> Problem {
    let detail = "callbacks are called for what the history is told, and history.to is off; set it to lake, kafka, or \
                  discard, which keeps no history";
    problem(409, "callbacks-off", "Callbacks are switched off", detail)
}

/// `most`: what `callbacks.endpoints_max` is.
pub fn too_many_callbacks(most: usize) -> Problem {
    let detail = format!("there are as many callbacks as callbacks.endpoints_max allows: {most}");
    let extra = Some(json!({"limit": most}).to_string());
    Problem { extra, ..problem(422, "too-many-callbacks", "Too many callbacks", detail) }
}

pub fn exists(detail: impl Into<String>) -> Problem {
    problem(409, "exists", "The name is taken", detail)
}

pub fn in_use(detail: impl Into<String>) -> Problem {
    problem(409, "in-use", "Still in use", detail)
}

pub fn limit(detail: impl Into<String>) -> Problem {
    problem(422, "limit", "A limit is reached", detail)
}

/// `used` and `more`: what the app has of it, and what the write would add.
pub fn quota_exceeded(quota: &str, limit: u64, used: u64, more: u64) -> Problem {
    let detail = format!("the app's {quota} is {limit}: it has {used}, and this needs {more} more");
    let extra = Some(json!({"quota": quota, "limit": limit, "used": used}).to_string());
    Problem { extra, ..problem(403, "quota-exceeded", "The app's quota is used up", detail) }
}

/// The world would take `bytes` and may take `bytes_max`.
pub fn world_full(bytes: u64, bytes_max: u64) -> Problem {
    let detail = format!(
        "the world would take {bytes} bytes of memory and world_bytes_max is {bytes_max}; delete something, or raise it \
         where every edge has the memory"
    );
    let extra = Some(json!({"world_bytes": bytes, "world_bytes_max": bytes_max}).to_string());
    Problem { extra, ..problem(507, "world-full", "The world is full", detail) }
}

/// Events are not dropped, so what would make more of them is refused.
pub fn history_full() -> Problem {
    let detail = "the events that wait to be written to the history are as many as may wait; see what keeps Kafka or the \
                  lake from taking them";
    let problem = problem(503, "history-full", "The history takes no more", detail);
    Problem { retry_after: Some(RETRY_AFTER), ..problem }
}

/// As a device may know it: how much an app or the world holds is not its business.
pub fn for_device(problem: Problem) -> Problem {
    match problem.code.as_str() {
        "quota-exceeded" | "world-full" => {
            let detail = "there is no room for this at present".to_owned();
            Problem { detail, extra: None, ..problem }
        }
        _ => problem,
    }
}

pub fn too_large(detail: impl Into<String>) -> Problem {
    problem(413, "too-large", "Too large", detail)
}

pub fn unknown_attribute(name: &str) -> Problem {
    let detail = format!("the app declares no attribute {name:?}");
    problem(422, "unknown-attribute", "No such attribute is declared", detail)
}

pub fn unknown_group(name: &str) -> Problem {
    problem(422, "unknown-group", "No such group", format!("the app has no group {name:?}"))
}

pub fn wrong_type(detail: impl Into<String>) -> Problem {
    problem(422, "wrong-type", "The value has another type", detail)
}

pub fn not_allowed(detail: impl Into<String>) -> Problem {
    problem(403, "not-allowed", "Not yours to set", detail)
}

pub fn bad_window(detail: impl Into<String>) -> Problem {
    problem(422, "bad-window", "The window is not one", detail)
}

/// The device is not known: the client drops everything and enrols again.
pub fn unknown_device() -> Problem {
    problem(401, "unknown", "Unknown device", "central does not know this device; enrol again")
}

/// The device is known but this session or secret is not its own: the client uses its secret.
pub fn bad_session() -> Problem {
    problem(
        401,
        "session",
        "Not a session of this device",
        "the session or the secret is not valid any more",
    )
}

pub fn unauthorized() -> Problem {
    problem(
        401,
        "unauthorized",
        "Not authorized",
        "give the admin token as `Authorization: Bearer …`",
    )
}

/// The batch did not commit, and never will: nothing was applied.
pub fn unavailable() -> Problem {
    let detail = "the store did not take the write; nothing was applied";
    Problem {
        retry_after: Some(RETRY_AFTER),
        ..problem(503, "unavailable", "The store is not available", detail)
    }
}

/// It is not known whether the batch committed.
pub fn outcome_unknown() -> Problem {
    let detail = "whether the write was applied is not known yet; retry with the same key";
    Problem {
        retry_after: Some(RETRY_AFTER),
        ..problem(503, "outcome-unknown", "Outcome unknown", detail)
    }
}

pub fn overloaded() -> Problem {
    let detail = "too many writes wait for the store; nothing was applied";
    Problem { retry_after: Some(1), ..problem(503, "overloaded", "Overloaded", detail) }
}

/// A fault of ours; the log says more.
pub fn internal() -> Problem {
    problem(
        500,
        "internal",
        "Internal error",
        "central failed on this request; nothing was applied",
    )
}

/// The expression is wrong; `errors` says where, in bytes (`span`) and in UTF-16 code units (`span_utf16`), and how
/// to mend it.
pub fn bad_expression(text: &str, diagnostics: &Diagnostics) -> Problem {
    let errors: Vec<_> = diagnostics
        .iter()
        .map(|d| {
            json!({
                "kind": d.kind.as_str(),
                "message": d.message,
                "line": d.line,
                "column": d.column,
                "span": d.span,
                "span_utf16": d.span_utf16,
                "suggestion": d.suggestion,
                "rendered": d.render(text),
            })
        })
        .collect();
    let detail = diagnostics.iter().next().map_or_else(String::new, |d| d.message.clone());
    let extra = Some(json!({"errors": errors}).to_string());
    Problem { extra, ..problem(422, "bad-expression", "The expression is wrong", detail) }
}

/// A retained revision refers to it; `messages` and `audiences` (by name) list which, the first 100 of each.
pub fn referenced(what: &str, app: &App, by: &References) -> Problem {
    let messages: Vec<String> =
        by.messages.iter().take(REFERENCES_MAX).map(ToString::to_string).collect();
    let audiences: Vec<&str> = by
        .audiences
        .iter()
        .take(REFERENCES_MAX)
        .filter_map(|id| app.audience(*id).map(|of| &*of.row().name))
        .collect();
    let counts = (by.messages.len(), by.audiences.len());
    let detail = match counts {
        (messages, 0) => format!("{messages} messages refer to this {what}"),
        (0, audiences) => format!("{audiences} audiences refer to this {what}"),
        (messages, audiences) => {
            format!("{messages} messages and {audiences} audiences refer to this {what}")
        }
    };
    let title = if counts.1 == 0 { "Messages refer to it" } else { "Audiences refer to it" };
    let extra = Some(json!({"messages": messages, "audiences": audiences}).to_string());
    Problem { extra, ..problem(409, "referenced", title, detail) }
}

/// What an edit of an audience would break, and how.
#[derive(Clone, Debug)]
pub enum Broken {
    Message { id: MessageId, why: String },
    Audience { name: std::sync::Arc<str>, why: String },
}

/// Expressions that use the audience would exceed their limits; `broken` lists which and why, the first 100.
pub fn audience_breaks(broken: &[Broken]) -> Problem {
    let told = |broken: &Broken| match broken {
        Broken::Message { id, why } => {
            (format!("message {id}: {why}"), json!({"message": id, "why": why}))
        }
        Broken::Audience { name, why } => {
            (format!("audience @{name}: {why}"), json!({"audience": name, "why": why}))
        }
    };
    let (mut first, mut listed) = (None, Vec::new());
    for (text, entry) in broken.iter().take(REFERENCES_MAX).map(told) {
        first.get_or_insert(text);
        listed.push(entry);
    }
    let first = first.unwrap_or_default();
    let detail = match broken.len() {
        0 | 1 => format!("it is used by {first}"),
        count => format!("it is used by {first}; and {} more", count - 1),
    };
    let extra = Some(json!({"broken": listed}).to_string());
    Problem {
        extra,
        ..problem(422, "audience-breaks", "What uses the audience would break", detail)
    }
}

/// `most`: what `audience_messages_max` is.
pub fn audience_reach(audience: &str, messages: usize, most: usize) -> Problem {
    let detail = format!(
        "{messages} scheduled and active messages would use @{audience}; audience_messages_max is {most}"
    );
    let extra =
        Some(json!({"audience": audience, "messages": messages, "limit": most}).to_string());
    Problem {
        extra,
        ..problem(422, "audience-reach", "Too many messages use the audience", detail)
    }
}

/// `most`: what `audiences_max` is.
pub fn too_many_audiences(most: usize) -> Problem {
    let detail = format!("the app has as many audiences as audiences_max allows: {most}");
    let extra = Some(json!({"limit": most}).to_string());
    Problem { extra, ..problem(422, "too-many-audiences", "Too many audiences", detail) }
}

pub fn revision_mismatch(detail: impl Into<String>) -> Problem {
    problem(412, "revision-mismatch", "Another edit came first", detail)
}
