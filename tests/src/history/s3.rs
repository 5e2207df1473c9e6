//! An object store that speaks S3's protocol, on a temporary folder.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use carillon_persist::history::lake::{LakeOptions, LakeUrl, S3Options};
use serde_json::json;
use tempfile::TempDir;

use super::{program, start};
use crate::process::{dies_with_us, end, free_address, free_port};

const KEY_ID: &str = "carillon";
const SECRET: &str = "carillon-secret";

#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    files: SocketAddr,
    server: Child,
    /// Files that it makes in `/tmp` and leaves there, whatever it is told.
    sockets: Vec<PathBuf>,
    /// Last, so that it outlives the server.
    _folder: TempDir,
}

impl S3 {
    /// Starts one without buckets.
    ///
    /// # Panics
    /// If it is not installed or does not start.
    pub fn start() -> S3 {
        // A port may have gone to another socket of this machine for a moment; the server then ends.
        (0..5).find_map(|_| S3::run()).expect("weed starts")
    }

    fn run() -> Option<S3> {
        let folder =
            tempfile::Builder::new().prefix("carillon-s3-").tempdir().expect("a temporary folder");
        let identity = json!({
            "name": "carillon",
            "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        });
        let config = folder.path().join("s3.json");
        let identities = json!({"identities": [identity]}).to_string();
        fs::write(&config, identities).expect("write into the temporary folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a folder in the temporary folder");
        let address = free_address();
        let mut command = dies_with_us(&program("bin/weed"));
        command
            .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", config.display()))
            .arg(format!("-s3.port={}", address.port()))
            // It asks nobody on the network, and opens no ports but those it needs.
            .args(["-master.telemetry=false", "-s3.iam=false"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args(["-volume.max=100", "-master.volumeSizeLimitMB=64", "-volume.minFreeSpace=0"])
            .current_dir(&data)
            // For its logs.
            .env("TMPDIR", folder.path());
        let files = free_address();
        command.arg(format!("-filer.port={}", files.port()));
        let socket = |name: &str, port| PathBuf::from(format!("/tmp/seaweedfs-{name}-{port}.sock"));
        let mut sockets = vec![socket("filer", files.port()), socket("s3", address.port())];
        for part in ["master", "volume"] {
            command.arg(format!("-{part}.port={}", free_port()));
        }
        for part in ["master", "volume", "filer", "s3"] {
            let port = free_port();
            command.arg(format!("-{part}.port.grpc={port}"));
            sockets.push(socket(&format!("{part}-grpc"), port));
        }
        let server = start(command, || answers(address))?;
        Some(S3 { address, files, server, sockets, _folder: folder })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Key id and secret of the one user, who may do everything.
    pub fn credentials(&self) -> (&'static str, &'static str) {
        (KEY_ID, SECRET)
    }

    /// An empty lake in a bucket of that name, which is there when this returns.
    ///
    /// # Panics
    /// If it is no name of a bucket, or it cannot be made.
    pub fn lake(&self, bucket: &str) -> LakeOptions {
        // A bucket is a folder of the server's files, where no signature is asked for.
        let path = format!("/buckets/{bucket}/");
        let status = status(self.files, "POST", &path).expect("a server that runs");
        assert_eq!(&status, b"201", "make the bucket {bucket}");
        let url: LakeUrl = format!("s3://{bucket}/history").parse().expect("a name of a bucket");
        let s3 = S3Options {
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".to_owned()),
            key_id: Some(KEY_ID.to_owned()),
            secret: Some(SECRET.to_owned()),
            path_style: true,
            allow_http: true,
        };
        LakeOptions { s3, ..LakeOptions::new(url) }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        end(&mut self.server);
        for socket in &self.sockets {
            // Where it was killed before it made one, there is none.
            let _ = fs::remove_file(socket);
        }
    }
}

/// It refuses whoever has no key only when all its parts have found each other.
fn answers(address: SocketAddr) -> bool {
    status(address, "GET", "/").is_ok_and(|status| &status == b"403")
}

fn status(address: SocketAddr, method: &str, path: &str) -> std::io::Result<[u8; 3]> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!("{method} {path} HTTP/1.0\r\nhost: s3\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    Ok([line[9], line[10], line[11]])
}
