//! The gauges of the nodes and of the stream. Written by ourselves: the exporter would go on telling of what is known no longer.

use std::sync::Arc;

use super::family::{Family, flag};
use crate::core::moment::Moment;
use crate::core::nodes::election::second_primaries;
use crate::core::nodes::node::{Link, Node, Role};
use crate::core::nodes::view::View;
use crate::core::slots::{Holdings, count};
use crate::shard::overall;
use crate::shard::shared::Shared;

/// What is unknown is absent. In a cluster each series says of which shard it is.
pub(super) fn write(page: &mut String, shards: &[Arc<Shared>], now: Moment) {
    let views: Vec<(&Shared, Arc<View>)> =
        shards.iter().map(|shared| (&**shared, shared.shard().view.load_full())).collect();
    for (name, help, read) in OF_SHARD {
        let series = views.iter().filter_map(|(shared, view)| Some((of_shard(shared), read(shared, view)?)));
        Family::gauge(name, help).write(page, series);
    }
    write_nodes(page, &views, now);
    let withheld =
        Family::gauge("redweir_withheld", "1 for each command of Redweir's own that a node refuses.");
    let series = views.iter().flat_map(|(shared, view)| {
        let refused = shared.shard().withheld.list(view).into_iter();
        refused.map(|(node, wanted)| {
            let labels = format!("{},{}", label("node", &node), label("command", wanted.name()));
            (also(labels, shared), 1.0)
        })
    });
    withheld.write(page, series);
}

/// In a cluster: which hash slots are whose, by how many.
pub(super) fn write_slots(page: &mut String, shards: &[Arc<Shared>], holdings: &Holdings) {
    let series = shards.iter().flat_map(|shared| {
        let holding = holdings.shard(shared.index());
        let stable = holding.count().saturating_sub(holding.moving);
        [("stable", stable), ("moving", holding.moving)]
            .map(|(state, slots)| (also(label("state", state), shared), slots as f64))
    });
    let unowned = (format!("{},shard=\"\"", label("state", "unowned")), count(&holdings.unowned) as f64);
    Family::gauge("redweir_slots", "Hash slots, by shard and state; those without an owner have no shard.")
        .write(page, series.chain([unowned]));
}

/// The label of the shard, where there are several.
pub(super) fn of_shard(shared: &Shared) -> String {
    overall::label(shared).map_or_else(String::new, |index| format!("shard=\"{index}\""))
}

/// With the label of the shard, where there are several.
pub(super) fn also(labels: String, shared: &Shared) -> String {
    match of_shard(shared).as_str() {
        "" => labels,
        shard => format!("{labels},{shard}"),
    }
}

/// What a gauge shows of a shard; `None`: that is not known.
type ReadShard = fn(&Shared, &View) -> Option<f64>;

const OF_SHARD: [(&str, &str, ReadShard); 5] = [
    ("redweir_primary_up", "1 when the primary answers.", |_, view| {
        Some(flag(view.primary.and_then(|id| view.node(id)).is_some_and(Node::answers)))
    }),
    ("redweir_second_primary", "1 while more than one node says that it is the primary.", |_, view| {
        Some(flag(!second_primaries(view).is_empty()))
    }),
    ("redweir_head_offset", "The newest anchor's offset.", |_, view| {
        view.head.map(|head| head.offset.bytes() as f64)
    }),
    ("redweir_stream_attached", "1 when the replication stream is followed.", |shared, _| {
        Some(flag(shared.shard().stream.is_attached()))
    }),
    ("redweir_stream_offset", "How far the replication stream was read.", |shared, _| {
        shared.shard().stream.is_attached().then(|| shared.shard().stream.offset() as f64)
    }),
];

/// What a gauge shows of a replica; `None`: that is not known.
type Read = fn(&View, &Node, Moment) -> Option<f64>;

fn write_nodes(page: &mut String, views: &[(&Shared, Arc<View>)], now: Moment) {
    let up = Family::gauge("redweir_node_up", "1 when a node answers; else its problem says why not.");
    up.write(
        page,
        views.iter().flat_map(|(shared, view)| {
            view.members().map(|node| (also(state(view, node), shared), flag(node.answers())))
        }),
    );
    for (name, help, read) in OF_REPLICA {
        let series = views.iter().flat_map(|(shared, view)| {
            let replicas = view.members().filter(|node| view.primary != Some(node.id));
            replicas.filter_map(move |node| {
                Some((also(label("node", &node.name()), shared), read(view, node, now)?))
            })
        });
        Family::gauge(name, help).write(page, series);
    }
}

const OF_REPLICA: [(&str, &str, Read); 6] = [
    ("redweir_replica_lag_bytes", "Bytes that a replica is behind the newest anchor.", |view, node, _| {
        view.lag_bytes(node).map(|bytes| bytes as f64)
    }),
    ("redweir_replica_staleness_seconds", "How old a replica's data can be.", |_, node, now| {
        node.staleness(now).map(|age| age.as_secs_f64())
    }),
    (
        "redweir_replica_delay_seconds",
        "How long after the primary a replica has what was written there, as measured.",
        |_, node, _| node.delay.map(|delay| delay.as_secs_f64()),
    ),
    ("redweir_replica_link_up", "1 when a replica's link to its primary is up.", |_, node, _| {
        Some(flag(node.link == Some(Link::Up)))
    }),
    ("redweir_replica_eligible", "1 when a replica's health has earned it reads.", |view, node, now| {
        Some(flag(node.standing.is_open() && !node.is_silent(now, view.silence_limit)))
    }),
    (
        "redweir_replica_acl_verified",
        "1 when a replica's access rules are known to be those of the primary, for every user.",
        |view, node, _| Some(flag(!view.rights.bar_somebody_from(node.id))),
    ),
];

/// The labels of a node: its last role holds also while it is silent, so that an alert on replicas finds it.
fn state(view: &View, node: &Node) -> String {
    let role = if view.primary == Some(node.id) { Some(Role::Primary) } else { node.last_role };
    let problem = match node.problem() {
        Some(problem) => problem.kind.label(),
        None if node.answers() => "none",
        None => "unknown",
    };
    let (role, problem) = (label("role", role.map_or("unknown", Role::name)), label("problem", problem));
    format!("{},{role},{problem}", label("node", &node.name()))
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}
