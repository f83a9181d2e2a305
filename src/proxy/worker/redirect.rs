//! Where the command of a cluster's client goes on that a primary would not execute: its slot is elsewhere (`MOVED`), its key is on
//! its way elsewhere (`ASK`), some of its keys are (`TRYAGAIN`), or the cluster does not serve the slot (`CLUSTERDOWN`).
//! Nothing of it was executed, so that a write may be sent on like a read.
//!
//! What such an answer tells of the slot is published before the command goes on, so that whoever has seen its reply finds it in
//! the map ([`crate::core::slots::Claims`]).

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use crate::core::command::{Access, Keys as Named, WriteKeys};
use crate::core::cursor::Cursor;
use crate::core::moment::Moment;
use crate::core::repeat::PendingKind;
use crate::core::session::Stamps;
use crate::core::slots::{About, ShardIndex, about};
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::task;
use crate::proxy::downstream::astray::Keys;
use crate::proxy::downstream::status::AskAgain;
use crate::proxy::upstream::lane::{Lane, LaneKey};
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::Worker;
use crate::proxy::worker::held::{HeldCommand, Later};
use crate::shard::cluster::Cluster;
use crate::wire::cluster::Redirection;
use crate::wire::request::{RequestLimits, RequestScanner, Scan};
use crate::wire::say;

/// So many times a command follows at once where it is sent; after that it waits a little each time: the nodes have yet to agree.
const AT_ONCE: u8 = 4;

/// Between two attempts then.
const PAUSE: Duration = Duration::from_millis(20);

/// What a command that waited for so long had been taken before it was refused.
const TAKEN: Duration = Duration::from_millis(200);

pub(crate) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// What a client is told in the end. It knows of no other nodes.
pub(crate) fn last_words(reply: &[u8]) -> &[u8] {
    if Redirection::parse(reply).is_some() { say::SLOT_ON_ITS_WAY } else { reply }
}

/// Has the task of its client ask a command again that waits on a connection of its own: whoever has the slot, or the shard that
/// is to be asked in the owner's stead. What nobody takes for as long as writes are held is answered that.
fn ask_again(
    pending: &Pending,
    reply: &[u8],
    (asking, is_known): (Option<ShardIndex>, bool),
    patience: Duration,
    now: Moment,
) {
    let status = &pending.client.status;
    let was_taken = now.since(pending.sent) >= TAKEN;
    let (since, times) = status.refused.get().filter(|_| !was_taken).unwrap_or((now, 0));
    if now.since(since) >= patience {
        status.refused.set(None);
        pending.client.deliver(pending.seq, last_words(reply), true);
        return;
    }
    let times = times.saturating_add(1);
    status.refused.set(Some((since, times)));
    let at_once = is_known && times <= AT_ONCE || mutant::is("blocked-for-ever");
    let at = if at_once { now } else { now.after(PAUSE) };
    status.asks_again.set(Some(AskAgain { at, asking }));
    pending.client.deliver(pending.seq, b"", true);
    pending.client.wake();
}

/// Whether a command of the same client, said before this one, of which `concerns` is so waits somewhere.
pub(crate) fn is_behind_astray(pending: &Pending, concerns: impl Fn(&Stamps) -> bool) -> bool {
    let (client, astray) = (&pending.client, &pending.client.status.astray);
    !astray.is_empty() && astray.is_any_before(pending.seq, client.oldest(), concerns)
}

impl Worker {
    /// Has a command go on that a primary has answered so. It is answered that in the end, if it never gets anywhere.
    pub(crate) fn send_on(
        self: &Rc<Self>,
        lane: &Rc<Lane>,
        mut pending: Pending,
        request: BytesMut,
        reply: &[u8],
        now: Moment,
    ) {
        let Some(cluster) = self.shared.cluster().cloned() else { return };
        let patience = self.shared.config().upstream.write_hold;
        if now.since(pending.begun) >= patience && !lane.exclusive {
            pending.client.deliver(pending.seq, last_words(reply), true);
            return;
        }
        pending.redirected = pending.redirected.saturating_add(1);
        self.stats.redirected.add(1);
        let (redirection, to) = self.learn(&cluster, lane, reply, now);
        if lane.exclusive {
            if to == Some(self.shared.index()) && matches!(redirection, Some(Redirection::Moved { .. })) {
                self.depose(lane, now);
            }
            let asking = to.filter(|_| matches!(redirection, Some(Redirection::Ask { .. })));
            return ask_again(&pending, reply, (asking, to.is_some()), patience, now);
        }
        if to == Some(self.shared.index()) && matches!(redirection, Some(Redirection::Moved { .. })) {
            // Its node is a replica now, of a primary of the same shard.
            self.depose(lane, now);
            pending.sent = now;
            self.goes_astray(&pending, &request);
            return self.hold(HeldCommand { since: now, key: lane.key, request, pending, refusal: None });
        }
        let asking = matches!(redirection, Some(Redirection::Ask { .. }));
        let in_order = !is_behind_astray(&pending, |_| true);
        match to {
            Some(to) if in_order && (asking || pending.redirected <= AT_ONCE) => {
                self.send_to(to, pending, &request, lane.key, asking);
            }
            _ => self.send_later(&cluster, pending, request, lane),
        }
    }

    /// What a primary has said of a slot, and the shard that it has named, is known from now on.
    fn learn(
        &self,
        cluster: &Cluster,
        lane: &Lane,
        reply: &[u8],
        now: Moment,
    ) -> (Option<Redirection>, Option<ShardIndex>) {
        let redirection = Redirection::parse(reply);
        let to = redirection.as_ref().and_then(|redirection| {
            let asked = self.shared.shard().address(lane.key.node)?;
            let address = redirection.to().reached(&asked)?;
            let config = self.shared.config();
            let address = config.upstream.address_map.get(&address).cloned().unwrap_or(address);
            cluster.shard_at(&address)
        });
        match &redirection {
            Some(Redirection::Moved { slot, .. }) => match to {
                Some(to) => cluster.hear(|claims| claims.moved(*slot, to, now)),
                None => cluster.look(),
            },
            Some(Redirection::Ask { slot, .. }) => cluster.hear(|claims| claims.ask(*slot, to, now)),
            None => cluster.look(),
        }
        (redirection, to)
    }

    /// The same, of what is said to a client that has a connection of its own, which gets the words.
    #[cold]
    pub(crate) fn learn_by_the_way(&self, lane: &Lane, reply: &[u8], now: Moment) {
        if let Some(cluster) = self.shared.cluster() {
            self.learn(cluster, lane, reply, now);
        }
    }

    /// Sends it to the primary of a shard, behind `ASKING` if it is to be executed there although the slot is another's.
    fn send_to(
        self: &Rc<Self>,
        shard: ShardIndex,
        mut pending: Pending,
        request: &[u8],
        key: LaneKey,
        asking: bool,
    ) {
        let (Some(worker), now) = (self.peer(shard), clock::now()) else {
            return self.refuse(&pending);
        };
        (pending.shard, pending.need, pending.void, pending.at_primary) = (shard, None, false, true);
        let primary = worker.shared.shard().view.load().usable_primary(now);
        let Some(node) = primary.filter(|_| worker.held.is_empty()) else {
            self.goes_astray(&pending, request);
            return worker.hold(HeldCommand {
                since: now,
                key,
                request: request.into(),
                pending,
                refusal: None,
            });
        };
        let lane = worker.lane(LaneKey { node, ..key });
        worker.face(&lane, true, now);
        if asking {
            // Nothing comes between the two: the node forgets the first with the next command.
            let own = Pending::own(PendingKind::Check, 0, worker.discard(), shard, now);
            lane.push_bytes(ASKING, own);
        }
        lane.push_bytes(request, pending);
    }

    /// Sends it to whoever has the slot in a moment, behind all that waits for that already.
    fn send_later(self: &Rc<Self>, cluster: &Cluster, pending: Pending, request: BytesMut, lane: &Rc<Lane>) {
        self.goes_astray(&pending, &request);
        cluster.look();
        let is_first = {
            let mut later = self.later.borrow_mut();
            later.push_back(Later { pending, request, lane: Rc::clone(lane) });
            later.len() == 1
        };
        if is_first {
            task::spawn_local("sent on", Rc::clone(self).send_on_in_a_moment());
        }
    }

    /// Sends on what waits, until nothing does. What was said behind a write may have gone to the same node, and been executed
    /// there after that refused the write: then its time is over, and as long as it is not known whether it is so it waits.
    async fn send_on_in_a_moment(self: Rc<Self>) {
        loop {
            tokio::time::sleep(PAUSE).await;
            let mut kept: VecDeque<Later> = VecDeque::new();
            for later in self.later.take() {
                let (client, seq) = (&later.pending.client, later.pending.seq);
                if client.gone().is_some() {
                    continue;
                }
                let is_write = later.pending.kind == PendingKind::Write && !mutant::is("overtaken-undoes");
                if is_write && client.status.astray.is_overtaken(seq) {
                    client.deliver(seq, say::SLOT_ON_ITS_WAY, true);
                } else if is_write && later.lane.owes_write_behind(client, seq)
                    || kept.iter().any(|kept| Rc::ptr_eq(&kept.pending.client, client))
                {
                    kept.push_back(later);
                } else {
                    self.send_to_owner(later.pending, &later.request, later.lane.key);
                }
            }
            let mut later = self.later.borrow_mut();
            // Whoever came meanwhile has begun to wait for itself.
            let is_alone = later.is_empty();
            later.extend(kept);
            if !is_alone || later.is_empty() {
                return;
            }
        }
    }

    /// It waits somewhere before it is sent on.
    fn goes_astray(&self, pending: &Pending, request: &[u8]) {
        pending.client.status.astray.add(pending.seq, &pending.stamps, || self.keys_of(request));
    }

    /// A command was answered. If it was a write, what its client said before it and waits may be overtaken.
    #[cold]
    pub(crate) fn note_executed(&self, lane: &Lane, pending: &Pending, request: &[u8]) {
        let astray = &pending.client.status.astray;
        if lane.in_cluster.get() && pending.kind == PendingKind::Write && !astray.is_empty() {
            astray.is_executed(pending.seq, &self.keys_of(request));
        }
    }

    fn keys_of(&self, request: &[u8]) -> Keys {
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let Ok(Scan::Command { .. }) = scanner.scan(request) else { return None };
        let request = scanner.request(request);
        let (commands, fences) = (self.shared.commands.load(), &self.shared.shard().fences);
        let (intent, mut keys) = (commands.table.classify(&request), Vec::new());
        let named =
            commands.table.for_each_key(intent.id, &request, &mut |key| keys.push(fences.digest(key)));
        let is_any = matches!(intent.access, Access::Unknown | Access::Write { keys: WriteKeys::Unknowable });
        (!is_any && named != Named::Unknowable).then_some(keys)
    }

    /// Sends it to whoever has its slot by now.
    pub(crate) fn send_to_owner(self: &Rc<Self>, pending: Pending, request: &[u8], key: LaneKey) {
        let owner = self.owner_of(request).unwrap_or(self.shard);
        self.send_to(owner, pending, request, key, false);
    }

    /// The cursor with which a scan of `all` keys goes on at the shard behind its own, if there is one.
    pub(crate) fn scan_goes_on(&self, all: bool) -> Option<u64> {
        let live = self.shared.cluster().filter(|_| all)?.live();
        let next = live.iter().find(|shard| **shard > self.shard)?;
        Some(Cursor::beginning_at(next.index() as u16))
    }

    /// The shard that a command's keys are at.
    pub(crate) fn owner_of(&self, request: &[u8]) -> Option<ShardIndex> {
        let cluster = self.shared.cluster()?;
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let Ok(Scan::Command { .. }) = scanner.scan(request) else { return None };
        let request = scanner.request(request);
        let commands = self.shared.commands.load();
        match about(&request, commands.table.classify(&request), &commands.table) {
            About::Slot { slot, .. } => cluster.place(slot).owner,
            About::Nothing | About::Several => None,
        }
    }
}
