//! Random 64-bit ids, written as 16 hexadecimal digits.
//!
//! An expression refers to attributes and groups by id, so that a rename changes nothing but print.
//! The macro stands here, in the lowest crate, so that every id of the system has one text form and
//! one wire form.

/// The text is not exactly 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of exactly 16 hexadecimal digits")]
pub struct ParseIdError;

/// Reads exactly 16 hexadecimal digits of either case; signs and spaces are refused.
///
/// # Errors
/// [`ParseIdError`] for any other text.
pub fn parse_id(text: &str) -> Result<u64, ParseIdError> {
    // A million devices have ten million of them, so this is by table and has no branch a digit.
    let digits: &[u8; 16] = text.as_bytes().try_into().map_err(|_| ParseIdError)?;
    let (mut bits, mut wrong) = (0, 0);
    for digit in digits {
        let value = HEX[usize::from(*digit)];
        wrong |= value;
        bits = bits << 4 | u64::from(value & 15);
    }
    if wrong > 15 { Err(ParseIdError) } else { Ok(bits) }
}

/// The value of each hexadecimal digit, and 255 for every other byte.
static HEX: [u8; 256] = {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// Defines the newtype of a random 64-bit id.
///
/// Its text is 16 lower-case hexadecimal digits; serde writes that text where a human reads and a
/// plain `u64` elsewhere. The calling crate needs no serde of its own.
///
/// ```
/// carillon_expr::random_id! {
///     /// Names one tenant.
///     pub struct AppId;
/// }
/// assert_eq!(AppId::new(0xab).to_string(), "00000000000000ab");
/// assert_eq!("00000000000000ab".parse(), Ok(AppId::new(0xab)));
/// ```
#[macro_export]
macro_rules! random_id {
    ($(#[$meta:meta])* $vis:vis struct $name:ident;) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name(u64);

        impl $name {
            /// Takes all 64 bits as they are.
            #[must_use]
            pub const fn new(bits: u64) -> Self {
                Self(bits)
            }

            /// All 64 bits.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::write!(f, "{:016x}", self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::write!(f, "{}({:016x})", ::std::stringify!($name), self.0)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::ParseIdError;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                $crate::parse_id(text).map(Self)
            }
        }

        impl $crate::__serde::Serialize for $name {
            fn serialize<S: $crate::__serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                $crate::__serde::serialize_id(self.0, serializer)
            }
        }

        impl<'de> $crate::__serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::__serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                $crate::__serde::deserialize_id(deserializer).map(Self)
            }
        }
    };
}

random_id! {
    /// Names one declared attribute of an app; never given twice.
    pub struct AttributeId;
}

random_id! {
    /// Names one group of devices of an app; never given twice.
    pub struct GroupId;
}

random_id! {
    /// Names one stored audience of an app; never given twice.
    pub struct AudienceId;
}

/// What the code that [`random_id!`] generates needs; no interface of its own.
#[doc(hidden)]
pub mod serde_support {
    pub use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use std::fmt;

    pub fn serialize_id<S: Serializer>(bits: u64, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{bits:016x}"))
        } else {
            serializer.serialize_u64(bits)
        }
    }

    pub fn deserialize_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        struct HexVisitor;
        impl serde::de::Visitor<'_> for HexVisitor {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id of exactly 16 hexadecimal digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
                super::parse_id(text).map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(HexVisitor)
        } else {
            u64::deserialize(deserializer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_16_lower_case_digits_and_reads_back() {
        let id = GroupId::new(0xAB);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!(format!("{id:?}"), "GroupId(00000000000000ab)");
        assert_eq!("00000000000000AB".parse(), Ok(id));
        for bad in ["", "ab", "+0000000000000ab", "00000000000000abc", "0000000000000 ab"] {
            assert_eq!(bad.parse::<GroupId>(), Err(ParseIdError), "{bad:?}");
        }
    }

    #[test]
    fn serde_writes_hex_for_humans_and_an_integer_for_machines() {
        let id = AttributeId::new(7);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"0000000000000007\"");
        assert_eq!(serde_json::from_str::<AttributeId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<AttributeId>("7").is_err());
        let bytes = rmp_serde::to_vec(&id).unwrap();
        assert_eq!(bytes, [7]);
        assert_eq!(rmp_serde::from_slice::<AttributeId>(&bytes).unwrap(), id);
    }
}
