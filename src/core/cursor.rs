//! Cursors that carry the process that issued them.
//!
//! A cursor of `SCAN` means something to one process only: bucket order depends on a seed that each process draws
//! (`dict.c`, `dictSetHashFunctionSeed`). Handed to another node, or to the same node after a restart, it is answered
//! without an error, and the scan is silently incomplete. So the process goes into the cursor: the first 16 bits of its
//! run ID, above the server's own cursor. The whole stays below 2^53, which is what a client may hold that keeps
//! numbers as floating point.
//!
//! It says nothing about who asked: a cursor is good on any connection, and on any proxy in front of the same nodes.
//! A full resync replaces the data but not the process, and what is there before and after it stays in its bucket, so
//! that the promise of `SCAN` (what is there from the first call to the last is returned) outlives it.

/// Bits of the server's own cursor: a table of 2^37 buckets would fill a terabyte with its pointers alone.
const OWN_BITS: u32 = 37;
const OWN: u64 = (1 << OWN_BITS) - 1;

/// Above any server's own cursor: the number of a shard where a scan of a cluster goes on from the beginning.
const BEGINS_BIT: u32 = 36;
const BEGINS: u64 = 1 << BEGINS_BIT;

/// What stands for a process in its cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u16);

impl Tag {
    /// The tag of the process with this run ID: its first four hexadecimal digits that are not all zero. `None` when
    /// there are none.
    pub fn of(run_id: &str) -> Option<Self> {
        let groups = run_id.as_bytes().chunks_exact(4).map_while(|digits| std::str::from_utf8(digits).ok());
        let mut tags = groups.map_while(|digits| u16::from_str_radix(digits, 16).ok());
        tags.find(|tag| *tag != 0).map(Self)
    }
}

/// A cursor as a client sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// `0`: a scan begins.
    Start,
    /// It names no process: the primary's, whichever that is.
    Bare,
    /// A scan of a cluster goes on at the shard of this number, from the beginning.
    BeginsAt(u16),
    /// The cursor `own` of this process.
    Of {
        /// The process.
        tag: Tag,
        /// As the server knows it.
        own: u64,
    },
}

impl Cursor {
    /// The shard of a cluster, the first being 0, where a scan goes on from the beginning: it has been through those before.
    pub fn begins_at(self) -> Option<usize> {
        let Self::BeginsAt(shard) = self else { return None };
        Some(usize::from(shard))
    }

    /// The cursor that says so.
    pub const fn beginning_at(shard: u16) -> u64 {
        BEGINS | shard as u64
    }

    /// Reads one. `None`: it is no number, and the server has its own words for that.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let number: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        Some(match ((number >> OWN_BITS) as u16, number & OWN) {
            _ if number == 0 => Self::Start,
            _ if number >> OWN_BITS > u64::from(u16::MAX) => Self::Bare,
            (0, own) if own >> 16 == BEGINS >> 16 => Self::BeginsAt(own as u16),
            (0, _) | (_, 0) => Self::Bare,
            (tag, own) => Self::Of { tag: Tag(tag), own },
        })
    }

    /// Marks the server's cursor with its process. `None`: it does not fit.
    pub fn mark(own: u64, tag: Tag) -> Option<u64> {
        (own <= OWN).then_some((u64::from(tag.0) << OWN_BITS) | own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_cursor_comes_back() {
        let tag = Tag::of("00000000b00bcafe000000000000000000000000").expect("has digits");
        assert_eq!(tag, Tag(0xb00b));
        for own in [1, 17, OWN] {
            let marked = Cursor::mark(own, tag).expect("fits");
            assert!(marked < 1 << 53, "{marked} is not exact as a floating point number");
            assert_eq!(Cursor::parse(marked.to_string().as_bytes()), Some(Cursor::Of { tag, own }));
        }
        assert_eq!(Cursor::mark(OWN + 1, tag), None);
    }

    #[test]
    fn other_cursors_are_left_to_the_primary() {
        assert_eq!(Cursor::parse(b"0"), Some(Cursor::Start));
        for bare in ["1", "137438953471", "137438953472", "18446744073709551615"] {
            assert_eq!(Cursor::parse(bare.as_bytes()), Some(Cursor::Bare), "{bare}");
        }
        for bad in ["", "x", "-1", "18446744073709551616", "1 "] {
            assert_eq!(Cursor::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn run_id_of_another_kind_gives_no_tag() {
        for bad in ["", "abc", "xyzw0123", "0000000000000000000000000000000000000000"] {
            assert_eq!(Tag::of(bad), None, "{bad}");
        }
    }
}
