//! A client that has given no password is admitted before its first command, or is not
//! ([`crate::proxy::worker::admission`]).

use crate::core::command::{Access, Handling, Intent, Local};
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::proxy::session::connection::{Connection, On, Step};
use crate::proxy::session::exclusive::pinned::end_if_needed;
use crate::proxy::worker::admission::Verdict;
use crate::telemetry;
use crate::wire::say;

impl Connection {
    /// A client that has given no password has to be admitted before its first command (`server.c`, `authRequired`).
    /// `None`: go on.
    pub(crate) fn admit(&mut self, intent: Intent, view: &View, now: Moment) -> Option<Step> {
        if matches!(intent.handling, Handling::Local(Local::Hello | Local::Auth | Local::Quit | Local::Reset))
        {
            return None;
        }
        match self.worker.admission.knock(self.client.presence.anonymous_since.get(), now) {
            Verdict::Admitted(pass) => {
                self.client.presence.pass.set(pass);
                self.waiting_since = None;
                None
            }
            Verdict::Refused => {
                self.client.answer(say::NOAUTH);
                Some(Step::Done)
            }
            Verdict::Guest if is_for_guests(intent) => {
                self.waiting_since = None;
                None
            }
            Verdict::Nobody | Verdict::Guest
                if now.since(*self.waiting_since.get_or_insert(now)) > view.hold =>
            {
                Some(end_if_needed(intent, self.refuse(telemetry::Access::Other, Reason::PrimaryDown)))
            }
            Verdict::Asking | Verdict::Nobody | Verdict::Guest => {
                Some(self.wait(On::Admission, view.hold, now))
            }
        }
    }
}

/// What a replica may decide about: reads that it would answer itself.
fn is_for_guests(intent: Intent) -> bool {
    match intent.handling {
        Handling::Shared | Handling::ReadOnlyScript => intent.access == Access::Read,
        Handling::Local(which) => matches!(which, Local::Info | Local::Redweir),
        Handling::Scan { .. } | Handling::Script | Handling::Operation | Handling::Pin(_) => false,
    }
}
