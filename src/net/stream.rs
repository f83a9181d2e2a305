//! One connection, TCP or Unix, split so that its reader and its writers need no lock between them.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_util::io::poll_read_buf;

use crate::core::address::Address;
use crate::net::dial::tune;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP
    Tcp(TcpStream),
    /// Unix
    Unix(UnixStream),
}

/// The reading side.
#[derive(Debug)]
pub struct ReadHalf(Reader);

/// The writing side; usable through a shared reference.
#[derive(Debug)]
pub struct WriteHalf(Writer);

#[derive(Debug)]
enum Reader {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

#[derive(Debug)]
enum Writer {
    Nowhere,
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

impl Stream {
    /// Connects to a node. Cancel-safe: dropping it drops the socket.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                Ok(Self::Tcp(tune(stream)?))
            }
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(Path::new(path)).await?)),
        }
    }

    /// The address of the other side, for `CLIENT LIST` and logs.
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or_else(|_| "?:0".to_owned(), |a| a.to_string()),
            Self::Unix(_) => "unix:0".to_owned(),
        }
    }

    /// Splits it.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(Reader::Tcp(read)), WriteHalf(Writer::Tcp(write)))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(Reader::Unix(read)), WriteHalf(Writer::Unix(write)))
            }
        }
    }
}

impl ReadHalf {
    /// Reads once into the spare capacity of `buf`. Through `poll_read`, because a short read then clears the
    /// readiness without a second, failing system call.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Reader::Tcp(half) => poll_read_buf(Pin::new(half), cx, buf),
            Reader::Unix(half) => poll_read_buf(Pin::new(half), cx, buf),
        }
    }
}

impl WriteHalf {
    /// Takes nothing.
    pub const fn nowhere() -> Self {
        Self(Writer::Nowhere)
    }

    /// Writes what the socket takes now; `WouldBlock` when it takes nothing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Writer::Nowhere => Err(io::ErrorKind::BrokenPipe.into()),
            Writer::Tcp(half) => half.try_write(bytes),
            Writer::Unix(half) => half.try_write(bytes),
        }
    }

    /// Ready when the socket takes bytes again.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Writer::Nowhere => Poll::Ready(Ok(())),
            Writer::Tcp(half) => half.as_ref().poll_write_ready(cx),
            Writer::Unix(half) => {
                // Unix halves lend no stream; a ready future made anew each time is enough for this rare path.
                let mut ready = std::pin::pin!(half.ready(tokio::io::Interest::WRITABLE));
                ready!(std::future::Future::poll(ready.as_mut(), cx))?;
                Poll::Ready(Ok(()))
            }
        }
    }
}
