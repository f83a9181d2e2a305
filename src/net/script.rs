//! Scripts that may write go on a lane of their own (see [`Purpose`](super::lane::Purpose)), and yet keep their place in the client's order:
//! whatever is sent on another lane after a script waits for the script's reply, and a script waits for whatever was
//! sent on another lane before it.

use super::connection::{Connection, Step};
use super::outgoing::{Bytes, Outgoing};
use super::vocabulary::Vocabulary;
use crate::core::command::{Handling, Intent};
use crate::core::moment::Moment;
use crate::core::reason::Reason;
use crate::core::view::View;
use crate::wire::request::Request;

impl Connection {
    /// What a command has to wait for because of the scripts before it.
    pub fn keep_scripts_in_order(&mut self, intent: Intent) -> Option<Step> {
        let (_, last) = self.scripts?;
        if self.client.oldest() > last {
            self.scripts = None;
        } else if intent.handling != Handling::Script {
            return Some(Step::Drain);
        }
        None
    }

    /// Sends a script to the primary.
    pub fn script(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Step {
        let (oldest, next) = (self.client.oldest(), self.client.next());
        let first = match self.scripts {
            // Nothing but scripts is outstanding.
            Some((first, last)) if oldest >= first && next == last + 1 => first,
            _ if self.client.is_drained() => next,
            _ => return Step::Drain,
        };
        let outgoing = Outgoing::write(Reason::Write, self.stamps(request, intent, vocabulary), now);
        let Some(primary) = view.usable_primary(now) else {
            return self.send_to_primary(Bytes::Request(request), outgoing, view);
        };
        let lane = match self.lane_for_scripts(primary) {
            Ok(lane) => lane,
            Err(step) => return step,
        };
        let step = self.send_on(lane, Bytes::Request(request), outgoing, view);
        if matches!(step, Step::Done) {
            self.scripts = Some((first, next));
        }
        step
    }
}
