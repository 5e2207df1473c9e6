//! Random worlds, and expressions about them: what an expression compares with mostly stands in the world or beside it,
//! so that most have recipients and others.

use std::sync::Arc;

use carillon_expr::{Date, Profile as _, Set, Time, Truth, Type, Value, Version};
use carillon_world::{AppId, DeviceId, DeviceRow, Millis, Seq};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::judge::truth;
use super::tree::{
    ATTRIBUTES, AUDIENCES, GROUPS, HOME, OFFSET, Right, TAGS, Tree, What, attribute_id, group_id,
    number, point, text, time, unit_ms,
};
use super::world::{Device, World};

const LETTERS: &[&str] = &[
    "a",
    "A",
    "b",
    "B",
    "é",
    "É",
    "σ",
    "ς",
    "Σ",
    "ß",
    "İ",
    "ı",
    "*",
    "?",
    "[",
    "]",
    "^",
    "%",
    "_",
    "|",
    "\\",
    "'",
    "\"",
    " ",
    "😀",
    "e\u{301}",
    "\u{1f}",
    "\n",
    "\t",
    "\u{7f}",
    "ǆ",
    "\u{212a}",
    "\u{a0}",
    "\u{feff}",
    "\u{fffd}",
    "\u{10ffff}",
    "Ж",
    "ж",
    "և",
    "ẞ",
    "ά",
    "/",
    "\u{2028}",
    "0",
];
const WORDS: &[&str] = &[
    "",
    "SE",
    "KE",
    "se",
    "å",
    "SE ",
    " SE",
    "SE  ",
    "Åse",
    "[a]",
    "a",
    "[",
    "A*",
    "a\u{30a}",
    "null",
    "true",
    "1",
    "{\"s\":[]}",
    "NO",
    "no",
    "' OR 1=1 --",
    "\\u0041",
];
const NUMBERS: &[f64] = &[
    0.0,
    -0.0,
    60.0,
    -300.0,
    345.0,
    1439.0,
    -1439.0,
    1440.0,
    -1440.0,
    330.5,
    1e15,
    1e16,
    1e17,
    9007199254740993.0,
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    5e-324,
    0.1,
    0.30000000000000004,
    0.3,
    31.245_270_191_439_438,
    1e22,
    1e23,
    18446744073709551615.0,
    -1e-7,
];
const ORDER: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
/// Dates and times of their ends, beside a leap day and the epoch.
const DATES: &[&str] = &["0001-01-01", "9999-12-31", "2024-02-29", "1969-12-31", "1970-01-01"];
const TIMES: &[&str] = &[
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "1969-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00Z",
];
const CLOCKS: &[&str] = &[
    "2026-11-21T07:30:00Z",
    "2024-02-29T23:59:59.999Z",
    "2026-12-31T23:30:00Z",
    "2027-01-01T00:00:00Z",
    "1971-01-01T00:00:00Z",
    "2099-03-01T12:00:00.001Z",
    "2026-11-22T23:59:00Z",
];

const SCALARS: &[Type] =
    &[Type::String, Type::Number, Type::Bool, Type::Version, Type::Date, Type::Time];
const ORDERED: &[Type] = &[Type::String, Type::Number, Type::Version, Type::Date, Type::Time];

/// Everything random about one seed.
#[derive(Debug)]
pub(super) struct Generator {
    random: StdRng,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Generator {
        Generator { random: StdRng::seed_from_u64(seed) }
    }

    fn chance(&mut self, of_100: u32) -> bool {
        self.random.random_ratio(of_100, 100)
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.random).expect("not empty").clone()
    }

    /// A number whose bits say what is kept, and the like.
    pub(super) fn bits(&mut self) -> u64 {
        self.random.random()
    }

    /// Devices of which some are alike but for one thing, and one has nothing.
    pub(super) fn world(&mut self, seed: u64, devices: usize) -> World {
        let now: Time = self.one(CLOCKS).parse().expect("a time");
        let mut made: Vec<Device> = Vec::new();
        for at in 0..devices {
            // Ids are unique; the first ones are those that expressions name.
            let id = match at {
                1 => u64::MAX,
                2 => 1 << 63,
                _ if at < 8 => at as u64,
                _ => self.random.random(),
            };
            let mut device = match made.len() {
                0 => self.device(now, 0),
                _ if self.chance(30) => self.twin(&made),
                _ => self.device(now, 70),
            };
            device.row.id = DeviceId::new(id);
            made.push(device);
        }
        let mut world = World::new(seed, now, self.random.random(), made);
        for _ in AUDIENCES {
            let audience = self.mixed(&world, 6);
            world.add_audience(audience);
        }
        world
    }

    /// Each value is there in `of_100` cases.
    fn device(&mut self, now: Time, of_100: u32) -> Device {
        let mut attributes = Vec::new();
        for (index, (_, kind)) in ATTRIBUTES.iter().enumerate() {
            if self.chance(of_100) {
                let value = match index {
                    OFFSET if self.chance(70) => self.offset(),
                    _ => self.value(*kind, now),
                };
                attributes.push((attribute_id(index), value));
            }
        }
        let groups = (0..GROUPS.len()).filter(|_| self.chance(of_100 / 2)).map(group_id).collect();
        let hour = now.ms().div_euclid(3_600_000) + self.random.random_range(-400..10);
        let hour = u32::try_from(hour.max(1)).expect("devices are seen before year 9999");
        Device {
            row: DeviceRow {
                id: DeviceId::new(0),
                app: AppId::new(0),
                generation: Seq::ZERO,
                p: Seq::ZERO,
                created_at: Millis(1),
                user: self.chance(of_100).then(|| Arc::from(self.word())),
                attributes: attributes.into(),
                groups,
                private: None,
                last_seen: if self.chance(of_100) { Millis::of_hour(hour) } else { Millis::ZERO },
            },
        }
    }

    /// A device as one of these, with one thing from another.
    fn twin(&mut self, of: &[Device]) -> Device {
        let (mut twin, other) = (self.one(of), self.one(of));
        let id = attribute_id(self.random.random_range(0..ATTRIBUTES.len()));
        let mut attributes = twin.row.attributes.to_vec();
        attributes.retain(|(known, _)| *known != id);
        attributes.extend(other.row.attributes.iter().find(|(known, _)| *known == id).cloned());
        attributes.sort_by_key(|(id, _)| *id);
        twin.row.attributes = attributes.into();
        match self.random.random_range(0..3) {
            0 => twin.row.user = other.row.user,
            1 => twin.row.last_seen = other.row.last_seen,
            _ => twin.row.groups = other.row.groups,
        }
        twin
    }

    /// Mostly from few, so that two are often the same.
    fn word(&mut self) -> String {
        match self.random.random_range(0..100) {
            0..55 => self.one(WORDS).to_owned(),
            55..85 => (0..self.random.random_range(0..5)).map(|_| self.one(LETTERS)).collect(),
            85..98 => (0..self.random.random_range(0..8)).map(|_| self.character()).collect(),
            _ => self.character().to_string().repeat(200),
        }
    }

    /// Any but U+0000, which no text holds.
    fn character(&mut self) -> char {
        loop {
            let most = self.one(&[0x7f, 0x5ff, 0x20ff, 0xffff, 0x10_ffff]);
            if let Some(c) = char::from_u32(self.random.random_range(1..=most)) {
                return c;
            }
        }
    }

    fn offset(&mut self) -> Value {
        number(f64::from(self.random.random_range(-56..60) * 15))
    }

    fn degrees(&mut self, most: f64) -> f64 {
        let degrees: f64 = match self.random.random_range(0..5) {
            0 | 1 => self.one(&[0.0, most, -most, most - 1e-7, 1e-7 - most, 1e-7, 59.33, 18.07]),
            2 | 3 => self.random.random_range(59.0..60.0),
            _ => self.random.random_range(-most..=most),
        };
        (degrees * 1e7).round() / 1e7
    }

    fn value(&mut self, kind: Type, now: Time) -> Value {
        match kind {
            Type::String => text(&self.word()),
            Type::Number => number(match self.random.random_range(0..10) {
                0..5 => f64::from(self.random.random_range(-6..6)) / 2.0,
                5..7 => self.one(NUMBERS),
                // Of 17 digits, and neither large nor small: what readers of decimals get wrong.
                7 | 8 => {
                    let bits = self.random.random::<u64>() & 0x800f_ffff_ffff_ffff;
                    f64::from_bits(bits | self.random.random_range(998..1_083) << 52)
                }
                _ => loop {
                    let any = f64::from_bits(self.random.random());
                    if any.is_finite() {
                        break any;
                    }
                },
            }),
            Type::Bool => Value::Bool(self.random.random()),
            Type::Version => Value::Version(match self.chance(70) {
                true => self
                    .one(&["2", "2.0.1", "2.3", "2.10", "10", "2.9", "2.3.0.1", "4294967295.0"])
                    .parse()
                    .expect("a version"),
                false => Version::new(self.random.random()),
            }),
            Type::Date => Value::Date(match self.chance(75) {
                true => {
                    let days = i64::from(now.date().days()) + self.random.random_range(-40..40);
                    Date::from_days(days).expect("near the clock")
                }
                false => self.one(DATES).parse().expect("a date"),
            }),
            Type::Time => Value::Time(match self.random.random_range(0..5) {
                0..3 => time(now.ms() + self.random.random_range(-100..100) * 3_600_000),
                3 => time(now.ms() + self.random.random_range(-3..3)),
                _ => self.one(TIMES).parse().expect("a time"),
            }),
            Type::Point => Value::Point(point(self.degrees(90.0), self.degrees(180.0))),
            Type::Set => {
                let entries = self.random.random_range(0..5);
                Value::Set((0..entries).map(|_| self.word()).collect::<Set>())
            }
        }
    }

    /// A value that some device has, if any does.
    fn known(&mut self, what: What, world: &World) -> Option<Value> {
        let device = self.one(&world.devices);
        match what {
            What::Attribute(index) => {
                let id = attribute_id(index);
                let found = device.row.attributes.iter().find(|(known, _)| *known == id);
                found.map(|(_, value)| value.clone())
            }
            What::User => device.row.user.as_deref().map(text),
            What::LastSeen => device.last_seen().map(Value::Time),
        }
    }

    /// One of the devices, or something beside it, or any.
    fn literal(&mut self, what: What, world: &World) -> Value {
        for _ in 0..3 {
            if let Some(known) = self.known(what, world)
                && self.chance(85)
            {
                return if self.chance(75) { known } else { self.beside(known) };
            }
        }
        self.value(what.kind(), world.now)
    }

    /// What differs from a value as little as can be.
    fn beside(&mut self, value: Value) -> Value {
        let up = self.random.random::<bool>();
        match value {
            Value::String(word) => {
                let mut letters: Vec<char> = word.chars().collect();
                match self.random.random_range(0..4) {
                    0 => letters.push(' '),
                    1 => drop(letters.pop()),
                    2 => letters = word.to_uppercase().chars().collect(),
                    _ => letters = word.to_lowercase().chars().collect(),
                }
                text(&letters.into_iter().collect::<String>())
            }
            Value::Number(of) => {
                let of = if up { of.get().next_up() } else { of.get().next_down() };
                number(if of.is_finite() { of } else { 0.0 })
            }
            Value::Bool(flag) => Value::Bool(!flag),
            Value::Version(version) => {
                let mut parts = version.components();
                let part = &mut parts[self.random.random_range(0..4)];
                *part = if up { part.saturating_add(1) } else { part.saturating_sub(1) };
                Value::Version(Version::new(parts))
            }
            Value::Date(date) => {
                let days = i64::from(date.days()) + if up { 1 } else { -1 };
                Value::Date(Date::from_days(days).unwrap_or(date))
            }
            Value::Time(time) => {
                Value::Time(Time::from_ms(time.ms() + if up { 1 } else { -1 }).unwrap_or(time))
            }
            other => other,
        }
    }

    fn what(&mut self, kinds: &[Type]) -> What {
        // All types alike, however many attributes each has; `user` and `last_seen` as often as a type.
        let all = What::of(kinds);
        let kind = self.one(kinds);
        match kind {
            Type::String if self.chance(30) => What::User,
            Type::Time if self.chance(50) => What::LastSeen,
            _ => {
                let of_kind: Vec<What> =
                    all.into_iter().filter(|what| what.kind() == kind).collect();
                self.one(&of_kind)
            }
        }
    }

    /// A span that leads from the clock to a value of the world, if that is not too far.
    fn span(&mut self, what: What, world: &World) -> (i64, char) {
        let unit = match what.kind() {
            Type::Date => self.one(&['d', 'w']),
            _ => self.one(&['s', 'm', 'h', 'd', 'w']),
        };
        let ms = match self.known(what, world) {
            Some(Value::Time(time)) => time.ms() - world.now.ms(),
            Some(Value::Date(date)) => {
                i64::from(date.days() - world.now.date().days()) * 86_400_000
            }
            _ => 0,
        };
        // Spans are a century at most.
        let known = if ms.abs() < 90 * 365 * 86_400_000 { ms / unit_ms(unit) } else { 0 };
        let beside = if self.chance(50) { self.random.random_range(-1..=1) } else { 0 };
        (if self.chance(80) { known + beside } else { self.random.random_range(-50..50) }, unit)
    }

    fn right(&mut self, what: What, world: &World) -> Right {
        match what.kind() {
            Type::Time | Type::Date if self.chance(45) => {
                let (n, unit) = self.span(what, world);
                Right::Now(n, unit)
            }
            _ => Right::Value(self.literal(what, world)),
        }
    }

    fn known_word(&mut self, what: What, world: &World) -> String {
        match self.literal(what, world) {
            Value::String(word) => word.chars().take(200).collect(),
            other => panic!("{other:?} is no string"),
        }
    }

    /// A part of a word.
    fn piece(&mut self, word: &str, place: &str) -> String {
        let letters: Vec<char> = word.chars().collect();
        let long = if self.chance(60) { 3 } else { 40 };
        let (mut from, mut to) = (0, letters.len());
        match place {
            "starts_with" => to = self.random.random_range(0..=to),
            "ends_with" => from = self.random.random_range(0..=to),
            _ => {
                from = self.random.random_range(0..=to);
                to = self.random.random_range(from..=to).min(from + long);
            }
        }
        letters[from..to].iter().collect()
    }

    /// A word with some characters replaced by wildcards.
    fn pattern(&mut self, word: &str) -> String {
        let mut pattern = String::new();
        for c in word.chars() {
            match self.random.random_range(0..10) {
                0 => pattern.push('*'),
                1 => pattern.push('?'),
                _ if matches!(c, '\\' | '*' | '?') => pattern.extend(['\\', c]),
                _ => pattern.push(c),
            }
        }
        match self.random.random_range(0..6) {
            0 => pattern + "*",
            1 => format!("*{pattern}"),
            2 => pattern + "?",
            _ => pattern,
        }
    }

    fn entries(&mut self, world: &World) -> Vec<String> {
        let mut entries = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            match self.known(What::Attribute(TAGS), world) {
                Some(Value::Set(set)) if !set.entries().is_empty() && self.chance(85) => {
                    entries.push(self.one(set.entries()).to_string());
                }
                _ => entries.push(self.word()),
            }
        }
        entries
    }

    fn near(&mut self, world: &World) -> Tree {
        let degrees = |units: i32| f64::from(units) / 1e7;
        let (latitude, longitude) = match self.known(What::Attribute(HOME), world) {
            Some(Value::Point(at)) if self.chance(80) => {
                (degrees(at.latitude_units()), degrees(at.longitude_units()))
            }
            _ => (self.degrees(90.0), self.degrees(180.0)),
        };
        let metres = match self.random.random_range(0..6) {
            0 => 0,
            1 => self.random.random_range(0..5_000),
            2 => 20_100_000,
            // As far as another device is, a metre more or less.
            3 | 4 => match self.known(What::Attribute(HOME), world) {
                Some(Value::Point(other)) => {
                    let centre = point(latitude, longitude).direction();
                    let squares = centre.into_iter().zip(other.direction());
                    let chord: f64 =
                        squares.map(|(a, b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
                    let half = (chord.sqrt() / 2.0 / 1_073_741_824.0).min(1.0).asin();
                    let metres = (2.0 * half * 6_371_008.8).round() as u32;
                    (metres + self.random.random_range(0..3)).saturating_sub(1).min(20_100_000)
                }
                _ => 1_000,
            },
            _ => self.random.random_range(0..20_100_000),
        };
        Tree::Near(latitude, longitude, metres)
    }

    fn minute(&mut self) -> u16 {
        match self.random.random_range(0..4) {
            0 => self.one(&[0, 450, 1_439]),
            _ => self.random.random_range(0..96) * 15,
        }
    }

    /// One condition; every operator comes about as often.
    fn leaf(&mut self, world: &World) -> Tree {
        let negated = self.random.random::<bool>();
        match self.random.random_range(0..36) {
            0 if self.chance(50) => Tree::All,
            0..2 => Tree::Group(self.random.random_range(0..GROUPS.len())),
            2 | 3 if !world.audiences.is_empty() => {
                Tree::Audience(self.random.random_range(0..world.audiences.len()))
            }
            2..5 => {
                let count = self.random.random_range(1..5);
                let ids = (0..count).map(|_| match self.chance(70) {
                    true => self.one(&world.devices).row.id.get(),
                    false => self.random.random(),
                });
                Tree::Devices(ids.collect())
            }
            5 | 6 => {
                let kind = self.one(&Type::ALL);
                Tree::Has(self.what(&[kind]))
            }
            7 => Tree::Flag(self.one(&[4, 5])),
            8..14 => {
                let what = self.what(SCALARS);
                let symbols = if what.kind() == Type::Bool { &ORDER[..2] } else { ORDER };
                Tree::Compare(what, self.one(symbols), self.right(what, world))
            }
            14 | 15 => {
                let what = self.what(ORDERED);
                let (low, high) = (self.right(what, world), self.right(what, world));
                let swapped = match (&low, &high) {
                    (Right::Value(low), Right::Value(high)) => high < low,
                    (Right::Now(n, u), Right::Now(m, v)) => m * unit_ms(*v) < n * unit_ms(*u),
                    _ => false,
                };
                let (low, high) = if swapped { (high, low) } else { (low, high) };
                Tree::Between(what, negated, low, high)
            }
            16..19 => {
                let what = self.what(SCALARS);
                let fold = what.kind() == Type::String && self.random.random();
                let count = if self.chance(3) { 300 } else { self.random.random_range(1..5) };
                let mut values: Vec<Value> =
                    (0..count).map(|_| self.literal(what, world)).collect();
                if fold && self.chance(1) {
                    // Each letter of it is one more thing that SQL has to replace.
                    let from = self.random.random_range(1..0x500);
                    let letters = (from..0x2000).filter_map(char::from_u32);
                    let letters = letters.filter(|c| c.is_lowercase()).take(120);
                    values.push(text(&letters.collect::<String>()));
                }
                Tree::In(what, negated, fold, values)
            }
            19 => {
                let what = self.what(&[Type::String]);
                Tree::Alike(what, self.one(&ORDER[..2]), self.known_word(what, world))
            }
            20..23 => {
                let what = self.what(&[Type::String]);
                let place = self.one(&["starts_with", "ends_with", "contains"]);
                let word = self.known_word(what, world);
                let piece = self.piece(&word, place);
                Tree::Text(what, place, negated, self.random.random(), piece)
            }
            23 | 24 => {
                let what = self.what(&[Type::String]);
                let word: String = self.known_word(what, world).chars().take(60).collect();
                let pattern = self.pattern(&word);
                Tree::Text(what, "matches", negated, self.random.random(), pattern)
            }
            25..28 => {
                let operator = self.one(&["any", "all", "none", "contains"]);
                let mut entries = self.entries(world);
                if operator == "contains" {
                    entries.truncate(1);
                }
                Tree::Entries(operator, negated, entries)
            }
            28 | 29 => {
                let what = self.what(&[Type::Date, Type::Time]);
                let (n, unit) = self.span(what, world);
                let ahead = if self.chance(80) { n > 0 } else { self.random.random() };
                Tree::Within(what, negated, ahead, n.abs(), unit)
            }
            30 => self.near(world),
            31 => {
                let ppm = match self.chance(80) {
                    true => self.random.random_range(0..=1_000_000),
                    false => self.one(&[0, 1, 500_000, 999_999, 1_000_000]),
                };
                Tree::Sample(ppm, self.random.random::<bool>().then(|| self.word()))
            }
            32 | 33 => Tree::LocalTime(self.one(ORDER), self.minute()),
            34 => Tree::LocalBetween(negated, self.minute(), self.minute()),
            _ => {
                let days = self.random.random_range(1..5);
                let days = (0..days).map(|_| self.random.random_range(0..7)).collect();
                Tree::LocalDay(negated, days)
            }
        }
    }

    /// About `size` conditions.
    fn tree(&mut self, world: &World, size: usize) -> Tree {
        if size <= 1 {
            return self.leaf(world);
        }
        let shape = self.random.random_range(0..100);
        match shape {
            0..15 => Tree::Not(Box::new(self.tree(world, size - 1))),
            // Parts that occur more than once, true here and false there.
            15..25 => {
                let [a, b, c] = [(); 3].map(|()| self.tree(world, size / 4));
                let not = |tree: &Tree| Tree::Not(Box::new(tree.clone()));
                Tree::Or(vec![
                    Tree::And(vec![a.clone(), b.clone()]),
                    Tree::And(vec![not(&a), c.clone(), b.clone()]),
                    Tree::And(vec![not(&b), a, c]),
                ])
            }
            _ => {
                let count = self.random.random_range(2..=4.min(size));
                let kids = (0..count).map(|_| self.tree(world, size / count)).collect();
                if shape < 62 { Tree::And(kids) } else { Tree::Or(kids) }
            }
        }
    }

    /// An expression that mostly has recipients and others.
    fn mixed(&mut self, world: &World, size: usize) -> Tree {
        for _ in 0..3 {
            let tree = self.tree(world, size);
            if is_mixed(&tree, world) {
                return tree;
            }
        }
        self.tree(world, size)
    }

    /// The next expression: small, or now and then deep or of thousands of conditions.
    pub(super) fn expression(&mut self, world: &World) -> Tree {
        match self.random.random_range(0..600) {
            0 => self.long(world),
            1..4 => self.deep(world),
            _ => {
                let size = self.random.random_range(1..14);
                self.mixed(world, size)
            }
        }
    }

    /// A chain of up to thousands of conditions, made so that a few chosen devices decide: all others are outside of
    /// every part of a disjunction, or the chosen inside of every part of a conjunction.
    fn long(&mut self, world: &World) -> Tree {
        let count = self.random.random_range(1_000..3_000);
        let chosen: Vec<&Device> = world.devices.choose_multiple(&mut self.random, 3).collect();
        let is_chosen = |device: &Device| chosen.iter().any(|known| known.row.id == device.row.id);
        let disjunction = self.random.random::<bool>();
        let mut kids =
            vec![Tree::Devices(chosen.iter().map(|device| device.row.id.get()).collect())];
        for _ in 0..count {
            let kid = self.leaf(world);
            let kid = if self.chance(50) { Tree::Not(Box::new(kid)) } else { kid };
            let fits = world.devices.iter().all(|device| {
                let is_recipient = truth(&kid, device, world) == Truth::True;
                if disjunction {
                    !is_recipient || is_chosen(device)
                } else {
                    is_recipient || !is_chosen(device)
                }
            });
            if fits || self.chance(1) && !disjunction {
                kids.push(kid);
            }
        }
        if disjunction { Tree::Or(kids) } else { Tree::And(kids) }
    }

    fn deep(&mut self, world: &World) -> Tree {
        let mut tree = self.leaf(world);
        for _ in 0..self.random.random_range(20..180) {
            let beside = self.leaf(world);
            tree = match self.random.random_range(0..3) {
                0 => Tree::Not(Box::new(tree)),
                1 => Tree::And(vec![beside, tree]),
                _ => Tree::Or(vec![tree, beside]),
            };
        }
        tree
    }
}

/// Whether it has recipients and others.
pub(super) fn is_mixed(tree: &Tree, world: &World) -> bool {
    let is_recipient = |device| truth(tree, device, world) == Truth::True;
    let recipients = world.devices.iter().filter(|device| is_recipient(device)).count();
    (1..world.devices.len()).contains(&recipients)
}
