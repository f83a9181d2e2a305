//! The doctor: each fault provoked on real servers, as far as they allow; that it is found, after how long, that what shows it is
//! named, and that it is not found where nothing is wrong. `REDWEIR_DOCTOR_WRITE=1` writes what was measured into the table of
//! docs/operations.md; without it every fault must have its row there.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]
#![allow(clippy::print_stdout, reason = "what was measured is what one wants to know")]

mod commands;
mod links;
mod nodes;
mod settings;
mod writes;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::{Proxy, Setup, Topology, eventually, http_get, secs, sleep_ms};
use serde_json::Value as Json;

/// How long anything may take to be found: several looks, and a loaded machine.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// How long anything may take to be gone: until the settings are read again, and several looks without it.
const CLEARED_WITHIN: Duration = Duration::from_secs(45);

/// What a primary and its replicas should have set; of these nothing is found.
const SOUND_PRIMARY: [&str; 2] = ["--min-replicas-to-write", "1"];
const SOUND_REPLICA: [&str; 2] = ["--replica-serve-stale-data", "no"];

fn sound(replicas: usize) -> Topology {
    counted(Topology::with(&SOUND_PRIMARY, replicas, &SOUND_REPLICA))
}

/// Once the primary has counted its replicas, for `min-replicas-to-write`: it does so once a second.
fn counted(topology: Topology) -> Topology {
    let linked = topology.replicas.len().to_string();
    eventually("the primary has counted its replicas", secs(10), || {
        topology.primary.info("replication").get("min_slaves_good_slaves").is_none_or(|good| *good == linked)
    });
    topology
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// What is found, as the admin server has it; before the first look nothing. It is asked at most ten times a second.
fn findings(proxy: &Proxy) -> Vec<Json> {
    sleep_ms(90);
    // On a machine that is busy enough an answer may take longer than anybody waits for it.
    let (status, body) =
        (0..3).find_map(|_| http_get(proxy.admin_port, "/doctor").ok()).expect("it is answered");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Json>(&body).unwrap()["findings"].as_array().unwrap().clone()
}

fn found(proxy: &Proxy, code: &str, node: &str) -> Option<Json> {
    findings(proxy).into_iter().find(|finding| finding["code"] == code && finding["node"] == node)
}

fn text<'a>(finding: &'a Json, field: &str) -> &'a str {
    finding[field].as_str().unwrap_or_else(|| panic!("{field} is no text: {finding}"))
}

/// Waits until nodes were looked at.
fn await_look(proxy: &Proxy) {
    eventually("the doctor has looked", secs(10), || proxy.get("/doctor").1.contains("\"ping_ms\""));
}

/// Waits until nothing of this code is found.
fn await_cleared(proxy: &Proxy, code: &str) {
    eventually(&format!("{code} is gone"), CLEARED_WITHIN, || {
        findings(proxy).iter().all(|finding| finding["code"] != code)
    });
}

/// A fault that was provoked just now, in words.
struct Fault {
    words: &'static str,
    begun: Instant,
}

impl Fault {
    fn begins(words: &'static str) -> Self {
        Self { words, begun: Instant::now() }
    }

    /// Waits until it is found at this node, with these values to show it; as an error, warning or info.
    fn is_found(
        &self,
        proxy: &Proxy,
        severity: &str,
        code: &'static str,
        node: &str,
        shown_by: &[&str],
    ) -> Json {
        let mut last = None;
        eventually(&format!("{code} ({severity}) is found at {node}"), FOUND_WITHIN, || {
            last = found(proxy, code, node);
            last.as_ref().is_some_and(|finding| finding["severity"] == severity)
        });
        let (finding, took) = (last.unwrap(), self.begun.elapsed());
        for value in shown_by {
            assert!(text(&finding, "evidence").contains(value), "no {value}: {finding}");
        }
        assert!(!text(&finding, "remedy").is_empty() && text(&finding, "since").ends_with('Z'), "{finding}");
        measured(self.words, code, shown_by, took);
        finding
    }
}

/// A row of the table: what was provoked, what it is called, what shows it, and after how long it was found.
fn measured(fault: &str, code: &str, shown_by: &[&str], took: Duration) {
    static FILE: Mutex<()> = Mutex::new(());
    // A test that fails leaves the file as it is.
    let _only = FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shown: Vec<String> = shown_by.iter().map(|value| format!("`{}`", value.replace('`', ""))).collect();
    let start = format!("| {fault} | `{code}` | ");
    let row = format!("{start}{} | {:.1} s |", shown.join(", "), took.as_secs_f64());
    println!("{row}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let manual = fs::read_to_string(&file).unwrap();
    let is_written = manual.lines().any(|line| line.starts_with(&start));
    if std::env::var_os("REDWEIR_DOCTOR_WRITE").is_none() {
        assert!(is_written, "docs/operations.md has no row `{start}…`: REDWEIR_DOCTOR_WRITE=1 writes it");
        return;
    }
    let mut lines: Vec<&str> = manual.lines().collect();
    if let Some(old) = lines.iter().position(|line| line.starts_with(&start)) {
        lines[old] = &row;
    } else {
        let head =
            lines.iter().position(|line| line.starts_with("| fault | code |")).expect("the table is there");
        let end = head + lines[head..].iter().position(|line| !line.starts_with('|')).expect("it ends");
        lines.insert(end, &row);
    }
    fs::write(&file, lines.join("\n") + "\n").unwrap();
}

/// `redweir doctor -c FILE` for this setup: its exit code, and what it prints.
fn doctor(setup: &Setup, more: &[&str]) -> (i32, String) {
    run(&[&["doctor", "-c"], more].concat(), setup)
}

/// The same as JSON.
fn doctor_json(setup: &Setup) -> (i32, Json) {
    let (code, text) = doctor(setup, &["--format", "json"]);
    (code, serde_json::from_str(&text).unwrap_or_else(|problem| panic!("{problem}: {text}")))
}

/// A subcommand whose first words end in `-c`: the file of this setup comes after that.
fn run(words: &[&str], setup: &Setup) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("redweir.toml");
    fs::write(&file, setup.text(&[1], 2)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_redweir"));
    for word in words {
        command.arg(word);
        if *word == "-c" {
            command.arg(&file);
        }
    }
    let output = command.output().unwrap();
    let code = output.status.code().unwrap();
    assert!(
        code <= 2,
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    (code, String::from_utf8(output.stdout).unwrap())
}

/// The codes of a report.
fn codes(report: &Json) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn the_manual_has_every_code() {
    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    for code in redweir::core::diagnose::Code::ALL {
        let row = format!("\n| `{}` | ", code.name());
        assert!(manual.contains(&row), "docs/operations.md has no row for {}", code.name());
    }
}
