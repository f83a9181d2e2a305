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

use crate::net::runtime::limits;

/// A TLS connection whose handshake is done.
#[derive(Debug)]
pub struct TlsStream(RefCell<TlsState>);

struct TlsState {
    socket: TcpStream,
    tls: Connection,
    /// The last byte that was encrypted is not counted as taken yet.
    withheld: bool,
}

thread_local! {
    /// Where ciphertext is read to: one read of the socket is several for rustls, which takes 4 KiB at a time.
    static CIPHERTEXT: RefCell<Vec<u8>> = RefCell::new(vec![0; limits::LANE_READ]);
}

impl TlsStream {
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
        let mut state = TlsState { socket, tls, withheld: false };
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

    /// Says that no more will come, if the socket takes that now.
    pub fn end(&self) {
        let state = &mut *self.0.borrow_mut();
        state.tls.send_close_notify();
        let _ = state.flush();
    }
}

impl TlsState {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.socket.poll_read_ready(cx))?;
            // 4 KiB at a time, and none after the end: what a client sends at once must fit into rustls' own buffers.
            match self.tls.read_tls(&mut CiphertextSocket(&self.socket)) {
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
            match self.tls.write_tls(&mut CiphertextSocket(&self.socket)) {
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

impl Drop for TlsState {
    /// Says that this is the end and no accident.
    fn drop(&mut self) {
        self.tls.send_close_notify();
        let _ = self.flush();
    }
}

impl fmt::Debug for TlsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsState").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A socket as rustls takes it.
struct CiphertextSocket<'a>(&'a TcpStream);

impl Read for CiphertextSocket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for CiphertextSocket<'_> {
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read as _;
    use std::thread;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{RootCertStore, StreamOwned};
    use socket2::{Domain, SockRef, Type};

    use super::*;
    use crate::config::tls::provider;

    /// What a server and a client that trusts it are made of.
    fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let server =
            server.unwrap().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key);
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        (Arc::new(server.unwrap()), Arc::new(client))
    }

    /// A client in a thread, and the session with it. Sockets take little at once.
    async fn session<T: Send + 'static>(
        client: impl FnOnce(StreamOwned<ClientConnection, std::net::TcpStream>) -> T + Send + 'static,
    ) -> (TlsStream, thread::JoinHandle<T>) {
        let (server, config) = configs();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        SockRef::from(&listener).set_send_buffer_size(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || {
            let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&address.into()).unwrap();
            let socket = std::net::TcpStream::from(socket);
            let tls = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
            client(StreamOwned::new(tls, socket))
        });
        let (socket, _) = listener.accept().await.unwrap();
        (TlsStream::accept(socket, server).await.unwrap(), peer)
    }

    #[tokio::test]
    async fn what_is_counted_as_taken_arrives_even_if_the_session_ends() {
        let text: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
        let (session, peer) = session(|mut stream| {
            let mut got = Vec::new();
            stream.flush().unwrap();
            // The end is announced, if the socket takes that much more at once.
            match stream.read_to_end(&mut got) {
                Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => panic!("{e}"),
                _ => got,
            }
        })
        .await;
        let (mut sent, mut refused) = (0, 0);
        while sent < text.len() {
            // Later calls offer more than earlier ones, as a growing buffer does.
            let upto = (sent + 1 + refused * 1000).min(text.len());
            match session.try_write(&text[sent..upto]) {
                Ok(count) => sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    refused += 1;
                    poll_fn(|cx| session.poll_writable(cx)).await.unwrap();
                }
                Err(e) => panic!("{e}"),
            }
            if refused == 0 {
                sent += session.try_write(&text[sent..]).unwrap_or(0);
            }
        }
        drop(session);
        assert!(peer.join().unwrap() == text);
        assert!(refused > 10, "the socket was never full: {refused}");
    }

    #[tokio::test]
    async fn everything_is_read_whatever_room_there_is() {
        let text: Vec<u8> = (0..300_000_u32).map(|n| (n % 249) as u8).collect();
        let said = text.clone();
        let (session, peer) = session(move |mut stream| {
            stream.write_all(&said).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            stream
        })
        .await;
        let mut got = BytesMut::new();
        loop {
            got.reserve(100);
            match poll_fn(|cx| session.poll_read(cx, &mut got)).await.unwrap() {
                0 => break,
                _ => assert!(got.len() <= text.len()),
            }
        }
        assert!(got == text);
        drop(peer.join().unwrap());
    }
}
