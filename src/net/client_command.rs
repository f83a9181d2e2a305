//! `CLIENT …` over Redweir's own connections.

use std::fmt::Write;

use super::connection::{Connection, Step};
use super::lane::Proto;
use super::say;
use super::shared::ClientEntry;
use crate::core::argv::Args;
use crate::core::moment::Moment;
use crate::core::view::View;
use crate::wire::request::Request;

/// Answers `CLIENT <subcommand>`.
pub(super) fn answer(connection: &mut Connection, request: &Request<'_>, view: &View, now: Moment) -> Step {
    let resp3 = connection.proto == Proto::Resp3;
    let word = request.arg(1).to_ascii_lowercase();
    let reply = match (word.as_slice(), request.count()) {
        (b"id", 2) => say::integer(connection.client.id as i64),
        (b"getname", 2) => {
            let name = Some(connection.name.as_bytes()).filter(|name| !name.is_empty());
            say::maybe_bulk(name, resp3)
        }
        (b"setname", 3) => set_name(connection, request.arg(2)),
        (b"setinfo", 4) => set_info(connection, request.arg(2), request.arg(3)),
        (b"info", 2) => {
            let line = connection.worker.shared.clients.get(&connection.client.id).map(|entry| {
                let mut text = String::new();
                describe(&mut text, connection.client.id, &entry, now);
                text
            });
            say::text(&line.unwrap_or_default(), resp3)
        }
        (b"list", 2) => say::text(&list(connection, now), resp3),
        (b"kill" | b"unblock" | b"list", _) => say::error(&format!(
            "ERR Redweir does not support this form of CLIENT {}",
            String::from_utf8_lossy(&word).to_uppercase()
        )),
        (b"id" | b"getname" | b"setname" | b"setinfo" | b"info", _) => {
            say::wrong_arity(&format!("client|{}", String::from_utf8_lossy(&word)))
        }
        // What is left (HELP, GETREDIR, TRACKINGINFO, unknown ones) asks nothing of a particular connection.
        _ => return connection.pass_on(request, view, now),
    };
    connection.client.answer(&reply);
    Step::Done
}

/// `networking.c`, `clientSetName`
pub(super) fn check_name(name: &[u8]) -> Result<(), Vec<u8>> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Ok(());
    }
    Err(say::error("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn set_name(connection: &mut Connection, name: &[u8]) -> Vec<u8> {
    if let Err(error) = check_name(name) {
        return error;
    }
    connection.name = String::from_utf8_lossy(name).into_owned();
    connection.register();
    say::OK.to_vec()
}

/// Redis 7.2, `networking.c`, `clientSetinfoCommand`; answered for older primaries too, as clients expect it.
fn set_info(connection: &Connection, attribute: &[u8], value: &[u8]) -> Vec<u8> {
    let attribute = String::from_utf8_lossy(attribute).to_lowercase();
    if !value.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return say::error(&format!(
            "ERR {attribute} cannot contain spaces, newlines or special characters."
        ));
    }
    let value = String::from_utf8_lossy(value).into_owned();
    let Some(mut entry) = connection.worker.shared.clients.get_mut(&connection.client.id) else {
        return say::OK.to_vec();
    };
    match attribute.as_str() {
        "lib-name" => entry.lib_name = value,
        "lib-ver" => entry.lib_version = value,
        _ => return say::error(&format!("ERR Unrecognized option '{attribute}'")),
    }
    say::OK.to_vec()
}

fn list(connection: &Connection, now: Moment) -> String {
    let mut entries: Vec<(u64, ClientEntry)> =
        connection.worker.shared.clients.iter().map(|entry| (*entry.key(), entry.value().clone())).collect();
    entries.sort_by_key(|(id, _)| *id);
    let mut text = String::new();
    for (id, entry) in entries {
        describe(&mut text, id, &entry, now);
    }
    text
}

/// One line of `CLIENT LIST` (`networking.c`, `catClientInfoString`), with the fields that Redweir knows.
fn describe(out: &mut String, id: u64, entry: &ClientEntry, now: Moment) {
    let age = now.since(entry.since).as_secs();
    let ClientEntry { peer, local, name, user, lib_name, lib_version, db, resp, .. } = entry;
    let _ = writeln!(
        out,
        "id={id} addr={peer} laddr={local} name={name} age={age} flags=N db={db} user={user} resp={resp} \
         lib-name={lib_name} lib-ver={lib_version}"
    );
}

impl Connection {
    /// Tells the registry what changed about this connection.
    pub fn register(&self) {
        if let Some(mut entry) = self.worker.shared.clients.get_mut(&self.client.id) {
            entry.name.clone_from(&self.name);
            entry.user.clone_from(&self.user);
            entry.db = self.db;
            entry.resp = if self.proto == Proto::Resp3 { 3 } else { 2 };
        }
    }
}
