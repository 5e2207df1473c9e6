//! Long trials of one promise each, under faults: `make torture NAME=write` runs one at its full length, CI a short one.
//!
//! `CARILLON_BIN` names the executable, `CARILLON_TORTURE_ROUNDS` how many rounds a store and `CARILLON_TORTURE_SEED`
//! the run; each trial prints its seed and one line of what it did, and fails below its floors.

mod write;
