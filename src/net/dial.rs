//! Opening a connection to a node.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

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

/// Connects within `within`, name resolution included. TCP connections send small writes at once and are probed
/// when silent. Errors are the operating system's; `TimedOut` when the time is up. Cancel-safe.
pub async fn dial(address: &Address, within: Duration) -> io::Result<Box<dyn Connection>> {
    let connect = async {
        Ok::<Box<dyn Connection>, io::Error>(match address {
            Address::Tcp { host, port } => Box::new(tune(TcpStream::connect((host.as_str(), *port)).await?)?),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    timeout(within, connect).await?
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
