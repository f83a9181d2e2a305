//! Accepting clients, and handing each to one worker for good.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::ToSocketAddrs as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::config::Listen;
use crate::core::address::Address;
use crate::net::runtime::limits;
use crate::net::runtime::sparing::Sparing;
use crate::net::socket::dial;
use crate::net::socket::halves::{Socket, socket_name};
use crate::net::socket::handed::Handed;
use crate::net::socket::tls;
use crate::shard::common::Seat;
use crate::shard::shared::Shared;
use crate::telemetry::Stats;
use crate::wire::say;

/// Pause after `accept` failed: out of descriptors, most likely. Connected clients are served meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is said of a TLS handshake that took too long for that.
const OTHERS_WAIT: &str = "it did not get on with it while others waited for their turn";

/// A new connection, not yet registered with any runtime.
#[derive(Debug)]
pub struct Accepted {
    socket: AcceptedSocket,
    tls: Option<Arc<tls::TlsAcceptor>>,
    /// The address that it connected to, as `CLIENT LIST` tells it.
    pub local: String,
    /// The listener's number.
    pub listener: usize,
    /// Its place among `max-clients`.
    pub seat: Option<Seat>,
}

#[derive(Debug)]
enum AcceptedSocket {
    Tcp(std::net::TcpStream),
    Unix(unix::UnixStream),
}

impl Accepted {
    /// Registers it with the present runtime, and shakes hands if the listener speaks TLS. `None`: it came to nothing,
    /// which is logged. Meanwhile it counts as a client, so that `max-clients` holds for those that say nothing, too.
    pub async fn open(self, shared: &Shared, stats: &Stats) -> Option<Socket> {
        let registered = match self.socket {
            AcceptedSocket::Tcp(socket) => TcpStream::from_std(socket).and_then(dial::tune).map(Socket::Tcp),
            AcceptedSocket::Unix(socket) => UnixStream::from_std(socket).map(Socket::Unix),
        };
        let stream = match registered {
            Ok(stream) => stream,
            Err(problem) => {
                tracing::warn!(%problem, "a connection was lost at once");
                return None;
            }
        };
        let (socket, tls) = match (stream, &self.tls) {
            (Socket::Tcp(socket), Some(tls)) => (socket, tls),
            (stream, _) => return Some(stream),
        };
        let (peer, mut drain) = (socket.peer_addr(), shared.drain.subscribe());
        let counted = InHandshake::new(stats);
        let patience = match shared.config().proxy.client_handshake_timeout {
            Duration::ZERO => limits::TLS_HANDSHAKE,
            patience => patience.min(limits::TLS_HANDSHAKE),
        };
        let accept = async {
            let mut place = shared.handshakes.enter().await;
            tokio::select! {
                session = tls.accept(socket) => session,
                () = place.is_needed() => Err(io::Error::new(io::ErrorKind::TimedOut, OTHERS_WAIT)),
            }
        };
        let session = tokio::select! {
            session = tokio::time::timeout(patience, accept) => session,
            _ = drain.wait_for(|draining| *draining) => Ok(Err(io::ErrorKind::Interrupted.into())),
        };
        drop(counted);
        match session.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(session) => Some(Socket::Tls(Box::new(session))),
            Err(problem) => {
                stats.tls_failed.add(1);
                tls.tell(&peer.map_or_else(|_| "?".to_owned(), |peer| peer.to_string()), &problem);
                None
            }
        }
    }
}

/// A connection that shakes hands counts as a client, however that ends.
struct InHandshake<'a>(&'a Stats);

impl<'a> InHandshake<'a> {
    fn new(stats: &'a Stats) -> Self {
        stats.clients.add(1);
        Self(stats)
    }
}

impl Drop for InHandshake<'_> {
    fn drop(&mut self) {
        self.0.clients.sub(1);
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: BoundSocket,
    /// Somebody else keeps it open, and whoever waits in its queue.
    handed: bool,
    name: String,
    tls: Option<Arc<tls::TlsAcceptor>>,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(std::net::TcpListener),
    /// Its file is ours, unless the socket was handed over.
    Unix(unix::UnixListener, Option<SocketFile>),
}

impl Listener {
    /// Takes the socket of this address that was handed over, or binds one. A Unix socket that nobody listens on any longer is
    /// replaced.
    pub fn bind(listen: &Listen, handed: &mut Handed) -> io::Result<Self> {
        let taken = match &listen.address {
            Address::Tcp { host, port } => handed.tcp(host, *port)?.map(BoundSocket::Tcp),
            Address::Unix(path) => handed.unix(path)?.map(|socket| BoundSocket::Unix(socket, None)),
        };
        let handed = taken.is_some();
        let socket = match (taken, &listen.address) {
            (Some(socket), _) => socket,
            (None, Address::Tcp { host, port }) => {
                BoundSocket::Tcp(bind_tcp(host, *port, listen.reuse_port)?)
            }
            (None, Address::Unix(path)) => {
                remove_stale(path)?;
                let listener = bind_unix(path, listen.unix_perm)?;
                let file = SocketFile::at(path)?;
                listener.set_nonblocking(true)?;
                BoundSocket::Unix(listener, Some(file))
            }
        };
        let name = listen.address.to_string();
        let tls = listen.tls.clone().map(|files| tls::TlsAcceptor::new(name.clone(), files)).transpose();
        let tls = tls.map_err(io::Error::other)?.map(Arc::new);
        Ok(Self { socket, handed, name, tls })
    }

    /// Its TLS.
    pub fn tls(&self) -> Option<&Arc<tls::TlsAcceptor>> {
        self.tls.as_ref()
    }

    /// Accepts until the process drains, and then whoever has come by then; hands connections to the workers in turn. It is
    /// listener number `number`.
    pub async fn run(
        self,
        number: usize,
        shared: Arc<Shared>,
        workers: Vec<mpsc::Sender<Accepted>>,
    ) -> io::Result<()> {
        let mut drain = shared.drain.subscribe();
        let (acceptor, _file) = match self.socket {
            BoundSocket::Tcp(socket) => (Acceptor::Tcp(TcpListener::from_std(socket)?), None),
            BoundSocket::Unix(socket, file) => (Acceptor::Unix(UnixListener::from_std(socket)?), file),
        };
        let mut reception = Reception { number, shared, workers, tls: self.tls, next: 0 };
        let sparing = Sparing::new();
        // Given up to tell newcomers that there is no other.
        let mut spare = File::open("/dev/null").ok();
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                _ = drain.changed() => break,
            };
            let socket = match accepted {
                Ok(socket) => socket,
                Err(problem) => {
                    if let Some(left_out) = sparing.may_tell() {
                        tracing::warn!(%problem, left_out, listener = %self.name, "accept failed");
                    }
                    if is_out_of_descriptors(&problem) && reception.tls.is_none() && spare.take().is_some() {
                        turn_away(&acceptor).await;
                        spare = File::open("/dev/null").ok();
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            reception.receive(socket).await;
        }
        // Whoever still waits in its queue waits for the next process.
        if self.handed {
            return Ok(());
        }
        // Else nobody may wait there when the socket is closed: they would be reset, though another process listens as well.
        let last = acceptor.close();
        for socket in last {
            reception.receive(socket).await;
        }
        Ok(())
    }
}

/// Where newcomers of a listener go.
struct Reception {
    number: usize,
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Accepted>>,
    tls: Option<Arc<tls::TlsAcceptor>>,
    next: usize,
}

impl Reception {
    /// Hands a newcomer to the next worker, if there is room for it.
    async fn receive(&mut self, socket: AcceptedSocket) {
        let Some(seat) = self.shared.common().seat() else {
            if self.tls.is_none() {
                socket.refuse();
            }
            return;
        };
        let local = socket.local();
        let (tls, seat, listener) = (self.tls.clone(), Some(seat), self.number);
        let accepted = Accepted { socket, tls, local, listener, seat };
        self.next = self.next.wrapping_add(1);
        // A worker that does not keep up lets the backlog of the socket grow, not ours.
        if let Some(worker) = self.workers.get(self.next % self.workers.len().max(1)) {
            let _ = worker.send(accepted).await;
        }
    }
}

fn is_out_of_descriptors(problem: &io::Error) -> bool {
    matches!(problem.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// Tells those who wait that there is no room for them: they would wait for as long as it lasts.
async fn turn_away(acceptor: &Acceptor) {
    while let Ok(Ok(socket)) = tokio::time::timeout(TURN_AWAY, acceptor.accept()).await {
        socket.refuse();
    }
}

/// So long without another newcomer, and nobody waits any longer.
const TURN_AWAY: Duration = Duration::from_millis(1);

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// The next connection.
    ///
    /// Cancel safe: there is nothing to wait for between `accept`, which is, and the return.
    async fn accept(&self) -> io::Result<AcceptedSocket> {
        Ok(match self {
            Self::Tcp(listener) => AcceptedSocket::Tcp(listener.accept().await?.0.into_std()?),
            Self::Unix(listener) => AcceptedSocket::Unix(listener.accept().await?.0.into_std()?),
        })
    }

    /// Takes whoever waits in the queue, and closes the socket as soon as that is empty: between the two as little as can be,
    /// for whoever comes meanwhile is reset.
    fn close(self) -> Vec<AcceptedSocket> {
        let mut last = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return last };
                while let Ok((socket, _)) = listener.accept() {
                    if socket.set_nonblocking(true).is_ok() {
                        last.push(AcceptedSocket::Tcp(socket));
                    }
                }
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return last };
                while let Ok((socket, _)) = listener.accept() {
                    if socket.set_nonblocking(true).is_ok() {
                        last.push(AcceptedSocket::Unix(socket));
                    }
                }
            }
        }
        last
    }
}

impl AcceptedSocket {
    fn local(&self) -> String {
        match self {
            Self::Tcp(socket) => socket.local_addr().map_or_else(|_| "?:0".to_owned(), |a| a.to_string()),
            Self::Unix(socket) => {
                socket_name(socket.local_addr().ok().as_ref().and_then(|a| a.as_pathname()))
            }
        }
    }

    /// One client too many: Redis' own words, then close.
    fn refuse(self) {
        let _ = match self {
            Self::Tcp(mut socket) => socket.write_all(say::MAX_CLIENTS),
            Self::Unix(mut socket) => socket.write_all(say::MAX_CLIENTS),
        };
    }
}

/// Binds a TCP socket. With `reuse_port` another process that says so, too, may listen there already, and newcomers come to
/// either.
fn bind_tcp(host: &str, port: u16, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    if !reuse_port {
        let listener = std::net::TcpListener::bind((host, port))?;
        listener.set_nonblocking(true)?;
        return Ok(listener);
    }
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        let bound = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
            .and_then(|socket| {
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(true)?;
                socket.bind(&address.into())?;
                socket.listen(limits::BACKLOG)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
        match bound {
            Ok(socket) => return Ok(socket.into()),
            Err(problem) => last = problem,
        }
    }
    Err(last)
}

/// Binds a socket with these permissions from its first moment on; `None`: as the umask has it (`anet.c`, `anetUnixServer`,
/// sets them after binding: whoever is quick is in).
fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<unix::UnixListener> {
    let Some(mode) = mode else { return unix::UnixListener::bind(path) };
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = unix::UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// The file of a bound Unix socket; removed with it, unless somebody else's is there by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Removes a Unix socket that a process left behind when it was killed. Everything else stays, and fails the bind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |problem: io::Error| problem.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && unix::UnixStream::connect(path).is_err_and(refused) {
        fs::remove_file(path)?;
    }
    Ok(())
}
