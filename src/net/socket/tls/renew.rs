//! Looks whether certificates and keys have changed, and puts the new ones into force.
//!
//! The contents are compared, not dates: so it does not matter how they were exchanged, by a rename, through a symlink
//! or in place. What is wrong with new files is logged, and the old ones stay in force.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics::{counter, gauge};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::tls::TlsFault;
use crate::net::runtime::limits;

/// Something that was made from files.
pub trait Renewable: Send + Sync {
    /// Whose they are, for the log.
    fn name(&self) -> &str;

    /// The files.
    fn files(&self) -> Vec<PathBuf>;

    /// When what is shown to others expires, in seconds since 1970; `None` when nothing is shown.
    fn expiry(&self) -> Option<u64>;

    /// Makes it anew. What is wrong leaves everything as it is.
    fn renew(&self) -> Result<(), TlsFault>;
}

/// Everything that is renewed.
pub struct Watch(Vec<(Arc<dyn Renewable>, u64)>);

impl Watch {
    /// Watches these. What their files hold from now on is compared.
    pub fn new(watched: Vec<Arc<dyn Renewable>>) -> Self {
        let with_print = |it: Arc<dyn Renewable>| {
            tell_expiry(&*it);
            let print = fingerprint(&it.files());
            (it, print)
        };
        Self(watched.into_iter().map(with_print).collect())
    }

    /// Runs for good: looks every [`limits::TLS_LOOK_EVERY`], and renews everything at SIGHUP. With nothing to watch it
    /// ends at once.
    pub async fn run(mut self) -> std::io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            let all = tokio::select! {
                () = tokio::time::sleep(limits::TLS_LOOK_EVERY) => false,
                _ = hangup.recv() => true,
            };
            // A file system that hangs must hold up nothing else.
            self =
                tokio::task::spawn_blocking(move || self.look(all)).await.map_err(std::io::Error::other)?;
        }
    }

    fn look(mut self, all: bool) -> Self {
        for (it, seen) in &mut self.0 {
            let print = fingerprint(&it.files());
            if !all && print == *seen {
                continue;
            }
            *seen = print;
            let result = match it.renew() {
                Ok(()) => {
                    tell_expiry(&**it);
                    tracing::info!(of = it.name(), "TLS files read again: new connections use them");
                    "ok"
                }
                Err(problem) => {
                    tracing::error!(of = it.name(), %problem, "TLS files changed, but the old ones stay in force");
                    "error"
                }
            };
            counter!("redweir_tls_reloads_total", "result" => result).increment(1);
        }
        self
    }
}

fn tell_expiry(it: &dyn Renewable) {
    if let Some(expiry) = it.expiry() {
        gauge!("redweir_tls_certificate_expiry_seconds", "of" => it.name().to_owned()).set(expiry as f64);
    }
}

fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in files {
        content(path).hash(&mut hasher);
    }
    hasher.finish()
}

/// `None`: it cannot be read, which is a change like any other.
fn content(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limits::TLS_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
