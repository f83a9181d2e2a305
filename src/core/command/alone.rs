//! The commands that need neither data nor a server.

use crate::core::argv::Args;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// `PING`
    Ping,
    /// `ECHO`
    Echo,
    /// `TIME`
    Time,
}

impl Alone {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Ping, Self::Echo, Self::Time];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Echo => "echo",
            Self::Time => "time",
        }
    }
}

/// Which of them a command is.
pub fn alone<A: Args + ?Sized>(args: &A) -> Option<Alone> {
    Alone::ALL.into_iter().find(|which| args.arg(0).eq_ignore_ascii_case(which.name().as_bytes()))
}
