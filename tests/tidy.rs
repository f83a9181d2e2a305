//! The house rules that a machine can check: the order of the layers, what each layer may not touch, how long
//! a file may be, and that nothing unfinished is left behind. It counts what it visited, so that it cannot
//! pass by seeing nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first (DESIGN: "Dependencies point left"). A file may name only layers of a lower rank, or its own.
const LAYERS: &[&[&str]] = &[
    &["core"],
    &["wire"],
    &["config", "telemetry"],
    &["net", "shard", "control", "proxy"],
    &["admin"],
    &["app"],
    &["demo", "cli"],
    &["main"],
];

/// What a layer must never mention, and why.
const BANNED: &[(&str, &[(&str, &str)])] = &[
    (
        "core",
        &[
            ("tokio", "core is pure: no async"),
            ("std::net", "core is pure: no I/O"),
            ("std::fs", "core is pure: no I/O"),
            ("Instant", "time is an argument"),
            ("SystemTime", "time is an argument"),
            ("tracing::", "core does not log"),
            ("rand::", "chance is an argument"),
        ],
    ),
    (
        "wire",
        &[
            ("tokio::", "wire is sans-I/O"),
            ("std::net", "wire is sans-I/O"),
            ("Instant", "time is an argument"),
            ("tracing::", "wire does not log"),
        ],
    ),
    ("net", OFFSETS),
    ("shard", OFFSETS),
    ("control", OFFSETS),
    ("proxy", OFFSETS),
];

const OFFSETS: &[(&str, &str)] =
    &[("Offset::new", "only core computes with offsets"), (".ahead_of(", "only core compares two offsets")];

const MAX_LINES: usize = 600;

struct Source {
    path: PathBuf,
    layer: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let first = path.strip_prefix(&root).expect("below src").components().next().expect("a name");
                let layer = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                found.push(Source { path, layer, text });
            }
        }
    }
    found
}

impl Source {
    /// The lines before the tests, with comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
        lines.enumerate().map(|(n, line)| (n + 1, line.split("//").next().unwrap_or("")))
    }

    fn is_test(&self) -> bool {
        self.path.file_stem().is_some_and(|s| s == "tests")
            || self.path.components().any(|c| c.as_os_str() == "tests")
    }

    fn rank(&self) -> Option<usize> {
        LAYERS.iter().position(|layer| layer.contains(&self.layer.as_str()))
    }
}

#[test]
fn the_layers_point_one_way() {
    let mut faults = Vec::new();
    let mut visited = 0;
    for source in sources().iter().filter(|s| s.layer != "lib" && !s.is_test()) {
        let Some(rank) = source.rank() else {
            faults.push(format!("{}: belongs to no layer; add it to LAYERS", source.path.display()));
            continue;
        };
        visited += 1;
        for (number, line) in source.code() {
            for above in LAYERS.iter().skip(rank + 1).copied().flatten() {
                if line.contains(&format!("crate::{above}::"))
                    || line.contains(&format!("redweir::{above}::")) && source.layer != "main"
                {
                    faults.push(format!(
                        "{}:{number}: {} may not use {above}",
                        source.path.display(),
                        source.layer
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(visited >= 5, "visited only {visited} files");
}

#[test]
fn each_layer_keeps_its_hands_clean() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let banned = BANNED.iter().filter(|(layer, _)| *layer == source.layer).flat_map(|(_, words)| *words);
        for (word, why) in banned {
            for (number, line) in source.code().filter(|(_, line)| line.contains(word)) {
                faults.push(format!("{}:{number}: `{word}`: {why}: {}", source.path.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_grows_into_two() {
    let mut faults = Vec::new();
    let all = sources();
    for source in all.iter().filter(|s| !s.is_test() && !s.path.to_string_lossy().contains("table")) {
        let lines = source.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if lines > MAX_LINES {
            faults
                .push(format!("{}: {lines} lines without tests, at most {MAX_LINES}", source.path.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(all.len() >= 6, "visited only {} files", all.len());
}

#[test]
fn every_file_says_what_it_is_and_nothing_is_unfinished() {
    let unfinished = ["todo!", "unimplemented!", "FIXME", "XXX", "dbg!"];
    let mut faults = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            faults.push(format!("{}: no module doc", source.path.display()));
        }
        for (n, line) in source.text.lines().enumerate() {
            for word in unfinished.iter().filter(|w| line.contains(**w)) {
                faults.push(format!("{}:{}: {word}", source.path.display(), n + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
