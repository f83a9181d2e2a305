//! What the doctor can find, each with a name that stays.

/// How bad it is. The order is that of the exit codes of `redweir doctor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know: nothing is broken, and nothing needs to be done at once.
    Info,
    /// It works, but not as it should, or not for long.
    Warning,
    /// Something is broken.
    Error,
}

impl Severity {
    /// In words, as in JSON and in the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What is found. `docs/operations.md` has a row for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A node cannot be reached, or does not answer.
    Unreachable,
    /// A node does not let us in, or not do what we have to.
    Noauth,
    /// What is configured as the primary is none, or lets nobody in from here.
    NotAPrimary,
    /// More than one node says that it is the primary, or a replica follows another one.
    TwoPrimaries,
    /// A node says that it is the primary beside the one that is followed.
    SecondPrimary,
    /// The primary was restarted and has lost its history.
    RunIdChanged,
    /// The primary was restarted and has lost its data.
    RestartedEmpty,
    /// The primary does not come to answer, or takes long.
    PrimaryBlocked,
    /// The primary loads its data.
    Loading,
    /// The primary answers, and takes no writes: its disk, its memory, or too few replicas.
    WritesRefused,
    /// Some hash slots of a cluster are nobody's.
    SlotNotCovered,
    /// Two primaries of a cluster claim the same hash slots under the same config epoch.
    EpochConflict,
    /// A hash slot of a cluster is to move, and does not.
    OpenSlot,
    /// The link of a replica is down, and does not come back by itself.
    LinkBroken,
    /// A full resync runs.
    FullResyncRunning,
    /// Full resyncs follow one another.
    ResyncLoop,
    /// The primary cuts a replica off that does not keep up.
    OutputBuffer,
    /// The password that a replica has for its primary is not the right one.
    AuthMismatch,
    /// A replica has never finished a synchronisation.
    NeverSynced,
    /// A replica has another history than the primary.
    ForeignReplica,
    /// A replica is linked, but under a replication ID of its own.
    ChangedId,
    /// A link is silent, and neither side has given it up.
    TcpHang,
    /// `repl-timeout` is too short for how often the primary sends something.
    TimeoutTooShort,
    /// What the primary sends comes nearly too late.
    HeartbeatTooRare,
    /// A replica is linked, but behind.
    Lagging,
    /// Fewer replicas are linked than there should be.
    ReplicasMissing,
    /// A shard of a cluster has no replica.
    ShardWithoutReplica,
    /// The primary accepts writes that no replica has.
    UnprotectedWrites,
    /// A replica would answer from old data when it is cut off.
    ServesStale,
    /// A replica takes writes.
    WritableReplica,
    /// The clock of a replica is not that of the primary.
    ClockOfReplica,
    /// Servers of different versions.
    VersionSkew,
    /// Huge pages may hold up a server that forks.
    Thp,
    /// Somebody goes on sending what is denied.
    DeniedCommand,
    /// A sentinel names somebody else as the primary.
    StaleSentinel,
    /// Several processes are behind one address.
    ReaderEndpoint,
}

impl Code {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 36] = [
        Self::Unreachable,
        Self::Noauth,
        Self::NotAPrimary,
        Self::TwoPrimaries,
        Self::SecondPrimary,
        Self::RunIdChanged,
        Self::RestartedEmpty,
        Self::PrimaryBlocked,
        Self::Loading,
        Self::WritesRefused,
        Self::SlotNotCovered,
        Self::EpochConflict,
        Self::OpenSlot,
        Self::LinkBroken,
        Self::FullResyncRunning,
        Self::ResyncLoop,
        Self::OutputBuffer,
        Self::AuthMismatch,
        Self::NeverSynced,
        Self::ForeignReplica,
        Self::ChangedId,
        Self::TcpHang,
        Self::TimeoutTooShort,
        Self::HeartbeatTooRare,
        Self::Lagging,
        Self::ReplicasMissing,
        Self::ShardWithoutReplica,
        Self::UnprotectedWrites,
        Self::ServesStale,
        Self::WritableReplica,
        Self::ClockOfReplica,
        Self::VersionSkew,
        Self::Thp,
        Self::DeniedCommand,
        Self::StaleSentinel,
        Self::ReaderEndpoint,
    ];

    /// Its name, which stays.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Noauth => "noauth",
            Self::NotAPrimary => "not-a-primary",
            Self::TwoPrimaries => "two-primaries",
            Self::SecondPrimary => "second-primary",
            Self::RunIdChanged => "run-id-changed",
            Self::RestartedEmpty => "restarted-empty",
            Self::PrimaryBlocked => "primary-blocked",
            Self::Loading => "loading",
            Self::WritesRefused => "writes-refused",
            Self::SlotNotCovered => "slot-not-covered",
            Self::EpochConflict => "epoch-conflict",
            Self::OpenSlot => "open-slot",
            Self::LinkBroken => "link-broken",
            Self::FullResyncRunning => "full-resync-running",
            Self::ResyncLoop => "resync-loop",
            Self::OutputBuffer => "output-buffer",
            Self::AuthMismatch => "auth-mismatch",
            Self::NeverSynced => "never-synced",
            Self::ForeignReplica => "foreign-replica",
            Self::ChangedId => "changed-id",
            Self::TcpHang => "tcp-hang",
            Self::TimeoutTooShort => "timeout-too-short",
            Self::HeartbeatTooRare => "heartbeat-too-rare",
            Self::Lagging => "lagging",
            Self::ReplicasMissing => "replicas-missing",
            Self::ShardWithoutReplica => "shard-without-replica",
            Self::UnprotectedWrites => "unprotected-writes",
            Self::ServesStale => "serves-stale",
            Self::WritableReplica => "writable-replica",
            Self::ClockOfReplica => "clock-of-replica",
            Self::VersionSkew => "version-skew",
            Self::Thp => "thp",
            Self::DeniedCommand => "denied-command",
            Self::StaleSentinel => "stale-sentinel",
            Self::ReaderEndpoint => "reader-endpoint",
        }
    }
}
