//! The rules of CONTRIBUTING.md that a machine can check: the order of the layers, what each layer may not touch, how long
//! a file may be, that nothing unfinished is left behind, and that the documentation points at what exists. It counts
//! what it visited, so that it cannot pass by seeing nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first (docs/architecture.md). A file may name only layers of a lower rank, or its own.
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

/// Bytes of the README: the rest is in docs/.
const MAX_README: usize = 8192;

/// A page for people.
struct Page {
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> Page {
    let path = root().join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|problem| panic!("{name}: {problem}"));
    Page { path, text }
}

fn pages() -> Vec<Page> {
    let mut names: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "benches/README.md"].map(str::to_owned).into();
    for entry in fs::read_dir(root().join("docs")).expect("docs is readable") {
        let path = entry.expect("docs is readable").path();
        if path.extension().is_some_and(|e| e == "md") {
            names.push(path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned());
        }
    }
    names.iter().map(|name| page(name)).collect()
}

impl Page {
    /// The lines outside of fenced blocks, with their numbers.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(n, line)| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            (!fenced && !fence).then_some((n + 1, line))
        })
    }

    /// The targets of links to other files and places, not to other hosts.
    fn links(&self) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for (n, line) in self.prose() {
            let ends = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(ends.map(|(target, _)| (n, target)).filter(|(_, target)| !target.contains(':')));
        }
        found
    }

    /// Names of files in backticks: `src/main.rs`, or from `src` on.
    fn files(&self) -> Vec<(usize, &str)> {
        let is_file = |word: &&str| {
            let ends = [".rs", ".md", ".toml", ".txt", ".yaml"].iter().any(|end| word.ends_with(end));
            ends && word.contains('/') && !word.starts_with('/') && !word.contains([' ', '*', '<'])
        };
        let spans =
            self.prose().flat_map(|(n, line)| line.split('`').skip(1).step_by(2).map(move |s| (n, s)));
        spans.filter(|(_, word)| is_file(word)).collect()
    }

    /// The anchors that its headings make, as GitHub does.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().filter_map(|(_, line)| line.strip_prefix('#'));
        headings
            .map(|line| line.trim_start_matches('#').trim().to_lowercase())
            .map(|line| {
                let kept = line.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
                kept.map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    }
}

#[test]
fn the_docs_point_at_what_exists() {
    let mut faults = Vec::new();
    let (all, mut links, mut files) = (pages(), 0, 0);
    for page in &all {
        let name = page.path.strip_prefix(root()).expect("below the root").display();
        let beside = page.path.parent().expect("a file is somewhere");
        for (n, target) in page.links() {
            links += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.path.clone() } else { beside.join(path) };
            let inside = file.canonicalize().is_ok_and(|file| file.starts_with(root()));
            if !inside {
                faults.push(format!("{name}:{n}: there is no {target}"));
            } else if !anchor.is_empty() {
                let there = all.iter().find(|page| page.path.canonicalize().ok() == file.canonicalize().ok());
                if !there.is_some_and(|page| page.anchors().contains(anchor)) {
                    faults.push(format!("{name}:{n}: no heading makes #{anchor} of {target}"));
                }
            }
        }
        for (n, file) in page.files() {
            files += 1;
            if !root().join(file).exists() && !root().join("src").join(file).exists() {
                faults.push(format!("{name}:{n}: there is no {file}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let length = page("README.md").text.len();
    assert!(
        length <= MAX_README,
        "README.md has {length} bytes, at most {MAX_README}: move something to docs/"
    );
    assert!(
        all.len() >= 9 && links >= 60 && files >= 80,
        "{} pages, {links} links, {files} files",
        all.len()
    );
}

/// What follows `before` in `text` each time, as far as it is lower case letters and `_`.
fn words<'t>(text: &'t str, before: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(before)
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default())
}

#[test]
fn the_manual_has_every_metric_and_no_other() {
    let manual = page("docs/operations.md").text;
    let mut known = BTreeSet::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
        known.extend(words(&code, "\"redweir_").map(str::to_owned));
    }
    let told: BTreeSet<String> = words(&manual, "redweir_").map(str::to_owned).collect();
    let (missing, unknown) = (known.difference(&told), told.difference(&known));
    let faults: Vec<String> = (missing.map(|name| format!("redweir_{name} is not in docs/operations.md")))
        .chain(unknown.map(|name| format!("redweir_{name} is not in src")))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(known.len() >= 34, "saw only {}", known.len());
}

/// The strings that a `match` of the function `name` in the source file `path` gives.
fn labels(path: &str, name: &str) -> Vec<String> {
    let text = page(path).text;
    let (_, body) = text.split_once(&format!("fn {name}(")).expect("the function is there");
    let (body, _) = body.split_once("\n    }\n").expect("it has an end");
    words(body, "=> \"").map(str::to_owned).collect()
}

#[test]
fn the_manual_has_every_reason_and_why_a_link_ends() {
    let manual = page("docs/operations.md").text;
    let reasons = labels("src/core/reason.rs", "label");
    for reason in &reasons {
        assert!(manual.contains(&format!("\n| `{reason}` | ")), "docs/operations.md has no row for {reason}");
    }
    let ends = labels("src/control/follower/detached.rs", "kind");
    for end in &ends {
        assert!(manual.contains(&format!("`{end}`")), "docs/operations.md does not say {end}");
    }
    assert!(reasons.len() >= 34 && ends.len() >= 13, "saw {} and {}", reasons.len(), ends.len());
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// The README repeats a few medians by hand. With another run of the bench they are others.
#[test]
fn the_figures_of_the_readme_are_those_of_the_bench() {
    let (readme, full) = (page("README.md").text, page("docs/performance.md").text);
    let mut table = readme.lines().skip_while(|line| !line.starts_with("| 50 clients |"));
    let through = cells(table.next().expect("the README has figures"));
    let mut seen = 0;
    for row in table.skip(1).take_while(|line| line.starts_with('|')) {
        let row = cells(row);
        for (through, figure) in through.iter().zip(&row).skip(1) {
            let measured =
                full.lines().find(|line| line.starts_with(&format!("| {} | {through} | ", row[0])));
            let measured = measured.unwrap_or_else(|| panic!("docs/performance.md: no {} {through}", row[0]));
            let of_direct = cells(measured)[3].split(' ').next().unwrap_or_default();
            assert_eq!(*figure, of_direct, "README.md: {} through {through}", row[0]);
            seen += 1;
        }
    }
    assert!(seen >= 20, "saw only {seen} figures");
}
