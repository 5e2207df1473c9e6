//! Benchmarks: `make bench BENCH=name` runs one and prints one JSON line a figure.
//!
//! A figure of speed is a ratio against a named peer or limit that does the same work in the same run, in turns; the
//! results of what was timed are checked. Nothing here is a test: tests never assert speed.

mod callbacks;
mod expr;
mod fleet;
mod history;
mod purge;
mod push;
mod requests;
mod restart;
mod store;
mod write;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;

use crate::cluster::Store;

/// A benchmark by its name.
#[derive(Debug)]
pub struct Bench {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn() -> Running,
}

/// A benchmark under way.
pub type Running = Pin<Box<dyn Future<Output = Result<(), BenchError>>>>;

/// Every benchmark.
pub const ALL: &[Bench] = &[
    Bench {
        name: "write",
        about: "a fleet imported through the API against bare statements",
        run: || Box::pin(write::run()),
    },
    Bench {
        name: "requests",
        about: "many callers on a database that is some way off; a lone one against a bare commit",
        run: || Box::pin(requests::run()),
    },
    Bench {
        name: "purge",
        about: "writers' p99 while a million old rows are forgotten",
        run: || Box::pin(purge::run()),
    },
    Bench {
        name: "restart",
        about: "central and an edge started on a fleet's store",
        run: || Box::pin(restart::run()),
    },
    Bench {
        name: "push",
        about: "pushes to a simulator of APNs against h2load; an alert to a million devices",
        run: || Box::pin(push::run()),
    },
    Bench {
        name: "history",
        about: "events into a Kafka broker and into files, and what they cost central",
        run: || Box::pin(history::run()),
    },
    Bench {
        name: "callbacks",
        about: "events told to a thousand endpoints, and beside a hundred that hang",
        run: || Box::pin(callbacks::run()),
    },
    Bench {
        name: "expr",
        about: "reading an expression against a bare scan; evaluating it against the same by hand",
        run: || Box::pin(expr::run()),
    },
];

/// A result that was wrong, or less than was to be measured. Figures that miss their goal are no error.
#[derive(Debug)]
pub struct BenchError(pub String);

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Only to be seen.
    None,
}

impl Goal {
    /// Whether a value meets it; `None` if there is no goal.
    pub fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtLeast(least) => Some(value >= least),
            Goal::AtMost(most) => Some(value <= most),
            Goal::None => None,
        }
    }
}

/// One line of a benchmark's output.
#[derive(Clone, Debug)]
pub struct Figure {
    pub figure: String,
    pub value: f64,
    pub unit: &'static str,
    /// What it was measured against, with that one's own value.
    pub against: String,
    pub goal: Goal,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = match self.goal {
            Goal::AtLeast(least) => json!(format!(">= {least}")),
            Goal::AtMost(most) => json!(format!("<= {most}")),
            Goal::None => serde_json::Value::Null,
        };
        let line = json!({
            "figure": self.figure,
            "value": rounded(self.value),
            "unit": self.unit,
            "against": self.against,
            "goal": goal,
            "met": self.goal.is_met(self.value),
        });
        line.fmt(f)
    }
}

/// The stores to measure: `BENCH_STORE` leaves out the others.
fn stores() -> impl Iterator<Item = Store> {
    let only = std::env::var("BENCH_STORE").ok();
    let wanted = move |store: &Store| match &only {
        Some(only) => format!("{store:?}").eq_ignore_ascii_case(only),
        None => true,
    };
    Store::ALL.into_iter().filter(wanted)
}

/// Prints a figure on standard output.
#[expect(clippy::print_stdout, reason = "the output of a benchmark")]
pub fn print(figure: &Figure) {
    println!("{figure}");
}

/// Says on standard error what goes on.
#[expect(clippy::print_stderr, reason = "benchmarks take long")]
pub fn progress(text: &str) {
    eprintln!("bench: {text}");
}

/// Median and extremes of what was measured several times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    /// # Panics
    /// If there is no sample.
    pub fn of(samples: &[f64]) -> Spread {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Spread { least: sorted[0], median, most: sorted[sorted.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { least, median, most } = *self;
        write!(f, "{} ({} to {})", rounded(median), rounded(least), rounded(most))
    }
}

/// The quantile `q` of samples, nearest rank.
///
/// # Panics
/// If there is no sample.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Three significant digits behind what is large enough to read.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 9);
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Processor time and memory of a running process, from `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User and system.
    pub cpu: Duration,
    pub resident_bytes: u64,
}

impl Usage {
    /// # Errors
    /// If the process has ended.
    pub fn of(pid: u32) -> std::io::Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name may hold anything; what follows its last parenthesis are numbers.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
        // utime and stime in ticks of a hundredth, rss in pages of 4 KiB: Linux on both of our architectures.
        let ticks = field(11).unwrap_or(0) + field(12).unwrap_or(0);
        let pages = field(21).unwrap_or(0);
        Ok(Usage { cpu: Duration::from_millis(ticks * 10), resident_bytes: pages * 4096 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_one_line_of_json_that_says_whether_its_goal_is_met() {
        let figure = Figure {
            figure: "import_sqlite".to_owned(),
            value: 0.512_345,
            unit: "ratio",
            against: "bare statements, 90000/s".to_owned(),
            goal: Goal::AtLeast(0.5),
        };
        let line: serde_json::Value = serde_json::from_str(&figure.to_string()).expect("JSON");
        assert_eq!(line["value"], 0.5123);
        assert_eq!((&line["goal"], &line["met"]), (&json!(">= 0.5"), &json!(true)));
        let missed = Figure { goal: Goal::AtMost(0.5), ..figure };
        assert!(missed.to_string().contains("\"met\":false"));
    }

    #[test]
    fn medians_and_quantiles_are_samples_or_between_two() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!(spread, Spread { least: 1.0, median: 2.0, most: 3.0 });
        assert_eq!(Spread::of(&[1.0, 2.0]).median, 1.5);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.5), 50.0);
        assert_eq!(quantile(&hundred, 0.99), 99.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn a_process_sees_its_own_work() {
        let before = Usage::of(std::process::id()).expect("we run");
        let mut sum = 0u64;
        while Usage::of(std::process::id()).expect("we run").cpu == before.cpu {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(before.resident_bytes > 100_000);
    }
}
