#![no_main]
//! Texts of the language's own words, asked about one device in every way.

mod common;
mod words;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (profile, rest) = bytes.split_at(bytes.len().min(10));
    common::check(&words::text(rest), &common::device(&mut profile.iter().copied()));
});
