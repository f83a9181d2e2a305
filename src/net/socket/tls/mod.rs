//! TLS: what is shown to clients and to nodes, exchanged for what is in the files while connections go on.

pub mod renew;
mod session;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, InvalidMessage, ServerConfig};
use tokio::net::TcpStream;

use self::renew::Renewable;
pub use self::session::TlsStream;
use crate::config::tls::TlsFault;
use crate::config::{ListenTls, UpstreamTls};
use crate::core::address::Address;
use crate::net::runtime::clock;
use crate::net::runtime::limits;

/// The TLS of a listener.
pub struct TlsAcceptor {
    name: String,
    files: ListenTls,
    config: ArcSwap<ServerConfig>,
    /// When a failed handshake was last told at a level that is seen, in nanoseconds.
    logged_at: AtomicU64,
}

/// The TLS of connections to nodes.
pub struct TlsConnector {
    name: &'static str,
    files: UpstreamTls,
    config: ArcSwap<ClientConfig>,
}

impl TlsAcceptor {
    /// For the listener called `name`.
    pub fn new(name: String, files: ListenTls) -> Result<Self, TlsFault> {
        let config = ArcSwap::from_pointee(files.server_config()?);
        Ok(Self { name, files, config, logged_at: AtomicU64::new(0) })
    }

    /// Shakes hands with a client.
    ///
    /// Not cancel safe: the future owns the socket, and dropping it closes the connection in the middle of the handshake.
    /// Whoever drops it has given the client up.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream> {
        TlsStream::accept(socket, self.config.load_full()).await
    }

    /// Tells of a handshake that came to nothing. A scanner must not fill the log: most are told to those who debug.
    pub fn tell(&self, peer: &str, problem: &io::Error) {
        let (now, problem) = (clock::now().as_nanos(), explain(problem));
        let logged_at = self.logged_at.load(Ordering::Relaxed);
        if logged_at != 0 && now.saturating_sub(logged_at) < limits::TLS_LOGGED_EVERY.as_nanos() as u64 {
            return tracing::debug!(listener = %self.name, peer, problem, "a TLS handshake failed");
        }
        self.logged_at.store(now, Ordering::Relaxed);
        tracing::info!(listener = %self.name, peer, problem, "a TLS handshake failed");
    }
}

impl TlsConnector {
    /// For all nodes, or for whoever is called `name`.
    pub fn new(name: &'static str, files: UpstreamTls) -> Result<Self, TlsFault> {
        let config = ArcSwap::from_pointee(files.client_config()?);
        Ok(Self { name, files, config })
    }

    /// Shakes hands with the node at `address`, for a worker. Dropping the future drops the connection.
    pub async fn connect(&self, address: &Address, socket: TcpStream) -> io::Result<TlsStream> {
        TlsStream::connect(socket, self.config.load_full(), self.name_of(address)?).await
    }

    /// The same for other threads.
    pub async fn dial(
        &self,
        address: &Address,
        socket: TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let connector = tokio_rustls::TlsConnector::from(self.config.load_full());
        connector.connect(self.name_of(address)?, socket).await
    }

    /// What the certificate of the node must be made out to.
    fn name_of(&self, address: &Address) -> io::Result<ServerName<'static>> {
        if let Some(name) = &self.files.server_name {
            return Ok(name.clone());
        }
        match address {
            Address::Tcp { host, .. } => ServerName::try_from(host.clone()).map_err(io::Error::other),
            Address::Unix(_) => Err(io::Error::other("a Unix socket speaks no TLS")),
        }
    }
}

impl Renewable for TlsAcceptor {
    fn name(&self) -> &str {
        &self.name
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.files()
    }

    fn expiry(&self) -> Option<u64> {
        self.files.pair.expiry()
    }

    fn renew(&self) -> Result<(), TlsFault> {
        self.config.store(Arc::new(self.files.server_config()?));
        Ok(())
    }
}

impl Renewable for TlsConnector {
    fn name(&self) -> &'static str {
        self.name
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.files()
    }

    fn expiry(&self) -> Option<u64> {
        self.files.pair.as_ref()?.expiry()
    }

    fn renew(&self) -> Result<(), TlsFault> {
        self.config.store(Arc::new(self.files.client_config()?));
        Ok(())
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("name", &self.name)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").field("files", &self.files).finish_non_exhaustive()
    }
}

/// A failed handshake in words; what is most often wrong with clients in plain ones.
fn explain(problem: &io::Error) -> String {
    let inner = problem.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the client does not speak TLS".to_owned()
        }
        Some(rustls::Error::NoCertificatesPresented) => "the client showed no certificate".to_owned(),
        _ => problem.to_string(),
    }
}
