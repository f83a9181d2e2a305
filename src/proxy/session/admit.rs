//! A client that has given no password is admitted before its first command, or is not
//! ([`crate::proxy::worker::admission`]).

use crate::core::command::Intent;
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::plan::{Admittance, is_for_anybody, is_for_guests, needs_admission};
use crate::proxy::session::connection::Connection;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::proxy::worker::admission::Verdict;
use crate::wire::request::Request;

impl Connection {
    /// Whether it may have what no server is needed for, though nobody can be asked: by what the primary has said last.
    pub(crate) fn is_let_in_blindly(&self) -> bool {
        let view = self.worker.shared.shard().view.load();
        !view.primary_answers() && view.rights.let_newcomers_in() == Some(true)
    }

    /// A client that has given no password has to be admitted before its first command. `Err`: not yet.
    pub(crate) fn admit(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        now: Moment,
    ) -> Result<Admittance, Step> {
        if !needs_admission(intent) {
            return Ok(Admittance::Admitted);
        }
        match self.worker.admission.verdict(self.client.status.anonymous_since.get(), now) {
            Verdict::Admitted(epoch) => {
                self.client.status.auth_epoch.set(epoch);
                self.waiting.end_for_admission();
                Ok(Admittance::Admitted)
            }
            Verdict::Refused => Ok(Admittance::Refused),
            Verdict::Guest if is_for_guests(request, intent) => {
                self.waiting.end_for_admission();
                Ok(Admittance::Guest)
            }
            // What the primary has said last counts.
            Verdict::Nobody | Verdict::Asking
                if is_for_anybody(request, intent) && self.is_let_in_blindly() =>
            {
                self.waiting.end_for_admission();
                Ok(Admittance::Guest)
            }
            Verdict::Nobody | Verdict::Guest
                if !view.primary_answers() && self.waiting.for_primary(now) > view.hold =>
            {
                Ok(Admittance::Unknown)
            }
            Verdict::Nobody | Verdict::Guest if self.waiting.duration(now) > view.hold => {
                Ok(Admittance::Unknown)
            }
            Verdict::Asking | Verdict::Nobody | Verdict::Guest => {
                Err(self.wait(On::Admission, view.hold, now))
            }
        }
    }
}
