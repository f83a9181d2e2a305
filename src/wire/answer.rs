//! What a node answers to Redweir itself, decoded whole by `redis-protocol`: reports, settings, command tables.
//!
//! That decoder recurses without a limit and allocates as it goes, so that 40 KB of nested array headers would overflow
//! the stack of the thread and end the process. Every byte from a server is hostile until read: where an answer ends, how
//! deeply it is nested and how many elements it has is found out first, without recursion, by the scanner of replies.

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;

use super::reply::{ReplyError, ReplyKind, ReplyScanner};
use crate::mutant;

/// The longest answer, in bytes. `COMMAND` of a server with many modules is the longest of the expected ones, well under a
/// megabyte.
pub const MOST_BYTES: usize = 16 << 20;

/// The most lines in an answer, headers and texts together: so many elements it can have at most, of 40 bytes each once it
/// is decoded. `COMMAND` of a server with many modules has a fifth of it.
pub const MOST_LINES: usize = 1 << 17;

/// The deepest nesting. `COMMAND` nests eight levels.
pub const MOST_LEVELS: usize = 32;

/// Why an answer cannot be taken. The node is at fault, and the connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is no RESP, or nested too deeply.
    #[error("{0}")]
    Reply(#[from] ReplyError),
    /// It is longer than [`MOST_BYTES`].
    #[error("longer than {MOST_BYTES} bytes")]
    TooLong,
    /// It has more elements than [`MOST_LINES`] allow.
    #[error("more than {MOST_LINES} lines")]
    TooMany,
    /// It is RESP, but not what RESP2 has.
    #[error("not RESP2")]
    NotResp2,
}

/// Takes answers out of what was read.
#[derive(Debug)]
pub struct AnswerDecoder {
    scanner: ReplyScanner,
    /// How much of the buffer the scanner has seen: the beginning of an answer.
    scanned: usize,
    /// The ends of lines in it.
    lines: usize,
}

impl Default for AnswerDecoder {
    fn default() -> Self {
        let depth = if mutant::is("depth-unchecked") { usize::MAX } else { MOST_LEVELS };
        Self { scanner: ReplyScanner::with_depth(depth), scanned: 0, lines: 0 }
    }
}

impl AnswerDecoder {
    /// Takes the next answer out of `inbound`, to which nothing but newly read bytes was added since the last call. `None`:
    /// it is not whole yet. An error is final.
    pub fn decode(&mut self, inbound: &mut BytesMut) -> Result<Option<BytesFrame>, AnswerError> {
        let fresh = inbound.get(self.scanned..).unwrap_or_default();
        // Counted as they come: what is refused at last would have kept the thread busy until then.
        let within = memchr::memchr_iter(b'\n', fresh).nth(MOST_LINES.saturating_sub(self.lines));
        let fresh = fresh.get(..within.unwrap_or(fresh.len())).unwrap_or(fresh);
        let Some(extent) = self.scanner.scan(fresh)? else {
            if within.is_some() {
                return Err(AnswerError::TooMany);
            }
            self.lines += memchr::memchr_iter(b'\n', fresh).count();
            self.scanned = inbound.len();
            return if self.scanned > MOST_BYTES { Err(AnswerError::TooLong) } else { Ok(None) };
        };
        let answer = inbound.split_to(self.scanned + extent.end).freeze();
        (self.scanned, self.lines) = (0, 0);
        if extent.kind == ReplyKind::Push {
            return Err(AnswerError::NotResp2);
        }
        to_frame(&answer).map(Some)
    }
}

/// Decodes one answer that is whole, and nothing else.
pub fn decode(answer: &[u8]) -> Result<BytesFrame, AnswerError> {
    let mut inbound = BytesMut::from(answer);
    match AnswerDecoder::default().decode(&mut inbound)? {
        Some(frame) if inbound.is_empty() => Ok(frame),
        _ => Err(AnswerError::NotResp2),
    }
}

fn to_frame(answer: &Bytes) -> Result<BytesFrame, AnswerError> {
    if answer.len() > MOST_BYTES {
        return Err(AnswerError::TooLong);
    }
    match decode_bytes(answer) {
        Ok(Some((frame, used))) if used == answer.len() => Ok(frame),
        _ => Err(AnswerError::NotResp2),
    }
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::types::Resp2Frame as _;

    use super::*;

    fn fed(bytes: &[u8], step: usize) -> Result<Vec<BytesFrame>, AnswerError> {
        let (mut decoder, mut inbound, mut frames) = (AnswerDecoder::default(), BytesMut::new(), Vec::new());
        for chunk in bytes.chunks(step) {
            inbound.extend_from_slice(chunk);
            while let Some(frame) = decoder.decode(&mut inbound)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn answers_are_the_same_however_they_arrive() {
        let bytes = b"+PONG\r\n-ERR no\r\n*3\r\n$6\r\nmaster\r\n:7\r\n*1\r\n*0\r\n$-1\r\n$2\r\n\r\n\r\n";
        let whole = fed(bytes, bytes.len()).unwrap();
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[0].as_str(), Some("PONG"));
        for step in 1..bytes.len() {
            assert_eq!(fed(bytes, step).unwrap(), whole, "{step} bytes at a time");
        }
    }

    #[test]
    fn a_tower_of_arrays_is_refused_before_it_is_decoded() {
        for levels in [MOST_LEVELS + 1, 10_000, 1_000_000] {
            let tower = b"*1\r\n".repeat(levels);
            assert_eq!(fed(&tower, tower.len()), Err(AnswerError::Reply(ReplyError::TooDeep)), "{levels}");
            assert_eq!(fed(&tower, 4096), Err(AnswerError::Reply(ReplyError::TooDeep)), "{levels}");
        }
        let mut deepest = b"*1\r\n".repeat(MOST_LEVELS);
        deepest.extend_from_slice(b":1\r\n");
        assert_eq!(fed(&deepest, 7).unwrap().len(), 1);
    }

    #[test]
    fn sizes_are_bounded() {
        let many = [format!("*{}\r\n", MOST_LINES + 1).as_bytes(), &b"+\r\n".repeat(MOST_LINES + 1)].concat();
        assert_eq!(fed(&many, many.len()), Err(AnswerError::TooMany));
        assert_eq!(fed(&many, 1000), Err(AnswerError::TooMany));
        assert_eq!(fed(&many[..many.len() - 3], 1000), Err(AnswerError::TooMany), "before it is whole");
        let most = [format!("*{}\r\n", MOST_LINES - 1).as_bytes(), &b"+\r\n".repeat(MOST_LINES - 1)].concat();
        assert_eq!(fed(&most.repeat(2), 1 << 16).map(|answers| answers.len()), Ok(2), "each for itself");
        let long = format!("${}\r\n", MOST_BYTES * 2);
        let long = [long.as_bytes(), &vec![b'x'; MOST_BYTES + 1]].concat();
        assert_eq!(fed(&long, 1 << 16), Err(AnswerError::TooLong));
        assert_eq!(
            fed(b"*1000000000\r\n:1\r\n", 4),
            Ok(Vec::new()),
            "nothing is made of what was only announced"
        );
    }

    #[test]
    fn whatever_is_not_resp2_is_an_error() {
        for bad in ["HTTP/1.1 400 Bad Request\r\n", ">1\r\n+x\r\n", "%1\r\n+a\r\n+b\r\n", "$2\r\nabc\r\n"] {
            assert!(fed(bad.as_bytes(), bad.len()).is_err(), "{bad}");
        }
        assert!(decode(b"+OK\r\n+OK\r\n").is_err() && decode(b"+OK").is_err() && decode(b"+OK\r\n").is_ok());
    }
}
