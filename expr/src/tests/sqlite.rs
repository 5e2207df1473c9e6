//! What SQLite says where the oracle of `carillon-tests` does not look: one number after another, and a condition
//! without a clock or a message.

use std::borrow::Cow;

use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::Device;
use crate::{Columns, Context, Dialect, Truth, Value};

/// The only row, of which nothing is kept.
impl Columns for Device {
    type Device = Device;

    fn all(&self) -> Cow<'_, RoaringBitmap> {
        Cow::Owned([0].into_iter().collect())
    }

    fn device(&self, _: u32) -> Option<&Device> {
        Some(self)
    }

    fn row(&self, _: u64) -> Option<u32> {
        Some(0)
    }
}

/// Most random numbers need 17 digits, which SQLite's JSON functions do not read exactly.
#[test]
fn sqlite_reads_the_numbers_that_were_written() {
    let connection = Connection::open_in_memory().unwrap();
    let mut statement =
        connection.prepare("SELECT CAST(?1 -> '$.\"a\"' AS REAL), CAST(?2 AS REAL)").unwrap();
    let mut random = 88_172_645_463_325_252_u64;
    for turn in 0..200_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let exponent = if turn % 2 == 0 { random >> 52 } else { 998 + random % 85 };
        let bits = (random & 0x800f_ffff_ffff_ffff) | ((exponent & 0x7ff) << 52);
        let Some(number) = crate::Number::try_new(f64::from_bits(bits)) else { continue };
        let read: (f64, f64) = statement
            .query_row((format!("{{\"a\":{number}}}"), number.to_string()), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(read, (number.get(), number.get()));
    }
}

#[test]
fn without_a_clock_or_a_message_what_needs_them_is_unknown_everywhere() {
    let device = Device { last_seen: Some(super::now()), ..Device::default() }
        .with("signed_up", Value::Time(super::now()))
        .with("birthday", Value::Date(super::now().date()))
        .with("utc_offset", super::number(60.0));
    let connection = Connection::open_in_memory().unwrap();
    let row = r#"'{"a000000000000009":{"t":"2026-11-21T07:30:00.000Z"},"a000000000000008":{"d":"2026-11-21"},
        "a00000000000000c":60}' AS attributes, 1795246200000 AS last_seen, 0 AS device"#;
    let context = Context::default();
    for source in [
        "last_seen within 7d",
        "not last_seen within 7d",
        "signed_up <= now",
        "signed_up between 2000-01-01T00:00:00Z and now",
        "birthday == now",
        "birthday within next 3d",
        "local_time(utc_offset) >= 00:00",
        "local_day(utc_offset) in (mon, tue, wed, thu, fri, sat, sun)",
        "sample(50%)",
    ] {
        let expression = super::parse(source);
        assert_eq!(expression.evaluate(&device), Truth::Unknown, "{source}");
        assert!(expression.recipients(&device, &context).is_empty(), "{source}");
        assert!(expression.excluded(&device, &context).is_empty(), "{source}");
        let ask = |context: &Context| -> Option<bool> {
            let condition = expression.to_sql(Dialect::Sqlite, context).unwrap();
            let query = format!("SELECT ({condition}) FROM (SELECT {row}) AS d");
            connection.query_row(&query, (), |row| row.get(0)).unwrap()
        };
        assert_eq!(ask(&context), None, "{source}");
        if !source.starts_with("sample") {
            assert!(ask(&super::context()).is_some(), "{source}");
        }
    }
    assert!(super::parse("has last_seen and last_seen < 2030-01-01T00:00:00Z").matches(&device));
}
