//! One request for several reads: a hot key.
//!
//! A read that stands in the queue, and of which the server was not offered a byte, asks for every read with the same bytes
//! that comes meanwhile. It will be executed after all of them have arrived, so each gets what it would have got itself. Who
//! is asked for has no bytes of its own, stands directly behind the one that asks, and gets the same reply. Its client sends
//! nothing more before that: should the reply turn out to be long, the read is asked for anew, behind whatever was sent since.

use bytes::BytesMut;

use super::RequestQueue;
use crate::mutant;
use crate::proxy::upstream::pending::Pending;

/// How many entries are looked at, from the last one on, for a request that is the same.
const LOOKED_AT: usize = 256;

impl RequestQueue {
    /// Takes a read, whose bytes `encode` appends, unless another one asks for it. True if one does. Its client must have nothing
    /// outstanding: the read comes to stand before what was taken later than the one that asks.
    #[cold]
    pub fn push_shared(&mut self, mut pending: Pending, encode: impl FnOnce(&mut BytesMut)) -> bool {
        debug_assert!(!self.is_streaming(), "nothing is taken behind a streamed command");
        let begin = self.buffer.len();
        encode(self.buffer.tail());
        let Some(asks) = self.same(begin) else {
            (pending.len, pending.shares) = (self.buffer.len() - begin, false);
            self.push_back(pending);
            return false;
        };
        self.buffer.replace_from(begin, &[]);
        (pending.len, pending.shares) = (0, true);
        let sharers = self.pending.range(asks + 1..).take_while(|next| next.shares).count();
        self.pending.insert(asks + 1 + sharers, pending);
        self.sharing += 1;
        self.in_flight.add();
        true
    }

    /// The read that asks for what stands in the buffer from `begin` on.
    fn same(&self, begin: usize) -> Option<usize> {
        let request = self.buffer.get(begin..)?;
        let asked = if mutant::is("shares-what-was-asked") { 0 } else { self.sent.max(self.offered) };
        let mut end = begin;
        for (index, pending) in self.pending.iter().enumerate().rev().take(LOOKED_AT) {
            let start = end.checked_sub(pending.len)?;
            if start < asked {
                return None;
            }
            let alike = !pending.shares && pending.asked().may_move() && pending.at_primary && !pending.void;
            if alike && self.buffer.get(start..end)? == request {
                return Some(index);
            }
            end = start;
        }
        None
    }

    /// Whether the reply that came last answers the next command, too. If so, that is to be taken out ([`Self::pop`]) next.
    pub fn takes_next_sharer(&mut self) -> bool {
        let is_shared = self.sharing > 0 && self.pending.front().is_some_and(|front| front.shares);
        self.sharing -= usize::from(is_shared);
        is_shared
    }

    /// What the command that was answered last has asked for others as well.
    pub fn shared_request(&self) -> &[u8] {
        &self.shared
    }

    /// Keeps the oldest command's bytes for those whom it asks for, before they are let go of: to be called before [`Self::pop`]
    /// where requests may be shared.
    pub fn remember_shared(&mut self) {
        let Some(front) = self.pending.front().filter(|front| self.sharing > 0 && !front.shares) else {
            return;
        };
        if self.pending.get(1).is_some_and(|next| next.shares) {
            self.shared.clear();
            self.shared.extend_from_slice(self.buffer.get(..front.len).unwrap_or_default());
        }
    }

    /// Takes out those whom the oldest command asks for: its reply is to be handed on as it comes, to its client alone. They are to
    /// be asked for anew.
    pub fn take_sharers(&mut self) -> Vec<(Pending, BytesMut)> {
        let mut taken = Vec::new();
        let Some(front) = self.pending.front().filter(|_| self.sharing > 0) else { return taken };
        let request = BytesMut::from(self.buffer.get(..front.len).unwrap_or_default());
        while self.pending.get(1).is_some_and(|next| next.shares)
            && let Some(pending) = self.pending.remove(1)
        {
            self.sharing -= 1;
            self.in_flight.remove(1);
            if pending.client.gone().is_none() {
                taken.push((pending, request.clone()));
            }
        }
        taken
    }

    /// Whose commands are outstanding, and whether another one asks for them.
    #[cfg(test)]
    pub(super) fn clients(&self) -> Vec<(u64, bool)> {
        self.pending.iter().map(|pending| (pending.client.id, pending.shares)).collect()
    }
}
