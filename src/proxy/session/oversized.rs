//! Commands too long to be held are decided by their beginning. They go to the primary, on an exclusive connection,
//! after everything before them is answered, and the rest of them follows as it comes.

use std::cell::Cell;
use std::rc::Rc;

use crate::core::argv::Args;
use crate::core::command::in_force::Commands;
use crate::core::command::{Handling, Intent, Keys, Local};
use crate::core::fence::FenceTable;
use crate::core::session::Stamps;
use crate::proxy::downstream::replies::Client;
use crate::proxy::session::exclusive::pin::Pin;
use crate::proxy::session::step::Step;
use crate::wire::request::Request;
use crate::wire::say;

/// The beginning of a command, and whether anybody has asked for an argument behind it.
struct Beginning<'a> {
    request: &'a Request<'a>,
    missed: Cell<bool>,
}

impl Args for Beginning<'_> {
    fn count(&self) -> usize {
        self.request.count()
    }

    fn arg(&self, index: usize) -> &[u8] {
        if self.request.lacks(index) {
            self.missed.set(true);
        }
        self.request.arg(index)
    }
}

/// What Redweir itself would answer is no command with arguments of that size: what Redis says to them.
pub(crate) fn refuse(client: &Rc<Client>, pin: Option<&Pin>, intent: Intent) -> Option<Step> {
    let Handling::Local(which) = intent.handling else { return None };
    if pin.is_some_and(Pin::relays_everything) {
        return None;
    }
    let reply = match which {
        Local::Quit => {
            client.answer(say::OK);
            return Some(Step::Close);
        }
        Local::Auth | Local::Hello => say::WRONGPASS.to_vec(),
        Local::Select | Local::Wait => say::BAD_DB.to_vec(),
        Local::Reset => say::wrong_arity("reset"),
        Local::Client | Local::Info | Local::Redweir => say::SYNTAX.to_vec(),
    };
    client.answer(&reply);
    Some(Step::Done)
}

/// The fences of its keys, if they stand in the beginning; else those of every key.
pub(crate) fn stamps(
    request: &Request<'_>,
    intent: Intent,
    commands: &Commands,
    fences: &FenceTable,
) -> Stamps {
    let (beginning, mut stamps) = (Beginning { request, missed: Cell::new(false) }, Stamps::None);
    let keys = commands.table.for_each_key(intent.id, &beginning, &mut |key| {
        if !beginning.missed.get() {
            stamps.merge(Stamps::One(fences.slot(key)));
        }
    });
    if beginning.missed.get() || keys == Keys::Unknowable { Stamps::All } else { stamps }
}
