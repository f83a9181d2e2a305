//! Buffers that are filled at the end and emptied at the front.

use std::ops::Deref;

use bytes::{Buf as _, BytesMut};

/// Bytes that are dropped at the front by little and little: most often that costs an addition, and they are let go of when
/// there are many, or none is left.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    bytes: BytesMut,
    /// How many at the front of `bytes` are dropped.
    dropped: usize,
}

/// Dropped bytes that are kept at most, in bytes, unless more are dropped at once.
const DROPPED_KEPT: usize = 16 << 10;

impl Queued {
    /// Where bytes are appended; what is there already is not to be changed.
    #[inline]
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.dropped
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `n` bytes, which must be there.
    #[inline]
    pub(crate) fn drop_front(&mut self, n: usize) {
        debug_assert!(n <= self.len(), "{n} of {} bytes", self.len());
        self.dropped += n;
        if self.dropped == self.bytes.len() {
            self.clear();
        } else if self.dropped > DROPPED_KEPT {
            self.let_go();
        }
    }

    /// Takes out the first `n` bytes, which must be there.
    pub(crate) fn split_to(&mut self, n: usize) -> BytesMut {
        self.let_go();
        self.bytes.split_to(n)
    }

    /// Puts `bytes` in the place of all from `begin` on.
    pub(crate) fn replace_from(&mut self, begin: usize, bytes: &[u8]) {
        self.bytes.truncate(self.dropped + begin);
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops everything, and keeps the room.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.dropped = 0;
    }

    /// Gives back the room if there is more than `most`, in bytes, and nothing is in it.
    #[inline]
    pub(crate) fn shrink(&mut self, most: usize) {
        if self.is_empty() && self.bytes.capacity() > most {
            *self = Self::default();
        }
    }

    fn let_go(&mut self) {
        self.bytes.advance(std::mem::take(&mut self.dropped));
    }
}

impl Deref for Queued {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes.get(self.dropped..).unwrap_or_default()
    }
}

/// Drops the first `n` bytes. Of all of them this is cheap, and the whole room can be filled again.
pub(crate) fn drop_front(buffer: &mut BytesMut, n: usize) {
    if n == buffer.len() {
        buffer.clear();
    } else {
        buffer.advance(n);
    }
}
