//! Questions to the primary as somebody: whether credentials are right (`AUTH`), what a user may see of other clients. They
//! are rare and must not wait behind what clients wait for, so they have connections of their own, which are kept: after
//! each question the connection is nobody's again (`RESET`).
//!
//! Somebody who tries passwords costs the primary no connections, and soon no time either: whoever has failed a few times
//! lately takes turns with all others of whom that is true, slowly: one after the other address, and there one after the
//! other user. Credentials that somebody is logged in with never wait there, and a user that nobody tries to be does not wait
//! for long: a flood from a client's own address does not keep it out.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use crate::core::moment::Moment;
use crate::core::nodes::cause::Cause;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::proxy::worker::turns::Turns;
use crate::shard::identity::Credentials;
use crate::shard::shared::Shared;
use crate::wire::reply::ErrorCode;
use crate::wire::say;

/// The connections of one worker for questions, and who has failed.
#[derive(Debug)]
pub struct Inquiry {
    shared: Arc<Shared>,
    /// Turns of whoever is not suspect.
    turns: Semaphore,
    /// The one turn of whoever is.
    suspects: Turns,
    /// Connections that are nobody's.
    kept: RefCell<Vec<KeptLink>>,
    failures: RefCell<FxHashMap<String, FailedLogins>>,
}

struct KeptLink {
    node: NodeId,
    link: ControlLink,
    since: Moment,
}

impl std::fmt::Debug for KeptLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptLink")
            .field("node", &self.node)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

/// Logins that failed lately.
#[derive(Clone, Copy, Debug)]
struct FailedLogins {
    count: u32,
    last: Moment,
}

/// So many logins of an address may fail within [`FORGOTTEN_AFTER`] of each other before it is suspect.
const FREE_FAILURES: u32 = 16;

/// How long a failed login counts.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// How long a suspect waits when it is its turn.
const SUSPECT_PAUSE: Duration = Duration::from_millis(20);

/// Addresses with failed logins that are remembered.
const ADDRESSES_KEPT: usize = 4096;

/// Whether an answer to `AUTH` says that the credentials are wrong. A primary that is away, or has no time or room for anybody,
/// says nothing of them.
fn is_wrong(error: &[u8]) -> bool {
    match ErrorCode::of(error) {
        Some(ErrorCode::WrongPass) => true,
        // Before Redis 6, `ERR invalid password`.
        Some(ErrorCode::Err) => !error.starts_with(b"-ERR max number of clients"),
        Some(ErrorCode::Loading | ErrorCode::MasterDown) => mutant::is("silence-is-wrong"),
        _ => false,
    }
}

impl Inquiry {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (turns, suspects) = (Semaphore::new(limits::VERIFIED_AT_ONCE), Turns::default());
        Self { shared, turns, suspects, kept: RefCell::default(), failures: RefCell::default() }
    }

    /// A login from this address failed.
    fn failed(&self, address: &str, now: Moment) {
        let mut failures = self.failures.borrow_mut();
        if failures.len() >= ADDRESSES_KEPT {
            failures.retain(|_, failures| now.since(failures.last) < FORGOTTEN_AFTER);
        }
        if failures.len() >= ADDRESSES_KEPT {
            failures.clear();
        }
        let known = failures.entry(address.to_owned()).or_insert(FailedLogins { count: 0, last: now });
        let count = if now.since(known.last) < FORGOTTEN_AFTER { known.count.saturating_add(1) } else { 1 };
        *known = FailedLogins { count, last: now };
    }

    fn is_suspect(&self, address: &str, now: Moment) -> bool {
        self.failures.borrow().get(address).is_some_and(|failures| {
            failures.count > FREE_FAILURES && now.since(failures.last) < FORGOTTEN_AFTER
        })
    }

    fn take(&self, node: NodeId) -> Option<ControlLink> {
        let mut kept = self.kept.borrow_mut();
        let at = kept.iter().rposition(|kept| kept.node == node)?;
        Some(kept.swap_remove(at).link)
    }

    fn keep(&self, node: NodeId, link: ControlLink) {
        self.kept.borrow_mut().push(KeptLink { node, link, since: clock::now() });
    }

    /// Nothing is connected any longer to whoever has left.
    pub(crate) fn look(&self, view: &View) {
        self.kept.borrow_mut().retain(|kept| view.node(kept.node).is_some());
    }

    /// Closes what nobody has used for a while.
    pub(crate) fn close_idle(&self, now: Moment) {
        self.kept.borrow_mut().retain(|kept| now.since(kept.since) < limits::LANE_IDLE);
    }
}

impl Inquiry {
    /// Asks the primary whether credentials are right. An error is what the client is to be told.
    pub(crate) async fn verify(&self, credentials: &Credentials, address: &str) -> Result<(), Vec<u8>> {
        let is_suspect =
            || !self.shared.identities.knows(credentials) && self.is_suspect(address, clock::now());
        let suspect = is_suspect();
        let user = credentials.user.as_deref().unwrap_or(b"default");
        let _slow = if suspect { Some(self.suspects.take(address, user).await) } else { None };
        // In the order in which they came.
        let _quick = if suspect { None } else { self.turns.acquire().await.ok() };
        // Somebody else may have shown meanwhile that it is right.
        if suspect && is_suspect() && !mutant::is("suspects-hurry") {
            tokio::time::sleep(SUSPECT_PAUSE).await;
        }
        let outcome = self.ask_as(Some(credentials), &[]).await;
        if outcome.as_ref().is_err_and(|error| is_wrong(error)) {
            self.failed(address, clock::now());
        }
        outcome.map(drop)
    }

    /// Asks the primary as somebody, or as nobody in particular, in turn with others.
    pub(crate) async fn inquire(
        &self,
        credentials: Option<&Credentials>,
        question: &[&[u8]],
    ) -> Result<BytesFrame, Vec<u8>> {
        let _turn = self.turns.acquire().await;
        self.ask_as(credentials, question).await
    }

    /// An empty question asks nothing but whether the credentials are right.
    async fn ask_as(
        &self,
        credentials: Option<&Credentials>,
        question: &[&[u8]],
    ) -> Result<BytesFrame, Vec<u8>> {
        let view = self.shared.shard().view.load_full();
        // Who asks may be anybody.
        let down = || say::masterdown(Cause::of(&view).as_ref(), Reason::PrimaryDown, false);
        let node = view.usable_primary(clock::now()).ok_or_else(down)?;
        let within = self.shared.config().upstream.connect_timeout;
        if let Some(link) = self.take(node) {
            match self.ask_on(node, link, credentials, question).await {
                Ok(answer) => return Ok(answer),
                Err(ControlError::Refused(text)) => return Err(say::error(&text)),
                // The primary may have closed it long ago.
                Err(_) => {}
            }
        }
        let address = self.shared.shard().address(node).ok_or_else(down)?;
        let link =
            ControlLink::connect(&self.shared.dialer, &address, None, within).await.map_err(|_| down())?;
        match self.ask_on(node, link, credentials, question).await {
            Ok(answer) => Ok(answer),
            Err(ControlError::Refused(text)) => Err(say::error(&text)),
            Err(_) => Err(down()),
        }
    }

    /// Asks, and keeps the connection if it is as it was before.
    async fn ask_on(
        &self,
        node: NodeId,
        mut link: ControlLink,
        credentials: Option<&Credentials>,
        question: &[&[u8]],
    ) -> Result<BytesFrame, ControlError> {
        let within = self.shared.config().upstream.connect_timeout;
        if let Some(credentials) = credentials {
            let password = credentials.password.expose();
            let accepted = match &credentials.user {
                Some(user) => link.call(&[b"AUTH", user, password], within).await,
                None => link.call(&[b"AUTH", password], within).await,
            };
            if let Err(ControlError::Refused(text)) = accepted {
                // It is whose it was.
                self.keep(node, link);
                return Err(ControlError::Refused(text));
            }
            accepted?;
        }
        let answer = match question {
            [] => Ok(BytesFrame::Null),
            question => link.call(question, within).await,
        };
        let usable = !answer.as_ref().is_err_and(ControlError::is_fatal);
        // Before Redis 6.2 there is no `RESET`: then the connection goes.
        if usable && (credentials.is_none() || link.call(&[b"RESET"], within).await.is_ok()) {
            self.keep(node, link);
        }
        answer
    }
}
