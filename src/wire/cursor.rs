//! The cursor at the head of a reply to `SCAN`, `SSCAN`, `HSCAN` or `ZSCAN`.

/// The cursor of a reply `*2 $n cursor …`, and where what follows it begins. `None`: the bytes, which may be the beginning
/// of a reply only, are no such reply (`db.c`, `scanGenericCommand`).
pub fn of_reply(reply: &[u8]) -> Option<(u64, usize)> {
    let rest = reply.strip_prefix(b"*2\r\n$")?;
    let line = memchr::memchr(b'\r', rest)?;
    let length: usize = std::str::from_utf8(&rest[..line]).ok()?.parse().ok()?;
    let begin = line + 2;
    let digits = rest.get(begin..begin.checked_add(length)?)?;
    let end = begin + length + 2;
    if rest.get(begin - 1) != Some(&b'\n') || rest.get(end - 2..end) != Some(b"\r\n") {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, end + 5))
}

/// The head of such a reply, with another cursor.
pub fn head(cursor: u64) -> Vec<u8> {
    let digits = cursor.to_string();
    format!("*2\r\n${}\r\n{digits}\r\n", digits.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_found_and_replaced() {
        let reply = b"*2\r\n$3\r\n288\r\n*1\r\n$1\r\nk\r\n";
        let (cursor, rest) = of_reply(reply).expect("is one");
        assert_eq!((cursor, &reply[rest..]), (288, &b"*1\r\n$1\r\nk\r\n"[..]));
        assert_eq!(head(cursor), reply[..rest]);
    }

    #[test]
    fn other_replies_are_left_alone() {
        let others: [&[u8]; 8] = [
            b"",
            b"-ERR invalid cursor\r\n",
            b"*2\r\n$",
            b"*2\r\n$3\r\n28",
            b"*2\r\n$3\r\n288",
            b"*2\r\n$3\r\nabc\r\n*0\r\n",
            b"*2\r\n$18446744073709551615\r\n1\r\n*0\r\n",
            b"*3\r\n$1\r\n0\r\n*0\r\n",
        ];
        for reply in others {
            assert_eq!(of_reply(reply), None, "{}", reply.escape_ascii());
        }
    }
}
