//! `CLIENT TRACKING` through Redweir: the client's reads and the server's invalidations have one exclusive connection.
//!
//! Replies stay counted; what the server pushes goes to the client as it comes. `REDIRECT` names a client by the ID that
//! Redweir gave it, which the primary does not know: it is told the ID of that client's exclusive connection, the one it
//! has subscribed on, and what it says of that connection is told in Redweir's words again.

use crate::core::argv::Args as _;
use crate::core::command::{Handling, Intent, Pin as Pins};
use crate::proxy::session::connection::{Connection, Step};
use crate::proxy::upstream::lane::Lane;
use crate::wire::request::Request;
use crate::wire::say;

/// Which argument names the client to redirect to.
fn redirect_at(request: &Request<'_>) -> Option<usize> {
    let word = (3..request.count()).find(|at| request.arg(*at).eq_ignore_ascii_case(b"redirect"))?;
    (word + 1 < request.count()).then_some(word + 1)
}

fn is(request: &Request<'_>, subcommand: &[u8]) -> bool {
    request.arg(1).eq_ignore_ascii_case(subcommand)
}

impl Connection {
    /// What has to be found out before the command can be sent.
    pub fn look_for_redirect(&self, request: &Request<'_>, intent: Intent) -> Option<Step> {
        if intent.handling != Handling::Pin(Pins::Tracking) || self.redirect.is_some() {
            return None;
        }
        let number = std::str::from_utf8(request.arg(redirect_at(request)?)).ok()?.parse().ok()?;
        Some(Step::Find(number))
    }

    /// The command as the primary has to see it, if that is not as the client says it.
    pub fn redirected(&mut self, request: &Request<'_>, intent: Intent) -> Option<Vec<u8>> {
        if intent.handling != Handling::Pin(Pins::Tracking) {
            return None;
        }
        let redirect = self.redirect.take()?;
        if let Some(pin) = &self.pin {
            pin.lane.redirect.set(Some(redirect));
        }
        let (at, number) = (redirect_at(request)?, redirect.1.to_string());
        Some(say::with_argument(request, at, number.as_bytes()))
    }
}

/// Whether the reply tells of a redirection.
pub(crate) fn tells_redirect(request: &Request<'_>) -> bool {
    is(request, b"getredir") || is(request, b"trackinginfo")
}

/// Whether Redweir says it, whatever connection the client has.
pub(crate) fn is_about_redweir(request: &Request<'_>) -> bool {
    let own: [&[u8]; 9] =
        [b"id", b"getname", b"setname", b"setinfo", b"info", b"list", b"kill", b"unblock", b"no-evict"];
    own.iter().any(|word| is(request, word))
}

/// The reply to `CLIENT GETREDIR` or `TRACKINGINFO`, with Redweir's ID in the place of the primary's.
pub(crate) fn in_own_words(lane: &Lane, reply: &[u8]) -> Vec<u8> {
    let Some((own, theirs)) = lane.redirect.get() else { return reply.to_vec() };
    let (from, to) = (format!(":{theirs}\r\n"), format!(":{own}\r\n"));
    match memchr::memmem::find(reply, from.as_bytes()) {
        Some(at) => [&reply[..at], to.as_bytes(), &reply[at + from.len()..]].concat(),
        None => reply.to_vec(),
    }
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
