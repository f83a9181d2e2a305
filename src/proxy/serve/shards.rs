//! A client of a cluster: which shard each of its commands goes to.
//!
//! What the client is and has on its way is its own; what it has to do with a shard has a [`Connection`] for each, of which one
//! is the present. Replies come in the client's order, whichever shard they are of, because all have one queue. When the map of the
//! slots changes, what is on its way is waited for: two commands about one key never overtake each other on two lanes.
//!
//! What is about several slots is asked in parts ([`crate::proxy::downstream::joint`]): each is a command like any other, and only
//! what was not executed is asked again. Keys of one command that is atomic on one server have to be in one slot, as on a
//! cluster. `MULTI` is answered here; the transaction begins at the shard of the first command behind it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use crate::config::KeylessScripts;
use crate::core::argv::Args as _;
use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Handling, Intent, Local, Stateful};
use crate::core::cursor::Cursor;
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::plan::{Admittance, Hold, needs_admission, owner};
use crate::core::slots::Floor;
use crate::core::slots::{About, HashSlot, ShardIndex, Spread, about, spread};
use crate::proxy::downstream::joint::Combine;
use crate::proxy::serve::parts::{Part, To, about_beginning, again, by_slot, key_part};
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::pin::Pin;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::shard::cluster::Cluster;
use crate::shard::snapshot::InForce;
use crate::wire::request::{Request, RequestLimits, RequestScanner, Scan};
use crate::wire::say;

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
    /// What is left of the present command.
    parts: Option<VecDeque<Part>>,
    /// `MULTI` was said, and answered, and no server has heard of it yet.
    begins: bool,
    /// The last blocking command, and since when it waits.
    blocks: Option<(Vec<u8>, Moment)>,
    /// That is being asked again.
    again: bool,
}

/// What it has with one of them.
#[derive(Default)]
struct Side {
    /// `None`: it is the present one, or there is none.
    connection: Option<Box<Connection>>,
    /// What the shard knew when it was last looked at, which is once for all that has arrived together.
    known: Option<Known>,
}

/// What a shard knows.
struct Known {
    /// The number of that arrival.
    arrival: u64,
    view: Arc<View>,
    commands: Arc<Commands>,
}

impl Known {
    fn new(known: &InForce, arrival: u64) -> Self {
        Self { arrival, view: Arc::clone(&known.view), commands: Arc::clone(&known.commands) }
    }

    /// With the arrival of this number as well, as it mostly is.
    fn renew(&mut self, known: &InForce, arrival: u64) {
        self.arrival = arrival;
        if !Arc::ptr_eq(&self.view, &known.view) {
            self.view = Arc::clone(&known.view);
        }
        if !Arc::ptr_eq(&self.commands, &known.commands) {
            self.commands = Arc::clone(&known.commands);
        }
    }
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
            begins: false,
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
        if connection.client.status.asks_again.take() {
            let (bytes, begun) = self.blocks.clone()?;
            self.parts = Some(VecDeque::from([again(&bytes, now.since(begun), &self.commands)?]));
            self.again = true;
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
        let generation = self.cluster.generation();
        let is_astray = || !connection.client.status.astray.borrow().is_empty();
        if generation != self.generation || is_astray() {
            if !connection.client.is_drained() {
                return Step::Drain;
            }
            self.generation = generation;
            connection.client.status.astray.borrow_mut().clear();
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
        if hold == Hold::Relay && self.is_elsewhere(what) {
            connection.say(say::CROSSSLOT);
            return Step::Done;
        }
        if hold == Hold::Relay {
            return self.send(connection, To::Shard(self.current), request, intent, now);
        }
        if hold == Hold::Transaction {
            return self.queue(connection, what, request, intent, now);
        }
        match what {
            About::Slot { slot, .. } if self.watches_elsewhere(connection, intent, slot) => {
                cross_slot(connection)
            }
            About::Slot { slot, one_key } => {
                let to = To::Slot { slot, replicas: one_key };
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

    /// Whether it is a `WATCH`, and what is watched already is another shard's: no transaction can be about both.
    fn watches_elsewhere(&self, connection: &Connection, intent: Intent, slot: HashSlot) -> bool {
        intent.handling == Handling::Pin(Stateful::Watch)
            && self.holder(connection).is_some_and(|holder| self.cluster.place(slot).owner != Some(holder))
    }

    /// In a transaction all is for its shard; what has its keys elsewhere is an error in queueing, as on the server.
    fn queue(
        &mut self,
        connection: &mut Box<Connection>,
        what: About,
        request: &Request<'_>,
        intent: Intent,
        now: Moment,
    ) -> Step {
        if self.is_elsewhere(what) {
            connection.poison_transaction();
            connection.client.answer(say::CROSSSLOT);
            return Step::Done;
        }
        self.send(connection, To::Shard(self.current), request, intent, now)
    }

    /// A command that is about several slots, or about none.
    fn spread(
        &mut self,
        connection: &mut Box<Connection>,
        spread: Spread,
        request: &Request<'_>,
        intent: Intent,
        now: Moment,
    ) -> Step {
        let config = connection.worker.shared.config();
        let settings = config.upstream.cluster.as_ref();
        let (splits, keyless) = settings.map_or((false, KeylessScripts::Refuse), |settings| {
            (settings.split_writes, settings.keyless_scripts)
        });
        drop(config);
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
                connection.client.answer(say::NO_CLUSTER);
                Step::Done
            }
            Spread::Script if keyless == KeylessScripts::Refuse && !own => {
                connection.client.answer(say::SCRIPT_WITHOUT_KEYS);
                Step::Done
            }
            Spread::Anywhere | Spread::AboutClusters | Spread::OfOneServer | Spread::Script => {
                self.keyless(connection, request, (intent, own), now)
            }
            Spread::Random => {
                let live = self.cluster.live();
                let one = live.get(connection.worker.roll() as usize % live.len().max(1)).copied();
                self.send(connection, To::Shard(one.unwrap_or(ShardIndex::FIRST)), request, intent, now)
            }
            Spread::Turns => self.scan(connection, request, intent, now),
            Spread::Writes if !splits => cross_slot(connection),
            Spread::Nowhere => cross_slot(connection),
            Spread::Elements => {
                let parts = (1..request.count()).map(|at| key_part(request, &[at], at)).collect();
                self.begin(connection, parts, Combine::Concatenated, now)
            }
            Spread::Sum => self.begin(connection, by_slot(request, 1), Combine::Sum, now),
            Spread::Writes => self.begin(connection, by_slot(request, 2), Combine::Last, now),
            Spread::SumOfAll => self.begin_everywhere(connection, request, Combine::Sum, now),
            Spread::ListOfAll => self.begin_everywhere(connection, request, Combine::Concatenated, now),
            Spread::All => self.begin_everywhere(connection, request, Combine::Last, now),
        }
    }

    /// The first command of a transaction, if it names no key, or too many: then the first shard has it.
    fn queue_first(
        &mut self,
        connection: &mut Box<Connection>,
        spread: Spread,
        request: &Request<'_>,
        (intent, is_stranger): (Intent, bool),
        now: Moment,
    ) -> Step {
        let several = matches!(spread, Spread::Elements | Spread::Sum | Spread::Writes | Spread::Nowhere);
        if !several {
            return self.keyless(connection, request, (intent, is_stranger), now);
        }
        if let Some(step) = self.switch(connection, ShardIndex::FIRST) {
            return step;
        }
        if let Some(step) = self.begin_transaction(connection, now) {
            return step;
        }
        connection.poison_transaction();
        cross_slot(connection)
    }

    /// A command that any primary answers: the one that holds the client's state, else the first.
    fn keyless(
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
        let to = To::Shard(holder.unwrap_or(ShardIndex::FIRST));
        let step = self.send(connection, to, request, intent, now);
        if intent.handling == Handling::Local(Local::Reset) && matches!(step, Step::Done) {
            let others = self.sides.iter_mut().filter_map(|side| side.connection.as_mut());
            others.for_each(|other| other.release_pin(false));
        }
        step
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

    /// One shard after the other. Which one it is stands in the cursor.
    fn scan(
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

    fn begin_everywhere(
        &mut self,
        connection: &mut Box<Connection>,
        request: &Request<'_>,
        combine: Combine,
        now: Moment,
    ) -> Step {
        let mut bytes = BytesMut::new();
        request.encode_into(&mut bytes);
        let part = |shard: &ShardIndex| Part { to: To::Shard(*shard), bytes: bytes.to_vec() };
        let parts = self.cluster.live().iter().map(part).collect();
        self.begin(connection, parts, combine, now)
    }

    /// Begins with the parts of a command.
    fn begin(
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
        self.parts = Some(parts);
        self.go_on(connection, now)
    }

    /// With a command that is sent in other words.
    fn begin_one(&mut self, connection: &mut Box<Connection>, part: Part, now: Moment) -> Step {
        self.parts = Some(VecDeque::from([part]));
        self.go_on(connection, now)
    }

    fn go_on(&mut self, connection: &mut Box<Connection>, now: Moment) -> Step {
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
        self.parts = None;
        Step::Done
    }

    fn put_back(&mut self, part: Part) {
        if let Some(parts) = &mut self.parts {
            parts.push_front(part);
        }
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
            To::Shard(shard) => (shard, None),
            To::Slot { slot, replicas } => {
                map = self.cluster.generation();
                let place = self.cluster.place(slot);
                let Some(owner) = place.owner else { return unserved(connection, now) };
                (owner, Some((slot, place, replicas)))
            }
        };
        if let Some(step) = self.switch(connection, shard) {
            return step;
        }
        if self.begins
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
            Some((slot, place, true)) => {
                self.cluster.floor((slot, place), &connection.worker.shared, view, likely)
            }
            Some(_) | None => Floor::PRIMARY,
        };
        connection.map = map;
        let is_met = likely.is_none_or(|applied| connection.floor.is_met_by(applied));
        if self.parts.is_some() || !is_met {
            connection.routing.follow(None);
        }
        if intent.handling != Handling::Pin(Stateful::Blocking) || self.again {
            return connection.dispatch(request, intent, view, commands, now);
        }
        let step = connection.dispatch(request, intent, view, commands, now);
        if matches!(step, Step::Done) && !request.is_partial() {
            let mut bytes = BytesMut::new();
            request.encode_into(&mut bytes);
            self.blocks = Some((bytes.to_vec(), now));
        }
        step
    }

    /// Tells the shard of the `MULTI` that was answered already.
    fn begin_transaction(&mut self, connection: &mut Box<Connection>, now: Moment) -> Option<Step> {
        const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let Ok(Scan::Command { .. }) = scanner.scan(MULTI) else { return Some(Step::Close) };
        let request = scanner.request(MULTI);
        let known = known(&mut self.sides, self.current, self.arrival, connection, now);
        let Some(known) = known else { return Some(Step::Close) };
        let (view, commands) = (&*known.view, &*known.commands);
        let intent = commands.table.classify(&request);
        let next = connection.client.next();
        connection.client.expect_parts(1, Combine::Silent);
        connection.floor = Floor::NONE;
        let step = connection.dispatch(&request, intent, view, commands, now);
        if connection.client.next() == next {
            connection.client.expect_no_parts();
        }
        if !matches!(step, Step::Done) {
            return Some(step);
        }
        connection.waiting.is_done();
        self.begins = false;
        None
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

/// What the present shard knows: it is looked at once for each arrival.
#[inline]
fn known<'a>(
    sides: &'a mut Vec<Side>,
    current: ShardIndex,
    arrival: u64,
    connection: &mut Connection,
    now: Moment,
) -> Option<&'a Known> {
    let is_known = |side: &Side| side.known.as_ref().is_some_and(|known| known.arrival == arrival);
    if !sides.get(current.index()).is_some_and(is_known) {
        look(sides, current, arrival, connection, now);
    }
    sides.get(current.index())?.known.as_ref()
}

/// Looks at what the present shard knows, and whether what was said there before may go on.
fn look(sides: &mut Vec<Side>, current: ShardIndex, arrival: u64, connection: &mut Connection, now: Moment) {
    let worker = Rc::clone(&connection.worker);
    let fresh = worker.snapshot.look();
    note(sides, current, &fresh, arrival);
    connection.resume_fast_path(&fresh.view, &fresh.commands, now);
}

/// This is what the present shard knows.
fn note(sides: &mut Vec<Side>, current: ShardIndex, known: &InForce, arrival: u64) {
    if sides.len() <= current.index() {
        sides.resize_with(current.index() + 1, Side::default);
    }
    let Some(side) = sides.get_mut(current.index()) else { return };
    match &mut side.known {
        Some(side) => side.renew(known, arrival),
        none => *none = Some(Known::new(known, arrival)),
    }
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

/// Nobody is known to have the slot: it is waited for, as for a primary.
fn unserved(connection: &mut Connection, now: Moment) -> Step {
    let hold = connection.worker.shared.shard().view.load().hold;
    if connection.waiting.has_lasted(hold, now) {
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

/// Whether it is more than a `CLIENT REPLY ON` or `CLIENT TRACKING OFF`, which change nothing.
fn silences_or_tracks(request: &Request<'_>) -> bool {
    let word = |at: usize, word: &[u8]| request.arg(at).eq_ignore_ascii_case(word);
    !(word(1, b"reply") && word(2, b"on") || word(1, b"tracking") && word(2, b"off"))
}
