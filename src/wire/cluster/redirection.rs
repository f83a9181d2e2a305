//! Where a node sends a command that is not its own: `-MOVED` and `-ASK` (cluster.c, `clusterRedirectClient`).

use super::{endpoint, slot};
use crate::core::slots::{Endpoint, HashSlot};

/// What a node answers of a slot that is not its own, or not all of it. The command was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirection {
    /// The slot is another node's.
    Moved {
        /// Which.
        slot: HashSlot,
        /// Who has it.
        to: Endpoint,
    },
    /// The key is not here any longer, or was not yet: this command, and no other one, goes there behind `ASKING`.
    Ask {
        /// Which.
        slot: HashSlot,
        /// Who takes it over.
        to: Endpoint,
    },
}

impl Redirection {
    /// Reads a whole reply, its `-` and its CRLF included. `None`: it is another one, or not whole, or does not say where.
    pub fn parse(reply: &[u8]) -> Option<Self> {
        let text = reply.strip_prefix(b"-")?.strip_suffix(b"\r\n")?;
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.split(' ');
        let (code, number, place) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        let (slot, to) = (slot(number)?, endpoint(place)?);
        match code {
            "MOVED" => Some(Self::Moved { slot, to }),
            "ASK" => Some(Self::Ask { slot, to }),
            _ => None,
        }
    }

    /// The slot that it is about.
    pub const fn slot(&self) -> HashSlot {
        match self {
            Self::Moved { slot, .. } | Self::Ask { slot, .. } => *slot,
        }
    }

    /// Where it leads.
    pub const fn to(&self) -> &Endpoint {
        match self {
            Self::Moved { to, .. } | Self::Ask { to, .. } => to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::Address;

    fn at(host: &str, port: u16) -> Endpoint {
        Endpoint::At(Address::tcp(host, port))
    }

    #[test]
    fn a_redirection_says_where() {
        // As Redis 7.0.15 and Valkey 8.1 answer, with each `cluster-preferred-endpoint-type`, and as they do on IPv6.
        let cases = [
            ("-MOVED 77 127.0.0.1:27310\r\n", at("127.0.0.1", 27_310)),
            ("-MOVED 93 redis-1.example:27311\r\n", at("redis-1.example", 27_311)),
            ("-MOVED 16383 ::1:6379\r\n", at("::1", 6379)),
            ("-MOVED 77 :27310\r\n", Endpoint::SameHost(27_310)),
            ("-MOVED 77 ?:27310\r\n", Endpoint::Unknown),
            ("-MOVED 77 10.0.0.1:0\r\n", Endpoint::Unknown),
        ];
        for (reply, to) in cases {
            let found = Redirection::parse(reply.as_bytes()).unwrap();
            assert_eq!(found.to(), &to, "{reply:?}");
            assert!(matches!(found, Redirection::Moved { .. }));
        }
        let slot = HashSlot::new(77).unwrap();
        let to = at("127.0.0.1", 27_311);
        assert_eq!(Redirection::parse(b"-ASK 77 127.0.0.1:27311\r\n"), Some(Redirection::Ask { slot, to }));
    }

    #[test]
    fn the_host_that_was_asked_is_as_it_was_reached() {
        let asked = Address::tcp("::1", 1);
        assert_eq!(Endpoint::SameHost(7).reached(&asked), Some(Address::tcp("::1", 7)));
        assert_eq!(Endpoint::Unknown.reached(&asked), None);
        assert_eq!(at("a", 2).reached(&asked), Some(Address::tcp("a", 2)));
        assert_eq!(Endpoint::SameHost(7).reached(&Address::Unix("/run/r".into())), None);
    }

    #[test]
    fn anything_else_is_none() {
        for reply in [
            "",
            "-MOVED 77 127.0.0.1:27310",
            "-MOVED 77\r\n",
            "-MOVED 16384 a:1\r\n",
            "-MOVED -1 a:1\r\n",
            "-MOVED 077 a:1\r\n",
            "-MOVED 77 a\r\n",
            "-MOVED 77 a:65536\r\n",
            "-MOVED 77 a:1 b\r\n",
            "-MOVED 77 unix:/a:1\r\n",
            "-MOVEDISH 77 a:1\r\n",
            "+MOVED 77 a:1\r\n",
            "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
            "-CLUSTERDOWN The cluster is down\r\n",
            "-CLUSTERDOWN Hash slot not served\r\n",
            "-CROSSSLOT Keys in request don't hash to the same slot\r\n",
        ] {
            assert_eq!(Redirection::parse(reply.as_bytes()), None, "{reply:?}");
        }
    }
}
