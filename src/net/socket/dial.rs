//! Opening a connection to a node.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::core::address::Address;
use crate::net::runtime::clock;
use crate::net::socket::halves::Socket;
use crate::net::socket::tls;

/// First keep-alive probe after this much silence. A dead peer is then noticed long before the two hours that
/// the operating system would take.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Probes without an answer before the connection counts as dead.
const KEEPALIVE_PROBES: u32 = 3;

/// A connection to a node, whatever carries it.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// Another handle to its socket, to see whether anything has come that was not read yet.
    fn tap(&self) -> io::Result<socket2::Socket>;
}

impl ByteStream for TcpStream {
    fn tap(&self) -> io::Result<socket2::Socket> {
        SockRef::from(self).try_clone()
    }
}

impl ByteStream for UnixStream {
    fn tap(&self) -> io::Result<socket2::Socket> {
        SockRef::from(self).try_clone()
    }
}

impl ByteStream for TlsStream<TcpStream> {
    fn tap(&self) -> io::Result<socket2::Socket> {
        self.get_ref().0.tap()
    }
}

#[cfg(test)]
impl ByteStream for tokio::io::DuplexStream {
    fn tap(&self) -> io::Result<socket2::Socket> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How nodes are reached: as they are, or by TLS.
#[derive(Clone, Debug, Default)]
pub struct Dialer(Option<Arc<tls::TlsConnector>>);

impl Dialer {
    /// By TLS, if there is any.
    pub fn new(tls: Option<Arc<tls::TlsConnector>>) -> Self {
        Self(tls)
    }

    /// Connects within `within`, name resolution and TLS included. TCP connections send small writes at once and are
    /// probed when silent. Errors are the operating system's, or rustls' as `InvalidData`; `TimedOut` when the time is
    /// up, unless it was up for TLS alone. Cancel safe: dropping it drops the socket.
    pub async fn dial(&self, address: &Address, within: Duration) -> io::Result<Box<dyn ByteStream>> {
        let begun = clock::now();
        let (host, port) = match address {
            Address::Unix(path) => return Ok(Box::new(timeout(within, UnixStream::connect(path)).await??)),
            Address::Tcp { host, port } => (host, *port),
        };
        let socket = timeout(within, tcp(host, port)).await??;
        let Some(tls) = &self.0 else { return Ok(Box::new(socket)) };
        let left = within.saturating_sub(clock::now().since(begun));
        match timeout(left, tls.dial(address, socket)).await {
            Ok(stream) => Ok(Box::new(stream?)),
            // A server that speaks no TLS waits for the end of what it takes for a command.
            Err(_) => {
                Err(io::Error::other("the TLS handshake was not answered: does the node speak TLS there?"))
            }
        }
    }

    /// How long a connection takes to be made, resolution of the name and TLS not included: what the path and the kernel of the
    /// other side take, whatever the server there is busy with. It is closed again. Errors as of [`Self::dial`]. Cancel safe.
    pub async fn reach(&self, address: &Address, within: Duration) -> io::Result<Duration> {
        let connect = async {
            match address {
                Address::Unix(path) => {
                    let begun = clock::now();
                    UnixStream::connect(path).await?;
                    Ok(clock::now().since(begun))
                }
                Address::Tcp { host, port } => {
                    let found = lookup_host((host.as_str(), *port)).await?.next();
                    let found = found.ok_or(io::ErrorKind::NotFound)?;
                    let begun = clock::now();
                    TcpStream::connect(found).await?;
                    Ok(clock::now().since(begun))
                }
            }
        };
        timeout(within, connect).await?
    }

    /// Connects for a worker. Cancel safe: dropping it drops the socket.
    pub async fn connect(&self, address: &Address) -> io::Result<Socket> {
        Ok(match (address, &self.0) {
            (Address::Unix(path), _) => Socket::Unix(UnixStream::connect(path).await?),
            (Address::Tcp { host, port }, None) => Socket::Tcp(tcp(host, *port).await?),
            (Address::Tcp { host, port }, Some(tls)) => {
                Socket::Tls(Box::new(tls.connect(address, tcp(host, *port).await?).await?))
            }
        })
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    tune(TcpStream::connect((host, port)).await?)
}

/// Small writes at once (no Nagle, as Redis does), and keep-alive probes, so that a peer that vanished is noticed.
pub fn tune(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_takes_no_connection_is_reached_all_the_same() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::tcp("127.0.0.1", listener.local_addr().unwrap().port());
        let dialer = Dialer::default();
        let within = Duration::from_secs(20);
        assert!(dialer.reach(&address, within).await.unwrap() < within, "the kernel makes it");
        drop(listener);
        assert!(dialer.reach(&address, within).await.is_err());
    }
}
