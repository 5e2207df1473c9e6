//! The refusals that central gives, as one vocabulary for the admin API and the link.
//!
//! A code is part of the protocol: clients branch on it, so it never changes its meaning.

use carillon_expr::Diagnostics;
use carillon_world::MessageId;
pub use carillon_world::Problem;
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

/// A retained revision refers to it; `messages` lists which, the first 100.
pub fn referenced(what: &str, messages: &[MessageId]) -> Problem {
    let listed: Vec<String> =
        messages.iter().take(REFERENCES_MAX).map(ToString::to_string).collect();
    let detail = format!("{} messages refer to this {what}", messages.len());
    let extra = Some(json!({"messages": listed}).to_string());
    Problem { extra, ..problem(409, "referenced", "Messages refer to it", detail) }
}
