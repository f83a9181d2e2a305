//! A long reply is passed on while it comes in: who has read its beginning knows that the write has happened.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::corners::{Tally, at_replicas, await_service, hold, release, share};
use crate::support::{Conn, Setup, Topology, eventually, secs, sleep_ms};

/// Longer than all buffers between the primary and the client together.
const LONG: usize = 32 * 1024 * 1024;

/// A write with a long reply.
struct Written {
    /// Before it, on the same connection; each has a short reply.
    before: &'static [&'static [&'static str]],
    write: &'static [&'static str],
    /// How the reply begins, once the write has happened.
    begins: &'static str,
    /// Shows whether it has.
    read: &'static [&'static str],
    shows: &'static str,
}

const WRITTEN: [Written; 5] = [
    Written {
        before: &[&["SET", "k", "old"], &["MULTI"], &["SET", "k", "new"], &["GET", "long"]],
        write: &["EXEC"],
        begins: "*2\r\n+OK\r\n",
        read: &["GET", "k"],
        shows: "new",
    },
    Written {
        before: &[&["SETRANGE", "k", "33554431", "x"]],
        write: &["GETSET", "k", "new"],
        begins: "$33554432\r\n",
        read: &["STRLEN", "k"],
        shows: "3",
    },
    Written {
        before: &[&["SETRANGE", "k", "33554431", "x"]],
        write: &["SET", "k", "new", "GET"],
        begins: "$33554432\r\n",
        read: &["STRLEN", "k"],
        shows: "3",
    },
    Written {
        before: &[&["SETRANGE", "k", "33554431", "x"]],
        write: &["GETDEL", "k"],
        begins: "$33554432\r\n",
        read: &["EXISTS", "k"],
        shows: "0",
    },
    Written {
        before: &[&["SET", "k", "old"]],
        write: &["EVAL", "redis.call('set', KEYS[1], 'new') return redis.call('get', 'long')", "1", "k"],
        begins: "$33554432\r\n",
        read: &["GET", "k"],
        shows: "new",
    },
];

/// Takes what comes, slowly, until it is told to stop; how many bytes.
fn take_slowly(from: &mut impl Read, stop: &AtomicBool) -> usize {
    let (mut buffer, mut taken) = (vec![0; 64 * 1024], 0);
    while !stop.load(Ordering::SeqCst) {
        taken += from.read(&mut buffer).unwrap();
        sleep_ms(10);
    }
    taken
}

/// A9
#[test]
fn a_write_whose_long_reply_has_begun_is_seen() {
    let topology = Topology::start(1);
    let lines = "consistency = \"fenced\"\nmax-lag = \"30s\"";
    let proxy = Setup::of(&topology).policy("default", lines).start();
    proxy.cmd(&["SETRANGE", "long", "33554431", "x"]);
    let mut readers: Vec<Conn> = (0..4).map(|_| proxy.connect()).collect();
    let mut tally = Tally::default();
    for case in (0..2).flat_map(|_| &WRITTEN) {
        topology.primary.cmd(&["DEL", "k"]);
        let mut conn = proxy.connect();
        let (last, first) = (case.before.len() - 1, &case.before[0]);
        assert!(!conn.cmd(first).is_error());
        await_service(&topology, &proxy);
        eventually("the replica serves", secs(5), || {
            let before = at_replicas(&proxy);
            for reader in &mut readers {
                assert_ne!(reader.cmd(case.read).text(), case.shows);
            }
            at_replicas(&proxy) >= before + readers.len() as f64
        });
        case.before[1..=last].iter().for_each(|command| assert!(!conn.cmd(command).is_error()));
        hold(&topology, 0);
        conn.ask(case.write);
        let mut raw = conn.stream();
        let mut begun = vec![0; case.begins.len()];
        raw.read_exact(&mut begun).unwrap();
        assert_eq!(String::from_utf8_lossy(&begun), case.begins);
        let stop = AtomicBool::new(false);
        let taken = thread::scope(|scope| {
            let taker = scope.spawn(|| take_slowly(&mut raw, &stop));
            for n in 0..2 * readers.len() {
                let reader = &mut readers[n / 2];
                let shown = reader.cmd(case.read).text();
                tally.look((shown != case.shows).then(|| format!("{:?}, then {shown}", case.write)));
            }
            stop.store(true, Ordering::SeqCst);
            taker.join().unwrap()
        });
        assert!(taken < LONG, "the reply was still coming in");
        drop((conn, raw));
        release(&topology, 0);
    }
    println!("long replies: {:.0} % by replicas", 100.0 * share(&proxy));
    assert!(share(&proxy) > 0.05);
    tally.assert_clean("writes whose long replies have begun");
}
