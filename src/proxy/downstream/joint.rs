//! One reply out of several: a command that was asked in parts, at several primaries.
//!
//! Each part has a slot of its own in the client's queue, one behind the other. The parts' replies are kept until all are there;
//! the last slot gets what they come to, and the others nothing. An error of one of them is the reply to all.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

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
    /// The first that is no error, else the first error (`SCRIPT KILL`).
    Any,
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
        let is_error = |reply: &&BytesMut| matches!(reply.first(), Some(b'-' | b'!'));
        let error = self.replies.iter().find(is_error);
        match (error, self.combine) {
            (_, Combine::Unheard) | (None, Combine::Silent) => Some(BytesMut::new()),
            (_, Combine::Any) => {
                let done = self.replies.iter().find(|reply| !is_error(reply));
                done.or(error).cloned()
            }
            (Some(_), Combine::Silent) => None,
            (Some(error), _) => Some(error.clone()),
            (None, Combine::Last) => self.replies.into_iter().next_back(),
            (None, Combine::Sum) => {
                let numbers = self.replies.iter().map(|reply| number(reply, b":"));
                let sum = numbers.sum::<Option<u64>>()?;
                Some(BytesMut::from(format!(":{sum}\r\n").as_bytes()))
            }
            (None, Combine::Least) => {
                let all: Option<Vec<Vec<u64>>> = self.replies.iter().map(|reply| numbers(reply)).collect();
                let least = all?.into_iter().reduce(|mut least, other| {
                    least.truncate(other.len());
                    least.iter_mut().zip(other).for_each(|(least, other)| *least = other.min(*least));
                    least
                })?;
                let mut whole = BytesMut::from(format!("*{}\r\n", least.len()).as_bytes());
                for number in least {
                    whole.put_slice(format!(":{number}\r\n").as_bytes());
                }
                Some(whole)
            }
            (None, Combine::Concatenated) => {
                let mut elements = 0;
                for reply in &self.replies {
                    elements += number(reply, b"*").or_else(|| number(reply, b"~"))?;
                }
                let mut whole = BytesMut::from(format!("*{elements}\r\n").as_bytes());
                for reply in &self.replies {
                    let head = memchr::memchr(b'\n', reply)?;
                    whole.put_slice(&reply[head + 1..]);
                }
                Some(whole)
            }
        }
    }
}

/// An array of numbers.
fn numbers(reply: &[u8]) -> Option<Vec<u64>> {
    number(reply, b"*")?;
    let lines = reply.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
    lines.map(|line| number(line, b":")).collect()
}

/// The number in the first line of a reply.
fn number(reply: &[u8], sigil: &[u8]) -> Option<u64> {
    let text = reply.strip_prefix(sigil)?;
    let end = memchr::memchr(b'\r', text)?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
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
        assert_eq!(whole(Combine::Any, &["-NOTBUSY a\r\n", "+OK\r\n"]), "+OK\r\n");
        assert_eq!(whole(Combine::Any, &["-NOTBUSY a\r\n", "-NOTBUSY b\r\n"]), "-NOTBUSY a\r\n");
    }

    #[test]
    fn what_one_part_refuses_is_refused() {
        assert_eq!(whole(Combine::Sum, &[":1\r\n", "-ERR no\r\n"]), "-ERR no\r\n");
        assert_eq!(whole(Combine::Concatenated, &["-MASTERDOWN x\r\n", "*1\r\n:1\r\n"]), "-MASTERDOWN x\r\n");
        assert_eq!(whole(Combine::Silent, &["-NOPERM no\r\n"]), "broken");
        assert_eq!(whole(Combine::Sum, &["+OK\r\n", ":1\r\n"]), "broken", "it is no number");
    }
}
