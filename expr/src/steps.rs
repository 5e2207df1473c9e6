//! A counter of steps, which is there in tests only: each loop over a text, a tree or what is made of it counts a step
//! each time round, so that tests can say that no input takes more than linear time, whatever the machine is busy with.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts so many steps.
#[cfg(test)]
pub(crate) fn step(count: usize) {
    COUNT.with(|sum| sum.set(sum.get() + count as u64));
}

/// Nothing outside of tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn step(_: usize) {}

/// What `of` answers, and the steps that it took.
#[cfg(test)]
pub(crate) fn counted<T>(of: impl FnOnce() -> T) -> (T, u64) {
    let before = COUNT.with(Cell::get);
    let answer = of();
    (answer, COUNT.with(Cell::get) - before)
}
