//! The primary's command table, and which of its commands `deny-commands` refuses.

use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

use crate::core::argv::Args;
use crate::core::command::{CommandId, CommandTable, Intent};

static VERSIONS: AtomicU32 = AtomicU32::new(0);

/// A command table with the configured refusals.
#[derive(Debug)]
pub struct Commands {
    /// Names, flags, keys.
    pub table: CommandTable,
    denied: Vec<bool>,
    /// Tells it from others that were in force before.
    pub version: u32,
    /// It came from the primary; false while it is the built-in one.
    pub live: bool,
}

impl Commands {
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
        let version = VERSIONS.fetch_add(1, Ordering::Relaxed);
        Self { table, denied, version, live }
    }

    /// The same commands, of which others are refused.
    #[must_use]
    pub fn denying(&self, deny: &[String]) -> Self {
        Self::new(self.table.clone(), deny, self.live)
    }

    /// Whether `deny-commands` names it.
    pub fn is_denied(&self, id: CommandId) -> bool {
        self.denied.get(usize::from(id.0)).copied().unwrap_or(false)
    }
}

/// A command that was classified, by its name as the client spells it.
#[derive(Debug, Default)]
pub struct LastCommand {
    name: SmallVec<[u8; 16]>,
    version: u32,
    intent: Option<Intent>,
}

impl LastCommand {
    /// What the command is; asks the table only when it is another one than before.
    #[allow(clippy::inline_always, reason = "measured: 2 % of the instructions of a small command")]
    #[inline(always)]
    pub fn classify<A: Args + ?Sized>(&mut self, args: &A, commands: &Commands) -> Intent {
        let name = args.arg(0);
        if let Some(intent) = self.intent
            && self.version == commands.version
            && is_same_name(&self.name, name)
        {
            return intent;
        }
        let intent = commands.table.classify(args);
        self.intent =
            (name.len() <= self.name.inline_size() && commands.table.is_plain(intent.id)).then(|| {
                self.name = SmallVec::from_slice(name);
                self.version = commands.version;
                intent
            });
        intent
    }
}

/// Whether two names are spelled the same. They are short: calling somebody to compare them costs more than comparing
/// both their ends, which may overlap.
#[inline]
fn is_same_name(known: &[u8], name: &[u8]) -> bool {
    known.len() == name.len()
        && match known.len() {
            2..=4 => have_same_ends::<2>(known, name),
            5..=8 => have_same_ends::<4>(known, name),
            _ => known == name,
        }
}

/// The same of two that are at least as long as one end, and at most as long as two.
#[inline]
fn have_same_ends<const LENGTH: usize>(known: &[u8], name: &[u8]) -> bool {
    known.first_chunk::<LENGTH>() == name.first_chunk::<LENGTH>()
        && known.last_chunk::<LENGTH>() == name.last_chunk::<LENGTH>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_the_same_if_all_of_it_is(name in "[a-bA]{0,18}", other in "[a-bA]{0,18}", at in 0usize..18) {
            let (name, mut other) = (name.into_bytes(), other.into_bytes());
            prop_assert_eq!(is_same_name(&name, &other), name == other);
            other.clone_from(&name);
            prop_assert!(is_same_name(&name, &other));
            if let Some(letter) = other.get_mut(at) {
                *letter = b'x';
                prop_assert!(!is_same_name(&name, &other));
            }
        }
    }
}
