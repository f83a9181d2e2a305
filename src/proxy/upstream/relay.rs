//! An exclusive lane as a plain relay: its replies are not counted, whatever comes is its client's.
//!
//! What Redweir itself has to say among them, and what it has to know of them, stands where a [mark](marks) is
//! answered: an answer of its own, the end of the relay, or that whatever was written before has been executed.

mod ear;
mod marks;
mod subscriptions;

use std::rc::Rc;

use crate::core::moment::Moment;
use crate::core::session::Stamps;
use crate::mutant;
use crate::net::runtime::jitter;
use crate::net::runtime::limits;
use crate::proxy::downstream::replies::Client;
pub(super) use ear::Ear;
use marks::{Found, Marks};
use subscriptions::Subscriptions;

/// What is remembered of a plain relay.
#[derive(Debug)]
pub(super) struct Relay {
    /// What was written since the last mark: any byte that comes may acknowledge any of it.
    written: Stamps,
    marks: Marks<RelayMark>,
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
    /// What its replies have said of its client's subscriptions.
    subscriptions: Subscriptions,
    /// Of a cluster: its client may hear other shards as well.
    ear: Option<Ear>,
}

/// What is done where a mark is answered.
#[derive(Debug, Default)]
struct RelayMark {
    /// What the client gets in its place.
    text: Vec<u8>,
    /// The relay ends, and with it this command of the client, which has waited for that.
    ends: Option<u64>,
    /// It ends only if the client is subscribed to nothing; what has waited is over in any case.
    if_unsubscribed: bool,
    /// It goes on in any case.
    stays: bool,
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

/// What became of bytes that were not counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HandedOn {
    /// So many were handed on, or were Redweir's own. What is left may be the beginning of the answer to a mark.
    pub used: usize,
    /// A mark was answered: there is room for more.
    pub frees: bool,
    /// The relay ends, and with it this command of the client.
    pub ends: Option<u64>,
    /// It does not, but this command is over.
    pub stays: Option<u64>,
}

impl Relay {
    pub(super) fn new(ear: Option<Ear>) -> Self {
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
            subscriptions: Subscriptions::default(),
            ear,
        }
    }

    /// The client has said something that may have `written` something.
    pub(super) fn says(&mut self, written: Stamps, said: Said) {
        self.written.merge(written);
        self.follow(said);
    }

    /// Whether answers can be given, and the end be found, in the order of what the client says.
    pub(super) fn takes_marks(&self) -> bool {
        !self.is_opaque
    }

    /// Whether it is between `MULTI` and its end.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.multi
    }

    /// Whether marks that nobody will answer have used up the room for them.
    pub(super) fn is_choked(&self) -> bool {
        self.silent && !self.has_room()
    }

    /// Puts a mark where the client gets `text`, and where the relay ends if it `ends` with a command of the client.
    /// Returns the command that the node has to be sent.
    pub(super) fn mark(&mut self, text: &[u8], ends: Option<u64>) -> Vec<u8> {
        self.put(RelayMark { text: text.to_vec(), ends, ..RelayMark::default() })
    }

    /// Puts a mark where the relay ends with command `ends` of the client, unless the client is subscribed to anything
    /// there.
    pub(super) fn mark_if_unsubscribed(&mut self, ends: u64) -> Vec<u8> {
        self.put(RelayMark { ends: Some(ends), if_unsubscribed: true, ..RelayMark::default() })
    }

    /// Puts a mark where command `seq` of the client is over, which waits until all before it is answered.
    pub(super) fn mark_to_wait(&mut self, seq: u64) -> Vec<u8> {
        self.put(RelayMark { ends: Some(seq), stays: true, ..RelayMark::default() })
    }

    /// Whether the server has said that the client is subscribed to nothing, as far as was read.
    pub(super) fn is_unsubscribed(&self) -> bool {
        self.subscriptions.are_none()
    }

    /// Puts a mark behind what was written, if it is time to.
    pub(super) fn mark_to_forget(&mut self, now: Moment) -> Option<Vec<u8>> {
        if !self.may_forget(now) {
            return None;
        }
        (self.forgetting, self.forgot_at) = (true, now);
        Some(self.put(RelayMark { forgets: true, ..RelayMark::default() }))
    }

    fn put(&mut self, mut mark: RelayMark) -> Vec<u8> {
        mark.covers = std::mem::take(&mut self.written);
        self.skips = false;
        self.marks.put(mark)
    }

    /// What anything that comes now may acknowledge.
    pub(super) fn acknowledges(&self, mut each: impl FnMut(&Stamps)) {
        self.marks.iter().for_each(|mark| each(&mark.covers));
        each(&self.written);
    }

    /// Hands what was read to the client, with what Redweir has to say in the places of the marks.
    pub(super) fn hand_on(&mut self, bytes: &[u8], client: Option<&Rc<Client>>) -> HandedOn {
        let (mut done, mut client) = (HandedOn::default(), client);
        while done.used < bytes.len() {
            let (plain, answer) = match self.marks.find(&bytes[done.used..]) {
                Found::Plain(count) => (count, None),
                Found::Mark { before, len, mark } => (before, Some((len, mark))),
            };
            if let Some(client) = client {
                let plain = &bytes[done.used..done.used + plain];
                match &mut self.ear {
                    Some(ear) if !self.is_opaque => ear.hear(plain, client),
                    ear => {
                        if let Some(ear) = ear {
                            ear.end(client);
                        }
                        client.push_raw(plain);
                    }
                }
            }
            self.subscriptions.read(&bytes[done.used..done.used + plain]);
            done.used += plain;
            let Some((len, mark)) = answer else { break };
            done.used += len;
            done.frees = true;
            self.forgetting = self.marks.iter().any(|mark| mark.forgets);
            let (Some(mark), Some(to)) = (mark, client) else { continue };
            to.push_raw(&mark.text);
            let stays = mark.if_unsubscribed && !self.is_unsubscribed() && !mutant::is("relay-left-early");
            if mark.stays || stays {
                done.stays = mark.ends;
            } else if mark.ends.is_some() {
                // What comes now is nothing that the client has asked for.
                (done.ends, client) = (mark.ends, None);
            }
        }
        done
    }

    /// Its client is told that the node has refused the connection, if that is for it. Returns the commands that wait for an answer.
    pub(super) fn refuse(&mut self, client: &Rc<Client>, error: &[u8]) -> Vec<u64> {
        match &mut self.ear {
            Some(ear) => ear.hear(error, client),
            None => client.push_raw(error),
        }
        self.marks.iter().filter_map(|mark| mark.ends).collect()
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
            && self.has_room()
            && !mutant::is("relay-never-forgets")
    }
}
