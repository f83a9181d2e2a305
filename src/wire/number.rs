//! The decimal numbers of RESP headers: read as strictly as Redis reads them, written as Redis writes them.

use bytes::{BufMut, BytesMut};

/// Reads a whole header number by the rules of `string2ll` (Redis, util.c): no sign but a minus, no leading
/// zero, no blank, no overflow. `None` when Redis would call it invalid.
pub fn integer(text: &[u8]) -> Option<i64> {
    if text.len() > LONGEST_INTEGER {
        return None;
    }
    if text == b"0" {
        return Some(0);
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    let mut magnitude: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// The length that stands at the front of `bytes` in canonical form, complete with its CRLF, and the index
/// behind that CRLF. `None` decides nothing: it sends the caller down the thorough path. Looks at no more
/// than [`QUICK_DIGITS`] bytes and a CRLF.
#[inline]
pub(super) fn quick_length(bytes: &[u8]) -> Option<(usize, usize)> {
    // Four bytes at once are looked at for their number once.
    match bytes.first_chunk() {
        Some(&[one @ b'0'..=b'9', b'\r', b'\n', _]) => Some((digit(one), 3)),
        Some(&[ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', b'\n']) => {
            Some((digit(ten) * 10 + digit(one), 4))
        }
        _ => match *bytes {
            [one @ b'0'..=b'9', b'\r', b'\n'] => Some((digit(one), 3)),
            [b'1'..=b'9', ..] => quick_long_length(bytes),
            _ => None,
        },
    }
}

/// Appends `sigil`, `value` in decimal and CRLF.
pub(super) fn put_header(out: &mut BytesMut, sigil: u8, value: usize) {
    let mut line = [0; 1 + 20 + 2];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut left = value;
    loop {
        at -= 1;
        line[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    at -= 1;
    line[at] = sigil;
    out.put_slice(&line[at..]);
}

fn quick_long_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(QUICK_DIGITS + 1).enumerate() {
        if !byte.is_ascii_digit() {
            let ends = byte == b'\r' && bytes.get(index + 1) == Some(&b'\n');
            return ends.then_some((value, index + 2));
        }
        value = value * 10 + digit(byte);
    }
    None
}

fn digit(byte: u8) -> usize {
    usize::from(byte - b'0')
}

/// `LONG_STR_SIZE` − 1 (Redis, util.h): the longest text of a 64-bit integer.
const LONGEST_INTEGER: usize = 20;

/// Nine digits hold every length up to 512 MiB and cannot overflow.
const QUICK_DIGITS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_as_strict_as_string2ll() {
        let good: &[(&str, i64)] = &[
            ("0", 0),
            ("7", 7),
            ("-1", -1),
            ("1024", 1024),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, value) in good {
            assert_eq!(integer(text.as_bytes()), Some(*value), "{text}");
        }
        for text in [
            "",
            "-",
            "+3",
            "03",
            "00",
            "-0",
            "-03",
            " 3",
            "3 ",
            "3a",
            "0x3",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "99999999999999999999",
            "000000000000000000001",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_quick_path_agrees_with_the_strict_one_or_abstains() {
        for text in ["0", "1", "9", "10", "99", "100", "65536", "536870912", "999999999"] {
            let line = format!("{text}\r\nrest");
            assert_eq!(
                quick_length(line.as_bytes()),
                Some((text.parse().unwrap(), text.len() + 2)),
                "{text} is an ordinary length"
            );
        }
        for line in [
            "",
            "1",
            "12",
            "12\r",
            "12\rx",
            "00\r\n",
            "01\r\n",
            "+1\r\n",
            "-1\r\n",
            "1a\r\n",
            "1234567890\r\n",
        ] {
            assert_eq!(quick_length(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn headers_are_written_in_canonical_decimal() {
        let mut out = BytesMut::new();
        for value in [0, 9, 10, 12_345, usize::MAX] {
            put_header(&mut out, b'$', value);
        }
        assert_eq!(out, "$0\r\n$9\r\n$10\r\n$12345\r\n$18446744073709551615\r\n");
    }
}
