//! What can be said: every data command of the server, with arguments over few keys of mixed types.
//!
//! A grammar is words: `<s>` is a key that mostly holds a string, and so on; `( a | b )` is one of them, `[ a | b ]` one of
//! them or nothing, `{ a }` one to three times; after `~` the rest comes in any order, parts of it twice.

use std::sync::atomic::{AtomicU64, Ordering};

use super::wire::Words;
use crate::support::rng::Rng;

/// The keys of each database. Some are called like keywords.
pub(crate) const KEYS: [&str; 21] = [
    "s0", "s1", "c0", "c1", "n0", "h0", "h1", "l0", "l1", "e0", "e1", "z0", "z1", "x0", "g0", "p0", "p1",
    "STORE", "BY", "m0", "y0",
];
/// Databases that are used.
pub(crate) const DATABASES: usize = 3;

/// How the reply is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// Byte by byte.
    Exact,
    /// The items may come in any order.
    Unordered,
    /// Pairs may come in any order.
    Pairs,
    /// It depends on time or chance: executed only.
    Chance,
    /// It writes.
    Write,
}

use Judge::{Chance, Exact, Pairs, Unordered, Write};

pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) judge: Judge,
    grammar: &'static str,
}

const fn entry(name: &'static str, judge: Judge, grammar: &'static str) -> Entry {
    Entry { name, judge, grammar }
}

pub(crate) const TABLE: &[Entry] = &[
    // Strings.
    entry("APPEND", Write, "<s> <v>"),
    entry("DECR", Write, "<n>"),
    entry("DECRBY", Write, "<n> <i>"),
    entry("GET", Exact, "<s>"),
    entry("GETDEL", Write, "<s>"),
    entry("GETEX", Write, "<s> [ EX 1000 | PX 900000 | PERSIST ]"),
    entry("GETRANGE", Exact, "<s> <i> <i>"),
    entry("GETSET", Write, "<s> <v>"),
    entry("INCR", Write, "<n>"),
    entry("INCRBY", Write, "<n> <i>"),
    entry("INCRBYFLOAT", Write, "<n> ( 1.5 | -0.25 )"),
    entry("LCS", Exact, "<s> <s> [ LEN | IDX | IDX WITHMATCHLEN ]"),
    entry("MGET", Exact, "{ <k> } <s> <s>"),
    entry("MSET", Write, "{ <s> <v> }"),
    entry("MSETNX", Write, "{ <s> <v> }"),
    entry("PSETEX", Write, "<s> 900000 <v>"),
    entry("SET", Write, "<s> <v> ~ [ NX | XX ] [ GET ] [ EX 1000 | PX 900000 | KEEPTTL ]"),
    entry("SETEX", Write, "<s> 1000 <v>"),
    entry("SETNX", Write, "<s> <v>"),
    entry("SETRANGE", Write, "<s> ( 0 | 3 | 7 ) <v>"),
    entry("STRLEN", Exact, "<s>"),
    entry("SUBSTR", Exact, "<s> <i> <i>"),
    // Bits.
    entry("BITCOUNT", Exact, "<s> [ <i> <i> | <i> <i> BIT ]"),
    entry("BITFIELD", Write, "<s> { ( INCRBY u4 <i> 3 | SET i5 #1 <i> | GET u8 0 ) }"),
    entry("BITFIELD_RO", Exact, "<s> { GET ( u8 | i5 ) ( 0 | 8 | #1 ) }"),
    entry("BITOP", Write, "( NOT <s> <s> | ( AND | OR | XOR ) <s> { <s> } )"),
    entry("BITPOS", Exact, "<s> ( 0 | 1 ) [ <i> ]"),
    entry("GETBIT", Exact, "<s> ( 0 | 5 | 9 )"),
    entry("SETBIT", Write, "<s> ( 0 | 5 | 9 ) ( 0 | 1 )"),
    // Hashes.
    entry("HDEL", Write, "<h> { <f> }"),
    entry("HEXISTS", Exact, "<h> <f>"),
    entry("HGET", Exact, "<h> <f>"),
    entry("HGETALL", Pairs, "<h>"),
    entry("HINCRBY", Write, "<h> <f> <i>"),
    entry("HINCRBYFLOAT", Write, "<h> <f> 0.5"),
    entry("HKEYS", Unordered, "<h>"),
    entry("HLEN", Exact, "<h>"),
    entry("HMGET", Exact, "<h> { <f> }"),
    entry("HMSET", Write, "<h> { <f> <v> }"),
    entry("HRANDFIELD", Chance, "<h> [ 2 | -3 WITHVALUES ]"),
    entry("HSCAN", Chance, "<h> 0 [ COUNT 100 ]"),
    entry("HSET", Write, "<h> { <f> <v> }"),
    entry("HSETNX", Write, "<h> <f> <v>"),
    entry("HSTRLEN", Exact, "<h> <f>"),
    entry("HVALS", Unordered, "<h>"),
    // Lists.
    entry("LINDEX", Exact, "<l> <i>"),
    entry("LINSERT", Write, "<l> ( BEFORE | AFTER ) <m> <v>"),
    entry("LLEN", Exact, "<l>"),
    entry("LMOVE", Write, "<l> <l> ( LEFT | RIGHT ) ( LEFT | RIGHT )"),
    entry("LMPOP", Write, "( 1 <l> | 2 <l> <l> ) ( LEFT | RIGHT ) [ COUNT 2 ]"),
    entry("LPOP", Write, "<l> [ 2 ]"),
    entry("LPOS", Exact, "<l> <m> ~ [ RANK -1 ] [ COUNT 0 ] [ MAXLEN 3 ]"),
    entry("LPUSH", Write, "<l> { <v> }"),
    entry("LPUSHX", Write, "<l> { <v> }"),
    entry("LRANGE", Exact, "<l> <i> <i>"),
    entry("LREM", Write, "<l> <i> <m>"),
    entry("LSET", Write, "<l> <i> <v>"),
    entry("LTRIM", Write, "<l> 0 ( 1 | 3 )"),
    entry("RPOP", Write, "<l> [ 2 ]"),
    entry("RPOPLPUSH", Write, "<l> <l>"),
    entry("RPUSH", Write, "<l> { <v> }"),
    entry("RPUSHX", Write, "<l> { <v> }"),
    // What blocks, for hardly any time.
    entry("BLMOVE", Write, "<l> <l> LEFT RIGHT 0.002"),
    entry("BLMPOP", Write, "0.002 1 <l> LEFT"),
    entry("BLPOP", Write, "<l> <l> 0.002"),
    entry("BRPOP", Write, "<l> 0.002"),
    entry("BRPOPLPUSH", Write, "<l> <l> 0.002"),
    entry("BZMPOP", Write, "0.002 1 <z> MIN"),
    entry("BZPOPMAX", Write, "<z> 0.002"),
    entry("BZPOPMIN", Write, "<z> 0.002"),
    // Sets.
    entry("SADD", Write, "<e> { <m> }"),
    entry("SCARD", Exact, "<e>"),
    entry("SDIFF", Unordered, "<e> { <e> }"),
    entry("SDIFFSTORE", Write, "<e> <e> { <e> }"),
    entry("SINTER", Unordered, "<e> { <e> }"),
    entry("SINTERCARD", Exact, "( 1 <e> | 2 <e> <e> ) [ LIMIT 2 ]"),
    entry("SINTERSTORE", Write, "<e> <e> { <e> }"),
    entry("SISMEMBER", Exact, "<e> <m>"),
    entry("SMEMBERS", Unordered, "<e>"),
    entry("SMISMEMBER", Exact, "<e> { <m> }"),
    entry("SMOVE", Write, "<e> <e> <m>"),
    entry("SPOP", Write, "<e> [ 2 ]"),
    entry("SRANDMEMBER", Chance, "<e> [ 2 ]"),
    entry("SREM", Write, "<e> { <m> }"),
    entry("SSCAN", Chance, "<e> 0"),
    entry("SUNION", Unordered, "<e> { <e> }"),
    entry("SUNIONSTORE", Write, "<e> <e> { <e> }"),
    // Sorted sets.
    entry("ZADD", Write, "( <z> [ NX | XX | XX GT ] [ CH ] ( { <w> <m> } | INCR 2 <m> ) | <y> { 0 <m> } )"),
    entry("ZCARD", Exact, "<z>"),
    entry("ZCOUNT", Exact, "<z> -inf ( +inf | (3 )"),
    entry("ZDIFF", Exact, "( 1 <z> | 2 <z> <z> | 2 <e> <z> ) [ WITHSCORES ]"),
    entry("ZDIFFSTORE", Write, "<z> 2 <z> <z>"),
    entry("ZINCRBY", Write, "<z> <w> <m>"),
    entry("ZINTER", Exact, "2 <z> ( <z> | <e> ) ~ [ WEIGHTS 2 1 ] [ AGGREGATE MAX ] [ WITHSCORES ]"),
    entry("ZINTERCARD", Exact, "2 <z> <z> [ LIMIT 1 ]"),
    entry("ZINTERSTORE", Write, "<z> 2 <z> ( <z> | <e> ) ~ [ WEIGHTS 2 1 ] [ AGGREGATE MIN ]"),
    entry("ZLEXCOUNT", Exact, "<y> - +"),
    entry("ZMPOP", Write, "( 1 <z> | 2 <z> <z> ) ( MIN | MAX ) [ COUNT 2 ]"),
    entry("ZMSCORE", Exact, "<z> { <m> }"),
    entry("ZPOPMAX", Write, "<z>"),
    entry("ZPOPMIN", Write, "<z> [ 2 ]"),
    entry("ZRANDMEMBER", Chance, "<z> [ 2 ]"),
    entry("ZRANGE", Exact, "<z> <i> <i> ~ [ REV ] [ WITHSCORES ]"),
    entry("ZRANGEBYLEX", Exact, "<y> - + [ LIMIT 0 2 ]"),
    entry("ZRANGEBYSCORE", Exact, "<z> -inf +inf ~ [ WITHSCORES ] [ LIMIT 0 2 ]"),
    entry("ZRANGESTORE", Write, "<z> <z> <i> <i> [ REV ]"),
    entry("ZRANK", Exact, "<z> <m>"),
    entry("ZREM", Write, "<z> { <m> }"),
    entry("ZREMRANGEBYLEX", Write, "<y> [m3 +"),
    entry("ZREMRANGEBYRANK", Write, "<z> 2 -1"),
    entry("ZREMRANGEBYSCORE", Write, "<z> 3 +inf"),
    entry("ZREVRANGE", Exact, "<z> <i> <i> [ WITHSCORES ]"),
    entry("ZREVRANGEBYLEX", Exact, "<y> + -"),
    entry("ZREVRANGEBYSCORE", Exact, "<z> +inf -inf [ WITHSCORES ]"),
    entry("ZREVRANK", Exact, "<z> <m>"),
    entry("ZSCAN", Chance, "<z> 0"),
    entry("ZSCORE", Exact, "<z> <m>"),
    entry("ZUNION", Exact, "2 <z> ( <z> | <e> ) ~ [ WEIGHTS 1 3 ] [ AGGREGATE SUM ] [ WITHSCORES ]"),
    entry("ZUNIONSTORE", Write, "<z> 2 <z> ( <z> | <e> ) [ WEIGHTS 1 3 ]"),
    // Places.
    entry("GEOADD", Write, "<g> [ NX | XX ] { <lon> <lat> <m> }"),
    entry("GEODIST", Exact, "<g> <m> <m> [ km ]"),
    entry("GEOHASH", Exact, "<g> { <m> }"),
    entry("GEOPOS", Exact, "<g> { <m> }"),
    entry(
        "GEORADIUS",
        Write,
        "<g> 15 37 ( 100 | 300 ) km [ WITHDIST | ASC | STORE <z> | COUNT 2 STOREDIST <z> ]",
    ),
    entry("GEORADIUS_RO", Exact, "<g> 15 37 300 km ~ [ WITHDIST ] [ WITHCOORD ] [ ASC ]"),
    entry("GEORADIUSBYMEMBER", Write, "<g> <m> 300 km [ WITHDIST | ASC | STORE <z> ]"),
    entry("GEORADIUSBYMEMBER_RO", Exact, "<g> <m> 300 km ~ [ WITHHASH ] [ DESC ]"),
    entry(
        "GEOSEARCH",
        Exact,
        "<g> ( FROMLONLAT 15 37 | FROMMEMBER <m> ) BYRADIUS 300 km ~ [ ASC ] [ WITHDIST ]",
    ),
    entry("GEOSEARCHSTORE", Write, "<z> <g> FROMLONLAT 15 37 BYBOX 400 400 km [ STOREDIST ]"),
    // Counting roughly.
    entry("PFADD", Write, "<p> { <v> }"),
    entry("PFCOUNT", Exact, "<p> [ <p> ]"),
    entry("PFMERGE", Write, "<p> { <p> }"),
    // Streams.
    entry("XACK", Write, "<x> grp { <id> }"),
    entry("XADD", Write, "<x> [ NOMKSTREAM ] [ MAXLEN 5 ] * <f> <v>"),
    entry("XAUTOCLAIM", Write, "<x> grp ( bob | eve ) 0 0 [ COUNT 1 ]"),
    entry("XCLAIM", Write, "<x> grp ( bob | eve ) 0 { <id> } [ JUSTID ]"),
    entry("XDEL", Write, "<x> <id>"),
    entry(
        "XGROUP",
        Write,
        "( CREATE <x> grp ( 0 | $ ) [ MKSTREAM ] | DESTROY <x> grp | SETID <x> grp 0 | CREATECONSUMER <x> grp bob | DELCONSUMER <x> grp bob )",
    ),
    entry("XINFO", Chance, "GROUPS <x>"),
    entry("XLEN", Exact, "<x>"),
    entry("XPENDING", Exact, "<x> grp"),
    entry("XRANGE", Exact, "<x> - + [ COUNT 2 ]"),
    entry("XREAD", Exact, "[ COUNT 2 ] STREAMS ( <x> 0 | <x> <x> 0 0 )"),
    entry("XREADGROUP", Write, "GROUP grp ( bob | eve ) [ COUNT 1 ] [ NOACK ] STREAMS <x> ( > | 0 )"),
    entry("XREVRANGE", Exact, "<x> + - [ COUNT 2 ]"),
    entry("XSETID", Write, "<x> 9999999999999-0"),
    entry("XTRIM", Write, "<x> MAXLEN ( 1 | 3 )"),
    // Keys.
    entry("COPY", Write, "( <s> <s> | <h> <h> | <k> <k> ) ~ [ REPLACE ] [ DB <db> ]"),
    entry("DBSIZE", Exact, ""),
    entry("DEL", Write, "{ <k> }"),
    entry("DUMP", Chance, "<k>"),
    entry("EXISTS", Exact, "<k> { <k> } { <k> }"),
    entry("EXPIRE", Write, "<k> 1000 [ NX | GT ]"),
    entry("EXPIREAT", Write, "<k> 33177117420"),
    entry("EXPIRETIME", Exact, "<k>"),
    entry("FLUSHALL", Write, "[ SYNC ]"),
    entry("FLUSHDB", Write, "[ ASYNC ]"),
    entry("KEYS", Unordered, "( * | s* | *0 | STORE )"),
    entry("MOVE", Write, "<k> <db>"),
    entry("OBJECT", Chance, "ENCODING <k>"),
    entry("PERSIST", Write, "<k>"),
    entry("PEXPIRE", Write, "<k> 900000"),
    entry("PEXPIREAT", Write, "<k> 33177117420000"),
    entry("PEXPIRETIME", Exact, "<k>"),
    entry("PTTL", Chance, "<k>"),
    entry("RANDOMKEY", Chance, ""),
    entry("RENAME", Write, "( <s> <s> | <k> <k> )"),
    entry("RENAMENX", Write, "( <s> <s> | <k> <k> )"),
    entry("RESTORE", Write, "<s> ( 0 | 900000 ) <dump> [ REPLACE ]"),
    entry("SCAN", Chance, "0 COUNT 100"),
    // Sets that are sorted by equal words come in any order, which is why it is one of BY and ALPHA.
    entry(
        "SORT",
        Write,
        "( <l> | <e> | <z> ) ( BY s* | ALPHA ) ~ [ GET # GET h*->f1 ] [ DESC ] [ STORE <l> ]",
    ),
    entry(
        "SORT_RO",
        Exact,
        "( <l> | <e> | <z> ) ( BY s* | ALPHA ) ~ [ GET # GET s* ] [ DESC ] [ LIMIT 0 3 ]",
    ),
    entry("SWAPDB", Write, "<db> <db>"),
    entry("TOUCH", Exact, "{ <k> }"),
    entry("TTL", Chance, "<k>"),
    entry("TYPE", Exact, "<k>"),
    entry("UNLINK", Write, "{ <k> }"),
    // Scripts, with keys that they declare and keys that they don't.
    entry(
        "EVAL",
        Write,
        "( <set-script> 1 <s> <v> | <sly-set-script> 0 <v> | <copy-script> 2 <s> <s> <v> | <get-script> 1 <s> )",
    ),
    entry("EVAL_RO", Exact, "( <get-script> 1 <s> | <sly-get-script> 0 | <two-gets-script> 1 <s> )"),
    entry("EVALSHA", Write, "( <set-sha> 1 <s> <v> )"),
    entry("EVALSHA_RO", Exact, "( <get-sha> 1 <s> )"),
    entry("FCALL", Write, "poke 1 <s> <v>"),
    entry("FCALL_RO", Exact, "( peek 1 <s> | peek_s0 0 )"),
    entry("PUBLISH", Write, "news <v>"),
];

pub(crate) const LIBRARY: &str = "#!lua name=checker
redis.register_function{function_name='peek', flags={'no-writes'}, callback=function(k) return redis.call('get', k[1]) end}
redis.register_function{function_name='peek_s0', flags={'no-writes'}, callback=function(k) return redis.call('get', 's0') end}
redis.register_function('poke', function(k, a) return redis.call('set', k[1], a[1]) end)";

/// What placeholders stand for, by name; keys in quotes are those that a script uses undeclared.
const SCRIPTS: &[(&str, &str)] = &[
    ("<get-script>", "return redis.call('get',KEYS[1])"),
    ("<set-script>", "return redis.call('set',KEYS[1],ARGV[1])"),
    ("<sly-get-script>", "return redis.call('get','s0')"),
    ("<sly-set-script>", "return redis.call('set','s0',ARGV[1])"),
    ("<two-gets-script>", "return {redis.call('get',KEYS[1]),redis.call('hget','h0','f1')}"),
    ("<copy-script>", "redis.call('set',KEYS[2],ARGV[1]) return redis.call('get',KEYS[1])"),
];

pub(crate) fn script(name: &str) -> &'static str {
    SCRIPTS.iter().find(|(found, _)| *found == name).expect("a script").1
}

/// What only the servers know.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub(crate) dump: Vec<u8>,
    pub(crate) get_sha: Vec<u8>,
    pub(crate) set_sha: Vec<u8>,
}

/// A word that no other command has, so that a command of the stream can be told by it.
pub(crate) fn tag() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(FIRST_TAG);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const FIRST_TAG: u64 = 1_000_001;

/// The tag that this word is.
pub(crate) fn tag_of(word: &[u8]) -> Option<u64> {
    let digits = word.strip_prefix(b"u").unwrap_or(word);
    let is_tag = digits.len() >= 7 && digits.len() < 12 && digits.iter().all(u8::is_ascii_digit);
    is_tag.then(|| std::str::from_utf8(digits).expect("digits").parse().expect("digits"))
}

pub(crate) struct Grammar {
    pub(crate) rng: Rng,
    pub(crate) fixed: Fixed,
}

impl Grammar {
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.rng.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.rng.below(of.len())]
    }

    /// A command of that kind: the commonest ones more often.
    pub(crate) fn command(&mut self, write: bool) -> (Words, Judge) {
        let entry = loop {
            let entry = self.pick(TABLE);
            let rare = match entry.name {
                "FLUSHALL" | "FLUSHDB" => 40,
                "SWAPDB" | "KEYS" | "DBSIZE" | "RANDOMKEY" | "SCAN" => 12,
                name if name.starts_with('B') && name.contains("POP") || name == "BLMOVE" => 8,
                "XADD" | "LTRIM" | "SET" | "GET" | "HSET" | "HGET" | "SADD" | "ZADD" => 1,
                _ => 2,
            };
            if (entry.judge == Write) == write && self.one_in(rare) {
                break entry;
            }
        };
        (self.say(entry), entry.judge)
    }

    pub(crate) fn say(&mut self, entry: &Entry) -> Words {
        let words: Vec<&str> = entry.grammar.split_whitespace().collect();
        let mut said = vec![entry.name.as_bytes().to_vec()];
        self.expand(&words, &mut said);
        said
    }

    fn expand(&mut self, words: &[&str], said: &mut Words) {
        let mut at = 0;
        while let Some(word) = words.get(at) {
            at += 1;
            match *word {
                "~" => return self.shuffle(&words[at..], said),
                open @ ("(" | "[" | "{") => {
                    let end = at + closing(&words[at..]);
                    self.group(open, &words[at..end], said);
                    at = end + 1;
                }
                word if word.starts_with('<') => said.push(self.word(word)),
                word => said.push(word.as_bytes().to_vec()),
            }
        }
    }

    fn group(&mut self, open: &str, words: &[&str], said: &mut Words) {
        let choices = split(words, "|");
        match open {
            "[" if self.one_in(2) => {}
            "{" => (0..=self.rng.below(3)).for_each(|_| self.expand(words, said)),
            _ => {
                let choice = *self.pick(&choices);
                self.expand(choice, said);
            }
        }
    }

    /// Options in any order, and sometimes one of them twice.
    fn shuffle(&mut self, words: &[&str], said: &mut Words) {
        let mut parts: Vec<&[&str]> = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let length = if matches!(words[at], "[" | "(") { closing(&words[at + 1..]) + 2 } else { 1 };
            parts.push(&words[at..at + length]);
            at += length;
        }
        if self.one_in(12) {
            parts.push(*self.pick(&parts));
        }
        while !parts.is_empty() {
            let part = parts.swap_remove(self.rng.below(parts.len()));
            self.expand(part, said);
        }
    }

    pub(crate) fn value(&mut self) -> Vec<u8> {
        self.word("<v>")
    }

    fn word(&mut self, name: &str) -> Vec<u8> {
        let odd = self.one_in(20);
        match name {
            "<k>" => self.key(&[]),
            _ if odd && name.len() == 3 && "shlezxgn".contains(&name[1..2]) => self.key(&[]),
            "<s>" => self.key(&["s0", "s0", "s1", "c0", "c1", "n0", "STORE"]),
            "<n>" => self.key(&["n0", "n0", "n0", "s1"]),
            "<h>" => self.key(&["h0", "h0", "h1", "BY"]),
            "<l>" => self.key(&["l0", "l1", "BY"]),
            "<e>" => self.key(&["e0", "e1", "STORE"]),
            "<z>" => self.key(&["z0", "z1", "STORE"]),
            "<x>" => b"x0".to_vec(),
            "<g>" => b"g0".to_vec(),
            // Ranges of words mean nothing where scores differ.
            "<y>" => b"y0".to_vec(),
            "<p>" => self.key(&["p0", "p1"]),
            "<v>" if odd => self.pick(&["STORE", "GET", "KEYS", "NX", "s0", "0"]).as_bytes().to_vec(),
            "<v>" if self.one_in(3) => self.pick(&["0", "1", "2", "a"]).as_bytes().to_vec(),
            "<v>" => format!("u{}", tag()).into_bytes(),
            "<w>" if self.one_in(3) => self.pick(&["1", "2", "3"]).as_bytes().to_vec(),
            "<w>" => tag().to_string().into_bytes(),
            "<i>" => self.pick(&["0", "1", "-1", "2", "5"]).as_bytes().to_vec(),
            "<f>" => self.pick(&["f0", "f1", "f2", "f3"]).as_bytes().to_vec(),
            "<m>" => self.pick(&["0", "1", "2", "m1", "m2", "m3"]).as_bytes().to_vec(),
            "<db>" => self.pick(&["0", "1", "2"]).as_bytes().to_vec(),
            "<id>" => self.pick(&["0-1", "1-0", "5-5"]).as_bytes().to_vec(),
            "<lon>" => self.pick(&["15.1", "14.2", "13.36"]).as_bytes().to_vec(),
            "<lat>" => self.pick(&["37.5", "38.1", "36.9"]).as_bytes().to_vec(),
            "<dump>" => self.fixed.dump.clone(),
            "<get-sha>" => self.fixed.get_sha.clone(),
            "<set-sha>" => self.fixed.set_sha.clone(),
            name => script(name).as_bytes().to_vec(),
        }
    }

    /// One of these, or any that may hold anything.
    fn key(&mut self, of: &[&str]) -> Vec<u8> {
        loop {
            let key = if of.is_empty() { *self.pick(&KEYS) } else { *self.pick(of) };
            // What a count looks like inside depends on who asked for it.
            // Other keys are left to the motifs, and to those who need equal scores.
            if !of.is_empty() || !key.starts_with(['p', 'm', 'y']) {
                return key.as_bytes().to_vec();
            }
        }
    }
}

/// Where the bracket that is open is closed.
fn closing(words: &[&str]) -> usize {
    let mut depth = 1;
    for (at, word) in words.iter().enumerate() {
        match *word {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("not closed: {words:?}");
}

/// Splits at this word where no bracket is open.
fn split<'a>(words: &'a [&'a str], by: &str) -> Vec<&'a [&'a str]> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, word) in words.iter().enumerate() {
        match *word {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            word if word == by && depth == 0 => {
                parts.push(&words[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&words[from..]);
    parts
}
