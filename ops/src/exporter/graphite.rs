//! Lines over TCP, as Carbon takes them: `name value seconds`.

use std::fmt::Write as _;
use std::io;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::text::Sample;
use super::{Lost, PATIENCE};

#[derive(Debug)]
pub(super) struct Graphite {
    to: String,
    stream: Option<TcpStream>,
}

impl Graphite {
    pub(super) fn new(to: String) -> Graphite {
        Graphite { to, stream: None }
    }

    /// Sends all, over a connection of its own that stays.
    pub(super) async fn send(&mut self, samples: &[Sample], seconds: u64) -> Result<(), Lost> {
        let mut lines = String::new();
        for Sample { name, value, .. } in samples {
            let _ = writeln!(lines, "{name} {value} {seconds}");
        }
        // Whatever fails or takes too long, what it has is in doubt: the next begins with another connection.
        let stream = self.stream.take().filter(is_open);
        let sent = timeout(PATIENCE, write(stream, &self.to, lines.as_bytes())).await;
        match sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(())
            }
            Err(error) => Err(Lost { error, samples: samples.len() as u64 }),
        }
    }
}

async fn write(stream: Option<TcpStream>, to: &str, lines: &[u8]) -> io::Result<TcpStream> {
    let mut stream = match stream {
        Some(stream) => stream,
        None => TcpStream::connect(to).await?,
    };
    stream.write_all(lines).await?;
    Ok(stream)
}

/// Whether the other end has not closed it, as far as one knows: what is written then is lost without an error.
fn is_open(stream: &TcpStream) -> bool {
    let mut said = [0; 64];
    loop {
        match stream.try_read(&mut said) {
            Ok(0) => return false,
            // It has nothing to say to us.
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}
