//! Reads that tell whether a key is there without telling its value. Each says that it is absent in a form of its own.

use std::io;

use crate::support::resp::Value;
use crate::support::rng::Rng;

/// What a read says of a string without expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    Absent,
    /// It is no answer to what was asked.
    Failed,
}

/// A command that reads a string.
const PROBES: [&str; 5] = ["EXISTS", "STRLEN", "TYPE", "TTL", "SUBSTR"];

/// Such a command by chance, for this key.
pub(crate) fn some_probe(rng: &mut Rng, key: &str) -> Vec<String> {
    let name = PROBES[rng.below(PROBES.len())];
    let words: &[&str] = if name == "SUBSTR" { &[name, key, "0", "0"] } else { &[name, key] };
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What the answer to such a command tells.
pub(crate) fn presence(command: &str, reply: &io::Result<Value>) -> Presence {
    match (command, reply) {
        ("EXISTS" | "STRLEN", Ok(Value::Int(0))) | ("TTL", Ok(Value::Int(-2))) => Presence::Absent,
        ("TYPE", Ok(kind)) if *kind == "none" => Presence::Absent,
        ("SUBSTR", Ok(Value::Bulk(bytes))) if bytes.is_empty() => Presence::Absent,
        ("EXISTS", Ok(Value::Int(1)))
        | ("TTL", Ok(Value::Int(-1)))
        | ("STRLEN", Ok(Value::Int(1..)))
        | ("SUBSTR", Ok(Value::Bulk(_))) => Presence::There,
        ("TYPE", Ok(kind)) if *kind == "string" => Presence::There,
        _ => Presence::Failed,
    }
}

mod tests {
    use super::*;
    use crate::support::Redis;

    #[test]
    fn probes_tell_what_is_there() {
        let server = Redis::start(&[]);
        let mut conn = server.connect();
        conn.cmd(&["SET", "there", "1:w:0"]);
        let mut rng = Rng::new(1);
        for _ in 0..50 {
            for (key, wanted) in [("there", Presence::There), ("absent", Presence::Absent)] {
                let words = some_probe(&mut rng, key);
                assert_eq!(presence(&words[0], &conn.try_cmd(&words)), wanted, "{words:?}");
            }
        }
        assert_eq!(presence("TTL", &conn.try_cmd(&["GET"])), Presence::Failed);
    }
}
