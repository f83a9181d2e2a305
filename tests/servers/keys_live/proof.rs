//! What a command really reads and writes, whatever the server says of it: it is executed.

use std::collections::BTreeSet;

use crate::support::{Conn, Redis, Value, encode};

pub(crate) type Names = Vec<Vec<u8>>;

/// What a table says of a line. `None`: it doesn't know.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) keys: Option<Names>,
    pub(crate) written: Option<Names>,
}

/// A server whose whole content is the keys of one line.
pub(crate) struct Court {
    conn: Conn,
    /// How many lines were executed, and how many of them without an error.
    pub(crate) executed: usize,
    pub(crate) succeeded: usize,
}

impl Court {
    pub(crate) fn on(server: &Redis) -> Self {
        Self { conn: server.connect(), executed: 0, succeeded: 0 }
    }

    /// Executes a line with every argument as a key that exists. What is not told as written must stay as it is, and
    /// what is not told at all must not matter: without it the reply must be the same. `type_of` is the type of all keys.
    pub(crate) fn try_line(&mut self, line: &[String], type_of: Type, told: &Told) -> Result<(), String> {
        let names: BTreeSet<&str> = line[1..].iter().map(String::as_str).collect();
        let (reply, changed) = self.execute(line, &names, &names, type_of);
        self.executed += 1;
        self.succeeded += usize::from(!reply.is_error());
        if let Some(written) = &told.written
            && let Some(key) = changed.iter().find(|key| !written.iter().any(|told| told == key.as_bytes()))
        {
            return Err(format!("{key:?} changed"));
        }
        let Some(keys) = &told.keys else { return Ok(()) };
        let is_told = |name: &&str| keys.iter().any(|told| told == name.as_bytes());
        let named: BTreeSet<&str> = names.iter().copied().filter(is_told).collect();
        let (without, _) = self.execute(line, &names, &named, type_of);
        // 6.2 looks the key up before it finds that there is no such subcommand.
        if without == reply || without.is_error() && reply.is_error() {
            return Ok(());
        }
        Err(format!("{reply:?} becomes {without:?} without what is not told"))
    }

    /// The reply to a line if of all these names only some are keys, and those that it changed.
    fn execute<'a>(
        &mut self,
        line: &[String],
        names: &BTreeSet<&'a str>,
        existing: &BTreeSet<&str>,
        type_of: Type,
    ) -> (Value, Vec<&'a str>) {
        let mut sent = vec![encode(&["FLUSHALL"])];
        for name in existing {
            sent.extend(type_of.create(name, names).iter().map(|command| encode(command)));
        }
        let before = sent.len();
        sent.extend(names.iter().map(|name| encode(&["DUMP", name])));
        // In a transaction nothing blocks.
        sent.extend([encode(&["MULTI"]), encode(line), encode(&["EXEC"])]);
        let after = sent.len();
        sent.extend(names.iter().map(|name| encode(&["DUMP", name])));
        self.conn.send(&sent.concat());
        let replies = self.conn.read_many(sent.len());
        for reply in &replies[..before] {
            assert!(!reply.is_error(), "{reply:?}");
        }
        let reply = match &replies[after - 1] {
            Value::Array(items) => items[0].clone(),
            _ => replies[after - 2].clone(),
        };
        let pairs = replies[before..after - 3].iter().zip(&replies[after..]);
        let changed = names.iter().zip(pairs).filter(|(_, (before, after))| before != after);
        (reply, changed.map(|(name, _)| *name).collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    String,
    List,
    Set,
    Hash,
    Geo,
    Stream,
    HyperLogLog,
    Json,
    Series,
    CountMin,
    Digest,
}

impl Type {
    /// The type that a command is about, by the way it is called.
    pub(crate) fn of(command: &str) -> Self {
        let begins = |names: &[&str]| names.iter().any(|name| command.starts_with(name));
        if begins(&["xread", "x"]) {
            Self::Stream
        } else if begins(&["geo", "z", "bz"]) {
            Self::Geo
        } else if begins(&["sort", "l", "bl", "r", "br"]) && !begins(&["lcs", "rename", "restore"]) {
            Self::List
        } else if begins(&["pf"]) {
            Self::HyperLogLog
        } else if begins(&["h"]) {
            Self::Hash
        } else if begins(&["s"]) && !begins(&["set", "str", "substr"]) {
            Self::Set
        } else {
            Self::String
        }
    }

    /// Creates a key whose content no other key has. In a stream every word is a group.
    fn create(self, key: &str, words: &BTreeSet<&str>) -> Vec<Vec<String>> {
        let command = |line: &[&str]| line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let own = format!("of {key}");
        match self {
            Self::String => vec![command(&["SET", key, &own])],
            Self::List => vec![command(&["RPUSH", key, &key.len().to_string(), &own, "a", "2"])],
            Self::Set => vec![command(&["SADD", key, &own, "a", "b", "2"])],
            Self::Hash => vec![command(&["HSET", key, "of", &own, "a", "1", "2", "2"])],
            Self::Geo => vec![command(&["GEOADD", key, "1", "2", &own, "1.01", "2", "c", "1", "2.01", "a"])],
            Self::HyperLogLog => vec![command(&["PFADD", key, &own, "a", "b"])],
            Self::Json => vec![command(&["JSON.SET", key, "$", &format!("{own:?}")])],
            Self::Series => vec![command(&["TS.CREATE", key])],
            Self::CountMin => {
                vec![command(&["CMS.INITBYDIM", key, "10", "2"]), command(&["CMS.INCRBY", key, &own, "3"])]
            }
            Self::Digest => vec![
                command(&["TDIGEST.CREATE", key]),
                command(&["TDIGEST.ADD", key, &key.len().to_string()]),
            ],
            Self::Stream => {
                let mut all = vec![command(&["XADD", key, "1-1", "of", &own])];
                all.extend(words.iter().map(|group| command(&["XGROUP", "CREATE", key, group, "0"])));
                all
            }
        }
    }
}
