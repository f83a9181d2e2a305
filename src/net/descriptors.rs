//! How many sockets the process may have open. As Redis does (`server.c`, `adjustOpenFilesLimit`), the limit is raised
//! at the start to what `max-clients` needs; unlike Redis, which then lowers `maxclients`, a limit that stays too low
//! is told and the kernel decides.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the process needs besides its clients: listeners, shared lanes, probes, logs (`CONFIG_MIN_RESERVED_FDS`).
const RESERVED: u64 = 32;

/// Makes room for so many clients, and, if there is, for an exclusive connection of each.
pub fn allow(max_clients: usize) {
    let clients = max_clients as u64;
    let (least, most) = (clients + RESERVED, 2 * clients + RESERVED);
    let allowed = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= most => return,
        Ok((soft, hard)) => {
            // Who may raise the hard limit gets what is wanted, everybody else what there is.
            let raised = [(most, hard.max(most)), (most.min(hard), hard)];
            let taken =
                raised.iter().find(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard).is_ok());
            taken.map_or(soft, |(soft, _)| *soft)
        }
        Err(problem) => return tracing::warn!(%problem, "the limit of open files is unknown"),
    };
    if allowed < least {
        tracing::warn!(
            allowed,
            needed = least,
            "max-clients = {max_clients} needs more open files than the system allows (ulimit -n)"
        );
    }
}
