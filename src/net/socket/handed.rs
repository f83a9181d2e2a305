//! Listening sockets that somebody else has opened and handed over: the service manager (socket activation,
//! `sd_listen_fds(3)`), which keeps them open, and whoever waits in their queues, while one process ends and the next begins.
//!
//! They are matched by their addresses; one that nobody asks for is a mistake in one of the two configurations.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::SockRef;

use crate::core::address::Address;

/// Sockets that were handed over and nobody has asked for yet.
#[derive(Debug, Default)]
pub struct Handed {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
}

/// Why a socket that was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// It is something else, or cannot be looked at.
    #[error("what was handed over as descriptor {0} is no stream socket: {1}")]
    NoStream(usize, io::Error),
    /// It is a connection.
    #[error("the socket that was handed over as descriptor {0} does not listen (systemd: Accept=no)")]
    DoesNotListen(usize),
    /// It has no address that could be told.
    #[error("the socket that was handed over as descriptor {0} has no name")]
    NoName(usize),
    /// No configuration mentions them.
    #[error("{0} was handed over, but no [[listen]] and no [admin] has this address")]
    LeftOver(String),
}

impl Handed {
    /// Those that the environment tells of (`LISTEN_FDS`, `LISTEN_PID`), which is cleared of that: to be called before there are
    /// other threads.
    pub fn take() -> Result<Self, HandedError> {
        let mut sockets = ListenFd::from_env();
        let mut handed = Self::default();
        for index in 0..sockets.len() {
            let number = index + FIRST;
            if let Ok(Some(socket)) = sockets.take_unix_listener(index) {
                listens(number, &SockRef::from(&socket))?;
                let address =
                    socket.local_addr().map_err(|problem| HandedError::NoStream(number, problem))?;
                let path = address.as_pathname().ok_or(HandedError::NoName(number))?;
                handed.unix.push((path.to_owned(), socket));
                continue;
            }
            let socket = sockets.take_tcp_listener(index);
            let Some(socket) = socket.map_err(|problem| HandedError::NoStream(number, problem))? else {
                continue;
            };
            listens(number, &SockRef::from(&socket))?;
            let address = socket.local_addr().map_err(|problem| HandedError::NoStream(number, problem))?;
            handed.tcp.push((address, socket));
        }
        Ok(handed)
    }

    /// The socket for this address.
    pub fn tcp(&mut self, host: &str, port: u16) -> io::Result<Option<TcpListener>> {
        if self.tcp.is_empty() {
            return Ok(None);
        }
        let wanted: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        let fits = |(is, _): &(SocketAddr, TcpListener)| wanted.iter().any(|wanted| are_one(*wanted, *is));
        let Some(place) = self.tcp.iter().position(fits) else { return Ok(None) };
        let (_, socket) = self.tcp.swap_remove(place);
        socket.set_nonblocking(true)?;
        Ok(Some(socket))
    }

    /// The socket for this path.
    pub fn unix(&mut self, path: &Path) -> io::Result<Option<UnixListener>> {
        let Some(place) = self.unix.iter().position(|(is, _)| is == path) else { return Ok(None) };
        let (_, socket) = self.unix.swap_remove(place);
        socket.set_nonblocking(true)?;
        Ok(Some(socket))
    }

    /// Everybody has asked: nothing may be left, for whoever connects there would wait for ever.
    pub fn are_taken(self) -> Result<(), HandedError> {
        let tcp = self.tcp.first().map(|(address, _)| address.to_string());
        let unix = self.unix.into_iter().next().map(|(path, _)| Address::Unix(path).to_string());
        tcp.or(unix).map_or(Ok(()), |address| Err(HandedError::LeftOver(address)))
    }
}

/// A socket that does not listen accepts nobody.
fn listens(number: usize, socket: &SockRef<'_>) -> Result<(), HandedError> {
    match socket.is_listener() {
        Ok(true) => Ok(()),
        Ok(false) => Err(HandedError::DoesNotListen(number)),
        Err(problem) => Err(HandedError::NoStream(number, problem)),
    }
}

/// Whether both are one place. `ListenStream=6380` listens on `[::]`, where clients of `0.0.0.0` come as well.
fn are_one(wanted: SocketAddr, is: SocketAddr) -> bool {
    let plain = |address: SocketAddr| match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip @ IpAddr::V4(_) => ip,
    };
    let (wanted_ip, ip) = (plain(wanted), plain(is));
    let anywhere = wanted_ip.is_unspecified() && is.ip().is_unspecified() && is.is_ipv6();
    wanted.port() == is.port() && (wanted_ip == ip || anywhere)
}

/// `SD_LISTEN_FDS_START`
const FIRST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_one_where_clients_of_both_arrive() {
        let one = |wanted: &str, is: &str| are_one(wanted.parse().unwrap(), is.parse().unwrap());
        assert!(one("127.0.0.1:1", "127.0.0.1:1") && one("127.0.0.1:1", "[::ffff:127.0.0.1]:1"));
        assert!(one("0.0.0.0:1", "[::]:1") && one("[::]:1", "[::]:1"));
        assert!(!one("[::]:1", "0.0.0.0:1"), "clients of IPv6 would not arrive");
        assert!(!one("127.0.0.1:1", "127.0.0.1:2") && !one("127.0.0.1:1", "[::]:1"));
    }

    #[test]
    fn what_nobody_asks_for_is_named() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut handed = Handed { tcp: vec![(address, socket)], unix: Vec::new() };
        assert!(handed.tcp("127.0.0.1", address.port().wrapping_add(1).max(1)).unwrap().is_none());
        let named = Handed { tcp: std::mem::take(&mut handed.tcp), unix: Vec::new() }.are_taken();
        assert!(named.unwrap_err().to_string().starts_with(&address.to_string()));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut handed = Handed { tcp: vec![(address, socket)], unix: Vec::new() };
        assert!(handed.tcp("localhost", address.port()).unwrap().is_some());
        assert!(handed.are_taken().is_ok());
    }
}
