//! Commands that Redweir answers itself, because they are about the client's connection, and that connection is ours:
//! HELLO, AUTH, SELECT, RESET, QUIT, CLIENT, REDWEIR. Credentials and databases are checked with the primary.

mod answer;
pub(crate) mod client;
pub(crate) mod client_list;
pub(crate) mod token;
pub(crate) mod wait;

use std::rc::Rc;
use std::sync::Arc;

use crate::core::argv::Args;
use crate::core::command::Local;
use crate::core::command::in_force::Commands;
use crate::core::moment::Moment;
use crate::core::nodes::node::{Node, NodeId, Role};
use crate::core::nodes::view::View;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::limits;
use crate::proxy::local::answer::Answer;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::connection::shown_name;
use crate::proxy::session::step::Step;
use crate::proxy::upstream::at_hand::AtHand;
use crate::proxy::upstream::lane::{Closed, Lane, LaneKey, Phase, Proto};
use crate::proxy::worker::admission::Verdict;
use crate::shard::identity::{Credentials, Password};
use crate::shard::overall;
use crate::wire::reply::ErrorCode;
use crate::wire::request::Request;
use crate::wire::say;

/// Answers what can be answered at once; what has to ask somebody comes back as [`Step::Later`].
pub(crate) fn answer(
    connection: &mut Connection,
    which: Local,
    request: &Request<'_>,
    view: &View,
    commands: &Commands,
    now: Moment,
) -> Step {
    if connection.needs_leave(request, view) {
        return Step::Later((0..request.count()).map(|i| request.arg(i).to_vec()).collect());
    }
    match which {
        Local::Hello | Local::Auth | Local::Select | Local::Wait => {
            return Step::Later((0..request.count()).map(|i| request.arg(i).to_vec()).collect());
        }
        Local::Quit => {
            connection.client.answer(say::OK);
            return Step::Close;
        }
        Local::Reset => {
            connection.reset();
            connection.client.answer(say::RESET);
        }
        Local::Client => return client::answer(connection, request, now),
        // About Redweir alone: answered even when no primary is there to ask.
        Local::Info => connection.client.answer(&section(connection, now)),
        Local::Redweir if token::is_about(request) => {
            return Step::Later((0..request.count()).map(|i| request.arg(i).to_vec()).collect());
        }
        Local::Redweir => {
            let reply = redweir(connection, request, view, commands, now);
            connection.say(&reply);
        }
    }
    Step::Done
}

/// Answers a command that has to ask somebody. Everything before it is answered.
///
/// Not cancel safe: the answer is lost, and what a login or `SELECT` has changed by then stays. It is dropped only when its
/// client is gone.
pub(crate) async fn answer_later(connection: &mut Connection, args: &[Vec<u8>]) {
    let reply = match answered(connection, args).await {
        Ok(reply) | Err(reply) => reply,
    };
    connection.say(&reply);
}

async fn answered(connection: &mut Connection, args: &[Vec<u8>]) -> Answer {
    if connection.needs_leave(args, &connection.worker.shared.shard().view.load_full()) {
        connection.ask_leave(args).await?;
    }
    match shown_name(args).as_str() {
        "select" => select(connection, args).await,
        "auth" => auth(connection, args).await,
        "hello" => hello(connection, args).await,
        "info" => Ok(section(connection, clock::now())),
        "redweir" if token::is_about(args) => token::answer(connection, args).await,
        "redweir" => {
            let shared = Arc::clone(&connection.worker.shared);
            Ok(redweir(connection, args, &shared.shard().view.load(), &shared.commands.load(), clock::now()))
        }
        "client" => client::answer_later(connection, args).await,
        "waitaof" => Err(say::WAITAOF.to_vec()),
        _ => wait::wait(connection, args).await,
    }
}

/// The section of `INFO` that is about Redweir.
fn section(connection: &Connection, now: Moment) -> Vec<u8> {
    let section = overall::info_section(&connection.worker.shared, now);
    say::text(section.trim_start(), connection.who.is_resp3())
}

async fn select(connection: &mut Connection, args: &[Vec<u8>]) -> Answer {
    let [_, db] = args else { return Err(say::wrong_arity("select")) };
    let text = db;
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    let Some(number) = number else { return Err(say::BAD_DB.to_vec()) };
    let Ok(db) = u32::try_from(number) else { return Err(say::error("ERR DB index is out of range")) };
    if db != connection.who.db() {
        let before = connection.who.enter(db);
        if let Err(error) = may_select(connection, text).await {
            connection.who.enter(before);
            return Err([error.trim_ascii_end(), b"\r\n"].concat());
        }
        connection.lanes.leave_all();
        connection.register();
    }
    Ok(say::OK.to_vec())
}

/// Whether the primary lets the client's user into the database that the connection is about to have.
async fn may_select(connection: &Connection, db: &[u8]) -> Result<(), Vec<u8>> {
    let lane = open_lane(connection).await?;
    if lane.no_select.get().is_none() {
        return Ok(());
    }
    // That was so when the lane was opened.
    let identity = connection.worker.shared.identities.hold(connection.who.identity());
    let credentials = identity.as_ref().map(|identity| &identity.credentials);
    connection.worker.inquiry.inquire(credentials, &[b"SELECT", db]).await.map(drop)
}

async fn auth(connection: &mut Connection, args: &[Vec<u8>]) -> Answer {
    let (user, password) = match args {
        [_, password] => (None, password),
        [_, user, password] => (Some(user), password),
        _ if args.len() > 3 => return Err(say::SYNTAX.to_vec()),
        _ => return Err(say::wrong_arity("auth")),
    };
    authenticate(connection, user, password).await?;
    Ok(say::OK.to_vec())
}

/// Asks the primary: a lane that exists already proves only that the password was right once.
async fn authenticate(
    connection: &mut Connection,
    user: Option<&Vec<u8>>,
    password: &[u8],
) -> Result<(), Vec<u8>> {
    // A client begins with it: it waits for a primary as what comes after it does.
    connection.await_primary(clock::now()).await;
    let credentials = Credentials { user: user.cloned(), password: Password::new(password) };
    let shared = &connection.worker.shared;
    let address =
        shared.clients.get(&connection.client.id).map_or_else(String::new, |entry| host(&entry.peer));
    connection.worker.inquiry.verify(&credentials, &address).await?;
    let identity = shared.identities.intern(credentials);
    connection.act_as(Some(identity));
    connection.worker.watch_identity(connection.who.identity());
    connection.lanes.leave_all();
    connection.register();
    Ok(())
}

/// An address without its port.
fn host(peer: &str) -> String {
    peer.rsplit_once(':').map_or(peer, |(host, _)| host).to_owned()
}

/// `networking.c`, `helloCommand`: the options take effect one by one, so that an error leaves those before it.
async fn hello(connection: &mut Connection, args: &[Vec<u8>]) -> Answer {
    let proto = match args.get(1).map(Vec::as_slice) {
        None => connection.who.proto(),
        Some(b"2") => Proto::Resp2,
        Some(b"3") => Proto::Resp3,
        Some(text) if std::str::from_utf8(text).is_ok_and(|t| t.parse::<i64>().is_ok()) => {
            return Err(say::NOPROTO.to_vec());
        }
        Some(_) => return Err(say::error("ERR Protocol version is not an integer or out of range")),
    };
    let mut rest = args.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [] => break,
            [word, user, password, more @ ..] if word.eq_ignore_ascii_case(b"auth") => {
                authenticate(connection, Some(user), password).await?;
                more
            }
            [word, name, more @ ..] if word.eq_ignore_ascii_case(b"setname") => {
                client::check_name(name)?;
                connection.who.call(name);
                connection.register();
                more
            }
            [word, ..] => {
                let shown = String::from_utf8_lossy(word);
                return Err(say::error(&format!("ERR Syntax error in HELLO option '{shown}'")));
            }
        };
    }
    admitted(connection).await?;
    let before = connection.who.speak(proto);
    // Without a primary to ask, whatever it has for the client it will say when there is one.
    let answers = connection.worker.shared.shard().view.load().primary_answers();
    if let Err(error) = if answers { open_lane(connection).await.map(drop) } else { Ok(()) } {
        connection.who.speak(before);
        let needs_password = ErrorCode::of(&error) == Some(ErrorCode::NoAuth);
        return Err(if needs_password { say::HELLO_NOAUTH.to_vec() } else { error });
    }
    if proto == Proto::Resp2 {
        connection.client.status.hears_of_moves.set(false);
    }
    connection.lanes.leave_all();
    connection.register();
    let view = connection.worker.shared.shard().view.load();
    let facts = view.primary.and_then(|id| view.node(id)).and_then(|node| node.facts.as_ref());
    let server = match facts.map(|facts| (&facts.valkey_version, &facts.version)) {
        Some((Some(version), _)) => ("valkey", version.as_str()),
        Some((None, Some(version))) => ("redis", version.as_str()),
        Some((None, None)) | None => ("redis", "7.0.0"),
    };
    let mode = connection.worker.shared.presented_as().name();
    Ok(say::hello(server, proto == Proto::Resp3, connection.client.id, mode))
}

/// Waits until it is known whether the client may go on without a password, if it has given none.
async fn admitted(connection: &mut Connection) -> Result<(), Vec<u8>> {
    let begun = clock::now();
    while connection.is_unauthenticated() {
        let worker = Rc::clone(&connection.worker);
        let changed = worker.admission.changes();
        let patience = worker.shared.shard().view.load().hold.checked_sub(clock::now().since(begun));
        match connection
            .worker
            .admission
            .verdict(connection.client.status.anonymous_since.get(), clock::now())
        {
            Verdict::Admitted(epoch) => connection.client.status.auth_epoch.set(epoch),
            Verdict::Guest => return Ok(()),
            Verdict::Refused => return Err(say::HELLO_NOAUTH.to_vec()),
            Verdict::Nobody | Verdict::Asking if connection.is_let_in_blindly() => return Ok(()),
            Verdict::Nobody if patience.is_none() => {
                return Err(connection.masterdown());
            }
            Verdict::Asking | Verdict::Nobody => {
                let _ = tokio::time::timeout(patience.unwrap_or_default(), changed).await;
            }
        }
    }
    Ok(())
}

/// Waits until the primary, or [who says it instead](replica_instead), has accepted a connection with the present identity,
/// database and protocol. One that is lost before has refused nobody: then it begins anew, as long as commands wait for a
/// primary.
async fn open_lane(connection: &Connection) -> Result<Rc<Lane>, Vec<u8>> {
    let begun = clock::now();
    loop {
        let node = match replica_instead(connection) {
            Some(replica) => replica,
            None => connection.await_primary(begun).await.ok_or_else(|| connection.masterdown())?,
        };
        let lane = connection.worker.lane(LaneKey { node, ..connection.who.key(node) });
        // Nothing is asked on it yet: it is in use all the same.
        let in_use = AtHand::new(&lane);
        match opened(&lane).await {
            Phase::Closed(Closed::Refused(error)) => return Err([error.as_slice(), b"\r\n"].concat()),
            Phase::Closed(_) if mutant::is("unopened-is-refused") => return Err(connection.masterdown()),
            Phase::Closed(_) => {}
            Phase::Opening | Phase::Up => return Ok(lane),
        }
        drop(in_use);
        let hold = connection.worker.shared.shard().view.load().hold;
        if clock::now().since(begun) >= hold {
            return Err(connection.masterdown());
        }
        tokio::time::sleep(limits::RECONNECT_PAUSE).await;
    }
}

/// Who says whether there is a database while no primary answers, for a user who may use `SELECT`.
fn replica_instead(connection: &Connection) -> Option<NodeId> {
    let view = connection.worker.shared.shard().view.load();
    let answers = |node: &&Node| node.role == Some(Role::Replica) && node.silent_since.is_none();
    let replica = view.nodes.iter().find(answers).map(|node| node.id);
    let allowed = view.rights.plainly_allow(connection.who.user().as_bytes(), b"select");
    replica.filter(|_| !view.primary_answers() && allowed)
}

async fn opened(lane: &Rc<Lane>) -> Phase {
    std::future::poll_fn(|cx| match lane.phase() {
        Phase::Opening => {
            lane.wake_on_change(cx.waker());
            std::task::Poll::Pending
        }
        phase => std::task::Poll::Ready(phase),
    })
    .await
}

/// `REDWEIR …`
fn redweir<A: Args + ?Sized>(
    connection: &mut Connection,
    request: &A,
    view: &View,
    commands: &Commands,
    now: Moment,
) -> Vec<u8> {
    let resp3 = connection.who.is_resp3();
    let policies = &view.policies;
    let word = request.arg(1).to_ascii_lowercase();
    match (word.as_slice(), request.count()) {
        (b"help", 2) => say::lines(say::HELP),
        (b"view", 2) => say::page(&overall::view_text(&connection.worker.shared, view, now), resp3),
        (b"doctor", 2) => say::page(&doctor(connection, view), resp3),
        (b"losses", 2) => say::page(&overall::losses_text(&connection.worker.shared, now), resp3),
        (b"policy", 2) => {
            let name = policies.get(connection.who.policy(policies)).map(|p| p.name.as_bytes());
            say::maybe_bulk(name, resp3)
        }
        (b"policy", 3) => {
            let wanted = String::from_utf8_lossy(request.arg(2)).into_owned();
            if let Some(policy) = policies.find(&wanted) {
                connection.who.read_under(wanted, policies, policy);
                say::OK.to_vec()
            } else {
                let known: Vec<&str> = policies.all.iter().map(|p| p.name.as_str()).collect();
                say::error(&format!("ERR no policy '{wanted}'; there are: {}", known.join(", ")))
            }
        }
        (b"explain", 3..) => {
            let args: Vec<&[u8]> = (2..request.count()).map(|i| request.arg(i)).collect();
            say::page(&connection.explain(args.as_slice(), view, commands, now), resp3)
        }
        (b"help" | b"view" | b"doctor" | b"losses" | b"policy" | b"explain" | b"", _) => {
            say::wrong_arity(&format!("redweir|{}", String::from_utf8_lossy(&word)))
        }
        _ => say::unknown_subcommand("redweir", request.arg(1)),
    }
}

/// What the doctor finds. What servers remember of other users is for those who may see that there.
fn doctor(connection: &Connection, view: &View) -> String {
    let report = overall::doctor(&connection.worker.shared);
    if view.rights.plainly_allow(connection.who.user().as_bytes(), b"acl") {
        return report.text(false);
    }
    report.without_denials().text(false)
}
