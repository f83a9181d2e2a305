//! What a client says on a plain relay (see [`crate::proxy::session::exclusive::pinned`]): all of it goes to the primary, in the order in which it
//! comes, and what Redweir has to say to it, or to do about it, has its place in that order (see
//! [`crate::proxy::upstream::lane::Lane::answer`]).

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Handling, Intent, Local, Stateful};
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::plan::Plan;
use crate::core::reason::Reason;
use crate::core::session::Stamps;
use crate::mutant;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::proxy::downstream::channels::Channels;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::pin::Pin;
use crate::proxy::session::exclusive::reply_mode;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::proxy::upstream::lane::{Closed, Lane, Phase, Said};
use crate::proxy::upstream::outgoing::Bytes;
use crate::telemetry::{self, Target};
use crate::wire::request::Request;
use crate::wire::say;

/// What becomes of a command of a client that speaks on a plain relay.
pub(crate) enum Relayed {
    /// It was taken, or has to wait.
    Step(Step),
    /// Redweir answers it, in its turn.
    Own,
}

impl Connection {
    /// Takes one command to the primary on the plain relay, or answers it in its turn. `None`: the client speaks on none.
    pub(crate) fn relay(
        &mut self,
        request: &Request<'_>,
        (intent, plan): (Intent, Plan),
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Option<Relayed> {
        if self.pin.as_ref()?.is_to_be_raw() {
            if !self.client.is_drained() {
                return Some(Relayed::Step(Step::Drain));
            }
            self.begin_relay();
        }
        let pin = self.pin.as_ref().filter(|pin| pin.raw)?;
        if pin.lane.was_refused() {
            // It never held any state.
            self.pin = None;
            self.client.status.unpin();
            return None;
        }
        self.client.status.command.set(Some(intent.id));
        if pin.ending {
            return Some(Relayed::Step(self.end_reset()));
        }
        let lane = Rc::clone(&pin.lane);
        if !lane.is_usable() || lane.is_choked() {
            return Some(Relayed::Step(Step::Close));
        }
        if !lane.has_room() {
            return Some(Relayed::Step(self.lanes.is_full(lane)));
        }
        Some(match (plan, intent.handling) {
            (Plan::Refuse(reason), _) => Relayed::Step(self.decline(intent, reason, commands)),
            (Plan::Answer, Handling::Local(Local::Reset)) => Relayed::Step(self.begin_reset(request)),
            (Plan::Answer, _) => Relayed::Own,
            _ => Relayed::Step(self.push_relayed(request, intent, view, commands, now)),
        })
    }

    /// A client that was subscribed, and is no more, is one like any other: what it says next needs no relay. The server has
    /// the last word: it may have been asked to subscribe again meanwhile. `None`: the command goes on its way, there or
    /// here.
    pub(crate) fn return_from_relay(&mut self, intent: Intent) -> Option<Step> {
        let pin = self.pin.as_mut()?;
        if pin.returning {
            if !self.client.is_drained() {
                return Some(Step::Drain);
            }
            pin.returning = false;
            if matches!(pin.lane.phase(), Phase::Closed(Closed::Idle)) {
                self.release_pin(false);
            }
            return None;
        }
        let needs_relay = matches!(
            intent.handling,
            Handling::Pin(Stateful::Subscribe | Stateful::Unsubscribe)
                | Handling::Local(Local::Reset | Local::Quit)
        );
        let hears_others = self.client.status.channels.borrow().hears_others();
        if needs_relay || hears_others || !pin.may_return() || !pin.lane.is_usable() || !pin.lane.has_room() {
            return None;
        }
        pin.returning = true;
        pin.lane.end_relay_if_unsubscribed(self.client.open());
        Some(Step::Drain)
    }

    /// From now on replies on the exclusive connection are not counted. Everything before is answered.
    pub(crate) fn begin_relay(&mut self) {
        if let Some(pin) = &mut self.pin {
            pin.become_relay();
            pin.lane.relay(Rc::clone(&self.client), self.worker.shard);
        }
    }

    /// The next command waits until all that was said on the plain relay, if there is one, is answered.
    pub(crate) fn await_relay(&self) {
        let relay = |pin: &&Pin| pin.raw && pin.lane.takes_marks() && pin.lane.is_usable();
        if let Some(pin) = self.pin.as_ref().filter(relay) {
            pin.lane.await_relay(self.client.open());
        }
    }

    /// The node has refused the connection of the plain relay: it never held any state.
    pub(crate) fn give_up_refused(&mut self) {
        if self.pin.as_ref().is_some_and(|pin| pin.lane.was_refused()) {
            self.pin = None;
        }
    }

    /// Sends a command on the plain relay.
    pub(crate) fn push_relayed(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        if let Some(named) = self.redirect.wanted(request, intent) {
            return Step::Find(named);
        }
        let written = match intent.access {
            Access::Write { .. } | Access::Unknown => self.stamps(request, intent, commands),
            _ => Stamps::None,
        };
        let Some(pin) = self.pin.as_mut() else { return Step::Close };
        pin.follow_relayed(intent);
        let lane = Rc::clone(&pin.lane);
        let changed = match Self::own_cursor(request, intent, &lane, view) {
            Ok(changed) => changed.or_else(|| self.redirect.translate(request, intent, &lane)),
            Err(None) => return self.wait(On::Nodes, view.hold, now),
            Err(Some(error)) => {
                self.say(error);
                return Step::Done;
            }
        };
        self.worker.stats.command(telemetry::AccessLabel::Other, Target::Primary, Reason::Pinned);
        let bytes = changed.as_deref().map_or(Bytes::Request(request), Bytes::Own);
        lane.push_raw(bytes, written, said(request, intent));
        lane.forget_soon(now);
        self.lanes.pass_rest_to(request.is_partial().then_some(lane));
        Step::Done
    }

    /// Answers the command that is just being read, after all those before it, whatever connection it has.
    pub(crate) fn say(&self, reply: &[u8]) {
        match &self.pin {
            Some(pin) if pin.raw && pin.lane.takes_marks() => pin.lane.answer(reply),
            _ => self.client.answer(reply),
        }
    }

    /// The same, and nothing will come after it.
    pub(crate) fn say_last(&self, reply: &[u8]) {
        match &self.pin {
            Some(pin) if pin.raw && pin.lane.takes_marks() => pin.lane.end_relay(self.client.open(), reply),
            _ => self.client.answer(reply),
        }
    }

    /// `RESET` is the server's as well: what was said before it is executed and answered, and so is it. Then the
    /// relay ends, and what comes next waits for that.
    fn begin_reset(&mut self, request: &Request<'_>) -> Step {
        let Some(pin) = self.pin.as_mut() else { return Step::Close };
        if !pin.lane.takes_marks() || mutant::is("relay-cut-off") {
            self.release_pin(false);
            self.reset();
            self.client.answer(say::RESET);
            return Step::Done;
        }
        pin.ending = true;
        pin.lane.push_raw(Bytes::Request(request), Stamps::None, Said::Command);
        pin.lane.end_relay(self.client.open(), b"");
        Step::Drain
    }

    fn end_reset(&mut self) -> Step {
        if !self.client.is_drained() {
            return Step::Drain;
        }
        self.release_pin(false);
        self.reset();
        Step::Done
    }

    /// The relay is over, for its client is gone or has reset it. The session has seen whatever it has shown.
    pub(crate) fn leave_relay(&self, lane: &Rc<Lane>) {
        let next = self.worker.shared.shard().anchors.next();
        if !mutant::is("relay-forgotten") {
            self.client.session(self.worker.shard).borrow_mut().seen.everything(next);
        }
        self.client.with(self.worker.shard).wrote.set(Some((next, self.worker.era.get())));
        let mut channels = self.client.status.channels.borrow_mut();
        if channels.main == Some(self.worker.shard) {
            *channels = Channels::default();
        }
        drop(channels);
        lane.unlisten();
        if mutant::is("relay-cut-off") {
            lane.close(Closed::Idle);
        }
        if !matches!(lane.phase(), Phase::Closed(_)) {
            lane.finish();
            task::spawn_local("relay", see_off(Rc::clone(lane)));
        }
    }
}

/// Closes a lane whose client is gone when the node takes nothing more of what it has yet to get.
async fn see_off(lane: Rc<Lane>) {
    loop {
        let before = lane.unsent();
        let ended = poll_fn(|cx| match lane.phase() {
            Phase::Closed(_) => Poll::Ready(()),
            Phase::Opening | Phase::Up => {
                lane.wake_on_change(cx.waker());
                Poll::Pending
            }
        });
        if tokio::time::timeout(limits::RELAY_LINGER, ended).await.is_ok() {
            return;
        }
        let left = lane.unsent();
        if left == 0 || left >= before {
            return lane.close(Closed::Idle);
        }
    }
}

/// What a command does to the replies.
fn said(request: &Request<'_>, intent: Intent) -> Said {
    match intent.handling {
        Handling::Pin(Stateful::Multi) => Said::Multi,
        Handling::Pin(Stateful::Exec | Stateful::Discard) => Said::MultiEnds,
        Handling::Pin(Stateful::Silence) => reply_mode::reply_mode(request),
        Handling::Pin(Stateful::Sync) => Said::Opaque,
        _ => Said::Command,
    }
}
