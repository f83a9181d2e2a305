//! How a client of the load reaches a cluster: through a proxy, like any plain client, or by itself.

use std::io;
use std::time::Duration;

use super::direct::{Access, Direct};
use crate::support::resp::{Conn, Value, encode};

/// Longer than a proxy may hold a write.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where clients connect to.
#[derive(Clone, Debug)]
pub(crate) enum Via {
    /// The one endpoint of a proxy.
    Proxy(u16),
    /// The nodes themselves.
    Nodes(Vec<u16>, Access),
}

/// A command and the key that says where it belongs.
pub(crate) struct Command {
    pub(crate) key: String,
    pub(crate) words: Vec<String>,
}

impl Command {
    pub(crate) fn new(key: &str, words: &[&str]) -> Self {
        Self { key: key.to_owned(), words: words.iter().map(|&word| word.to_owned()).collect() }
    }
}

/// A client's connection.
pub(crate) enum Link {
    Proxy(Conn),
    Nodes(Box<Direct>),
}

impl Link {
    pub(crate) fn open(via: &Via) -> io::Result<Self> {
        Ok(match via {
            Via::Proxy(port) => {
                let mut conn = Conn::try_open(*port)?;
                conn.patience(PATIENCE);
                Self::Proxy(conn)
            }
            Via::Nodes(ports, access) => Self::Nodes(Box::new(Direct::new(ports, *access))),
        })
    }

    /// Sends all of them at once, where that is possible. There is a reply for each, or why there is none.
    pub(crate) fn run(&mut self, commands: &[Command]) -> Vec<io::Result<Value>> {
        match self {
            Self::Proxy(conn) => {
                let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(&command.words)).collect();
                let mut broken = conn.try_send(&bytes).err();
                let mut read = || {
                    let reply = broken.take().map_or_else(|| conn.try_read(), Err);
                    broken = reply.as_ref().err().map(|error| error.kind().into());
                    reply
                };
                commands.iter().map(|_| read()).collect()
            }
            Self::Nodes(direct) => commands.iter().map(|command| at_nodes(direct, command)).collect(),
        }
    }
}

fn at_nodes(direct: &mut Direct, command: &Command) -> io::Result<Value> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    if words[0] == "GET" {
        direct.try_read(&command.key, &words)
    } else {
        direct.try_cmd(&command.key, &words)
    }
}
