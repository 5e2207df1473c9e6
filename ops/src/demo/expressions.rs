//! Whom the demo writes to: expressions, and beside each the same said in plain Rust.
//!
//! The predicates are what the demo is checked against, so they know nothing of `expr`: a device that lacks a value is
//! `None` here, and each predicate says itself what that means.

use crate::fleet::Traits;

/// A device as the demo knows it.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) traits: Traits,
    /// Ascending.
    pub(super) groups: Vec<u16>,
}

impl Profile {
    pub(super) fn is_in(&self, group: u16) -> bool {
        self.groups.binary_search(&group).is_ok()
    }
}

/// An expression and what it means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expression {
    pub(super) text: &'static str,
    pub(super) describes: fn(&Profile) -> bool,
}

/// The groups that the expressions name; devices are moved between these.
pub(super) const GROUPS: [u16; 7] = [0, 1, 2, 3, 4, 5, 9];

/// Each describes between a tenth and nine tenths of the fleet.
pub(super) const EXPRESSIONS: [Expression; 26] = [
    Expression { text: r#"platform == "ios""#, describes: |d| d.traits.platform == "ios" },
    Expression {
        text: r#"platform in ("ios", "web")"#,
        describes: |d| matches!(d.traits.platform, "ios" | "web"),
    },
    Expression {
        text: r#"not platform == "android""#,
        describes: |d| d.traits.platform != "android",
    },
    Expression {
        text: r#"country in ("IN", "NG", "KE")"#,
        describes: |d| d.traits.country.is_some_and(|c| matches!(c, "IN" | "NG" | "KE")),
    },
    // Nobody without a country: it is not known not to be among these.
    Expression {
        text: r#"country not in ("IN", "US", "BR", "ID")"#,
        describes: |d| d.traits.country.is_some_and(|c| !matches!(c, "IN" | "US" | "BR" | "ID")),
    },
    Expression {
        text: r#"not (country == "US" or country == "IN")"#,
        describes: |d| d.traits.country.is_some_and(|c| c != "US" && c != "IN"),
    },
    Expression {
        text: r#"country > "K""#,
        describes: |d| d.traits.country.is_some_and(|c| c > "K"),
    },
    Expression { text: "has age", describes: |d| d.traits.age.is_some() },
    Expression {
        text: "not has age or not has country",
        describes: |d| d.traits.age.is_none() || d.traits.country.is_none(),
    },
    Expression { text: "age >= 40", describes: |d| d.traits.age.is_some_and(|a| a >= 40) },
    Expression {
        text: "age < 21 or age > 60",
        describes: |d| d.traits.age.is_some_and(|a| !(21..=60).contains(&a)),
    },
    // One side that is false is enough, even if the other is unknown.
    Expression {
        text: r#"not (country == "IN" and age >= 30)"#,
        describes: |d| {
            d.traits.country.is_some_and(|c| c != "IN") || d.traits.age.is_some_and(|a| a < 30)
        },
    },
    Expression { text: "premium", describes: |d| d.traits.premium == Some(true) },
    Expression { text: "not premium", describes: |d| d.traits.premium == Some(false) },
    Expression {
        text: "premium != false or not has premium",
        describes: |d| d.traits.premium != Some(false),
    },
    Expression {
        text: "app_version >= v2.3",
        describes: |d| d.traits.app_version.is_some_and(|v| v >= [2, 3, 0]),
    },
    // 2.10 is above 2.3: versions are compared by their numbers.
    Expression {
        text: r#"app_version < v2.10 and platform == "android""#,
        describes: |d| {
            d.traits.platform == "android" && d.traits.app_version.is_some_and(|v| v < [2, 10, 0])
        },
    },
    Expression {
        text: r#"locale in ("en-US", "en-IN", "en-GB", "pt-BR") || locale == "de-DE""#,
        describes: |d| matches!(d.traits.locale, "en-US" | "en-IN" | "en-GB" | "pt-BR" | "de-DE"),
    },
    Expression { text: "#g0", describes: |d| d.is_in(0) },
    Expression { text: "not #g1", describes: |d| !d.is_in(1) },
    Expression { text: "all and not #g0", describes: |d| !d.is_in(0) },
    Expression { text: "#g2 or #g5 or #g9", describes: |d| d.is_in(2) || d.is_in(5) || d.is_in(9) },
    Expression {
        text: "#g3 or #g4 and premium",
        describes: |d| d.is_in(3) || d.is_in(4) && d.traits.premium == Some(true),
    },
    Expression {
        text: "(#g0 || #g1) && !#g2 && has country",
        describes: |d| (d.is_in(0) || d.is_in(1)) && !d.is_in(2) && d.traits.country.is_some(),
    },
    Expression {
        text: r#"(country in ("US", "GB", "CA", "ZA", "NG") or #g4) and app_version >= v2 and not age < 18"#,
        describes: |d| {
            let near =
                d.traits.country.is_some_and(|c| matches!(c, "US" | "GB" | "CA" | "ZA" | "NG"));
            (near || d.is_in(4))
                && d.traits.app_version.is_some_and(|v| v >= [2, 0, 0])
                && d.traits.age.is_some_and(|a| a >= 18)
        },
    },
    Expression {
        text: r#"platform != "web" and (#g1 or age in (20, 25, 30, 35, 40, 45, 50)) and premium != true"#,
        describes: |d| {
            d.traits.platform != "web"
                && (d.is_in(1)
                    || d.traits.age.is_some_and(|a| matches!(a, 20 | 25 | 30 | 35 | 40 | 45 | 50)))
                && d.traits.premium == Some(false)
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;

    #[test]
    fn each_describes_some_and_not_others_of_even_a_small_fleet() {
        let fleet = Fleet::new(1);
        for clients in [50, 2_000] {
            let profiles: Vec<Profile> = (0..clients)
                .map(|index| fleet.device(index))
                .map(|device| Profile { traits: device.traits, groups: device.groups.to_vec() })
                .collect();
            for Expression { text, describes } in EXPRESSIONS {
                let described = profiles.iter().filter(|profile| describes(profile)).count();
                let share = described as f64 / profiles.len() as f64;
                assert!((0.05..0.95).contains(&share), "{text}: {described} of {clients}");
            }
        }
    }

    #[test]
    fn groups_named_are_those_that_devices_move_between() {
        for Expression { text, .. } in EXPRESSIONS {
            for name in text.split('#').skip(1) {
                let digits = name[1..].split(|c: char| !c.is_ascii_digit()).next().unwrap();
                assert!(GROUPS.contains(&digits.parse().expect("a number")), "{text}");
            }
        }
    }
}
