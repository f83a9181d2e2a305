//! `CLIENT TRACKING` through Redweir: the client's reads and the server's invalidations have one exclusive connection.
//!
//! Replies stay counted; what the server pushes goes to the client as it comes. `REDIRECT` names a client by the ID that
//! Redweir gave it, which the primary does not know: it is told the ID of that client's exclusive connection, the one it
//! has subscribed on, and what it says of that connection is told in Redweir's words again.

use crate::core::argv::Args as _;
use crate::core::command::{Handling, Intent, Stateful};
use crate::proxy::upstream::lane::{Lane, Redirect};
use crate::wire::request::Request;
use crate::wire::say;

/// Whom the present `CLIENT TRACKING … REDIRECT` names, once that was found out.
#[derive(Debug, Default)]
pub struct Redirection(Option<Redirect>);

impl Redirection {
    /// The client `named` is known to the primary as `there`; 0: it is not known there.
    pub fn found(&mut self, named: u64, there: u64) {
        self.0 = Some((named, there));
    }

    /// The client whose number at the primary has to be found out before the command can be sent.
    pub(crate) fn wanted(&self, request: &Request<'_>, intent: Intent) -> Option<u64> {
        if intent.handling != Handling::Pin(Stateful::Tracking) || self.0.is_some() {
            return None;
        }
        std::str::from_utf8(request.arg(redirect_at(request)?)).ok()?.parse().ok()
    }

    /// The command as the primary has to see it, if that is not as the client says it; `lane` is to tell of it in the client's
    /// words.
    pub(crate) fn translate(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        lane: &Lane,
    ) -> Option<Vec<u8>> {
        if intent.handling != Handling::Pin(Stateful::Tracking) {
            return None;
        }
        let redirect = self.0.take()?;
        lane.redirect.set(Some(redirect));
        let (at, number) = (redirect_at(request)?, redirect.1.to_string());
        Some(say::with_argument(request, at, number.as_bytes()))
    }
}

/// Which argument names the client to redirect to.
fn redirect_at(request: &Request<'_>) -> Option<usize> {
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
