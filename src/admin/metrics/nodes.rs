//! The gauges of the nodes and of the stream. Written by ourselves: the exporter would go on telling of what is known no longer.

use super::family::{Family, flag};
use crate::core::moment::Moment;
use crate::core::nodes::election::second_primaries;
use crate::core::nodes::node::{Link, Node, Role};
use crate::core::nodes::view::View;
use crate::shard::shared::Shared;

/// What is unknown is absent.
pub(super) fn write(page: &mut String, shared: &Shared, now: Moment) {
    let view = shared.shard().view.load();
    let of_shard = [
        (
            Family::gauge("redweir_primary_up", "1 when the primary answers."),
            Some(flag(view.primary.and_then(|id| view.node(id)).is_some_and(Node::answers))),
        ),
        (
            Family::gauge(
                "redweir_second_primary",
                "1 while more than one node says that it is the primary.",
            ),
            Some(flag(!second_primaries(&view).is_empty())),
        ),
        (
            Family::gauge("redweir_head_offset", "The newest anchor's offset."),
            view.head.map(|head| head.offset.bytes() as f64),
        ),
        (
            Family::gauge("redweir_stream_attached", "1 when the replication stream is followed."),
            Some(flag(shared.shard().stream.is_attached())),
        ),
        (
            Family::gauge("redweir_stream_offset", "How far the replication stream was read."),
            shared.shard().stream.is_attached().then(|| shared.shard().stream.offset() as f64),
        ),
    ];
    for (family, value) in of_shard {
        family.write(page, value.map(|value| (String::new(), value)));
    }
    write_nodes(page, &view, now);
    let withheld =
        Family::gauge("redweir_withheld", "1 for each command of Redweir's own that a node refuses.");
    let series = shared.shard().withheld.list(&view).into_iter();
    withheld.write(
        page,
        series.map(|(node, wanted)| {
            (format!("{},{}", label("node", &node), label("command", wanted.name())), 1.0)
        }),
    );
}

/// What a gauge shows of a replica; `None`: that is not known.
type Read = fn(&View, &Node, Moment) -> Option<f64>;

fn write_nodes(page: &mut String, view: &View, now: Moment) {
    let up = Family::gauge("redweir_node_up", "1 when a node answers; else its problem says why not.");
    up.write(page, view.members().map(|node| (state(view, node), flag(node.answers()))));
    let gauges: [(&str, &str, Read); 6] = [
        (
            "redweir_replica_lag_bytes",
            "Bytes that a replica is behind the newest anchor.",
            |view, node, _| view.lag_bytes(node).map(|bytes| bytes as f64),
        ),
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
    for (name, help, read) in gauges {
        let replicas = view.members().filter(|node| view.primary != Some(node.id));
        let series = replicas.filter_map(|node| Some((label("node", &node.name()), read(view, node, now)?)));
        Family::gauge(name, help).write(page, series);
    }
}

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
