//! Dates, instants and durations, in the proleptic Gregorian calendar and UTC.
//!
//! No time zone is known here on purpose: zone rules are data that differ between two builds, and
//! tiers of two releases would then disagree about who a recipient is. What is local to a recipient
//! comes from an attribute that holds the offset in minutes.
//!
//! Years run from 1 to 9999, so that the text of a date has one width and sorts as the date does;
//! the stores keep that text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const MS_PER_DAY: i64 = 86_400_000;

/// 0001-01-01 in days since 1970-01-01.
const FIRST_DAY: i32 = -719_162;

/// 9999-12-31 in days since 1970-01-01.
const LAST_DAY: i32 = 2_932_896;

/// A day of the calendar, from 0001-01-01 to 9999-12-31.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

impl Date {
    /// `None` outside the years 1 to 9999.
    #[must_use]
    pub fn from_days(days_since_1970: i64) -> Option<Self> {
        let days = i32::try_from(days_since_1970).ok()?;
        (FIRST_DAY..=LAST_DAY).contains(&days).then_some(Self(days))
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub const fn days(self) -> i32 {
        self.0
    }

    /// The nearest date that can be held.
    pub(crate) fn saturating(days_since_1970: i64) -> Self {
        let days = days_since_1970.clamp(i64::from(FIRST_DAY), i64::from(LAST_DAY));
        Self(i32::try_from(days).expect("clamped to a range of i32"))
    }
}

/// `2026-11-21`
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no date, time or duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTimeError {
    #[error("expected a date such as 2026-11-21")]
    Date,
    #[error("expected a time such as 2026-11-21T07:30:00Z")]
    Time,
    #[error("there is no such day or hour")]
    NoSuch,
    #[error("a year is from 0001 to 9999")]
    Year,
}

impl FromStr for Date {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return Err(ParseTimeError::Date);
        }
        let part = |range| digits(&bytes[range]).ok_or(ParseTimeError::Date);
        let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
        if year == 0 {
            return Err(ParseTimeError::Year);
        }
        let days = days_from_civil(year, month, day);
        if !(1..=12).contains(&month) || civil(days) != (year, month, day) {
            return Err(ParseTimeError::NoSuch);
        }
        Ok(Self(days))
    }
}

/// An instant, in whole milliseconds, within the years 1 to 9999 of UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    const FIRST: i64 = FIRST_DAY as i64 * MS_PER_DAY;
    const LAST: i64 = (LAST_DAY as i64 + 1) * MS_PER_DAY - 1;

    /// `None` outside the years 1 to 9999.
    #[must_use]
    pub const fn from_ms(ms_since_1970: i64) -> Option<Self> {
        if ms_since_1970 < Self::FIRST || ms_since_1970 > Self::LAST {
            return None;
        }
        Some(Self(ms_since_1970))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// The day of UTC in which it lies.
    #[must_use]
    pub fn date(self) -> Date {
        Date::saturating(self.0.div_euclid(MS_PER_DAY))
    }

    /// The nearest instant that can be held.
    pub(crate) fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms).clamp(Self::FIRST, Self::LAST))
    }

    /// Minutes since 1970, rounded down.
    pub(crate) const fn minutes(self) -> i64 {
        self.0.div_euclid(60_000)
    }

    /// With milliseconds, so that all texts have one width: what the stores keep.
    #[must_use]
    pub fn to_fixed(self) -> String {
        let in_day = self.0.rem_euclid(MS_PER_DAY);
        let (second, ms) = (in_day / 1_000, in_day % 1_000);
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        format!("{}T{hour:02}:{minute:02}:{:02}.{ms:03}Z", self.date(), second % 60)
    }
}

/// `2026-11-21T07:30:00Z`, with milliseconds only where there are any.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_fixed();
        match text.strip_suffix(".000Z") {
            Some(short) => write!(f, "{short}Z"),
            None => f.write_str(&text),
        }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads RFC 3339: `2026-11-21T07:30:00.5+01:00`. Seconds may be left out; digits beyond the
/// millisecond, and leap seconds, are refused.
impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        const FORM: ParseTimeError = ParseTimeError::Time;
        let (date, rest) = text.split_once('T').ok_or(FORM)?;
        let date: Date = date
            .parse()
            .map_err(|error| if error == ParseTimeError::Date { FORM } else { error })?;
        let zone = rest.find(['Z', '+', '-']).ok_or(FORM)?;
        let (clock, zone) = rest.split_at(zone);
        let minute = clock.get(..5).and_then(clock_minutes).ok_or(FORM)?;
        let ms = match clock.as_bytes().get(5..).unwrap_or_default() {
            [] => 0,
            [b':', a, b, fraction @ ..] => {
                let second = digits(&[*a, *b]).ok_or(FORM)?;
                let ms = match fraction {
                    [] => 0,
                    [b'.', some @ ..] if (1..=3).contains(&some.len()) => {
                        digits(some).ok_or(FORM)? * [100, 10, 1][some.len() - 1]
                    }
                    _ => return Err(FORM),
                };
                if second > 59 {
                    return Err(ParseTimeError::NoSuch);
                }
                second * 1_000 + ms
            }
            _ => return Err(FORM),
        };
        let offset = match zone.as_bytes() {
            [b'Z'] => 0,
            [sign, ..] => {
                let minutes = zone.get(1..).and_then(clock_minutes).ok_or(FORM)?;
                if *sign == b'-' { -minutes } else { minutes }
            }
            [] => return Err(FORM),
        };
        if !(0..1_440).contains(&minute) || offset.abs() >= 1_440 {
            return Err(ParseTimeError::NoSuch);
        }
        let minutes = i64::from(minute) - i64::from(offset);
        let ms = i64::from(date.days()) * MS_PER_DAY + minutes * 60_000 + i64::from(ms);
        Self::from_ms(ms).ok_or(ParseTimeError::Year)
    }
}

macro_rules! serde_as_text_or_integer {
    ($name:ident, $inner:ident, $make:expr, $get:ident) => {
        /// Text where a human reads, else the integer.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.$get().serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    let make: fn($inner) -> Option<Self> = $make;
                    make($inner::deserialize(deserializer)?)
                        .ok_or_else(|| de::Error::custom(ParseTimeError::Year))
                }
            }
        }
    };
}

serde_as_text_or_integer!(Date, i32, |days| Self::from_days(i64::from(days)), days);
serde_as_text_or_integer!(Time, i64, Self::from_ms, ms);

/// The longest duration: 100 years of 365.25 days.
pub(crate) const SPAN_MS_MAX: i64 = 36_525 * MS_PER_DAY;

/// A duration in milliseconds from `90s`, `15m`, `12h`, `7d` or `2w`; `None` if it is none or longer
/// than [`SPAN_MS_MAX`].
pub(crate) fn parse_span(text: &str) -> Option<i64> {
    let unit = match text.as_bytes().last()? {
        b's' => 1_000,
        b'm' => 60_000,
        b'h' => 3_600_000,
        b'd' => MS_PER_DAY,
        b'w' => 7 * MS_PER_DAY,
        _ => return None,
    };
    let count = &text[..text.len() - 1];
    if !(1..=12).contains(&count.len()) || !count.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ms = count.parse::<i64>().ok()?.checked_mul(unit)?;
    (ms <= SPAN_MS_MAX).then_some(ms)
}

/// The shortest text in days, hours, minutes or seconds; `ms` is a multiple of a second.
pub(crate) fn print_span(ms: i64) -> String {
    [(MS_PER_DAY, 'd'), (3_600_000, 'h'), (60_000, 'm')]
        .into_iter()
        .find(|(unit, _)| ms % unit == 0)
        .map_or_else(
            || format!("{}s", ms / 1_000),
            |(unit, letter)| format!("{}{letter}", ms / unit),
        )
}

/// Whether a duration is a whole number of days, and how many.
pub(crate) fn whole_days(ms: i64) -> Option<i64> {
    (ms % MS_PER_DAY == 0).then_some(ms / MS_PER_DAY)
}

/// Minutes since midnight from `HH:MM`; not checked to lie within a day.
pub(crate) fn clock_minutes(text: &str) -> Option<i32> {
    match text.as_bytes() {
        [a, b, b':', c, d] => {
            let (hour, minute) = (digits(&[*a, *b])?, digits(&[*c, *d])?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        }
        _ => None,
    }
}

/// Days of the week as bits, Monday first, as they are written.
pub(crate) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// The day of the week of a day since 1970, Monday 0.
pub(crate) const fn weekday(days_since_1970: i64) -> i64 {
    // 1970-01-01 was a Thursday.
    (days_since_1970 + 3).rem_euclid(7)
}

/// At most 9 decimal digits.
fn digits(bytes: &[u8]) -> Option<i32> {
    bytes
        .iter()
        .try_fold(0, |sum: i32, b| b.is_ascii_digit().then(|| sum * 10 + i32::from(b - b'0')))
}

/// Year, month and day; the algorithm is `civil_from_days` of Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms".
fn civil(days: i32) -> (i32, i32, i32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i32::from(month <= 2), month, day)
}

/// The inverse of [`civil`], `days_from_civil` of the same paper.
fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_date_prints_and_reads_back_in_order() {
        let mut before = String::new();
        for days in FIRST_DAY..=LAST_DAY {
            let date = Date(days);
            if days % 13 == 0 || days > LAST_DAY - 800 {
                let text = date.to_string();
                assert_eq!(text.parse(), Ok(date));
                assert!(before < text, "{before} {text}");
                before = text;
            }
        }
        assert_eq!(Date(0).to_string(), "1970-01-01");
        assert_eq!(Date(FIRST_DAY).to_string(), "0001-01-01");
        assert_eq!(Date(LAST_DAY).to_string(), "9999-12-31");
        assert!(Date::from_days(i64::from(LAST_DAY) + 1).is_none());
        assert_eq!("2024-02-29".parse::<Date>().unwrap().days(), 19_782);
    }

    #[test]
    fn what_is_no_date_or_time_says_why() {
        use ParseTimeError::{NoSuch, Year};
        for (text, why) in [
            ("2026-1-1", ParseTimeError::Date),
            ("2026-02-29", NoSuch),
            ("2026-13-01", NoSuch),
            ("2026-00-01", NoSuch),
            ("0000-01-01", Year),
            ("20260-01-1", ParseTimeError::Date),
        ] {
            assert_eq!(text.parse::<Date>(), Err(why), "{text}");
        }
        for (text, why) in [
            ("2026-11-21", ParseTimeError::Time),
            ("2026-11-21T7:30:00Z", ParseTimeError::Time),
            ("2026-11-21T07:30:00", ParseTimeError::Time),
            ("2026-11-21T07:30:60Z", NoSuch),
            ("2026-11-21T24:00:00Z", ParseTimeError::Time),
            ("2026-11-21T07:30:00.0001Z", ParseTimeError::Time),
            ("2026-11-31T07:30:00Z", NoSuch),
            ("0001-01-01T00:00:00+00:01", Year),
            ("9999-12-31T23:59:00-00:01", Year),
        ] {
            assert_eq!(text.parse::<Time>(), Err(why), "{text}");
        }
    }

    #[test]
    fn times_are_read_with_any_offset_and_print_in_utc() {
        for (text, printed) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("2026-11-21T08:30+01:00", "2026-11-21T07:30:00Z"),
            ("2026-11-20T22:00:01.5-09:30", "2026-11-21T07:30:01.500Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ] {
            let time: Time = text.parse().unwrap();
            assert_eq!(time.to_string(), printed);
            assert_eq!(time.to_fixed().parse(), Ok(time));
            assert_eq!(time.to_fixed().len(), 24);
        }
        assert_eq!("1969-12-31T23:59:59.999Z".parse::<Time>().unwrap().ms(), -1);
        assert_eq!("1969-12-31T23:59:59.999Z".parse::<Time>().unwrap().date().days(), -1);
    }

    #[test]
    fn durations_have_one_unit() {
        for (text, ms) in [
            ("90s", 90_000),
            ("15m", 900_000),
            ("36h", 129_600_000),
            ("2w", 14 * MS_PER_DAY),
            ("0d", 0),
        ] {
            assert_eq!(parse_span(text), Some(ms));
            assert_eq!(parse_span(&print_span(ms)), Some(ms));
        }
        assert_eq!(print_span(14 * MS_PER_DAY), "14d");
        assert_eq!(print_span(90_000), "90s");
        for bad in ["", "d", "7", "-7d", "7D", "1.5d", "36526d", "9999999999999d", "7dd"] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }

    #[test]
    fn weekdays_are_counted_from_monday() {
        for (text, day) in
            [("1970-01-01", 3), ("2026-11-21", 5), ("2026-11-22", 6), ("1969-12-29", 0)]
        {
            assert_eq!(weekday(i64::from(text.parse::<Date>().unwrap().days())), day, "{text}");
        }
    }
}
