//! Where each command of a client goes: answered here, to a replica, to the primary, or to a connection of its own.

use std::rc::Rc;

use super::connection::{Connection, Step};
use super::demand::Slots;
use super::lane::Lane;
use super::local;
use super::pending::{Kind, Pending};
use super::say;
use super::vocabulary::Vocabulary;
use crate::core::argv::Args as _;
use crate::core::command::{Access, Handling, Intent, Keys, Why, WriteKeys};
use crate::core::moment::Moment;
use crate::core::node::NodeId;
use crate::core::policy::PolicyId;
use crate::core::reason::Reason;
use crate::core::route::{Ask, Decision, decide};
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
        let intent = vocabulary.table.classify(request);
        if vocabulary.is_denied(intent.id) {
            self.worker.stats.denied.add(1);
            self.poison_transaction();
            self.client.answer(&say::denied(vocabulary.table.name(intent.id)));
            return Step::Done;
        }
        if (self.pin.is_some() || matches!(intent.handling, Handling::Pin(_)))
            && let Some(step) = self.dispatch_pinned(request, intent, view, vocabulary, now)
        {
            return step;
        }
        match (intent.handling, intent.access) {
            (Handling::Local(which), _) => local::answer(self, which, request, view, vocabulary, now),
            (Handling::Scan, _) => self.send_to_primary(request, Outgoing::read(Reason::Cursor, now), view),
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
        let reader = self.reader();
        let policy_id = reader.policy_of(&shared.config.policies, request, intent, vocabulary);
        let Some(policy) = shared.config.policies.all.get(usize::from(policy_id.0)) else {
            return Step::Close;
        };
        let mut slots = Slots::new();
        let demand = reader.demand(policy, shared, request, intent, view, vocabulary, &mut slots);
        let waited = self.waiting_since.is_some_and(|since| now.since(since) >= policy.wait_timeout);
        let decision = decide(&Ask {
            view,
            policy,
            policy_id,
            demand,
            sticky: self.sticky,
            load: &worker.load.borrow(),
            now,
            tie: worker.roll(),
            waited,
            avoid: None,
        });
        match decision {
            Decision::Send { node, reason } => {
                let outgoing = Outgoing { policy: policy_id, ..Outgoing::read(reason, now) };
                if view.primary == Some(node) {
                    return self.send(node, request, outgoing, view);
                }
                self.sticky = Some(node);
                let (seq, oldest) = (self.client.next(), self.client.oldest());
                let step = self.send(node, request, outgoing, view);
                if matches!(step, Step::Done) && !slots.is_empty() {
                    self.client.session.borrow_mut().reads(seq, &slots, oldest);
                }
                step
            }
            Decision::Wait { .. } => {
                self.waiting_since.get_or_insert(now);
                worker.shared.anchor_wanted.notify_one();
                Step::Retry
            }
            Decision::Refuse { reason } => self.refuse(telemetry::Access::Read, reason),
        }
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
        let Some(lane) = self.lane_to(node) else { return Step::Close };
        if !lane.has_room() {
            self.full = Some(lane);
            return Step::Room;
        }
        let begun = self.waiting_since.take().unwrap_or(outgoing.now);
        let target = if view.primary == Some(node) { Target::Primary } else { Target::Replica };
        self.worker.stats.command(outgoing.access, target, outgoing.reason);
        self.push(&lane, request, outgoing, begun);
        Step::Done
    }

    fn push(&self, lane: &Rc<Lane>, request: &Request<'_>, outgoing: Outgoing, begun: Moment) {
        let seq = self.client.open();
        if outgoing.stamps != Stamps::None {
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
        let outgoing =
            Outgoing { access, reason: Reason::Pinned, kind, ..Outgoing::write(Reason::Pinned, stamps, now) };
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
        let access = if matches!(reason, Reason::PrimaryOnly) {
            telemetry::Access::Other
        } else {
            telemetry::Access::Read
        };
        Self {
            access,
            reason,
            kind: Kind::Read,
            stamps: Stamps::None,
            is_info: false,
            policy: PolicyId::default(),
            now,
        }
    }

    /// What is not flagged as a read may have an effect (`PUBLISH`, `SCRIPT LOAD`): like a write it is sent once.
    fn other(now: Moment) -> Self {
        let (access, reason) = (telemetry::Access::Other, Reason::PrimaryOnly);
        Self {
            access,
            reason,
            kind: Kind::Write,
            stamps: Stamps::None,
            is_info: false,
            policy: PolicyId::default(),
            now,
        }
    }

    fn write(reason: Reason, stamps: Stamps, now: Moment) -> Self {
        Self {
            access: telemetry::Access::Write,
            reason,
            kind: Kind::Write,
            stamps,
            is_info: false,
            policy: PolicyId::default(),
            now,
        }
    }
}
