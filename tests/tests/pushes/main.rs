//! Pushes end to end: the real executable, real TLS, and providers that enforce what providers publish.

mod answers;
mod arrivals;
mod bench;
mod caps;
mod content;
mod policy;
mod refusals;
mod restarts;
mod secrets;

use std::time::Duration;

/// For whatever comes by itself; a loaded machine takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);
