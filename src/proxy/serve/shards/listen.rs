//! What a client of a cluster listens to: shard channels at whoever has their slots, keyspace events at every primary, all other
//! channels at one, the main one. With each shard that it listens to it has a relay of its own
//! ([`crate::proxy::session::exclusive::relayed`]); what they hear is put together in [`crate::proxy::downstream::channels`].
//!
//! One question is answered before the next is put, so that its client hears of each in order. What has lost its server, because its slot
//! has moved or a shard has come, is asked for anew by the client's task. Of what the client has not asked itself it is told no error.

use std::collections::{BTreeSet, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::BytesMut;

use super::Shards;
use super::parts::To;
use super::questions::{
    Listening, Question, What, asked, everywhere, hears_keyspace, listens, said, subscriptions,
};
use crate::core::argv::Args as _;
use crate::core::command::{Handling, Intent, Local};
use crate::core::moment::Moment;
use crate::core::plan::{Admittance, Hold};
use crate::core::slots::{HashSlot, ShardIndex};
use crate::mutant;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::proxy::downstream::channels::may_be_of_keyspace;
use crate::proxy::downstream::joint::Combine;
use crate::proxy::downstream::replies::Client;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::pin::Pin;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::shard::cluster::Cluster;
use crate::wire::request::{Request, RequestLimits, RequestScanner, Scan};
use crate::wire::say;

impl Shards {
    /// Whether what begins or ends a subscription may be for several shards.
    pub(super) fn may_listen(&self, connection: &Connection, hold: Hold, request: &Request<'_>) -> bool {
        let is_plain = |pin: &Pin| {
            !pin.ending
                && !pin.is_to_be_raw()
                && !pin.lane.was_refused()
                && !pin.lane.relays_transaction()
                && !pin.is_of_other_user()
        };
        let is_plain = connection.pin.as_ref().is_none_or(is_plain);
        hold != Hold::Transaction && !self.begins && is_plain && !request.is_partial()
    }

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
        if connection.client.status.channels.borrow().count() + request.count() > limits::MOST_CHANNELS {
            connection.say(say::TOO_MANY_CHANNELS);
            return Step::Done;
        }
        if let Some(step) = self.settle_main(connection, request, now) {
            return step;
        }
        let main = connection.client.status.channels.borrow().main;
        if let Some(step) = main.and_then(|main| self.switch(connection, main)) {
            return step;
        }
        if connection.is_unauthenticated() {
            let view = connection.worker.shared.shard().view.load_full();
            match connection.admit(request, intent, &view, now) {
                Ok(Admittance::Admitted) => {}
                Ok(_) => return self.send(connection, To::Shard(self.current), request, intent, now),
                Err(step) => return step,
            }
        }
        let begun = new_of_keyspace(connection, request);
        let questions = self.questions(connection, request, intent);
        self.listening = Some(Listening { questions, by_client: true, begun, ..Listening::default() });
        connection.await_relay();
        self.go_on_listening(connection, now)
    }

    /// Where it becomes a subscriber, unless it is one: where the server holds state of it, else where the first channel is.
    fn settle_main(
        &mut self,
        connection: &mut Box<Connection>,
        request: &Request<'_>,
        now: Moment,
    ) -> Option<Step> {
        if connection.client.status.channels.borrow().main.is_some() {
            return None;
        }
        let holder = self.holder(connection).filter(|_| !mutant::is("watch-left-behind"));
        let of_shards = request.arg(0).eq_ignore_ascii_case(b"ssubscribe");
        let owner = || self.cluster.place(HashSlot::of(request.arg(1))).owner.filter(|_| of_shards);
        let main = holder.or_else(owner).unwrap_or_else(|| self.any(now));
        if holder.is_some() {
            // What it has said there, and will say, is all said on one connection.
            if let Some(step) = self.switch(connection, main) {
                return Some(step);
            }
            connection.begin_relay();
        }
        connection.client.status.channels.borrow_mut().main = Some(main);
        None
    }

    /// Whom the command is said to, and in what words.
    fn questions(
        &self,
        connection: &Connection,
        request: &Request<'_>,
        intent: Intent,
    ) -> VecDeque<Question> {
        let client = &connection.client;
        let mut channels = client.status.channels.borrow_mut();
        let main = channels.main.unwrap_or(ShardIndex::FIRST);
        let mut bytes = BytesMut::new();
        request.encode_into(&mut bytes);
        let whole = Question { what: What::Said(To::Shard(main), bytes.to_vec()), quiet: false };
        let names = || (1..request.count()).map(|at| request.arg(at).to_vec()).collect::<Vec<_>>();
        match self.commands.table.name(intent.id) {
            "ssubscribe" if request.count() > 1 => subscriptions(names(), false).collect(),
            "sunsubscribe" if request.count() > 1 => {
                VecDeque::from([Question { what: What::Left(names()), quiet: false }])
            }
            "sunsubscribe" if channels.count() > 0 => {
                let what = What::Left(channels.all());
                VecDeque::from([Question { what, quiet: false }])
            }
            name @ ("subscribe" | "psubscribe") => {
                let pattern = name == "psubscribe";
                let is_first = !channels.hears_keyspace();
                let of_all: Vec<_> =
                    names().into_iter().filter(|name| channels.subscribe(pattern, name)).collect();
                if of_all.is_empty() {
                    return VecDeque::from([whole]);
                }
                if is_first {
                    let live = self.cluster.live();
                    channels.keyspace_at = live.iter().filter(|shard| **shard != main).copied().collect();
                }
                if !std::mem::replace(&mut channels.expects_shards, true) {
                    let (client, cluster) = (Rc::downgrade(client), Arc::clone(&self.cluster));
                    task::spawn_local("keyspace events", expect_shards(client, cluster));
                }
                // Once the client is told that it hears them it does, of all.
                everywhere(&channels.keyspace_at, request.arg(0), &of_all).chain([whole]).collect()
            }
            name @ ("unsubscribe" | "punsubscribe") => {
                let pattern = name == "punsubscribe";
                let (heard, at) = (channels.keyspace(pattern), channels.keyspace_at.clone());
                if request.count() == 1 {
                    channels.unsubscribe(pattern, None);
                }
                for name in names() {
                    channels.unsubscribe(pattern, Some(&name));
                }
                let still = channels.keyspace(pattern);
                let left: Vec<_> = heard.into_iter().filter(|name| !still.contains(name)).collect();
                everywhere(&at, request.arg(0), &left).chain([whole]).collect()
            }
            _ => VecDeque::from([whole]),
        }
    }

    /// Puts one question after the other.
    pub(super) fn go_on_listening(&mut self, connection: &mut Box<Connection>, now: Moment) -> Step {
        loop {
            if !connection.client.is_drained() {
                return Step::Drain;
            }
            let Some(listening) = &mut self.listening else { return Step::Done };
            if std::mem::take(&mut listening.is_put) {
                connection.give_up_refused();
            }
            let mut channels = connection.client.status.channels.borrow_mut();
            if std::mem::take(&mut channels.refused) {
                let _ = channels.is_answered();
                let (pattern, names) = std::mem::take(&mut listening.begun);
                let word: &[u8] = if pattern { b"PUNSUBSCRIBE" } else { b"UNSUBSCRIBE" };
                listening.questions = everywhere(&channels.keyspace_at, word, &names).collect();
                for name in &names {
                    channels.unsubscribe(pattern, Some(name));
                }
            }
            drop(channels);
            let Some(question) = listening.questions.pop_front() else {
                match self.end_listening(connection, now) {
                    Some(step) => return step,
                    None => continue,
                }
            };
            let step = match &question.what {
                What::Left(names) => {
                    self.leave(connection, names);
                    Step::Done
                }
                What::Said(to, bytes) => self.put(connection, (*to, bytes), question.quiet, now),
            };
            if !matches!(step, Step::Done) {
                if let Some(listening) = &mut self.listening {
                    listening.questions.push_front(question);
                }
                return step;
            }
        }
    }

    /// The first of these shard channels that are heard at one place are left there; what nobody tells of is answered here.
    fn leave(&mut self, connection: &Connection, names: &[Vec<u8>]) {
        let Some(listening) = &mut self.listening else { return };
        let mut channels = connection.client.status.channels.borrow_mut();
        let Some(first) = names.first() else { return };
        let place = |name: &Vec<u8>| Some((channels.place(name)?, HashSlot::of(name)));
        let Some((shard, slot)) = place(first) else {
            let told = channels.leave(Some(first), connection.who.is_resp3());
            drop(channels);
            connection.say(&told);
            connection.await_relay();
            if names.len() > 1 {
                let what = What::Left(names[1..].to_vec());
                listening.questions.push_front(Question { what, quiet: false });
            }
            return;
        };
        let run = names.iter().take_while(|name| place(name) == Some((shard, slot))).count();
        if run < names.len() {
            let what = What::Left(names[run..].to_vec());
            listening.questions.push_front(Question { what, quiet: false });
        }
        let what = What::Said(To::Shard(shard), said(b"SUNSUBSCRIBE", &names[..run]));
        listening.questions.push_front(Question { what, quiet: false });
    }

    /// Puts a question. One that the client does not hear of is not put where there is nobody to answer it now.
    fn put(
        &mut self,
        connection: &mut Box<Connection>,
        (to, bytes): (To, &[u8]),
        quiet: bool,
        now: Moment,
    ) -> Step {
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let Ok(Scan::Command { .. }) = scanner.scan(bytes) else { return Step::Close };
        let request = scanner.request(bytes);
        let intent = self.commands.table.classify(&request);
        let by_client = self.listening.as_ref().is_some_and(|listening| listening.by_client) && !quiet;
        if quiet {
            let shard = match to {
                To::Slot { slot, .. } => self.cluster.place(slot).owner,
                To::Shard(shard) | To::Asking(shard) => Some(shard),
            };
            if !shard.is_some_and(|shard| self.has_primary(shard, now)) {
                let mut channels = connection.client.status.channels.borrow_mut();
                if let Some(shard) = shard {
                    channels.keyspace_at.remove(&shard);
                }
                return Step::Done;
            }
        }
        connection.client.status.channels.borrow_mut().ask(asked(&request, by_client));
        let next = connection.client.next();
        if quiet {
            connection.client.expect_parts(1, Combine::Unheard);
        }
        let step = self.send(connection, to, &request, intent, now);
        if matches!(step, Step::Done) {
            connection.waiting.is_done();
            if connection.is_raw() {
                connection.await_relay();
            } else if !quiet {
                // It was answered here, with an error.
                connection.client.status.channels.borrow_mut().refused = true;
            }
            if let Some(listening) = &mut self.listening {
                listening.is_put = true;
            }
        }
        if quiet && connection.client.next() == next {
            connection.client.expect_no_parts();
        }
        step
    }

    /// All is answered, but for what no server had, which is asked again. `None`: go on.
    fn end_listening(&mut self, connection: &mut Box<Connection>, now: Moment) -> Option<Step> {
        let listening = self.listening.as_mut()?;
        let client = Rc::clone(&connection.client);
        let mut channels = client.status.channels.borrow_mut();
        let wanted = channels.is_answered();
        if !wanted.is_empty() {
            listening.questions = subscriptions(wanted, false).collect();
            listening.again_at = Some(now.after(limits::RENEW_AFTER));
            listening.wanted_since.get_or_insert(now);
            self.cluster.look();
        }
        if let Some(at) = listening.again_at {
            let hold = connection.worker.shared.shard().view.load().hold;
            drop(channels);
            if listening.wanted_since.is_some_and(|since| now.since(since) >= hold) {
                listening.questions.clear();
                listening.again_at = None;
                connection.waiting.end();
                connection.say(say::SLOT_NOT_SERVED);
                return None;
            }
            if now < at {
                return Some(connection.wait(On::View, at.since(now), now));
            }
            listening.again_at = None;
            return None;
        }
        if !channels.lost().is_empty() && client.status.renews.get().is_none() {
            client.status.renews.set(Some(now.after(limits::RENEW_AFTER)));
        }
        let main = channels.main;
        drop(channels);
        if let Some(step) = main.and_then(|main| self.switch(connection, main)) {
            return Some(step);
        }
        self.hang_up_others(connection);
        if let Some(pin) = connection.pin.as_ref().filter(|pin| pin.raw) {
            client.status.pin(pin.lane.server_id(), connection.worker.shard);
            client.status.relayed.set(true);
        } else {
            // It has not become a subscriber.
            client.status.channels.borrow_mut().clear();
            client.status.channels.borrow_mut().main = None;
            self.hang_up_others(connection);
        }
        self.listening = None;
        Some(Step::Done)
    }

    /// Whoever hears nothing of other shards needs no relay to them.
    pub(super) fn hang_up_others(&mut self, connection: &Connection) {
        if connection.client.status.channels.borrow().hears_others() {
            return;
        }
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
        if let Some(listening) = &self.listening {
            if listening.by_client {
                return None;
            }
            return match self.go_on_listening(connection, now) {
                Step::Done => None,
                other => Some(other),
            };
        }
        let at = connection.client.status.renews.get()?;
        if self.parts.is_some() {
            return None;
        }
        if connection.pin.as_ref().is_some_and(|pin| pin.lane.relays_transaction()) {
            // What would be said there would be a part of it.
            connection.client.status.renews.set(None);
            self.postponed = true;
            return None;
        }
        if now < at {
            return Some(connection.wait(On::View, at.since(now), now));
        }
        connection.waiting.end();
        connection.client.status.renews.set(None);
        self.cluster.look();
        let questions = self.renewals(connection, now);
        if questions.is_empty() {
            return None;
        }
        self.listening = Some(Listening { questions, ..Listening::default() });
        match self.go_on_listening(connection, now) {
            Step::Done => None,
            other => Some(other),
        }
    }

    fn renewals(&self, connection: &Connection, now: Moment) -> VecDeque<Question> {
        let client = &connection.client;
        let mut channels = client.status.channels.borrow_mut();
        let hold = connection.worker.shared.shard().view.load().hold;
        let lost = channels.lost();
        if !lost.is_empty() && now.since(channels.lost_since(now)) >= hold {
            client.push_raw(&channels.give_up(&lost, connection.who.is_resp3()));
        }
        let has_owner = |channel: &Vec<u8>| self.cluster.place(HashSlot::of(channel)).owner.is_some();
        let (owned, unowned): (Vec<_>, Vec<_>) = channels.lost().into_iter().partition(has_owner);
        if !unowned.is_empty() {
            client.status.renews.set(Some(now.after(limits::RENEW_AFTER)));
        }
        let mut questions: VecDeque<Question> = subscriptions(owned, true).collect();
        if channels.hears_keyspace() {
            let live = self.cluster.live();
            let is_new =
                |shard: &&ShardIndex| Some(**shard) != channels.main && !channels.keyspace_at.contains(shard);
            let come: BTreeSet<ShardIndex> = live.iter().filter(is_new).copied().collect();
            for (pattern, word) in [(false, &b"SUBSCRIBE"[..]), (true, b"PSUBSCRIBE")] {
                questions.extend(everywhere(&come, word, &channels.keyspace(pattern)));
            }
            channels.keyspace_at.extend(come);
        }
        questions
    }

    /// Whether a command of a subscriber is refused; `RESET` makes it hear nothing any longer.
    pub(super) fn is_refused_as_listener(
        &self,
        connection: &Connection,
        request: &Request<'_>,
        intent: Intent,
    ) -> bool {
        let refusal = refusal_of_listener(connection, request, intent);
        if let Some(refusal) = &refusal {
            connection.say(refusal);
        }
        let ends = intent.handling == Handling::Local(Local::Reset) && request.count() == 1;
        if ends && self.listening.is_none() {
            connection.client.status.channels.borrow_mut().clear();
        }
        refusal.is_some()
    }

    /// What was put off while a transaction was on its way.
    pub(super) fn take_up_again(&mut self, connection: &Connection, now: Moment) {
        let is_in_transaction = |pin: &Pin| pin.lane.relays_transaction();
        if self.postponed && !connection.pin.as_ref().is_some_and(is_in_transaction) {
            self.postponed = false;
            connection.client.status.renews.set(Some(now));
        }
    }
}

/// The channels, or patterns (`true`), of keyspace events that a command begins to hear.
fn new_of_keyspace(connection: &Connection, request: &Request<'_>) -> (bool, Vec<Vec<u8>>) {
    let pattern = request.arg(0).eq_ignore_ascii_case(b"psubscribe");
    if !hears_keyspace(request) {
        return (pattern, Vec::new());
    }
    let known = connection.client.status.channels.borrow().keyspace(pattern);
    let names = (1..request.count()).map(|at| request.arg(at).to_vec());
    (pattern, names.filter(|name| may_be_of_keyspace(pattern, name) && !known.contains(name)).collect())
}

/// Tells the task of a client that hears keyspace events when there is a shard that it does not hear.
async fn expect_shards(client: Weak<Client>, cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(limits::SHARDS_EVERY).await;
        let Some(client) = client.upgrade().filter(|client| client.gone().is_none()) else { return };
        let has_come = {
            let mut channels = client.status.channels.borrow_mut();
            if !channels.hears_keyspace() {
                channels.expects_shards = false;
                return;
            }
            let is_heard =
                |shard: &ShardIndex| Some(*shard) == channels.main || channels.keyspace_at.contains(shard);
            !cluster.live().iter().all(is_heard)
        };
        if has_come {
            client.renews_channels(false);
        }
    }
}

/// What a subscriber may not say because it listens at several shards, each of which would have to hear it.
pub(super) fn refusal_of_listener(
    connection: &Connection,
    request: &Request<'_>,
    intent: Intent,
) -> Option<Vec<u8>> {
    if !connection.client.status.channels.borrow().hears_others() {
        return None;
    }
    let pin = connection.pin.as_ref()?;
    match intent.handling {
        Handling::Local(Local::Auth) => Some(say::NOT_WHILE_LISTENING.to_vec()),
        Handling::Local(Local::Hello) if request.count() > 1 => Some(say::NOT_WHILE_LISTENING.to_vec()),
        _ if listens(intent) => pin.lane.relays_transaction().then(|| say::OF_ALL_SHARDS.to_vec()),
        Handling::Local(Local::Reset | Local::Quit) => None,
        _ if connection.who.is_resp3() || !pin.lane.is_unsubscribed() => None,
        // The main one does not know of the others.
        _ => Some(say::to_subscriber(request)),
    }
}
