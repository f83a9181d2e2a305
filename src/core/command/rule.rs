//! From what a server says of a command to what Redweir does with it.

use super::entry::CommandEntry;
use super::modules;
use crate::mutant;

/// What a command does to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads; a replica may answer.
    Read,
    /// Writes nothing that is fenced, but only the primary may answer.
    PrimaryRead(Why),
    /// Writes.
    Write {
        /// Whether its keys say what it writes.
        keys: WriteKeys,
    },
    /// Not in the table: it may do anything.
    Unknown,
}

/// Why only the primary may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not flagged `readonly`: it is about the server, or it has an effect of another kind (`PUBLISH`).
    NotReadonly,
    /// It is flagged `readonly` but changes what the server remembers of the key (`TOUCH`, `PFCOUNT`), or tells it
    /// (`OBJECT FREQ`, `XINFO GROUPS`, `XPENDING`), which differs from node to node, or tells how the node stores the
    /// key (`OBJECT ENCODING`, `DUMP`), which its own settings and version decide.
    KeyState,
}

/// Whether the keys of a write say what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKeys {
    /// Nothing but its keys changes.
    Known,
    /// It may change any key: scripts, `FLUSHALL`, `SWAPDB`.
    Unknowable,
}

/// What a command needs of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Nothing: a shared lane carries it.
    Shared,
    /// Carries a cursor, which only the process that issued it understands.
    Scan {
        /// Which argument it is.
        cursor: u8,
    },
    /// Runs a read-only script, which the node may not know.
    ReadOnlyScript,
    /// Runs a script that may write.
    Script,
    /// Operates the server: it must get through when other commands are held up.
    Operation,
    /// Redweir answers it.
    Local(Local),
    /// An exclusive connection.
    Pin(Stateful),
}

/// Commands that Redweir answers, or has a say in, because they are about the client's own connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// `HELLO`
    Hello,
    /// `AUTH`
    Auth,
    /// `SELECT`
    Select,
    /// `INFO`: the primary's, with a section of our own.
    Info,
    /// `QUIT`
    Quit,
    /// `RESET`
    Reset,
    /// `CLIENT`, except what changes how the server talks to the connection.
    Client,
    /// `REDWEIR`
    Redweir,
    /// `WAIT`
    Wait,
}

/// Commands that give a connection a state, which a shared lane cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stateful {
    /// `MULTI`
    Multi,
    /// `EXEC`
    Exec,
    /// `DISCARD`
    Discard,
    /// `WATCH`
    Watch,
    /// `UNWATCH`
    Unwatch,
    /// Any blocking command.
    Blocking,
    /// `SUBSCRIBE`, `PSUBSCRIBE`, `SSUBSCRIBE`
    Subscribe,
    /// `UNSUBSCRIBE`, `PUNSUBSCRIBE`, `SUNSUBSCRIBE`
    Unsubscribe,
    /// `MONITOR`
    Monitor,
    /// `CLIENT TRACKING`, `CACHING`, `NO-TOUCH`
    Tracking,
    /// `CLIENT REPLY`, `SCRIPT DEBUG`: replies cannot be counted any longer.
    Silence,
    /// `SYNC`, `PSYNC`, `REPLCONF`
    Sync,
}

/// What a command with a `BLOCK` option needs is seen from its arguments.
pub(super) const BLOCK_OPTION: &[&str] = &["xread", "xreadgroup"];

pub(super) fn access(entry: &CommandEntry) -> Access {
    let mistaken = mutant::is("xpending-anywhere") && entry.name == "xpending";
    if KEY_STATE.contains(&entry.name.as_str()) && !mistaken {
        return Access::PrimaryRead(Why::KeyState);
    }
    if let Some(access) = modules::access(entry) {
        return access;
    }
    if entry.flags.readonly && !entry.flags.write {
        return Access::Read;
    }
    if entry.flags.write {
        let keys = if entry.specs.is_empty() { WriteKeys::Unknowable } else { WriteKeys::Known };
        return Access::Write { keys };
    }
    // Neither flag, but keys: a script (`EVAL`, `FCALL`), or a module's command of that kind.
    if entry.flags.movable_keys || !entry.specs.is_empty() {
        return Access::Write { keys: WriteKeys::Unknowable };
    }
    Access::PrimaryRead(Why::NotReadonly)
}

/// Read-only commands that change or tell what differs from node to node ([`Why::KeyState`]).
const KEY_STATE: &[&str] = &[
    // When a key was used, how often, and in what form it is kept; an approximate count that is remembered.
    "touch",
    "pfcount",
    "object|freq",
    "object|idletime",
    "object|help",
    "object|encoding",
    "object|refcount",
    "memory|usage",
    // When a consumer was seen and what a group has read is not replicated with an `XREADGROUP`.
    "xinfo|consumers",
    "xinfo|groups",
    "xinfo|stream",
    // Nor is how often and when an entry was delivered once more (`XREADGROUP GROUP g c STREAMS s 0`).
    "xpending",
    // All that, of a stream; of anything else how this node encodes it, for servers no older than itself.
    "dump",
];

pub(super) fn handling(entry: &CommandEntry) -> Handling {
    let name = entry.name.as_str();
    let container = name.split_once('|').map_or(name, |(container, _)| container);
    match name {
        "hello" => Handling::Local(Local::Hello),
        "auth" => Handling::Local(Local::Auth),
        "select" => Handling::Local(Local::Select),
        "info" => Handling::Local(Local::Info),
        "quit" => Handling::Local(Local::Quit),
        "reset" => Handling::Local(Local::Reset),
        "redweir" => Handling::Local(Local::Redweir),
        "wait" | "waitaof" => Handling::Local(Local::Wait),
        "client|tracking" | "client|caching" | "client|no-touch" => Handling::Pin(Stateful::Tracking),
        "client|reply" | "script|debug" => Handling::Pin(Stateful::Silence),
        _ if container == "client" => Handling::Local(Local::Client),
        "multi" => Handling::Pin(Stateful::Multi),
        "exec" => Handling::Pin(Stateful::Exec),
        "discard" => Handling::Pin(Stateful::Discard),
        "watch" => Handling::Pin(Stateful::Watch),
        "unwatch" => Handling::Pin(Stateful::Unwatch),
        "subscribe" | "psubscribe" | "ssubscribe" => Handling::Pin(Stateful::Subscribe),
        "unsubscribe" | "punsubscribe" | "sunsubscribe" => Handling::Pin(Stateful::Unsubscribe),
        "monitor" => Handling::Pin(Stateful::Monitor),
        "sync" | "psync" | "replconf" => Handling::Pin(Stateful::Sync),
        "scan" => Handling::Scan { cursor: 1 },
        "sscan" | "hscan" | "zscan" => Handling::Scan { cursor: 2 },
        "eval_ro" | "evalsha_ro" | "fcall_ro" => Handling::ReadOnlyScript,
        "eval" | "evalsha" | "fcall" => Handling::Script,
        "script|kill" | "function|kill" => Handling::Operation,
        _ if OPERATION.contains(&container) => Handling::Operation,
        _ if BLOCK_OPTION.contains(&name) => Handling::Shared,
        _ if entry.flags.blocking || BLOCKING_BEFORE_7.contains(&name) => Handling::Pin(Stateful::Blocking),
        _ => Handling::Shared,
    }
}

/// Commands of the group `server` in Redis' documentation that neither read nor write data.
const OPERATION: &[&str] =
    &["config", "debug", "failover", "latency", "replicaof", "role", "shutdown", "slaveof", "slowlog"];

/// Servers before 7.0 do not flag what blocks.
const BLOCKING_BEFORE_7: &[&str] =
    &["blpop", "brpop", "brpoplpush", "blmove", "bzpopmin", "bzpopmax", "blmpop", "bzmpop"];
