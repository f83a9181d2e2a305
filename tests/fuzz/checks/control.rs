//! Rules for what a node answers to Redweir itself.

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use redweir::wire::answer::{AnswerDecoder, AnswerError, MOST_LEVELS};

/// The answers, each with where it ended, and the error.
pub(crate) type Found = (Vec<(usize, BytesFrame)>, Option<AnswerError>);

/// Decodes `input` as it arrives in pieces of this length.
pub(crate) fn decode(input: &[u8], piece: usize) -> Found {
    let (mut decoder, mut inbound) = (AnswerDecoder::default(), BytesMut::new());
    let (mut found, mut arrived) = (Vec::new(), 0);
    for part in input.chunks(piece.max(1)) {
        inbound.extend_from_slice(part);
        arrived += part.len();
        loop {
            match decoder.decode(&mut inbound) {
                Ok(Some(frame)) => found.push((arrived - inbound.len(), frame)),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// The answers do not depend on the pieces, are no deeper than the limit, and are what `redis-protocol` makes of the
/// same bytes: of each of them, and of whatever else it would have accepted.
pub(crate) fn check(input: &[u8]) {
    let whole = decode(input, input.len());
    let step = usize::from(input.first().copied().unwrap_or(0)) % 13 + 2;
    assert_eq!(decode(input, step), whole, "in pieces of {step}");
    if input.len() <= 4096 {
        assert_eq!(decode(input, 1), whole, "byte by byte");
    }
    let mut begin = 0;
    for (end, frame) in &whole.0 {
        assert!(depth(frame) <= MOST_LEVELS, "{} levels", depth(frame));
        let theirs = decode_bytes(&Bytes::copy_from_slice(&input[begin..]));
        assert_eq!(theirs.expect("is RESP2"), Some((frame.clone(), end - begin)));
        begin = *end;
    }
    if whole.1.is_none() && is_harmless(&input[begin..]) {
        let more = decode_bytes(&Bytes::copy_from_slice(&input[begin..]));
        assert_eq!(more.ok().flatten(), None, "it is whole, and was not told");
    }
}

/// Whether that decoder, which believes declared lengths and recurses, may be shown this.
fn is_harmless(input: &[u8]) -> bool {
    let long = input.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 3);
    input.len() <= 2048 && !long
}

fn depth(frame: &BytesFrame) -> usize {
    match frame {
        BytesFrame::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
