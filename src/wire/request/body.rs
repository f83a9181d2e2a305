//! Commands too long to be held: what has arrived is a request with arguments missing, the rest is passed on as it
//! comes, written anew in canonical form. Memory is what the caller gives at a time, whatever was declared.

use bytes::{BufMut, BytesMut};

use super::{CRLF, Request, RequestError, RequestScanner};
use crate::wire::number::put_header;

/// A command of more bytes than this is not held until it is complete.
pub const LONGEST_HELD: usize = 1 << 20;

impl RequestScanner {
    /// After [`super::Scan::Need`] for `buf`: whether the command is, or is declared to be, too long to be held.
    pub fn is_long(&self, buf: &[u8]) -> bool {
        self.left.is_some() && buf.len().max(self.pos + self.bulk.unwrap_or(0)) > LONGEST_HELD
    }

    /// The command as far as its arguments are complete. [`Request::encode_into`] writes what of it is known: the
    /// rest comes from [`RequestScanner::pass`].
    pub fn beginning<'a>(&'a self, buf: &'a [u8]) -> Request<'a> {
        Request { data: buf, spans: &self.spans, raw: None, missing: self.left.unwrap_or(0) }
    }

    /// Lets go of the complete arguments: from now on the command's bytes go through [`RequestScanner::pass`].
    /// Returns how many bytes of the buffer are done with.
    pub fn let_go(&mut self) -> usize {
        let used = std::mem::take(&mut self.pos);
        self.seen = self.seen.saturating_sub(used);
        self.spans = Vec::new();
        self.owes_header = true;
        used
    }

    /// Moves bytes of the command from the front of `buf` to `out`, in canonical form. Returns how many bytes of
    /// `buf` are done with, and whether the command is complete. The next command starts behind it.
    pub fn pass(&mut self, buf: &[u8], out: &mut BytesMut) -> Result<(usize, bool), RequestError> {
        let mut left = self.left.unwrap_or(0);
        while left > 0 {
            let Some(missing) =
                self.bulk.take().map_or_else(|| self.length(buf), |length| Ok(Some(length)))?
            else {
                break;
            };
            if std::mem::take(&mut self.owes_header) {
                put_header(out, b'$', missing);
            }
            let part = missing.min(buf.len().saturating_sub(self.pos));
            out.put_slice(&buf[self.pos..self.pos + part]);
            self.pos += part;
            if part < missing || buf.len() < self.pos + CRLF {
                self.bulk = Some(missing - part);
                break;
            }
            out.put_slice(b"\r\n");
            self.pos += CRLF;
            self.owes_header = true;
            left -= 1;
        }
        self.left = Some(left);
        let used = std::mem::take(&mut self.pos);
        self.seen = self.seen.saturating_sub(used);
        self.received = 0;
        if left == 0 {
            self.start_afresh();
        }
        Ok((used, left == 0))
    }
}
