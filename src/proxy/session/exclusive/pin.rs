//! An exclusive connection to the primary, and what state its client has left on it ([`crate::proxy::session::exclusive::pinned`]).

use std::rc::Rc;

use tokio::sync::OwnedSemaphorePermit;

use crate::core::argv::Args as _;
use crate::core::command::{Handling, Intent, Local, Stateful};
use crate::core::plan::Hold;
use crate::core::session::Stamps;
use crate::mutant;
use crate::proxy::session::exclusive::tracking;
use crate::proxy::upstream::lane::Lane;
use crate::wire::request::Request;

/// One of the places for exclusive connections.
type Place = OwnedSemaphorePermit;

/// Where a connection stands in line for a [`Place`].
#[derive(Debug, Default)]
pub enum Permit {
    /// It wants none.
    #[default]
    No,
    /// It has got one.
    Served(Place),
    /// It has waited too long.
    GaveUp,
}

/// An exclusive connection and the state it carries.
#[derive(Debug)]
pub struct Pin {
    /// The connection.
    pub lane: Rc<Lane>,
    /// Its place among the exclusive connections there may be.
    _place: Place,
    /// Between MULTI and EXEC or DISCARD.
    pub(crate) multi: bool,
    /// Between WATCH and EXEC, DISCARD or UNWATCH.
    watching: bool,
    /// A blocking command is outstanding, or was the last.
    pub blocking: bool,
    /// A plain relay: replies are not counted any longer.
    pub raw: bool,
    /// The server tells what the client's reads are invalidated by.
    tracking: bool,
    /// Its state cannot be followed: never given back.
    unknown_state: bool,
    /// `AUTH` or `HELLO` was said on it: who its client is, the server knows and Redweir does not.
    other_user: bool,
    /// The transaction has a subscription in it: a plain relay once it is executed.
    pub(crate) raw_after: bool,
    /// What the queued commands write.
    pub(crate) queued: Stamps,
    /// A command of the transaction was refused here: the server does not know of it, but `EXEC` must fail.
    pub(crate) poisoned: bool,
    /// A plain relay that ends as soon as it has answered `RESET`.
    pub ending: bool,
    /// A plain relay on which nothing was said that would leave anything behind but subscriptions.
    subscribes_only: bool,
    /// A plain relay that ends if its client is found to be subscribed to nothing.
    pub(crate) returning: bool,
}

impl Pin {
    pub(crate) fn new(lane: Rc<Lane>, place: Place) -> Self {
        Self {
            lane,
            _place: place,
            multi: false,
            watching: false,
            blocking: false,
            raw: false,
            tracking: false,
            unknown_state: false,
            other_user: false,
            raw_after: false,
            queued: Stamps::None,
            poisoned: false,
            ending: false,
            subscribes_only: false,
            returning: false,
        }
    }

    /// Whether the server, not Redweir, has the say about what comes next.
    pub fn relays_everything(&self) -> bool {
        self.multi || self.raw
    }

    /// Whether the client may be somebody else there than Redweir knows.
    pub(crate) fn is_of_other_user(&self) -> bool {
        self.other_user && !mutant::is("user-as-before")
    }

    /// What it holds for the client.
    pub(crate) fn hold(&self) -> Hold {
        match () {
            // It never held any.
            () if self.lane.was_refused() => Hold::Nothing,
            () if self.raw || self.is_to_be_raw() => Hold::Relay,
            () if self.multi => Hold::Transaction,
            () if self.holds_state() => Hold::State,
            () => Hold::Nothing,
        }
    }

    /// It is a plain relay from now on.
    pub(crate) fn become_relay(&mut self) {
        self.subscribes_only = !self.holds_state();
        self.raw = true;
    }

    /// Follows what the command leaves behind on the plain relay.
    pub(crate) fn follow_relayed(&mut self, intent: Intent) {
        self.other_user |= says_who(intent);
        self.subscribes_only &= match intent.handling {
            Handling::Pin(Stateful::Subscribe | Stateful::Unsubscribe | Stateful::Blocking)
            | Handling::Shared
            | Handling::Scan { .. }
            | Handling::ReadOnlyScript
            | Handling::Script => true,
            Handling::Operation | Handling::Local(_) | Handling::Pin(_) => false,
        };
    }

    /// Whether its client may go on without it, for all that is known: it was subscribed, and is no more.
    pub(crate) fn may_return(&self) -> bool {
        self.raw && self.subscribes_only && !self.ending && self.lane.is_unsubscribed()
    }

    /// The transaction that subscribed is over.
    pub fn is_to_be_raw(&self) -> bool {
        self.raw_after && !self.multi && !self.raw
    }

    pub(crate) fn holds_state(&self) -> bool {
        self.multi || self.watching || self.tracking || self.unknown_state || self.raw_after
    }

    /// Follows what the command does to the connection's state.
    pub(crate) fn follow(&mut self, intent: Intent, request: &Request<'_>) {
        self.blocking = false;
        self.other_user |= says_who(intent);
        match intent.handling {
            // With arguments they are errors, which change nothing.
            Handling::Pin(Stateful::Multi | Stateful::Exec | Stateful::Discard | Stateful::Unwatch)
                if request.count() != 1 => {}
            Handling::Pin(Stateful::Multi) => self.multi = true,
            // Without MULTI they are errors, which leave what is watched watched (`multi.c`, `execCommand`).
            Handling::Pin(Stateful::Exec | Stateful::Discard) if self.multi => {
                (self.multi, self.watching) = (false, false);
            }
            Handling::Pin(Stateful::Watch) => self.watching = true,
            Handling::Pin(Stateful::Unwatch) if !self.multi => self.watching = false,
            Handling::Pin(Stateful::Blocking) if !self.multi => self.blocking = true,
            // SELECT, AUTH, HELLO or CLIENT in the middle of a transaction change the connection itself.
            Handling::Local(Local::Client) | Handling::Pin(Stateful::Tracking) if self.multi => {
                self.unknown_state = true;
            }
            Handling::Pin(Stateful::Tracking) if tracking::switches_on(request) => self.tracking = true,
            Handling::Pin(Stateful::Tracking) if tracking::switches_off(request) => self.tracking = false,
            Handling::Pin(Stateful::Tracking) if tracking::changes_nothing(request) => {}
            Handling::Pin(Stateful::Tracking)
            | Handling::Local(Local::Select | Local::Auth | Local::Hello) => {
                self.unknown_state = true;
            }
            _ => {}
        }
        if request.count() == 0 {
            self.unknown_state = true;
        }
    }
}

/// Whether it may make its client another user.
fn says_who(intent: Intent) -> bool {
    matches!(intent.handling, Handling::Local(Local::Auth | Local::Hello))
}
