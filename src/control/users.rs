//! Asks a node what its users may do (`ACL LIST`), together with how it is.
//!
//! A short list is asked for with every poll. One that is long, or of which nothing is known yet, has a connection of its own:
//! however long it is, and however long the node works on it (Redis 6.2 a tenth of a millisecond for each user, every time),
//! the node does not count as silent. It is asked for with `INFO`, and costs the node little of its time. A list that cannot be
//! read hides the rules.
//!
//! Only what has changed is told. If our own user may not see it, the `default` user is tried, without a password: where that
//! one may do everything, it sees all.

use std::sync::Arc;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;

use crate::config::ReplicaAcl;
use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::rights::Rules;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::shard::shared::Shared;
use crate::wire::acl;

/// With more users than these, the list is not asked for with every poll.
const FEW: usize = 32;

/// How long a refusal counts.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// After a list that could not be read it is not asked for during the first of these, four times as long after the next one, and
/// so on up to the second.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const AFTER_FAILURES: Duration = Duration::from_mins(10);

/// A long list takes one part in so many of the node's time, at most.
const SHARE: u32 = 20;

/// How a node is asked for its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Not now.
    No,
    /// Together with how it is.
    WithPoll,
    /// On a connection of its own.
    Apart,
}

/// The users of one node.
pub(crate) struct Users {
    shared: Arc<Shared>,
    node: NodeId,
    address: Address,
    /// What was last told.
    known: Option<Arc<Rules>>,
    /// The last answer was short.
    short: bool,
    asked_at: Option<Moment>,
    /// Not to be asked before then, after a refusal or a failure …
    again_at: Option<Moment>,
    /// … and so that it does not cost the node more than its share.
    paced_until: Option<Moment>,
    /// How long it was left in peace after the last failure.
    pause: Duration,
    /// Why it could not be read the last time.
    problem: String,
    /// A connection for what is long.
    apart: Option<ControlLink>,
    /// A connection that acts as nobody in particular.
    anonymous: Option<ControlLink>,
}

impl Users {
    pub(crate) fn new(shared: &Arc<Shared>, node: NodeId, address: &Address) -> Self {
        let (shared, address) = (Arc::clone(shared), address.clone());
        Self {
            shared,
            node,
            address,
            known: None,
            short: false,
            asked_at: None,
            again_at: None,
            paced_until: None,
            pause: Duration::ZERO,
            problem: String::new(),
            apart: None,
            anonymous: None,
        }
    }

    /// Whether it is time to ask; with an `INFO` it always is, unless that was refused a moment ago: the node makes a note
    /// of every refusal (`ACL LOG`).
    pub(crate) fn ask(&mut self, inform: bool, now: Moment) -> Ask {
        let config = self.shared.config();
        let early = self.asked_at.is_some_and(|at| now.since(at) < config.poll_interval() / 2);
        let in_peace = [self.again_at, self.paced_until].into_iter().flatten().any(|until| now < until);
        let due = config.security.replica_acl == ReplicaAcl::Verify
            && !in_peace
            && (inform || !early && self.short);
        if !due {
            return Ask::No;
        }
        self.asked_at = Some(now);
        if self.short || mutant::is("rules-with-the-poll") { Ask::WithPoll } else { Ask::Apart }
    }

    /// Nothing was answered to the poll, perhaps because of the list. It may be another process that answers next.
    pub(crate) fn were_not_heard(&mut self) {
        (self.short, self.paced_until) = (false, None);
    }

    /// Takes the answer to `ACL LIST`, if that was asked, perhaps together with `INFO`, or asks for it now. Returns what is to be
    /// told.
    pub(crate) async fn hear(
        &mut self,
        ask: Ask,
        answer: Option<&BytesFrame>,
        inform: bool,
    ) -> Option<Arc<Rules>> {
        let rules = match ask {
            Ask::WithPoll => Some(self.take(acl::parse(answer?)).await),
            Ask::Apart => Some(self.ask_apart().await),
            Ask::No => None,
        };
        let rules = match rules {
            Some(rules) => rules,
            None if inform && self.anonymous.is_some() => self.as_anybody().await,
            None => return None,
        };
        if self.known.as_deref() == Some(&rules) {
            return None;
        }
        let rules = Arc::new(rules);
        self.known = Some(Arc::clone(&rules));
        Some(rules)
    }

    /// Whether the server is older than Redis 6, by its own word.
    fn is_old(&self) -> bool {
        let view = self.shared.shard().view.load();
        let facts = view.node(self.node).and_then(|node| node.facts.as_ref());
        let major = facts.and_then(|facts| facts.version.as_deref()?.split('.').next()?.parse::<u32>().ok());
        major.is_some_and(|major| major < 6)
    }

    /// What the rules are by an answer.
    async fn take(&mut self, rules: Rules) -> Rules {
        self.short = !matches!(&rules, Rules::Of(rules) if rules.len() > FEW);
        match rules {
            // The command may be renamed: only an old server has no rules.
            Rules::None if !self.is_old() && !mutant::is("renamed-is-none") => Rules::Hidden,
            Rules::Hidden => {
                self.again_at = Some(clock::now().after(AFTER_REFUSAL));
                self.as_anybody().await
            }
            rules => rules,
        }
    }

    /// Asks on the connection that is there for it.
    async fn ask_apart(&mut self) -> Rules {
        let asked_at = clock::now();
        let answer = self.list_apart().await;
        let now = clock::now();
        match answer {
            Ok(answer) => {
                (self.pause, self.problem, self.again_at) = (Duration::ZERO, String::new(), None);
                let rules = self.take(acl::parse(&answer)).await;
                let pace = Some(now.after(now.since(asked_at) * SHARE));
                if self.short {
                    self.apart = None;
                }
                self.paced_until = pace.filter(|_| !self.short);
                rules
            }
            Err(problem) => {
                self.pause = (self.pause * 4).clamp(AFTER_FAILURE, AFTER_FAILURES);
                self.again_at = Some(now.after(self.pause));
                let problem = problem.to_string();
                if self.problem != problem {
                    tracing::warn!(
                        "the access rules of {} cannot be read ({problem}), and count as hidden; if they are too many, \
                         replica-acl = \"trust\" does without them",
                        self.address
                    );
                    self.problem = problem;
                }
                Rules::Hidden
            }
        }
    }

    async fn list_apart(&mut self) -> Result<BytesFrame, ControlError> {
        let within = self.shared.config().upstream.probe_timeout;
        let question: &[&[u8]] = &[b"ACL", b"LIST"];
        let kept = match self.apart.take() {
            Some(mut link) => match link.call_many(&[question], within).await {
                Ok(answers) => Some((link, answers)),
                // The node may have closed it long ago.
                Err(ControlError::Closed) => None,
                Err(problem) => return Err(problem),
            },
            None => None,
        };
        let (link, mut answers) = if let Some(answered) = kept {
            answered
        } else {
            let credentials = self.shared.config().upstream.credentials();
            let (dialer, who) = (&self.shared.dialer, credentials.as_ref());
            let mut link = ControlLink::connect(dialer, &self.address, who, within).await?;
            let answers = link.call_many(&[question], within).await?;
            (link, answers)
        };
        self.apart = Some(link);
        answers.pop().ok_or(ControlError::Closed)
    }

    /// As somebody sees them who gives no password.
    async fn as_anybody(&mut self) -> Rules {
        if self.shared.config().upstream.credentials().is_none() {
            // So it was asked already.
            return Rules::Hidden;
        }
        let within = self.shared.config().upstream.probe_timeout;
        let link = match self.anonymous.take() {
            Some(link) => Ok(link),
            None => ControlLink::connect(&self.shared.dialer, &self.address, None, within).await,
        };
        let Ok(mut link) = link else { return Rules::Hidden };
        let Ok(answer) = link.call(&[b"ACL", b"LIST"], within).await else { return Rules::Hidden };
        let rules = acl::parse(&answer);
        self.anonymous = Some(link).filter(|_| rules != Rules::Hidden);
        rules
    }
}
