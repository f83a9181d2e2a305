//! One connection, TCP, TLS or Unix, split so that its reader and its writers need no lock between them.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_util::io::poll_read_buf;

use crate::net::socket::tls;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP
    Tcp(TcpStream),
    /// TLS over TCP
    Tls(Box<tls::TlsStream>),
    /// Unix
    Unix(UnixStream),
}

/// The reading side.
#[derive(Debug)]
pub struct ReadHalf(ReadSocket);

/// The writing side; usable through a shared reference.
#[derive(Debug)]
pub struct WriteHalf(WriteSocket);

#[derive(Debug)]
enum ReadSocket {
    Tcp(tcp::OwnedReadHalf),
    Tls(Rc<tls::TlsStream>),
    Unix(unix::OwnedReadHalf),
}

#[derive(Debug)]
enum WriteSocket {
    Nowhere,
    Tcp(tcp::OwnedWriteHalf),
    Tls(Rc<tls::TlsStream>),
    Unix(unix::OwnedWriteHalf),
}

impl Socket {
    /// The address of the other side, for `CLIENT LIST` and logs. Of a client on a Unix socket only the socket is
    /// known, and told as Redis does.
    pub fn peer(&self) -> String {
        let peer = match self {
            Self::Tcp(stream) => stream.peer_addr(),
            Self::Tls(session) => session.peer(),
            Self::Unix(stream) => {
                let address = stream.local_addr().ok();
                return socket_name(address.as_ref().and_then(|address| address.as_pathname()));
            }
        };
        peer.map_or_else(|_| "?:0".to_owned(), |peer| peer.to_string())
    }

    /// Splits it.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(ReadSocket::Tcp(read)), WriteHalf(WriteSocket::Tcp(write)))
            }
            Self::Tls(session) => {
                let session = Rc::from(session);
                (ReadHalf(ReadSocket::Tls(Rc::clone(&session))), WriteHalf(WriteSocket::Tls(session)))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(ReadSocket::Unix(read)), WriteHalf(WriteSocket::Unix(write)))
            }
        }
    }
}

impl ReadHalf {
    /// Reads once into the spare capacity of `buf`. Through `poll_read`, because a short read then clears the
    /// readiness without a second, failing system call.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            ReadSocket::Tcp(half) => poll_read_buf(Pin::new(half), cx, buf),
            ReadSocket::Tls(session) => session.poll_read(cx, buf),
            ReadSocket::Unix(half) => poll_read_buf(Pin::new(half), cx, buf),
        }
    }

    /// Pending as long as there is nothing to be read. Ready says nothing.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.0 {
            ReadSocket::Tcp(half) => half.as_ref().poll_read_ready(cx).map(|_| ()),
            ReadSocket::Tls(_) => Poll::Ready(()),
            ReadSocket::Unix(half) => half.as_ref().poll_read_ready(cx).map(|_| ()),
        }
    }
}

impl WriteHalf {
    /// Takes nothing.
    pub const fn nowhere() -> Self {
        Self(WriteSocket::Nowhere)
    }

    /// Writes what the socket takes now; `WouldBlock` when it takes nothing. What was not taken must be offered again
    /// before anything else is: TLS may have encrypted it already.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            WriteSocket::Nowhere => Err(io::ErrorKind::BrokenPipe.into()),
            WriteSocket::Tcp(half) => half.try_write(bytes),
            WriteSocket::Tls(session) => session.try_write(bytes),
            WriteSocket::Unix(half) => half.try_write(bytes),
        }
    }

    /// Tells the other side that no more will come; the reading side stays open. Everything must have been taken.
    pub fn end(self) {
        if let WriteSocket::Tls(session) = &self.0 {
            session.end();
        }
        // The other kinds shut their direction down when they are dropped.
    }

    /// Ready when the socket takes bytes again.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            WriteSocket::Nowhere => Poll::Ready(Ok(())),
            WriteSocket::Tcp(half) => half.as_ref().poll_write_ready(cx),
            WriteSocket::Tls(session) => session.poll_writable(cx),
            WriteSocket::Unix(half) => half.as_ref().poll_write_ready(cx),
        }
    }
}

/// How `CLIENT LIST` tells both ends of a connection over a Unix socket (`networking.c`, `genClientAddrString`).
pub(crate) fn socket_name(path: Option<&Path>) -> String {
    format!("{}:0", path.map_or("?".into(), |path| path.to_string_lossy()))
}
