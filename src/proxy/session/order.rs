//! Some commands go to the primary on a lane of their own (see [`Purpose`]), and yet keep their place in the client's
//! order: whatever is sent on another lane after one of them waits for its reply, and it waits for whatever was sent on
//! another lane before it.

use crate::core::command::vocabulary::Vocabulary;
use crate::core::command::{Handling, Intent, Local};
use crate::core::moment::Moment;
use crate::core::reason::Reason;
use crate::core::view::View;
use crate::proxy::session::connection::{Connection, Step};
use crate::proxy::upstream::lane::Purpose;
use crate::proxy::upstream::outgoing::{Bytes, Outgoing};
use crate::wire::request::Request;

/// The commands that were sent last, one after the other, on a lane of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    purpose: Purpose,
    /// Sequence number of the first.
    first: u64,
    /// Sequence number of the last.
    last: u64,
}

impl Connection {
    /// What a command has to wait for because of those before it that have a lane of their own.
    pub fn keep_in_order(&mut self, intent: Intent) -> Option<Step> {
        let row = self.row?;
        if self.client.oldest() > row.last {
            self.row = None;
        } else if purpose(intent) != row.purpose {
            return Some(Step::Drain);
        }
        None
    }

    /// Sends a script to the primary.
    pub fn script(
        &mut self,
        request: &Request<'_>,
        (intent, reason): (Intent, Reason),
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Step {
        let outgoing = Outgoing::write(reason, self.stamps(request, intent, vocabulary), now);
        self.send_on_own_lane(Purpose::Scripts, request, outgoing, view)
    }

    /// Sends a command to the primary that is about the server.
    pub fn operate(&mut self, request: &Request<'_>, outgoing: Outgoing, view: &View) -> Step {
        self.send_on_own_lane(Purpose::Operation, request, outgoing, view)
    }

    fn send_on_own_lane(
        &mut self,
        purpose: Purpose,
        request: &Request<'_>,
        outgoing: Outgoing,
        view: &View,
    ) -> Step {
        let (oldest, next) = (self.client.oldest(), self.client.next());
        let first = match self.row {
            // Nothing else is outstanding.
            Some(row) if row.purpose == purpose && oldest >= row.first && next == row.last + 1 => row.first,
            _ if self.client.is_drained() => next,
            _ => return Step::Drain,
        };
        let Some(primary) = view.usable_primary(outgoing.now) else {
            return self.send_to_primary(Bytes::Request(request), outgoing, view);
        };
        if self.owes_another_primary(primary) {
            return Step::Drain;
        }
        let lane = match self.lane_for(purpose, primary) {
            Ok(lane) => lane,
            Err(step) => return step,
        };
        let step = self.send_on(lane, Bytes::Request(request), outgoing, view);
        if matches!(step, Step::Done) {
            self.row = Some(Row { purpose, first, last: next });
        }
        step
    }
}

/// Which lane carries a command.
fn purpose(intent: Intent) -> Purpose {
    match intent.handling {
        Handling::Script => Purpose::Scripts,
        Handling::Operation | Handling::Local(Local::Info | Local::Client) => Purpose::Operation,
        _ => Purpose::Ordinary,
    }
}
