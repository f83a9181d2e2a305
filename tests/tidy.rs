//! The rules of CONTRIBUTING.md that a machine can check: the order of the layers, what each layer may not touch, how long
//! a file may be, that nothing unfinished is left behind, and that the documentation points at what exists. It counts
//! what it visited, so that it cannot pass by seeing nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders, lowest first (docs/architecture.md). A file may import only what stands below its folder, or in it; those
/// of one line import nothing of each other.
const FOLDERS: &[&[&str]] = &[
    &["mutant"],
    &["core"],
    &["wire"],
    &["config", "telemetry"],
    &["net/runtime"],
    &["net/socket"],
    &["net"],
    &["shard"],
    &["control/follower"],
    &["control"],
    &["proxy/downstream"],
    &["proxy/upstream"],
    &["proxy/worker"],
    &["proxy/session"],
    &["proxy/local"],
    &["proxy/serve"],
    &["proxy"],
    &["admin"],
    &["app"],
    &["demo"],
    &["cli"],
    &["main"],
    &["lib"],
];

/// What meets only in a shard: who finds out, and who serves clients.
const APART: (&str, &str) = ("control", "proxy");

/// How many files there are at least, nearly: whoever visits fewer has seen too little. To be raised as they grow.
const FILES: usize = 190;

/// How many imports of one file by another there are at least, nearly.
const IMPORTS: usize = 900;

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

    /// Its module: `proxy/worker` for `src/proxy/worker/mod.rs` as for `src/proxy/worker.rs`.
    fn module(&self) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let path = self.path.strip_prefix(&root).expect("below src").with_extension("");
        let path = path.to_str().expect("a path is UTF-8").to_owned();
        path.strip_suffix("/mod").map_or_else(|| path.clone(), ToOwned::to_owned)
    }
}

/// The rank of a module's folder, and that folder.
fn rank(module: &str) -> Option<(usize, &'static str)> {
    let is_in = |folder: &str| {
        module.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let ranked =
        FOLDERS.iter().enumerate().flat_map(|(rank, folders)| folders.iter().map(move |f| (rank, *f)));
    ranked.filter(|(_, folder)| is_in(folder)).max_by_key(|(_, folder)| folder.len())
}

/// The paths that begin here, after the first `::`: one for each item of nested braces.
fn paths(text: &str, before: &str, found: &mut Vec<String>) -> usize {
    let name = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (path, rest) = (format!("{before}/{}", &text[..name]), &text[name..]);
    let Some(after) = rest.strip_prefix("::") else {
        found.push(path);
        return name;
    };
    let Some(mut items) = after.strip_prefix('{') else {
        return name + 2 + paths(after, &path, found);
    };
    loop {
        items = items.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if items.is_empty() || items.starts_with('}') {
            return text.len() - items.len() + 1;
        }
        items = &items[paths(items, &path, found).max(1)..];
    }
}

/// What a file imports of others, or names by its path: their modules, each once.
fn imports(source: &Source, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let own = source.module();
    let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
    let parent = own.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
    let mut found = Vec::new();
    let starts = [
        ("crate::", String::new()),
        ("redweir::", String::new()),
        ("super::", parent),
        ("self::", own.clone()),
    ];
    for (word, base) in starts {
        for (at, _) in code.match_indices(word) {
            if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                paths(&code[at + word.len()..], &base, &mut found);
            }
        }
    }
    // Its own children, which need no word before them.
    for child in modules.iter().filter_map(|module| module.strip_prefix(&format!("{own}/"))) {
        let named = |(at, _): (usize, &str)| {
            !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
        };
        if !child.contains('/') && code.match_indices(&format!("{child}::")).any(named) {
            found.push(format!("{own}/{child}"));
        }
    }
    let module_of = |path: &str| {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if part == "super" { parts.truncate(parts.len().saturating_sub(1)) } else { parts.push(part) }
        }
        let known = |length: &usize| modules.contains(&parts[..*length].join("/"));
        (1..=parts.len()).rev().find(known).map(|length| parts[..length].join("/"))
    };
    found.iter().filter_map(|path| module_of(path)).filter(|module| *module != own).collect()
}

/// Every file, and what it imports.
fn house() -> BTreeMap<String, BTreeSet<String>> {
    let all: Vec<Source> = sources().into_iter().filter(|source| !source.is_test()).collect();
    let modules: BTreeSet<String> = all.iter().map(Source::module).filter(|module| module != "lib").collect();
    all.iter().map(|source| (source.module(), imports(source, &modules))).collect()
}

#[test]
fn every_import_points_down() {
    let (house, mut faults, mut counted) = (house(), Vec::new(), 0);
    for (module, imports) in house.iter().filter(|(module, _)| *module != "lib") {
        let Some((own, folder)) = rank(module) else {
            faults.push(format!("{module}: stands in no folder of FOLDERS"));
            continue;
        };
        for import in imports {
            counted += 1;
            let Some((theirs, other)) = rank(import) else { continue };
            let apart = [(folder, other), (other, folder)]
                .iter()
                .any(|(a, b)| a.starts_with(APART.0) && b.starts_with(APART.1));
            if theirs > own || theirs == own && folder != other || apart {
                faults.push(format!("{module} may not import {import}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(house.len() >= FILES, "visited only {} files", house.len());
    assert!(counted >= IMPORTS, "found only {counted} imports");
}

#[test]
fn no_circle_has_more_than_two_files() {
    let house = house();
    // What can be reached from each file.
    let reach: BTreeMap<&str, BTreeSet<&str>> = house
        .keys()
        .map(|from| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from.as_str()]);
            while let Some(at) = open.pop() {
                open.extend(house[at].iter().map(String::as_str).filter(|to| seen.insert(*to)));
            }
            (from.as_str(), seen)
        })
        .collect();
    let circle = |file: &str| -> BTreeSet<&str> {
        reach[file].iter().copied().filter(|other| reach[other].contains(file)).collect()
    };
    let circles: BTreeSet<BTreeSet<&str>> = house.keys().map(|file| circle(file)).collect();
    let large: Vec<String> =
        circles.iter().filter(|circle| circle.len() > 2).map(|circle| format!("{circle:?}")).collect();
    assert!(large.is_empty(), "{}", large.join("\n"));
}

#[test]
fn no_room_grows_into_a_house() {
    let lines = |source: &Source| source.text.lines().count();
    let all = sources();
    let total: usize = all.iter().map(lines).sum();
    let proxy: usize = all.iter().filter(|source| source.layer == "proxy").map(lines).sum();
    assert!(proxy * 100 <= total * 45, "proxy has {proxy} of {total} lines, at most 45 %");
    assert!(total >= 27_000, "visited only {total} lines");
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
fn every_deliberate_bug_has_tests_that_catch_it() {
    let code: String = sources().into_iter().map(|source| source.text).collect();
    let known: BTreeSet<&str> =
        code.split("mutant::is(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let list = fs::read_to_string(root().join("tests/mutants.txt")).expect("the list is there");
    let mut listed = BTreeSet::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (mutant, target) = (words.next().expect("a name"), words.next().expect("a target"));
        let exists = |path: String| root().join(path).exists();
        let is_there = ["lib", "gate"].contains(&target)
            || exists(format!("tests/{target}.rs"))
            || exists(format!("tests/servers/{target}.rs"));
        assert!(is_there, "{line}: there is no such file of tests");
        assert!(listed.insert(mutant), "{mutant} is listed twice");
    }
    assert_eq!(known, listed, "tests/mutants.txt lists what src has");
    assert!(known.len() >= 64, "found only {} mutants", known.len());
}

#[test]
fn no_file_of_tests_is_forgotten() {
    let folder = root().join("tests/servers");
    let main = fs::read_to_string(folder.join("main.rs")).expect("it is there");
    let named: BTreeSet<&str> =
        main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(&folder).expect("it is there") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let is_code = path.extension().is_some_and(|ext| ext == "rs") && name != "main";
        if is_code || path.join("mod.rs").exists() {
            there.insert(name);
        }
    }
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(named, there, "tests/servers/main.rs names every file beside it");
    assert!(there.len() >= 38, "found only {} files", there.len());
}

#[test]
fn no_file_grows_into_two() {
    let mut faults = Vec::new();
    let all = sources();
    for source in all.iter().filter(|s| !s.is_test()) {
        let lines = source.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if lines > MAX_LINES {
            faults
                .push(format!("{}: {lines} lines without tests, at most {MAX_LINES}", source.path.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(all.len() >= FILES, "visited only {} files", all.len());
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

#[test]
fn every_page_tells_the_same_version() {
    let version = env!("CARGO_PKG_VERSION");
    for (name, told) in [
        ("README.md", format!(", version {version}.")),
        ("CHANGELOG.md", format!("\n## [{version}] - ")),
        ("docs/operations.md", format!("\nINFO redweir {version} starts: ")),
        ("tests/fuzz/Cargo.lock", format!("name = \"redweir\"\nversion = \"{version}\"\n")),
    ] {
        assert!(page(name).text.contains(&told), "{name} does not say: {told}");
    }
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
