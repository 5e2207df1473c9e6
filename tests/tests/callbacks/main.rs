//! Callbacks end to end: the real executable, real TLS, and signatures verified by a library of somebody else's.
//! `CARILLON_BIN` names the executable.

mod bench;
mod endpoints;
mod hostile;
mod isolation;
mod kills;
mod secrets;

use std::time::Duration;

/// For whatever comes by itself; a loaded machine takes some seconds.
const PATIENCE: Duration = Duration::from_secs(90);
