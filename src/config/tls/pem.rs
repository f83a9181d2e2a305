//! Certificates and keys from PEM files.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::TlsFault;
use crate::config::file::read_file;

/// All certificates of a file; at least one.
pub(super) fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let text = text(key, path, "a certificate")?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|error| fault(key, path, &format!("it is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(fault(key, path, "expected a certificate (BEGIN CERTIFICATE), found none"));
    }
    Ok(found)
}

/// When the first of them ends, in seconds since 1970.
pub(super) fn expiry(certificates: &[CertificateDer<'_>]) -> Option<u64> {
    let ends = certificates.iter().filter_map(|one| Certificate::from_der(one).ok());
    ends.map(|one| one.tbs_certificate.validity.not_after.to_unix_duration().as_secs()).min()
}

/// The private key of a file.
pub(super) fn private_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let text = text(key, path, "a private key")?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        let sealed = text.contains("BEGIN ENCRYPTED PRIVATE KEY");
        let found = if sealed { "one that needs a passphrase" } else { "none" };
        fault(key, path, &format!("expected a private key (BEGIN PRIVATE KEY), found {found}"))
    })
}

fn text(key: &'static str, path: &Path, expected: &str) -> Result<String, TlsFault> {
    let text = read_file(path).map_err(|why| fault(key, path, &format!("cannot read it: {why}")))?;
    if text.contains("-----BEGIN ") {
        return Ok(text);
    }
    Err(fault(key, path, &format!("expected {expected} in PEM (-----BEGIN …), found something else")))
}

fn fault(key: &'static str, path: &Path, message: &str) -> TlsFault {
    TlsFault { key, message: format!("{}: {message}", path.display()) }
}
