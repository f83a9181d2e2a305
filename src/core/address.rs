//! Where a node is, and who Redweir is to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a server: `host:port`, `[v6]:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A host name or IP address (an IPv6 one without its brackets) and a port.
    Tcp {
        /// Resolved at each connect, so that a changed DNS record is followed.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A URL.
    #[error("expected host:port, [ipv6]:port or unix:/path, without a scheme (redis://, http://)")]
    Scheme,
    /// No `:port` at the end.
    #[error("expected host:port, [ipv6]:port or unix:/path; there is no port")]
    NoPort,
    /// The port is not a number from 1 to 65535.
    #[error("expected a port from 1 to 65535 after the last colon")]
    BadPort,
    /// Nothing before the port, or a host with blanks or stray brackets.
    #[error("expected a host name or an IP address before the port")]
    BadHost,
    /// More than one colon in a host that has no brackets.
    #[error("an IPv6 address goes in brackets: [::1]:6379")]
    NoBrackets,
    /// `unix:` without an absolute path.
    #[error("expected an absolute path after unix:")]
    BadPath,
}

impl Address {
    /// `host:port`
    pub fn tcp(host: &str, port: u16) -> Self {
        Self::Tcp { host: host.to_owned(), port }
    }

    /// Whether it is found by the name of a host.
    pub fn is_named(&self) -> bool {
        let is_number = |host: &str| host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        matches!(self, Self::Tcp { host, .. } if !host.contains(':') && !is_number(host))
    }

    /// Where a server says that a node is; `None`: nobody can be reached there, as at port 0.
    pub fn announced(host: &str, port: u16) -> Option<Self> {
        let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        // It ends in a host or it is none: servers know of no Unix sockets of others.
        text.parse().ok().filter(|address| matches!(address, Self::Tcp { .. }))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let absolute = path.starts_with('/') && path.len() > 1;
            return if absolute { Ok(Self::Unix(path.into())) } else { Err(AddressError::BadPath) };
        }
        if text.contains("://") {
            return Err(AddressError::Scheme);
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(AddressError::BadHost)?;
            if !host.contains(':') {
                return Err(AddressError::BadHost);
            }
            (host, rest.strip_prefix(':').ok_or(AddressError::NoPort)?)
        } else {
            let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
            if host.contains(':') {
                return Err(AddressError::NoBrackets);
            }
            (host, port)
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "[]/".contains(c)) {
            return Err(AddressError::BadHost);
        }
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|&p| digits && p != 0).ok_or(AddressError::BadPort)?;
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What Redweir authenticates its own connections with. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// An ACL user; `None` for the default user (`AUTH password`).
    pub username: Option<String>,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_was_written() {
        for text in [
            "127.0.0.1:6379",
            "redis-0.redis.svc:1",
            "[::1]:6379",
            "[fe80::1%eth0]:65535",
            "unix:/run/r.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let fault = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(fault("localhost"), AddressError::NoPort);
        assert_eq!(fault("[::1]"), AddressError::NoPort);
        assert_eq!(fault("a:0"), AddressError::BadPort);
        assert_eq!(fault("a:65536"), AddressError::BadPort);
        assert_eq!(fault("a:+1"), AddressError::BadPort);
        assert_eq!(fault("a:"), AddressError::BadPort);
        assert_eq!(fault("::1:6379"), AddressError::NoBrackets);
        assert_eq!(fault(":6379"), AddressError::BadHost);
        assert_eq!(fault("redis://a:6379"), AddressError::Scheme);
        assert_eq!(fault("[a]:6379"), AddressError::BadHost);
        assert_eq!(fault("unix:run.sock"), AddressError::BadPath);
    }

    #[test]
    fn a_password_is_never_printed() {
        let secret = Login { username: Some("redweir".to_owned()), password: "hunter2".to_owned() };
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
