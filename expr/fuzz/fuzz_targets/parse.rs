#![no_main]
//! Any text.

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    common::check(source, &common::device(&mut source.bytes()));
});
