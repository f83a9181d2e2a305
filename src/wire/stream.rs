//! The command stream of a replication link: plain RESP arrays of bulk strings, cut into commands, each with the
//! exact offset at which it ends.
//!
//! Every byte of the stream counts towards the offset, also the bare newlines that may stand between two commands
//! and empty arrays (checked by feeding a Redis 7.0 replica from a counterfeit primary). Inline commands are a sign
//! of lost synchronization, as they are to Redis itself (`processInlineBuffer` in `networking.c`).
//!
//! A command that lies whole in the chunk is seen in place. One that crosses chunks is gathered, but never more
//! of it than [`MAX_ARG_KEPT`] bytes per argument and [`MAX_COMMAND_KEPT`] in all: memory stays constant under a
//! value of any size. Both ways cut alike, so that what a command looks like does not depend on chunk borders.

use memchr::memchr;

use super::number::quick_length;
use crate::core::argv::Args;
use crate::core::position::Offset;

/// Bytes kept of one argument. A longer one is a value; a longer key is reported as cut.
pub const MAX_ARG_KEPT: usize = 64 << 10;
/// Bytes kept of one command; arguments beyond are reported as cut.
pub const MAX_COMMAND_KEPT: usize = 16 << 20;
/// Arguments kept of one command; those beyond are counted and reported as cut.
pub const MAX_ARGS_KEPT: usize = 1 << 20;
/// Most arguments of a command (`processMultibulkBuffer` in Redis' `networking.c`: `INT_MAX`).
const MAX_ARGS: i64 = i32::MAX as i64;
/// Longest header line: a sign, 19 digits, CR and LF.
const MAX_HEADER: usize = 22;
/// Buffers that grew beyond this are given back after the command.
const ROOMY: usize = 1 << 20;

/// What breaks the stream. The fault is the sender's; the link is lost, since the offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A command does not begin with `*`, or an argument with `$`.
    #[error("byte {0:#04x} where a command or an argument should begin")]
    Unexpected(u8),
    /// A count or length that is no number or out of range.
    #[error("a count or length that is no number or out of range")]
    BadLength,
    /// CRLF is missing after an argument or a length.
    #[error("a line end is missing")]
    NoLineEnd,
}

/// One argument: what is kept of it, and whether that is all.
#[derive(Clone, Copy, Debug)]
struct KeptArg {
    start: usize,
    kept: u32,
    whole: bool,
}

/// A command of the stream. Through [`Args`] a cut argument shows its beginning only: see [`Self::whole`].
#[derive(Clone, Copy, Debug)]
pub struct StreamCommand<'a> {
    bytes: &'a [u8],
    spans: &'a [KeptArg],
    count: usize,
}

impl StreamCommand<'_> {
    /// Argument `index`, unless it was cut or does not exist. A key that can't be had must be treated as any key.
    pub fn whole(&self, index: usize) -> Option<&[u8]> {
        let span = self.spans.get(index).filter(|span| span.whole)?;
        Some(&self.bytes[span.start..span.start + span.kept as usize])
    }

    /// Whether any argument was cut.
    pub fn is_cut(&self) -> bool {
        self.count > self.spans.len() || self.spans.iter().any(|span| !span.whole)
    }
}

impl Args for StreamCommand<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.spans.get(index).map_or(&[], |span| &self.bytes[span.start..span.start + span.kept as usize])
    }
}

/// Cuts the stream into commands. Invariant: `boundary + partial` is the offset of the last byte consumed.
#[derive(Debug)]
pub struct StreamDecoder {
    /// Where the last complete command ended.
    boundary: Offset,
    /// Bytes consumed of the command after it.
    partial: u64,
    step: StreamStep,
    /// The arguments of the present command; over the chunk, or over `kept` when the command crosses chunks.
    spans: Vec<KeptArg>,
    kept: Vec<u8>,
    count: usize,
    args_left: usize,
    header: Header,
}

/// What the next byte belongs to, for a command that crosses chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamStep {
    /// Between two commands.
    Between,
    /// A CR was seen between two commands; its LF is due.
    Blank,
    /// In the line that counts the arguments, after `*`.
    Count,
    /// At the `$` of an argument.
    Dollar,
    /// In the line that gives an argument's length.
    Length,
    /// In an argument: bytes to come, and how many of those to keep.
    Body { left: u64, keep: usize },
    /// At the CR after an argument.
    Cr,
    /// At the LF after an argument.
    Lf,
}

impl StreamDecoder {
    /// A decoder whose next byte is the one after `at`.
    pub fn new(at: Offset) -> Self {
        Self {
            boundary: at,
            partial: 0,
            step: StreamStep::Between,
            spans: Vec::new(),
            kept: Vec::new(),
            count: 0,
            args_left: 0,
            header: Header::default(),
        }
    }

    /// Where the last complete command ended: every command up to here has been told.
    pub const fn position(&self) -> Offset {
        self.boundary
    }

    /// The offset of the last byte consumed, which may lie in the middle of a command.
    pub const fn received(&self) -> Offset {
        self.boundary.advanced(self.partial)
    }

    /// Takes the next bytes and tells every command that they complete, with the offset after its last byte.
    /// After an error the decoder is useless.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        tell: &mut impl FnMut(&StreamCommand<'_>, Offset),
    ) -> Result<(), StreamError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.step == StreamStep::Between
                && let Some((used, count)) = scan_whole(rest, &mut self.spans)
            {
                self.boundary = self.boundary.advanced(used as u64);
                tell(&StreamCommand { bytes: rest, spans: &self.spans, count }, self.boundary);
                rest = &rest[used..];
                continue;
            }
            let (used, complete) = self.piece(rest)?;
            rest = &rest[used..];
            self.partial += used as u64;
            if complete {
                self.boundary = self.received();
                self.partial = 0;
                self.step = StreamStep::Between;
                if self.count > 0 {
                    let command = StreamCommand { bytes: &self.kept, spans: &self.spans, count: self.count };
                    tell(&command, self.boundary);
                }
                self.clear();
            }
        }
        Ok(())
    }

    /// Takes one step of a command that crosses chunks. Returns the bytes used, and whether what they belong to is
    /// complete. Assumes that `rest` is not empty; uses at least one byte.
    fn piece(&mut self, rest: &[u8]) -> Result<(usize, bool), StreamError> {
        let first = rest[0];
        match self.step {
            StreamStep::Between => {
                self.clear();
                self.step = match first {
                    b'\n' => return Ok((1, true)),
                    b'\r' => StreamStep::Blank,
                    b'*' => StreamStep::Count,
                    other => return Err(StreamError::Unexpected(other)),
                };
                Ok((1, false))
            }
            StreamStep::Blank if first == b'\n' => Ok((1, true)),
            StreamStep::Count => self.header(rest, |decoder, count| {
                if count > MAX_ARGS {
                    return Err(StreamError::BadLength);
                }
                // Redis passes over a count of zero or less (`processMultibulkBuffer`).
                decoder.count = usize::try_from(count).unwrap_or(0);
                decoder.args_left = decoder.count;
                decoder.step = StreamStep::Dollar;
                Ok(decoder.count == 0)
            }),
            StreamStep::Dollar if first == b'$' => {
                self.step = StreamStep::Length;
                Ok((1, false))
            }
            StreamStep::Length => self.header(rest, |decoder, length| {
                let length = u64::try_from(length).map_err(|_| StreamError::BadLength)?;
                let start = decoder.kept.len();
                let span = KeptArg::new(start, length, MAX_COMMAND_KEPT - start);
                if decoder.spans.len() < MAX_ARGS_KEPT {
                    decoder.spans.push(span);
                }
                let keep = if decoder.count - decoder.args_left < MAX_ARGS_KEPT { span.kept } else { 0 };
                let keep = keep as usize;
                decoder.step =
                    if length == 0 { StreamStep::Cr } else { StreamStep::Body { left: length, keep } };
                Ok(false)
            }),
            StreamStep::Body { left, keep } => {
                let used = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                let kept = keep.min(used);
                self.kept.extend_from_slice(&rest[..kept]);
                let left = left - used as u64;
                self.step =
                    if left == 0 { StreamStep::Cr } else { StreamStep::Body { left, keep: keep - kept } };
                Ok((used, false))
            }
            StreamStep::Cr if first == b'\r' => {
                self.step = StreamStep::Lf;
                Ok((1, false))
            }
            StreamStep::Lf if first == b'\n' => {
                self.args_left -= 1;
                self.step = StreamStep::Dollar;
                Ok((1, self.args_left == 0))
            }
            StreamStep::Dollar => Err(StreamError::Unexpected(first)),
            StreamStep::Blank | StreamStep::Cr | StreamStep::Lf => Err(StreamError::NoLineEnd),
        }
    }

    /// Gathers a header line; once it is complete, hands its number to `then`.
    fn header(
        &mut self,
        rest: &[u8],
        then: impl FnOnce(&mut Self, i64) -> Result<bool, StreamError>,
    ) -> Result<(usize, bool), StreamError> {
        let (used, number) = self.header.gather(rest)?;
        let Some(number) = number else { return Ok((used, false)) };
        Ok((used, then(self, number)?))
    }

    fn clear(&mut self) {
        self.count = 0;
        self.spans.clear();
        self.kept.clear();
        if self.kept.capacity() > ROOMY {
            self.kept = Vec::new();
        }
        if self.spans.capacity() > ROOMY / size_of::<KeptArg>() {
            self.spans = Vec::new();
        }
    }
}

impl KeptArg {
    fn new(start: usize, length: u64, budget: usize) -> Self {
        let most = MAX_ARG_KEPT.min(budget) as u64;
        Self { start, kept: length.min(most) as u32, whole: length <= most }
    }
}

/// A count or length line, gathered across chunks.
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl Header {
    /// Takes bytes up to the line end. Returns how many it used, and the number once the line is complete.
    fn gather(&mut self, rest: &[u8]) -> Result<(usize, Option<i64>), StreamError> {
        let window = &rest[..rest.len().min(MAX_HEADER - self.len)];
        let end = memchr(b'\n', window);
        let used = end.map_or(window.len(), |at| at + 1);
        self.bytes[self.len..self.len + used].copy_from_slice(&window[..used]);
        self.len += used;
        if end.is_none() {
            return if self.len == MAX_HEADER { Err(StreamError::BadLength) } else { Ok((used, None)) };
        }
        let line = &self.bytes[..self.len - 1];
        self.len = 0;
        let number = line.strip_suffix(b"\r").ok_or(StreamError::NoLineEnd)?;
        let (negative, digits) = number.strip_prefix(b"-").map_or((false, number), |digits| (true, digits));
        let value = natural(digits).and_then(|n| i64::try_from(n).ok()).ok_or(StreamError::BadLength)?;
        Ok((used, Some(if negative { -value } else { value })))
    }
}

/// Digits without sign and without leading zeros, as `string2ll` in Redis' `util.c` takes them. `None` for
/// anything else, and for more than 19 digits.
fn natural(digits: &[u8]) -> Option<u64> {
    let leading_zero = digits.len() > 1 && digits[0] == b'0';
    if digits.is_empty() || digits.len() > 19 || leading_zero || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n, &digit| n * 10 + u64::from(digit - b'0')))
}

/// Scans a command that lies whole at the start of `bytes`: its length and its argument count, with `spans` over
/// `bytes`. `None` when it is not whole, or irregular in any way: the slow path then finds out how.
fn scan_whole(bytes: &[u8], spans: &mut Vec<KeptArg>) -> Option<(usize, usize)> {
    spans.clear();
    let (count, mut at) = scan_header(bytes, b'*')?;
    if count == 0 || count > MAX_ARGS as u64 {
        return None;
    }
    let mut budget = MAX_COMMAND_KEPT;
    for index in 0..count {
        let (length, used) = scan_header(&bytes[at..], b'$')?;
        at += used;
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length))?;
        if bytes.get(end..end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        if index < MAX_ARGS_KEPT as u64 {
            let span = KeptArg::new(at, length, budget);
            budget -= span.kept as usize;
            spans.push(span);
        }
        at = end + 2;
    }
    Some((at, count as usize))
}

/// A marker byte, digits, CRLF: the number, and how long the line is.
#[inline]
fn scan_header(bytes: &[u8], marker: u8) -> Option<(u64, usize)> {
    let (&first, rest) = bytes.split_first()?;
    if first != marker {
        return None;
    }
    match quick_length(rest) {
        Some((number, used)) => Some((number as u64, used + 1)),
        None => scan_long_header(rest),
    }
}

#[cold]
fn scan_long_header(rest: &[u8]) -> Option<(u64, usize)> {
    let window = &rest[..rest.len().min(MAX_HEADER)];
    let end = memchr(b'\r', window)?;
    (window.get(end + 1) == Some(&b'\n')).then_some(())?;
    Some((natural(&window[..end])?, end + 3))
}

#[cfg(test)]
mod tests;
