//! Listening sockets: one per core on the same address, so that no core hands connections to another.
//!
//! The kernel spreads connections by their addresses and ports, which is fair in bulk. A socket that closes resets what
//! still waits in its queue, so on shutdown a core empties its queue first.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::EdgeError;

/// Connections that may wait to be accepted, a core. The kernel may allow fewer (`somaxconn`).
const BACKLOG: i32 = 4096;

/// `count` sockets on one address; port 0 gives all of them the same free port.
pub(crate) fn bind(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, EdgeError> {
    let mut listeners: Vec<TcpListener> = Vec::with_capacity(count);
    let mut address = address;
    for _ in 0..count {
        let listener = bind_one(address).map_err(|source| EdgeError::Listen { address, source })?;
        address = listener.local_addr().map_err(|source| EdgeError::Listen { address, source })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Options of an accepted connection. `send_timeout` bounds how long a peer may leave bytes unacknowledged, also by
/// keeping its window shut; keepalives find peers that vanished while nothing was sent.
pub(crate) fn configure(
    stream: &tokio::net::TcpStream,
    send_timeout: Duration,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(send_timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = send_timeout;
    Ok(())
}
