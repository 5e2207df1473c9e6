//! TLS towards devices and towards central: certificates, tickets, and whom to trust.
//!
//! All of rustls that this crate touches is here and in the two places that accept and connect.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::state::Shared;
use crate::core::seal::Entropy;
use crate::core::tickets;
use crate::{CertificateFiles, EdgeError, Trust};

/// One provider for the whole process, named explicitly so that nothing depends on a default being installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn tls_error(
    what: &'static str,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> EdgeError {
    move |source| EdgeError::Tls { what, source }
}

/// The certificate that devices are shown; it can change while they are served.
#[derive(Debug)]
pub(crate) struct Certificate {
    present: ArcSwap<CertifiedKey>,
    files: Option<CertificateFiles>,
}

impl Certificate {
    /// Reads the files, or makes a certificate for development if there are none.
    pub(crate) fn load(files: Option<CertificateFiles>) -> Result<Certificate, EdgeError> {
        let present = match &files {
            Some(files) => read(files)?,
            None => self_signed()?,
        };
        Ok(Certificate { present: ArcSwap::from_pointee(present), files })
    }

    /// Reads the files again. What was shown before stays if they cannot be used.
    pub(crate) fn reload(&self) -> Result<(), EdgeError> {
        if let Some(files) = &self.files {
            self.present.store(Arc::new(read(files)?));
        }
        Ok(())
    }

    pub(crate) fn files(&self) -> Option<&CertificateFiles> {
        self.files.as_ref()
    }

    /// The leaf, DER.
    pub(crate) fn leaf(&self) -> CertificateDer<'static> {
        self.present.load().cert.first().expect("a certified key has a leaf").clone()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.present.load_full())
    }
}

/// SHA-256 of a certificate, in hexadecimal.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(files: &CertificateFiles) -> Result<CertifiedKey, EdgeError> {
    let bytes = |path: &Path| {
        std::fs::read(path).map_err(|source| EdgeError::Read { path: path.to_owned(), source })
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(&files.chain)?).collect();
    let chain = chain.map_err(|error| tls_error("the certificate chain")(error.into()))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?);
    let key = key.map_err(|error| tls_error("the certificate's key")(error.into()))?;
    certified(chain, key)
}

/// A certificate for this machine's names. Browsers and clients have to be told to trust it.
fn self_signed() -> Result<CertifiedKey, EdgeError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names);
    let made = made.map_err(|error| tls_error("a self-signed certificate")(error.into()))?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    certified(vec![made.cert.der().clone()], key)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, EdgeError> {
    if chain.is_empty() {
        return Err(tls_error("the certificate chain")("no certificate in the file".into()));
    }
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| tls_error("the certificate and its key")(error.into()))
}

/// How devices are met. One ticket a connection; no state is kept here between connections.
pub(crate) fn server_config(
    certificate: Arc<Certificate>,
    shared: Arc<Shared>,
) -> Result<ServerConfig, EdgeError> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| tls_error("TLS versions")(error.into()))?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(Tickets { shared });
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// Tickets under central's keys, so that any edge resumes what another began.
#[derive(Debug)]
struct Tickets {
    shared: Arc<Shared>,
}

impl ProducesTickets for Tickets {
    /// Always, because rustls asks once, when keys may not have come yet; without a key no ticket is made.
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        tickets::LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        tickets::seal(&self.shared.keys.load(), unix_seconds(), Entropy(rand::random()), plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        tickets::open(&self.shared.keys.load(), unix_seconds(), cipher)
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How central is met.
pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig, EdgeError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| tls_error("TLS versions")(error.into()))?;
    let builder = match trust {
        Trust::None => {
            return Err(EdgeError::Config {
                what: "nothing says by what central's certificate is judged",
            });
        }
        Trust::CaFile(path) => {
            let pem = std::fs::read(path)
                .map_err(|source| EdgeError::Read { path: path.clone(), source })?;
            builder.with_root_certificates(roots(&pem)?)
        }
        Trust::CaPem(pem) => builder.with_root_certificates(roots(pem.as_bytes())?),
        Trust::Pinned(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { pin: *pin, provider: provider() })),
    };
    Ok(builder.with_no_client_auth())
}

fn roots(pem: &[u8]) -> Result<RootCertStore, EdgeError> {
    let what = "the authorities for central";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| tls_error(what)(error.into()))?;
        roots.add(certificate).map_err(|error| tls_error(what)(error.into()))?;
    }
    if roots.is_empty() {
        return Err(tls_error(what)("no certificate in the file".into()));
    }
    Ok(roots)
}

/// Trusts one certificate by its SHA-256: central's own, or an authority that it shows in its chain.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        digest(&SHA256, certificate).as_ref() == self.pin
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.is_pinned(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(|c| self.is_pinned(c)).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build();
        let verifier = verifier.map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_certificate_is_made_where_none_is_configured() {
        let certificate = Certificate::load(None).unwrap();
        assert_eq!(fingerprint(&certificate.leaf()).len(), 64);
        assert!(certificate.reload().is_ok());
    }

    #[test]
    fn a_changed_file_is_shown_after_a_reload_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles {
            chain: folder.path().join("chain.pem"),
            key: folder.path().join("key.pem"),
        };
        let write = || {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(&files.chain, made.cert.pem()).unwrap();
            std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
            made.cert.der().clone()
        };
        let first = write();
        let certificate = Certificate::load(Some(files.clone())).unwrap();
        assert_eq!(certificate.leaf(), first);
        let second = write();
        certificate.reload().unwrap();
        assert_eq!(certificate.leaf(), second);
        std::fs::write(&files.chain, "no certificate").unwrap();
        assert!(certificate.reload().is_err());
        assert_eq!(certificate.leaf(), second);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles {
            chain: folder.path().join("chain.pem"),
            key: folder.path().join("key.pem"),
        };
        let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&files.chain, one.cert.pem()).unwrap();
        std::fs::write(&files.key, other.signing_key.serialize_pem()).unwrap();
        assert!(Certificate::load(Some(files)).is_err());
    }

    #[test]
    fn central_is_not_trusted_by_default() {
        assert!(client_config(&Trust::None).is_err());
        assert!(client_config(&Trust::CaPem(String::new())).is_err());
        assert!(client_config(&Trust::Pinned([0; 32])).is_ok());
    }
}
