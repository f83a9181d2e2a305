//! What Redweir answers to `CLUSTER` where it poses as a cluster (`present-as`): one node, which has all slots, so that a client that
//! knows nothing else than clusters sends everything there.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use crate::core::argv::Args;
use crate::core::slots::{HASH_SLOTS, HashSlot};
use crate::wire::say;

/// The node that is shown.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its name, and that of its shard: 40 hexadecimal characters.
    pub name: &'a str,
    /// Where the client has reached it.
    pub address: &'a str,
}

impl Presented<'_> {
    /// The answer to `CLUSTER …`, `READONLY`, `READWRITE` or `ASKING`.
    pub fn answer<A: Args + ?Sized>(self, args: &A, is_resp3: bool) -> Vec<u8> {
        if !args.arg(0).eq_ignore_ascii_case(b"cluster") {
            return say::OK.to_vec();
        }
        let word = args.arg(1).to_ascii_lowercase();
        match (word.as_slice(), args.count()) {
            (b"slots", 2) => self.slots(is_resp3),
            (b"shards", 2) => self.shards(is_resp3),
            (b"nodes", 2) => say::text(&self.nodes(), is_resp3),
            (b"info", 2) => say::text(&info(), is_resp3),
            (b"myid" | b"myshardid", 2) => say::maybe_bulk(Some(self.name.as_bytes()), is_resp3),
            (b"keyslot", 3) => say::integer(i64::from(HashSlot::of(args.arg(2)).number())),
            (b"links", 2) | (b"replicas" | b"slaves", 3) => b"*0\r\n".to_vec(),
            (b"count-failure-reports", 3) => say::integer(0),
            _ => say::unknown_subcommand("cluster", args.arg(1)),
        }
    }

    fn place(&self) -> (&str, u16) {
        let (host, port) = self.address.rsplit_once(':').unwrap_or((self.address, ""));
        (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or(0))
    }

    /// `clusterReplyMultiBulkSlots` (cluster.c).
    fn slots(&self, is_resp3: bool) -> Vec<u8> {
        let ((host, port), mut out) = (self.place(), BytesMut::new());
        out.put_slice(format!("*1\r\n*3\r\n:0\r\n:{}\r\n*4\r\n", HASH_SLOTS - 1).as_bytes());
        say::bulk(&mut out, host.as_bytes());
        out.put_slice(format!(":{port}\r\n").as_bytes());
        say::bulk(&mut out, self.name.as_bytes());
        out.put_slice(if is_resp3 { b"%0\r\n" } else { b"*0\r\n" });
        out.to_vec()
    }

    /// `clusterReplyShards` (cluster.c).
    fn shards(&self, is_resp3: bool) -> Vec<u8> {
        let ((host, port), mut out) = (self.place(), BytesMut::new());
        let map = |pairs: usize| {
            if is_resp3 { format!("%{pairs}\r\n") } else { format!("*{}\r\n", pairs * 2) }
        };
        out.put_slice(format!("*1\r\n{}", map(2)).as_bytes());
        say::bulk(&mut out, b"slots");
        out.put_slice(format!("*2\r\n:0\r\n:{}\r\n", HASH_SLOTS - 1).as_bytes());
        say::bulk(&mut out, b"nodes");
        out.put_slice(format!("*1\r\n{}", map(7)).as_bytes());
        say::bulk(&mut out, b"id");
        say::bulk(&mut out, self.name.as_bytes());
        say::bulk(&mut out, b"port");
        out.put_slice(format!(":{port}\r\n").as_bytes());
        for (key, value) in [("ip", host), ("endpoint", host), ("role", "master")] {
            say::bulk(&mut out, key.as_bytes());
            say::bulk(&mut out, value.as_bytes());
        }
        say::bulk(&mut out, b"replication-offset");
        out.put_slice(b":0\r\n");
        say::bulk(&mut out, b"health");
        say::bulk(&mut out, b"online");
        out.to_vec()
    }

    /// `clusterGenNodeDescription` (cluster.c).
    fn nodes(&self) -> String {
        let (host, port) = self.place();
        format!("{} {host}:{port}@{port} myself,master - 0 0 1 connected 0-{}\n", self.name, HASH_SLOTS - 1)
    }
}

/// `genClusterInfoString` (cluster.c), without what is counted on the bus.
fn info() -> String {
    let mut text = "cluster_state:ok\r\n".to_owned();
    let all = u64::from(HASH_SLOTS);
    for (name, value) in [
        ("slots_assigned", all),
        ("slots_ok", all),
        ("slots_pfail", 0),
        ("slots_fail", 0),
        ("known_nodes", 1),
        ("size", 1),
        ("current_epoch", 1),
        ("my_epoch", 1),
    ] {
        let _ = write!(text, "cluster_{name}:{value}\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cluster::nodes;
    use redis_protocol::resp2::types::BytesFrame;

    const NAME: &str = "0123456789012345678901234567890123456789";

    fn answer(words: &str, is_resp3: bool) -> String {
        let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let shown = Presented { name: NAME, address: "10.0.0.7:6380" };
        String::from_utf8(shown.answer(args.as_slice(), is_resp3)).unwrap()
    }

    #[test]
    fn one_node_has_all_slots() {
        let slots = answer("CLUSTER SLOTS", false);
        let node = format!("*4\r\n$8\r\n10.0.0.7\r\n:6380\r\n$40\r\n{NAME}\r\n*0\r\n");
        assert_eq!(slots, format!("*1\r\n*3\r\n:0\r\n:16383\r\n{node}"));
        assert!(
            answer("cluster shards", true).starts_with("*1\r\n%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n")
        );
        let text = Presented { name: NAME, address: "[::1]:6380" }.nodes();
        let report = nodes(&BytesFrame::BulkString(text.into())).unwrap();
        let mine = report.myself().unwrap();
        assert!(mine.is_primary() && mine.slots.iter().map(|range| range.count()).sum::<usize>() == 16_384);
        assert_eq!(answer("CLUSTER KEYSLOT a", false), ":15495\r\n");
        assert!(answer("CLUSTER INFO", false).contains("cluster_state:ok"));
        assert_eq!(answer("ASKING", false), "+OK\r\n");
        assert!(answer("CLUSTER FAILOVER", false).starts_with("-ERR"));
    }
}
