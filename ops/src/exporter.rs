//! Counters and gauges sent to Graphite and StatsD, as `/metrics` shows them.
//!
//! One for all tiers: it takes the very text that a scrape would get, so that no number can be there and missing here.
//! It runs beside everything and waits for nobody: what is not taken in time is lost, and that is counted.

mod graphite;
mod statsd;
mod text;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::graphite::Graphite;
use self::statsd::Statsd;
use self::text::{Kind, Sample, samples};
use crate::config::MetricsSettings;

/// How long a place may take to be reached, and to take all. Less than the shortest interval that is of use.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives the text of a scrape.
#[derive(Clone)]
pub(crate) struct Scrape(Arc<dyn Fn() -> String + Send + Sync>);

impl Scrape {
    pub(crate) fn new(scrape: impl Fn() -> String + Send + Sync + 'static) -> Scrape {
        Scrape(Arc::new(scrape))
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

/// Sends until it is dropped.
#[derive(Debug)]
pub(crate) struct Exporter(Vec<JoinHandle<()>>);

impl Exporter {
    /// Sends what these tiers count, each place by a task of its own, so that neither waits for the other.
    pub(crate) fn start(settings: &MetricsSettings, scrapes: &[Scrape]) -> Exporter {
        let graphite = settings.graphite.iter();
        let graphite = graphite.map(|to| Place::Graphite(Graphite::new(to.0.clone())));
        let statsd = settings.statsd.iter();
        let statsd = statsd.map(|to| Place::Statsd(Statsd::new(to.0.clone())));
        let task = |place| {
            let (interval, prefix) = (settings.interval, settings.prefix.0.clone());
            tokio::spawn(send(place, interval, prefix, scrapes.to_vec()))
        };
        Exporter(graphite.chain(statsd).map(task).collect())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

#[derive(Debug)]
enum Place {
    Graphite(Graphite),
    Statsd(Statsd),
}

/// What could not be sent.
#[derive(Debug)]
struct Lost {
    error: std::io::Error,
    samples: u64,
}

async fn send(mut place: Place, interval: Duration, prefix: String, scrapes: Vec<Scrape>) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let name = match &place {
        Place::Graphite(_) => "graphite",
        Place::Statsd(_) => "statsd",
    };
    let (mut lost, mut has_failed) = (0, false);
    loop {
        ticks.tick().await;
        let mut all: Vec<Sample> =
            scrapes.iter().flat_map(|scrape| samples(&(scrape.0)(), &prefix)).collect();
        // Of its own, so that who looks there sees what is missing there.
        all.push(Sample {
            name: format!("{prefix}.export_lost_total.to.{name}"),
            kind: Kind::Counter,
            value: lost as f64,
        });
        let sent = match &mut place {
            Place::Graphite(graphite) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                graphite.send(&all, now.unwrap_or_default().as_secs()).await
            }
            Place::Statsd(statsd) => statsd.send(&all).await,
        };
        match sent {
            Ok(()) => {
                if std::mem::take(&mut has_failed) {
                    tracing::info!(lost, "metrics are sent to {name} again");
                }
            }
            Err(Lost { error, samples }) => {
                lost += samples;
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(%error, "metrics cannot be sent to {name}; it is tried at each interval");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::config::Sources;

    fn settings(graphite: Option<String>, statsd: Option<String>) -> MetricsSettings {
        let flag = |name: &str, value: String| (format!("metrics.{name}"), value);
        let flags = graphite
            .map(|to| flag("graphite", to))
            .into_iter()
            .chain(statsd.map(|to| flag("statsd", to)))
            .chain([flag("prefix", "here".to_owned()), flag("interval", "50ms".to_owned())]);
        let sources = Sources { flags: flags.collect(), ..Sources::default() };
        sources.load().expect("no faults").settings.metrics
    }

    fn scrape() -> (Arc<AtomicU64>, Scrape) {
        let count = Arc::new(AtomicU64::new(0));
        let of = count.clone();
        let scrape = Scrape::new(move || {
            let n = of.fetch_add(1, Ordering::Relaxed) + 1;
            format!(
                "# HELP t_polls P.\n# TYPE t_polls counter\nt_polls_total{{outcome=\"news\"}} {n}\n\
                 # HELP t_open O.\n# TYPE t_open gauge\nt_open -3\n# EOF\n"
            )
        });
        (count, scrape)
    }

    async fn lines(listener: &TcpListener, wanted: usize) -> Vec<String> {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (mut text, mut piece) = (String::new(), [0; 1000]);
        while text.lines().count() < wanted || !text.ends_with('\n') {
            let read = stream.read(&mut piece).await.expect("lines");
            assert!(read > 0, "{text}");
            text += std::str::from_utf8(&piece[..read]).expect("UTF-8");
        }
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn graphite_gets_all_over_connections_that_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("bound").to_string();
        let (_, scrape) = scrape();
        let _exporter = Exporter::start(&settings(Some(to), None), &[scrape]);
        let mut last = 0.0;
        // Each time the connection is closed behind it.
        for _ in 0..4 {
            for line in lines(&listener, 6).await {
                let parts: Vec<&str> = line.split(' ').collect();
                let [name, value, at] = parts[..] else { panic!("{line}") };
                let value: f64 = value.parse().expect("a number");
                assert!(at.parse::<u64>().expect("seconds") > 1_700_000_000);
                match name {
                    "here.t_polls_total.outcome.news" => {
                        assert!(value > last);
                        last = value;
                    }
                    "here.t_open" => assert_eq!(value, -3.0),
                    "here.export_lost_total.to.graphite" => {}
                    other => panic!("{other}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn statsd_gets_differences_that_add_up_also_after_it_was_away() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let to = socket.local_addr().expect("bound");
        drop(socket);
        let (count, scrape) = scrape();
        let _exporter = Exporter::start(&settings(None, Some(to.to_string())), &[scrape]);
        while count.load(Ordering::Relaxed) < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let socket = UdpSocket::bind(to).await.expect("nobody took it");
        let (mut first, mut sum, mut lost, mut datagram) = (0.0, 0.0, 0.0, [0; 2000]);
        let away = count.load(Ordering::Relaxed) as f64;
        for n in 0..10 {
            let read = socket.recv(&mut datagram).await.expect("a datagram");
            assert!(read <= statsd::DATAGRAM_BYTES_MAX);
            let text = std::str::from_utf8(&datagram[..read]).expect("UTF-8");
            let mut gauges = Vec::new();
            for line in text.lines() {
                let (name, value) = line.split_once(':').expect("a name");
                match (name, value.split_once('|').expect("a kind")) {
                    ("here.t_polls_total.outcome.news", (grown, "c")) => {
                        let grown = grown.parse::<f64>().expect("a number");
                        *if n == 0 { &mut first } else { &mut sum } += grown;
                    }
                    ("here.export_lost_total.to.statsd", (n, "c")) => {
                        lost += n.parse::<f64>().expect("n")
                    }
                    ("here.t_open", (n, "g")) => gauges.push(n.to_owned()),
                    other => panic!("{other:?}"),
                }
            }
            // A negative number is one less, so it is begun at zero.
            assert_eq!(gauges, ["0", "-3"]);
        }
        // What a socket took while nobody listened may be gone, what it refused is not; from then on nothing is.
        assert!(first >= 1.0 && first <= away + 2.0, "{first} after {away}");
        assert_eq!(sum, 9.0);
        assert!(lost > 0.0);
    }
}
