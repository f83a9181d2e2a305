//! What a configuration that is right comes to, in a few lines.

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use crate::config::{Config, shown, units};
use crate::core::address::Address;
use crate::core::policy::{Consistency, Policy};

/// `FILE: ok`, and what it comes to.
pub(super) fn summary(path: &Path, config: &Config) -> String {
    let mut text = format!("{}: ok\n", shown(path));
    let mut line = |name: &str, value: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    for listen in &config.listen {
        let policy = config.policies.all.get(listen.policy.index());
        let tls = listen.tls.as_ref().map_or("", |tls| match tls.client_ca {
            Some(_) => ", TLS with client certificates",
            None => ", TLS",
        });
        let policy = policy.map_or_else(String::new, describe);
        line("listen", &format!("{}{tls} (policy {policy})", listen.address));
    }
    if let Some(admin) = &config.admin {
        line("admin", &admin.address.to_string());
    }
    if let Some(primary) = &config.upstream.primary {
        line("primary", &primary.to_string());
    }
    for replica in &config.upstream.replicas {
        line("replica", &replica.to_string());
    }
    for name in &config.upstream.names {
        line("replicas", &format!("dns:{name}"));
    }
    if config.upstream.replicas_from_nodes {
        line("replicas", "auto");
    }
    if let Some(sentinel) = &config.upstream.sentinel {
        let tls = if sentinel.tls.is_some() { ", TLS" } else { "" };
        for address in &sentinel.addresses {
            line("sentinel", &format!("{address}{tls} ({})", sentinel.master_name));
        }
    }
    if config.upstream.tls.is_some() {
        line("upstream", "TLS");
    }
    for route in &config.policies.routes {
        if let Some(policy) = config.policies.all.get(route.policy.index()) {
            let lists = [
                ("commands", &route.commands),
                ("keys", &route.keys),
                ("users", &route.users),
                ("clients", &route.client_names),
            ];
            let given = lists.iter().filter(|(_, list)| !list.is_empty());
            let given: Vec<String> = given.map(|(name, list)| format!("{name} {}", list.join(" "))).collect();
            let what = if given.is_empty() { "everything".to_owned() } else { given.join(", ") };
            line("route", &format!("{} (policy {})", what.escape_debug(), describe(policy)));
        }
    }
    line("stream", config.stream.source.name());
    text
}

/// What is allowed but hardly meant, in words.
pub(super) fn advice(config: &Config) -> Vec<String> {
    let mut advice = config.advice();
    advice.extend(twice(config));
    advice
}

/// Nodes that are the same under two names, and listeners that are nodes. Names that do not resolve are left alone.
fn twice(config: &Config) -> Vec<String> {
    let primary = config.upstream.primary.iter().map(|address| ("the primary", address));
    let replicas = config.upstream.replicas.iter().map(|address| ("replica", address));
    let listen = config.listen.iter().map(|listen| ("[[listen]]", &listen.address));
    let mut known: Vec<(&str, &Address, Vec<SocketAddr>)> = Vec::new();
    let mut twice = Vec::new();
    for (role, address) in primary.chain(replicas).chain(listen) {
        let places = places(address);
        let same =
            |(_, _, others): &&(_, _, Vec<SocketAddr>)| places.iter().any(|place| others.contains(place));
        if let Some((other_role, other, _)) = known.iter().find(same) {
            twice.push(format!("{role} {address} is {other_role} {other} under another name"));
        }
        known.push((role, address, places));
    }
    twice
}

fn places(address: &Address) -> Vec<SocketAddr> {
    let Address::Tcp { host, port } = address else { return Vec::new() };
    (host.as_str(), *port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

fn describe(policy: &Policy) -> String {
    let level = format!("{}: {}", policy.name, policy.consistency.name());
    if policy.consistency == Consistency::Eventual {
        return level;
    }
    format!("{level}, max-lag {}", units::duration_text(policy.max_lag))
}
