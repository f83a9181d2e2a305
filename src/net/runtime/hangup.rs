//! SIGHUP, which asks for the files to be read again and ends nothing: not before there is anybody to hear of it either.

use std::io;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whoever sends SIGHUP from now on is heard later. To be called by the main thread before there are others, which do as it
/// does.
pub fn hold() -> io::Result<()> {
    Ok(only().thread_block()?)
}

/// Hears of SIGHUP from now on, and of one that came while it was held. To be called by the main thread, within a runtime.
pub fn listen() -> io::Result<Signal> {
    let signal = signal(SignalKind::hangup())?;
    only().thread_unblock()?;
    Ok(signal)
}

fn only() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Number::SIGHUP);
    set
}
