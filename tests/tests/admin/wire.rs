//! HTTP/1.1 by hand, for what a well-behaved client does not do: bodies without a length, in pieces, or cut off.

use std::net::SocketAddr;

use bytes::Bytes;
use carillon_tests::admin::{Admin, Answer};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::bench::PATIENCE;

/// One connection, with one request on its way.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    /// Sends the head of a request with the admin's token. `framing` is the header that says how long the body is.
    pub(crate) async fn begin(at: SocketAddr, admin: &Admin, call: &str, framing: &str) -> Wire {
        let stream = TcpStream::connect(at).await.expect("central listens");
        let mut wire = Wire { stream: BufReader::new(stream) };
        let token = &admin.token;
        let head = format!(
            "{call} HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {token}\r\n{framing}\r\n\r\n"
        );
        wire.send(head.as_bytes()).await.expect("a head is taken");
        wire
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes).await?;
        self.stream.get_mut().flush().await
    }

    /// Sends one chunk of a chunked body; an empty one ends it.
    pub(crate) async fn chunk(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk).await
    }

    /// Reads the answer.
    ///
    /// # Panics
    /// If none comes, or not all of it.
    pub(crate) async fn answer(self) -> Answer {
        let read = tokio::time::timeout(PATIENCE, self.read());
        read.await.expect("an answer in time").expect("a whole answer")
    }

    async fn read(mut self) -> std::io::Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status =
            status.ok_or_else(|| std::io::Error::other(format!("{line:?} is no answer")))?;
        let mut headers = HeaderMap::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            let name: HeaderName = name.parse().map_err(std::io::Error::other)?;
            headers.insert(name, HeaderValue::from_str(value).map_err(std::io::Error::other)?);
        }
        let length =
            headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer { status, headers, body: Bytes::from(body) })
    }
}
