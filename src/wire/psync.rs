//! A replication link from the answer to `PSYNC` on: the answer, the dump if there is one, the command stream.
//! Bytes in, events out; resumable at any byte; memory is constant whatever the server sends, since the dump is
//! passed over and of a large command only the beginnings of its arguments are kept.
//!
//! Contract (`masterTryPartialResync` and `replicationSetupSlaveForFullResync` in Redis' `replication.c`):
//! 1. any number of bare newlines, while the server prepares;
//! 2. `+CONTINUE[ replid]`: the stream goes on after the offset asked for; or `+FULLRESYNC replid offset`; or an error;
//! 3. after `+FULLRESYNC`: newlines, then `$<length>` and so many bytes with nothing behind them, or `$EOF:<mark>`
//!    and bytes up to the same 40-byte mark. A server that sends a mark waits for a `REPLCONF ACK` before it goes on;
//! 4. the command stream.

use memchr::{memchr, memmem};

use super::stream::{StreamCommand, StreamDecoder, StreamError};
use crate::core::position::{Offset, ReplId};

/// Longest answer or header line, in bytes (Redis itself reads them into a buffer of 1024).
const MAX_LINE: usize = 1024;
/// Length of the mark that ends a dump of unknown length (`CONFIG_RUN_ID_SIZE`).
const MARK: usize = 40;

/// What a replication link says.
#[derive(Debug)]
pub enum PsyncEvent<'a> {
    /// The stream goes on after the offset asked for, under this history.
    Continued(ReplId),
    /// The stream will go on after this offset, once a dump has been passed over. What was known of any other
    /// history is void from here on.
    FullResync(ReplId, Offset),
    /// The dump is over; the server may be waiting for an acknowledgement.
    DumpEnded,
    /// A command, and the offset after its last byte.
    Command(&'a StreamCommand<'a>, Offset),
}

/// Why a link must be given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PsyncError {
    /// `-NOMASTERLINK`: the node is a replica that has no link itself.
    #[error("the source has no link to its own primary")]
    NoMasterLink,
    /// Another error answer; the server's words, without the dash.
    #[error("refused: {0}")]
    Refused(String),
    /// The answer is none of those that `PSYNC` has.
    #[error("unknown answer to PSYNC: {0}")]
    UnknownAnswer(String),
    /// The dump's header is neither `$<length>` nor `$EOF:<mark>`.
    #[error("unknown dump header: {0}")]
    UnknownDump(String),
    /// A line of more than 1024 bytes where an answer or a header should be.
    #[error("a line that is too long")]
    LongLine,
    /// The command stream is broken.
    #[error("broken stream: {0}")]
    Stream(#[from] StreamError),
}

/// Decodes a replication link. See the module's contract.
#[derive(Debug)]
pub struct PsyncDecoder {
    phase: PsyncPhase,
    asked: ReplId,
    line: Vec<u8>,
    stream: StreamDecoder,
}

#[derive(Debug)]
enum PsyncPhase {
    Answer,
    DumpHeader,
    /// Bytes of the dump to come.
    Dump(u64),
    /// The mark that ends the dump, and the last bytes seen, at most one less than the mark has.
    MarkedDump {
        mark: [u8; MARK],
        tail: Vec<u8>,
    },
    Stream,
}

impl PsyncDecoder {
    /// A decoder for the answer to `PSYNC asked at+1`.
    pub fn new(asked: ReplId, at: Offset) -> Self {
        Self { phase: PsyncPhase::Answer, asked, line: Vec::new(), stream: StreamDecoder::new(at) }
    }

    /// Where the last complete command ended: every command up to here has been told. Before the stream has begun,
    /// where it will begin.
    pub const fn position(&self) -> Offset {
        self.stream.position()
    }

    /// Whether the command stream has begun.
    pub const fn is_streaming(&self) -> bool {
        matches!(self.phase, PsyncPhase::Stream)
    }

    /// Takes the next bytes and tells what they complete. After an error the decoder is useless.
    pub fn feed(&mut self, chunk: &[u8], tell: &mut impl FnMut(PsyncEvent<'_>)) -> Result<(), PsyncError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let used = match &mut self.phase {
                PsyncPhase::Stream => {
                    self.stream.feed(rest, &mut |command, end| tell(PsyncEvent::Command(command, end)))?;
                    rest.len()
                }
                PsyncPhase::Answer => {
                    let used = self.gather(rest)?;
                    self.answer(tell)?;
                    used
                }
                PsyncPhase::DumpHeader => {
                    let used = self.gather(rest)?;
                    self.dump_header(tell)?;
                    used
                }
                PsyncPhase::Dump(left) => {
                    let used = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= used as u64;
                    if *left == 0 {
                        self.phase = PsyncPhase::Stream;
                        tell(PsyncEvent::DumpEnded);
                    }
                    used
                }
                PsyncPhase::MarkedDump { mark, tail } => match skip_to_mark(mark, tail, rest) {
                    Some(used) => {
                        self.phase = PsyncPhase::Stream;
                        tell(PsyncEvent::DumpEnded);
                        used
                    }
                    None => rest.len(),
                },
            };
            rest = &rest[used..];
        }
        Ok(())
    }

    /// Adds bytes up to a line end to `line`, which then ends in a newline. Returns how many it used.
    fn gather(&mut self, rest: &[u8]) -> Result<usize, PsyncError> {
        let used = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        if self.line.len() + used > MAX_LINE {
            return Err(PsyncError::LongLine);
        }
        self.line.extend_from_slice(&rest[..used]);
        Ok(used)
    }

    /// The line without its end, once it is complete; empty for a keep-alive.
    fn complete_line(&mut self) -> Option<Vec<u8>> {
        let line = self.line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        self.line.clear();
        Some(line)
    }

    fn answer(&mut self, tell: &mut impl FnMut(PsyncEvent<'_>)) -> Result<(), PsyncError> {
        let Some(line) = self.complete_line().filter(|line| !line.is_empty()) else { return Ok(()) };
        if let Some(text) = line.strip_prefix(b"-") {
            return Err(refusal(text));
        }
        let unknown = || PsyncError::UnknownAnswer(String::from_utf8_lossy(&line).into_owned());
        let mut words = line.split(|&b| b == b' ');
        match words.next() {
            Some(b"+CONTINUE") => {
                // Without an ID: the one asked for goes on (Redis before 4.0).
                let id = words.next().map_or(Some(self.asked), ReplId::parse).ok_or_else(unknown)?;
                self.phase = PsyncPhase::Stream;
                tell(PsyncEvent::Continued(id));
            }
            Some(b"+FULLRESYNC") => {
                let id = words.next().and_then(ReplId::parse);
                let offset = words.next().and_then(number).map(Offset::new);
                let (id, offset) = id.zip(offset).ok_or_else(unknown)?;
                self.stream = StreamDecoder::new(offset);
                self.phase = PsyncPhase::DumpHeader;
                tell(PsyncEvent::FullResync(id, offset));
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn dump_header(&mut self, tell: &mut impl FnMut(PsyncEvent<'_>)) -> Result<(), PsyncError> {
        let Some(line) = self.complete_line().filter(|line| !line.is_empty()) else { return Ok(()) };
        if let Some(text) = line.strip_prefix(b"-") {
            return Err(refusal(text));
        }
        let mark = line.strip_prefix(b"$EOF:").and_then(|mark| mark.try_into().ok());
        let length = line.strip_prefix(b"$").and_then(number);
        self.phase = match (mark, length) {
            (Some(mark), _) => PsyncPhase::MarkedDump { mark, tail: Vec::with_capacity(MARK) },
            (None, Some(0)) => {
                tell(PsyncEvent::DumpEnded);
                PsyncPhase::Stream
            }
            (None, Some(length)) => PsyncPhase::Dump(length),
            (None, None) => return Err(PsyncError::UnknownDump(String::from_utf8_lossy(&line).into_owned())),
        };
        Ok(())
    }
}

/// Looks for the mark in `tail` followed by `rest`. Returns how much of `rest` lies before the mark's end, or
/// keeps in `tail` what may be the mark's beginning.
fn skip_to_mark(mark: &[u8; MARK], tail: &mut Vec<u8>, rest: &[u8]) -> Option<usize> {
    // A mark that began in an earlier chunk ends within the first 39 bytes of this one.
    let before = tail.len();
    tail.extend_from_slice(&rest[..rest.len().min(MARK - 1)]);
    if let Some(at) = memmem::find(tail, mark) {
        return Some(at + MARK - before);
    }
    if let Some(at) = memmem::find(rest, mark) {
        return Some(at + MARK);
    }
    if rest.len() >= MARK {
        tail.clear();
        tail.extend_from_slice(&rest[rest.len() - (MARK - 1)..]);
    } else {
        let excess = tail.len().saturating_sub(MARK - 1);
        tail.drain(..excess);
    }
    None
}

fn refusal(text: &[u8]) -> PsyncError {
    if text.starts_with(b"NOMASTERLINK") {
        return PsyncError::NoMasterLink;
    }
    PsyncError::Refused(String::from_utf8_lossy(text).into_owned())
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|&n| i64::try_from(n).is_ok())
}

#[cfg(test)]
mod tests;
