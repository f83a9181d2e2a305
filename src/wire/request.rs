//! Where one command ends in the bytes of a client, and where its arguments lie: spans over the read buffer,
//! no tree, no copy. Follows `processMultibulkBuffer` and `processInlineBuffer` of Redis 7.0 (networking.c)
//! byte for byte, also where they are sloppy, with two differences. A limit on a line counts the bytes before
//! its end, however they arrived, whereas Redis checks it once per `read`. And a command whose bytes are not
//! canonical (`$3\r\nfooXX` passes in Redis) says so, because on a shared upstream connection it must be
//! re-encoded.
//!
//! Invariants: `pos` never exceeds the bytes seen; everything before `pos` is finished and never looked at
//! again; bytes of the present line before `seen` have been searched for its end.

mod body;
mod error;
mod found;

pub use body::LONGEST_HELD;
pub use error::RequestError;
pub use found::Request;

use super::inline::{self, ArgSpan};
use super::number::{integer, quick_length};

/// What a client may send. Everything else about a command is bounded by the bytes that really arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most arguments of one command. Redis 7.0 allows `INT_MAX`; up to 6.2 it was 1,048,576, as such a server says
    /// itself when it gets more.
    pub max_args: usize,
    /// Longest argument in bytes (`proto-max-bulk-len`).
    pub max_bulk: usize,
    /// Longest `*N` or `$N` line in bytes, without its line end (`PROTO_INLINE_MAX_SIZE`).
    pub max_line: usize,
    /// Longest inline command in bytes, without its line feed (`PROTO_INLINE_MAX_SIZE`).
    pub max_inline: usize,
    /// Whether the client has yet to authenticate: too many or too long arguments are then called
    /// "unauthenticated" (`authRequired`).
    pub before_auth: bool,
}

impl RequestLimits {
    /// The limits of a client that may run commands.
    pub const DEFAULT: Self = Self {
        max_args: i32::MAX as usize,
        max_bulk: 512 << 20,
        max_line: 64 << 10,
        max_inline: 64 << 10,
        before_auth: false,
    };

    /// The limits of a client that must authenticate first: ten arguments of 16 KiB.
    pub const BEFORE_AUTH: Self =
        Self { max_args: 10, max_bulk: 16 << 10, before_auth: true, ..Self::DEFAULT };
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What stands at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// An unfinished command, or nothing: wait for more bytes.
    Need,
    /// So many bytes that say nothing and get no reply: an empty line, `*0`, `*-1`.
    Skip(usize),
    /// One complete command.
    Command {
        /// Its bytes at the front of the buffer.
        len: usize,
        /// Whether these bytes are canonical RESP, fit to be forwarded as they are.
        canonical: bool,
    },
}

/// Finds one command after the other in a client's bytes. Keeps its place in an unfinished command and the
/// spans of its arguments; allocates only while it meets larger commands than before.
#[derive(Debug)]
pub struct RequestScanner {
    limits: RequestLimits,
    /// The start of the line or payload to be read next.
    pos: usize,
    /// How far the present line has been searched for its end.
    seen: usize,
    /// Arguments still to come; `None` before the command's first line has been read.
    left: Option<usize>,
    /// The declared length of the argument whose payload is awaited.
    bulk: Option<usize>,
    /// The bytes of that payload that had arrived at the last call.
    received: usize,
    canonical: bool,
    /// The last call found a command; the next one starts afresh.
    done: bool,
    /// Of a command that is passed on in parts: the `$N` line of the present argument is still to be written.
    owes_header: bool,
    spans: Vec<ArgSpan>,
    /// The words of an inline command; empty when the spans point into the caller's buffer.
    scratch: Vec<u8>,
    inline: bool,
}

impl RequestScanner {
    /// A scanner at the start of a connection.
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            pos: 0,
            seen: 0,
            left: None,
            bulk: None,
            received: 0,
            canonical: true,
            done: false,
            owes_header: false,
            spans: Vec::new(),
            scratch: Vec::new(),
            inline: false,
        }
    }

    /// Changes the limits for the lines not yet read. As in Redis, where `AUTH` takes effect for the next
    /// command in the same buffer, the caller runs `AUTH` before it scans on.
    pub fn set_limits(&mut self, limits: RequestLimits) {
        self.limits = limits;
    }

    /// Looks at `buf`, which starts at the first byte not yet consumed. After [`Scan::Skip`] or
    /// [`Scan::Command`] the caller drops that many bytes from the front and calls again; after
    /// [`Scan::Need`] it calls again with the same bytes plus more. After an error it closes the connection.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, RequestError> {
        if self.done {
            self.start_afresh();
        }
        if self.left.is_none()
            && let Some(len) = self.scan_at_once(buf)
        {
            (self.pos, self.done) = (len, true);
            return Ok(Scan::Command { len, canonical: true });
        }
        self.scan_thoroughly(buf)
    }

    /// What [`RequestScanner::scan`] does when the next command is not all there, or not as usual.
    #[inline(never)]
    fn scan_thoroughly(&mut self, buf: &[u8]) -> Result<Scan, RequestError> {
        if self.left.is_none() {
            self.spans.clear();
            match buf.first() {
                None => return Ok(Scan::Need),
                Some(b'*') => {}
                Some(_) => return self.scan_inline(buf),
            }
            match self.count(buf)? {
                None => return Ok(Scan::Need),
                Some(0) => return Ok(self.skip(self.pos)),
                Some(count) => self.left = Some(count),
            }
        }
        self.scan_arguments(buf)
    }

    /// The command that the last [`RequestScanner::scan`] found; `buf` is the slice it was given.
    #[inline]
    pub fn request<'a>(&'a self, buf: &'a [u8]) -> Request<'a> {
        if !self.done {
            return Request { data: &[], spans: &[], raw: None, missing: 0 };
        }
        let data = if self.inline { self.scratch.as_slice() } else { buf };
        let raw = if self.canonical { buf.get(..self.pos) } else { None };
        Request { data, spans: &self.spans, raw, missing: 0 }
    }

    /// How many bytes the argument being read still lacks, to size the next read; `None` when not known.
    /// Never more than what has already arrived of it (or 16 KiB), so that memory follows received bytes and
    /// not a declared length.
    pub fn wanted(&self) -> Option<usize> {
        let missing = (self.bulk? + CRLF).saturating_sub(self.received);
        Some(missing.min(self.received.max(FIRST_READ)))
    }

    /// Finds a command that is all there and as every client library writes it. `None` decides nothing.
    #[inline]
    fn scan_at_once(&mut self, buf: &[u8]) -> Option<usize> {
        let [b'*', rest @ ..] = buf else { return None };
        let (count, used) = quick_length(rest)?;
        if count == 0 || count > self.limits.max_args {
            return None;
        }
        let mut at = 1 + used;
        for _ in 0..count {
            let (sigil, number) = buf.get(at..)?.split_first()?;
            let (length, used) = quick_length(number)?;
            let start = at + 1 + used;
            let end = start + length;
            if *sigil != b'$' || length > self.limits.max_bulk || buf.get(end..end + CRLF)? != b"\r\n" {
                return None;
            }
            self.spans.push(ArgSpan { start, end });
            at = end + CRLF;
        }
        Some(at)
    }

    /// Reads the `*N` line: `None` = not complete, `Some(0)` = a command of no arguments, to be skipped.
    #[inline]
    fn count(&mut self, buf: &[u8]) -> Result<Option<usize>, RequestError> {
        if let Some((count, used)) = quick_length(&buf[1..])
            && count <= self.limits.max_args
        {
            self.pos = 1 + used;
            return Ok(Some(count));
        }
        let Some(end) = self.line_end(buf, RequestError::TooBigMultibulkCount)? else { return Ok(None) };
        let count = integer(&buf[1..end])
            .filter(|count| *count <= i64::from(i32::MAX))
            .ok_or(RequestError::InvalidMultibulkLength)?;
        let count = usize::try_from(count).unwrap_or(0);
        if count > self.limits.max_args {
            return Err(if self.limits.before_auth {
                RequestError::UnauthenticatedMultibulk
            } else {
                RequestError::InvalidMultibulkLength
            });
        }
        self.leave_line(buf, end);
        Ok(Some(count))
    }

    /// Reads arguments until all are there or bytes run out.
    #[inline]
    fn scan_arguments(&mut self, buf: &[u8]) -> Result<Scan, RequestError> {
        let mut left = self.left.unwrap_or(0);
        while left > 0 {
            let length = match self.bulk.take() {
                Some(length) => length,
                None => match self.length(buf)? {
                    Some(length) => length,
                    None => return Ok(Scan::Need),
                },
            };
            let end = self.pos + length;
            let Some(crlf) = buf.get(end..end + CRLF) else {
                self.bulk = Some(length);
                self.received = buf.len().saturating_sub(self.pos);
                return Ok(Scan::Need);
            };
            self.canonical &= crlf == b"\r\n";
            self.spans.push(ArgSpan { start: self.pos, end });
            self.pos = end + CRLF;
            left -= 1;
            self.left = Some(left);
        }
        self.done = true;
        Ok(Scan::Command { len: self.pos, canonical: self.canonical })
    }

    /// Reads the `$N` line of the next argument: `None` = not complete.
    #[inline]
    fn length(&mut self, buf: &[u8]) -> Result<Option<usize>, RequestError> {
        let rest = buf.get(self.pos..).unwrap_or_default();
        if let [b'$', number @ ..] = rest
            && let Some((length, used)) = quick_length(number)
            && length <= self.limits.max_bulk
        {
            self.pos += 1 + used;
            return Ok(Some(length));
        }
        self.thorough_length(buf)
    }

    #[cold]
    fn thorough_length(&mut self, buf: &[u8]) -> Result<Option<usize>, RequestError> {
        let Some(end) = self.line_end(buf, RequestError::TooBigBulkCount)? else { return Ok(None) };
        // Redis looks at the first byte only once the line is complete. Its end may be that very byte.
        let first = buf[self.pos];
        if first != b'$' {
            return Err(RequestError::ExpectedDollar(first));
        }
        let ceiling = self.limits.max_bulk.max(if self.limits.before_auth {
            RequestLimits::DEFAULT.max_bulk
        } else {
            0
        });
        let length = integer(&buf[self.pos + 1..end])
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= ceiling)
            .ok_or(RequestError::InvalidBulkLength)?;
        if length > self.limits.max_bulk {
            return Err(RequestError::UnauthenticatedBulk);
        }
        self.leave_line(buf, end);
        Ok(Some(length))
    }

    /// The index of the CR that ends the line at `pos`, once the byte behind it has arrived too. Redis
    /// searches with `strchr`, so a NUL hides the end of the line until the line is too long.
    fn line_end(&mut self, buf: &[u8], too_big: RequestError) -> Result<Option<usize>, RequestError> {
        let from = self.seen.max(self.pos);
        let found = memchr::memchr2(b'\r', 0, buf.get(from..).unwrap_or_default()).map(|at| from + at);
        let end = found.filter(|at| buf[*at] == b'\r');
        if end.unwrap_or(buf.len()) > self.pos + self.limits.max_line {
            return Err(too_big);
        }
        self.seen = found.unwrap_or(buf.len());
        Ok(end.filter(|end| end + 1 < buf.len()))
    }

    /// Goes behind the line that ends at `end`. The byte behind the CR is not looked at by Redis.
    fn leave_line(&mut self, buf: &[u8], end: usize) {
        self.canonical &= buf[end + 1] == b'\n';
        self.pos = end + CRLF;
    }

    /// A command that does not start with `*`: a line of words.
    #[cold]
    fn scan_inline(&mut self, buf: &[u8]) -> Result<Scan, RequestError> {
        let from = self.seen;
        let found = memchr::memchr2(b'\n', 0, buf.get(from..).unwrap_or_default()).map(|at| from + at);
        let end = found.filter(|at| buf[*at] == b'\n');
        if end.unwrap_or(buf.len()) > self.limits.max_inline {
            return Err(RequestError::TooBigInline);
        }
        self.seen = found.unwrap_or(buf.len());
        let Some(end) = end else { return Ok(Scan::Need) };
        let line = &buf[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        inline::split(line, &mut self.scratch, &mut self.spans)
            .map_err(|_| RequestError::UnbalancedQuotes)?;
        if self.spans.is_empty() {
            return Ok(self.skip(end + 1));
        }
        self.inline = true;
        self.canonical = false;
        self.done = true;
        self.pos = end + 1;
        Ok(Scan::Command { len: self.pos, canonical: false })
    }

    fn skip(&mut self, len: usize) -> Scan {
        self.start_afresh();
        Scan::Skip(len)
    }

    /// Nothing is left in the buffer: gives back the room that a large command took.
    #[inline]
    pub fn rest(&mut self) {
        if self.done && (self.scratch.capacity() > KEPT_SCRATCH || self.spans.capacity() > KEPT_SPANS) {
            self.spans.clear();
            self.start_afresh();
        }
    }

    #[inline]
    fn start_afresh(&mut self) {
        self.pos = 0;
        self.seen = 0;
        self.left = None;
        self.bulk = None;
        self.canonical = true;
        self.done = false;
        if self.inline {
            self.inline = false;
            self.scratch.clear();
            self.scratch.shrink_to(KEPT_SCRATCH);
        }
        // A client that keeps sending large commands keeps its room; the first small one gives it back.
        if self.spans.capacity() > KEPT_SPANS && self.spans.len() <= KEPT_SPANS {
            self.spans.shrink_to(KEPT_SPANS);
        }
        self.spans.clear();
    }
}

/// Whether a command's name shows that a browser was tricked into talking to us (`processCommand` in Redis,
/// server.c): `POST` or `Host:`. Redis closes such a connection without a reply. It compares C strings, so
/// what follows a NUL does not count.
pub fn is_cross_protocol(name: &[u8]) -> bool {
    let name = memchr::memchr(0, name).map_or(name, |nul| &name[..nul]);
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

const CRLF: usize = 2;

/// Bytes to read for a long argument of which nothing has arrived yet (`PROTO_IOBUF_LEN`).
const FIRST_READ: usize = 16 << 10;

/// Room for arguments that an idle client keeps: 2 KiB.
const KEPT_SPANS: usize = 128;

/// Room for inline words that an idle client keeps, in bytes.
const KEPT_SCRATCH: usize = 512;

#[cfg(test)]
mod tests;
