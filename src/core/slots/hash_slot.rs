//! Which hash slot a key belongs to.

use std::fmt;

/// How many hash slots a cluster has (`CLUSTER_SLOTS`, cluster.h).
pub const HASH_SLOTS: u16 = 16_384;

/// A hash slot: a number below [`HASH_SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashSlot(u16);

impl HashSlot {
    /// The hash slot with this number; `None` beyond the last.
    pub const fn new(number: u16) -> Option<Self> {
        if number < HASH_SLOTS { Some(Self(number)) } else { None }
    }

    /// The hash slot of a key (cluster.c, `keyHashSlot`): of what stands between the first `{` and the first `}` behind it,
    /// if there is such a thing and it is not empty; else of the whole key.
    #[inline]
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) & (HASH_SLOTS - 1))
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its number, as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for HashSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hash slots that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotRange {
    first: HashSlot,
    last: HashSlot,
}

impl SlotRange {
    /// From `first` to `last`, both included; `None` if they stand the other way round.
    pub fn new(first: HashSlot, last: HashSlot) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first.
    pub const fn first(self) -> HashSlot {
        self.first
    }

    /// The last.
    pub const fn last(self) -> HashSlot {
        self.last
    }

    /// How many there are: at least one.
    pub const fn count(self) -> usize {
        self.last.index() - self.first.index() + 1
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = HashSlot> {
        (self.first.0..=self.last.0).map(HashSlot)
    }

    /// With the one behind its last, or as it is if `slot` is another.
    pub(super) fn extended(self, slot: HashSlot) -> Option<Self> {
        (slot.0 == self.last.0 + 1).then_some(Self { last: slot, ..self })
    }
}

impl From<HashSlot> for SlotRange {
    fn from(slot: HashSlot) -> Self {
        Self { first: slot, last: slot }
    }
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// What of a key is hashed.
#[inline]
fn hash_tag(key: &[u8]) -> &[u8] {
    if has_brace(key) { between_braces(key) } else { key }
}

/// Whether there is a `{` in it. Keys are short: eight bytes at a time, in place, is quicker than a call. The last eight may
/// be some that were looked at before.
#[inline]
fn has_brace(key: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    const BRACES: u64 = u64::from_ne_bytes([b'{'; 8]);
    let Some(last) = key.last_chunk::<8>() else { return key.contains(&b'{') };
    let (eights, _) = key.as_chunks::<8>();
    let among = |bytes: &[u8; 8]| {
        // Where a byte is `{`, and nowhere before the first of those, the topmost bit is set.
        let differs = u64::from_ne_bytes(*bytes) ^ BRACES;
        differs.wrapping_sub(ONES) & !differs & TOPS != 0
    };
    eights.iter().any(among) || among(last)
}

#[inline(never)]
fn between_braces(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let behind = &key[open + 1..];
    match memchr::memchr(b'}', behind) {
        None | Some(0) => key,
        Some(close) => &behind[..close],
    }
}

/// CRC-16/XMODEM (crc16.c): polynomial 0x1021, beginning with 0, nothing reflected.
/// Eight bytes at a time: what each adds is looked up by itself.
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let [one, two, three, four, five, six, seven, eight] = &TABLES;
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(0u16, |crc, bytes| {
        let [high, low] = crc.to_be_bytes();
        let [first, second, third, fourth, fifth, sixth, seventh, eighth] = bytes;
        eight[usize::from(high ^ first)]
            ^ seven[usize::from(low ^ second)]
            ^ six[usize::from(*third)]
            ^ five[usize::from(*fourth)]
            ^ four[usize::from(*fifth)]
            ^ three[usize::from(*sixth)]
            ^ two[usize::from(*seventh)]
            ^ one[usize::from(*eighth)]
    });
    rest.iter().fold(crc, |crc, byte| (crc << 8) ^ one[usize::from((crc >> 8) as u8 ^ byte)])
}

const POLYNOMIAL: u16 = 0x1021;

/// What a byte adds that is followed by no other, by one, and so on up to seven.
static TABLES: [[u16; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut followed_by = 0;
        while followed_by < tables.len() {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
                bit += 1;
            }
            tables[followed_by][byte] = crc;
            followed_by += 1;
        }
        byte += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_where_a_server_has_them() {
        // What Redis 7.0.15 answers to `CLUSTER KEYSLOT`.
        let cases: [(&str, u16); 11] = [
            ("", 0),
            ("123456789", 12_739),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("foo}{bar}", 5061),
            ("{}x", 10_595),
            ("a{b", 13_340),
            ("k3991", 93),
        ];
        for (key, slot) in cases {
            assert_eq!(HashSlot::of(key.as_bytes()).number(), slot, "{key}");
        }
    }

    #[test]
    fn a_range_has_a_first_and_a_last() {
        let slot = |number| HashSlot::new(number).unwrap();
        assert_eq!(HashSlot::new(HASH_SLOTS), None);
        assert_eq!(SlotRange::new(slot(7), slot(6)), None);
        let range = SlotRange::new(slot(7), slot(9)).unwrap();
        assert_eq!((range.count(), range.to_string().as_str()), (3, "7-9"));
        assert_eq!(range.iter().map(HashSlot::number).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(SlotRange::from(slot(16_383)).to_string(), "16383");
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_the_polynomial(key in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut crc = 0u32;
            for byte in &key {
                crc ^= u32::from(*byte) << 8;
                for _ in 0..8 {
                    crc <<= 1;
                    crc ^= if crc & 0x1_0000 == 0 { 0 } else { 0x1_1021 };
                }
            }
            prop_assert_eq!(u32::from(crc16(&key)), crc);
        }

        #[test]
        fn a_brace_is_found_wherever_it_is(key in prop::collection::vec(any::<u8>(), 0..40), at in 0usize..40) {
            prop_assert_eq!(has_brace(&key), key.contains(&b'{'));
            let mut with = key;
            with.insert(at.min(with.len()), b'{');
            prop_assert!(has_brace(&with));
        }

        #[test]
        fn keys_of_one_tag_are_together(
            tag in "[a-z}]{0,3}[a-z]{1,5}",
            before in "[a-z}]{0,5}",
            behind in "[a-z{}]{0,5}",
        ) {
            let tag = tag.replace('}', "");
            let key = format!("{before}{{{tag}}}{behind}");
            prop_assert_eq!(HashSlot::of(key.as_bytes()), HashSlot::of(tag.as_bytes()));
            prop_assert!(HashSlot::of(key.as_bytes()).number() < HASH_SLOTS);
        }
    }
}
