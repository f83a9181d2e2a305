//! What a server says to a subscriber unasked, or when a subscription begins or ends (pubsub.c).

/// One of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// `ssubscribe`
    Subscribed {
        /// The shard channel.
        channel: &'a [u8],
    },
    /// `sunsubscribe`: it was asked to, or the slot of the channel is another primary's now.
    Unsubscribed {
        /// The shard channel; `None`: there was none.
        channel: Option<&'a [u8]>,
    },
    /// `smessage`
    OfShard,
    /// `message` or `pmessage`
    Message {
        /// Where it was published.
        channel: &'a [u8],
    },
    /// `subscribe`, `psubscribe`, `unsubscribe` or `punsubscribe`
    OfServer,
}

/// What a whole reply says, if it says one of these: an array, or a push where the client speaks RESP3.
pub fn said(reply: &[u8], resp3: bool) -> Option<Said<'_>> {
    let (aggregate, rest) = reply.split_first()?;
    if *aggregate != if resp3 { b'>' } else { b'*' } {
        return None;
    }
    let (count, rest) = line(rest)?;
    let (word, rest) = string(rest)?;
    let first = string(rest);
    let word = word?;
    if count != if word == b"pmessage" { b"4" } else { b"3" } {
        return None;
    }
    Some(match word {
        b"ssubscribe" => Said::Subscribed { channel: first?.0? },
        b"sunsubscribe" => Said::Unsubscribed { channel: first?.0 },
        b"smessage" => Said::OfShard,
        b"message" => Said::Message { channel: first?.0? },
        b"pmessage" => Said::Message { channel: string(first?.1)?.0? },
        b"subscribe" | b"psubscribe" | b"unsubscribe" | b"punsubscribe" => Said::OfServer,
        _ => return None,
    })
}

/// A bulk string, or nothing (`$-1`, `_`), and what is behind it.
fn string(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (head, rest) = line(bytes)?;
    if head == b"_" || head == b"$-1" {
        return Some((None, rest));
    }
    let length = std::str::from_utf8(head.strip_prefix(b"$")?).ok()?.parse::<usize>().ok()?;
    let text = rest.get(..length)?;
    Some((Some(text), rest.get(length..)?.strip_prefix(b"\r\n")?))
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\r', bytes)?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_subscriber_hears_is_told_apart() {
        let of = |text: &'static str| said(text.as_bytes(), text.starts_with('>'));
        let channel = b"ch".as_slice();
        assert_eq!(of("*3\r\n$10\r\nssubscribe\r\n$2\r\nch\r\n:1\r\n"), Some(Said::Subscribed { channel }));
        let left = Some(Said::Unsubscribed { channel: Some(channel) });
        assert_eq!(of(">3\r\n$12\r\nsunsubscribe\r\n$2\r\nch\r\n:0\r\n"), left);
        for none in ["*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n", ">3\r\n$12\r\nsunsubscribe\r\n_\r\n:0\r\n"]
        {
            assert_eq!(of(none), Some(Said::Unsubscribed { channel: None }));
        }
        assert_eq!(of("*3\r\n$8\r\nsmessage\r\n$2\r\nch\r\n$1\r\nm\r\n"), Some(Said::OfShard));
        assert_eq!(of("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1\r\nm\r\n"), Some(Said::Message { channel }));
        let by_pattern = "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$2\r\nch\r\n$1\r\nm\r\n";
        assert_eq!(of(by_pattern), Some(Said::Message { channel }));
        assert_eq!(of("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"), Some(Said::OfServer));
    }

    #[test]
    fn other_replies_are_none_of_these() {
        for text in [
            "+OK\r\n",
            "*0\r\n",
            "*1\r\n:1\r\n",
            "-ERR ssubscribe\r\n",
            "*2\r\n$4\r\npong\r\n$0\r\n\r\n",
            "*3\r\n$10\r\nssub",
        ] {
            assert_eq!(said(text.as_bytes(), false), None, "{text:?}");
        }
        // Who speaks RESP3 may have such an array as a value.
        assert_eq!(said(b"*3\r\n$10\r\nssubscribe\r\n$2\r\nch\r\n:1\r\n", true), None);
    }
}
