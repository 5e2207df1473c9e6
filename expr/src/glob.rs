//! Patterns of `matches`: `*` stands for any run of characters, `?` for one, `\` takes the next
//! character as it is.
//!
//! A pattern is run as an automaton whose states are bits, one step a character, so no pattern and
//! no text can make it go back: the time is linear in the text.

use std::hash::{Hash, Hasher};

use crate::fold::fold_char;
use crate::steps::step;

/// The most characters of a pattern, without its stars.
pub(crate) const GLOB_CHARS_MAX: usize = 255;

const WORDS: usize = (GLOB_CHARS_MAX + 1) / 64;

type States = [u64; WORDS];

/// Equal if the text is; the rest follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    text: Box<str>,
    parts: Box<[Part]>,
    /// Where a state may stay, whatever comes: a `*` stands before the element.
    stay: States,
    /// Where an element takes any character.
    any: States,
    /// Sorted by character: where an element takes just this one.
    takes: Box<[(char, States)]>,
    accept: usize,
}

/// A piece of a pattern, for SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Run,
    One,
    Exactly(char),
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

impl Hash for Glob {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GlobError {
    TooLong,
    /// It ends with a backslash.
    Unfinished,
}

impl Glob {
    pub(crate) fn try_new(text: &str) -> Result<Self, GlobError> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            step(1);
            match c {
                '*' if parts.last() == Some(&Part::Run) => {}
                '*' => parts.push(Part::Run),
                '?' => parts.push(Part::One),
                '\\' => parts.push(Part::Exactly(chars.next().ok_or(GlobError::Unfinished)?)),
                c => parts.push(Part::Exactly(c)),
            }
        }
        let (mut stay, mut any) = ([0; WORDS], [0; WORDS]);
        let mut takes: Vec<(char, States)> = Vec::new();
        let mut at = 0;
        for part in &parts {
            if at == GLOB_CHARS_MAX && *part != Part::Run {
                return Err(GlobError::TooLong);
            }
            match part {
                Part::Run => set(&mut stay, at),
                Part::One => set(&mut any, at),
                Part::Exactly(c) => {
                    let place = takes.binary_search_by_key(c, |(known, _)| *known);
                    let place = place.unwrap_or_else(|place| {
                        takes.insert(place, (*c, [0; WORDS]));
                        place
                    });
                    set(&mut takes[place].1, at);
                }
            }
            at += usize::from(*part != Part::Run);
        }
        Ok(Self {
            text: text.into(),
            parts: parts.into(),
            stay,
            any,
            takes: takes.into(),
            accept: at,
        })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether the whole text fits; with `fold`, its characters are folded first.
    pub(crate) fn matches(&self, text: &str, fold: bool) -> bool {
        let mut states: States = [0; WORDS];
        set(&mut states, 0);
        for c in text.chars() {
            step(1);
            let c = if fold { fold_char(c) } else { c };
            let takes = match self.takes.binary_search_by_key(&c, |(known, _)| *known) {
                Ok(place) => self.takes[place].1,
                Err(_) => [0; WORDS],
            };
            let mut carry = 0;
            for word in 0..WORDS {
                let moved = states[word] & (takes[word] | self.any[word]);
                let stayed = states[word] & self.stay[word];
                states[word] = moved << 1 | carry | stayed;
                carry = moved >> 63;
            }
            if states == [0; WORDS] {
                return false;
            }
        }
        states[self.accept / 64] >> (self.accept % 64) & 1 == 1
    }
}

fn set(states: &mut States, at: usize) {
    states[at / 64] |= 1 << (at % 64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            ['\\', c, rest @ ..] => text.first() == Some(c) && naive(rest, &text[1..]),
            ['?', rest @ ..] => !text.is_empty() && naive(rest, &text[1..]),
            [c, rest @ ..] => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    #[test]
    fn all_small_patterns_agree_with_backtracking() {
        let words = |alphabet: &[char], length: u32| {
            let alphabet = alphabet.to_vec();
            (0..alphabet.len().pow(length)).map(move |mut n| {
                (0..length)
                    .map(|_| {
                        let c = alphabet[n % alphabet.len()];
                        n /= alphabet.len();
                        c
                    })
                    .collect::<Vec<char>>()
            })
        };
        let mut matched = 0;
        for pattern in (0..=5).flat_map(|length| words(&['a', 'å', '*', '?'], length)) {
            let glob = Glob::try_new(&pattern.iter().collect::<String>()).unwrap();
            for text in (0..=4).flat_map(|length| words(&['a', 'å'], length)) {
                let expected = naive(&pattern, &text);
                let text: String = text.iter().collect();
                assert_eq!(glob.matches(&text, false), expected, "{pattern:?} {text}");
                matched += usize::from(expected);
            }
        }
        assert!(matched > 1_000);
    }

    #[test]
    fn a_backslash_takes_the_next_character_as_it_is() {
        let glob = Glob::try_new(r"\*\?\\x").unwrap();
        assert!(glob.matches(r"*?\x", false));
        assert!(!glob.matches(r"a?\x", false));
        assert_eq!(Glob::try_new("a\\").unwrap_err(), GlobError::Unfinished);
    }

    #[test]
    fn long_patterns_cross_words_and_have_a_limit() {
        let text = "ab".repeat(127) + "a";
        let glob = Glob::try_new(&format!("*{text}*")).unwrap();
        assert!(glob.matches(&format!("xx{text}yy"), false));
        assert!(!glob.matches(&text[1..], false));
        assert!(glob.matches(&format!("xx{}yy", text.to_uppercase()), true));
        assert_eq!(Glob::try_new(&format!("{text}?")).unwrap_err(), GlobError::TooLong);
    }
}
