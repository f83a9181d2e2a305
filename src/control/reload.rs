//! Puts another configuration into force while everybody is served: at SIGHUP, and when what its file says has changed.
//!
//! Contents are compared, not dates: so it does not matter how a file was exchanged, by a rename, through a symlink (`..data`
//! of a `ConfigMap`) or in place. One that is being written may be found half: so what a look finds counts when the next one
//! finds the same. What is wrong with it is told, and what held before holds: all of it, for nothing is put into force before
//! everything was read and checked. Passwords in files of their own are looked at like the file itself.
//!
//! The policies go to the keeper and come with the next view, so that no decision looks at policies that the gates of its view
//! are not about. What a key needs a restart for is in `config::change`.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};

use crate::config::change::{Changes, Fixed};
use crate::config::{Config, LogLevel};
use crate::control::prober::Heard;
use crate::core::moment::Moment;
use crate::core::nodes::members::Membership;
use crate::core::nodes::view::Observation;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::shard::shared::Shared;

/// Where the configuration comes from, and what only others can do about another one.
pub struct Origin {
    /// The file; `None`: it came from flags.
    pub file: Option<PathBuf>,
    /// Lowers what is wanted to what the system allows, and adds what flags say.
    pub amend: Box<dyn Fn(&mut Config) + Send + Sync>,
    /// Has so much logged from now on.
    pub set_level: Box<dyn Fn(LogLevel) + Send + Sync>,
}

/// Who is told of another configuration besides those who share it.
#[derive(Debug)]
pub struct Told {
    /// The keeper of the view.
    pub keeper: mpsc::Sender<Heard>,
    /// Who follows which nodes there are; `None` where sentinels tell that.
    pub membership: Option<watch::Sender<Membership>>,
}

/// Reads the configuration again. See the module.
pub struct Reload {
    shared: Arc<Shared>,
    origin: Origin,
    told: Told,
    /// Whether the file can be read twice: a pipe cannot.
    looked_at: bool,
    /// The files of passwords.
    secrets: Vec<PathBuf>,
    /// What the files held when they were last in order and acted upon; `None`: they have to be read.
    settled: Option<u64>,
    /// What was acted upon.
    acted: Option<Box<Config>>,
    /// What the last look has found, if the next one is to confirm that.
    found: Option<Found>,
    /// What is wrong with the files, as it was last told.
    problem: Option<Wrong>,
}

/// What is wrong with the first thing that is wrong, and how many others are.
type Wrong = (String, usize);

type Found = Result<Box<Config>, Wrong>;

impl Reload {
    /// Of what `origin` names.
    pub fn new(shared: Arc<Shared>, origin: Origin, told: Told) -> Self {
        for result in [OK, RESTART, ERROR] {
            counter!("redweir_config_reload_total", "result" => result).absolute(0);
        }
        let secrets = shared.config().secrets();
        let looked_at = origin.file.as_ref().is_some_and(|file| file.is_file());
        Self {
            shared,
            origin,
            told,
            looked_at,
            secrets,
            settled: None,
            acted: None,
            found: None,
            problem: None,
        }
    }

    /// Runs for good.
    pub async fn run(mut self, mut hangups: Signal) {
        loop {
            // Cancel safe: a sleep, and a signal that is there for the next call if it is not taken.
            let asked = tokio::select! {
                () = tokio::time::sleep(limits::CONFIG_LOOK_EVERY) => false,
                _ = hangups.recv() => true,
            };
            let Some(file) = self.origin.file.clone() else {
                if asked {
                    tracing::info!(
                        "SIGHUP: the configuration came from flags, there is no file to read again"
                    );
                }
                continue;
            };
            if (asked || self.looked_at) && task::catch(self.look(file, asked)).await.is_err() {
                (self.settled, self.found) = (None, None);
            }
        }
    }

    /// Looks at the files; whoever has `asked` for it has written them, and need not wait for another look.
    async fn look(&mut self, file: PathBuf, asked: bool) {
        let begun = clock::now();
        let (secrets, known) = (self.secrets.clone(), self.settled.filter(|_| !asked));
        // A file system that hangs must hold up nothing else.
        let read = tokio::task::spawn_blocking(move || {
            let print =
                fingerprint(std::iter::once(file.as_path()).chain(secrets.iter().map(PathBuf::as_path)));
            (print, (known != Some(print)).then(|| Config::load(&file)))
        });
        let Ok((print, read)) = read.await else { return };
        let Some(read) = read else {
            self.found = None;
            return;
        };
        let found = read.map(Box::new).map_err(|error| error.brief());
        if !asked && self.found.as_ref() != Some(&found) && !mutant::is("half-a-file") {
            self.settled = None;
            self.found = Some(found);
            return;
        }
        match found {
            Ok(config) => {
                let secrets = std::mem::replace(&mut self.secrets, config.secrets());
                // With other files to look at, the next look settles it.
                self.settled = Some(print).filter(|_| secrets == self.secrets);
                if asked || self.problem.is_some() || self.acted.as_ref() != Some(&config) {
                    self.follow(Config::clone(&config), asked, begun).await;
                }
                (self.acted, self.found, self.problem) = (Some(config), None, None);
            }
            Err(problem) => {
                if asked || self.problem.as_ref() != Some(&problem) {
                    counter!("redweir_config_reload_total", "result" => ERROR).increment(1);
                    let (first, others) = &problem;
                    tracing::error!(problem = %first, others, "the configuration is wrong: what held before holds");
                }
                self.found = Some(Err(problem.clone()));
                self.problem = Some(problem);
            }
        }
    }

    /// Puts a configuration into force, as far as that can be done now.
    async fn follow(&mut self, mut config: Config, asked: bool, begun: Moment) {
        (self.origin.amend)(&mut config);
        let fixed = Fixed { fencing: self.shared.fencing, watching: self.shared.watching };
        let (next, changes) = self.shared.config().follow(config, fixed);
        if changes == Changes::default() && !asked && self.problem.is_none() {
            return;
        }
        if !changes.live.is_empty() {
            self.enforce(next, &changes).await;
        }
        let (took, changed) = (clock::now().since(begun), changes.live.join(" "));
        if changed.is_empty() {
            tracing::info!(?took, "the configuration was read again: nothing changes");
        } else {
            tracing::info!(%changed, ?took, "the configuration was read again, and is in force");
        }
        let result = if changes.restart.is_empty() {
            OK
        } else {
            let keys = changes.restart.join(" ");
            tracing::warn!(%keys, "these keys need a restart: until then they are as they were");
            RESTART
        };
        counter!("redweir_config_reload_total", "result" => result).increment(1);
    }

    /// Returns when the policies are those by which is decided.
    async fn enforce(&self, next: Config, changes: &Changes) {
        let shard = self.shared.shard();
        let (level, limits, edition) = (next.log.level, next.patience(), next.policies.edition);
        let known = Arc::clone(&shard.view.load().policies);
        let policies = if known.edition == edition { known } else { Arc::new(next.policies.clone()) };
        let (nodes, zones) = (next.upstream.nodes(), Arc::new(next.zones()));
        self.shared.configure(next);
        if changes.live.iter().any(|key| key == "log.level") {
            (self.origin.set_level)(level);
        }
        let mut views = shard.views.subscribe();
        let configured =
            (Observation::Configured { policies, limits, zones: Arc::clone(&zones) }, clock::now());
        if self.told.keeper.send(configured).await.is_err() {
            // The process ends.
            return;
        }
        if let Some(membership) = &self.told.membership {
            membership.send_if_modified(|known| {
                let changed = known.nodes != nodes;
                known.nodes = nodes;
                changed
            });
        }
        let is_in_force = || {
            let view = shard.view.load();
            view.policies.edition == edition && view.zones == zones
        };
        let in_force = async { while !is_in_force() && views.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(IN_FORCE_WITHIN, in_force).await;
    }
}

/// How long the keeper may take before the log is told without it.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(1);

/// Everything is in force.
const OK: &str = "ok";

/// Everything but what needs a restart.
const RESTART: &str = "restart";

/// Nothing.
const ERROR: &str = "error";

fn fingerprint<'a>(files: impl Iterator<Item = &'a Path>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        // One that cannot be read is a change like any other.
        content(file).hash(&mut hasher);
    }
    hasher.finish()
}

fn content(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(limits::CONFIG_FILE + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_one_of_content() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let print = || fingerprint([one.as_path(), two.as_path()].into_iter());
        let nothing = print();
        fs::write(&one, "a").unwrap();
        let first = print();
        fs::write(&one, "a").unwrap();
        assert_eq!(print(), first, "written again");
        fs::rename(&one, &two).unwrap();
        assert!(print() != first && print() != nothing, "the same content elsewhere");
    }
}
