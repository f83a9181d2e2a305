//! How many sockets the process may have open. As Redis does (`server.c`, `adjustOpenFilesLimit`), the limit is raised
//! at the start to what `max-clients` needs; where that is not allowed, fewer clients are let in than configured, so that
//! there always are descriptors for the servers, for the admin server, and to tell a newcomer that there is no room.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What is wanted of the descriptors, or what there is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Clients at a time.
    pub clients: usize,
    /// Exclusive connections to the primary at a time.
    pub exclusive: usize,
    /// Connections to the admin server at a time.
    pub admin: usize,
    /// Shared connections to the servers that are kept although no client has them at hand.
    pub unused: usize,
}

impl Room {
    const fn all(self) -> usize {
        self.clients.saturating_add(self.exclusive).saturating_add(self.admin).saturating_add(self.unused)
    }
}

/// What the process needs for itself: standard streams, listeners and runtimes, and for every node a prober, a witness, the
/// doctor's two connections and perhaps the stream, and shared lanes of every worker, with some to spare for users of their own.
pub const fn own_needs(workers: usize, nodes: usize) -> usize {
    let (threads, per_worker) = (workers + 2, 2 * nodes + 2);
    12 + 3 * threads + 7 * nodes + workers * per_worker
}

/// Makes room, as much of `wanted` as the system allows beside what is `own`.
pub fn allow(wanted: Room, own: usize) -> Room {
    let most = (own + wanted.all()) as u64;
    let allowed = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= most => return wanted,
        Ok((soft, hard)) => {
            // Who may raise the hard limit gets what is wanted, everybody else what there is.
            let raised = [(most, hard.max(most)), (most.min(hard), hard)];
            let taken =
                raised.iter().find(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard).is_ok());
            taken.map_or(soft, |(soft, _)| *soft)
        }
        Err(problem) => {
            tracing::warn!(%problem, "the limit of open files is unknown");
            return wanted;
        }
    };
    let room = share(wanted, usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(own));
    if room.clients < wanted.clients {
        tracing::warn!(
            allowed,
            own,
            exclusive = room.exclusive,
            "max-clients = {} needs more open files than the system allows (ulimit -n): lowered to {}",
            wanted.clients,
            room.clients
        );
    }
    room
}

/// Shares out what is left: clients come first, if not all the way.
fn share(wanted: Room, left: usize) -> Room {
    if left >= wanted.all() {
        return wanted;
    }
    let admin = wanted.admin.min(left / 4).max(ADMIN_LEAST);
    let left = left.saturating_sub(admin);
    let unused = wanted.unused.min(left / 8);
    let left = left - unused;
    let exclusive = wanted.exclusive.min(left / 3).max(1);
    let clients = wanted.clients.min(left.saturating_sub(exclusive)).max(1);
    Room { clients, exclusive, admin, unused }
}

/// A probe, a scrape and a person.
const ADMIN_LEAST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Room = Room { clients: 10_000, exclusive: 4096, admin: 64, unused: 256 };

    #[test]
    fn what_there_is_is_shared_and_never_exceeded() {
        assert_eq!(share(WANTED, 14_416), WANTED);
        assert_eq!(share(WANTED, 10_000), Room { clients: 6454, exclusive: 3226, admin: 64, unused: 256 });
        assert_eq!(share(WANTED, 80), Room { clients: 36, exclusive: 17, admin: 20, unused: 7 });
        for left in 8..15_000 {
            let room = share(WANTED, left);
            assert!(room.all() <= left, "{left}: {room:?}");
            assert!(room.clients <= WANTED.clients && room.exclusive <= WANTED.exclusive);
        }
        assert_eq!(share(WANTED, 0), Room { clients: 1, exclusive: 1, admin: ADMIN_LEAST, unused: 0 });
    }

    #[test]
    fn a_small_process_with_a_few_nodes_fits_into_64() {
        assert!(own_needs(1, 2) <= 48, "{}", own_needs(1, 2));
    }
}
