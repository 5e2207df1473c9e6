//! `apns_simulator --data DIR`: plays Apple's push service.

use std::process::ExitCode;

use carillon_tests::providers::{Apns, Options, run};
use clap::Parser as _;

fn main() -> ExitCode {
    carillon_tests::providers::use_aws_lc_rs();
    run(&Options::parse(), |_| Apns::default())
}
