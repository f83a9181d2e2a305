//! Commands of the stream that delete whatever is in some slots, and name no key.

use crate::core::argv::Args;
use crate::core::slots::hash_slot::{HashSlot, SlotRange};

/// The slots that a command empties, if it is one that does so and tells which: `CLUSTER FLUSHSLOT` (Valkey 9), `TRIMSLOTS RANGES`
/// (Redis 8.4: what a node had before its slots moved), `SFLUSH`. `name`: as the command table has it.
///
/// Of the keys in all other slots they say nothing.
pub fn emptied_slots<A: Args + ?Sized>(name: &str, args: &A) -> Option<Vec<SlotRange>> {
    match name {
        "cluster|flushslot" => slot(args, 2).map(|slot| vec![SlotRange::from(slot)]),
        "trimslots" if args.arg(1).eq_ignore_ascii_case(b"ranges") => {
            let count = number(args.arg(2))?;
            (args.count() == 3 + 2 * usize::from(count)).then(|| ranges(args, 3, args.count()))?
        }
        "sflush" => {
            // The last word may say how.
            let says_how = args.count().is_multiple_of(2);
            ranges(args, 1, args.count() - usize::from(says_how))
        }
        _ => None,
    }
}

fn number(text: &[u8]) -> Option<u16> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn slot<A: Args + ?Sized>(args: &A, at: usize) -> Option<HashSlot> {
    HashSlot::new(number(args.arg(at))?)
}

/// Pairs of a first and a last one.
fn ranges<A: Args + ?Sized>(args: &A, from: usize, upto: usize) -> Option<Vec<SlotRange>> {
    let pairs = (from..upto).step_by(2);
    let ranges: Option<Vec<_>> =
        pairs.map(|at| SlotRange::new(slot(args, at)?, slot(args, at + 1)?)).collect();
    ranges.filter(|ranges| !ranges.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, command: &str) -> Option<String> {
        let args: Vec<&str> = command.split(' ').collect();
        let ranges = emptied_slots(name, args.as_slice())?;
        Some(ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn slots_that_a_command_empties_are_those_it_tells() {
        for (name, command, slots) in [
            ("cluster|flushslot", "cluster flushslot 4576", "4576"),
            ("cluster|flushslot", "CLUSTER FLUSHSLOT 0 ASYNC", "0"),
            ("trimslots", "TRIMSLOTS RANGES 1 0 5460", "0-5460"),
            ("trimslots", "trimslots ranges 2 0 3 16383 16383", "0-3 16383"),
            ("sflush", "SFLUSH 1 2", "1-2"),
            ("sflush", "SFLUSH 1 2 5 6 SYNC", "1-2 5-6"),
        ] {
            assert_eq!(told(name, command).as_deref(), Some(slots), "{command}");
        }
    }

    #[test]
    fn what_does_not_tell_which_may_empty_any() {
        for (name, command) in [
            ("flushall", "FLUSHALL"),
            ("cluster|flushslot", "CLUSTER FLUSHSLOT 16384"),
            ("cluster|flushslot", "CLUSTER FLUSHSLOT x"),
            ("trimslots", "TRIMSLOTS RANGES 2 0 3"),
            ("trimslots", "TRIMSLOTS RANGES 0"),
            ("trimslots", "TRIMSLOTS RANGES 1 3 0"),
            ("trimslots", "TRIMSLOTS"),
            ("trimslots", "TRIMSLOTS SOMEHOW 1 0 3"),
            ("sflush", "SFLUSH"),
            ("sflush", "SFLUSH SYNC"),
            ("sflush", "SFLUSH 1 x"),
        ] {
            assert_eq!(told(name, command), None, "{command}");
        }
    }
}
