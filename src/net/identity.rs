//! Who a client is upstream. Credentials are verified by the primary, never here, and identities never share a lane.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// A verified identity; 0 is the anonymous one, which sends no `AUTH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct IdentityId(u32);

impl IdentityId {
    /// No `AUTH` was sent: the `default` user, if it needs no password.
    pub const ANONYMOUS: Self = Self(0);
}

/// A password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// Wraps one.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes, to be sent to a node and nowhere else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<password>")
    }
}

/// What `AUTH` is sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `None` for `AUTH password`.
    pub user: Option<Vec<u8>>,
    /// The password.
    pub password: Password,
}

/// All identities that the primary has verified. Shared by all workers, so that they agree on the numbers.
#[derive(Debug, Default)]
pub struct Identities {
    known: RwLock<Vec<Arc<Credentials>>>,
}

impl Identities {
    /// The number of these credentials. To be called only after the primary has accepted them, which bounds how many
    /// there can be.
    pub fn intern(&self, credentials: Credentials) -> IdentityId {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let index = known.iter().position(|c| **c == credentials).unwrap_or_else(|| {
            known.push(Arc::new(credentials));
            known.len() - 1
        });
        IdentityId(index as u32 + 1)
    }

    /// What this identity authenticates with; `None` for the anonymous one.
    pub fn credentials(&self, id: IdentityId) -> Option<Arc<Credentials>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get((id.0 as usize).checked_sub(1)?).cloned()
    }
}
