//! All nodes, looked at together.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::Config;
use crate::control::doctor::patient::{Leave, Patient};
use crate::core::address::{Address, Login};
use crate::core::diagnose::scene::are_related;
use crate::core::diagnose::seen::{Look, Seen};
use crate::core::moment::Moment;
use crate::mutant;
use crate::net::socket::dial::Dialer;

/// How nodes are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// As whom.
    pub login: Option<Login>,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How long an answer may take.
    pub answer: Duration,
    /// Where nodes are reached that servers announce otherwise.
    pub map: BTreeMap<Address, Address>,
}

impl Access {
    pub(super) fn of(config: &Config) -> Self {
        let upstream = &config.upstream;
        Self {
            login: upstream.credentials(),
            connect: upstream.connect_timeout,
            answer: upstream.probe_timeout,
            map: upstream.address_map.clone(),
        }
    }
}

/// Nodes that replicas call their primary and that are none of ours: so many are asked who they are.
const MOST_STRANGERS: usize = 4;

/// Those who are looked at, with a connection to each.
pub(super) struct Ward {
    dialer: Dialer,
    patients: BTreeMap<Address, Patient>,
    strangers: BTreeMap<Address, Patient>,
    secret: ahash::RandomState,
}

impl Ward {
    pub(super) fn new(dialer: Dialer) -> Self {
        let (patients, strangers) = (BTreeMap::new(), BTreeMap::new());
        Self { dialer, patients, strangers, secret: ahash::RandomState::new() }
    }

    /// Closes the connection to this node, and forgets what is known of it.
    pub(super) fn forget(&mut self, node: &Address) {
        self.patients.remove(node);
    }

    /// Looks at these nodes, all at once. It takes as long as the slowest of them, for each of which there are limits.
    pub(super) async fn look(&mut self, visits: &[(Address, Leave)], access: &Access, at: Moment) -> Look {
        let nodes: Vec<Address> = visits.iter().map(|(node, _)| node.clone()).collect();
        let nodes = nodes.as_slice();
        let leave = |node: &Address| {
            visits
                .iter()
                .find(|(visited, _)| visited == node)
                .map(|(_, leave)| leave.clone())
                .unwrap_or_default()
        };
        let patients = keep(&mut self.patients, nodes);
        let looks = patients.map(|patient| {
            let leave = leave(patient.address());
            patient.look(&self.dialer, access, leave, &self.secret)
        });
        let mut seen = join_all(looks).await;
        // In the order in which they are configured.
        seen.sort_by_key(|seen| nodes.iter().position(|node| node.to_string() == seen.node));
        let unknown = strangers(&seen, nodes, &access.map);
        // They are not ours: no password is shown to them.
        let login = access.login.clone().filter(|_| mutant::is("strangers-trusted"));
        let access = Access { login, ..access.clone() };
        let looks =
            keep(&mut self.strangers, &unknown).map(|patient| patient.look_briefly(&self.dialer, &access));
        let strangers = join_all(looks).await;
        Look { at, nodes: seen, strangers, ..Look::default() }
    }
}

/// Exactly these, those that were there before with what is known of them.
fn keep<'a>(
    patients: &'a mut BTreeMap<Address, Patient>,
    nodes: &[Address],
) -> impl Iterator<Item = &'a mut Patient> + use<'a> {
    patients.retain(|address, _| nodes.contains(address));
    for node in nodes {
        patients.entry(node.clone()).or_insert_with(|| Patient::new(node.clone()));
    }
    patients.values_mut()
}

/// Whom the replicas follow that is none of ours, as far as that is worth a question: a replica that is linked, and has the
/// history of one of our primaries, follows that one by another name. By the addresses by which they are reached from here.
fn strangers(seen: &[Seen], nodes: &[Address], map: &BTreeMap<Address, Address>) -> Vec<Address> {
    let primaries: Vec<_> = seen.iter().filter_map(Seen::as_primary).collect();
    let mut found = Vec::new();
    for replica in seen.iter().filter_map(Seen::as_replica) {
        let is_ours =
            primaries.iter().any(|primary| are_related(replica.history, primary.history) == Some(true));
        let master = replica.master.as_ref().and_then(|(host, port)| Address::announced(host, *port));
        let master = master.map(|master| map.get(&master).cloned().unwrap_or(master));
        let master = master.filter(|_| replica.link_up != Some(true) || !is_ours);
        found.extend(master.filter(|master| !nodes.contains(master) && !found.contains(master)));
    }
    found.truncate(MOST_STRANGERS);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::diagnose::seen::Report;
    use crate::core::nodes::node::Role;

    #[test]
    fn strangers_are_sought_where_they_are_reached() {
        let follows = |host: &str| Seen {
            report: Some(Report {
                role: Some(Role::Replica),
                link_up: Some(false),
                master: Some((host.to_owned(), 6379)),
                ..Report::default()
            }),
            ..Seen::default()
        };
        let address = |text: &str| text.parse::<Address>().unwrap();
        let nodes = [address("127.0.0.1:7001"), address("[fd00::1]:6379")];
        let map = BTreeMap::from([
            (address("10.0.0.1:6379"), address("127.0.0.1:7001")),
            (address("10.0.0.9:6379"), address("127.0.0.1:7009")),
        ]);
        let of = |host: &str| strangers(&[follows(host)], &nodes, &map);
        assert_eq!(of("10.0.0.1"), [], "it is one of ours, by another address");
        assert_eq!(of("fd00::1"), []);
        assert_eq!(of("10.0.0.9"), [address("127.0.0.1:7009")]);
        assert_eq!(of("fd00::2"), [address("[fd00::2]:6379")]);
    }
}
