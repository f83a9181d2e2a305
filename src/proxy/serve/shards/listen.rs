//! What a client of a cluster listens to: shard channels at whoever has their slots, keyspace events at every primary, all other channels
//! at one. With each shard that it listens to it has a relay of its own
//! ([`crate::proxy::session::exclusive::relayed`]); what they hear is put together in [`crate::proxy::downstream::channels`].
//!
//! One command is answered before the next is said, so that its client hears of each in order. What has lost its server, because
//! its slot has moved or a shard has come, is asked for anew by the client's task.

use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::BytesMut;

use super::Shards;
use super::parts::{Part, To};
use crate::core::argv::Args as _;
use crate::core::command::{Handling, Intent, Local, Stateful};
use crate::core::moment::Moment;
use crate::core::plan::{Admittance, Hold};
use crate::core::slots::{Expected, HashSlot, ShardIndex};
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::proxy::downstream::channels::Channels;
use crate::proxy::downstream::replies::Client;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::pin::Pin;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::shard::cluster::Cluster;
use crate::wire::request::{Request, RequestLimits, RequestScanner, Scan};
use crate::wire::say;

/// Whether a command begins or ends a subscription.
pub(super) fn listens(intent: Intent) -> bool {
    matches!(intent.handling, Handling::Pin(Stateful::Subscribe | Stateful::Unsubscribe))
}

impl Shards {
    /// A command that begins or ends a subscription.
    pub(super) fn listen(
        &mut self,
        connection: &mut Box<Connection>,
        request: &Request<'_>,
        intent: Intent,
        now: Moment,
    ) -> Step {
        if !connection.client.is_drained() {
            return Step::Drain;
        }
        if connection.is_unauthenticated() {
            let view = connection.worker.shared.shard().view.load_full();
            match connection.admit(request, intent, &view, now) {
                Ok(Admittance::Admitted) => {}
                Ok(_) => return self.send(connection, To::Shard(ShardIndex::FIRST), request, intent, now),
                Err(step) => return step,
            }
        }
        let main = connection.client.status.channels.borrow().main;
        let main = main.or_else(|| self.holder(connection));
        let parts = self.parts_of(connection, main, request, intent);
        self.begin_listening(connection, parts, now)
    }

    fn begin_listening(
        &mut self,
        connection: &mut Box<Connection>,
        parts: VecDeque<Part>,
        now: Moment,
    ) -> Step {
        (self.parts, self.joins, self.listens) = (Some(parts), false, true);
        connection.await_relay();
        self.go_on(connection, now)
    }

    /// Whom the command is said to, and in what words.
    fn parts_of(
        &self,
        connection: &Connection,
        main: Option<ShardIndex>,
        request: &Request<'_>,
        intent: Intent,
    ) -> VecDeque<Part> {
        let at_main = To::Shard(main.unwrap_or(ShardIndex::FIRST));
        let whole = || {
            let mut bytes = BytesMut::new();
            request.encode_into(&mut bytes);
            Part { to: at_main, bytes: bytes.to_vec() }
        };
        let names = || (1..request.count()).map(|at| request.arg(at).to_vec()).collect::<Vec<_>>();
        let client = &connection.client;
        let mut channels = client.status.channels.borrow_mut();
        let mut parts = VecDeque::new();
        match self.commands.table.name(intent.id) {
            "ssubscribe" if request.count() > 1 => return by_slot(names()),
            "sunsubscribe" => {
                let mut slots: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
                let (heard, told) =
                    channels.leave((request.count() > 1).then(names), connection.who.is_resp3());
                for (at, channel) in heard {
                    slots.entry((at, HashSlot::of(&channel))).or_default().push(channel);
                }
                drop(channels);
                if !told.is_empty() {
                    connection.say(&told);
                }
                parts.extend(slots.iter().map(|((at, _), names)| Part {
                    to: To::Shard(*at),
                    bytes: said(b"SUNSUBSCRIBE", names),
                }));
            }
            name @ ("subscribe" | "psubscribe") => {
                parts.push_back(whole());
                let pattern = name == "psubscribe";
                let of_all: Vec<_> =
                    names().into_iter().filter(|name| channels.subscribe(pattern, name)).collect();
                if !of_all.is_empty() {
                    let is_first = channels.keyspace_at.is_empty();
                    channels.keyspace_at.extend(self.cluster.live().iter());
                    parts.extend(
                        self.others(main)
                            .map(|shard| Part { to: To::Shard(shard), bytes: said(request.arg(0), &of_all) }),
                    );
                    if is_first {
                        self.expect_shards(client);
                    }
                }
            }
            name @ ("unsubscribe" | "punsubscribe") => {
                parts.push_back(whole());
                let pattern = name == "punsubscribe";
                let heard = channels.keyspace(pattern);
                if request.count() == 1 {
                    channels.unsubscribe(pattern, None);
                }
                for name in names() {
                    channels.unsubscribe(pattern, Some(&name));
                }
                let still = channels.keyspace(pattern);
                let left: Vec<_> = heard.into_iter().filter(|name| !still.contains(name)).collect();
                if !left.is_empty() {
                    let part = |shard| Part { to: To::Shard(shard), bytes: said(request.arg(0), &left) };
                    parts.extend(self.others(main).map(part));
                }
            }
            _ => parts.push_back(whole()),
        }
        parts
    }

    /// The shards but the one at which all is said.
    fn others(&self, main: Option<ShardIndex>) -> impl Iterator<Item = ShardIndex> {
        let main = main.unwrap_or(ShardIndex::FIRST);
        let live = self.cluster.live();
        (0..live.len()).filter_map(move |at| live.get(at).copied()).filter(move |shard| *shard != main)
    }

    /// Looks after shards that come while a client hears keyspace events.
    fn expect_shards(&self, client: &Rc<Client>) {
        let (client, cluster) = (Rc::downgrade(client), Arc::clone(&self.cluster));
        task::spawn_local("keyspace events", expect_shards(client, cluster));
    }

    /// Something is about to be said of these.
    pub(super) fn announce(&self, connection: &Connection, bytes: &[u8]) {
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let Ok(Scan::Command { .. }) = scanner.scan(bytes) else { return };
        let request = scanner.request(bytes);
        let subscribes = request.arg(0).eq_ignore_ascii_case(b"ssubscribe");
        let names = (1..request.count()).filter(|_| subscribes).map(|at| request.arg(at).to_vec()).collect();
        connection.client.status.channels.borrow_mut().ask(names, !self.again);
    }

    /// All of it is said and answered: what comes next is for the shard at which all is said.
    pub(super) fn end_listening(&mut self, connection: &mut Box<Connection>) -> Step {
        connection.client.status.channels.borrow_mut().ask(Vec::new(), true);
        let main = connection.client.status.channels.borrow().main;
        if let Some(step) = main.and_then(|main| self.switch(connection, main)) {
            return step;
        }
        if let Some(pin) = connection.pin.as_ref().filter(|pin| pin.raw) {
            connection.client.status.pin(pin.lane.server_id(), connection.worker.shard);
        }
        self.listens = false;
        Step::Done
    }

    /// Whoever hears nothing of other shards needs no relay to them.
    pub(super) fn hang_up_others(&mut self, connection: &Connection, intent: Intent) {
        let ends = matches!(intent.handling, Handling::Local(Local::Reset));
        let mut channels = connection.client.status.channels.borrow_mut();
        if ends {
            *channels = Channels::at(channels.main);
        } else if channels.hears_others() {
            return;
        }
        drop(channels);
        let is_relay = |other: &&mut Box<Connection>| other.pin.as_ref().is_some_and(|pin| pin.raw);
        let others = self.sides.iter_mut().filter_map(|side| side.connection.as_mut()).filter(is_relay);
        let mut any = false;
        others.for_each(|other| {
            other.release_pin(false);
            any = true;
        });
        if let Some(pin) = connection.pin.as_ref().filter(|pin| any && pin.raw) {
            connection.client.status.pin(pin.lane.server_id(), connection.worker.shard);
            connection.client.status.relayed.set(true);
        }
    }

    /// What has lost its server is asked for anew. `Some`: not yet, or not all of it.
    pub(super) fn renew(&mut self, connection: &mut Box<Connection>, now: Moment) -> Option<Step> {
        let at = connection.client.status.renews.get()?;
        if self.parts.is_some() || self.again {
            return None;
        }
        if now < at {
            return Some(connection.wait(On::View, at.since(now), now));
        }
        connection.waiting.end();
        connection.client.status.renews.set(None);
        self.cluster.look();
        let parts = {
            let client = Rc::clone(&connection.client);
            let mut channels = client.status.channels.borrow_mut();
            let lost = channels.lost();
            let has_owner = |channel: &Vec<u8>| self.cluster.place(HashSlot::of(channel)).owner.is_some();
            let hold = connection.worker.shared.shard().view.load().hold;
            if !lost.is_empty() && now.since(channels.lost_since(now)) >= hold {
                client.push_raw(&channels.give_up(connection.who.is_resp3()));
            } else if !lost.iter().all(has_owner) {
                client.status.renews.set(Some(now.after(limits::RENEW_AFTER)));
            }
            let lost = channels.lost().into_iter().filter(has_owner).collect();
            let mut parts = by_slot(lost);
            let live = self.cluster.live();
            let heard = |shard: &&ShardIndex| channels.keyspace_at.contains(shard);
            let come: Vec<ShardIndex> = live.iter().filter(|shard| !heard(shard)).copied().collect();
            if channels.hears_keyspace() {
                for shard in come {
                    channels.keyspace_at.insert(shard);
                    for (pattern, word) in [(false, &b"SUBSCRIBE"[..]), (true, b"PSUBSCRIBE")] {
                        let names = channels.keyspace(pattern);
                        if !names.is_empty() {
                            parts.push_back(Part { to: To::Shard(shard), bytes: said(word, &names) });
                        }
                    }
                }
            }
            parts
        };
        if parts.is_empty() {
            return None;
        }
        self.again = true;
        match self.begin_listening(connection, parts, now) {
            Step::Done => {
                self.again = false;
                None
            }
            other => Some(other),
        }
    }

    /// Whether its client listens, so that what begins or ends a subscription is for several shards perhaps.
    pub(super) fn may_listen(&self, connection: &Connection, hold: Hold, request: &Request<'_>) -> bool {
        let is_plain = |pin: &Pin| !pin.ending && !pin.is_to_be_raw() && !pin.lane.relays_transaction();
        let is_plain = connection.pin.as_ref().is_none_or(is_plain);
        hold != Hold::Transaction && !self.begins && is_plain && !request.is_partial()
    }
}

/// Shard channels slot by slot, in the order in which they are named.
fn by_slot(names: Vec<Vec<u8>>) -> VecDeque<Part> {
    let mut slots: Vec<(HashSlot, Vec<Vec<u8>>)> = Vec::new();
    for name in names {
        let slot = HashSlot::of(&name);
        match slots.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, names)) => names.push(name),
            None => slots.push((slot, vec![name])),
        }
    }
    let part = |(slot, names): (HashSlot, Vec<Vec<u8>>)| Part {
        to: To::Slot { slot, expected: Expected::Unseen },
        bytes: said(b"SSUBSCRIBE", &names),
    };
    slots.into_iter().map(part).collect()
}

fn said(word: &[u8], names: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let words: Vec<&[u8]> = std::iter::once(word).chain(names.iter().map(Vec::as_slice)).collect();
    say::command(&mut bytes, &words);
    bytes.to_vec()
}

/// Tells the task of a client that hears keyspace events when there is a shard that it does not hear.
async fn expect_shards(client: Weak<Client>, cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(limits::SHARDS_EVERY).await;
        let Some(client) = client.upgrade().filter(|client| client.gone().is_none()) else { return };
        let has_come = {
            let channels = client.status.channels.borrow();
            if !channels.hears_keyspace() {
                return;
            }
            cluster.live().iter().any(|shard| !channels.keyspace_at.contains(shard))
        };
        if has_come {
            client.renews_channels(false);
        }
    }
}
