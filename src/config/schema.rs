//! The names of all tables and keys. An unknown one is refused; the reference file must have every one.

/// One table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name: `upstream`, or `policy.*` for one per policy. Empty for the top level.
    pub name: &'static str,
    /// What may stand in it.
    pub keys: &'static [&'static str],
    /// What may stand in it in a later version, and is refused in this one.
    pub later: &'static [&'static str],
}

/// Every table.
pub const TABLES: &[Table] = &[
    Table {
        name: "",
        keys: &["listen", "admin", "upstream", "policy", "route", "stream", "proxy", "security", "log"],
        later: &[],
    },
    Table { name: "listen", keys: &["address", "policy", "unixsocketperm", "reuse-port", "tls"], later: &[] },
    Table { name: "listen.tls", keys: &["cert", "key", "client-ca"], later: &[] },
    Table { name: "admin", keys: &["address"], later: &[] },
    Table {
        name: "upstream",
        keys: &[
            "primary",
            "replicas",
            "username",
            "password",
            "password-file",
            "poll-interval",
            "info-interval",
            "probe-timeout",
            "connect-timeout",
            "write-hold",
            "fence-interval",
            "max-exclusive-connections",
            "exclusive-wait",
            "address-map",
            "zones",
            "sentinel",
            "cluster",
            "tls",
        ],
        later: &[],
    },
    Table { name: "upstream.tls", keys: &["ca", "cert", "key", "server-name"], later: &[] },
    Table {
        name: "upstream.sentinel",
        keys: &["master-name", "addresses", "username", "password-file", "tls"],
        later: &[],
    },
    Table {
        name: "upstream.cluster",
        keys: &["addresses", "split-writes", "keyless-scripts", "present-as"],
        later: &[],
    },
    Table { name: "upstream.sentinel.tls", keys: &["ca", "cert", "key", "server-name"], later: &[] },
    Table {
        name: "policy.*",
        keys: &[
            "consistency",
            "max-lag",
            "max-lag-bytes",
            "replica-serve-stale-data",
            "max-stale",
            "when-behind",
            "wait-timeout",
        ],
        later: &[],
    },
    Table { name: "route", keys: &["commands", "keys", "users", "client-names", "policy"], later: &[] },
    Table { name: "stream", keys: &["source", "fence-slots"], later: &[] },
    Table {
        name: "proxy",
        keys: &[
            "workers",
            "max-clients",
            "client-output-buffer-limit",
            "reply-budget",
            "timeout",
            "client-handshake-timeout",
            "max-memory",
            "primary-read-limit",
            "share-reads",
            "drain-timeout",
            "lame-duck",
            "maint-notifications",
            "zone",
            "zone-limit",
            "session-scope",
        ],
        later: &[],
    },
    Table { name: "security", keys: &["deny-commands", "replica-acl"], later: &[] },
    Table { name: "log", keys: &["level", "format"], later: &[] },
];

/// The table that has this key, if exactly one has it.
pub fn home_of(key: &str) -> Option<&'static Table> {
    let mut homes = TABLES.iter().filter(|table| !table.name.is_empty() && table.keys.contains(&key));
    homes.next().filter(|_| homes.next().is_none())
}

/// The name that was probably meant: the nearest, if it is near at all or one of the two is short for the other. Case
/// and `_` for `-` don't count.
pub fn nearest<'n>(found: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let plain = found.to_lowercase().replace(['_', ' '], "-");
    let scored = names.into_iter().map(|name| (strsim::damerau_levenshtein(&plain, name), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    let close = distance <= (name.len().max(plain.len()) / 3).max(1);
    let short = plain.len().min(name.len()) >= 3 && (plain.starts_with(name) || name.starts_with(&plain));
    (close || short).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["max-lag", "max-lag-bytes", "consistency"];
        assert_eq!(nearest("max_lag", names), Some("max-lag"));
        assert_eq!(nearest("MaxLag", names), Some("max-lag"));
        assert_eq!(nearest("max-lga", names), Some("max-lag"));
        assert_eq!(nearest("consistensy", names), Some("consistency"));
        assert_eq!(nearest("timeout", names), None);
        assert_eq!(nearest("information", ["error", "info"]), Some("info"));
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn a_key_in_the_wrong_table_finds_its_home() {
        assert_eq!(home_of("max-lag").map(|t| t.name), Some("policy.*"));
        assert!(home_of("address").is_none(), "two tables have it");
        assert!(home_of("nonsense").is_none());
    }
}
