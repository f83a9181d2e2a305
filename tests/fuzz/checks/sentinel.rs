//! Rules for what sentinels answer, on which it rests who is asked at all.

use redis_protocol::resp2::types::BytesFrame;
use redweir::core::address::Address;
use redweir::wire::answer;
use redweir::wire::sentinel::{self, MOST_LISTED};

use super::mend::mend;

/// What is made of an answer stands in it, word by word, and never names a place where nobody can be.
pub(crate) fn check(input: &[u8]) {
    [input, &mend(input)].into_iter().for_each(check_answer);
}

fn check_answer(input: &[u8]) {
    sentinel::is_in_tilt(input);
    let Ok(answer) = answer::decode(input) else { return };
    if let Ok((epoch, address)) = sentinel::primary(&answer) {
        assert_eq!(value(&answer, "config-epoch").and_then(|text| text.parse().ok()), Some(epoch));
        assert_is_at(&address, value(&answer, "ip"), value(&answer, "port"));
    }
    if let Ok(address) = sentinel::address(&answer) {
        let BytesFrame::Array(parts) = &answer else { panic!("an address of no array") };
        assert_eq!(parts.len(), 2);
        assert_is_at(&address, word(&parts[0]), word(&parts[1]));
    }
    if let Ok(listed) = sentinel::replicas(&answer) {
        let BytesFrame::Array(lines) = &answer else { panic!("replicas of no array") };
        assert!(lines.len() == listed.len() && listed.len() <= MOST_LISTED, "none is passed over");
        for (line, found) in lines.iter().zip(&listed) {
            let flags: Vec<&str> = value(line, "flags").expect("it has flags").split(',').collect();
            assert_eq!(found.down, flags.contains(&"s_down") || flags.contains(&"o_down"));
            assert_eq!(found.disconnected, flags.contains(&"disconnected"));
            if let Some(address) = &found.address {
                assert_is_at(address, value(line, "ip"), value(line, "port"));
            }
            if let Some((host, port)) = &found.master {
                assert_eq!(value(line, "master-host"), Some(host.as_str()));
                assert_eq!(value(line, "master-port").and_then(|text| text.parse().ok()), Some(*port));
                assert!(*port != 0 && !host.is_empty());
            }
        }
    }
    for name in ["", "main", "\u{e4} b"] {
        if sentinel::is_switch_of(&answer, name) {
            let BytesFrame::Array(parts) = &answer else { panic!("a message of no array") };
            assert!(parts.len() == 3 && word(&parts[0]) == Some("message"));
            assert!(word(&parts[2]).is_some_and(|text| text.starts_with(name)));
        }
    }
}

/// Whether anything is made of it.
pub(crate) fn is_read(input: &[u8]) -> bool {
    answer::decode(&mend(input)).is_ok_and(|answer| {
        sentinel::primary(&answer).is_ok()
            || sentinel::address(&answer).is_ok()
            || sentinel::replicas(&answer).is_ok_and(|listed| !listed.is_empty())
    })
}

fn assert_is_at(address: &Address, host: Option<&str>, port: Option<&str>) {
    let Address::Tcp { host: found, port: at } = address else {
        panic!("{address} is no place in a network")
    };
    assert_eq!(port.and_then(|port| port.parse().ok()), Some(*at));
    assert!(*at != 0 && !found.is_empty(), "{address}");
    assert_eq!(host.map(|host| host.trim_matches(['[', ']'])), Some(found.as_str()));
}

/// The first value of this name.
fn value<'a>(fields: &'a BytesFrame, name: &str) -> Option<&'a str> {
    let BytesFrame::Array(items) = fields else { return None };
    let pair = items.chunks_exact(2).find(|pair| word(&pair[0]) == Some(name))?;
    word(&pair[1])
}

fn word(frame: &BytesFrame) -> Option<&str> {
    match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}
