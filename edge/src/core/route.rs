//! Which call a method and a path name, and what the request's line and headers say besides.

use std::time::Duration;

use carillon_world::AppId;
use http::{HeaderMap, Method, header};

use super::seal::SEALED_MAX;

/// Longest time that a device may ask a poll to be held, in seconds. Proxies and cellular networks cut idle requests
/// at a minute or two.
pub const WAIT_MAX: u64 = 60;

/// What stands before the app's id in the name of its session cookie.
pub const COOKIE_PREFIX: &str = "__Host-carillon-";

/// A call of the device API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Enrol,
    Session,
    Patch,
    Forget,
    Poll { wait: Duration },
    Fetch,
    Receipts,
}

/// Why a request's head is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadError {
    NotFound,
    /// The path exists with these methods.
    Method {
        allow: &'static str,
    },
    /// 400 with this explanation.
    Bad {
        detail: &'static str,
    },
    /// 401 `session`: no session was shown.
    NoSession,
    /// 400 `bad-cursor`.
    BadCursor,
}

/// # Errors
/// If no call has this path, or it has other methods, or `wait` is no whole number of seconds up to [`WAIT_MAX`].
pub fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, HeadError> {
    let allow = |allow| Err(HeadError::Method { allow });
    match (path, method) {
        ("/v1/devices", &Method::POST) => Ok(Route::Enrol),
        ("/v1/devices/session", &Method::POST) => Ok(Route::Session),
        ("/v1/devices/self", &Method::PATCH) => Ok(Route::Patch),
        ("/v1/devices/self", &Method::DELETE) => Ok(Route::Forget),
        ("/v1/messages", &Method::GET) => Ok(Route::Poll { wait: wait(query)? }),
        ("/v1/messages:fetch", &Method::POST) => Ok(Route::Fetch),
        ("/v1/receipts", &Method::POST) => Ok(Route::Receipts),
        ("/v1/devices" | "/v1/devices/session" | "/v1/messages:fetch" | "/v1/receipts", _) => {
            allow("POST")
        }
        ("/v1/devices/self", _) => allow("PATCH, DELETE"),
        ("/v1/messages", _) => allow("GET"),
        _ => Err(HeadError::NotFound),
    }
}

/// Other parameters are ignored, so that clients may send what a later release understands.
fn wait(query: Option<&str>) -> Result<Duration, HeadError> {
    let bad = HeadError::Bad { detail: "wait must be a whole number of seconds from 0 to 60" };
    let pairs = query.unwrap_or_default().split('&');
    let Some(text) = pairs.filter_map(|pair| pair.strip_prefix("wait=")).next_back() else {
        return Ok(Duration::ZERO);
    };
    if text.is_empty() || text.len() > 2 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad);
    }
    match text.parse() {
        Ok(seconds) if seconds <= WAIT_MAX => Ok(Duration::from_secs(seconds)),
        _ => Err(bad),
    }
}

/// The session that a request shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Sealed, not yet opened.
    pub session: String,
    /// The app that the session must be of, where the request names one.
    pub app: Option<AppId>,
}

/// Finds the session: a bearer, else the cookie of the app that `Carillon-App` names, else the only cookie.
///
/// # Errors
/// If there is none, or several cookies and nothing that chooses.
pub fn credentials(headers: &HeaderMap) -> Result<Credentials, HeadError> {
    let app = match headers
        .get("carillon-app")
        .map(|value| value.to_str().unwrap_or_default().parse())
    {
        None => None,
        Some(Ok(app)) => Some(app),
        Some(Err(_)) => return Err(HeadError::Bad { detail: "Carillon-App must be an app's id" }),
    };
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().map_err(|_| HeadError::NoSession)?;
        let (scheme, token) = value.split_once(' ').ok_or(HeadError::NoSession)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(HeadError::NoSession);
        }
        return checked(token.trim(), app);
    }
    let mut found: Option<(AppId, &str)> = None;
    for line in headers.get_all(header::COOKIE) {
        for cookie in line.to_str().unwrap_or_default().split(';') {
            let Some((name, value)) = cookie.trim().split_once('=') else { continue };
            let Some(of) = name.strip_prefix(COOKIE_PREFIX).and_then(|id| id.parse().ok()) else {
                continue;
            };
            if app.is_some_and(|app| app != of) {
                continue;
            }
            if found.is_some_and(|(before, _)| before != of) {
                return Err(HeadError::Bad {
                    detail: "sessions of several apps: choose one with Carillon-App",
                });
            }
            found = Some((of, value));
        }
    }
    let (app, session) = found.ok_or(HeadError::NoSession)?;
    checked(session, Some(app))
}

fn checked(session: &str, app: Option<AppId>) -> Result<Credentials, HeadError> {
    if session.is_empty() || session.len() > SEALED_MAX {
        return Err(HeadError::NoSession);
    }
    Ok(Credentials { session: session.to_owned(), app })
}

/// The cursor as presented; `None` is an empty store.
///
/// # Errors
/// If it is longer than any cursor, or given twice.
pub fn cursor(headers: &HeaderMap) -> Result<Option<&str>, HeadError> {
    let mut values = headers.get_all("carillon-cursor").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.len() > SEALED_MAX {
        return Err(HeadError::BadCursor);
    }
    value.to_str().map(Some).map_err(|_| HeadError::BadCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn each_call_has_one_method_and_path() {
        let wait = Duration::from_secs(30);
        assert_eq!(route(&Method::POST, "/v1/devices", None), Ok(Route::Enrol));
        assert_eq!(route(&Method::POST, "/v1/devices/session", None), Ok(Route::Session));
        assert_eq!(route(&Method::PATCH, "/v1/devices/self", None), Ok(Route::Patch));
        assert_eq!(route(&Method::DELETE, "/v1/devices/self", None), Ok(Route::Forget));
        assert_eq!(route(&Method::GET, "/v1/messages", Some("wait=30")), Ok(Route::Poll { wait }));
        assert_eq!(route(&Method::POST, "/v1/messages:fetch", None), Ok(Route::Fetch));
        assert_eq!(route(&Method::POST, "/v1/receipts", None), Ok(Route::Receipts));
    }

    #[test]
    fn another_method_says_which_are_allowed_and_another_path_is_not_found() {
        let refused = route(&Method::GET, "/v1/devices/self", None);
        assert_eq!(refused, Err(HeadError::Method { allow: "PATCH, DELETE" }));
        assert_eq!(
            route(&Method::POST, "/v1/messages", None),
            Err(HeadError::Method { allow: "GET" })
        );
        for path in ["/", "/v1/messages/", "/v2/messages", "/metrics", ""] {
            assert_eq!(route(&Method::GET, path, None), Err(HeadError::NotFound), "{path}");
        }
    }

    #[test]
    fn wait_is_whole_seconds_up_to_a_minute() {
        let poll = |query| route(&Method::GET, "/v1/messages", Some(query));
        for (query, seconds) in [("", 0), ("wait=0", 0), ("wait=60", 60), ("later=1&wait=7", 7)] {
            assert_eq!(
                poll(query),
                Ok(Route::Poll { wait: Duration::from_secs(seconds) }),
                "{query}"
            );
        }
        for query in
            ["wait=", "wait=61", "wait=-1", "wait=1.5", "wait=+1", "wait=9999999999999", "wait=x"]
        {
            assert!(matches!(poll(query), Err(HeadError::Bad { .. })), "{query}");
        }
    }

    #[test]
    fn a_bearer_wins_over_cookies() {
        let found = credentials(&headers(&[
            ("authorization", "bearer abc"),
            ("cookie", "__Host-carillon-00000000000000aa=def"),
        ]));
        assert_eq!(found, Ok(Credentials { session: "abc".into(), app: None }));
    }

    #[test]
    fn a_lone_cookie_needs_no_choice_and_binds_its_app() {
        let found = credentials(&headers(&[(
            "cookie",
            "other=1; __Host-carillon-00000000000000aa=def; x=y",
        )]));
        assert_eq!(found, Ok(Credentials { session: "def".into(), app: Some(AppId::new(0xaa)) }));
    }

    #[test]
    fn of_several_cookies_the_header_chooses() {
        let two = "__Host-carillon-00000000000000aa=def; __Host-carillon-00000000000000bb=ghi";
        assert!(matches!(credentials(&headers(&[("cookie", two)])), Err(HeadError::Bad { .. })));
        let found = credentials(&headers(&[("cookie", two), ("carillon-app", "00000000000000bb")]));
        assert_eq!(found, Ok(Credentials { session: "ghi".into(), app: Some(AppId::new(0xbb)) }));
        let found = credentials(&headers(&[("cookie", two), ("carillon-app", "00000000000000cc")]));
        assert_eq!(found, Err(HeadError::NoSession));
        let found = credentials(&headers(&[("cookie", two), ("carillon-app", "bb")]));
        assert!(matches!(found, Err(HeadError::Bad { .. })));
    }

    #[test]
    fn no_or_an_overlong_session_is_no_session() {
        assert_eq!(credentials(&HeaderMap::new()), Err(HeadError::NoSession));
        assert_eq!(
            credentials(&headers(&[("authorization", "Basic abc")])),
            Err(HeadError::NoSession)
        );
        assert_eq!(
            credentials(&headers(&[("authorization", "Bearer ")])),
            Err(HeadError::NoSession)
        );
        let long = format!("Bearer {}", "a".repeat(SEALED_MAX + 1));
        assert_eq!(credentials(&headers(&[("authorization", &long)])), Err(HeadError::NoSession));
    }

    #[test]
    fn a_cursor_comes_once_and_is_at_most_a_kibibyte() {
        assert_eq!(cursor(&HeaderMap::new()), Ok(None));
        assert_eq!(cursor(&headers(&[("carillon-cursor", "abc")])), Ok(Some("abc")));
        assert_eq!(
            cursor(&headers(&[("carillon-cursor", "a"), ("carillon-cursor", "b")])),
            Err(HeadError::BadCursor)
        );
        let long = "a".repeat(SEALED_MAX + 1);
        assert_eq!(cursor(&headers(&[("carillon-cursor", &long)])), Err(HeadError::BadCursor));
    }
}
