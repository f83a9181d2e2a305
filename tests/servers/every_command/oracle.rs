//! A server that nobody else writes to: it is led through the same states as the primary, one by one.

use std::collections::HashMap;
use std::io;

use super::grammar::{DATABASES, Fixed, KEYS, script};
use super::wire::{Pipe, Words, items, text};
use crate::support::{Redis, encode};

/// Commands that are asked for at once.
const PIPELINE: usize = 256;

/// A set of keys of all databases, a bit each.
pub(crate) type Keys = u64;

pub(crate) fn bit(db: usize, key: &[u8]) -> Keys {
    KEYS.iter().position(|found| found.as_bytes() == key).map_or(0, |at| 1 << (db * KEYS.len() + at))
}

pub(crate) fn database(db: usize) -> Keys {
    ((1 << KEYS.len()) - 1) << (db * KEYS.len())
}

pub(crate) fn everything() -> Keys {
    (0..DATABASES).map(database).sum()
}

/// The keys of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Those that it is about.
    pub(crate) all: Keys,
    /// Those that it may write.
    pub(crate) written: Keys,
    /// Those that it may look at besides.
    pub(crate) maybe: Keys,
}

pub(crate) struct Oracle {
    pub(crate) server: Redis,
    pub(crate) pipe: Pipe,
    db: usize,
    resp3: bool,
}

impl Oracle {
    pub(crate) fn start() -> Self {
        let server = Redis::start(&[]);
        let pipe = Pipe::open(server.port).unwrap();
        Self { server, pipe, db: 0, resp3: false }
    }

    /// What a script, a dump and the like are called there.
    pub(crate) fn fixed(server: &Redis) -> Fixed {
        let [get_sha, set_sha] = Self::load_scripts(server);
        server.cmd(&["SET", "s0", "restored"]);
        let mut pipe = Pipe::open(server.port).unwrap();
        pipe.send(&encode(&["DUMP", "s0"])).unwrap();
        let dump = text(pipe.frame().unwrap()).to_vec();
        server.cmd(&["DEL", "s0"]);
        Fixed { dump, get_sha, set_sha }
    }

    pub(crate) fn load_scripts(server: &Redis) -> [Vec<u8>; 2] {
        ["<get-script>", "<set-script>"]
            .map(|name| server.cmd(&["SCRIPT", "LOAD", script(name)]).text().into_bytes())
    }

    /// Back to the beginning.
    pub(crate) fn clear(&mut self) {
        for words in [&["FLUSHALL"][..], &["FUNCTION", "FLUSH"], &["SELECT", "0"], &["HELLO", "2"]] {
            self.pipe.send(&encode(words)).unwrap();
            assert!(self.pipe.frame().unwrap()[0] != b'-');
        }
        (self.db, self.resp3) = (0, false);
        Self::fixed(&self.server);
    }

    /// Says what it takes to be in this database; returns how many replies there will be.
    pub(crate) fn enter(&mut self, db: usize, resp3: bool, out: &mut Vec<u8>) -> usize {
        let mut replies = 0;
        if self.resp3 != resp3 {
            out.extend(encode(&["HELLO", if resp3 { "3" } else { "2" }]));
            (self.resp3, replies) = (resp3, replies + 1);
        }
        if self.db != db {
            out.extend(encode(&["SELECT", &db.to_string()]));
            (self.db, replies) = (db, replies + 1);
        }
        replies
    }

    /// Takes so many replies that nobody needs.
    pub(crate) fn discard(&mut self, replies: usize) {
        for _ in 0..replies {
            self.pipe.frame().unwrap();
        }
    }

    /// Executes commands of a stream, and returns the replies.
    pub(crate) fn execute<'a>(&mut self, commands: impl Iterator<Item = (usize, &'a Words)>) -> Vec<Vec<u8>> {
        let commands: Vec<_> = commands.collect();
        let mut replies = Vec::with_capacity(commands.len());
        for chunk in commands.chunks(PIPELINE) {
            let (mut out, mut wanted) = (Vec::new(), Vec::new());
            for (db, argv) in chunk {
                let skipped = self.enter(*db, false, &mut out);
                wanted.push(skipped);
                out.extend(encode(argv));
            }
            self.pipe.send(&out).unwrap();
            for skipped in wanted {
                self.discard(skipped);
                replies.push(self.pipe.frame().unwrap().to_vec());
            }
        }
        replies
    }

    /// The keys of each command, asked for where it is known in which database it was said.
    pub(crate) fn touched<'a>(
        &mut self,
        commands: impl Iterator<Item = (usize, &'a Words)>,
    ) -> io::Result<Vec<Touched>> {
        let commands: Vec<_> = commands.collect();
        let mut found: HashMap<&Words, Vec<(Vec<u8>, bool)>> = HashMap::new();
        let mut distinct: Vec<&Words> = commands.iter().map(|(_, argv)| *argv).collect();
        distinct.sort();
        distinct.dedup();
        for chunk in distinct.chunks(PIPELINE) {
            let ask = |argv: &&Words| {
                let ask = [b"COMMAND".to_vec(), b"GETKEYSANDFLAGS".to_vec()];
                encode(&[&ask[..], argv].concat())
            };
            self.pipe.send(&chunk.iter().flat_map(ask).collect::<Vec<u8>>())?;
            for argv in chunk {
                found.insert(argv, keys_and_flags(self.pipe.frame()?));
            }
        }
        Ok(commands.iter().map(|(db, argv)| keys_of(*db, argv, &found[argv])).collect())
    }
}

/// Each key, and whether it may be written.
fn keys_and_flags(frame: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let each = items(frame).into_iter().map(|pair| {
        let pair = items(pair);
        let writes = !items(pair[1]).into_iter().any(|flag| text(flag) == b"RO");
        (text(pair[0]).to_vec(), writes)
    });
    each.collect()
}

/// The keys of a command, and what `COMMAND` does not know about them.
fn keys_of(db: usize, argv: &Words, found: &[(Vec<u8>, bool)]) -> Touched {
    let all = found.iter().fold(0, |keys, (key, _)| keys | bit(db, key));
    let written = found.iter().filter(|(_, writes)| *writes).fold(0, |keys, (key, _)| keys | bit(db, key));
    let name = argv[0].to_ascii_uppercase();
    let word = |at: usize| argv.get(at).map_or(&b""[..], Vec::as_slice);
    let database_at = |at: usize| std::str::from_utf8(word(at)).ok().and_then(|db| db.parse().ok());
    match &name[..] {
        b"FLUSHALL" | b"FUNCTION" => Touched { all: everything(), written: everything(), maybe: 0 },
        b"FLUSHDB" => Touched { all: database(db), written: database(db), maybe: 0 },
        b"SWAPDB" => {
            let both =
                [1, 2].iter().filter_map(|at| database_at(*at)).fold(0, |keys, db| keys | database(db));
            Touched { all: both, written: both, maybe: 0 }
        }
        b"DBSIZE" | b"KEYS" | b"RANDOMKEY" | b"SCAN" => Touched { all: database(db), written: 0, maybe: 0 },
        b"SORT" | b"SORT_RO" => {
            let written = stored(argv).map_or(0, |key| bit(db, key));
            Touched { all: bit(db, word(1)) | written, written, maybe: database(db) }
        }
        b"COPY" => {
            let option = argv.iter().skip(3).rposition(|word| word.eq_ignore_ascii_case(b"DB"));
            let to = option.and_then(|at| database_at(at + 4)).unwrap_or(db);
            Touched { all: bit(db, word(1)) | bit(to, word(2)), written: bit(to, word(2)), maybe: 0 }
        }
        b"MOVE" => {
            let both = bit(db, word(1)) | database_at(2).map_or(0, |to| bit(to, word(1)));
            Touched { all: both, written: both, maybe: 0 }
        }
        b"EVAL" | b"EVAL_RO" => {
            let script = String::from_utf8_lossy(word(1));
            let named = KEYS.iter().filter(|key| script.contains(&format!("'{key}'")));
            Touched { all: named.fold(all, |keys, key| keys | bit(db, key.as_bytes())), written, maybe: 0 }
        }
        b"FCALL_RO" if word(1) == b"peek_s0" => Touched { all: bit(db, b"s0"), written: 0, maybe: 0 },
        _ => Touched { all, written, maybe: 0 },
    }
}

/// Where `SORT` stores its result. (`COMMAND GETKEYS` is mistaken when the key is called `BY`.)
fn stored(argv: &Words) -> Option<&[u8]> {
    let (mut at, mut found) = (2, None);
    while let Some(word) = argv.get(at) {
        match &word.to_ascii_uppercase()[..] {
            b"LIMIT" => at += 2,
            b"BY" | b"GET" => at += 1,
            b"STORE" => {
                at += 1;
                found = argv.get(at).map(Vec::as_slice);
            }
            _ => {}
        }
        at += 1;
    }
    found
}
