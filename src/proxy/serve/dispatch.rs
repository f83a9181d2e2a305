//! Where each command of a client goes: answered here, to a replica, to the primary, or to a connection of its own.

use std::time::Duration;

use crate::config::PresentAs;
use crate::core::argv::Args as _;
use crate::core::command::alone::alone;
use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Handling, Intent, Keys, Local, Why, WriteKeys};
use crate::core::demand::Slots;
use crate::core::demand::stamps_of;
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::plan::{Admittance, Plan, to_primary};
use crate::core::reason::Reason;
use crate::core::route::Decision;
use crate::core::session::Stamps;
use crate::core::slots::Floor;
use crate::mutant;
use crate::net::runtime::clock;
use crate::proxy::local;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::relayed::Relayed;
use crate::proxy::session::oversized;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::proxy::upstream::outgoing::{Bytes, Outgoing};
use crate::proxy::upstream::pending::Rewrite;
use crate::telemetry::{self, Target};
use crate::wire::alone as wire;
use crate::wire::request::Request;
use crate::wire::say;

impl Connection {
    /// Decides where one command goes, which is what `intent` says by these `commands`, and sends it there.
    pub fn dispatch(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        if mutant::is("allocates-per-command") {
            drop(std::hint::black_box(Box::new(now)));
        }
        if let Some(step) = self.follow_fast_path(request, intent, view, now) {
            return step;
        }
        // Any other command may change whatever the connection is.
        self.routing.follow(None);
        if let Some(step) = self.return_from_relay(intent) {
            return step;
        }
        let mut plan = self.plan(request, intent, Admittance::Admitted, view, commands, now);
        if self.floor == Floor::PRIMARY && plan == Plan::Read {
            plan = Plan::Primary(Reason::SlotMoving);
        }
        if self.pin.is_some()
            && let Some(step) = self.dispatch_relayed(request, (intent, plan), view, commands, now)
        {
            return step;
        }
        if self.is_unauthenticated() && plan != Plan::Refuse(Reason::CrossProtocol) {
            plan = match self.admit(request, intent, view, now) {
                Ok(admittance) => match self.plan(request, intent, admittance, view, commands, now) {
                    Plan::Read if self.floor == Floor::PRIMARY => Plan::Primary(Reason::SlotMoving),
                    plan => plan,
                },
                Err(step) => return step,
            };
        }
        self.client.status.command.set(Some(intent.id));
        if let Plan::Refuse(reason) = plan {
            return self.decline(intent, reason, commands);
        }
        if intent.handling == Handling::Local(Local::Reset)
            && let Some(step) = self.wait_to_reset(request)
        {
            return step;
        }
        if (self.pin.is_some() || matches!(intent.handling, Handling::Pin(_)) || request.is_partial())
            && let Some(step) = self.dispatch_pinned(request, intent, view, commands, now)
        {
            return step;
        }
        if let Some(step) = self.keep_in_order(intent) {
            return step;
        }
        match (plan, intent.handling) {
            (Plan::Read, _) => self.read(request, intent, view, commands, now),
            (Plan::Primary(reason), _) => {
                self.take_to_primary(request, (intent, reason), view, commands, now)
            }
            (Plan::Continue { tag, own }, _) => {
                self.next_step_of_scan(request, (tag, own), intent, view, commands, now)
            }
            (Plan::Answer, Handling::Local(which)) => {
                local::answer(self, which, request, view, commands, now)
            }
            (Plan::Answer, _) => self.answer_alone(request, view, now),
            (Plan::Refuse(reason), _) => self.decline(intent, reason, commands),
        }
    }

    /// Sends a command to the primary, which alone may have it for this reason.
    fn take_to_primary(
        &mut self,
        request: &Request<'_>,
        (intent, reason): (Intent, Reason),
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Step {
        match (intent.handling, intent.access) {
            (Handling::Script, _) => self.script(request, (intent, reason), view, commands, now),
            (Handling::Operation, _) => {
                self.operate(request, Outgoing { reason, ..Outgoing::other(now) }, view)
            }
            (Handling::Local(Local::Info), _) => self.pass_on_info(request, reason, view, now),
            (Handling::Local(_), _) => self.pass_on(request, reason, view, now),
            (Handling::Scan { cursor }, _) if reason != Reason::PrimaryOnly => {
                self.scan_at_primary(request, (cursor, reason), view, now)
            }
            (_, Access::Read | Access::PrimaryRead(Why::KeyState)) => {
                let outgoing = self.read_of_primary(request, (intent, reason), commands, now);
                self.send_to_primary(Bytes::Request(request), outgoing, view)
            }
            (_, Access::PrimaryRead(Why::NotReadonly)) => {
                let flushes = commands.table.name(intent.id) == "script|flush";
                let outgoing = Outgoing { reason, ..other(flushes, now) };
                self.send_to_primary(Bytes::Request(request), outgoing, view)
            }
            (_, Access::Write { .. }) => {
                let stamps = self.stamps(request, intent, commands);
                let step = self.write(request, Outgoing::write(reason, stamps, now), view);
                if matches!(step, Step::Done) && reason == Reason::Write {
                    self.cache_route_of_writes(request, intent, view, commands, now);
                }
                step
            }
            (_, Access::Unknown) => {
                let stamps = self.all_keys();
                self.write(request, Outgoing::write(reason, stamps, now), view)
            }
        }
    }

    /// What becomes of a command if the client speaks on a plain relay.
    fn dispatch_relayed(
        &mut self,
        request: &Request<'_>,
        (intent, plan): (Intent, Plan),
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Option<Step> {
        Some(match self.relay(request, (intent, plan), view, commands, now)? {
            Relayed::Step(step) => step,
            Relayed::Own => local::answer(self, Local::Redweir, request, view, commands, now),
        })
    }

    /// What `RESET` has to wait for, or is wrong with it.
    fn wait_to_reset(&mut self, request: &Request<'_>) -> Option<Step> {
        if request.count() > 1 {
            self.poison_transaction();
            self.client.answer(&say::wrong_arity("reset"));
            return Some(Step::Done);
        }
        // What follows it goes on other lanes, and an exclusive one ends with what it owes.
        (!self.client.is_drained()).then_some(Step::Drain)
    }

    /// The fences that the command's acknowledgement stamps.
    pub fn stamps(&self, request: &Request<'_>, intent: Intent, commands: &Commands) -> Stamps {
        let fences = &self.worker.shared.shard().fences;
        let mut stamps = Stamps::None;
        if !self.worker.shared.fencing {
            return stamps;
        }
        if intent.access == (Access::Write { keys: WriteKeys::Unknowable }) {
            return Stamps::All;
        }
        if request.is_partial() {
            return oversized::stamps(request, intent, commands, fences);
        }
        // What it only reads as well: its reply, or what it writes (`COPY`, `SUNIONSTORE`), shows of those keys what no
        // replica may take back.
        let (table, mut add) = (&commands.table, |key: &[u8]| stamps.add(fences.slot(key)));
        let keys = if mutant::is("written-keys-only") {
            table.for_each_written_key(intent.id, request, &mut add)
        } else {
            table.for_each_key(intent.id, request, &mut add)
        };
        match keys {
            Keys::Known { .. } => stamps,
            Keys::Unknowable => Stamps::All,
        }
    }

    /// A read that only the primary may answer: it shows of its keys what replicas may not take back.
    fn read_of_primary(
        &self,
        request: &Request<'_>,
        (intent, reason): (Intent, Reason),
        commands: &Commands,
        now: Moment,
    ) -> Outgoing {
        let (shared, mut slots) = (&self.worker.shared, Slots::new());
        if shared.fencing {
            let mut add = |key: &[u8]| slots.push(shared.shard().fences.slot(key));
            if commands.table.for_each_key(intent.id, request, &mut add) == Keys::Unknowable {
                slots.clear();
            }
        }
        let (stamps, sees_all) = (stamps_of(&slots), shared.fencing && slots.is_empty());
        // Counted as a read is what a replica could have answered.
        let counted = if intent.access == Access::Read { reason } else { Reason::PrimaryOnly };
        Outgoing { reason, stamps, sees_all, ..Outgoing::read(counted, now) }
    }

    fn all_keys(&self) -> Stamps {
        if self.worker.shared.fencing { Stamps::All } else { Stamps::None }
    }

    /// Sends a write, unless it would overtake a read of the same key that is still on its way to a replica.
    fn write(&mut self, request: &Request<'_>, outgoing: Outgoing, view: &View) -> Step {
        if self
            .client
            .session(self.worker.shard)
            .borrow_mut()
            .overtakes(&outgoing.stamps, self.client.oldest())
        {
            return Step::Drain;
        }
        self.send_to_primary(Bytes::Request(request), outgoing, view)
    }

    /// Sends a command to the primary, or has it wait for one.
    pub fn send_to_primary(&mut self, request: Bytes<'_>, outgoing: Outgoing, view: &View) -> Step {
        match to_primary(view, outgoing.reason, outgoing.now, self.waiting.for_primary(outgoing.now)) {
            // What is held goes first.
            Decision::Send { .. } if !self.worker.held.is_empty() => {
                self.wait(On::View, view.hold, outgoing.now)
            }
            Decision::Send { node, .. } => self.send(node, request, outgoing, view),
            Decision::Refuse { reason } => self.refuse(outgoing.access, reason),
            Decision::Wait { .. } | Decision::Try { .. } => self.wait(On::View, view.hold, outgoing.now),
        }
    }

    /// Answers what needs no server, or has it wait for the primary, if that may deny it to the user.
    fn answer_alone(&mut self, request: &Request<'_>, view: &View, now: Moment) -> Step {
        let allowed =
            alone(request).is_some_and(|which| view.rights.allow_alone(self.who.user().as_bytes(), which));
        match wire::answer(request, clock::unix()) {
            Some(reply) if allowed => {
                self.client.answer(&reply);
                self.waiting.end();
                Step::Done
            }
            _ => self.send_to_primary(Bytes::Request(request), other(false, now), view),
        }
    }

    /// Answers that no more reads go to the primary at the moment.
    pub(crate) fn refuse_at_limit(&mut self) -> Step {
        self.waiting.end();
        let reason = Reason::PrimaryReadLimit;
        self.worker.stats.command(telemetry::AccessLabel::Read, Target::Refused, reason);
        self.client.answer(say::PRIMARY_READ_LIMIT);
        Step::Done
    }

    /// Answers `-MASTERDOWN`, and why.
    pub fn refuse(&mut self, access: telemetry::AccessLabel, reason: Reason) -> Step {
        if reason == Reason::PrimaryDown {
            self.waiting.give_up_on_primary();
        }
        self.waiting.end();
        self.worker.stats.command(access, Target::Refused, reason);
        let error = self.worker.masterdown(&self.client, reason);
        self.client.answer(&error);
        Step::Done
    }

    /// Sends one of the commands that Redweir usually answers itself to the primary after all.
    fn pass_on(&mut self, request: &Request<'_>, reason: Reason, view: &View, now: Moment) -> Step {
        let rewrite = self.note_of_pause(request);
        self.operate(request, Outgoing { reason, rewrite, ..Outgoing::read(Reason::PrimaryOnly, now) }, view)
    }

    /// What is to be noted when a `CLIENT PAUSE` or `UNPAUSE` is answered: the primary pauses its own clients only.
    fn note_of_pause(&self, request: &Request<'_>) -> Rewrite {
        let is = |at, word: &[u8]| request.arg(at).eq_ignore_ascii_case(word);
        if is(1, b"unpause") {
            return Rewrite::Unpause;
        }
        let all = request.count() == 3 || request.count() == 4 && is(3, b"all");
        let millis = std::str::from_utf8(request.arg(2)).ok().and_then(|text| text.parse().ok());
        match millis {
            Some(millis) if all && is(1, b"pause") => {
                self.client.status.pausing.set(Duration::from_millis(millis));
                Rewrite::Pause
            }
            _ => Rewrite::None,
        }
    }

    /// Sends `INFO` to the primary; with its default sections comes one of our own.
    fn pass_on_info(&mut self, request: &Request<'_>, reason: Reason, view: &View, now: Moment) -> Step {
        let ours: [&[u8]; 4] = [b"redweir", b"default", b"all", b"everything"];
        let asked = |index| ours.iter().any(|name| request.arg(index).eq_ignore_ascii_case(name));
        let is_info = request.count() == 1 || (1..request.count()).any(asked);
        let shared = &self.worker.shared;
        let poses = shared.cluster().is_some() && shared.presented_as() == PresentAs::Standalone;
        let rewrite = match () {
            () if is_info => Rewrite::Info,
            () if poses => Rewrite::Standalone,
            () => Rewrite::None,
        };
        self.operate(request, Outgoing { reason, rewrite, ..Outgoing::read(Reason::PrimaryOnly, now) }, view)
    }
}

/// A command that neither reads nor writes data; it may be a `SCRIPT FLUSH`.
fn other(flushes_scripts: bool, now: Moment) -> Outgoing {
    let rewrite = if flushes_scripts { Rewrite::ScriptFlush } else { Rewrite::None };
    Outgoing { rewrite, ..Outgoing::other(now) }
}
