//! Places on the Earth, and how far apart they are, in integers.
//!
//! Sines and cosines differ in the last bit from one mathematical library to the next, and a device
//! at the edge of a circle must be inside or outside for everyone: for every tier and for the SQL of
//! both stores. So the only trigonometry is done here, once per value, with additions and
//! multiplications alone, which every IEEE 754 machine does alike; what is kept is the place as three
//! integers (its direction from the centre of a sphere), and a distance is compared as an integer
//! sum of squares.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units of latitude and longitude in a degree: 11 mm at most.
const PER_DEGREE: f64 = 1e7;

/// Units of a direction in the radius of the Earth: 6 mm each. Differences stay below 2^31, and
/// three squares of them below 2^63.
const PER_RADIUS: f64 = 1_073_741_824.0;

/// Mean radius in metres (IUGG).
const RADIUS_METRES: f64 = 6_371_008.8;

/// A radius that covers the whole sphere: half its circumference is 20,015,115 m.
pub(crate) const RADIUS_METRES_MAX: u32 = 20_100_000;

/// A place by latitude and longitude, in units of 10^-7 degree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    latitude: i32,
    longitude: i32,
    /// Follows from the two above; kept so that a comparison costs no trigonometry.
    direction: [i32; 3],
}

impl Point {
    /// In degrees, rounded to 10^-7; `None` outside ±90 and ±180 or if not finite. The longitudes
    /// 180 and -180 are different values at one place.
    #[must_use]
    pub fn try_new(latitude: f64, longitude: f64) -> Option<Self> {
        if !(latitude.abs() <= 90.0 && longitude.abs() <= 180.0) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 1.8e9 in magnitude")]
        let units = |degrees: f64| (degrees * PER_DEGREE).round() as i32;
        Self::from_units(units(latitude), units(longitude))
    }

    /// In units of 10^-7 degree; `None` outside ±90 and ±180 degrees.
    #[must_use]
    pub fn from_units(latitude: i32, longitude: i32) -> Option<Self> {
        if latitude.unsigned_abs() > 900_000_000 || longitude.unsigned_abs() > 1_800_000_000 {
            return None;
        }
        let radians = |units: i32| f64::from(units) * (std::f64::consts::PI / 1.8e9);
        let (sin_lat, cos_lat) = sin_cos(radians(latitude));
        let (sin_lon, cos_lon) = sin_cos(radians(longitude));
        #[expect(clippy::cast_possible_truncation, reason = "at most 2^30 in magnitude")]
        let scale = |part: f64| (part * PER_RADIUS).round() as i32;
        let direction = [scale(cos_lat * cos_lon), scale(cos_lat * sin_lon), scale(sin_lat)];
        Some(Self { latitude, longitude, direction })
    }

    /// In units of 10^-7 degree.
    #[must_use]
    pub const fn latitude_units(self) -> i32 {
        self.latitude
    }

    /// In units of 10^-7 degree.
    #[must_use]
    pub const fn longitude_units(self) -> i32 {
        self.longitude
    }

    /// The unit vector from the centre of the Earth, in units of 2^-30: towards 0° 0°, towards 0°
    /// 90° east, towards the north pole. What the stores keep beside the degrees.
    #[must_use]
    pub const fn direction(self) -> [i32; 3] {
        self.direction
    }

    /// The square of the straight line between two places through the Earth, in units of 2^-30 of
    /// its radius.
    pub(crate) fn chord_squared(self, other: Self) -> i64 {
        self.direction
            .iter()
            .zip(other.direction)
            .map(|(a, b)| i64::from(*a) - i64::from(b))
            .map(|difference| difference * difference)
            .sum()
    }
}

/// The largest [`Point::chord_squared`] of two places that are `metres` apart along the surface.
pub(crate) fn reach(metres: u32) -> i64 {
    let half_angle = f64::from(metres) / (2.0 * RADIUS_METRES);
    if half_angle >= std::f64::consts::FRAC_PI_2 {
        return i64::MAX;
    }
    let chord = 2.0 * sin_cos(half_angle).0 * PER_RADIUS;
    #[expect(clippy::cast_possible_truncation, reason = "at most 2^62")]
    let squared = (chord * chord) as i64;
    squared
}

/// Sine and cosine of an angle up to ±π, off by less than 2^-50.
fn sin_cos(angle: f64) -> (f64, f64) {
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};
    let mut rest = angle;
    let mut quarters = 0;
    while rest > FRAC_PI_4 {
        rest -= FRAC_PI_2;
        quarters += 1;
    }
    while rest < -FRAC_PI_4 {
        rest += FRAC_PI_2;
        quarters += 3;
    }
    // Taylor series: the first term left out is below 2^-64 within ±π/4.
    let square = rest * rest;
    let series = |first: u32| {
        let mut sum = 0.0;
        let mut power = first + 18;
        while power > first {
            sum = (1.0 - sum) * square / f64::from(power * (power - 1));
            power -= 2;
        }
        1.0 - sum
    };
    let (sin, cos) = (rest * series(1), series(0));
    match quarters % 4 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// `59.3293, 18.0686`: at most 7 decimals each, without trailing zeros.
impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", Degrees(self.latitude), Degrees(self.longitude))
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({self})")
    }
}

struct Degrees(i32);

impl fmt::Display for Degrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        write!(f, "{sign}{}", units / 10_000_000)?;
        match units % 10_000_000 {
            0 => Ok(()),
            fraction => write!(f, ".{}", format!("{fraction:07}").trim_end_matches('0')),
        }
    }
}

/// A pair of degrees where a human reads, else a pair of units.
impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let degrees = |units: i32| f64::from(units) / PER_DEGREE;
            (degrees(self.latitude), degrees(self.longitude)).serialize(serializer)
        } else {
            (self.latitude, self.longitude).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let point = if deserializer.is_human_readable() {
            let (latitude, longitude) = <(f64, f64)>::deserialize(deserializer)?;
            Self::try_new(latitude, longitude)
        } else {
            let (latitude, longitude) = <(i32, i32)>::deserialize(deserializer)?;
            Self::from_units(latitude, longitude)
        };
        point.ok_or_else(|| de::Error::custom("latitude is within ±90 and longitude within ±180"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(latitude: f64, longitude: f64) -> Point {
        Point::try_new(latitude, longitude).unwrap()
    }

    #[test]
    fn sine_and_cosine_agree_with_the_library() {
        for step in -100_000..=100_000 {
            let angle = f64::from(step) * (std::f64::consts::PI / 100_000.0);
            let (sin, cos) = sin_cos(angle);
            assert!((sin - angle.sin()).abs() < 1e-15, "{angle}");
            assert!((cos - angle.cos()).abs() < 1e-15, "{angle}");
        }
    }

    #[test]
    fn directions_are_these_to_the_last_bit() {
        // A change of these numbers would make tiers disagree.
        for (latitude, longitude, direction) in [
            (0.0, 0.0, [1_073_741_824, 0, 0]),
            (90.0, 0.0, [0, 0, 1_073_741_824]),
            (0.0, -180.0, [-1_073_741_824, 0, 0]),
            (0.0, 180.0, [-1_073_741_824, 0, 0]),
            (0.0, 90.0, [0, 1_073_741_824, 0]),
            (59.3293, 18.0686, [520_708_774, 169_878_066, 923_539_561]),
            (-33.8688, 151.2093, [-781_336_444, 429_378_207, -598_388_855]),
        ] {
            assert_eq!(point(latitude, longitude).direction(), direction, "{latitude} {longitude}");
        }
    }

    #[test]
    fn known_distances_are_right_to_a_thousandth() {
        let places = [
            (point(59.3293, 18.0686), point(57.7089, 11.9746), 397_000),
            (point(-1.2921, 36.8219), point(-4.0435, 39.6682), 440_000),
            (point(0.0, 179.9), point(0.0, -179.9), 22_239),
            (point(90.0, 0.0), point(89.0, 123.0), 111_195),
        ];
        for (a, b, metres) in places {
            let chord = a.chord_squared(b);
            assert!(chord <= reach(metres + metres / 200), "{a:?} {b:?}");
            assert!(chord > reach(metres - metres / 200), "{a:?} {b:?}");
        }
        assert_eq!(point(0.0, 180.0).chord_squared(point(0.0, -180.0)), 0);
        assert!(point(0.0, 0.0).chord_squared(point(0.0, 180.0)) <= reach(RADIUS_METRES_MAX));
        assert!(point(0.0, 0.0).chord_squared(point(0.0, 180.0)) > reach(20_000_000));
        assert_eq!(reach(0), 0);
    }

    #[test]
    fn points_print_in_degrees_and_refuse_what_is_not_on_earth() {
        assert_eq!(point(59.3293, -18.0686).to_string(), "59.3293, -18.0686");
        assert_eq!(point(-0.5, 180.0).to_string(), "-0.5, 180");
        assert_eq!(point(1e-7, 0.0).to_string(), "0.0000001, 0");
        for (latitude, longitude) in
            [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)]
        {
            assert!(Point::try_new(latitude, longitude).is_none());
        }
        let json = serde_json::to_string(&point(59.3293, 18.0686)).unwrap();
        assert_eq!(json, "[59.3293,18.0686]");
        assert_eq!(serde_json::from_str::<Point>(&json).unwrap(), point(59.3293, 18.0686));
        let bytes = rmp_serde::to_vec(&point(59.3293, 18.0686)).unwrap();
        assert_eq!(rmp_serde::from_slice::<Point>(&bytes).unwrap(), point(59.3293, 18.0686));
    }
}
