//! The first bad lines of an import, in bounded memory.
//!
//! They are found in two places, by the parser at once and by the writer chunks later, so they come in no order.

use std::collections::BTreeMap;

use crate::core::write::BadLine;

#[derive(Debug)]
pub(super) struct FirstBad {
    most: usize,
    count: u64,
    /// By number, the lowest so far.
    lines: BTreeMap<u64, BadLine>,
}

impl FirstBad {
    pub(super) fn new(most: usize) -> FirstBad {
        FirstBad { most, count: 0, lines: BTreeMap::new() }
    }

    /// A line is bad once.
    pub(super) fn add(&mut self, bad: BadLine) {
        self.count += 1;
        self.lines.insert(bad.line, bad);
        if self.lines.len() > self.most {
            self.lines.pop_last();
        }
    }

    /// Of all, kept or not.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Sorted by number.
    pub(super) fn into_lines(self) -> Vec<BadLine> {
        self.lines.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_numbers_stay_whatever_the_order() {
        let mut first = FirstBad::new(3);
        for line in [7, 8, 9, 10, 2, 11, 1, 12] {
            first.add(BadLine { line, code: "bad-line".into(), detail: String::new() });
        }
        assert_eq!(first.count(), 8);
        assert_eq!(first.into_lines().iter().map(|bad| bad.line).collect::<Vec<_>>(), [1, 2, 7]);
    }
}
