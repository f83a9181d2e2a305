//! Accepting clients, and handing each to one worker for good.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::shared::Shared;
use super::stream::Stream;
use super::{dial, say};
use crate::core::address::Address;
use crate::core::policy::PolicyId;

/// Pause after `accept` failed: out of descriptors, most likely. Connected clients are served meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A new connection, not yet registered with any runtime.
#[derive(Debug)]
pub struct Accepted {
    socket: Socket,
    /// The address that it connected to.
    pub local: String,
    /// The policy of the listener.
    pub policy: PolicyId,
}

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// Registers it with the present runtime.
    pub fn into_stream(self) -> io::Result<Stream> {
        Ok(match self.socket {
            Socket::Tcp(socket) => Stream::Tcp(dial::tune(TcpStream::from_std(socket)?)?),
            Socket::Unix(socket) => Stream::Unix(UnixStream::from_std(socket)?),
        })
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    name: String,
    policy: PolicyId,
}

#[derive(Debug)]
enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Binds `address`. A Unix socket that nobody listens on any longer is replaced.
    pub fn bind(address: &Address, policy: PolicyId) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp { host, port } => {
                let listener = std::net::TcpListener::bind((host.as_str(), *port))?;
                listener.set_nonblocking(true)?;
                Bound::Tcp(listener)
            }
            Address::Unix(path) => {
                if std::os::unix::net::UnixStream::connect(path).is_err() && path.exists() {
                    std::fs::remove_file(path)?;
                }
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Bound::Unix(listener)
            }
        };
        Ok(Self { socket, name: address.to_string(), policy })
    }

    /// Accepts until the process drains; hands connections to the workers in turn.
    pub async fn run(self, shared: Arc<Shared>, workers: Vec<mpsc::Sender<Accepted>>) -> io::Result<()> {
        let mut drain = shared.drain.subscribe();
        let (name, policy) = (self.name, self.policy);
        let acceptor = match self.socket {
            Bound::Tcp(socket) => Acceptor::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket) => Acceptor::Unix(UnixListener::from_std(socket)?),
        };
        let mut next = 0_usize;
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                _ = drain.changed() => return Ok(()),
            };
            let socket = match accepted {
                Ok(socket) => socket,
                Err(problem) => {
                    tracing::warn!(%problem, listener = %name, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if shared.client_count() >= shared.config.proxy.max_clients as u64 {
                socket.refuse();
                continue;
            }
            let accepted = Accepted { socket, local: name.clone(), policy };
            next = next.wrapping_add(1);
            // A worker that does not keep up lets the backlog of the socket grow, not ours.
            if let Some(worker) = workers.get(next % workers.len().max(1)) {
                let _ = worker.send(accepted).await;
            }
        }
    }
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => Socket::Tcp(listener.accept().await?.0.into_std()?),
            Self::Unix(listener) => Socket::Unix(listener.accept().await?.0.into_std()?),
        })
    }
}

impl Socket {
    /// One client too many: Redis' own words, then close.
    fn refuse(self) {
        let _ = match self {
            Self::Tcp(mut socket) => socket.write_all(say::MAX_CLIENTS),
            Self::Unix(mut socket) => socket.write_all(say::MAX_CLIENTS),
        };
    }
}
