//! `apns_simulator --data DIR`: plays Apple's push service.

use std::process::ExitCode;

use carillon_tests::providers::{Apns, Options, run, use_aws_lc_rs};
use clap::Parser as _;

/// Requests are many small allocations.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    use_aws_lc_rs();
    run(&Options::parse(), |_| Apns::default())
}
