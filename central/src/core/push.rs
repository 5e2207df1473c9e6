//! Pushes: waking the devices that are not here.
//!
//! A *job* is a message's pushes over one channel. It goes in *runs* (one that announces the message, another for each
//! edit, one that withdraws it after a recall), a run in *passes* over the app's devices, a pass in *steps* of some
//! hundred devices. The writer begins, stops and ends jobs with the very changes that cause it ([`jobs`]), so that what
//! is recalled is stopped by the transaction of the recall. How far a job is comes back as reports, each counted once.
//!
//! ```text
//! change ─▶ jobs ─▶ committed job ─▶ Run: walk ─▶ targets ─▶ channel ─▶ outcomes ─▶ steps ─▶ report ─▶ writer
//!             ▲                                                                                    │
//!             └────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Who is pushed in which pass follows from the device and the run alone ([`walk`]), so nothing is kept per device: a
//! restart walks on from the last device that was reported.

pub mod books;
pub mod caps;
pub mod jobs;
pub mod policy;
pub mod quiet;
pub mod rate;
pub mod report;
pub mod run;
pub mod walk;

#[cfg(test)]
mod tests;
