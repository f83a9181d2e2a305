//! What a replica answers differently though it has applied every write: what is not replicated, and what each node
//! makes up for itself. The proxy must ask the primary. And keys that a server does not name.
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use crate::support::rng::Rng;
use crate::support::{Server, Setup, Topology, Value, eventually, ms, secs};

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn with(topology: &Topology, consistency: &str) -> crate::support::Proxy {
    Setup::of(topology).policy("default", &format!("consistency = \"{consistency}\"")).start()
}

/// Each of these reads through the proxy is what the primary says, and not what the replica says.
fn only_the_primary_knows(topology: &Topology, reads: &[&str]) {
    topology.await_sync();
    for consistency in ["eventual", "fenced", "strong"] {
        let proxy = with(topology, consistency);
        for read in reads {
            let (ours, theirs) = (topology.primary.cmd(&words(read)), topology.replicas[0].cmd(&words(read)));
            assert!(!ours.is_error(), "{read}: {ours:?}");
            assert_ne!(ours, theirs, "{read}: then this test shows nothing");
            assert_eq!(proxy.cmd(&words(read)), ours, "{read}, {consistency}");
        }
    }
}

/// The pending entries without the time that passes.
fn deliveries(reply: &Value) -> Vec<(String, String, i64)> {
    let entries = reply.items().iter().map(Value::items);
    entries.map(|entry| (entry[0].text(), entry[1].text(), entry[3].int())).collect()
}

#[test]
fn how_often_an_entry_was_delivered_is_what_the_primary_says() {
    let topology = Topology::start(1);
    for consistency in ["fenced", "strong"] {
        let proxy = with(&topology, consistency);
        let mut conn = proxy.connect();
        let key = format!("stream-{consistency}");
        let xreadgroup = ["XREADGROUP", "GROUP", "g", "c", "STREAMS", key.as_str()];
        assert_eq!(conn.cmd(&["XADD", &key, "1-1", "f", "v"]), "1-1");
        assert_eq!(conn.cmd(&["XGROUP", "CREATE", &key, "g", "0"]), "OK");
        conn.cmd(&[&xreadgroup[..], &[">"]].concat());
        for _ in 0..3 {
            conn.cmd(&[&xreadgroup[..], &["0"]].concat());
        }
        topology.await_sync();
        let pending = ["XPENDING", key.as_str(), "g", "-", "+", "10"];
        let replica = deliveries(&topology.replicas[0].cmd(&pending));
        let expected = deliveries(&topology.primary.cmd(&pending));
        assert_eq!(expected[0].2, 4);
        assert_ne!(expected, replica, "then this test shows nothing");
        for _ in 0..20 {
            assert_eq!(deliveries(&conn.cmd(&pending)), expected, "{consistency}");
            assert_eq!(conn.cmd(&["DUMP", &key]), topology.primary.cmd(&["DUMP", &key]), "{consistency}");
        }
    }
}

#[test]
fn what_modules_do_not_replicate_is_what_the_primary_says() {
    let mut topology = Topology::start_as(Server::Redis74, 0);
    let mut primary = topology.primary.connect();
    primary.cmd(&words("TOPK.RESERVE top 5 8 3 0.9"));
    // Both would begin with the same numbers if the replica had seen all of it.
    for item in 0..100 {
        primary.cmd(&["TOPK.ADD", "top", &item.to_string()]);
    }
    topology.add_replica(&[]);
    primary.cmd(&words("TDIGEST.CREATE digest COMPRESSION 10"));
    let mut rng = Rng::new(1);
    let replica = &topology.replicas[0];
    let differs = |read: &str| topology.primary.cmd(&words(read)) != replica.cmd(&words(read));
    let reads = ["TOPK.LIST top WITHCOUNT", "TDIGEST.INFO digest"];
    eventually("the nodes differ", secs(10), || {
        let items: Vec<String> = (0..200).map(|_| rng.below(50).to_string()).collect();
        let items: Vec<&str> = items.iter().map(String::as_str).collect();
        primary.cmd(&[&["TOPK.ADD", "top"], items.as_slice()].concat());
        primary.cmd(&[&["TDIGEST.ADD", "digest"], &items[..11]].concat());
        // Compresses it here.
        primary.cmd(&words("TDIGEST.QUANTILE digest 0.5"));
        topology.await_sync();
        reads.iter().all(|read| differs(read))
    });
    only_the_primary_knows(&topology, &reads);
}

#[test]
fn indexes_are_the_primarys() {
    let topology = Topology::start_as(Server::Redis74, 1);
    let (primary, replica) = (&topology.primary, &topology.replicas[0]);
    primary.cmd(&words("HSET doc:1 t hello"));
    primary.cmd(&words("FT.CREATE index PREFIX 1 doc: SCHEMA t TEXT"));
    let proxy = with(&topology, "eventual");
    let search = words("FT.SEARCH index hello NOCONTENT");
    eventually("it is indexed", secs(5), || primary.cmd(&search).items()[0] == 1);
    topology.await_sync();
    // A replica obeys, as all these call themselves read-only.
    assert_eq!(proxy.cmd(&words("FT.ALIASADD alias index")), "OK");
    assert_eq!(proxy.cmd(&words("FT.DICTADD dictionary word")), 1);
    topology.await_sync();
    for server in [primary, &replica.server] {
        assert_eq!(server.cmd(&words("FT.DICTDUMP dictionary")).items().len(), 1);
    }
    eventually("the alias is known to both", secs(5), || {
        let alias = words("FT.SEARCH alias hello NOCONTENT");
        [primary, &replica.server].iter().all(|server| !server.cmd(&alias).is_error())
    });
    for _ in 0..20 {
        assert_eq!(proxy.cmd(&search).items()[0], 1);
    }
}

#[test]
fn every_document_of_json_mget_is_fenced() {
    let topology = Topology::start_as(Server::Redis74, 1);
    let proxy = with(&topology, "fenced");
    let mut conn = proxy.connect();
    assert_eq!(conn.cmd(&words("JSON.SET a $ 0")), "OK");
    eventually("the replica answers for the first", secs(5), || {
        conn.cmd(&words("JSON.GET a")).text() == "0" && topology.replicas[0].calls("json.get") > 0
    });
    topology.lag(0, ms(300));
    for n in 0..20 {
        let value = n.to_string();
        assert_eq!(conn.cmd(&["JSON.SET", "b", "$", &value]), "OK");
        let read = conn.cmd(&words("JSON.MGET a b $"));
        assert_eq!(read.items()[1].text(), format!("[{n}]"));
    }
}

#[test]
fn a_session_does_not_go_back_behind_what_a_pattern_showed_it() {
    let topology = Topology::start(1);
    let proxy = with(&topology, "session");
    topology.primary.cmd(&words("RPUSH list 1"));
    topology.primary.cmd(&words("SET weight_1 0"));
    topology.await_sync();
    topology.lag(0, ms(300));
    let mut conn = proxy.connect();
    for n in 1..=5 {
        let value = n.to_string();
        assert_eq!(topology.primary.cmd(&["SET", "weight_1", &value]), "OK");
        // What may be about any key is asked of the primary then, which alone has this.
        assert_eq!(conn.cmd(&["SET", "own", &value]), "OK");
        let sorted = conn.cmd(&words("SORT_RO list BY weight_* GET weight_*"));
        assert_eq!(sorted.items()[0].text(), value);
        assert_eq!(conn.cmd(&["GET", "weight_1"]).text(), value, "after it was seen");
    }
}
