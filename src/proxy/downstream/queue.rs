//! The order of one client's replies, without its socket: commands open slots, replies fill them, bytes come out.
//!
//! A pipeline may go to several nodes, whose replies arrive in any order. Each command takes a slot; the reply of the
//! oldest open slot goes straight into the output, any other is kept until its turn. What a slot gets before all of its
//! reply is there goes out as well, as soon as it is its turn.
//!
//! Behind a cluster most replies are early, and most are short: those lie in one buffer, one behind the other as they have come.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BytesMut};

use crate::net::runtime::limits;

/// The commands of a client that are not answered, and the bytes that it has yet to be given.
#[derive(Debug, Default)]
pub struct ReplyQueue {
    out: BytesMut,
    slots: VecDeque<ReplySlot>,
    /// Sequence number of the first slot.
    head: u64,
    /// Bytes kept for slots.
    kept: usize,
    /// Short replies that came before their turn, and what is left of those that have gone out since.
    early: Vec<u8>,
    /// Longer ones, and beginnings, by their sequence numbers.
    long: BTreeMap<u64, EarlyReply>,
}

/// A command's place in the client's order. Small, because many are open.
#[derive(Clone, Copy, Debug)]
enum ReplySlot {
    /// Its reply has not begun, or is going out as the head.
    Open,
    /// Its whole reply came before its turn: so many bytes of the early ones, from there.
    Early { length: u16, at: u32 },
    /// Its reply, or the beginning of it, came before its turn, and lies with the long ones.
    Long,
}

const _: () = assert!(size_of::<ReplySlot>() == 8, "a slot is small");

#[derive(Debug)]
struct EarlyReply {
    bytes: BytesMut,
    complete: bool,
}

impl ReplyQueue {
    /// Opens the next slot and returns its sequence number.
    #[inline]
    pub fn open(&mut self) -> u64 {
        self.slots.push_back(ReplySlot::Open);
        self.head + self.slots.len() as u64 - 1
    }

    /// Takes the reply of slot `seq`, or a part of it; `complete` with the last part. True when the oldest command is
    /// answered by that, so that it is another one's turn. What is not outstanding is answered already: nothing is
    /// taken for it.
    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    pub fn deliver(&mut self, seq: u64, bytes: &[u8], complete: bool) -> bool {
        let Some(index) = seq.checked_sub(self.head) else { return false };
        if index == 0 && !self.slots.is_empty() {
            self.out.extend_from_slice(bytes);
            if complete {
                self.advance_head();
            }
            return complete;
        }
        let Some(slot) = self.slots.get(index as usize).copied() else { return false };
        match slot {
            ReplySlot::Open if complete && bytes.len() <= SHORT && self.has_room_for_early() => {
                self.keep(index as usize, bytes);
            }
            ReplySlot::Open => {
                self.slots[index as usize] = ReplySlot::Long;
                self.long.insert(seq, EarlyReply { bytes: BytesMut::from(bytes), complete });
            }
            ReplySlot::Early { .. } => return false,
            ReplySlot::Long => {
                let Some(kept) = self.long.get_mut(&seq).filter(|kept| !kept.complete) else { return false };
                kept.bytes.extend_from_slice(bytes);
                kept.complete = complete;
            }
        }
        self.kept += bytes.len();
        false
    }

    /// Whether one more may lie with the early ones: if not, what has gone out since takes too much room.
    fn has_room_for_early(&mut self) -> bool {
        if self.early.len() > MOST_EARLY && self.kept < MOST_EARLY / 2 {
            self.close_up();
        }
        self.early.len() <= MOST_EARLY
    }

    /// Keeps a short reply for this slot.
    fn keep(&mut self, index: usize, bytes: &[u8]) {
        if self.early.len() + bytes.len() > self.early.capacity() {
            self.close_up();
        }
        self.slots[index] = ReplySlot::Early { length: bytes.len() as u16, at: self.early.len() as u32 };
        self.early.extend_from_slice(bytes);
    }

    /// Gives up the room of early replies that have gone out, before more is taken.
    #[cold]
    fn close_up(&mut self) {
        let mut left = Vec::with_capacity((self.early.len() / 2).max(SHORT / 4));
        for slot in &mut self.slots {
            if let ReplySlot::Early { length, at } = slot {
                let begin = *at as usize;
                let Some(bytes) = self.early.get(begin..begin + usize::from(*length)) else { continue };
                *at = left.len() as u32;
                left.extend_from_slice(bytes);
            }
        }
        self.early = left;
    }

    /// The head is complete: it and every complete one behind it go out.
    #[allow(clippy::inline_always, reason = "measured: 3 % of the instructions of a small command")]
    #[inline(always)]
    fn advance_head(&mut self) {
        self.slots.pop_front();
        self.head += 1;
        while let Some(slot) = self.slots.front() {
            match *slot {
                ReplySlot::Open => return,
                ReplySlot::Early { length, at } => {
                    let (length, at) = (usize::from(length), at as usize);
                    if let Some(bytes) = self.early.get(at..at + length) {
                        self.out.extend_from_slice(bytes);
                    }
                    self.kept -= length;
                }
                ReplySlot::Long => {
                    if !self.take_long() {
                        return;
                    }
                }
            }
            self.slots.pop_front();
            self.head += 1;
        }
        debug_assert!(self.kept == 0, "without slots nothing is kept");
        self.early.clear();
    }

    /// The head has a long reply, or the beginning of one, which goes out. True if that was all of it.
    #[cold]
    fn take_long(&mut self) -> bool {
        let Some(kept) = self.long.remove(&self.head) else { return true };
        self.out.extend_from_slice(&kept.bytes);
        self.kept -= kept.bytes.len();
        if !kept.complete {
            self.slots[0] = ReplySlot::Open;
        }
        kept.complete
    }

    /// Bytes that belong to no slot: they come before whatever is delivered later.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// What is to be written.
    pub fn output(&self) -> &[u8] {
        &self.out
    }

    /// So many bytes of the output are written.
    pub fn written(&mut self, count: usize) {
        debug_assert!(count <= self.out.len(), "no more is written than there is");
        if count == self.out.len() { self.out.clear() } else { self.out.advance(count) }
    }

    /// The client is gone: nothing of what it was owed is kept.
    pub fn forget(&mut self) {
        self.out = BytesMut::new();
        self.slots.clear();
        (self.early, self.long, self.kept) = (Vec::new(), BTreeMap::new(), 0);
    }

    /// Sequence number of the slot that [`Self::open`] would open.
    pub fn next(&self) -> u64 {
        self.head + self.slots.len() as u64
    }

    /// Sequence number of the oldest command that is not answered.
    pub fn oldest(&self) -> u64 {
        self.head
    }

    /// How many commands are not answered.
    pub fn outstanding(&self) -> usize {
        self.slots.len()
    }

    /// Bytes that have their turn and are not written.
    pub fn output_len(&self) -> usize {
        self.out.len()
    }

    /// Bytes that came before their turn.
    pub fn kept_len(&self) -> usize {
        self.kept
    }

    /// Whether the output has no buffer of its own.
    pub fn needs_buffer(&self) -> bool {
        self.out.capacity() == 0
    }

    /// Has the output collected in this empty buffer, and returns the one in which it was before, which is empty as well.
    pub fn exchange_buffer(&mut self, buffer: BytesMut) -> BytesMut {
        debug_assert!(self.out.is_empty() && buffer.is_empty(), "only empty buffers are exchanged");
        std::mem::replace(&mut self.out, buffer)
    }

    /// Whether a burst of commands has left more room for slots than is kept for one client.
    pub fn is_roomy(&self) -> bool {
        self.slots.capacity() > limits::SLOTS_KEPT || self.early.capacity() > SHORT
    }

    /// Gives the room for slots back, of which none may be open.
    pub fn rest(&mut self) {
        debug_assert!(self.slots.is_empty(), "no slot is open");
        (self.slots, self.early) = (VecDeque::new(), Vec::new());
    }
}

/// The longest reply that is short.
const SHORT: usize = 1024;

/// Bytes of early short replies, beyond which they are kept like long ones.
const MOST_EARLY: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(slots: u64) -> ReplyQueue {
        let mut queue = ReplyQueue::default();
        (0..slots).for_each(|seq| assert_eq!(queue.open(), seq));
        queue
    }

    #[test]
    fn replies_come_out_in_the_order_of_the_commands() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut queue = queue(3);
            for seq in order {
                let moves = queue.deliver(seq, format!("+{seq}\r\n").as_bytes(), true);
                assert_eq!(moves, queue.oldest() > seq, "{order:?}");
            }
            assert_eq!(queue.output(), b"+0\r\n+1\r\n+2\r\n", "{order:?}");
            assert_eq!((queue.oldest(), queue.next(), queue.outstanding(), queue.kept_len()), (3, 3, 0, 0));
        }
    }

    #[test]
    fn a_reply_in_parts_is_kept_together() {
        let mut queue = queue(3);
        queue.deliver(1, b"$4\r\nab", false);
        queue.deliver(0, b"$2\r\n", false);
        queue.deliver(2, b":2\r\n", true);
        assert_eq!((queue.output(), queue.kept_len()), (&b"$2\r\n"[..], 10));
        queue.deliver(0, b"xy\r\n", true);
        assert_eq!(queue.output(), b"$2\r\nxy\r\n$4\r\nab", "what there is of the next one follows");
        queue.deliver(1, b"cd\r\n", true);
        assert_eq!(queue.output(), b"$2\r\nxy\r\n$4\r\nabcd\r\n:2\r\n");
        assert_eq!(queue.kept_len(), 0);
    }

    #[test]
    fn early_replies_take_no_more_room_than_what_is_kept() {
        let mut queue = ReplyQueue::default();
        let reply = |seq: u64| format!("+{seq}{}\r\n", "x".repeat(seq as usize % 900)).into_bytes();
        let mut most = 0;
        for seq in 0..20_000 {
            queue.open();
            // Each fourth is late, so that something is kept always.
            if seq % 4 > 0 {
                queue.deliver(seq, &reply(seq), true);
            } else if seq >= 8 {
                queue.deliver(seq - 8, &reply(seq - 8), true);
                assert!(queue.kept_len() > 0 && queue.oldest() == seq - 4);
            }
            most = most.max(queue.early.capacity());
        }
        let whole: Vec<u8> = (0..queue.oldest()).flat_map(reply).collect();
        assert!(queue.output() == whole, "{} of {}", queue.output_len(), whole.len());
        assert!((SHORT..=32 * SHORT).contains(&most), "{most}");
    }

    #[test]
    fn long_and_short_ones_come_out_in_their_order() {
        let mut queue = queue(200);
        let reply = |seq: u64| format!("+{seq}{}\r\n", "y".repeat(seq as usize * 97 % 2500)).into_bytes();
        (0..200).map(|n| n * 77 % 200).for_each(|seq| {
            queue.deliver(seq, &reply(seq), true);
        });
        assert_eq!(queue.output(), (0..200).flat_map(reply).collect::<Vec<u8>>());
        assert_eq!((queue.kept_len(), queue.outstanding()), (0, 0));
        assert!(queue.long.is_empty() && queue.early.is_empty());
        queue.rest();
        assert!(!queue.is_roomy());
    }

    #[test]
    fn nothing_is_answered_twice() {
        let mut queue = queue(2);
        queue.deliver(1, b"+b\r\n", true);
        queue.deliver(1, b"+again\r\n", true);
        queue.deliver(0, b"+a\r\n", true);
        assert!(!queue.deliver(0, b"+again\r\n", true));
        assert!(!queue.deliver(2, b"+early\r\n", true), "its slot is not open yet");
        assert_eq!(queue.output(), b"+a\r\n+b\r\n");
        assert_eq!(queue.open(), 2, "and no number is given twice");
    }

    #[test]
    fn what_is_written_leaves_from_the_front() {
        let mut queue = queue(1);
        queue.push_raw(b">1\r\n+p\r\n");
        queue.deliver(0, b"+a\r\n", true);
        queue.written(4);
        assert_eq!(queue.output(), b"+p\r\n+a\r\n");
        queue.written(8);
        assert_eq!(queue.output_len(), 0);
    }

    #[test]
    fn a_client_that_is_gone_is_owed_nothing() {
        let mut queue = queue(3);
        queue.deliver(0, b"+a\r\n", true);
        queue.deliver(2, b"+c\r\n", true);
        queue.forget();
        assert_eq!((queue.output_len(), queue.kept_len(), queue.outstanding()), (0, 0, 0));
        assert!(!queue.deliver(1, b"+b\r\n", true));
        assert_eq!(queue.output_len(), 0);
    }
}
