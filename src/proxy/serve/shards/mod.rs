//! A client of a cluster: which shard each of its commands goes to.
//!
//! What the client is and has on its way is its own; what it has to do with a shard has a [`Connection`] for each, of which one
//! is the present. Replies come in the client's order, whichever shard they are of, because all have one queue. When the map of the
//! slots changes, what is on its way is waited for: two commands about one key never overtake each other on two lanes.
//!
//! What is about several slots is asked in parts ([`crate::proxy::downstream::joint`]): each is a command like any other, and only
//! what was not executed is asked again. Keys of one command that is atomic on one server have to be in one slot, as on a
//! cluster. `MULTI` is answered here; the transaction begins at the shard of the first command behind it.

mod again;
mod listen;
mod one_key;
mod parts;
mod questions;
mod sides;
mod spread;
mod transaction;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;

use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Handling, Intent, Stateful};
use crate::core::moment::Moment;
use crate::core::plan::Hold;
use crate::core::slots::Floor;
use crate::core::slots::{About, Expected, HashSlot, ShardIndex, SlotState, Spread, about, spread};
use crate::mutant;
use crate::proxy::downstream::joint::Combine;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::pin::Pin;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::shard::cluster::Cluster;
use crate::shard::snapshot::InForce;
use crate::wire::request::Request;
use crate::wire::say;
use parts::{Part, To, about_beginning, silences_or_tracks};
use questions::{Listening, listens};
use sides::{Side, known, note};

/// What a client has with the shards.
pub(super) struct Shards {
    cluster: Arc<Cluster>,
    sides: Vec<Side>,
    current: ShardIndex,
    /// The map under which what is on its way was sent.
    generation: u64,
    /// Counts arrivals: what a shard knows is looked at anew with each.
    arrival: u64,
    /// By which the commands of the present one are what they are said to be.
    commands: Arc<Commands>,
    /// What is left of the present command …
    parts: Option<VecDeque<Part>>,
    /// … whose parts have one reply.
    joins: bool,
    /// These begin or end subscriptions: each is answered before the next is sent.
    listening: Option<Listening>,
    postponed: bool,
    /// `MULTI` was said, and answered, and no server has heard of it yet …
    begins: bool,
    /// … nor of these, which name no key, and were answered that they are queued.
    queued: Vec<Vec<u8>>,
    /// The slot of what was watched last.
    watched: Option<HashSlot>,
    /// The last command that may be asked again (it blocks, or is a `WATCH`), and since when it waits.
    blocks: Option<(Vec<u8>, Moment)>,
    /// That is being asked again.
    again: bool,
}

impl Shards {
    /// Of a client that has just come, and is with the first.
    pub(super) fn new(cluster: &Arc<Cluster>, commands: Arc<Commands>) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            sides: Vec::new(),
            current: ShardIndex::FIRST,
            generation: cluster.generation(),
            arrival: 0,
            commands,
            parts: None,
            joins: false,
            listening: None,
            postponed: false,
            begins: false,
            queued: Vec::new(),
            watched: None,
            blocks: None,
            again: false,
        }
    }

    /// Bytes have arrived, or what a command has waited for has happened. `Some`: what was said before is not through.
    /// `known` is what the present shard knows.
    pub(super) fn look_anew(
        &mut self,
        connection: &mut Box<Connection>,
        known: &InForce,
        now: Moment,
    ) -> Option<Step> {
        self.arrival += 1;
        if !Arc::ptr_eq(&self.commands, &known.commands) {
            self.commands = Arc::clone(&known.commands);
        }
        note(&mut self.sides, self.current, known, self.arrival);
        if let Some(step) = self.begin_again(connection, now) {
            return Some(step);
        }
        if let Some(step) = self.renew(connection, now) {
            return Some(step);
        }
        if !self.again {
            return None;
        }
        match self.go_on(connection, now) {
            Step::Done => {
                self.again = false;
                None
            }
            other => Some(other),
        }
    }

    /// The client is gone: gives up what was its own at the others.
    pub(super) fn close(&mut self) {
        self.sides.iter_mut().filter_map(|side| side.connection.as_mut()).for_each(|side| side.close());
    }

    /// Sends a command where it belongs, which is what `intent` says by these `commands`, which were looked at last.
    pub(super) fn dispatch(
        &mut self,
        connection: &mut Box<Connection>,
        request: &Request<'_>,
        intent: Intent,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        if let Some(step) = self.follow(connection, request, intent, commands, now) {
            return step;
        }
        let generation = self.cluster.generation();
        let is_astray = || !connection.client.status.astray.is_empty();
        if generation != self.generation || is_astray() {
            if !connection.client.is_drained() {
                return Step::Drain;
            }
            self.generation = generation;
            connection.client.status.astray.clear();
        }
        if self.listening.is_some() {
            return self.go_on_listening(connection, now);
        }
        if self.parts.is_some() {
            return self.go_on(connection, now);
        }
        let hold = connection.pin.as_ref().map_or(Hold::Nothing, Pin::hold);
        let what = if request.is_partial() {
            about_beginning(request, intent, commands)
        } else {
            about(request, intent, &commands.table)
        };
        if listens(intent) && self.may_listen(connection, hold, request) {
            return self.listen(connection, request, intent, now);
        }
        let hold = if hold == Hold::Relay {
            match self.relay(connection, what, (request, intent), commands, now) {
                Ok(true) => return self.send(connection, To::Shard(self.current), request, intent, now),
                Ok(false) => connection.pin.as_ref().map_or(Hold::Nothing, Pin::hold),
                Err(step) => return step,
            }
        } else {
            hold
        };
        if hold == Hold::Transaction {
            let spread = spread(intent, &commands.table, what == About::Several);
            return self.queue(connection, (what, spread), request, intent, now);
        }
        match what {
            About::Slot { slot, .. } if self.watches_elsewhere(connection, intent, slot) => {
                cross_slot(connection)
            }
            About::Slot { slot, .. }
                if self.cluster.place(slot).state == SlotState::Moving
                    && hold == Hold::Nothing
                    && !self.begins
                    && !request.is_partial()
                    && !connection.is_unauthenticated()
                    && let Some(combine) = by_key(spread(intent, &commands.table, true)) =>
            {
                self.split(connection, combine, request, now)
            }
            About::Slot { slot, expected } => {
                if intent.handling == Handling::Pin(Stateful::Watch) {
                    self.watched = Some(slot);
                }
                let to = To::Slot { slot, expected };
                self.send(connection, to, request, intent, now)
            }
            About::Several | About::Nothing => {
                let spread = spread(intent, &commands.table, what == About::Several);
                self.spread(connection, spread, request, intent, now)
            }
        }
    }

    /// Whether keys are at another shard than the present one.
    fn is_elsewhere(&self, what: About) -> bool {
        match what {
            About::Slot { slot, .. } => {
                self.cluster.place(slot).owner.is_some_and(|owner| owner != self.current)
            }
            About::Several => true,
            About::Nothing => false,
        }
    }

    /// Whether a command goes to the shard that its client is subscribed at. `Ok(false)`: it is subscribed to nothing any longer, and
    /// its commands go their own ways.
    fn relay(
        &mut self,
        connection: &mut Connection,
        what: About,
        (request, intent): (&Request<'_>, Intent),
        commands: &Commands,
        now: Moment,
    ) -> Result<bool, Step> {
        self.take_up_again(connection, now);
        if self.is_refused_as_listener(connection, request, intent) {
            return Err(Step::Done);
        }
        self.hang_up_others(connection);
        let spread = spread(intent, &commands.table, false);
        if spread == Spread::OfOneServer && silences_or_tracks(request) {
            connection.say(say::NOT_IN_CLUSTER);
            return Err(Step::Done);
        }
        let is_of_all = what == About::Nothing && self.is_of_all(spread);
        if !is_of_all && !self.is_elsewhere(what) {
            return Ok(true);
        }
        if let Some(step) = connection.return_from_relay(intent) {
            return Err(step);
        }
        if connection.pin.as_ref().is_some_and(|pin| pin.hold() == Hold::Relay) {
            connection.say(if is_of_all { say::OF_ALL_SHARDS } else { say::CROSSSLOT });
            return Err(Step::Done);
        }
        Ok(false)
    }

    /// Whether several shards have a part in it.
    fn is_of_all(&self, spread: Spread) -> bool {
        spread.is_of_all() && self.cluster.live().len() > 1 && !mutant::is("one-shard-for-all")
    }

    /// Whether the primary of this shard may be asked at once.
    fn has_primary(&self, shard: ShardIndex, now: Moment) -> bool {
        let shared = self.cluster.shard(shard);
        shared.is_some_and(|shared| shared.shard().view.load().usable_primary(now).is_some())
    }

    /// A shard whose primary may be asked at once, if there is one: the first.
    fn any(&self, now: Moment) -> ShardIndex {
        if self.has_primary(ShardIndex::FIRST, now) {
            return ShardIndex::FIRST;
        }
        let live = self.cluster.live();
        live.iter().find(|shard| self.has_primary(**shard, now)).copied().unwrap_or(ShardIndex::FIRST)
    }

    /// The shard whose primary holds state of the client.
    fn holder(&self, connection: &Connection) -> Option<ShardIndex> {
        let holds =
            |connection: &Connection| connection.pin.as_ref().is_some_and(|pin| pin.hold() >= Hold::State);
        if holds(connection) {
            return Some(self.current);
        }
        let at =
            self.sides.iter().position(|side| side.connection.as_ref().is_some_and(|other| holds(other)))?;
        ShardIndex::new(at)
    }

    /// Sends a command, or a part of one, to its shard.
    fn send(
        &mut self,
        connection: &mut Box<Connection>,
        to: To,
        request: &Request<'_>,
        intent: Intent,
        now: Moment,
    ) -> Step {
        let mut map = 0;
        let (shard, place) = match to {
            To::Shard(shard) | To::Asking(shard) => (shard, None),
            To::Slot { slot, expected } => {
                map = self.cluster.generation();
                let place = self.cluster.place(slot);
                let Some(owner) = place.owner else { return unserved(connection, now) };
                (owner, Some((slot, place, expected)))
            }
        };
        if let Some(step) = self.switch(connection, shard) {
            return step;
        }
        if (self.begins || !self.queued.is_empty())
            && let Some(step) = self.begin_transaction(connection, now)
        {
            return step;
        }
        let Some(known) = known(&mut self.sides, self.current, self.arrival, connection, now) else {
            return Step::Close;
        };
        let (view, commands) = (&*known.view, &*known.commands);
        let intent =
            if commands.version == self.commands.version { intent } else { commands.table.classify(request) };
        let cached = connection.routing.fast_path().and_then(|fast_path| fast_path.read);
        let likely = cached.map(|cached| cached.applied);
        connection.floor = match place {
            _ if intent.access != Access::Read => Floor::NONE,
            None | Some((_, _, Expected::Unseen)) => Floor::PRIMARY,
            Some((slot, place, _)) => {
                self.cluster.floor((slot, place), &connection.worker.shared, view, likely)
            }
        };
        connection.expected = place.map_or(Expected::Unseen, |(_, _, expected)| expected);
        connection.map = map;
        let is_met = likely.is_none_or(|applied| connection.floor.is_met_by(applied));
        if self.parts.is_some() || !is_met {
            connection.routing.follow(None);
        }
        if !matches!(intent.handling, Handling::Pin(Stateful::Blocking | Stateful::Watch)) {
            return connection.dispatch(request, intent, view, commands, now);
        }
        connection.asking = matches!(to, To::Asking(_));
        let step = connection.dispatch(request, intent, view, commands, now);
        if request.is_partial() {
            self.blocks = None;
        } else if matches!(step, Step::Done) && !self.again {
            connection.client.status.refused.set(None);
            let mut bytes = BytesMut::new();
            request.encode_into(&mut bytes);
            self.blocks = Some((bytes.to_vec(), now));
        }
        step
    }

    /// Is with this shard from now on, unless something has to be waited for first.
    fn switch(&mut self, connection: &mut Box<Connection>, to: ShardIndex) -> Option<Step> {
        if to == self.current {
            return None;
        }
        if connection.pin.as_ref().is_some_and(|pin| pin.hold() == Hold::Nothing) {
            // Its state is gone; once the last reply is there, the connection is given back.
            if !connection.client.is_drained() {
                return Some(Step::Drain);
            }
            connection.release_pin(true);
        }
        let most = to.index().max(self.current.index()) + 1;
        if self.sides.len() < most {
            self.sides.resize_with(most, Side::default);
        }
        let side = self.sides.get_mut(to.index())?;
        let mut next = match side.connection.take() {
            Some(known) => known,
            None => match connection.worker.peer(to) {
                Some(worker) => Box::new(connection.beside(worker)),
                None => return Some(Step::Close),
            },
        };
        next.follow_who(&connection.who);
        connection.waiting.is_done();
        next.waiting.arrive_as(&connection.waiting);
        std::mem::swap(connection, &mut next);
        if let Some(left) = self.sides.get_mut(self.current.index()) {
            left.connection = Some(next);
        }
        self.current = to;
        None
    }
}

/// Nobody is known to have the slot: it is waited for, as for a primary.
fn unserved(connection: &mut Connection, now: Moment) -> Step {
    let hold = connection.worker.shared.shard().view.load().hold;
    if connection.waiting.for_primary(now) >= hold {
        // Nor does what has arrived with it wait for as long, nor the other parts of it.
        connection.waiting.give_up_on_primary();
        connection.waiting.end();
        connection.client.answer(say::SLOT_NOT_SERVED);
        return Step::Done;
    }
    connection.wait(On::View, hold, now)
}

fn cross_slot(connection: &Connection) -> Step {
    connection.client.answer(say::CROSSSLOT);
    Step::Done
}

/// What comes of a command that may be asked key by key.
const fn by_key(spread: Spread) -> Option<Combine> {
    match spread {
        Spread::Elements => Some(Combine::Concatenated),
        Spread::Sum => Some(Combine::Sum),
        _ => None,
    }
}
