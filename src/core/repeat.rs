//! What becomes of a command whose answer is not to be believed, or whose connection was lost. What reads is asked again,
//! where that can help, three times in all at most; what may write is never sent twice: only if it was refused, or not a byte of it had been written,
//! does it go to whoever is the primary next.

use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::proof::suffices;
use crate::core::nodes::view::View;
use crate::core::policy::Consistency;
use crate::core::position::Offset;
use crate::core::route::Decision;
use crate::mutant;

/// What may be done with a command when its connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingKind {
    /// It changes nothing: it may be sent again, once.
    Read,
    /// It was sent again already, or can only be answered by this connection. If the connection is shared, and lost, it
    /// waits for the next primary: that of a replica which was promoted (`CLIENT KILL`, by Sentinel) may be dead before
    /// anybody has heard of it.
    Final,
    /// It was sent again twice: it may be what kills its nodes.
    Last,
    /// It may change something: never sent twice.
    Write,
    /// `ROLE`, asked for by Redweir itself: nobody gets the reply.
    Proof,
    /// It was sent again on another connection: nobody gets the reply.
    Moved,
    /// `PING`, to see whether an idle connection is still good: nobody gets the reply.
    Check,
}

/// A command that a node was asked, as far as its fate depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What may be done with it.
    pub kind: PendingKind,
    /// The primary was asked.
    pub at_primary: bool,
    /// It goes on with a scan: what was there before and after a resync keeps its place in it, and another process cannot
    /// go on with it.
    pub scans: bool,
}

impl PendingKind {
    /// What it is when it is sent again after it was lost, which it was after it had been `sent`, or before.
    #[must_use]
    pub const fn again(self, sent: bool) -> Self {
        match self {
            Self::Read if sent => Self::Final,
            Self::Final if sent => Self::Last,
            other => other,
        }
    }
}

impl Asked {
    /// Whether it may be sent again on another connection to the same node.
    #[inline]
    pub const fn may_move(self) -> bool {
        matches!(self.kind, PendingKind::Read | PendingKind::Final | PendingKind::Last) && !self.scans
    }

    /// Whether an answer counts for nothing: the node has not `proven` what was needed, or may have gone back since it was
    /// asked (`void`).
    #[inline]
    pub fn is_doubtful(self, need: Option<Offset>, proven: Option<Offset>, void: bool) -> bool {
        need.is_some_and(|need| !suffices(proven, need)) || void && self.may_move()
    }

    /// Whether the answer of a node that is not the primary any longer is not to be believed: what was written before it may
    /// have been refused.
    #[inline]
    pub fn is_for_successor(self) -> bool {
        self.at_primary && self.may_move() && !mutant::is("demoted-and-believed")
    }
}

/// What a node has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A value, or an error that any node would answer.
    Value,
    /// An error that another node need not answer.
    NotHere,
    /// It has refused to write, because it is a replica.
    ReadOnly,
}

/// The connection on which it has done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedOn {
    /// Only one client uses it.
    pub exclusive: bool,
    /// Its node has said itself that it is not the primary any longer.
    pub demoted: bool,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// The client gets it.
    Believed,
    /// Somebody else is asked.
    Elsewhere,
    /// The next primary is asked.
    Successor,
    /// The client's connection ends: what its state is about was lost with the role of its node.
    Ends,
}

/// What becomes of an answer that was found doubtful, or not.
pub fn judge(asked: Asked, doubtful: bool, answered: Answered, on: AskedOn) -> Belief {
    // No exclusive connection is demoted: it is closed.
    if on.demoted && asked.is_for_successor() {
        return Belief::Successor;
    }
    if answered == Answered::ReadOnly && asked.at_primary {
        if on.exclusive {
            return Belief::Ends;
        }
        // Nothing of it was executed.
        if asked.kind == PendingKind::Write && !mutant::is("readonly-passed-on") {
            return Belief::Successor;
        }
    }
    let not_here = match answered {
        Answered::Value => false,
        Answered::NotHere => true,
        // Only a primary that is none any longer says so of what it was asked.
        Answered::ReadOnly => !asked.at_primary,
    };
    if doubtful || not_here && asked.kind == PendingKind::Read {
        return Belief::Elsewhere;
    }
    Belief::Believed
}

/// Why a connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HowLost {
    /// The node has refused it, in its own words: a password, a user, too many clients.
    Refused,
    /// The node could not be reached.
    Unreachable,
    /// Anything else.
    Broken,
}

/// What becomes of a command that a lost connection owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Somebody else is asked; if nobody can be, the client gets the node's own words.
    ElsewhereOrWords,
    /// Somebody else is asked, or the same node once more; if nobody can be, it waits for the next primary.
    Again,
    /// It waits for the next primary.
    Held,
    /// The client is told that it may have been executed.
    Uncertain,
    /// The client is told that nobody can answer it.
    Refused,
    /// The client gets the node's own words.
    Words,
    /// The client is told that the connection was lost.
    Lost,
}

/// What becomes of a command that a lost connection owed, of which something was `sent`, or not.
pub fn after_loss(asked: Asked, exclusive: bool, sent: bool, loss: HowLost) -> Fate {
    let kind = asked.kind;
    if loss == HowLost::Refused {
        let elsewhere = kind == PendingKind::Read && !exclusive && !asked.at_primary;
        return if elsewhere { Fate::ElsewhereOrWords } else { Fate::Words };
    }
    match kind {
        PendingKind::Read if !exclusive => Fate::Again,
        PendingKind::Write if sent => Fate::Uncertain,
        // The mutant forgets that a read which was sent again may be sent once more.
        PendingKind::Final if !exclusive && mutant::is("unsent-reads-lost") => Fate::Refused,
        // Not a byte of it was executed: it goes to whoever is the primary now. But nobody else can go on with a scan.
        PendingKind::Write | PendingKind::Final | PendingKind::Last
            if !exclusive && !sent && !asked.scans =>
        {
            Fate::Held
        }
        // What only reads does so although it was sent, but not for ever.
        PendingKind::Final if !exclusive && !asked.scans => Fate::Held,
        PendingKind::Final | PendingKind::Last if !exclusive => Fate::Refused,
        _ if loss == HowLost::Unreachable => Fate::Refused,
        _ => Fate::Lost,
    }
}

/// Who is asked instead of `failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// This node.
    pub node: NodeId,
    /// The session has no home yet: it counts as having seen everything up to now.
    pub sees_everything: bool,
}

/// Who is asked instead of `failed`, if the read was decided anew: the primary, or another replica that may serve it.
/// `home` is the replica that the session stays with; `primary`, one that can be used.
pub fn elsewhere(
    decision: Decision,
    view: &View,
    failed: NodeId,
    level: Consistency,
    (home, primary): (Option<NodeId>, Option<NodeId>),
) -> Option<Elsewhere> {
    let Decision::Send { node, .. } = decision else { return None };
    let keyed = level >= Consistency::Session;
    let to = |node| Some(Elsewhere { node, sees_everything: false });
    if node == failed {
        None
    } else if view.primary == Some(node) {
        to(node)
    } else if keyed && home.is_some_and(|home| home != node) {
        // Another replica may be behind what this session has seen, and nobody has time to find out.
        primary.filter(|node| *node != failed).and_then(to)
    } else {
        Some(Elsewhere { node, sees_everything: keyed && home.is_none() })
    }
}

/// How many reads may be sent again: so much of what was read of late, …
const REPEATED_PART: u64 = 10;

/// … within so many seconds, …
const REPEATED_SECONDS: usize = 10;

/// … and a few, which one client may have under way.
pub const REPEATED_FEW: u64 = 4096;

/// What reads are sent again, of those that there were: a node that fails all that it is asked makes no storm of it at those
/// that are left.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepeatBudget {
    /// By the second, the present one first.
    seconds: [Second; REPEATED_SECONDS],
    /// The present second.
    at: u64,
    /// Reads that are in `seconds`, or were.
    counted: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    reads: u64,
    repeated: u64,
}

impl RepeatBudget {
    /// So many `reads` there were altogether. To be told every second.
    pub fn note(&mut self, now: Moment, reads: u64) {
        let second = now.as_nanos() / 1_000_000_000;
        let passed = second.saturating_sub(self.at).min(REPEATED_SECONDS as u64) as usize;
        self.seconds.rotate_right(passed);
        self.seconds.iter_mut().take(passed).for_each(|old| *old = Second::default());
        self.at = self.at.max(second);
        self.seconds[0].reads += reads.saturating_sub(self.counted);
        self.counted = reads;
    }

    /// Whether one more read may be sent again, of so many `reads` that there were altogether; it is counted.
    pub fn take(&mut self, now: Moment, reads: u64) -> bool {
        self.note(now, reads);
        let all = |what: fn(&Second) -> u64| self.seconds.iter().map(what).sum::<u64>();
        let granted = all(|second| second.repeated)
            < REPEATED_FEW + all(|second| second.reads) / REPEATED_PART
            || mutant::is("repeats-without-limit");
        self.seconds[0].repeated += u64::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [PendingKind; 7] = [
        PendingKind::Read,
        PendingKind::Final,
        PendingKind::Last,
        PendingKind::Write,
        PendingKind::Proof,
        PendingKind::Moved,
        PendingKind::Check,
    ];

    fn every_command() -> impl Iterator<Item = Asked> {
        KINDS.into_iter().flat_map(|kind| {
            [false, true].into_iter().flat_map(move |at_primary| {
                [false, true].into_iter().map(move |scans| Asked { kind, at_primary, scans })
            })
        })
    }

    fn every_place() -> impl Iterator<Item = AskedOn> {
        // An exclusive connection is closed, not demoted.
        [(false, false), (false, true), (true, false)]
            .into_iter()
            .map(|(exclusive, demoted)| AskedOn { exclusive, demoted })
    }

    #[test]
    fn a_tenth_of_what_was_read_and_a_few_may_be_sent_again() {
        let mut budget = RepeatBudget::default();
        let at = |second: u64| Moment::from_millis(second * 1000 + 7);
        let mut taken = |now, reads| (0..1_000_000).take_while(|_| budget.take(now, reads)).count() as u64;
        assert_eq!(taken(at(50), 0), REPEATED_FEW);
        assert_eq!(taken(at(50), 5000), 500);
        assert_eq!(taken(at(51), 8000), 300);
        assert_eq!(taken(at(59), 8000), 0, "ten seconds have not passed");
        assert_eq!(taken(at(60), 8000), REPEATED_FEW, "what was in the first second is over");
        assert_eq!(taken(at(500), 8100), REPEATED_FEW + 10);
        assert_eq!(taken(at(400), 8100), 0, "a clock does not go back");
    }

    #[test]
    fn a_write_is_sent_again_only_if_it_was_refused() {
        for asked in every_command().filter(|asked| asked.kind == PendingKind::Write) {
            for on in every_place() {
                for answered in [Answered::Value, Answered::NotHere] {
                    assert_eq!(judge(asked, false, answered, on), Belief::Believed, "{asked:?} {on:?}");
                }
                let verdict = judge(asked, false, Answered::ReadOnly, on);
                let expected = match (asked.at_primary, on.exclusive) {
                    (true, true) => Belief::Ends,
                    (true, false) => Belief::Successor,
                    (false, _) => Belief::Believed,
                };
                assert_eq!(verdict, expected, "{asked:?} {on:?}");
            }
            for exclusive in [false, true] {
                for loss in [HowLost::Unreachable, HowLost::Broken] {
                    assert_eq!(after_loss(asked, exclusive, true, loss), Fate::Uncertain);
                    let unsent = after_loss(asked, exclusive, false, loss);
                    assert_eq!(unsent == Fate::Held, !exclusive && !asked.scans, "{unsent:?}");
                }
                assert_eq!(after_loss(asked, exclusive, false, HowLost::Refused), Fate::Words);
            }
        }
    }

    #[test]
    fn a_doubtful_answer_is_never_passed_on() {
        for asked in every_command() {
            for on in every_place() {
                for answered in [Answered::Value, Answered::NotHere, Answered::ReadOnly] {
                    let verdict = judge(asked, true, answered, on);
                    assert_ne!(verdict, Belief::Believed, "{asked:?} {answered:?} {on:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_former_primary_answers_to_a_read_is_asked_of_the_next() {
        let on = AskedOn { exclusive: false, demoted: true };
        for asked in every_command() {
            let successor = judge(asked, false, Answered::Value, on) == Belief::Successor;
            assert_eq!(successor, asked.at_primary && asked.may_move(), "{asked:?}");
        }
    }

    #[test]
    fn a_read_is_asked_again_once() {
        for asked in every_command().filter(|asked| !asked.at_primary) {
            let on = AskedOn { exclusive: false, demoted: false };
            for answered in [Answered::NotHere, Answered::ReadOnly] {
                let again = judge(asked, false, answered, on) == Belief::Elsewhere;
                assert_eq!(again, asked.kind == PendingKind::Read, "{asked:?} {answered:?}");
            }
            for loss in [HowLost::Unreachable, HowLost::Broken] {
                let again = after_loss(asked, false, true, loss) == Fate::Again;
                assert_eq!(again, asked.kind == PendingKind::Read, "{asked:?} {loss:?}");
                // What only one connection can answer is lost with it.
                assert_ne!(after_loss(asked, true, true, loss), Fate::Again);
            }
        }
    }

    #[test]
    fn a_read_is_sent_three_times_at_most() {
        for loss in [HowLost::Unreachable, HowLost::Broken] {
            let mut kind = PendingKind::Read;
            let mut sent = 0;
            loop {
                // What was not sent costs no attempt.
                for sent in [false, true] {
                    let asked = Asked { kind, at_primary: true, scans: false };
                    let fate = after_loss(asked, false, sent, loss);
                    let last = sent && kind == PendingKind::Last;
                    assert_eq!(fate == Fate::Refused, last, "{kind:?}, {loss:?}, sent {sent}: {fate:?}");
                }
                sent += 1;
                assert_eq!(kind.again(false), kind);
                if kind.again(true) == kind {
                    break;
                }
                kind = kind.again(true);
            }
            assert_eq!(sent, 3, "{loss:?}");
        }
        assert_eq!(PendingKind::Write.again(true), PendingKind::Write);
    }

    #[test]
    fn a_scan_is_not_voided_but_needs_its_proof_and_its_process() {
        let scan = Asked { kind: PendingKind::Final, at_primary: false, scans: true };
        for sent in [false, true] {
            assert_eq!(after_loss(scan, false, sent, HowLost::Broken), Fate::Refused);
        }
        assert!(!scan.is_doubtful(None, None, true));
        assert!(Asked { scans: false, ..scan }.is_doubtful(None, None, true));
        assert!(scan.is_doubtful(Some(Offset::new(7)), Some(Offset::new(6)), false));
        assert!(!scan.is_doubtful(Some(Offset::new(7)), Some(Offset::new(7)), false));
    }
}
