//! `CLIENT LIST`, `KILL` and `UNBLOCK`: about all clients of all workers.
//!
//! Who may ask is the primary's to say: each is first put to it, as the client's own user, in a form that harms nobody.
//! The same question brings home what only the server knows of the connections that clients hold for themselves:
//! subscriptions, transactions, blocking.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use redis_protocol::resp2::types::BytesFrame;

use crate::core::command::in_force::Commands;
use crate::core::moment::Moment;
use crate::core::slots::ShardIndex;
use crate::net::runtime::clock;
use crate::proxy::local::answer::Answer;
use crate::proxy::session::connection::Connection;
use crate::shard::common::ClientEntry;
use crate::shard::mailbox::Release;
use crate::shard::mailbox::Report;
use crate::wire::number;
use crate::wire::say;

/// What a server tells of one connection, in the same form.
type Fields = BTreeMap<String, String>;

/// All that is known of one client.
#[derive(Debug)]
pub(crate) struct ClientRow {
    entry: ClientEntry,
    report: Report,
    /// What the primary tells of its exclusive connection.
    server: Fields,
}

impl ClientRow {
    pub(crate) fn new(entry: ClientEntry, report: Report) -> Self {
        Self { entry, report, server: Fields::new() }
    }

    fn of_server(&self, field: &str, otherwise: &'static str) -> &str {
        self.server.get(field).map_or(otherwise, String::as_str)
    }

    /// `N`, or a letter for each state.
    fn flags(&self) -> String {
        let mut flags: String = self.of_server("flags", "").chars().filter(|c| !"NUA".contains(*c)).collect();
        if self.report.waits {
            flags.push('b');
        }
        if self.entry.peer.starts_with('/') {
            flags.push('U');
        }
        if flags.is_empty() { "N".to_owned() } else { flags }
    }

    /// `networking.c`, `getClientType`
    fn kind(&self) -> ClientType {
        if self.of_server("flags", "").contains('P') { ClientType::Pubsub } else { ClientType::Normal }
    }

    /// One line (`networking.c`, `catClientInfoString`), in Redis' order. What is inside the server and has no meaning
    /// here (`fd`, reply lists) is -1 or 0.
    pub(crate) fn describe(&self, out: &mut String, commands: &Commands, now: Moment) {
        let (age, idle) = (now.since(self.entry.since).as_secs(), now.since(self.report.seen).as_secs());
        let ClientEntry { peer, local, name, user, lib_name, lib_version, db, resp, .. } = &self.entry;
        let Report { id, input: (used, free), output, .. } = self.report;
        let total = used + free + output;
        let command = self.report.command.map_or("NULL", |id| commands.table.name(id));
        let server = |field, otherwise| self.of_server(field, otherwise);
        let _ = writeln!(
            out,
            "id={id} addr={peer} laddr={local} fd=-1 name={name} age={age} idle={idle} flags={} db={db} sub={} psub={} \
             ssub={} multi={} qbuf={used} qbuf-free={free} argv-mem=0 multi-mem={} rbs=0 rbp=0 obl={output} oll=0 \
             omem={output} tot-mem={total} events=r cmd={command} user={user} redir={} resp={resp} \
             lib-name={lib_name} lib-ver={lib_version}",
            self.flags(),
            server("sub", "0"),
            server("psub", "0"),
            server("ssub", "0"),
            server("multi", "-1"),
            server("multi-mem", "0"),
            server("redir", "-1"),
        );
    }
}

/// `networking.c`, `getClientTypeByName`. Clients of Redweir are never replicas or primaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientType {
    Normal,
    Pubsub,
    Other,
}

impl ClientType {
    fn parse(name: &[u8]) -> Answer<Self> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Self::Normal),
            b"pubsub" => Ok(Self::Pubsub),
            b"master" | b"replica" | b"slave" => Ok(Self::Other),
            _ => Err(say::error(&format!("ERR Unknown client type '{}'", String::from_utf8_lossy(name)))),
        }
    }
}

/// `CLIENT LIST [TYPE type] [ID id …]`
pub(crate) async fn list(connection: &Connection, args: &[Vec<u8>]) -> Answer {
    let (mut kind, mut ids) = (None, None);
    match &args[2..] {
        [] => {}
        [word, name] if word.eq_ignore_ascii_case(b"type") => kind = Some(ClientType::parse(name)?),
        [word, some @ ..] if word.eq_ignore_ascii_case(b"id") && !some.is_empty() => {
            let number =
                |text: &Vec<u8>| number::integer(text).ok_or_else(|| say::error("ERR Invalid client ID"));
            ids = Some(some.iter().map(number).collect::<Answer<Vec<i64>>>()?);
        }
        _ => return Err(say::SYNTAX.to_vec()),
    }
    let rows = rows(connection, None).await?;
    let shown: Vec<&ClientRow> = match &ids {
        // In the order in which they are asked for.
        Some(ids) => ids.iter().filter_map(|id| rows.get(&u64::try_from(*id).ok()?)).collect(),
        None => rows.values().filter(|row| kind.is_none_or(|kind| row.kind() == kind)).collect(),
    };
    let (commands, now) = (connection.worker.shared.commands.load(), clock::now());
    let mut text = String::new();
    for row in shown {
        row.describe(&mut text, &commands, now);
    }
    Ok(say::text(&text, connection.who.is_resp3()))
}

/// Which clients to disconnect.
#[derive(Debug, Default)]
struct Filter {
    address: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    id: Option<u64>,
    kind: Option<ClientType>,
    user: Option<Vec<u8>>,
    age: Option<u64>,
    spares_me: bool,
}

impl Filter {
    fn parse(args: &[Vec<u8>]) -> Answer<Self> {
        if let [address] = args {
            return Ok(Self { address: Some(address.clone()), ..Self::default() });
        }
        let mut filter = Self { spares_me: true, ..Self::default() };
        for pair in args.chunks(2) {
            let [word, value] = pair else { return Err(say::SYNTAX.to_vec()) };
            let positive = || number::integer(value).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
            match word.to_ascii_lowercase().as_slice() {
                b"id" => {
                    let id =
                        positive().ok_or_else(|| say::error("ERR client-id should be greater than 0"))?;
                    filter.id = Some(id);
                }
                b"type" => filter.kind = Some(ClientType::parse(value)?),
                b"addr" => filter.address = Some(value.clone()),
                b"laddr" => filter.local = Some(value.clone()),
                b"user" => filter.user = Some(value.clone()),
                b"maxage" => {
                    let age = positive()
                        .ok_or_else(|| say::error("ERR maxage is not an integer or out of range"))?;
                    filter.age = Some(age);
                }
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.spares_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.spares_me = false,
                _ => return Err(say::SYNTAX.to_vec()),
            }
        }
        Ok(filter)
    }

    fn matches(&self, row: &ClientRow, now: Moment) -> bool {
        let is = |wanted: &Option<Vec<u8>>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.as_slice() == found.as_bytes())
        };
        is(&self.address, &row.entry.peer)
            && is(&self.local, &row.entry.local)
            && is(&self.user, &row.entry.user)
            && self.id.is_none_or(|id| id == row.report.id)
            && self.kind.is_none_or(|kind| kind == row.kind())
            && self.age.is_none_or(|age| now.since(row.entry.since).as_secs() >= age)
    }
}

/// `CLIENT KILL addr:port`, and `CLIENT KILL` with options.
pub(crate) async fn kill(connection: &Connection, args: &[Vec<u8>]) -> Answer {
    let filter = Filter::parse(&args[2..])?;
    // Whether there is such a user is the primary's to say.
    let user: Vec<&[u8]> = filter.user.iter().flat_map(|user| [&b"USER"[..], user]).collect();
    let rows = rows(connection, Some(&user)).await?;
    let (me, now) = (connection.client.id, clock::now());
    let doomed = rows.values().filter(|row| filter.matches(row, now)).map(|row| row.report.id);
    let mut doomed: Vec<u64> = doomed.filter(|id| *id != me || !filter.spares_me).collect();
    let myself = doomed.contains(&me);
    doomed.retain(|id| *id != me);
    let killed = connection.worker.shared.mailboxes.kill(doomed).await.len() + usize::from(myself);
    if myself {
        // Once the reply is written, which is given to it before anything else runs.
        connection.client.end();
    }
    match (args.len(), killed) {
        (3, 0) => Err(say::error("ERR No such client")),
        (3, _) => Ok(say::OK.to_vec()),
        _ => Ok(say::integer(killed as i64)),
    }
}

/// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`. The client blocks on a connection of its own to the primary, so it is there that
/// it is unblocked, by the server's own number of that connection. Should the client be served between the look-up
/// and the order, the connection may belong to another client that blocks: as improbable as it is, the worst is a
/// blocking command that times out early.
pub(crate) async fn unblock(connection: &Connection, args: &[Vec<u8>]) -> Answer {
    let how = match args.get(3) {
        None => Release::Timeout,
        Some(word) if word.eq_ignore_ascii_case(b"timeout") => Release::Timeout,
        Some(word) if word.eq_ignore_ascii_case(b"error") => Release::Error,
        Some(_) => return Err(say::error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let id = args.get(2).and_then(|id| number::integer(id)).ok_or_else(|| say::BAD_DB.to_vec())?;
    let mailboxes = &connection.worker.shared.mailboxes;
    let target = mailboxes.reports().await.into_iter().find(|report| i64::try_from(report.id) == Ok(id));
    let server_id = target.as_ref().and_then(|report| report.server_id).unwrap_or(0).to_string();
    let shard = target.as_ref().filter(|report| report.server_id.is_some()).map(|report| report.shard);
    let word: &[u8] = if how == Release::Error { b"ERROR" } else { b"TIMEOUT" };
    let order: [&[u8]; 4] = [b"CLIENT", b"UNBLOCK", server_id.as_bytes(), word];
    let unblocked = ask_primary(connection, shard, &order).await?;
    let waits = target.filter(|report| report.waits);
    let released = match waits {
        Some(report) => mailboxes.release(report.id, how).await,
        None => unblocked == BytesFrame::Integer(1),
    };
    Ok(say::integer(i64::from(released)))
}

/// All clients, by ID, if this client may see them, and with `kill` may kill: that may hold `USER name`.
async fn rows(connection: &Connection, kill: Option<&[&[u8]]>) -> Answer<BTreeMap<u64, ClientRow>> {
    let shared = &connection.worker.shared;
    let mut rows: BTreeMap<u64, ClientRow> = BTreeMap::new();
    for entry in &shared.clients {
        let report = Report { id: *entry.key(), seen: entry.since, ..Report::default() };
        rows.insert(report.id, ClientRow::new(entry.value().clone(), report));
    }
    for report in shared.mailboxes.reports().await {
        if let Some(row) = rows.get_mut(&report.id) {
            row.report = report;
        }
    }
    if let Some(user) = kill {
        let (begin, end): (&[&[u8]], &[&[u8]]) = (&[b"CLIENT", b"KILL"], &[b"ID", NO_SUCH_ID]);
        let harmless = [begin, user, end].concat();
        ask_primary(connection, None, &harmless).await?;
    }
    let held = |report: &Report| report.server_id.map(|id| (report.shard, id));
    let mut ids: BTreeMap<ShardIndex, Vec<String>> = BTreeMap::from([(connection.worker.shard, Vec::new())]);
    for (shard, id) in rows.values().filter_map(|row| held(&row.report)) {
        ids.entry(shard).or_default().push(id.to_string());
    }
    for (shard, ids) in ids {
        let listed = ask_about(connection, shard, &ids).await?;
        let mut known: BTreeMap<u64, Fields> = listed.lines().filter_map(fields).collect();
        for row in rows.values_mut().filter(|row| row.report.shard == shard) {
            if let Some(fields) = row.report.server_id.and_then(|id| known.remove(&id)) {
                row.server = fields;
            }
        }
    }
    Ok(rows)
}

/// Asks the primary of a shard about these connections of its own; an error is its own word on whether the client may.
async fn ask_about(connection: &Connection, shard: ShardIndex, ids: &[String]) -> Answer<String> {
    let mut command: Vec<&[u8]> = vec![b"CLIENT", b"LIST", b"ID", NO_SUCH_ID];
    command.extend(ids.iter().map(String::as_bytes));
    match ask_primary(connection, Some(shard), &command).await {
        Ok(BytesFrame::BulkString(text)) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Ok(_) => Ok(String::new()),
        // Before 6.2 there is no `ID`: it may, and nothing is known.
        Err(error) if error == say::SYNTAX => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// One command to the primary as the user of this client: to that of this shard, or of the present one.
async fn ask_primary(
    connection: &Connection,
    shard: Option<ShardIndex>,
    command: &[&[u8]],
) -> Answer<BytesFrame> {
    let worker = shard.and_then(|shard| connection.worker.peer(shard));
    let worker = worker.unwrap_or_else(|| Rc::clone(&connection.worker));
    let identity = connection.worker.shared.identities.hold(connection.who.identity());
    let credentials = identity.as_ref().map(|identity| &identity.credentials);
    worker.inquiry.inquire(credentials, command).await
}

/// A line of the server's `CLIENT LIST`, by the ID there.
fn fields(line: &str) -> Option<(u64, Fields)> {
    let fields: Fields = line
        .split(' ')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    Some((fields.get("id")?.parse().ok()?, fields))
}

/// `LLONG_MAX`: IDs are counted up from 1.
const NO_SUCH_ID: &[u8] = b"9223372036854775807";
