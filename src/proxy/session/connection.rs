//! What a client connection is at the moment: who, which database, which policy, on which lanes, pinned or not.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::core::argv::Args;
use crate::core::command::in_force::LastCommand;
use crate::core::demand::Reader;
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::core::session::Home;
use crate::core::slots::{Expected, Floor};
use crate::net::runtime::clock;
use crate::proxy::downstream::replies::Client;
use crate::proxy::session::exclusive::pin::{Permit, Pin};
use crate::proxy::session::exclusive::tracking::Redirection;
use crate::proxy::session::lanes::LanesAtHand;
use crate::proxy::session::routing::Routing;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::{On, Waiting};
use crate::proxy::session::who::Who;
use crate::proxy::upstream::lane::Lane;
use crate::proxy::worker::Worker;
use crate::shard::identity::{Identity, IdentityId};

/// The state of one client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its worker.
    pub worker: Rc<Worker>,
    /// Where its replies go.
    pub client: Rc<Client>,
    /// As whom it acts, in which database, protocol and policy.
    pub who: Who,
    /// Where what it says goes.
    pub(crate) routing: Routing,
    /// The lanes that it has at hand.
    pub(crate) lanes: LanesAtHand,
    /// What the present command waits for.
    pub(crate) waiting: Waiting,
    /// Its exclusive connection, if it needs one.
    pub pin: Option<Pin>,
    /// Whom `CLIENT TRACKING … REDIRECT` names.
    pub redirect: Redirection,
    /// Whether it stands in line for one.
    pub permit: Permit,
    /// The last command's name, and what it is: clients repeat themselves.
    pub(crate) last: LastCommand,
    /// What is demanded for the hash slot of the present command …
    pub(crate) floor: Floor,
    /// … and what a replica's reply to it has to show.
    pub(crate) expected: Expected,
    /// … by the map of this generation.
    pub(crate) map: u64,
    /// What is said next on its exclusive connection is behind `ASKING`.
    pub(crate) asking: bool,
}

impl Connection {
    /// A fresh connection, which came to listener number `listener`.
    pub fn new(worker: Rc<Worker>, client: Rc<Client>, listener: usize) -> Self {
        client.status.put_out(clock::now());
        if worker.shared.shard().view.load().policies.count_own() {
            let dealings = client.with(worker.shard);
            dealings.counts_own.set(true);
            dealings.session.borrow_mut().seen.begin_with_own();
        }
        let lanes = LanesAtHand::new(worker.shared.shard().view.load().nodes.len());
        Self {
            worker,
            client,
            who: Who::new(listener),
            routing: Routing::default(),
            lanes,
            waiting: Waiting::default(),
            pin: None,
            redirect: Redirection::default(),
            permit: Permit::No,
            last: LastCommand::default(),
            floor: Floor::NONE,
            expected: Expected::Unseen,
            map: 0,
            asking: false,
        }
    }

    /// Of the same client, for what it has to do with another shard.
    pub(crate) fn beside(&self, worker: Rc<Worker>) -> Self {
        let view = worker.shared.shard().view.load();
        if view.policies.count_own() {
            let dealings = self.client.with(worker.shard);
            if !dealings.counts_own.replace(true) {
                dealings.session.borrow_mut().seen.begin_with_own();
            }
        }
        let lanes = LanesAtHand::new(view.nodes.len());
        drop(view);
        Self {
            worker,
            client: Rc::clone(&self.client),
            who: self.who.copy(),
            routing: Routing::default(),
            lanes,
            waiting: Waiting::default(),
            pin: None,
            redirect: Redirection::default(),
            permit: Permit::No,
            last: LastCommand::default(),
            floor: Floor::NONE,
            expected: Expected::Unseen,
            map: 0,
            asking: false,
        }
    }

    /// Acts as whoever the client has become meanwhile, at another shard.
    pub(crate) fn follow_who(&mut self, who: &Who) {
        if !self.who.is_as(who) {
            self.who = who.copy();
            self.routing.cache(None);
            self.routing.follow(None);
            self.lanes.leave_all();
        }
    }

    /// Stays with another replica from now on, or with none.
    pub fn stick(&mut self, node: Option<NodeId>) {
        if self.routing.sticky() == node {
            return;
        }
        self.routing.stick(node.map(|node| self.worker.load.stay(node)));
        let generation = |node| self.worker.proofs.borrow().generation(node);
        let home = node.map(|node| Home { node, generation: generation(node) });
        self.client.session(self.worker.shard).borrow_mut().home = home;
    }

    /// On whose behalf reads are decided.
    pub fn reader(&self, view: &View) -> Reader<'_> {
        self.client.session(self.worker.shard).borrow_mut().forget(self.client.oldest());
        Reader {
            policy: self.who.policy(&view.policies),
            user: self.who.user(),
            name: self.who.name(),
            session: Some(self.client.session(self.worker.shard)),
            barrier: None,
        }
    }

    pub(crate) fn lane_to(&mut self, node: NodeId) -> Result<Rc<Lane>, Step> {
        self.lanes.to(self.who.key(node), &self.client, &self.worker)
    }

    /// It acts as nobody in particular, and the primary has not said yet that this needs no password.
    pub fn is_unauthenticated(&self) -> bool {
        self.who.identity() == IdentityId::ANONYMOUS
            && self.client.status.auth_epoch.get() != self.worker.admission.epoch()
    }

    /// Acts as somebody else from now on; `None`: as nobody in particular, who has to be admitted anew.
    pub fn act_as(&mut self, identity: Option<Arc<Identity>>) {
        self.routing.cache(None);
        self.who.act_as(identity);
        self.client.status.identity.set(self.who.identity());
        self.client.status.put_out(clock::now());
    }

    /// Becomes what it was when the client had connected (`networking.c`, `resetCommand`).
    pub fn reset(&mut self) {
        self.act_as(None);
        self.who.reset();
        self.client.status.hears_of_moves.set(false);
        self.lanes.leave_all();
        self.register();
    }

    /// Tells the registry what changed about this connection.
    pub fn register(&self) {
        if let Some(mut entry) = self.worker.shared.clients.get_mut(&self.client.id) {
            self.who.describe(&mut entry);
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
        self.waiting.retry_on(on, patience, now);
        Step::Retry
    }

    /// The reply to a command that needs the primary, when none answers.
    pub(crate) fn masterdown(&self) -> Vec<u8> {
        self.worker.masterdown(&self.client, Reason::PrimaryDown)
    }

    /// The client is gone: gives up what was its own.
    pub fn close(&mut self) {
        // An exclusive connection with anything outstanding, or with any state, is closed.
        self.release_pin(true);
        self.lanes.withdraw(&self.client);
        self.stick(None);
    }
}

/// The name of a command for error texts.
pub fn shown_name<A: Args + ?Sized>(args: &A) -> String {
    String::from_utf8_lossy(&args.arg(0)[..args.arg(0).len().min(64)]).to_lowercase()
}
