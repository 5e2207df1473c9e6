//! `web_push_simulator --data DIR`: plays a browser vendor's push service, and the browsers.

use std::process::ExitCode;

use carillon_tests::providers::{Options, WebPush, run, use_aws_lc_rs};
use clap::Parser as _;

/// Requests are many small allocations.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    use_aws_lc_rs();
    run(&Options::parse(), WebPush::new)
}
