//! One reply out of several: a command that was asked in parts, at several primaries.
//!
//! Each part has a slot of its own in the client's queue, one behind the other. The parts' replies are kept until all are there;
//! the last slot gets what they come to, and the others nothing. An error of one of them is the reply to all.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

use crate::wire::joined;

/// What the replies of the parts come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Arrays, one behind the other in one (`MGET` key by key, `KEYS`).
    Concatenated,
    /// A number: all of theirs added up.
    Sum,
    /// The last of them: they are all the same (`+OK`).
    Last,
    /// Arrays of as many numbers each: of each place the least (`SCRIPT EXISTS`).
    Least,
    /// Arrays of strings: each string once (`PUBSUB CHANNELS`).
    Distinct,
    /// Arrays that differ in their numbers only: of each place all of theirs added up (`PUBSUB NUMSUB`).
    Added,
    /// A number: the greatest (`PUBSUB NUMPAT`).
    Most,
    /// The first, with the keys of all in its keyspace section (`INFO`).
    Keyspace,
    /// The first that is no error, else the first error (`SCRIPT KILL`).
    Any,
    /// The first that is there, else the first (`RANDOMKEY`).
    Present,
    /// Nothing at all: the client has been told already. If it was wrong, it is disconnected.
    Silent,
    /// Nothing at all, whatever it is: it is told in another way (`EXEC`).
    Unheard,
}

/// What is made of a part's reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Its slot gets nothing, now or later.
    Nothing,
    /// All parts are there: the slot with this number gets these bytes; and if it is another one, the part's own nothing.
    Whole(u64, BytesMut),
    /// The client was told something else.
    Broken,
}

/// The commands of one client that were asked in parts, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Joints {
    joints: VecDeque<Joint>,
    /// Bytes that are kept.
    held: usize,
}

#[derive(Debug)]
struct Joint {
    first: u64,
    replies: Vec<BytesMut>,
    left: usize,
    combine: Combine,
}

impl Joints {
    /// The slots from `first` on are those of so many parts.
    pub(super) fn expect(&mut self, first: u64, parts: usize, combine: Combine) {
        let replies = (0..parts).map(|_| BytesMut::new()).collect();
        self.joints.push_back(Joint { first, replies, left: parts, combine });
    }

    /// Nothing came of the last one.
    pub(super) fn forget_last(&mut self) {
        self.joints.pop_back();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joints.is_empty()
    }

    /// Bytes that are kept.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes the reply of slot `seq`, or a part of it. `None`: it is that of no part.
    pub(super) fn take(&mut self, seq: u64, bytes: &[u8], complete: bool) -> Option<Joined> {
        let of = |joint: &Joint| (joint.first..joint.first + joint.replies.len() as u64).contains(&seq);
        let at = self.joints.iter().position(of)?;
        let joint = self.joints.get_mut(at)?;
        joint.replies.get_mut((seq - joint.first) as usize)?.put_slice(bytes);
        self.held += bytes.len();
        if !complete {
            return Some(Joined::Nothing);
        }
        joint.left -= 1;
        if joint.left > 0 {
            return Some(Joined::Nothing);
        }
        let joint = self.joints.remove(at)?;
        self.held -= joint.replies.iter().map(BytesMut::len).sum::<usize>();
        let last = joint.first + joint.replies.len() as u64 - 1;
        Some(joint.combined().map_or(Joined::Broken, |whole| Joined::Whole(last, whole)))
    }

    /// Whether slot `seq` is the last of its parts: it gets the whole, whenever that is there.
    pub(super) fn is_last(&self, seq: u64) -> bool {
        self.joints.iter().any(|joint| joint.first + joint.replies.len() as u64 == seq + 1)
    }
}

impl Joint {
    fn combined(self) -> Option<BytesMut> {
        let replies = &self.replies;
        let error = replies.iter().find(|reply| is_error(reply));
        match (error, self.combine) {
            (_, Combine::Unheard) | (None, Combine::Silent) => Some(BytesMut::new()),
            (_, Combine::Any) => replies.iter().find(|reply| !is_error(reply)).or(error).cloned(),
            (_, Combine::Present) => {
                let is_there = |reply: &&BytesMut| !is_error(reply) && !is_null(reply);
                replies.iter().find(is_there).or(error).or(replies.first()).cloned()
            }
            (Some(_), Combine::Silent) => None,
            (Some(error), _) => Some(error.clone()),
            (None, Combine::Last) => self.replies.into_iter().next_back(),
            (None, Combine::Sum) => joined::sum(replies),
            (None, Combine::Most) => joined::most(replies),
            (None, Combine::Least) => joined::least(replies),
            (None, Combine::Distinct) => joined::distinct(replies),
            (None, Combine::Keyspace) => joined::keyspace(replies),
            (None, Combine::Added) => joined::added(replies),
            (None, Combine::Concatenated) => joined::concatenated(replies),
        }
    }
}

fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

fn is_null(reply: &[u8]) -> bool {
    reply.starts_with(b"_") || reply.starts_with(b"$-1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(combine: Combine, replies: &[&str]) -> String {
        let mut joints = Joints::default();
        joints.expect(7, replies.len(), combine);
        assert_eq!(joints.take(6, b"+other\r\n", true), None);
        // The last comes first.
        for (at, reply) in replies.iter().enumerate().rev() {
            let seq = 7 + at as u64;
            assert_eq!(joints.is_last(seq), at + 1 == replies.len());
            let (one, other) = reply.as_bytes().split_at(reply.len() / 2);
            assert_eq!(joints.take(seq, one, false), Some(Joined::Nothing));
            match joints.take(seq, other, true) {
                Some(Joined::Nothing) if at > 0 => {}
                Some(Joined::Whole(last, whole)) if at == 0 => {
                    assert!(last == 6 + replies.len() as u64 && joints.is_empty() && joints.held() == 0);
                    return String::from_utf8(whole.to_vec()).unwrap();
                }
                Some(Joined::Broken) => return "broken".to_owned(),
                other => panic!("{other:?}"),
            }
        }
        panic!("nothing came of it")
    }

    #[test]
    fn replies_of_parts_are_one_reply() {
        let elements =
            whole(Combine::Concatenated, &["*1\r\n$1\r\na\r\n", "*1\r\n$-1\r\n", "*2\r\n_\r\n:1\r\n"]);
        assert_eq!(elements, "*4\r\n$1\r\na\r\n$-1\r\n_\r\n:1\r\n");
        assert_eq!(whole(Combine::Concatenated, &["*0\r\n", "~0\r\n"]), "*0\r\n");
        assert_eq!(whole(Combine::Sum, &[":1\r\n", ":0\r\n", ":20\r\n"]), ":21\r\n");
        assert_eq!(whole(Combine::Last, &["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
        assert_eq!(whole(Combine::Silent, &["+OK\r\n"]), "");
        assert_eq!(whole(Combine::Unheard, &["-ERR no\r\n"]), "");
        let least = whole(Combine::Least, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"]);
        assert_eq!(least, "*2\r\n:0\r\n:1\r\n");
        let channels = ["*2\r\n$1\r\na\r\n$3\r\n\r\nb\r\n", "*0\r\n", "*2\r\n$1\r\nc\r\n$1\r\na\r\n"];
        assert_eq!(whole(Combine::Distinct, &channels), "*3\r\n$1\r\na\r\n$3\r\n\r\nb\r\n$1\r\nc\r\n");
        let numbers = ["*2\r\n$2\r\n:9\r\n:1\r\n", "*2\r\n$2\r\n:9\r\n:2\r\n"];
        assert_eq!(whole(Combine::Added, &numbers), "*2\r\n$2\r\n:9\r\n:3\r\n");
        assert_eq!(whole(Combine::Added, &["*0\r\n", "*0\r\n"]), "*0\r\n");
        assert_eq!(whole(Combine::Added, &["*1\r\n$900\r\na\r\n", "*0\r\n"]), "broken");
        assert_eq!(whole(Combine::Most, &[":1\r\n", ":3\r\n", ":2\r\n"]), ":3\r\n");
        assert_eq!(whole(Combine::Present, &["$-1\r\n", "$1\r\nk\r\n"]), "$1\r\nk\r\n");
        assert_eq!(whole(Combine::Present, &["_\r\n", "_\r\n"]), "_\r\n");
        assert_eq!(whole(Combine::Any, &["-NOTBUSY a\r\n", "+OK\r\n"]), "+OK\r\n");
        assert_eq!(whole(Combine::Any, &["-NOTBUSY a\r\n", "-NOTBUSY b\r\n"]), "-NOTBUSY a\r\n");
    }

    #[test]
    fn what_one_part_refuses_is_refused() {
        assert_eq!(whole(Combine::Sum, &[":1\r\n", "-ERR no\r\n"]), "-ERR no\r\n");
        assert_eq!(whole(Combine::Concatenated, &["-MASTERDOWN x\r\n", "*1\r\n:1\r\n"]), "-MASTERDOWN x\r\n");
        assert_eq!(whole(Combine::Silent, &["-NOPERM no\r\n"]), "broken");
        assert_eq!(whole(Combine::Sum, &["+OK\r\n", ":1\r\n"]), "broken", "it is no number");
        assert_eq!(whole(Combine::Sum, &[":18446744073709551615\r\n", ":1\r\n"]), "broken");
    }
}
