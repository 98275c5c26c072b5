//! Certificates and keys as they come: PEM, from files or from elsewhere.

use crate::tls::certificate::Certificate;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of one file, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with certificates or keys. `Display` names the file, and the remedy if there is
/// one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub(super) String);

/// A certificate with what it was signed by, its key, and the authorities that are trusted: each in
/// PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PemSet {
    /// The certificate, and those between it and its authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// The authorities that are trusted; empty: none.
    pub authorities: Vec<u8>,
}

impl fmt::Debug for PemSet {
    /// Says nothing of what is in it: there is a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemSet").finish_non_exhaustive()
    }
}

/// Where certificates come from. It is asked again and again, so that new ones are found.
pub trait CertificateSource: fmt::Debug + Send + Sync {
    /// What is there now.
    ///
    /// # Errors
    /// [`TlsError`] if it cannot be read.
    fn read(&self) -> Result<PemSet, TlsError>;
    /// What to call the certificate in a log line or an error.
    fn name(&self) -> String;
}

/// Certificates in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that are trusted, if any are.
    pub authorities: Option<PathBuf>,
}

impl CertificateSource for CertificateFiles {
    fn read(&self) -> Result<PemSet, TlsError> {
        Ok(PemSet {
            certificate: read_file(&self.certificate)?,
            key: read_file(&self.key)?,
            authorities: self.authorities.as_deref().map(read_file).transpose()?.unwrap_or_default(),
        })
    }

    fn name(&self) -> String {
        self.certificate.display().to_string()
    }
}

/// Reads one file in PEM.
///
/// # Errors
/// [`TlsError`].
pub fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |why: &dyn fmt::Display| TlsError(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&"it is too long for a certificate or a key"));
    }
    Ok(bytes)
}

/// The certificates in a text, and what the first one says.
pub(super) fn chain(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Certificate), TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| TlsError(format!("it is no certificate in PEM: {}", words(&error))))?;
    let first = chain.first().ok_or_else(|| TlsError("there is no certificate in it".to_owned()))?;
    let certificate =
        Certificate::read(first).ok_or_else(|| TlsError("its certificate cannot be read".to_owned()))?;
    Ok((chain, certificate))
}

/// The private key in a text.
pub(super) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError(format!("no private key: {}", words(&error))))
}

/// The authorities in a text.
pub(super) fn authorities(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate
            .map_err(|error| TlsError(format!("the authorities are no PEM: {}", words(&error))))?;
        roots.add(certificate).map_err(|error| TlsError(format!("an authority is no good: {error}")))?;
    }
    if roots.is_empty() {
        return Err(TlsError("there is no certificate of an authority".to_owned()));
    }
    Ok(Arc::new(roots))
}

/// What is wrong with a text, without the text: it may be a key.
fn words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section does not begin as it should",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::NoItemsFound => "there is none in it",
        _ => "it cannot be read",
    }
}
