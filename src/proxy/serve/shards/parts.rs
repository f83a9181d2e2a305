//! The parts of a command whose keys are at several shards: each is a command like any other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::BytesMut;

use crate::core::argv::Args as _;
use crate::core::command::in_force::Commands;
use crate::core::command::{Handling, Intent, Stateful};
use crate::core::slots::{About, Expected, HashSlot, ShardIndex, TimeLeft, about, time_left};
use crate::wire::request::{Request, RequestLimits, RequestScanner, Scan};
use crate::wire::say;

/// A part of a command.
pub(super) struct Part {
    pub(super) to: To,
    pub(super) bytes: Vec<u8>,
}

/// Where a command, or a part of one, goes.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// To whoever has the slot; if it only reads, to a replica, of whose reply so much is expected.
    Slot { slot: HashSlot, expected: Expected },
    /// To the primary of this shard.
    Shard(ShardIndex),
    /// To the primary of this shard, which has what its owner does not have any longer (`ASKING`).
    Asking(ShardIndex),
}

/// A blocking command that has waited for so long, to be asked again: of a shard that is to be asked in the owner's stead, if there
/// is one. `Err`: it has waited for as long as it wanted.
pub(super) fn again(
    bytes: &[u8],
    waited: Duration,
    asking: Option<ShardIndex>,
    commands: &Commands,
) -> Result<Option<Part>, ()> {
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    let Ok(Scan::Command { .. }) = scanner.scan(bytes) else { return Ok(None) };
    let request = scanner.request(bytes);
    let intent = commands.table.classify(&request);
    let About::Slot { slot, .. } = about(&request, intent, &commands.table) else { return Ok(None) };
    let blocks = intent.handling == Handling::Pin(Stateful::Blocking);
    let (left, asking) = if blocks {
        (time_left(&request, waited), asking)
    } else {
        // What is said behind it is said to the owner.
        (TimeLeft::AsBefore, None)
    };
    let bytes = match left {
        TimeLeft::Some(at, left) => say::with_argument(&request, at, left.as_bytes()),
        TimeLeft::AsBefore => bytes.to_vec(),
        TimeLeft::Over => return Err(()),
    };
    Ok(Some(Part { to: asking.map_or(To::Slot { slot, expected: Expected::Unseen }, To::Asking), bytes }))
}

/// The command with no arguments but these, of which one is the key.
pub(super) fn key_part(request: &Request<'_>, arguments: &[usize], key: usize) -> Part {
    let mut bytes = BytesMut::new();
    let words: Vec<&[u8]> =
        std::iter::once(0).chain(arguments.iter().copied()).map(|at| request.arg(at)).collect();
    say::command(&mut bytes, &words);
    // If it reads at all, several are counted.
    let several = u32::try_from(arguments.len()).ok().filter(|keys| *keys != 1);
    let expected = several.map_or(Expected::Anything, Expected::Count);
    let to = To::Slot { slot: HashSlot::of(request.arg(key)), expected };
    Part { to, bytes: bytes.to_vec() }
}

/// The command slot by slot; each key stands first of so many arguments.
pub(super) fn by_slot(request: &Request<'_>, step: usize) -> VecDeque<Part> {
    let mut slots: BTreeMap<HashSlot, Vec<usize>> = BTreeMap::new();
    for key in (1..request.count()).step_by(step) {
        let arguments = slots.entry(HashSlot::of(request.arg(key))).or_default();
        arguments.extend(key..(key + step).min(request.count()));
    }
    let part = |arguments: &Vec<usize>| key_part(request, arguments, arguments.first().copied().unwrap_or(1));
    slots.values().map(part).collect()
}

/// What a command is about of which only the beginning is there.
pub(super) fn about_beginning(request: &Request<'_>, intent: Intent, commands: &Commands) -> About {
    let mut first = None;
    commands.table.for_each_key(intent.id, request, &mut |key| {
        first.get_or_insert(HashSlot::of(key));
    });
    first.map_or(About::Nothing, |slot| About::Slot { slot, expected: Expected::Unseen })
}

/// Whether it is more than a `CLIENT REPLY ON` or `CLIENT TRACKING OFF`, which change nothing.
pub(super) fn silences_or_tracks(request: &Request<'_>) -> bool {
    let word = |at: usize, word: &[u8]| request.arg(at).eq_ignore_ascii_case(word);
    !(word(1, b"reply") && word(2, b"on") || word(1, b"tracking") && word(2, b"off"))
}
