//! Who may do what. Every handler calls [`authorize`] first, also while there is one token that may do all: whoever
//! adds a route has to say what it does.

use carillon_world::AppId;
use subtle::ConstantTimeEq;

use super::problem::{self, Problem};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    Anonymous,
    /// Whoever has the admin token: everything, in every app.
    Admin,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    ReadApps,
    WriteApps,
    ReadSchema,
    WriteSchema,
    ReadDevices,
    WriteDevices,
    ReadMessages,
    WriteMessages,
    PreviewAudience,
    ReadPush,
    WritePush,
    ReadCallbacks,
    WriteCallbacks,
}

/// Whether `principal` may do `action`, in `app` if it is about one.
///
/// # Errors
/// 401 `unauthorized`.
pub fn authorize(
    principal: Principal,
    _action: Action,
    _app: Option<AppId>,
) -> Result<(), Problem> {
    match principal {
        Principal::Admin => Ok(()),
        Principal::Anonymous => Err(problem::unauthorized()),
    }
}

/// A shared secret, compared in constant time. `Debug` does not show it.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Shorter ones could be guessed.
    pub const BYTES_MIN: usize = 16;

    /// `None` if it is shorter than [`Token::BYTES_MIN`].
    pub fn new(text: &str) -> Option<Token> {
        (text.len() >= Token::BYTES_MIN).then(|| Token(text.as_bytes().into()))
    }

    pub fn is(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(presented).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who presents this `Authorization` header.
pub fn principal(admin: &Token, authorization: Option<&[u8]>) -> Principal {
    let presented = authorization.and_then(|value| {
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    });
    match presented {
        Some(token) if admin.is(token) => Principal::Admin,
        _ => Principal::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_admin() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert_eq!(principal(&token, Some(b"Bearer 0123456789abcdef")), Principal::Admin);
        assert_eq!(principal(&token, Some(b"bearer 0123456789abcdef")), Principal::Admin);
        for bad in [
            &b""[..],
            b"Bearer ",
            b"Bearer 0123456789abcde",
            b"Bearer 0123456789abcdeF",
            b"0123456789abcdef",
        ] {
            assert_eq!(principal(&token, Some(bad)), Principal::Anonymous, "{bad:?}");
        }
        assert_eq!(principal(&token, None), Principal::Anonymous);
        assert!(Token::new("short").is_none());
    }
}
