//! Who a client is upstream. Credentials are verified by the primary, never here, and identities never share a lane.
//!
//! An identity lives as long as somebody holds it: the clients that act as it, and its lanes. A rotated password is
//! another identity; the old one goes when its last client and its last lane are gone. Numbers are never used twice.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

/// The number of a verified identity; 0 is the anonymous one, which sends no `AUTH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IdentityId(u64);

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

/// An identity that the primary has verified.
#[derive(Debug)]
pub struct Identity {
    /// Its number.
    pub id: IdentityId,
    /// What it authenticates with.
    pub credentials: Credentials,
    /// The primary has refused it since: whoever acts as it has to log in again.
    revoked: AtomicBool,
}

impl Identity {
    /// The primary refuses it.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// Whether the primary refused it.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// The user, for logs.
    pub fn user(&self) -> String {
        let name = self.credentials.user.as_deref().unwrap_or(b"default");
        String::from_utf8_lossy(name).into_owned()
    }
}

/// All identities that somebody holds. Shared by all workers, so that they agree on the numbers.
#[derive(Debug, Default)]
pub struct Identities {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    held: Vec<(IdentityId, Weak<Identity>)>,
    last: u64,
}

impl Identities {
    /// The identity with these credentials. To be called only after the primary has accepted them; how many there
    /// are is bounded by who holds them.
    pub fn intern(&self, credentials: Credentials) -> Arc<Identity> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.held.retain(|(_, identity)| identity.strong_count() > 0);
        let same = |identity: &Arc<Identity>| identity.credentials == credentials && !identity.is_revoked();
        if let Some(identity) = known.held.iter().filter_map(|(_, weak)| weak.upgrade()).find(same) {
            return identity;
        }
        known.last += 1;
        let id = IdentityId(known.last);
        let identity = Arc::new(Identity { id, credentials, revoked: AtomicBool::new(false) });
        debug_assert!(
            known.held.last().is_none_or(|(last, _)| *last < id),
            "numbers rise, and none is used twice"
        );
        known.held.push((id, Arc::downgrade(&identity)));
        identity
    }

    /// Whether somebody holds an identity with these credentials that the primary has not refused since.
    pub fn knows(&self, credentials: &Credentials) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let same = |identity: Arc<Identity>| identity.credentials == *credentials && !identity.is_revoked();
        known.held.iter().filter_map(|(_, weak)| weak.upgrade()).any(same)
    }

    /// The identity with this number, if anybody holds it. The anonymous one is none.
    pub fn hold(&self, id: IdentityId) -> Option<Arc<Identity>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let index = known.held.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        known.held.get(index)?.1.upgrade()
    }

    /// How many identities somebody holds.
    pub fn len(&self) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.held.iter().filter(|(_, identity)| identity.strong_count() > 0).count()
    }

    /// Whether nobody has logged in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &str, password: &str) -> Credentials {
        Credentials { user: Some(user.as_bytes().to_vec()), password: Password::new(password.as_bytes()) }
    }

    #[test]
    fn an_identity_lives_as_long_as_it_is_held_and_its_number_is_never_another_s() {
        let all = Identities::default();
        let (first, second) = (all.intern(of("u", "1")), all.intern(of("u", "2")));
        assert_ne!(first.id, second.id);
        assert_eq!(all.intern(of("u", "1")).id, first.id);
        let gone = first.id;
        drop(first);
        assert_eq!((all.len(), all.hold(gone).is_none()), (1, true));
        assert!(all.intern(of("u", "1")).id > second.id);
        assert_eq!(all.hold(second.id).map(|identity| identity.id), Some(second.id));
    }

    #[test]
    fn a_thousand_rotations_leave_nothing_behind() {
        let all = Identities::default();
        (0..1000).for_each(|n| drop(all.intern(of("u", &n.to_string()))));
        let known = all.known.read().unwrap();
        assert!(known.held.len() <= 1, "{} are kept", known.held.len());
    }

    #[test]
    fn who_was_refused_and_is_accepted_again_is_somebody_else() {
        let all = Identities::default();
        let before = all.intern(of("u", "1"));
        before.revoke();
        assert_ne!(all.intern(of("u", "1")).id, before.id);
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = format!("{:?}", Identities::default().intern(of("u", "hunter2")));
        assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }
}
