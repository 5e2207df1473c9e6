//! An object store that speaks S3's protocol, on a temporary folder.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::time::Duration;

use carillon_persist::history::lake::{Lake, LakeOptions, LakeUrl, S3Options};
use serde_json::json;
use tempfile::TempDir;

use super::{program, start};
use crate::process::{dies_with_us, end, free_address, free_port};

const KEY_ID: &str = "carillon";
const SECRET: &str = "carillon-secret";

#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    server: Child,
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
            .current_dir(&data);
        for part in ["master", "volume", "filer"] {
            command.arg(format!("-{part}.port={}", free_port()));
        }
        for part in ["master", "volume", "filer", "s3"] {
            command.arg(format!("-{part}.port.grpc={}", free_port()));
        }
        let server = start(command, || answers(address))?;
        Some(S3 { address, server, _folder: folder })
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
    /// If it is no name of a bucket, or nothing can be put into it.
    pub async fn lake(&self, bucket: &str) -> LakeOptions {
        // To list what no bucket has is an error, and the first object makes it.
        let made = Lake::open(&self.lake_at(bucket, "made")).expect("options that work");
        made.resume("made").await.expect("a store that takes objects");
        self.lake_at(bucket, "history")
    }

    fn lake_at(&self, bucket: &str, prefix: &str) -> LakeOptions {
        let url: LakeUrl = format!("s3://{bucket}/{prefix}").parse().expect("a name of a bucket");
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
    }
}

/// It refuses whoever has no key only when all its parts have found each other.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.0\r\nhost: s3\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b"403"))
    };
    ask().unwrap_or(false)
}
