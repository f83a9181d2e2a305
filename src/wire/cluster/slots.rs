//! What a node says of its cluster where `CLUSTER NODES` is refused: `CLUSTER SLOTS` (cluster.c, `clusterReplyMultiBulkSlots`), and of
//! itself `CLUSTER MYID` and `CLUSTER INFO`.
//!
//! It does not tell which slots are open, nor the config epochs of others, nor who has no slots or has yet to sync. `SHARDS` tells
//! no more that counts, and not by which port a client with TLS comes in.

use redis_protocol::resp2::types::BytesFrame;

use super::answer::{ClusterError, MOST_NODES, Room, my_name, text};
use crate::core::address::Address;
use crate::core::slots::{Endpoint, HashSlot, NodeFlags, NodeLine, NodeName, NodesReport, SlotRange};
use crate::wire::info::Info;
use crate::wire::number::integer;

/// What the answers to `CLUSTER MYID`, `CLUSTER INFO` and `CLUSTER SLOTS` come to. If the node is none of those that `SLOTS` tells of, it
/// says nothing of itself.
pub fn by_slots(
    myid: &BytesFrame,
    info: &BytesFrame,
    slots: &BytesFrame,
) -> Result<NodesReport, ClusterError> {
    const LACKS: ClusterError = ClusterError::Lacks("slots");
    let (me, epoch) = (my_name(myid)?, my_epoch(info)?);
    let BytesFrame::Array(entries) = slots else { return Err(LACKS) };
    let (mut report, mut room) =
        (NodesReport { shows_open: false, ..NodesReport::default() }, Room::default());
    for entry in entries {
        let BytesFrame::Array(fields) = entry else { return Err(LACKS) };
        let [first, last, nodes @ ..] = fields.as_slice() else { return Err(LACKS) };
        let range = SlotRange::new(slot(first)?, slot(last)?).ok_or(LACKS)?;
        Room::take(&mut room.slots, range.count())?;
        let mut primary = None;
        for node in nodes {
            let (name, endpoint) = place(node)?;
            let known = report.lines.iter().position(|line| line.name == name);
            let at = match known {
                Some(at) => at,
                None if report.lines.len() < MOST_NODES => {
                    report.lines.push(line(name, endpoint, primary, (name == me).then_some(epoch)));
                    report.lines.len() - 1
                }
                None => return Err(ClusterError::TooManyNodes),
            };
            if primary.is_none() {
                report.lines[at].slots.push(range);
                primary = Some(name);
            }
        }
    }
    Ok(report)
}

fn line(name: NodeName, endpoint: Endpoint, master: Option<NodeName>, my_epoch: Option<u64>) -> NodeLine {
    NodeLine {
        name,
        endpoint,
        hostname: None,
        shard_id: None,
        flags: NodeFlags {
            myself: my_epoch.is_some(),
            primary: master.is_none(),
            replica: master.is_some(),
            ..NodeFlags::default()
        },
        master,
        ping_sent: 0,
        pong_received: 0,
        epoch: my_epoch.unwrap_or(0),
        linked: true,
        slots: Vec::new(),
        open: Vec::new(),
    }
}

/// `cluster_my_epoch`: the config epoch of the node, or of its primary.
fn my_epoch(info: &BytesFrame) -> Result<u64, ClusterError> {
    let mut lines = text(info)?.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.trim_ascii_end().strip_prefix(b"cluster_my_epoch:"));
    let epoch = value.and_then(integer).and_then(|epoch| u64::try_from(epoch).ok());
    epoch.ok_or(ClusterError::Lacks("cluster_my_epoch"))
}

fn slot(frame: &BytesFrame) -> Result<HashSlot, ClusterError> {
    let BytesFrame::Integer(number) = frame else { return Err(ClusterError::Lacks("slot")) };
    u16::try_from(*number).ok().and_then(HashSlot::new).ok_or(ClusterError::Lacks("slot"))
}

/// `[endpoint, port, id, …]`; the endpoint may be empty, `?`, or null (`addNodeToNodeReply`).
fn place(frame: &BytesFrame) -> Result<(NodeName, Endpoint), ClusterError> {
    const LACKS: ClusterError = ClusterError::Lacks("node");
    let BytesFrame::Array(fields) = frame else { return Err(LACKS) };
    let [host, BytesFrame::Integer(port), name, ..] = fields.as_slice() else { return Err(LACKS) };
    let port = u16::try_from(*port).map_err(|_| LACKS)?;
    let host = if *host == BytesFrame::Null { b"" } else { text(host)? };
    let host = std::str::from_utf8(host).map_err(|_| ClusterError::NotText)?;
    let endpoint = match (host, port) {
        (_, 0) | ("?", _) => Endpoint::Unknown,
        ("", port) => Endpoint::SameHost(port),
        (host, port) if host.len() <= Info::MOST_TEXT => {
            Endpoint::At(Address::announced(host, port).ok_or(LACKS)?)
        }
        _ => return Err(LACKS),
    };
    Ok((NodeName::parse(text(name)?).ok_or(ClusterError::Lacks("id"))?, endpoint))
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::decode::decode_bytes;

    use super::*;

    fn frame(text: &str) -> BytesFrame {
        let bytes = text.replace('\n', "\r\n").into_bytes().into();
        decode_bytes(&bytes).unwrap().unwrap().0
    }

    fn name(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    /// Of Redis 7.0, which adds metadata to each node; `b` has taken slots on both sides of those of `a`.
    fn answers(me: char) -> [BytesFrame; 3] {
        let node = |host: &str, port: u16, of: char| format!("*4\n{host}\n:{port}\n$40\n{}\n*0\n", name(of));
        let (a, b) = (node("$9\n127.0.0.1", 7001, 'a'), node("$-1", 7002, 'b'));
        let c = node("$1\n?", 7003, 'c');
        let slots = format!("*3\n*4\n:0\n:99\n{b}{c}*3\n:100\n:200\n{a}*4\n:201\n:16383\n{b}{c}");
        let info = "cluster_state:ok\r\ncluster_my_epoch:7\r\n";
        let info = BytesFrame::BulkString(info.as_bytes().into());
        [frame(&format!("$40\n{}\n", name(me))), info, frame(&slots)]
    }

    #[test]
    fn slots_tell_who_has_them_and_nothing_of_open_ones() {
        let [myid, info, slots] = answers('b');
        let report = by_slots(&myid, &info, &slots).unwrap();
        assert!(!report.shows_open);
        let shown = |line: &NodeLine| {
            let slots: Vec<String> = line.slots.iter().map(ToString::to_string).collect();
            (line.name.as_str().chars().next(), line.is_primary(), line.epoch, slots.join(" "))
        };
        let shown: Vec<_> = report.lines.iter().map(shown).collect();
        let of = |digit: char, primary, epoch, slots: &str| (Some(digit), primary, epoch, slots.to_owned());
        let expected =
            [of('b', true, 7, "0-99 201-16383"), of('c', false, 0, ""), of('a', true, 0, "100-200")];
        assert_eq!(shown, expected);
        assert_eq!(report.lines[1].master.map(|name| name.to_string()), Some(name('b')));
        let endpoints: Vec<&Endpoint> = report.lines.iter().map(|line| &line.endpoint).collect();
        let at = Endpoint::At(Address::tcp("127.0.0.1", 7001));
        assert_eq!(endpoints, [&Endpoint::SameHost(7002), &Endpoint::Unknown, &at]);
        assert_eq!(report.myself().map(|mine| mine.name.to_string()), Some(name('b')));
    }

    #[test]
    fn who_is_not_told_of_says_nothing_of_itself() {
        let [myid, info, slots] = answers('d');
        assert!(by_slots(&myid, &info, &slots).unwrap().myself().is_none());
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let [myid, info, slots] = answers('a');
        let none = frame("$0\n\n");
        assert!(by_slots(&none, &info, &slots).is_err() && by_slots(&myid, &none, &slots).is_err());
        for odd in [
            "*1\n*1\n:0\n",
            "*1\n:0\n",
            "*1\n*2\n:9\n:3\n",
            "*1\n*2\n:0\n:16384\n",
            "$1\nx\n",
            "*1\n*3\n:0\n:1\n*0\n",
        ] {
            assert!(by_slots(&myid, &info, &frame(odd)).is_err(), "{odd:?}");
        }
        let twice = "*2\n*2\n:0\n:16383\n*2\n:0\n:0\n";
        assert_eq!(by_slots(&myid, &info, &frame(twice)), Err(ClusterError::TooManySlots));
        assert_eq!(by_slots(&myid, &info, &frame("*0\n")).map(|report| report.lines.len()), Ok(0));
    }
}
