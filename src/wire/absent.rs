//! Whether a reply looks as if there were no such key. While hash slots move, a replica of a cluster says so of keys that are
//! elsewhere already, or still (redis issue 11312): such a reply is asked again at the primary, which knows better.
//!
//! In doubt it does: what is an error, cut off, or of a form that is not known here, looks absent. A reply is read up to the
//! first thing that a missing key could not have in it, in one pass, without recursion, however deeply it is nested.

use super::number::integer;
use crate::core::slots::Expected;
use crate::mutant;

/// Whether this reply, whole and with all its bytes, looks as if a key were missing.
pub fn looks_absent(reply: &[u8], expected: Expected) -> bool {
    if mutant::is("absent-unconfirmed") {
        return false;
    }
    let mut parts = Parts { rest: reply };
    match expected {
        Expected::Anything => parts.value().unwrap_or(true),
        Expected::EachElement => parts.any_element().unwrap_or(true),
        Expected::Count(keys) => parts.number().and_then(|n| u32::try_from(n).ok()).is_none_or(|n| n < keys),
        Expected::Unseen => true,
    }
}

/// What is left of a reply.
struct Parts<'a> {
    rest: &'a [u8],
}

/// The beginning of a value.
enum Part {
    /// A whole one; `absent`: a missing key could have it.
    Scalar { absent: bool },
    /// An aggregate of so many values.
    Aggregate(u64),
}

impl Parts<'_> {
    /// Whether nothing in the next value speaks for its key. `None`: in doubt.
    fn value(&mut self) -> Option<bool> {
        let (mut left, mut absent, mut outermost) = (1u64, true, true);
        while left > 0 {
            left -= 1;
            match self.next(!outermost)? {
                Part::Scalar { absent: this } => absent &= this,
                Part::Aggregate(values) => left = left.checked_add(values)?,
            }
            outermost = false;
        }
        Some(absent)
    }

    /// Whether nothing in one of the elements speaks for its key. `None`: in doubt.
    fn any_element(&mut self) -> Option<bool> {
        let Part::Aggregate(elements) = self.next(false)? else { return None };
        for _ in 0..elements {
            if self.value()? {
                return Some(true);
            }
        }
        Some(elements == 0)
    }

    fn number(&mut self) -> Option<i64> {
        let (b':', text) = self.line()? else { return None };
        integer(text)
    }

    fn next(&mut self, within: bool) -> Option<Part> {
        let (sigil, text) = self.line()?;
        let scalar = |absent| Some(Part::Scalar { absent });
        match sigil {
            b'_' => scalar(true),
            b'$' | b'*' if text == b"-1" => scalar(true),
            b'$' | b'=' => {
                let length = length(text)?;
                let payload = self.rest.get(..length)?;
                self.rest = self.rest.get(length..)?.strip_prefix(b"\r\n")?;
                // `HSCAN` of a missing key: the cursor 0, and nothing.
                scalar(payload.is_empty() || within && payload == b"0")
            }
            // -2 is the `TTL` of a missing key, -1 where `BITPOS` finds no 1 in it.
            b':' => scalar(matches!(integer(text)?, -2..=0)),
            b'#' => scalar(text != b"t"),
            b',' => scalar(text == b"0"),
            b'+' => scalar(text == b"none"),
            b'(' => scalar(false),
            b'*' | b'~' => Some(Part::Aggregate(length(text)? as u64)),
            b'%' => Some(Part::Aggregate((length(text)? as u64).checked_mul(2)?)),
            // An error, an attribute, a stream of unknown length, or out of step.
            _ => None,
        }
    }

    /// The type byte of the next value, and the rest of its line.
    fn line(&mut self) -> Option<(u8, &[u8])> {
        let (sigil, after) = self.rest.split_first()?;
        let end = memchr::memchr(b'\n', after)?;
        let text = after.get(..end)?.strip_suffix(b"\r")?;
        self.rest = after.get(end + 1..)?;
        Some((*sigil, text))
    }
}

fn length(digits: &[u8]) -> Option<usize> {
    integer(digits).and_then(|length| usize::try_from(length).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_missing_key_answers_looks_absent() {
        for reply in [
            "$-1\r\n",
            "*-1\r\n",
            "_\r\n",
            ":0\r\n",
            "*0\r\n",
            "%0\r\n",
            "~0\r\n",
            "$0\r\n\r\n",
            ":-2\r\n",
            ":-1\r\n",
            "+none\r\n",
            "#f\r\n",
            ",0\r\n",
            // HMGET, ZMSCORE; SMISMEMBER; HPTTL; HSCAN in RESP2 and RESP3; GEOPOS; XPENDING.
            "*2\r\n$-1\r\n$-1\r\n",
            "*2\r\n:0\r\n:0\r\n",
            "*2\r\n:-2\r\n:-2\r\n",
            "*2\r\n$1\r\n0\r\n*0\r\n",
            "*2\r\n$1\r\n0\r\n%0\r\n",
            "*2\r\n*-1\r\n_\r\n",
            "*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n",
            "*1\r\n*1\r\n*1\r\n*0\r\n",
        ] {
            assert!(looks_absent(reply.as_bytes(), Expected::Anything), "{reply:?}");
        }
    }

    #[test]
    fn what_a_key_has_does_not() {
        for reply in [
            "$1\r\nv\r\n",
            "$1\r\n0\r\n",
            "=5\r\ntxt:a\r\n",
            ":1\r\n",
            ":-3\r\n",
            "#t\r\n",
            ",0.5\r\n",
            "(0\r\n",
            "+string\r\n",
            "*2\r\n$-1\r\n$1\r\nv\r\n",
            "*2\r\n:0\r\n:1\r\n",
            "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n",
            "%1\r\n$1\r\na\r\n$0\r\n\r\n",
            "~1\r\n$1\r\na\r\n",
            "*2\r\n*0\r\n*1\r\n*1\r\n:4\r\n",
        ] {
            assert!(!looks_absent(reply.as_bytes(), Expected::Anything), "{reply:?}");
        }
    }

    #[test]
    fn of_many_keys_each_has_to_be_there() {
        let absent = |reply: &str| looks_absent(reply.as_bytes(), Expected::EachElement);
        // As a replica of 7.0.15 answers while one of two keys has gone.
        assert!(absent("*2\r\n$-1\r\n$1\r\nv\r\n"));
        assert!(absent("*2\r\n$1\r\nv\r\n_\r\n"));
        assert!(absent("*2\r\n$1\r\nv\r\n$0\r\n\r\n"), "there may be such a value, or no such key");
        assert!(absent("*0\r\n") && absent("*-1\r\n") && absent("$1\r\nv\r\n"));
        assert!(absent("*2\r\n*1\r\n:7\r\n*0\r\n"));
        assert!(!absent("*2\r\n$1\r\nv\r\n$1\r\n0\r\n"));
        assert!(!absent("*2\r\n*2\r\n$-1\r\n:7\r\n$1\r\nv\r\n"));
    }

    #[test]
    fn of_a_number_of_keys_none_is_missing() {
        let absent = |reply: &str, keys| looks_absent(reply.as_bytes(), Expected::Count(keys));
        assert!(absent(":1\r\n", 2) && absent(":0\r\n", 1) && absent(":-1\r\n", 1));
        assert!(!absent(":2\r\n", 2) && !absent(":3\r\n", 2));
        assert!(absent("$1\r\n2\r\n", 2) && absent(":x\r\n", 2) && absent("", 0));
    }

    #[test]
    fn in_doubt_it_is_absent() {
        for reply in [
            "",
            "$",
            "$5\r\nabc",
            "$1\r\nvv\r\n",
            "*2\r\n$1\r\nv\r\n",
            "*1\r\n",
            "-ERR no such key\r\n",
            "!3\r\nERR\r\n",
            "|1\r\n+a\r\n+b\r\n$1\r\nv\r\n",
            "$?\r\n;0\r\n",
            "*?\r\n$1\r\nv\r\n.\r\n",
            "*99999999999999999999\r\n",
            ">1\r\n+x\r\n",
            "HTTP/1.1 400\r\n",
        ] {
            assert!(looks_absent(reply.as_bytes(), Expected::Anything), "{reply:?}");
            assert!(looks_absent(reply.as_bytes(), Expected::EachElement), "{reply:?}");
        }
        assert!(looks_absent(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", Expected::Unseen));
    }

    #[test]
    fn however_deep_it_is_it_comes_to_an_end() {
        let tower = [b"*1\r\n".repeat(100_000).as_slice(), b":1\r\n"].concat();
        assert!(!looks_absent(&tower, Expected::Anything));
        assert!(looks_absent(&tower[..tower.len() - 4], Expected::Anything));
        let many = b"*9223372036854775807\r\n".repeat(4);
        assert!(looks_absent(&many, Expected::Anything), "more than can be counted");
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            noise in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(b"$*:_%~+-\r\n0123".to_vec())], 0..200),
        ) {
            for expected in [Expected::Anything, Expected::EachElement, Expected::Count(2)] {
                let _ = looks_absent(&noise, expected);
            }
        }
    }
}
