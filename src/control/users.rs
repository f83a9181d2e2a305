//! Asks a node what its users may do (`ACL LIST`), together with how it is.
//!
//! A short list is asked for with every poll, a long one with every `INFO`; only what has changed is told. If our own user
//! may not see it, the `default` user is tried, without a password: where that one may do everything, it sees all.

use std::sync::Arc;
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;

use crate::config::ReplicaAcl;
use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::rights::Rules;
use crate::net::runtime::clock;
use crate::net::socket::call::ControlLink;
use crate::shard::shared::Shared;
use crate::wire::acl;

/// With more users than these, the list is not asked for with every poll.
const FEW: usize = 32;

/// How long a refusal counts.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// The users of one node.
pub(crate) struct Users {
    shared: Arc<Shared>,
    node: NodeId,
    address: Address,
    /// What was last told.
    known: Option<Arc<Rules>>,
    asked_at: Option<Moment>,
    refused_at: Option<Moment>,
    /// A connection that acts as nobody in particular.
    anonymous: Option<ControlLink>,
}

impl Users {
    pub(crate) fn new(shared: &Arc<Shared>, node: NodeId, address: &Address) -> Self {
        let (shared, address) = (Arc::clone(shared), address.clone());
        Self { shared, node, address, known: None, asked_at: None, refused_at: None, anonymous: None }
    }

    /// Whether it is time to ask; with an `INFO` it always is, unless that was refused a moment ago: the node makes a note
    /// of every refusal (`ACL LOG`).
    pub(crate) fn are_due(&mut self, inform: bool, now: Moment) -> bool {
        let config = &self.shared.config;
        let early = self.asked_at.is_some_and(|at| now.since(at) < config.poll_interval() / 2);
        let refused = self.refused_at.is_some_and(|at| now.since(at) < AFTER_REFUSAL);
        let due = config.security.replica_acl == ReplicaAcl::Verify
            && !refused
            && (inform || !early && !self.are_many());
        if due {
            self.asked_at = Some(now);
        }
        due
    }

    /// Takes the answer to `ACL LIST`, if that was asked, perhaps together with `INFO`. Returns what is to be told.
    pub(crate) async fn hear(&mut self, answer: Option<&BytesFrame>, inform: bool) -> Option<Arc<Rules>> {
        let rules = match answer.map(acl::parse) {
            // The command may be renamed: only an old server has no rules.
            Some(Rules::None) if !self.is_old() => Rules::Hidden,
            Some(Rules::Hidden) => {
                self.refused_at = Some(clock::now());
                self.as_anybody().await
            }
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
        let view = self.shared.view.load();
        let facts = view.node(self.node).and_then(|node| node.facts.as_ref());
        let major = facts.and_then(|facts| facts.version.as_deref()?.split('.').next()?.parse::<u32>().ok());
        major.is_some_and(|major| major < 6)
    }

    fn are_many(&self) -> bool {
        matches!(self.known.as_deref(), Some(Rules::Of(rules)) if rules.len() > FEW)
    }

    /// As somebody sees them who gives no password.
    async fn as_anybody(&mut self) -> Rules {
        if self.shared.config.upstream.credentials().is_none() {
            // So it was asked already.
            return Rules::Hidden;
        }
        let within = self.shared.config.upstream.probe_timeout;
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
