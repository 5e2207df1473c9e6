//! TLS of the stream; everything that knows rustls is here.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Identity;
use crate::error::CentralError;

pub(super) fn acceptor(identity: &Identity) -> Result<TlsAcceptor, CentralError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| CentralError::Read { path: path.to_owned(), source })
    };
    let (certificate, key) = match identity {
        Identity::Files { certificate, key } => (read(certificate)?, read(key)?),
        Identity::Pem { certificate, key } => {
            (certificate.as_bytes().to_vec(), key.as_bytes().to_vec())
        }
    };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>().map_err(unusable)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(unusable)?;
    // The provider by name, so that no other crate's choice of a process-wide one matters here.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn unusable(source: impl std::error::Error + Send + Sync + 'static) -> CentralError {
    CentralError::Tls { source: Box::new(source) }
}
