//! A bar at a terminal while central loads its shard.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use carillon_central::OnLoading;
use indicatif::{ProgressBar, ProgressStyle};

/// Shows a load on standard error. `None` if nobody watches; the log then says how far it is.
pub(super) fn bar() -> Option<OnLoading> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = OnceLock::new();
    Some(OnLoading::new(move |progress| {
        let bar: &ProgressBar = bar.get_or_init(|| {
            let style = "  loading  {bar:40} {human_pos} of about {human_len} rows  {per_sec}";
            let style = ProgressStyle::with_template(style).expect("a template");
            ProgressBar::new(progress.expected).with_style(style)
        });
        bar.set_length(progress.expected);
        bar.set_position(progress.rows);
        if progress.finished {
            bar.finish_and_clear();
        }
    }))
}
