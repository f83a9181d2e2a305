//! A lane's own task: connect, authenticate, then read until it ends.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use smallvec::{SmallVec, smallvec};

use crate::core::address::Login;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::net::socket::halves::{ReadHalf, WriteHalf};
use crate::proxy::upstream::lane::{Closed, Lane, OutOfStep, Phase, Process, Proto, Unreachable, Withdrawal};
use crate::proxy::worker::Worker;
use crate::proxy::worker::lanes::settle::ReplyReader;
use crate::shard::emptied;
use crate::shard::identity::Credentials;
use crate::wire::info::Info;
use crate::wire::reply::{ErrorCode, ReplyKind, ReplyScanner};
use crate::wire::say;

/// Runs `lane` until it ends, then hands what is left of it back to the worker.
pub(crate) async fn run(worker: Rc<Worker>, lane: Rc<Lane>) {
    let mut owner = Owner { worker: &worker, lane: &lane, ended: false };
    let why = match open(&worker, &lane).await {
        Ok((read, write)) => {
            lane.open(write);
            ReplyReader::new(read).run(&worker, &lane).await
        }
        Err(why) => why,
    };
    owner.ended = true;
    end(&worker, &lane, &why);
}

fn end(worker: &Rc<Worker>, lane: &Rc<Lane>, why: &Closed) {
    lane.close(why.clone());
    tracing::debug!(node = %lane.key.node, ?why, "lane closed");
    worker.forget_lane(lane);
    worker.recover(lane, why);
}

/// Ends the lane of a task that has panicked.
struct Owner<'a> {
    worker: &'a Rc<Worker>,
    lane: &'a Rc<Lane>,
    ended: bool,
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (worker, lane) = (Rc::clone(self.worker), Rc::clone(self.lane));
        // Not here: a second panic while the first goes on would end the process.
        task::spawn_local("lost lane", async move {
            end(&worker, &lane, &Closed::Desynchronised(OutOfStep::Panic));
        });
    }
}

/// Connects until it works or nobody should wait any longer. Nothing was sent until then, so nothing is lost.
async fn open(worker: &Worker, lane: &Rc<Lane>) -> Result<(ReadHalf, WriteHalf), Closed> {
    let opened_at = clock::now();
    let known = run_id(&worker.shared.shard().view.load(), lane.key.node);
    let mut elsewhere = 0;
    loop {
        if let Phase::Closed(why) = lane.phase() {
            return Err(why);
        }
        let problem = match attempt_unless_closed(worker, lane).await {
            Ok(Made { halves, process }) => {
                lane.connected.set(Some(clock::now()));
                if leads_elsewhere(worker, lane, known.as_deref(), process.as_deref()) {
                    elsewhere += 1;
                    if elsewhere < limits::PROCESS_TRIES {
                        continue;
                    }
                    return Err(Closed::Unreachable(Unreachable::OtherProcess));
                }
                confirm(worker, lane, known.as_deref()).await?;
                lane.hearing.heard(clock::now());
                return Ok(halves);
            }
            Err(Closed::Unreachable(problem)) => problem,
            Err(other) => return Err(other),
        };
        let patience = if worker.is_primary(lane.key.node) {
            worker.shared.config().upstream.write_hold
        } else {
            Duration::ZERO
        };
        // Those who have come since will be given to another lane.
        let since = lane.oldest().unwrap_or(opened_at);
        if clock::now().since(since) >= patience {
            return Err(Closed::Unreachable(problem));
        }
        tokio::time::sleep(limits::RECONNECT_PAUSE).await;
    }
}

/// One attempt, which ends when the lane is closed: nobody waits for a node that is out of service.
async fn attempt_unless_closed(worker: &Worker, lane: &Lane) -> Result<Made, Closed> {
    let within = worker.shared.config().upstream.connect_timeout;
    let mut attempt = std::pin::pin!(tokio::time::timeout(within, attempt(worker, lane)));
    let hasty = mutant::is("held-writes-refused");
    poll_fn(|cx| match lane.poll(cx).filter(|_| !hasty) {
        Some(why) => Poll::Ready(Err(why)),
        None => attempt.as_mut().poll(cx).map(|made| match made {
            Ok(made) => made,
            Err(_) => Err(Closed::Unreachable(Unreachable::TimedOut)),
        }),
    })
    .await
}

/// The process that a node is, as far as is known.
fn run_id(view: &View, node: NodeId) -> Option<String> {
    view.node(node)?.facts.as_ref()?.run_id.clone()
}

/// Whether the connection has come to another process than the one that is known by the address of this replica. A name or
/// an address may stand for many (a reader endpoint, a balancer), of which the polls have reached one: what is known of
/// that says nothing of the others.
fn leads_elsewhere(worker: &Worker, lane: &Lane, known: Option<&str>, told: Option<&str>) -> bool {
    let differs = known.zip(told).is_some_and(|(known, told)| known != told);
    let awake = mutant::is("any-process") || mutant::is("process-mistaken");
    differs && !worker.is_primary(lane.key.node) && !awake
}

/// Waits until the node has been asked how it is after the lane had been connected, and is still the process that it
/// was when the lane was wanted. What is known of a replica is known of its process: another one, started a moment
/// ago on the same port, may hold any data, and would be read as if it were the one before.
async fn confirm(worker: &Worker, lane: &Lane, known: Option<&str>) -> Result<(), Closed> {
    let (shared, node, connected) = (&worker.shared, lane.key.node, clock::now());
    let mut views = shared.shard().views.subscribe();
    let _waiting = shared.shard().attention.wait();
    while !worker.is_primary(node) && !mutant::is("process-mistaken") {
        let view = shared.shard().view.load_full();
        let entry = view.node(node).ok_or(Closed::Withdrawn(Withdrawal::Removed))?;
        if entry.silent_since.is_some() || run_id(&view, node).as_deref() != known {
            return Err(Closed::Unreachable(Unreachable::OtherProcess));
        }
        if entry.heard_at.is_some_and(|asked| asked > connected) {
            lane.process.set(Process::of(known));
            return Ok(());
        }
        let patience = shared.config().upstream.probe_timeout.checked_sub(clock::now().since(connected));
        let Some(patience) = patience.filter(|patience| !patience.is_zero()) else {
            return Err(Closed::Unreachable(Unreachable::Silent));
        };
        let _ = tokio::time::timeout(patience, views.changed()).await;
    }
    Ok(())
}

/// A connection whose handshake is done.
struct Made {
    halves: (ReadHalf, WriteHalf),
    /// The run ID of the process that it leads to, if that was asked for and told.
    process: Option<String>,
}

async fn attempt(worker: &Worker, lane: &Lane) -> Result<Made, Closed> {
    let address =
        worker.shared.shard().address(lane.key.node).ok_or(Closed::Withdrawn(Withdrawal::Removed))?;
    let dialer = &worker.shared.dialer;
    let failed = |e: std::io::Error| Closed::Unreachable(Unreachable::Failed(e.to_string()));
    let stream = dialer.connect(&address).await.map_err(failed)?;
    let (mut read, write) = stream.split();
    let to_replica = !worker.is_primary(lane.key.node);
    lane.watched.set(to_replica && worker.shared.watching);
    lane.readonly.set(to_replica && lane.in_cluster.get());
    let own = worker.shared.config().upstream.credentials();
    let process = shake_hands(&mut read, &write, handshake(lane, to_replica, own.as_ref()), lane).await?;
    Ok(Made { halves: (read, write), process })
}

/// A command of the handshake, by what an error in reply to it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Nothing: without our own user the node does not say which process it is.
    Own,
    /// The same.
    Process,
    /// That the lane cannot be had: its user is not known, or has another password.
    Login,
    /// That the lane cannot be had.
    Needed,
    /// Nothing, unless it is that a password is needed: a user that may not `PING`, or a server that is loading, is no
    /// reason to give up.
    Ping,
    /// Nothing: `SELECT` before the user is known, as its client may have done.
    SelectBefore,
    /// That the user may not `SELECT`. It stays where it is, if that is the right database already.
    Select,
    /// That the user may not ask for `CLIENT ID`.
    Id,
    /// That the node will not tell on this connection that it has emptied its data.
    Track,
}

/// Commands that are said together, and what each is for.
#[derive(Default)]
struct Stage {
    bytes: BytesMut,
    parts: SmallVec<[Part; 8]>,
}

/// The commands that make a fresh connection what `lane` promises.
///
/// `AUTH` comes first, or once all before it is answered: from Redis 7.2 on its error is lost if the client has yet to be given
/// another reply (redis issue 15640), and all that come behind it would be taken for those of others.
fn handshake(lane: &Lane, to_replica: bool, own: Option<&Login>) -> SmallVec<[Stage; 2]> {
    let mut stages: SmallVec<[Stage; 2]> = smallvec![Stage::default()];
    let db = lane.key.db.to_string();
    let mut say = |part, args: &[&[u8]]| {
        let is_first = stages.iter().all(|stage| stage.parts.is_empty());
        if part == Part::Login && !is_first && !mutant::is("login-with-others") {
            stages.push(Stage::default());
        }
        if let Some(stage) = stages.last_mut() {
            say::command(&mut stage.bytes, args);
            stage.parts.push(part);
        }
    };
    if to_replica {
        ask_who_it_is(own, &mut say);
    }
    match &lane.identity {
        Some(identity) => {
            if lane.key.db != 0 {
                say(Part::SelectBefore, &[b"SELECT", db.as_bytes()]);
            }
            let Credentials { user, password } = &identity.credentials;
            match user {
                Some(user) => say(Part::Login, &[b"AUTH", user, password.expose()]),
                None => say(Part::Login, &[b"AUTH", password.expose()]),
            }
        }
        // Tells whether the default user may do anything at all.
        None => say(Part::Ping, &[b"PING"]),
    }
    if lane.key.proto == Proto::Resp3 {
        say(Part::Needed, &[b"HELLO", b"3"]);
    }
    if lane.key.db != 0 {
        say(Part::Select, &[b"SELECT", db.as_bytes()]);
    }
    if to_replica && lane.in_cluster.get() {
        // Else it sends all who read to the primary (`cluster.c`, `getNodeByQuery`).
        say(Part::Needed, &[b"READONLY"]);
    }
    if lane.exclusive {
        say(Part::Id, &[b"CLIENT", b"ID"]);
    } else if lane.watched.get() && lane.key.proto == Proto::Resp3 {
        say(Part::Track, &emptied::TRACK);
    }
    stages
}

/// Asks for the run ID as our own user, who may ask, and is nobody again afterwards: `RESET` is allowed to everybody (on
/// Redis 6.2 to whom it is granted), and if it fails the connection is given up.
fn ask_who_it_is(own: Option<&Login>, mut say: impl FnMut(Part, &[&[u8]])) {
    if let Some(Login { username, password }) = own {
        match username {
            Some(user) => say(Part::Own, &[b"AUTH", user.as_bytes(), password.as_bytes()]),
            None => say(Part::Own, &[b"AUTH", password.as_bytes()]),
        }
    }
    say(Part::Process, &[b"INFO", b"server"]);
    if own.is_some() {
        say(Part::Needed, &[b"RESET"]);
    }
}

/// Sends the handshake and reads its replies; the first error that matters ends it. `lane` takes what else they tell, but for
/// the run ID, which is returned.
async fn shake_hands(
    read: &mut ReadHalf,
    write: &WriteHalf,
    stages: SmallVec<[Stage; 2]>,
    lane: &Lane,
) -> Result<Option<String>, Closed> {
    let (mut scanner, mut buffer, mut scanned) = (ReplyScanner::new(), BytesMut::with_capacity(1024), 0);
    let (mut selected, mut process) = (false, None);
    for stage in stages {
        send(write, &stage.bytes).await?;
        let mut parts = stage.parts.iter();
        while let Some(part) = parts.as_slice().first().copied() {
            let Some(extent) = scanner
                .scan(&buffer[scanned..])
                .map_err(|_| Closed::Desynchronised(OutOfStep::HandshakeNotResp))?
            else {
                scanned = buffer.len();
                read_more(read, &mut buffer).await?;
                continue;
            };
            let reply = buffer.split_to(scanned + extent.end);
            scanned = 0;
            let failed = match extent.kind {
                ReplyKind::Push => continue,
                ReplyKind::Value => false,
                ReplyKind::Error => true,
            };
            let _ = parts.next();
            let (error, code) = (&reply[..reply.len() - 2], ErrorCode::of(&reply));
            match part {
                Part::SelectBefore if !failed => selected = true,
                Part::SelectBefore if matches!(code, Some(ErrorCode::NoAuth | ErrorCode::NoPerm)) => {}
                Part::Process if !failed => process = Info::parse(&reply).run_id,
                Part::Ping if code != Some(ErrorCode::NoAuth) => {}
                Part::Id => lane.identify(number(&reply)),
                Part::Select if failed && selected => {
                    let _ = lane.no_select.set(error.to_vec());
                }
                Part::Ping | Part::Login | Part::Needed | Part::Select | Part::SelectBefore if failed => {
                    return Err(Closed::Refused(error.to_vec()));
                }
                _ => {}
            }
        }
    }
    if buffer.is_empty() { Ok(process) } else { Err(Closed::Desynchronised(OutOfStep::HandshakeNotAsked)) }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
fn broken(error: std::io::Error) -> Closed {
    Closed::Unreachable(Unreachable::Failed(error.to_string()))
}

async fn send(write: &WriteHalf, bytes: &[u8]) -> Result<(), Closed> {
    let mut sent = 0;
    while sent < bytes.len() {
        poll_fn(|cx| write.poll_writable(cx)).await.map_err(broken)?;
        match write.try_write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(broken(e)),
        }
    }
    Ok(())
}

/// Reads more of a reply of which not all is there.
async fn read_more(read: &mut ReadHalf, buffer: &mut BytesMut) -> Result<(), Closed> {
    if buffer.len() > limits::HANDSHAKE {
        return Err(Closed::Desynchronised(OutOfStep::HandshakeTooLong));
    }
    buffer.reserve(1024);
    match poll_fn(|cx| read.poll_read(cx, buffer)).await.map_err(broken)? {
        0 => Err(Closed::Unreachable(Unreachable::HungUp)),
        _ => Ok(()),
    }
}

/// The number in an integer reply.
fn number(reply: &[u8]) -> Option<u64> {
    std::str::from_utf8(reply.strip_prefix(b":")?).ok()?.trim_end().parse().ok()
}
