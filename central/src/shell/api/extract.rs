//! What handlers take out of requests. Everything that fails here is a problem, never plain text.

use std::marker::PhantomData;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use carillon_world::AppId;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Api;
use super::answer::Refusal;
use crate::core::auth::{self, Action, Principal, authorize};
use crate::core::problem;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(Principal);

impl Caller {
    pub(crate) fn may(self, action: Action) -> Result<(), Refusal> {
        Ok(authorize(self.0, action, None)?)
    }

    /// The app of the path, if the caller may do this there.
    pub(crate) fn may_in(self, action: Action, app: &str) -> Result<AppId, Refusal> {
        let id = app.parse().ok();
        authorize(self.0, action, id)?;
        Ok(id.ok_or_else(|| problem::not_found("app"))?)
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Caller, Self::Rejection> {
        let header =
            parts.headers.get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let principal = api
            .config
            .token
            .as_ref()
            .map_or(Principal::Anonymous, |token| auth::principal(token, header));
        Ok(Caller(principal))
    }
}

/// The parameters of the path.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Params<T>, Refusal> {
        let path = Path::<T>::from_request_parts(parts, api).await;
        path.map(|Path(params)| Params(params))
            .map_err(|e| problem::bad_request(e.body_text()).into())
    }
}

/// The query. It is read when a handler asks for it, after authorization.
#[derive(Debug)]
pub(crate) struct RawQuery(http::Uri);

impl RawQuery {
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let query = Query::<T>::try_from_uri(&self.0);
        query.map(|Query(query)| query).map_err(|e| problem::bad_request(e.body_text()).into())
    }
}

impl FromRequestParts<Api> for RawQuery {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<RawQuery, Self::Rejection> {
        Ok(RawQuery(parts.uri.clone()))
    }
}

/// The body. It is read when a handler asks for it, after authorization.
#[derive(Debug)]
pub(crate) struct RawBody {
    body: Body,
    bytes_max: usize,
    timeout: std::time::Duration,
}

impl FromRequest<Api> for RawBody {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, api: &Api) -> Result<RawBody, Self::Rejection> {
        let (bytes_max, timeout) = (api.config.body_bytes_max, api.config.read_timeout);
        Ok(RawBody { body: request.into_body(), bytes_max, timeout })
    }
}

impl RawBody {
    pub(crate) fn into_body(self) -> Body {
        self.body
    }

    pub(crate) async fn bytes(self) -> Result<Bytes, Refusal> {
        let body = Limited::new(self.body, self.bytes_max);
        let read = tokio::time::timeout(self.timeout, body.collect()).await;
        match read {
            Err(_) => Err(slow().into()),
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(e)) if e.is::<LengthLimitError>() => {
                Err(problem::too_large(format!("a body has at most {} bytes", self.bytes_max))
                    .into())
            }
            Ok(Err(e)) => Err(problem::bad_request(format!("the body cannot be read: {e}")).into()),
        }
    }

    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Refusal> {
        parse(&self.bytes().await?)
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    object(body).map_err(|e| problem::bad_request(format!("the body: {e}")).into())
}

/// Reads a JSON object. Left to itself, serde takes an array of a struct's members for the struct as well.
///
/// # Errors
/// With line and column, if it is no object or not what `T` reads.
pub(super) fn object<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    struct Members<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = deserializer.deserialize_map(Members(PhantomData))?;
    deserializer.end()?;
    Ok(read)
}

pub(crate) fn slow() -> problem::Problem {
    problem::problem(408, "timeout", "Timeout", "the body did not come in time")
}

/// Distinguishes a member that is `null` from one that is not there: with `#[serde(default)]`, `None` is the latter.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    given(deserializer)
}

/// A member that may be left out but not be `null`, unless that is a value of `T`.
pub(crate) fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Deserialize::deserialize(deserializer).map(Some)
}

/// One page: `limit` from 1 to 1,000, default 100; `after` as the page before gave it in `next`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    limit: Option<usize>,
    pub(crate) after: Option<String>,
}

impl Page {
    const LIMIT_MAX: usize = 1_000;

    pub(crate) fn limit(&self) -> Result<usize, Refusal> {
        match self.limit.unwrap_or(100) {
            limit @ 1..=Page::LIMIT_MAX => Ok(limit),
            _ => Err(problem::bad_request(format!("`limit` is 1 to {}", Page::LIMIT_MAX)).into()),
        }
    }

    pub(crate) fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Refusal> {
        let bad = || problem::bad_request("`after` is not the `next` of a page");
        Ok(self.after.as_deref().map(|text| text.parse().map_err(|_| bad())).transpose()?)
    }
}

/// The revision that `If-Match` asks for; `*` asks for none.
pub(crate) fn if_match(headers: &http::HeaderMap) -> Result<Option<u32>, Refusal> {
    let Some(value) = headers.get(http::header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text == "*" {
        return Ok(None);
    }
    let revision =
        text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse().ok());
    Ok(Some(revision.ok_or_else(|| problem::bad_request("`If-Match` is one ETag, such as \"3\""))?))
}

/// Takes a page out of `all`, and where the next one begins.
pub(crate) fn page<T>(all: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, bool) {
    let mut taken: Vec<T> = all.take(limit + 1).collect();
    let more = taken.len() > limit;
    taken.truncate(limit);
    (taken, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_object_and_nothing_else() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            a: u32,
            b: Option<Box<serde_json::value::RawValue>>,
        }
        let body = object::<Body>(br#" {"b": [1.0], "a": 1} "#).unwrap();
        assert_eq!((body.a, body.b.unwrap().get()), (1, "[1.0]"));
        for bad in ["[1, 2]", "[]", "1", "null", "", "{}", r#"{"a":1}{}"#, r#"{"a":1,"c":1}"#] {
            let error = object::<Body>(bad.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("line 1 column"), "{bad}: {error}");
        }
    }
}
