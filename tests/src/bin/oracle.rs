//! `oracle EXPRESSIONS [SEED]`: runs the oracle of expressions. `make oracle N=… SEED=…` builds what it needs first.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of the oracle")]

use std::process::ExitCode;

use carillon_tests::mariadb::MariaDb;
use carillon_tests::oracle::{Plan, run};

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (expressions, seed) = match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(expressions)), None, None) => (expressions, 1),
        (Some(Ok(expressions)), Some(Ok(seed)), None) => (expressions, seed),
        _ => {
            eprintln!("oracle: how many, and from which seed? make oracle N=20000 SEED=1");
            return ExitCode::from(2);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let server = MariaDb::start();
    let plan = Plan { expressions, seed, threads };
    let report = match run(plan, &server, &|_, _, _, said| said) {
        Ok(report) => report,
        Err(failure) => {
            eprintln!("{failure}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", report.coverage());
    if let Err(floor) = report.check_floors() {
        eprintln!("oracle: too little: {floor}");
        return ExitCode::FAILURE;
    }
    println!("{report}");
    ExitCode::SUCCESS
}
