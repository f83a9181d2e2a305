//! Rules for the command stream: what it tells, and where each command ends.

use bytes::Bytes;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use redweir::core::argv::Args;
use redweir::core::position::Offset;
use redweir::wire::stream::{StreamDecoder, StreamError};

/// Where the stream begins.
const AT: u64 = 1 << 40;

/// The commands, each with where it ended; how far the decoder has come; how many bytes it took; the error.
pub(crate) type Found = (Vec<(Vec<Vec<u8>>, usize)>, usize, Option<StreamError>);

/// Decodes `input` as it arrives in pieces of this length.
pub(crate) fn decode(input: &[u8], piece: usize) -> Found {
    let mut decoder = StreamDecoder::new(Offset::new(AT));
    let (mut found, mut fed) = (Vec::new(), 0);
    for part in input.chunks(piece.max(1)) {
        let result = decoder.feed(part, &mut |command, end| {
            let args = (0..command.count().min(1000)).map(|n| command.arg(n).to_vec()).collect();
            assert!(command.count() > 0 && (command.is_cut() || command.count() <= input.len()));
            found.push((args, (end.bytes() - AT) as usize));
        });
        fed += part.len();
        if let Err(error) = result {
            return (found, (decoder.position().bytes() - AT) as usize, Some(error));
        }
        assert_eq!(decoder.received().bytes() - AT, fed as u64, "every byte counts");
        assert!(decoder.position() <= decoder.received());
    }
    (found, (decoder.position().bytes() - AT) as usize, None)
}

/// The commands do not depend on the pieces; each ends where the next begins; and what `redis-protocol` makes of the bytes
/// of a command is that command.
pub(crate) fn check(input: &[u8]) {
    let whole = decode(input, input.len());
    let step = usize::from(input.first().copied().unwrap_or(0)) % 13 + 2;
    assert_eq!(decode(input, step), whole, "in pieces of {step}");
    if input.len() <= 4096 {
        assert_eq!(decode(input, 1), whole, "byte by byte");
    }
    let (commands, position, _) = whole;
    let mut begin = 0;
    for (args, end) in &commands {
        assert!(begin < *end && *end <= position && position <= input.len());
        let mut bytes = &input[begin..*end];
        // Newlines and empty arrays may stand before it.
        while let Some(rest) = without_blank(bytes) {
            bytes = rest;
        }
        let theirs = decode_bytes(&Bytes::copy_from_slice(bytes)).expect("is RESP2");
        let Some((BytesFrame::Array(items), used)) = theirs else {
            panic!("no array: {}", bytes.escape_ascii())
        };
        assert_eq!(used, bytes.len());
        let words = items.iter().map(|item| match item {
            BytesFrame::BulkString(word) => word.to_vec(),
            other => panic!("no bulk string: {other:?}"),
        });
        assert_eq!(&words.collect::<Vec<_>>(), args);
        begin = *end;
    }
}

fn without_blank(bytes: &[u8]) -> Option<&[u8]> {
    let blank = bytes.strip_prefix(b"\n").or_else(|| bytes.strip_prefix(b"\r\n"));
    let nothing = || {
        let rest = bytes.strip_prefix(b"*")?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        (rest.starts_with(b"-") || rest.starts_with(b"0")).then(|| &rest[end + 1..])
    };
    blank.or_else(nothing)
}
