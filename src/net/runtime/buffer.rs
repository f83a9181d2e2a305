//! Buffers that are filled at the end and emptied at the front.

use bytes::{Buf as _, BytesMut};

/// Drops the first `n` bytes. Of all of them this is cheap, and the whole room can be filled again.
pub(crate) fn drop_front(buffer: &mut BytesMut, n: usize) {
    if n == buffer.len() {
        buffer.clear();
    } else {
        buffer.advance(n);
    }
}
