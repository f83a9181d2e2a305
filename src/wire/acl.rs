//! What `ACL LIST` says (`acl.c`, `ACLDescribeUser`): one line for each user, `user NAME on #HASH ~pattern +@read`.

use std::collections::BTreeMap;

use redis_protocol::resp2::types::BytesFrame;

use crate::core::nodes::rights::{AclRule, Rules};

/// Reads the answer. A node that does not know the command has no access rules, one that refuses it hides them, and so
/// does one whose answer makes no sense.
pub fn parse(answer: &BytesFrame) -> Rules {
    let lines = match answer {
        BytesFrame::Array(lines) => lines,
        BytesFrame::Error(text) if text.starts_with("ERR unknown command") => return Rules::None,
        _ => return Rules::Hidden,
    };
    let line = |line: &BytesFrame| match line {
        BytesFrame::BulkString(text) | BytesFrame::SimpleString(text) => parse_line(text),
        _ => None,
    };
    lines.iter().map(line).collect::<Option<BTreeMap<_, _>>>().map_or(Rules::Hidden, Rules::Of)
}

fn parse_line(line: &[u8]) -> Option<(Vec<u8>, AclRule)> {
    // Names and patterns have no spaces, and may be any bytes.
    let mut words = line.split(|byte| *byte == b' ');
    if words.next()? != b"user" {
        return None;
    }
    let name = words.next().filter(|name| !name.is_empty())?;
    let words: Vec<&[u8]> = words.collect();
    let open = words.contains(&&b"on"[..]) && words.contains(&&b"nopass"[..]);
    let mut kept: Vec<&[u8]> = words.into_iter().filter(|word| bears_on_reads(word)).collect();
    kept.chunk_by_mut(|one, next| is_of_a_command(one) && is_of_a_command(next)).for_each(put_in_order);
    let everything = kept == [&b"on"[..], b"~*", b"+@all"];
    // One byte, one character: other bytes stay other words.
    let words = kept.join(&b' ').iter().map(|byte| char::from(*byte)).collect();
    Some((name.to_vec(), AclRule { words, open, everything }))
}

/// How somebody proves who it is does not, as the primary has found that right; nor do channels, which are the primary's.
/// Servers differ in how they write both.
fn bears_on_reads(word: &[u8]) -> bool {
    !matches!(
        word,
        b"" | b"nopass"
            | b"sanitize-payload"
            | b"skip-sanitize-payload"
            | b"resetchannels"
            | [b'#' | b'&', ..]
    )
}

/// `+name`, `-name|subcommand`
fn is_of_a_command(word: &[u8]) -> bool {
    let [b'+' | b'-', name @ ..] = word else { return false };
    let is_of_a_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"|._-".contains(byte);
    !name.is_empty() && name.iter().all(is_of_a_name)
}

/// Rules of single commands, by name. Before 7.2 each process writes them in an order of its own
/// (`ACLDescribeUserCommandRulesSingleCommands` goes through a hash table), every command once, and a container before its
/// subcommands: what they say is the same in any order that keeps that. Where they are not like that, they stay as they are.
fn put_in_order(rules: &mut [&[u8]]) {
    let name = |rule: &&[u8]| rule.get(1..).unwrap_or_default().to_vec();
    let places: BTreeMap<Vec<u8>, usize> = rules.iter().map(name).zip(0..).collect();
    let follows_its_container = |(name, place): (&Vec<u8>, &usize)| {
        let container = name.split(|byte| *byte == b'|').next().and_then(|container| places.get(container));
        container.is_none_or(|container| container <= place)
    };
    if places.len() == rules.len() && places.iter().all(follows_its_container) {
        rules.sort_by_key(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[&str]) -> Rules {
        let bulk = |line: &&str| BytesFrame::BulkString(line.as_bytes().to_vec().into());
        parse(&BytesFrame::Array(lines.iter().map(bulk).collect()))
    }

    fn rule(line: &str) -> AclRule {
        let Rules::Of(rules) = list(&[line]) else { panic!("{line}") };
        rules.into_values().next().unwrap()
    }

    #[test]
    fn versions_write_the_same_rules_in_their_own_way() {
        for line in [
            "user default on nopass ~* +@all",
            "user default on nopass ~* &* +@all",
            "user default on nopass sanitize-payload ~* &* +@all",
            "user default on #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b ~* resetchannels +@all",
        ] {
            let rule = rule(line);
            assert!(rule.everything, "{line}");
            assert_eq!(rule.words, "on ~* +@all");
        }
    }

    #[test]
    fn whatever_takes_something_away_is_not_everything() {
        for line in [
            "user u off nopass ~* &* +@all",
            "user u on nopass resetchannels -@all",
            "user u on nopass ~* &* +@all -debug",
            "user u on nopass ~* &* -@all +@all",
            "user u on nopass %R~* &* +@all",
            "user u on nopass ~a ~* &* +@all",
            "user u on nopass ~* &* -@all (~* &* +@all)",
        ] {
            assert!(!rule(line).everything, "{line}");
        }
        assert_ne!(rule("user u on ~a +get").words, rule("user u on ~a +get +set").words);
        assert_ne!(rule("user u on ~a b +get").words, rule("user u on ~ab +get").words);
    }

    #[test]
    fn each_server_has_an_order_of_its_own_for_single_commands() {
        let same = |one: &str, other: &str| rule(one).words == rule(other).words;
        assert!(same(
            "user u on ~* &* +@all -@connection +echo -debug -config +ping -client +client|id",
            "user u on ~* &* +@all -@connection -client +client|id -debug +ping -config +echo",
        ));
        // What is said of one command, or of a container after its subcommand, holds in the order in which it is said.
        assert!(!same("user u on ~* +get -get", "user u on ~* -get +get"));
        assert!(!same("user u on ~* -client +client|id", "user u on ~* +client|id -client"));
        assert!(!same("user u on ~* +get -@all", "user u on ~* -@all +get"));
        assert!(!same("user u on ~* -get -@read -set", "user u on ~* -set -@read -get"));
        assert!(!same("user u on ~* -get", "user u on ~* +get"));
    }

    #[test]
    fn what_is_refused_is_hidden_and_what_is_unknown_is_not_there() {
        let error = |text: &str| parse(&BytesFrame::Error(text.into()));
        assert_eq!(error("ERR unknown command `ACL`, with args beginning with: `LIST`, "), Rules::None);
        assert_eq!(error("NOPERM this user has no permissions to run the 'acl|list' command"), Rules::Hidden);
        assert_eq!(list(&["default on nopass"]), Rules::Hidden);
        assert_eq!(list(&["user "]), Rules::Hidden);
        assert_eq!(parse(&BytesFrame::Integer(1)), Rules::Hidden);
    }
}
