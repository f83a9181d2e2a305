//! What a session has seen by whatever means, it sees again: other fields and other databases, copies, and what a
//! connection of its own to the primary has shown.

use crate::corners::{Tally, at_replicas, await_service, hold, release, share};
use crate::support::{Conn, Direction, Proxy, Setup, Topology, Value, eventually, secs};

/// A command, its words separated by spaces.
fn say(conn: &mut Conn, command: &str) -> Value {
    conn.cmd(&command.split(' ').collect::<Vec<_>>())
}

/// A replica that may lag for seconds, at a level, with or without the stream.
fn rig(level: &str, stream: &str, max_lag: &str) -> (Topology, Proxy) {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology)
        .policy("default", &format!("consistency = {level:?}\nmax-lag = {max_lag:?}"))
        .toml(&format!("[stream]\nsource = {stream:?}"))
        .start();
    (topology, proxy)
}

/// Two reads of one key that show two states of it in the same words. Of the second state only the second read tells.
struct Twins {
    first_state: &'static [&'static str],
    first_read: &'static [&'static str],
    second_state: &'static [&'static str],
    second_read: &'static [&'static str],
}

const TWINS: [Twins; 6] = [
    Twins {
        first_state: &["HSET h f1 v"],
        first_read: &["HEXISTS h f1"],
        second_state: &["HSET h f2 v"],
        second_read: &["HEXISTS h f2"],
    },
    Twins {
        first_state: &["SADD s a"],
        first_read: &["SISMEMBER s a"],
        second_state: &["SADD s b"],
        second_read: &["SISMEMBER s b"],
    },
    Twins {
        first_state: &["SETBIT b 3 1"],
        first_read: &["GETBIT b 3"],
        second_state: &["SETBIT b 4 1"],
        second_read: &["GETBIT b 4"],
    },
    Twins {
        first_state: &["RPUSH l x"],
        first_read: &["LINDEX l 0"],
        second_state: &["RPUSH l x"],
        second_read: &["LINDEX l 1"],
    },
    // Another command says it.
    Twins {
        first_state: &["HSET g f1 v"],
        first_read: &["EXISTS g"],
        second_state: &["HSET g f2 v"],
        second_read: &["HEXISTS g f2"],
    },
    // Another database has a key of that name.
    Twins {
        first_state: &["SELECT 0", "SET k v"],
        first_read: &["SELECT 0", "GET k"],
        second_state: &["SELECT 1", "SET k v"],
        second_read: &["SELECT 1", "GET k"],
    },
];

/// Says all of them; the last reply.
fn say_all(conn: &mut Conn, commands: &[&str]) -> Value {
    commands.iter().map(|command| say(conn, command)).last().unwrap()
}

/// A3: the first reads go to the primary because the replica is too old, the second ones, too. Then it catches up, but
/// only with what the first ones have shown.
#[test]
fn the_same_reply_to_another_question_is_news() {
    let mut tally = Tally::default();
    for _ in 0..2 {
        let (topology, proxy) = rig("session", "off", "800ms");
        let link = &topology.replicas[0].link;
        let (mut conn, mut writer) = (proxy.connect(), topology.primary.connect());
        hold(&topology, 0);
        eventually("the replica is too old", secs(5), || {
            let before = at_replicas(&proxy);
            say(&mut writer, "INCR what-it-lacks");
            say(&mut conn, "GET nothing");
            at_replicas(&proxy).total_cmp(&before).is_eq()
        });
        for twins in &TWINS {
            say_all(&mut writer, twins.first_state);
        }
        let shown: Vec<Value> = TWINS.iter().map(|twins| say_all(&mut conn, twins.first_read)).collect();
        // What the primary is asked for its position by now comes before what follows.
        let marked = topology.primary.calls("role");
        eventually("a later position is known", secs(5), || topology.primary.calls("role") > marked + 2);
        link.delay(Direction::Down, secs(30));
        for twins in &TWINS {
            say_all(&mut writer, twins.second_state);
        }
        for (twins, shown) in TWINS.iter().zip(&shown) {
            assert_eq!(say_all(&mut conn, twins.second_read), *shown, "{:?}", twins.second_read);
        }
        link.flow(Direction::Down);
        proxy.await_replicas(1);
        eventually("it serves", secs(2), || {
            let before = at_replicas(&proxy);
            proxy.cmd(&["GET", "nothing"]);
            at_replicas(&proxy) > before
        });
        say(&mut conn, "SELECT 0");
        for (twins, shown) in TWINS.iter().zip(&shown) {
            let reply = say_all(&mut conn, twins.second_read);
            tally.look((reply != *shown).then(|| format!("{:?}: {reply:?}", twins.second_read)));
        }
        let before = at_replicas(&proxy);
        proxy.cmd(&["GET", "nothing"]);
        assert!(at_replicas(&proxy) > before, "the replica serves all the time");
    }
    tally.assert_clean("the same reply to another question");
}

/// A key that is again as it was: the reply that the primary gave before says nothing of now, once a replica has shown
/// another value in between, or the client has written one itself.
#[test]
fn what_is_as_it_was_before_may_be_news() {
    let mut tally = Tally::default();
    for round in 0..12 {
        let (topology, proxy) = rig("session", "off", "800ms");
        let link = &topology.replicas[0].link;
        let (mut conn, mut writer) = (proxy.connect(), topology.primary.connect());
        let own_write = round % 2 == 0;
        say(&mut conn, "SET k 2");
        hold(&topology, 0);
        say(&mut conn, "COPY k c REPLACE");
        assert_eq!(say(&mut conn, "GET k"), "2");
        if own_write {
            say(&mut conn, "SET k 5");
        } else {
            say(&mut writer, "SET k 4");
            release(&topology, 0);
            proxy.await_replicas(1);
            eventually("a replica shows it", secs(5), || {
                let before = at_replicas(&proxy);
                say(&mut conn, "GET k") == "4" && at_replicas(&proxy) > before
            });
            hold(&topology, 0);
            say(&mut conn, "COPY k c REPLACE");
            say(&mut writer, "SET k 5");
        }
        let marked = topology.primary.calls("role");
        eventually("a later position is known", secs(5), || topology.primary.calls("role") > marked + 2);
        link.delay(Direction::Down, secs(30));
        say(&mut writer, "SET k 2");
        assert_eq!(say(&mut conn, "GET k"), "2", "at the primary");
        link.flow(Direction::Down);
        proxy.await_replicas(1);
        eventually("it serves", secs(2), || {
            let before = at_replicas(&proxy);
            proxy.cmd(&["GET", "nothing"]);
            at_replicas(&proxy) > before
        });
        let reply = say(&mut conn, "GET k");
        tally.look((reply != "2").then(|| format!("own write: {own_write}: {reply:?}")));
    }
    tally.assert_clean("what is as it was before");
}

/// A write that shows what another key holds, or takes it from there.
struct Copying {
    /// Done before, and done past the proxy right before the write.
    old: &'static str,
    new: &'static str,
    write: &'static str,
    /// Shows what was copied.
    look: &'static str,
    /// Shows where it came from.
    read: &'static str,
}

const COPYING: [Copying; 17] = [
    Copying { old: "SET c0 1", new: "SET c0 2", write: "COPY c0 c1 REPLACE", look: "GET c1", read: "GET c0" },
    Copying {
        old: "SADD s a",
        new: "SADD s b",
        write: "SUNIONSTORE s1 s",
        look: "SCARD s1",
        read: "SCARD s",
    },
    Copying {
        old: "SADD t a",
        new: "SADD t b",
        write: "SINTERSTORE t1 t t",
        look: "SCARD t1",
        read: "SCARD t",
    },
    Copying {
        old: "SADD u a",
        new: "SADD u b",
        write: "SDIFFSTORE u1 u no",
        look: "SCARD u1",
        read: "SCARD u",
    },
    Copying {
        old: "ZADD y 1 a",
        new: "ZADD y 2 b",
        write: "ZRANGESTORE y1 y 0 -1",
        look: "ZCARD y1",
        read: "ZCARD y",
    },
    Copying {
        old: "ZADD z 1 a",
        new: "ZADD z 2 b",
        write: "ZUNIONSTORE z1 1 z",
        look: "ZCARD z1",
        read: "ZCARD z",
    },
    Copying {
        old: "ZADD i 1 a",
        new: "ZADD i 2 b",
        write: "ZINTERSTORE i1 1 i",
        look: "ZCARD i1",
        read: "ZCARD i",
    },
    Copying {
        old: "ZADD d 1 a",
        new: "ZADD d 2 b",
        write: "ZDIFFSTORE d1 1 d",
        look: "ZCARD d1",
        read: "ZCARD d",
    },
    Copying { old: "RPUSH l 1", new: "RPUSH l 2", write: "SORT l STORE l1", look: "LLEN l1", read: "LLEN l" },
    Copying { old: "SET b a", new: "SET b b", write: "BITOP OR b1 b", look: "GET b1", read: "GET b" },
    Copying { old: "PFADD p a", new: "PFADD p b", write: "PFMERGE p1 p", look: "PFCOUNT p1", read: "GET p" },
    Copying {
        old: "GEOADD g 1 1 a",
        new: "GEOADD g 1 1.01 b",
        write: "GEOSEARCHSTORE g1 g FROMLONLAT 1 1 BYRADIUS 100 km",
        look: "ZCARD g1",
        read: "ZCARD g",
    },
    Copying {
        old: "RPUSH m 1 2",
        new: "RPUSH m 3",
        write: "LMOVE m m1 LEFT RIGHT",
        look: "LLEN m1",
        read: "LLEN m",
    },
    Copying {
        old: "RPUSH n 1 2",
        new: "RPUSH n 3",
        write: "RPOPLPUSH n n1",
        look: "LRANGE n1 0 0",
        read: "LLEN n",
    },
    Copying { old: "SET r 1", new: "SET r 2", write: "RENAME r r1", look: "GET r1", read: "EXISTS r" },
    Copying { old: "SADD v a b", new: "SADD v c", write: "SMOVE v v1 c", look: "SCARD v1", read: "SCARD v" },
    // What a transaction or a script shows, it shows all the same.
    Copying {
        old: "SET e 1",
        new: "SET e 2",
        write: "EVAL return{redis.call('get',KEYS[1])} 1 e",
        look: "GET e",
        read: "GET e",
    },
];

fn what_a_write_shows_is_remembered(level: &str, stream: &str) {
    let (topology, proxy) = rig(level, stream, "20s");
    let mut writer = topology.primary.connect();
    let mut tally = Tally::default();
    for (protocol, case) in ["2", "3"].into_iter().flat_map(|p| COPYING.iter().map(move |case| (p, case))) {
        say(&mut writer, "FLUSHALL");
        say(&mut writer, case.old);
        await_service(&topology, &proxy);
        let mut conn = proxy.connect();
        conn.cmd(&["HELLO", protocol]);
        eventually("the replica serves it", secs(5), || {
            let before = at_replicas(&proxy);
            let old = say(&mut conn, case.read);
            at_replicas(&proxy) > before && old == say(&mut writer, case.read)
        });
        hold(&topology, 0);
        say(&mut writer, case.new);
        let done = say(&mut conn, case.write);
        assert!(!done.is_error(), "{}: {done:?}", case.write);
        assert_eq!(say(&mut conn, case.look), say(&mut writer, case.look), "{}", case.look);
        for _ in 0..2 {
            let (shown, present) = (say(&mut conn, case.read), say(&mut writer, case.read));
            let wrong = || format!("{}, then {}: {shown:?}, is {present:?}", case.write, case.read);
            tally.look((shown != present).then(wrong));
        }
        release(&topology, 0);
    }
    let served = share(&proxy);
    println!("{level}, stream {stream}: {:.0} % by replicas", 100.0 * served);
    assert!(served > 0.1, "replicas served {served:.2} of the reads");
    tally.assert_clean(&format!("{level}, stream {stream}: what a write has shown"));
}

/// A4
#[test]
fn sessions_remember_what_a_write_has_shown() {
    what_a_write_shows_is_remembered("session", "off");
}

/// A4: the stream that the proxy follows is as late as the replica.
#[test]
fn sessions_remember_what_a_write_has_shown_while_the_stream_is_late() {
    what_a_write_shows_is_remembered("session", "replica");
}

/// A4
#[test]
fn fenced_reads_remember_what_a_write_has_shown() {
    what_a_write_shows_is_remembered("fenced", "off");
}

/// A4
#[test]
fn fenced_reads_remember_what_a_write_has_shown_while_the_stream_is_late() {
    what_a_write_shows_is_remembered("fenced", "replica");
}

/// What takes a connection to the primary, and back. In between it reads the key.
const DETOURS: [(&[&str], &[&str]); 6] = [
    (&["SUBSCRIBE ch"], &["RESET", "HELLO 3"]),
    (&["SUBSCRIBE ch"], &["UNSUBSCRIBE ch"]),
    (&["CLIENT TRACKING ON"], &["CLIENT TRACKING OFF"]),
    (&["CLIENT TRACKING ON"], &["RESET", "HELLO 3"]),
    (&["WATCH k"], &["UNWATCH"]),
    (&["WATCH k"], &["RESET", "HELLO 3"]),
];

fn what_a_detour_shows_is_remembered(level: &str, stream: &str) {
    let (topology, proxy) = rig(level, stream, "20s");
    let mut tally = Tally::default();
    for round in 0..2 {
        for (n, (there, back)) in DETOURS.iter().enumerate() {
            let (old, new) = (format!("{round} {n} old"), format!("{round} {n} new"));
            topology.primary.cmd(&["SET", "k", &old]);
            await_service(&topology, &proxy);
            let mut conn = proxy.connect();
            say(&mut conn, "HELLO 3");
            eventually("the replica serves it", secs(5), || {
                let before = at_replicas(&proxy);
                conn.cmd(&["GET", "k"]) == old.as_str() && at_replicas(&proxy) > before
            });
            hold(&topology, 0);
            topology.primary.cmd(&["SET", "k", &new]);
            there.iter().for_each(|command| assert!(!say(&mut conn, command).is_error()));
            assert_eq!(say(&mut conn, "GET k"), new.as_str(), "{there:?}: from the primary");
            back.iter().for_each(|command| assert!(!say(&mut conn, command).is_error()));
            let after = say(&mut conn, "GET k");
            tally.look((after != new.as_str()).then(|| format!("{there:?} … {back:?}: {after:?}")));
            release(&topology, 0);
        }
    }
    let served = share(&proxy);
    assert!(served > 0.1, "replicas served {served:.2} of the reads");
    tally.assert_clean(&format!("{level}, stream {stream}: what a detour has shown"));
}

/// A5
#[test]
fn sessions_remember_what_a_detour_has_shown() {
    what_a_detour_shows_is_remembered("session", "off");
}

/// A5: the stream that the proxy follows is as late as the replica.
#[test]
fn fenced_reads_remember_what_a_detour_has_shown() {
    what_a_detour_shows_is_remembered("fenced", "replica");
}
