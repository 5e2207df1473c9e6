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

/// What a token has behind its random part to name the CA in the PEM file `path`.
///
/// # Errors
/// [`DataError::Pem`] if the file holds no certificate.
pub(crate) fn suffix(path: &Path) -> Result<String, DataError> {
    Ok(format!(".{}", hexadecimal::encode(&certificate_digest(path)?)))
}

/// SHA-256 of the first certificate in the PEM file `path`.
///
/// # Errors
/// [`DataError::Pem`] if the file holds none.
pub(crate) fn certificate_digest(path: &Path) -> Result<[u8; 32], DataError> {
    let certificate = CertificateDer::from_pem_file(path)
        .map_err(|source| DataError::Pem { path: path.to_owned(), source })?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate);
    Ok(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
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
