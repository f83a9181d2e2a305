//! Why a decision was taken. One enum is the source of the metric label, the log field, the EXPLAIN text and the docs.

/// The one reason of a decision. The order is that of "how close the replica came": when no replica may serve,
/// the highest reason among the candidates is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    // Why no replica could serve, worst first.
    /// No replica is configured, or none has been heard of.
    NoReplica,
    /// The replica does not answer.
    Silent,
    /// The replica has not reported enough yet to judge it.
    Unobserved,
    /// The node does not say that it is a replica.
    NotAReplica,
    /// The replica never finished a synchronisation: its dataset is empty.
    NeverSynced,
    /// The replica is loading a dataset.
    Loading,
    /// The replica holds another history than the primary: offsets do not compare.
    ForeignHistory,
    /// A full resync is running.
    Syncing,
    /// The replication link is down.
    LinkDown,
    /// The replica was out and has not yet given enough good samples.
    Returning,
    /// The replica's data may have been replaced by older data, and it has not said yet what it holds now.
    InDoubt,
    /// No anchor covers the replica's applied offset: staleness is unknown.
    Unproven,
    /// Staleness is above `max-lag`.
    TooOld,
    /// Lag is above `max-lag-bytes`.
    TooFar,
    /// The applied offset is below the floor that covers all keys.
    BelowFloor,
    /// The applied offset is below what this session has seen.
    BelowSession,
    /// A write that the read must show was acknowledged and its offset is not known yet.
    FencePending,
    /// The applied offset is below the fence of a key, or, if the read may be about any key, of all of them.
    BelowFence,
    /// The read's barrier is not known yet.
    BarrierPending,
    /// The replication stream is known to take longer than `wait-timeout` to come to the read's barrier.
    StreamLate,
    /// A write of this connection that the read must show is still in flight.
    OwnWriteInFlight,
    /// The hash slot of the key moves, or nobody knows for certain that it does not: only primaries are asked.
    SlotMoving,

    // Why a replica serves.
    /// The replica satisfies the policy.
    Fresh,
    /// The primary is gone and the policy allows old data.
    StaleAllowed,

    // Why the primary is the place to go, whatever the replicas are like.
    /// The command writes.
    Write,
    /// The command reads, but only the primary may answer it.
    PrimaryOnly,
    /// The command is not in the command table.
    UnknownCommand,
    /// The command, or a state of the connection, needs an exclusive primary connection.
    Pinned,
    /// A replica failed to answer; the read is repeated.
    Repeated,
    /// The proof that was asked for together with the read failed; the read is repeated.
    ProofFailed,
    /// A scan goes on at the node that issued its cursor; from `session` up it begins at the primary.
    Cursor,
    /// The replica does not accept the client's user: access rules are not replicated.
    UserUnknown,
    /// Nobody knows that a replica allows the client's user no more than the primary does.
    RightsDiffer,
    /// The number of arguments is wrong, or the cursor is none: the server says it best.
    Malformed,

    // Why nothing is sent.
    /// No primary is known, or it does not answer.
    PrimaryDown,
    /// `when-behind = "refuse"`.
    Refused,
    /// `primary-read-limit`: no replica may serve the read, and the primary has no room for more of those.
    PrimaryReadLimit,
    /// More than one node claims to be the primary and nothing decides between them.
    TwoPrimaries,
    /// `deny-commands` names the command.
    DeniedCommand,
    /// The client has given no password, and the primary wants one.
    Unauthenticated,
    /// It is what a browser says that was tricked into talking to Redis.
    CrossProtocol,

    // Why no node is asked.
    /// Redweir answers the command itself.
    Local,
}

impl Reason {
    /// Every reason, in order.
    pub const ALL: [Self; 42] = [
        Self::NoReplica,
        Self::Silent,
        Self::Unobserved,
        Self::NotAReplica,
        Self::NeverSynced,
        Self::Loading,
        Self::ForeignHistory,
        Self::Syncing,
        Self::LinkDown,
        Self::Returning,
        Self::InDoubt,
        Self::Unproven,
        Self::TooOld,
        Self::TooFar,
        Self::BelowFloor,
        Self::BelowSession,
        Self::FencePending,
        Self::BelowFence,
        Self::BarrierPending,
        Self::StreamLate,
        Self::OwnWriteInFlight,
        Self::SlotMoving,
        Self::Fresh,
        Self::StaleAllowed,
        Self::Write,
        Self::PrimaryOnly,
        Self::UnknownCommand,
        Self::Pinned,
        Self::Repeated,
        Self::ProofFailed,
        Self::Cursor,
        Self::UserUnknown,
        Self::RightsDiffer,
        Self::Malformed,
        Self::PrimaryDown,
        Self::Refused,
        Self::PrimaryReadLimit,
        Self::TwoPrimaries,
        Self::DeniedCommand,
        Self::Unauthenticated,
        Self::CrossProtocol,
        Self::Local,
    ];

    /// Whether it is about what one read demands, rather than about the state of a replica.
    pub const fn is_about_the_read(self) -> bool {
        matches!(
            self,
            Self::BelowFloor
                | Self::BelowSession
                | Self::FencePending
                | Self::BelowFence
                | Self::BarrierPending
                | Self::StreamLate
                | Self::OwnWriteInFlight
                | Self::SlotMoving
        )
    }

    /// Whether it is what is wrong with one replica, so that elsewhere it has to be said of which.
    pub const fn is_about_a_replica(self) -> bool {
        match self {
            Self::FencePending
            | Self::BarrierPending
            | Self::StreamLate
            | Self::OwnWriteInFlight
            | Self::SlotMoving
            | Self::NoReplica => false,
            Self::UserUnknown | Self::RightsDiffer => true,
            _ => (self as u8) < Self::Fresh as u8,
        }
    }

    /// Whether it is about who reads, rather than about what or where.
    pub const fn is_about_the_user(self) -> bool {
        matches!(self, Self::UserUnknown | Self::RightsDiffer)
    }

    /// Metric label and log field.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoReplica => "no_replica",
            Self::Silent => "silent",
            Self::Unobserved => "unobserved",
            Self::NotAReplica => "not_a_replica",
            Self::NeverSynced => "never_synced",
            Self::Loading => "loading",
            Self::ForeignHistory => "foreign_history",
            Self::Syncing => "syncing",
            Self::LinkDown => "link_down",
            Self::Returning => "returning",
            Self::InDoubt => "in_doubt",
            Self::Unproven => "unproven",
            Self::TooOld => "too_old",
            Self::TooFar => "too_far",
            Self::BelowFloor => "below_floor",
            Self::BelowSession => "below_session",
            Self::FencePending => "fence_pending",
            Self::BelowFence => "below_fence",
            Self::BarrierPending => "barrier_pending",
            Self::StreamLate => "stream_late",
            Self::OwnWriteInFlight => "own_write_in_flight",
            Self::SlotMoving => "slot_moving",
            Self::Fresh => "fresh",
            Self::StaleAllowed => "stale_allowed",
            Self::Write => "write",
            Self::PrimaryOnly => "primary_only",
            Self::UnknownCommand => "unknown_command",
            Self::Pinned => "pinned",
            Self::Repeated => "repeated",
            Self::ProofFailed => "proof_failed",
            Self::Cursor => "cursor",
            Self::UserUnknown => "user_unknown",
            Self::RightsDiffer => "rights_differ",
            Self::Malformed => "malformed",
            Self::PrimaryDown => "primary_down",
            Self::Refused => "refused",
            Self::PrimaryReadLimit => "primary_read_limit",
            Self::TwoPrimaries => "two_primaries",
            Self::DeniedCommand => "denied_command",
            Self::Unauthenticated => "unauthenticated",
            Self::CrossProtocol => "cross_protocol",
            Self::Local => "local",
        }
    }

    /// One sentence for EXPLAIN.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoReplica => "no replica is known",
            Self::Silent => "it does not answer",
            Self::Unobserved => "it has not reported enough yet",
            Self::NotAReplica => "it does not say that it is a replica",
            Self::NeverSynced => "it never finished a synchronisation, its dataset is empty",
            Self::Loading => "it is loading a dataset",
            Self::ForeignHistory => "it holds another history than the primary",
            Self::Syncing => "a full resync is running",
            Self::LinkDown => "its replication link is down",
            Self::Returning => "it was out and has to give a few good samples first",
            Self::InDoubt => "its data may have been replaced, and it has not said yet what it holds now",
            Self::Unproven => "no anchor covers what it has applied, its staleness is unknown",
            Self::TooOld => "its data may be older than max-lag",
            Self::TooFar => "it is more than max-lag-bytes behind",
            Self::BelowFloor => "it has not applied the floor that covers all keys",
            Self::BelowSession => "it has not applied what this session has already seen",
            Self::FencePending => {
                "the offset of the last write that the command has to show is not known yet"
            }
            Self::BelowFence => "it has not applied the last write that the command has to show",
            Self::BarrierPending => "the head at the time of the read is not known yet",
            Self::StreamLate => {
                "the replication stream takes longer than wait-timeout to come to the head at the time of the read"
            }
            Self::OwnWriteInFlight => {
                "a write of this connection that the command has to show is still in flight"
            }
            Self::SlotMoving => "the hash slot moves, or is not known to stay: only primaries are asked",
            Self::Fresh => "it is proven fresh enough",
            Self::StaleAllowed => "the primary is gone and the policy allows old data",
            Self::Write => "the command writes",
            Self::PrimaryOnly => "only the primary may answer the command",
            Self::UnknownCommand => "the command is unknown",
            Self::Pinned => {
                "the command, or a state of its connection, needs an exclusive connection to the primary"
            }
            Self::Repeated => "a replica failed to answer and the read is repeated",
            Self::ProofFailed => "the replica had not applied enough and the read is repeated",
            Self::Cursor => {
                "a scan goes on where its cursor was issued, and from the level `session` on it begins at the primary"
            }
            Self::UserUnknown => "it does not accept this user",
            Self::RightsDiffer => "its access rules for this user are not known to be those of the primary",
            Self::Malformed => "the command is malformed: the primary says what is wrong with it",
            Self::PrimaryDown => "no primary answers",
            Self::Refused => "the policy refuses reads when no replica is fresh enough",
            Self::PrimaryReadLimit => {
                "no replica may serve the read, and more of those than primary-read-limit would go to the primary"
            }
            Self::TwoPrimaries => "two nodes claim to be the primary",
            Self::DeniedCommand => "deny-commands refuses the command",
            Self::Unauthenticated => "the client has given no password, and the primary wants one",
            Self::CrossProtocol => "only a browser that was tricked into talking to Redis says that",
            Self::Local => "Redweir answers the command itself",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_once_in_order() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{reason:?}");
        }
    }

    #[test]
    fn labels_differ_and_no_text_names_a_key() {
        let labels: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(!reason.text().contains("the key"), "{reason:?}: a command without keys gets it as well");
            let of_a_node = reason.text().starts_with("it ") || reason.text().starts_with("its ");
            assert!(!of_a_node || reason.is_about_a_replica() || reason == Reason::Fresh, "{reason:?}");
        }
    }
}
