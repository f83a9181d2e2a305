//! An exclusive lane whose client hears what the node says unasked, and a plain relay, where nothing is counted.

use std::rc::Rc;

use super::{Broken, Closed, Lane, Phase, Proto, Said};
use crate::core::moment::Moment;
use crate::core::session::Stamps;
use crate::core::slots::ShardIndex;
use crate::mutant;
use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::outgoing::Bytes;
use crate::proxy::upstream::relay::{Ear, Relay};
use crate::wire::say;

impl Lane {
    /// Who gets what the node pushes. Only for exclusive lanes.
    pub fn listen(&self, client: Rc<Client>) {
        self.inner.borrow_mut().listener = Some(client);
    }

    /// The client has no more to do with it.
    pub fn unlisten(&self) {
        self.inner.borrow_mut().listener = None;
    }

    /// The client that [`Lane::listen`] named.
    pub fn listener(&self) -> Option<Rc<Client>> {
        self.inner.borrow().listener.clone()
    }

    /// From now on replies are not counted: whatever comes is the client's.
    pub fn relay(&self, client: Rc<Client>, shard: ShardIndex) {
        client.status.relayed.set(true);
        let ear = self.in_cluster.get().then(|| {
            client.status.channels.borrow_mut().main.get_or_insert(shard);
            Ear::new(shard, self.key.proto == Proto::Resp3)
        });
        let mut inner = self.inner.borrow_mut();
        inner.listener = Some(client);
        inner.connection.stop_counting();
        inner.relay.get_or_insert_with(|| Box::new(Relay::new(ear)));
    }

    /// Whether what comes next answers no counted command.
    pub fn is_relaying(&self) -> bool {
        let inner = self.inner.borrow();
        inner.relay.is_some() && inner.connection.queue().is_empty() && !mutant::is("relay-counts")
    }

    /// Bytes whose reply is not counted, on a plain relay.
    pub(crate) fn push_raw(self: &Rc<Self>, request: Bytes<'_>, written: Stamps, said: Said) {
        let mut inner = self.inner.borrow_mut();
        if let Some(relay) = &mut inner.relay {
            relay.says(written, said);
        }
        match request {
            Bytes::Request(request) => {
                inner
                    .connection
                    .queue_mut()
                    .push_uncounted(request.is_partial(), |buffer| request.encode_into(buffer));
            }
            Bytes::Own(bytes) => {
                inner.connection.queue_mut().push_uncounted(false, |buffer| buffer.extend_from_slice(bytes));
            }
        }
        self.mark_dirty(inner);
    }

    /// Whether answers can be given, and the end be found, in the order of what the client says.
    pub(crate) fn takes_marks(&self) -> bool {
        self.inner.borrow().relay.as_ref().is_some_and(|relay| relay.takes_marks())
    }

    /// Whether a plain relay is between `MULTI` and its end.
    pub(crate) fn relays_transaction(&self) -> bool {
        self.inner.borrow().relay.as_ref().is_some_and(|relay| relay.is_in_transaction())
    }

    /// Whether marks that nobody will answer have used up the room for them.
    pub(crate) fn is_choked(&self) -> bool {
        self.inner.borrow().relay.as_ref().is_some_and(|relay| relay.is_choked())
    }

    /// Answers what the client says now in the node's stead. In a transaction it is an error in queueing; if replies
    /// are off, or this one is skipped, nothing is said.
    pub(crate) fn answer(self: &Rc<Self>, text: &[u8]) {
        self.mark(|relay| Some(relay.mark(text, None)));
    }

    /// Ends the relay when all that it took is answered, and command `seq` of the client with it, which may get `text`.
    pub(crate) fn end_relay(self: &Rc<Self>, seq: u64, text: &[u8]) {
        self.mark(|relay| Some(relay.mark(text, Some(seq))));
    }

    /// The same, if the client is subscribed to nothing by then. If it is, the relay goes on behind the command.
    pub(crate) fn end_relay_if_unsubscribed(self: &Rc<Self>, seq: u64) {
        self.mark(|relay| Some(relay.mark_if_unsubscribed(seq)));
    }

    /// Command `seq` of the client waits until all that the relay took is answered.
    pub(crate) fn await_relay(self: &Rc<Self>, seq: u64) {
        self.mark(|relay| Some(relay.mark_to_wait(seq)));
    }

    /// Whether the node has said that the client is subscribed to nothing, as far as was read.
    pub(crate) fn is_unsubscribed(&self) -> bool {
        self.inner.borrow().relay.as_ref().is_some_and(|relay| relay.is_unsubscribed())
    }

    /// Puts a mark behind what was written, if it is time to.
    pub(crate) fn forget_soon(self: &Rc<Self>, now: Moment) {
        let may = {
            let inner = self.inner.borrow();
            !inner.connection.queue().is_open()
                && *inner.connection.phase() == Phase::Up
                && !inner.connection.is_finishing()
        };
        if may {
            self.mark(|relay| relay.mark_to_forget(now));
        }
    }

    /// Sends the node the name of a mark, if one is put.
    fn mark(self: &Rc<Self>, put: impl FnOnce(&mut Relay) -> Option<Vec<u8>>) {
        let mut inner = self.inner.borrow_mut();
        if let Some(name) = inner.relay.as_mut().and_then(|relay| put(relay)) {
            inner.connection.queue_mut().push_uncounted(false, |buffer| say::command(buffer, &[&name]));
            self.mark_dirty(inner);
        }
    }

    /// The node has refused the connection, and with it all that was said on the plain relay; nothing of what waits for an answer
    /// there waits any longer.
    pub(crate) fn refuse_relay(&self, client: &Rc<Client>, error: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        let waits = inner.relay.as_mut().map(|relay| relay.refuse(client, error));
        drop(inner);
        match waits {
            Some(waits) => waits.into_iter().for_each(|seq| {
                client.deliver(seq, b"", true);
            }),
            None => client.push_raw(error),
        }
    }

    /// Hands on what was read and is not counted. Returns how much that was: what is left may be the beginning of the
    /// answer to a mark. `stamp` gets what it may acknowledge, before the client does.
    pub(crate) fn hand_on(self: &Rc<Self>, bytes: &[u8], now: Moment, stamp: impl FnMut(&Stamps)) -> usize {
        let mut inner = self.inner.borrow_mut();
        let listener = inner.listener.clone();
        let Some(relay) = &mut inner.relay else { return 0 };
        relay.acknowledges(stamp);
        let done = relay.hand_on(bytes, listener.as_ref());
        if done.frees {
            inner.connection.wake();
        }
        if done.ends.is_some() {
            inner.listener = None;
            inner.connection.close(Closed::Idle);
        }
        drop(inner);
        if let (Some(seq), Some(client)) = (done.ends.or(done.stays), listener) {
            client.deliver(seq, b"", true);
        }
        self.forget_soon(now);
        done.used
    }

    /// Its client is gone. What it had sent is executed all the same, as on Redis: the node gets it and is told that no
    /// more will come, and when it has come to that it closes the connection.
    pub(crate) fn finish(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.listener = None;
        if inner.relay.is_some() {
            inner.connection.finish();
        }
    }

    /// Why it ends now that the node has closed the connection.
    pub(crate) fn hung_up(&self) -> Closed {
        if self.inner.borrow().connection.is_finishing() {
            return Closed::Idle;
        }
        Closed::Broken(Broken::HungUp)
    }
}
