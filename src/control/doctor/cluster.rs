//! One examination of a cluster: asks its nodes who they are and which slots they have (`CLUSTER NODES`), and looks at each shard as
//! at a primary with its replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::{self, Config};
use crate::control::doctor::configured;
use crate::control::doctor::patient::Leave;
use crate::control::doctor::ward::{Access, Ward};
use crate::core::address::Address;
use crate::core::diagnose::record::Record;
use crate::core::diagnose::seen::{Look, RivalSeen, SlotsSeen, StuckSlot};
use crate::core::diagnose::{Context, Memory, diagnose};
use crate::core::moment::Moment;
use crate::core::slots::{Claims, Members, NodesReport, ShardIndex, Topology};
use crate::net::runtime::clock;
use crate::net::runtime::limits::MOST_SHARDS;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::net::socket::dial::Dialer;
use crate::shard::doctor::DoctorReport;
use crate::wire::cluster;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// So often nodes are asked before the first look: who else there is, and whether what one says of another is still so.
const ROUNDS: u32 = 3;

/// Looks at once, and each second for so long after that.
pub(super) async fn examine(
    config: &Config,
    settings: &config::Cluster,
    dialer: Dialer,
    lasts: Duration,
) -> (DoctorReport, Look) {
    let access = Access::of(config);
    let mut asking = Asking {
        dialer: dialer.clone(),
        seeds: settings.addresses.clone(),
        links: BTreeMap::new(),
        topology: Topology::new(MOST_SHARDS, config.upstream.address_map.clone()),
        claims: Claims::new(),
        shards: Vec::new(),
    };
    for _ in 1..ROUNDS {
        asking.ask(&access).await;
    }
    let (mut cases, begun) = (BTreeMap::new(), clock::now());
    loop {
        let at = clock::now();
        asking.ask(&access).await;
        let shards = asking.shards();
        cases.retain(|index, _: &mut Case| shards.iter().any(|(shard, _)| shard == index));
        for (index, _) in &shards {
            let ward = Ward::new(dialer.clone());
            cases.entry(*index).or_insert_with(|| Case { ward, memory: Memory::default() });
        }
        let looks = cases.iter_mut().filter_map(|(index, case)| {
            let (_, nodes) = shards.iter().find(|(shard, _)| shard == index)?;
            Some(case.look(nodes, asking.slots(*index, at), &access, at))
        });
        join_all(looks).await;
        if clock::now().since(begun) >= lasts {
            break;
        }
        tokio::time::sleep(EVERY.saturating_sub(clock::now().since(at))).await;
    }
    let (mut reports, mut all) = (Vec::new(), Look::default());
    for (index, case) in &mut cases {
        let primary = asking.primary(*index).map(|address| (address, "CLUSTER NODES names it"));
        let context = Context { followed: primary, ..configured(config) };
        let (report, look) = case.close(&context);
        all.nodes.extend(look.nodes);
        all.strangers.extend(look.strangers);
        reports.push((index.index(), report.into()));
    }
    (DoctorReport::join(reports), all)
}

/// One shard.
struct Case {
    ward: Ward,
    memory: Memory,
}

impl Case {
    async fn look(&mut self, nodes: &[Address], slots: SlotsSeen, access: &Access, at: Moment) {
        let visits: Vec<(Address, Leave)> = nodes.iter().map(|node| (node.clone(), Leave::All)).collect();
        let mut look = self.ward.look(&visits, access, at).await;
        look.slots = Some(slots);
        self.memory.take(look);
    }

    fn close(&mut self, context: &Context) -> (DoctorReport, Look) {
        let (looks, incidents) = self.memory.all();
        let mut record = Record::default();
        record.take(diagnose(looks, incidents, context), |_| false, clock::unix());
        let now = looks.last().cloned().unwrap_or_default();
        (DoctorReport::of(&now, &record.standing()), now)
    }
}

/// Asks the nodes of their cluster.
struct Asking {
    dialer: Dialer,
    seeds: Vec<Address>,
    links: BTreeMap<Address, ControlLink>,
    topology: Topology,
    claims: Claims,
    /// By the last answers.
    shards: Vec<Members>,
}

impl Asking {
    /// Asks all nodes that are known, at once.
    async fn ask(&mut self, access: &Access) {
        let mut nodes: Vec<Address> = self.topology.addresses(clock::now()).into_keys().collect();
        if nodes.is_empty() {
            nodes.clone_from(&self.seeds);
        }
        let asked = nodes.into_iter().map(|node| {
            let (link, dialer) = (self.links.remove(&node), self.dialer.clone());
            async move {
                let asked_at = clock::now();
                let answer = nodes_of(&node, link, &dialer, access).await;
                (node, asked_at, clock::now(), answer)
            }
        });
        for (node, asked_at, heard_at, answer) in join_all(asked.collect::<Vec<_>>()).await {
            let Ok((link, report)) = answer else { continue };
            self.links.insert(node.clone(), link);
            self.topology.hear(&node, report.clone(), heard_at);
            self.shards = self.topology.decide(heard_at);
            let leads = report.myself().filter(|mine| mine.is_primary()).map(|mine| mine.name);
            if let Some(shard) = leads.and_then(|name| self.topology.led_by(name)) {
                self.claims.report(shard, &report, asked_at, heard_at);
            }
        }
    }

    /// The shards that there are, and their nodes; where none is known, one of those that are configured.
    fn shards(&self) -> Vec<(ShardIndex, Vec<Address>)> {
        let live = self.shards.iter().filter(|members| members.is_live);
        let all: Vec<_> = live.map(|members| (members.shard, members.nodes.clone())).collect();
        if all.is_empty() { vec![(ShardIndex::FIRST, self.seeds.clone())] } else { all }
    }

    fn primary(&self, shard: ShardIndex) -> Option<String> {
        let members = self.shards.iter().find(|members| members.shard == shard)?;
        members.primary.as_ref().map(|(_, address)| address.to_string())
    }

    fn slots(&self, shard: ShardIndex, now: Moment) -> SlotsSeen {
        let holdings = self.claims.holdings();
        let first = self.shards().first().is_some_and(|(first, _)| *first == shard);
        let members = self.shards.iter().find(|members| members.shard == shard);
        let stuck = self.claims.stuck(shard, Duration::ZERO, now).into_iter();
        let stuck = stuck.map(|(slot, shards, lasts)| {
            let nodes = shards.into_iter().filter_map(|shard| self.primary(shard)).collect();
            StuckSlot { slot, nodes, lasts }
        });
        let rivals = self.claims.rivals(shard).into_iter().map(|rival| {
            let holder = self.primary(rival.holder).unwrap_or_else(|| "another primary".to_owned());
            RivalSeen { slots: rival.slots, holder, epoch: rival.epoch }
        });
        SlotsSeen {
            owned: holdings.shard(shard).count(),
            replicas: members.map_or(0, |members| members.nodes.len().saturating_sub(1)),
            uncovered: if first { holdings.unowned } else { Vec::new() },
            stuck: stuck.collect(),
            rivals: rivals.collect(),
        }
    }
}

/// What a node says of its cluster, over the connection that there is, or a new one.
async fn nodes_of(
    node: &Address,
    link: Option<ControlLink>,
    dialer: &Dialer,
    access: &Access,
) -> Result<(ControlLink, NodesReport), ControlError> {
    let mut link = match link {
        Some(link) => link,
        None => ControlLink::connect(dialer, node, access.login.as_ref(), access.connect).await?,
    };
    let answer = link.call(&[b"CLUSTER", b"NODES"], access.answer).await?;
    let report = cluster::nodes(&answer).map_err(|problem| ControlError::Malformed(problem.to_string()))?;
    Ok((link, report))
}
