//! The fleet that the demo and the benchmarks write: devices with typed attributes and groups, as NDJSON for
//! `devices:import`.
//!
//! It stands apart so that every measurement is made on the same fleet. A device is a pure function of (seed, index),
//! in integers alone: the same on every machine, in any order, one at a time, so a million lines need no more room than
//! one. The secrets follow from the seed as well; never give such a fleet to a server that matters.

pub(crate) mod command;
mod random;
#[cfg(test)]
mod tests;

use std::io::Write;

pub(crate) use self::random::Random;
use self::random::{Zipf, mix};
use crate::hexadecimal;

/// Groups that there are, named by [`group_name`]; the lower the number, the larger the group.
pub(crate) const GROUPS: u16 = 10_000;
/// Groups that each device is in.
pub(crate) const GROUPS_PER_DEVICE: usize = 8;

/// The attributes that an app has to declare, with their types.
pub(crate) const ATTRIBUTES: [(&str, &str); 6] = [
    ("platform", "string"),
    ("country", "string"),
    ("locale", "string"),
    ("app_version", "version"),
    ("premium", "bool"),
    ("age", "number"),
];

const PLATFORMS: [(&str, u64); 3] = [("android", 62), ("ios", 30), ("web", 8)];

/// Country, share, and the locales spoken there, the most frequent first.
const COUNTRIES: [(Country, u64); 20] = [
    (Country("IN", &["en-IN", "hi-IN", "ta-IN"]), 16),
    (Country("US", &["en-US", "es-US"]), 12),
    (Country("BR", &["pt-BR"]), 9),
    (Country("ID", &["id-ID"]), 8),
    (Country("NG", &["en-NG", "ha-NG"]), 7),
    (Country("DE", &["de-DE", "en-DE"]), 6),
    (Country("MX", &["es-MX"]), 5),
    (Country("KE", &["en-KE", "sw-KE"]), 5),
    (Country("GB", &["en-GB"]), 4),
    (Country("FR", &["fr-FR"]), 4),
    (Country("JP", &["ja-JP"]), 4),
    (Country("TR", &["tr-TR"]), 3),
    (Country("EG", &["ar-EG"]), 3),
    (Country("ZA", &["en-ZA", "zu-ZA"]), 3),
    (Country("VN", &["vi-VN"]), 3),
    (Country("PH", &["en-PH", "fil-PH"]), 2),
    (Country("SE", &["sv-SE", "en-SE"]), 2),
    (Country("PL", &["pl-PL"]), 2),
    (Country("CA", &["en-CA", "fr-CA"]), 1),
    (Country("FI", &["fi-FI", "sv-FI"]), 1),
];

#[derive(Clone, Copy, Debug)]
struct Country(&'static str, &'static [&'static str]);

/// Major and minor version, and share; the patch is 0 to 9.
const RELEASES: [([u8; 2], u64); 8] = [
    ([1, 9], 8),
    ([2, 0], 10),
    ([2, 1], 12),
    ([2, 2], 15),
    ([2, 3], 20),
    ([2, 10], 20),
    ([3, 0], 10),
    ([3, 1], 5),
];

/// Percent of devices that lack a value, so that what is unknown matters.
const WITHOUT_COUNTRY: u64 = 4;
const WITHOUT_VERSION: u64 = 3;
const WITHOUT_PREMIUM: u64 = 12;
const WITHOUT_AGE: u64 = 30;

const PREMIUM: u64 = 25;
const AGE_MIN: u64 = 13;
const AGE_MAX: u64 = 85;

/// Keeps the streams of ids, secrets and traits of one seed apart.
const SECRETS: u64 = 0x7365_6372_6574_7321;
const TRAITS: u64 = 0x7472_6169_7473_2121;

/// What a device says of itself. What it lacks is `None`; a device on the web has no app version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) platform: &'static str,
    pub(crate) country: Option<&'static str>,
    pub(crate) locale: &'static str,
    /// Major, minor, patch.
    pub(crate) app_version: Option<[u8; 3]>,
    pub(crate) premium: Option<bool>,
    pub(crate) age: Option<u8>,
}

/// One device of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// No two devices of a seed have the same.
    pub(crate) id: u64,
    pub(crate) secret: [u8; 32],
    pub(crate) traits: Traits,
    /// Ascending, all different.
    pub(crate) groups: [u16; GROUPS_PER_DEVICE],
}

/// All devices of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    seed: u64,
    groups: Zipf,
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, groups: Zipf::new(GROUPS) }
    }

    /// The device number `index`, the same whatever the size of the fleet.
    pub(crate) fn device(&self, index: u64) -> Device {
        // `mix` gives no number twice, so neither do the ids.
        let id = mix(index.wrapping_add(mix(self.seed)));
        let mut secrets = Random::new(id ^ SECRETS);
        let mut secret = [0; 32];
        for part in secret.chunks_exact_mut(8) {
            part.copy_from_slice(&secrets.next().to_be_bytes());
        }
        let mut random = Random::new(id ^ TRAITS);
        let traits = traits(&mut random);
        let mut groups = [u16::MAX; GROUPS_PER_DEVICE];
        for place in 0..groups.len() {
            groups[place] = loop {
                let group = self.groups.draw(&mut random);
                if !groups.contains(&group) {
                    break group;
                }
            };
        }
        groups.sort_unstable();
        Device { id, secret, traits, groups }
    }
}

fn traits(random: &mut Random) -> Traits {
    let platform = random.weighted(&PLATFORMS);
    let country = random.weighted(&COUNTRIES);
    // Two of three speak their country's first language.
    let locale = match random.below(3) {
        0 => country.1[random.index(country.1.len())],
        _ => country.1[0],
    };
    let [major, minor] = random.weighted(&RELEASES);
    let patch = u8::try_from(random.below(10)).expect("below 10");
    let has_version = !random.percent(WITHOUT_VERSION) && platform != "web";
    let age = AGE_MIN + random.below(AGE_MAX - AGE_MIN + 1);
    let age = u8::try_from(age).expect("at most AGE_MAX");
    let premium = random.percent(PREMIUM);
    Traits {
        platform,
        country: (!random.percent(WITHOUT_COUNTRY)).then_some(country.0),
        locale,
        app_version: has_version.then_some([major, minor, patch]),
        premium: (!random.percent(WITHOUT_PREMIUM)).then_some(premium),
        age: (!random.percent(WITHOUT_AGE)).then_some(age),
    }
}

/// The name of a group by its number, from 0 up.
pub(crate) fn group_name(number: u16) -> String {
    format!("g{number}")
}

impl Device {
    /// The id as the API writes it.
    pub(crate) fn name(&self) -> String {
        format!("{:016x}", self.id)
    }

    /// Appends the device's line, about 300 bytes. With its secret's digest the device can log in.
    pub(crate) fn write_line(&self, can_log_in: bool, out: &mut Vec<u8>) {
        self.try_write_line(can_log_in, out).expect("a vector takes every byte");
    }

    fn try_write_line(&self, can_log_in: bool, out: &mut Vec<u8>) -> std::io::Result<()> {
        let Traits { platform, country, locale, app_version, premium, age } = &self.traits;
        // No name or value has a character that JSON would escape.
        write!(out, r#"{{"id":"{:016x}""#, self.id)?;
        if can_log_in {
            write!(out, r#","secret_sha256":"{}""#, hexadecimal::encode(&sha256(&self.secret)))?;
        }
        write!(out, r#","attributes":{{"platform":"{platform}","locale":"{locale}""#)?;
        if let Some(country) = country {
            write!(out, r#","country":"{country}""#)?;
        }
        if let Some([major, minor, patch]) = app_version {
            write!(out, r#","app_version":"{major}.{minor}.{patch}""#)?;
        }
        if let Some(premium) = premium {
            write!(out, r#","premium":{premium}"#)?;
        }
        if let Some(age) = age {
            write!(out, r#","age":{age}"#)?;
        }
        write!(out, r#"}},"groups":["#)?;
        for (place, group) in self.groups.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(out, r#"{comma}"{}""#, group_name(*group))?;
        }
        writeln!(out, "]}}")
    }
}

fn sha256(secret: &[u8; 32]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
