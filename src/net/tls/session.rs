//! One TLS connection of a worker: rustls over a TCP socket, with the manners of a socket.
//!
//! A byte counts as taken when the record that it is in has gone to the kernel. That cannot be told of every record, so
//! one byte stands for all: as long as ciphertext is left over, the last byte of what was encrypted is withheld from
//! the count. Whoever writes then has something left to write, waits until the socket is writable, and so pushes the
//! rest. Nothing is ever left that nobody looks after, and a connection that owes nothing has sent everything.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead as _, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;

use crate::net::limits;

/// A TLS connection whose handshake is done.
#[derive(Debug)]
pub struct Session(RefCell<State>);

struct State {
    socket: TcpStream,
    tls: Connection,
    /// The last byte that was encrypted is not counted as taken yet.
    withheld: bool,
}

thread_local! {
    /// Where ciphertext is read to: one read of the socket is several for rustls, which takes 4 KiB at a time.
    static CIPHERTEXT: RefCell<Vec<u8>> = RefCell::new(vec![0; limits::LANE_READ]);
}

impl Session {
    /// Shakes hands with a client. Dropping the future drops the connection.
    pub(super) async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Self::shake_hands(socket, tls.into()).await
    }

    /// Shakes hands with a server. Dropping the future drops the connection.
    pub(super) async fn connect(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::shake_hands(socket, tls.into()).await
    }

    async fn shake_hands(socket: TcpStream, mut tls: Connection) -> io::Result<Self> {
        tls.set_buffer_limit(Some(limits::TLS_WRITE));
        let mut state = State { socket, tls, withheld: false };
        std::future::poll_fn(|cx| state.poll_handshake(cx)).await?;
        Ok(Self(RefCell::new(state)))
    }

    /// The address of the other side.
    pub fn peer(&self) -> io::Result<std::net::SocketAddr> {
        self.0.borrow().socket.peer_addr()
    }

    /// Reads into `buf`: at most what one read of the socket brought, which may be more than there is room for.
    /// 0 at the end, whether the other side announced it or not: a command or reply that was cut off is not whole.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let (state, before) = (&mut *self.0.borrow_mut(), buf.len());
        loop {
            let ended = state.take_plaintext(buf)?;
            if ended || buf.len() > before {
                return Poll::Ready(Ok(buf.len() - before));
            }
            // What reading has made necessary to be said. With a byte withheld, its writer pushes both.
            if !state.withheld
                && let Poll::Ready(Err(problem)) = state.poll_flush(cx)
            {
                return Poll::Ready(Err(problem));
            }
            if ready!(state.poll_ciphertext(cx, buf))? == 0 {
                return Poll::Ready(Ok(buf.len() - before));
            }
        }
    }

    /// Writes what the socket takes now; `WouldBlock` when it takes nothing. Whoever was told of fewer bytes than it
    /// offered must go on with those that were not taken.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let (state, mut taken) = (&mut *self.0.borrow_mut(), 0);
        while state.flush()? {
            taken += usize::from(std::mem::take(&mut state.withheld));
            let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) else { return Ok(taken) };
            let count = state.tls.writer().write(rest)?;
            taken += count.checked_sub(1).ok_or(io::ErrorKind::WriteZero)?;
            state.withheld = true;
        }
        if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Ready when the socket takes bytes again.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow().socket.poll_write_ready(cx)
    }
}

impl State {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.socket.poll_read_ready(cx))?;
            // 4 KiB at a time, and none after the end: what a client sends at once must fit into rustls' own buffers.
            match self.tls.read_tls(&mut Socket(&self.socket)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => self.process()?,
                Err(e) if is_passing(&e) => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Moves to `buf` what is decrypted; true when the other side has said that there will be no more.
    fn take_plaintext(&mut self, buf: &mut BytesMut) -> io::Result<bool> {
        let mut reader = self.tls.reader();
        loop {
            match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(chunk) => {
                    let count = chunk.len();
                    buf.extend_from_slice(chunk);
                    reader.consume(count);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads the socket once and decrypts that into `buf`; how many bytes of ciphertext it were.
    fn poll_ciphertext(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        CIPHERTEXT.with_borrow_mut(|ciphertext| {
            let room = (buf.capacity() - buf.len()).clamp(limits::TLS_READ_LEAST, ciphertext.len());
            let mut read = ReadBuf::new(&mut ciphertext[..room]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            let (mut rest, count) = (read.filled(), read.filled().len());
            // After the other side's last word rustls takes no more.
            while !rest.is_empty() && self.tls.read_tls(&mut rest)? > 0 {
                self.process()?;
                // rustls reads no further while it holds more than one record of plaintext.
                self.take_plaintext(buf)?;
            }
            Poll::Ready(Ok(count))
        })
    }

    fn process(&mut self) -> io::Result<()> {
        self.tls.process_new_packets().map(drop).map_err(|error| {
            // The other side is told why, if it still listens.
            let _ = self.flush();
            io::Error::new(io::ErrorKind::InvalidData, error)
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.flush()? {
            ready!(self.socket.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes ciphertext; true when none is left.
    fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket(&self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

impl Drop for State {
    /// Says that this is the end and no accident.
    fn drop(&mut self) {
        self.tls.send_close_notify();
        let _ = self.flush();
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A socket as rustls takes it.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
