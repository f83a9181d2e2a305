//! What must hold for any bytes at all. The fuzz targets and the stable tests call the same functions; each
//! panics when a rule is broken.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a check fails")]

pub(crate) mod commands;
pub(crate) mod control;
pub(crate) mod info;
pub(crate) mod inline;
pub(crate) mod inspect;
pub(crate) mod mend;
pub(crate) mod psync;
pub(crate) mod reply;
pub(crate) mod reply_queue;
pub(crate) mod request;
pub(crate) mod request_queue;
pub(crate) mod rng;
pub(crate) mod role;
pub(crate) mod sentinel;
pub(crate) mod steps;
pub(crate) mod stream;

use std::path::{Path, PathBuf};

/// Where the checked-in seeds of `target` are.
pub(crate) fn seed_dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target)
}

/// The checked-in seeds of `target`, in the order of their names.
pub(crate) fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = seed_dir(target);
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .expect("the seeds are checked in")
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "only {} seeds in {}", paths.len(), dir.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}
