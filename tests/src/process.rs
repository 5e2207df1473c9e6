//! Processes that a test starts: none outlives the test, however that ends.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc;

/// Below those that the system gives to outgoing connections, of which there are thousands while tests run.
const PORTS: Range<u16> = 10_000..32_000;

/// A port of 127.0.0.1 that nobody listens on at this moment. Another server may take it before it is used, so
/// whoever starts one on it looks whether it came up.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// 127.0.0.1 with a [`free_port`].
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A command whose process gets SIGKILL when the thread that started it ends; start it by
/// [`spawn_from_lasting_thread`].
pub(crate) fn dies_with_us(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.is_file() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The parent-death signal goes by threads, so the process's parent is one that lasts as long as ours.
pub(crate) fn spawn_from_lasting_thread(mut command: Command) -> io::Result<Child> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
        let sent = sender.send(command.spawn());
        while sent.is_ok() {
            std::thread::park();
        }
    })?;
    receiver.recv().map_err(io::Error::other)?
}

/// `kill -9`, and waits.
pub(crate) fn end(process: &mut Child) {
    // Both fail only if it has ended.
    let _ = process.kill();
    let _ = process.wait();
}

/// Sends a signal by its name without `SIG`.
///
/// # Panics
/// If there is no such process.
pub(crate) fn signal(process: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(process.id().to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "send SIG{name}");
}
