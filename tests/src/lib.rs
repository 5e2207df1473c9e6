//! What the tests share: servers to test against and how to talk to them. The tests themselves are in `tests/`.

pub mod admin;
pub mod batches;
pub mod bench;
pub mod callbacks;
pub mod cluster;
pub mod history;
pub mod mariadb;
pub mod oracle;
pub mod process;
pub mod providers;
pub mod proxy;
pub mod pushes;
