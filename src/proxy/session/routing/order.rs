//! Some commands go to the primary on a lane of their own (see [`Purpose`]), and yet keep their place in the client's
//! order: whatever is sent on another lane after one of them waits for its reply, and it waits for whatever was sent on
//! another lane before it.

use crate::core::command::{Handling, Intent, Local};
use crate::proxy::upstream::lane::Purpose;

/// Commands that were sent one after the other on a lane of their own: the last of the client's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// `None`: nothing may follow it.
    purpose: Option<Purpose>,
    /// Sequence number of the first.
    first: u64,
    /// Sequence number of the last.
    last: u64,
}

impl Run {
    /// One that everything waits for.
    pub(crate) const fn alone(seq: u64) -> Self {
        Self { purpose: None, first: seq, last: seq }
    }

    /// Whether all of it is answered, given the client's oldest command that is not.
    pub(crate) fn is_over(self, oldest: u64) -> bool {
        oldest > self.last
    }

    /// Whether a command can be sent behind it without waiting for its replies.
    pub(crate) fn carries(self, intent: Intent) -> bool {
        Some(purpose(intent)) == self.purpose
    }

    /// The run that command number `next` goes on, or begins; `None`: what is outstanding has to be answered first.
    pub(crate) fn with(before: Option<Self>, purpose: Purpose, oldest: u64, next: u64) -> Option<Self> {
        match before {
            // Nothing else is outstanding.
            Some(run) if run.purpose == Some(purpose) && oldest >= run.first && next == run.last + 1 => {
                Some(Self { last: next, ..run })
            }
            _ => (oldest == next).then_some(Self { purpose: Some(purpose), first: next, last: next }),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_begins_with_nothing_outstanding_and_goes_on_without_a_gap() {
        assert!(Run::with(None, Purpose::Scripts, 3, 5).is_none(), "two are outstanding");
        let first = Run::with(None, Purpose::Scripts, 5, 5).expect("nothing is outstanding");
        assert!(!first.is_over(5) && first.is_over(6));
        let second = Run::with(Some(first), Purpose::Scripts, 5, 6).expect("behind the first");
        assert!(!second.is_over(6) && second.is_over(7));
        assert!(Run::with(Some(second), Purpose::Scripts, 5, 8).is_none(), "another was sent in between");
        assert!(Run::with(Some(second), Purpose::Operation, 5, 7).is_none(), "on another lane");
        assert!(Run::with(Some(second), Purpose::Operation, 7, 7).is_some(), "all of it is answered");
    }
}
