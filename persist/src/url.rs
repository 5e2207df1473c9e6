//! Where a store is and how patiently it is used.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mysql_async::Opts;

/// `sqlite:path` or `mysql://user:password@host:port/database`. Neither `Debug` nor `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    Mysql(String),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    #[error("expected sqlite:PATH or mysql://USER:PASSWORD@HOST:PORT/DATABASE")]
    Scheme,
    #[error("sqlite: needs the path of a file, as in sqlite:carillon.db")]
    Path,
    /// The reason is the driver's; it never contains the address itself.
    #[error("not an address of a MySQL server: {0}")]
    Mysql(String),
    #[error(
        "the address of a MySQL server ends with the name of a database, as in mysql://HOST/carillon"
    )]
    Database,
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<StoreUrl, StoreUrlError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(StoreUrlError::Path)
            } else {
                Ok(StoreUrl::Sqlite(path.into()))
            };
        }
        if !text.starts_with("mysql://") {
            return Err(StoreUrlError::Scheme);
        }
        let opts = Opts::from_url(text).map_err(|error| StoreUrlError::Mysql(error.to_string()))?;
        match opts.db_name() {
            Some(name) if !name.is_empty() => Ok(StoreUrl::Mysql(text.to_owned())),
            _ => Err(StoreUrlError::Database),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreUrl::Mysql(url) => match Opts::from_url(url) {
                Ok(opts) => write!(
                    f,
                    "mysql://{}{}:{}/{}",
                    opts.user().map(|user| format!("{user}:***@")).unwrap_or_default(),
                    opts.ip_or_hostname(),
                    opts.tcp_port(),
                    opts.db_name().unwrap_or_default(),
                ),
                Err(_) => f.write_str("mysql://***"),
            },
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How long to wait for a connection, or for another process that holds the SQLite file.
    pub connect_timeout: Duration,
    /// How long to wait for one answer of a server.
    pub read_timeout: Duration,
    /// The number of shards, written when the store is created and unchangeable then.
    pub shards: u16,
    /// Threads or connections that load a shard at a time.
    pub loaders: NonZeroUsize,
    /// Bytes of an SQLite file's pages that each connection to it keeps in memory, at most.
    pub sqlite_cache: u64,
    /// Use the store although it may lose what it has acknowledged; see [`Store::unsafe_settings`](crate::Store).
    pub allow_unsafe: bool,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(10),
            shards: 1,
            loaders: NonZeroUsize::new(2).expect("not zero"),
            sqlite_cache: 64 << 20,
            allow_unsafe: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_never_show_a_password() {
        assert_eq!("sqlite:a/b.db".parse(), Ok(StoreUrl::Sqlite("a/b.db".into())));
        assert_eq!("sqlite:///a/b.db".parse(), Ok(StoreUrl::Sqlite("/a/b.db".into())));
        let url: StoreUrl = "mysql://me:s3cret@db.example:3307/carillon".parse().unwrap();
        assert_eq!(url.to_string(), "mysql://me:***@db.example:3307/carillon");
        assert_eq!(format!("{url:?}"), url.to_string());
    }

    #[test]
    fn bad_addresses_say_what_is_expected() {
        for (text, error) in [
            ("", StoreUrlError::Scheme),
            ("postgres://x/y", StoreUrlError::Scheme),
            ("carillon.db", StoreUrlError::Scheme),
            ("sqlite:", StoreUrlError::Path),
            ("mysql://host", StoreUrlError::Database),
            ("mysql://host/", StoreUrlError::Database),
        ] {
            assert_eq!(text.parse::<StoreUrl>(), Err(error), "{text:?}");
        }
        let error = "mysql://me:s3cret@host:port/x".parse::<StoreUrl>().unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
