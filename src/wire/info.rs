//! What `INFO` says, as words. Absent is `None`, never zero, and so is whatever does not parse: a report that
//! cannot be read must not look like a good one. The fields are those of `genRedisInfoString` in Redis' `server.c`,
//! whose `master_`/`slave_` spellings are the same on 6.2, 7.x and Valkey.

use std::time::Duration;

use crate::core::address::Address;
use crate::core::nodes::node::{LinkDown, Role};
use crate::core::position::{History, Offset, ReplId};

/// One `slaveN:` line of a primary (or of a replica that has replicas of its own).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaLine {
    /// `ip`, as the replica connected or as it announced itself.
    pub host: String,
    /// `port`; 0 when the replica never sent `REPLCONF listening-port`.
    pub port: u16,
    /// `state=online`: it is past its dump and receives the stream.
    pub online: bool,
    /// `offset`: what the replica last acknowledged, at most a second old.
    pub acked: Option<Offset>,
    /// `lag`: seconds since that acknowledgement.
    pub lag_seconds: Option<u64>,
}

/// The fields of `INFO` that Redweir uses. It may come from all sections or from a few.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Info {
    /// `redis_version`. Valkey reports the Redis version that it is compatible with.
    pub version: Option<String>,
    /// `valkey_version`, on Valkey only.
    pub valkey_version: Option<String>,
    /// `run_id`: new at each start of the server.
    pub run_id: Option<String>,
    /// `redis_mode` (`server_mode` on Valkey): `standalone`, `cluster` or `sentinel`.
    pub mode: Option<String>,
    /// `tcp_port`
    pub port: Option<u16>,
    /// `availability_zone`, on Valkey only; `None` as well where it is not set.
    pub zone: Option<String>,
    /// `uptime_in_seconds`
    pub uptime_seconds: Option<u64>,
    /// `blocked_clients`
    pub blocked_clients: Option<u64>,

    /// `loading`: a dataset is being loaded; reads are answered `-LOADING`.
    pub loading: Option<bool>,
    /// `async_loading`: a dataset is being loaded beside the old one, which is still served.
    pub async_loading: Option<bool>,

    /// `sync_full`: dumps begun for replicas since the server started.
    pub sync_full: Option<u64>,
    /// `sync_partial_ok`: partial resyncs granted.
    pub sync_partial_ok: Option<u64>,
    /// `sync_partial_err`: partial resyncs refused, each followed by a dump.
    pub sync_partial_err: Option<u64>,
    /// `latest_fork_usec`: how long the last fork blocked the server, in microseconds.
    pub latest_fork_usec: Option<u64>,
    /// `instantaneous_ops_per_sec`
    pub ops_per_second: Option<u64>,

    /// `role`
    pub role: Option<Role>,
    /// `master_replid`
    pub replid: Option<ReplId>,
    /// `master_replid2` with `second_repl_offset`, after a promotion.
    pub replid2: Option<(ReplId, Offset)>,
    /// `master_repl_offset`: the head of a primary; on a replica, what it has relayed.
    pub offset: Option<Offset>,
    /// `slave_repl_offset`: what a replica has applied. `slave_read_repl_offset`, merely received, is never used.
    pub applied: Option<Offset>,
    /// `master_host` of a replica.
    pub master_host: Option<String>,
    /// `master_port` of a replica.
    pub master_port: Option<u16>,
    /// `master_link_status` of a replica.
    pub link_up: Option<bool>,
    /// `master_link_down_since_seconds`; absent while the link is up.
    pub link_down: Option<LinkDown>,
    /// `master_last_io_seconds_ago`; `None` as well for the −1 of a link that is down.
    pub last_io_seconds: Option<u64>,
    /// `master_sync_in_progress`: a dump is being received.
    pub sync_in_progress: Option<bool>,
    /// `slave_read_only`
    pub read_only: Option<bool>,
    /// `slave_priority`: 0 means never to be promoted.
    pub priority: Option<u64>,
    /// `connected_slaves`
    pub connected_replicas: Option<u64>,
    /// `min_slaves_good_slaves`; present only with `min-replicas-to-write` and `min-replicas-max-lag` both set.
    pub good_replicas: Option<u64>,
    /// The `slaveN:` lines, in order; a line that does not parse is left out.
    pub replicas: Vec<ReplicaLine>,

    /// `repl_backlog_active`: whether a partial resync is possible at all.
    pub backlog_active: Option<bool>,
    /// `repl_backlog_size`, bytes.
    pub backlog_size: Option<u64>,
    /// `repl_backlog_first_byte_offset`: the lowest offset that a `PSYNC` can name.
    pub backlog_first_offset: Option<Offset>,
    /// `repl_backlog_histlen`: bytes in the backlog.
    pub backlog_histlen: Option<u64>,
}

impl Info {
    /// The longest text that is taken, in bytes; a longer one is as good as none. A name of a host has 253.
    pub const MOST_TEXT: usize = 256;

    /// The longest report that is read, in bytes. One of a server with many modules and databases has a tenth of it.
    pub const MOST_BYTES: usize = 1 << 20;

    /// Reads the text of an `INFO` reply. Unknown fields and lines that are no fields are passed over. Of a report that is
    /// too long nothing is known: all that was read of it would be paid for ten times a second.
    pub fn parse(text: &[u8]) -> Self {
        let mut info = Self::default();
        if text.len() > Self::MOST_BYTES {
            return info;
        }
        let mut second = (None, None);
        for line in text.split(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some((field, value)) = std::str::from_utf8(line).ok().and_then(|l| l.split_once(':')) else {
                continue;
            };
            match field {
                "master_replid2" => second.0 = ReplId::parse(value.as_bytes()),
                "second_repl_offset" => second.1 = offset(value),
                _ => {
                    let _known = info.set_server(field, value)
                        || info.set_stats(field, value)
                        || info.set_history(field, value)
                        || info.set_link(field, value)
                        || info.add_replica(field, value);
                }
            }
        }
        info.replid2 = second.0.zip(second.1);
        info
    }

    /// The history that the node holds; `None` when it did not name one.
    pub fn history(&self) -> Option<History> {
        self.replid.map(|id| History { id, previous: self.replid2 })
    }

    /// `min-replicas-to-write` as far as `INFO` tells: 0 when a primary shows no `min_slaves_good_slaves`, which it
    /// does just when the setting is in force (checked on Redis 7.0); otherwise unknown, `CONFIG GET` has to say.
    pub fn min_replicas_to_write(&self) -> Option<u64> {
        (self.role == Some(Role::Primary) && self.good_replicas.is_none()).then_some(0)
    }

    /// Where the replicas are that receive the stream. Who never said on which port it listens (another Redweir, a tool)
    /// is shown at port 0, and left out.
    pub fn replicas_online(&self) -> impl Iterator<Item = Address> {
        let online = self.replicas.iter().filter(|replica| replica.online);
        online.filter_map(|replica| Address::announced(&replica.host, replica.port))
    }

    fn set_server(&mut self, field: &str, value: &str) -> bool {
        match field {
            "redis_version" => self.version = text(value),
            "valkey_version" => self.valkey_version = text(value),
            "run_id" => self.run_id = text(value),
            "redis_mode" | "server_mode" => self.mode = text(value),
            "tcp_port" => self.port = number(value),
            "availability_zone" => self.zone = text(value),
            "uptime_in_seconds" => self.uptime_seconds = number(value),
            "blocked_clients" => self.blocked_clients = number(value),
            "loading" => self.loading = flag(value),
            "async_loading" => self.async_loading = flag(value),
            _ => return false,
        }
        true
    }

    fn set_stats(&mut self, field: &str, value: &str) -> bool {
        match field {
            "sync_full" => self.sync_full = number(value),
            "sync_partial_ok" => self.sync_partial_ok = number(value),
            "sync_partial_err" => self.sync_partial_err = number(value),
            "latest_fork_usec" => self.latest_fork_usec = number(value),
            "instantaneous_ops_per_sec" => self.ops_per_second = number(value),
            _ => return false,
        }
        true
    }

    fn set_history(&mut self, field: &str, value: &str) -> bool {
        match field {
            "role" => self.role = role(value),
            "master_replid" => self.replid = ReplId::parse(value.as_bytes()),
            "master_repl_offset" => self.offset = offset(value),
            "slave_repl_offset" => self.applied = offset(value),
            "repl_backlog_active" => self.backlog_active = flag(value),
            "repl_backlog_size" => self.backlog_size = number(value),
            "repl_backlog_first_byte_offset" => self.backlog_first_offset = offset(value),
            "repl_backlog_histlen" => self.backlog_histlen = number(value),
            _ => return false,
        }
        true
    }

    fn set_link(&mut self, field: &str, value: &str) -> bool {
        match field {
            "master_host" => self.master_host = text(value),
            "master_port" => self.master_port = number(value),
            "master_link_status" => self.link_up = link(value),
            "master_link_down_since_seconds" => self.link_down = link_down(value),
            "master_last_io_seconds_ago" => self.last_io_seconds = number(value),
            "master_sync_in_progress" => self.sync_in_progress = flag(value),
            "slave_read_only" => self.read_only = flag(value),
            "slave_priority" => self.priority = number(value),
            "connected_slaves" => self.connected_replicas = number(value),
            "min_slaves_good_slaves" => self.good_replicas = number(value),
            _ => return false,
        }
        true
    }

    fn add_replica(&mut self, field: &str, value: &str) -> bool {
        let numbered = field.strip_prefix("slave").is_some_and(|n| n.parse::<u32>().is_ok());
        if numbered {
            self.replicas.extend(replica_line(value));
        }
        numbered
    }
}

/// `ip=127.0.0.1,port=6380,state=online,offset=42,lag=0`, in any order, more pairs allowed.
fn replica_line(value: &str) -> Option<ReplicaLine> {
    let pair = |name: &str| {
        value.split(',').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == name).map(|(_, v)| v))
    };
    Some(ReplicaLine {
        host: text(pair("ip")?)?,
        port: number(pair("port")?)?,
        online: pair("state")? == "online",
        acked: pair("offset").and_then(offset),
        lag_seconds: pair("lag").and_then(number),
    })
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty() && value.len() <= Info::MOST_TEXT).then(|| value.to_owned())
}

fn number<T: std::str::FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn offset(value: &str) -> Option<Offset> {
    number(value).and_then(Offset::from_reported)
}

fn role(value: &str) -> Option<Role> {
    match value {
        "master" => Some(Role::Primary),
        "slave" => Some(Role::Replica),
        _ => None,
    }
}

fn link(value: &str) -> Option<bool> {
    match value {
        "up" => Some(true),
        "down" => Some(false),
        _ => None,
    }
}

fn link_down(value: &str) -> Option<LinkDown> {
    match number::<i64>(value)? {
        -1 => Some(LinkDown::Never),
        seconds => u64::try_from(seconds).ok().map(|s| LinkDown::For(Duration::from_secs(s))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: &str = "# Replication\r\nrole:slave\r\nmaster_host:::1\r\nmaster_port:6379\r\n\
        master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_sync_in_progress:0\r\n\
        slave_read_repl_offset:900\r\nslave_repl_offset:800\r\nmaster_link_down_since_seconds:-1\r\n\
        slave_priority:100\r\nslave_read_only:1\r\nreplica_announced:1\r\nconnected_slaves:0\r\n\
        master_failover_state:no-failover\r\nmaster_replid:d67fc77e1f5b425accf5bbb48d5b7acbffd34731\r\n\
        master_replid2:0000000000000000000000000000000000000000\r\nmaster_repl_offset:800\r\n\
        second_repl_offset:-1\r\nrepl_backlog_active:1\r\nrepl_backlog_size:1048576\r\n\
        repl_backlog_first_byte_offset:1\r\nrepl_backlog_histlen:800\r\n";

    #[test]
    fn a_replica_that_never_synced() {
        let info = Info::parse(REPLICA.as_bytes());
        assert_eq!(info.role, Some(Role::Replica));
        assert_eq!(info.master_host.as_deref(), Some("::1"), "an IPv6 host keeps its colons");
        assert_eq!(info.link_up, Some(false));
        assert_eq!(info.link_down, Some(LinkDown::Never));
        assert_eq!(info.last_io_seconds, None, "-1 is not a time");
        assert_eq!(info.applied, Some(Offset::new(800)), "applied, not received");
        assert_eq!(info.replid2, None);
        assert_eq!(info.history().map(|h| h.previous), Some(None));
        assert_eq!(info.loading, None, "absent is not zero");
    }

    #[test]
    fn a_promoted_primary_names_the_history_it_continues() {
        let text = "role:master\nconnected_slaves:2\n\
            slave0:ip=127.0.0.1,port=27702,state=online,offset=154,lag=1\n\
            slave1:ip=10.0.0.2,port=0,state=wait_bgsave,offset=0,lag=0,type=replica\nslave2:ip=\nslave_expires:1\n\
            master_replid:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nmaster_repl_offset:154\n\
            second_repl_offset:101\nmaster_replid2:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n";
        let info = Info::parse(text.as_bytes());
        let old = ReplId::parse(&[b'b'; 40]).unwrap();
        assert_eq!(info.history().unwrap().previous, Some((old, Offset::new(101))));
        assert_eq!(info.replicas.len(), 2);
        assert_eq!(info.replicas[0].acked, Some(Offset::new(154)));
        assert_eq!((info.replicas[1].port, info.replicas[1].online), (0, false));
    }

    #[test]
    fn replicas_are_where_they_say_if_they_are_online() {
        let text = "role:master\nslave0:ip=10.0.0.1,port=6379,state=online,offset=1,lag=0\n\
            slave1:ip=::1,port=6380,state=online,offset=1,lag=0\n\
            slave2:ip=redis-2.example,port=6379,state=online,offset=1,lag=0\n\
            slave3:ip=10.0.0.4,port=0,state=online,offset=0,lag=0\n\
            slave4:ip=10.0.0.5,port=6379,state=wait_bgsave,offset=0,lag=0\n\
            slave5:ip=10.0.0.6,port=6379,state=send_bulk,offset=0,lag=0\n\
            slave6:ip=a host,port=6379,state=online,offset=0,lag=0\n";
        let found: Vec<String> =
            Info::parse(text.as_bytes()).replicas_online().map(|address| address.to_string()).collect();
        assert_eq!(found, ["10.0.0.1:6379", "[::1]:6380", "redis-2.example:6379"]);
    }

    #[test]
    fn what_does_not_parse_is_absent() {
        let text = b"role:mistress\r\nmaster_repl_offset:12x\r\nloading:2\r\nslave_repl_offset:-1\r\n\
            master_link_status:sideways\r\nmaster_link_down_since_seconds:-7\r\nmaster_replid:zz\r\n\xff\xfe:1\r\n\
            no colon\r\ntcp_port:70000\r\nrun_id:\r\n";
        assert_eq!(Info::parse(text), Info::default());
    }

    #[test]
    fn what_is_too_long_is_absent() {
        let told = |length: usize| {
            let line = format!("master_host:{}\r\n", "h".repeat(length));
            Info::parse(line.as_bytes()).master_host.map(|host| host.len())
        };
        assert_eq!(told(Info::MOST_TEXT), Some(Info::MOST_TEXT));
        assert_eq!(told(Info::MOST_TEXT + 1), None);
        let long = [&b"role:master\n"[..], &vec![b'\n'; Info::MOST_BYTES]].concat();
        assert_eq!(Info::parse(&long), Info::default());
        assert_eq!(Info::parse(&long[..Info::MOST_BYTES]).role, Some(Role::Primary));
    }

    #[test]
    fn a_primary_that_counts_no_replicas_is_known_not_to_require_any() {
        let told = |text: &str| Info::parse(text.as_bytes()).min_replicas_to_write();
        assert_eq!(told("role:master\nconnected_slaves:0\n"), Some(0));
        assert_eq!(told("role:master\nmin_slaves_good_slaves:0\n"), None, "in force, who knows how many");
        assert_eq!(told("role:slave\n"), None, "a replica's own setting says nothing of its primary's");
        assert_eq!(told("redis_version:7.0.15\n"), None);
    }

    #[test]
    fn servers_spell_alike() {
        let valkey = b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.3\r\nserver_mode:standalone\r\n";
        let info = Info::parse(valkey);
        assert_eq!(info.version.as_deref(), Some("7.2.4"));
        assert_eq!(info.valkey_version.as_deref(), Some("8.1.3"));
        assert_eq!(info.mode.as_deref(), Some("standalone"));
    }

    #[test]
    fn a_zone_that_is_not_set_is_absent() {
        let zone = |text: &[u8]| Info::parse(text).zone;
        assert_eq!(zone(b"# Server\r\navailability_zone:eu-1a\r\n").as_deref(), Some("eu-1a"));
        assert_eq!(zone(b"availability_zone:rack: 7\r\n").as_deref(), Some("rack: 7"), "any text is a zone");
        assert_eq!(zone(b"availability_zone:\r\n"), None);
        assert_eq!(zone(include_bytes!("../core/diagnose/said/replica-valkey-8.1.txt")), None);
        assert_eq!(zone(b"redis_version:7.0.15\r\n"), None, "Redis has none");
    }
}
