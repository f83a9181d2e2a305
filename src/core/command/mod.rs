//! What a command is: a read that a replica may answer, a write, or something that needs a connection of its own.
//!
//! The primary's own `COMMAND` says it (flags, key specifications, subcommands), so that modules work and nothing is
//! listed twice. A built-in table, taken from Redis 7.0.15, serves until that answer is known, and lends its
//! subcommands and key specifications to servers that do not report any (before 7.0).
//!
//! What `COMMAND` does not say stands in [`rule`]: which commands Redweir answers itself, which need an exclusive
//! connection, and which read-only commands only the primary may answer; in [`options`]: keys that only who parses the
//! options finds; in [`modules`]: what modules say wrongly, and whose word counts.

pub mod alone;
mod entry;
pub mod in_force;
mod keys;
mod modules;
mod options;
mod rule;
mod table;

pub use entry::{Arity, CommandEntry, Flags};
pub use keys::{Begin, Find, KeySpec, Keys};
pub use options::Options;
pub use rule::{Access, Handling, Local, Stateful, Why, WriteKeys};
pub use table::CommandTable;

/// Index of a command in its [`CommandTable`]. 0 stands for every unknown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u16);

impl CommandId {
    /// A command that is not in the table.
    pub const OTHER: Self = Self(0);
}

/// What one command is, and how it has to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Which command.
    pub id: CommandId,
    /// What it does to the data.
    pub access: Access,
    /// What it needs of the connection.
    pub handling: Handling,
}

#[cfg(test)]
mod tests;
