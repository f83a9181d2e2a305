//! What has been asked of one server, without its socket: the bytes of requests in the order in which they were taken,
//! how much of them is written, and the commands whose replies are outstanding.
//!
//! A request stays in the buffer until it is answered, so that a read can be sent again elsewhere without having been
//! copied before. Whatever was asked for and leaves the order early leaves a tombstone, which takes the reply that still comes: a server
//! answers in the order in which it was asked, and nothing else tells which reply belongs to which command.
//!
//! Invariants: without uncounted bytes and without a streamed command the buffer is as long as all outstanding requests
//! together; of it `sent` bytes are written, from its beginning on.

mod move_out;
mod sharing;
mod streaming;

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;

use crate::core::repeat::PendingKind;
use crate::mutant;
use crate::net::runtime::buffer::Queued;
use crate::net::runtime::limits;
use crate::proxy::downstream::replies::Client;
use crate::proxy::upstream::load::InFlight;
use crate::proxy::upstream::pending::Pending;
use move_out::Unmovable;
use streaming::Streaming;

/// The requests of one connection.
#[derive(Debug)]
pub struct RequestQueue {
    /// Requests, from the oldest unanswered one on.
    buffer: Queued,
    /// How much of `buffer` is written.
    sent: usize,
    /// How much of `buffer` was offered to the socket, which refused the rest of it: no less may be offered next.
    offered: usize,
    pending: VecDeque<Pending>,
    /// How many of them another one asks for ([`sharing`]).
    sharing: usize,
    /// The request that was answered last, if it asked for several.
    shared: BytesMut,
    /// The beginning of the oldest command's reply was passed on.
    cut: bool,
    /// A command that is passed on as it comes.
    streaming: Streaming,
    /// Counts what is outstanding.
    in_flight: InFlight,
}

/// What is left of a connection that ended, in the order in which it was taken.
#[derive(Debug)]
pub struct Leftover {
    /// The command.
    pub pending: Pending,
    /// Its bytes.
    pub request: BytesMut,
    /// All of it had been written: the node may have executed it.
    pub sent: bool,
    /// The beginning of its reply was passed on: no other reply may follow it.
    pub cut: bool,
}

impl RequestQueue {
    /// An empty one, whose commands are counted by `in_flight`: each from when it is taken until it is answered, or until
    /// the connection has ended. What moves to another connection is counted by its tombstone here.
    pub fn new(in_flight: InFlight) -> Self {
        Self {
            buffer: Queued::default(),
            sent: 0,
            offered: 0,
            pending: VecDeque::new(),
            sharing: 0,
            shared: BytesMut::new(),
            cut: false,
            streaming: Streaming::Nothing,
            in_flight,
        }
    }

    /// Takes a command, whose bytes `encode` appends.
    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    pub fn push(&mut self, mut pending: Pending, encode: impl FnOnce(&mut BytesMut)) {
        debug_assert!(!self.is_streaming(), "nothing is taken behind a streamed command");
        let before = self.buffer.len();
        encode(self.buffer.tail());
        (pending.len, pending.shares) = (self.buffer.len() - before, false);
        self.push_back(pending);
    }

    /// Takes a command of which only the beginning is there; the rest follows by [`Self::stream`]. Nothing else may be
    /// outstanding.
    pub fn push_beginning(&mut self, mut pending: Pending, encode: impl FnOnce(&mut BytesMut)) {
        debug_assert!(self.pending.is_empty(), "nothing else is outstanding when a command is streamed");
        encode(self.buffer.tail());
        self.streaming = Streaming::Open;
        pending.len = 0;
        self.push_back(pending);
    }

    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    fn push_back(&mut self, pending: Pending) {
        self.pending.push_back(pending);
        self.in_flight.add();
    }

    /// Takes bytes whose replies are not counted. With `partial` they are the beginning of a command.
    pub fn push_uncounted(&mut self, partial: bool, encode: impl FnOnce(&mut BytesMut)) {
        encode(self.buffer.tail());
        if partial {
            self.streaming = Streaming::Open;
        }
    }

    /// Takes what `write` appends of the command that is streamed; it says how much it has used, and whether that was the
    /// last of it.
    pub fn stream<E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<(usize, bool), E>,
    ) -> Result<(usize, bool), E> {
        debug_assert!(self.is_open(), "some of a streamed command has yet to come");
        let (used, complete) = write(self.buffer.tail())?;
        if complete {
            self.streaming = Streaming::Complete;
        }
        Ok((used, complete))
    }

    /// How many commands are outstanding.
    #[inline]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// No command is outstanding.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether no outstanding command was written as a whole, so that no reply is to be expected.
    pub fn owes_nothing(&self) -> bool {
        self.pending.front().is_none_or(|front| self.sent < front.len) && !self.is_streaming()
    }

    /// Bytes of requests that are held.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that are not written.
    #[inline]
    pub fn unsent(&self) -> usize {
        self.buffer.len() - self.sent
    }

    /// Up to where the buffer may be written if no more than so many `requests` may be outstanding at the server. What a
    /// socket was offered it is offered again, even if that is less now: TLS may have encrypted it.
    #[inline]
    pub fn writable(&self, requests: Option<usize>) -> usize {
        match requests {
            Some(requests) if requests < self.pending.len() => {
                let wanted: usize = self.pending.iter().take(requests).map(|pending| pending.len).sum();
                wanted.max(self.offered).min(self.buffer.len())
            }
            _ => self.buffer.len(),
        }
    }

    /// Up to where the buffer has to be written if nothing more is to be.
    pub fn offered(&self) -> usize {
        self.offered.min(self.buffer.len())
    }

    /// What is to be written next, up to `end` of the buffer.
    #[inline]
    pub fn unsent_to(&self, end: usize) -> &[u8] {
        self.buffer.get(self.sent..end).unwrap_or_default()
    }

    /// So many bytes are written.
    #[inline]
    pub fn wrote(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.buffer.len(), "no more is written than there is");
    }

    /// The socket was offered everything up to `end`, and takes no more for now.
    pub fn refused(&mut self, end: usize) {
        debug_assert!(
            self.sent <= end && end <= self.buffer.len(),
            "what is offered is there, and not written"
        );
        self.offered = end;
    }

    /// Lets go of bytes that are not counted, which no reply would release, once they are written. True if there is room
    /// again.
    pub fn release_uncounted(&mut self) -> bool {
        if !self.pending.is_empty() {
            return false;
        }
        self.buffer.clear();
        (self.sent, self.offered) = (0, 0);
        true
    }

    /// Lets go of what is written of a streamed command. True if more of it may be taken.
    pub fn release_streamed(&mut self) -> bool {
        if self.streaming == Streaming::Nothing {
            return false;
        }
        self.buffer.drop_front(self.sent);
        self.offered = self.offered.saturating_sub(self.sent);
        self.sent = 0;
        if self.streaming == Streaming::Complete && self.pending.is_empty() && self.buffer.is_empty() {
            // Where nothing is counted, no reply tells the end.
            self.streaming = Streaming::Nothing;
        }
        self.buffer.len() < limits::PASSED_AHEAD
    }

    /// Whether a streamed command is outstanding: nothing is taken behind it.
    #[inline]
    pub fn is_streaming(&self) -> bool {
        self.streaming != Streaming::Nothing
    }

    /// Whether some of a streamed command has yet to come.
    pub fn is_open(&self) -> bool {
        self.streaming == Streaming::Open
    }

    /// Whether the server has all of what was taken, as far as this is about a streamed command.
    pub fn is_streamed(&self) -> bool {
        self.streaming.is_over(self.unsent())
    }

    /// The streamed command is answered.
    pub fn end_streaming(&mut self) {
        self.streaming = Streaming::Nothing;
    }

    /// All that is outstanding, oldest first.
    pub fn outstanding(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }

    /// The oldest outstanding command: the next reply is its.
    #[inline]
    pub fn front(&self) -> Option<&Pending> {
        self.pending.front()
    }

    /// A part of the oldest command's reply is passed on.
    pub fn cut(&mut self) {
        self.cut = true;
    }

    /// Whether the beginning of the oldest command's reply was passed on.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The oldest command is answered. Its bytes are returned, to be sent again, if `again` says so: of it, and of its
    /// bytes, of which one that another has asked for has none ([`Self::shared_request`]). `None` if the server has been asked
    /// for nothing.
    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    pub fn pop(
        &mut self,
        again: impl FnOnce(&Pending, &[u8]) -> bool,
    ) -> Option<(Pending, Option<BytesMut>)> {
        if mutant::is("tombstone-skipped") {
            self.skip_tombstones();
        }
        let front = self.pending.front()?;
        let len = front.len;
        let sent = self.sent.checked_sub(len)?;
        let again = again(front, self.buffer.get(..len).unwrap_or_default());
        self.cut = false;
        self.sent = sent;
        self.offered = self.offered.saturating_sub(len);
        self.in_flight.remove(1);
        let request = if again {
            Some(self.buffer.split_to(len))
        } else {
            self.buffer.drop_front(len);
            None
        };
        // At the end, where it goes to in one move.
        Some((self.pending.pop_front()?, request))
    }

    /// The mutant forgets that those who left are answered all the same.
    #[cold]
    fn skip_tombstones(&mut self) {
        let is_one = |p: &Pending| {
            matches!(p.kind, PendingKind::Read | PendingKind::Write) && p.client.gone().is_some()
        };
        while self.pending.len() > 1
            && self.pending.front().is_some_and(is_one)
            && let Some(front) = self.pending.pop_front()
        {
            self.sent -= front.len;
            self.buffer.drop_front(front.len);
            self.in_flight.remove(1);
        }
    }

    /// What the server still answers to what was asked before counts for nothing. But for a reply whose beginning was
    /// passed on: that was computed before.
    pub fn void_reads(&mut self) {
        let begun = usize::from(self.cut);
        self.pending.iter_mut().skip(begun).for_each(|pending| pending.void = true);
    }

    /// The oldest command is asked again elsewhere, whatever the server answers.
    pub fn void_front(&mut self) {
        if let Some(front) = self.pending.front_mut() {
            front.void = true;
        }
    }

    /// Whether another client waits behind the oldest command, or its own for something that was asked for earlier.
    pub fn is_in_the_way(&self) -> bool {
        let Some(front) = self.pending.front() else { return false };
        let waits = |p: &Pending| {
            p.client.gone().is_none() && (!Rc::ptr_eq(&p.client, &front.client) || p.seq < front.seq)
        };
        self.pending.iter().skip(1).any(waits)
    }

    /// Takes out what others than the oldest command's client have sent behind it, if it may be sent again. The replies
    /// go to `drain`.
    pub fn take_others(&mut self, drain: &Rc<Client>, fencing: bool) -> Vec<(Pending, BytesMut)> {
        let Some(front) = self.pending.front().map(|p| Rc::clone(&p.client)) else { return Vec::new() };
        let bound = Unmovable::of(&self.pending, fencing);
        self.take_out(drain, |p| !Rc::ptr_eq(&p.client, &front) && !bound.contains(&p.client))
    }

    /// Takes out the oldest command and what its client has sent behind it, if it may be sent again. The replies go to
    /// `drain`.
    pub fn take_own(&mut self, drain: &Rc<Client>, fencing: bool) -> Vec<(Pending, BytesMut)> {
        let Some(front) = self.pending.front() else { return Vec::new() };
        if !front.asked().may_move() || Unmovable::of(&self.pending, fencing).contains(&front.client) {
            return Vec::new();
        }
        let client = Rc::clone(&front.client);
        let mut own = self.take_out(drain, |p| Rc::ptr_eq(&p.client, &client));
        // What was repeated came to stand behind what was asked for later, which may have to wait for it.
        own.sort_by_key(|(pending, _)| pending.seq);
        own
    }

    /// What this client, who has left, has yet to ask, and only reads, is not asked. A write is: on Redis it would be
    /// executed.
    pub fn withdraw(&mut self, client: &Rc<Client>) {
        if !self.is_streaming() && !mutant::is("asks-for-nobody") {
            self.sift(|pending, _, unasked| {
                unasked && Rc::ptr_eq(&pending.client, client) && pending.kind != PendingKind::Write
            });
        }
    }

    /// Whether what is outstanding is nobody's: reads of clients who have left.
    pub fn is_for_nobody(&self) -> bool {
        self.pending.iter().all(|p| p.client.gone().is_some() && p.kind != PendingKind::Write)
    }

    /// What was not offered to the server yet is not asked for at all; the rest leaves tombstones.
    fn take_out(
        &mut self,
        drain: &Rc<Client>,
        chosen: impl Fn(&Pending) -> bool,
    ) -> Vec<(Pending, BytesMut)> {
        let mut taken = Vec::new();
        self.sift(|pending, bytes, unasked| {
            let moves = pending.asked().may_move() && pending.client.gone().is_none() && chosen(pending);
            if moves {
                let tombstone = pending.tombstone(drain);
                taken.push((std::mem::replace(pending, tombstone), BytesMut::from(bytes)));
            }
            moves && unasked
        });
        taken
    }

    /// Removes what `goes`: of a command, of its bytes, and of whether the server was not offered any of them, in which case
    /// alone it may go.
    fn sift(&mut self, mut goes: impl FnMut(&mut Pending, &[u8], bool) -> bool) {
        let asked = if self.is_streaming() { self.buffer.len() } else { self.sent.max(self.offered) };
        let (mut at, mut rest) = (0, None);
        // The request that asks, and whether nobody is left yet whom it asks for.
        let (mut bytes, mut withdrawn) = (0..0, false);
        self.sharing = 0;
        for mut pending in std::mem::take(&mut self.pending) {
            let asks = !pending.shares;
            if asks {
                (bytes, withdrawn) = (at..at + pending.len, false);
                at = bytes.end;
            }
            let unasked = bytes.start >= asked;
            let gone = goes(&mut pending, &self.buffer[bytes.clone()], unasked);
            debug_assert!(unasked || !gone, "what the server was asked it answers");
            if gone {
                self.in_flight.remove(1);
                withdrawn |= asks;
            } else if withdrawn {
                (pending.len, pending.shares, withdrawn) = (bytes.len(), false, false);
            }
            if unasked {
                let (_, rest) = rest.get_or_insert_with(|| (bytes.start, BytesMut::new()));
                if !gone && !pending.shares {
                    rest.extend_from_slice(&self.buffer[bytes.clone()]);
                }
            }
            if !gone {
                self.sharing += usize::from(pending.shares);
                self.pending.push_back(pending);
            }
        }
        debug_assert!(
            at == self.buffer.len() || self.is_streaming(),
            "the buffer is all outstanding requests"
        );
        if let Some((begin, rest)) = rest {
            self.buffer.replace_from(begin, &rest);
        }
    }

    /// Takes out whatever is outstanding: the connection has ended.
    pub fn drain(&mut self) -> Vec<Leftover> {
        let streamed = self.is_streamed();
        let (mut buffer, mut sent) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.sent));
        self.offered = 0;
        let mut left = Vec::with_capacity(self.pending.len());
        self.in_flight.remove(self.pending.len() as u32);
        // One that was answered may have asked for the first.
        let (mut asks, mut whole) = (std::mem::take(&mut self.shared), true);
        let sharing = std::mem::take(&mut self.sharing) > 0;
        while let Some(pending) = self.pending.pop_front() {
            let request = if pending.shares {
                asks.clone()
            } else {
                let request = buffer.split_to(pending.len.min(buffer.len()));
                whole = sent >= pending.len && streamed;
                sent = sent.saturating_sub(pending.len);
                if sharing {
                    asks.clone_from(&request);
                }
                request
            };
            left.push(Leftover { pending, request, sent: whole, cut: std::mem::take(&mut self.cut) });
        }
        left
    }

    /// Gives back a buffer that a burst has blown up.
    #[inline]
    pub fn shrink(&mut self) {
        self.buffer.shrink(limits::BUFFER_KEPT * 4);
    }
}

impl Drop for RequestQueue {
    fn drop(&mut self) {
        self.in_flight.remove(self.pending.len() as u32);
    }
}

#[cfg(test)]
mod tests;
