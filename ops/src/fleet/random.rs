//! Random numbers that are the same on every machine and in every release: no library's generator promises that.

/// 2^64 divided by the golden ratio: SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). Predictable by design.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `end`, which is not 0; even to 2^-64.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(end);
        u64::try_from(product >> 64).expect("the upper half")
    }

    /// A place in something of `len` elements, which is not empty.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// True in so many cases of a hundred.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// An element by its share.
    pub(super) fn weighted<T: Copy>(&mut self, choices: &[(T, u64)]) -> T {
        let mut at = self.below(choices.iter().map(|(_, share)| share).sum());
        for (choice, share) in choices {
            match at.checked_sub(*share) {
                Some(rest) => at = rest,
                None => return *choice,
            }
        }
        unreachable!("the draw is below the sum of the shares")
    }

    /// Puts the elements into an order drawn at random.
    pub(crate) fn shuffle<T>(&mut self, elements: &mut [T]) {
        for last in (1..elements.len()).rev() {
            elements.swap(last, self.index(last + 1));
        }
    }
}

/// SplitMix64's output function: each number comes from exactly one other.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Draws ranks from 0 up, rank k with a share of 1/(k + 1): Zipf's law with exponent 1.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    /// Shares of the ranks up to each, summed up.
    sums: Vec<u64>,
}

impl Zipf {
    /// Shares are rounded down to parts of 2^-40, exact to 10^-8 for the 10,000th.
    pub(super) fn new(ranks: u16) -> Self {
        let mut sum = 0;
        let share = |rank: u16| (1_u64 << 40) / (u64::from(rank) + 1);
        let sums = (0..ranks).map(|rank| {
            sum += share(rank);
            sum
        });
        Self { sums: sums.collect() }
    }

    pub(super) fn draw(&self, random: &mut Random) -> u16 {
        let at = random.below(*self.sums.last().expect("there are ranks"));
        let rank = self.sums.partition_point(|sum| *sum <= at);
        u16::try_from(rank).expect("as many as there are ranks")
    }
}
