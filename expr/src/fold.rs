//! Comparison without regard to case.
//!
//! The stores must fold exactly as we do, and two builds must fold alike whatever Unicode they know.
//! So folding is one character to one character, over blocks whose letters have not changed for
//! many editions of Unicode: Latin, Greek, Cyrillic and Armenian (below U+0590, U+1E00 to U+1FFF).
//! All other characters stand for themselves. Nothing is normalised: `é` as one character and `é` as
//! two differ, with folding and without.

use std::ops::Range;

const BLOCKS: [Range<u32>; 2] = [0..0x590, 0x1e00..0x2000];

/// The lower-case form of one character; `ς` counts as `σ`, since both are written `Σ`.
pub(crate) fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    if c == 'ς' {
        return 'σ';
    }
    if !BLOCKS.iter().any(|block| block.contains(&u32::from(c))) {
        return c;
    }
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(only), None) => only,
        // `İ` would become two characters.
        _ => c,
    }
}

pub(crate) fn fold(text: &str) -> String {
    text.chars().map(fold_char).collect()
}

/// Each character of `folded`, with the other characters that fold to it: what SQL has to replace.
pub(crate) fn unfolded(folded: &str) -> Vec<(char, char)> {
    let mut wanted: Vec<char> = folded.chars().collect();
    wanted.sort_unstable();
    wanted.dedup();
    BLOCKS
        .into_iter()
        .flatten()
        .filter_map(char::from_u32)
        .map(|c| (c, fold_char(c)))
        .filter(|(c, lower)| c != lower && wanted.binary_search(lower).is_ok())
        .collect()
}

/// Whether folding `text` gives `folded`, without building it.
pub(crate) fn cmp_folded(text: &str, folded: &str) -> std::cmp::Ordering {
    text.chars().map(fold_char).cmp(folded.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_is_one_to_one_and_idempotent() {
        for c in '\0'..=char::MAX {
            let lower = fold_char(c);
            assert_eq!(fold_char(lower), lower, "{c:?}");
        }
        assert_eq!(
            fold("MALMÖ Straße ΟΔΟΣ ЖУК İ ǅ \u{212a} ﬀ"),
            "malmö straße οδοσ жук İ ǆ \u{212a} ﬀ"
        );
        assert_eq!(fold_char('ẞ'), 'ß');
    }

    #[test]
    fn the_table_does_not_move() {
        // The number of folded characters and a checksum: another build must have the same.
        let pairs: Vec<_> = BLOCKS
            .into_iter()
            .flatten()
            .filter_map(char::from_u32)
            .filter(|c| fold_char(*c) != *c)
            .collect();
        let sum = pairs.iter().fold(0u64, |sum, c| {
            sum.wrapping_mul(31).wrapping_add(
                u64::from(u32::from(*c)) * 65_536 + u64::from(u32::from(fold_char(*c))),
            )
        });
        assert_eq!((pairs.len(), sum), (689, 10_904_372_086_567_925_876));
    }

    #[test]
    fn unfolding_names_every_source() {
        assert_eq!(unfolded("ab1"), [('A', 'a'), ('B', 'b')]);
        assert_eq!(unfolded("σ"), [('Σ', 'σ'), ('ς', 'σ')]);
        assert_eq!(unfolded("Aé"), [('É', 'é')]);
    }
}
