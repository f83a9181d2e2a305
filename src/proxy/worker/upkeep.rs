//! What a worker looks after now and then: lanes that nobody uses, identities that the primary no longer accepts.
//!
//! A user that is deleted loses its connections on Redis. Here its lanes die; so a lane to the primary is kept for every
//! identity that a client acts as, and when it dies it is opened again at once. If the primary then refuses the
//! credentials, every client that acts as it is disconnected, idle or not, and logs in again as it would on Redis:
//! a connection that answers nothing but errors would stay in its pool for ever.

use std::rc::Rc;
use std::time::Duration;

use rustc_hash::FxHashSet;

use crate::core::moment::Moment;
use crate::core::repeat::PendingKind;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::proxy::downstream::replies::Gone;
use crate::proxy::upstream::lane::{Closed, Lane, LaneKey, Proto, Purpose};
use crate::proxy::upstream::pending::Pending;
use crate::proxy::worker::Worker;
use crate::shard::identity::IdentityId;

impl Worker {
    /// Runs as long as the worker.
    pub(crate) async fn look_after(self: Rc<Self>) {
        loop {
            tokio::time::sleep(limits::UPKEEP_EVERY).await;
            self.dismiss_revoked();
            self.watch_identities();
            let now = clock::now();
            self.close_unused_lanes(now);
            self.shares_reads.set(self.shared.config().proxy.share_reads);
            if self.is_first() {
                self.disconnect_idle_clients(now);
                self.admission.close_unneeded();
            }
            self.repeats.borrow_mut().note(now, self.stats.reads());
            self.give_up_stalled();
            self.inquiry.close_idle(now);
            self.shut_out.look(now);
        }
    }

    /// Asks idle lanes, now and then, as long as the worker runs.
    pub(crate) async fn check_idle_lanes(self: Rc<Self>) {
        loop {
            tokio::time::sleep(limits::IDLE_CHECK).await;
            let now = clock::now();
            for lane in self.lanes.to_check(now) {
                lane.push_bytes(PING, self.check(now));
            }
        }
    }

    fn check(&self, now: Moment) -> Pending {
        Pending::own(PendingKind::Check, 0, self.discard(), self.shard, now)
    }

    /// Clients leave that have said nothing for `timeout` (`timeout.c`, `clientsCronHandleTimeout`), or have not come to their
    /// first command within `client-handshake-timeout`.
    fn disconnect_idle_clients(&self, now: Moment) {
        let config = self.shared.config();
        let (timeout, handshake) = (config.proxy.timeout, config.proxy.client_handshake_timeout);
        drop(config);
        let clients = self.clients.borrow();
        for client in clients.values() {
            let status = &client.status;
            let (silent, since) = match status.command.get() {
                None => (handshake, status.anonymous_since.get()),
                Some(_) if status.relayed.get() || status.waits.get() => continue,
                Some(_) if status.busy.get() || !client.is_flushed() => {
                    // It waits for an answer, or takes its time with one: it is idle from then on.
                    status.seen.set(now);
                    continue;
                }
                Some(_) => (timeout, status.seen.get()),
            };
            if silent > Duration::ZERO && now.since(since) >= silent && !mutant::is("idle-for-ever") {
                self.stats.idle_clients.add(1);
                client.leave(Gone::Ended);
            }
        }
    }

    /// The identities that clients of this worker act as.
    fn identities_in_use(&self) -> FxHashSet<IdentityId> {
        let clients = self.clients.borrow();
        let identities = clients.values().map(|client| client.status.identity.get());
        identities.filter(|identity| *identity != IdentityId::ANONYMOUS).collect()
    }

    /// Has a lane to the primary for every identity in use.
    fn watch_identities(self: &Rc<Self>) {
        for identity in self.identities_in_use() {
            self.watch_identity(identity);
        }
    }

    /// Has a lane to the primary for this identity: it dies when the primary no longer knows the user.
    pub(crate) fn watch_identity(self: &Rc<Self>, identity: IdentityId) {
        let Some(node) = self.shared.shard().view.load().usable_primary(clock::now()) else { return };
        self.lane(LaneKey { node, identity, db: 0, proto: Proto::Resp2, purpose: Purpose::Ordinary });
    }

    /// A lane ended. If it was that of an identity in use, whether the primary still accepts it is found out at once.
    pub(crate) fn after_lane(self: &Rc<Self>, lane: &Lane, why: &Closed) {
        let Some(identity) = lane.identity.as_ref().filter(|_| self.is_primary(lane.key.node)) else {
            return;
        };
        if why.is_about_credentials() {
            identity.revoke();
            tracing::info!(
                "the primary refuses the user {}, which had logged in: its clients are disconnected",
                identity.user().escape_debug()
            );
            self.dismiss_revoked();
        } else if matches!(why, Closed::Broken(_)) && self.identities_in_use().contains(&identity.id) {
            self.lane(LaneKey { db: 0, proto: Proto::Resp2, ..lane.key });
        }
    }

    /// Disconnects the clients that act as somebody whom the primary has refused.
    fn dismiss_revoked(&self) {
        let refused =
            |id: &IdentityId| self.shared.identities.hold(*id).is_some_and(|known| known.is_revoked());
        if mutant::is("deleted-user-stays") {
            return;
        }
        let revoked: FxHashSet<IdentityId> = self.identities_in_use().into_iter().filter(refused).collect();
        let clients = self.clients.borrow();
        for client in clients.values().filter(|client| revoked.contains(&client.status.identity.get())) {
            client.end();
        }
    }

    /// Closes shared lanes that nobody uses, but for those that tell whether an identity is still accepted.
    fn close_unused_lanes(&self, now: Moment) {
        let watched = self.identities_in_use();
        self.lanes.close_unused(now, self.shared.lanes_unused, |key| {
            watched.contains(&key.identity)
                && key.db == 0
                && key.proto == Proto::Resp2
                && self.is_primary(key.node)
        });
    }
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
