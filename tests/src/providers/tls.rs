//! The simulators' certificates: one authority a folder, so that programs that share a folder are trusted by one file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// Where the authority's certificate is.
pub(crate) fn ca_path(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

/// Makes the authority unless it is there, and a certificate for these names.
pub(crate) fn server_config(
    folder: &Path,
    names: Vec<String>,
    protocols: &[&[u8]],
) -> io::Result<Arc<ServerConfig>> {
    let (ca, ca_key) = authority(folder)?;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, "a simulator of a push provider");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &Issuer::new(ca, ca_key)).map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn authority(folder: &Path) -> io::Result<(CertificateParams, KeyPair)> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "simulators of push providers");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key_path = folder.join("ca.key");
    if key_path.is_file() && ca_path(folder).is_file() {
        let key = KeyPair::from_pem(&std::fs::read_to_string(key_path)?);
        return Ok((params, key.map_err(io::Error::other)?));
    }
    std::fs::create_dir_all(folder)?;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params.clone().self_signed(&key).map_err(io::Error::other)?;
    std::fs::write(ca_path(folder), certificate.pem())?;
    std::fs::write(key_path, key.serialize_pem())?;
    Ok((params, key))
}
