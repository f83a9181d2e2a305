//! A client that has given no password is admitted before its first command, or is not
//! ([`crate::proxy::worker::admission`]).

use crate::core::command::Intent;
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::plan::{Admittance, is_for_guests, needs_admission};
use crate::proxy::session::connection::{Connection, On, Step};
use crate::proxy::worker::admission::Verdict;

impl Connection {
    /// A client that has given no password has to be admitted before its first command. `Err`: not yet.
    pub(crate) fn admit(&mut self, intent: Intent, view: &View, now: Moment) -> Result<Admittance, Step> {
        if !needs_admission(intent) {
            return Ok(Admittance::Admitted);
        }
        match self.worker.admission.verdict(self.client.status.anonymous_since.get(), now) {
            Verdict::Admitted(epoch) => {
                self.client.status.auth_epoch.set(epoch);
                self.waiting_since = None;
                Ok(Admittance::Admitted)
            }
            Verdict::Refused => Ok(Admittance::Refused),
            Verdict::Guest if is_for_guests(intent) => {
                self.waiting_since = None;
                Ok(Admittance::Guest)
            }
            Verdict::Nobody | Verdict::Guest
                if now.since(*self.waiting_since.get_or_insert(now)) > view.hold =>
            {
                Ok(Admittance::Unknown)
            }
            Verdict::Asking | Verdict::Nobody | Verdict::Guest => {
                Err(self.wait(On::Admission, view.hold, now))
            }
        }
    }
}
