//! Marks: commands of our own among those that a client sends on a plain relay, whose replies nobody counts.
//!
//! A mark is a command that no server knows. Its name begins with 64 random bits and ends with a number. The server
//! answers that it does not know it, and repeats the name: that is found in the stream of replies, in the place that the
//! command had among the requests, and taken out of it. An unknown command is the only one that is always answered in
//! this one form: the name is looked up before the server asks whether the client has given a password, may run the
//! command, is subscribed, or has to wait for a script (`server.c`, `processCommand`, of 6.2, 7 and 8, and of Valkey).
//! `ECHO` would be refused in all these cases, with errors that don't say what they belong to.
//!
//! Under `CLIENT REPLY OFF` or `SKIP` a mark is not answered. The answer to a later one tells that it has been read.

use std::collections::VecDeque;

use memchr::memmem::Finder;

/// The marks of one connection that are not answered, each with what it stands for.
#[derive(Debug)]
pub(super) struct Marks<T> {
    /// What all names begin with.
    name: Finder<'static>,
    next: u64,
    /// By their numbers.
    outstanding: VecDeque<(u64, T)>,
}

/// What comes first in what was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// So many bytes that belong to no mark. What follows them may be the beginning of an answer to one.
    Plain(usize),
    /// An answer to a mark.
    Mark {
        /// Bytes before it.
        before: usize,
        /// Its own.
        len: usize,
        /// What the mark stands for.
        mark: Option<T>,
    },
}

/// What the server's answer says before the quotation mark and the name. The quotation marks of 6.2 are others.
const UNKNOWN: &[u8] = b"-ERR unknown command ";
const QUOTES: &[u8] = b"'`";

/// No answer to a mark is longer.
const LONGEST: usize = 256;

impl<T> Marks<T> {
    /// Of a connection; nobody else knows `key`.
    pub(super) fn new(key: u64) -> Self {
        let name = Finder::new(&format!("redweir:{key:016x}:")).into_owned();
        Self { name, next: 0, outstanding: VecDeque::new() }
    }

    /// Puts a mark; returns the name of the command.
    pub(super) fn put(&mut self, mark: T) -> Vec<u8> {
        let number = self.next;
        self.next += 1;
        debug_assert!(
            self.outstanding.back().is_none_or(|(last, _)| *last < number),
            "numbers of marks rise"
        );
        self.outstanding.push_back((number, mark));
        [self.name.needle(), number.to_string().as_bytes()].concat()
    }

    /// Those that are not answered, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.outstanding.iter().map(|(_, mark)| mark)
    }

    /// How many are not answered.
    pub(super) fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// Looks for the first answer in what was read. With it, the older marks are over: they will not be answered.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Found<T> {
        if self.outstanding.is_empty() {
            return Found::Plain(bytes.len());
        }
        let mut from = 0;
        while let Some(at) = self.name.find(&bytes[from..]).map(|at| from + at) {
            from = at + self.name.needle().len();
            let head = at.checked_sub(UNKNOWN.len() + 1).filter(|start| is_head(&bytes[*start..at]));
            let Some(before) = head else { continue };
            match memchr::memchr(b'\n', &bytes[from..]) {
                Some(rest) => {
                    let len = from + rest + 1 - before;
                    return Found::Mark { before, len, mark: self.take(&bytes[from..from + rest]) };
                }
                None if bytes.len() - before <= LONGEST => return Found::Plain(before),
                None => {}
            }
        }
        Found::Plain(bytes.len() - self.begun(bytes))
    }

    /// The mark with the number that `rest` begins with.
    fn take(&mut self, rest: &[u8]) -> Option<T> {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number: u64 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let over = self.outstanding.partition_point(|(known, _)| *known <= number);
        self.outstanding.drain(..over).next_back().filter(|(known, _)| *known == number).map(|(_, mark)| mark)
    }

    /// How many bytes at the end may be the beginning of an answer, up to the end of the name without its number.
    fn begun(&self, bytes: &[u8]) -> usize {
        let whole = UNKNOWN.len() + 1 + self.name.needle().len();
        let tail = &bytes[bytes.len().saturating_sub(whole - 1)..];
        let mut starts = memchr::memchr_iter(UNKNOWN[0], tail).map(|at| &tail[at..]);
        starts.find(|start| self.begins_with(start)).map_or(0, <[u8]>::len)
    }

    /// Whether an answer may begin so.
    fn begins_with(&self, start: &[u8]) -> bool {
        let Some((head, name)) = start.split_at_checked(UNKNOWN.len() + 1) else {
            return UNKNOWN.starts_with(start);
        };
        is_head(head) && self.name.needle().starts_with(name)
    }
}

fn is_head(bytes: &[u8]) -> bool {
    bytes.split_last().is_some_and(|(quote, text)| text == UNKNOWN && QUOTES.contains(quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 0x0123_4567_89ab_cdef;

    fn answer(name: &[u8], quote: &str) -> Vec<u8> {
        let name = String::from_utf8(name.to_vec()).unwrap();
        format!("-ERR unknown command {quote}{name}{quote}, with args beginning with: \r\n").into_bytes()
    }

    /// Feeds `stream` in the given pieces: what a client would get, with `<mark>` in the place of each answer.
    fn feed(marks: &mut Marks<&'static str>, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut out, mut held) = (Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                match marks.find(&held) {
                    Found::Plain(count) => {
                        out.extend(held.drain(..count));
                        break;
                    }
                    Found::Mark { before, len, mark } => {
                        out.extend(held.drain(..before));
                        held.drain(..len);
                        out.extend(format!("<{}>", mark.unwrap_or("?")).bytes());
                    }
                }
            }
            assert!(held.len() <= LONGEST, "more is held back than an answer is long");
        }
        out.extend(held);
        out
    }

    #[test]
    fn an_answer_is_found_wherever_the_stream_is_cut() {
        for quote in ["'", "`"] {
            let mut marks = Marks::new(KEY);
            let (one, two) = (marks.put("one"), marks.put("two"));
            let stream = [
                &b"+OK\r\n-ERR unknown command 'redweir:0123', with args beginning with: \r\n--ERR"[..],
                &answer(&one, quote),
                b"$3\r\n-ER\r\n",
                &answer(&two, quote),
                b":7\r\n-ERR unknown command `",
            ]
            .concat();
            let expected: &[u8] =
                b"+OK\r\n-ERR unknown command 'redweir:0123', with args beginning with: \r\n\
                --ERR<one>$3\r\n-ER\r\n<two>:7\r\n-ERR unknown command `";
            for first in 0..=stream.len() {
                for second in (first..=stream.len()).step_by(7) {
                    let mut marks = Marks::new(KEY);
                    let _ = (marks.put("one"), marks.put("two"));
                    let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                    assert_eq!(feed(&mut marks, &pieces), expected, "cut at {first} and {second}");
                    assert_eq!(marks.len(), 0);
                }
            }
            let mut marks = Marks::new(KEY);
            let _ = (marks.put("one"), marks.put("two"));
            assert_eq!(feed(&mut marks, &stream.chunks(1).collect::<Vec<_>>()), expected, "byte by byte");
        }
    }

    #[test]
    fn an_answer_settles_the_older_marks() {
        let mut marks = Marks::new(KEY);
        let names = ["one", "two", "three"].map(|mark| marks.put(mark));
        assert_eq!(feed(&mut marks, &[&answer(&names[1], "'")]), b"<two>");
        assert_eq!(marks.iter().copied().collect::<Vec<_>>(), ["three"]);
        assert_eq!(
            feed(&mut marks, &[&answer(&names[0], "'")]),
            b"<?>",
            "nobody else gets it, whatever it is"
        );
        assert_eq!(marks.len(), 1);
    }

    #[test]
    fn nothing_is_held_back_that_ends_a_reply_or_while_nothing_is_marked() {
        let mut marks = Marks::new(KEY);
        assert_eq!(marks.find(b"$1\r\n-"), Found::Plain(5));
        let name = marks.put("one");
        for whole in [&b"+OK\r\n"[..], b"$1\r\n-\r\n", b"-ERR unknown command '\r\n"] {
            assert_eq!(marks.find(whole), Found::Plain(whole.len()));
        }
        assert_eq!(marks.find(b"$1\r\n-"), Found::Plain(4));
        // The name alone, as a value that holds it would be.
        let quoted = [b"$40\r\n", &name[..], b"\r\n"].concat();
        assert_eq!(marks.find(&quoted), Found::Plain(quoted.len()));
        // No server says so much.
        let endless = [&answer(&name, "'")[..60], &b"x".repeat(LONGEST)].concat();
        assert_eq!(marks.find(&endless), Found::Plain(endless.len()));
    }
}
