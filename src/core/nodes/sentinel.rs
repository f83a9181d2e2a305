//! What several sentinels say comes to: who belongs to the shard, and who is called its primary.
//!
//! Each of them numbers its configurations (`config-epoch`, sentinel.c), and a failover raises the number. The newest counts
//! whose primary says itself that it is one (`ROLE`): a sentinel that was away, or lies, speaks for an older one, or for
//! somebody who denies it. What counted once is never given up for anything older. As long as nothing counts (no sentinel
//! answers, all of them see their clocks leap (TILT), the primary is dead and nobody was promoted yet), everybody stays who was
//! there, and whoever is mentioned is asked how it is as well.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::members::Membership;
use crate::mutant;

/// What one sentinel says, by the addresses that the servers announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// `config-epoch`: the number of its configuration.
    pub epoch: u64,
    /// The primary.
    pub primary: Address,
    /// Those that it takes for replicas.
    pub replicas: Vec<Listed>,
    /// Its clock has leapt, or it was stopped: what it says of others' health is worth nothing, by its own account.
    pub tilt: bool,
}

/// A replica in a sentinel's list.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Listed {
    /// Where it is; `None`: it was never heard where (port 0).
    pub address: Option<Address>,
    /// `s_down` or `o_down` is among its flags.
    pub down: bool,
    /// `disconnected` is among them: this sentinel has no connection to it at the moment.
    pub disconnected: bool,
    /// `replica-announced no`: it is to be left alone.
    pub unannounced: bool,
    /// The primary that it follows, as far as the sentinel knows.
    pub master: Option<(String, u16)>,
}

/// How good the word is that the present membership rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Sentinels name a primary that says itself that it is one.
    Confirmed,
    /// Nobody that they name says so.
    Unconfirmed,
    /// What they say is older than what they had said.
    Outdated,
    /// No sentinel says anything that counts.
    Silence,
}

/// What has been believed so far.
#[derive(Clone, Debug)]
pub struct Sentinels {
    /// By what address a node is reached that announces this one.
    map: BTreeMap<Address, Address>,
    epoch: u64,
    primary: Option<Address>,
    /// Who belonged to the shard by the last word that was confirmed, by the addresses that they announce.
    nodes: Vec<Address>,
    /// Who belongs to the shard and is in doubt, and since when.
    doubtful: BTreeMap<Address, Moment>,
}

/// How long somebody who belongs to the shard may be in doubt before it is left out. After a failover every replica is for a
/// while: the sentinels have yet to connect to it anew, and it has yet to follow the new primary.
pub const DOUBTED: Duration = Duration::from_secs(10);

impl Sentinels {
    /// Nothing has been heard yet.
    pub fn new(map: BTreeMap<Address, Address>) -> Self {
        Self { map, epoch: 0, primary: None, nodes: Vec::new(), doubtful: BTreeMap::new() }
    }

    /// What the latest words come to, one for each sentinel that answers. `says_primary`: whether the node that is reached by this
    /// address says that it is the primary.
    pub fn decide(
        &mut self,
        words: &[Option<Word>],
        says_primary: impl Fn(&Address) -> bool,
        now: Moment,
    ) -> (Membership, Ground) {
        let steady: Vec<&Word> = words.iter().flatten().filter(|word| !word.tilt).collect();
        let is_current = |word: &&Word| word.epoch >= self.epoch || mutant::is("older-epoch-believed");
        let mut current: Vec<&Word> = steady.iter().copied().filter(is_current).collect();
        let backed = |word: &Word| {
            let same = |other: &&&Word| (other.epoch, &other.primary) == (word.epoch, &word.primary);
            steady.iter().filter(same).count()
        };
        // Two that are of one number and do not agree cannot both be right: more of them, or those of before.
        let known = self.primary.clone();
        let weight = |word: &Word| (word.epoch, backed(word), Some(&word.primary) == known.as_ref());
        current.sort_by_key(|word| Reverse(weight(word)));
        let confirmed = current.iter().copied().find(|word| says_primary(&self.reached(&word.primary)));
        let named = confirmed.or(current.first().copied()).map(|word| word.primary.clone());
        let (nodes, ground) = if let Some(word) = confirmed {
            (self.believe(word, &current, now), Ground::Confirmed)
        } else {
            let ground = match (steady.is_empty(), current.is_empty()) {
                (true, _) => Ground::Silence,
                (false, true) => Ground::Outdated,
                (false, false) => Ground::Unconfirmed,
            };
            (self.nodes.iter().chain(mentioned(&current)).cloned().collect(), ground)
        };
        (self.membership(&nodes, named.or_else(|| self.primary.clone())), ground)
    }

    /// Takes the word of those that say the same as `word`; returns who is to be asked from now on.
    fn believe(&mut self, word: &Word, current: &[&Word], now: Moment) -> Vec<Address> {
        let stays = self.primary.as_ref() == Some(&word.primary);
        (self.epoch, self.primary) = (word.epoch, Some(word.primary.clone()));
        let same = |other: &&&Word| (other.epoch, &other.primary) == (word.epoch, &word.primary);
        let replicas: Vec<&Listed> = current.iter().filter(same).flat_map(|word| &word.replicas).collect();
        self.nodes = self.belong(&word.primary, &replicas, stays, now);
        // Whoever was promoted since then has to be asked to be believed.
        let newer = current.iter().filter(|other| other.epoch > word.epoch).map(|other| &other.primary);
        self.nodes.iter().chain(newer).cloned().collect()
    }

    /// Who belongs to a primary, of those that are listed. One sentinel that finds nothing wrong with a replica is enough.
    fn belong(&mut self, primary: &Address, listed: &[&Listed], stays: bool, now: Moment) -> Vec<Address> {
        let (mut nodes, mut doubtful) = (vec![primary.clone()], BTreeMap::new());
        let usable = |in_doubt: bool| {
            let fits = move |listed: &&&Listed| listed.is_usable() && listed.is_in_doubt(primary) == in_doubt;
            listed.iter().filter(fits).filter_map(|listed| listed.address.as_ref())
        };
        for address in usable(false) {
            if !nodes.contains(address) {
                nodes.push(address.clone());
            }
        }
        for address in usable(true) {
            let since = *self.doubtful.get(address).unwrap_or(&now);
            if nodes.contains(address) || !self.nodes.contains(address) {
                continue;
            }
            doubtful.insert(address.clone(), since);
            if now.since(since) <= DOUBTED {
                nodes.push(address.clone());
            }
        }
        // Of the same primary, whoever is on no list at all any longer was forgotten, perhaps by mistake (`SENTINEL RESET`): the lists are made
        // anew, from what the primary says.
        let known =
            |address: &&Address| listed.iter().any(|listed| listed.address.as_ref() == Some(*address));
        for address in self.nodes.iter().filter(|address| stays && !known(address)) {
            let since = *self.doubtful.get(address).unwrap_or(&now);
            if !nodes.contains(address) && now.since(since) <= DOUBTED {
                doubtful.insert(address.clone(), since);
                nodes.push(address.clone());
            }
        }
        self.doubtful = doubtful;
        nodes
    }

    /// The address by which a node is reached that announces `address`.
    fn reached(&self, address: &Address) -> Address {
        self.map.get(address).unwrap_or(address).clone()
    }

    fn membership(&self, announced: &[Address], primary: Option<Address>) -> Membership {
        let mut nodes = Vec::new();
        for node in announced.iter().map(|address| self.reached(address)) {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        let primary = primary.map(|primary| self.reached(&primary));
        Membership { nodes, primary, ..Membership::default() }
    }
}

/// Everybody who is spoken of, and may be sent to.
fn mentioned<'a>(words: &'a [&'a Word]) -> impl Iterator<Item = &'a Address> {
    words.iter().flat_map(|word| {
        let replicas = word.replicas.iter().filter(|listed| listed.is_usable());
        std::iter::once(&word.primary).chain(replicas.filter_map(|listed| listed.address.as_ref()))
    })
}

impl Listed {
    /// Whether anybody may be sent there at all. How good its link and its data are, it says itself.
    fn is_usable(&self) -> bool {
        self.address.is_some() && !self.down && !self.unannounced
    }

    /// Whether it is not to come, but may stay for a while.
    fn is_in_doubt(&self, primary: &Address) -> bool {
        self.disconnected || self.follows_another_than(primary)
    }

    /// Whether it is known to follow another one than `primary`. A name and a number are not known to be different.
    fn follows_another_than(&self, primary: &Address) -> bool {
        let (Some((host, port)), Address::Tcp { host: wanted, port: wanted_port }) = (&self.master, primary)
        else {
            return false;
        };
        let is_number =
            |host: &str| host.contains(':') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        port != wanted_port || is_number(host) == is_number(wanted) && !host.eq_ignore_ascii_case(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::tcp("10.0.0.1", port)
    }

    fn follows(port: u16, master: u16) -> Listed {
        let master = Some(("10.0.0.1".to_owned(), master));
        Listed { address: Some(at(port)), master, ..Listed::default() }
    }

    #[allow(clippy::unnecessary_wraps, reason = "a sentinel may say nothing")]
    fn word(epoch: u64, primary: u16, replicas: &[u16]) -> Option<Word> {
        let replicas = replicas.iter().map(|port| follows(*port, primary)).collect();
        Some(Word { epoch, primary: at(primary), replicas, tilt: false })
    }

    fn ports(membership: &Membership) -> Vec<u16> {
        let port = |address: &Address| match address {
            Address::Tcp { port, .. } => *port,
            Address::Unix(_) => 0,
        };
        membership.primary.iter().chain(&membership.nodes).map(port).collect()
    }

    /// What it comes to while `primaries` say that they are one: the name, then everybody, and why.
    fn heard(sentinels: &mut Sentinels, words: &[Option<Word>], primaries: &[u16]) -> (Vec<u16>, Ground) {
        let says = |address: &Address| primaries.iter().any(|port| at(*port) == *address);
        let (membership, ground) = sentinels.decide(words, says, Moment::default());
        (ports(&membership), ground)
    }

    fn sentinels() -> Sentinels {
        Sentinels::new(BTreeMap::new())
    }

    #[test]
    fn an_older_word_never_counts() {
        let mut sentinels = sentinels();
        let first = [word(1, 1, &[2, 3]), word(1, 1, &[2]), None];
        assert_eq!(heard(&mut sentinels, &first, &[1]), (vec![1, 1, 2, 3], Ground::Confirmed));
        // 2 was promoted; one sentinel has not heard of it, and 1 is back and has not heard of it either.
        let split = [word(1, 1, &[2, 3]), word(2, 2, &[3]), word(2, 2, &[3])];
        assert_eq!(heard(&mut sentinels, &split, &[1, 2]), (vec![2, 2, 3], Ground::Confirmed));
        let old = [word(1, 1, &[2, 3]), None, None];
        assert_eq!(heard(&mut sentinels, &old, &[1, 2]), (vec![2, 2, 3], Ground::Outdated));
        let none = [None, None, None];
        assert_eq!(heard(&mut sentinels, &none, &[1]), (vec![2, 2, 3], Ground::Silence));
    }

    #[test]
    fn a_newer_word_counts_once_the_node_says_so_itself() {
        let mut sentinels = sentinels();
        let lie = [word(1, 1, &[2]), word(99, 7, &[8]), None];
        assert_eq!(heard(&mut sentinels, &lie, &[]), (vec![7, 7, 8, 1, 2], Ground::Unconfirmed));
        assert_eq!(heard(&mut sentinels, &lie, &[1]), (vec![1, 1, 2, 7], Ground::Confirmed));
        let truth = [word(1, 1, &[2]), None, None];
        assert_eq!(heard(&mut sentinels, &truth, &[1]), (vec![1, 1, 2], Ground::Confirmed));
        // Its primary is dead: nobody goes before another one is there.
        assert_eq!(heard(&mut sentinels, &lie, &[]).0, [7, 1, 2, 7, 8]);
        assert_eq!(heard(&mut sentinels, &lie, &[7]), (vec![7, 7, 8], Ground::Confirmed));
    }

    #[test]
    fn of_two_words_of_one_number_the_one_of_more_sentinels_counts() {
        let mut sentinels = sentinels();
        let words = [word(3, 1, &[2]), word(3, 2, &[1]), word(3, 2, &[1])];
        assert_eq!(heard(&mut sentinels, &words, &[1, 2]).0, [2, 2, 1]);
        assert_eq!(heard(&mut sentinels, &words[..2], &[1, 2]).0, [2, 2, 1], "as before");
    }

    #[test]
    fn in_tilt_the_last_word_stays() {
        let mut sentinels = sentinels();
        heard(&mut sentinels, &[word(1, 1, &[2])], &[1]);
        let tilted = word(2, 2, &[]).map(|word| Word { tilt: true, ..word });
        assert_eq!(heard(&mut sentinels, &[tilted], &[1, 2]), (vec![1, 1, 2], Ground::Silence));
    }

    #[test]
    fn who_is_down_or_a_ghost_or_somebody_else_s_is_left_out() {
        let listed = [
            follows(2, 1),
            Listed { down: true, ..follows(3, 1) },
            Listed { disconnected: true, ..follows(3, 1) },
            Listed { unannounced: true, ..follows(4, 1) },
            Listed { address: None, ..follows(5, 1) },
            follows(6, 9),
            Listed { master: None, ..follows(7, 1) },
            Listed { master: Some(("redis-1".to_owned(), 1)), ..follows(8, 1) },
            Listed { master: Some(("redis-1".to_owned(), 9)), ..follows(9, 1) },
        ];
        let mut sentinels = sentinels();
        let words = [Some(Word { epoch: 1, primary: at(1), replicas: listed.to_vec(), tilt: false })];
        assert_eq!(heard(&mut sentinels, &words, &[1]).0, [1, 1, 2, 7, 8]);
    }

    #[test]
    fn who_has_yet_to_follow_the_new_primary_stays_for_a_while() {
        let mut sentinels = sentinels();
        let mut at_moment = |words: &[Option<Word>], primary: u16, secs: u64| {
            let says = |address: &Address| *address == at(primary);
            let (membership, _) = sentinels.decide(words, says, Moment::from_millis(secs * 1000));
            ports(&membership)
        };
        assert_eq!(at_moment(&[word(1, 1, &[2, 3])], 1, 1), [1, 1, 2, 3]);
        let replicas = vec![
            follows(3, 1),
            Listed { disconnected: true, ..follows(3, 2) },
            Listed { down: true, ..follows(1, 9) },
        ];
        let switched = [Some(Word { epoch: 2, primary: at(2), replicas, tilt: false })];
        assert_eq!(at_moment(&switched, 2, 2), [2, 2, 3]);
        assert_eq!(at_moment(&switched, 2, 12), [2, 2, 3]);
        assert_eq!(at_moment(&switched, 2, 13), [2, 2]);
        assert_eq!(at_moment(&[word(2, 2, &[3])], 2, 14), [2, 2, 3]);
    }

    #[test]
    fn nodes_are_reached_by_the_addresses_that_the_map_gives() {
        let reached = Address::tcp("redis-1.example", 1);
        let mut sentinels = Sentinels::new([(at(1), reached.clone())].into());
        let says = |address: &Address| *address == reached;
        let (membership, ground) = sentinels.decide(&[word(1, 1, &[2])], says, Moment::default());
        let (nodes, primary) = (vec![reached.clone(), at(2)], Some(reached.clone()));
        let expected = Membership { nodes, primary, ..Membership::default() };
        assert_eq!((membership, ground), (expected, Ground::Confirmed));
    }
}
