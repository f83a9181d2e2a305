//! What a command of a cluster's client is about, and what becomes of it where each primary has only some of the keys.

use crate::core::argv::Args;
use crate::core::command::{CommandTable, Handling, Intent, Keys, Stateful};
use crate::core::slots::hash_slot::HashSlot;

/// The hash slots that a command is about, by its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// It names no key.
    Nothing,
    /// All its keys are in one slot.
    Slot {
        /// Which.
        slot: HashSlot,
        /// What its reply has to show for it to be known that they were all there.
        expected: Expected,
    },
    /// Its keys are in several.
    Several,
}

/// What a reply has to show for it to be known that all its keys were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Of one key, or of several without each of which there is nothing (`SINTER`): anything at all (`GET`, `LRANGE`, `TTL`).
    Anything,
    /// One element for each key, in an array: something in each (`MGET`, `JSON.MGET`).
    EachElement,
    /// A number of keys that are there: no less than this (`EXISTS`, `TOUCH`).
    Count(u32),
    /// It does not show which of its keys were there (`SUNION`, `SDIFF`, `PFCOUNT` and `XREAD` of several, `EVAL_RO`).
    Unseen,
}

/// What becomes of a command that is about several slots, or about none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Any primary may answer it.
    Anywhere,
    /// It is about the cluster, of which clients see nothing (`CLUSTER`, `READONLY`).
    AboutClusters,
    /// It changes how one server talks to one connection (`CLIENT REPLY`, `CLIENT TRACKING`).
    OfOneServer,
    /// It is asked key by key, and the replies are one array (`MGET`).
    Elements,
    /// It is asked slot by slot, and the replies are added up (`DEL`, `UNLINK`, `EXISTS`, `TOUCH`).
    Sum,
    /// It is asked slot by slot, if that is wanted of a write that is atomic elsewhere (`MSET`).
    Writes,
    /// Every primary is asked, and the numbers are added up (`DBSIZE`).
    SumOfAll,
    /// Every primary is asked, and the arrays are one (`KEYS`).
    ListOfAll,
    /// Every primary does it (`FLUSHALL`, `SCRIPT LOAD`).
    All,
    /// Every primary is asked, and of each number the least is the one (`SCRIPT EXISTS`).
    LeastOfAll,
    /// Every primary is asked, and of the arrays each string is told once (`PUBSUB CHANNELS`).
    DistinctOfAll,
    /// Every primary is asked, and in the arrays the numbers are added up (`PUBSUB NUMSUB`).
    AddedOfAll,
    /// Every primary is asked, and the greatest number is the one (`PUBSUB NUMPAT`).
    MostOfAll,
    /// Every primary is asked, and one that does it is enough (`SCRIPT KILL`).
    AnyOfAll,
    /// Every primary is asked, and one that has keys answers: more often who has more slots (`RANDOMKEY`).
    Random,
    /// One primary after the other (`SCAN`).
    Turns,
    /// A script, which may read whatever key it likes.
    Script,
    /// No server would execute it: its keys have to be in one slot.
    Nowhere,
}

impl Spread {
    /// Whether each primary has a part in it, so that one of them is not enough.
    pub const fn is_of_all(self) -> bool {
        matches!(
            self,
            Self::SumOfAll
                | Self::ListOfAll
                | Self::All
                | Self::LeastOfAll
                | Self::DistinctOfAll
                | Self::AddedOfAll
                | Self::MostOfAll
                | Self::AnyOfAll
                | Self::Turns
        )
    }
}

/// What a command is about.
pub fn about<A: Args + ?Sized>(args: &A, intent: Intent, table: &CommandTable) -> About {
    if intent.handling == Handling::Shared && table.has_one_key(intent.id) && args.count() > 1 {
        return About::Slot { slot: HashSlot::of(args.arg(1)), expected: Expected::Anything };
    }
    let (mut first, mut differs, mut count) = (None, false, 0);
    let keys = table.for_each_key(intent.id, args, &mut |key| {
        let slot = HashSlot::of(key);
        differs |= *first.get_or_insert(slot) != slot;
        count += 1;
    });
    match first {
        None => of_channel(args, intent, table),
        Some(_) if differs => About::Several,
        Some(slot) => {
            let is_known = keys != Keys::Unknowable && intent.handling == Handling::Shared;
            let expected = if is_known { expected(table.name(intent.id), count) } else { Expected::Unseen };
            About::Slot { slot, expected }
        }
    }
}

/// What the reply to a read of so many keys shows of them.
fn expected(command: &str, keys: u32) -> Expected {
    match command {
        "mget" | "json.mget" => Expected::EachElement,
        "exists" | "touch" => Expected::Count(keys),
        "sinter" | "zinter" | "sintercard" | "zintercard" => Expected::Anything,
        _ if keys == 1 => Expected::Anything,
        _ => Expected::Unseen,
    }
}

/// Channels of shards have slots as keys have.
fn of_channel<A: Args + ?Sized>(args: &A, intent: Intent, table: &CommandTable) -> About {
    let of_shards = matches!(table.name(intent.id), "spublish" | "ssubscribe" | "sunsubscribe");
    if of_shards && args.count() > 1 {
        return About::Slot { slot: HashSlot::of(args.arg(1)), expected: Expected::Unseen };
    }
    About::Nothing
}

/// What becomes of a command that is about several slots, or, if not, about none.
pub fn spread(intent: Intent, table: &CommandTable, several: bool) -> Spread {
    if several {
        return match table.name(intent.id) {
            "mget" => Spread::Elements,
            "del" | "unlink" | "exists" | "touch" => Spread::Sum,
            "mset" => Spread::Writes,
            _ => Spread::Nowhere,
        };
    }
    match intent.handling {
        Handling::Script | Handling::ReadOnlyScript => return Spread::Script,
        Handling::Scan { .. } => return Spread::Turns,
        Handling::Pin(Stateful::Blocking) => return Spread::Anywhere,
        Handling::Pin(Stateful::Silence | Stateful::Tracking) => return Spread::OfOneServer,
        _ => {}
    }
    match table.name(intent.id) {
        "readonly" | "readwrite" | "asking" => Spread::AboutClusters,
        name if name.starts_with("cluster") => Spread::AboutClusters,
        "dbsize" => Spread::SumOfAll,
        "keys" => Spread::ListOfAll,
        "pubsub|channels" | "pubsub|shardchannels" => Spread::DistinctOfAll,
        "pubsub|numsub" | "pubsub|shardnumsub" => Spread::AddedOfAll,
        "pubsub|numpat" => Spread::MostOfAll,
        "script|exists" => Spread::LeastOfAll,
        "script|kill" | "function|kill" => Spread::AnyOfAll,
        "randomkey" => Spread::Random,
        "flushall" | "flushdb" | "script|load" | "script|flush" | "function|load" | "function|delete"
        | "function|flush" | "function|restore" => Spread::All,
        _ => Spread::Anywhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> (About, Spread) {
        let table = CommandTable::builtin();
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let intent = table.classify(args.as_slice());
        let about = about(args.as_slice(), intent, &table);
        (about, spread(intent, &table, about == About::Several))
    }

    #[test]
    fn keys_of_one_slot_are_together() {
        let slot = HashSlot::of(b"a");
        let at = |expected| About::Slot { slot, expected };
        for (command, expected) in [
            ("GET a", Expected::Anything),
            ("SET a 1", Expected::Anything),
            ("MGET {a}1 {a}2", Expected::EachElement),
            ("MGET a", Expected::EachElement),
            ("EXISTS {a}1 {a}2 {a}1", Expected::Count(3)),
            ("SINTER {a}1 {a}2", Expected::Anything),
            ("SINTERCARD 2 {a}1 {a}2 LIMIT 1", Expected::Anything),
            // `LCS … IDX` says something of keys that are not there.
            ("LCS {a}1 {a}2", Expected::Unseen),
            ("SUNION {a}1 {a}2", Expected::Unseen),
            ("SUNION a", Expected::Anything),
            ("PFCOUNT {a}1 {a}2", Expected::Unseen),
            ("EVAL script 1 a", Expected::Unseen),
            ("EVAL_RO script 1 a", Expected::Unseen),
            ("BLPOP a 0", Expected::Unseen),
            ("XREAD STREAMS a 0", Expected::Anything),
            ("XREAD STREAMS {a}1 {a}2 0 0", Expected::Unseen),
            ("SPUBLISH a m", Expected::Unseen),
            ("HSCAN a 0", Expected::Unseen),
        ] {
            assert_eq!(of(command).0, at(expected), "{command}");
        }
    }

    #[test]
    fn what_is_of_several_slots_or_of_none_has_its_own_ways() {
        for (command, spread) in [
            ("MGET a b", Spread::Elements),
            ("DEL a b", Spread::Sum),
            ("EXISTS a b a", Spread::Sum),
            ("MSET a 1 b 2", Spread::Writes),
            ("MSETNX a 1 b 2", Spread::Nowhere),
            ("SINTER a b", Spread::Nowhere),
            ("RENAME a b", Spread::Nowhere),
            ("BLPOP a b 0", Spread::Nowhere),
            ("EVAL script 2 a b", Spread::Nowhere),
            ("EVAL script 0", Spread::Script),
            ("FCALL f 0", Spread::Script),
            ("DBSIZE", Spread::SumOfAll),
            ("KEYS *", Spread::ListOfAll),
            ("FLUSHALL", Spread::All),
            ("SCRIPT LOAD s", Spread::All),
            ("SCRIPT EXISTS s", Spread::LeastOfAll),
            ("SCRIPT KILL", Spread::AnyOfAll),
            ("PUBSUB CHANNELS", Spread::DistinctOfAll),
            ("PUBSUB SHARDNUMSUB a", Spread::AddedOfAll),
            ("PUBSUB NUMPAT", Spread::MostOfAll),
            ("SCAN 0", Spread::Turns),
            ("RANDOMKEY", Spread::Random),
            ("CLUSTER INFO", Spread::AboutClusters),
            ("READONLY", Spread::AboutClusters),
            ("CLIENT TRACKING ON", Spread::OfOneServer),
            ("CLIENT ID", Spread::Anywhere),
            ("PING", Spread::Anywhere),
            ("PUBLISH c m", Spread::Anywhere),
        ] {
            assert_eq!(of(command).1, spread, "{command}");
        }
    }
}
