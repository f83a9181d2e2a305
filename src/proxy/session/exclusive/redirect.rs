//! `CLIENT TRACKING … REDIRECT`: the client that it names has another number at the primary
//! ([`crate::proxy::session::exclusive::tracking`]).

use crate::core::argv::Args as _;
use crate::core::command::{Handling, Intent, Stateful};
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::tracking::redirect_at;
use crate::proxy::session::step::Step;
use crate::wire::request::Request;
use crate::wire::say;

impl Connection {
    /// What has to be found out before the command can be sent.
    pub fn look_for_redirect(&self, request: &Request<'_>, intent: Intent) -> Option<Step> {
        if intent.handling != Handling::Pin(Stateful::Tracking) || self.redirect.is_some() {
            return None;
        }
        let number = std::str::from_utf8(request.arg(redirect_at(request)?)).ok()?.parse().ok()?;
        Some(Step::Find(number))
    }

    /// The command as the primary has to see it, if that is not as the client says it.
    pub fn redirected(&mut self, request: &Request<'_>, intent: Intent) -> Option<Vec<u8>> {
        if intent.handling != Handling::Pin(Stateful::Tracking) {
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
