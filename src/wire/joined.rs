//! One reply out of several whole ones, of which none is an error. `None`: they are none of the kind.

use std::collections::{BTreeMap, HashSet};

use bytes::{BufMut, BytesMut};

use crate::wire::say;

/// Numbers, added up.
pub fn sum(replies: &[BytesMut]) -> Option<BytesMut> {
    let all: Option<Vec<u64>> = replies.iter().map(|reply| number(reply, b":")).collect();
    let sum = sum_of(all?)?;
    Some(BytesMut::from(format!(":{sum}\r\n").as_bytes()))
}

/// Numbers: the greatest.
pub fn most(replies: &[BytesMut]) -> Option<BytesMut> {
    let all: Option<Vec<u64>> = replies.iter().map(|reply| number(reply, b":")).collect();
    Some(BytesMut::from(format!(":{}\r\n", all?.into_iter().max()?).as_bytes()))
}

/// Arrays of as many numbers each: of each place the least.
pub fn least(replies: &[BytesMut]) -> Option<BytesMut> {
    by_place(replies, |numbers| numbers.into_iter().min())
}

/// Arrays that differ in their numbers only: of each place all of theirs added up.
pub fn added(replies: &[BytesMut]) -> Option<BytesMut> {
    by_place(replies, sum_of)
}

/// Arrays: each element once.
pub fn distinct(replies: &[BytesMut]) -> Option<BytesMut> {
    let mut all: Vec<&[u8]> = Vec::new();
    for reply in replies {
        all.extend(elements(reply)?);
    }
    let mut known = HashSet::new();
    all.retain(|element| known.insert(*element));
    Some(array(all))
}

/// Arrays of whatever, one behind the other.
pub fn concatenated(replies: &[BytesMut]) -> Option<BytesMut> {
    let mut elements: u64 = 0;
    for reply in replies {
        elements = count(reply)?.checked_add(elements)?;
    }
    let mut whole = BytesMut::from(format!("*{elements}\r\n").as_bytes());
    for reply in replies {
        let head = memchr::memchr(b'\n', reply)?;
        whole.put_slice(&reply[head + 1..]);
    }
    Some(whole)
}

/// Replies to `INFO`: the first, with the keys of all in its keyspace section (server.c, `genRedisInfoString`).
pub fn keyspace(replies: &[BytesMut]) -> Option<BytesMut> {
    const HEAD: &str = "# Keyspace\r\n";
    let base = String::from_utf8_lossy(replies.first()?);
    let Some((before, after)) = base.split_once(HEAD) else { return replies.first().cloned() };
    let mut all: BTreeMap<u64, Counts> = BTreeMap::new();
    for reply in replies {
        for line in String::from_utf8_lossy(reply).split("\r\n") {
            if let Some((database, counts)) = counts(line) {
                let sum = all.entry(database).or_default();
                *sum = sum.with(counts);
            }
        }
    }
    let mut text = format!("{before}{HEAD}");
    for (database, Counts { keys, expires, ttl }) in all {
        let average = ttl.checked_div(expires).unwrap_or(0);
        let line = format!("db{database}:keys={keys},expires={expires},avg_ttl={average}\r\n");
        text.push_str(&line);
    }
    let rest: Vec<&str> = after.split("\r\n").skip_while(|line| counts(line).is_some()).collect();
    text.push_str(&rest.join("\r\n"));
    Some(BytesMut::from(say::append(text.as_bytes(), "").as_slice()))
}

/// What `INFO` says of one database.
#[derive(Clone, Copy, Default)]
struct Counts {
    keys: u64,
    expires: u64,
    /// Of all that expire together, in milliseconds.
    ttl: u64,
}

impl Counts {
    fn with(self, other: Self) -> Self {
        Self {
            keys: self.keys.saturating_add(other.keys),
            expires: self.expires.saturating_add(other.expires),
            ttl: self.ttl.saturating_add(other.ttl),
        }
    }
}

/// `db0:keys=1,expires=0,avg_ttl=0`
fn counts(line: &str) -> Option<(u64, Counts)> {
    let (database, fields) = line.strip_prefix("db")?.split_once(':')?;
    let field = |name: &str| -> u64 {
        let value = fields.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let expires = field("expires");
    let ttl = field("avg_ttl").saturating_mul(expires);
    Some((database.parse().ok()?, Counts { keys: field("keys"), expires, ttl }))
}

/// The array of the first, where in the place of a number stands what those of all come to.
fn by_place(replies: &[BytesMut], combine: impl Fn(Vec<u64>) -> Option<u64>) -> Option<BytesMut> {
    let all: Option<Vec<Vec<&[u8]>>> = replies.iter().map(|reply| elements(reply)).collect();
    let all = all?;
    let first = all.first()?;
    let of_place = |(at, element): (usize, &&[u8])| -> Option<Vec<u8>> {
        if !element.starts_with(b":") {
            return Some(element.to_vec());
        }
        let numbers: Option<Vec<u64>> = all.iter().map(|one| number(one.get(at)?, b":")).collect();
        Some(format!(":{}\r\n", combine(numbers?)?).into_bytes())
    };
    let whole: Option<Vec<Vec<u8>>> = first.iter().enumerate().map(of_place).collect();
    Some(array(whole?.iter().map(Vec::as_slice)))
}

/// The elements of an array of strings and numbers, each as it stands there.
fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let count = count(reply)?;
    let mut rest = &reply[memchr::memchr(b'\n', reply)? + 1..];
    let mut elements = Vec::new();
    for _ in 0..count {
        let line = memchr::memchr(b'\n', rest)? + 1;
        let text =
            number(rest, b"$").map_or(Some(0), |length| usize::try_from(length).ok()?.checked_add(2))?;
        let (element, after) = rest.split_at_checked(line.checked_add(text)?)?;
        elements.push(element);
        rest = after;
    }
    rest.is_empty().then_some(elements)
}

fn array<'a>(elements: impl IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>) -> BytesMut {
    let elements = elements.into_iter();
    let mut whole = BytesMut::from(format!("*{}\r\n", elements.len()).as_bytes());
    elements.for_each(|element| whole.put_slice(element));
    whole
}

fn sum_of(numbers: Vec<u64>) -> Option<u64> {
    numbers.into_iter().try_fold(0, u64::checked_add)
}

/// How many elements an array, or a set, has.
fn count(reply: &[u8]) -> Option<u64> {
    number(reply, b"*").or_else(|| number(reply, b"~"))
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

    fn info(body: &str) -> BytesMut {
        BytesMut::from(format!("${}\r\n{body}\r\n", body.len()).as_bytes())
    }

    #[test]
    fn the_keyspace_of_all_is_that_of_one_server() {
        let some = info("# Server\r\nx:1\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=100\r\n");
        let more =
            info("# Keyspace\r\ndb0:keys=4,expires=3,avg_ttl=20\r\ndb1:keys=1,expires=0,avg_ttl=0\r\n");
        let none = info("# Keyspace\r\n");
        let lines = "db0:keys=7,expires=4,avg_ttl=40\r\ndb1:keys=1,expires=0,avg_ttl=0\r\n";
        let joined = keyspace(&[some.clone(), more.clone(), none.clone()]).unwrap();
        assert_eq!(joined, info(&format!("# Server\r\nx:1\r\n\r\n# Keyspace\r\n{lines}")));
        assert_eq!(keyspace(&[none, some.clone(), more]).unwrap(), info(&format!("# Keyspace\r\n{lines}")));
        let other = info("# Server\r\nx:1\r\n");
        assert_eq!(keyspace(&[other.clone(), some]).unwrap(), other);
    }
}
