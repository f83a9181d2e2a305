//! `CLIENT …` over Redweir's own connections: what a client says about itself. What it asks or orders about others is
//! in [`crate::proxy::local::client_list`].

use crate::core::argv::Args;
use crate::core::moment::Moment;
use crate::net::runtime::clock;
use crate::proxy::local::answer::Answer;
use crate::proxy::local::client_list;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::exclusive::reply_mode;
use crate::proxy::session::step::Step;
use crate::proxy::worker::mailbox::report_of;
use crate::wire::request::Request;
use crate::wire::say;

/// Answers `CLIENT <subcommand>`.
pub(crate) fn answer(connection: &mut Connection, request: &Request<'_>, now: Moment) -> Step {
    let word = request.arg(1).to_ascii_lowercase();
    if matches!((word.as_slice(), request.count()), (b"list", 2..) | (b"kill", 3..) | (b"unblock", 3 | 4)) {
        return Step::Later((0..request.count()).map(|i| request.arg(i).to_vec()).collect());
    }
    let reply = about_itself(connection, request, now);
    connection.client.answer(&reply);
    Step::Done
}

/// What a client says and asks about itself.
fn about_itself<A: Args + ?Sized>(connection: &mut Connection, request: &A, now: Moment) -> Vec<u8> {
    let resp3 = connection.who.is_resp3();
    let word = request.arg(1).to_ascii_lowercase();
    match (word.as_slice(), request.count()) {
        (b"id", 2) => say::integer(connection.client.id as i64),
        (b"getname", 2) => {
            let name = Some(connection.who.name().as_bytes()).filter(|name| !name.is_empty());
            say::maybe_bulk(name, resp3)
        }
        // Nobody is evicted here: there is nothing to be spared from.
        (b"no-evict", 3) => {
            let known =
                [b"on".as_slice(), b"off"].iter().any(|word| request.arg(2).eq_ignore_ascii_case(word));
            if known { say::OK.to_vec() } else { say::SYNTAX.to_vec() }
        }
        (b"maint_notifications", 3..) if connection.worker.shared.config().proxy.maint_notifications => {
            hear_of_moves(connection, request)
        }
        (b"setname", 3) => set_name(connection, request.arg(2)),
        (b"setinfo", 4) => set_info(connection, request.arg(2), request.arg(3)),
        (b"info", 2) => say::text(&info(connection, now), resp3),
        (b"id" | b"getname" | b"no-evict" | b"setname" | b"setinfo" | b"info" | b"kill", _) => {
            say::wrong_arity(&format!("client|{}", String::from_utf8_lossy(&word)))
        }
        // What else there is (HELP, GETREDIR, TRACKINGINFO, PAUSE, unknown ones) asks nothing of a particular connection,
        // and is the primary's to answer ([`crate::core::plan`]).
        _ => say::unknown_subcommand("client", request.arg(1)),
    }
}

/// Answers those that have to ask the other workers, or the primary.
pub(crate) async fn answer_later(connection: &mut Connection, args: &[Vec<u8>]) -> Answer {
    match args.get(1).map(|word| word.to_ascii_lowercase()).as_deref() {
        Some(b"list") => client_list::list(connection, args).await,
        Some(b"kill") => client_list::kill(connection, args).await,
        Some(b"unblock") => client_list::unblock(connection, args).await,
        // Whoever may use it and is heard is told so.
        Some(b"reply") => Ok(reply_mode::speaks_on(args).unwrap_or_else(|| say::OK.to_vec())),
        _ => Ok(about_itself(connection, args, clock::now())),
    }
}

/// `networking.c`, `clientSetName`
pub(crate) fn check_name(name: &[u8]) -> Result<(), Vec<u8>> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Ok(());
    }
    Err(say::error("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn set_name(connection: &mut Connection, name: &[u8]) -> Vec<u8> {
    if let Err(error) = check_name(name) {
        return error;
    }
    connection.who.call(name);
    connection.register();
    say::OK.to_vec()
}

/// `CLIENT MAINT_NOTIFICATIONS ON [moving-endpoint-type TYPE] | OFF`, as clients of Redis Software say it. No address is ever
/// told, of whatever type: clients connect anew to the one that they know.
fn hear_of_moves<A: Args + ?Sized>(connection: &Connection, request: &A) -> Vec<u8> {
    let is = |index, word: &[u8]| request.arg(index).eq_ignore_ascii_case(word);
    let typed = request.count() == 5 && is(3, b"moving-endpoint-type");
    match (is(2, b"on"), is(2, b"off")) {
        (true, _) if !connection.who.is_resp3() => {
            return say::error("ERR CLIENT MAINT_NOTIFICATIONS needs RESP3");
        }
        (true, _) if request.count() == 3 || typed => connection.client.status.hears_of_moves.set(true),
        (_, true) if request.count() == 3 => connection.client.status.hears_of_moves.set(false),
        _ => return say::SYNTAX.to_vec(),
    }
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

fn info(connection: &Connection, now: Moment) -> String {
    let (shared, client) = (&connection.worker.shared, &connection.client);
    let Some(entry) = shared.clients.get(&client.id) else { return String::new() };
    let mut text = String::new();
    client_list::ClientRow::new(entry.clone(), report_of(client)).describe(
        &mut text,
        &shared.commands.load(),
        now,
    );
    text
}
