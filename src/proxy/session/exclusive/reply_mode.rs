//! `CLIENT REPLY`, and what else decides which of a client's commands are answered.

use crate::core::argv::Args;
use crate::proxy::upstream::lane::Said;
use crate::wire::request::Request;
use crate::wire::say;

/// The reply to a `CLIENT REPLY` that silences nobody. `None`: it does, or is `SCRIPT DEBUG`.
pub(crate) fn speaks_on<A: Args + ?Sized>(request: &A) -> Option<Vec<u8>> {
    let is = |at, word: &[u8]| request.arg(at).eq_ignore_ascii_case(word);
    if !is(0, b"client") || request.count() == 0 {
        return None;
    }
    match request.count() {
        3 if is(2, b"off") || is(2, b"skip") => None,
        3 if is(2, b"on") => Some(say::OK.to_vec()),
        3 => Some(say::SYNTAX.to_vec()),
        _ => Some(say::wrong_arity("client|reply")),
    }
}

/// What `CLIENT REPLY` or `SCRIPT DEBUG` does to the replies of a plain relay.
pub(crate) fn reply_mode(request: &Request<'_>) -> Said {
    let is = |at, word: &[u8]| request.arg(at).eq_ignore_ascii_case(word);
    match request.count() {
        _ if !is(0, b"client") => Said::Opaque,
        3 if is(2, b"off") => Said::Off,
        3 if is(2, b"skip") => Said::Skip,
        3 if is(2, b"on") => Said::On,
        _ => Said::Command,
    }
}
