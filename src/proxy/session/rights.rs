//! What a client may have: whether it is let in without a password ([`crate::proxy::worker::admission`]), from which nodes
//! its user is barred ([`crate::proxy::worker::shut_out`]), and what Redweir tells it.
//!
//! What Redweir answers itself is told to nobody whom the primary forbids it: about the servers, other clients, the
//! connection. A user whom the primary does not plainly allow it ([`crate::core::nodes::rights`]) is asked about there first,
//! by a question of the same kind.

use std::time::Duration;

use crate::core::argv::Args;
use crate::core::command::Intent;
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::plan::{Admittance, is_for_anybody, is_for_guests, needs_admission};
use crate::mutant;
use crate::net::runtime::clock;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::proxy::worker::admission::Verdict;
use crate::proxy::worker::shut_out::Bars;
use crate::wire::reply::ErrorCode;
use crate::wire::request::Request;

impl Connection {
    /// Whether it may have what no server is needed for, though nobody can be asked: by what the primary has said last.
    pub(crate) fn is_let_in_blindly(&self) -> bool {
        let view = self.worker.shared.shard().view.load();
        !view.primary_answers() && view.rights.let_newcomers_in() == Some(true)
    }

    /// A client that has given no password has to be admitted before its first command. `Err`: not yet.
    pub(crate) fn admit(
        &mut self,
        request: &Request<'_>,
        intent: Intent,
        view: &View,
        now: Moment,
    ) -> Result<Admittance, Step> {
        if !needs_admission(intent) {
            return Ok(Admittance::Admitted);
        }
        match self.worker.admission.verdict(self.client.status.anonymous_since.get(), now) {
            Verdict::Admitted(epoch) => {
                self.client.status.auth_epoch.set(epoch);
                self.waiting.end_for_admission();
                Ok(Admittance::Admitted)
            }
            Verdict::Refused => Ok(Admittance::Refused),
            Verdict::Guest if is_for_guests(request, intent) => {
                self.waiting.end_for_admission();
                Ok(Admittance::Guest)
            }
            // What the primary has said last counts.
            Verdict::Nobody | Verdict::Asking
                if is_for_anybody(request, intent) && self.is_let_in_blindly() =>
            {
                self.waiting.end_for_admission();
                Ok(Admittance::Guest)
            }
            Verdict::Nobody | Verdict::Guest
                if !view.primary_answers() && self.waiting.for_primary(now) > view.hold =>
            {
                Ok(Admittance::Unknown)
            }
            Verdict::Nobody | Verdict::Guest if self.waiting.duration(now) > view.hold => {
                Ok(Admittance::Unknown)
            }
            Verdict::Asking | Verdict::Nobody | Verdict::Guest => {
                Err(self.wait(On::Admission, view.hold, now))
            }
        }
    }

    /// From which nodes its user is barred.
    pub(crate) fn bars(&self, view: &View, now: Moment) -> Bars {
        if self.is_free(view) {
            Bars::new()
        } else {
            self.worker.shut_out.bars(self.who.identity(), self.who.user(), view, now)
        }
    }

    /// Whether its user is barred from a node.
    #[allow(clippy::inline_always, reason = "measured: 1 % of the instructions of a small command")]
    #[inline(always)]
    pub(crate) fn is_barred(&mut self, node: NodeId, view: &View, now: Moment) -> bool {
        !self.is_free(view) && self.is_barred_by_rule(node, view, now)
    }

    #[cold]
    fn is_barred_by_rule(&mut self, node: NodeId, view: &View, now: Moment) -> bool {
        if view.rights.bars(self.who.user().as_bytes()).is_empty() {
            self.who.be_free_under(&view.rights);
        }
        let bars = self.worker.shut_out.bars(self.who.identity(), self.who.user(), view, now);
        bars.get(node.index()).copied().flatten().is_some()
    }

    /// Whether nothing bars it from anywhere, without looking at its rules once more.
    fn is_free(&self, view: &View) -> bool {
        self.who.is_free_under(&view.rights) && self.worker.shut_out.is_empty()
    }

    /// Whether the primary has to be asked whether its user may have this.
    pub(crate) fn needs_leave<A: Args + ?Sized>(&self, args: &A, view: &View) -> bool {
        question(args).is_some()
            && !view.rights.plainly_allow(self.who.user().as_bytes(), args.arg(0))
            && !mutant::is("told-to-anybody")
    }

    /// Says what the command is answered, unless the primary has to be asked first.
    pub(crate) fn say_by_leave<A: Args + ?Sized>(&self, reply: &[u8], args: &A, view: &View) -> Step {
        if self.needs_leave(args, view) {
            return Step::Later((0..args.count()).map(|at| args.arg(at).to_vec()).collect());
        }
        self.client.answer(reply);
        Step::Done
    }

    /// Asks it. An error is the answer to the command.
    pub(crate) async fn ask_leave<A: Args + ?Sized>(&self, args: &A) -> Result<(), Vec<u8>> {
        let Some(question) = question(args) else { return Ok(()) };
        if args.arg(0).eq_ignore_ascii_case(b"client") || args.arg(0).eq_ignore_ascii_case(b"select") {
            // A client begins with them: they wait for a new primary as what comes after them does.
            self.await_primary(clock::now()).await;
        }
        let identity = self.worker.shared.identities.hold(self.who.identity());
        let credentials = identity.as_ref().map(|identity| &identity.credentials);
        match self.worker.inquiry.inquire(credentials, question).await {
            // Whatever else is wrong says nothing of what it may.
            Err(error)
                if matches!(ErrorCode::of(&error), Some(ErrorCode::NoPerm | ErrorCode::MasterDown)) =>
            {
                Err(error)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Until there is a primary, as long as commands wait for one ([`crate::core::plan::to_primary`]): this one has since `begun`.
    pub(crate) async fn await_primary(&self, begun: Moment) -> Option<NodeId> {
        loop {
            let changed = self.worker.changed.notified();
            let view = self.worker.shared.shard().view.load_full();
            let patience = view.hold.saturating_sub(clock::now().since(begun));
            let primary = view.usable_primary(clock::now());
            if primary.is_some() || view.two_primaries || patience == Duration::ZERO {
                return primary;
            }
            let _ = tokio::time::timeout(patience, changed).await;
        }
    }
}

/// The question whose refusal by the primary is that of the command. `None`: whoever is in may use it.
fn question<A: Args + ?Sized>(args: &A) -> Option<&'static [&'static [u8]]> {
    let is = |at, word: &[u8]| args.arg(at).eq_ignore_ascii_case(word);
    let any = |words: &[&[u8]]| words.iter().any(|word| is(1, word));
    if is(0, b"redweir") && any(&[b"view", b"doctor", b"explain", b"token", b"after"])
        || is(0, b"info") && any(&[b"redweir"])
    {
        return Some(&[b"INFO", b"server"]);
    }
    match args.count() {
        // It names keys, as that does, whatever keys the user has.
        _ if is(0, b"redweir") && is(1, b"losses") => Some(&[b"SCAN", b"0", b"COUNT", b"1"]),
        _ if is(0, b"wait") => Some(&[b"WAIT", b"0", b"0"]),
        2 if is(0, b"select") => Some(&[b"SELECT", b"0"]),
        _ if is(0, b"client") => question_about_client(args),
        _ => None,
    }
}

/// The same for `CLIENT`. What is malformed is told to everybody, as by Redis; none of these leaves anything behind.
fn question_about_client<A: Args + ?Sized>(args: &A) -> Option<&'static [&'static [u8]]> {
    let is = |at, word: &[u8]| args.arg(at).eq_ignore_ascii_case(word);
    match args.count() {
        2 if is(1, b"id") => Some(&[b"CLIENT", b"ID"]),
        2 if is(1, b"info") => Some(&[b"CLIENT", b"INFO"]),
        2 if is(1, b"getname") => Some(&[b"CLIENT", b"GETNAME"]),
        3 if is(1, b"setname") => Some(&[b"CLIENT", b"SETNAME", b""]),
        3 if is(1, b"no-evict") => Some(&[b"CLIENT", b"NO-EVICT", b"OFF"]),
        3 if is(1, b"reply") => Some(&[b"CLIENT", b"REPLY", b"ON"]),
        // Known since Redis 7.2: others say that they do not know it, which is no refusal.
        4 if is(1, b"setinfo") => Some(&[b"CLIENT", b"SETINFO", b"LIB-VER", b""]),
        _ => None,
    }
}
