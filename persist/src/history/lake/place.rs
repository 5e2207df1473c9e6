//! Where a lake is, and how its files are shaped.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};

use super::LakeError;

/// `file:///an/absolute/path`, the bare path, `s3://bucket/prefix`, or `hdfs://namenode:port/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LakeUrl {
    Local(PathBuf),
    S3 {
        bucket: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
    /// Only with the feature `hdfs`.
    Hdfs {
        /// A NameNode as `host:port`, or the name of a nameservice of Hadoop's configuration.
        authority: String,
        /// Without slashes at its ends; not empty.
        path: String,
    },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LakeUrlError {
    #[error(
        "expected file:///ABSOLUTE/PATH, /ABSOLUTE/PATH, s3://BUCKET/PREFIX or hdfs://NAMENODE:PORT/PATH"
    )]
    Scheme,
    #[error("the path of a lake is absolute, as in file:///var/lib/carillon/history")]
    Path,
    #[error("the name of a bucket has 3 to 63 lower-case letters, digits, dots and hyphens")]
    Bucket,
    #[error("a lake in HDFS is hdfs://NAMENODE:PORT/PATH or hdfs://NAMESERVICE/PATH, with a path")]
    Hdfs,
    #[error("this executable was built without HDFS (cargo's feature hdfs)")]
    NoHdfs,
}

/// How to reach an S3-compatible store. What is not given comes from the usual variables of the environment
/// (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_WEB_IDENTITY_TOKEN_FILE`, …) or from the machine's role.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Such as `https://s3.example.com`; Amazon's own if not given.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// With it goes `secret`, and no credentials are looked for elsewhere.
    pub key_id: Option<String>,
    pub secret: Option<String>,
    /// The bucket is the first part of the path rather than of the host name. Most stores but Amazon's want it.
    pub path_style: bool,
    /// Speaks to the endpoint without TLS.
    pub allow_http: bool,
}

#[derive(Clone, Debug)]
pub struct LakeOptions {
    pub url: LakeUrl,
    pub s3: S3Options,
    /// The most rows of one file.
    pub file_rows_max: usize,
    /// The most rows of a row group, the least that a reader can skip.
    pub row_group_rows_max: usize,
    /// 1 to 22.
    pub zstd_level: i32,
}

impl LakeOptions {
    /// A file of 1,000,000 rows has some 30 MB and is encoded in memory.
    pub const FILE_ROWS_MAX: usize = 1_000_000;
    /// What DuckDB writes and hands to one thread.
    pub const ROW_GROUP_ROWS_MAX: usize = 122_880;
    pub const ZSTD_LEVEL: i32 = 3;

    pub fn new(url: LakeUrl) -> LakeOptions {
        LakeOptions {
            url,
            s3: S3Options::default(),
            file_rows_max: LakeOptions::FILE_ROWS_MAX,
            row_group_rows_max: LakeOptions::ROW_GROUP_ROWS_MAX,
            zstd_level: LakeOptions::ZSTD_LEVEL,
        }
    }

    /// Opens the place. Asks nothing of a remote store; a local folder is made if it is not there.
    pub(crate) fn open(&self) -> Result<Arc<dyn ObjectStore>, LakeError> {
        match &self.url {
            LakeUrl::Local(path) => {
                let attempted = "make the folder of the lake";
                std::fs::create_dir_all(path)
                    .map_err(|source| LakeError::Setup { attempted, source: source.into() })?;
                let store = LocalFileSystem::new_with_prefix(path)
                    .map_err(|source| LakeError::Setup { attempted, source: source.into() })?;
                // What is committed leaves the outbox for good.
                Ok(Arc::new(store.with_fsync(true)))
            }
            LakeUrl::S3 { bucket, prefix } => {
                let store =
                    self.s3.builder().with_bucket_name(bucket).build().map_err(|source| {
                        LakeError::Setup {
                            attempted: "set up the client of S3",
                            source: source.into(),
                        }
                    })?;
                if prefix.is_empty() {
                    Ok(Arc::new(store))
                } else {
                    Ok(Arc::new(PrefixStore::new(store, prefix.as_str())))
                }
            }
            LakeUrl::Hdfs { authority, path } => hdfs(authority, path),
        }
    }
}

/// HDFS, with what Hadoop's own configuration says of it (`HADOOP_CONF_DIR`, or `HADOOP_HOME`).
#[cfg(feature = "hdfs")]
fn hdfs(authority: &str, path: &str) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let url = format!("hdfs://{authority}");
    let store = hdfs_native_object_store::HdfsObjectStoreBuilder::new().with_url(url).build();
    let store = store.map_err(|source| LakeError::Setup {
        attempted: "set up the client of HDFS",
        source: source.into(),
    })?;
    Ok(Arc::new(PrefixStore::new(store, path)))
}

#[cfg(not(feature = "hdfs"))]
fn hdfs(_: &str, _: &str) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let attempted = "set up the client of HDFS";
    Err(LakeError::Setup { attempted, source: LakeUrlError::NoHdfs.into() })
}

impl S3Options {
    fn builder(&self) -> AmazonS3Builder {
        // A token of the environment would not belong to a key that is given here.
        let mut builder = match &self.key_id {
            Some(key_id) => AmazonS3Builder::new().with_access_key_id(key_id),
            None => AmazonS3Builder::from_env(),
        };
        if let Some(secret) = &self.secret {
            builder = builder.with_secret_access_key(secret);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        builder
            .with_virtual_hosted_style_request(!self.path_style)
            .with_allow_http(self.allow_http)
            // Not all that call themselves compatible have the bulk form, and few objects are deleted.
            .with_disable_bulk_delete(true)
            // The caller tries again too, and wants to know of trouble while it can still tell someone.
            .with_retry(RetryConfig {
                max_retries: 5,
                retry_timeout: Duration::from_secs(30),
                ..RetryConfig::default()
            })
    }
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("key_id", &self.key_id)
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .field("path_style", &self.path_style)
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

impl FromStr for LakeUrl {
    type Err = LakeUrlError;

    fn from_str(text: &str) -> Result<LakeUrl, LakeUrlError> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let is_known =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
            if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_known) {
                return Err(LakeUrlError::Bucket);
            }
            let prefix = prefix.trim_matches('/').to_owned();
            return Ok(LakeUrl::S3 { bucket: bucket.to_owned(), prefix });
        }
        if let Some(rest) = text.strip_prefix("hdfs://") {
            let (authority, path) = rest.split_once('/').ok_or(LakeUrlError::Hdfs)?;
            let (authority, path) = (authority.to_owned(), path.trim_matches('/').to_owned());
            let is_known = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
            // Its root has other things in it than a lake.
            if authority.is_empty() || path.is_empty() || !authority.bytes().all(is_known) {
                return Err(LakeUrlError::Hdfs);
            }
            return match cfg!(feature = "hdfs") {
                true => Ok(LakeUrl::Hdfs { authority, path }),
                false => Err(LakeUrlError::NoHdfs),
            };
        }
        let path = match text.strip_prefix("file://") {
            Some(path) => path,
            None if text.contains("://") => return Err(LakeUrlError::Scheme),
            None => text,
        };
        if path.starts_with('/') {
            Ok(LakeUrl::Local(path.into()))
        } else {
            Err(LakeUrlError::Path)
        }
    }
}

impl fmt::Display for LakeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LakeUrl::Local(path) => write!(f, "file://{}", path.display()),
            LakeUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            LakeUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            LakeUrl::Hdfs { authority, path } => write!(f, "hdfs://{authority}/{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_lake_is_read_and_shown() {
        for (text, shown) in [
            ("/var/lib/lake", "file:///var/lib/lake"),
            ("file:///var/lib/lake", "file:///var/lib/lake"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ] {
            let url: LakeUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse::<LakeUrl>().unwrap(), url);
        }
        for (text, error) in [
            ("lake", LakeUrlError::Path),
            ("file://lake", LakeUrlError::Path),
            ("gs://bucket/lake", LakeUrlError::Scheme),
            ("s3:///lake", LakeUrlError::Bucket),
            ("s3://Bucket", LakeUrlError::Bucket),
            ("hdfs://namenode:9000", LakeUrlError::Hdfs),
            ("hdfs://namenode:9000/", LakeUrlError::Hdfs),
            ("hdfs:///history", LakeUrlError::Hdfs),
            ("hdfs://name node/history", LakeUrlError::Hdfs),
        ] {
            assert_eq!(text.parse::<LakeUrl>(), Err(error), "{text}");
        }
        let hdfs = "hdfs://namenode:9000/data/history/".parse::<LakeUrl>();
        match cfg!(feature = "hdfs") {
            true => assert_eq!(hdfs.unwrap().to_string(), "hdfs://namenode:9000/data/history"),
            false => assert_eq!(hdfs, Err(LakeUrlError::NoHdfs)),
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let s3 = S3Options {
            key_id: Some("key".to_owned()),
            secret: Some("hush".to_owned()),
            ..S3Options::default()
        };
        let options = LakeOptions { s3, ..LakeOptions::new("s3://bucket".parse().unwrap()) };
        let shown = format!("{options:?} {:?}", options.open().unwrap());
        assert!(shown.contains("key") && !shown.contains("hush"), "{shown}");
    }
}
