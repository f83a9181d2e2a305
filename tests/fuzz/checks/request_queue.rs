//! Rules for the requests of one connection: whatever is taken, moved, voided and cut, the server gets each request once
//! (or never, if it moves before it is offered), byte for byte and in the order in which they were taken, and each of its replies finds the command that it answers.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use redweir::core::fence::{FenceTable, Slot};
use redweir::core::moment::Moment;
use redweir::core::nodes::node::NodeId;
use redweir::core::policy::PolicyId;
use redweir::core::repeat::PendingKind;
use redweir::core::session::Stamps;
use redweir::core::slots::{Expected, ShardIndex};
use redweir::net::runtime::flush::{DirtyList, Schedule};
use redweir::net::socket::halves::WriteHalf;
use redweir::proxy::downstream::replies::{Client, Gone, Output};
use redweir::proxy::upstream::load::Load;
use redweir::proxy::upstream::pending::{Pending, Rewrite};
use redweir::proxy::upstream::queue::RequestQueue;
use redweir::telemetry::AccessLabel;

use super::steps::Steps;

/// A command, as it has to come back.
#[derive(Clone, Debug)]
struct Entry {
    seq: u64,
    client: usize,
    kind: PendingKind,
    slot: Option<Slot>,
    bytes: Vec<u8>,
    void: bool,
}

impl Entry {
    fn may_move(&self) -> bool {
        matches!(self.kind, PendingKind::Read | PendingKind::Final)
    }

    /// Whether a read must stay because this is of the same client.
    fn binds(&self, read: &Self, fencing: bool) -> bool {
        !fencing || if read.slot.is_some() { self.slot == read.slot } else { self.slot.is_some() }
    }
}

/// The queue, and what it has to do.
struct Model {
    queue: RequestQueue,
    load: Rc<Load>,
    clients: Vec<Rc<Client>>,
    drain: Rc<Client>,
    slots: Vec<Slot>,
    entries: VecDeque<Entry>,
    next: u64,
    /// What the server has to get.
    asked: Vec<u8>,
    /// What it has got.
    wire: Vec<u8>,
    /// How much of that was asked by commands that are answered.
    answered: usize,
    /// How much was offered, of `asked`.
    offered: usize,
    cut: bool,
}

/// The steps that `input` stands for, one after another.
pub(crate) fn check(input: &[u8]) {
    let (mut steps, mut model) = (Steps::new(input), Model::new());
    while let Some(step) = steps.next() {
        match step % 16 {
            0..4 => model.push(steps.number(), steps.text()),
            4 | 5 => model.write(steps.number(), steps.number()),
            6 | 7 => model.pop(step % 16 == 7),
            8 => model.cut(),
            9 => model.void_reads(),
            10 => model.take(steps.number().is_multiple_of(2), true),
            11 => model.take(steps.number().is_multiple_of(2), false),
            12 => model.leave(steps.number()),
            13 => model.drain(),
            14 => model.stream(&mut steps),
            _ => model.queue.shrink(),
        }
        model.compare();
    }
    model.finish();
}

impl Model {
    fn new() -> Self {
        let output = Output {
            dirty: DirtyList::new(&Rc::<Schedule>::default()),
            buffers: Rc::default(),
            budget: Arc::default(),
            gathers: false,
        };
        let client = |id| Client::new(id, WriteHalf::nowhere(), output.clone(), usize::MAX);
        let load = Load::new(1);
        let fences = FenceTable::new(1 << 10, [1, 2, 3, 4]);
        Self {
            queue: RequestQueue::new(load.in_flight(NodeId(0))),
            load,
            clients: (1..5).map(client).collect(),
            drain: Client::drain(output.clone()),
            slots: [b"a", b"b", b"c"].map(|key| fences.slot(key)).to_vec(),
            entries: VecDeque::new(),
            next: 0,
            asked: Vec::new(),
            wire: Vec::new(),
            answered: 0,
            offered: 0,
            cut: false,
        }
    }

    fn push(&mut self, what: usize, text: &[u8]) {
        let kind =
            [PendingKind::Read, PendingKind::Read, PendingKind::Final, PendingKind::Write][what / 4 % 4];
        let slot = self.slots.get(what / 16 % 4).copied();
        let bytes = [format!("{}:", self.next).as_bytes(), text].concat();
        self.next += 1;
        self.take_in(Entry { seq: self.next, client: what % 4, kind, slot, bytes, void: false });
    }

    fn take_in(&mut self, entry: Entry) {
        let pending = self.pending(&entry);
        self.queue.push(pending, |buffer| buffer.extend_from_slice(&entry.bytes));
        self.asked.extend_from_slice(&entry.bytes);
        self.entries.push_back(entry);
    }

    fn pending(&self, entry: &Entry) -> Pending {
        Pending {
            shard: ShardIndex::FIRST,
            redirected: 0,
            client: Rc::clone(&self.clients[entry.client]),
            seq: entry.seq,
            len: 0,
            access: AccessLabel::Other,
            kind: entry.kind,
            rewrite: Rewrite::None,
            policy: PolicyId::default(),
            stamps: entry.slot.map_or(Stamps::None, Stamps::One),
            at_primary: false,
            sees_all: false,
            expected: Expected::Anything,
            need: None,
            void: false,
            shares: false,
            begun: Moment::default(),
            sent: Moment::default(),
        }
    }

    /// The socket takes some of what it is offered, which is that of few requests if there is a window.
    fn write(&mut self, window: usize, count: usize) {
        let window = (!window.is_multiple_of(4)).then_some(window % 16);
        let end = self.queue.writable(window);
        let asked = window.unwrap_or(usize::MAX);
        let wanted: usize = self.entries.iter().take(asked).map(|entry| entry.bytes.len()).sum();
        let most = (self.answered + wanted).max(self.offered);
        let offer = self.queue.unsent_to(end);
        assert!(self.wire.len() + offer.len() <= most.max(self.wire.len()), "no more than the window allows");
        assert!(most <= self.wire.len() || self.wire.len() + offer.len() == most, "and no less");
        let count = count % (offer.len() + 1);
        self.wire.extend_from_slice(&offer[..count]);
        if count < offer.len() {
            self.offered = self.wire.len() - count + offer.len();
            self.queue.wrote(count);
            self.queue.refused(end);
        } else {
            self.queue.wrote(count);
        }
    }

    /// The oldest is answered.
    fn pop(&mut self, again: bool) {
        let whole = |entry: &&Entry| self.answered + entry.bytes.len() <= self.wire.len();
        let expected = self.entries.front().filter(whole).cloned();
        let Some(entry) = expected else {
            assert!(self.queue.pop(|_, _| again).is_none(), "a reply that nobody has asked for");
            return;
        };
        let (pending, request) = self
            .queue
            .pop(|pending, bytes| {
                assert_eq!((pending.seq, bytes), (entry.seq, &entry.bytes[..]));
                again
            })
            .expect("it was asked for");
        self.assert_is(&pending, &entry);
        assert_eq!(request.as_deref(), again.then_some(&entry.bytes[..]));
        self.entries.pop_front();
        self.answered += entry.bytes.len();
        self.cut = false;
        if again && entry.may_move() {
            self.take_in(Entry { void: false, ..entry });
        }
    }

    /// A client leaves, and what it has yet to ask may be withdrawn.
    fn leave(&mut self, what: usize) {
        let client = what % 4;
        self.clients[client].leave(Gone::Left);
        if (what / 4).is_multiple_of(2) {
            return;
        }
        self.queue.withdraw(&self.clients[client]);
        let mut at = self.answered;
        let (asked, offered) = (std::mem::take(&mut self.asked), self.wire.len().max(self.offered));
        self.asked.extend_from_slice(&asked[..self.answered]);
        self.entries.retain(|entry| {
            let bytes = at..at + entry.bytes.len();
            at = bytes.end;
            let stays = bytes.start < offered || entry.client != client || !entry.may_move();
            if stays {
                self.asked.extend_from_slice(&asked[bytes]);
            }
            stays
        });
    }

    fn cut(&mut self) {
        if self.entries.front().is_some_and(|entry| self.answered + entry.bytes.len() <= self.wire.len()) {
            self.queue.cut();
            self.cut = true;
        }
    }

    fn void_reads(&mut self) {
        self.queue.void_reads();
        self.entries.iter_mut().skip(usize::from(self.cut)).for_each(|entry| entry.void = true);
    }

    /// What waits behind the oldest, or the oldest and what its client has sent behind it, moves elsewhere.
    fn take(&mut self, others: bool, fencing: bool) {
        let taken = if others {
            self.queue.take_others(&self.drain, fencing)
        } else {
            self.queue.take_own(&self.drain, fencing)
        };
        let mut expected = Vec::new();
        if let Some(front) = self.entries.front().cloned()
            && (others || self.is_free(&front, fencing))
        {
            let chosen = |entry: &Entry| {
                let own = entry.client == front.client && front.kind != PendingKind::Moved;
                own != others && self.is_free(entry, fencing)
            };
            let chosen: Vec<usize> = (0..self.entries.len()).filter(|n| chosen(&self.entries[*n])).collect();
            // From the end on, so that what has yet to be looked at keeps its place.
            for n in chosen.into_iter().rev() {
                let begin =
                    self.answered + self.entries.range(..n).map(|entry| entry.bytes.len()).sum::<usize>();
                let entry = &mut self.entries[n];
                expected.push(entry.clone());
                if begin >= self.wire.len().max(self.offered) {
                    self.asked.drain(begin..begin + entry.bytes.len());
                    self.entries.remove(n);
                } else {
                    *entry =
                        Entry { seq: 0, kind: PendingKind::Moved, slot: None, void: false, ..entry.clone() };
                }
            }
            expected.reverse();
        }
        if !others {
            expected.sort_by_key(|entry| entry.seq);
        }
        assert_eq!(taken.len(), expected.len(), "{expected:?}");
        for ((pending, bytes), entry) in taken.iter().zip(&expected) {
            self.assert_is(pending, entry);
            assert_eq!(bytes, &entry.bytes);
        }
    }

    /// Whether a command may be sent again elsewhere: a read of somebody who is there, who has not sent anything here
    /// that it, or another read of the same client, must not pass.
    fn is_free(&self, entry: &Entry, fencing: bool) -> bool {
        let same = |other: &&Entry| other.client == entry.client && other.kind != PendingKind::Moved;
        let reads = || self.entries.iter().filter(same).filter(|other| other.may_move());
        let mut fixed = self.entries.iter().filter(same).filter(|other| !other.may_move());
        entry.may_move()
            && self.clients[entry.client].gone().is_none()
            && !fixed.any(|other| reads().any(|read| other.binds(read, fencing)))
    }

    fn assert_is(&self, pending: &Pending, entry: &Entry) {
        let moved = entry.kind == PendingKind::Moved;
        let client = if moved { &self.drain } else { &self.clients[entry.client] };
        assert!(Rc::ptr_eq(&pending.client, client));
        let found = (pending.seq, pending.kind, pending.len, pending.void);
        assert_eq!(found, (entry.seq, entry.kind, entry.bytes.len(), entry.void));
    }

    /// The connection ends.
    fn drain(&mut self) {
        let left = self.queue.drain();
        assert_eq!(left.len(), self.entries.len());
        let mut end = self.answered;
        for (n, (left, entry)) in left.iter().zip(&self.entries).enumerate() {
            end += entry.bytes.len();
            self.assert_is(&left.pending, entry);
            assert_eq!(left.request, entry.bytes);
            assert_eq!((left.sent, left.cut), (end <= self.wire.len(), self.cut && n == 0));
        }
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.entries.clear();
        self.asked.clear();
        self.wire.clear();
        (self.answered, self.offered, self.cut) = (0, 0, false);
    }

    /// A command that is passed on as it comes, with nothing else outstanding.
    fn stream(&mut self, steps: &mut Steps<'_>) {
        if !self.entries.is_empty() {
            return;
        }
        self.begin_anew();
        self.next += 1;
        let (seq, kind) = (self.next, PendingKind::Write);
        let entry = Entry { seq, client: 0, kind, slot: None, bytes: Vec::new(), void: false };
        let (pending, first) = (self.pending(&entry), steps.text());
        self.queue.push_beginning(pending, |buffer| buffer.extend_from_slice(first));
        self.asked.extend_from_slice(first);
        for part in 0..4 {
            assert!(self.queue.is_streaming() && !self.queue.is_streamed());
            self.write_streamed(steps.number());
            let (text, last) = (steps.text(), part == 3);
            let taken = self.queue.stream(|buffer: &mut BytesMut| {
                buffer.extend_from_slice(text);
                Ok::<_, ()>((text.len(), last))
            });
            assert_eq!(taken, Ok((text.len(), last)));
            self.asked.extend_from_slice(text);
        }
        if steps.number().is_multiple_of(2) {
            let sent = self.wire.len() == self.asked.len();
            let left = self.queue.drain();
            assert_eq!((left.len(), left[0].pending.seq, left[0].sent), (1, entry.seq, sent));
            self.queue.end_streaming();
        } else {
            self.write_streamed(usize::MAX);
            assert!(self.queue.is_streamed());
            let (pending, _) = self.queue.pop(|_, _| false).expect("it was asked for");
            assert_eq!(pending.seq, entry.seq);
            self.queue.end_streaming();
            assert_eq!(self.wire, self.asked);
        }
        self.begin_anew();
    }

    fn write_streamed(&mut self, count: usize) {
        let offer = self.queue.unsent_to(self.queue.writable(None));
        let count = count.min(offer.len());
        self.wire.extend_from_slice(&offer[..count]);
        self.queue.wrote(count);
        self.queue.release_streamed();
        assert_eq!(self.queue.bytes(), self.asked.len() - self.wire.len(), "what is written is let go");
    }

    fn compare(&self) {
        assert_eq!(self.wire, self.asked[..self.wire.len()], "the server gets what was asked, in order");
        assert_eq!(self.queue.len(), self.entries.len());
        assert_eq!(*self.load.per_node(1), [self.entries.len() as u32], "what is outstanding is counted");
        assert_eq!(self.queue.is_empty(), self.entries.is_empty());
        assert_eq!(self.queue.bytes(), self.asked.len() - self.answered);
        assert_eq!(self.queue.unsent(), self.asked.len() - self.wire.len());
        assert_eq!(self.queue.is_cut(), self.cut);
        let waits = |entry: &Entry, front: &Entry| {
            let apart =
                entry.client != front.client || front.kind == PendingKind::Moved || entry.seq < front.seq;
            entry.kind != PendingKind::Moved && self.clients[entry.client].gone().is_none() && apart
        };
        let in_the_way = self
            .entries
            .front()
            .is_some_and(|front| self.entries.iter().skip(1).any(|entry| waits(entry, front)));
        assert_eq!(self.queue.is_in_the_way(), in_the_way);
        let owed = |entry: &Entry| {
            let gone = entry.kind == PendingKind::Moved || self.clients[entry.client].gone().is_some();
            !gone || entry.kind == PendingKind::Write
        };
        assert_eq!(self.queue.is_for_nobody(), !self.entries.iter().any(owed));
    }

    /// Once all is written all are answered, each by its own reply.
    fn finish(&mut self) {
        let rest = self.queue.unsent_to(self.queue.writable(None)).to_vec();
        self.queue.wrote(rest.len());
        self.wire.extend(rest);
        assert_eq!(self.wire, self.asked);
        while !self.entries.is_empty() {
            self.pop(false);
            self.compare();
        }
        assert!(self.queue.pop(|_, _| false).is_none());
    }
}
