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

/// The subscriptions of one client.
#[derive(Debug, Default)]
pub struct Channels {
    /// The shard at which it became a subscriber.
    pub main: Option<ShardIndex>,
    /// Shard channels that the client knows it hears, and where; `None`: their slot has left its shard, and they are yet to be
    /// asked for anew.
    sharded: BTreeMap<Vec<u8>, Option<ShardIndex>>,
    /// It wants to hear them no longer.
    leaving: BTreeSet<Vec<u8>>,
    /// What was asked for last, and whether by the client itself. One is answered before the next is asked for.
    asked: (Vec<Vec<u8>>, bool),
    /// What the client has asked for and no server had.
    wanted: BTreeSet<Vec<u8>>,
    /// Since when some have no server.
    lost_since: Option<Moment>,
    /// Channels and patterns (`true`) of keyspace events.
    keyspace: BTreeSet<(bool, Vec<u8>)>,
    /// The shards that were asked for those.
    pub keyspace_at: BTreeSet<ShardIndex>,
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

    /// Whether it hears anything of a shard other than the main one.
    pub fn hears_others(&self) -> bool {
        let elsewhere = |at: &Option<ShardIndex>| at.is_none() || *at != self.main;
        self.sharded.values().any(elsewhere) || !self.wanted.is_empty() || !self.keyspace.is_empty()
    }

    /// The shard channels of one command are asked for, by the client itself or in its name.
    pub fn ask(&mut self, channels: Vec<Vec<u8>>, by_client: bool) {
        self.asked = (channels, by_client);
    }

    /// It wants to hear these shard channels no longer, or any (`None`). Returns those of which a server has to hear that, and what the
    /// client is told of the others.
    pub fn leave(
        &mut self,
        channels: Option<Vec<Vec<u8>>>,
        resp3: bool,
    ) -> (Vec<(ShardIndex, Vec<u8>)>, Vec<u8>) {
        let (mut heard, mut told) = (Vec::new(), Vec::new());
        let all = channels.is_none();
        let channels = channels.unwrap_or_else(|| self.sharded.keys().cloned().collect());
        if all && channels.is_empty() {
            told = told_of(b"sunsubscribe", None, 0, resp3);
        }
        for channel in channels {
            if let Some(at) = self.sharded.get(&channel).copied().flatten() {
                self.leaving.insert(channel.clone());
                heard.push((at, channel));
            } else {
                self.wanted.remove(&channel);
                self.sharded.remove(&channel);
                told.extend(told_of(b"sunsubscribe", Some(&channel), self.sharded.len(), resp3));
            }
        }
        (heard, told)
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
        let known = self.sharded.iter().filter(|(_, at)| at.is_none()).map(|(channel, _)| channel);
        known.chain(&self.wanted).cloned().collect()
    }

    /// Since when there are some.
    pub fn lost_since(&mut self, now: Moment) -> Moment {
        *self.lost_since.get_or_insert(now)
    }

    /// Nobody takes them: the client is told so.
    pub fn give_up(&mut self, resp3: bool) -> Vec<u8> {
        let (mut told, mut left) = (Vec::new(), self.sharded.len());
        for channel in self.lost() {
            left -= usize::from(self.sharded.remove(&channel).is_some());
            told.extend(told_of(b"sunsubscribe", Some(&channel), left, resp3));
        }
        self.wanted.clear();
        self.lost_since = None;
        told
    }

    /// The primary of `shard` has said this, all of it.
    pub fn hear(&mut self, shard: ShardIndex, reply: &[u8], resp3: bool) -> Heard {
        let is_main = self.main == Some(shard);
        let otherwise = if is_main { Heard::Passed } else { Heard::Dropped };
        match said(reply, resp3) {
            Some(Said::Subscribed { channel }) => self.subscribed(channel, shard, resp3),
            Some(Said::Unsubscribed { channel }) => self.unsubscribed(channel, shard, resp3),
            Some(Said::OfShard) => Heard::Passed,
            Some(Said::Message { channel })
                if !is_main && (is_of_keyspace(channel) || mutant::is("heard-of-each")) =>
            {
                Heard::Passed
            }
            None if reply.first() == Some(&b'-') && !self.asked.0.is_empty() => self.refused(reply),
            Some(Said::Message { .. } | Said::OfServer) | None => otherwise,
        }
    }

    fn subscribed(&mut self, channel: &[u8], shard: ShardIndex, resp3: bool) -> Heard {
        let before = self.sharded.insert(channel.to_vec(), Some(shard));
        self.asked.0.retain(|asked| asked != channel);
        self.wanted.remove(channel);
        if self.lost().is_empty() {
            self.lost_since = None;
        }
        if before.is_some() && !self.asked.1 {
            return Heard::Dropped;
        }
        Heard::Changed(told_of(b"ssubscribe", Some(channel), self.sharded.len(), resp3))
    }

    fn unsubscribed(&mut self, channel: Option<&[u8]>, shard: ShardIndex, resp3: bool) -> Heard {
        if let Some(channel) = channel {
            if self.leaving.remove(channel) {
                self.sharded.remove(channel);
            } else if let Some(at) = self.sharded.get_mut(channel) {
                if *at != Some(shard) {
                    // It is heard elsewhere already.
                    return Heard::Dropped;
                }
                *at = None;
                if !mutant::is("channels-left-behind") {
                    return Heard::Lost(false);
                }
            }
        }
        Heard::Changed(told_of(b"sunsubscribe", channel, self.sharded.len(), resp3))
    }

    /// What was asked for is not there.
    fn refused(&mut self, reply: &[u8]) -> Heard {
        let asked = std::mem::take(&mut self.asked.0);
        if !ErrorCode::of(reply).is_some_and(ErrorCode::is_of_cluster) {
            return Heard::Passed;
        }
        self.wanted.extend(asked.into_iter().filter(|channel| !self.sharded.contains_key(channel)));
        Heard::Lost(true)
    }
}

/// What a server says when a subscription has begun or ended.
fn told_of(what: &[u8], channel: Option<&[u8]>, left: usize, resp3: bool) -> Vec<u8> {
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

/// Whether there may be keyspace events under this name.
fn may_be_of_keyspace(pattern: bool, name: &[u8]) -> bool {
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
        told_of(what.as_bytes(), Some(channel.as_bytes()), count, false)
    }

    fn subscriber() -> Channels {
        Channels::at(Some(A))
    }

    fn asks(channels: &mut Channels, names: &[&str], by_client: bool) {
        channels.ask(names.iter().map(|name| name.as_bytes().to_vec()).collect(), by_client);
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
        assert!(channels.hears_others());
        let (heard, said) = channels.leave(None, false);
        assert_eq!((heard, said), (vec![(A, b"x".to_vec()), (b(), b"y".to_vec())], Vec::new()));
        let unknown = channels.leave(Some(vec![b"z".to_vec()]), false);
        assert_eq!(unknown, (Vec::new(), told("sunsubscribe", "z", 2)));
        let left = channels.hear(b(), &told("sunsubscribe", "y", 0), false);
        assert_eq!(left, Heard::Changed(told("sunsubscribe", "y", 1)));
        assert!(!channels.hears_others());
    }

    #[test]
    fn a_channel_whose_slot_moves_is_asked_for_anew_unseen() {
        let mut channels = subscriber();
        asks(&mut channels, &["x"], true);
        channels.hear(A, &told("ssubscribe", "x", 1), false);
        assert_eq!(channels.hear(A, &told("sunsubscribe", "x", 0), false), Heard::Lost(false));
        assert_eq!(channels.lost(), [b"x".to_vec()]);
        asks(&mut channels, &["x"], false);
        assert_eq!(channels.hear(A, b"-MOVED 1 h:1\r\n", false), Heard::Lost(true));
        asks(&mut channels, &["x"], false);
        assert_eq!(channels.hear(b(), &told("ssubscribe", "x", 1), false), Heard::Dropped);
        assert!(channels.lost().is_empty());
        // What the shard before says late is not believed.
        assert_eq!(channels.hear(A, &told("sunsubscribe", "x", 0), false), Heard::Dropped);
        assert_eq!(channels.give_up(false), b"");
    }

    #[test]
    fn a_channel_that_nobody_takes_is_told_to_be_lost() {
        let mut channels = subscriber();
        asks(&mut channels, &["x"], true);
        channels.hear(A, &told("ssubscribe", "x", 1), false);
        channels.hear(A, &told("sunsubscribe", "x", 0), false);
        assert_eq!(channels.give_up(false), told("sunsubscribe", "x", 0));
        assert!(channels.lost().is_empty() && !channels.hears_others());
    }

    #[test]
    fn a_channel_that_was_asked_for_where_it_is_not_is_wanted() {
        let mut channels = subscriber();
        asks(&mut channels, &["x"], true);
        assert_eq!(channels.hear(A, b"-MOVED 1 h:1\r\n", false), Heard::Lost(true));
        asks(&mut channels, &["x"], false);
        let heard = channels.hear(b(), &told("ssubscribe", "x", 1), false);
        assert_eq!(heard, Heard::Changed(told("ssubscribe", "x", 1)));
        asks(&mut channels, &["y"], true);
        assert_eq!(channels.hear(b(), b"-NOPERM no\r\n", false), Heard::Passed);
        assert!(channels.lost().is_empty());
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
