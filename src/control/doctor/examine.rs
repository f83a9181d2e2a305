//! One examination, for `redweir doctor` and `redweir check --connect`: finds the nodes, looks at them a few times, and says what
//! is found.

use std::time::Duration;

use tokio::net::lookup_host;

use crate::config::Config;
use crate::control::doctor::cluster;
use crate::control::doctor::configured;
use crate::control::doctor::patient::Leave;
use crate::control::doctor::sentinels::Sentinels;
use crate::control::doctor::ward::{Access, Ward};
use crate::core::address::Address;
use crate::core::diagnose::record::Record;
use crate::core::diagnose::seen::Look;
use crate::core::diagnose::{Memory, diagnose};
use crate::core::nodes::view::MOST_MEMBERS;
use crate::net::runtime::clock;
use crate::net::socket::dial::Dialer;
use crate::shard::doctor::DoctorReport;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at once, and each second for so long after that. What is found rests on the last look, with the others for what needs a
/// trend. The connections to sentinels are made by `sentinels`.
pub async fn examine(
    config: &Config,
    dialer: Dialer,
    sentinels: Dialer,
    lasts: Duration,
) -> (DoctorReport, Look) {
    if let Some(settings) = &config.upstream.cluster {
        return cluster::examine(config, settings, dialer, lasts).await;
    }
    let (mut ward, mut sentinels) = (Ward::new(dialer), Sentinels::new(sentinels));
    let (access, map) = (Access::of(config), &config.upstream.address_map);
    let settings = config.upstream.sentinel.as_ref();
    let mut nodes = config.upstream.nodes();
    nodes.extend(resolved(&config.upstream.names).await);
    if let Some(settings) = settings {
        nodes.extend(sentinels.list(settings, map, &access).await);
    }
    let mut context = configured(config);
    if settings.is_some() {
        // Whoever is named first is who should be the primary.
        context.primary = nodes.first().map(ToString::to_string);
    }
    settle(&mut nodes);
    let (mut memory, begun) = (Memory::default(), clock::now());
    loop {
        let at = clock::now();
        let mut look = ward.look(&visits(&nodes), &access, at).await;
        if config.upstream.replicas_from_nodes {
            let known = nodes.len();
            nodes.extend(announced(&look).map(|node| map.get(&node).cloned().unwrap_or(node)));
            settle(&mut nodes);
            if nodes.len() > known {
                look = ward.look(&visits(&nodes), &access, clock::now()).await;
            }
        }
        look.sentinels = sentinels.ask(settings, map, &access).await;
        memory.take(look);
        if clock::now().since(begun) >= lasts {
            break;
        }
        tokio::time::sleep(EVERY.saturating_sub(clock::now().since(at))).await;
    }
    let (looks, incidents) = memory.all();
    let mut record = Record::default();
    record.take(diagnose(looks, incidents, &context), |_| false, clock::unix());
    let now = looks.last().cloned().unwrap_or_default();
    (DoctorReport::of(&now, &record.standing()), now)
}

/// Somebody wants to know: everything is asked.
fn visits(nodes: &[Address]) -> Vec<(Address, Leave)> {
    nodes.iter().map(|node| (node.clone(), Leave::All)).collect()
}

/// Each once, in their order.
fn settle(nodes: &mut Vec<Address>) {
    let mut known = Vec::new();
    nodes.retain(|node| {
        let is_new = !known.contains(node);
        known.push(node.clone());
        is_new
    });
    nodes.truncate(MOST_MEMBERS);
}

/// Where the nodes say that their replicas are.
fn announced(look: &Look) -> impl Iterator<Item = Address> {
    let online = look.nodes.iter().filter_map(|seen| seen.report.as_ref()).flat_map(|report| &report.online);
    online.filter_map(|(host, port)| Address::announced(host, *port))
}

/// Each record of these names is a node. A name that is not answered has none.
async fn resolved(names: &[Address]) -> Vec<Address> {
    let mut nodes = Vec::new();
    for name in names {
        let Address::Tcp { host, port } = name else { continue };
        let found = lookup_host((host.as_str(), *port)).await;
        nodes.extend(
            found.into_iter().flatten().map(|found| Address::tcp(&found.ip().to_string(), found.port())),
        );
    }
    nodes
}
