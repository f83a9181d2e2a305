//! Large values, long pipelines and many clients: memory stays bounded, and nobody's neighbour waits for them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use support::{Proxy, Setup, Topology, encode};

/// A line of `/proc/<pid>/status`, in bytes.
fn memory(proxy: &Proxy, line: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let text = found.unwrap_or_else(|| panic!("no {line} in {status}"));
    text.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A number from the environment, to try more than the ordinary run does.
fn more(name: &str, usually: usize) -> usize {
    std::env::var(name).ok().map_or(usually, |text| text.parse().unwrap())
}

/// Connects, reads one key, and stays.
fn idle_client(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(&encode(&["GET", "k"])).unwrap();
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"$1\r\nv\r\n");
    stream
}

#[test]
fn an_idle_client_takes_little_memory() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    assert_eq!(proxy.cmd(&["SET", "k", "v"]), "OK");
    topology.await_sync();
    let count = more("REDWEIR_IDLE_CLIENTS", 2000);
    // What the first ones need of pools and tables is no client's own.
    let early: Vec<TcpStream> = (0..100).map(|_| idle_client(proxy.port)).collect();
    let before = memory(&proxy, "VmRSS");
    let clients: Vec<TcpStream> = (0..count).map(|_| idle_client(proxy.port)).collect();
    let each = memory(&proxy, "VmRSS").saturating_sub(before) / count;
    println!("{count} idle clients: {each} bytes each");
    assert!(each <= 5 * 1024, "{each} bytes for each of {count} idle clients");
    drop((early, clients));
}
