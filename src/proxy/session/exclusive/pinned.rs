//! Commands that leave state on a connection get an exclusive one to the primary: transactions, blocking commands,
//! subscriptions, MONITOR, tracking.
//!
//! A transaction or a blocking command gives its connection back clean as soon as its state is gone, so that the next
//! client may use it. A subscription (and whatever else makes the server speak unasked, or stay silent) turns the
//! connection into a plain relay ([`crate::proxy::session::exclusive::relayed`]), until the client leaves, says `RESET`, or is
//! subscribed to nothing any more; then it is closed, when what was said on it is executed. The order of a pipeline is kept by entering and leaving only with nothing
//! outstanding.
//!
//! There are at most `max-exclusive-connections` at a time. Who comes too late waits in line, first come, first served;
//! who has waited for `exclusive-wait` is told so and disconnected, because what follows a `MULTI` that failed must not be
//! executed by itself.

use std::rc::Rc;
use std::sync::Arc;

use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Handling, Intent, Local, Stateful};
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::plan::{is_about_redweir, silences, to_primary};
use crate::core::reason::Reason;
use crate::core::repeat::PendingKind;
use crate::core::route::Decision;
use crate::core::session::Stamps;
use crate::mutant;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::pin::{Permit, Pin};
use crate::proxy::session::exclusive::reply_mode;
use crate::proxy::session::exclusive::tracking;
use crate::proxy::session::oversized;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::proxy::upstream::lane::{Closed, Lane};
use crate::proxy::upstream::outgoing::Bytes;
use crate::proxy::upstream::pending::{Pending, Rewrite};
use crate::proxy::worker::redirect::ASKING;
use crate::telemetry::{self, Target};
use crate::wire::request::Request;
use crate::wire::say;

impl Connection {
    /// Sends a command on the exclusive connection, taking one first if it needs one. `None` when the command needs
    /// none and the connection holds none any longer.
    pub fn dispatch_pinned(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Option<Step> {
        if request.is_partial()
            && let Some(step) = oversized::refuse(&self.client, self.pin.as_ref(), intent)
        {
            return Some(step);
        }
        match intent.handling {
            Handling::Local(Local::Quit) => {
                self.client.answer(say::OK);
                return Some(Step::Close);
            }
            Handling::Local(Local::Reset) => {
                self.release_pin(false);
                return None;
            }
            Handling::Local(Local::Redweir) if !self.is_of_other_user() => return None,
            Handling::Pin(Stateful::Silence) if !self.leaves_the_say() => {
                if let Some(reply) = reply_mode::speaks_on(request) {
                    return Some(self.say_by_leave(&reply, request, view));
                }
            }
            Handling::Pin(Stateful::Silence)
                if self.pin.as_ref().is_some_and(|pin| pin.multi && !pin.raw) && silences(request) =>
            {
                self.poison_transaction();
                self.client.answer(say::NOT_IN_MULTI);
                return Some(Step::Done);
            }
            // It says who the client is, whatever connection it has.
            Handling::Local(Local::Client)
                if is_about_redweir(request) && self.pin.is_some() && !self.leaves_the_say() =>
            {
                return None;
            }
            _ => {}
        }
        if let Some(named) = self.redirect.wanted(request, intent) {
            return Some(Step::Find(named));
        }
        let enters = matches!(intent.handling, Handling::Pin(_)) || request.is_partial();
        if self.pin.as_ref().is_some_and(|pin| pin.lane.was_refused()) {
            // It never held any state.
            if !self.client.is_drained() {
                return Some(Step::Drain);
            }
            self.pin = None;
            self.client.status.unpin();
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
        Some(self.send_pinned(request, intent, view, commands, now))
    }

    fn is_of_other_user(&self) -> bool {
        self.pin.as_ref().is_some_and(Pin::is_of_other_user)
    }

    /// Whether the server has the say about what Redweir would else answer.
    fn leaves_the_say(&self) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.relays_everything() || pin.is_of_other_user())
    }

    /// Takes an exclusive connection, if there is a primary and a place.
    fn take_pin(&mut self, intent: Intent, view: &View, now: Moment) -> Result<(), Step> {
        let primary = match to_primary(view, Reason::Pinned, now, self.waiting.for_primary(now)) {
            Decision::Send { node, .. } => node,
            Decision::Refuse { reason } => {
                self.permit = Permit::No;
                let step = self.refuse(telemetry::AccessLabel::Other, reason);
                return Err(end_if_needed(intent, step));
            }
            Decision::Wait { .. } | Decision::Try { .. } => {
                return Err(self.wait(On::View, view.hold, now));
            }
        };
        let place = match std::mem::take(&mut self.permit) {
            Permit::Served(place) => place,
            Permit::No => match Arc::clone(&self.worker.shared.exclusive).try_acquire_owned() {
                Ok(place) => place,
                Err(_) => return Err(Step::Permit),
            },
            Permit::GaveUp => {
                self.worker.stats.command(telemetry::AccessLabel::Other, Target::Refused, Reason::Pinned);
                self.client.answer(say::MAX_EXCLUSIVE);
                return Err(Step::Close);
            }
        };
        self.waiting.end();
        // Whoever monitors would see what a connection that is just being opened says.
        let lane = self.worker.exclusive_lane(self.who.key(primary), !speaks_unasked(intent));
        self.client.status.pin(lane.server_id(), self.worker.shard);
        self.pin = Some(Pin::new(lane, place));
        Ok(())
    }

    fn send_pinned(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        let written = match intent.access {
            Access::Write { .. } | Access::Unknown => self.stamps(request, intent, commands),
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
            return self.lanes.is_full(Rc::clone(&pin.lane));
        }
        let speaks_unasked = speaks_unasked(intent);
        if speaks_unasked && !pin.multi {
            if !self.client.is_drained() {
                return Step::Drain;
            }
            self.begin_relay();
            return self.push_relayed(request, intent, view, commands, now);
        }
        if pin.poisoned && matches!(intent.handling, Handling::Pin(Stateful::Exec)) {
            return self.abort_transaction();
        }
        let changed = match Self::own_cursor(request, intent, &pin.lane, view) {
            Ok(changed) => changed.or_else(|| self.redirect.translate(request, intent, &pin.lane)),
            Err(None) => return self.wait(On::Nodes, view.hold, now),
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
        let watches_first = intent.handling == Handling::Pin(Stateful::Watch) && !pin.holds_state();
        pin.follow(intent, request);
        self.client.status.may_repeat(pin.blocking, watches_first, request.is_partial());
        // In a transaction the cursor comes with the reply to `EXEC`, bare.
        let rewrite = match intent.handling {
            Handling::Scan { .. } if !was_multi => Rewrite::Cursor { all: false },
            Handling::Local(Local::Client) if tracking::tells_redirect(request) => Rewrite::Redirect,
            _ => Rewrite::None,
        };
        if intent.handling == Handling::Pin(Stateful::Tracking) {
            pin.lane.listen(Rc::clone(&self.client));
        }
        if pin.raw_after && intent.handling == Handling::Pin(Stateful::Exec) {
            // What the subscription brings may come right behind the reply.
            pin.lane.relay(Rc::clone(&self.client), self.worker.shard);
        }
        let stamps = match intent.handling {
            Handling::Pin(Stateful::Exec) => std::mem::take(&mut pin.queued),
            _ if was_multi => {
                pin.queued.merge(written);
                Stamps::None
            }
            _ => written,
        };
        let access = if stamps == Stamps::None {
            telemetry::AccessLabel::Other
        } else {
            telemetry::AccessLabel::Write
        };
        let lane = Rc::clone(&pin.lane);
        self.say_asking(&lane, now);
        self.push_pinned(&lane, bytes, access, stamps, rewrite, now);
        self.lanes.pass_rest_to(request.is_partial().then_some(lane));
        Step::Done
    }

    /// What comes next is to be executed although its slot is another primary's yet.
    fn say_asking(&mut self, lane: &Rc<Lane>, now: Moment) {
        if std::mem::take(&mut self.asking) {
            let own = Pending::own(PendingKind::Check, 0, self.worker.discard(), self.worker.shard, now);
            lane.push_bytes(ASKING, own);
        }
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
            self.worker.lanes.give_back(&pin.lane);
        } else if pin.raw {
            self.leave_relay(&pin.lane);
        } else {
            pin.lane.unlisten();
            pin.lane.close(Closed::Idle);
        }
    }
}

/// After it the server speaks unasked, or not at all.
fn speaks_unasked(intent: Intent) -> bool {
    matches!(
        intent.handling,
        Handling::Pin(
            Stateful::Subscribe
                | Stateful::Monitor
                | Stateful::Silence
                | Stateful::Unsubscribe
                | Stateful::Sync
        )
    )
}

/// A client whose transaction could not begin must not have its commands executed one by one.
pub(crate) fn end_if_needed(intent: Intent, step: Step) -> Step {
    if matches!(intent.handling, Handling::Pin(Stateful::Multi | Stateful::Watch)) {
        Step::Close
    } else {
        step
    }
}
