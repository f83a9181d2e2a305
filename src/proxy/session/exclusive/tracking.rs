//! `CLIENT TRACKING` through Redweir: the client's reads and the server's invalidations have one exclusive connection.
//!
//! Replies stay counted; what the server pushes goes to the client as it comes. `REDIRECT` names a client by the ID that
//! Redweir gave it, which the primary does not know: it is told the ID of that client's exclusive connection, the one it
//! has subscribed on, and what it says of that connection is told in Redweir's words again.

use crate::core::argv::Args as _;
use crate::wire::request::Request;

/// Which argument names the client to redirect to.
pub(crate) fn redirect_at(request: &Request<'_>) -> Option<usize> {
    let word = (3..request.count()).find(|at| request.arg(*at).eq_ignore_ascii_case(b"redirect"))?;
    (word + 1 < request.count()).then_some(word + 1)
}

fn is(request: &Request<'_>, subcommand: &[u8]) -> bool {
    request.arg(1).eq_ignore_ascii_case(subcommand)
}

/// Whether the reply tells of a redirection.
pub(crate) fn tells_redirect(request: &Request<'_>) -> bool {
    is(request, b"getredir") || is(request, b"trackinginfo")
}

/// `CLIENT TRACKING ON`
pub(crate) fn switches_on(request: &Request<'_>) -> bool {
    is(request, b"tracking") && request.arg(2).eq_ignore_ascii_case(b"on")
}

/// `CLIENT CACHING`, which means nothing without tracking, or what is an error.
pub(crate) fn changes_nothing(request: &Request<'_>) -> bool {
    is(request, b"tracking") || is(request, b"caching")
}

/// `CLIENT TRACKING OFF`
pub(crate) fn switches_off(request: &Request<'_>) -> bool {
    is(request, b"tracking") && request.count() == 3 && request.arg(2).eq_ignore_ascii_case(b"off")
}
