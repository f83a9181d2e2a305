//! Rules for the reply scanner, and its comparison with `redis-protocol`.

use redis_protocol::{resp2, resp3};
use redweir::wire::reply::{Extent, ReplyError, ReplyKind, ReplyScanner};

/// The ends, kinds and heads of replies; the error; whether a reply is unfinished.
pub(crate) type Found = (Vec<(usize, ReplyKind, Vec<u8>)>, Option<ReplyError>, bool);

/// Scans `input` as it arrives in pieces of the lengths that `piece` gives.
pub(crate) fn scan(input: &[u8], mut piece: impl FnMut() -> usize) -> Found {
    let mut scanner = ReplyScanner::new();
    let (mut found, mut at, mut arrived) = (Vec::new(), 0, 0);
    while at < input.len() {
        if at == arrived {
            arrived = (arrived + piece().max(1)).min(input.len());
        }
        match scanner.scan(&input[at..arrived]) {
            Ok(Some(Extent { end, kind })) => {
                assert!(0 < end && end <= arrived - at && scanner.is_between());
                at += end;
                assert!(!scanner.head().is_empty() && scanner.head().len() <= 32);
                found.push((at, kind, scanner.head().to_vec()));
            }
            Ok(None) => {
                assert!(!scanner.is_between());
                at = arrived;
            }
            Err(error) => return (found, Some(error), true),
        }
    }
    (found, None, !scanner.is_between())
}

/// The result does not depend on the pieces, and whoever else understands the first reply sees the same end.
pub(crate) fn check(input: &[u8]) {
    let whole = scan(input, || input.len());
    let step = usize::from(input.first().copied().unwrap_or(0)) % 13 + 2;
    assert_eq!(scan(input, || step), whole, "in pieces of {step}");
    if input.len() <= 4096 {
        assert_eq!(scan(input, || 1), whole, "byte by byte");
    }
    compare(input, &whole);
}

/// Compares the end of the first reply with both decoders of `redis-protocol`, where they accept it. They
/// believe declared lengths, so inputs with large numbers are not shown to them. Returns whether one had a say.
pub(crate) fn compare(input: &[u8], ours: &Found) -> bool {
    if input.len() > 2048 || input.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 3) {
        return false;
    }
    // The oracle takes what no server sends (`$03`, a payload without its CRLF); we refuse it, and that is
    // all the difference there may be.
    let first = ours.0.first().map(|reply| reply.0);
    if first.is_none() && ours.1.is_some() {
        return false;
    }
    let two = resp2::decode::decode(input).ok().flatten().map(|(_, used)| used);
    let three = resp3::decode::complete::decode(input).ok().flatten().map(|(_, used)| used);
    for used in [two, three].into_iter().flatten() {
        assert_eq!(first, Some(used), "redis-protocol sees another end: {}", input.escape_ascii());
    }
    two.is_some() || three.is_some()
}
