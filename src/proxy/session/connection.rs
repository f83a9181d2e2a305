//! What a client connection is at the moment: who, which database, which policy, on which lanes, pinned or not.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::core::argv::Args;
use crate::core::command::in_force::LastCommand;
use crate::core::demand::Reader;
use crate::core::fence::AnchorSeq;
use crate::core::moment::Moment;
use crate::core::nodes::node::{Node, NodeId};
use crate::core::nodes::rights::Rights;
use crate::core::nodes::view::View;
use crate::core::policy::PolicyId;
use crate::core::session::Home;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::runtime::limits;
use crate::proxy::downstream::replies::Client;
use crate::proxy::session::exclusive::pin::{Permit, Pin};
use crate::proxy::session::order::Run;
use crate::proxy::session::route_cache::{CachedRoute, FastPath};
use crate::proxy::upstream::at_hand::AtHand;
use crate::proxy::upstream::lane::{Lane, LaneKey, Proto, Purpose, Redirect};
use crate::proxy::upstream::load::Stay;
use crate::proxy::worker::Worker;
use crate::shard::identity::{Identity, IdentityId};

/// What became of a command.
#[derive(Debug)]
pub enum Step {
    /// It is on its way, or answered.
    Done,
    /// The beginning of a long command is; the rest of it follows.
    Body,
    /// Again when there is room.
    Room,
    /// Again when everything before it is answered.
    Drain,
    /// Again in a moment.
    Retry,
    /// Again when it is known what the primary calls this client.
    Find(u64),
    /// Again when there is a place for another exclusive connection.
    Permit,
    /// To be answered by Redweir itself, which has to ask somebody first.
    Later(Vec<Vec<u8>>),
    /// The connection ends.
    Close,
}

/// When a command that could not go anywhere is tried again: with what it waits for, and at the latest at the end of its
/// patience.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The end of its patience.
    pub until: Moment,
    /// What may let it go on.
    pub on: On,
}

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Another view: an anchor, another primary.
    View,
    /// What the nodes say of themselves, which are asked more often meanwhile, and the replication stream.
    Nodes,
    /// Whether its client may come in.
    Admission,
}

/// The state of one client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its worker.
    pub worker: Rc<Worker>,
    /// Where its replies go.
    pub client: Rc<Client>,
    /// As whom it acts; changed by [`Connection::act_as`].
    pub identity: IdentityId,
    /// Keeps that identity.
    held: Option<Arc<Identity>>,
    /// The name of that user.
    pub user: String,
    /// Under these rights its user may read everywhere.
    pub(crate) free_under: Option<Arc<Rights>>,
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
    sticky: Option<Stay>,
    /// Where its reads go at the moment.
    pub(crate) cached_route: Option<CachedRoute>,
    /// What was sent last, if another one like it may follow.
    pub(crate) fast_path: Option<FastPath>,
    /// The primary that its last command for one went to, and that command's sequence number.
    pub(crate) last_at_primary: Option<(NodeId, u64)>,
    /// Since when reads of a key follow one another to the primary, and the sequence number of the last.
    pub(crate) following: Option<(Moment, u64)>,
    /// When to see whether another replica has fewer connections.
    balance_at: Cell<Moment>,
    /// The lanes it uses, by node; valid for the present identity, database and protocol.
    pub(crate) lanes: Vec<Option<AtHand>>,
    /// Its lanes are those of large replies.
    large: bool,
    /// The lanes of its scripts and of its operations at the primary.
    own_lanes: [Option<AtHand>; 2],
    /// Its exclusive connection, if it needs one.
    pub pin: Option<Pin>,
    /// Whom `CLIENT TRACKING … REDIRECT` names, once that was found out.
    pub redirect: Option<Redirect>,
    /// Whether it stands in line for one.
    pub permit: Permit,
    /// What was sent last on a lane of its own.
    pub(crate) run: Option<Run>,
    /// Since when the present command waits for a node.
    pub(crate) waiting_since: Option<Moment>,
    /// The arrival of the last command that has waited for a primary in vain: what had arrived by then does not wait anew.
    pub(crate) gave_up: Option<u64>,
    /// What it is to be tried again for.
    pub(crate) retry: Retry,
    /// How many times bytes have arrived.
    pub arrivals: u64,
    /// The anchor that strong reads wait for, and the arrival that it is good for.
    pub(crate) barrier: Option<(AnchorSeq, u64)>,
    /// The last command's name, and what it is: clients repeat themselves.
    pub(crate) last: LastCommand,
    /// The lane that was full.
    pub(crate) full: Option<Rc<Lane>>,
    /// Where the rest of a long command goes.
    pub(crate) body: Option<Rc<Lane>>,
}

impl Connection {
    /// A fresh connection.
    pub fn new(worker: Rc<Worker>, client: Rc<Client>, policy: PolicyId) -> Self {
        client.status.put_out(clock::now());
        let lanes = worker.shared.shard().view.load().nodes.iter().map(|_| None).collect();
        Self {
            worker,
            client,
            identity: IdentityId::ANONYMOUS,
            held: None,
            user: "default".to_owned(),
            free_under: None,
            db: 0,
            proto: Proto::Resp2,
            name: String::new(),
            policy,
            listener_policy: policy,
            sticky: None,
            cached_route: None,
            fast_path: None,
            last_at_primary: None,
            following: None,
            balance_at: Cell::default(),
            lanes,
            large: false,
            own_lanes: [None, None],
            pin: None,
            redirect: None,
            permit: Permit::No,
            run: None,
            waiting_since: None,
            gave_up: None,
            retry: Retry { until: Moment::default(), on: On::View },
            arrivals: 0,
            barrier: None,
            last: LastCommand::default(),
            full: None,
            body: None,
        }
    }

    /// The replica that serves it.
    pub fn sticky(&self) -> Option<NodeId> {
        self.sticky.as_ref().map(Stay::node)
    }

    /// Stays with another replica from now on, or with none.
    pub fn stick(&mut self, node: Option<NodeId>) {
        if self.sticky() == node {
            return;
        }
        self.sticky = node.map(|node| self.worker.load.stay(node));
        let generation = |node| self.worker.proofs.borrow().generation(node);
        let home = node.map(|node| Home { node, generation: generation(node) });
        self.client.session.borrow_mut().home = home;
        self.cached_route = None;
    }

    /// Whether its replica serves clearly more connections than one that could serve it as well: after a replica has
    /// come back, connections have to find their way to it. Looked at now and then.
    pub fn is_crowded(&self, now: Moment, view: &View, could_serve: impl Fn(&Node) -> bool) -> bool {
        let Some(sticky) = self.sticky().filter(|_| self.is_to_balance(now)) else { return false };
        self.balance_at.set(now.after(jitter::around(limits::BALANCE_EVERY)));
        let sticky_counts = self.worker.load.sticky(view.nodes.len());
        let mine = sticky_counts.get(sticky.index()).copied().unwrap_or(0);
        sticky_counts.iter().zip(&view.nodes).any(|(others, node)| others + 1 < mine && could_serve(node))
    }

    /// Whether it is time to look whether its replica is crowded.
    pub fn is_to_balance(&self, now: Moment) -> bool {
        now >= self.balance_at.get()
    }

    /// Looks whether its replica is crowded with the next read.
    pub fn balance_soon(&self) {
        self.balance_at.set(Moment::default());
    }

    /// On whose behalf reads are decided.
    pub fn reader(&self) -> Reader<'_> {
        self.client.session.borrow_mut().forget(self.client.oldest());
        Reader {
            policy: self.policy,
            user: &self.user,
            name: &self.name,
            session: Some(&self.client.session),
            barrier: None,
        }
    }

    /// What its lanes are shared by.
    pub fn key(&self, node: NodeId) -> LaneKey {
        // The mutant forgets who the client is.
        let identity = if mutant::is("identity-forgotten") { IdentityId::ANONYMOUS } else { self.identity };
        LaneKey { node, identity, db: self.db, proto: self.proto, purpose: Purpose::Ordinary }
    }

    pub(crate) fn lane_to(&mut self, node: NodeId) -> Result<Rc<Lane>, Step> {
        let drained = self.client.is_drained();
        if drained && self.large != self.client.gets_large_replies() {
            // To all nodes at once, and with nothing on the way that could be overtaken on another lane.
            self.large = !self.large;
            self.lanes.fill_with(|| None);
        }
        let mut key = self.key(node);
        if self.large {
            key.purpose = Purpose::Large((self.client.id % limits::LARGE_LANES) as u8);
        }
        if self.lanes.len() <= node.index() {
            self.lanes.resize_with(self.worker.shared.shard().places, || None);
        }
        let known = self.lanes.get_mut(node.index()).ok_or(Step::Close)?;
        if known.as_ref().is_some_and(|lane| lane.lane().key.node != node) {
            // That of whoever had the place before: nothing is behind it that could be overtaken here.
            (*known, self.fast_path) = (None, None);
        }
        current_lane(known, key, &self.worker, drained)
    }

    /// Whether a command to `node` would take the lane that the last one took.
    pub(crate) fn keeps_lane_to(&self, node: NodeId) -> bool {
        let lane = self.lanes.get(node.index()).and_then(Option::as_ref);
        self.large == self.client.gets_large_replies()
            && lane.is_some_and(|lane| lane.lane().key.node == node && lane.is_current())
    }

    /// The primary's lane for nothing but `purpose`.
    pub(crate) fn lane_for(&mut self, purpose: Purpose, primary: NodeId) -> Result<Rc<Lane>, Step> {
        let key = LaneKey { purpose, ..self.key(primary) };
        let drained = self.client.is_drained();
        let known = &mut self.own_lanes[usize::from(purpose == Purpose::Scripts)];
        if known.as_ref().is_some_and(|known| known.lane().key != key) {
            *known = None;
        }
        current_lane(known, key, &self.worker, drained)
    }

    /// It acts as nobody in particular, and the primary has not said yet that this needs no password.
    pub fn is_unauthenticated(&self) -> bool {
        self.identity == IdentityId::ANONYMOUS
            && self.client.status.auth_epoch.get() != self.worker.admission.epoch()
    }

    /// Acts as somebody else from now on; `None`: as nobody in particular, who has to be admitted anew.
    pub fn act_as(&mut self, identity: Option<Arc<Identity>>) {
        (self.cached_route, self.free_under) = (None, None);
        self.identity = identity.as_ref().map_or(IdentityId::ANONYMOUS, |identity| identity.id);
        self.user = identity.as_ref().map_or_else(|| "default".to_owned(), |identity| identity.user());
        self.held = identity;
        self.client.status.identity.set(self.identity);
        self.client.status.put_out(clock::now());
    }

    /// Becomes what it was when the client had connected (`networking.c`, `resetCommand`).
    pub fn reset(&mut self) {
        self.act_as(None);
        (self.db, self.proto) = (0, Proto::Resp2);
        self.name.clear();
        self.policy = self.listener_policy;
        self.rekey();
        self.register();
    }

    /// Tells the registry what changed about this connection.
    pub fn register(&self) {
        if let Some(mut entry) = self.worker.shared.clients.get_mut(&self.client.id) {
            entry.name.clone_from(&self.name);
            entry.user.clone_from(&self.user);
            entry.db = self.db;
            entry.resp = if self.proto == Proto::Resp3 { 3 } else { 2 };
        }
    }

    /// Identity, database or protocol changed: other lanes from now on.
    pub fn rekey(&mut self) {
        self.lanes.fill_with(|| None);
        self.own_lanes = [None, None];
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

    /// Whether what it says goes to a plain relay: of a client that has closed its sending side all of it is executed.
    pub fn is_raw(&self) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.raw)
    }

    /// Has the present command tried again, until it has waited for `patience`.
    pub(crate) fn wait(&mut self, on: On, patience: Duration, now: Moment) -> Step {
        let since = *self.waiting_since.get_or_insert(now);
        // Not before: the end of its patience is looked for by whoever tries again.
        let until = since.after(patience).max(now.after(limits::RETRY_PAUSE));
        self.retry = Retry { until, on };
        Step::Retry
    }

    /// The client is gone: gives up what was its own.
    pub fn close(&mut self) {
        // An exclusive connection with anything outstanding, or with any state, is closed.
        self.release_pin(true);
        self.stick(None);
    }
}

/// The lane that a client uses, or the one that has taken its place.
fn current_lane(
    known: &mut Option<AtHand>,
    key: LaneKey,
    worker: &Rc<Worker>,
    drained: bool,
) -> Result<Rc<Lane>, Step> {
    if let Some(known) = known {
        if known.is_current() {
            return Ok(Rc::clone(known.lane()));
        }
        if !drained {
            // The lane has left the pool, or is lost: what is still on the way, or will be sent again, must not be
            // overtaken on another.
            return Err(Step::Drain);
        }
    }
    let lane = worker.lane(key);
    *known = Some(AtHand::new(&lane));
    Ok(lane)
}

/// The name of a command for error texts.
pub fn shown_name<A: Args + ?Sized>(args: &A) -> String {
    String::from_utf8_lossy(&args.arg(0)[..args.arg(0).len().min(64)]).to_lowercase()
}
