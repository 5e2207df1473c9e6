//! A MariaDB server of the test's own: temporary data folder, free port, durability as the server comes.
//!
//! A server that happens to run on the machine is never used. Setting up a data folder takes seconds, so one is kept
//! beside the test executables and copied. The servers die with the test process, however that ends.

use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{dies_with_us, end, free_port, spawn_from_lasting_thread};

/// A loaded machine takes a second or two.
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);
const USER: &str = "carillon";
const PASSWORD: &str = "p'a%ss";
/// `PASSWORD` as a URL has it.
const PASSWORD_ENCODED: &str = "p%27a%25ss";

#[derive(Debug)]
pub struct MariaDb {
    folder: TempDir,
    port: u16,
    /// `None` between a stop or kill and the restart.
    server: Option<Child>,
}

impl MariaDb {
    /// Starts a server with an empty data folder.
    ///
    /// # Panics
    /// If there is no MariaDB on this machine, or it does not start. A test without its server is a failure, in CI above
    /// all: `scripts/install-test-deps.sh` installs it.
    pub fn start() -> MariaDb {
        let folder = tempfile::Builder::new()
            .prefix("carillon-mariadb-")
            .tempdir()
            .expect("a temporary folder");
        copy_folder(&template(), &data(folder.path())).expect("copy the data folder");
        let init = format!(
            "CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{}';\n\
             GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'127.0.0.1';\n",
            PASSWORD.replace('\'', "''")
        );
        fs::write(folder.path().join("init.sql"), init).expect("write into the temporary folder");
        let port = free_port();
        let mut server = MariaDb { folder, port, server: None };
        server.restart();
        server
    }

    /// The address of `database`, which is created if it is not there.
    ///
    /// # Panics
    /// If the server does not run or refuses.
    pub fn url(&self, database: &str) -> String {
        self.sql(&format!("CREATE DATABASE IF NOT EXISTS `{database}` CHARACTER SET utf8mb4"));
        format!("mysql://{USER}:{PASSWORD_ENCODED}@127.0.0.1:{}/{database}", self.port)
    }

    /// As [`MariaDb::url`], at the address of a proxy before the server.
    ///
    /// # Panics
    /// As there.
    pub fn url_by(&self, proxy: SocketAddr, database: &str) -> String {
        self.url(database).replacen(&format!("127.0.0.1:{}", self.port), &proxy.to_string(), 1)
    }

    /// The port on 127.0.0.1, the same through all restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements as an operator would, past everything of ours, and returns what the client prints.
    ///
    /// # Panics
    /// If the client reports an error.
    pub fn sql(&self, statements: &str) -> String {
        let output = Command::new("mariadb")
            .arg("--no-defaults")
            .args([
                "--batch",
                "--skip-column-names",
                "--default-character-set=utf8mb4",
                "--user=root",
            ])
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--execute={statements}"))
            .output()
            .expect("the client comes with the server");
        assert!(
            output.status.success(),
            "{statements}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8 was asked for")
    }

    /// Stops the server if it runs, and starts it again on the same port and data.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.stop();
        // The port may have gone to another socket of this machine for a moment; the server then ends at once.
        for _ in 0..5 {
            if self.try_start() {
                return;
            }
        }
        panic!("mariadbd does not start; its log ends with:\n{}", self.log_end());
    }

    /// Ends the server as an operator would; nothing when it does not run.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let asked = Command::new("kill").arg("-TERM").arg(server.id().to_string()).status();
        let asked_at = Instant::now();
        while asked.as_ref().is_ok_and(|status| status.success()) && asked_at.elapsed() < STOP_MAX {
            if matches!(server.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        end(&mut server);
    }

    /// `kill -9`; nothing when it does not run.
    pub fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            end(&mut server);
        }
    }

    /// The process, for signals; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    fn try_start(&mut self) -> bool {
        let folder = self.folder.path();
        let mut command = dies_with_us(&find("mariadbd"));
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data(folder).display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .arg(format!("--log-error={}", folder.join("log").display()))
            .arg(format!("--init-file={}", folder.join("init.sql").display()))
            .arg(format!("--port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--user=root"])
            .args(match LARGE.load(Ordering::Relaxed) {
                true => ["--innodb-buffer-pool-size=2G", "--innodb-log-file-size=1G"],
                // Smaller than the defaults, because many may run; neither touches durability.
                false => ["--innodb-buffer-pool-size=64M", LOG_FILE_SIZE],
            })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = spawn_from_lasting_thread(command).expect("start mariadbd");
        let started_at = Instant::now();
        loop {
            if self.answers() {
                self.server = Some(server);
                return true;
            }
            if matches!(server.try_wait(), Ok(Some(_))) {
                return false;
            }
            if started_at.elapsed() > START_MAX {
                end(&mut server);
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The server greets when it is ready, init file and all.
    fn answers(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
            && stream.read_exact(&mut [0; 4]).is_ok()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines()
            .rev()
            .take(20)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill9();
    }
}

const LOG_FILE_SIZE: &str = "--innodb-log-file-size=16M";

/// See [`start_large`].
static LARGE: AtomicBool = AtomicBool::new(false);

/// From here on this process starts servers that hold a million devices in RAM, as an operator would have them: for
/// benchmarks, which compare with a server at its best.
pub fn start_large() {
    LARGE.store(true, Ordering::Relaxed);
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// # Panics
/// If it is not installed.
fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/usr/libexec"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("{program} is not installed, and no test goes without it: run scripts/install-test-deps.sh")
    })
}

/// An initialised data folder beside the test executables, made by whoever comes first.
fn template() -> PathBuf {
    let executable = std::env::current_exe().expect("a running program has a path");
    let folder = executable.ancestors().find(|folder| folder.join("deps").is_dir());
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_path_buf).join("mariadb-template");
    let server = find("mariadbd");
    let version =
        Command::new(&server).args(["--no-defaults", "--version"]).output().expect("run mariadbd");
    let version: String = String::from_utf8_lossy(&version.stdout)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' })
        .collect();
    let template = folder.join(version.trim_matches('_'));
    if template.is_dir() {
        return template;
    }
    fs::create_dir_all(&folder).expect("create a folder beside the test executables");
    let fresh =
        tempfile::Builder::new().prefix("setup-").tempdir_in(&folder).expect("a temporary folder");
    let output = Command::new(find("mariadb-install-db"))
        .arg("--no-defaults")
        .arg(format!("--datadir={}", data(fresh.path()).display()))
        .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"])
        .arg(LOG_FILE_SIZE)
        .output()
        .expect("run mariadb-install-db");
    assert!(
        output.status.success(),
        "mariadb-install-db: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    if let Err(error) = fs::rename(data(fresh.path()), &template) {
        assert!(template.is_dir(), "keep the data folder: {error}");
    }
    template
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
