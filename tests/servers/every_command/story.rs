//! What there is to say about a read that should not have been.

use std::ops::RangeInclusive;

use super::clients::Unit;
use super::history::{History, Read, State, names, show};
use super::judge::Violation;

/// Of the units before it, of its connection.
const BEFORE: usize = 12;
/// Of the steps that changed its keys.
const CHANGES: usize = 9;
/// Of the states that would explain it.
const FITS: usize = 6;
/// Of a reply, in bytes.
const REPLY: usize = 60;

/// Which states would explain it, and what happened around them.
pub(crate) fn story(
    history: &History,
    reads: &[Read],
    violation: &Violation,
    fits: &[RangeInclusive<State>],
) -> String {
    let read = &reads[violation.read];
    let unit = &history.units[read.unit];
    let mut lines = vec![format!(
        "connection {} (by way of {}, db {}, RESP{}{}) sent at {:?}, answered at {:?}, keys {}:",
        unit.conn,
        unit.via,
        unit.db,
        if unit.resp3 { 3 } else { 2 },
        if unit.transaction { ", transaction" } else { "" },
        unit.sent,
        unit.end,
        names(read.keys),
    )];
    for call in &read.calls {
        let call = &unit.calls[*call];
        lines.push(format!("  {} -> {}", show(&call.argv), call.reply.escape_ascii()));
    }
    let (Read { least, most, why, .. }, last) = (read, fits.iter().rev().take(FITS));
    lines.push(format!(
        "  should be a state of {least}..={most} ({why}); is one of {:?}",
        last.collect::<Vec<_>>()
    ));
    if let Some((after, state)) = violation.after {
        lines.push(format!("  after {}, settled at {state}", brief(&history.units[reads[after].unit])));
    }
    for before in read.unit.saturating_sub(BEFORE)..read.unit {
        let other = &history.units[before];
        let known = history.known.iter().find(|known| known.unit == before);
        let at = known.map(|known| format!(", state {}", known.step + 1)).unwrap_or_default();
        if other.conn == unit.conn {
            lines.push(format!("  before: {}{at}", brief(other)));
        }
    }
    let near = fits.iter().rev().find(|fit| fit.start() <= most).map_or(*least, |fit| *fit.end());
    lines.extend(changes(history, read, near));
    lines.join("\n") + "\n"
}

fn brief(unit: &Unit) -> String {
    let calls = unit.calls.iter().map(|call| {
        let mut reply = call.reply.escape_ascii().to_string();
        reply.truncate(REPLY);
        format!("{} -> {reply}", show(&call.argv))
    });
    let (how, calls) = (if unit.transaction { "EXEC: " } else { "" }, calls.collect::<Vec<_>>());
    format!("{how}{} ({:?}..{:?}, db {})", calls.join("; "), unit.sent, unit.end, unit.db)
}

/// What changed its keys, shortly before this state and after.
fn changes(history: &History, read: &Read, near: State) -> Vec<String> {
    let until = read.most.min(history.steps.len());
    let touches = |n: &State| history.steps[*n].keys.written & read.maybe != 0;
    let touching: Vec<State> = (0..until).filter(touches).collect();
    let from = touching.partition_point(|n| *n < near).saturating_sub(2);
    let tell = |n: State| {
        let step = &history.steps[n];
        let commands = step.commands.iter().map(|(db, argv)| format!("{db}: {}", show(argv)));
        let by = history.known.iter().find(|known| known.step == n).map(|known| &history.units[known.unit]);
        let by = by.map(|Unit { conn, via, sent, end, .. }| {
            format!(" (connection {conn} by way of {via}, {sent:?}..{end:?})")
        });
        let commands = commands.collect::<Vec<_>>().join("; ");
        format!("    state {} at {:?}: {commands}{}", n + 1, step.at, by.unwrap_or_default())
    };
    touching.into_iter().skip(from).take(CHANGES).map(tell).collect()
}
