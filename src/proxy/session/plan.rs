//! What a connection tells of itself when one of its commands is planned ([`crate::core::plan`]) or explained.

use std::sync::atomic::Ordering;

use crate::core::argv::Args;
use crate::core::command::in_force::Commands;
use crate::core::command::{CommandId, Intent};
use crate::core::demand::Reader;
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::plan::{Admittance, Hold, Plan, Situation, plan};
use crate::core::policy::Consistency;
use crate::core::reason::Reason;
use crate::core::route::Ask;
use crate::mutant;
use crate::net::runtime::sparing::Sparing;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::pin::Pin;
use crate::proxy::session::exclusive::pinned::end_if_needed;
use crate::proxy::session::step::Step;
use crate::shard::explain::{self, Asker};
use crate::shard::place::{self, Place};
use crate::shard::shared::Shared;
use crate::telemetry::{AccessLabel, Target};
use crate::wire::request::{Request, is_cross_protocol};
use crate::wire::say;

impl Connection {
    /// Plans one command.
    pub(crate) fn plan(
        &self,
        request: &Request<'_>,
        intent: Intent,
        admittance: Admittance,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> Plan {
        let situation = Situation {
            admittance,
            oversized: request.is_partial(),
            cross_protocol: intent.id == CommandId::OTHER && is_cross_protocol(request.name()),
            ..self.situation(now)
        };
        plan(request, intent, commands, situation, (view, now), || {
            self.level(request, intent, (view, commands))
        })
    }

    /// Explains one command, which is not executed.
    pub(crate) fn explain<A: Args + ?Sized>(
        &self,
        args: &A,
        view: &View,
        commands: &Commands,
        now: Moment,
    ) -> String {
        let admittance = if self.is_unauthenticated() { Admittance::Guest } else { Admittance::Admitted };
        let situation = Situation { admittance, ..self.situation(now) };
        let shared = &self.worker.shared;
        let asked = place::of(shared, args, commands);
        let place = asked.as_ref().map(|asked| asked.place);
        let reader = self.reader(view);
        if let Some(asked) = asked {
            let (words, of) = (asked.args.as_slice(), &asked.shared);
            if of.index() != shared.index() {
                return self.explain_elsewhere(words, (of, place), situation, commands, now);
            }
            let asker = Asker { reader, situation, place };
            let explained = explain::explain(shared, &asker, words, (view, commands), now, |ask, then| {
                self.with_ask(ask.policy, ask.policy_id, ask.demand, view, now, |ask| then(ask));
            });
            return explained.text();
        }
        let asker = Asker { reader, situation, place };
        let explained = explain::explain(shared, &asker, args, (view, commands), now, |ask, then| {
            self.with_ask(ask.policy, ask.policy_id, ask.demand, view, now, |ask| then(ask));
        });
        explained.text()
    }

    /// By another shard than the present one.
    fn explain_elsewhere(
        &self,
        args: &[Vec<u8>],
        (shared, place): (&Shared, Option<Place>),
        situation: Situation,
        commands: &Commands,
        now: Moment,
    ) -> String {
        let view = shared.shard().view.load();
        let session = self.client.session(shared.index());
        let policy = self.who.policy(&view.policies);
        let reader = Reader { policy, session: Some(session), ..self.reader(&view) };
        let situation = Situation {
            scripts_flushed: shared.shard().scripts_flushed.load(Ordering::Relaxed),
            reads_paused: shared.shard().reads_are_paused(now),
            ..situation
        };
        let bars = explain::bars(&view, reader.user);
        let asker = Asker { reader, situation, place };
        let explained = explain::explain(shared, &asker, args, (&view, commands), now, |ask, then| {
            then(&Ask { barred: &bars, ..*ask });
        });
        explained.text()
    }

    fn situation(&self, now: Moment) -> Situation {
        let shared = &self.worker.shared;
        Situation {
            hold: self.pin.as_ref().map_or(Hold::Nothing, Pin::hold),
            other_user: self.pin.as_ref().is_some_and(Pin::is_of_other_user),
            scripts_flushed: shared.shard().scripts_flushed.load(Ordering::Relaxed)
                && !mutant::is("flushed-scripts-live"),
            reads_paused: shared.shard().reads_are_paused(now),
            ..Situation::default()
        }
    }

    /// The level of a command's policy.
    pub(crate) fn level<A: Args + ?Sized>(
        &self,
        args: &A,
        intent: Intent,
        (view, commands): (&View, &Commands),
    ) -> Consistency {
        let id = self.reader(view).policy_of(&view.policies, args, intent, commands);
        view.policies.get(id).map_or(Consistency::Strong, |policy| policy.consistency)
    }

    /// Whether the present read waits for a primary, if nobody else may answer it.
    pub(crate) fn awaits_primary(&self, view: &View, now: Moment) -> bool {
        view.awaits_primary(now) && self.waiting.for_primary(now) <= view.hold
    }

    /// Says that a command is not executed, and why.
    pub(crate) fn decline(&mut self, intent: Intent, reason: Reason, commands: &Commands) -> Step {
        let stats = &self.worker.stats;
        let reply = match reason {
            Reason::CrossProtocol => {
                stats.command(AccessLabel::Other, Target::Refused, reason);
                return self.reject_cross_protocol();
            }
            Reason::DeniedCommand => {
                stats.denied.add(1);
                say::denied(commands.table.name(intent.id))
            }
            Reason::Unauthenticated => say::NOAUTH.to_vec(),
            _ => return end_if_needed(intent, self.refuse(AccessLabel::Other, reason)),
        };
        stats.command(AccessLabel::Other, Target::Refused, reason);
        if reason == Reason::DeniedCommand {
            self.poison_transaction();
        }
        self.say(&reply);
        Step::Done
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
}
