//! The dashboard as a person sees it: in a real browser, while real servers die and lag.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::clients::in_node;
use crate::support::{Proxy, Setup, Topology, Value, ms, sleep_ms};

/// A browser that shows the page (`tests/clients/dashboard.js`); closed with this value.
struct Browser {
    process: Child,
    input: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    fn open(proxy: &Proxy) -> Self {
        let mut command = in_node("dashboard.js");
        command.arg(format!("http://127.0.0.1:{}/", proxy.admin_port));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, answers) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, input, answers }
    }

    fn say(&mut self, command: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    fn must(&mut self, command: &str) -> String {
        let answer = self.say(command);
        assert!(answer.starts_with("ok"), "{command}: {answer}");
        answer
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It closes the browser at the end of its input.
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

/// Somebody who reads and writes, whatever comes of it, until this is dropped.
struct Traffic(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Traffic {
    fn start(proxy: &Proxy) -> Self {
        let (ended, mut conn) = (Arc::new(AtomicBool::new(false)), proxy.connect());
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            for n in 0_u32.. {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("k:{}", n % 50);
                let _: Value = conn.cmd(&["GET", &key]);
                if n % 10 == 0 {
                    let _: Value = conn.cmd(&["SET", &key, "v"]);
                }
                sleep_ms(4);
            }
        });
        Self(ended, Some(thread))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_person_sees_what_happens_to_the_servers() {
    let mut topology = Topology::start(2);
    let proxy = Setup::of(&topology).policy("default", "max-lag = \"300ms\"").start();
    let _traffic = Traffic::start(&proxy);
    let mut browser = Browser::open(&proxy);
    browser.must("wait Reads and writes are served");
    browser.must("wait it is proven fresh enough");
    for port in topology.replica_ports() {
        browser.must(&format!("wait 127.0.0.1:{port}"));
    }
    let pictures = tempfile::tempdir().unwrap();
    for (width, theme) in [(1280, "light"), (390, "dark"), (390, "light"), (1280, "dark")] {
        let path = pictures.path().join(format!("{width}-{theme}.png"));
        browser.must(&format!("shot {} {width} {theme}", path.display()));
        browser.must("overflow");
        browser.must("axe");
        assert!(path.metadata().unwrap().len() > 10_000, "there is nothing on it");
    }
    browser.must("errors");
    // Replicas that are too far behind are left, and that is said.
    topology.lag(0, ms(1500));
    topology.lag(1, ms(1500));
    browser.must("wait its data may be older than max-lag");
    browser.must("wait no reads now");
    topology.lag(0, ms(0));
    topology.lag(1, ms(0));
    topology.primary.kill();
    browser.must("wait Neither reads nor writes are served");
    browser.must("axe");
    browser.must("overflow");
    browser.must("errors");
}
