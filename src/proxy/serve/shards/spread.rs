//! A command that is about several slots, or about none: whom it is put to, whole or in parts.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::parts::{Part, To, by_slot, key_part, silences_or_tracks};
use super::transaction::{has_no_keys, refuses_keyless};
use super::{Shards, cross_slot, unserved};
use crate::config::PresentAs;
use crate::core::argv::Args as _;
use crate::core::command::{Handling, Intent, Local, Stateful};
use crate::core::cursor::Cursor;
use crate::core::moment::Moment;
use crate::core::plan::{Admittance, needs_admission, owner};
use crate::core::slots::{HASH_SLOTS, HashSlot, ShardIndex, Spread};
use crate::proxy::downstream::joint::Combine;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::step::Step;
use crate::wire::cluster::presented::Presented;
use crate::wire::request::{Request, RequestLimits, RequestScanner, Scan};
use crate::wire::say;

impl Shards {
    /// A command that is about several slots, or about none.
    pub(super) fn spread(
        &mut self,
        connection: &mut Box<Connection>,
        spread: Spread,
        request: &Request<'_>,
        intent: Intent,
        now: Moment,
    ) -> Step {
        if connection.is_unauthenticated() && self.holder(connection).is_none() {
            let any = self.any(now);
            if let Some(step) = self.switch(connection, any) {
                return step;
            }
        }
        let own = match is_let_in(connection, request, intent, now) {
            Ok(is_let_in) => !is_let_in,
            Err(step) => return step,
        };
        if !own && spread == Spread::OfOneServer && silences_or_tracks(request) {
            connection.client.answer(say::NOT_IN_CLUSTER);
            return Step::Done;
        }
        if self.begins {
            return self.queue_first(connection, spread, request, (intent, own), now);
        }
        match spread {
            Spread::AboutClusters if !own => {
                connection.client.answer(&self.about_clusters(connection, request));
                Step::Done
            }
            Spread::Script if !own && refuses_keyless(connection) && has_no_keys(request) => {
                connection.client.answer(say::SCRIPT_WITHOUT_KEYS);
                Step::Done
            }
            Spread::Anywhere
                if !own && intent.handling == Handling::Local(Local::Info) && shows_keyspace(request) =>
            {
                let parts = self.everywhere(request, Some(self.any(now)));
                self.begin(connection, parts, Combine::Keyspace, now)
            }
            Spread::Anywhere | Spread::AboutClusters | Spread::OfOneServer | Spread::Script => {
                self.keyless(connection, request, (intent, own), now)
            }
            Spread::Random => {
                let mut parts = self.everywhere(request, self.of_some_slot(connection));
                // One answer is enough.
                let is_there =
                    |part: &Part| matches!(part.to, To::Shard(shard) if self.has_primary(shard, now));
                if parts.iter().any(is_there) {
                    parts.retain(is_there);
                }
                self.begin(connection, parts, Combine::Present, now)
            }
            Spread::Turns => self.scan(connection, request, intent, now),
            // As the server would, which looks at the slots before it looks at that.
            Spread::Writes if request.count().is_multiple_of(2) => {
                connection.client.answer(&say::wrong_arity("mset"));
                Step::Done
            }
            Spread::Writes if !splits_writes(connection) => cross_slot(connection),
            Spread::Nowhere => cross_slot(connection),
            Spread::Elements => self.split(connection, Combine::Concatenated, request, now),
            Spread::Sum => self.begin(connection, by_slot(request, 1), Combine::Sum, now),
            Spread::Writes => self.begin(connection, by_slot(request, 2), Combine::Last, now),
            Spread::SumOfAll => self.begin_everywhere(connection, request, Combine::Sum, now),
            Spread::ListOfAll => self.begin_everywhere(connection, request, Combine::Concatenated, now),
            Spread::All => self.begin_everywhere(connection, request, Combine::Last, now),
            Spread::LeastOfAll => self.begin_everywhere(connection, request, Combine::Least, now),
            Spread::DistinctOfAll => self.begin_everywhere(connection, request, Combine::Distinct, now),
            Spread::AddedOfAll => self.begin_everywhere(connection, request, Combine::Added, now),
            Spread::MostOfAll => self.begin_everywhere(connection, request, Combine::Most, now),
            Spread::AnyOfAll => self.begin_everywhere(connection, request, Combine::Any, now),
        }
    }

    /// What a client is told of the cluster: that there is none, or that it is one node.
    fn about_clusters(&self, connection: &Connection, request: &Request<'_>) -> Vec<u8> {
        let shared = &connection.worker.shared;
        if shared.presented_as() == PresentAs::Standalone {
            return say::NO_CLUSTER.to_vec();
        }
        let local = shared.clients.get(&connection.client.id).map(|entry| entry.local.clone());
        let shown = Presented { name: &self.cluster.name, address: &local.unwrap_or_default() };
        shown.answer(request, connection.who.is_resp3())
    }

    /// A command whose keys are in one slot, some of which may be at its next owner already: no primary has all of them.
    pub(super) fn split(
        &mut self,
        connection: &mut Box<Connection>,
        combine: Combine,
        request: &Request<'_>,
        now: Moment,
    ) -> Step {
        let parts = (1..request.count()).map(|at| key_part(request, &[at], at)).collect();
        self.begin(connection, parts, combine, now)
    }

    /// A command that any primary answers: the one that holds the client's state, else the first.
    pub(super) fn keyless(
        &mut self,
        connection: &mut Box<Connection>,
        request: &Request<'_>,
        (intent, is_stranger): (Intent, bool),
        now: Moment,
    ) -> Step {
        let begins = intent.handling == Handling::Pin(Stateful::Multi) && request.count() == 1;
        let holder = self.holder(connection);
        if begins && holder.is_none() && !self.begins && !is_stranger {
            connection.client.answer(say::OK);
            self.begins = true;
            return Step::Done;
        }
        let to = To::Shard(holder.unwrap_or_else(|| self.any(now)));
        let step = self.send(connection, to, request, intent, now);
        if intent.handling == Handling::Local(Local::Reset) && matches!(step, Step::Done) {
            let others = self.sides.iter_mut().filter_map(|side| side.connection.as_mut());
            others.for_each(|other| other.release_pin(false));
        }
        step
    }

    /// One shard after the other. Which one it is stands in the cursor.
    pub(super) fn scan(
        &mut self,
        connection: &mut Box<Connection>,
        request: &Request<'_>,
        intent: Intent,
        now: Moment,
    ) -> Step {
        let live = self.cluster.live();
        let first = live.first().copied().unwrap_or(ShardIndex::FIRST);
        let cursor = Cursor::parse(request.arg(1));
        if let Some(shard) = cursor.and_then(Cursor::begins_at).and_then(ShardIndex::new) {
            let bytes = say::with_argument(request, 1, b"0");
            return self.begin_one(connection, Part { to: To::Shard(shard), bytes }, now);
        }
        let shard = match cursor {
            Some(Cursor::Of { tag, .. }) => {
                let of = |shard: &&ShardIndex| {
                    let shared = self.cluster.shard(**shard);
                    shared.is_some_and(|shared| owner(&shared.shard().view.load(), tag).is_some())
                };
                live.iter().find(of).copied().unwrap_or(first)
            }
            _ => first,
        };
        self.send(connection, To::Shard(shard), request, intent, now)
    }

    pub(super) fn begin_everywhere(
        &mut self,
        connection: &mut Box<Connection>,
        request: &Request<'_>,
        combine: Combine,
        now: Moment,
    ) -> Step {
        let parts = self.everywhere(request, None);
        self.begin(connection, parts, combine, now)
    }

    /// The command for each primary, this one first.
    fn everywhere(&self, request: &Request<'_>, first: Option<ShardIndex>) -> VecDeque<Part> {
        let mut bytes = BytesMut::new();
        request.encode_into(&mut bytes);
        let part = |shard: &ShardIndex| Part { to: To::Shard(*shard), bytes: bytes.to_vec() };
        let live = self.cluster.live();
        let (some, others): (Vec<_>, Vec<_>) = live.iter().partition(|shard| Some(**shard) == first);
        some.into_iter().chain(others).map(part).collect()
    }

    /// The shard that has one of the slots, whichever: who has more of them has more of the keys.
    fn of_some_slot(&self, connection: &Connection) -> Option<ShardIndex> {
        let slot = HashSlot::new((connection.worker.roll() % u32::from(HASH_SLOTS)) as u16)?;
        self.cluster.place(slot).owner
    }

    /// Begins with the parts of a command.
    pub(super) fn begin(
        &mut self,
        connection: &mut Box<Connection>,
        parts: VecDeque<Part>,
        combine: Combine,
        now: Moment,
    ) -> Step {
        if parts.is_empty() {
            return unserved(connection, now);
        }
        connection.client.expect_parts(parts.len(), combine);
        (self.parts, self.joins) = (Some(parts), true);
        self.go_on(connection, now)
    }

    /// With a command that is sent in other words.
    pub(super) fn begin_one(&mut self, connection: &mut Box<Connection>, part: Part, now: Moment) -> Step {
        (self.parts, self.joins) = (Some(VecDeque::from([part])), false);
        self.go_on(connection, now)
    }

    pub(super) fn go_on(&mut self, connection: &mut Box<Connection>, now: Moment) -> Step {
        while let Some(part) = self.parts.as_mut().and_then(VecDeque::pop_front) {
            if !connection.client.has_room() {
                self.put_back(part);
                return Step::Room;
            }
            let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
            let Ok(Scan::Command { .. }) = scanner.scan(&part.bytes) else { return Step::Close };
            let request = scanner.request(&part.bytes);
            let intent = self.commands.table.classify(&request);
            match self.send(connection, part.to, &request, intent, now) {
                Step::Done => connection.waiting.is_done(),
                other => {
                    self.put_back(part);
                    return other;
                }
            }
        }
        (self.parts, self.joins) = (None, false);
        Step::Done
    }

    pub(super) fn put_back(&mut self, part: Part) {
        if let Some(parts) = &mut self.parts {
            parts.push_front(part);
        }
    }
}

/// Whether `MSET` is executed slot by slot (`split-writes`).
fn splits_writes(connection: &Connection) -> bool {
    connection.worker.shared.config().upstream.cluster.as_ref().is_some_and(|cluster| cluster.split_writes)
}

/// Whether an `INFO` asks for the number of keys, of which each primary has some. Without that word it is what clients ask for when
/// they connect, and has to be answered while any shard has no primary.
fn shows_keyspace(request: &Request<'_>) -> bool {
    (1..request.count()).any(|at| request.arg(at).eq_ignore_ascii_case(b"keyspace"))
}

/// Whether Redweir may answer its client something in the servers' stead: if not, these have the say. `Err`: not yet.
fn is_let_in(
    connection: &mut Connection,
    request: &Request<'_>,
    intent: Intent,
    now: Moment,
) -> Result<bool, Step> {
    if !connection.is_unauthenticated() {
        return Ok(true);
    }
    let view = connection.worker.shared.shard().view.load_full();
    Ok(connection.admit(request, intent, &view, now)? == Admittance::Admitted && needs_admission(intent))
}
