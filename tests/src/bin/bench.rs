//! `bench NAME`: runs one benchmark. `make bench BENCH=NAME` builds what it needs first.

use std::process::ExitCode;

use carillon_tests::bench::{ALL, progress};

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(bench) = ALL.iter().find(|bench| bench.name == name) else {
        progress("which one? make bench BENCH=name, with one of these:");
        for bench in ALL {
            progress(&format!("{:12} {}", bench.name, bench.about));
        }
        return ExitCode::from(2);
    };
    carillon_tests::mariadb::start_large();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime needs threads and a poller, which every Linux has");
    match runtime.block_on((bench.run)()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("FAILED: {error}"));
            ExitCode::FAILURE
        }
    }
}
