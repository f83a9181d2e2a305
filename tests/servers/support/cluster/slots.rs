//! Which slot a key is in, and keys of a slot.

use std::sync::OnceLock;

/// So many are there.
pub(crate) const SLOTS: u16 = 16384;

/// The slot of a key: CRC16 (XMODEM) of what stands in its first `{…}`, or of all of it.
pub(crate) fn slot(key: &str) -> u16 {
    let tag = key.find('{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.find('}').filter(|length| *length > 0).map(|length| &rest[..length])
    });
    crc16(tag.unwrap_or(key).as_bytes()) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| (crc << 1) ^ (0x1021 * (crc >> 15)))
    })
}

/// The `n`th key of a slot.
pub(crate) fn key_in(slot: u16, n: usize) -> String {
    static TAGS: OnceLock<Vec<String>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let (mut tags, mut left) = (vec![String::new(); usize::from(SLOTS)], SLOTS);
        for number in 0_u64.. {
            let tag = number.to_string();
            let place = &mut tags[usize::from(crc16(tag.as_bytes()) % SLOTS)];
            if place.is_empty() {
                *place = tag;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        tags
    });
    format!("{{{}}}:{n}", tags[usize::from(slot)])
}

mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_slots_that_they_are_made_for() {
        assert_eq!((crc16(b"123456789"), slot("foo{}{bar}")), (0x31c3, 8363));
        assert_eq!((slot("{user1000}.following"), slot("user1000")), (3443, 3443));
        for n in (0..SLOTS).step_by(7) {
            assert_eq!((slot(&key_in(n, 0)), slot(&key_in(n, 12))), (n, n));
        }
    }
}
