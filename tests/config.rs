//! The configuration as its reader meets it: the reference file is complete and says the defaults, and whatever is
//! wrong with a file is told with its line, its key and what was meant.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use redweir::config::{Config, ConfigError, Flags, LogFormat, Problem, schema};
use redweir::core::address::Address;
use redweir::core::policy::{Consistency, Policy, PolicyId};
use redweir::core::stream::source::StreamSource;

const REFERENCE: &str = include_str!("../config/redweir.toml");
const MANUAL: &str = include_str!("../docs/operations.md");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("t.toml"))
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// What must be in any file, and then `rest`.
fn with(rest: &str) -> String {
    format!("[[listen]]\naddress = \"a:1\"\n[upstream]\nprimary = \"b:2\"\n{rest}")
}

/// The only problem of a text.
fn problem(text: &str) -> Problem {
    let mut error = parse(text).expect_err(text);
    assert_eq!(error.problems.len(), 1, "{error}\n{text}");
    error.problems.remove(0)
}

/// `#key = value` is a setting that is commented out; `# words` are words.
fn uncommented() -> String {
    let setting = |line: &&str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
    };
    let lines = REFERENCE.lines().filter(|line| !line.starts_with("#password = "));
    lines.map(|line| if setting(&line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n") + "\n"
}

/// The three files that the reference has in it: the nodes are configured, or sentinels tell which there are, or nodes of a cluster do.
fn whole_files() -> [String; 3] {
    let all = uncommented();
    let begin = all.find("[upstream.sentinel]").unwrap();
    let cluster = begin + all[begin..].find("\n[upstream.cluster]").unwrap();
    let end = cluster + all[cluster..].find("\n[upstream.tls]").unwrap();
    let without = |text: &str, keys: &[&str]| {
        let is_one = |line: &&str| keys.iter().any(|key| line.starts_with(&format!("{key} = ")));
        text.lines().filter(|line| !is_one(line)).collect::<Vec<_>>().join("\n") + "\n"
    };
    let configured = without(&[&all[..begin], &all[end..]].concat(), &["address-map"]);
    let of = |table: &str| without(&[&all[..begin], table, &all[end..]].concat(), &["primary", "replicas"]);
    [configured, of(&all[begin..cluster]), of(&all[cluster..end])]
}

/// A `key = value` of a text, and where in the text it is.
struct Setting {
    table: String,
    key: String,
    line: usize,
    start: usize,
    value: std::ops::Range<usize>,
}

impl Setting {
    /// A key of this table, in full.
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.table)
    }
}

fn settings(text: &str) -> Vec<Setting> {
    let (mut found, mut table, mut at, mut open) = (Vec::<Setting>::new(), String::new(), 0, false);
    for (index, line) in text.lines().enumerate() {
        let end = at + line.len();
        if open {
            found.last_mut().unwrap().value.end = end;
            open = !line.starts_with(']');
        } else if line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut table);
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let value_at = end - value.len();
            let (table, key) = (table.clone(), key.to_owned());
            found.push(Setting { table, key, line: index + 1, start: at, value: value_at..end });
            open = value == "[";
        }
        at = end + 1;
    }
    found
}

/// A directory with the files that the reference names.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write("redweir.password", "secret\n");
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("redweir.crt", &own.cert.pem());
    write("redweir.key", &own.signing_key.serialize_pem());
    write("ca.crt", &own.cert.pem());
    home
}

#[test]
fn the_reference_says_the_defaults() {
    let read = parse(REFERENCE).unwrap();
    let replicas = vec![address("127.0.0.1:6381"), address("127.0.0.1:6382")];
    let flags = Flags::to(vec![address("127.0.0.1:6380")], address("127.0.0.1:6379"), replicas);
    let flags = Flags { admin: Some(address("127.0.0.1:9380")), ..flags };
    assert_eq!(read, Config::from_flags(flags).unwrap());
    let empty_tables = with("replicas = []\n[policy.default]\n[stream]\n[proxy]\n[security]\n[log]\n");
    let flags = Flags::to(vec![address("a:1")], address("b:2"), vec![]);
    let nothing_said = Config::from_flags(flags).unwrap();
    assert_eq!(parse(&empty_tables).unwrap(), nothing_said);
    assert_eq!(parse(&with("")).unwrap(), nothing_said);
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let text = uncommented();
    let mut there: Vec<String> = settings(&text).iter().map(|s| s.full(&s.key)).collect();
    there.push("upstream.password".to_owned());
    let tables = schema::TABLES.iter().filter(|table| !table.name.is_empty());
    let mut known: Vec<String> = tables
        .flat_map(|table| {
            table.keys.iter().map(|key| format!("{}.{key}", table.name.replace('*', "default")))
        })
        .filter(|key| schema::TABLES.iter().all(|table| table.name != key))
        .collect();
    there.sort_unstable();
    known.sort_unstable();
    assert_eq!(there, known);
    assert!(known.len() >= 35, "saw only {}", known.len());
    assert!(REFERENCE.contains("\n#password = "));
    for line in REFERENCE.lines() {
        assert!(line.chars().count() <= 130, "too long to read: {line}");
    }
}

/// What docs/operations.md says of each key: the cell of its default, by `table.key`.
fn manual() -> HashMap<String, String> {
    let mut rows = HashMap::new();
    for section in MANUAL.split("\n### `[").skip(1) {
        let (table, rest) = section.split_once(']').unwrap();
        let table = table.trim_start_matches('[').replace("NAME", "default");
        let body = rest.split("\n#").next().unwrap();
        for row in body.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (key, rest) = row.split_once("` | ").unwrap();
            let (default, _) = rest.split_once(" | ").unwrap();
            let before = rows.insert(format!("{table}.{key}"), default.to_owned());
            assert_eq!(before, None, "{table}.{key} is there twice");
        }
    }
    rows
}

#[test]
fn the_manual_has_every_key_and_its_default() {
    // The reference has a value for them that is no default, or too long to say twice.
    let examples = [
        "listen.address",
        "admin.address",
        "upstream.primary",
        "upstream.replicas",
        "security.deny-commands",
    ];
    let (mut rows, defaults, all) = (manual(), settings(REFERENCE), uncommented());
    let count = rows.len();
    for key in settings(&all).iter().map(|s| s.full(&s.key)) {
        let told = rows.remove(&key).unwrap_or_else(|| panic!("docs/operations.md has no row for {key}"));
        let default = defaults.iter().find(|s| s.full(&s.key) == key);
        match default.filter(|_| !examples.contains(&key.as_str())) {
            Some(setting) => assert_eq!(told, format!("`{}`", &REFERENCE[setting.value.clone()]), "{key}"),
            None => assert!(!told.contains('`'), "{key} has no default: {told}"),
        }
    }
    assert!(rows.remove("upstream.password").is_some(), "the only key that cannot be set with the others");
    assert!(rows.is_empty(), "no such keys: {rows:?}");
    assert!(count >= 47, "saw only {count}");
}

#[test]
fn the_settings_that_are_commented_out_work() {
    let home = home();
    let [configured, by_sentinels, in_cluster] = whole_files();
    let config = Config::parse(&in_cluster, &home.path().join("redweir.toml")).unwrap();
    let cluster = config.upstream.cluster.as_ref().unwrap();
    assert_eq!((cluster.addresses.len(), cluster.split_writes), (2, false));
    assert!(config.upstream.are_nodes_found() && config.upstream.nodes().is_empty());
    let config = Config::parse(&by_sentinels, &home.path().join("redweir.toml")).unwrap();
    let sentinel = config.upstream.sentinel.as_ref().unwrap();
    assert_eq!((sentinel.master_name.as_str(), sentinel.addresses.len()), ("mymaster", 3));
    assert_eq!(sentinel.credentials().unwrap().password, "secret");
    assert!(sentinel.tls.is_some() && !format!("{config:?}").contains("secret"));
    let reached = config.upstream.address_map.get(&address("10.0.0.5:6379"));
    assert_eq!(reached, Some(&address("redis-1.example.com:6379")));
    let config = Config::parse(&configured, &home.path().join("redweir.toml")).unwrap();
    assert_eq!(config.upstream.password.as_deref(), Some("secret"));
    assert_eq!(config.upstream.credentials().unwrap().username.as_deref(), Some("redweir"));
    let route = &config.policies.routes[0];
    assert_eq!((route.commands.len(), route.keys[0].as_str()), (2, "catalog:*"));
    assert!(!format!("{config:?}").contains("secret"));
    assert_eq!(config.listen[0].unix_perm, Some(0o700));
    assert!(config.listen[0].tls.as_ref().unwrap().client_ca.is_some());
    assert_eq!(config.upstream.tls.unwrap().server_name.unwrap().to_str(), "redis.example.com");
}

#[test]
fn every_file_in_config_works() {
    let mut seen = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let path = entry.unwrap().path();
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(!config.listen.is_empty());
        seen += 1;
    }
    assert!(seen >= 3, "saw only {seen}");
    let sidecar = Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sidecar.toml")).unwrap();
    assert_eq!((sidecar.listen[1].policy, sidecar.policies.routes[0].policy), (PolicyId(1), PolicyId(1)));
    assert_eq!(sidecar.policies.all[1].consistency, Consistency::Bounded);
    assert_eq!((sidecar.proxy.workers, sidecar.log.format), (1, LogFormat::Json));
}

#[test]
fn every_mistake_in_every_key_is_told_with_its_line_and_key() {
    let home = home();
    let path = home.path().join("redweir.toml");
    let [configured, told, in_cluster] = whole_files();
    // What sentinels tell is in the other file; the rest is the same in both.
    let of_sentinels = |s: &Setting| s.table.starts_with("upstream.sentinel") || s.key == "address-map";
    let tried = std::thread::scope(|scope| {
        let told = scope.spawn(|| every_mistake_in(&told, of_sentinels, &path));
        let of_cluster = |s: &Setting| s.table == "upstream.cluster";
        let tried = every_mistake_in(&in_cluster, of_cluster, &path);
        every_mistake_in(&configured, |_| true, &path) + tried + told.join().unwrap()
    });
    assert!(tried > 500, "tried only {tried}");
    println!("{tried} mistakes");
}

/// How many mistakes were tried.
fn every_mistake_in(text: &str, wanted: impl Fn(&Setting) -> bool, path: &Path) -> usize {
    let mut tried = 0;
    let mut corrupt =
        |setting: &Setting, key: &str, range: std::ops::Range<usize>, with: &str, says: &str| {
            let mut broken = text.to_owned();
            broken.replace_range(range, with);
            let error = Config::parse(&broken, path).expect_err(&format!("{} {with}", setting.key));
            let hit =
                error.problems.iter().find(|p| p.position.as_ref().is_some_and(|at| at.line == setting.line));
            let hit = hit.unwrap_or_else(|| panic!("no problem on line {}:\n{error}", setting.line));
            assert_eq!(hit.key, key, "{error}");
            assert!(hit.to_string().contains(says), "{says}? {error}");
            let others = error.problems.iter().filter(|p| *p != hit && p.position.is_some());
            // A policy that is not read leaves nothing else behind; a misspelt required key is also missing.
            assert!(
                others
                    .clone()
                    .all(|p| p.message.contains("missing") || p.message.contains("needs a password")),
                "{error}"
            );
            tried += 1;
        };
    for s in settings(text).into_iter().filter(wanted) {
        let full = s.full(&s.key);
        let misspelt = format!("{}x", s.key);
        let name = s.start..s.start + s.key.len();
        corrupt(&s, &s.full(&misspelt), name.clone(), &misspelt, &format!("did you mean `{}`?", s.key));
        let snake = s.key.replace('-', "_").to_uppercase();
        corrupt(&s, &s.full(&snake), name, &snake, &format!("did you mean `{}`?", s.key));
        for (value, words) in
            [("2024-01-01", "found a date"), ("{}", "found a table"), ("0.5", "found the number 0.5")]
        {
            corrupt(&s, &full, s.value.clone(), value, words);
        }
        let list = text[s.value.clone()].starts_with('[');
        let bad: &[&str] = match s.key.as_str() {
            _ if list => &["[\"\"]", "[7]", "\"text\"", "7", "true"],
            "username" | "password-file" | "master-name" | "zone" | "cert" | "key" | "ca" | "client-ca" => {
                &["\"\"", "[\"a\"]", "7", "true"]
            }
            "replica-serve-stale-data"
            | "maint-notifications"
            | "reuse-port"
            | "share-reads"
            | "split-writes" => &["\"\"", "\"YES\"", "1", "[]"],
            _ => &["\"\"", "\"-1\"", "-1", "[\"1s\"]", "true", "99999999999999999999"],
        };
        for value in bad {
            corrupt(&s, &full, s.value.clone(), value, "expected");
        }
        if !full.contains(".password") {
            corrupt(&s, "", s.value.clone(), "\"open", "not TOML");
        }
    }
    tried
}

#[test]
fn every_misspelt_table_is_told() {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let mut tried = 0;
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with('[')) {
        if line.contains('.') {
            continue;
        }
        let name = line.trim_matches(['[', ']']);
        let misspelt = line.replace(name, &format!("{name}z"));
        let broken = [&lines[..index], &[misspelt.as_str()], &lines[index + 1..]].concat();
        let error = parse(&broken.join("\n")).unwrap_err();
        let hit = error.problems.iter().find(|p| p.key == format!("{name}z")).unwrap();
        assert_eq!(hit.position.as_ref().map(|p| p.line), Some(index + 1));
        assert_eq!(hit.help.as_deref(), Some(format!("did you mean `{name}`?").as_str()));
        tried += 1;
    }
    assert_eq!(tried, 7);
}

#[test]
fn a_problem_reads_like_this() {
    let text = "[[listen]]\naddress = \"127.0.0.1:6380\"\n[upstream]\nprimary = \"127.0.0.1:6379\"\n\n\
                [policy.default]\nmax_lag = \"1s\"\nmax-stale = \"1 minute\"\n";
    let expected = "\
t.toml:7:1: policy.default.max_lag: unknown key `max_lag`
  |
7 | max_lag = \"1s\"
  | ^^^^^^^
  = help: did you mean `max-lag`?
t.toml:8:13: policy.default.max-stale: expected a duration from \"1ms\" to \"24h\" (units: us, ms, s, m, h), found \"1 minute\"
  |
8 | max-stale = \"1 minute\"
  |             ^^^^^^^^^^";
    assert_eq!(parse(text).unwrap_err().to_string(), expected);
    let missing = "\
t.toml: listen: there is no [[listen]], so no client could connect
 = help: add [[listen]] with address = \"127.0.0.1:6380\"
t.toml: upstream.primary: there is no primary, so writes could go nowhere
 = help: add primary = \"127.0.0.1:6379\" to [upstream]";
    assert_eq!(parse("").unwrap_err().to_string(), missing);
    assert_eq!(problem("listen = []\n[upstream]\nprimary = \"b:2\"").key, "listen");
}

#[test]
fn values_out_of_range_are_refused() {
    let cases = [
        ("[policy.default]\nmax-lag = \"0s\"", "policy.default.max-lag"),
        ("[policy.default]\nmax-lag-bytes = 0", "policy.default.max-lag-bytes"),
        ("[policy.default]\nwait-timeout = \"2h\"", "policy.default.wait-timeout"),
        ("[policy.default]\nmax-lag = 100", "policy.default.max-lag"),
        ("[stream]\nfence-slots = 1000", "stream.fence-slots"),
        ("[stream]\nfence-slots = 1048577", "stream.fence-slots"),
        ("[stream]\nfence-slots = 1", "stream.fence-slots"),
        ("[proxy]\nmax-clients = 0", "proxy.max-clients"),
        ("[proxy]\nclient-output-buffer-limit = \"1kb\"", "proxy.client-output-buffer-limit"),
        ("[proxy]\nworkers = 100000", "proxy.workers"),
        ("poll-interval = \"1us\"", "upstream.poll-interval"),
        ("replicas = [\"c:0\"]", "upstream.replicas"),
        ("replicas = [\"c\"]", "upstream.replicas"),
        ("[[listen]]\naddress = \"d:0\"", "listen.address"),
        ("[[listen]]\naddress = \"unix:relative.sock\"", "listen.address"),
        ("[admin]\naddress = \"unix:/run/admin.sock\"", "admin.address"),
        ("[admin]", "admin.address"),
        ("[log]\nlevel = \"INFO\"", "log.level"),
        ("[security]\ndeny-commands = [\"config set\"]", "security.deny-commands"),
        ("[security]\ndeny-commands = [\"config|set|x\"]", "security.deny-commands"),
        ("[security]\ndeny-commands = [\"shutdwn\"]", "security.deny-commands"),
        ("[[route]]\ncommands = []\npolicy = \"default\"", "route.commands"),
        ("[[route]]\ncommands = [\"get\"]", "route.policy"),
        ("[policy.\"a b\"]", "policy.a b"),
        ("[policy]\ndefault = 1", "policy.default"),
        ("[policy]\nconsistency = \"fenced\"", "policy.consistency"),
        ("replicas = [\"redis://c:3\"]", "upstream.replicas"),
    ];
    for (rest, key) in cases {
        let problem = problem(&with(rest));
        let last = with(rest).lines().count();
        assert_eq!(problem.key, key);
        let line = problem.position.unwrap().line;
        assert!(line == last || line + 1 == last, "{rest}: line {line}");
    }
    assert_eq!(
        problem(&with("[security]\ndeny-commands = [\"CONFIG set\"]")).help.unwrap(),
        "a subcommand is written \"config|set\""
    );
    assert_eq!(
        problem(&with("[security]\ndeny-commands = [\"get\", \"shutdwn\"]")).help.unwrap(),
        "did you mean `shutdown`?"
    );
    assert_eq!(
        problem(&with("[policy.default]\nmax-lag = 100")).help.unwrap(),
        "it needs a unit: \"100ms\" or \"100s\""
    );
}

#[test]
fn who_tells_which_nodes_there_are_is_said_once() {
    let sentinels = "[upstream.sentinel]\nmaster-name = \"m\"\naddresses = [\"c:3\"]";
    let error = parse(&with(&format!("replicas = [\"d:4\"]\n{sentinels}"))).unwrap_err();
    let keys: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["upstream.primary", "upstream.replicas"], "{error}");
    let alone = |rest: &str| format!("[[listen]]\naddress = \"a:1\"\n[upstream]\n{rest}");
    assert!(parse(&alone(sentinels)).unwrap().upstream.nodes().is_empty());
    for (rest, key, message) in [
        ("[upstream.sentinel]\naddresses = [\"c:3\"]", "upstream.sentinel.master-name", "it is missing"),
        ("[upstream.sentinel]\nmaster-name = \"m\"", "upstream.sentinel.addresses", "it is missing"),
        (
            "[upstream.sentinel]\nmaster-name = \"m\"\naddresses = []",
            "upstream.sentinel.addresses",
            "at least one",
        ),
        (
            "[upstream.sentinel]\nmaster-name = \"m m\"\naddresses = [\"c:3\"]",
            "upstream.sentinel.master-name",
            "without blanks",
        ),
        (
            "[upstream.sentinel]\nmaster-name = \"m\"\naddresses = [\"a:1\"]",
            "upstream.sentinel.addresses",
            "already used by `listen.address` on line 2",
        ),
        (
            "[upstream.sentinel]\nmaster-name = \"m\"\naddresses = [\"c:3\"]\nusername = \"u\"",
            "upstream.sentinel.username",
            "needs a password",
        ),
        (
            "address-map = { \"d\" = \"e:5\" }\n[upstream.sentinel]\nmaster-name = \"m\"\naddresses = [\"c:3\"]",
            "upstream.address-map",
            "there is no port",
        ),
    ] {
        let problem = problem(&alone(rest));
        assert_eq!(problem.key, key, "{rest}");
        assert!(problem.to_string().contains(message), "{problem}");
    }
    let idle = problem(&with("address-map = { \"d:4\" = \"e:5\" }"));
    assert!(idle.key == "upstream.address-map" && idle.message.contains("no [upstream.sentinel]"), "{idle}");
}

#[test]
fn replicas_are_listed_or_found() {
    let upstream = |text: &str| parse(&with(text)).unwrap().upstream;
    let auto = upstream("replicas = \"auto\"\naddress-map = { \"c:3\" = \"d:4\" }");
    assert!(auto.replicas_from_nodes && auto.are_nodes_found() && auto.replicas.is_empty());
    let both =
        upstream("replicas = [\"dns:pods.example:6379\", \"c:3\"]\naddress-map = { \"c:3\" = \"d:4\" }");
    assert_eq!(
        (both.names.clone(), both.replicas.clone()),
        (vec![address("pods.example:6379")], vec![address("c:3")])
    );
    assert!(both.are_nodes_found() && !both.replicas_from_nodes);
    assert!(!upstream("replicas = [\"c:3\"]").are_nodes_found());
    for (rest, key, says) in [
        ("replicas = \"aut\"", "upstream.replicas", "did you mean `auto`?"),
        ("replicas = \"c.example:3\"", "upstream.replicas", "one goes in brackets, too: [\"c.example:3\"]"),
        ("replicas = [\"auto\"]", "upstream.replicas", "there is no port"),
        ("replicas = [\"dns:pods\"]", "upstream.replicas", "expected dns:name:port"),
        ("replicas = [\"dns:[::1]:6379\"]", "upstream.replicas", "expected dns:name:port"),
        ("replicas = [\"dns:p:1\", \"c:3\", \"dns:P:1\"]", "upstream.replicas", "dns:P:1 is there twice"),
        (
            "replicas = [\"dns:p:1\"]\n[upstream.tls]",
            "upstream.tls.server-name",
            "known by their numbers alone",
        ),
    ] {
        let problem = problem(&with(rest));
        assert_eq!(problem.key, key, "{rest}");
        assert!(problem.to_string().contains(says), "{problem}");
        assert!(problem.position.is_some_and(|at| at.line >= 5), "{rest}");
    }
    let primary = problem("[[listen]]\naddress = \"a:1\"\n[upstream]\nprimary = \"dns:b:2\"");
    assert!(
        primary.key == "upstream.primary" && primary.to_string().contains("only among `replicas`"),
        "{primary}"
    );
    let sentinels = "[upstream.sentinel]\nmaster-name = \"m\"\naddresses = [\"c:3\"]";
    let text = format!("[[listen]]\naddress = \"a:1\"\n[upstream]\nreplicas = \"auto\"\n{sentinels}");
    let twice = problem(&text);
    assert!(twice.key == "upstream.replicas" && twice.position.as_ref().unwrap().line == 4, "{twice}");
}

#[test]
fn zones_are_those_of_nodes_that_there_are() {
    let zones = |text: &str| parse(text).unwrap().zones();
    assert_eq!(zones(&with("")).own, None);
    let read = zones(&with(
        "replicas = [\"c:3\"]\nzones = { \"c:3\" = \"x\" }\n[proxy]\nzone = \"y\"\nzone-limit = 0",
    ));
    assert_eq!((read.own.as_deref(), read.limit), (Some("y"), 0));
    assert_eq!(read.of_nodes, [(address("c:3"), "x".to_owned())].into());
    assert_eq!(
        zones(&with("replicas = \"auto\"\nzones = { \"e:5\" = \"x\" }")).of_nodes.len(),
        1,
        "it may be found"
    );
    for (rest, says) in [
        ("zones = { \"e:5\" = \"x\" }", "e:5 is neither the primary nor one of the replicas"),
        ("zones = { \"b\" = \"x\" }", "there is no port"),
        ("zones = { \"b:2\" = \"\" }", "expected addresses of nodes, each with its zone"),
        ("zones = { \"b:2\" = 7 }", "\"b:2\" stands alone"),
    ] {
        let problem = problem(&with(&format!("replicas = [\"c:3\"]\n{rest}")));
        assert_eq!(problem.key, "upstream.zones", "{rest}");
        assert!(problem.to_string().contains(says), "{problem}");
    }
}

#[test]
fn what_does_not_work_yet_is_refused() {
    let cases = [
        ("[proxy]\nsession-scope = \"user\"", "proxy.session-scope"),
        ("[proxy]\nsession-scope = \"client-name\"", "proxy.session-scope"),
    ];
    for (rest, key) in cases {
        let problem = problem(&with(rest));
        assert_eq!(problem.key, key);
        assert!(problem.message.contains("not supported in this version"), "{problem}");
    }
}

#[test]
fn what_is_wrong_with_tls_files_is_told() {
    let (home, other) = (home(), home());
    std::fs::copy(other.path().join("redweir.key"), home.path().join("other.key")).unwrap();
    std::fs::write(home.path().join("nonsense"), "this is no PEM\n").unwrap();
    std::fs::write(
        home.path().join("sealed.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let listen = "[[listen]]\naddress = \"c:3\"\n[listen.tls]";
    let cases = [
        ("cert = \"gone.crt\"\nkey = \"redweir.key\"", "cert", "gone.crt: cannot read it: No such file"),
        ("cert = \"nonsense\"\nkey = \"redweir.key\"", "cert", "nonsense: expected a certificate in PEM"),
        (
            "cert = \"redweir.key\"\nkey = \"redweir.key\"",
            "cert",
            "redweir.key: expected a certificate (BEGIN",
        ),
        ("cert = \"redweir.crt\"\nkey = \"gone.key\"", "key", "gone.key: cannot read it"),
        (
            "cert = \"redweir.crt\"\nkey = \"redweir.crt\"",
            "key",
            "redweir.crt: expected a private key (BEGIN",
        ),
        ("cert = \"redweir.crt\"\nkey = \"sealed.key\"", "key", "found one that needs a passphrase"),
        ("cert = \"redweir.crt\"\nkey = \"other.key\"", "key", "expected the key of the certificate in"),
        ("cert = \"redweir.crt\"", "cert", "a certificate needs its `key`"),
        ("key = \"redweir.key\"", "key", "a key needs its `cert`"),
        ("cert = \"redweir.crt\"\nkey = \"redweir.key\"\nclient-ca = \"nonsense\"", "client-ca", "in PEM"),
    ];
    for (lines, key, says) in cases {
        let text = with(&format!("{listen}\n{lines}"));
        let error = Config::parse(&text, &home.path().join("t.toml")).expect_err(&text);
        let [problem] = error.problems.as_slice() else { panic!("{error}") };
        assert_eq!(problem.key, format!("listen.tls.{key}"), "{error}");
        assert!(problem.message.contains(says), "{says}? {error}");
        let line = text.lines().position(|line| line.starts_with(&format!("{key} ="))).unwrap() + 1;
        assert_eq!(problem.position.as_ref().unwrap().line, line, "{error}");
    }
}

#[test]
fn what_goes_with_tls_is_checked() {
    let home = home();
    let two = "[[listen]]\naddress = \"c:3\"\n[listen.tls]\ncert = \"a\"\nkey = \"b\"\nclient-ca = \"c\"";
    let both = Config::parse(&with(two), &home.path().join("t.toml")).unwrap_err();
    let keys: Vec<&str> = both.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["listen.tls.cert", "listen.tls.client-ca"], "one run finds all");
    let file = |name: &str| home.path().join(name).display().to_string();
    let refused = [
        ("[[listen]]\naddress = \"c:3\"\n[listen.tls]".to_owned(), "listen.tls.cert", "it is missing"),
        ("[upstream.tls]\nca = \"gone\"".to_owned(), "upstream.tls.ca", "gone: cannot read it"),
        (
            format!("[upstream.tls]\nca = {:?}\ncert = {:?}", file("ca.crt"), file("redweir.crt")),
            "upstream.tls.cert",
            "`key` is missing",
        ),
        (
            format!("replicas = [\"unix:/r\"]\n[upstream.tls]\nca = {:?}", file("ca.crt")),
            "upstream.tls",
            "unix:/r cannot be reached by TLS",
        ),
        (
            format!("[upstream.tls]\nca = {:?}\nserver-name = \"-\"", file("ca.crt")),
            "upstream.tls.server-name",
            "expected a host name or an IP address",
        ),
        (
            format!(
                "[[listen]]\naddress = \"unix:/l\"\n[listen.tls]\ncert = {:?}\nkey = {:?}",
                file("redweir.crt"),
                file("redweir.key")
            ),
            "listen.tls",
            "a Unix socket speaks no TLS",
        ),
    ];
    for (rest, key, says) in refused {
        let problem = problem(&with(&rest));
        assert_eq!(problem.key, key);
        assert!(problem.message.contains(says), "{says}? {problem}");
    }
}

#[test]
fn permissions_are_octal() {
    let perm = |value: &str| {
        parse(&with(&format!("[[listen]]\naddress = \"unix:/l\"\nunixsocketperm = {value}")))
            .map(|config| config.listen[1].unix_perm)
    };
    assert_eq!(perm("\"770\"").unwrap(), Some(0o770));
    assert_eq!(perm("700").unwrap(), Some(0o700), "as in redis.conf");
    for bad in ["\"800\"", "\"\"", "\"1777\"", "448.0", "\"+70\""] {
        let key = perm(bad).unwrap_err().problems[0].key.clone();
        assert_eq!(key, "listen.unixsocketperm", "{bad}");
    }
}

#[test]
fn a_policy_must_exist() {
    let near = problem(&with("[policy.relaxed]\n[[listen]]\naddress = \"c:3\"\npolicy = \"relaxd\""));
    assert_eq!((near.key.as_str(), near.help.as_deref()), ("listen.policy", Some("did you mean `relaxed`?")));
    let far = problem(&with("[[route]]\npolicy = \"elsewhere\""));
    assert_eq!((far.key.as_str(), far.help.as_deref()), ("route.policy", Some("define it in [policy.NAME]")));
}

#[test]
fn an_address_is_used_once() {
    let cases = [
        ("[[listen]]\naddress = \"A:1\"", "listen.address", "already used by `listen.address` on line 2"),
        (
            "replicas = [\"c:3\", \"c:3\"]",
            "upstream.replicas",
            "already used by `upstream.replicas` on line 5",
        ),
        ("replicas = [\"b:2\"]", "upstream.replicas", "already used by `upstream.primary` on line 4"),
        ("replicas = [\"a:1\"]", "upstream.replicas", "already used by `listen.address` on line 2"),
        ("[admin]\naddress = \"a:1\"", "admin.address", "already used by `listen.address` on line 2"),
    ];
    for (rest, key, says) in cases {
        let problem = problem(&with(rest));
        assert_eq!(problem.key, key);
        assert!(problem.message.contains(says), "{problem}");
    }
    let replicas = vec![address("c:3"), address("b:2")];
    let error = Config::from_flags(Flags::to(vec![address("a:1")], address("b:2"), replicas));
    assert_eq!(error.unwrap_err().to_string(), "--replica: b:2 is already given with --primary");
    let flags = Flags::to(vec![], address("b:2"), vec![]);
    let error = Config::from_flags(Flags { admin: Some(address("unix:/x")), ..flags }).unwrap_err();
    assert_eq!(error.problems.len(), 2);
}

#[test]
fn levels_are_policies_without_further_words() {
    let rest = "policy = \"strong\"\n[[route]]\nkeys = [\"x\"]\npolicy = \"eventual\"\n[policy.bounded]\n";
    let text = format!("[upstream]\nprimary = \"b:2\"\n[[listen]]\naddress = \"a:1\"\n{rest}");
    let policies = parse(&text).unwrap().policies;
    let levels: Vec<(&str, Consistency)> =
        policies.all.iter().map(|policy| (policy.name.as_str(), policy.consistency)).collect();
    let expected = [
        ("default", Consistency::Fenced),
        ("bounded", Consistency::Bounded),
        ("eventual", Consistency::Eventual),
        ("strong", Consistency::Strong),
    ];
    assert_eq!(levels, expected, "those that are named, and no others");
    let default = Policy::default();
    for policy in &policies.all {
        let Policy { name, consistency, .. } = policy.clone();
        assert_eq!(*policy, Policy { name, consistency, ..default.clone() });
    }
    let problem = problem(&text.replace("\"strong\"", "\"stong\""));
    assert_eq!(problem.help.as_deref(), Some("did you mean `strong`?"));
    let flags = Flags::to(vec![address("a:1")], address("b:2"), vec![]);
    let config = Config::from_flags(Flags { policy: Some(Consistency::Session), ..flags }).unwrap();
    assert_eq!(config.policies.all[config.listen[0].policy.index()].consistency, Consistency::Session);
}

#[test]
fn a_password_file_can_be_a_flag() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("password");
    let flags = || Flags {
        username: Some("redweir".to_owned()),
        password_file: Some(file.clone()),
        ..Flags::to(vec![address("a:1")], address("b:2"), vec![])
    };
    let error = Config::from_flags(flags()).unwrap_err().to_string();
    assert!(
        error.starts_with("--password-file: ") && error.contains("cannot read it: No such file"),
        "{error}"
    );
    std::fs::write(&file, "hunter2\nhunter3\n").unwrap();
    let error = Config::from_flags(flags()).unwrap_err().to_string();
    assert!(error.contains("expected the password on one line") && !error.contains("hunter"), "{error}");
    std::fs::write(&file, "hunter2\n").unwrap();
    let login = Config::from_flags(flags()).unwrap().upstream.credentials().unwrap();
    assert_eq!((login.username.as_deref(), login.password.as_str()), (Some("redweir"), "hunter2"));
}

#[test]
fn what_is_hardly_meant_is_said() {
    let advice = |rest: &str| parse(&with(rest)).unwrap().advice();
    let route = |commands: &str| format!("[[route]]\ncommands = [{commands}]\npolicy = \"strong\"\n");
    assert_eq!(advice(""), Vec::<String>::new());
    assert_eq!(parse(REFERENCE).unwrap().advice(), Vec::<String>::new());
    let fine = route("\"get\", \"EXISTS\", \"json.get\", \"hgetex\", \"eval_ro\"");
    assert_eq!(advice(&fine), Vec::<String>::new());
    let cases = [
        (route("\"set\""), "route 1: `set` writes: a policy is for what a replica may answer"),
        (route("\"get\", \"config|get\""), "route 1: `config|get` is answered by the primary only: a policy"),
        (route("\"gte\""), "route 1: `gte` is no command of Redis (did you mean `get`?)"),
        ("[policy.relaxed]".to_owned(), "policy `relaxed` is named by no [[listen]] and no [[route]]"),
        (
            format!("[[route]]\npolicy = \"strong\"\n{}", route("\"get\"")),
            "route 2 is never taken: route 1 matches everything before it",
        ),
        (
            format!("{}[policy.strong]\nconsistency = \"eventual\"", route("\"get\"")),
            "policy `strong` is eventual, which is not what it is called",
        ),
    ];
    for (rest, says) in cases {
        let said = advice(&rest);
        assert!(said.len() == 1 && said[0].starts_with(says), "{rest}: {said:?}");
    }
}

#[test]
fn a_password_comes_from_one_place_and_is_never_shown() {
    let both = problem(&with("password = \"hunter2\"\npassword-file = \"f\""));
    assert_eq!(both.key, "upstream.password-file");
    assert_eq!(problem(&with("username = \"u\"")).key, "upstream.username");
    for rest in [
        "password = [\"hunter2\"]",
        "pasword = \"hunter2\"",
        "password = \"hunter2",
        "password = \"hunter2\" x",
        "password = \"\"\"\nhunter2\n",
    ] {
        let error = parse(&with(rest)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let home = home();
    let path = home.path().join("t.toml");
    let file = |name: &str| Config::parse(&with(&format!("password-file = \"{name}\"")), &path);
    assert_eq!(file("redweir.password").unwrap().upstream.password.as_deref(), Some("secret"));
    std::fs::write(home.path().join("two"), "one\ntwo\n").unwrap();
    std::fs::write(home.path().join("none"), "\n").unwrap();
    for (name, says) in
        [("absent", "No such file"), ("two", "on one line"), ("none", "on one line"), (".", "directory")]
    {
        let error = file(name).unwrap_err();
        assert_eq!(error.problems[0].key, "upstream.password-file");
        assert_eq!(error.problems[0].position.as_ref().unwrap().line, 5);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("redweir.toml");
    let says = |path: &Path| Config::load(path).unwrap_err().to_string();
    assert!(
        says(&path).contains("redweir.toml: cannot read the configuration: No such file"),
        "{}",
        says(&path)
    );
    assert!(says(home.path()).contains("directory"));
    std::fs::write(&path, b"a = \"\xff\"").unwrap();
    assert!(says(&path).contains("not UTF-8 (byte 5)"));
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(says(&path).contains("larger than 1mb"));
}

#[test]
fn no_text_makes_the_reader_panic() {
    let texts = [
        "\0",
        "\u{feff}",
        "[",
        "[[",
        "a",
        "=",
        "a=",
        "[policy]\n[[policy.x]]",
        "listen = [[[1]]]",
        "listen = []",
        "é = ü",
        "[a]\n[a]",
        "\"\" = 1",
    ];
    for text in texts {
        assert!(parse(text).is_err(), "{text:?}");
    }
    for cut in (0..REFERENCE.len()).filter(|&i| REFERENCE.is_char_boundary(i)).step_by(97) {
        if let Err(error) = parse(&REFERENCE[..cut]) {
            assert!(!error.to_string().is_empty());
        }
        let _ = parse(&REFERENCE[cut..]);
    }
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(parse(&deep).is_err());
    let many = format!("replicas = [{}]", "\"a:0\", \"c:3\", ".repeat(30_000));
    assert_eq!(parse(&with(&many)).unwrap_err().problems.len(), 50);
}

proptest! {
    /// Whatever is done to a file, the reader answers, and its carets point into its excerpts.
    #[test]
    fn any_damage_is_survived(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, DAMAGE), 1..4),
    ) {
        let mut text: Vec<char> = REFERENCE.chars().collect();
        for (at, length, with) in damage {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, with.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = parse(&text) {
            prop_assert!(!error.problems.is_empty());
            for problem in &error.problems {
                prop_assert!(!problem.message.is_empty());
                if let Some(at) = &problem.position {
                    prop_assert!(at.line >= 1 && at.line <= text.lines().count() + 1);
                    prop_assert!(at.caret <= at.excerpt.chars().count() && at.length >= 1);
                    prop_assert!(!at.excerpt.contains(char::is_control));
                }
            }
        }
    }
}

/// What is put where something is damaged.
const DAMAGE: &str = "[\\[\\]{}=\"'#.,a-z0-9 \n\r\t\0é\u{2028}-]{0,8}";

#[test]
fn yes_and_true_are_the_same() {
    for (value, yes) in [("\"yes\"", true), ("true", true), ("\"no\"", false), ("false", false)] {
        let config = parse(&with(&format!("[policy.default]\nreplica-serve-stale-data = {value}"))).unwrap();
        assert_eq!(config.policies.all[0].serve_stale, yes);
    }
}

#[test]
fn names_are_kept_in_lower_case_and_in_order() {
    let rest = "[policy.z]\n[policy.a]\n[[route]]\ncommands = [\"HGetAll\", \"OBJECT|FREQ\", \"JSON.GET\"]\npolicy = \"a\"\n\
                [stream]\nsource = \"off\"\n[security]\ndeny-commands = []";
    let config = parse(&with(rest)).unwrap();
    let names: Vec<&str> = config.policies.all.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["default", "z", "a"]);
    assert_eq!(config.policies.routes[0].commands, ["hgetall", "object|freq", "json.get"]);
    assert_eq!(config.policies.routes[0].policy, PolicyId(2));
    assert_eq!(config.stream.source, StreamSource::Off);
    assert!(config.security.deny_commands.is_empty());
}

#[test]
fn nodes_are_polled_four_times_within_the_tightest_lag() {
    let every = |rest: &str| parse(&with(rest)).unwrap().poll_interval();
    assert_eq!(every(""), Duration::from_millis(100));
    assert_eq!(every("[policy.tight]\nmax-lag = \"100ms\""), Duration::from_millis(25));
    assert_eq!(
        every("[policy.tight]\nmax-lag = \"100ms\"\nconsistency = \"eventual\""),
        Duration::from_millis(100)
    );
    assert_eq!(
        every("poll-interval = \"50ms\"\n[policy.default]\nmax-lag = \"10s\""),
        Duration::from_millis(50)
    );
}
