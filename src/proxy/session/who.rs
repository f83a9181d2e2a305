//! As whom a connection acts, in which database and protocol, under which policy: what its lanes are shared by.

use std::cell::Cell;
use std::sync::Arc;

use crate::core::nodes::node::NodeId;
use crate::core::nodes::rights::Rights;
use crate::core::policy::{Consistency, Policies, PolicyId};
use crate::mutant;
use crate::proxy::upstream::lane::{LaneKey, Proto, Purpose};
use crate::shard::common::ClientEntry;
use crate::shard::identity::{Identity, IdentityId};

/// Who a client is.
#[derive(Debug)]
pub struct Who {
    identity: IdentityId,
    /// Keeps that identity.
    held: Option<Arc<Identity>>,
    /// The name of that user.
    user: String,
    /// Under these rights its user may read everywhere.
    free_under: Option<Arc<Rights>>,
    db: u32,
    proto: Proto,
    /// `CLIENT SETNAME`
    name: String,
    /// The listener that it came to: its policy holds …
    listener: usize,
    /// … unless it has chosen another one (`REDWEIR POLICY`).
    chosen: Option<Box<Chosen>>,
    /// What that comes to, in this edition.
    policy: Cell<Option<(u64, PolicyId)>>,
    /// Counts what changes about it.
    version: u64,
}

/// A policy that a client has chosen.
#[derive(Clone, Debug)]
struct Chosen {
    name: String,
    /// What it promised when it was chosen.
    promised: Option<Consistency>,
}

impl Who {
    /// Somebody who has just come to this listener.
    pub fn new(listener: usize) -> Self {
        Self {
            identity: IdentityId::ANONYMOUS,
            held: None,
            user: "default".to_owned(),
            free_under: None,
            db: 0,
            proto: Proto::Resp2,
            name: String::new(),
            listener,
            chosen: None,
            policy: Cell::new(None),
            version: 0,
        }
    }

    /// The same, for another shard: what it is known to may there is not taken over.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            identity: self.identity,
            held: self.held.clone(),
            user: self.user.clone(),
            free_under: None,
            db: self.db,
            proto: self.proto,
            name: self.name.clone(),
            listener: self.listener,
            chosen: self.chosen.clone(),
            policy: self.policy.clone(),
            version: self.version,
        }
    }

    /// Whether nothing has changed since one was copied from the other.
    pub const fn is_as(&self, other: &Self) -> bool {
        self.version == other.version
    }

    /// As whom it acts.
    pub const fn identity(&self) -> IdentityId {
        self.identity
    }

    /// The name of that user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The selected database.
    pub const fn db(&self) -> u32 {
        self.db
    }

    /// The protocol of its replies.
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// Whether that is RESP3.
    pub fn is_resp3(&self) -> bool {
        self.proto == Proto::Resp3
    }

    /// `CLIENT GETNAME`
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The policy of its reads among these, unless a route names another.
    #[inline]
    pub fn policy(&self, policies: &Policies) -> PolicyId {
        match self.policy.get() {
            Some((edition, policy)) if edition == policies.edition => policy,
            _ => self.find_policy(policies),
        }
    }

    #[cold]
    fn find_policy(&self, policies: &Policies) -> PolicyId {
        let chosen = self.chosen.as_ref();
        let (name, promised) =
            (chosen.map(|chosen| &*chosen.name), chosen.and_then(|chosen| chosen.promised));
        let found = policies.for_client(self.listener, name, promised);
        self.policy.set(Some((policies.edition, found)));
        found
    }

    /// What its lanes to a node are shared by.
    pub fn key(&self, node: NodeId) -> LaneKey {
        // The mutant forgets who the client is.
        let identity = if mutant::is("identity-forgotten") { IdentityId::ANONYMOUS } else { self.identity };
        LaneKey { node, identity, db: self.db, proto: self.proto, purpose: Purpose::Ordinary }
    }

    /// Acts as somebody else from now on; `None`: as nobody in particular.
    pub fn act_as(&mut self, identity: Option<Arc<Identity>>) {
        self.free_under = None;
        self.version += 1;
        self.identity = identity.as_ref().map_or(IdentityId::ANONYMOUS, |identity| identity.id);
        self.user = identity.as_ref().map_or_else(|| "default".to_owned(), |identity| identity.user());
        self.held = identity;
    }

    /// Becomes what it was when it had come.
    pub fn reset(&mut self) {
        self.act_as(None);
        (self.db, self.proto, self.chosen) = (0, Proto::Resp2, None);
        self.policy.set(None);
        self.name.clear();
    }

    /// `SELECT`. Returns the database before.
    pub const fn enter(&mut self, db: u32) -> u32 {
        self.version += 1;
        std::mem::replace(&mut self.db, db)
    }

    /// `HELLO`. Returns the protocol before.
    pub const fn speak(&mut self, proto: Proto) -> Proto {
        self.version += 1;
        std::mem::replace(&mut self.proto, proto)
    }

    /// `CLIENT SETNAME`
    pub fn call(&mut self, name: &[u8]) {
        self.version += 1;
        self.name = String::from_utf8_lossy(name).into_owned();
    }

    /// `REDWEIR POLICY`
    pub fn read_under(&mut self, name: String, policies: &Policies, policy: PolicyId) {
        let promised = policies.get(policy).map(|policy| policy.consistency);
        self.version += 1;
        self.chosen = Some(Box::new(Chosen { name, promised }));
        self.policy.set(Some((policies.edition, policy)));
    }

    /// Under these rights it may read everywhere.
    pub fn be_free_under(&mut self, rights: &Arc<Rights>) {
        self.free_under = Some(Arc::clone(rights));
    }

    /// Whether it is known to may read everywhere under these rights.
    pub fn is_free_under(&self, rights: &Arc<Rights>) -> bool {
        self.free_under.as_ref().is_some_and(|under| Arc::ptr_eq(under, rights))
    }

    /// Tells the registry.
    pub fn describe(&self, entry: &mut ClientEntry) {
        entry.name.clone_from(&self.name);
        entry.user.clone_from(&self.user);
        entry.db = self.db;
        entry.resp = if self.is_resp3() { 3 } else { 2 };
    }
}
