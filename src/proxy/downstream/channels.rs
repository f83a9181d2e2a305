//! What a client of a cluster is subscribed to at several shards: shard channels, each at the primary that has its slot, and
//! keyspace events, of which every primary tells its own. To the client all of it is one server's.
//!
//! One shard is the [main](Channels::main) one: there the client says and hears what it would say to one server. Of what the
//! others say only shard messages and keyspace events are for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::moment::Moment;
use crate::core::slots::ShardIndex;
use crate::mutant;
use crate::wire::pubsub::{Said, said};
use crate::wire::reply::ErrorCode;
use crate::wire::say;

/// The subscriptions of one client.
#[derive(Debug, Default)]
pub struct Channels {
    /// The shard at which it became a subscriber.
    pub main: Option<ShardIndex>,
    /// Shard channels that the client knows it hears, and where; `None`: their slot has left its shard, and they are yet to be
    /// asked for anew.
    sharded: BTreeMap<Vec<u8>, Option<ShardIndex>>,
    /// Those that have no server …
    lost: BTreeSet<Vec<u8>>,
    /// … and since when some have none.
    lost_since: Option<Moment>,
    /// How many are heard elsewhere than at the main shard.
    elsewhere: usize,
    /// It wants to hear them no longer.
    leaving: BTreeSet<Vec<u8>>,
    /// What was asked last. It is answered before the next is asked.
    asked: Asked,
    /// What no server had that was asked.
    wanted: Vec<Vec<u8>>,
    /// What the client has said was refused: nothing more of it is done.
    pub refused: bool,
    /// Channels and patterns (`true`) of keyspace events.
    keyspace: BTreeSet<(bool, Vec<u8>)>,
    /// The shards beside the main one at which all of those are heard.
    pub keyspace_at: BTreeSet<ShardIndex>,
    /// Somebody looks after shards that come meanwhile.
    pub expects_shards: bool,
}

/// What a server is asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Shard channels to subscribe to.
    pub channels: BTreeSet<Vec<u8>>,
    /// Shard channels to leave.
    pub leaving: Vec<Vec<u8>>,
    /// By the client itself, who is told of what comes of it.
    pub by_client: bool,
}

/// What becomes of something that a server has said to a subscriber.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Its client gets it.
    Passed,
    /// Its client gets this in its place.
    Changed(Vec<u8>),
    /// Nobody gets it.
    Dropped,
    /// The same, and something has to be asked for anew: at once, or (`true`) after a moment.
    Lost(bool),
}

impl Channels {
    /// Nothing yet, of a client that became a subscriber at this shard.
    pub fn at(main: Option<ShardIndex>) -> Self {
        Self { main, ..Self::default() }
    }

    /// It has left everything, but for the shard at which it is.
    pub fn clear(&mut self) {
        *self = Self { main: self.main, expects_shards: self.expects_shards, ..Self::default() };
    }

    /// Whether it hears anything of a shard other than the main one.
    pub fn hears_others(&self) -> bool {
        self.elsewhere > 0 || !self.keyspace.is_empty()
    }

    /// How many shard channels it hears.
    pub fn count(&self) -> usize {
        self.sharded.len()
    }

    /// All shard channels that it hears.
    pub fn all(&self) -> Vec<Vec<u8>> {
        self.sharded.keys().cloned().collect()
    }

    /// Something is about to be asked.
    pub fn ask(&mut self, asked: Asked) {
        self.leaving.extend(asked.leaving.iter().cloned());
        self.asked = asked;
    }

    /// All that was asked is answered. What no server had is to be asked again.
    pub fn is_answered(&mut self) -> Vec<Vec<u8>> {
        self.asked = Asked::default();
        self.leaving.clear();
        std::mem::take(&mut self.wanted)
    }

    /// The shard that tells of this shard channel. `None`: none does.
    pub fn place(&self, channel: &[u8]) -> Option<ShardIndex> {
        self.sharded.get(channel).copied().flatten()
    }

    /// It wants to hear a shard channel no longer that no server tells of: what it is told of that. `None`: that it hears none at all.
    pub fn leave(&mut self, channel: Option<&[u8]>, resp3: bool) -> Vec<u8> {
        if let Some(channel) = channel {
            self.put(channel, None);
        }
        notice(b"sunsubscribe", channel, self.sharded.len(), resp3)
    }

    /// It subscribes to a channel, or a pattern. True: it hears of every primary by that.
    pub fn subscribe(&mut self, pattern: bool, name: &[u8]) -> bool {
        let of_keyspace = may_be_of_keyspace(pattern, name);
        if of_keyspace {
            self.keyspace.insert((pattern, name.to_vec()));
        }
        of_keyspace
    }

    /// It does so no longer; `None`: to none of the kind.
    pub fn unsubscribe(&mut self, pattern: bool, name: Option<&[u8]>) {
        self.keyspace.retain(|(kind, known)| *kind != pattern || name.is_some_and(|name| name != known));
        if self.keyspace.is_empty() {
            self.keyspace_at.clear();
        }
    }

    /// The channels, or the patterns, of keyspace events that it hears.
    pub fn keyspace(&self, pattern: bool) -> Vec<Vec<u8>> {
        let of_kind = self.keyspace.iter().filter(|(kind, _)| *kind == pattern);
        of_kind.map(|(_, name)| name.clone()).collect()
    }

    /// Whether it hears keyspace events.
    pub fn hears_keyspace(&self) -> bool {
        !self.keyspace.is_empty()
    }

    /// The shard channels that have no server.
    pub fn lost(&self) -> Vec<Vec<u8>> {
        self.lost.iter().cloned().collect()
    }

    /// Since when there are some.
    pub fn lost_since(&mut self, now: Moment) -> Moment {
        *self.lost_since.get_or_insert(now)
    }

    /// Nobody takes these: the client is told so.
    pub fn give_up(&mut self, channels: &[Vec<u8>], resp3: bool) -> Vec<u8> {
        channels.iter().flat_map(|channel| self.leave(Some(channel), resp3)).collect()
    }

    /// The primary of `shard` has said this, all of it.
    pub fn hear(&mut self, shard: ShardIndex, reply: &[u8], resp3: bool) -> Heard {
        let is_main = self.main == Some(shard);
        if reply.first() == Some(&b'-') {
            return self.hear_error(shard, reply, resp3);
        }
        match said(reply, resp3) {
            Some(Said::Subscribed { channel }) => self.subscribed(channel, shard, resp3),
            Some(Said::Unsubscribed { channel }) => self.unsubscribed(channel, shard, resp3),
            Some(Said::OfShard) => Heard::Passed,
            Some(Said::Message { channel })
                if !is_main && (is_of_keyspace(channel) || mutant::is("heard-of-each")) =>
            {
                Heard::Passed
            }
            Some(Said::Message { .. } | Said::OfServer) | None if is_main => Heard::Passed,
            Some(Said::Message { .. } | Said::OfServer) | None => Heard::Dropped,
        }
    }

    fn subscribed(&mut self, channel: &[u8], shard: ShardIndex, resp3: bool) -> Heard {
        let is_known = self.put(channel, Some(Some(shard)));
        self.asked.channels.remove(channel);
        if is_known && !self.asked.by_client {
            return Heard::Dropped;
        }
        Heard::Changed(notice(b"ssubscribe", Some(channel), self.sharded.len(), resp3))
    }

    fn unsubscribed(&mut self, channel: Option<&[u8]>, shard: ShardIndex, resp3: bool) -> Heard {
        if let Some(channel) = channel {
            if self.leaving.remove(channel) {
                self.put(channel, None);
            } else if let Some(at) = self.sharded.get(channel) {
                if *at != Some(shard) {
                    // It is heard elsewhere already.
                    return Heard::Dropped;
                }
                self.put(channel, Some(None));
                if !mutant::is("channels-left-behind") {
                    return Heard::Lost(false);
                }
            }
        }
        Heard::Changed(notice(b"sunsubscribe", channel, self.sharded.len(), resp3))
    }

    fn hear_error(&mut self, shard: ShardIndex, reply: &[u8], resp3: bool) -> Heard {
        let of_cluster = ErrorCode::of(reply).is_some_and(ErrorCode::is_of_cluster);
        let asked: Vec<Vec<u8>> = std::mem::take(&mut self.asked.channels).into_iter().collect();
        match (asked.is_empty(), self.asked.by_client) {
            (false, true) if of_cluster => {
                self.wanted.extend(asked);
                Heard::Dropped
            }
            (false, false) if of_cluster => Heard::Lost(true),
            // Whoever has the slot now does not let it be heard.
            (false, false) => Heard::Changed(self.give_up(&asked, resp3)),
            (_, true) => {
                self.refused = true;
                Heard::Passed
            }
            _ if self.main != Some(shard) => {
                self.keyspace_at.remove(&shard);
                Heard::Dropped
            }
            _ if of_cluster => Heard::Changed(say::SLOT_ON_ITS_WAY.to_vec()),
            _ => Heard::Passed,
        }
    }

    /// A shard channel is heard there, or nowhere, or (`None`) no longer. True: it was known.
    #[allow(
        clippy::option_option,
        reason = "of a channel that is known it is known, or not, where it is heard"
    )]
    fn put(&mut self, channel: &[u8], at: Option<Option<ShardIndex>>) -> bool {
        let before = match at {
            Some(at) => self.sharded.insert(channel.to_vec(), at),
            None => self.sharded.remove(channel),
        };
        let is_elsewhere =
            |at: Option<Option<ShardIndex>>| at.is_some_and(|at| at.is_none() || at != self.main);
        self.elsewhere += usize::from(is_elsewhere(at));
        self.elsewhere -= usize::from(is_elsewhere(before));
        if at == Some(None) {
            self.lost.insert(channel.to_vec());
        } else {
            self.lost.remove(channel);
        }
        if self.lost.is_empty() {
            self.lost_since = None;
        }
        before.is_some()
    }
}

/// What a server says when a subscription has begun or ended.
fn notice(what: &[u8], channel: Option<&[u8]>, left: usize, resp3: bool) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(if resp3 { b">3\r\n" } else { b"*3\r\n" });
    for text in [Some(what), channel] {
        match text {
            Some(text) => {
                out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" }),
        }
    }
    out.extend_from_slice(format!(":{left}\r\n").as_bytes());
    out
}

/// How the channels of keyspace events begin (notify.c, `notifyKeyspaceEvent`).
const OF_KEYSPACE: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];

fn is_of_keyspace(channel: &[u8]) -> bool {
    OF_KEYSPACE.iter().any(|prefix| channel.starts_with(prefix))
}

/// Whether there may be keyspace events under this name of a channel, or this pattern.
pub fn may_be_of_keyspace(pattern: bool, name: &[u8]) -> bool {
    if !pattern {
        return is_of_keyspace(name);
    }
    let plain = name.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(name.len());
    let begins = &name[..plain];
    OF_KEYSPACE.iter().any(|prefix| begins.starts_with(prefix) || prefix.starts_with(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardIndex = ShardIndex::FIRST;

    fn b() -> ShardIndex {
        ShardIndex::new(1).unwrap()
    }

    fn told(what: &str, channel: &str, count: usize) -> Vec<u8> {
        notice(what.as_bytes(), Some(channel.as_bytes()), count, false)
    }

    fn subscriber() -> Channels {
        Channels::at(Some(A))
    }

    fn asks(channels: &mut Channels, names: &[&str], by_client: bool) {
        let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        channels.ask(Asked { channels: names, by_client, ..Asked::default() });
    }

    fn leaves(channels: &mut Channels, name: &str) {
        channels.ask(Asked { leaving: vec![name.as_bytes().to_vec()], by_client: true, ..Asked::default() });
    }

    #[test]
    fn channels_of_several_shards_are_counted_together() {
        let mut channels = subscriber();
        asks(&mut channels, &["x"], true);
        let first = channels.hear(A, &told("ssubscribe", "x", 1), false);
        assert_eq!(first, Heard::Changed(told("ssubscribe", "x", 1)));
        assert!(!channels.hears_others());
        asks(&mut channels, &["y"], true);
        let second = channels.hear(b(), &told("ssubscribe", "y", 1), false);
        assert_eq!(second, Heard::Changed(told("ssubscribe", "y", 2)));
        assert!(channels.hears_others() && channels.is_answered().is_empty());
        assert_eq!((channels.place(b"y"), channels.place(b"z")), (Some(b()), None));
        assert_eq!(channels.leave(Some(b"z"), false), told("sunsubscribe", "z", 2));
        leaves(&mut channels, "y");
        let left = channels.hear(b(), &told("sunsubscribe", "y", 0), false);
        assert_eq!(left, Heard::Changed(told("sunsubscribe", "y", 1)));
        assert!(!channels.hears_others());
    }

    #[test]
    fn a_channel_whose_slot_moves_is_asked_for_anew_unseen() {
        let mut channels = subscriber();
        asks(&mut channels, &["x"], true);
        channels.hear(A, &told("ssubscribe", "x", 1), false);
        channels.is_answered();
        assert_eq!(channels.hear(A, &told("sunsubscribe", "x", 0), false), Heard::Lost(false));
        assert_eq!(channels.lost(), [b"x".to_vec()]);
        assert!(channels.hears_others());
        asks(&mut channels, &["x"], false);
        assert_eq!(channels.hear(A, b"-MOVED 1 h:1\r\n", false), Heard::Lost(true));
        asks(&mut channels, &["x"], false);
        assert_eq!(channels.hear(b(), &told("ssubscribe", "x", 1), false), Heard::Dropped);
        assert!(channels.lost().is_empty());
        // What the shard before says late is not believed.
        assert_eq!(channels.hear(A, &told("sunsubscribe", "x", 0), false), Heard::Dropped);
    }

    #[test]
    fn a_channel_that_nobody_takes_is_told_to_be_lost() {
        for refusal in [None, Some("-NOPERM no\r\n")] {
            let mut channels = subscriber();
            asks(&mut channels, &["x"], true);
            channels.hear(A, &told("ssubscribe", "x", 1), false);
            channels.is_answered();
            channels.hear(A, &told("sunsubscribe", "x", 0), false);
            asks(&mut channels, &["x"], false);
            let last = match refusal {
                Some(refusal) => channels.hear(b(), refusal.as_bytes(), false),
                None => Heard::Changed(channels.give_up(&[b"x".to_vec()], false)),
            };
            assert_eq!(last, Heard::Changed(told("sunsubscribe", "x", 0)));
            assert!(channels.lost().is_empty() && !channels.hears_others() && channels.lost_since.is_none());
        }
    }

    #[test]
    fn a_channel_that_was_asked_for_where_it_is_not_is_wanted() {
        let mut channels = subscriber();
        asks(&mut channels, &["x"], true);
        assert_eq!(channels.hear(A, b"-MOVED 1 h:1\r\n", false), Heard::Dropped);
        assert_eq!(channels.is_answered(), [b"x".to_vec()]);
        asks(&mut channels, &["x"], true);
        let heard = channels.hear(b(), &told("ssubscribe", "x", 1), false);
        assert_eq!(heard, Heard::Changed(told("ssubscribe", "x", 1)));
        asks(&mut channels, &["y"], true);
        assert_eq!(channels.hear(b(), b"-NOPERM no\r\n", false), Heard::Passed);
        assert!(channels.refused && channels.is_answered().is_empty());
        // Of other commands only the main one tells, and not where else a key is.
        assert_eq!(channels.hear(A, b"-ERR no\r\n", false), Heard::Passed);
        assert_eq!(channels.hear(b(), b"-ERR no\r\n", false), Heard::Dropped);
        let moved = channels.hear(A, b"-MOVED 1 h:1\r\n", false);
        assert_eq!(moved, Heard::Changed(say::SLOT_ON_ITS_WAY.to_vec()));
    }

    #[test]
    fn of_other_primaries_only_keyspace_events_are_for_the_client() {
        let mut channels = subscriber();
        let message = |channel: &str| {
            format!("*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n${}\r\n{channel}\r\n$1\r\nm\r\n", channel.len())
        };
        for (channel, of_others) in [("__keyspace@0__:k", Heard::Passed), ("news", Heard::Dropped)] {
            assert_eq!(channels.hear(A, message(channel).as_bytes(), false), Heard::Passed);
            assert_eq!(channels.hear(b(), message(channel).as_bytes(), false), of_others);
        }
        assert_eq!(channels.hear(b(), &told("psubscribe", "*", 1), false), Heard::Dropped);
        assert_eq!(channels.hear(A, &told("psubscribe", "*", 1), false), Heard::Passed);
        for (pattern, name, expected) in [
            (false, "__keyevent@0__:del", true),
            (false, "__key", false),
            (false, "*", false),
            (true, "*", true),
            (true, "__key*", true),
            (true, "__keyevent@*__:del", true),
            (true, "news*", false),
            (true, "_[_]key*", true),
        ] {
            assert_eq!(channels.subscribe(pattern, name.as_bytes()), expected, "{name}");
        }
        assert_eq!(channels.keyspace(false), [b"__keyevent@0__:del".to_vec()]);
        assert_eq!(channels.keyspace(true).len(), 4);
        channels.unsubscribe(true, Some(b"*"));
        assert_eq!(channels.keyspace(true).len(), 3);
        channels.unsubscribe(true, None);
        channels.unsubscribe(false, Some(b"__keyevent@0__:del"));
        assert!(!channels.hears_keyspace());
    }
}
