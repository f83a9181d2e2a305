//! What a client connection is at the moment (who, which database, which policy, pinned or not), and where each of its
//! commands goes.

use std::rc::Rc;
use std::task::Waker;

use super::client::Client;
use super::demand::Reader;
use super::identity::IdentityId;
use super::lane::{Lane, LaneKey, Proto};
use super::local;
use super::pending::{Kind, Pending};
use super::pin::Pin;
use super::say;
use super::vocabulary::Vocabulary;
use super::worker::Worker;
use crate::core::argv::Args;
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

/// What became of a command.
#[derive(Debug)]
pub enum Step {
    /// It is on its way, or answered.
    Done,
    /// Again when there is room.
    Room,
    /// Again when everything before it is answered.
    Drain,
    /// Again in a moment.
    Retry,
    /// To be answered by Redweir itself, which has to ask somebody first.
    Later(Vec<Vec<u8>>),
    /// The connection ends.
    Close,
}

/// The state of one client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its worker.
    pub worker: Rc<Worker>,
    /// Where its replies go.
    pub client: Rc<Client>,
    /// As whom it acts.
    pub identity: IdentityId,
    /// The name of that user.
    pub user: String,
    /// The selected database.
    pub db: u32,
    /// The protocol of its replies.
    pub proto: Proto,
    /// `CLIENT SETNAME`
    pub name: String,
    /// The policy of its reads, unless a route names another.
    pub policy: PolicyId,
    /// The policy of its listener, to which `RESET` returns.
    pub listener_policy: PolicyId,
    sticky: Option<NodeId>,
    /// The lanes it uses, by node; valid for the present identity, database and protocol.
    lanes: Vec<Option<Rc<Lane>>>,
    /// Its exclusive connection, if it needs one.
    pub pin: Option<Pin>,
    /// Since when the present command waits for a node.
    waiting_since: Option<Moment>,
    /// The lane that was full.
    full: Option<Rc<Lane>>,
}

/// A command on its way to a node.
struct Outgoing {
    access: telemetry::Access,
    reason: Reason,
    kind: Kind,
    stamps: Stamps,
    is_info: bool,
    now: Moment,
}

impl Connection {
    /// A fresh connection.
    pub fn new(worker: Rc<Worker>, client: Rc<Client>, policy: PolicyId) -> Self {
        let lanes = vec![None; worker.shared.addresses.len()];
        Self {
            worker,
            client,
            identity: IdentityId::ANONYMOUS,
            user: "default".to_owned(),
            db: 0,
            proto: Proto::Resp2,
            name: String::new(),
            policy,
            listener_policy: policy,
            sticky: None,
            lanes,
            pin: None,
            waiting_since: None,
            full: None,
        }
    }

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
                self.send_to_primary(request, Outgoing::write(Reason::Write, stamps, now), view)
            }
            (_, Access::Unknown) => {
                let stamps = self.all_keys();
                self.send_to_primary(request, Outgoing::write(Reason::UnknownCommand, stamps, now), view)
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
        let demand = reader.demand(policy, shared, request, intent, view, vocabulary);
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
                if view.primary != Some(node) {
                    self.sticky = Some(node);
                }
                self.send(node, request, Outgoing::read(reason, now), view)
            }
            Decision::Wait { .. } => {
                self.waiting_since.get_or_insert(now);
                worker.shared.anchor_wanted.notify_one();
                Step::Retry
            }
            Decision::Refuse { reason } => self.refuse(telemetry::Access::Read, reason),
        }
    }

    /// On whose behalf reads are decided.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            policy: self.policy,
            user: &self.user,
            name: &self.name,
            session: Some(&self.client.session),
        }
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
        self.waiting_since = None;
        let target = if view.primary == Some(node) { Target::Primary } else { Target::Replica };
        self.worker.stats.command(outgoing.access, target, outgoing.reason);
        self.push(&lane, request, outgoing);
        Step::Done
    }

    fn push(&self, lane: &Rc<Lane>, request: &Request<'_>, outgoing: Outgoing) {
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
            stamps: outgoing.stamps,
            begun: outgoing.now,
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
        self.push(
            lane,
            request,
            Outgoing { access, reason: Reason::Pinned, kind, stamps, is_info: false, now },
        );
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

    /// What its lanes are shared by.
    pub fn key(&self, node: NodeId) -> LaneKey {
        LaneKey { node, identity: self.identity, db: self.db, proto: self.proto }
    }

    fn lane_to(&mut self, node: NodeId) -> Option<Rc<Lane>> {
        let key = self.key(node);
        let known = self.lanes.get_mut(node.index())?;
        match known {
            Some(lane) if lane.is_usable() => Some(Rc::clone(lane)),
            _ => {
                let lane = self.worker.lane(key);
                *known = Some(Rc::clone(&lane));
                Some(lane)
            }
        }
    }

    /// Identity, database or protocol changed: other lanes from now on.
    pub fn rekey(&mut self) {
        self.lanes.fill(None);
        self.full = None;
    }

    /// Whether the lane that was full takes commands again.
    pub fn has_room(&mut self) -> bool {
        let room = self.full.as_ref().is_none_or(|lane| lane.has_room() || !lane.is_usable());
        if room {
            self.full = None;
        }
        room
    }

    /// Wakes the client's task when the lane that was full changes.
    pub fn wake_on_change(&self, waker: &Waker) {
        if let Some(lane) = &self.full {
            lane.wake_on_change(waker);
        }
    }

    /// Whether nobody would miss the outstanding reply of a client that has closed its sending side: a blocking
    /// command must not take an element for it.
    pub fn is_abandoned(&self) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.blocking || pin.raw)
    }

    /// The client is gone: gives up what was its own.
    pub fn close(&mut self) {
        self.release_pin(false);
    }
}

impl Outgoing {
    fn read(reason: Reason, now: Moment) -> Self {
        let access = if matches!(reason, Reason::PrimaryOnly) {
            telemetry::Access::Other
        } else {
            telemetry::Access::Read
        };
        Self { access, reason, kind: Kind::Read, stamps: Stamps::None, is_info: false, now }
    }

    /// What is not flagged as a read may have an effect (`PUBLISH`, `SCRIPT LOAD`): like a write it is sent once.
    fn other(now: Moment) -> Self {
        let (access, reason) = (telemetry::Access::Other, Reason::PrimaryOnly);
        Self { access, reason, kind: Kind::Write, stamps: Stamps::None, is_info: false, now }
    }

    fn write(reason: Reason, stamps: Stamps, now: Moment) -> Self {
        Self { access: telemetry::Access::Write, reason, kind: Kind::Write, stamps, is_info: false, now }
    }
}

/// The name of a command for error texts.
pub fn shown_name<A: Args + ?Sized>(args: &A) -> String {
    String::from_utf8_lossy(&args.arg(0)[..args.arg(0).len().min(64)]).to_lowercase()
}
