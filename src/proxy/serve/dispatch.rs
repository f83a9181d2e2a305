//! Where each command of a client goes: answered here, to a replica, to the primary, or to a connection of its own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::core::argv::Args as _;
use crate::core::command::vocabulary::Vocabulary;
use crate::core::command::{Access, CommandId, Handling, Intent, Keys, Local, Why, WriteKeys};
use crate::core::demand::Slots;
use crate::core::demand::stamps_of;
use crate::core::moment::Moment;
use crate::core::reason::Reason;
use crate::core::session::Stamps;
use crate::core::view::View;
use crate::mutant;
use crate::net::runtime::sparing::Sparing;
use crate::proxy::local;
use crate::proxy::session::connection::{Connection, Step};
use crate::proxy::upstream::outgoing::{Bytes, Outgoing};
use crate::proxy::upstream::pending::Rewrite;
use crate::telemetry::{self, Target};
use crate::wire::request::{Request, is_cross_protocol};
use crate::wire::say;

impl Connection {
    /// Decides where one command goes and sends it there.
    pub fn dispatch(
        &mut self,
        request: &Request<'_>,
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Step {
        if mutant::is("allocates-per-command") {
            drop(std::hint::black_box(Box::new(now)));
        }
        let intent = self.last.classify(request, vocabulary);
        if let Some(step) = self.follow_beaten_path(request, intent, view, now) {
            return step;
        }
        // Any other command may change whatever the connection is.
        self.alike = None;
        if intent.id == CommandId::OTHER && is_cross_protocol(request.name()) {
            return self.reject_cross_protocol();
        }
        if self.pin.is_some()
            && let Some(step) = self.relay(request, intent, view, vocabulary, now)
        {
            return step;
        }
        if self.is_stranger()
            && let Some(step) = self.admit(intent, view, now)
        {
            return step;
        }
        self.client.status.command.set(Some(intent.id));
        if vocabulary.is_denied(intent.id) {
            self.worker.stats.denied.add(1);
            self.poison_transaction();
            self.client.answer(&say::denied(vocabulary.table.name(intent.id)));
            return Step::Done;
        }
        if intent.handling == Handling::Local(Local::Reset)
            && let Some(step) = self.wait_to_reset(request)
        {
            return step;
        }
        if (self.pin.is_some() || matches!(intent.handling, Handling::Pin(_)) || request.is_partial())
            && let Some(step) = self.dispatch_pinned(request, intent, view, vocabulary, now)
        {
            return step;
        }
        if let Some(step) = self.keep_in_order(intent) {
            return step;
        }
        match (intent.handling, intent.access) {
            (Handling::Script, _) => self.script(request, intent, view, vocabulary, now),
            (Handling::Operation, _) => self.operate(request, Outgoing::other(now), view),
            (Handling::Local(which), _) => local::answer(self, which, request, view, vocabulary, now),
            (Handling::Scan { cursor }, _) => self.scan(request, cursor, intent, view, vocabulary, now),
            (_, Access::Read) if self.is_of_flushed_script(request, intent) => {
                self.read_at_primary(request, intent, view, vocabulary, now)
            }
            (_, Access::Read) => self.read(request, intent, view, vocabulary, now),
            (_, Access::PrimaryRead(Why::KeyState)) => {
                self.read_at_primary(request, intent, view, vocabulary, now)
            }
            (_, Access::PrimaryRead(Why::NotReadonly)) => {
                let flushes = vocabulary.table.name(intent.id) == "script|flush";
                self.send_to_primary(Bytes::Request(request), other(flushes, now), view)
            }
            (_, Access::Write { .. }) => {
                let stamps = self.stamps(request, intent, vocabulary);
                let step = self.write(request, Outgoing::write(Reason::Write, stamps, now), view);
                if matches!(step, Step::Done) {
                    self.beat_path_of_writes(request, intent, view, vocabulary, now);
                }
                step
            }
            (_, Access::Unknown) => {
                let stamps = self.all_keys();
                self.write(request, Outgoing::write(Reason::UnknownCommand, stamps, now), view)
            }
        }
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

    /// A browser that was tricked into talking to Redis (`server.c`, `securityWarningCommand`): close without a word.
    fn reject_cross_protocol(&self) -> Step {
        static SPARING: Sparing = Sparing::new();
        if let Some(left_out) = SPARING.may_tell() {
            let client = self.client.id;
            tracing::warn!(client, left_out, "possible cross-protocol attack (POST or Host:): closed");
        }
        Step::Close
    }

    /// The fences that the command's acknowledgement stamps.
    pub fn stamps(&self, request: &Request<'_>, intent: Intent, vocabulary: &Vocabulary) -> Stamps {
        let fences = &self.worker.shared.fences;
        let mut stamps = Stamps::None;
        if !self.worker.shared.fencing {
            return stamps;
        }
        if intent.access == (Access::Write { keys: WriteKeys::Unknowable }) {
            return Stamps::All;
        }
        if request.is_partial() {
            return self.stamps_of_long(request, intent, vocabulary);
        }
        // What it only reads as well: its reply, or what it writes (`COPY`, `SUNIONSTORE`), shows of those keys what no
        // replica may take back.
        let (table, mut add) = (&vocabulary.table, |key: &[u8]| stamps.add(fences.slot(key)));
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

    /// Sends a read to the primary whatever replicas are like.
    pub(crate) fn read_at_primary(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Step {
        let outgoing = self.read_of_primary(request, intent, vocabulary, now);
        self.send_to_primary(Bytes::Request(request), outgoing, view)
    }

    /// A read that only the primary may answer: it shows of its keys what replicas may not take back.
    fn read_of_primary(
        &self,
        request: &Request<'_>,
        intent: Intent,
        vocabulary: &Vocabulary,
        now: Moment,
    ) -> Outgoing {
        let (shared, mut slots) = (&self.worker.shared, Slots::new());
        if shared.fencing {
            let mut add = |key: &[u8]| slots.push(shared.fences.slot(key));
            if vocabulary.table.for_each_key(intent.id, request, &mut add) == Keys::Unknowable {
                slots.clear();
            }
        }
        let (stamps, sees_all) = (stamps_of(&slots), shared.fencing && slots.is_empty());
        Outgoing { stamps, sees_all, ..Outgoing::read(Reason::PrimaryOnly, now) }
    }

    /// Whether it runs a script by its digest, which a replica may still know although the primary has forgotten it.
    fn is_of_flushed_script(&self, request: &Request<'_>, intent: Intent) -> bool {
        intent.handling == Handling::ReadOnlyScript
            && request.arg(0).eq_ignore_ascii_case(b"evalsha_ro")
            && self.worker.shared.scripts_flushed.load(Ordering::Relaxed)
            && !mutant::is("flushed-scripts-live")
    }

    fn all_keys(&self) -> Stamps {
        if self.worker.shared.fencing { Stamps::All } else { Stamps::None }
    }

    /// Sends a write, unless it would overtake a read of the same key that is still on its way to a replica.
    fn write(&mut self, request: &Request<'_>, outgoing: Outgoing, view: &View) -> Step {
        if self.client.session.borrow_mut().overtakes(&outgoing.stamps, self.client.oldest()) {
            return Step::Drain;
        }
        self.send_to_primary(Bytes::Request(request), outgoing, view)
    }

    /// Sends a command to the primary, or has it wait for one.
    pub fn send_to_primary(&mut self, request: Bytes<'_>, outgoing: Outgoing, view: &View) -> Step {
        match view.usable_primary(outgoing.now) {
            // What is held goes first.
            Some(_) if !self.worker.held.is_empty() => Step::Retry,
            Some(node) => self.send(node, request, outgoing, view),
            None if view.two_primaries => self.refuse(outgoing.access, Reason::TwoPrimaries),
            None if view.primary.is_some() => self.refuse(outgoing.access, Reason::PrimaryDown),
            None => {
                // Between two primaries: the command waits for the new one.
                let since = *self.waiting_since.get_or_insert(outgoing.now);
                if outgoing.now.since(since) > view.hold {
                    return self.refuse(outgoing.access, Reason::PrimaryDown);
                }
                Step::Retry
            }
        }
    }

    /// Answers `-MASTERDOWN`.
    pub fn refuse(&mut self, access: telemetry::Access, reason: Reason) -> Step {
        self.waiting_since = None;
        self.worker.stats.command(access, Target::Refused, reason);
        self.client.answer(say::MASTERDOWN);
        Step::Done
    }

    /// Sends one of the commands that Redweir usually answers itself to the primary after all.
    pub fn pass_on(&mut self, request: &Request<'_>, view: &View, now: Moment) -> Step {
        let rewrite = self.note_of_pause(request);
        self.operate(request, Outgoing { rewrite, ..Outgoing::read(Reason::PrimaryOnly, now) }, view)
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
    pub fn pass_on_info(&mut self, request: &Request<'_>, view: &View, now: Moment) -> Step {
        let ours: [&[u8]; 4] = [b"redweir", b"default", b"all", b"everything"];
        let asked = |index| ours.iter().any(|name| request.arg(index).eq_ignore_ascii_case(name));
        let is_info = request.count() == 1 || (1..request.count()).any(asked);
        let rewrite = if is_info { Rewrite::Info } else { Rewrite::None };
        self.operate(request, Outgoing { rewrite, ..Outgoing::read(Reason::PrimaryOnly, now) }, view)
    }
}

/// A command that neither reads nor writes data; it may be a `SCRIPT FLUSH`.
fn other(flushes_scripts: bool, now: Moment) -> Outgoing {
    let rewrite = if flushes_scripts { Rewrite::ScriptFlush } else { Rewrite::None };
    Outgoing { rewrite, ..Outgoing::other(now) }
}
