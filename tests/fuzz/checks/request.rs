//! Rules for the request scanner.

use bytes::BytesMut;
use redweir::core::argv::Args;
use redweir::wire::request::{RequestError, RequestLimits, RequestScanner, Scan};

/// What a scanner makes of some bytes.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub(crate) struct Found {
    /// The commands' arguments.
    pub(crate) commands: Vec<Vec<Vec<u8>>>,
    /// The same commands as they would be forwarded.
    pub(crate) forwarded: Vec<u8>,
    /// How many bytes were used up.
    pub(crate) used: usize,
    /// What stopped it.
    pub(crate) error: Option<RequestError>,
}

/// Scans `input` as it arrives in pieces of the lengths that `piece` gives.
pub(crate) fn scan(limits: RequestLimits, input: &[u8], mut piece: impl FnMut() -> usize) -> Found {
    let mut found = Found::default();
    let mut scanner = RequestScanner::new(limits);
    let mut forwarded = BytesMut::new();
    let mut arrived = 0;
    loop {
        let buf = &input[found.used..arrived];
        match scanner.scan(buf) {
            Ok(Scan::Need) if arrived == input.len() => break,
            Ok(Scan::Need) => arrived = (arrived + piece().max(1)).min(input.len()),
            Ok(Scan::Skip(len)) => {
                assert!(0 < len && len <= buf.len());
                found.used += len;
            }
            Ok(Scan::Command { len, canonical }) => {
                assert!(0 < len && len <= buf.len());
                let request = scanner.request(buf);
                assert_eq!(request.raw(), canonical.then_some(&buf[..len]));
                assert!(request.count() > 0 && request.name() == request.arg(0));
                found.commands.push((0..request.count()).map(|n| request.arg(n).to_vec()).collect());
                request.encode_into(&mut forwarded);
                found.used += len;
            }
            Err(error) => {
                found.error = Some(error);
                break;
            }
        }
        if let Some(wanted) = scanner.wanted() {
            assert!(wanted <= arrived.max(16 << 10), "{wanted} bytes wanted after {arrived}");
        }
    }
    found.forwarded = forwarded.to_vec();
    found
}

/// The result depends neither on the pieces nor on who re-encodes; what is forwarded is canonical.
pub(crate) fn check(input: &[u8]) {
    let tight = RequestLimits { max_args: 3, max_bulk: 20, max_line: 8, max_inline: 12, before_auth: false };
    for limits in [RequestLimits::DEFAULT, RequestLimits::BEFORE_AUTH, tight] {
        let whole = scan(limits, input, || input.len());
        let step = usize::from(input.first().copied().unwrap_or(0)) % 17 + 2;
        assert_eq!(scan(limits, input, || step), whole, "in pieces of {step}");
        if input.len() <= 4096 {
            assert_eq!(scan(limits, input, || 1), whole, "byte by byte");
        }
        let again = scan(RequestLimits::DEFAULT, &whole.forwarded, || usize::MAX >> 1);
        assert_eq!(again.commands, whole.commands, "what is forwarded says the same");
        assert_eq!((again.error, again.used), (None, whole.forwarded.len()));
        assert_eq!(again.forwarded, whole.forwarded, "what is forwarded is canonical");
    }
}
