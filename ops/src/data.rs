//! The data folder: what `up` and `central` make at their first start, so that nothing has to be
//! configured to try Carillon.
//!
//! What exists is never replaced. Files are readable by their owner alone and are renamed into place
//! whole, so a crash leaves either no secret or a complete one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("make the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("use {}: it should hold {expected}", path.display())]
    Malformed { path: PathBuf, expected: &'static str },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("make the certificate {}", path.display())]
    Certificate { path: PathBuf, source: rcgen::Error },
    #[error("read the certificate {}", path.display())]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("draw a random secret: the system gave no randomness")]
    Randomness,
    #[error(
        "use {}: edges trust central by the authority that it names, which {} does not descend from; remove the \
         token, and give edges the one that is made then",
        token.display(), certificate.display()
    )]
    OtherAuthority { token: PathBuf, certificate: PathBuf },
}

use crate::config::{Secret, Setting};
use crate::{hexadecimal, link_token};

/// A certificate chain and its key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PemFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// An open data folder.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

impl DataFolder {
    /// Opens the folder, made with mode 0700 if it is not there.
    ///
    /// # Errors
    /// [`DataError::Folder`] if it cannot be made.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| DataError::Folder { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The secret in the file `name`: 256 random bits in hexadecimal, drawn if the file is not there.
    ///
    /// # Errors
    /// The file can be neither read nor written, or holds something else.
    pub(crate) fn secret<T: Setting>(&self, name: &str) -> Result<T, DataError> {
        self.secret_with(name, || Ok(String::new()))
    }

    /// As [`Self::secret`], with what `suffix` gives written behind it when it is drawn.
    fn secret_with<T: Setting>(
        &self,
        name: &str,
        suffix: impl FnOnce() -> Result<String, DataError>,
    ) -> Result<T, DataError> {
        let path = self.file(name);
        let text = match read(&path)? {
            Some(text) => text,
            None => draw(&path, &suffix()?)?,
        };
        let expected = T::KIND.expected;
        T::parse(text.trim_end()).ok_or(DataError::Malformed { path, expected })
    }

    /// The token that edges show to central, drawn if it is not there. With the development CA, of
    /// which [`Self::certificate`] made central's certificate, it also names that CA, so that an edge
    /// needs no more than central's address and this token.
    ///
    /// # Errors
    /// A file can be neither read nor written, or the token names another CA: then central's
    /// certificate was made anew after the CA was lost, and no edge with this token would trust it.
    pub(crate) fn link_token(&self, development_ca: bool) -> Result<Secret, DataError> {
        const NAME: &str = "link.token";
        let certificate = self.file("central.pem");
        if !development_ca {
            return self.secret(NAME);
        }
        let token: Secret = self.secret_with(NAME, || link_token::suffix(&certificate))?;
        if link_token::names_another(token.reveal(), &certificate)? {
            return Err(DataError::OtherAuthority { token: self.file(NAME), certificate });
        }
        Ok(token)
    }

    /// The development CA's certificate, which [`Self::certificate`] makes.
    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A certificate of the development CA for this machine's loopback names, in the files
    /// `<name>.pem` and `<name>.key`; made, and the CA too, if they are not there.
    ///
    /// # Errors
    /// A file can be neither read nor written, or the CA's key in the folder is broken.
    pub(crate) fn certificate(&self, name: &str) -> Result<PemFiles, DataError> {
        let files = PemFiles {
            certificate: self.file(&format!("{name}.pem")),
            key: self.file(&format!("{name}.key")),
        };
        self.restore_ca()?;
        if read(&files.certificate)?.is_some() && read(&files.key)?.is_some() {
            return Ok(files);
        }
        let failed = |source| DataError::Certificate { path: files.certificate.clone(), source };
        let issuer = self.issuer()?;
        let (params, key) = leaf().map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        // The key first: a certificate without its key would be taken for complete by nobody.
        write(&files.key, &key.serialize_pem())?;
        // The CA as it is in its file: signed again it would be another certificate, and the link
        // token names the one.
        let ca = read(&self.ca())?.unwrap_or_default();
        write(&files.certificate, &(certificate.pem() + &ca))?;
        tracing::info!(file = %files.certificate.display(), "made a certificate for localhost");
        Ok(files)
    }

    /// Puts the CA's certificate back if its file was lost: it stands behind each certificate that it
    /// signed. Signed again it would be another one, which neither edges nor devices trust.
    fn restore_ca(&self) -> Result<(), DataError> {
        let path = self.ca();
        if read(&path)?.is_some() {
            return Ok(());
        }
        for name in ["central.pem", "edge.pem"] {
            let chain = read(&self.file(name))?.unwrap_or_default();
            if let Some(at) = chain.rfind("-----BEGIN CERTIFICATE-----").filter(|at| *at > 0) {
                write(&path, &chain[at..])?;
                tracing::warn!(file = %path.display(), from = name, "put a lost file back");
                break;
            }
        }
        Ok(())
    }

    /// The development CA, made if its key is not there. The certificate is a function of the key
    /// but for its signature, so the issuer need not be read back from it.
    fn issuer(&self) -> Result<CertifiedIssuer<'static, KeyPair>, DataError> {
        let (path, key_path) = (self.ca(), self.file("ca.key"));
        let failed = |source| DataError::Certificate { path: path.clone(), source };
        let stored = read(&key_path)?;
        let key = match &stored {
            Some(pem) => KeyPair::from_pem(pem).map_err(failed)?,
            None => KeyPair::generate().map_err(failed)?,
        };
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "Carillon development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key_pem = key.serialize_pem();
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        if stored.is_none() {
            write(&key_path, &key_pem)?;
        }
        if stored.is_none() || read(&path)?.is_none() {
            write(&path, &issuer.pem())?;
        }
        Ok(issuer)
    }
}

fn leaf() -> Result<(CertificateParams, KeyPair), rcgen::Error> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Carillon development");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok((params, KeyPair::generate()?))
}

/// Draws a secret into a file, and gives the file's text.
fn draw(path: &Path, suffix: &str) -> Result<String, DataError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| DataError::Randomness)?;
    let text = format!("{}{suffix}\n", hexadecimal::encode(&bytes));
    write(path, &text)?;
    tracing::info!(file = %path.display(), "made a secret");
    Ok(text)
}

fn read(path: &Path) -> Result<Option<String>, DataError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataError::Read { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), DataError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|source| DataError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_and_certificates_are_made_once_and_private() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("data");
        let data = DataFolder::open(&path).expect("make");
        let secret: Secret = data.secret("admin.token").expect("draw");
        assert_eq!(secret.reveal().len(), 64);
        let edge = data.certificate("edge").expect("make");
        let names = ["admin.token", "ca.key", "ca.pem", "edge.key", "edge.pem"];
        let texts = || names.map(|name| fs::read_to_string(path.join(name)).expect(name));
        let first = texts();

        let again = DataFolder::open(&path).expect("open");
        assert_eq!(again.secret::<Secret>("admin.token").expect("read"), secret);
        assert_eq!(again.certificate("edge").expect("read"), edge);
        assert_eq!(texts(), first);
        for name in names {
            let mode = fs::metadata(path.join(name)).expect(name).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::metadata(&path).expect("folder").permissions().mode() & 0o777, 0o700);
    }

    fn digest(path: &Path) -> [u8; 32] {
        link_token::certificate_digest(path).expect("PEM")
    }

    #[test]
    fn a_lost_ca_file_is_put_back_and_the_token_still_names_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataFolder::open(folder.path()).expect("open");
        data.certificate("central").expect("make");
        data.certificate("edge").expect("make");
        let token = data.link_token(true).expect("draw");
        let ca = fs::read_to_string(data.ca()).expect("read");
        assert_eq!(link_token::ca_named(token.reveal()), Some(digest(&data.ca())));
        // Whatever else is lost with it, as long as one certificate of it is left.
        for lost in [vec!["ca.pem"], vec!["ca.pem", "edge.pem"], vec!["ca.pem", "central.pem"]] {
            lost.iter().for_each(|name| fs::remove_file(data.file(name)).expect("remove"));
            data.certificate("central").expect("make");
            data.certificate("edge").expect("make");
            assert_eq!(fs::read_to_string(data.ca()).expect("read"), ca, "{lost:?}");
            assert_eq!(data.link_token(true).expect("read"), token, "{lost:?}");
        }
    }

    #[test]
    fn a_token_that_no_edge_could_use_any_more_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataFolder::open(folder.path()).expect("open");
        data.certificate("central").expect("make");
        let old = data.link_token(true).expect("draw");
        // The CA's certificate and all that it signed: made again it is another one.
        for name in ["ca.pem", "central.pem", "central.key"] {
            fs::remove_file(data.file(name)).expect("remove");
        }
        data.certificate("central").expect("make");
        let error = data.link_token(true).expect_err("edges would not trust central");
        let text = error.to_string();
        assert!(text.contains("link.token") && text.contains("remove the token"), "{text}");
        fs::remove_file(data.file("link.token")).expect("remove");
        let new = data.link_token(true).expect("draw");
        assert_eq!(link_token::ca_named(new.reveal()), Some(digest(&data.ca())));
        assert_ne!(new, old);
    }

    #[test]
    fn a_token_beside_a_certificate_of_the_operators_names_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataFolder::open(folder.path()).expect("open");
        let token = data.link_token(false).expect("draw");
        assert_eq!(link_token::ca_named(token.reveal()), None);
        // It may be kept when the development CA comes into use: such edges are told the CA's file.
        data.certificate("central").expect("make");
        assert_eq!(data.link_token(true).expect("read"), token);
    }

    #[test]
    fn a_certificate_made_later_descends_from_the_same_ca() {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
        use std::sync::Arc;

        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        let open = || DataFolder::open(path).expect("open");
        let first = open().certificate("central").expect("make");
        let second = open().certificate("edge").expect("make");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(open().ca()).expect("PEM")).expect("a CA");
        let client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Arc::new(client);
        for files in [first, second] {
            let chain = CertificateDer::pem_file_iter(&files.certificate)
                .expect("PEM")
                .collect::<Result<Vec<_>, _>>()
                .expect("PEM");
            let key = PrivateKeyDer::from_pem_file(&files.key).expect("PEM");
            let server = rustls::ServerConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .expect("certificate and key fit");
            let mut server = rustls::ServerConnection::new(Arc::new(server)).expect("server");
            let name = ServerName::try_from("localhost").expect("a name");
            let mut client = rustls::ClientConnection::new(client.clone(), name).expect("client");
            while client.is_handshaking() || server.is_handshaking() {
                let mut bytes = Vec::new();
                client.write_tls(&mut bytes).expect("to memory");
                server.read_tls(&mut bytes.as_slice()).expect("from memory");
                server.process_new_packets().expect("server's side");
                let mut bytes = Vec::new();
                server.write_tls(&mut bytes).expect("to memory");
                client.read_tls(&mut bytes.as_slice()).expect("from memory");
                client.process_new_packets().expect("the client trusts the certificate");
            }
        }
    }
}
