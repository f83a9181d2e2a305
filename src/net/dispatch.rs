//! Where each command of a client goes: answered here, to a replica, to the primary, or to a connection of its own.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::connection::{Connection, Step};
use super::demand::{Reader, Slots};
use super::lane::Lane;
use super::local;
use super::pending::{Kind, Pending};
use super::say;
use super::shared::Shared;
use super::vocabulary::Vocabulary;
use crate::core::argv::Args as _;
use crate::core::command::{Access, Handling, Intent, Keys, Why, WriteKeys};
use crate::core::fence::AnchorSeq;
use crate::core::moment::Moment;
use crate::core::node::NodeId;
use crate::core::policy::{Consistency, Policy, PolicyId};
use crate::core::position::Offset;
use crate::core::reason::Reason;
use crate::core::route::{Ask, Decision, Demand, decide, judge};
use crate::core::session::Stamps;
use crate::core::view::View;
use crate::telemetry::{self, Target};
use crate::wire::request::{Request, is_cross_protocol};

/// A command on its way to a node.
struct Outgoing {
    access: telemetry::Access,
    reason: Reason,
    kind: Kind,
    stamps: Stamps,
    is_info: bool,
    policy: PolicyId,
    at_primary: bool,
    sees_all: bool,
    need: Option<Offset>,
    now: Moment,
}

impl Connection {
    /// Decides where one command goes and sends it there.
    pub fn dispatch(
        &mut self,
        request: &Request<'_>,
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Step {
        if is_cross_protocol(request.name()) {
            return self.reject_cross_protocol();
        }
        let intent = self.last.classify(request, vocabulary);
        if vocabulary.is_denied(intent.id) {
            self.worker.stats.denied.add(1);
            self.poison_transaction();
            self.client.answer(&say::denied(vocabulary.table.name(intent.id)));
            return Step::Done;
        }
        if (self.pin.is_some() || matches!(intent.handling, Handling::Pin(_)) || request.is_partial())
            && let Some(step) = self.dispatch_pinned(request, intent, view, vocabulary, now)
        {
            return step;
        }
        match (intent.handling, intent.access) {
            (Handling::Local(which), _) => local::answer(self, which, request, view, vocabulary, now),
            (Handling::Scan, _) => {
                let sees_all = self.worker.shared.fencing;
                let outgoing = Outgoing { sees_all, ..Outgoing::read(Reason::Cursor, now) };
                self.send_to_primary(request, outgoing, view)
            }
            (_, Access::Read) => self.read(request, intent, view, vocabulary, now),
            (_, Access::PrimaryRead(Why::KeyState)) => {
                self.send_to_primary(request, Outgoing::read(Reason::PrimaryOnly, now), view)
            }
            (_, Access::PrimaryRead(Why::NotReadonly)) => {
                self.send_to_primary(request, Outgoing::other(now), view)
            }
            (_, Access::Write { .. }) => {
                let stamps = self.stamps(request, intent, vocabulary);
                self.write(request, Outgoing::write(Reason::Write, stamps, now), view)
            }
            (_, Access::Unknown) => {
                let stamps = self.all_keys();
                self.write(request, Outgoing::write(Reason::UnknownCommand, stamps, now), view)
            }
        }
    }

    /// A browser that was tricked into talking to Redis (`server.c`, `securityWarningCommand`): close without a word.
    fn reject_cross_protocol(&self) -> Step {
        tracing::warn!(client = self.client.id, "possible cross-protocol attack (POST or Host:): closed");
        Step::Close
    }

    /// The fences that the command's acknowledgement stamps.
    pub fn stamps(&self, request: &Request<'_>, intent: Intent, vocabulary: &Vocabulary) -> Stamps {
        let fences = &self.worker.shared.fences;
        let mut stamps = Stamps::None;
        if !self.worker.shared.fencing {
            return stamps;
        }
        if intent.access == (Access::Write { keys: WriteKeys::Unknowable }) {
            return Stamps::All;
        }
        if request.is_partial() {
            return self.stamps_of_long(request, intent, vocabulary);
        }
        match vocabulary
            .table
            .for_each_written_key(intent.id, request, &mut |key| stamps.add(fences.slot(key)))
        {
            Keys::Known { .. } => stamps,
            Keys::Unknowable => Stamps::All,
        }
    }

    fn all_keys(&self) -> Stamps {
        if self.worker.shared.fencing { Stamps::All } else { Stamps::None }
    }

    fn read(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Step {
        let worker = Rc::clone(&self.worker);
        let shared = &worker.shared;
        let barrier = self.barrier(shared);
        let reader = Reader { barrier: Some(barrier), ..self.reader() };
        let policy_id = reader.policy_of(&shared.config.policies, request, intent, vocabulary);
        let Some(policy) = shared.config.policies.all.get(usize::from(policy_id.0)) else {
            return Step::Close;
        };
        let mut slots = Slots::new();
        let demand = reader.demand(policy, shared, request, intent, view, vocabulary, &mut slots);
        let (decision, crowded) = self.weigh(policy, policy_id, demand, view, now);
        if crowded {
            if policy.consistency >= Consistency::Session {
                self.move_on(shared);
                return self.read(request, intent, view, vocabulary, now);
            }
            self.stick(None);
        }
        let outgoing = |reason| Outgoing {
            policy: policy_id,
            stamps: seen_of(&slots),
            sees_all: slots.is_empty() && policy.consistency >= Consistency::Session,
            ..Outgoing::read(reason, now)
        };
        match decision {
            Decision::Send { node, reason } if view.primary == Some(node) => {
                self.send(node, request, outgoing(reason), view)
            }
            Decision::Send { node, .. } | Decision::Try { node, .. }
                if policy.consistency >= Consistency::Session
                    && self.sticky().is_some_and(|sticky| sticky != node) =>
            {
                self.move_on(shared);
                self.read(request, intent, view, vocabulary, now)
            }
            Decision::Send { node, reason } => {
                self.send_to_replica(node, request, outgoing(reason), &slots, view)
            }
            Decision::Try { node, need } => {
                let outgoing = Outgoing { need: Some(need), ..outgoing(Reason::Fresh) };
                self.send_to_replica(node, request, outgoing, &slots, view)
            }
            Decision::Wait { .. } => {
                self.waiting_since.get_or_insert(now);
                shared.anchor_wanted.notify_one();
                shared.look_now.notify_waiters();
                Step::Retry
            }
            Decision::Refuse { reason } => self.refuse(telemetry::Access::Read, reason),
        }
    }

    /// Decides, and says whether the connection had better move to another replica.
    fn weigh(
        &self,
        policy: &Policy,
        policy_id: PolicyId,
        demand: Demand,
        view: &View,
        now: Moment,
    ) -> (Decision, bool) {
        let waited = self.waiting_since.is_some_and(|since| now.since(since) >= policy.wait_timeout);
        let mut proofs = self.worker.proofs.borrow_mut();
        proofs.renew(view.era, now);
        // While the stream is followed a barrier passes by itself, soon: no need to ask for a proof of it.
        let patient = matches!(demand, Demand::Applied(_, Reason::BarrierPending))
            && !waited
            && self.worker.shared.stream_attached.load(Ordering::Relaxed);
        let load = self.worker.load.borrow();
        let ask = Ask {
            view,
            policy,
            policy_id,
            demand,
            sticky: self.sticky(),
            load: &load,
            proven: proofs.proven(),
            may_try: if patient { &[] } else { proofs.may_try() },
            now,
            tie: self.worker.roll(),
            waited,
            avoid: None,
        };
        let decision = decide(&ask);
        let serves = |node| view.node(node).is_some_and(|node| judge(node, &ask).is_ok());
        let crowded = self.is_crowded(now, |node| view.primary != Some(node) && serves(node));
        (decision, crowded)
    }

    /// Leaves its replica. Another one may be behind it, so that all of what was seen comes first.
    fn move_on(&mut self, shared: &Shared) {
        self.stick(None);
        self.client.session.borrow_mut().seen.everything(shared.anchors.next());
    }

    /// The anchor that a strong read waits for. All commands that had arrived with it share it; one that is being
    /// retried keeps it.
    fn barrier(&mut self, shared: &Shared) -> AnchorSeq {
        let arrivals = self.arrivals;
        let kept = self.barrier.filter(|(_, of)| *of == arrivals || self.waiting_since.is_some());
        let (barrier, _) = *self.barrier.insert(kept.unwrap_or_else(|| (shared.anchors.next(), arrivals)));
        barrier
    }

    fn send_to_replica(
        &mut self,
        node: NodeId,
        request: &Request<'_>,
        outgoing: Outgoing,
        slots: &Slots,
        view: &View,
    ) -> Step {
        self.stick(Some(node));
        let (seq, oldest) = (self.client.next(), self.client.oldest());
        let step = self.send(node, request, outgoing, view);
        if matches!(step, Step::Done) && !slots.is_empty() {
            self.client.session.borrow_mut().reads(seq, slots, oldest);
        }
        step
    }

    /// Sends a write, unless it would overtake a read of the same key that is still on its way to a replica.
    fn write(&mut self, request: &Request<'_>, outgoing: Outgoing, view: &View) -> Step {
        if self.client.session.borrow_mut().overtakes(&outgoing.stamps, self.client.oldest()) {
            return Step::Drain;
        }
        self.send_to_primary(request, outgoing, view)
    }

    fn send_to_primary(&mut self, request: &Request<'_>, outgoing: Outgoing, view: &View) -> Step {
        match view.usable_primary(outgoing.now) {
            Some(node) => self.send(node, request, outgoing, view),
            None if view.two_primaries => self.refuse(outgoing.access, Reason::TwoPrimaries),
            None if view.primary.is_some() => self.refuse(outgoing.access, Reason::PrimaryDown),
            None => {
                // Between two primaries: the command waits for the new one.
                let since = *self.waiting_since.get_or_insert(outgoing.now);
                if outgoing.now.since(since) > view.hold {
                    return self.refuse(outgoing.access, Reason::PrimaryDown);
                }
                Step::Retry
            }
        }
    }

    /// Answers `-MASTERDOWN`.
    fn refuse(&mut self, access: telemetry::Access, reason: Reason) -> Step {
        self.waiting_since = None;
        self.worker.stats.command(access, Target::Refused, reason);
        self.client.answer(say::MASTERDOWN);
        Step::Done
    }

    fn send(&mut self, node: NodeId, request: &Request<'_>, outgoing: Outgoing, view: &View) -> Step {
        let lane = match self.lane_to(node) {
            Ok(lane) => lane,
            Err(step) => return step,
        };
        if !lane.has_room() {
            self.full = Some(lane);
            return Step::Room;
        }
        let begun = self.waiting_since.take().unwrap_or(outgoing.now);
        let target = if view.primary == Some(node) { Target::Primary } else { Target::Replica };
        self.worker.stats.command(outgoing.access, target, outgoing.reason);
        if outgoing.need.is_some() {
            self.worker.ask_for_proof(&lane, outgoing.now);
        }
        let at_primary = target == Target::Primary;
        self.push(&lane, request, Outgoing { at_primary, ..outgoing }, begun);
        Step::Done
    }

    fn push(&self, lane: &Rc<Lane>, request: &Request<'_>, outgoing: Outgoing, begun: Moment) {
        let seq = self.client.open();
        if outgoing.kind == Kind::Write && outgoing.stamps != Stamps::None {
            self.client.session.borrow_mut().sent(seq, &outgoing.stamps);
        }
        self.worker.load(lane.key.node);
        let pending = Pending {
            client: Rc::clone(&self.client),
            seq,
            len: 0,
            kind: outgoing.kind,
            is_info: outgoing.is_info,
            policy: outgoing.policy,
            stamps: outgoing.stamps,
            at_primary: outgoing.at_primary,
            sees_all: outgoing.sees_all,
            need: outgoing.need,
            begun,
            sent: outgoing.now,
        };
        lane.push(request, pending);
    }

    /// Sends a command on an exclusive lane.
    pub fn push_pinned(
        &self,
        lane: &Rc<Lane>,
        request: &Request<'_>,
        access: telemetry::Access,
        stamps: Stamps,
        now: Moment,
    ) {
        self.worker.stats.command(access, Target::Primary, Reason::Pinned);
        let kind = if access == telemetry::Access::Write { Kind::Write } else { Kind::Final };
        // Whatever a transaction or a blocking command tells, it tells of the primary.
        let outgoing = Outgoing {
            access,
            kind,
            sees_all: self.worker.shared.fencing,
            ..Outgoing::write(Reason::Pinned, stamps, now)
        };
        self.push(lane, request, outgoing, now);
    }

    /// Sends one of the commands that Redweir usually answers itself to the primary after all.
    pub fn pass_on(&mut self, request: &Request<'_>, view: &View, now: Moment) -> Step {
        self.send_to_primary(request, Outgoing::read(Reason::PrimaryOnly, now), view)
    }

    /// Sends `INFO` to the primary; with its default sections comes one of our own.
    pub fn pass_on_info(&mut self, request: &Request<'_>, view: &View, now: Moment) -> Step {
        let ours: [&[u8]; 4] = [b"redweir", b"default", b"all", b"everything"];
        let asked = |index| ours.iter().any(|name| request.arg(index).eq_ignore_ascii_case(name));
        let is_info = request.count() == 1 || (1..request.count()).any(asked);
        self.send_to_primary(request, Outgoing { is_info, ..Outgoing::read(Reason::PrimaryOnly, now) }, view)
    }
}

impl Outgoing {
    fn read(reason: Reason, now: Moment) -> Self {
        let other = matches!(reason, Reason::PrimaryOnly);
        let access = if other { telemetry::Access::Other } else { telemetry::Access::Read };
        Self { access, kind: Kind::Read, ..Self::write(reason, Stamps::None, now) }
    }

    /// What is not flagged as a read may have an effect (`PUBLISH`, `SCRIPT LOAD`): like a write it is sent once.
    fn other(now: Moment) -> Self {
        Self { access: telemetry::Access::Other, ..Self::write(Reason::PrimaryOnly, Stamps::None, now) }
    }

    fn write(reason: Reason, stamps: Stamps, now: Moment) -> Self {
        Self {
            access: telemetry::Access::Write,
            reason,
            kind: Kind::Write,
            stamps,
            is_info: false,
            policy: PolicyId::default(),
            at_primary: true,
            sees_all: false,
            need: None,
            now,
        }
    }
}

/// What a session will have seen once the primary has answered a read of these keys.
fn seen_of(slots: &Slots) -> Stamps {
    match slots.as_slice() {
        [] => Stamps::None,
        [slot] => Stamps::One(*slot),
        slots => Stamps::Many(slots.into()),
    }
}
