//! The link token, which may also name the certificate authority of central.
//!
//! An edge is started with central's address and this token, no more. So a token that Carillon makes
//! is `<256 random bits>.<SHA-256 of the CA's certificate>`, both in hexadecimal; for central the
//! whole of it is the token.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::data::DataError;
use crate::hexadecimal;

/// What a token has behind its random part to name the CA that ends the chain in the PEM file `path`.
///
/// # Errors
/// [`DataError::Pem`] if the file holds no certificate.
pub(crate) fn suffix(path: &Path) -> Result<String, DataError> {
    let digests = digests(path)?;
    Ok(format!(".{}", hexadecimal::encode(digests.last().expect("a chain is not empty"))))
}

/// Whether the token names a CA, and the chain in the PEM file `path` does not hold it.
///
/// # Errors
/// [`DataError::Pem`] if the file holds no certificate.
pub(crate) fn names_another(token: &str, path: &Path) -> Result<bool, DataError> {
    let Some(named) = ca_named(token) else { return Ok(false) };
    Ok(!digests(path)?.contains(&named))
}

/// SHA-256 of the first certificate in the PEM file `path`.
///
/// # Errors
/// [`DataError::Pem`] if the file holds none.
pub(crate) fn certificate_digest(path: &Path) -> Result<[u8; 32], DataError> {
    Ok(digests(path)?[0])
}

/// SHA-256 of each certificate in the PEM file `path`. Not empty.
fn digests(path: &Path) -> Result<Vec<[u8; 32]>, DataError> {
    let failed = |source| DataError::Pem { path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<_, _>>);
    let chain: Vec<CertificateDer<'_>> = chain.map_err(failed)?;
    if chain.is_empty() {
        return Err(failed(rustls::pki_types::pem::Error::NoItemsFound));
    }
    let digest = |certificate: &CertificateDer<'_>| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    };
    Ok(chain.iter().map(digest).collect())
}

/// SHA-256 of the CA's certificate, if the token names one.
pub(crate) fn ca_named(token: &str) -> Option<[u8; 32]> {
    let (_, digits) = token.rsplit_once('.')?;
    hexadecimal::decode(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_a_ca_only_with_a_whole_digest() {
        let digits = "0f".repeat(32);
        assert_eq!(ca_named(&format!("secret.{digits}")), Some([0x0f; 32]));
        for token in ["", "secret", &digits, "secret.", &format!("secret.{}", &digits[1..])] {
            assert_eq!(ca_named(token), None, "{token}");
        }
    }
}
