//! Asks every node how it is: `ROLE` each `poll-interval`, `INFO` each second, all with a deadline.
//!
//! The primary's `ROLE` replies are the anchors. They are asked for on demand as well (a fence or a read waits), at
//! most one per `fence-interval` and one at a time, shared by everyone who waits. Every connection begins with `INFO`:
//! an offset means nothing until its history is known.

use std::sync::Arc;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use smallvec::SmallVec;
use tokio::sync::{mpsc, watch};

use crate::control::users::{Ask, Users};
use crate::core::address::Address;
use crate::core::command::CommandTable;
use crate::core::command::in_force::Commands;
use crate::core::fence::AnchorSeq;
use crate::core::moment::Moment;
use crate::core::nodes::node::{Facts, NodeId, Role};
use crate::core::nodes::trouble::{Problem, ProblemKind};
use crate::core::nodes::view::{MOST_MEMBERS, Observation};
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::runtime::task;
use crate::net::socket::call::words;
use crate::net::socket::call::{ControlError, ControlErrorKind, ControlLink};
use crate::shard::shared::Shared;
use crate::shard::withheld::Wanted;
use crate::wire::commands;
use crate::wire::info::Info;
use crate::wire::reply::ErrorCode;
use crate::wire::role::RoleReport;

/// What the keeper receives: what was heard, and when.
pub type Heard = (Observation, Moment);

/// Pauses between attempts to connect: from the first, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// Between two looks at a replica that somebody waits for, at least.
const LOOK_GAP: Duration = Duration::from_millis(1);

/// Replicas that keep up have applied a write by then; who waits for others need not ask so often.
const PATIENT_AFTER: Duration = Duration::from_millis(20);

/// Between two looks from then on.
const PATIENT_GAP: Duration = Duration::from_millis(10);

/// The prober of one node.
pub struct Prober {
    shared: Arc<Shared>,
    node: NodeId,
    address: Address,
    keeper: mpsc::Sender<Heard>,
    min_replicas_to_write: Option<u64>,
    users: Users,
    /// Tells when somebody wants to know.
    looks: watch::Receiver<u64>,
    /// Tells when another configuration is in force.
    configured: watch::Receiver<u64>,
    /// When somebody last began to want to know.
    looked_for: Moment,
    /// `ROLE` is refused there, as by managed services.
    asks_info: bool,
}

impl Prober {
    /// A prober of `node` that reports to `keeper`.
    pub fn new(shared: Arc<Shared>, node: NodeId, address: Address, keeper: mpsc::Sender<Heard>) -> Self {
        let users = Users::new(&shared, node, &address);
        let looks = shared.shard().attention.looks();
        let configured = shared.configured.subscribe();
        Self {
            shared,
            node,
            address,
            keeper,
            min_replicas_to_write: None,
            users,
            looks,
            configured,
            looked_for: Moment::default(),
            asks_info: false,
        }
    }

    /// Runs until the keeper is gone.
    pub async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        while !self.keeper.is_closed() {
            let link = self.connect().await;
            let problem = match link {
                Ok(link) => {
                    let begun = clock::now();
                    let problem = self.watch(link).await;
                    // A node that answers nonsense at once is asked ever less often, one that went silent as soon as it
                    // speaks again.
                    let answers =
                        matches!(problem.kind(), ControlErrorKind::Refused | ControlErrorKind::Malformed);
                    if !answers || clock::now().since(begun) >= RETRY_LONGEST {
                        pause = RETRY_FIRST;
                    }
                    problem
                }
                Err(problem) => problem,
            };
            let now = clock::now();
            let lives = problem.kind() == ControlErrorKind::Timeout && self.is_primary() && self.lives(now);
            if lives {
                self.tell(Observation::Busy { node: self.node }, now).await;
            } else {
                let problem = problem.problem();
                tracing::debug!(node = %self.address, %problem, "no answer");
                self.tell(Observation::Troubled { node: self.node, problem }, now).await;
                self.tell(Observation::Lost { node: self.node }, now).await;
            }
            pause = tokio::select! {
                () = tokio::time::sleep(jitter::around(pause)) => (pause * 2).min(RETRY_LONGEST),
                // It may have another password now.
                _ = self.configured.changed() => RETRY_FIRST,
            };
        }
    }

    async fn connect(&self) -> Result<ControlLink, ControlError> {
        let config = self.shared.config();
        let (credentials, within) = (config.upstream.credentials(), config.upstream.connect_timeout);
        drop(config);
        ControlLink::connect(&self.shared.dialer, &self.address, credentials.as_ref(), within).await
    }

    /// Whether the primary is known to live although a poll was not answered: its clients are paused, so that nobody is
    /// answered until that is over, or it has answered clients meanwhile, and we were not heard in the crowd.
    fn lives(&self, now: Moment) -> bool {
        let lately = self.shared.config().upstream.probe_timeout / 2;
        let paused = self.shared.shard().reads_are_paused(now) && !mutant::is("paused-is-silent");
        let since = Moment::from_nanos(now.as_nanos().saturating_sub(lately.as_nanos() as u64));
        paused || self.shared.shard().has_spoken_since(self.node, since)
    }

    /// `at`: when the question was sent. An answer is about no later moment.
    async fn tell(&self, observation: Observation, at: Moment) {
        // A closed channel means that the process ends; `run` looks.
        let _ = self.keeper.send((observation, at)).await;
    }

    /// Polls over one connection until it fails.
    async fn watch(&mut self, mut link: ControlLink) -> ControlError {
        if let Err(problem) = self.introduce(&mut link).await {
            return problem;
        }
        let mut informed = clock::now();
        let mut command_table_tried = false;
        loop {
            if self.is_primary() && !command_table_tried {
                command_table_tried = match self.learn_commands(&mut link).await {
                    Ok(tried) => tried,
                    Err(problem) => return problem,
                };
            }
            self.pause().await;
            let due = clock::now().since(informed) >= self.shared.config().upstream.info_interval;
            let inform = due || self.is_unexplained();
            if inform {
                informed = clock::now();
            }
            if let Err(problem) = self.poll(&mut link, inform).await {
                return problem;
            }
        }
    }

    fn is_primary(&self) -> bool {
        self.shared.shard().view.load().primary == Some(self.node)
    }

    /// Whether its last `INFO` was before it changed its role: then the next one cannot wait.
    fn is_unexplained(&self) -> bool {
        self.shared
            .shard()
            .view
            .load()
            .node(self.node)
            .is_some_and(|node| node.role.is_some() && (node.facts.is_none() || node.owes_info))
    }

    /// Until the next poll is due, or somebody cannot wait for it.
    ///
    /// What it selects from is cancel safe: a sleep, a `watch` channel, and a `Notify`, which keeps the wake-up of a waiter that
    /// is dropped for the next one.
    async fn pause(&mut self) {
        let gap = self.shared.config().upstream.fence_interval;
        let due = tokio::time::sleep(jitter::slightly_less(self.shared.config().poll_interval()));
        if self.is_primary() {
            tokio::select! {
                () = due => return,
                _ = self.configured.changed() => return,
                _ = self.looks.changed() => {}
                () = self.shared.shard().anchor_wanted.notified() => {}
            }
            // At most one anchor per `fence-interval`: whoever else comes to want one meanwhile shares it.
            tokio::time::sleep(gap).await;
        } else if self.owes_an_answer() {
            // Until then it gets no reads.
            tokio::time::sleep(gap).await;
        } else {
            // Whoever begins to wait finds out soon; for those who have waited for long it is not worth as much.
            let gap =
                if clock::now().since(self.looked_for) < PATIENT_AFTER { LOOK_GAP } else { PATIENT_GAP };
            let looked = clock::now();
            tokio::select! {
                () = due => return,
                _ = self.configured.changed() => return,
                _ = self.looks.changed() => self.looked_for = clock::now(),
                () = tokio::time::sleep(gap), if self.shared.shard().attention.is_awaited() => return,
            }
            // However many want to know: at most so often.
            tokio::time::sleep(LOOK_GAP.saturating_sub(clock::now().since(looked))).await;
        }
    }

    /// Whether it has not said what it holds since it was heard to empty its data.
    fn owes_an_answer(&self) -> bool {
        let view = self.shared.shard().view.load();
        let emptied = view.node(self.node).and_then(|node| node.emptied_at.zip(Some(node.heard_at)));
        emptied.is_some_and(|(emptied, asked)| asked.is_none_or(|asked| asked <= emptied))
    }

    async fn introduce(&mut self, link: &mut ControlLink) -> Result<(), ControlError> {
        // It may be another process, or allow it by now.
        self.asks_info = false;
        let within = self.shared.config().upstream.probe_timeout;
        let config: [&[u8]; 3] = [b"CONFIG", b"GET", b"min-replicas-to-write"];
        // Refused on managed services: then it is unknown.
        self.min_replicas_to_write = match link.call(&config, within).await {
            Ok(frame) => {
                self.note(Wanted::Config, false);
                second_number(&frame)
            }
            Err(problem) if problem.is_fatal() => return Err(problem),
            // It says so once, and closes.
            Err(problem) if matches!(&problem, ControlError::Refused(text) if turns_away(text)) => {
                return Err(problem);
            }
            Err(problem) => {
                self.note(
                    Wanted::Config,
                    matches!(&problem, ControlError::Refused(text) if is_withheld(text)),
                );
                None
            }
        };
        self.poll(link, true).await
    }

    /// One round of questions, and what they tell.
    async fn poll(&mut self, link: &mut ControlLink, inform: bool) -> Result<(), ControlError> {
        let within = self.shared.config().upstream.probe_timeout;
        let role: &[&[u8]] = if self.asks_info { &[b"INFO", b"REPLICATION"] } else { &[b"ROLE"] };
        let all: [&[&[u8]]; 3] = [&[b"ACL", b"LIST"], &[b"INFO"], role];
        let ask = self.users.ask(inform, clock::now());
        let mut asked = [ask == Ask::WithPoll, inform, true].into_iter();
        let questions: SmallVec<[_; 3]> = all.into_iter().filter(|_| asked.next() == Some(true)).collect();
        // The number is taken before the question is sent: what is acknowledged after this line waits for the next one.
        let (seq, sent_at) = (self.shared.shard().anchors.take(), clock::now());
        let mut answers = match link.call_many(&questions, within).await {
            Ok(answers) => answers,
            Err(problem) => {
                self.users.were_not_heard();
                return Err(problem);
            }
        };
        if self.is_primary() && !inform {
            self.shared.shard().anchor_latency.record(clock::now().nanos_since(sent_at));
        }
        let listed = (ask == Ask::WithPoll).then(|| answers.remove(0));
        // While a script runs nobody changes them (`acl.c`: no command of `ACL` may run then), nor are they shown.
        let busy = answers.last().is_some_and(is_busy) && !mutant::is("busy-hides-rules");
        let rules = if busy { None } else { self.users.hear(ask, listed.as_ref(), inform).await };
        if let Some(rules) = rules {
            // Before it says how it is: whoever reads there then, reads by these rules.
            self.tell(Observation::Rules { node: self.node, rules }, sent_at).await;
        }
        let (info, role) = match answers.as_slice() {
            [info, role] => (Some(info), role),
            [role] => (None, role),
            _ => return Err(ControlError::Closed),
        };
        if let Some(BytesFrame::BulkString(text)) = info {
            let facts = Box::new(self.facts(&Info::parse(text)));
            self.tell(Observation::Info { node: self.node, facts }, sent_at).await;
        }
        self.hear_role(role, seq, sent_at).await
    }

    /// What the answer to `ROLE` tells, or to what is asked in its place.
    async fn hear_role(
        &mut self,
        role: &BytesFrame,
        seq: AnchorSeq,
        sent_at: Moment,
    ) -> Result<(), ControlError> {
        let node = self.node;
        if let BytesFrame::Error(text) = role {
            // A script runs; and the primary may forbid our own user this, too: what clients ask it, it answers all the same.
            let code = ErrorCode::of_text(text.as_bytes());
            if is_withheld(text) && !std::mem::replace(&mut self.asks_info, true) {
                self.note(Wanted::Role, true);
                return Ok(());
            }
            if code == ErrorCode::Busy || code == ErrorCode::NoPerm && self.is_primary() {
                let problem = Problem::of_error(text);
                self.tell(Observation::Troubled { node, problem }, sent_at).await;
                self.tell(Observation::Busy { node }, sent_at).await;
                return Ok(());
            }
            return Err(ControlError::Refused(words(text)));
        }
        task::provoke("prober", provoked_once);
        let report = match role {
            BytesFrame::BulkString(text) if self.asks_info => RoleReport::of_info(&Info::parse(text)),
            role => RoleReport::parse(role),
        };
        let (observation, wrong) = match report {
            Ok(RoleReport::Primary { offset, .. }) => {
                (Observation::Primary { node, seq, sent_at, offset }, None)
            }
            Ok(RoleReport::Replica { host, port, state, applied }) => {
                let (link, master) = (state.link(), (host, port));
                (Observation::Replica { node, link, master, applied }, None)
            }
            Ok(RoleReport::Sentinel { .. }) => (Observation::Lost { node }, Some(ProblemKind::Sentinel)),
            Err(_) => (Observation::Lost { node }, Some(ProblemKind::Malformed)),
        };
        if let Some(kind) = wrong {
            let problem = Problem::new(kind, "");
            self.tell(Observation::Troubled { node, problem }, sent_at).await;
        }
        self.tell(observation, sent_at).await;
        Ok(())
    }

    fn facts(&self, info: &Info) -> Facts {
        Facts {
            role: info.role,
            master: info.master_host.clone().zip(info.master_port),
            history: info.history(),
            loading: info.loading.unwrap_or(false),
            async_loading: info.async_loading.unwrap_or(false),
            sync_in_progress: info.sync_in_progress.unwrap_or(false),
            link_down: info.link_down,
            version: info.version.clone(),
            valkey_version: info.valkey_version.clone(),
            run_id: info.run_id.clone(),
            backlog_active: info.backlog_active.unwrap_or(false),
            min_replicas_to_write: self.min_replicas(info),
            zone: info.zone.clone(),
            replicas: info.replicas_online().take(MOST_MEMBERS).collect(),
        }
    }

    /// `min-replicas-to-write`: whether it is in force `INFO` tells each time, how many they are only `CONFIG GET`, which was
    /// asked when the connection was made. Not known is not none.
    fn min_replicas(&self, info: &Info) -> Option<u64> {
        let is_in_force = info.role == Some(Role::Primary) && info.good_replicas.is_some();
        let told = self.min_replicas_to_write.filter(|count| !is_in_force || *count > 0);
        info.min_replicas_to_write().or(told)
    }

    /// The node has refused something, or has let it be done.
    fn note(&self, wanted: Wanted, refused: bool) {
        if self.shared.shard().withheld.note(self.node, wanted, refused) && refused {
            tracing::warn!("{} refuses {}: {}", self.address, wanted.name(), wanted.without());
        }
    }

    /// Takes the primary's own command table, modules included. False: it has no time now.
    async fn learn_commands(&self, link: &mut ControlLink) -> Result<bool, ControlError> {
        let within = self.shared.config().upstream.probe_timeout;
        let answer = match link.call(&[b"COMMAND"], within).await {
            Ok(answer) => answer,
            Err(problem) if problem.is_fatal() => return Err(problem),
            Err(ControlError::Refused(text)) if ErrorCode::of_text(text.as_bytes()) == ErrorCode::Busy => {
                return Ok(false);
            }
            Err(problem) => {
                self.note(
                    Wanted::Command,
                    matches!(&problem, ControlError::Refused(text) if is_withheld(text)),
                );
                return Ok(true);
            }
        };
        self.note(Wanted::Command, false);
        match commands::decode(&answer) {
            Ok(entries) => {
                tracing::info!("took the primary's command table: {} commands", entries.len());
                let table = CommandTable::from_entries(entries);
                let commands = Commands::live(table, &self.shared.config().security.deny_commands);
                self.shared.commands.store(Arc::new(commands));
            }
            Err(problem) => {
                tracing::warn!(%problem, "the reply to COMMAND makes no sense: the built-in table stays");
            }
        }
        Ok(true)
    }
}

/// Whether a script runs that has taken its time (`-BUSY`).
fn is_busy(answer: &BytesFrame) -> bool {
    matches!(answer, BytesFrame::Error(text) if ErrorCode::of_text(text.as_bytes()) == ErrorCode::Busy)
}

/// Whether an error is what a server says to a connection that it does not take (`networking.c`, `acceptCommonHandler`,
/// `clientAcceptHandler`).
fn turns_away(error: &str) -> bool {
    error.starts_with("DENIED ") || error.starts_with("ERR max number of clients")
}

/// Whether an error says that our user may not ask this, or nobody may.
pub(super) fn is_withheld(error: &str) -> bool {
    ErrorCode::of_text(error.as_bytes()) == ErrorCode::NoPerm || error.starts_with("ERR unknown command")
}

/// Once, after a while.
fn provoked_once() -> bool {
    static LEFT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(20);
    LEFT.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1
}

/// The value in the reply to `CONFIG GET name`.
fn second_number(frame: &BytesFrame) -> Option<u64> {
    let BytesFrame::Array(items) = frame else { return None };
    let BytesFrame::BulkString(value) = items.get(1)? else { return None };
    std::str::from_utf8(value).ok()?.parse().ok()
}
