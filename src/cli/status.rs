//! `redweir status`: a running proxy and its servers, in a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use super::explain::UsageError;
use super::http::{fetch, get};
use super::output::{may_colour, print};
use crate::core::address::Address;
use crate::shard::doctor::{DoctorReport, shown};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// From the top of an empty screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What `/view` answers. What it does not say is shown as unknown.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ViewBody {
    primary: Option<String>,
    replication_id: Option<String>,
    head_offset: Option<u64>,
    stream_source: Option<String>,
    #[serde(default)]
    nodes: Vec<NodeBody>,
    /// In a cluster.
    shards: Option<Vec<ShardBody>>,
}

/// A shard of a cluster.
#[derive(Debug, Deserialize)]
struct ShardBody {
    shard: usize,
    view: ViewBody,
}

impl ViewBody {
    /// All nodes: the shard of each, in a cluster, and whether the replication stream comes from there.
    pub(super) fn all(&self) -> Vec<(Option<usize>, &NodeBody, bool)> {
        match &self.shards {
            Some(shards) => shards.iter().flat_map(|one| one.view.of_shard(Some(one.shard))).collect(),
            None => self.of_shard(None),
        }
    }

    fn of_shard(&self, shard: Option<usize>) -> Vec<(Option<usize>, &NodeBody, bool)> {
        let feeds = |node: &NodeBody| self.stream_source.as_ref() == Some(&node.node);
        self.nodes.iter().map(|node| (shard, node, feeds(node))).collect()
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NodeBody {
    pub(super) node: String,
    role: String,
    pub(super) answers: bool,
    link: Option<String>,
    applied_offset: Option<u64>,
    lag_bytes: Option<u64>,
    staleness_ms: Option<f64>,
    delay_ms: Option<f64>,
    pub(super) in_service: bool,
}

/// Shows it once, or again and again. A proxy that does not answer ends it only if it is shown once.
pub(super) fn run(admin: &Address, watch: bool) -> anyhow::Result<()> {
    let Address::Tcp { host, port } = admin else { return Err(UsageError.into()) };
    loop {
        let page = page(host, *port, admin);
        if !watch {
            return print(&page?);
        }
        let page = page.unwrap_or_else(|problem| format!("{problem:#}\n"));
        let redraw = if io::stdout().is_terminal() { CLEAR } else { "" };
        let mut out = io::stdout().lock();
        if let Err(error) = writeln!(out, "{redraw}{page}").and_then(|()| out.flush()) {
            // Whoever looked on has seen enough.
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
        }
        drop(out);
        thread::sleep(EVERY);
    }
}

fn page(host: &str, port: u16, admin: &Address) -> anyhow::Result<String> {
    let asked = || format!("cannot ask the admin server at {admin}");
    let (_, readiness) = get(host, port, "/readyz").with_context(asked)?;
    let view = fetch(host, port, "/view").with_context(asked)?;
    let doctor = fetch(host, port, "/doctor").with_context(asked)?;
    let not_ours = || format!("{admin} answered, but not as Redweir does");
    let view: ViewBody = serde_json::from_str(&view).with_context(not_ours)?;
    let doctor: DoctorReport = serde_json::from_str(&doctor).with_context(not_ours)?;
    Ok(render(&readiness, &view, &doctor, may_colour()))
}

pub(super) fn render(readiness: &str, view: &ViewBody, doctor: &DoctorReport, colours: bool) -> String {
    let mut out = String::new();
    for line in readiness.lines() {
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "{}", shown(line));
    }
    if let (None, Some(primary), Some(id), Some(head)) =
        (&view.shards, &view.primary, &view.replication_id, view.head_offset)
    {
        let _ = writeln!(out, "history: {} of {}, offset {head}", shown(id), shown(primary));
    }
    out.push('\n');
    let header = header(view);
    let all = view.all();
    let of_node = |(shard, node, _): &(Option<usize>, &NodeBody, bool)| row(*shard, node);
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(all.iter().map(of_node)).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out.push('\n');
    out + &doctor.findings_text(colours)
}

/// What is said of a node, in columns.
const HEADER: [&str; 9] = ["node", "role", "answers", "link", "applied", "lag", "age", "delay", "in service"];

/// The names of these columns; in a cluster the shard is the first.
pub(super) fn header(view: &ViewBody) -> Vec<String> {
    let shard = view.shards.as_ref().map(|_| "shard");
    shard.into_iter().chain(HEADER).map(str::to_owned).collect()
}

/// The cells of a node.
pub(super) fn row(shard: Option<usize>, node: &NodeBody) -> Vec<String> {
    shard.map(|shard| shard.to_string()).into_iter().chain(cells(node)).collect()
}

fn cells(node: &NodeBody) -> [String; 9] {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let unknown = || "-".to_owned();
    [
        shown(&node.node),
        shown(&node.role),
        yes(node.answers),
        node.link.as_deref().map_or_else(unknown, shown),
        node.applied_offset.map_or_else(unknown, |offset| offset.to_string()),
        node.lag_bytes.map_or_else(unknown, |bytes| format!("{bytes} B")),
        node.staleness_ms.map_or_else(unknown, |ms| format!("{ms:.0} ms")),
        node.delay_ms.map_or_else(unknown, |ms| format!("{ms:.0} ms")),
        yes(node.in_service),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_few_lines() {
        let view = r#"{"primary": "a:1", "replication_id": "ff", "head_offset": 120, "nodes": [
            {"node": "a:1", "role": "primary", "answers": true, "in_service": true},
            {"node": "b:2", "role": "replica", "answers": true, "link": "up", "applied_offset": 120, "lag_bytes": 0,
             "staleness_ms": 31.4159, "delay_ms": 0.8, "in_service": true, "more": 1}]}"#;
        let expected = "\
ready
primary: a:1
history: ff of a:1, offset 120

node  role     answers  link  applied  lag  age    delay  in service
a:1   primary  yes      -     -        -    -      -      yes
b:2   replica  yes      up    120      0 B  31 ms  1 ms   yes

no node was looked at yet
";
        let shown = |view: &str| {
            let view = serde_json::from_str(view).unwrap();
            render("ready\nprimary: a:1\n", &view, &DoctorReport::default(), false)
        };
        assert_eq!(shown(view), expected);
        let nodes = r#"{"nodes": [{"node": "a:1", "role": "primary", "answers": true, "in_service": true}]}"#;
        let page = shown(&format!(
            r#"{{"shards": [{{"shard": 0, "view": {{}}}}, {{"shard": 7, "view": {nodes}}}]}}"#
        ));
        assert!(page.contains("\nshard  node  role     answers"), "{page}");
        assert!(page.contains("\n7      a:1   primary  yes"), "{page}");
    }
}
