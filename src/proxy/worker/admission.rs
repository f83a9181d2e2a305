//! Whether somebody who gave no password may come in.
//!
//! Redis decides that when a connection is made: whoever came before `requirepass` was set stays in, whoever comes
//! after it has to log in. On a lane that was opened before, such a client would be let in. So every client that acts as
//! nobody in particular needs an answer of the primary that was asked for *after* it had connected; one question
//! serves all that wait, one is in flight per worker, and nothing is asked while nobody comes. The bound is therefore
//! nil: no client is admitted on an answer older than itself.
//!
//! While the primary is silent, what it said last counts: if it let newcomers in, or has said nothing yet, a replica that can
//! be read decides who may read, and nothing else. Such a guest asks again once the primary answers.
//!
//! In front of a cluster the primary of the first shard is asked; while that cannot be, one of another shard stands in for it: who
//! has no keys of the first notices nothing of its end. All primaries of a cluster are taken to have the same users.
//!
//! The question is `RESET`, which makes the server decide anew for that connection, and `PING`, which tells the
//! outcome. A server that does not know `RESET` (before 6.2) gets a new connection each time.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis_protocol::resp2::types::BytesFrame;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::slots::ShardIndex;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::net::socket::call::words;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::proxy::downstream::status::Status;
use crate::shard::identity::IdentityId;
use crate::shard::shared::Shared;
use crate::wire::reply::ErrorCode;

/// Who is let in without a password, as far as one worker knows.
pub struct Admission {
    shared: Arc<Shared>,
    /// Told when a question is answered, or may be asked again.
    answered: Notify,
    /// The primary that can be asked, as far as is known.
    askable: Cell<Option<NodeId>>,
    /// What clients hold that were admitted; another one when all have to be admitted anew.
    epoch: Cell<u32>,
    /// The primary of the present epoch.
    given_by: Cell<Option<NodeId>>,
    answer: Cell<Option<Inquired>>,
    asking: Cell<bool>,
    failed_at: Cell<Option<Moment>>,
    /// The connection that questions go over.
    link: RefCell<Option<(NodeId, ControlLink)>>,
}

#[derive(Clone, Copy, Debug)]
struct Inquired {
    asked_at: Moment,
    by: NodeId,
    /// It was that of another shard.
    stands_in: bool,
    open: bool,
}

/// What a client is told that gave no password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may come in, in this epoch.
    Admitted(u32),
    /// A replica lets it in, as long as the primary cannot be asked.
    Guest,
    /// The default user needs a password.
    Refused,
    /// Somebody is being asked; verdict again.
    Asking,
    /// Nobody answers who could be asked.
    Nobody,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("epoch", &self.epoch)
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

impl Admission {
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let (answer, asking, failed_at) = (Cell::new(None), Cell::new(false), Cell::new(None));
        let (epoch, given_by, link) = (Cell::new(1), Cell::new(None), RefCell::default());
        let (answered, askable) = (Notify::new(), Cell::default());
        Rc::new(Self { shared, answered, askable, epoch, given_by, answer, asking, failed_at, link })
    }

    /// The present epoch: who was admitted in another one has to be admitted anew.
    pub fn epoch(&self) -> u32 {
        self.epoch.get()
    }

    /// Whether a client is known to may ask which nodes there are. In doubt it may not: there is no primary to be asked. Whoever has
    /// given no password may, if none was needed when the primary last said so.
    pub(crate) fn may_see_nodes(&self, client: &Status, view: &View) -> bool {
        let identity = client.identity.get();
        let admitted = client.auth_epoch.get() == self.epoch()
            || !view.primary_answers() && view.rights.let_newcomers_in() == Some(true);
        if identity == IdentityId::ANONYMOUS && !admitted {
            return false;
        }
        let user = if identity == IdentityId::ANONYMOUS {
            "default".to_owned()
        } else {
            let known = self.shared.identities.hold(identity).filter(|identity| !identity.is_revoked());
            let Some(identity) = known else { return false };
            identity.user()
        };
        view.rights.plainly_allow(user.as_bytes(), b"info")
    }

    /// The view has changed. Another primary may have other passwords.
    pub fn look(&self, view: &View, now: Moment) {
        let primary = askable(view, now);
        // Nothing is connected any longer to whoever has left.
        drop(self.link.borrow_mut().take_if(|(node, _)| view.node(*node).is_none()));
        if let Some(primary) = primary {
            self.is_given_by(primary);
        }
        if self.askable.replace(primary) != primary {
            self.answered.notify_waiters();
        }
    }

    /// Ends when a verdict may be another one. The primary may be about to be asked by somebody else.
    ///
    /// Cancel safe: all who wait are woken at once, so that no wake-up is lost with one of them.
    pub(crate) fn changes(&self) -> Notified<'_> {
        self.answered.notified()
    }

    /// Who is admitted from now on is admitted by this primary.
    fn is_given_by(&self, primary: NodeId) {
        if self.given_by.replace(Some(primary)).is_some_and(|before| before != primary) {
            self.epoch.set(self.epoch.get().wrapping_add(1).max(1));
            self.answer.set(None);
        }
    }

    /// Whether a client that has been anonymous since then may come in.
    pub(crate) fn verdict(self: &Rc<Self>, since: Moment, now: Moment) -> Verdict {
        let view = self.shared.shard().view.load();
        if let Some(answer) = self.answer.get()
            && (answer.asked_at >= since || mutant::is("admission-left-open"))
            && askable(&view, now).is_none_or(|primary| primary == answer.by && !answer.stands_in)
        {
            if answer.open {
                let guest = view.primary != Some(answer.by) && !answer.stands_in;
                return if guest { Verdict::Guest } else { Verdict::Admitted(self.epoch()) };
            }
            if now.since(answer.asked_at) < limits::REFUSAL_KEPT {
                return Verdict::Refused;
            }
        }
        if !self.asking.get() {
            if self.failed_at.get().is_some_and(|at| at >= since && now.since(at) < limits::ASK_AGAIN) {
                return Verdict::Nobody;
            }
            self.asking.set(true);
            task::spawn_local("admission", Rc::clone(self).find_out());
        }
        if self.failed_at.get().is_some_and(|at| at >= since) { Verdict::Nobody } else { Verdict::Asking }
    }

    async fn find_out(self: Rc<Self>) {
        let (view, asked_at) = (self.shared.shard().view.load_full(), clock::now());
        let primary = askable(&view, asked_at);
        let others =
            view.members().filter(|node| node.silent_since.is_none() && Some(node.id) != view.primary);
        // Without a primary, who guards the data that can still be read decides.
        let others = others.map(|node| node.id).filter(|_| primary.is_none());
        let last_word = view.rights.let_newcomers_in();
        let closed = !last_word.unwrap_or_else(|| !self.shared.shard().auth_required.load(Ordering::Relaxed))
            && !mutant::is("dead-primary-forgotten");
        let mut answer = None;
        if primary.is_none()
            && let Some((shard, by)) = self.stand_in(asked_at)
            && let Ok(open) = self.is_open_elsewhere(&shard, by).await
        {
            answer = Some(Inquired { asked_at, by, stands_in: true, open });
        } else if primary.is_none() && closed {
            // What the primary said last counts until it, or another one, says otherwise.
            let by = view.primary.or(self.given_by.get()).unwrap_or(NodeId(0));
            answer = Some(Inquired { asked_at, by, stands_in: false, open: false });
        }
        let asks = answer.is_none() && (!closed || primary.is_some());
        for by in primary.into_iter().chain(others).filter(|_| asks) {
            // Cancel safe: a question that is given up takes its connection along.
            let open = tokio::select! {
                open = self.is_open(by) => open.ok(),
                () = self.cannot_ask(by), if primary == Some(by) => None,
            };
            if let Some(open) = open {
                answer = Some(Inquired { asked_at, by, stands_in: false, open });
                break;
            }
        }
        self.failed_at.set(answer.is_none().then_some(asked_at));
        if let Some(answer) = answer {
            if primary == Some(answer.by) && !answer.stands_in {
                self.is_given_by(answer.by);
                self.shared.shard().auth_required.store(!answer.open, Ordering::Relaxed);
            }
            self.answer.set(Some(answer));
        }
        self.asking.set(false);
        self.answered.notify_waiters();
        if answer.is_none() {
            tokio::time::sleep(limits::ASK_AGAIN).await;
            self.answered.notify_waiters();
        }
    }

    /// Returns when it is known that the primary does not answer, or is another one.
    async fn cannot_ask(&self, primary: NodeId) {
        loop {
            let changed = self.answered.notified();
            if askable(&self.shared.shard().view.load(), clock::now()) != Some(primary) {
                return;
            }
            changed.await;
        }
    }

    /// Closes the connection that is kept, if it leads to a node that there is no longer.
    pub(crate) fn close_unneeded(&self) {
        let view = self.shared.shard().view.load();
        self.link.borrow_mut().take_if(|(of, _)| view.node(*of).is_none());
    }

    /// The primary of another shard that can be asked, if there is one.
    fn stand_in(&self, now: Moment) -> Option<(Arc<Shared>, NodeId)> {
        let cluster = self.shared.cluster().filter(|_| !mutant::is("first-shard-lets-in"))?;
        let of = |shard: &ShardIndex| {
            let shared = cluster.shard(*shard)?;
            let primary = askable(&shared.shard().view.load(), now)?;
            Some((shared, primary))
        };
        cluster.live().iter().find_map(of)
    }

    /// Asks the primary of another shard.
    async fn is_open_elsewhere(&self, shard: &Shared, node: NodeId) -> Result<bool, ControlError> {
        let config = self.shared.config();
        let (within, connect_within) = (config.upstream.probe_timeout, config.upstream.connect_timeout);
        drop(config);
        let address = shard.shard().address(node).ok_or(ControlError::Closed)?;
        let mut link = ControlLink::connect(&self.shared.dialer, &address, None, connect_within).await?;
        let answers = link.call_many(&[&[b"PING"]], within).await?;
        is_let_in(answers.first().ok_or(ControlError::Closed)?)
    }

    /// Asks one node.
    async fn is_open(&self, node: NodeId) -> Result<bool, ControlError> {
        let config = self.shared.config();
        let (within, connect_within) = (config.upstream.probe_timeout, config.upstream.connect_timeout);
        drop(config);
        let kept = self.link.borrow_mut().take();
        if let Some((_, mut link)) = kept.filter(|(of, _)| *of == node)
            && let Ok(answers) = link.call_many(&[&[b"RESET"], &[b"PING"]], within).await
            && let [BytesFrame::SimpleString(_), pong] = answers.as_slice()
        {
            let open = is_let_in(pong)?;
            *self.link.borrow_mut() = Some((node, link));
            return Ok(open);
        }
        let address = self.shared.shard().address(node).ok_or(ControlError::Closed)?;
        let mut link = ControlLink::connect(&self.shared.dialer, &address, None, connect_within).await?;
        let answers = link.call_many(&[&[b"PING"]], within).await?;
        let open = is_let_in(answers.first().ok_or(ControlError::Closed)?)?;
        *self.link.borrow_mut() = Some((node, link));
        Ok(open)
    }
}

/// The primary, if it answers.
fn askable(view: &View, now: Moment) -> Option<NodeId> {
    let primary = view.usable_primary(now)?;
    view.node(primary).is_some_and(|node| node.silent_since.is_none()).then_some(primary)
}

/// What the answer to `PING` says of the connection. An error that comes before the server has looked at the command,
/// such as that it has too many clients, says nothing of passwords.
fn is_let_in(pong: &BytesFrame) -> Result<bool, ControlError> {
    let BytesFrame::Error(error) = pong else { return Ok(true) };
    match ErrorCode::of_text(error.as_bytes()) {
        ErrorCode::NoAuth => Ok(false),
        ErrorCode::NoPerm | ErrorCode::Loading | ErrorCode::MasterDown | ErrorCode::Busy => Ok(true),
        // It takes no writes, and says so to `PING`, too, but only to those who are in (`server.c`, `processCommand`).
        _ if error.starts_with("MISCONF") && !mutant::is("misconf-shuts-out") => Ok(true),
        _ => Err(ControlError::Refused(words(error))),
    }
}
