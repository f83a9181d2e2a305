//! The primary's command table, and which of its commands `deny-commands` refuses.

use crate::core::command::{CommandId, CommandTable};

/// A command table with the configured refusals.
#[derive(Debug)]
pub struct Vocabulary {
    /// Names, flags, keys.
    pub table: CommandTable,
    denied: Vec<bool>,
    /// It came from the primary; false while it is the built-in one.
    pub live: bool,
}

impl Vocabulary {
    /// The built-in table, until the primary's is known.
    pub fn builtin(deny: &[String]) -> Self {
        Self::new(CommandTable::builtin(), deny, false)
    }

    /// The primary's own table.
    pub fn live(table: CommandTable, deny: &[String]) -> Self {
        Self::new(table, deny, true)
    }

    fn new(table: CommandTable, deny: &[String], live: bool) -> Self {
        let refused = |name: &str| {
            deny.iter().any(|pattern| {
                let container = name.split_once('|').map_or(name, |(container, _)| container);
                pattern.eq_ignore_ascii_case(name) || pattern.eq_ignore_ascii_case(container)
            })
        };
        let denied = (0..table.len()).map(|index| refused(table.name(CommandId(index as u16)))).collect();
        Self { table, denied, live }
    }

    /// Whether `deny-commands` names it.
    pub fn is_denied(&self, id: CommandId) -> bool {
        self.denied.get(usize::from(id.0)).copied().unwrap_or(false)
    }
}
