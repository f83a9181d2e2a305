//! One command as the scanner found it: spans over the caller's bytes.

use bytes::{BufMut, BytesMut};

use crate::core::argv::Args;
use crate::wire::inline::ArgSpan;
use crate::wire::number::put_header;

/// One command: its arguments by index, and its bytes for the upstream connection.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub(super) data: &'a [u8],
    pub(super) spans: &'a [ArgSpan],
    pub(super) raw: Option<&'a [u8]>,
    /// Arguments behind `spans` that have not arrived yet.
    pub(super) missing: usize,
}

impl<'a> Request<'a> {
    /// The command's name as the client wrote it.
    pub fn name(&self) -> &'a [u8] {
        self.argument(0)
    }

    /// The command's bytes when they are canonical RESP and can be forwarded as they are.
    pub fn raw(&self) -> Option<&'a [u8]> {
        self.raw
    }

    /// Whether arguments are still to come: it is a command that is passed on in parts. They count as empty.
    pub fn is_partial(&self) -> bool {
        self.missing > 0
    }

    /// Whether this argument has not arrived yet.
    pub fn lacks(&self, index: usize) -> bool {
        self.missing > 0 && index >= self.spans.len()
    }

    /// Appends the command in canonical RESP: its own bytes if they are, else `*N` and `$len` written anew.
    #[inline]
    pub fn encode_into(&self, out: &mut BytesMut) {
        if let Some(raw) = self.raw {
            out.extend_from_slice(raw);
            return;
        }
        put_header(out, b'*', self.spans.len() + self.missing);
        for span in self.spans {
            let argument = span.of(self.data);
            put_header(out, b'$', argument.len());
            out.put_slice(argument);
            out.put_slice(b"\r\n");
        }
    }

    fn argument(&self, index: usize) -> &'a [u8] {
        self.spans.get(index).map_or(&[], |span| span.of(self.data))
    }
}

impl Args for Request<'_> {
    fn count(&self) -> usize {
        self.spans.len() + self.missing
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.argument(index)
    }
}
