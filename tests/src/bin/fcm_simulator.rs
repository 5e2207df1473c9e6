//! `fcm_simulator --data DIR`: plays Firebase Cloud Messaging and Google's token endpoint.

use std::process::ExitCode;

use carillon_tests::providers::{Fcm, Options, run, use_aws_lc_rs};
use clap::Parser as _;

/// Requests are many small allocations.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    use_aws_lc_rs();
    run(&Options::parse(), Fcm::new)
}
