//! The reading side of an open lane: takes whatever one read returned, cuts it into replies, hands them on.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use bytes::BytesMut;

use crate::config::PresentAs;
use crate::core::moment::Moment;
use crate::core::repeat::{Belief, PendingKind};
use crate::core::session::Stamps;
use crate::mutant;
use crate::net::runtime::buffer::drop_front;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::net::socket::halves::ReadHalf;
use crate::proxy::downstream::replies::Gone;
use crate::proxy::upstream::lane::{Broken, Closed, Lane, OutOfStep, Proto, Withdrawal};
use crate::proxy::upstream::pending::{Pending, Rewrite};
use crate::proxy::worker::lanes::found::Found;
use crate::proxy::worker::lanes::rewrite;
use crate::proxy::worker::redirect::last_words;
use crate::proxy::worker::retry::RepeatedFor;
use crate::proxy::worker::{Reply, Worker};
use crate::shard::emptied;
use crate::shard::overall;
use crate::wire::reply::{ErrorCode, ReplyKind, ReplyScanner};
use crate::wire::say;

/// The reading side of an open lane.
pub(crate) struct ReplyReader {
    read: ReadHalf,
    buffer: BytesMut,
    scanner: ReplyScanner,
    /// How much of `buffer` the scanner has seen: the beginning of a reply.
    scanned: usize,
    /// How much of the present reply was passed on already.
    passed: usize,
    /// The present reply is known to be long, and way was made.
    long: bool,
    /// A client had much to take when it was last given something.
    heavy: bool,
    /// Of the client that the lane waits for.
    pace: Option<ClientPace>,
    /// The client that was waited for long enough: what comes for it piles up, until it has taken most of it or is
    /// disconnected.
    given_up: Option<u64>,
}

/// How a client that a lane waits for gets on.
struct ClientPace {
    client: u64,
    since: Moment,
    taken: u64,
    moved_at: Moment,
}

/// Stamps what was acknowledged, however the taking ends.
struct Fresh<'a>(&'a Worker);

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        self.0.fencing.stamp_fresh();
    }
}

enum LaneEvent {
    Read(usize),
    /// The client does not keep up.
    Slow,
    /// It still does not.
    Paused,
    Closed(Closed),
}

impl ReplyReader {
    pub(crate) fn new(read: ReadHalf) -> Self {
        Self {
            read,
            buffer: BytesMut::with_capacity(limits::LANE_READ),
            scanner: ReplyScanner::new(),
            scanned: 0,
            passed: 0,
            long: false,
            heavy: false,
            pace: None,
            given_up: None,
        }
    }

    pub(crate) async fn run(mut self, worker: &Rc<Worker>, lane: &Rc<Lane>) -> Closed {
        loop {
            match self.next(lane).await {
                LaneEvent::Closed(why) => return why,
                LaneEvent::Read(0) => return lane.hung_up(),
                LaneEvent::Read(_) => {
                    let (fresh, now) = (Fresh(worker), clock::now());
                    lane.hearing.heard(now);
                    worker.shared.shard().speaks(lane.key.node, now);
                    let taken = if lane.shares.get() {
                        self.take::<true>(worker, lane, now)
                    } else {
                        self.take::<false>(worker, lane, now)
                    };
                    drop(fresh);
                    if let Err(why) = taken {
                        return why;
                    }
                    if lane.demoted.get() && lane.owes_nothing() {
                        return Closed::Withdrawn(Withdrawal::Demoted);
                    }
                    if !self.heavy && self.passed == 0 {
                        self.pace = None;
                    }
                    if lane.is_on_detour() && lane.is_idle() {
                        worker.lanes.come_back(lane);
                    }
                }
                LaneEvent::Slow => {
                    worker.make_way(lane, false, clock::now());
                }
                LaneEvent::Paused => {
                    lane.hearing.heard(clock::now());
                    self.watch_pace(lane, clock::now());
                }
            }
        }
    }

    /// What happens next on the lane.
    ///
    /// Cancel safe: bytes that were read stay in the buffer.
    async fn next(&mut self, lane: &Lane) -> LaneEvent {
        self.buffer.reserve(if self.passed > 0 { limits::LANE_READ } else { limits::LANE_READ / 4 });
        let mut timer = None;
        poll_fn(|cx| {
            if let Some(why) = lane.poll(cx) {
                return Poll::Ready(LaneEvent::Closed(why));
            }
            let slow = self.is_slow(lane, cx.waker());
            if slow && !lane.exclusive && !lane.is_on_detour() {
                return Poll::Ready(LaneEvent::Slow);
            }
            if slow {
                let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits::PACE_EVERY)));
                return Future::poll(timer.as_mut(), cx).map(|()| LaneEvent::Paused);
            }
            self.read.poll_read(cx, &mut self.buffer).map(|result| match result {
                Ok(n) => LaneEvent::Read(n),
                Err(e) => LaneEvent::Closed(Closed::Broken(Broken::Failed(e.to_string()))),
            })
        })
        .await
    }

    /// Whether the next reply, or the rest of the present one, had better wait for its client.
    fn is_slow(&mut self, lane: &Lane, waker: &Waker) -> bool {
        if self.passed == 0 && !self.heavy {
            return false;
        }
        let Some((client, seq)) = lane.front() else { return false };
        if self.given_up == Some(client.id) {
            if !client.keeps_up() {
                return false;
            }
            self.given_up = None;
        }
        client.should_pause(seq, self.passed > 0, waker)
    }

    /// The lane has waited for a while. Others behind it do not wait long; a client alone may take its time, as long as
    /// it takes anything.
    fn watch_pace(&mut self, lane: &Lane, now: Moment) {
        let Some((client, _)) = lane.front() else { return };
        let taken = client.taken();
        let fresh = ClientPace { client: client.id, since: now, taken, moved_at: now };
        let pace = match &mut self.pace {
            Some(pace) if pace.client == client.id => pace,
            pace => pace.insert(fresh),
        };
        if pace.taken != taken {
            (pace.taken, pace.moved_at) = (taken, now);
        }
        let stalled = now.since(pace.moved_at);
        if lane.is_in_the_way() {
            if now.since(pace.since) >= limits::LANE_PAUSE_LONGEST {
                self.given_up = Some(client.id);
            }
        } else if client.wants_more() {
            if stalled >= limits::STALLED_PIPELINE {
                self.given_up = Some(client.id);
            }
        } else if stalled >= limits::STALLED_LONGEST {
            client.leave(Gone::TooSlow);
        }
    }

    /// Cuts what was read into replies and hands them on. Where nobody shares a request (`SHARES`) nothing looks for that.
    fn take<const SHARES: bool>(
        &mut self,
        worker: &Rc<Worker>,
        lane: &Rc<Lane>,
        now: Moment,
    ) -> Result<(), Closed> {
        let mut begin = 0;
        self.heavy = false;
        worker.notice_view(now);
        if lane.key.proto == Proto::Resp2 && !lane.exclusive && lane.watched.get() {
            worker.listen(lane.key.node, now);
        }
        while self.scanned < self.buffer.len() {
            // A counted reply (to a check of the idle lane that it was, to `EXEC`) may come before what is not counted.
            if lane.exclusive && lane.is_relaying() {
                begin += lane.hand_on(&self.buffer[begin..], now, |stamps| worker.fencing.stamp(stamps));
                self.scanned = begin;
                self.scanner = ReplyScanner::new();
                break;
            }
            let fresh = &self.buffer[self.scanned..];
            let found = self.scanner.scan(fresh).map_err(|_| Closed::Desynchronised(OutOfStep::NotResp))?;
            let Some(extent) = found else {
                self.scanned = self.buffer.len();
                break;
            };
            let end = self.scanned + extent.end;
            let reply = &self.buffer[begin..end];
            match extent.kind {
                ReplyKind::Push if !lane.exclusive && lane.key.proto == Proto::Resp2 => {
                    return Err(Closed::Desynchronised(OutOfStep::PushInResp2));
                }
                ReplyKind::Push => take_push(worker, lane, reply, now),
                kind => {
                    let passed = std::mem::take(&mut self.passed);
                    lane.weigh(passed + reply.len());
                    let cut = passed > 0;
                    loop {
                        self.heavy |= answer::<SHARES>(worker, lane, reply, kind, cut, now)?;
                        if !SHARES || !lane.takes_next_sharer() {
                            break;
                        }
                        worker.stats.shared_reads.add(1);
                    }
                    if cut && let Some(why) = lane.retired() {
                        return Err(Closed::Withdrawn(why));
                    }
                    self.long = false;
                }
            }
            (begin, self.scanned) = (end, end);
        }
        drop_front(&mut self.buffer, begin);
        self.scanned -= begin;
        self.take_part(worker, lane, now)?;
        if self.buffer.is_empty() && self.buffer.capacity() > limits::LANE_READ * 2 {
            self.buffer = BytesMut::with_capacity(limits::LANE_READ);
        }
        lane.ask_on();
        lane.shrink();
        Ok(())
    }

    /// Passes on the beginning of a long reply, so that it is never held as a whole. A short error is held: it may say
    /// that another node should be asked.
    fn take_part(&mut self, worker: &Rc<Worker>, lane: &Rc<Lane>, now: Moment) -> Result<(), Closed> {
        let (held, first) = (self.buffer.len(), self.scanner.head().first());
        if first == Some(&b'>') && held > longest_push(worker, lane) {
            return Err(Closed::Desynchronised(OutOfStep::EndlessPush));
        }
        if held <= limits::CUT_THROUGH
            || first == Some(&b'>')
            || (first == Some(&b'-') && held <= limits::LONG_REPLY)
        {
            return Ok(());
        }
        if self.passed == 0 && lane.front_lacks_proof() {
            // The read will be repeated: nobody needs this reply.
            self.buffer.clear();
            self.scanned = 0;
            return Ok(());
        }
        if self.passed == 0 && lane.in_cluster.get() && lane.front_is_unconfirmed(&self.buffer) {
            // Nothing of it speaks for its key yet.
            if held > limits::LONG_REPLY {
                lane.void_front();
                self.buffer.clear();
                self.scanned = 0;
            }
            return Ok(());
        }
        if !lane.exclusive && !self.long {
            let announced = announced(self.scanner.head());
            self.long = announced.unwrap_or(self.passed + held) > limits::LONG_REPLY;
            if self.long {
                worker.make_way(lane, self.passed == 0, now);
            } else if announced.is_none() && self.passed == 0 && lane.is_in_the_way() {
                // Should it become long, it can still be asked for again.
                return Ok(());
            }
        }
        let rewrite = lane.front_rewrite();
        if self.passed == 0 && !mutant::is("stamped-at-the-end") {
            // Who sees the beginning knows that it was executed. There is one stamp more once the reply is through.
            worker.fencing.stamp(&lane.front_written());
        }
        if self.passed == 0 && lane.shares.get() {
            worker.share_no_longer(lane, now);
        }
        let (client, seq) = lane.cut_front().ok_or(Closed::Desynchronised(OutOfStep::NotAsked))?;
        self.heavy |= match rewrite {
            Rewrite::Cursor { all } if self.passed == 0 => {
                rewrite::deliver_cursor(lane, (&client, seq), worker.scan_goes_on(all), &self.buffer, false)
            }
            _ => client.deliver(seq, &self.buffer, false),
        };
        self.passed += held;
        if client.gone().is_some() && self.passed > limits::READ_FOR_NOBODY && lane.is_for_nobody() {
            return Err(Closed::Idle);
        }
        self.buffer.clear();
        self.scanned = 0;
        Ok(())
    }
}

/// A push is held as a whole. Its client, if it has one, would be disconnected for more than may pile up for it.
fn longest_push(worker: &Worker, lane: &Lane) -> usize {
    let limit = worker.shared.config().proxy.client_output_buffer_limit;
    if lane.exclusive { usize::try_from(limit).unwrap_or(usize::MAX) } else { limits::PUSH }
}

/// The length of a bulk or verbatim string, by the beginning of the reply.
fn announced(head: &[u8]) -> Option<usize> {
    let digits = head.strip_prefix(b"$").or_else(|| head.strip_prefix(b"="))?;
    let end = memchr::memchr(b'\r', digits)?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// One whole reply, or its last part, to the oldest command. True when its client has much to take.
fn answer<const SHARES: bool>(
    worker: &Rc<Worker>,
    lane: &Rc<Lane>,
    reply: &[u8],
    kind: ReplyKind,
    cut: bool,
    now: Moment,
) -> Result<bool, Closed> {
    task::provoke("lane", || reply == b"$6\r\npanic!\r\n");
    let mut found = Found::default();
    let again = |pending: &Pending, request: &[u8], proof| {
        if pending.at_primary && pending.kind != PendingKind::Write && !cut {
            found.question = fingerprint(worker, lane, pending, request);
        }
        if cut {
            // Its beginning was passed on, all this was settled before that: nothing else may follow it.
            worker.note_executed(lane, pending, request);
            return false;
        }
        found.is_to_be_asked_again(worker, lane, (pending, request, proof), (reply, kind))
    };
    if SHARES {
        lane.remember_shared();
    }
    let Some((mut pending, request)) = lane.pop(again) else {
        return Err(Closed::Desynchronised(OutOfStep::NotAsked));
    };
    match pending.kind {
        PendingKind::Proof => {
            worker.take_proof(lane, &pending, reply, now);
            return Ok(false);
        }
        PendingKind::Moved | PendingKind::Check => return Ok(false),
        PendingKind::Read | PendingKind::Final | PendingKind::Last | PendingKind::Write => {}
    }
    if pending.need.take().is_some() {
        worker.judge_attempt(lane.key.node, !found.lacking, now);
    }
    if let Some(request) = request {
        let request = if SHARES && pending.shares { lane.shared_request() } else { request };
        match ask_again(worker, lane, (pending, request), reply, &found, now) {
            Ok(()) => return Ok(false),
            Err(back) => pending = back,
        }
    }
    if kind == ReplyKind::Error && lane.exclusive {
        lane.tainted.set(!mutant::is("errors-forgotten"));
        if lane.in_cluster.get() && !cut && ErrorCode::of(reply).is_some_and(ErrorCode::is_of_cluster) {
            worker.acknowledged(&pending, lane, now);
            return Ok(pending.client.deliver(pending.seq, last_words(reply), true));
        }
    }
    if found.belief == Belief::Ends {
        worker.shared.shard().attention.look_now();
        pending.client.end();
        return Ok(pending.client.deliver(pending.seq, say::LOST, true));
    }
    worker.acknowledged(&pending, lane, now);
    if pending.at_primary && pending.shows() {
        let question = if SHARES && pending.shares {
            fingerprint(worker, lane, &pending, &lane.shared_request())
        } else {
            found.question
        };
        worker.remember(&pending, Reply { bytes: reply, question });
    } else if pending.sees_all || pending.stamps != Stamps::None {
        pending.session().borrow_mut().seen.between(&pending.stamps, pending.sees_all);
    }
    if pending.rewrite == Rewrite::None {
        return Ok(pending.client.deliver(pending.seq, reply, true));
    }
    Ok(deliver_rewritten(worker, lane, &pending, reply, (kind, cut), now))
}

/// Asks somebody else. Gives the command back when the reply is the best that there is.
#[cold]
fn ask_again(
    worker: &Rc<Worker>,
    lane: &Rc<Lane>,
    (pending, request): (Pending, BytesMut),
    reply: &[u8],
    found: &Found,
    now: Moment,
) -> Result<(), Pending> {
    if found.is_elsewhere {
        worker.send_on(lane, pending, request, reply, now);
        return Ok(());
    }
    if found.belief == Belief::Successor {
        let refusal = ErrorCode::of(reply).is_some() && say::refuses_writes(reply);
        worker.ask_successor(lane, pending, request, refusal.then_some(reply));
        return Ok(());
    }
    let why = if found.absent { RepeatedFor::Absence } else { RepeatedFor::Inability };
    let pending = match worker.repeat(pending, &request, lane, why) {
        Ok(()) => return Ok(()),
        Err(pending) => pending,
    };
    // The primary is gone, and the replica has lost it as well: the next one may be near.
    let lost = ErrorCode::of(reply) == Some(ErrorCode::MasterDown) && !pending.at_primary;
    if lost || found.doubtful {
        worker.ask_successor(lane, pending, request, None);
        return Ok(());
    }
    Err(pending)
}

/// Gives the client a reply that is changed, or taken note of, on its way; or the last part of it. True when it has much to
/// take.
#[cold]
fn deliver_rewritten(
    worker: &Rc<Worker>,
    lane: &Lane,
    pending: &Pending,
    reply: &[u8],
    (kind, cut): (ReplyKind, bool),
    now: Moment,
) -> bool {
    match pending.rewrite {
        Rewrite::Info if !cut => {
            let section = overall::info_section(&worker.shared, now);
            let reply = say::append(reply, &section);
            let alone = lane.in_cluster.get() && worker.shared.presented_as() == PresentAs::Standalone;
            let reply = if alone { say::standalone(&reply) } else { reply };
            pending.client.deliver(pending.seq, &reply, true)
        }
        Rewrite::Standalone if !cut => pending.client.deliver(pending.seq, &say::standalone(reply), true),
        Rewrite::Redirect if !cut => {
            let reply = rewrite::in_own_words(lane, reply);
            pending.client.deliver(pending.seq, &reply, true)
        }
        Rewrite::Cursor { all } if !cut => rewrite::deliver_cursor(
            lane,
            (&pending.client, pending.seq),
            worker.scan_goes_on(all),
            reply,
            true,
        ),
        Rewrite::Pause | Rewrite::Unpause | Rewrite::ScriptFlush if kind != ReplyKind::Error => {
            take_note(worker, pending, now);
            pending.client.deliver(pending.seq, reply, true)
        }
        _ => pending.client.deliver(pending.seq, reply, true),
    }
}

/// What stands for a question and the database in which it was asked, if a session is to remember what it was answered.
#[cold]
fn fingerprint(worker: &Worker, lane: &Lane, pending: &Pending, request: &[u8]) -> Option<u64> {
    (pending.stamps != Stamps::None)
        .then(|| worker.shared.shard().fences.digest(request) ^ u64::from(lane.key.db))
}

/// What a node says unasked: to the client of an exclusive lane, or to us, that it has emptied its data.
#[cold]
fn take_push(worker: &Worker, lane: &Lane, push: &[u8], now: Moment) {
    if let Some(client) = lane.listener() {
        client.push_raw(push);
    } else if !lane.exclusive && emptied::tells(push) && !worker.is_primary(lane.key.node) {
        // What it answers from here on it has computed from what it holds now.
        worker.doubt(lane.key.node, now);
    }
}

/// What a command did at the primary that concerns what replicas are asked for.
#[cold]
fn take_note(worker: &Worker, pending: &Pending, now: Moment) {
    let shared = &worker.shared;
    match pending.rewrite {
        Rewrite::Pause => shared.shard().pause_reads(now.after(pending.client.status.pausing.get())),
        Rewrite::Unpause => shared.shard().resume_reads(),
        Rewrite::ScriptFlush => shared.shard().scripts_flushed.store(true, Ordering::Relaxed),
        Rewrite::None | Rewrite::Info | Rewrite::Standalone | Rewrite::Redirect | Rewrite::Cursor { .. } => {}
    }
}
