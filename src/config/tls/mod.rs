//! `[listen.tls]` and `[upstream.tls]`: what they say, and what is in the files that they name.
//!
//! The files are read when the configuration is, so that `redweir check` finds what is wrong with them, and again
//! whenever they change.

mod pem;
pub(super) mod read;

#[cfg(not(any(feature = "tls-aws-lc", feature = "tls-ring")))]
compile_error!("choose one of the features `tls-aws-lc` (the default) and `tls-ring`");

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};

/// `[listen.tls]`: the listener speaks TLS, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenTls {
    /// `cert` and `key`: what it shows to clients.
    pub pair: Pair,
    /// `client-ca`: clients must show a certificate that one of these has signed.
    pub client_ca: Option<PathBuf>,
}

/// `[upstream.tls]`: every connection to a node speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// `ca`: who signs the certificates of the nodes. Without it: whoever the system trusts.
    pub ca: Option<PathBuf>,
    /// `cert` and `key`: what is shown to nodes that ask for it.
    pub pair: Option<Pair>,
    /// `server-name`: what the certificates of the nodes must be made out to. Without it: the host of each.
    pub server_name: Option<ServerName<'static>>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The chain, leaf first, in PEM.
    pub cert: PathBuf,
    /// The private key of the leaf, in PEM.
    pub key: PathBuf,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct TlsFault {
    /// The key that names it, within its table.
    pub key: &'static str,
    /// What was expected and what was found.
    pub message: String,
}

impl ListenTls {
    /// Reads the files.
    pub fn server_config(&self) -> Result<ServerConfig, TlsFault> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| fault("cert", &error))?;
        let builder = match &self.client_ca {
            Some(path) => {
                let roots = Arc::new(roots("client-ca", path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.build().map_err(|e| fault("client-ca", &e))?)
            }
            None => builder.with_no_client_auth(),
        };
        Ok(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(self.pair.certified()?))))
    }

    /// Everything that is wrong with the files.
    fn faults(&self) -> Vec<TlsFault> {
        let parts = [
            self.pair.certified().err(),
            self.client_ca.as_ref().and_then(|ca| roots("client-ca", ca).err()),
        ];
        all_of(parts, || self.server_config().err())
    }

    /// Every file that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        [Some(&self.pair.cert), Some(&self.pair.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

impl UpstreamTls {
    /// Reads the files, or what the system trusts.
    pub fn client_config(&self) -> Result<ClientConfig, TlsFault> {
        let roots = Arc::new(match &self.ca {
            Some(path) => roots("ca", path)?,
            None => system_roots()?,
        });
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| fault("ca", &error))?
            .with_webpki_verifier(verifier.map_err(|error| fault("ca", &error))?);
        Ok(match &self.pair {
            Some(pair) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified()?)))
            }
            None => builder.with_no_client_auth(),
        })
    }

    /// Everything that is wrong with the files.
    fn faults(&self) -> Vec<TlsFault> {
        let pair = self.pair.as_ref().and_then(|pair| pair.certified().err());
        all_of([self.ca.as_ref().and_then(|ca| roots("ca", ca).err()), pair], || self.client_config().err())
    }

    /// Every file that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        let pair = self.pair.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        self.ca.iter().chain(pair).cloned().collect()
    }
}

impl Pair {
    /// When the certificate, or one in its chain, expires: in seconds since 1970. `None` when that cannot be read.
    pub fn expiry(&self) -> Option<u64> {
        pem::expiry(&pem::certificates("cert", &self.cert).ok()?)
    }

    fn certified(&self) -> Result<CertifiedKey, TlsFault> {
        let (chain, key) = (pem::certificates("cert", &self.cert)?, pem::private_key("key", &self.key)?);
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsFault {
                key: "key",
                message: format!(
                    "{}: expected the key of the certificate in {}, found another",
                    self.key.display(),
                    self.cert.display()
                ),
            },
            rustls::Error::InvalidCertificate(_) => in_file("cert", &self.cert, &error),
            error => in_file("key", &self.key, &error),
        })
    }
}

/// What is wrong with the parts; if nothing is, with the whole.
fn all_of(parts: [Option<TlsFault>; 2], whole: impl FnOnce() -> Option<TlsFault>) -> Vec<TlsFault> {
    let mut faults: Vec<TlsFault> = parts.into_iter().flatten().collect();
    if faults.is_empty() {
        faults.extend(whole());
    }
    faults
}

/// Those whom a file says to trust.
fn roots(key: &'static str, path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut store = RootCertStore::empty();
    for certificate in pem::certificates(key, path)? {
        store.add(certificate).map_err(|error| in_file(key, path, &error))?;
    }
    Ok(store)
}

/// Those whom the system trusts: its store knows of the company's own authority, and gets its updates.
fn system_roots() -> Result<RootCertStore, TlsFault> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(store);
    }
    let why = found.errors.first().map_or_else(|| "it has none".to_owned(), ToString::to_string);
    let message =
        format!("expected a file, because the system has no certificates of its own to trust: {why}");
    Err(TlsFault { key: "ca", message })
}

/// The process' one provider of cryptography, installed by whoever asks first.
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc")]
    use rustls::crypto::aws_lc_rs::default_provider;
    #[cfg(not(feature = "tls-aws-lc"))]
    use rustls::crypto::ring::default_provider;

    if let Some(provider) = CryptoProvider::get_default() {
        return Arc::clone(provider);
    }
    // Another thread may have been faster: with the same one.
    let _ = default_provider().install_default();
    CryptoProvider::get_default().map_or_else(|| Arc::new(default_provider()), Arc::clone)
}

fn fault(key: &'static str, error: &dyn std::fmt::Display) -> TlsFault {
    TlsFault { key, message: error.to_string() }
}

fn in_file(key: &'static str, path: &Path, error: &rustls::Error) -> TlsFault {
    TlsFault { key, message: format!("{}: {error}", path.display()) }
}
