//! Where one reply of a server ends. No tree and no copy: the scanner counts elements on a stack of numbers, so it
//! takes the same memory for a reply of 5 bytes and of 5 GB, never sees a byte twice, and lets the bytes of an
//! unfinished reply be forwarded at once. RESP2 and RESP3 need no telling apart.
//!
//! It is strict about whatever would move the end of a reply (lengths, CRLF behind a payload), because an
//! upstream connection that is out of step serves one client's data to another; and lenient about contents:
//! scripts and modules make Redis send texts of any length with any bytes in them.
//!
//! Invariants: the stack is empty exactly between replies; `stack[0]` is the reply itself, one element; a frame
//! below the top is never empty.

mod code;
mod quick;

use smallvec::SmallVec;

use super::number::integer;
pub use code::ErrorCode;
use quick::complete_scalar;

/// What a reply is to the one who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// An ordinary reply.
    Value,
    /// An error reply, `-` or `!`; it takes the place of a value.
    Error,
    /// A RESP3 push, `>`: nobody asked for it, it answers no command.
    Push,
}

/// One reply that has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The index in the chunk just behind the last byte of the reply.
    pub end: usize,
    /// What the reply is.
    pub kind: ReplyKind,
}

/// The server broke the protocol: the connection is out of step and of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// No reply or element starts with this byte here.
    #[error("unexpected type byte 0x{0:02x}")]
    UnexpectedType(u8),
    /// A header whose number is malformed or beyond every limit.
    #[error("invalid length or number")]
    InvalidNumber,
    /// A line that is longer than its type allows, or does not end in CRLF.
    #[error("malformed line")]
    MalformedLine,
    /// Something other than CRLF behind a payload.
    #[error("missing CRLF after a bulk string")]
    MissingCrlf,
    /// Aggregates nested deeper than [`MAX_DEPTH`], or than the scanner was made for.
    #[error("nested too deeply")]
    TooDeep,
}

/// Finds the ends of replies in the bytes of a server.
#[derive(Debug)]
pub struct ReplyScanner {
    state: ScanState,
    /// Elements still to come in each open aggregate, outermost first; [`STREAMED`] when only `.` ends it.
    stack: SmallVec<[u64; INLINE_DEPTH]>,
    /// Inside `$?`: only `;` chunks may follow.
    chunked: bool,
    /// Known once the type byte of the reply itself, not of an attribute before it, has been seen.
    kind: Option<ReplyKind>,
    head: [u8; HEAD],
    head_len: usize,
    line: [u8; MAX_LINE],
    line_len: usize,
    /// The deepest nesting that is taken.
    depth: usize,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanState {
    /// A type byte.
    Type,
    /// Part of a short line that means something: the length or number behind this type byte.
    Number(u8),
    /// Part of a line that means nothing here; `cr`: the byte before was a CR.
    Text { len: usize, cr: bool },
    /// Part of a payload with so many bytes left.
    Payload(u64),
    /// The CR behind a payload.
    Cr,
    /// The LF behind that.
    Lf,
    /// Nothing any more.
    Failed(ReplyError),
}

impl ReplyScanner {
    /// A scanner between replies.
    pub fn new() -> Self {
        Self::with_depth(MAX_DEPTH)
    }

    /// A scanner of replies that nest no deeper than `depth` levels.
    pub fn with_depth(depth: usize) -> Self {
        Self {
            state: ScanState::Type,
            stack: SmallVec::new(),
            chunked: false,
            kind: None,
            head: [0; HEAD],
            head_len: 0,
            line: [0; MAX_LINE],
            line_len: 0,
            depth,
        }
    }

    /// Takes bytes that it has never seen. `Some`: a reply ended at `end`, and the caller goes on with
    /// `&chunk[end..]`. `None`: the whole chunk was consumed and belongs to an unfinished reply (or is empty).
    /// An error is final: the scanner repeats it.
    #[inline]
    pub fn scan(&mut self, chunk: &[u8]) -> Result<Option<Extent>, ReplyError> {
        if self.is_between()
            && let Some(end) = complete_scalar(chunk)
        {
            self.note_whole(&chunk[..end]);
            return Ok(Some(Extent { end, kind: kind_of(chunk[0]) }));
        }
        self.scan_on(chunk)
    }

    /// The first bytes (at most 32, type byte included) of the reply that is being scanned or has just
    /// ended, to recognise `-LOADING` and the like. Attributes before it don't count.
    pub fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// Whether the last byte seen was the last of a reply (or there was none yet).
    pub fn is_between(&self) -> bool {
        self.stack.is_empty() && self.state == ScanState::Type
    }

    /// What the unfinished reply is, once its type byte is known; `None` between replies.
    pub fn kind(&self) -> Option<ReplyKind> {
        self.kind
    }

    fn scan_on(&mut self, chunk: &[u8]) -> Result<Option<Extent>, ReplyError> {
        let mut at = 0;
        while at < chunk.len() {
            if self.is_between() {
                self.stack.push(1);
                self.head_len = 0;
            }
            let used = self.step(&chunk[at..]).inspect_err(|error| self.state = ScanState::Failed(*error))?;
            self.note(&chunk[at..at + used]);
            at += used;
            if self.stack.is_empty() {
                self.stack.shrink_to_fit();
                let kind = self.kind.take().unwrap_or(ReplyKind::Value);
                return Ok(Some(Extent { end: at, kind }));
            }
            if self.kind.is_none() && self.stack.len() == 1 && self.state == ScanState::Type {
                // An attribute of the reply has ended; the reply itself comes now.
                self.head_len = 0;
            }
        }
        Ok(None)
    }

    /// Takes at least one of `bytes`, and says how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, ReplyError> {
        match self.state {
            ScanState::Type => self.start_value(bytes),
            ScanState::Number(sigil) => self.number(sigil, bytes),
            ScanState::Text { len, cr } => self.text(len, cr, bytes),
            ScanState::Payload(left) => {
                let used = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - used as u64;
                self.state = if left == 0 { ScanState::Cr } else { ScanState::Payload(left) };
                Ok(used)
            }
            ScanState::Cr if bytes[0] == b'\r' => {
                self.state = ScanState::Lf;
                Ok(1)
            }
            ScanState::Lf if bytes[0] == b'\n' => {
                if self.chunked {
                    self.state = ScanState::Type;
                } else {
                    self.end_value();
                }
                Ok(1)
            }
            ScanState::Cr | ScanState::Lf => Err(ReplyError::MissingCrlf),
            ScanState::Failed(error) => Err(error),
        }
    }

    fn start_value(&mut self, bytes: &[u8]) -> Result<usize, ReplyError> {
        let sigil = bytes[0];
        if self.chunked != (sigil == b';') {
            return Err(ReplyError::UnexpectedType(sigil));
        }
        if self.stack.len() == 1 && !self.chunked && sigil != b'|' {
            self.kind = Some(kind_of(sigil));
        }
        if let Some(used) = complete_scalar(bytes) {
            self.end_value();
            return Ok(used);
        }
        self.line_len = 0;
        self.state = match sigil {
            b'+' | b'-' | b',' | b'(' => ScanState::Text { len: 0, cr: false },
            // A push inside a reply is a part of it: what `EXEC` answers to `SUBSCRIBE` (RESP3).
            b'$' | b'*' | b':' | b'_' | b'#' | b'%' | b'~' | b'=' | b'!' | b'|' | b';' | b'.' | b'>' => {
                ScanState::Number(sigil)
            }
            _ => return Err(ReplyError::UnexpectedType(sigil)),
        };
        Ok(1)
    }

    /// A line without meaning ends at CRLF; a lone CR or LF is part of it, as client libraries have it.
    fn text(&mut self, len: usize, cr: bool, bytes: &[u8]) -> Result<usize, ReplyError> {
        if cr && bytes[0] == b'\n' {
            self.end_value();
            return Ok(1);
        }
        let found = memchr::memchr(b'\r', bytes);
        let used = found.map_or(bytes.len(), |at| at + 1);
        let len = len + used;
        if len > MAX_TEXT {
            return Err(ReplyError::MalformedLine);
        }
        self.state = ScanState::Text { len, cr: found.is_some() };
        Ok(used)
    }

    fn number(&mut self, sigil: u8, bytes: &[u8]) -> Result<usize, ReplyError> {
        let room = MAX_LINE - self.line_len;
        let part = &bytes[..bytes.len().min(room)];
        let found = memchr::memchr(b'\n', part);
        let used = found.map_or(part.len(), |at| at + 1);
        self.line[self.line_len..self.line_len + used].copy_from_slice(&part[..used]);
        self.line_len += used;
        if found.is_some() {
            let (line, len) = (self.line, self.line_len);
            let text = line[..len].strip_suffix(b"\r\n").ok_or(ReplyError::MalformedLine)?;
            self.header(sigil, text)?;
        } else if self.line_len == MAX_LINE {
            return Err(ReplyError::MalformedLine);
        }
        Ok(used)
    }

    /// Acts on a complete header: its type byte and the text behind it.
    fn header(&mut self, sigil: u8, text: &[u8]) -> Result<(), ReplyError> {
        match (sigil, text) {
            (b':', digits) if is_number(digits) => self.end_value(),
            (b'#', b"t" | b"f") | (b'_', b"") | (b'$' | b'*', b"-1") => self.end_value(),
            (b'$', b"?") => {
                self.chunked = true;
                self.state = ScanState::Type;
            }
            (b';', b"0") => {
                self.chunked = false;
                self.end_value();
            }
            (b'$' | b'=' | b'!' | b';', digits) => {
                let length = length(digits, MAX_PAYLOAD)?;
                self.state = if length == 0 { ScanState::Cr } else { ScanState::Payload(length) };
            }
            (b'*' | b'~' | b'>' | b'%', b"?") => self.open(STREAMED)?,
            (b'*' | b'~' | b'>', digits) => self.open(length(digits, MAX_ELEMENTS)?)?,
            (b'%', digits) => self.open(2 * length(digits, MAX_ELEMENTS)?)?,
            (b'|', digits) => {
                let elements = 2 * length(digits, MAX_ELEMENTS)?;
                // It is no element of what surrounds it, but will be counted as one when it ends.
                if let Some(around) = self.stack.last_mut().filter(|around| **around != STREAMED) {
                    *around += 1;
                }
                self.open(elements)?;
            }
            (b'.', b"") if self.stack.last() == Some(&STREAMED) => {
                self.stack.pop();
                self.end_value();
            }
            (b'.', _) => return Err(ReplyError::UnexpectedType(sigil)),
            _ => return Err(ReplyError::InvalidNumber),
        }
        Ok(())
    }

    fn open(&mut self, elements: u64) -> Result<(), ReplyError> {
        if self.stack.len() > self.depth {
            return Err(ReplyError::TooDeep);
        }
        if elements == 0 {
            self.end_value();
            return Ok(());
        }
        self.stack.push(elements);
        self.state = ScanState::Type;
        Ok(())
    }

    /// Counts a finished value in the aggregates that it completes; none is left when it was the reply.
    fn end_value(&mut self) {
        self.state = ScanState::Type;
        while let Some(frame) = self.stack.last_mut() {
            if *frame == STREAMED {
                return;
            }
            *frame -= 1;
            if *frame > 0 {
                return;
            }
            self.stack.pop();
        }
    }

    /// Keeps the first bytes of a reply that is all there.
    #[inline]
    fn note_whole(&mut self, reply: &[u8]) {
        if let Some(head) = reply.first_chunk() {
            (self.head, self.head_len) = (*head, HEAD);
        } else {
            self.head_len = 0;
            self.note(reply);
        }
    }

    /// Keeps the first bytes of the reply.
    #[inline]
    fn note(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(HEAD - self.head_len);
        self.head[self.head_len..self.head_len + kept].copy_from_slice(&bytes[..kept]);
        self.head_len += kept;
    }
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self::new()
    }
}

fn kind_of(sigil: u8) -> ReplyKind {
    match sigil {
        b'-' | b'!' => ReplyKind::Error,
        b'>' => ReplyKind::Push,
        _ => ReplyKind::Value,
    }
}

fn length(digits: &[u8], most: u64) -> Result<u64, ReplyError> {
    let length = integer(digits).and_then(|length| u64::try_from(length).ok());
    length.filter(|length| *length <= most).ok_or(ReplyError::InvalidNumber)
}

/// `:` carries a number of any sign; RESP3 allows a plus.
fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Most levels of aggregates in one reply, attributes included. What a Lua script returns may be nested as deeply as
/// Lua's stack (`LUAI_MAXCSTACK`, 8000) goes.
pub const MAX_DEPTH: usize = 16_384;

/// Levels that take no memory of their own.
const INLINE_DEPTH: usize = 16;

/// Bytes of a reply's start that are kept.
const HEAD: usize = 32;

/// Longest line with a length or a number in it, its CRLF included, in bytes.
const MAX_LINE: usize = 64;

/// Longest simple string, error, double or big number, in bytes. A script may return a status of any length
/// that Lua can hold (`return {ok=string.rep('x', 1e8)}`), and on a shared connection refusing it would
/// punish everyone; it costs no memory here.
const MAX_TEXT: usize = 512 << 20;

/// Longest payload in bytes. `proto-max-bulk-len` is 512 MiB unless raised; beyond this it is nonsense.
const MAX_PAYLOAD: u64 = 4 << 30;

/// Most elements of one aggregate (pairs for a map).
const MAX_ELEMENTS: u64 = u32::MAX as u64;

/// In the stack: an aggregate that only `.` ends.
const STREAMED: u64 = u64::MAX;

#[cfg(test)]
mod tests;
