//! Command names in `deny-commands`: one that no server has is a mistake, and a command that was meant to be refused
//! would be let through.

use super::section::did_you_mean;
use crate::core::command::{CommandId, CommandTable};

/// The name in lower case, or why there is no such command. Modules' commands (with a dot) cannot be known here.
pub(super) fn denied(name: String) -> Result<String, Option<String>> {
    let table = CommandTable::builtin();
    if may_exist(&table, &name) { Ok(name) } else { Err(meant(&table, &name)) }
}

/// Whether some server may have a command of this name.
pub(super) fn may_exist(table: &CommandTable, name: &str) -> bool {
    name.contains('.') || NEWER.contains(&name) || all(table).any(|known| known == name)
}

/// The name that was probably meant, as help.
pub(super) fn meant(table: &CommandTable, name: &str) -> Option<String> {
    did_you_mean(name, all(table).chain(NEWER.iter().copied()))
}

/// Every name of the table.
pub(super) fn all(table: &CommandTable) -> impl Iterator<Item = &str> {
    (1..table.len()).map(|index| table.name(CommandId(index as u16)))
}

/// Commands of servers newer than the built-in table (Redis 7.0.15), up to Redis 8.6 and Valkey 9.1.
const NEWER: &[&str] = &[
    "client|capa",
    "client|import-source",
    "client|maint_notifications",
    "client|no-touch",
    "client|setinfo",
    "clusterscan",
    "cluster|cancelslotmigrations",
    "cluster|flushslot",
    "cluster|getslotmigrations",
    "cluster|migrateslots",
    "cluster|migration",
    "cluster|myshardid",
    "cluster|slot-stats",
    "cluster|syncslots",
    "commandlog",
    "commandlog|get",
    "commandlog|help",
    "commandlog|len",
    "commandlog|reset",
    "delex",
    "delifeq",
    "digest",
    "hexpire",
    "hexpireat",
    "hexpiretime",
    "hgetdel",
    "hgetex",
    "hotkeys",
    "hotkeys|get",
    "hotkeys|help",
    "hotkeys|reset",
    "hotkeys|start",
    "hotkeys|stop",
    "hpersist",
    "hpexpire",
    "hpexpireat",
    "hpexpiretime",
    "hpttl",
    "hsetex",
    "httl",
    "msetex",
    "script|show",
    "trimslots",
    "vadd",
    "vcard",
    "vdim",
    "vemb",
    "vgetattr",
    "vinfo",
    "vismember",
    "vlinks",
    "vrandmember",
    "vrange",
    "vrem",
    "vsetattr",
    "vsim",
    "waitaof",
    "xackdel",
    "xcfgset",
    "xdelex",
    "xidmprecord",
];

/// What `deny-commands` holds when it is not given: what ends, reconfigures or rewires a server behind the back of
/// those who run it, or would make Redweir's clients its replicas. Everything else is the business of the server's ACL.
pub(super) const DENIED: &[&str] = &[
    "acl|deluser",
    "acl|load",
    "acl|save",
    "acl|setuser",
    "bgrewriteaof",
    "bgsave",
    "client|pause",
    "client|unpause",
    "cluster|addslots",
    "cluster|addslotsrange",
    "cluster|bumpepoch",
    "cluster|cancelslotmigrations",
    "cluster|delslots",
    "cluster|delslotsrange",
    "cluster|failover",
    "cluster|flushslot",
    "cluster|flushslots",
    "cluster|forget",
    "cluster|meet",
    "cluster|migrateslots",
    "cluster|migration",
    "cluster|replicate",
    "cluster|reset",
    "cluster|saveconfig",
    "cluster|set-config-epoch",
    "cluster|setslot",
    "cluster|syncslots",
    "config|resetstat",
    "config|rewrite",
    "config|set",
    "debug",
    "failover",
    "migrate",
    "module|load",
    "module|loadex",
    "module|unload",
    "psync",
    "replconf",
    "replicaof",
    "save",
    "shutdown",
    "slaveof",
    "sync",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;

    #[test]
    fn the_default_names_commands_that_there_are() {
        for name in Security::default().deny_commands {
            assert_eq!(denied(name.clone()), Ok(name));
        }
    }

    #[test]
    fn a_mistake_is_told_with_what_was_meant() {
        assert_eq!(denied("shutdwn".to_owned()), Err(Some("did you mean `shutdown`?".to_owned())));
        assert_eq!(denied("config|sett".to_owned()), Err(Some("did you mean `config|set`?".to_owned())));
        assert_eq!(denied("zzzzzzzzzzzz".to_owned()), Err(None));
        for name in ["config", "config|set", "ft.create", "hexpire", "redweir"] {
            assert!(denied(name.to_owned()).is_ok(), "{name}");
        }
    }
}
