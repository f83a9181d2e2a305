//! The one ladder that every command climbs: answered by Redweir, refused, for the primary alone, or a read that any node
//! may serve which is fresh enough ([`super::route::decide`]). Traffic and every kind of EXPLAIN climb the same one.

use std::time::Duration;

use super::argv::Args;
use super::command::alone::alone;
use super::command::in_force::Commands;
use super::command::{Access, CommandId, Handling, Intent, Local, Stateful, Why};
use super::cursor::{Cursor, Tag};
use super::moment::Moment;
use super::nodes::node::NodeId;
use super::nodes::view::View;
use super::policy::Consistency;
use super::reason::Reason;
use super::route::Decision;
use crate::mutant;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Redweir answers it, with an error perhaps.
    Answer,
    /// It is not executed, for this reason.
    Refuse(Reason),
    /// It goes to the primary whatever replicas are like, for this reason.
    Primary(Reason),
    /// A read: any node may serve it that is fresh enough.
    Read,
    /// A scan goes on at the process that began it: [`next_step`].
    Continue {
        /// The process.
        tag: Tag,
        /// The cursor as that process knows it.
        own: u64,
    },
}

/// Whether the client may be served, as far as passwords are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admittance {
    /// It is logged in, or needs no password.
    #[default]
    Admitted,
    /// The primary cannot be asked; a replica lets it in, and may serve it.
    Guest,
    /// It needs a password, and has given none.
    Refused,
    /// Nobody can be asked.
    Unknown,
}

/// What a connection's exclusive connection to the primary holds for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Nothing, or there is none.
    #[default]
    Nothing,
    /// State of the server's: watched keys, tracking.
    State,
    /// A transaction that is being queued.
    Transaction,
    /// A plain relay: what the client says goes to the server.
    Relay,
}

/// What matters of the connection and of the proxy, besides the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// Whether the client may be served at all.
    pub admittance: Admittance,
    /// What its exclusive connection holds.
    pub hold: Hold,
    /// `AUTH` or `HELLO` was said there: the server knows who the client is, Redweir does not, and has nothing to tell it.
    pub other_user: bool,
    /// The command is too long to be held here: it is decided by its beginning.
    pub oversized: bool,
    /// A browser's word: the connection is closed.
    pub cross_protocol: bool,
    /// Scripts were flushed, which replicas were not told: they may know scripts that the primary has forgotten.
    pub scripts_flushed: bool,
    /// `CLIENT PAUSE` holds up all commands at the primary, which replicas were not told.
    pub reads_paused: bool,
}

/// Plans one command. `level` is asked for the level of its policy, if that makes a difference here.
pub fn plan<A: Args + ?Sized>(
    args: &A,
    intent: Intent,
    commands: &Commands,
    situation: Situation,
    (view, now): (&View, Moment),
    level: impl FnOnce() -> Consistency,
) -> Plan {
    if situation.cross_protocol && intent.id == CommandId::OTHER {
        return Plan::Refuse(Reason::CrossProtocol);
    }
    match situation.admittance {
        _ if !needs_admission(intent) => {}
        Admittance::Admitted => {}
        Admittance::Guest if is_for_guests(args, intent) => {}
        Admittance::Guest | Admittance::Unknown => return Plan::Refuse(Reason::PrimaryDown),
        Admittance::Refused => return Plan::Refuse(Reason::Unauthenticated),
    }
    if commands.is_denied(intent.id) {
        return Plan::Refuse(Reason::DeniedCommand);
    }
    if is_answered(args, intent, situation) {
        return Plan::Answer;
    }
    if is_pinned(args, intent, situation) {
        return Plan::Primary(Reason::Pinned);
    }
    if needs_no_server(args, intent) && !view.primary_answers() && !mutant::is("nobody-answers-alone") {
        return Plan::Answer;
    }
    let malformed = !commands.table.arity(intent.id).allows(args.count());
    if let Handling::Scan { cursor } = intent.handling {
        return match Cursor::parse(args.arg(usize::from(cursor))) {
            None => Plan::Primary(Reason::Malformed),
            Some(_) if malformed => Plan::Primary(Reason::Malformed),
            Some(Cursor::Of { tag, own }) => Plan::Continue { tag, own },
            Some(Cursor::Bare | Cursor::BeginsAt(_)) => Plan::Primary(Reason::Cursor),
            Some(Cursor::Start) if level() >= Consistency::Session => Plan::Primary(Reason::Cursor),
            Some(Cursor::Start) if situation.reads_paused => Plan::Primary(Reason::PrimaryOnly),
            Some(Cursor::Start) => Plan::Read,
        };
    }
    if malformed && (intent.access != Access::Read || view.usable_primary(now).is_some()) {
        // Without a primary a replica says as well what is wrong with a read.
        return Plan::Primary(Reason::Malformed);
    }
    match intent.access {
        _ if intent.handling == Handling::Script => Plan::Primary(Reason::Write),
        _ if matches!(intent.handling, Handling::Operation | Handling::Local(_)) => {
            Plan::Primary(Reason::PrimaryOnly)
        }
        Access::Read if situation.reads_paused || is_of_flushed_script(args, intent, situation) => {
            Plan::Primary(Reason::PrimaryOnly)
        }
        Access::Read => Plan::Read,
        Access::PrimaryRead(_) => Plan::Primary(Reason::PrimaryOnly),
        Access::Write { .. } => Plan::Primary(Reason::Write),
        Access::Unknown => Plan::Primary(Reason::UnknownCommand),
    }
}

/// Whether only who is admitted may say it (`server.c`, `authRequired`).
pub const fn needs_admission(intent: Intent) -> bool {
    !matches!(intent.handling, Handling::Local(Local::Hello | Local::Auth | Local::Quit | Local::Reset))
}

/// Whether it needs neither data nor a server: with a primary that answers it has it all the same.
pub fn needs_no_server<A: Args + ?Sized>(args: &A, intent: Intent) -> bool {
    intent.access == Access::PrimaryRead(Why::NotReadonly) && alone(args).is_some()
}

/// Whether it is about nothing that a server holds: whoever needs no password may have it although nobody can be asked.
pub fn is_for_anybody<A: Args + ?Sized>(args: &A, intent: Intent) -> bool {
    let own: [&[u8]; 4] = [b"id", b"getname", b"setname", b"setinfo"];
    match intent.handling {
        Handling::Local(Local::Client) => own.iter().any(|word| is(args, 1, word)),
        Handling::Local(which) => matches!(which, Local::Info | Local::Redweir),
        _ => needs_no_server(args, intent),
    }
}

/// What a replica may decide about: reads that it would answer itself, and what comes before them.
pub fn is_for_guests<A: Args + ?Sized>(args: &A, intent: Intent) -> bool {
    if is_for_anybody(args, intent) {
        return true;
    }
    match intent.handling {
        Handling::Shared | Handling::ReadOnlyScript => intent.access == Access::Read,
        Handling::Local(which) => which == Local::Select,
        Handling::Scan { .. } | Handling::Script | Handling::Operation | Handling::Pin(_) => false,
    }
}

/// Whether Redweir answers a command itself. In a transaction, and on a plain relay, the server has the say.
fn is_answered<A: Args + ?Sized>(args: &A, intent: Intent, situation: Situation) -> bool {
    let (hold, long) = (situation.hold, situation.oversized);
    match intent.handling {
        Handling::Local(Local::Redweir) => !situation.other_user && (!long || hold != Hold::Relay),
        Handling::Local(Local::Reset) => hold != Hold::Relay || args.count() == 1,
        Handling::Local(Local::Quit) => hold != Hold::Relay,
        Handling::Local(_) if hold >= Hold::Transaction || situation.other_user => false,
        // They take no arguments of that size.
        Handling::Local(_) if long => true,
        Handling::Local(Local::Client) if is(args, 1, b"unblock") => matches!(args.count(), 3 | 4),
        Handling::Local(Local::Client) => is_about_redweir(args),
        Handling::Local(_) if hold == Hold::State => false,
        Handling::Local(Local::Info) => args.count() == 2 && is(args, 1, b"redweir"),
        Handling::Local(Local::Hello | Local::Auth | Local::Select | Local::Wait) => true,
        // `CLIENT REPLY`; `SCRIPT DEBUG` is the server's.
        Handling::Pin(Stateful::Silence) if is(args, 0, b"client") => match hold {
            Hold::Nothing | Hold::State => !silences(args),
            Hold::Transaction => silences(args),
            Hold::Relay => false,
        },
        _ => false,
    }
}

/// Whether it goes over an exclusive connection to the primary.
fn is_pinned<A: Args + ?Sized>(args: &A, intent: Intent, situation: Situation) -> bool {
    let held = match situation.hold {
        Hold::Nothing => false,
        Hold::State => {
            situation.other_user
                || intent.handling != Handling::Local(Local::Client)
                || !is_about_redweir(args)
        }
        Hold::Transaction | Hold::Relay => true,
    };
    held || situation.oversized || matches!(intent.handling, Handling::Pin(_))
}

/// Whether a `CLIENT` is about Redweir's own connections.
pub fn is_about_redweir<A: Args + ?Sized>(args: &A) -> bool {
    let own: [&[u8]; 10] = [
        b"id",
        b"getname",
        b"setname",
        b"setinfo",
        b"info",
        b"list",
        b"kill",
        b"unblock",
        b"no-evict",
        b"maint_notifications",
    ];
    own.iter().any(|word| is(args, 1, word))
}

/// Whether it is a `CLIENT REPLY` that silences its client. In a transaction Redis would send the beginning of the reply to
/// `EXEC` and not the rest of it, which no client can read.
pub fn silences<A: Args + ?Sized>(args: &A) -> bool {
    is(args, 0, b"client") && args.count() == 3 && (is(args, 2, b"off") || is(args, 2, b"skip"))
}

/// Whether it runs a script by its digest, which a replica may still know although the primary has forgotten it.
fn is_of_flushed_script<A: Args + ?Sized>(args: &A, intent: Intent, situation: Situation) -> bool {
    situation.scripts_flushed && intent.handling == Handling::ReadOnlyScript && is(args, 0, b"evalsha_ro")
}

fn is<A: Args + ?Sized>(args: &A, at: usize, word: &[u8]) -> bool {
    args.arg(at).eq_ignore_ascii_case(word)
}

/// Where a command goes that only the primary takes and that has waited for one for so long.
pub fn to_primary(view: &View, reason: Reason, now: Moment, waited: Duration) -> Decision {
    match view.usable_primary(now) {
        Some(node) => Decision::Send { node, reason },
        None if view.two_primaries => Decision::Refuse { reason: Reason::TwoPrimaries },
        // Between two primaries, or until the one that is silent answers again.
        None if waited <= view.hold => Decision::Wait { reason: Reason::PrimaryDown },
        None => Decision::Refuse { reason: Reason::PrimaryDown },
    }
}

/// Where a scan goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// At this node, if it is the primary, or is still fresh enough.
    At(NodeId),
    /// Nowhere: the process that began it is gone, or cannot be told from another.
    Gone,
    /// Nowhere: a replica began it, of which the policy does not accept a scan.
    OfReplica,
}

/// Where the scan goes on that this process began.
pub fn next_step(view: &View, tag: Tag, level: impl FnOnce() -> Consistency) -> NextStep {
    match owner(view, tag) {
        None => NextStep::Gone,
        Some(node) if view.primary == Some(node) || level() < Consistency::Session => NextStep::At(node),
        Some(_) => NextStep::OfReplica,
    }
}

/// The one node that is this process. Two that look alike are none.
pub fn owner(view: &View, tag: Tag) -> Option<NodeId> {
    let is_it = |run_id: &Option<String>| run_id.as_deref().and_then(Tag::of) == Some(tag);
    let mut owners = view.members().filter(|n| n.facts.as_ref().is_some_and(|facts| is_it(&facts.run_id)));
    let node = owners.next()?;
    owners.next().is_none().then_some(node.id)
}

#[cfg(test)]
mod tests;
