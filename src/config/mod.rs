//! The configuration: what a file or the command line may say, and what holds when they say nothing.
//!
//! `config/redweir.toml` is the manual. A new key goes into the type here, into [`schema`], into `read`, and into
//! that file; `tests/config.rs` fails as long as one of them is missing.

mod advice;
pub mod change;
mod cluster;
mod document;
mod error;
mod file;
mod names;
mod read;
pub mod schema;
mod section;
pub mod tls;
pub mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use cluster::{Cluster, KeylessScripts, PresentAs};
pub use error::{ConfigError, Position, Problem, shown};
pub use tls::{ListenTls, UpstreamTls};

use crate::core::address::{Address, Login};
use crate::core::nodes::view::Patience;
use crate::core::nodes::zones::Zones;
use crate::core::policy::{Consistency, Policies, Policy, PolicyId};
use crate::core::stream::source::StreamSource;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Every `[[listen]]`; never empty.
    pub listen: Vec<Listen>,
    /// `[admin]`; without it there is no admin server.
    pub admin: Option<Admin>,
    /// `[upstream]`
    pub upstream: Upstream,
    /// Every `[policy.NAME]` and `[[route]]`. The first policy is `default`, whether the file has it or not.
    pub policies: Policies,
    /// `[stream]`
    pub stream: Stream,
    /// `[proxy]`
    pub proxy: ProxyConfig,
    /// `[security]`
    pub security: Security,
    /// `[log]`
    pub log: Log,
}

/// What can be said without a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `--listen`
    pub listen: Vec<Address>,
    /// `--primary`
    pub primary: Address,
    /// `--replica`
    pub replicas: Vec<Address>,
    /// `--admin`
    pub admin: Option<Address>,
    /// `--username`
    pub username: Option<String>,
    /// `--password-file`
    pub password_file: Option<PathBuf>,
    /// `--policy`; without it, `fenced`.
    pub policy: Option<Consistency>,
}

impl Flags {
    /// With nothing but addresses.
    pub fn to(listen: Vec<Address>, primary: Address, replicas: Vec<Address>) -> Self {
        Self { listen, primary, replicas, admin: None, username: None, password_file: None, policy: None }
    }
}

/// One `[[listen]]`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `address`
    pub address: Address,
    /// `policy`: what holds for its clients' reads unless a route says otherwise.
    pub policy: PolicyId,
    /// `unixsocketperm`: the permissions of a Unix socket; without it, what the umask leaves.
    pub unix_perm: Option<u32>,
    /// `reuse-port`: another process may listen there, too.
    pub reuse_port: bool,
    /// `[listen.tls]`
    pub tls: Option<ListenTls>,
}

/// `[admin]`: the HTTP server for health, metrics and EXPLAIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `address`; always TCP.
    pub address: Address,
}

/// `[upstream]`: the servers, and how Redweir watches them.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// `primary`; `None` when sentinels name it.
    pub primary: Option<Address>,
    /// `replicas`, but for the names among them.
    pub replicas: Vec<Address>,
    /// `replicas = "auto"`: the nodes tell which others there are.
    pub replicas_from_nodes: bool,
    /// `dns:name:port` among the replicas: each record of the name is a node.
    pub names: Vec<Address>,
    /// `username` of Redweir's own connections; clients bring their own.
    pub username: Option<String>,
    /// `password`, or what `password-file` holds.
    pub password: Option<String>,
    /// Where the password stands: the configuration or `password-file`.
    pub password_in: Option<PathBuf>,
    /// `poll-interval`: how often every node is asked for its position. See [`Config::poll_interval`].
    pub poll_interval: Duration,
    /// `info-interval`: how often every node is asked for `INFO`.
    pub info_interval: Duration,
    /// `probe-timeout`: a node that takes longer to answer counts as silent.
    pub probe_timeout: Duration,
    /// `connect-timeout`
    pub connect_timeout: Duration,
    /// `write-hold`: how long writes wait for a primary when there is none.
    pub write_hold: Duration,
    /// `fence-interval`: the shortest time between two anchors that reads ask for.
    pub fence_interval: Duration,
    /// `max-exclusive-connections`: to the primary, of clients whose state a shared one cannot carry.
    pub max_exclusive_connections: usize,
    /// `exclusive-wait`: how long a client stands in line for one.
    pub exclusive_wait: Duration,
    /// `address-map`: by what address a node is reached that announces this one.
    pub address_map: BTreeMap<Address, Address>,
    /// `zones`: the availability zones of nodes, which win over what they say themselves.
    pub zones: BTreeMap<Address, String>,
    /// `[upstream.sentinel]`
    pub sentinel: Option<Sentinel>,
    /// `[upstream.cluster]`
    pub cluster: Option<Cluster>,
    /// `[upstream.tls]`
    pub tls: Option<UpstreamTls>,
}

/// `[upstream.sentinel]`: who tells which nodes there are, and names the primary.
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinel {
    /// `master-name`: what the sentinels call the primary and its replicas.
    pub master_name: String,
    /// `addresses`; never empty.
    pub addresses: Vec<Address>,
    /// `username` that Redweir logs in with there.
    pub username: Option<String>,
    /// What `password-file` holds.
    pub password: Option<String>,
    /// `password-file`
    pub password_in: Option<PathBuf>,
    /// `[upstream.sentinel.tls]`
    pub tls: Option<UpstreamTls>,
}

/// `[stream]`: following the replication stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// `source`
    pub source: StreamSource,
    /// `fence-slots`: 8 bytes each; a power of two.
    pub fence_slots: usize,
}

/// `[proxy]`: the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `workers`: threads; 0 for one per core.
    pub workers: usize,
    /// `maxclients` of Redis: more are refused.
    pub max_clients: usize,
    /// `client-output-buffer-limit`, in bytes: a client that owes more reading is disconnected.
    pub client_output_buffer_limit: u64,
    /// `timeout` of Redis: how long a client may be idle; zero: for ever.
    pub timeout: Duration,
    /// `client-handshake-timeout`: how long a newcomer may take for its first command; zero: for ever.
    pub client_handshake_timeout: Duration,
    /// `max-memory`, in bytes: what clients may hold of the process' memory; 0: no limit.
    pub max_memory: u64,
    /// `primary-read-limit`: reads a second that may fall back to the primary; 0: no limit.
    pub primary_read_limit: usize,
    /// `share-reads`: one request to the primary may ask for the same read of several clients.
    pub share_reads: bool,
    /// `reply-budget`, in bytes: what may wait for clients who do not keep up, in all.
    pub reply_budget: u64,
    /// `drain-timeout`: how long clients may take to leave after SIGTERM.
    pub drain_timeout: Duration,
    /// `lame-duck`: for how long of that newcomers are still served, after SIGTERM.
    pub lame_duck: Duration,
    /// `maint-notifications`: whether clients may ask to be told that they had better connect anew.
    pub maint_notifications: bool,
    /// `zone`: the availability zone that the proxy is in; without it zones make no difference.
    pub zone: Option<String>,
    /// `zone-limit`: commands of a worker in flight at a replica of that zone before others help; 0: no limit.
    pub zone_limit: usize,
    /// `session-scope`
    pub session_scope: SessionScope,
}

/// `[security]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// `deny-commands`: lower case, subcommands as `name|subcommand`. A container's name denies all its subcommands.
    pub deny_commands: Vec<String>,
    /// `replica-acl`
    pub replica_acl: ReplicaAcl,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// `level`
    pub level: LogLevel,
    /// `format`
    pub format: LogFormat,
}

/// Which connections share one session, and so see each other's writes at level `session`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionScope {
    /// Each has its own.
    #[default]
    Connection,
    /// Those of one `CLIENT SETNAME` name.
    ClientName,
    /// Those of one ACL user.
    User,
}

impl SessionScope {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Connection, Self::ClientName, Self::User];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::ClientName => "client-name",
            Self::User => "user",
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// What stops Redweir from doing its work.
    Error,
    /// What an operator should look at.
    Warn,
    /// What changes: nodes, links, the stream.
    #[default]
    Info,
    /// Every connection.
    Debug,
    /// Every command.
    Trace,
}

impl LogLevel {
    /// All levels, least first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Whether a replica may answer a user, as far as access rules are concerned, which are not replicated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplicaAcl {
    /// While its rules for the user are seen to be those of the primary.
    #[default]
    Verify,
    /// Always: whoever runs the servers sees to it that their rules are the same.
    Trust,
}

impl ReplicaAcl {
    /// All choices.
    pub const ALL: [Self; 2] = [Self::Verify, Self::Trust];

    /// The name in the config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Trust => "trust",
        }
    }
}

impl Config {
    /// Reads a file, and the password file that it names.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = file::read_file(path).map_err(|why| ConfigError::unreadable(path, &why))?;
        Self::parse(&text, path)
    }

    /// Reads a text. `path` stands in messages; a relative `password-file` is looked for beside it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        read::read(text, path)
    }

    /// What the flags of `redweir run` say; the rest is as if the file did not mention it.
    pub fn from_flags(flags: Flags) -> Result<Self, ConfigError> {
        let mut policies = Policies { all: vec![Policy::default()], ..Policies::default() };
        let policy = flags.policy.and_then(|level| policies.find_or_make(level.name())).unwrap_or_default();
        let listen: Vec<Listen> =
            flags.listen.into_iter().map(|address| Listen { policy, ..Listen::at(address) }).collect();
        policies.listeners = listen.iter().map(|listen| listen.policy).collect();
        let password = flags.password_file.as_deref().map(file::read_secret).transpose();
        let wrong = |why: String| {
            let file = flags.password_file.as_deref().map(shown).unwrap_or_default();
            ConfigError { problems: vec![read::wrong_flag("--password-file", format!("{file}: {why}"))] }
        };
        let upstream = Upstream {
            primary: Some(flags.primary),
            replicas: flags.replicas,
            username: flags.username,
            password: password.map_err(wrong)?,
            password_in: flags.password_file,
            ..Upstream::default()
        };
        let config = Self {
            listen,
            admin: flags.admin.map(|address| Admin { address }),
            upstream,
            policies,
            stream: Stream::default(),
            proxy: ProxyConfig::default(),
            security: Security::default(),
            log: Log::default(),
        };
        read::check_flags(&config).map(|()| config)
    }

    /// How often nodes are polled: as configured, but at least four times within the tightest `max-lag` in force.
    pub fn poll_interval(&self) -> Duration {
        let bounded = self.policies.all.iter().filter(|policy| policy.consistency > Consistency::Eventual);
        let tightest = bounded.map(|policy| policy.max_lag / 4).min();
        tightest.map_or(self.upstream.poll_interval, |quarter| quarter.min(self.upstream.poll_interval))
    }
}

impl Config {
    /// Files that passwords stand in.
    pub fn secrets(&self) -> Vec<PathBuf> {
        let sentinel = self.upstream.sentinel.as_ref();
        let files =
            [self.upstream.password_in.as_ref(), sentinel.and_then(|sentinel| sentinel.password_in.as_ref())];
        files.into_iter().flatten().cloned().collect()
    }

    /// How long nodes may be silent.
    pub fn patience(&self) -> Patience {
        Patience { silence: self.upstream.probe_timeout * 2, hold: self.upstream.write_hold }
    }

    /// Which zones the proxy and the nodes are in.
    pub fn zones(&self) -> Zones {
        let limit = u32::try_from(self.proxy.zone_limit).unwrap_or(u32::MAX);
        Zones { own: self.proxy.zone.clone(), of_nodes: self.upstream.zones.clone(), limit }
    }

    /// Files with secrets in them that anybody on this machine may read.
    pub fn exposed(&self) -> Vec<&Path> {
        let pairs = self.listen.iter().filter_map(|listen| Some(&listen.tls.as_ref()?.pair));
        let sentinel = self.upstream.sentinel.as_ref();
        let tls = [self.upstream.tls.as_ref(), sentinel.and_then(|sentinel| sentinel.tls.as_ref())];
        let pairs = pairs.chain(tls.into_iter().flatten().filter_map(|tls| tls.pair.as_ref()));
        let passwords = [self.upstream.password_in.as_ref(), sentinel.and_then(|s| s.password_in.as_ref())];
        let files = passwords.into_iter().flatten().chain(pairs.map(|pair| &pair.key));
        let open =
            |path: &&PathBuf| fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0);
        files.filter(open).map(PathBuf::as_path).collect()
    }
}

impl Listen {
    /// A listener with nothing but its address.
    fn at(address: Address) -> Self {
        Self { address, policy: PolicyId(0), unix_perm: None, reuse_port: false, tls: None }
    }
}

impl Upstream {
    /// The nodes that are configured by their addresses, the primary first. None, where sentinels tell.
    pub fn nodes(&self) -> Vec<Address> {
        self.primary.iter().chain(&self.replicas).cloned().collect()
    }

    /// Whether nodes are found that are not configured.
    pub fn are_nodes_found(&self) -> bool {
        self.sentinel.is_some()
            || self.cluster.is_some()
            || self.replicas_from_nodes
            || !self.names.is_empty()
    }

    /// What Redweir's own connections authenticate with.
    pub fn credentials(&self) -> Option<Login> {
        let password = self.password.clone()?;
        Some(Login { username: self.username.clone(), password })
    }
}

impl Sentinel {
    /// What Redweir logs in with at the sentinels.
    pub fn credentials(&self) -> Option<Login> {
        let password = self.password.clone()?;
        Some(Login { username: self.username.clone(), password })
    }
}

impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinel")
            .field("master_name", &self.master_name)
            .field("addresses", &self.addresses)
            .field("credentials", &self.credentials())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("primary", &self.primary)
            .field("replicas", &self.replicas)
            .field("replicas_from_nodes", &self.replicas_from_nodes)
            .field("names", &self.names)
            .field("credentials", &self.credentials())
            .field("poll_interval", &self.poll_interval)
            .field("info_interval", &self.info_interval)
            .field("probe_timeout", &self.probe_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("write_hold", &self.write_hold)
            .field("fence_interval", &self.fence_interval)
            .field("max_exclusive_connections", &self.max_exclusive_connections)
            .field("exclusive_wait", &self.exclusive_wait)
            .field("address_map", &self.address_map)
            .field("zones", &self.zones)
            .field("sentinel", &self.sentinel)
            .field("cluster", &self.cluster)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            primary: None,
            replicas: Vec::new(),
            replicas_from_nodes: false,
            names: Vec::new(),
            username: None,
            password: None,
            password_in: None,
            poll_interval: Duration::from_millis(100),
            info_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(800),
            connect_timeout: Duration::from_secs(1),
            write_hold: Duration::from_secs(2),
            fence_interval: Duration::from_millis(2),
            max_exclusive_connections: 4096,
            exclusive_wait: Duration::from_secs(5),
            address_map: BTreeMap::new(),
            zones: BTreeMap::new(),
            sentinel: None,
            cluster: None,
            tls: None,
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self { source: StreamSource::Auto, fence_slots: 1 << 20 }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            max_clients: 10_000,
            client_output_buffer_limit: 64 << 20,
            timeout: Duration::ZERO,
            client_handshake_timeout: Duration::from_mins(1),
            max_memory: 1 << 30,
            primary_read_limit: 0,
            share_reads: false,
            reply_budget: 64 << 20,
            drain_timeout: Duration::from_secs(10),
            lame_duck: Duration::from_millis(500),
            maint_notifications: false,
            zone: None,
            zone_limit: 256,
            session_scope: SessionScope::Connection,
        }
    }
}

impl Default for Security {
    fn default() -> Self {
        let deny_commands = names::DENIED.iter().map(|&name| name.to_owned()).collect();
        Self { deny_commands, replica_acl: ReplicaAcl::default() }
    }
}
