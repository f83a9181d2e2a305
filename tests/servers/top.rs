//! `redweir top`, in a terminal of tmux and without one.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Read as _;
use std::process::{Command, Stdio};

use crate::support::{Setup, Topology, eventually, secs, sleep_ms};

/// A server of tmux with one session, of its own; ended with this value.
struct Tmux(String);

impl Tmux {
    fn start(command: &str, width: u16, height: u16) -> Self {
        let tmux = Self(format!("redweir-{}-{width}", std::process::id()));
        let (width, height) = (width.to_string(), height.to_string());
        tmux.tell(&["new-session", "-d", "-x", &width, "-y", &height, command]);
        tmux
    }

    /// What tmux says to that; nothing, once its session is over.
    fn tell(&self, words: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.args(["-f", "/dev/null", "-L", &self.0]).args(words).env("TERM", "xterm-256color");
        let output = tmux.output().unwrap_or_else(|error| panic!("tmux: {error}: make deps-test"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tell(&["capture-pane", "-p"])
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.tell(&["kill-server"]);
    }
}

#[test]
fn a_terminal_shows_where_reads_go_at_any_size_until_q() {
    let topology = Topology::start(2);
    let proxy = Setup::of(&topology).start();
    let program = env!("CARGO_BIN_EXE_redweir");
    let tmux = Tmux::start(&format!("{program} top --admin 127.0.0.1:{}", proxy.admin_port), 120, 32);
    let mut conn = proxy.connect();
    let mut busy = || {
        for _ in 0..50 {
            conn.cmd(&["GET", "k"]);
        }
    };
    eventually("reads are shown", secs(15), || {
        busy();
        let screen = tmux.screen();
        screen.contains("reads: yes   writes: yes") && screen.contains("it is proven fresh enough")
    });
    let screen = tmux.screen();
    for port in topology.replica_ports() {
        assert!(screen.contains(&format!("127.0.0.1:{port}")), "{screen}");
    }
    eventually("they are at replicas", secs(15), || {
        busy();
        tmux.screen().contains("reads at replicas: 100.0 %")
    });
    topology.replicas[0].pause();
    let paused = format!("127.0.0.1:{}", topology.replica_ports()[0]);
    eventually("it does not answer", secs(15), || {
        tmux.screen().lines().any(|line| line.contains(&paused) && line.contains(" no "))
    });
    topology.replicas[0].resume();
    for (width, height) in [("60", "18"), ("20", "5"), ("200", "60")] {
        tmux.tell(&["resize-window", "-x", width, "-y", height]);
        sleep_ms(400);
    }
    eventually("the large screen is filled", secs(10), || {
        let screen = tmux.screen();
        screen.lines().count() > 40 && screen.contains("reads: yes") && screen.contains("doctor")
    });
    tmux.tell(&["send-keys", "q"]);
    eventually("it is over", secs(5), || tmux.screen().is_empty());
}

#[test]
fn without_a_terminal_it_is_plain_text() {
    let topology = Topology::start(1);
    let proxy = Setup::of(&topology).start();
    let mut top = Command::new(env!("CARGO_BIN_EXE_redweir"))
        .args(["top", "--admin", &format!("127.0.0.1:{}", proxy.admin_port)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut conn = proxy.connect();
    let (mut out, mut text, mut chunk) = (top.stdout.take().unwrap(), String::new(), [0; 4096]);
    while !text.contains("read  replica fresh: it is proven fresh enough") {
        for _ in 0..50 {
            conn.cmd(&["GET", "k"]);
        }
        let count = out.read(&mut chunk).unwrap();
        assert!(count > 0 && text.len() < 100_000, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    assert!(text.contains("reads: yes\n") && !text.contains('\u{1b}'), "{text}");
    // Nobody reads it any longer.
    drop(out);
    eventually("it is over", secs(5), || top.try_wait().unwrap().is_some());
    assert!(top.wait().unwrap().success());
}
