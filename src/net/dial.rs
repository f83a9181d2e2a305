//! Opening a connection to a node.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::stream::Stream;
use super::tls;
use crate::core::address::Address;

/// First keep-alive probe after this much silence. A dead peer is then noticed long before the two hours that
/// the operating system would take.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Probes without an answer before the connection counts as dead.
const KEEPALIVE_PROBES: u32 = 3;

/// A connection to a node, whatever carries it.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// How nodes are reached: as they are, or by TLS.
#[derive(Clone, Debug, Default)]
pub struct Dialer(Option<Arc<tls::Client>>);

impl Dialer {
    /// By TLS, if there is any.
    pub fn new(tls: Option<Arc<tls::Client>>) -> Self {
        Self(tls)
    }

    /// Connects within `within`, name resolution and TLS included. TCP connections send small writes at once and are
    /// probed when silent. Errors are the operating system's, or rustls' as `InvalidData`; `TimedOut` when the time is
    /// up. Cancel-safe: dropping it drops the socket.
    pub async fn dial(&self, address: &Address, within: Duration) -> io::Result<Box<dyn Connection>> {
        let connect = async {
            Ok::<Box<dyn Connection>, io::Error>(match (address, &self.0) {
                (Address::Unix(path), _) => Box::new(UnixStream::connect(path).await?),
                (Address::Tcp { host, port }, None) => Box::new(tcp(host, *port).await?),
                (Address::Tcp { host, port }, Some(tls)) => {
                    Box::new(tls.dial(address, tcp(host, *port).await?).await?)
                }
            })
        };
        timeout(within, connect).await?
    }

    /// Connects for a worker. Cancel-safe: dropping it drops the socket.
    pub async fn connect(&self, address: &Address) -> io::Result<Stream> {
        Ok(match (address, &self.0) {
            (Address::Unix(path), _) => Stream::Unix(UnixStream::connect(path).await?),
            (Address::Tcp { host, port }, None) => Stream::Tcp(tcp(host, *port).await?),
            (Address::Tcp { host, port }, Some(tls)) => {
                Stream::Tls(Box::new(tls.connect(address, tcp(host, *port).await?).await?))
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
