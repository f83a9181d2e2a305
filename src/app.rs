//! The only assembly: builds the parts, starts them in order, stops them in order.
//!
//! Order: bind every socket (so that a busy port ends the start, whole), then the control thread (prober, keeper,
//! follower, listeners), the workers, the admin thread. Stop: `/readyz` says so, newcomers are still served for
//! `lame-duck`, then those that are connected get what they are owed within `drain-timeout`, then the process ends.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin::{AdminServer, Metrics};
use crate::config::{Config, Upstream, UpstreamTls};
use crate::control::cluster;
use crate::control::discovery;
use crate::control::doctor;
use crate::control::engine;
use crate::control::memory;
use crate::control::reload::{Origin, Reload, Told};
use crate::control::sentinel;
use crate::control::story::opening;
use crate::core::fence::FenceTable;
use crate::core::moment::in_words;
use crate::core::nodes::members::{Membership, Places};
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::{MOST_MEMBERS, Tracker};
use crate::net::runtime::clock;
use crate::net::runtime::descriptors;
use crate::net::runtime::descriptors::Room;
use crate::net::runtime::hangup;
use crate::net::runtime::jitter;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::net::socket::dial::Dialer;
use crate::net::socket::handed::Handed;
use crate::net::socket::tls::TlsConnector;
use crate::net::socket::tls::renew::{Renewable, Watch};
use crate::proxy::serve::listener::{Accepted, Listener};
use crate::proxy::serve::thread::serve_thread;
use crate::shard::cluster::Cluster;
use crate::shard::common::Common;
use crate::shard::shared::Shared;

/// Runs the proxy until SIGINT or SIGTERM. The configuration is read again from where it came from.
pub fn run(config: Config, origin: Origin, handed: Handed) -> anyhow::Result<()> {
    opening::tell_of_process(origin.file.as_deref());
    let mut proxy = Proxy::start(config, handed)?;
    let mut signals = {
        let _context = proxy.runtime.enter();
        Signals::new()?
    };
    proxy.reload(origin)?;
    tell_manager(NotifyState::Ready);
    proxy.runtime.block_on(async {
        let first = signals.next().await;
        tell_manager(NotifyState::Stopping);
        let (lame_duck, drain_timeout) = {
            let config = proxy.shared.config();
            (config.proxy.lame_duck, config.proxy.drain_timeout)
        };
        proxy.shared.leave_by(clock::now().after(drain_timeout));
        // Whoever says Ctrl-C looks on.
        if first == SignalKind::terminate() && !lame_duck.is_zero() {
            let told = proxy.shared.mailboxes.tell_of_move(lame_duck).await;
            let longer = in_words(lame_duck);
            let told =
                if told > 0 { format!("; {told} clients were told to connect anew") } else { String::new() };
            tracing::info!("SIGTERM: newcomers are served for {longer} more{told}");
            tokio::select! {
                () = tokio::time::sleep(lame_duck.min(drain_timeout)) => {}
                again = signals.next() => end_now(again),
            }
        }
    });
    proxy.runtime.spawn(async move {
        let again = signals.next().await;
        end_now(again);
    });
    proxy.stop();
    Ok(())
}

/// The signals that end the process.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Cancel safe: a signal that is not taken is there for the next call.
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}

/// Somebody does not want to wait: nobody is waited for. The exit code is that of a process that the signal ends.
fn end_now(signal: SignalKind) {
    tracing::warn!("a second signal: every client is cut off");
    // The line is written by a thread of its own.
    thread::sleep(Duration::from_millis(50));
    std::process::exit(128 + signal.as_raw_value());
}

/// Tells systemd how far the process is, if that started it (`sd_notify`).
fn tell_manager(state: NotifyState<'_>) {
    if let Err(problem) = sd_notify::notify(&[state]) {
        tracing::debug!(%problem, "the service manager cannot be told");
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// What its threads share.
    pub shared: Arc<Shared>,
    /// The control thread's runtime.
    pub runtime: Runtime,
    /// Who is told of another configuration, until somebody tells.
    told: Option<Told>,
    workers: Vec<thread::JoinHandle<std::io::Result<Vec<String>>>>,
}

impl Proxy {
    /// Starts everything, on the sockets that were handed over or its own; an error means that nothing runs.
    pub fn start(mut config: Config, mut handed: Handed) -> anyhow::Result<Self> {
        let count = match config.proxy.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        task::tell_of_panics();
        let room = make_room(&mut config, count);
        let listeners = config
            .listen
            .iter()
            .map(|l| {
                Listener::bind(l, &mut handed).with_context(|| format!("cannot listen on {}", l.address))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let admin = config
            .admin
            .as_ref()
            .map(|a| {
                AdminServer::bind(&a.address, room.admin, &mut handed)
                    .with_context(|| format!("cannot listen on {} ([admin])", a.address))
            })
            .transpose()?;
        handed.are_taken()?;
        opening::tell_of_configuration(&config, count);
        let metrics = Arc::new(Metrics::install()?);
        let (upstream, of_sentinels) = connectors(&config)?;
        let watch = watch_files(&listeners, upstream.iter().chain(&of_sentinels));
        let (shared, tracker) = assemble(config, Dialer::new(upstream), count, room.unused);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()
            .context("cannot start the control thread")?;
        let (senders, workers) = start_workers(&shared, count)?;
        let sentinels = Dialer::new(of_sentinels);
        let told = start_control(&shared, tracker, &sentinels, &runtime, listeners, &senders, watch);
        if let Some(admin) = admin {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("admin".to_owned()).spawn(move || {
                if let Err(problem) = admin.run(&shared, &metrics) {
                    tracing::error!(%problem, "the admin thread ended");
                }
            })?;
        }
        Ok(Self { shared, runtime, told: Some(told), workers })
    }

    /// Reads the configuration again at SIGHUP, and when it has changed.
    fn reload(&mut self, origin: Origin) -> anyhow::Result<()> {
        let _context = self.runtime.enter();
        let hangups = hangup::listen().context("cannot listen to SIGHUP")?;
        let Some(told) = self.told.take() else { return Ok(()) };
        let (workers, amend) = (self.workers.len(), origin.amend);
        let amend = Box::new(move |config: &mut Config| {
            amend(config);
            make_room(config, workers);
        });
        let reload = Reload::new(Arc::clone(&self.shared), Origin { amend, ..origin }, told);
        task::spawn("reload", reload.run(hangups));
        Ok(())
    }

    /// Drains and ends. Returns when every client is gone or `drain-timeout` has passed.
    pub fn stop(self) {
        let (begun, clients) = (clock::now(), self.shared.client_count());
        self.shared.leave_by(begun.after(self.shared.config().proxy.drain_timeout));
        self.shared.drain.send_replace(true);
        let mut cut_off = Vec::new();
        for worker in self.workers {
            match worker.join() {
                Ok(Ok(left)) => cut_off.extend(left),
                Ok(Err(problem)) => tracing::error!(%problem, "a worker could not start"),
                Err(_) => tracing::error!("a worker panicked"),
            }
        }
        let clients = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        let (took, left) = (in_words(clock::now().since(begun)), cut_off.len());
        if cut_off.is_empty() {
            tracing::info!("drained, 0 cut off: {clients} left within {took}");
        } else {
            cut_off.truncate(CUT_OFF_NAMED);
            let who = cut_off.join(" ");
            tracing::warn!("drained, {left} cut off of {clients}, which had not left within {took}: {who}");
        }
        self.runtime.shutdown_background();
    }
}

type Connector = Option<Arc<TlsConnector>>;

/// What makes connections to the nodes speak TLS, and those to the sentinels.
pub fn connectors(config: &Config) -> anyhow::Result<(Connector, Connector)> {
    let connector = |name, files: Option<&UpstreamTls>| -> anyhow::Result<Connector> {
        Ok(files.map(|files| TlsConnector::new(name, files.clone())).transpose()?.map(Arc::new))
    };
    let of_sentinels = config.upstream.sentinel.as_ref().and_then(|sentinel| sentinel.tls.as_ref());
    Ok((connector("upstream", config.upstream.tls.as_ref())?, connector("sentinel", of_sentinels)?))
}

/// Lowers what the configuration wants to what descriptors allow.
fn make_room(config: &mut Config, workers: usize) -> Room {
    let (clients, exclusive) = (config.proxy.max_clients, config.upstream.max_exclusive_connections);
    // Nobody needs more than one.
    let exclusive = exclusive.min(clients);
    let configured = config.upstream.nodes().len();
    let found = if config.upstream.are_nodes_found() { limits::NODES_EXPECTED } else { 0 };
    let nodes = configured.max(found);
    let sentinels = config.upstream.sentinel.as_ref().map_or(0, |sentinel| sentinel.addresses.len());
    // Each is asked, by the doctor as well, and listened to.
    let own = descriptors::own_needs(workers, nodes) + 3 * sentinels + config.listen.len();
    let unused = workers * limits::LANES_UNUSED;
    let wanted = Room { clients, exclusive, admin: crate::admin::MOST_CONNECTIONS, unused };
    let room = descriptors::allow(wanted, own);
    config.proxy.max_clients = room.clients;
    config.upstream.max_exclusive_connections = room.exclusive;
    room
}

fn assemble(config: Config, dialer: Dialer, workers: usize, unused: usize) -> (Arc<Shared>, Tracker) {
    let nodes = config.upstream.nodes();
    // Others may be discovered, or configured later.
    let places = MOST_MEMBERS.max(nodes.len());
    let primary = config.upstream.primary.as_ref().map(|_| NodeId(0));
    let tracker = Tracker::new(nodes, primary, config.policies.clone(), config.patience());
    let tracker = tracker.in_zones(config.zones());
    let tracker = if config.upstream.cluster.is_some() { tracker.in_cluster() } else { tracker };
    let slots = if config.policies.fence() { config.stream.fence_slots } else { 1 };
    let (seeds, is_cluster) = (jitter::seeds(), config.upstream.cluster.is_some());
    let common = Arc::new(Common::new(config, dialer, workers, unused / workers));
    let view = tracker.view().clone();
    if is_cluster {
        // Of one that is to be fenced each shard has its share.
        let slots = if slots > 1 { (slots / SHARDS_EXPECTED).max(FENCES_LEAST) } else { slots };
        let cluster = Arc::new(Cluster::new(slots, seeds));
        if let Some(first) = cluster.add(&common, places, view.clone()) {
            return (first, tracker);
        }
    }
    let fences = FenceTable::new(slots, seeds);
    (Arc::new(Shared::new(common, places, view, fences)), tracker)
}

/// Into so many parts the fences of a cluster are divided …
const SHARDS_EXPECTED: usize = 4;

/// … of which each has so many at least.
const FENCES_LEAST: usize = 1 << 16;

/// Every certificate and key that is in use.
fn watch_files<'a>(listeners: &[Listener], connectors: impl Iterator<Item = &'a Arc<TlsConnector>>) -> Watch {
    let listeners = listeners.iter().filter_map(Listener::tls).cloned();
    let mut watched: Vec<Arc<dyn Renewable>> = listeners.map(|tls| tls as Arc<dyn Renewable>).collect();
    watched.extend(connectors.cloned().map(|tls| tls as Arc<dyn Renewable>));
    Watch::new(watched)
}

/// Clients that the last line of the log names.
const CUT_OFF_NAMED: usize = 8;

type Workers = (Vec<mpsc::Sender<Accepted>>, Vec<thread::JoinHandle<std::io::Result<Vec<String>>>>);

fn start_workers(shared: &Arc<Shared>, count: usize) -> anyhow::Result<Workers> {
    let (mut senders, mut threads) = (Vec::new(), Vec::new());
    for index in 0..count {
        let (sender, accepted) = mpsc::channel(limits::ACCEPT_QUEUE);
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || serve_thread(index, shared, accepted))
            .context("cannot start a worker")?;
        senders.push(sender);
        threads.push(thread);
    }
    Ok((senders, threads))
}

fn start_control(
    shared: &Arc<Shared>,
    tracker: Tracker,
    sentinels: &Dialer,
    runtime: &Runtime,
    listeners: Vec<Listener>,
    workers: &[mpsc::Sender<Accepted>],
    watch: Watch,
) -> Told {
    let _context = runtime.enter();
    task::spawn("certificates", async move {
        if let Err(problem) = watch.run().await {
            tracing::error!(%problem, "certificates are not looked at any more");
        }
    });
    let places = Places::new(shared.shard().places, &shared.config().upstream.nodes());
    let named = places.taken().iter().any(|(_, address)| address.is_named());
    let (found, membership) = match &shared.config().upstream {
        Upstream { sentinel: Some(settings), .. } => (sentinel::start(shared, sentinels, settings), None),
        Upstream { cluster: Some(settings), .. } => (cluster::start(shared, settings), None),
        upstream if upstream.are_nodes_found() || named => (discovery::start(shared), None),
        _ => {
            let (sender, found) = watch::channel(Membership::default());
            (found, Some(sender))
        }
    };
    let observations = engine::start(shared, tracker, places, found);
    let (examined, asked) = (Arc::clone(shared), sentinels.clone());
    task::supervise("doctor", move || doctor::watch(Arc::clone(&examined), asked.clone()));
    let watched = Arc::clone(shared);
    task::supervise("memory", move || memory::watch(Arc::clone(&watched)));
    task::supervise("heap", memory::give_back);
    for (number, listener) in listeners.into_iter().enumerate() {
        let (shared, workers) = (Arc::clone(shared), workers.to_vec());
        task::spawn("listener", async move {
            if let Err(problem) = listener.run(number, shared, workers).await {
                tracing::error!(%problem, "a listener ended");
            }
        });
    }
    Told { keeper: observations, membership }
}
