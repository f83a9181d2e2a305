//! Commands that leave state on a connection get an exclusive one to the primary: transactions, blocking commands,
//! subscriptions, MONITOR, tracking.
//!
//! A transaction or a blocking command gives its connection back clean as soon as its state is gone, so that the next
//! client may use it. A subscription (and whatever else makes the server speak unasked, or stay silent) turns the
//! connection into a plain relay ([`crate::proxy::session::relayed`]), until the client leaves or says `RESET`; then it is closed, when
//! what was said on it is executed. The order of a pipeline is kept by entering and leaving only with nothing
//! outstanding.
//!
//! There are at most `max-exclusive-connections` at a time. Who comes too late waits in line, first come, first served;
//! who has waited for `exclusive-wait` is told so and disconnected, because what follows a `MULTI` that failed must not be
//! executed by itself.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::core::argv::Args;
use crate::core::command::vocabulary::Vocabulary;
use crate::core::command::{Access, Handling, Intent, Local, Pin as Pins};
use crate::core::moment::Moment;
use crate::core::reason::Reason;
use crate::core::session::Stamps;
use crate::core::view::View;
use crate::mutant;
use crate::proxy::local::client;
use crate::proxy::session::connection::{Connection, Step};
use crate::proxy::session::tracking;
use crate::proxy::upstream::lane::{Closed, Lane};
use crate::proxy::upstream::outgoing::Bytes;
use crate::proxy::upstream::pending::Rewrite;
use crate::telemetry::{self, Target};
use crate::wire::request::Request;
use crate::wire::say;

/// One of the places for exclusive connections.
type Place = OwnedSemaphorePermit;

/// Where a connection stands in line for a [`Place`].
#[derive(Debug, Default)]
pub enum InLine {
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
    multi: bool,
    /// Between WATCH and EXEC, DISCARD or UNWATCH.
    watching: bool,
    /// A blocking command is outstanding, or was the last.
    pub blocking: bool,
    /// A plain relay: replies are not counted any longer.
    pub raw: bool,
    /// The server tells what the client's reads are invalidated by.
    tracking: bool,
    /// Its state cannot be followed: never given back.
    stuck: bool,
    /// The transaction has a subscription in it: a plain relay once it is executed.
    raw_after: bool,
    /// What the queued commands write.
    queued: Stamps,
    /// A command of the transaction was refused here: the server does not know of it, but `EXEC` must fail.
    poisoned: bool,
    /// A plain relay that ends as soon as it has answered `RESET`.
    pub ending: bool,
}

impl Connection {
    /// Sends a command on the exclusive connection, taking one first if it needs one. `None` when the command needs
    /// none and the connection holds none any longer.
    pub fn dispatch_pinned(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Option<Step> {
        if request.is_partial()
            && let Some(step) = self.refuse_long(intent)
        {
            return Some(step);
        }
        match intent.handling {
            Handling::Local(Local::Quit) => {
                self.client.answer(say::OK);
                return Some(Step::Close);
            }
            Handling::Local(Local::Reset | Local::Redweir) => {
                if matches!(intent.handling, Handling::Local(Local::Reset)) {
                    self.release_pin(false);
                }
                return None;
            }
            Handling::Pin(Pins::Silence) if self.pin.as_ref().is_none_or(|pin| !pin.relays_everything()) => {
                if let Some(reply) = client::speaks_on(request) {
                    self.client.answer(&reply);
                    return Some(Step::Done);
                }
            }
            // It says who the client is, whatever connection it has.
            Handling::Local(Local::Client)
                if tracking::is_about_redweir(request)
                    && self.pin.as_ref().is_some_and(|pin| !pin.relays_everything()) =>
            {
                return None;
            }
            _ => {}
        }
        if let Some(step) = self.look_for_redirect(request, intent) {
            return Some(step);
        }
        let enters = matches!(intent.handling, Handling::Pin(_)) || request.is_partial();
        if self.pin.as_ref().is_some_and(|pin| pin.lane.was_refused()) {
            // It never held any state.
            if !self.client.is_drained() {
                return Some(Step::Drain);
            }
            self.pin = None;
            if !enters {
                return None;
            }
        }
        match &self.pin {
            Some(pin) if !pin.raw && !pin.holds_state() && !enters => {
                // The state is gone; once the last reply is there, the connection is given back.
                if !self.client.is_drained() {
                    return Some(Step::Drain);
                }
                self.release_pin(true);
                return None;
            }
            Some(_) => {}
            None => {
                if !self.client.is_drained() {
                    return Some(Step::Drain);
                }
                if let Err(step) = self.take_pin(intent, view, now) {
                    return Some(step);
                }
            }
        }
        Some(self.send_pinned(request, intent, view, vocabulary, now))
    }

    /// Takes an exclusive connection, if there is a primary and a place.
    fn take_pin(&mut self, intent: Intent, view: &View, now: Moment) -> Result<(), Step> {
        let Some(primary) = view.usable_primary(now) else {
            let since = *self.waiting_since.get_or_insert(now);
            if view.primary.is_none() && !view.two_primaries && now.since(since) <= view.hold {
                return Err(Step::Retry);
            }
            self.in_line = InLine::No;
            let step = self.refuse(telemetry::Access::Other, Reason::PrimaryDown);
            return Err(end_if_needed(intent, step));
        };
        let place = match std::mem::take(&mut self.in_line) {
            InLine::Served(place) => place,
            InLine::No => match Arc::clone(&self.worker.shared.exclusive).try_acquire_owned() {
                Ok(place) => place,
                Err(_) => return Err(Step::InLine),
            },
            InLine::GaveUp => {
                self.worker.stats.command(telemetry::Access::Other, Target::Refused, Reason::Pinned);
                self.client.answer(say::MAX_EXCLUSIVE);
                return Err(Step::Close);
            }
        };
        self.waiting_since = None;
        let lane = self.worker.exclusive_lane(self.key(primary));
        self.client.status.pin(lane.server_id());
        self.pin = Some(Pin::new(lane, place));
        Ok(())
    }

    fn send_pinned(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Step {
        let written = match intent.access {
            Access::Write { .. } | Access::Unknown => self.stamps(request, intent, vocabulary),
            _ => Stamps::None,
        };
        let Some(pin) = &mut self.pin else { return Step::Close };
        if !pin.lane.is_usable() {
            return Step::Close;
        }
        if (pin.blocking || request.is_partial() || pin.lane.is_streaming()) && !self.client.is_drained() {
            // What follows a blocking command waits for it, on the server as well as here. A long one is alone.
            return Step::Drain;
        }
        if !pin.lane.has_room() {
            self.full = Some(Rc::clone(&pin.lane));
            return Step::Room;
        }
        let speaks_unasked = speaks_unasked(intent);
        if speaks_unasked && !pin.multi {
            if !self.client.is_drained() {
                return Step::Drain;
            }
            self.begin_relay();
            return self.push_relayed(request, intent, view, vocabulary, now);
        }
        if pin.poisoned && matches!(intent.handling, Handling::Pin(Pins::Exec)) {
            return self.abort_transaction();
        }
        let changed = match Self::own_cursor(request, intent, &pin.lane, view) {
            Ok(changed) => changed.or_else(|| self.redirected(request, intent)),
            Err(None) => return Step::Retry,
            Err(Some(error)) => {
                self.poison_transaction();
                self.client.answer(error);
                return Step::Done;
            }
        };
        let Some(pin) = &mut self.pin else { return Step::Close };
        let bytes = changed.as_deref().map_or(Bytes::Request(request), Bytes::Own);
        let was_multi = pin.multi;
        pin.raw_after |= speaks_unasked;
        pin.follow(intent, request);
        // In a transaction the cursor comes with the reply to `EXEC`, bare.
        let rewrite = match intent.handling {
            Handling::Scan { .. } if !was_multi => Rewrite::Cursor,
            Handling::Local(Local::Client) if tracking::tells_redirect(request) => Rewrite::Redirect,
            _ => Rewrite::None,
        };
        if intent.handling == Handling::Pin(Pins::Tracking) {
            pin.lane.listen(Rc::clone(&self.client));
        }
        if pin.raw_after && intent.handling == Handling::Pin(Pins::Exec) {
            // What the subscription brings may come right behind the reply.
            pin.lane.relay(Rc::clone(&self.client));
        }
        let stamps = match intent.handling {
            Handling::Pin(Pins::Exec) => std::mem::take(&mut pin.queued),
            _ if was_multi => {
                pin.queued.merge(written);
                Stamps::None
            }
            _ => written,
        };
        let access = if stamps == Stamps::None { telemetry::Access::Other } else { telemetry::Access::Write };
        let lane = Rc::clone(&pin.lane);
        self.push_pinned(&lane, bytes, access, stamps, rewrite, now);
        self.body = request.is_partial().then_some(lane);
        Step::Done
    }

    fn abort_transaction(&mut self) -> Step {
        if !self.client.is_drained() {
            return Step::Drain;
        }
        self.client.answer(say::EXECABORT);
        self.release_pin(false);
        Step::Done
    }

    /// A command was refused here. In a transaction that is an error in queueing, as on the server
    /// (`multi.c`, `flagTransaction`).
    pub fn poison_transaction(&mut self) {
        if let Some(pin) = self.pin.as_mut().filter(|pin| pin.multi) {
            pin.poisoned = true;
        }
    }

    /// Gives the exclusive connection back if its state is gone and all is answered. True: not yet, but once all is
    /// answered.
    pub fn release_when_over(&mut self) -> bool {
        let over = self.pin.as_ref().is_some_and(|pin| !pin.raw && !pin.holds_state());
        if over && self.client.is_drained() {
            self.release_pin(true);
            return false;
        }
        over
    }

    /// Gives the exclusive connection up: to be used again if it is `clean` and carries no state, else it is closed.
    pub fn release_pin(&mut self, clean: bool) {
        let Some(pin) = self.pin.take() else { return };
        self.client.status.unpin();
        let clean = clean && !pin.raw && !pin.holds_state();
        if clean || mutant::is("state-given-back") {
            pin.lane.unlisten();
            pin.lane.redirect.set(None);
            self.worker.give_back(&pin.lane);
        } else if pin.raw {
            self.leave_relay(&pin.lane);
        } else {
            pin.lane.unlisten();
            pin.lane.close(Closed::Idle);
        }
    }
}

impl Pin {
    fn new(lane: Rc<Lane>, place: Place) -> Self {
        Self {
            lane,
            _place: place,
            multi: false,
            watching: false,
            blocking: false,
            raw: false,
            tracking: false,
            stuck: false,
            raw_after: false,
            queued: Stamps::None,
            poisoned: false,
            ending: false,
        }
    }

    /// Whether the server, not Redweir, has the say about what comes next.
    pub fn relays_everything(&self) -> bool {
        self.multi || self.raw
    }

    /// The transaction that subscribed is over.
    pub fn is_to_be_raw(&self) -> bool {
        self.raw_after && !self.multi && !self.raw
    }

    fn holds_state(&self) -> bool {
        self.multi || self.watching || self.tracking || self.stuck || self.raw_after
    }

    /// Follows what the command does to the connection's state.
    fn follow(&mut self, intent: Intent, request: &Request<'_>) {
        self.blocking = false;
        match intent.handling {
            // With arguments they are errors, which change nothing.
            Handling::Pin(Pins::Multi | Pins::Exec | Pins::Discard | Pins::Unwatch)
                if request.count() != 1 => {}
            Handling::Pin(Pins::Multi) => self.multi = true,
            // Without MULTI they are errors, which leave what is watched watched (`multi.c`, `execCommand`).
            Handling::Pin(Pins::Exec | Pins::Discard) if self.multi || mutant::is("error-unwatches") => {
                (self.multi, self.watching) = (false, false);
            }
            Handling::Pin(Pins::Watch) => self.watching = true,
            Handling::Pin(Pins::Unwatch) if !self.multi => self.watching = false,
            Handling::Pin(Pins::Blocking) if !self.multi => self.blocking = true,
            // SELECT, AUTH, HELLO or CLIENT in the middle of a transaction change the connection itself.
            Handling::Local(Local::Client) | Handling::Pin(Pins::Tracking) if self.multi => self.stuck = true,
            Handling::Pin(Pins::Tracking) if tracking::switches_on(request) => self.tracking = true,
            Handling::Pin(Pins::Tracking) if tracking::switches_off(request) => self.tracking = false,
            Handling::Pin(Pins::Tracking) if tracking::changes_nothing(request) => {}
            Handling::Pin(Pins::Tracking) | Handling::Local(Local::Select | Local::Auth | Local::Hello) => {
                self.stuck = true;
            }
            _ => {}
        }
        if request.count() == 0 {
            self.stuck = true;
        }
    }
}

/// After it the server speaks unasked, or not at all.
fn speaks_unasked(intent: Intent) -> bool {
    matches!(
        intent.handling,
        Handling::Pin(Pins::Subscribe | Pins::Monitor | Pins::Silence | Pins::Unsubscribe | Pins::Sync)
    )
}

/// A client whose transaction could not begin must not have its commands executed one by one.
pub(crate) fn end_if_needed(intent: Intent, step: Step) -> Step {
    if matches!(intent.handling, Handling::Pin(Pins::Multi | Pins::Watch)) { Step::Close } else { step }
}
