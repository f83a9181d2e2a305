//! The lanes that a connection has at hand: what it sends next takes the same one, so that nothing is overtaken.

use std::rc::Rc;
use std::task::Waker;

use crate::core::nodes::node::NodeId;
use crate::net::runtime::limits;
use crate::proxy::downstream::replies::Client;
use crate::proxy::session::step::Step;
use crate::proxy::upstream::at_hand::AtHand;
use crate::proxy::upstream::lane::{Lane, LaneKey, Purpose};
use crate::proxy::worker::Worker;

/// The lanes of one connection; valid for its present identity, database and protocol.
#[derive(Debug)]
pub(crate) struct LanesAtHand {
    /// By the place of their node.
    shared: Vec<Option<AtHand>>,
    /// They are those of large replies.
    large: bool,
    /// Those of its scripts and of its operations at the primary.
    own: [Option<AtHand>; 2],
    /// The one that was full.
    full: Option<Rc<Lane>>,
    /// Where the rest of a long command goes.
    body: Option<Rc<Lane>>,
}

impl LanesAtHand {
    /// None yet, for so many places of nodes.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            shared: (0..places).map(|_| None).collect(),
            large: false,
            own: [None, None],
            full: None,
            body: None,
        }
    }

    /// The lane to the node of `key`. `Err`: not before what is on its way is answered.
    pub(crate) fn to(
        &mut self,
        mut key: LaneKey,
        client: &Client,
        worker: &Rc<Worker>,
    ) -> Result<Rc<Lane>, Step> {
        let (drained, node) = (client.is_drained(), key.node);
        if drained && self.large != client.gets_large_replies() {
            // To all nodes at once, and with nothing on the way that could be overtaken on another lane.
            self.large = !self.large;
            self.shared.fill_with(|| None);
        }
        if self.large {
            key.purpose = Purpose::Large((client.id % limits::LARGE_LANES) as u8);
        }
        if self.shared.len() <= node.index() {
            self.shared.resize_with(worker.shared.shard().places, || None);
        }
        let known = self.shared.get_mut(node.index()).ok_or(Step::Close)?;
        if known.as_ref().is_some_and(|known| known.lane().key.node != node) {
            // That of whoever had the place before: nothing is behind it that could be overtaken here.
            *known = None;
        }
        current(known, key, worker, drained)
    }

    /// Whether a command to `node` would take the lane that the last one took.
    pub(crate) fn keeps(&self, node: NodeId, client: &Client) -> bool {
        let known = self.shared.get(node.index()).and_then(Option::as_ref);
        self.large == client.gets_large_replies()
            && known.is_some_and(|known| known.lane().key.node == node && known.is_current())
    }

    /// The lane that the last command to `node` took.
    #[inline]
    pub(crate) fn last_to(&self, node: NodeId) -> Option<&Rc<Lane>> {
        self.shared.get(node.index())?.as_ref().map(AtHand::lane)
    }

    /// The primary's lane for nothing but the purpose of `key`.
    pub(crate) fn own(
        &mut self,
        key: LaneKey,
        client: &Client,
        worker: &Rc<Worker>,
    ) -> Result<Rc<Lane>, Step> {
        let known = &mut self.own[usize::from(key.purpose == Purpose::Scripts)];
        if known.as_ref().is_some_and(|known| known.lane().key != key) {
            *known = None;
        }
        current(known, key, worker, client.is_drained())
    }

    /// Identity, database or protocol changed: others from now on.
    pub(crate) fn leave_all(&mut self) {
        self.shared.fill_with(|| None);
        self.own = [None, None];
        self.full = None;
    }

    /// The client is gone: what it has yet to ask, and only reads, is not asked.
    pub(crate) fn withdraw(&self, client: &Rc<Client>) {
        let lanes = self.shared.iter().chain(&self.own).flatten();
        lanes.for_each(|known| known.lane().withdraw(client));
    }

    /// This one is full.
    pub(crate) fn is_full(&mut self, lane: Rc<Lane>) -> Step {
        self.full = Some(lane);
        Step::Room
    }

    /// Whether the lane that was full takes commands again.
    pub(crate) fn have_room(&mut self) -> bool {
        let room = self.full.as_ref().is_none_or(|lane| lane.has_room() || !lane.is_usable());
        if room {
            self.full = None;
        }
        room
    }

    /// Wakes the client's task when the lane that was full changes.
    pub(crate) fn wake_on_change(&self, waker: &Waker) {
        if let Some(lane) = &self.full {
            lane.wake_on_change(waker);
        }
    }

    /// The rest of the command that was just sent goes to this one; `None`: there is no rest.
    pub(crate) fn pass_rest_to(&mut self, lane: Option<Rc<Lane>>) {
        self.body = lane;
    }

    /// Where the rest of a long command goes.
    pub(crate) const fn take_rest(&mut self) -> Option<Rc<Lane>> {
        self.body.take()
    }
}

/// The lane that a client uses, or the one that has taken its place.
fn current(
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
