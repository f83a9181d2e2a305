//! Sources that misbehave, played by ourselves.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use redweir::control::follower::FollowerLimits;
use redweir::core::address::Address;
use redweir::core::position::Offset;

use crate::eventually;
use crate::sink::Recorder;

const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
const PING: &str = "*1\r\n$4\r\nPING\r\n";

/// A source that says it is a primary at `offset` with all of its backlog, and then answers `PSYNC` with `script`.
/// It serves for as long as the test runs, each connection alike.
fn source(offset: u64, script: &str) -> Address {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = script.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let script = script.clone();
            // The follower may leave at any time.
            std::thread::spawn(move || drop(serve(&stream.unwrap(), offset, &script)));
        }
    });
    Address::Tcp { host: "127.0.0.1".to_owned(), port }
}

fn serve(mut stream: &TcpStream, offset: u64, script: &str) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        match line?.as_str() {
            "PING" => stream.write_all(b"+PONG\r\n")?,
            "psync2" => stream.write_all(b"+OK\r\n-ERR Unrecognized REPLCONF option\r\n")?,
            "INFO" => {
                let info = format!(
                    "role:master\r\nmaster_replid:{}\r\nmaster_repl_offset:{offset}\r\nrepl_backlog_active:1\r\n\
                     repl_backlog_first_byte_offset:1\r\n",
                    "a".repeat(40)
                );
                stream.write_all(format!("${}\r\n{info}\r\n", info.len()).as_bytes())?;
            }
            "PSYNC" => stream.write_all(script.as_bytes())?,
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn garbage_in_the_stream_ends_the_link_and_not_the_process() {
    let recorder = Recorder::of(source(100, &format!("+CONTINUE\r\n{SET}HTTP/1.1 200 OK\r\n")));
    recorder.is_refused("garbage");
    recorder.is_attached(2);
    assert!(!recorder.last().resumed, "the same bytes are not asked for again");
    assert!(recorder.heard().count("SET") >= 1, "what came before is told");
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    for (answer, kind) in [
        ("-NOMASTERLINK Can't SYNC while not connected with my master\r\n", "no_master_link"),
        ("-LOADING Redis is loading\r\n", "loading"),
        ("-ERR unknown command 'PSYNC'\r\n", "refused"),
        ("+FULLRESYNC you wish\r\n", "garbage"),
        ("*1000000000\r\n$-5\r\n", "garbage"),
    ] {
        let recorder = Recorder::of(source(100, answer));
        recorder.is_refused(kind);
        assert!(recorder.heard().attached.is_empty());
    }
}

#[test]
fn a_source_that_falls_silent_is_left() {
    let limits = FollowerLimits { silence: Duration::from_secs(1), ..FollowerLimits::DEFAULT };
    let recorder = Recorder::with(source(100, "+CONTINUE\r\n"), None, limits);
    recorder.is_refused("silent");
    recorder.is_attached(2);
    assert!(recorder.last().resumed);
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: mute.local_addr().unwrap().port() };
    Recorder::of(address).is_refused("timeout");
}

#[test]
fn a_source_that_is_behind_repeats_nothing() {
    let end = |commands: &str| Some(Offset::new(100).advanced(commands.len() as u64));
    let ahead = format!("{SET}{SET}{PING}");
    let recorder = Recorder::of(source(100, &format!("+CONTINUE\r\n{ahead}")));
    eventually("all is read", || recorder.heard().position == end(&ahead));
    let more = format!("{ahead}{SET}");
    // The second source is where the first one began, and gives the same commands and one more.
    recorder.move_to(1, source(100, &format!("+CONTINUE\r\n{more}")));
    eventually("all is read", || recorder.heard().position == end(&more));
    assert!(recorder.last().resumed && recorder.last().node == 1);
    let heard = recorder.heard();
    assert_eq!((heard.count("SET"), heard.count("PING")), (3, 1));
    assert_eq!(heard.keys, ["k"; 3]);
}
