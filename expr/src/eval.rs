//! Evaluation for one device, in Kleene's three-valued logic.
//!
//! | `a`     | `b`     | `a and b` | `a or b` | `not a` |
//! |---------|---------|-----------|----------|---------|
//! | true    | true    | true      | true     | false   |
//! | true    | unknown | unknown   | true     | false   |
//! | true    | false   | false     | true     | false   |
//! | unknown | true    | unknown   | true     | unknown |
//! | unknown | unknown | unknown   | unknown  | unknown |
//! | unknown | false   | false     | unknown  | unknown |
//! | false   | true    | false     | true     | true    |
//! | false   | unknown | false     | unknown  | true    |
//! | false   | false   | false     | false    | true    |
//!
//! A test is unknown for a device that lacks what it looks at; `has`, `#group` and `all` never are. No
//! allocation, no recursion, at most one step for each node, and each step takes time linear in the
//! value that it looks at.

use sha2::{Digest, Sha256};

use crate::calendar::weekday;
use crate::compile::{Code, NO, What, YES};
use crate::fold::{cmp_folded, fold_char};
use crate::steps::step as count_step;
use crate::tree::{Operand, Place, Quantifier, Subject, Test};
use crate::{AttributeId, Context, Expression, Number, Profile, Time, Value};

/// The outcome for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    True,
    False,
    /// It depends on something that the device lacks.
    Unknown,
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::True } else { Self::False }
    }
}

impl From<Option<bool>> for Truth {
    fn from(truth: Option<bool>) -> Self {
        truth.map_or(Self::Unknown, Self::from)
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl Expression {
    /// Whether the device is a recipient, where neither the clock nor the message is known: what
    /// depends on them is unknown. For an expression that is not
    /// [volatile](Expression::is_volatile) and names its samples' salts, the same as
    /// [`matches_in`](Expression::matches_in).
    pub fn matches(&self, device: &impl Profile) -> bool {
        self.matches_in(device, &Context::default())
    }

    /// Whether the device is a recipient: whether the outcome is [`Truth::True`].
    pub fn matches_in(&self, device: &impl Profile, context: &Context) -> bool {
        self.run(self.is_true(), device, context).0
    }

    /// The outcome for one device, where neither the clock nor the message is known.
    pub fn evaluate(&self, device: &impl Profile) -> Truth {
        self.evaluate_in(device, &Context::default())
    }

    /// The outcome for one device.
    ///
    /// A value of another type than the expression was checked against counts as lacking.
    pub fn evaluate_in(&self, device: &impl Profile, context: &Context) -> Truth {
        if self.run(self.is_true(), device, context).0 {
            Truth::True
        } else if self.run(self.is_false(), device, context).0 {
            Truth::False
        } else {
            Truth::Unknown
        }
    }

    /// As [`matches_in`](Expression::matches_in), with the steps that it took, for tests of their
    /// number: at most [`nodes`](Expression::nodes).
    #[doc(hidden)]
    pub fn matches_counted(&self, device: &impl Profile, context: &Context) -> (bool, u64) {
        self.run(self.is_true(), device, context)
    }

    fn run(&self, code: &Code, device: &impl Profile, context: &Context) -> (bool, u64) {
        let tests = self.dag().tests();
        match code.sections.len() {
            1 => run(code, tests, &mut [], device, context),
            2..=64 => run(code, tests, &mut [0; 1], device, context),
            // 65,536 distinct nodes, each asked both ways: 16 KiB.
            _ => run(code, tests, &mut [0; 2_048], device, context),
        }
    }
}

/// `answers` has a bit, 0, for each section but the last.
fn run(
    code: &Code,
    tests: &[Test],
    answers: &mut [u64],
    device: &impl Profile,
    context: &Context,
) -> (bool, u64) {
    let (mut answer, mut count) = (false, 0);
    for (section, entry) in code.sections.iter().enumerate() {
        let mut at = *entry;
        while at != YES && at != NO {
            count_step(1);
            let step = code.steps[at as usize];
            let holds = match step.what {
                What::True(test) => truth(&tests[test as usize], device, context) == Some(true),
                What::False(test) => truth(&tests[test as usize], device, context) == Some(false),
                What::Section(section) => answers[section as usize / 64] >> (section % 64) & 1 == 1,
            };
            at = if holds { step.yes } else { step.no };
            count += 1;
        }
        answer = at == YES;
        if let Some(word) = answers.get_mut(section / 64) {
            *word |= u64::from(answer) << (section % 64);
        }
    }
    (answer, count)
}

/// The outcome of one test; `None` is unknown.
pub(crate) fn truth(test: &Test, device: &impl Profile, context: &Context) -> Option<bool> {
    match test {
        Test::Everyone => Some(true),
        Test::Group(id) => Some(device.in_group(*id)),
        Test::Device(ids) => Some(ids.binary_search(&device.device_id()?).is_ok()),
        Test::Has(subject) => Some(match subject {
            Subject::Attribute(id) => device.attribute(*id).is_some(),
            Subject::User => device.user().is_some(),
            Subject::LastSeen => device.last_seen().is_some(),
        }),
        Test::Compare { subject, comparison, value } => {
            Some(comparison.holds(compare(*subject, value, device, context)?))
        }
        Test::Between { subject, low, high } => {
            let low = compare(*subject, low, device, context)?;
            let high = compare(*subject, high, device, context)?;
            Some(low.is_ge() && high.is_le())
        }
        Test::In { subject, values, fold: true } => {
            let text = text(*subject, device)?;
            let found = values.binary_search_by(|value| match value {
                Value::String(value) => cmp_folded(text, value).reverse(),
                _ => std::cmp::Ordering::Less,
            });
            Some(found.is_ok())
        }
        Test::In { subject, values, fold: false } => {
            let found = match subject {
                Subject::Attribute(id) => {
                    let value = device.attribute(*id)?;
                    if values.first().map(Value::kind) != Some(value.kind()) {
                        return None;
                    }
                    values.binary_search(value)
                }
                Subject::User => {
                    let user = device.user()?;
                    values.binary_search_by(|value| match value {
                        Value::String(value) => (**value).cmp(user),
                        _ => std::cmp::Ordering::Less,
                    })
                }
                Subject::LastSeen => values.binary_search(&Value::Time(seen(device, context)?)),
            };
            Some(found.is_ok())
        }
        Test::Text { subject, place, pattern, fold } => {
            let text = text(*subject, device)?;
            Some(if *fold { place.fits_folded(text, pattern) } else { place.fits(text, pattern) })
        }
        Test::Matches { subject, glob, fold } => Some(glob.matches(text(*subject, device)?, *fold)),
        Test::Entries { attribute, quantifier, entries } => {
            let Value::Set(set) = device.attribute(*attribute)? else { return None };
            let mut entries = entries.iter();
            Some(match quantifier {
                Quantifier::Any => entries.any(|entry| set.contains(entry)),
                Quantifier::All => entries.all(|entry| set.contains(entry)),
                Quantifier::None => !entries.any(|entry| set.contains(entry)),
            })
        }
        Test::Within { subject, span, ahead } => {
            let (from, to) = span.ends(*ahead);
            let from = compare(*subject, &Operand::Now(from), device, context)?;
            let to = compare(*subject, &Operand::Now(to), device, context)?;
            Some(from.is_ge() && to.is_le())
        }
        Test::Near { attribute, centre, reach, .. } => {
            let Value::Point(point) = device.attribute(*attribute)? else { return None };
            Some(point.chord_squared(*centre) <= *reach)
        }
        Test::Sample { ppm, salt } => {
            let device = device.device_id()?;
            let hash = match salt {
                Some(salt) => sample_hash(salt.as_bytes(), device),
                None => sample_hash(&hex(context.message?), device),
            };
            Some(hash < sample_threshold(*ppm))
        }
        Test::LocalTime { offset, hours } => {
            let minute = local_minutes(*offset, device, context)?.rem_euclid(1_440);
            Some(hours.holds(u16::try_from(minute).ok()?))
        }
        Test::LocalDay { offset, days } => {
            let day = local_minutes(*offset, device, context)?.div_euclid(1_440);
            Some(days >> weekday(day) & 1 == 1)
        }
    }
}

fn text(subject: Subject, device: &impl Profile) -> Option<&str> {
    match subject {
        Subject::Attribute(id) => match device.attribute(id)? {
            Value::String(text) => Some(text),
            _ => None,
        },
        Subject::User => device.user(),
        Subject::LastSeen => None,
    }
}

/// When the device was last seen. An edge's clock may be ahead of the committed one; nobody was
/// seen in the future.
fn seen(device: &impl Profile, context: &Context) -> Option<Time> {
    let seen = device.last_seen()?;
    Some(context.now.map_or(seen, |now| seen.min(now)))
}

/// The order of what the device has and an operand of the same type.
fn compare(
    subject: Subject,
    operand: &Operand,
    device: &impl Profile,
    context: &Context,
) -> Option<std::cmp::Ordering> {
    let clock;
    let value = match operand {
        Operand::Value(value) => value,
        Operand::Now(span) => {
            clock = span.after_clock(context.now)?;
            &clock
        }
    };
    match subject {
        Subject::Attribute(id) => {
            let actual = device.attribute(id)?;
            (actual.kind() == value.kind()).then(|| actual.cmp(value))
        }
        Subject::User => match value {
            Value::String(value) => Some(device.user()?.cmp(value)),
            _ => None,
        },
        Subject::LastSeen => match value {
            Value::Time(value) => Some(seen(device, context)?.cmp(value)),
            _ => None,
        },
    }
}

/// Minutes since 1970 by the clock on the recipient's wall. Unknown unless the offset is a whole number
/// of minutes within a day.
fn local_minutes(offset: AttributeId, device: &impl Profile, context: &Context) -> Option<i64> {
    let Value::Number(offset) = device.attribute(offset)? else { return None };
    Some(context.now?.minutes() + offset_minutes(*offset)?)
}

fn offset_minutes(offset: Number) -> Option<i64> {
    let offset = offset.get();
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 1,440")]
    let minutes = (offset.abs() < 1_440.0 && offset.fract() == 0.0).then_some(offset as i64);
    minutes
}

impl Place {
    fn fits(self, text: &str, pattern: &str) -> bool {
        match self {
            Self::Start => text.starts_with(pattern),
            Self::End => text.ends_with(pattern),
            Self::Anywhere => text.contains(pattern),
        }
    }

    /// `pattern` is folded.
    fn fits_folded(self, text: &str, pattern: &str) -> bool {
        match self {
            Self::Start => {
                let mut chars = text.chars().map(fold_char);
                pattern.chars().all(|c| chars.next() == Some(c))
            }
            Self::End => {
                let mut chars = text.chars().rev().map(fold_char);
                pattern.chars().rev().all(|c| chars.next() == Some(c))
            }
            Self::Anywhere => contains_folded(text, pattern),
        }
    }
}

/// The most characters that are looked for within a text while ignoring case.
pub(crate) const FOLDED_CHARS_MAX: usize = 256;

/// Whether the folded text contains the pattern, without building it: Knuth, Morris and Pratt, so that
/// the time is linear in the text.
fn contains_folded(text: &str, pattern: &str) -> bool {
    let mut wanted = ['\0'; FOLDED_CHARS_MAX];
    let mut length = 0;
    for (place, c) in wanted.iter_mut().zip(pattern.chars()) {
        *place = c;
        length += 1;
    }
    let mut failure = [0_usize; FOLDED_CHARS_MAX];
    for at in 1..length {
        let mut known = failure[at - 1];
        count_step(1);
        while known > 0 && wanted[at] != wanted[known] {
            count_step(1);
            known = failure[known - 1];
        }
        failure[at] = known + usize::from(wanted[at] == wanted[known]);
    }
    let mut matched = 0;
    let mut chars = text.chars().map(fold_char);
    while matched < length {
        let Some(c) = chars.next() else { return false };
        count_step(1);
        while matched > 0 && c != wanted[matched] {
            count_step(1);
            matched = failure[matched - 1];
        }
        matched += usize::from(c == wanted[matched]);
    }
    true
}

/// What stands before the salt, so that samples share nothing with any other use of a hash of ids.
const SAMPLE_DOMAIN: &[u8] = b"carillon.sample.v1";

/// The bytes that are hashed before the device's id: the domain, the length of the salt in bytes as 64
/// bits with the highest byte first, the salt.
pub(crate) fn sample_prefix(salt: &[u8]) -> Vec<u8> {
    [SAMPLE_DOMAIN, &(salt.len() as u64).to_be_bytes(), salt].concat()
}

fn sample_hash(salt: &[u8], device: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(SAMPLE_DOMAIN);
    hash.update((salt.len() as u64).to_be_bytes());
    hash.update(salt);
    finish(hash, device)
}

/// The hash by which `sample` draws a device: the first 64 bits of SHA-256 over `prefix` and the id as 8
/// bytes, the highest first. It is what the function `carillon_sample` of the SQL for SQLite has to
/// compute, which hands the prefix (domain, length of the salt, salt).
#[must_use]
pub fn sample_hash_of(prefix: &[u8], device: u64) -> u64 {
    finish(Sha256::new_with_prefix(prefix), device)
}

fn finish(mut hash: Sha256, device: u64) -> u64 {
    hash.update(device.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

/// Those whose hash is below it are in the sample; `ppm` is below a million.
pub(crate) fn sample_threshold(ppm: u32) -> u64 {
    let share = (u128::from(ppm) << 64).div_ceil(1_000_000);
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// The 16 hexadecimal digits of an id.
pub(crate) fn hex(id: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(id >> (60 - 4 * at) & 15) as usize])
}
