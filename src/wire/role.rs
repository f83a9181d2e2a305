//! What `ROLE` says, as words (`roleCommand` in Redis' `replication.c`). `ROLE` is the cheapest report there is,
//! under 100 bytes, and every proof of freshness rests on it: whatever is not exactly as expected is an error.

use redis_protocol::resp2::types::BytesFrame;

use super::info::{Info, ReplicaLine};
use crate::core::nodes::node::{Link, Role};
use crate::core::position::Offset;

/// A replica's own word for its link to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// `none`: it was told to follow nobody just now.
    None,
    /// `connect`: it must connect to the primary.
    Connect,
    /// `connecting`: the connection is being made.
    Connecting,
    /// `handshake`: authentication, capabilities, `PSYNC`.
    Handshake,
    /// `sync`: a dump is being received.
    Sync,
    /// `connected`: the stream is being applied.
    Connected,
    /// A word that this table does not know; it proves nothing.
    Other,
}

impl LinkState {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Connect => "connect",
            Self::Connecting => "connecting",
            Self::Handshake => "handshake",
            Self::Sync => "sync",
            Self::Connected => "connected",
            Self::Other => "?",
        }
    }

    /// What it comes to.
    pub const fn link(self) -> Link {
        match self {
            Self::Connected => Link::Up,
            Self::Sync => Link::Syncing,
            _ => Link::Down,
        }
    }
}

/// One replica as its primary sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSeen {
    /// Address, as connected or announced.
    pub host: String,
    /// Port; 0 when never announced.
    pub port: u16,
    /// What it last acknowledged.
    pub acked: Option<Offset>,
}

/// A `ROLE` reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleReport {
    /// `master`
    Primary {
        /// The head.
        offset: Offset,
        /// The replicas that are online.
        replicas: Vec<ReplicaSeen>,
    },
    /// `slave`
    Replica {
        /// The primary that it follows.
        host: String,
        /// That primary's port.
        port: u16,
        /// How its link stands.
        state: LinkState,
        /// What it has applied; `None` for the −1 of a link that is down.
        applied: Option<Offset>,
    },
    /// `sentinel`
    Sentinel {
        /// The names of the primaries that it watches.
        masters: Vec<String>,
    },
}

/// Why a reply is no `ROLE` report. The fault is the server's, or that of something that poses as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// Not an array.
    #[error("the reply to ROLE is not an array")]
    NotAnArray,
    /// The first word is none of `master`, `slave`, `sentinel`.
    #[error("the reply to ROLE names no known role")]
    UnknownRole,
    /// An element is missing, or of the wrong type.
    #[error("the reply to ROLE lacks `{0}`")]
    Lacks(&'static str),
}

impl RoleReport {
    /// Reads a `ROLE` reply. Elements beyond the known ones are passed over.
    pub fn parse(reply: &BytesFrame) -> Result<Self, RoleError> {
        let BytesFrame::Array(items) = reply else { return Err(RoleError::NotAnArray) };
        match items.first().and_then(bytes) {
            Some(b"master") => primary(items),
            Some(b"slave") => replica(items),
            Some(b"sentinel") => sentinel(items),
            _ => Err(RoleError::UnknownRole),
        }
    }
}

impl RoleReport {
    /// The same from `INFO`, section `replication`: its offsets are those of `ROLE` at that moment (`genRedisInfoString` and
    /// `roleCommand`). A replica's is that which it has applied, and means nothing while its link is down.
    pub fn of_info(info: &Info) -> Result<Self, RoleError> {
        match info.role {
            Some(Role::Primary) => {
                let online = info.replicas.iter().filter(|line| line.online);
                let seen = |line: &ReplicaLine| ReplicaSeen {
                    host: line.host.clone(),
                    port: line.port,
                    acked: line.acked,
                };
                let offset = info.offset.ok_or(RoleError::Lacks("offset"))?;
                Ok(Self::Primary { offset, replicas: online.map(seen).collect() })
            }
            Some(Role::Replica) => {
                let up = info.link_up.ok_or(RoleError::Lacks("state"))?;
                let state = match info.sync_in_progress {
                    _ if up => LinkState::Connected,
                    Some(true) => LinkState::Sync,
                    _ => LinkState::Connect,
                };
                let host = info.master_host.clone().ok_or(RoleError::Lacks("host"))?;
                let port = info.master_port.ok_or(RoleError::Lacks("port"))?;
                Ok(Self::Replica { host, port, state, applied: info.applied.filter(|_| up) })
            }
            None => Err(RoleError::UnknownRole),
        }
    }
}

fn primary(items: &[BytesFrame]) -> Result<RoleReport, RoleError> {
    let offset = items.get(1).and_then(integer).and_then(Offset::from_reported);
    let offset = offset.ok_or(RoleError::Lacks("offset"))?;
    let Some(BytesFrame::Array(lines)) = items.get(2) else { return Err(RoleError::Lacks("replicas")) };
    let seen = |line: &BytesFrame| {
        let BytesFrame::Array(line) = line else { return None };
        Some(ReplicaSeen {
            host: text(line.first()?)?,
            port: integer(line.get(1)?).and_then(|p| u16::try_from(p).ok())?,
            acked: integer(line.get(2)?).and_then(Offset::from_reported),
        })
    };
    let replicas = lines.iter().map(seen).collect::<Option<_>>().ok_or(RoleError::Lacks("replicas"))?;
    Ok(RoleReport::Primary { offset, replicas })
}

fn replica(items: &[BytesFrame]) -> Result<RoleReport, RoleError> {
    let host = items.get(1).and_then(text).ok_or(RoleError::Lacks("host"))?;
    let port = items.get(2).and_then(integer).and_then(|p| u16::try_from(p).ok());
    let port = port.ok_or(RoleError::Lacks("port"))?;
    let state = match items.get(3).and_then(bytes).ok_or(RoleError::Lacks("state"))? {
        b"none" => LinkState::None,
        b"connect" => LinkState::Connect,
        b"connecting" => LinkState::Connecting,
        b"handshake" => LinkState::Handshake,
        b"sync" => LinkState::Sync,
        b"connected" => LinkState::Connected,
        _ => LinkState::Other,
    };
    let applied = items.get(4).and_then(integer).ok_or(RoleError::Lacks("applied offset"))?;
    Ok(RoleReport::Replica { host, port, state, applied: Offset::from_reported(applied) })
}

fn sentinel(items: &[BytesFrame]) -> Result<RoleReport, RoleError> {
    let Some(BytesFrame::Array(names)) = items.get(1) else { return Err(RoleError::Lacks("masters")) };
    let masters = names.iter().map(text).collect::<Option<_>>().ok_or(RoleError::Lacks("masters"))?;
    Ok(RoleReport::Sentinel { masters })
}

fn bytes(item: &BytesFrame) -> Option<&[u8]> {
    match item {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => Some(bytes),
        _ => None,
    }
}

fn text(item: &BytesFrame) -> Option<String> {
    let bytes = bytes(item).filter(|bytes| bytes.len() <= Info::MOST_TEXT)?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// A primary sends its replicas' ports and offsets as text, everything else as integers.
fn integer(item: &BytesFrame) -> Option<i64> {
    match item {
        BytesFrame::Integer(n) => Some(*n),
        _ => std::str::from_utf8(bytes(item)?).ok()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::decode::decode_bytes;

    use super::*;

    fn parse(wire: &'static [u8]) -> Result<RoleReport, RoleError> {
        let (frame, _) = decode_bytes(&bytes::Bytes::from_static(wire)).unwrap().unwrap();
        RoleReport::parse(&frame)
    }

    #[test]
    fn a_primary_with_a_replica() {
        let wire =
            b"*3\r\n$6\r\nmaster\r\n:154\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$5\r\n27702\r\n$3\r\n140\r\n";
        let seen = ReplicaSeen { host: "127.0.0.1".to_owned(), port: 27702, acked: Some(Offset::new(140)) };
        assert_eq!(parse(wire), Ok(RoleReport::Primary { offset: Offset::new(154), replicas: vec![seen] }));
    }

    #[test]
    fn a_replica_whose_link_is_down_has_applied_nothing_it_can_vouch_for() {
        let wire = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:27701\r\n$7\r\nconnect\r\n:-1\r\n";
        let report = parse(wire).unwrap();
        let host = "127.0.0.1".to_owned();
        assert_eq!(
            report,
            RoleReport::Replica { host, port: 27701, state: LinkState::Connect, applied: None }
        );
    }

    #[test]
    fn info_says_the_same() {
        let of = |text: &str| RoleReport::of_info(&Info::parse(text.as_bytes()));
        let primary = "role:master\r\nconnected_slaves:2\r\n\
                       slave0:ip=127.0.0.1,port=27702,state=online,offset=140,lag=0\r\n\
                       slave1:ip=127.0.0.1,port=27703,state=wait_bgsave,offset=0,lag=0\r\n\
                       master_repl_offset:154\r\n";
        let seen = ReplicaSeen { host: "127.0.0.1".to_owned(), port: 27702, acked: Some(Offset::new(140)) };
        assert_eq!(of(primary), Ok(RoleReport::Primary { offset: Offset::new(154), replicas: vec![seen] }));
        let replica = |status: &str, sync: u8| {
            of(&format!(
                "role:slave\r\nmaster_host:a\r\nmaster_port:1\r\nmaster_link_status:{status}\r\n\
                 master_sync_in_progress:{sync}\r\nslave_repl_offset:7\r\nmaster_repl_offset:9\r\n"
            ))
        };
        let is = |state, applied| Ok(RoleReport::Replica { host: "a".to_owned(), port: 1, state, applied });
        assert_eq!(replica("up", 0), is(LinkState::Connected, Some(Offset::new(7))));
        assert_eq!(replica("down", 0), is(LinkState::Connect, None));
        assert_eq!(replica("down", 1), is(LinkState::Sync, None));
        assert_eq!(of("role:master\r\n"), Err(RoleError::Lacks("offset")));
        assert_eq!(of("role:slave\r\nmaster_host:a\r\n"), Err(RoleError::Lacks("state")));
        assert_eq!(of("# Server\r\n"), Err(RoleError::UnknownRole));
    }

    #[test]
    fn an_unknown_state_is_not_connected() {
        let wire = b"*5\r\n$5\r\nslave\r\n$1\r\na\r\n:1\r\n$9\r\nteleports\r\n:7\r\n";
        assert!(matches!(parse(wire), Ok(RoleReport::Replica { state: LinkState::Other, .. })));
    }

    #[test]
    fn a_sentinel_says_so() {
        let wire = b"*2\r\n$8\r\nsentinel\r\n*1\r\n$4\r\nmain\r\n";
        assert_eq!(parse(wire), Ok(RoleReport::Sentinel { masters: vec!["main".to_owned()] }));
    }

    #[test]
    fn anything_else_is_an_error() {
        assert_eq!(parse(b"-NOPERM no\r\n"), Err(RoleError::NotAnArray));
        assert_eq!(parse(b"*0\r\n"), Err(RoleError::UnknownRole));
        assert_eq!(parse(b"*1\r\n$6\r\nmaster\r\n"), Err(RoleError::Lacks("offset")));
        assert_eq!(parse(b"*3\r\n$6\r\nmaster\r\n:-1\r\n*0\r\n"), Err(RoleError::Lacks("offset")));
        assert_eq!(parse(b"*2\r\n$6\r\nmaster\r\n:5\r\n"), Err(RoleError::Lacks("replicas")));
        let no_offset = b"*4\r\n$5\r\nslave\r\n$1\r\na\r\n:1\r\n$9\r\nconnected\r\n";
        assert_eq!(parse(no_offset), Err(RoleError::Lacks("applied offset")));
        let (word, host) =
            (|text: &'static str| BytesFrame::BulkString(text.into()), vec![b'h'; Info::MOST_TEXT + 1]);
        let rest = [BytesFrame::Integer(1), word("connected"), BytesFrame::Integer(7)];
        let long = [&[word("slave"), BytesFrame::BulkString(host.into())][..], &rest].concat();
        let long = BytesFrame::Array(long);
        assert_eq!(RoleReport::parse(&long), Err(RoleError::Lacks("host")));
    }
}
