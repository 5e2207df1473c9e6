//! A simulator as a program: flags, sockets, the line that says where it listens, and its end.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::behaviour::Rules;
use super::books::Books;
use super::provider::Provider;
use super::serve::{Gate, Server};
use super::{control, serve, tls};

/// A simulator's flags. It prints one line of JSON, `{"listen": PORT, "control": PORT, "ca": PATH}`, when it can be
/// used, and ends when its standard input closes or at SIGTERM.
#[derive(Clone, Debug, clap::Parser)]
pub struct Options {
    /// Folder of the authority, ca.pem and ca.key, made if it is not there; programs may share one.
    #[arg(long)]
    pub data: PathBuf,
    /// Where the provider's port is, for TLS.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where the control port is, for plain HTTP.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub control: SocketAddr,
    /// The host's name in URLs that the simulator makes, and in its certificate besides localhost and 127.0.0.1.
    #[arg(long, default_value = "localhost")]
    pub host: String,
    /// Threads that serve.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// SETTINGS_MAX_CONCURRENT_STREAMS of a connection.
    #[arg(long, default_value_t = 1000)]
    pub max_streams: u32,
    /// Pushes after a mark, or the start, whose bodies and headers are kept.
    #[arg(long, default_value_t = 100)]
    pub capture: usize,
}

/// Runs a simulator to its end. `make` gets the URL of the provider's port, without a slash at its end.
pub fn run<P: Provider>(options: &Options, make: impl FnOnce(&str) -> P) -> ExitCode {
    match try_run(options, make) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads it if this fails.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run<P: Provider>(options: &Options, make: impl FnOnce(&str) -> P) -> io::Result<()> {
    let mut builder = if options.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(usize::from(options.threads));
        builder
    };
    let runtime = builder.enable_all().build()?;
    let ended = input_ended()?;
    runtime.block_on(serve_until(options, make, ended))?;
    runtime.shutdown_background();
    Ok(())
}

/// Fires when standard input closes, as it does when whoever started the program ends, however that ends.
fn input_ended() -> io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = sender.send(());
    })?;
    Ok(receiver)
}

async fn serve_until<P: Provider>(
    options: &Options,
    make: impl FnOnce(&str) -> P,
    input_ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !names.contains(&options.host) {
        names.push(options.host.clone());
    }
    let config = tls::server_config(&options.data, names, P::PROTOCOLS)?;
    let listener = TcpListener::bind(options.listen).await?;
    let control = TcpListener::bind(options.control).await?;
    let address = listener.local_addr()?;
    let gate = Gate::new();
    gate.address.get_or_init(|| address);
    let server = Arc::new(Server {
        provider: make(&format!("https://{}:{}", options.host, address.port())),
        books: Arc::new(Books::new(options.capture)),
        rules: Rules::default(),
        ahead_ms: AtomicI64::new(0),
        go_away_after: AtomicU64::new(0),
        streams_max: AtomicU32::new(options.max_streams),
        gate,
    });
    let line = json!({
        "listen": address.port(),
        "control": control.local_addr()?.port(),
        "ca": tls::ca_path(&options.data),
    });
    tokio::spawn(serve::listen(Arc::clone(&server), TlsAcceptor::from(config), listener));
    tokio::spawn(control::listen(server, control));
    writeln!(io::stdout(), "{line}")?;
    io::stdout().flush()?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = input_ended => {}
    }
    Ok(())
}
