//! An exclusive lane as a plain relay: its replies are not counted, whatever comes is its client's.
//!
//! What Redweir itself has to say among them, and what it has to know of them, stands where a [mark](super::marks) is
//! answered: an answer of its own, the end of the relay, or that whatever was written before has been executed.

use std::rc::Rc;

use super::marks::{Found, Marks};
use super::passing::Passing;
use super::{Bytes, Client, Closed, Inner, Lane, Phase, Stamps, limits};
use crate::core::moment::Moment;
use crate::mutant;
use crate::net::runtime::jitter;
use crate::wire::say;

/// What is remembered of a plain relay.
#[derive(Debug)]
pub(super) struct Relay {
    /// What was written since the last mark: any byte that comes may acknowledge any of it.
    written: Stamps,
    marks: Marks<Mark>,
    /// A mark to forget what was written is not answered.
    forgetting: bool,
    /// When the last one of these was put.
    forgot_at: Moment,
    /// Between `MULTI` and its end: there a mark is an error in queueing.
    multi: bool,
    /// `CLIENT REPLY OFF`
    silent: bool,
    /// The reply to the next command is skipped.
    skips: bool,
    /// `CLIENT REPLY` was said in a transaction: which replies will be skipped is not followed any longer.
    odd: bool,
    /// What is said to it are no commands any longer.
    is_opaque: bool,
    /// Its client is gone: it ends when what was taken is written.
    finishing: bool,
}

/// What is done where a mark is answered.
#[derive(Debug, Default)]
struct Mark {
    /// What the client gets in its place.
    text: Vec<u8>,
    /// The relay ends, and with it this command of the client, which has waited for that.
    ends: Option<u64>,
    /// What had been written since the mark before it: it was executed.
    covers: Stamps,
    forgets: bool,
}

/// What a command does to the replies of a plain relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing in particular.
    Command,
    /// `MULTI`
    Multi,
    /// `EXEC`, `DISCARD`
    MultiEnds,
    /// `CLIENT REPLY OFF`
    Off,
    /// `CLIENT REPLY SKIP`
    Skip,
    /// `CLIENT REPLY ON`
    On,
    /// From now on the other side speaks another language: a debugger, replication.
    Opaque,
}

impl Lane {
    /// Who gets what the node pushes. Only for exclusive lanes.
    pub fn listen(&self, client: Rc<Client>) {
        self.inner.borrow_mut().listener = Some(client);
    }

    /// From now on replies are not counted: whatever comes is the client's.
    pub fn relay(&self, client: Rc<Client>) {
        let mut inner = self.inner.borrow_mut();
        inner.listener = Some(client);
        inner.relay.get_or_insert_with(|| Box::new(Relay::new()));
    }

    /// Whether what comes next answers no counted command.
    pub fn is_relaying(&self) -> bool {
        let inner = self.inner.borrow();
        inner.relay.is_some() && inner.pending.is_empty() && !mutant::is("relay-counts")
    }

    /// The client has no more to do with it.
    pub fn unlisten(&self) {
        self.inner.borrow_mut().listener = None;
    }

    /// The client that [`Lane::listen`] named.
    pub fn listener(&self) -> Option<Rc<Client>> {
        self.inner.borrow().listener.clone()
    }

    /// Bytes whose reply is not counted, on a plain relay.
    pub(crate) fn push_raw(self: &Rc<Self>, request: Bytes<'_>, written: Stamps, said: Said) {
        let mut inner = self.inner.borrow_mut();
        if let Some(relay) = &mut inner.relay {
            relay.written.merge(written);
            relay.follow(said);
        }
        match request {
            Bytes::Request(request) => {
                request.encode_into(&mut inner.buffer);
                if request.is_partial() {
                    inner.passing = Passing::Open;
                }
            }
            Bytes::Own(bytes) => inner.buffer.extend_from_slice(bytes),
        }
        self.mark_dirty(inner);
    }

    /// Whether answers can be given, and the end be found, in the order of what the client says.
    pub(crate) fn takes_marks(&self) -> bool {
        self.inner.borrow().relay.as_ref().is_some_and(|relay| !relay.is_opaque)
    }

    /// Whether marks that nobody will answer have used up the room for them.
    pub(crate) fn is_choked(&self) -> bool {
        self.inner.borrow().relay.as_ref().is_some_and(|relay| relay.silent && !relay.has_room())
    }

    /// Answers what the client says now in the node's stead. In a transaction it is an error in queueing; if replies
    /// are off, or this one is skipped, nothing is said.
    pub(crate) fn answer(self: &Rc<Self>, text: &[u8]) {
        self.put(Mark { text: text.to_vec(), ..Mark::default() });
    }

    /// Ends the relay when all that it took is answered, and command `seq` of the client with it, which may get `text`.
    pub(crate) fn end_relay(self: &Rc<Self>, seq: u64, text: &[u8]) {
        self.put(Mark { text: text.to_vec(), ends: Some(seq), ..Mark::default() });
    }

    fn put(self: &Rc<Self>, mark: Mark) {
        let mut inner = self.inner.borrow_mut();
        inner.put(mark);
        self.mark_dirty(inner);
    }

    /// Hands on what was read and is not counted. Returns how much that was: what is left may be the beginning of the
    /// answer to a mark. `stamp` gets what it may acknowledge, before the client does.
    pub(crate) fn hand_on(
        self: &Rc<Self>,
        bytes: &[u8],
        now: Moment,
        mut stamp: impl FnMut(&Stamps),
    ) -> usize {
        if let Some(relay) = &self.inner.borrow().relay {
            relay.marks.iter().for_each(|mark| stamp(&mark.covers));
            stamp(&relay.written);
        }
        let mut used = 0;
        while used < bytes.len() {
            let mut inner = self.inner.borrow_mut();
            let listener = inner.listener.clone();
            let Some(relay) = &mut inner.relay else { break };
            let found = relay.marks.find(&bytes[used..]);
            let plain = match &found {
                Found::Plain(count) => *count,
                Found::Mark { before, .. } => *before,
            };
            if matches!(&found, Found::Mark { .. }) {
                relay.forgetting = relay.marks.iter().any(|mark| mark.forgets);
                inner.wake_waiters();
            }
            drop(inner);
            if let Some(listener) = &listener {
                listener.push_raw(&bytes[used..used + plain]);
            }
            used += plain;
            let Found::Mark { len, mark, .. } = found else { break };
            used += len;
            let (Some(mark), Some(listener)) = (mark, listener) else { continue };
            listener.push_raw(&mark.text);
            if let Some(seq) = mark.ends {
                self.unlisten();
                self.close(Closed::Idle);
                listener.deliver(seq, b"", true);
            }
        }
        self.forget_soon(now);
        used
    }

    /// Puts a mark behind what was written, if it is time to.
    pub(crate) fn forget_soon(self: &Rc<Self>, now: Moment) {
        let mut inner = self.inner.borrow_mut();
        if inner.passing == Passing::Open || inner.phase != Phase::Up {
            return;
        }
        let Some(relay) = inner.relay.as_mut().filter(|relay| relay.may_forget(now)) else { return };
        (relay.forgetting, relay.forgot_at) = (true, now);
        inner.put(Mark { forgets: true, ..Mark::default() });
        self.mark_dirty(inner);
    }

    /// Its client is gone. What it had sent is executed all the same, as on Redis: the node gets it and is told that no
    /// more will come, and when it has come to that it closes the connection.
    pub(crate) fn finish(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.listener = None;
        if let Some(relay) = &mut inner.relay {
            relay.finishing = true;
            inner.end_when_written();
        }
    }

    /// Why it ends now that the node has closed the connection.
    pub(crate) fn hung_up(&self) -> Closed {
        if self.inner.borrow().relay.as_ref().is_some_and(|relay| relay.finishing) {
            return Closed::Idle;
        }
        Closed::Broken("the node closed the connection".to_owned())
    }

    /// Bytes that are not written yet.
    pub(crate) fn unsent(&self) -> usize {
        let inner = self.inner.borrow();
        inner.buffer.len() - inner.sent
    }
}

impl Inner {
    fn put(&mut self, mut mark: Mark) {
        let Some(relay) = &mut self.relay else { return };
        mark.covers = std::mem::take(&mut relay.written);
        relay.skips = false;
        let name = relay.marks.put(mark);
        say::command(&mut self.buffer, &[&name]);
    }

    /// Tells the node that no more will come, once it has all that was taken.
    pub(super) fn end_when_written(&mut self) {
        let finishing = self.relay.as_ref().is_some_and(|relay| relay.finishing);
        if finishing
            && self.phase == Phase::Up
            && self.sent == self.buffer.len()
            && let Some(write) = self.write.take()
        {
            write.end();
        }
    }
}

impl Relay {
    fn new() -> Self {
        let [key, ..] = jitter::seeds();
        Self {
            written: Stamps::None,
            marks: Marks::new(key),
            forgetting: false,
            forgot_at: Moment::default(),
            multi: false,
            silent: false,
            skips: false,
            odd: false,
            is_opaque: false,
            finishing: false,
        }
    }

    /// Whether more marks may be put.
    pub(super) fn has_room(&self) -> bool {
        self.marks.len() < limits::RELAY_MARKS
    }

    fn follow(&mut self, said: Said) {
        self.odd |= self.multi && matches!(said, Said::Off | Said::Skip | Said::On);
        self.skips = said == Said::Skip;
        match said {
            Said::Multi => self.multi = true,
            Said::MultiEnds => self.multi = false,
            Said::Off => self.silent = true,
            // One that was put while nothing was answered will not be, either.
            Said::On => (self.silent, self.forgetting) = (false, false),
            Said::Opaque => self.is_opaque = true,
            Said::Command | Said::Skip => {}
        }
    }

    /// Whether a mark to forget what was written may be put here, and is due. Each is an error in the node's statistics:
    /// there are few while there is little to be forgotten.
    fn may_forget(&self, now: Moment) -> bool {
        let due = match &self.written {
            Stamps::None => false,
            Stamps::All => true,
            Stamps::One(_) => now.since(self.forgot_at) >= limits::FORGET_EVERY,
            Stamps::Many(slots) => {
                slots.len() >= limits::FORGET_AT || now.since(self.forgot_at) >= limits::FORGET_EVERY
            }
        };
        let in_the_way = self.forgetting || self.multi || self.silent || self.skips;
        due && !in_the_way
            && !self.odd
            && !self.is_opaque
            && !self.finishing
            && self.has_room()
            && !mutant::is("relay-never-forgets")
    }
}
