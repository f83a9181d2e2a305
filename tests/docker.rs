//! What can be checked of the container files without building an image: that they fit the tree, the configuration
//! and each other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redweir::config::{Config, units};
use redweir::core::address::Address;

const DOCKERFILE: &str = include_str!("../docker/Dockerfile");
const COMPOSE: &str = include_str!("../docker/compose.yaml");
const SENTINEL: &str = include_str!("../docker/sentinel.conf");
const IGNORE: &str = include_str!("../.dockerignore");
const MANIFEST: &str = include_str!("../Cargo.toml");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn config() -> Config {
    Config::load(&root().join("docker/redweir.toml")).unwrap()
}

/// The arguments of every instruction of this name; lines that go on are joined.
fn instructions(name: &str) -> Vec<String> {
    let joined = DOCKERFILE.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// The value of every `key: value` of the compose file, whatever it is in.
fn values(key: &str) -> Vec<&'static str> {
    let lines = COMPOSE.lines().filter_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(": "));
    lines.map(str::trim).collect()
}

/// The lines of one service of the compose file.
fn service(name: &str) -> Vec<&'static str> {
    let lines = COMPOSE.lines().skip_while(|line| *line != format!("  {name}:")).skip(1);
    lines.take_while(|line| line.is_empty() || line.starts_with("    ")).collect()
}

fn port(address: &Address) -> u16 {
    match address {
        Address::Tcp { port, .. } => *port,
        Address::Unix(path) => panic!("{} has no port", path.display()),
    }
}

/// What the proxy listens on.
fn ports() -> BTreeSet<u16> {
    let config = config();
    let listen = config.listen.iter().map(|listen| &listen.address);
    listen.chain(config.admin.iter().map(|admin| &admin.address)).map(port).collect()
}

#[test]
fn everything_copied_is_there_and_sent_to_the_builder() {
    let allowed: BTreeSet<&str> = IGNORE.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(IGNORE.lines().any(|line| line == "*"), "it is a list of what is let through");
    let copies = instructions("COPY").into_iter().filter(|copy| !copy.starts_with("--from="));
    let sources = copies.flat_map(|copy| {
        let mut words: Vec<String> = copy.split_whitespace().map(str::to_owned).collect();
        words.pop();
        words
    });
    let sources: BTreeSet<String> = sources.collect();
    assert!(sources.len() >= 5, "{sources:?}");
    for source in &sources {
        assert!(root().join(source).exists(), "{source} is copied, but is not there");
    }
    assert_eq!(sources.iter().map(String::as_str).collect::<BTreeSet<_>>(), allowed);
}

#[test]
fn whatever_the_sources_include_is_copied() {
    let mut open = vec![root().join("src")];
    let mut seen = 0;
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for included in code.split("include_str!(\"").skip(1).map(|rest| rest.split('"').next().unwrap())
            {
                let file = directory.join(included).canonicalize().unwrap();
                let copied = ["src", "config"].iter().any(|part| file.starts_with(root().join(part)));
                assert!(copied, "{} includes {}", path.display(), file.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 1);
}

#[test]
fn ports_are_the_same_everywhere() {
    let exposed = instructions("EXPOSE").join(" ");
    let exposed: BTreeSet<u16> = exposed.split_whitespace().map(|port| port.parse().unwrap()).collect();
    assert_eq!(exposed, ports());
    let service = service("redweir");
    let published = service.iter().filter_map(|line| line.trim().strip_prefix("- \"127.0.0.1:"));
    let published: BTreeSet<u16> = published
        .map(|line| {
            let (outside, inside) = line.trim_end_matches('"').split_once(':').unwrap();
            assert_eq!(outside, inside);
            inside.parse().unwrap()
        })
        .collect();
    assert_eq!(published, ports());
}

#[test]
fn the_proxy_is_run_with_its_file_and_not_as_root() {
    let path = "/etc/redweir/redweir.toml";
    assert_eq!(instructions("ENTRYPOINT"), ["[\"redweir\"]"]);
    assert_eq!(instructions("CMD"), [format!("[\"run\", \"-c\", \"{path}\"]")]);
    assert!(instructions("COPY").contains(&format!("docker/redweir.toml {path}")));
    let mounted = format!("- ./redweir.toml:{path}:ro");
    assert!(COMPOSE.lines().any(|line| line.trim() == mounted));
    assert_eq!(instructions("USER"), ["10001:10001"]);
    assert_eq!(instructions("STOPSIGNAL"), ["SIGTERM"]);
    assert_eq!(instructions("HEALTHCHECK"), ["NONE"]);
    // Below 1024 a user other than root may not listen.
    assert!(ports().iter().all(|port| *port > 1024));
}

#[test]
fn every_image_is_pinned() {
    let built = instructions("FROM");
    let built = built.iter().map(|from| from.split(' ').next().unwrap());
    let images: Vec<&str> = built.chain(values("image")).collect();
    assert!(images.len() >= 4, "{images:?}");
    for image in images {
        let tag = image.split_once(':').map(|(_, tag)| tag);
        assert!(
            tag.is_some_and(|tag| !tag.is_empty() && tag != "latest"),
            "{image} may be anything tomorrow"
        );
    }
    let version = format!("redweir:{}", env!("CARGO_PKG_VERSION"));
    assert!(values("image").contains(&version.as_str()));
}

#[test]
fn the_builder_is_new_enough() {
    let from = instructions("FROM");
    let rust = from.iter().find_map(|from| from.strip_prefix("rust:")).unwrap();
    let minor =
        |version: &str| version.split('.').nth(1).unwrap().split(['-', '"']).next().unwrap().parse::<u32>();
    let wanted = MANIFEST.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    assert!(minor(rust).unwrap() >= minor(wanted).unwrap(), "{rust} is older than {wanted}");
}

#[test]
fn the_servers_are_those_of_the_compose_file() {
    let sentinel = config().upstream.sentinel.unwrap();
    assert_eq!(sentinel.addresses.len(), COMPOSE.matches("<<: *sentinel").count());
    for address in &sentinel.addresses {
        let Address::Tcp { host, port } = address else {
            panic!("{address} is not reached from a container")
        };
        assert!(!service(host).is_empty(), "no service {host}");
        assert_eq!(*port, 26379);
    }
    let monitored = format!("sentinel monitor {} primary 6379 ", sentinel.master_name);
    assert!(SENTINEL.contains(&monitored), "the sentinels call them otherwise");
    assert_eq!(COMPOSE.matches("\"--replicaof\", \"primary\"").count(), 2);
    for name in ["primary", "replica-1", "replica-2"] {
        let announced = format!("\"--replica-announce-ip\", \"{name}\"");
        assert!(service(name).join(" ").contains(&announced), "{name} announces another name");
    }
}

#[test]
fn stopping_takes_as_long_as_draining() {
    let grace = values("stop_grace_period");
    let grace = units::duration(grace.first().unwrap()).unwrap();
    assert!(grace >= config().proxy.drain_timeout + Duration::from_secs(2));
}

#[test]
fn the_files_that_compose_names_are_there() {
    let docker = root().join("docker");
    let context: PathBuf = docker.join(values("context").first().unwrap());
    assert!(context.join(values("dockerfile").first().unwrap()).is_file());
    assert!(docker.join("redweir.toml").is_file());
}
