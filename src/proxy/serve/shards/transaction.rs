//! A transaction of a client of a cluster: it is at one shard, that of the first command behind `MULTI` that names a key.

use bytes::BytesMut;

use super::Shards;
use super::parts::To;
use super::questions::hears_keyspace;
use super::sides::known;
use crate::config::KeylessScripts;
use crate::core::argv::Args as _;
use crate::core::command::{Access, Handling, Intent, Stateful};
use crate::core::moment::Moment;
use crate::core::slots::Floor;
use crate::core::slots::{About, HashSlot, ShardIndex, Spread};
use crate::proxy::downstream::joint::Combine;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::step::Step;
use crate::wire::request::{Request, RequestLimits, RequestScanner, Scan};
use crate::wire::say;

impl Shards {
    /// Whether it is a `WATCH`, and what is watched already is another shard's: no transaction can be about both.
    pub(super) fn watches_elsewhere(&self, connection: &Connection, intent: Intent, slot: HashSlot) -> bool {
        intent.handling == Handling::Pin(Stateful::Watch)
            && self.holder(connection).is_some_and(|holder| self.cluster.place(slot).owner != Some(holder))
    }

    /// In a transaction all is for its shard; what has its keys elsewhere, or would have to be done at every shard, is an error in
    /// queueing, as on the server.
    pub(super) fn queue(
        &mut self,
        connection: &mut Box<Connection>,
        (what, spread): (About, Spread),
        request: &Request<'_>,
        intent: Intent,
        now: Moment,
    ) -> Step {
        let refusal = match what {
            About::Slot { slot, .. } if self.is_elsewhere(what) && self.watched == Some(slot) => {
                Some(say::SLOT_ON_ITS_WAY)
            }
            _ if self.is_elsewhere(what) => Some(say::CROSSSLOT),
            About::Nothing => self.refusal_in_transaction(connection, spread, request),
            _ => None,
        };
        if let Some(error) = refusal {
            connection.poison_transaction();
            connection.client.answer(error);
            return Step::Done;
        }
        self.send(connection, To::Shard(self.current), request, intent, now)
    }

    /// What a command without keys is answered in a transaction, if it cannot be queued.
    pub(super) fn refusal_in_transaction(
        &self,
        connection: &Connection,
        spread: Spread,
        request: &Request<'_>,
    ) -> Option<&'static [u8]> {
        match spread {
            _ if self.is_of_all(spread) => Some(say::OF_ALL_SHARDS),
            _ if hears_keyspace(request) => Some(say::OF_ALL_SHARDS),
            Spread::AboutClusters => Some(say::NO_CLUSTER),
            Spread::Script if refuses_keyless(connection) && has_no_keys(request) => {
                Some(say::SCRIPT_WITHOUT_KEYS)
            }
            _ => None,
        }
    }

    /// The first command of a transaction, if it names no key, or too many. What names none waits for one that does; if none comes,
    /// or too much waits, the first shard has it all.
    pub(super) fn queue_first(
        &mut self,
        connection: &mut Box<Connection>,
        spread: Spread,
        request: &Request<'_>,
        (intent, is_stranger): (Intent, bool),
        now: Moment,
    ) -> Step {
        let several = matches!(spread, Spread::Elements | Spread::Sum | Spread::Writes | Spread::Nowhere);
        let refusal = self.refusal_in_transaction(connection, spread, request).filter(|_| !is_stranger);
        if !several && refusal.is_none() {
            let waits = spread == Spread::Anywhere
                && matches!(intent.handling, Handling::Shared | Handling::Operation)
                && intent.access != Access::Unknown
                && self.commands.table.arity(intent.id).allows(request.count())
                && !is_stranger
                && !request.is_partial()
                && self.queued.len() < MOST_QUEUED;
            if waits {
                let mut bytes = BytesMut::new();
                request.encode_into(&mut bytes);
                self.queued.push(bytes.to_vec());
                connection.client.answer(say::QUEUED);
                return Step::Done;
            }
            return self.keyless(connection, request, (intent, is_stranger), now);
        }
        if let Some(step) = self.switch(connection, ShardIndex::FIRST) {
            return step;
        }
        if let Some(step) = self.begin_transaction(connection, now) {
            return step;
        }
        connection.poison_transaction();
        connection.client.answer(refusal.unwrap_or(say::CROSSSLOT));
        Step::Done
    }

    /// Tells the shard of the `MULTI` that was answered already, and of what was queued behind it.
    pub(super) fn begin_transaction(
        &mut self,
        connection: &mut Box<Connection>,
        now: Moment,
    ) -> Option<Step> {
        const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
        if self.begins {
            if let Some(step) = self.tell(connection, MULTI, Combine::Silent, now) {
                return Some(step);
            }
            self.begins = false;
        }
        while let Some(bytes) = self.queued.first().cloned() {
            if !connection.client.has_room() {
                return Some(Step::Room);
            }
            // If it is wrong `EXEC` says so.
            if let Some(step) = self.tell(connection, &bytes, Combine::Unheard, now) {
                return Some(step);
            }
            self.queued.remove(0);
        }
        None
    }

    /// Sends what the client has been answered already.
    fn tell(
        &mut self,
        connection: &mut Box<Connection>,
        bytes: &[u8],
        combine: Combine,
        now: Moment,
    ) -> Option<Step> {
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let Ok(Scan::Command { .. }) = scanner.scan(bytes) else { return Some(Step::Close) };
        let request = scanner.request(bytes);
        let known = known(&mut self.sides, self.current, self.arrival, connection, now);
        let Some(known) = known else { return Some(Step::Close) };
        let (view, commands) = (&*known.view, &*known.commands);
        let intent = commands.table.classify(&request);
        let next = connection.client.next();
        connection.client.expect_parts(1, combine);
        connection.floor = Floor::NONE;
        let step = connection.dispatch(&request, intent, view, commands, now);
        if connection.client.next() == next {
            connection.client.expect_no_parts();
        }
        if !matches!(step, Step::Done) {
            return Some(step);
        }
        connection.waiting.is_done();
        None
    }
}

/// Commands without keys that wait for the first with one.
const MOST_QUEUED: usize = 64;

/// Whether scripts without keys are refused (`keyless-scripts`).
pub(super) fn refuses_keyless(connection: &Connection) -> bool {
    let config = connection.worker.shared.config();
    let keyless = config.upstream.cluster.as_ref().map(|cluster| cluster.keyless_scripts);
    keyless != Some(KeylessScripts::Any)
}

/// Whether a script says that it has none. If it says something else that is wrong, the server has the say.
pub(super) fn has_no_keys(request: &Request<'_>) -> bool {
    request.count() > 2 && request.arg(2) == b"0"
}
