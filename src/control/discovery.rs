//! Keeps to who belongs to the shard by what its nodes say of each other and what names in the DNS stand for. What that
//! comes to is decided elsewhere ([`crate::core::nodes::discovery`]).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::core::address::Address;
use crate::core::nodes::discovery::Discovery;
use crate::core::nodes::members::Membership;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::runtime::task;
use crate::shard::shared::Shared;

/// Between two questions for the records of a name. The system's resolver is asked, as for any other connection: search
/// domains, `ndots` and `/etc/hosts` hold. It tells nobody how long a record is good for.
pub const RESOLVE: Duration = Duration::from_secs(5);

/// How long the resolver may take.
const RESOLVED_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks at the nodes, at least: each is polled ten times a second, and tells news once a second.
const LOOK_GAP: Duration = Duration::from_millis(50);

/// At the latest: whoever is in doubt goes when time is up.
const LOOK_LATEST: Duration = Duration::from_secs(1);

/// What is known so far, and who waits for news of names.
#[derive(Debug)]
struct Desk {
    known: Mutex<Discovery>,
    /// Counts changes of the records.
    news: watch::Sender<u64>,
}

impl Desk {
    // It outlives a panic: who is there stays.
    fn known(&self) -> MutexGuard<'_, Discovery> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds out from now on; what it comes to is in the receiver.
pub fn start(shared: &Arc<Shared>) -> watch::Receiver<Membership> {
    let config = shared.config();
    let upstream = &config.upstream;
    let known = Discovery::new(
        upstream.nodes(),
        upstream.names.len(),
        upstream.replicas_from_nodes,
        upstream.address_map.clone(),
    );
    let desk = Arc::new(Desk { known: Mutex::new(known), news: watch::Sender::new(0) });
    for (index, name) in upstream.names.iter().enumerate() {
        let (desk, name) = (Arc::clone(&desk), name.clone());
        task::supervise("resolver", move || resolve_for_ever(Arc::clone(&desk), index, name.clone()));
    }
    let (found, membership) = watch::channel(Membership::default());
    let shared = Arc::clone(shared);
    task::supervise("discovery", move || look(Arc::clone(&shared), Arc::clone(&desk), found.clone()));
    membership
}

/// Decides anew whenever a node or a name has said something else.
async fn look(shared: Arc<Shared>, desk: Arc<Desk>, found: watch::Sender<Membership>) {
    let (mut views, mut news) = (shared.shard().views.subscribe(), desk.news.subscribe());
    let mut configured = shared.configured.subscribe();
    let mut nodes = shared.config().upstream.nodes();
    let mut hosts = follow_hosts(&desk, &nodes);
    loop {
        let configured_now = shared.config().upstream.nodes();
        if configured_now != nodes {
            // Only where nothing else is found: see `config::change`.
            let map = shared.config().upstream.address_map.clone();
            *desk.known() = Discovery::new(configured_now.clone(), 0, false, map);
            hosts.abort_all();
            hosts = follow_hosts(&desk, &configured_now);
            nodes = configured_now;
        }
        news.mark_unchanged();
        let membership = desk.known().decide(&shared.shard().view.load(), clock::now());
        found.send_if_modified(|known| {
            let changed = *known != membership;
            if changed {
                *known = membership;
            }
            changed
        });
        // What it selects from is cancel safe: `watch` channels, and a sleep.
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            _ = news.changed() => {}
            _ = configured.changed() => {}
            () = tokio::time::sleep(LOOK_LATEST) => {}
        }
        tokio::time::sleep(LOOK_GAP).await;
    }
}

/// Follows where the names of these nodes lead, until what is returned is dropped.
fn follow_hosts(desk: &Arc<Desk>, nodes: &[Address]) -> JoinSet<()> {
    let mut hosts = JoinSet::new();
    for node in nodes.iter().filter(|node| node.is_named()).cloned() {
        hosts.spawn(follow_host(Arc::clone(desk), node));
    }
    hosts
}

/// Asks for the records of one name again and again. As long as it is not answered, what was answered last stays.
async fn resolve_for_ever(desk: Arc<Desk>, index: usize, name: Address) {
    let mut told = String::new();
    loop {
        match resolve(&name).await {
            Ok(records) => {
                told.clear();
                if desk.known().hear_name(index, &records) {
                    let records: Vec<String> = records.iter().map(ToString::to_string).collect();
                    tracing::info!(%name, records = records.join(" "), "a name stands for these nodes");
                    desk.news.send_modify(|news| *news = news.wrapping_add(1));
                }
            }
            Err(problem) => {
                let text = problem.to_string();
                if text != told {
                    tracing::warn!(%name, problem = %text, "a name is not answered: its nodes stay as they were");
                    told = text;
                }
            }
        }
        tokio::time::sleep(jitter::slightly_less(RESOLVE)).await;
    }
}

/// Asks again and again where the name of one node leads. A connection stays where it is when its name moves, and so would
/// whoever asks the node how it is.
async fn follow_host(desk: Arc<Desk>, node: Address) {
    loop {
        // Whoever connects tells of a name that is not answered.
        let records = resolve(&node).await.unwrap_or_default();
        let moved = desk.known().hear_host(&node, records.iter().map(ToString::to_string));
        if moved {
            let records: Vec<String> = records.iter().map(ToString::to_string).collect();
            tracing::warn!(%node, records = records.join(" "), "the name of a node leads elsewhere: it is another node");
            desk.news.send_modify(|news| *news = news.wrapping_add(1));
        }
        tokio::time::sleep(jitter::slightly_less(RESOLVE)).await;
    }
}

async fn resolve(name: &Address) -> io::Result<Vec<Address>> {
    let Address::Tcp { host, port } = name else { return Err(io::ErrorKind::Unsupported.into()) };
    let records = tokio::time::timeout(RESOLVED_WITHIN, lookup_host((host.as_str(), *port))).await??;
    let records: Vec<Address> =
        records.map(|record| Address::tcp(&record.ip().to_string(), record.port())).collect();
    if records.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no addresses"));
    }
    Ok(records)
}
