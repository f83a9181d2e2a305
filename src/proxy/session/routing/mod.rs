//! Where the commands of a connection go, as far as those before them have settled that.

pub(crate) mod cache;
pub(crate) mod fast_path;
pub(crate) mod order;

use std::cell::Cell;
use std::time::Duration;

use crate::core::command::Intent;
use crate::core::moment::Moment;
use crate::core::nodes::node::{Node, NodeId};
use crate::core::nodes::zones::Pull;
use crate::core::policy::PolicyId;
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::route::{Ask, Demand};
use crate::mutant;
use crate::net::runtime::jitter;
use crate::net::runtime::limits;
use crate::proxy::session::routing::cache::{CachedRoute, FastPath};
use crate::proxy::session::routing::order::Run;
use crate::proxy::upstream::lane::Purpose;
use crate::proxy::upstream::load::{Load, Stay};

/// What the last commands of a connection have left behind for the next.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    stay: Option<Stay>,
    /// When to see whether another replica has fewer connections, or is fresher.
    balance_at: Cell<Moment>,
    /// It has left the zone of the proxy because that has no room, and does not come home before.
    away_until: Cell<Moment>,
    cached_route: Option<CachedRoute>,
    fast_path: Option<FastPath>,
    /// The primary that its last command for one went to, and that command's sequence number.
    at_primary: Option<(NodeId, u64)>,
    /// Since when reads of a key follow one another to the primary, and the sequence number of the last.
    following: Option<(Moment, u64)>,
    /// When it last began to wait for a replica for longer than `wait-timeout`, and until when it may.
    comes_back: Cell<Option<(Moment, Moment)>>,
    /// What was sent last on a lane of its own.
    run: Option<Run>,
}

impl Routing {
    /// The replica that the connection stays with.
    pub(crate) fn sticky(&self) -> Option<NodeId> {
        self.stay.as_ref().map(Stay::node)
    }

    /// Stays with another replica from now on, or with none.
    pub(crate) fn stick(&mut self, stay: Option<Stay>) {
        (self.stay, self.cached_route) = (stay, None);
    }

    /// Whether another replica could serve it as well that serves clearly fewer connections (after a replica has come back,
    /// connections have to find their way to it) or, of reads that are `keyed`, is clearly fresher. Between zones that counts
    /// for nothing: there it goes home when it can, and away when it must. Looked at now and then.
    pub(crate) fn is_better_elsewhere(
        &self,
        load: &Load,
        ask: &Ask<'_>,
        keyed: bool,
        could_serve: impl Fn(&Node) -> bool,
    ) -> bool {
        let (view, now) = (ask.view, ask.now);
        let Some(sticky) = self.sticky().filter(|_| self.is_to_balance(now)) else { return false };
        self.balance_at.set(now.after(jitter::around(limits::BALANCE_EVERY)));
        let counts = load.sticky(view.nodes.len());
        let mine = counts.get(sticky.index()).copied().unwrap_or(0);
        let Some(present) = view.node(sticky) else { return false };
        let pull = |node| view.zones.pull((present, ask.in_flight(present)), (node, ask.in_flight(node)));
        let better = counts.iter().zip(&view.nodes).find(|(others, node)| {
            let fresher = keyed && node.is_clearly_fresher_than(present);
            let staler = keyed && present.is_clearly_fresher_than(node);
            let is_better = match pull(node) {
                Pull::Neutral => fresher || *others + 1 < mine && !staler,
                Pull::Home => now >= self.away_until.get(),
                Pull::Away => true,
                Pull::Stay => false,
            };
            is_better && could_serve(node)
        });
        if better.is_some_and(|(_, node)| pull(node) == Pull::Away) {
            self.away_until.set(now.after(jitter::around(limits::AWAY_AT_LEAST)));
        }
        better.is_some()
    }

    /// Whether it is time to look whether its replica is crowded.
    pub(crate) fn is_to_balance(&self, now: Moment) -> bool {
        now >= self.balance_at.get()
    }

    /// Looks whether its replica is crowded with the next read.
    pub(crate) fn balance_soon(&self) {
        self.balance_at.set(Moment::default());
    }

    /// Where its reads go at the moment.
    pub(crate) const fn cached_route(&self) -> Option<CachedRoute> {
        self.cached_route
    }

    /// The same, for a read by this policy that demands so much.
    pub(crate) fn cached_route_for(&self, policy: PolicyId, demand: Demand) -> Option<CachedRoute> {
        self.cached_route.filter(|route| route.policy == policy && demand.is_met_by(route.applied))
    }

    /// Where its reads go from now on; `None`: that has to be decided.
    pub(crate) const fn cache(&mut self, route: Option<CachedRoute>) {
        self.cached_route = route;
    }

    /// What was sent last, if another one like it may follow.
    #[inline]
    pub(crate) const fn fast_path(&self) -> Option<&FastPath> {
        self.fast_path.as_ref()
    }

    /// Reads like the last one may follow it, to a replica that has applied so much by now; `None`: they have to be decided.
    #[inline]
    pub(crate) fn resume(&mut self, applied: Option<Offset>) {
        match (applied, self.fast_path.as_mut().and_then(|fast_path| fast_path.read.as_mut())) {
            (Some(applied), Some(route)) => route.applied = applied,
            _ => self.fast_path = None,
        }
    }

    /// Another one like this may follow; `None`: whatever comes has to be decided.
    #[inline]
    pub(crate) const fn follow(&mut self, fast_path: Option<FastPath>) {
        self.fast_path = fast_path;
    }

    /// Command number `seq` went to the primary.
    #[inline]
    pub(crate) const fn went_to_primary(&mut self, node: NodeId, seq: u64) {
        self.at_primary = Some((node, seq));
    }

    /// Whether a command is on its way to another primary, where it may not have been executed: it will be sent to this
    /// one then, and must not come after those that follow it.
    pub(crate) fn owes_another_primary(&self, primary: NodeId, oldest: u64) -> bool {
        let owes = |(node, seq)| node != primary && oldest <= seq;
        self.at_primary.is_some_and(owes) && !mutant::is("failover-overtaken")
    }

    /// Where one read of a key is always on its way, reads would follow one another for ever: after a while all that is
    /// on its way is waited for.
    pub(crate) fn may_go_on_following(&mut self, (seq, oldest): (u64, u64), now: Moment) -> bool {
        let chain = self.following.filter(|(_, last)| *last >= oldest);
        let (since, _) = *self.following.insert((chain.map_or(now, |(since, _)| since), seq));
        now.since(since) <= limits::FOLLOWED_LONGEST
    }

    /// All that followed one another is answered, and nothing but an anchor is needed to get away from the primary, where
    /// each read shows what the next may not take back.
    pub(crate) fn has_followed_enough(&self, demand: Demand, (seq, oldest): (u64, u64), now: Moment) -> bool {
        let longest = limits::FOLLOWED_LONGEST;
        // The last of them waited until all before it was answered: it is this one.
        let Some((since, _)) = self.following.filter(|(_, last)| oldest == seq && *last == seq) else {
            return false;
        };
        let span = now.since(since);
        demand == Demand::Unknown(Reason::FencePending) && span > longest && span <= 2 * longest
    }

    /// How long a read may wait so that its connection gets away from the primary, where replicas need so much longer: that, and
    /// a little more, but not again for ten times as long.
    pub(crate) fn comes_back(&self, left: Duration, now: Moment) -> Option<Duration> {
        let patience = left * 5 / 4;
        if patience > limits::COME_BACK_WITHIN {
            return None;
        }
        let (begun, until) = match self.comes_back.get() {
            Some((begun, until)) if now < until => (begun, until),
            Some((begun, until)) if now.since(begun) < until.since(begun) * 10 => return None,
            _ => (now, now.after(patience)),
        };
        self.comes_back.set(Some((begun, until)));
        Some(until.since(begun))
    }

    /// Whether a command has to wait for those before it that have a lane of their own.
    pub(crate) fn waits_for_run(&mut self, intent: Intent, oldest: u64) -> bool {
        let Some(run) = self.run else { return false };
        if run.is_over(oldest) {
            self.run = None;
            return false;
        }
        !run.carries(intent)
    }

    /// The run that command number `next` goes on, or begins; `None`: what is outstanding has to be answered first.
    pub(crate) fn run_with(&self, purpose: Purpose, oldest: u64, next: u64) -> Option<Run> {
        Run::with(self.run, purpose, oldest, next)
    }

    /// It was sent.
    pub(crate) const fn runs(&mut self, run: Run) {
        self.run = Some(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_to_another_primary_is_not_overtaken() {
        let (before, after) = (NodeId(0), NodeId(1));
        let mut routing = Routing::default();
        assert!(!routing.owes_another_primary(after, 0));
        routing.went_to_primary(before, 5);
        assert!(routing.owes_another_primary(after, 5), "it is not answered");
        assert!(!routing.owes_another_primary(before, 5), "it goes the same way");
        assert!(!routing.owes_another_primary(after, 6), "it is answered");
    }
}
