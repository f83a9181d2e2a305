//! What needs neither data nor a server: `PING`, `ECHO` and `TIME`. A node answers them, if one does; Redweir else.

use std::time::Duration;

use bytes::BytesMut;

use crate::core::argv::Args;
use crate::core::command::alone::{Alone, alone};
use crate::wire::say;

/// The reply, in both protocols; `now` is the time since 1970. `None`: it is none of them.
pub fn answer<A: Args + ?Sized>(args: &A, now: Duration) -> Option<Vec<u8>> {
    let mut out = BytesMut::new();
    match (alone(args)?, args.count()) {
        (Alone::Ping, 1) => return Some(say::PONG.to_vec()),
        (Alone::Ping | Alone::Echo, 2) => say::bulk(&mut out, args.arg(1)),
        (Alone::Time, 1) => {
            let (seconds, micros) = (now.as_secs().to_string(), now.subsec_micros().to_string());
            say::command(&mut out, &[seconds.as_bytes(), micros.as_bytes()]);
        }
        (which, _) => return Some(say::wrong_arity(which.name())),
    }
    Some(out.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Option<String> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let answer = answer(args.as_slice(), Duration::from_micros(12_000_034))?;
        Some(String::from_utf8(answer).expect("ASCII"))
    }

    #[test]
    fn they_are_answered_as_a_server_does() {
        assert_eq!(reply("PING").unwrap(), "+PONG\r\n");
        assert_eq!(reply("ping a").unwrap(), "$1\r\na\r\n");
        assert_eq!(reply("Echo ab").unwrap(), "$2\r\nab\r\n");
        assert_eq!(reply("TIME").unwrap(), "*2\r\n$2\r\n12\r\n$2\r\n34\r\n");
        for line in ["PING a b", "ECHO", "TIME x"] {
            assert!(reply(line).unwrap().starts_with("-ERR wrong number of arguments for '"), "{line}");
        }
        assert!(reply("GET k").is_none());
    }
}
