//! Attaching: without a dump where there is a backlog, past a dump of either form where there is none; and as a
//! guest that nobody counts.

use redweir::control::follower::FollowerLimits;
use redweir::core::address::Login;

use crate::eventually;
use crate::server::Server;
use crate::sink::Recorder;

#[test]
fn where_there_is_a_backlog_attaching_takes_no_dump() {
    let primary = Server::start(&[]);
    let replica = Server::replica_of(&primary, &[]);
    let dumps = || (primary.info().sync_full, replica.info().sync_full);
    let before = dumps();
    let (at_primary, at_replica) = (Recorder::at(&primary), Recorder::at(&replica));
    primary.tell("SET k v");
    for (recorder, server) in [(&at_primary, &primary), (&at_replica, &replica)] {
        eventually("the command comes", || recorder.heard().count("SET") == 1);
        recorder.catches_up(server);
        assert!(!recorder.last().resumed);
        assert_eq!(Some(recorder.last().id), primary.info().replid);
    }
    assert_eq!(dumps(), before);
    assert_eq!(at_primary.heard().position, at_replica.heard().position);
    let listed: String = primary.ask("INFO replication");
    assert!(listed.contains("port=0,"), "no port is announced: {listed}");
}

/// Attaches to a server that has no backlog but 40 MB of data; returns what the server's directory then holds.
fn past_a_dump(diskless: &str, filtered: bool) -> usize {
    let server = Server::start(&["--repl-diskless-sync", diskless, "--rdbcompression", "no"]);
    server.tell("DEBUG POPULATE 40000 key 1000");
    server.tell("ACL SETUSER guest on >secret +@all -replconf +replconf|capa +replconf|ack");
    // This user may not ask for an empty dump, as if the server were older.
    let guest = Login { username: Some("guest".to_owned()), password: "secret".to_owned() };
    let recorder = Recorder::with(server.address(), (!filtered).then_some(guest), FollowerLimits::DEFAULT);
    recorder.is_attached(1);
    server.tell("SET k v");
    eventually("the command comes", || recorder.heard().count("SET") == 1);
    recorder.catches_up(&server);
    assert!(!recorder.last().resumed);
    let info = server.info();
    assert_eq!((info.sync_full, Some(recorder.last().id)), (Some(1), info.replid));
    std::fs::read_dir(server.dir.path()).unwrap().count()
}

#[test]
fn a_dump_of_unknown_length_is_passed_over() {
    assert_eq!(past_a_dump("yes", false), 0, "nothing was written to disk");
}

#[test]
fn a_dump_of_known_length_is_passed_over() {
    assert_eq!(past_a_dump("no", false), 1, "the dump came from a file");
}

#[test]
fn an_empty_dump_is_passed_over() {
    past_a_dump("yes", true);
    past_a_dump("no", true);
}

#[test]
fn nobody_counts_a_guest() {
    let primary = Server::start(&[]);
    let at_primary = Recorder::at(&primary);
    let mut writer = primary.connect();
    let wrote: String = redis::cmd("SET").arg("k").arg("v").query(&mut writer).unwrap();
    assert_eq!(wrote, "OK");
    eventually("the command comes", || at_primary.heard().count("SET") == 1);
    // Long enough for more than one acknowledgement. (A connection that never wrote waits for offset 0, which we do
    // acknowledge; it has nothing to lose.)
    assert_eq!(redis::cmd("WAIT").arg(1).arg(2500).query::<i64>(&mut writer).unwrap(), 0);
    drop(at_primary);

    let replica = Server::replica_of(&primary, &[]);
    let at_replica = Recorder::at(&replica);
    eventually("the other one is gone", || primary.info().connected_replicas == Some(1));
    assert_eq!(primary.info().min_replicas_to_write(), Some(0));
    primary.tell("CONFIG SET min-replicas-to-write 2");
    assert_eq!(primary.info().min_replicas_to_write(), None, "it is in force");
    let refused = primary.try_ask::<String>("SET k v").unwrap_err();
    assert_eq!(refused.code(), Some("NOREPLICAS"));
    primary.tell("CONFIG SET min-replicas-to-write 1");
    // The server counts its good replicas once a second.
    eventually("the one replica is enough", || primary.try_ask::<String>("SET k v").is_ok());
    eventually("the command comes", || at_replica.heard().count("SET") == 1);
    assert_eq!(primary.info().connected_replicas, Some(1));
}

#[test]
fn an_idle_link_lives() {
    let server = Server::start(&["--repl-timeout", "5"]);
    let recorder = Recorder::at(&server);
    std::thread::sleep(std::time::Duration::from_secs(9));
    server.tell("SET k v");
    eventually("the command comes", || recorder.heard().count("SET") == 1);
    assert_eq!(recorder.heard().detached.len(), 0);
}

#[test]
fn refusals_have_names() {
    let server = Server::start(&[]);
    server.tell("ACL SETUSER guest on >secret +@all -psync");
    let with = |user: &str, password: &str| {
        let guest = Login { username: Some(user.to_owned()), password: password.to_owned() };
        Recorder::with(server.address(), Some(guest), FollowerLimits::DEFAULT)
    };
    with("guest", "secret").is_refused("not_permitted");
    with("guest", "wrong").is_refused("auth");
    let lost = Server::start(&["--replicaof", "127.0.0.1", "1"]);
    Recorder::of(lost.address()).is_refused("no_master_link");
    server.tell("CONFIG SET requirepass secret");
    Recorder::of(server.address()).is_refused("auth");
    let address = lost.address();
    drop(lost);
    Recorder::of(address).is_refused("connect");
}
