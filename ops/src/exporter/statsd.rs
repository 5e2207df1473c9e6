//! Datagrams of lines, `name:value|c` for what a counter grew by and `name:value|g` for a gauge.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::text::{Kind, Sample};
use super::{Lost, PATIENCE};

/// Fits into an Ethernet frame with the headers of IPv6 and of a tunnel.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1432;

#[derive(Debug)]
pub(super) struct Statsd {
    to: String,
    socket: Option<UdpSocket>,
    /// What each counter had when it was last sent.
    sent: HashMap<String, f64>,
}

/// Lines that go together.
#[derive(Debug, Default)]
struct Datagram {
    text: String,
    samples: u64,
    /// What counters are at, once it is sent.
    counters: Vec<(String, f64)>,
}

impl Statsd {
    pub(super) fn new(to: String) -> Statsd {
        Statsd { to, socket: None, sent: HashMap::new() }
    }

    /// Sends what has changed of counters, and all gauges. What a datagram that was refused would have said of counters
    /// the next says.
    pub(super) async fn send(&mut self, samples: &[Sample]) -> Result<(), Lost> {
        let datagrams = self.datagrams(samples);
        let mut lost = None;
        let sent = timeout(PATIENCE, async {
            for datagram in datagrams {
                match self.send_one(&datagram.text).await {
                    Ok(()) => self.sent.extend(datagram.counters),
                    Err(error) => {
                        // Another address may be right by now.
                        self.socket = None;
                        let lost = lost.get_or_insert(Lost { error, samples: 0 });
                        lost.samples += datagram.samples;
                    }
                }
            }
        });
        if sent.await.is_err() {
            self.socket = None;
            let samples = samples.len() as u64;
            return Err(Lost { error: io::ErrorKind::TimedOut.into(), samples });
        }
        lost.map_or(Ok(()), Err)
    }

    async fn send_one(&mut self, text: &str) -> io::Result<()> {
        if self.socket.is_none() {
            self.socket = Some(connect(&self.to).await?);
        }
        let socket = self.socket.as_ref().expect("connected above");
        socket.send(text.as_bytes()).await.map(drop)
    }

    fn datagrams(&self, samples: &[Sample]) -> Vec<Datagram> {
        let (mut all, mut datagram) = (Vec::new(), Datagram::default());
        for sample in samples {
            let Sample { name, kind, value } = sample;
            let mut lines = String::new();
            match kind {
                Kind::Counter => {
                    let grown = value - self.sent.get(name).copied().unwrap_or_default();
                    if grown <= 0.0 {
                        continue;
                    }
                    let _ = writeln!(lines, "{name}:{grown}|c");
                }
                Kind::Gauge => {
                    // A sign says by how much it changes.
                    if *value < 0.0 {
                        let _ = writeln!(lines, "{name}:0|g");
                    }
                    let _ = writeln!(lines, "{name}:{value}|g");
                }
            }
            if datagram.text.len() + lines.len() > DATAGRAM_BYTES_MAX {
                all.push(std::mem::take(&mut datagram));
            }
            datagram.text += &lines;
            datagram.samples += 1;
            if *kind == Kind::Counter {
                datagram.counters.push((name.clone(), *value));
            }
        }
        all.push(datagram);
        all.retain(|datagram| !datagram.text.is_empty());
        all
    }
}

async fn connect(to: &str) -> io::Result<UdpSocket> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host(to).await? {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let connected = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            Ok(socket)
        };
        match connected.await {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_has_whole_lines_and_fits() {
        let sample = |n: usize| Sample {
            name: format!("prefix.metric_{n}"),
            kind: if n.is_multiple_of(2) { Kind::Counter } else { Kind::Gauge },
            value: n as f64,
        };
        let samples: Vec<Sample> = (1..=500).map(sample).collect();
        let statsd = Statsd::new("localhost:1".to_owned());
        let datagrams = statsd.datagrams(&samples);
        assert!(datagrams.len() > 5);
        let lines: Vec<&str> =
            datagrams.iter().flat_map(|datagram| datagram.text.lines()).collect();
        let expected: Vec<String> = samples
            .iter()
            .map(|of| match of.kind {
                Kind::Counter => format!("{}:{}|c", of.name, of.value),
                Kind::Gauge => format!("{}:{}|g", of.name, of.value),
            })
            .collect();
        assert_eq!(lines, expected);
        assert!(datagrams.iter().all(|datagram| datagram.text.len() <= DATAGRAM_BYTES_MAX));
        assert_eq!(datagrams.iter().map(|datagram| datagram.samples).sum::<u64>(), 500);
    }
}
