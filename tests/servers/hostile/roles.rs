//! What hostile nodes do.

use crate::support::hostile::{Act, Change, Role};

/// How much of the harm that a role does reaches clients, and cannot but do so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// None: whoever reads gets what is right.
    Nobody,
    /// Whoever gets the broken reply may lose its connection, or get an error: its beginning was passed on.
    Reader,
    /// The broken reply is a reply like any other: it is passed on.
    Lie,
    /// The connection does not answer any more, to nobody who shares it.
    Lane,
}

/// A role, and what may come of it.
pub(crate) struct Case {
    pub(crate) role: Role,
    pub(crate) harm: Harm,
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for on in [&["ROLE"][..], &["INFO"], &["CONFIG"], &["COMMAND"], &["PING"], &["HELLO", "CLIENT"]] {
        cases.extend(shapes(on));
    }
    cases.push(endless(
        "messages that all is gone, without end",
        &["HELLO", "CLIENT"],
        b"",
        b">2\r\n$10\r\ninvalidate\r\n_\r\n",
    ));
    cases.extend(arrays());
    cases.extend(offsets());
    cases.extend(reports());
    cases.extend(tables());
    cases.extend(streams());
    cases.extend(refusals());
    cases.extend(baits());
    cases
}

fn case(name: &str, on: &'static [&'static str], act: Act) -> Case {
    let name = format!("{}: {name}", on[0]).leak();
    Case { role: Role { name, on, act }, harm: Harm::Nobody }
}

fn say(name: &str, on: &'static [&'static str], bytes: impl Into<Vec<u8>>) -> Case {
    case(name, on, Act::Say(bytes.into()))
}

fn endless(name: &str, on: &'static [&'static str], first: &[u8], then: &[u8]) -> Case {
    case(name, on, Act::Endless(first.to_vec(), then.to_vec()))
}

fn change(name: &str, on: &'static [&'static str], change: Change) -> Case {
    case(name, on, Act::Change(change))
}

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [format!("*{}\r\n", items.len()).into_bytes(), items.concat()].concat()
}

fn tower(levels: usize) -> Vec<u8> {
    [&b"*1\r\n".repeat(levels)[..], b":1\r\n"].concat()
}

/// What is wrong with a reply to any command.
fn shapes(on: &'static [&'static str]) -> Vec<Case> {
    vec![
        say("a million levels", on, tower(1_000_000)),
        say("a length beyond every limit", on, "$9223372036854775807\r\nx"),
        say("an array beyond every limit", on, "*2147483647\r\n:1\r\n"),
        endless("a bulk string without end", on, b"$4294967296\r\n", b"x"),
        endless("a line without end", on, b"+", b"x"),
        endless("a push without end", on, b">2\r\n+invalidate\r\n$4294967296\r\n", b"x"),
        case("no reply", on, Act::Silence),
        case("half a reply", on, Act::Half),
        change("more replies than commands", on, |real, _, _| [real, b"+OK\r\n".repeat(1000)].concat()),
    ]
}

/// What else is wrong with a reply that is an array.
fn arrays() -> Vec<Case> {
    let on = &["ROLE"];
    let names = |word: &[u8]| {
        array(&[bulk(b"slave"), bulk(word), b":6379\r\n".to_vec(), bulk(b"connected"), b":7\r\n".to_vec()])
    };
    let many = vec![array(&[bulk(b"127.0.0.1"), bulk(b"1"), bulk(b"1")]); 30_000];
    vec![
        say("ten thousand levels", on, tower(10_000)),
        say("a length of minus two", on, "$-2\r\n"),
        say("an array of minus five", on, "*-5\r\n"),
        case("one byte at a time", on, Act::Drip),
        case("a closed connection", on, Act::HangUp),
        say("a map", on, "%1\r\n+role\r\n+master\r\n"),
        say("a set", on, "~2\r\n+master\r\n:1\r\n"),
        say("RESP3's null", on, "_\r\n"),
        change("a push before the reply", on, |real, _, _| [b">2\r\n+a\r\n+b\r\n".to_vec(), real].concat()),
        change("an attribute before the reply", on, |real, _, _| {
            [b"|1\r\n+a\r\n+b\r\n".to_vec(), real].concat()
        }),
        say("HTTP", on, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
        say("nothing in it", on, "*0\r\n"),
        say("a primary and no more", on, array(&[bulk(b"master")])),
        say("numbers only", on, "*3\r\n:1\r\n:2\r\n:3\r\n"),
        say("a sentinel", on, array(&[bulk(b"sentinel"), array(&[bulk(b"main")])])),
        say("control characters in a name", on, names(b"\0\x1b[31m\r\nERROR forged\r\n\x07")),
        say("a name of eight megabytes", on, names(&b"h".repeat(8 << 20))),
        say("thirty thousand replicas", on, array(&[bulk(b"master"), b":7\r\n".to_vec(), array(&many)])),
        say("control characters in an error", on, "-ERR \x1b[2J\nERROR forged\r\x07\r\n"),
    ]
}

/// Offsets that nobody has, and nodes that are not what they say.
fn offsets() -> Vec<Case> {
    let on = &["ROLE"];
    let master = |offset: &str| format!("*3\r\n$6\r\nmaster\r\n:{offset}\r\n*0\r\n");
    let mut cases = vec![
        say("a negative offset", on, master("-9223372036854775808")),
        say("an offset that overflows", on, master("9223372036854775808")),
        say("a primary at the highest offset", on, master("9223372036854775807")),
        change("an offset that goes back each time", on, |real, played, _| {
            with_last_number(&real, i64::MAX - i64::try_from(played).unwrap_or(0) * 1000)
        }),
        change("an offset of its own each time", on, |real, played, _| {
            with_last_number(&real, if played % 2 == 0 { 3 } else { i64::MAX })
        }),
        change("a replica of itself", on, |_, _, port| {
            format!("*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$9\r\nconnected\r\n:7\r\n")
                .into_bytes()
        }),
        change("a primary and a replica in turn", on, |_, played, _| match played % 2 {
            0 => b"*3\r\n$6\r\nmaster\r\n:7\r\n*0\r\n".to_vec(),
            _ => b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:7\r\n".to_vec(),
        }),
    ];
    // A replica that says it has applied everything has it served.
    (3..5).for_each(|at| cases[at].harm = Harm::Lie);
    cases
}

/// A `ROLE` reply with another number where it says where the node is.
fn with_last_number(real: &[u8], number: i64) -> Vec<u8> {
    let text = String::from_utf8_lossy(real).into_owned();
    let at = if text.contains("slave") { text.rfind("\r\n:") } else { text.find("\r\n:") };
    let Some(at) = at.map(|at| at + 3) else { return real.to_vec() };
    let end = text[at..].find("\r\n").map_or(text.len(), |end| at + end);
    format!("{}{number}{}", &text[..at], &text[end..]).into_bytes()
}

/// What is wrong with `INFO`.
fn reports() -> Vec<Case> {
    let on = &["INFO"];
    let fields = |value: &[u8]| {
        let names =
            ["redis_version", "run_id", "redis_mode", "master_host", "role", "loading", "master_replid"];
        let lines = names.iter().map(|name| [name.as_bytes(), b":", value, b"\r\n"].concat());
        bulk(&lines.collect::<Vec<_>>().concat())
    };
    let lines = b"slave0:ip=127.0.0.1,port=1,state=online,offset=1,lag=0\r\n".repeat(200_000);
    vec![
        say("fifty megabytes", on, bulk(&b"x:y\r\n".repeat(10 << 20))),
        say("one line of fifteen megabytes", on, bulk(&b"x".repeat(15 << 20))),
        say("fields of two megabytes each", on, fields(&b"v".repeat(2 << 20))),
        say("a list of many replicas", on, bulk(&lines)),
        say("control characters", on, fields(b"\x1b[31m\0\x07")),
        say(
            "random bytes",
            on,
            bulk(&(0..100_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect::<Vec<_>>()),
        ),
        say("a number", on, ":1\r\n"),
        say("an array", on, array(&[bulk(b"role:master")])),
        change("no line ends", on, |real, _, _| {
            bulk(
                &real
                    .iter()
                    .map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte })
                    .collect::<Vec<_>>(),
            )
        }),
        change("every field twice, the other way round", on, |real, _, _| {
            let body = real[real.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1)..].to_vec();
            bulk(
                &[&body[..], b"role:master\r\nrole:slave\r\nloading:1\r\nmaster_link_status:down\r\n"]
                    .concat(),
            )
        }),
        change("numbers that overflow", on, |real, _, _| {
            let more = "master_repl_offset:99999999999999999999\r\nslave_repl_offset:-99\r\ntcp_port:65536\r\n\
                        master_link_down_since_seconds:9223372036854775807\r\nuptime_in_seconds:18446744073709551616\r\n\
                        second_repl_offset:9223372036854775807\r\nrepl_backlog_first_byte_offset:9223372036854775807\r\n\
                        master_replid2:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nrepl_backlog_histlen:-1\r\n";
            let body = real[real.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1)..].to_vec();
            bulk(&[&body[..], more.as_bytes()].concat())
        }),
    ]
}

/// What is wrong with `COMMAND`.
fn tables() -> Vec<Case> {
    let on = &["COMMAND"];
    let numbers = |numbers: [i64; 3]| numbers.map(|n| format!(":{n}\r\n").into_bytes()).concat();
    let entry = |name: &str, first: [i64; 3], specs: Vec<u8>| {
        let flags = array(&[bulk(b"readonly"), bulk(b"movablekeys")]);
        let empty = b"*0\r\n".to_vec();
        let head = [bulk(name.as_bytes()), b":-2\r\n".to_vec(), flags, numbers(first)];
        [&b"*10\r\n"[..], &head.concat(), &empty, &empty, &specs, &empty].concat()
    };
    let field = |name: &str, value: Vec<u8>| [bulk(name.as_bytes()), value].concat();
    let map =
        |fields: &[Vec<u8>]| [format!("*{}\r\n", fields.len() * 2).into_bytes(), fields.concat()].concat();
    let part = |of: &str, fields: &[(&str, i64)]| {
        let fields: Vec<_> =
            fields.iter().map(|(name, n)| field(name, format!(":{n}\r\n").into_bytes())).collect();
        map(&[field("type", bulk(of.as_bytes())), field("spec", map(&fields))])
    };
    let spec = |begin: Vec<u8>, find: Vec<u8>| {
        map(&[field("flags", array(&[bulk(b"RO")])), field("begin_search", begin), field("find_keys", find)])
    };
    let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
    let mut specs = Vec::new();
    for number in [least, -1, 0, 1, most, i64::MAX] {
        for step in [least, 0, most] {
            let range = [("lastkey", number), ("keystep", step), ("limit", most)];
            let count = [("keynumidx", number), ("firstkey", number), ("keystep", step)];
            specs.push(spec(part("index", &[("index", number)]), part("range", &range)));
            specs.push(spec(part("index", &[("index", number)]), part("keynum", &count)));
        }
    }
    let absurd: Vec<_> =
        ["get", "set", "mget", "del"].map(|name| entry(name, [1, 1, 1], array(&specs))).to_vec();
    let legacy: Vec<_> = ["get", "set", "mget"]
        .map(|name| {
            [
                b"*7\r\n".to_vec(),
                bulk(name.as_bytes()),
                b":-2\r\n*1\r\n+readonly\r\n".to_vec(),
                numbers([most, least, 0]),
                b"*0\r\n".to_vec(),
            ]
            .concat()
        })
        .to_vec();
    let many: Vec<_> =
        (0..15_000).map(|n| entry(&format!("command{n}"), [1, 1, 1], b"*0\r\n".to_vec())).collect();
    let mut inside = entry("deep", [1, 1, 1], b"*0\r\n".to_vec());
    for _ in 0..12 {
        inside = [&inside[..inside.len() - 4], &array(&[inside.clone()])].concat();
    }
    vec![
        say("a million entries", on, [b"*1000000\r\n".to_vec(), b"*0\r\n".repeat(1_000_000)].concat()),
        say("fifteen thousand commands", on, array(&many)),
        say("absurd key specifications", on, array(&absurd)),
        say("absurd keys of old", on, array(&legacy)),
        say("subcommands of subcommands", on, array(&[inside])),
    ]
}

/// What is wrong with the answer to `PSYNC`, and with the stream.
fn streams() -> Vec<Case> {
    let on = &["PSYNC"];
    let id = "a".repeat(40);
    let full = |offset: &str, rest: &str| format!("+FULLRESYNC {id} {offset}\r\n{rest}");
    let go_on = |stream: &str| format!("+CONTINUE\r\n{stream}");
    let set = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    vec![
        say("garbage", on, b"\0\x1b[31m\xff what?\r\n"),
        endless("a line without end", on, b"", b"x"),
        endless("newlines without end", on, b"", b"\n"),
        case("no reply", on, Act::Silence),
        case("one byte at a time", on, Act::Drip),
        say("a full resync of a short ID", on, format!("+FULLRESYNC {} 1\r\n", "a".repeat(39))),
        say("a full resync at an offset that overflows", on, full("9223372036854775808", "")),
        say(
            "a full resync at the highest offset",
            on,
            [full("9223372036854775807", "$1\r\nx").as_bytes(), &set.repeat(100)].concat(),
        ),
        say(
            "another history goes on",
            on,
            [format!("+CONTINUE {id}\r\n").as_bytes(), &set.repeat(100)].concat(),
        ),
        say("a history that is none goes on", on, format!("+CONTINUE {}\r\n", "z".repeat(40))),
        endless("a dump of the greatest length", on, full("1", "$9223372036854775807\r\n").as_bytes(), b"x"),
        say("a dump of negative length", on, full("1", "$-1\r\n")),
        say("a dump of a length that is none", on, full("1", "$99999999999999999999\r\n")),
        endless(
            "a dump whose mark never comes",
            on,
            full("1", &format!("$EOF:{}\r\n", "m".repeat(40))).as_bytes(),
            b"mmmmmmmmmx",
        ),
        say("garbage in the stream", on, go_on("PING\r\n\0\x1b")),
        say("a command of negative length", on, go_on("*-2147483648\r\n*1\r\n$-1\r\n")),
        say(
            "an absurd database",
            on,
            go_on("*2\r\n$6\r\nSELECT\r\n$20\r\n99999999999999999999\r\n*2\r\n$6\r\nSELECT\r\n$2\r\n-1\r\n"),
        ),
        endless("a transaction without end", on, b"+CONTINUE\r\n*1\r\n$5\r\nMULTI\r\n", set),
        say("an argument beyond every limit", on, go_on("*2\r\n$3\r\nSET\r\n$9223372036854775807\r\nx")),
        endless("arguments without end", on, b"+CONTINUE\r\n*2147483647\r\n$3\r\nDEL\r\n", b"$1\r\nx\r\n"),
        endless(
            "an argument without end",
            on,
            b"+CONTINUE\r\n*3\r\n$3\r\nSET\r\n$9223372036854775807\r\n",
            b"x",
        ),
        endless(
            "acknowledgements wanted without end",
            on,
            b"+CONTINUE\r\n",
            b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n",
        ),
        say("control characters in an error", on, "-ERR \x1b[2J\x07\r\n"),
        say("no permission", on, "-NOPERM this user has no permissions to run the 'psync' command\r\n"),
    ]
}

/// Nodes that refuse, echo or say the same to everything.
fn refusals() -> Vec<Case> {
    let on = &["*"];
    let mut cases = vec![
        say("-LOADING", on, "-LOADING Redis is loading the dataset in memory\r\n"),
        say(
            "-BUSY",
            on,
            "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
        ),
        say("-NOAUTH", on, "-NOAUTH Authentication required.\r\n"),
        say("-NOPERM", on, "-NOPERM this user has no permissions to run this command\r\n"),
        say(
            "-MASTERDOWN",
            on,
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        ),
        say("-ERR max number of clients", on, "-ERR max number of clients reached\r\n"),
        say(
            "an error of ten megabytes",
            on,
            [b"-ERR ".to_vec(), b"\x1b[31m".repeat(2 << 20), b"\r\n".to_vec()].concat(),
        ),
        say("another error each time", on, "-ERR \r\n"),
        case("the request", on, Act::Echo),
        case("no reply", on, Act::Silence),
        case("a closed connection", on, Act::HangUp),
        say("HTTP", on, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        say("+OK", on, "+OK\r\n"),
        say("a null", on, "$-1\r\n"),
        endless("+OK without end", on, b"", b"+OK\r\n"),
        endless("messages without end", on, b"", b">2\r\n$10\r\ninvalidate\r\n_\r\n"),
    ];
    cases[7].role.act =
        Act::Change(|_, played, _| format!("-ERR number {played}: {}\r\n", "x".repeat(100_000)).into_bytes());
    cases
}

/// What is wrong with a reply to a client's own command.
fn baits() -> Vec<Case> {
    let on = &["BAIT"];
    let hurts = |harm: Harm, case: Case| Case { harm, ..case };
    vec![
        say("garbage", on, b"\0\x1b[31m\xff what?\r\n"),
        say("HTTP", on, "HTTP/1.1 400 Bad Request\r\n\r\n"),
        say("a length of minus two", on, "$-2\r\n"),
        say("a length beyond every limit", on, "$9223372036854775807\r\nx"),
        say("a number that is none", on, ":12x4\r\n"),
        say("-LOADING", on, "-LOADING Redis is loading the dataset in memory\r\n"),
        say(
            "-MASTERDOWN",
            on,
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        ),
        change("a push before the reply", on, |real, _, _| [b">2\r\n+a\r\n+b\r\n".to_vec(), real].concat()),
        case("half a reply", on, Act::Half),
        case("a closed connection", on, Act::HangUp),
        case("one byte at a time", on, Act::Drip),
        endless("a push without end", on, b">2\r\n+invalidate\r\n$4294967296\r\n", b"x"),
        endless("messages without end", on, b"", b">2\r\n$10\r\ninvalidate\r\n_\r\n"),
        hurts(Harm::Reader, say("two hundred thousand levels", on, tower(200_000))),
        hurts(Harm::Reader, endless("a line without end", on, b"+", b"x")),
        hurts(Harm::Reader, endless("a bulk string without end", on, b"$4294967296\r\n", b"x")),
        hurts(
            Harm::Lie,
            change("an attribute before the reply", on, |real, _, _| {
                [b"|1\r\n+a\r\n+b\r\n".to_vec(), real].concat()
            }),
        ),
        hurts(Harm::Lie, say("a map", on, "%1\r\n+a\r\n+b\r\n")),
        hurts(Harm::Lie, case("the request", on, Act::Echo)),
        hurts(Harm::Lane, case("no reply", on, Act::Silence)),
        hurts(Harm::Lane, say("an array beyond every limit", on, "*2147483647\r\n:1\r\n")),
        hurts(
            Harm::Lane,
            change("more replies than commands", on, |real, _, _| [real, b"+OK\r\n".repeat(1000)].concat()),
        ),
    ]
}
