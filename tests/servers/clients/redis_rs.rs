//! What an application does with redis-rs, with and without tokio.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::thread;
use std::time::Duration;

use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{
    AsyncTypedCommands, Client, Commands, Connection, ErrorKind, RedisResult, Script, Value, cmd, pipe,
};

use super::Step;

/// Collects steps; what a client makes of a reply, an error included, is the outcome.
struct Steps {
    protocol: u8,
    done: Vec<Step>,
}

impl Steps {
    fn add<T: Debug>(&mut self, name: &str, outcome: T) {
        self.done
            .push(Step { name: format!("resp{} {name}", self.protocol), outcome: format!("{outcome:?}") });
    }
}

/// The commands that the scripts for Node run as well.
fn ordinary() -> impl Iterator<Item = &'static str> {
    let (_, rest) = include_str!("../../clients/steps.js").split_once("ORDINARY = `\n").unwrap();
    rest.split_once("\n`").unwrap().0.split(['\n', '|'])
}

pub(crate) fn run(port: u16, guarded: u16) -> Vec<Step> {
    let mut all = Vec::new();
    for protocol in [2, 3] {
        let mut steps = Steps { protocol, done: Vec::new() };
        let url = |login: &str, port: u16, db: u8| {
            format!("redis://{login}127.0.0.1:{port}/{db}?protocol=resp{protocol}")
        };
        let client = Client::open(url("", port, 0)).unwrap();
        let mut conn = open(&client).unwrap();
        cmd("FLUSHALL").exec(&mut conn).unwrap();
        for command in ordinary() {
            let mut words = command.split(' ');
            let mut request = cmd(words.next().unwrap());
            words.for_each(|word| {
                request.arg(word);
            });
            steps.add(command, request.query::<Value>(&mut conn));
        }
        logins(&mut steps, &url, port, guarded);
        data(&mut steps, &mut conn);
        pipelines(&mut steps, &mut conn, &client);
        scripts(&mut steps, &mut conn);
        blocking(&mut steps, &client);
        pubsub(&mut steps, &client);
        scans(&mut steps, &mut conn);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(asynchronous(&mut steps, &client));
        old_reads(&mut steps, &mut conn);
        all.append(&mut steps.done);
    }
    all
}

fn open(client: &Client) -> RedisResult<Connection> {
    let conn = client.get_connection()?;
    conn.set_read_timeout(Some(Duration::from_secs(8)))?;
    Ok(conn)
}

fn logins(steps: &mut Steps, url: &dyn Fn(&str, u16, u8) -> String, port: u16, guarded: u16) {
    let mut attempt = |name: &str, login: &str, port: u16, db: u8, key: &str| {
        let outcome = Client::open(url(login, port, db)).and_then(|client| {
            let mut conn = open(&client)?;
            let () = conn.set(key, 1)?;
            let whoami: String = cmd("ACL").arg("WHOAMI").query(&mut conn)?;
            Ok((whoami, conn.get::<_, String>(key)?, cmd("DBSIZE").query::<u64>(&mut conn)?))
        });
        steps.add(name, outcome);
    };
    attempt("database", "", port, 7, "k");
    attempt("database out of range", "", port, 99, "k");
    attempt("user", "app:secret@", port, 8, "app:k");
    attempt("user without the right", "app:secret@", port, 8, "other");
    attempt("wrong password", "app:wrong@", port, 0, "k");
    attempt("unknown user", "nobody:x@", port, 0, "k");
    attempt("password", ":hunter2@", guarded, 0, "k");
    attempt("no password", "", guarded, 0, "k");
    attempt("guarded with the wrong password", ":x@", guarded, 0, "k");
}

fn data(steps: &mut Steps, conn: &mut Connection) {
    let big: Vec<u8> = (0..1 << 20).map(|n: u32| n as u8).collect();
    let binary = b"\0\r\n\xff$".as_slice();
    steps.add("big value", conn.set::<_, _, ()>("big", &big));
    steps.add("big value again", conn.get::<_, Vec<u8>>("big").map(|got| got == big));
    steps.add(
        "binary key",
        (conn.set::<_, _, ()>(binary, binary), conn.get::<_, Vec<u8>>(binary), conn.del::<_, u8>(binary)),
    );
    steps.add(
        "hash",
        (
            conn.hset_multiple::<_, _, _, ()>("rh", &[("a", 1), ("b", 2)]),
            conn.hgetall::<_, Vec<(String, u8)>>("rh"),
        ),
    );
    steps.add("set", (conn.sadd::<_, _, u8>("rs", &[1, 2, 3]), conn.smembers::<_, BTreeSet<u8>>("rs")));
    steps.add(
        "zset",
        (
            conn.zadd_multiple::<_, _, _, u8>("rz", &[(1.5, "a"), (2.0, "b")]),
            conn.zrange_withscores::<_, Vec<(String, f64)>>("rz", 0, -1),
        ),
    );
    steps.add(
        "stream",
        (conn.xadd::<_, _, _, _, String>("rx", "1-1", &[("f", "v")]), conn.xlen::<_, u8>("rx")),
    );
    let from = StreamReadOptions::default().count(5);
    steps.add("xread", conn.xread_options::<_, _, StreamReadReply>(&["rx"], &["0"], &from));
    steps.add("option", (conn.get::<_, Option<String>>("none"), conn.get::<_, u8>("none")));
}

fn pipelines(steps: &mut Steps, conn: &mut Connection, client: &Client) {
    steps.add("pipeline", pipe().set("p", 1).ignore().incr("p", 1).get("p").query::<Vec<u8>>(conn));
    steps.add("pipeline with an error", pipe().set("p", "w").incr("p", 1).get("p").query::<Vec<Value>>(conn));
    steps.add("transaction", pipe().atomic().set("t", 1).incr("t", 1).get("t").query::<Vec<Value>>(conn));
    steps.add(
        "transaction with an error",
        pipe().atomic().set("t", "w").incr("t", 1).query::<Vec<Value>>(conn),
    );
    steps.add("transaction aborted", pipe().atomic().cmd("SET").arg("t").query::<Vec<Value>>(conn));
    let mut many = pipe();
    for n in 0..5_000 {
        many.set(format!("many:{}", n % 100), n).ignore().get(format!("many:{}", n % 100));
    }
    steps.add("10,000 commands", many.query::<Vec<u32>>(conn));
    let (mut other, mut tries) = (open(client).unwrap(), 0);
    let () = other.set("counter", 0).unwrap();
    let outcome: RedisResult<Vec<u32>> = redis::transaction(conn, &["counter"], |conn, pipe| {
        tries += 1;
        let value: u32 = conn.get("counter")?;
        if tries < 3 {
            let () = other.incr("counter", 1)?;
        }
        pipe.set("counter", value + 100).ignore().get("counter").query(conn)
    });
    steps.add("optimistic lock", (outcome, tries));
}

fn scripts(steps: &mut Steps, conn: &mut Connection) {
    let double = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)");
    let _: RedisResult<()> = cmd("SCRIPT").arg("FLUSH").query(conn);
    let invoked = |conn: &mut Connection| double.key("scripted").arg(4).invoke::<u32>(conn);
    steps.add("script", (invoked(conn), invoked(conn), double.get_hash().to_owned()));
    let missing = cmd("EVALSHA").arg("f".repeat(40)).arg(0).query::<Value>(conn);
    steps.add("noscript", missing.map_err(|error| (error.kind(), error.code().map(str::to_owned))));
    let wrong = conn
        .lpush::<_, _, u8>("scripted", 1)
        .map_err(|error| error.kind() == ErrorKind::UnexpectedReturnType);
    steps.add("wrong type", wrong);
}

fn blocking(steps: &mut Steps, client: &Client) {
    let mut conn = open(client).unwrap();
    let mut other = open(client).unwrap();
    let pusher = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        other.rpush::<_, _, u8>("q", "later")
    });
    steps.add("blpop", conn.blpop::<_, Option<(String, String)>>("q", 5.0));
    steps.add("blpop pushed", pusher.join().unwrap());
    steps.add("blpop timeout", conn.blpop::<_, Option<(String, String)>>("q", 0.05));
    let wait = StreamReadOptions::default().block(30);
    steps.add("xread block", conn.xread_options::<_, _, Option<StreamReadReply>>(&["rx"], &["$"], &wait));
}

fn pubsub(steps: &mut Steps, client: &Client) {
    let (mut conn, mut other) = (open(client).unwrap(), open(client).unwrap());
    let mut heard = conn.as_pubsub();
    // One at a time: of several it only awaits the first confirmation.
    steps.add("subscribe", (heard.subscribe("a"), heard.psubscribe("p.*")));
    steps.add("publish", (other.publish::<_, _, u8>("a", "one"), other.publish::<_, _, u8>("p.x", "two")));
    for name in ["message", "pmessage"] {
        let message = heard.get_message();
        let message = message
            .map(|m| (m.get_channel_name().to_owned(), m.get_payload::<String>().ok(), m.from_pattern()));
        steps.add(name, message);
    }
    steps.add("unsubscribe", (heard.unsubscribe("a"), heard.punsubscribe("p.*")));
    drop(heard);
    steps.add("after the subscription", conn.get::<_, Option<String>>("none"));
}

fn scans(steps: &mut Steps, conn: &mut Connection) {
    let mut fill = pipe();
    for n in 0..1200 {
        fill.set(format!("scan:{n}"), n).ignore().hset("scan-hash", format!("f{n}"), n).ignore();
    }
    steps.add("fill", fill.exec(conn));
    let keys =
        conn.scan_match::<_, String>("scan:*").map(|keys| keys.map(Result::unwrap).collect::<Vec<_>>());
    steps.add("scan", keys.map(|keys| (keys.len(), keys.into_iter().collect::<BTreeSet<_>>())));
    let pairs = conn
        .hscan::<_, (String, u32)>("scan-hash")
        .map(|pairs| pairs.map(Result::unwrap).collect::<BTreeSet<_>>());
    steps.add("hscan", pairs);
}

async fn asynchronous(steps: &mut Steps, client: &Client) {
    let mut conn = client.get_multiplexed_async_connection().await.unwrap();
    steps.add("async", (conn.set("as", 1).await, conn.get("as").await, conn.incr("as", 5).await));
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let mut conn = conn.clone();
            tokio::spawn(async move {
                let key = format!("task:{n}");
                conn.set(&key, n).await?;
                conn.get_int(&key).await
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    steps.add("async tasks", seen);
    let transaction = pipe().atomic().set("as", 1).incr("as", 1).query_async::<(Value, u8)>(&mut conn).await;
    steps.add("async transaction", transaction);
    steps.add("async error", conn.lpush("as", 1).await);
}

/// Reads of what was written a while ago: these are for replicas.
fn old_reads(steps: &mut Steps, conn: &mut Connection) {
    for n in 0..100 {
        let () = conn.set(format!("old:{n}"), n).unwrap();
    }
    thread::sleep(Duration::from_millis(300));
    let reads: RedisResult<Vec<u32>> = (0..300).map(|n| conn.get(format!("old:{}", n % 100))).collect();
    steps.add("reads of old keys", reads);
    let pairs: RedisResult<Vec<u32>> = (0..200)
        .map(|n| {
            let () = conn.set("wr", n)?;
            conn.get("wr")
        })
        .collect();
    steps.add("writes and reads", pairs);
}
