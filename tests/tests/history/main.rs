//! The history, through a broker and stores of other makers. `CARILLON_BIN` names the executable.

mod central;

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
