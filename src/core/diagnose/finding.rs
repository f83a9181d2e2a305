//! One thing that is found, and how a remedy is written.

use std::time::Duration;

use crate::core::diagnose::code::{Code, Severity};

/// What is found of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Whom it is about: its address, or `redweir`.
    pub node: String,
    /// For how long it has been so, at least, by what the servers tell.
    pub lasts: Duration,
    /// The values that show it.
    pub evidence: String,
    /// What to do about it: the command, where there is one.
    pub remedy: String,
}

impl Finding {
    /// Something that is an error, of which nobody tells since when.
    pub fn new(code: Code, severity: Severity, node: &str, evidence: String, remedy: String) -> Self {
        Self { code, severity, node: node.to_owned(), lasts: Duration::ZERO, evidence, remedy }
    }

    /// What it is, and of whom.
    pub fn title(&self) -> String {
        format!("{} at {}", self.code.name(), self.node)
    }

    /// All of it on one line.
    pub fn sentence(&self) -> String {
        let Self { evidence, remedy, .. } = self;
        format!("{}: {evidence}; remedy: {remedy}", self.title())
    }

    /// The servers tell that it has been so for so long.
    #[must_use]
    pub fn lasting(self, lasts: Duration) -> Self {
        Self { lasts, ..self }
    }
}

/// `redis-cli` for the node at this address (`host:port`, `[v6]:port`, `unix:/path`), without the password, which is
/// better given by `REDISCLI_AUTH`. With `--tls` where connections are made by TLS, which a Unix socket never has.
pub fn cli(node: &str, by_tls: bool) -> String {
    if let Some(path) = node.strip_prefix("unix:") {
        return format!("redis-cli -s {path}");
    }
    let tls = if by_tls { " --tls" } else { "" };
    match place(node) {
        Some((host, port)) => format!("redis-cli{tls} -h {host} -p {port}"),
        None => format!("redis-cli{tls} -h {node}"),
    }
}

/// The host, without brackets, and the port of an address.
pub fn place(node: &str) -> Option<(&str, &str)> {
    let (host, port) = node.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port))
}

/// How the node that `cli` leads to becomes a replica of the one at this address. Of a Unix socket no node can be one: there
/// the address is left to be filled in.
pub fn follow(cli: &str, primary: &str) -> String {
    match place(primary).filter(|_| !primary.starts_with("unix:")) {
        Some((host, port)) => format!("`{cli} REPLICAOF {host} {port}`"),
        None => format!("`{cli} REPLICAOF HOST PORT`, with the TCP address of {primary}"),
    }
}

/// Seconds in words, as few digits as tell.
pub fn seconds(span: Duration) -> String {
    let millis = span.as_millis();
    if millis < 10_000 {
        format!("{}.{} s", millis / 1000, millis % 1000 / 100)
    } else {
        format!("{} s", millis / 1000)
    }
}

/// Bytes in words.
pub fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} B"),
        10_240..10_485_760 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_can_be_pasted() {
        assert_eq!(cli("10.0.0.1:6379", false), "redis-cli -h 10.0.0.1 -p 6379");
        assert_eq!(cli("[::1]:6379", false), "redis-cli -h ::1 -p 6379");
        assert_eq!(cli("[::1]:6379", true), "redis-cli --tls -h ::1 -p 6379");
        for by_tls in [false, true] {
            assert_eq!(cli("unix:/run/redis.sock", by_tls), "redis-cli -s /run/redis.sock");
        }
        assert_eq!(
            follow("redis-cli -h a -p 1", "[fd00::2]:6380"),
            "`redis-cli -h a -p 1 REPLICAOF fd00::2 6380`"
        );
        assert_eq!(
            follow("redis-cli -h a -p 1", "unix:/run/r.sock"),
            "`redis-cli -h a -p 1 REPLICAOF HOST PORT`, with the TCP address of unix:/run/r.sock"
        );
    }

    #[test]
    fn numbers_have_no_more_digits_than_tell() {
        let ms = Duration::from_millis;
        assert_eq!([seconds(ms(0)), seconds(ms(1250)), seconds(ms(61_999))], ["0.0 s", "1.2 s", "61 s"]);
        assert_eq!([bytes(9), bytes(1 << 20), bytes(300 << 20)], ["9 B", "1024 KiB", "300 MiB"]);
    }
}
