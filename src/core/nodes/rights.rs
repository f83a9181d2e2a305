//! What users may do at which node. Access rules are not replicated (`acl.c`): a replica may allow what the primary denies.
//!
//! A user reads at a replica only while its rules there are, word for word, those that it has at the primary, or while the
//! primary allows it everything. Whether one rule is narrower than another is not worked out: in doubt the primary answers.

use std::collections::BTreeMap;

use crate::core::command::alone::Alone;
use crate::core::nodes::node::{Node, NodeId};
use crate::mutant;

/// What one user may do, in the server's own words, without its passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    /// What `ACL LIST` says of it that bears on reads, in its order.
    pub words: String,
    /// Whoever connects acts as it without a password, if it is the default user.
    pub open: bool,
    /// It may run every command on every key.
    pub everything: bool,
}

/// What a node says of its users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rules {
    /// It does not show them: `ACL LIST` is refused.
    Hidden,
    /// It has no access rules: it is older than Redis 6.
    None,
    /// By user.
    Of(BTreeMap<Vec<u8>, AclRule>),
}

impl Rules {
    /// That of one user, if they are shown and there is such a user.
    pub fn of(&self, user: &[u8]) -> Option<&AclRule> {
        match self {
            Self::Of(rules) => rules.get(user),
            Self::Hidden | Self::None => None,
        }
    }

    /// Whether `user` may do no more under these rules than the primary's allow it.
    fn are_no_wider(&self, primary: &Self, user: &[u8]) -> bool {
        match (primary, primary.of(user)) {
            (Self::None, _) => true,
            (_, Some(rule)) => rule.everything || self.of(user).is_some_and(|ours| ours.words == rule.words),
            (_, None) => false,
        }
    }
}

/// Who may read at which replica, and what users may plainly do at the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Every user that the primary names.
    named: BTreeMap<Vec<u8>, Named>,
    /// The nodes, by their number, at which users may not read that the primary does not name.
    others: Vec<bool>,
    /// The primary does not show its rules.
    hidden: bool,
    newcomers: Option<bool>,
}

/// What is known of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    /// The nodes, by their number, at which it may not read. Empty: it may at all.
    bars: Vec<bool>,
    /// At the primary it may do everything.
    everything: bool,
    /// It may plainly use `CLIENT` there, with all subcommands.
    client: bool,
    /// It may plainly use `SELECT` there.
    select: bool,
    /// It may plainly use each of the commands that need no server.
    alone: [bool; Alone::ALL.len()],
}

impl Rights {
    /// By the rules that the nodes have shown last, and those that the primary has, or had. As long as no primary has shown any
    /// at all, there are no rights: every replica decides for itself.
    pub fn new(nodes: &[Node], primary: NodeId, of_primary: &Rules) -> Self {
        let bars = |user: &[u8]| -> Vec<bool> {
            let wider = |node: &Node| {
                let rules = node.rules.as_deref().unwrap_or(&Rules::Hidden);
                node.is_member() && node.id != primary && !rules.are_no_wider(of_primary, user)
            };
            let bars: Vec<bool> = nodes.iter().map(wider).collect();
            if bars.contains(&true) { bars } else { Vec::new() }
        };
        let known = |user: &[u8], rule: &AclRule| Named {
            bars: bars(user),
            everything: rule.everything,
            client: plainly_allow(&rule.words, "client", CLIENT_MAY_BE_IN),
            select: plainly_allow(&rule.words, "select", SELECT_MAY_BE_IN),
            alone: Alone::ALL.map(|which| plainly_allow(&rule.words, which.name(), ALONE_MAY_BE_IN)),
        };
        let named = match of_primary {
            Rules::Of(rules) => rules.iter().map(|(user, rule)| (user.clone(), known(user, rule))).collect(),
            Rules::Hidden | Rules::None => BTreeMap::new(),
        };
        let newcomers = of_primary.of(b"default").map(|rule| rule.open);
        // No user is called that.
        Self { named, others: bars(b""), hidden: *of_primary == Rules::Hidden, newcomers }
    }

    /// The nodes, by their number, at which `user` may not read; a missing entry is one at which it may.
    pub fn bars(&self, user: &[u8]) -> &[bool] {
        if mutant::is("rights-ignored") {
            return &[];
        }
        self.named.get(user).map_or(&self.others, |named| &named.bars)
    }

    /// Whether the primary is known to allow `user` this command, whatever stands behind its name. In doubt it is not.
    pub fn plainly_allow(&self, user: &[u8], command: &[u8]) -> bool {
        self.named.get(user).is_some_and(|named| match () {
            () if command.eq_ignore_ascii_case(b"client") => named.client,
            () if command.eq_ignore_ascii_case(b"select") => named.select,
            () => named.everything,
        })
    }

    /// Whether `user` may have an answer to a command that needs no server, as far as the primary has shown that. Where it
    /// shows no rules, nothing speaks against it.
    pub fn allow_alone(&self, user: &[u8], which: Alone) -> bool {
        self.named.is_empty() || self.named.get(user).is_some_and(|named| named.alone[which as usize])
    }

    /// Whether somebody who gives no password may come in, as far as the primary has shown that.
    pub const fn let_newcomers_in(&self) -> Option<bool> {
        self.newcomers
    }

    /// Whether the primary does not show its rules: every user is barred from every replica.
    pub const fn are_hidden(&self) -> bool {
        self.hidden
    }

    /// The users that may read at the primary, and not at `node`.
    pub fn barred_from(&self, node: NodeId) -> impl Iterator<Item = &[u8]> {
        let is_barred = move |bars: &[bool]| bars.get(node.index()).copied().unwrap_or(false);
        self.named.iter().filter(move |(_, named)| is_barred(&named.bars)).map(|(user, _)| user.as_slice())
    }

    /// Whether some user that the primary knows is barred from `node`.
    pub fn bar_somebody_from(&self, node: NodeId) -> bool {
        self.hidden || self.barred_from(node).next().is_some()
    }
}

impl AclRule {
    /// Whether it allows `command|subcommand`, as far as can be seen without knowing which commands are in which category: whatever
    /// category is taken away after it was given may be one of those.
    pub fn plainly_allows(&self, command: &str) -> bool {
        let (name, mut allowed) = (command.split('|').next().unwrap_or_default(), false);
        for word in self.words.split(' ').take_while(|word| !word.starts_with('(')) {
            let word = word.to_ascii_lowercase();
            let is_about_it = |rest: &str| rest == name || rest == command;
            if word == "+@all" || word.strip_prefix('+').is_some_and(is_about_it) {
                allowed = true;
            } else if word.strip_prefix('-').is_some_and(|rest| is_about_it(rest) || rest.starts_with('@')) {
                allowed = false;
            }
        }
        allowed
    }
}

/// Whether rules allow a command with all its subcommands, as far as can be seen without knowing which commands are in which
/// category: that differs from server to server. The last word that is about the command counts (`acl.c`, `ACLSetSelector`).
fn plainly_allow(words: &str, command: &str, may_be_in: &[&str]) -> bool {
    let mut allowed = false;
    // Selectors stand at the end, and add to what comes before them.
    for word in words.split(' ').take_while(|word| !word.starts_with('(')) {
        let word = word.to_ascii_lowercase();
        if word == "+@all" || word.strip_prefix('+') == Some(command) {
            allowed = true;
        } else if let Some(denied) = word.strip_prefix('-') {
            let (name, _) = denied.split_once('|').unwrap_or((denied, ""));
            let is_about_it =
                name.strip_prefix('@').map_or(name == command, |category| may_be_in.contains(&category));
            allowed &= !is_about_it || mutant::is("doubt-is-leave");
        }
    }
    allowed
}

/// Categories that `CLIENT`, or one of its subcommands, is in on some server. Before Redis 7.0 all of it is `dangerous`.
const CLIENT_MAY_BE_IN: &[&str] = &["all", "connection", "admin", "dangerous", "slow"];

/// The same of what needs no server.
const ALONE_MAY_BE_IN: &[&str] = &["all", "connection", "fast"];

/// The same of `SELECT`. Before Redis 7.0 it is `keyspace`.
const SELECT_MAY_BE_IN: &[&str] = &["all", "connection", "keyspace", "fast"];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::address::Address;

    fn rule(words: &str) -> AclRule {
        AclRule { words: words.to_owned(), open: true, everything: words == "on ~* +@all" }
    }

    fn rules(users: &[(&str, &str)]) -> Rules {
        Rules::Of(users.iter().map(|(user, words)| (user.as_bytes().to_vec(), rule(words))).collect())
    }

    /// A primary and a replica.
    fn rights(primary: Option<Rules>, replica: Option<Rules>) -> Option<Rights> {
        let node = |id| Node::new(NodeId(id), Address::tcp("n", 1), 0);
        let mut nodes = vec![node(0), node(1)];
        nodes[1].rules = replica.map(Arc::new);
        Some(Rights::new(&nodes, NodeId(0), &primary?))
    }

    const FREE: &str = "on ~* +@all";
    const NARROW: &str = "on ~pub:* +@read";

    #[test]
    fn a_subcommand_is_allowed_by_itself_by_its_command_or_by_all() {
        let allows = |words: &str| {
            let rule = AclRule { words: words.to_owned(), open: false, everything: false };
            rule.plainly_allows("slowlog|get")
        };
        for words in ["on ~* +@all", "on -@all +slowlog|get", "on -@all +slowlog", "on +@all -slowlog|reset"]
        {
            assert!(allows(words), "{words}");
        }
        for words in
            ["on -@all +slowlog|len", "on +@all -@dangerous", "on +@all -slowlog", "on -@all (+slowlog)", ""]
        {
            assert!(!allows(words), "{words}");
        }
    }

    #[test]
    fn a_user_reads_where_its_rules_are_those_of_the_primary() {
        let of = |primary, replica| {
            let rights = rights(Some(rules(&[("u", primary)])), Some(rules(&[("u", replica)]))).unwrap();
            rights.bars(b"u") == [false, true]
        };
        assert!(!of(NARROW, NARROW));
        assert!(of(NARROW, FREE), "wider");
        assert!(of(NARROW, "on ~pub:* +get"), "narrower, perhaps");
        assert!(of("off ~* +@all", FREE), "shut out at the primary");
        assert!(!of(FREE, NARROW), "nothing is wider than everything");
    }

    #[test]
    fn whoever_the_primary_does_not_name_reads_at_no_replica() {
        let both = rules(&[("u", FREE)]);
        let rights = rights(Some(both.clone()), Some(both)).unwrap();
        assert_eq!(rights.bars(b"v"), [false, true]);
        assert!(rights.plainly_allow(b"u", b"info") && !rights.plainly_allow(b"v", b"info"));
        assert!(rights.bars(b"u").is_empty() && !rights.bar_somebody_from(NodeId(1)));
    }

    #[test]
    fn what_is_not_plainly_allowed_is_in_doubt() {
        let of = |words| {
            let rights = rights(Some(rules(&[("u", words)])), None).unwrap();
            [b"CLIENT", b"select"].map(|command| rights.plainly_allow(b"u", command))
        };
        for (words, plain) in [
            (FREE, [true, true]),
            ("on ~* +@all -debug -@scripting", [true, true]),
            ("on ~* +@all -@dangerous", [false, true]),
            ("on ~* +@all -@keyspace", [true, false]),
            ("on ~* +@all -client|setname", [false, true]),
            ("on ~* +@all -client|setname +client", [true, true]),
            ("on ~* +@all -select", [true, false]),
            ("on ~* +@all -@connection", [false, false]),
            ("on ~* +@all -@connection +client +select", [true, true]),
            ("on ~* +@all -@all", [false, false]),
            ("on ~* -@all +client|setname", [false, false]),
            // What is in a category differs from server to server.
            ("on ~* -@all +@connection", [false, false]),
            ("on ~* -@all (~x -@all +@all +client)", [false, false]),
            ("on ~+@all -@all +clients", [false, false]),
            ("on ~* -@all +@all -CLIENT", [false, true]),
        ] {
            assert_eq!(of(words), plain, "{words}");
        }
    }

    #[test]
    fn what_is_hidden_proves_nothing() {
        let some = || Some(rules(&[("free", FREE), ("u", NARROW)]));
        let hidden = rights(Some(Rules::Hidden), some()).unwrap();
        assert!(hidden.are_hidden() && hidden.bars(b"free") == [false, true]);
        for replica in [None, Some(Rules::Hidden), Some(Rules::None)] {
            let rights = rights(some(), replica).unwrap();
            assert!(rights.bars(b"free").is_empty());
            assert_eq!(rights.bars(b"u"), [false, true]);
            assert_eq!(rights.barred_from(NodeId(1)).collect::<Vec<_>>(), [b"u"]);
        }
    }

    #[test]
    fn without_rules_at_the_primary_nobody_is_barred() {
        assert!(rights(None, Some(rules(&[("u", NARROW)]))).is_none());
        let old = rights(Some(Rules::None), Some(rules(&[("u", NARROW)]))).unwrap();
        assert!(old.bars(b"u").is_empty());
    }
}
