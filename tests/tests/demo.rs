//! `carillon demo` on MariaDB, with the real executable; the crate of the executable tests the rest of it.
//!
//! `CARILLON_BIN` names the executable; `make test` builds it first.

use std::process::Command;

use carillon_tests::mariadb::MariaDb;

#[test]
fn the_demo_is_good_on_mariadb() {
    let binary =
        std::env::var("CARILLON_BIN").expect("CARILLON_BIN names the executable; run `make test`");
    let server = MariaDb::start();
    let store = server.url("demo");
    let output = Command::new(binary)
        .args(["demo", "--devices", "2000", "--clients", "50", "--seconds", "4"])
        .args(["--store", &store])
        .output()
        .expect("run carillon");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert!(stdout.starts_with("demo ok: devices=2000 clients=50 "), "{stdout}\n{stderr}");
    assert!(stdout.ends_with(" missing=0 extra=0\n"), "{stdout}");
    assert!(output.status.success());
    // It was this store that it ran on.
    assert_eq!(server.sql("SELECT COUNT(*) FROM demo.devices").trim(), "2000");
}
