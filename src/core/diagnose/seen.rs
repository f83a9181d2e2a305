//! What the doctor has seen of the nodes: what they answered, as words and numbers. Absent is not zero.

use std::time::Duration;

use crate::core::moment::Moment;
use crate::core::nodes::node::{LinkDown, Role};
use crate::core::position::{History, Offset};
use crate::core::slots::{HashSlot, SlotRange};

/// All nodes, looked at once.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Look {
    /// When they were asked.
    pub at: Moment,
    /// Those that are configured or found.
    pub nodes: Vec<Seen>,
    /// Those that replicas call their primary, and that are not among the nodes. No password is shown to them.
    pub strangers: Vec<Seen>,
    /// What the sentinels say.
    pub sentinels: Vec<SentinelSeen>,
    /// How many commands of clients `deny-commands` has refused since the start.
    pub denied: Option<u64>,
    /// What is known of the hash slots, if these are the nodes of a shard of a cluster.
    pub slots: Option<SlotsSeen>,
}

/// The hash slots of one shard of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SlotsSeen {
    /// How many it has.
    pub owned: usize,
    /// How many nodes it has beside its primary, whether they answer or not.
    pub replicas: usize,
    /// Those that no shard has; where they are not asked for, none.
    pub uncovered: Vec<SlotRange>,
    /// Those of its own that are to move, and do not.
    pub stuck: Vec<StuckSlot>,
    /// What its primary claims although another one has it under the same config epoch.
    pub rivals: Vec<RivalSeen>,
}

/// A hash slot that is to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckSlot {
    /// Which.
    pub slot: HashSlot,
    /// The primaries that take part, as far as they are known.
    pub nodes: Vec<String>,
    /// For how long no key has moved.
    pub lasts: Duration,
}

/// Hash slots that another primary has under the same config epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RivalSeen {
    /// Which.
    pub slots: Vec<SlotRange>,
    /// The other primary.
    pub holder: String,
    /// The config epoch of both.
    pub epoch: u64,
}

impl Look {
    /// The node at this address.
    pub fn node(&self, address: &str) -> Option<&Seen> {
        self.nodes.iter().find(|seen| seen.node == address)
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// Its address.
    pub node: String,
    /// What it could not be asked for.
    pub problem: Option<Problem>,
    /// It denies us `INFO` or `ROLE`, without which little is known of it; its words.
    pub refuses: Option<String>,
    /// How long it took to answer `PING`.
    pub latency: Option<Duration>,
    /// What it answered `PING`, if that was that it takes no writes because it cannot save its data (`-MISCONF`).
    pub misconf: Option<String>,
    /// How long a TCP connection to it took to be made, which the kernel of its machine does, whatever the server does. Measured
    /// only when `PING` took long.
    pub connects_in: Option<Duration>,
    /// The state in its `ROLE`, if that is one of a replica (`connect`, `connecting`, `handshake`, `sync`, …).
    pub link_state: Option<&'static str>,
    /// Its `INFO`.
    pub report: Option<Report>,
    /// Its replicas, as `CLIENT LIST TYPE replica` shows them.
    pub replicas: Vec<ReplicaClient>,
    /// `CONFIG GET`
    pub settings: Settings,
    /// The slowest of what it has done of late (`SLOWLOG GET`).
    pub slow: Vec<Slow>,
    /// Whom it has denied what (`ACL LOG`).
    pub denials: Vec<Denial>,
    /// Huge pages hold it up, by its own account (`LATENCY DOCTOR`).
    pub tells_of_huge_pages: bool,
    /// It wants a password of whoever gives none.
    pub wants_password: Option<bool>,
    /// The `run_id` of the process that another connection to the same address has come to, at the same time.
    pub other_process: Option<String>,
    /// By how much its clock is ahead of ours, in microseconds.
    pub clock_ahead_usec: Option<i64>,
    /// How long the answer took that shows its clock: that is known no better.
    pub clock_took: Option<Duration>,
    /// What could not be found out, and what would allow it.
    pub unchecked: Vec<Unchecked>,
}

impl Seen {
    /// Its role, if it answers.
    pub fn role(&self) -> Option<Role> {
        self.report.as_ref()?.role
    }

    /// Its `INFO`, if it says that it is a replica.
    pub fn as_replica(&self) -> Option<&Report> {
        self.report.as_ref().filter(|report| report.role == Some(Role::Replica))
    }

    /// Its `INFO`, if it says that it is a primary.
    pub fn as_primary(&self) -> Option<&Report> {
        self.report.as_ref().filter(|report| report.role == Some(Role::Primary))
    }

    /// The process, as far as it has said.
    pub fn run_id(&self) -> Option<&str> {
        self.report.as_ref()?.run_id.as_deref()
    }
}

/// Why a node could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No connection is made, and why.
    Connect(String),
    /// It takes connections, and does not answer in time.
    Silent,
    /// It runs a script (`-BUSY`).
    Busy(String),
    /// It refuses our password, or wants one, or denies us what we cannot do without.
    Auth(String),
    /// It lets nobody in from here (`-DENIED`: protected mode).
    Denied(String),
    /// Anything else.
    Other(String),
}

impl Problem {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Connect(why) => why.clone(),
            Self::Silent => "it takes connections, and answers nothing".to_owned(),
            Self::Busy(words) | Self::Auth(words) | Self::Denied(words) | Self::Other(words) => words.clone(),
        }
    }
}

/// What `INFO` says, as far as it matters here; the names are those of `genRedisInfoString` (`server.c`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// `role`
    pub role: Option<Role>,
    /// `redis_version`
    pub version: Option<String>,
    /// `valkey_version`
    pub valkey_version: Option<String>,
    /// `run_id`
    pub run_id: Option<String>,
    /// `tcp_port`
    pub port: Option<u16>,
    /// `uptime_in_seconds`
    pub uptime_seconds: Option<u64>,
    /// `blocked_clients`
    pub blocked_clients: Option<u64>,
    /// `loading`, or `async_loading`
    pub loading: bool,
    /// `loading_eta_seconds`
    pub loading_eta_seconds: Option<u64>,
    /// `sync_full`
    pub sync_full: Option<u64>,
    /// `sync_partial_err`
    pub sync_partial_err: Option<u64>,
    /// `latest_fork_usec`
    pub latest_fork_usec: Option<u64>,
    /// `total_forks` (Redis 6.2)
    pub total_forks: Option<u64>,
    /// `rdb_bgsave_in_progress`
    pub bgsave: bool,
    /// `rdb_last_bgsave_status:err`
    pub bgsave_failed: bool,
    /// `aof_last_write_status:err`
    pub aof_write_failed: bool,
    /// `used_memory`
    pub used_memory: Option<u64>,
    /// `mem_not_counted_for_evict`
    pub memory_not_counted: Option<u64>,
    /// `maxmemory`; 0 is none.
    pub maxmemory: Option<u64>,
    /// `maxmemory_policy:noeviction`
    pub evicts_nothing: bool,
    /// `master_replid`, and the history before it.
    pub history: Option<History>,
    /// `master_repl_offset`
    pub offset: Option<Offset>,
    /// `slave_repl_offset`
    pub applied: Option<Offset>,
    /// `master_host` and `master_port`
    pub master: Option<(String, u16)>,
    /// `master_link_status`
    pub link_up: Option<bool>,
    /// `master_link_down_since_seconds`
    pub link_down: Option<LinkDown>,
    /// `master_last_io_seconds_ago`; absent while the link is down.
    pub last_io_seconds: Option<u64>,
    /// `master_sync_in_progress`
    pub sync_in_progress: bool,
    /// `master_sync_left_bytes`; absent until the dump has begun to come, and of one whose size the primary does not know
    /// (diskless).
    pub sync_left_bytes: Option<u64>,
    /// `master_sync_last_io_seconds_ago`
    pub sync_last_io_seconds: Option<u64>,
    /// `slave_read_only`
    pub read_only: Option<bool>,
    /// `connected_slaves`
    pub connected_replicas: Option<u64>,
    /// `min_slaves_good_slaves`
    pub good_replicas: Option<u64>,
    /// Its replicas that wait for a dump or receive one (`slaveN`, `wait_bgsave` and `send_bulk`): address and port.
    pub resyncing: Vec<(String, u16)>,
    /// Its replicas that receive the stream (`slaveN`, `online`): address and port.
    pub online: Vec<(String, u16)>,
    /// `repl_backlog_size`
    pub backlog_size: Option<u64>,
    /// The keys of all databases; `None` if there is no section of them.
    pub keys: Option<u64>,
    /// How many wrong passwords it was told (`errorstat_WRONGPASS`).
    pub auth_failures: u64,
    /// `client_output_buffer_limit_disconnections` (Redis 7.2, Valkey)
    pub buffer_kills: Option<u64>,
}

/// A replica's connection, as its primary shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaClient {
    /// `id`
    pub id: u64,
    /// `addr`
    pub address: String,
    /// `omem`: bytes that it has not taken yet.
    pub output_bytes: u64,
}

/// What `CONFIG GET` says; what was not told is absent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    /// `repl-timeout`, seconds
    pub repl_timeout: Option<u64>,
    /// `repl-ping-replica-period`, seconds
    pub ping_period: Option<u64>,
    /// `client-output-buffer-limit replica`: hard and soft limit in bytes, seconds; 0 is none.
    pub replica_buffer: Option<(u64, u64, u64)>,
    /// `min-replicas-to-write`
    pub min_replicas_to_write: Option<u64>,
    /// `replica-serve-stale-data`
    pub serves_stale: Option<bool>,
    /// `disable-thp`
    pub disable_thp: Option<bool>,
    /// `replica-announce-port`; 0 is none.
    pub announced_port: Option<u16>,
    /// `tls-port`; 0 is none.
    pub tls_port: Option<u16>,
    /// `masterauth`
    pub masterauth: Option<Fingerprint>,
    /// `masteruser` is set.
    pub has_masteruser: Option<bool>,
    /// `requirepass`
    pub requirepass: Option<Fingerprint>,
}

/// A password that is known only well enough to be compared with another one of the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub Option<u64>);

/// A command that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// How long before the look it was executed; that may have been before Redweir was started.
    pub ago: Duration,
    /// How long it took.
    pub took: Duration,
    /// Its name.
    pub command: String,
}

/// What somebody was denied, as often as it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// How long before the look it happened last.
    pub ago: Duration,
    /// `count`
    pub count: u64,
    /// `reason`: `auth`, `command`, `key`, `channel`
    pub reason: String,
    /// `username`
    pub user: String,
    /// `object`: the command, or the key.
    pub object: String,
}

/// A question that a node does not answer us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchecked {
    /// The question.
    pub question: &'static str,
    /// What of an ACL would allow it.
    pub rule: &'static str,
    /// What it was answered.
    pub why: String,
}

/// What a sentinel says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SentinelSeen {
    /// Its address.
    pub sentinel: String,
    /// It does not answer, and why.
    pub problem: Option<String>,
    /// `config-epoch`
    pub epoch: Option<u64>,
    /// The primary that it names, by the address by which we reach it.
    pub names: Option<String>,
}
