//! Whether somebody who gave no password may come in.
//!
//! Redis decides that when a connection is made: whoever came before `requirepass` was set stays in, whoever comes
//! after it has to log in. On a lane that was opened before, a stranger would pass. So every client that acts as
//! nobody in particular needs an answer of the primary that was asked for *after* it had connected; one question
//! serves all that wait, one is in flight per worker, and nothing is asked while nobody comes. The bound is therefore
//! nil: no client is admitted on an answer older than itself.
//!
//! While the primary is silent, what it said last counts: if it let strangers in, or has said nothing yet, a replica that can
//! be read decides who may read, and nothing else. Such a guest asks again once the primary answers.
//!
//! The question is `RESET`, which makes the server decide anew for that connection, and `PING`, which tells the
//! outcome. A server that does not know `RESET` (before 6.2) gets a new connection each time.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use redis_protocol::resp2::types::BytesFrame;

use crate::core::command::{Access, Handling, Intent, Local};
use crate::core::moment::Moment;
use crate::core::node::NodeId;
use crate::core::reason::Reason;
use crate::core::view::View;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::net::socket::call::words;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::proxy::session::connection::{Connection, Step};
use crate::proxy::session::pinned::end_if_needed;
use crate::proxy::worker::Worker;
use crate::telemetry;
use crate::wire::say;

/// Who is let in without a password, as far as one worker knows.
pub struct Door {
    /// What clients hold that were admitted; another one when all have to be admitted anew.
    pass: Cell<u32>,
    /// The primary that gave the passes of now.
    given_by: Cell<Option<NodeId>>,
    answer: Cell<Option<Answer>>,
    asking: Cell<bool>,
    failed_at: Cell<Option<Moment>>,
    /// The connection that questions go over.
    link: RefCell<Option<(NodeId, ControlLink)>>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    asked_at: Moment,
    by: NodeId,
    open: bool,
}

/// What is said to who knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Come in, with this pass.
    Admitted(u32),
    /// A replica lets it in, as long as the primary cannot be asked.
    Guest,
    /// The default user needs a password.
    Refused,
    /// Somebody is being asked; knock again.
    Asking,
    /// Nobody answers who could be asked.
    Nobody,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("pass", &self.pass).field("answer", &self.answer).finish_non_exhaustive()
    }
}

impl Default for Door {
    fn default() -> Self {
        let pass = Cell::new(1);
        let (answer, asking, failed_at) = (Cell::new(None), Cell::new(false), Cell::new(None));
        Self { pass, given_by: Cell::new(None), answer, asking, failed_at, link: RefCell::default() }
    }
}

impl Door {
    /// The pass that is valid now.
    pub fn pass(&self) -> u32 {
        self.pass.get()
    }

    /// The view has changed. Another primary may have other passwords.
    pub fn look(&self, view: &View, now: Moment) {
        if let Some(primary) = askable(view, now) {
            self.is_given_by(primary);
        }
    }

    /// Passes are from this primary from now on.
    fn is_given_by(&self, primary: NodeId) {
        if self.given_by.replace(Some(primary)).is_some_and(|before| before != primary) {
            self.pass.set(self.pass.get().wrapping_add(1).max(1));
            self.answer.set(None);
        }
    }
}

impl Worker {
    /// Whether a client that has been anonymous since then may come in.
    pub(crate) fn knock(self: &Rc<Self>, since: Moment, now: Moment) -> Verdict {
        let (door, view) = (&self.door, self.shared.view.load());
        if let Some(answer) = door.answer.get()
            && (answer.asked_at >= since || mutant::is("door-left-open"))
            && askable(&view, now).is_none_or(|primary| primary == answer.by)
        {
            if answer.open {
                let guest = view.primary != Some(answer.by);
                return if guest { Verdict::Guest } else { Verdict::Admitted(door.pass()) };
            }
            if now.since(answer.asked_at) < limits::REFUSAL_KEPT {
                return Verdict::Refused;
            }
        }
        if !door.asking.get() {
            if door.failed_at.get().is_some_and(|at| at >= since && now.since(at) < limits::RECONNECT_PAUSE) {
                return Verdict::Nobody;
            }
            door.asking.set(true);
            task::spawn_local("door", Rc::clone(self).ask_at_the_door());
        }
        if door.failed_at.get().is_some_and(|at| at >= since) { Verdict::Nobody } else { Verdict::Asking }
    }

    async fn ask_at_the_door(self: Rc<Self>) {
        let (view, asked_at, door) = (self.shared.view.load_full(), clock::now(), &self.door);
        let primary = askable(&view, asked_at);
        let others =
            view.nodes.iter().filter(|node| node.silent_since.is_none() && Some(node.id) != view.primary);
        // Without a primary, who guards the data that can still be read decides.
        let others = others.map(|node| node.id).filter(|_| primary.is_none());
        let last_word = view.rights.let_newcomers_in();
        let closed = !last_word.unwrap_or_else(|| !self.shared.auth_required.load(Ordering::Relaxed))
            && !mutant::is("dead-primary-forgotten");
        let mut answer = None;
        if primary.is_none() && closed {
            // What the primary said last counts until it, or another one, says otherwise.
            let by = view.primary.or(door.given_by.get()).unwrap_or(NodeId(0));
            answer = Some(Answer { asked_at, by, open: false });
        }
        for by in primary.into_iter().chain(others).filter(|_| !closed || primary.is_some()) {
            if let Ok(open) = self.is_open(by).await {
                answer = Some(Answer { asked_at, by, open });
                break;
            }
        }
        door.failed_at.set(answer.is_none().then_some(asked_at));
        if let Some(answer) = answer {
            if primary == Some(answer.by) {
                door.is_given_by(answer.by);
                self.shared.auth_required.store(!answer.open, Ordering::Relaxed);
            }
            door.answer.set(Some(answer));
        }
        door.asking.set(false);
        self.changed.notify_waiters();
    }

    /// Asks one node.
    async fn is_open(&self, node: NodeId) -> Result<bool, ControlError> {
        let upstream = &self.shared.config.upstream;
        let kept = self.door.link.borrow_mut().take();
        if let Some((_, mut link)) = kept.filter(|(of, _)| *of == node)
            && let Ok(answers) = link.call_many(&[&[b"RESET"], &[b"PING"]], upstream.probe_timeout).await
            && let [BytesFrame::SimpleString(_), pong] = answers.as_slice()
        {
            let open = is_let_in(pong)?;
            *self.door.link.borrow_mut() = Some((node, link));
            return Ok(open);
        }
        let address = self.shared.address(node).ok_or(ControlError::Closed)?;
        let mut link =
            ControlLink::connect(&self.shared.dialer, address, None, upstream.connect_timeout).await?;
        let answers = link.call_many(&[&[b"PING"]], upstream.probe_timeout).await?;
        let open = is_let_in(answers.first().ok_or(ControlError::Closed)?)?;
        *self.door.link.borrow_mut() = Some((node, link));
        Ok(open)
    }
}

impl Connection {
    /// A client that has given no password has to be admitted before its first command (`server.c`, `authRequired`).
    /// `None`: go on.
    pub(crate) fn admit(&mut self, intent: Intent, view: &View, now: Moment) -> Option<Step> {
        if matches!(intent.handling, Handling::Local(Local::Hello | Local::Auth | Local::Quit | Local::Reset))
        {
            return None;
        }
        match self.worker.knock(self.client.status.anonymous_since.get(), now) {
            Verdict::Admitted(pass) => {
                self.client.status.pass.set(pass);
                self.waiting_since = None;
                None
            }
            Verdict::Refused => {
                self.client.answer(say::NOAUTH);
                Some(Step::Done)
            }
            Verdict::Guest if is_for_guests(intent) => {
                self.waiting_since = None;
                None
            }
            Verdict::Nobody | Verdict::Guest
                if now.since(*self.waiting_since.get_or_insert(now)) > view.hold =>
            {
                Some(end_if_needed(intent, self.refuse(telemetry::Access::Other, Reason::PrimaryDown)))
            }
            Verdict::Asking | Verdict::Nobody | Verdict::Guest => Some(Step::Retry),
        }
    }
}

/// The primary, if it answers.
fn askable(view: &View, now: Moment) -> Option<NodeId> {
    let primary = view.usable_primary(now)?;
    view.node(primary).is_some_and(|node| node.silent_since.is_none()).then_some(primary)
}

/// What a replica may decide about: reads that it would answer itself.
fn is_for_guests(intent: Intent) -> bool {
    match intent.handling {
        Handling::Shared | Handling::ReadOnlyScript => intent.access == Access::Read,
        Handling::Local(which) => matches!(which, Local::Info | Local::Redweir),
        Handling::Scan { .. } | Handling::Script | Handling::Operation | Handling::Pin(_) => false,
    }
}

/// What the answer to `PING` says of the connection. An error that comes before the server has looked at the command,
/// such as that it has too many clients, says nothing of passwords.
fn is_let_in(pong: &BytesFrame) -> Result<bool, ControlError> {
    let BytesFrame::Error(error) = pong else { return Ok(true) };
    let code = error.split(' ').next().unwrap_or_default();
    match code {
        "NOAUTH" => Ok(false),
        "NOPERM" | "LOADING" | "MASTERDOWN" | "BUSY" => Ok(true),
        _ => Err(ControlError::Refused(words(error))),
    }
}
