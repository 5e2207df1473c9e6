//! TLS of the stream and of outward connections.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::Identity;
use crate::error::CentralError;

pub(super) fn acceptor(identity: &Identity) -> Result<TlsAcceptor, CentralError> {
    let read = |path: &Path| {
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

/// Whom central trusts when it connects to somebody: Mozilla's list, which is compiled in so that an image without any
/// other file works, and the certificates of a file of the operator's.
pub(super) fn roots(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, CentralError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let text = std::fs::read(path)
            .map_err(|source| CentralError::Read { path: path.to_owned(), source })?;
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| CentralError::Roots {
            path: path.to_owned(),
            source,
        };
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| unusable(error.into()))?;
            roots.add(certificate).map_err(|error| unusable(error.into()))?;
            found += 1;
        }
        if found == 0 {
            return Err(unusable("no certificate in it".into()));
        }
    }
    Ok(Arc::new(roots))
}

/// TLS 1.2 and 1.3 with the application protocols in order of preference.
pub(super) fn client(roots: Arc<RootCertStore>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites of both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}
