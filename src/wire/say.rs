//! Every text that Redweir itself says to clients and nodes. One place, so that the wording is Redis' own.

use std::fmt::Write;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::core::argv::Args as _;
use crate::core::nodes::cause::Cause;
use crate::core::reason::Reason;
use crate::wire::reply::ErrorCode;
use crate::wire::request::Request;

/// What a blocking command answers to which nothing has come (`blocked.c`, `replyToBlockedClientTimedOut`).
pub const fn null_array(is_resp3: bool) -> &'static [u8] {
    if is_resp3 { b"_\r\n" } else { b"*-1\r\n" }
}

/// Redis' text for a read that no node may answer (`server.c`, `shared.masterdownerr`).
const MASTERDOWN: &str = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
/// The same while two nodes say that they are the primary, and nothing decides.
const TWO_PRIMARIES: &str =
    "MASTERDOWN Two nodes say that they are the primary and nothing decides between them.";
/// Bytes that a cause may have in an error.
const CAUSE: usize = 400;
/// `server.c`, `shared.roslaveerr`; of a script its place follows.
const READONLY: &[u8] = b"-READONLY You can't write against a read only replica.\r\n";
/// A command that has no place in a transaction (`server.c`, `processCommand`).
pub const NOT_IN_MULTI: &[u8] = b"-ERR Command not allowed inside a transaction\r\n";
/// `multi.c`, `execCommandAbort`
pub const EXECABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
/// A write, or a command with another effect, was sent and its connection lost before the reply.
pub const UNCERTAIN: &[u8] =
    b"-ERR the connection to the primary was lost before it answered: the command may have been executed\r\n";
/// A command that only its own connection could answer was lost with it.
pub const LOST: &[u8] = b"-ERR the connection to the primary was lost before it answered\r\n";
/// A read that no replica may serve, while too many of those go to the primary.
pub const PRIMARY_READ_LIMIT: &[u8] =
    b"-ERR no replica may serve this read, and the primary takes no more of those for now (primary-read-limit)\r\n";
/// A read whose node did not answer it, while more were sent again elsewhere than may be.
pub const REPEAT_LIMIT: &[u8] =
    b"-ERR the node did not answer this read, and too many were sent again elsewhere in the last seconds\r\n";
/// `server.c`, `shared.noautherr`
pub const NOAUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";
/// `acl.c`, `addAuthErrReply`
pub const WRONGPASS: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
/// `networking.c`, `helloCommand`
pub const HELLO_NOAUTH: &[u8] = b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n";
/// `networking.c`, `helloCommand`
pub const NOPROTO: &[u8] = b"-NOPROTO unsupported protocol version\r\n";
/// `networking.c`, `acceptCommonHandler`
pub const MAX_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";
/// The process that issued a cursor is not there any longer.
pub const CURSOR_GONE: &[u8] =
    b"-ERR invalid cursor: the server that issued it is gone or was restarted. Begin the scan again.\r\n";
/// A cursor of a replica, on a connection that needs the primary.
pub const CURSOR_OF_REPLICA: &[u8] = b"-ERR invalid cursor: it belongs to a replica, which may not serve this connection. Begin the scan again.\r\n";
/// The replica that issued a cursor may not serve reads now.
pub const CURSOR_BEHIND: &[u8] =
    b"-ERR invalid cursor: the replica that issued it is not fresh enough. Begin the scan again.\r\n";
/// No place for another exclusive connection.
pub const MAX_EXCLUSIVE: &[u8] =
    b"-ERR max number of exclusive connections to the primary reached (max-exclusive-connections)\r\n";
/// `networking.c`, `clientCommand`, for who waits when `CLIENT UNBLOCK … ERROR` is said
pub const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
/// `blocked.c`, `disconnectAllBlockedClients`
pub const UNBLOCKED_ROLE: &[u8] =
    b"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n";
/// Redis 7.2. On shared connections it would tell of somebody else's writes.
pub const WAITAOF: &[u8] =
    b"-ERR WAITAOF is not supported through Redweir: on pooled connections it cannot tell of this client's writes\r\n";
/// `server.c`, `shared.pong`
pub const PONG: &[u8] = b"+PONG\r\n";
/// `+OK`
pub const OK: &[u8] = b"+OK\r\n";
/// `networking.c`, `resetCommand`
pub const RESET: &[u8] = b"+RESET\r\n";
/// `db.c`, `selectCommand`
pub const BAD_DB: &[u8] = b"-ERR value is not an integer or out of range\r\n";
/// `db.c`, `selectCommand`: how the refusal of a database begins that there is not.
pub const DB_OUT_OF_RANGE: &[u8] = b"-ERR DB index is out of range";
/// `server.c`, `shared.syntaxerr`
pub const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
/// `REDWEIR HELP`.
pub const HELP: &[&str] = &[
    "REDWEIR <subcommand> [<arg> ...]. Subcommands are:",
    "AFTER <token> [<timeout>]",
    "    From now on, reads of this connection see what the token stands for. With a timeout (milliseconds)",
    "    answer once a replica has it, or when the time is up, and tell how many have.",
    "DOCTOR",
    "    Tell what is wrong with the nodes, what shows it, and what to do.",
    "EXPLAIN <command> [<arg> ...]",
    "    Tell where the command would go now, and why, for every node.",
    "LOSSES",
    "    Tell what failovers have lost: how many writes, and their keys.",
    "POLICY [<name>]",
    "    Tell or choose the policy of this connection.",
    "TOKEN",
    "    Tell a token for every write acknowledged up to now, for another connection's AFTER.",
    "VIEW",
    "    Tell what Redweir knows of every node.",
    "HELP",
    "    Print this help.",
];

/// That nobody may answer a command for this reason: Redis' own text, and after it why. Without `names` nothing of where nodes are.
pub fn masterdown(cause: Option<&Cause<'_>>, reason: Reason, names: bool) -> Vec<u8> {
    let (text, why) = match cause {
        _ if reason == Reason::Refused => {
            let why = "no replica is fresh enough, and the policy refuses such reads (when-behind); REDWEIR EXPLAIN says more";
            (MASTERDOWN, why.to_owned())
        }
        Some(cause @ Cause::TwoPrimaries(_)) => {
            (TWO_PRIMARIES, format!("{}: REPLICAOF the right one at the other", cause.text(names)))
        }
        Some(cause) => (MASTERDOWN, format!("no primary: {}", cause.text(names))),
        None => (MASTERDOWN, "no primary answered in time".to_owned()),
    };
    error(&format!("{text} redweir: {}", &why[..why.floor_char_boundary(CAUSE)]))
}

/// Whether an error says that another node should be asked: loading, or cut off. And, if a replica says so, a script or
/// function that is only known elsewhere, or a function that may write, of which a primary says something else.
pub fn asks_for_another_node(reply: &[u8], at_primary: bool) -> bool {
    match ErrorCode::of(reply) {
        Some(ErrorCode::Loading | ErrorCode::MasterDown) => true,
        Some(ErrorCode::NoScript | ErrorCode::ReadOnly) => !at_primary,
        // Of a cluster: the primary knows better where the key is.
        code if code.is_some_and(ErrorCode::is_of_cluster) => !at_primary,
        Some(ErrorCode::Err) => !at_primary && reply.starts_with(b"-ERR Function not found"),
        _ => false,
    }
}

/// The keys of a command are not in one slot (`cluster.c`, `clusterRedirectClient`).
pub const CROSSSLOT: &[u8] = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n";

/// To what every shard would have to do, on a connection that is with one of them: in a transaction, or subscribed.
pub const OF_ALL_SHARDS: &[u8] = b"-CROSSSLOT the command is about all shards of the cluster, and a transaction, or a subscribed connection, is with one of them\r\n";

/// Where a slot is the primaries do not agree for so long, or it has moved away from what was watched.
pub const SLOT_ON_ITS_WAY: &[u8] = b"-TRYAGAIN the hash slot is on its way to another shard\r\n";

/// To a command in a transaction.
pub const QUEUED: &[u8] = b"+QUEUED\r\n";

/// Nobody has the slot (`cluster.c`, `clusterRedirectClient`).
pub const SLOT_NOT_SERVED: &[u8] = b"-CLUSTERDOWN Hash slot not served\r\n";

/// What a server says to `CLUSTER` that is no node of one (`cluster.c`, `clusterCommand`).
pub const NO_CLUSTER: &[u8] = b"-ERR This instance has cluster support disabled\r\n";

/// What a connection to one server can have, and one to several cannot.
pub const NOT_IN_CLUSTER: &[u8] =
    b"-ERR CLIENT REPLY OFF or SKIP, CLIENT TRACKING, CACHING, NO-TOUCH and SCRIPT DEBUG are of one server, and a cluster has several\r\n";

/// To `AUTH` or `HELLO` of a client that listens to several shards.
pub const NOT_WHILE_LISTENING: &[u8] =
    b"-ERR AUTH and HELLO are not possible while subscribed at several shards of the cluster\r\n";

/// To a client that has subscribed to more shard channels than are followed.
pub const TOO_MANY_CHANNELS: &[u8] = b"-ERR too many shard channels for one connection\r\n";

/// What a script without keys may read is at several primaries.
pub const SCRIPT_WITHOUT_KEYS: &[u8] =
    b"-ERR a script without keys may read any key, and each primary of the cluster has only \
      some: name its keys, or have keyless-scripts = \"any\"\r\n";

/// Whether a replica refuses a write, of which it has executed nothing. Until Redis 7.0 it says so of a script in the words of
/// that.
pub fn refuses_writes(reply: &[u8]) -> bool {
    let words = &READONLY[..READONLY.len() - 2];
    reply.starts_with(words)
        || reply.starts_with(b"-ERR Error running script") && memchr::memmem::find(reply, words).is_some()
}

/// Encodes a command.
pub fn command(out: &mut BytesMut, args: &[&[u8]]) {
    let mut head = String::with_capacity(24);
    let _ = write!(head, "*{}\r\n", args.len());
    out.put_slice(head.as_bytes());
    for arg in args {
        bulk(out, arg);
    }
}

/// A command with another argument in the place of number `at`.
pub fn with_argument(request: &Request<'_>, at: usize, value: &[u8]) -> Vec<u8> {
    let args: Vec<&[u8]> =
        (0..request.count()).map(|i| if i == at { value } else { request.arg(i) }).collect();
    let mut bytes = BytesMut::new();
    command(&mut bytes, &args);
    bytes.to_vec()
}

/// Encodes a bulk string.
pub fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    let mut head = String::with_capacity(24);
    let _ = write!(head, "${}\r\n", bytes.len());
    out.put_slice(head.as_bytes());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// An error reply. CR and LF in `text` become spaces.
pub fn error(text: &str) -> Vec<u8> {
    format!("-{}\r\n", text.replace(['\r', '\n'], " ")).into_bytes()
}

/// `networking.c`, `addReplySubcommandSyntaxError`
pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Vec<u8> {
    let shown = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]);
    error(&format!("ERR unknown subcommand '{shown}'. Try {} HELP.", container.to_uppercase()))
}

/// `server.c`, `rejectCommandFormat` for a wrong number of arguments.
pub fn wrong_arity(command: &str) -> Vec<u8> {
    error(&format!("ERR wrong number of arguments for '{command}' command"))
}

/// The code is that of a command that the user may not run (`server.c`, `processCommand`); `deny-commands` is Redweir's own.
pub fn denied(command: &str) -> Vec<u8> {
    error(&format!("NOPERM redweir: [security] deny-commands denies the '{command}' command to everybody"))
}

/// A text of several lines for people: in RESP2 an array of them, which `redis-cli` shows line by line, as it does not show a
/// bulk string that has newlines; in RESP3 a verbatim string.
pub fn page(text: &str, resp3: bool) -> Vec<u8> {
    if resp3 { self::text(text, true) } else { lines(&text.lines().collect::<Vec<_>>()) }
}

/// An array of bulk or status strings, as `HELP` subcommands answer.
pub fn lines<S: AsRef<str>>(lines: &[S]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", lines.len());
    for line in lines {
        let _ = write!(out, "+{}\r\n", line.as_ref().replace(['\r', '\n'], " "));
    }
    out.into_bytes()
}

/// The push that tells a client (RESP3) to connect anew, to where it is connected now, after half of this time. Clients of Redis
/// Software take `MOVING`, a sequence number, seconds, and an address or null.
pub fn moving(within: Duration) -> Vec<u8> {
    let seconds = within.as_millis().div_ceil(1000).max(1);
    format!(">4\r\n$6\r\nMOVING\r\n:1\r\n:{seconds}\r\n_\r\n").into_bytes()
}

/// An integer.
pub fn integer(n: i64) -> Vec<u8> {
    format!(":{n}\r\n").into_bytes()
}

/// A bulk string, or null in the client's protocol.
pub fn maybe_bulk(text: Option<&[u8]>, resp3: bool) -> Vec<u8> {
    match text {
        Some(text) => {
            let mut out = BytesMut::with_capacity(text.len() + 32);
            bulk(&mut out, text);
            out.to_vec()
        }
        None if resp3 => b"_\r\n".to_vec(),
        None => b"$-1\r\n".to_vec(),
    }
}

/// A text of several lines: a verbatim string in RESP3, a bulk string in RESP2 (`addReplyVerbatim`).
pub fn text(text: &str, resp3: bool) -> Vec<u8> {
    if resp3 {
        format!("={}\r\ntxt:{text}\r\n", text.len() + 4).into_bytes()
    } else {
        maybe_bulk(Some(text.as_bytes()), false)
    }
}

/// A bulk or verbatim string with more text at its end; any other reply stays as it is.
pub fn append(reply: &[u8], more: &str) -> Vec<u8> {
    let body = memchr::memchr(b'\n', reply).and_then(|at| reply.get(at + 1..reply.len().checked_sub(2)?));
    let Some(body) = body else { return reply.to_vec() };
    let length = body.len() + more.len();
    let head = match reply.first() {
        Some(b'$') => format!("${length}\r\n"),
        Some(b'=') => format!("={length}\r\n"),
        _ => return reply.to_vec(),
    };
    [head.as_bytes(), body, more.as_bytes(), b"\r\n"].concat()
}

/// To what a subscriber says in RESP2 (server.c, `processCommand`; `pingCommand`).
pub fn to_subscriber(request: &Request<'_>) -> Vec<u8> {
    let name = request.arg(0);
    if name.eq_ignore_ascii_case(b"ping") && request.count() <= 2 {
        let text = request.arg(1);
        let head = format!("*2\r\n$4\r\npong\r\n${}\r\n", text.len());
        return [head.as_bytes(), text, b"\r\n"].concat();
    }
    let name: String = String::from_utf8_lossy(name).chars().take(128).filter(|c| !c.is_control()).collect();
    format!(
        "-ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n",
        name.to_lowercase()
    )
    .into_bytes()
}

/// What a node of a cluster says in `INFO` of its mode, as a server that is none would say it; any other reply stays as it is.
pub fn standalone(reply: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(reply).into_owned();
    for (from, to) in [
        ("cluster_enabled:1\r\n", "cluster_enabled:0\r\n"),
        ("redis_mode:cluster\r\n", "redis_mode:standalone\r\n"),
        ("server_mode:cluster\r\n", "server_mode:standalone\r\n"),
    ] {
        text = text.replacen(from, to, 1);
    }
    // The length in front is another one.
    append(text.as_bytes(), "")
}

/// The reply to `HELLO` (`networking.c`, `helloCommand`) of this server in this version.
pub fn hello((server, version): (&str, &str), resp3: bool, id: u64, mode: &str) -> Vec<u8> {
    let proto = if resp3 { 3 } else { 2 };
    let head = if resp3 { "%7" } else { "*14" };
    let (server_length, version_length, mode_length) = (server.len(), version.len(), mode.len());
    format!(
        "{head}\r\n$6\r\nserver\r\n${server_length}\r\n{server}\r\n$7\r\nversion\r\n${version_length}\r\n{version}\r\n$5\r\nproto\r\n:{proto}\r\n\
         $2\r\nid\r\n:{id}\r\n$4\r\nmode\r\n${mode_length}\r\n{mode}\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_redis_own_text_in_front_and_is_one_short_line() {
        for reason in [Reason::PrimaryDown, Reason::Refused, Reason::TwoPrimaries] {
            for cause in [None, Some(Cause::NoNode), Some(Cause::NobodyIs(Vec::new()))] {
                let reply = masterdown(cause.as_ref(), reason, true);
                let text = String::from_utf8(reply).unwrap();
                assert!(text.starts_with(&format!("-{MASTERDOWN} redweir: ")), "{text}");
                assert!(
                    text.ends_with("\r\n") && text.matches('\n').count() == 1 && text.len() < 600,
                    "{text}"
                );
            }
        }
        let two = String::from_utf8(masterdown(
            Some(&Cause::TwoPrimaries(Vec::new())),
            Reason::TwoPrimaries,
            false,
        ));
        assert!(two.unwrap().starts_with(&format!("-{TWO_PRIMARIES} redweir: ")));
    }

    #[test]
    fn a_page_is_lines_in_resp2_and_one_text_in_resp3() {
        assert_eq!(page("a: 1\nb\n", false), b"*2\r\n+a: 1\r\n+b\r\n");
        assert_eq!(page("a\nb\n", true), b"=8\r\ntxt:a\nb\n\r\n");
        assert_eq!(page("", false), b"*0\r\n");
    }
}
