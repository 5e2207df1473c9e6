//! Whom a device trusts. The crypto provider is passed explicitly, so that no other crate's choice can matter.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// The certificates given cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no certificate in what was given")]
    Empty,
    #[error("read a certificate")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("use a certificate")]
    Certificate(#[source] Error),
    #[error("use a certificate as a root")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// How to connect by TLS. A clone shares the configuration and with it the session tickets, so that thousands of
/// devices in one process resume each other's handshakes.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Trusts what these certificate authorities signed.
    ///
    /// # Errors
    /// If `certificates` is neither PEM with at least one certificate nor the DER of one.
    pub fn with_roots(certificates: &[u8]) -> Result<ClientTls, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in read(certificates)? {
            roots.add(certificate).map_err(TlsError::Certificate)?;
        }
        let provider = provider();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()?;
        ClientTls::with_verifier(provider, verifier)
    }

    /// Trusts a server that shows exactly this certificate, whatever its name and age. For development, where the
    /// certificate is self-signed and was read from the server's own folder.
    ///
    /// # Errors
    /// If `certificate` is neither PEM nor DER.
    pub fn with_exactly(certificate: &[u8]) -> Result<ClientTls, TlsError> {
        let expected = read(certificate)?.into_iter().next().ok_or(TlsError::Empty)?;
        let provider = provider();
        ClientTls::with_verifier(provider.clone(), Arc::new(Exactly { expected, provider }))
    }

    fn with_verifier(
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<ClientTls, TlsError> {
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Certificate)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(ClientTls(Arc::new(config)))
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(certificates: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    // DER of a certificate begins with a SEQUENCE.
    if certificates.first() == Some(&0x30) {
        return Ok(vec![CertificateDer::from(certificates.to_vec())]);
    }
    let read: Vec<_> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(TlsError::Pem)?;
    if read.is_empty() { Err(TlsError::Empty) } else { Ok(read) }
}

#[derive(Debug)]
struct Exactly {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    // That the server has the certificate's key is checked as always.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
