//! What modules say of their commands, as far as it is true.
//!
//! A module declares first, last and step, and nothing checks it: `JSON.MGET a b $` names one key to the server, and
//! `FT.ALIASADD`, which changes something, calls itself read-only. Only the families below have been read command by
//! command, in their sources and on a live server; of any other module's command no key is known.

use super::entry::CommandEntry;
use super::keys::{Begin, Find, KeySpec};
use super::rule::{Access, Why, WriteKeys};

/// Families whose keys stand where they say, but for what [`correct`] corrects: JSON, time series, probabilistic.
const VETTED: &[&str] = &["json", "ts", "bf", "cf", "cms", "topk", "tdigest"];

/// The commands of the search module whose first argument is a key and all that counts, not an index.
const SUGGESTIONS: &[&str] = &["ft.sugadd", "ft.sugdel", "ft.sugget", "ft.suglen"];

/// Puts the keys of a module's command right.
pub(super) fn correct(entry: &mut CommandEntry) {
    if !entry.flags.module {
        return;
    }
    let writes = entry.flags.write;
    let range = |writes, first, last| KeySpec {
        writes,
        begin: Begin::Index(first),
        find: Find::Range { last, step: 1, limit: 0 },
        incomplete: false,
    };
    match entry.name.as_str() {
        // JSON.MGET key … path. It says that the first is the only one.
        "json.mget" => entry.specs = vec![range(writes, 1, -2)],
        // TS.CREATERULE source destination …: both remember it. It names the source.
        "ts.createrule" | "ts.deleterule" => entry.specs = vec![range(true, 1, 1)],
        // What is added to a series changes those that are compacted from it, and only the series itself is named.
        // That matters to nothing but these.
        "ts.get" | "ts.range" | "ts.revrange" => entry.specs = vec![KeySpec::unknown(writes)],
        // CMS.MERGE destination count source …. It names the destination.
        "cms.merge" | "tdigest.merge" => {
            let sources = Find::Count { at: 0, first: 1, step: 1 };
            let sources = KeySpec { writes: false, begin: Begin::Index(2), find: sources, incomplete: false };
            entry.specs = vec![range(true, 1, 0), sources];
        }
        name if SUGGESTIONS.contains(&name) => {}
        name if VETTED.contains(&family(name)) => {}
        _ => entry.specs = vec![KeySpec::unknown(writes)],
    }
}

/// What a module's command does, where its flags don't say it.
pub(super) fn access(entry: &CommandEntry) -> Option<Access> {
    if !entry.flags.module {
        return None;
    }
    let name = entry.name.as_str();
    let is_read = entry.flags.readonly && !entry.flags.write;
    let key_state = is_read.then_some(Access::PrimaryRead(Why::KeyState));
    match family(name) {
        _ if SUGGESTIONS.contains(&name) => None,
        // Every node builds its indexes for itself, in the background: what has applied a write need not find it. Cursors
        // live on one node. And what changes aliases and dictionaries calls itself read-only: a replica would obey.
        // Deleting an index deletes what it indexes (`FT.DROP`, `FT.DROPINDEX … DD`).
        "ft" => Some(key_state.unwrap_or(Access::Write { keys: WriteKeys::Unknowable })),
        // Replicas forget by chance of their own (`TOPK.ADD`). Reading a digest compresses it, which changes what is read
        // later; only additions are replicated.
        "topk" | "tdigest" => key_state,
        // The time series module's nodes among themselves.
        "timeseries" => Some(Access::PrimaryRead(Why::NotReadonly)),
        "json" | "ts" | "bf" | "cf" | "cms" => match name {
            // What a node keeps in memory and how; `CF.COMPACT`, which changes that, calls itself read-only.
            "json.debug" | "ts.info" | "bf.debug" | "cf.debug" | "cf.info" | "cf.scandump" | "cf.compact" => {
                key_state
            }
            _ => None,
        },
        // Reads go where their keys can be fenced, which is nowhere but on the primary if a promise is to be kept.
        _ if is_read => None,
        _ => Some(Access::Write { keys: WriteKeys::Unknowable }),
    }
}

/// `json` of `json.get`; `ft.debug|ttl` is of `ft`.
fn family(name: &str) -> &str {
    name.split_once('.').map_or("", |(family, _)| family)
}
