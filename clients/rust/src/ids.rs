//! What the protocol names and seals: ids of 16 lower-case hexadecimal digits, and opaque texts that the server gives.
//!
//! Each is parsed once, where it enters, so that nothing inside carries an unchecked string into a header or a file.
//! Credentials (`Secret`, `Session`) show nothing in `Debug`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// A text is not what it should name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("an id has 16 lower-case hexadecimal digits")]
    Id,
    #[error("a secret has 43 characters of base64url")]
    Secret,
    #[error("a cursor has 1 to 1024 visible ASCII characters")]
    Cursor,
    #[error("a session has 1 to 4096 visible ASCII characters")]
    Session,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u64);

        impl $name {
            pub const fn new(number: u64) -> $name {
                $name(number)
            }

            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() != 16 || !text.bytes().all(lower_hex) {
                    return Err(IdError::Id);
                }
                u64::from_str_radix(text, 16).map($name).map_err(|_| IdError::Id)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<$name, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

hex_id!(
    /// A tenant of the server.
    AppId
);
hex_id!(
    /// This installation, as the server knows it. A name, not a credential.
    DeviceId
);
hex_id!(
    /// One message, through all its edits.
    MessageId
);
hex_id!(
    /// What one message says to this device: another tag is another content.
    Tag
);
hex_id!(
    /// One receipt, made by the client, so that a repeated receipt counts once.
    ReceiptId
);

macro_rules! sealed_text {
    ($(#[$doc:meta])* $name:ident, $bytes_max:literal, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// # Errors
            /// If the text is empty, too long, or could not stand in a header.
            pub fn parse(text: &str) -> Result<$name, IdError> {
                let fits = !text.is_empty() && text.len() <= $bytes_max;
                if fits && text.bytes().all(|b| b.is_ascii_graphic()) { Ok($name(text.into())) } else { Err($error) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<$name, IdError> {
                $name::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0.as_ref().to_owned()
            }
        }
    };
}

sealed_text!(
    /// How far this store of messages has come, sealed by the server for this device. Never a credential.
    Cursor,
    1024,
    IdError::Cursor
);
sealed_text!(
    /// Who is asking, sealed by the server. A credential.
    Session,
    4096,
    IdError::Session
);

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({})", self.0)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(…)")
    }
}

/// The device's own credential: 256 random bits, made on the device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret([u8; 32]);

impl Secret {
    /// The bits must come from a source that nobody can guess.
    pub const fn new(bits: [u8; 32]) -> Secret {
        Secret(bits)
    }

    /// The bits, for whoever computes the hash that an import line carries.
    pub const fn bits(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Secret, IdError> {
        let bits = URL_SAFE_NO_PAD.decode(text).map_err(|_| IdError::Secret)?;
        bits.try_into().map(Secret).map_err(|_| IdError::Secret)
    }
}

impl TryFrom<String> for Secret {
    type Error = IdError;

    fn try_from(text: String) -> Result<Secret, IdError> {
        text.parse()
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> String {
        URL_SAFE_NO_PAD.encode(secret.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_only_from_16_lower_hex_digits() {
        assert_eq!("00000000000000ff".parse(), Ok(MessageId::new(255)));
        assert_eq!(MessageId::new(255).to_string(), "00000000000000ff");
        for bad in [
            "",
            "ff",
            "00000000000000FF",
            "00000000000000fg",
            "+0000000000000ff",
            "000000000000000ff",
        ] {
            assert_eq!(bad.parse::<MessageId>(), Err(IdError::Id), "{bad}");
        }
    }

    #[test]
    fn a_secret_has_43_characters_and_shows_nothing() {
        let secret = Secret::new([7; 32]);
        let text = String::from(secret.clone());
        assert_eq!(text.len(), 43);
        assert_eq!(text.parse(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!("short".parse::<Secret>(), Err(IdError::Secret));
    }

    #[test]
    fn a_cursor_that_could_not_stand_in_a_header_is_refused() {
        assert!(Cursor::parse("AbC-_09").is_ok());
        for bad in ["", "a b", "a\r\nb", "ä", &"x".repeat(1025)] {
            assert_eq!(Cursor::parse(bad), Err(IdError::Cursor));
        }
    }
}
