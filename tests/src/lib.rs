//! What the tests share: servers to test against. The tests themselves are in `tests/`.

pub mod mariadb;
