//! What another configuration changes about the one in force: what can take effect at once, and what needs a restart.
//!
//! Every key is in one of the two lists: whoever adds a field to a table has to say here what becomes of it.

use super::{Cluster, Config, Listen, Log, ProxyConfig, Security, Sentinel, Stream, Upstream};
use crate::core::policy::{Policies, PolicyId, Route};

/// The keys that differ, in full.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Changes {
    /// They take effect at once.
    pub live: Vec<String>,
    /// They need a restart: what holds is what held before.
    pub restart: Vec<String>,
}

/// What a process was started with and cannot begin to do while it serves: writes that were not fenced when they were
/// acknowledged cannot be fenced afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// Writes are fenced.
    pub fencing: bool,
    /// Replicas are listened to whether they go back.
    pub watching: bool,
}

impl Changes {
    /// The key takes effect, if it differs.
    fn take<T: PartialEq>(&mut self, key: &str, old: &T, new: &T) {
        if old != new {
            self.live.push(key.to_owned());
        }
    }

    /// The key needs a restart, if it differs; until then it has its old value.
    fn keep<T: PartialEq + Clone>(&mut self, key: &str, old: &T, new: &mut T) {
        if old != new {
            new.clone_from(old);
            self.restart.push(key.to_owned());
        }
    }
}

impl Config {
    /// What holds from now on if `new` is to: all of it but what needs a restart.
    pub fn follow(&self, mut new: Self, fixed: Fixed) -> (Self, Changes) {
        let mut changes = Changes::default();
        let Self { listen, admin, upstream, policies, stream, proxy, security, log } = self;
        if !are_same_places(listen, &new.listen) {
            changes.restart.push("listen".to_owned());
        }
        follow_policies(&mut changes, (listen.as_slice(), policies), &mut new, fixed);
        changes.keep("admin.address", admin, &mut new.admin);
        follow_upstream(&mut changes, upstream, &mut new.upstream);
        let Stream { source, fence_slots } = stream;
        changes.take("stream.source", source, &new.stream.source);
        changes.keep("stream.fence-slots", fence_slots, &mut new.stream.fence_slots);
        follow_proxy(&mut changes, proxy, &mut new.proxy);
        let Security { deny_commands, replica_acl } = security;
        changes.take("security.deny-commands", deny_commands, &new.security.deny_commands);
        changes.keep("security.replica-acl", replica_acl, &mut new.security.replica_acl);
        let Log { level, format } = log;
        changes.take("log.level", level, &new.log.level);
        changes.keep("log.format", format, &mut new.log.format);
        (new, changes)
    }
}

fn follow_upstream(changes: &mut Changes, old: &Upstream, new: &mut Upstream) {
    let Upstream {
        primary,
        replicas,
        replicas_from_nodes,
        names,
        username,
        password,
        password_in,
        poll_interval,
        info_interval,
        probe_timeout,
        connect_timeout,
        write_hold,
        fence_interval,
        max_exclusive_connections,
        exclusive_wait,
        address_map,
        zones,
        sentinel,
        cluster,
        tls,
    } = old;
    let both_by_sentinels = sentinel.is_some() && new.sentinel.is_some();
    if both_by_sentinels || !old.are_nodes_found() && !new.are_nodes_found() {
        changes.take("upstream.primary", primary, &new.primary);
        changes.take("upstream.replicas", replicas, &new.replicas);
    } else {
        // Who tells which nodes there are is settled at the start, and what was found must not be lost.
        changes.keep("upstream.primary", primary, &mut new.primary);
        changes.keep("upstream.replicas", replicas, &mut new.replicas);
        changes.keep("upstream.replicas", replicas_from_nodes, &mut new.replicas_from_nodes);
        changes.keep("upstream.replicas", names, &mut new.names);
    }
    changes.take("upstream.username", username, &new.username);
    changes.take("upstream.password", password, &new.password);
    changes.take("upstream.password-file", password_in, &new.password_in);
    changes.take("upstream.poll-interval", poll_interval, &new.poll_interval);
    changes.take("upstream.info-interval", info_interval, &new.info_interval);
    changes.take("upstream.probe-timeout", probe_timeout, &new.probe_timeout);
    changes.take("upstream.connect-timeout", connect_timeout, &new.connect_timeout);
    changes.take("upstream.write-hold", write_hold, &new.write_hold);
    changes.take("upstream.fence-interval", fence_interval, &new.fence_interval);
    let most = &new.max_exclusive_connections;
    changes.take("upstream.max-exclusive-connections", max_exclusive_connections, most);
    changes.take("upstream.exclusive-wait", exclusive_wait, &new.exclusive_wait);
    changes.keep("upstream.address-map", address_map, &mut new.address_map);
    changes.take("upstream.zones", zones, &new.zones);
    changes.keep("upstream.tls", tls, &mut new.tls);
    match (cluster, &mut new.cluster) {
        (Some(old), Some(new)) => follow_cluster(changes, old, new),
        (old, new) => changes.keep("upstream.cluster", old, new),
    }
    match (sentinel, &mut new.sentinel) {
        (Some(old), Some(new)) => follow_sentinel(changes, old, new),
        (old, new) => changes.keep("upstream.sentinel", old, new),
    }
}

fn follow_cluster(changes: &mut Changes, old: &Cluster, new: &mut Cluster) {
    let Cluster { addresses, split_writes, keyless_scripts, present_as } = old;
    changes.keep("upstream.cluster.addresses", addresses, &mut new.addresses);
    changes.take("upstream.cluster.split-writes", split_writes, &new.split_writes);
    changes.take("upstream.cluster.keyless-scripts", keyless_scripts, &new.keyless_scripts);
    changes.take("upstream.cluster.present-as", present_as, &new.present_as);
}

fn follow_sentinel(changes: &mut Changes, old: &Sentinel, new: &mut Sentinel) {
    let Sentinel { master_name, addresses, username, password, password_in, tls } = old;
    changes.keep("upstream.sentinel.master-name", master_name, &mut new.master_name);
    changes.keep("upstream.sentinel.addresses", addresses, &mut new.addresses);
    changes.take("upstream.sentinel.username", username, &new.username);
    changes.take("upstream.sentinel.password", password, &new.password);
    changes.take("upstream.sentinel.password-file", password_in, &new.password_in);
    changes.keep("upstream.sentinel.tls", tls, &mut new.tls);
}

fn follow_proxy(changes: &mut Changes, old: &ProxyConfig, new: &mut ProxyConfig) {
    let ProxyConfig {
        workers,
        max_clients,
        client_output_buffer_limit,
        reply_budget,
        timeout,
        client_handshake_timeout,
        max_memory,
        primary_read_limit,
        share_reads,
        drain_timeout,
        lame_duck,
        maint_notifications,
        zone,
        zone_limit,
        session_scope,
    } = old;
    changes.keep("proxy.workers", workers, &mut new.workers);
    changes.take("proxy.max-clients", max_clients, &new.max_clients);
    let limit = &new.client_output_buffer_limit;
    changes.take("proxy.client-output-buffer-limit", client_output_buffer_limit, limit);
    changes.take("proxy.reply-budget", reply_budget, &new.reply_budget);
    changes.take("proxy.timeout", timeout, &new.timeout);
    let handshake = &new.client_handshake_timeout;
    changes.take("proxy.client-handshake-timeout", client_handshake_timeout, handshake);
    changes.take("proxy.max-memory", max_memory, &new.max_memory);
    changes.take("proxy.primary-read-limit", primary_read_limit, &new.primary_read_limit);
    changes.take("proxy.share-reads", share_reads, &new.share_reads);
    changes.take("proxy.drain-timeout", drain_timeout, &new.drain_timeout);
    changes.take("proxy.lame-duck", lame_duck, &new.lame_duck);
    let maint = &new.maint_notifications;
    changes.take("proxy.maint-notifications", maint_notifications, maint);
    changes.take("proxy.zone", zone, &new.zone);
    changes.take("proxy.zone-limit", zone_limit, &new.zone_limit);
    changes.keep("proxy.session-scope", session_scope, &mut new.session_scope);
}

/// Whether both are bound to the same places in the same way.
fn are_same_places(old: &[Listen], new: &[Listen]) -> bool {
    let is_there = |one: &Listen| {
        let Listen { address, policy: _, unix_perm, reuse_port, tls } = one;
        new.iter().any(|other| {
            (address, unix_perm, reuse_port, tls)
                == (&other.address, &other.unix_perm, &other.reuse_port, &other.tls)
        })
    };
    old.len() == new.len() && old.iter().all(is_there)
}

/// The policies of `new` for the listeners that there are, or those of before where the process cannot keep what the new ones
/// promise. One that is still in use by a listener stays.
fn follow_policies(
    changes: &mut Changes,
    (listen, old): (&[Listen], &Policies),
    new: &mut Config,
    fixed: Fixed,
) {
    let mut next = std::mem::take(&mut new.policies);
    let wanted = std::mem::replace(&mut new.listen, listen.to_vec());
    next.listeners.clear();
    for listen in listen {
        let wanted =
            wanted.iter().find(|wanted| wanted.address == listen.address).map(|wanted| wanted.policy);
        let id = wanted.unwrap_or_else(|| keep_policy(&mut next, old, listen.policy));
        next.listeners.push(id);
    }
    let mut keys = changed_keys(old, &next);
    let possible = (fixed.fencing || !next.fence()) && (fixed.watching || !next.bound());
    if keys.is_empty() || !possible {
        changes.restart.append(&mut keys);
        new.policies = old.clone();
        return;
    }
    changes.live.append(&mut keys);
    new.policies = next.in_edition(old.edition + 1);
    for (listen, id) in new.listen.iter_mut().zip(&new.policies.listeners) {
        listen.policy = *id;
    }
}

/// The policy of a listener that the new configuration does not have: by its name, or as it was.
fn keep_policy(next: &mut Policies, old: &Policies, id: PolicyId) -> PolicyId {
    let Some(policy) = old.get(id) else { return PolicyId::default() };
    next.find(&policy.name).unwrap_or_else(|| {
        next.all.push(policy.clone());
        next.find(&policy.name).unwrap_or_default()
    })
}

fn changed_keys(old: &Policies, new: &Policies) -> Vec<String> {
    let mut keys = Vec::new();
    for policy in &new.all {
        let known = old.all.iter().find(|known| known.name == policy.name);
        if known != Some(policy) {
            keys.push(format!("policy.{}", policy.name));
        }
    }
    let gone = old.all.iter().filter(|known| new.all.iter().all(|policy| policy.name != known.name));
    keys.extend(gone.map(|policy| format!("policy.{}", policy.name)));
    // By name: places are those of the file.
    let name = |of: &Policies, id| of.get(id).map(|policy| policy.name.clone());
    let routes = |of: &Policies| {
        let with_name =
            |route: &Route| (name(of, route.policy), Route { policy: PolicyId::default(), ..route.clone() });
        of.routes.iter().map(with_name).collect::<Vec<_>>()
    };
    if routes(old) != routes(new) {
        keys.push("route".to_owned());
    }
    let listeners = |of: &Policies| of.listeners.iter().map(|id| name(of, *id)).collect::<Vec<_>>();
    if listeners(old) != listeners(new) {
        keys.push("listen.policy".to_owned());
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ALL: Fixed = Fixed { fencing: true, watching: true };

    const BASE: &str = "[[listen]]\naddress = \"h:1\"\npolicy = \"a\"\n[[listen]]\naddress = \"h:2\"\n[admin]\naddress = \"h:3\"
[upstream]\nprimary = \"h:4\"\nreplicas = [\"h:5\"]\n[policy.default]\n[policy.a]\nconsistency = \"bounded\"
[[route]]\ncommands = [\"get\"]\npolicy = \"a\"\n";

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("test.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn changed(from: &str, to: &str) -> String {
        let text = BASE.replacen(from, to, 1);
        assert_ne!(text, BASE);
        let (_, changes) = config(BASE).follow(config(&text), ALL);
        format!("live {} restart {}", changes.live.join(" "), changes.restart.join(" "))
    }

    #[test]
    fn every_change_is_named_and_takes_effect_or_needs_a_restart() {
        let base = config(BASE);
        let (same, changes) = base.follow(base.clone(), ALL);
        assert_eq!((&same, changes), (&base, Changes::default()));
        assert_eq!(
            changed("[upstream]", "[upstream]\nwrite-hold = \"1s\""),
            "live upstream.write-hold restart "
        );
        assert_eq!(changed("h:5", "h:6"), "live upstream.replicas restart ");
        assert_eq!(changed("\"h:2\"", "\"h:9\""), "live  restart listen");
        assert_eq!(changed("h:3", "h:9"), "live  restart admin.address");
        assert_eq!(changed("bounded", "strong"), "live policy.a restart ");
        assert_eq!(changed("\"get\"", "\"set\""), "live route restart ");
        assert_eq!(changed("policy = \"a\"", "policy = \"default\""), "live listen.policy restart ");
        assert_eq!(
            changed("[admin]", "[stream]\nfence-slots = 2048\n[admin]"),
            "live  restart stream.fence-slots"
        );
        assert_eq!(changed("[admin]", "[proxy]\nworkers = 3\n[admin]"), "live  restart proxy.workers");
    }

    #[test]
    fn policies_are_of_an_edition_and_kept_where_nothing_changes() {
        let base = config(BASE);
        // Another order is no change.
        let moved = BASE.replacen("[policy.default]\n[policy.a]", "[policy.a]", 1) + "[policy.b]\n";
        let (next, changes) = base.follow(config(&moved), ALL);
        assert_eq!(changes.live, ["policy.b"]);
        assert_eq!((next.policies.edition, next.policies.get(PolicyId(1))), (1, None));
        assert_eq!(next.policies.get(next.listen[0].policy).map(|policy| &*policy.name), Some("a"));
        let (again, changes) = next.follow(config(&moved), ALL);
        assert_eq!((changes, again.policies), (Changes::default(), next.policies));
    }

    #[test]
    fn a_listener_that_is_no_longer_configured_keeps_its_policy() {
        let without = BASE.replacen("[[listen]]\naddress = \"h:1\"\npolicy = \"a\"\n", "", 1);
        let without = without.replacen("[policy.a]\nconsistency = \"bounded\"\n", "", 1);
        let without = without.replacen("policy = \"a\"", "policy = \"default\"", 1);
        let (next, changes) = config(BASE).follow(config(&without), ALL);
        assert_eq!((changes.live, changes.restart), (vec!["route".to_owned()], vec!["listen".to_owned()]));
        assert_eq!(next.policies.get(next.listen[0].policy).map(|policy| &*policy.name), Some("a"));
    }

    #[test]
    fn what_was_not_fenced_from_the_start_is_not_fenced_later() {
        let loose = BASE.replace("[policy.default]", "[policy.default]\nconsistency = \"eventual\"");
        let base = config(&loose.replace("bounded", "eventual"));
        let fixed = Fixed { fencing: base.policies.fence(), watching: base.policies.bound() };
        for level in ["bounded", "session", "strong"] {
            let (next, changes) = base.follow(config(&loose.replace("bounded", level)), fixed);
            assert_eq!((&next.policies, changes.live), (&base.policies, vec![]));
            assert_eq!(changes.restart, ["policy.a"]);
        }
    }
}
