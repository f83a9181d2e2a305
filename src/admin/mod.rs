//! The admin HTTP server, on a thread of its own: health, metrics, the view, EXPLAIN. It reads what the others
//! publish and never makes them wait.

mod dashboard;
mod metrics;
mod overview;
mod ready;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_io_timeout::TimeoutStream;

use overview::Overviews;

pub use metrics::Metrics;

use crate::core::address::Address;
use crate::core::demand::Reader;
use crate::core::plan::Situation;
use crate::core::route::Ask;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::sparing::Sparing;
use crate::net::runtime::task;
use crate::net::socket::handed::Handed;
use crate::shard::explain::{self, Asker};
use crate::shard::overall;
use crate::shard::place;
use crate::shard::shared::Shared;

/// Connections served at once, if descriptors allow; for one more the oldest is closed.
pub const MOST_CONNECTIONS: usize = 64;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take none of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a connection's requests, and of responses that it has not taken.
const BUFFER: usize = 64 * 1024;

/// How often the exporter forgets what it has drained.
const UPKEEP: Duration = Duration::from_secs(5);

/// The bound admin socket.
#[derive(Debug)]
pub struct AdminServer {
    socket: TcpListener,
    most: usize,
}

impl AdminServer {
    /// Takes the socket that was handed over, or binds one. Only TCP. `most` connections are served at once.
    pub fn bind(address: &Address, most: usize, handed: &mut Handed) -> io::Result<Self> {
        let Address::Tcp { host, port } = address else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the admin address must be host:port"));
        };
        let socket = match handed.tcp(host, *port)? {
            Some(socket) => socket,
            None => TcpListener::bind((host.as_str(), *port))?,
        };
        socket.set_nonblocking(true)?;
        Ok(Self { socket, most })
    }

    /// Serves until the process ends. Runs on its own thread.
    pub fn run(self, shared: &Arc<Shared>, metrics: &Arc<Metrics>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.socket)?;
            let mut open: VecDeque<AbortHandle> = VecDeque::new();
            let sparing = Sparing::new();
            let mut spare = spare_descriptor();
            let overviews = Arc::new(Overviews::new());
            let keeper = Arc::clone(metrics);
            task::spawn("upkeep", async move {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    keeper.upkeep();
                }
            });
            loop {
                let (stream, _) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(problem) => {
                        if let Some(left_out) = sparing.may_tell() {
                            tracing::warn!(%problem, left_out, "accept failed on the admin address");
                        }
                        // Whoever asks whether the process lives gets the descriptor of whoever came first, or the spare one.
                        if spare.take().is_none()
                            && let Some(oldest) = open.pop_front()
                        {
                            oldest.abort();
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                };
                if spare.is_none() {
                    spare = spare_descriptor();
                }
                make_room(&mut open, self.most);
                let served = serve(stream, Arc::clone(shared), Arc::clone(metrics), Arc::clone(&overviews));
                open.push_back(task::spawn("admin", served).abort_handle());
            }
        })
    }
}

/// A descriptor to answer somebody with when there is no other.
fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").ok().filter(|_| !mutant::is("no-spare-descriptor"))
}

/// Closes the oldest connections until there is a place for one more: whoever neither reads nor writes keeps nobody out,
/// least of all somebody who asks whether the process lives.
fn make_room(open: &mut VecDeque<AbortHandle>, most: usize) {
    if open.len() >= most {
        open.retain(|connection| !connection.is_finished());
    }
    while open.len() >= most.max(1) {
        let oldest = open.pop_front();
        oldest.inspect(AbortHandle::abort);
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, metrics: Arc<Metrics>, overviews: Arc<Overviews>) {
    let service = service_fn(|request| {
        let response = answer(&request, &shared, &metrics, &overviews);
        async move { Ok::<_, Infallible>(response) }
    });
    // Little is written for somebody who reads nothing.
    let _ = SockRef::from(&stream).set_send_buffer_size(BUFFER);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER);
    if let Err(problem) = server.serve_connection(TokioIo::new(Box::pin(stream)), service).await {
        tracing::debug!(%problem, "an admin connection ended");
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;
type HttpResponse = Response<Body>;

fn answer(
    request: &Request<Incoming>,
    shared: &Arc<Shared>,
    metrics: &Arc<Metrics>,
    overviews: &Arc<Overviews>,
) -> HttpResponse {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    task::provoke("admin", || request.uri().path() == "/panic");
    match request.uri().path() {
        "/" => {
            let page = with(dashboard::page(), CONTENT_TYPE, "text/html; charset=utf-8");
            let page = with(with(page, CONTENT_SECURITY_POLICY, dashboard::POLICY), REFERRER_POLICY, "no-referrer");
            with(page, X_CONTENT_TYPE_OPTIONS, "nosniff")
        }
        "/events" => {
            let events = dashboard::events(shared, metrics, overviews);
            with(with(events, CONTENT_TYPE, "text/event-stream"), CACHE_CONTROL, "no-store")
        }
        "/overview" => match overviews.latest(shared, metrics.process()) {
            Ok(json) => with(full(json), CONTENT_TYPE, "application/json"),
            Err(problem) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")),
        },
        "/livez" => plain(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(request, shared),
        "/metrics" => {
            reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render(shared))
        }
        "/view" => json(&overall::view_of(shared, clock::now())),
        "/doctor" => json(&*overall::doctor(shared)),
        "/explain" => explained(request, shared),
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are / /livez /readyz /readyz?reads /metrics /view /doctor /overview /events /explain?cmd=GET+key\n".to_owned(),
        ),
    }
}

/// `/readyz` asks whether everything works, `/readyz?reads` whether anything can be read.
fn ready(request: &Request<Incoming>, shared: &Arc<Shared>) -> HttpResponse {
    let query = request.uri().query().unwrap_or_default();
    let reads_only = query.split('&').any(|word| word.split('=').next() == Some("reads"));
    let (is_ready, body) = ready::answer(shared, reads_only, clock::now());
    plain(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

fn explained(request: &Request<Incoming>, shared: &Arc<Shared>) -> HttpResponse {
    let query = request.uri().query().unwrap_or_default();
    let Some(cmd) = query.split('&').find_map(|pair| pair.strip_prefix("cmd=")) else {
        return plain(StatusCode::BAD_REQUEST, "say which command: /explain?cmd=GET+key\n".to_owned());
    };
    // An empty argument is an argument: `SET k ""` writes.
    let args: Vec<Vec<u8>> = cmd.split('+').map(percent_decode).collect();
    if args.iter().all(Vec::is_empty) {
        return plain(StatusCode::BAD_REQUEST, "the command is empty\n".to_owned());
    }
    let (commands, now) = (shared.commands.load(), clock::now());
    let asked = place::of(shared, args.as_slice(), &commands);
    let place = asked.as_ref().map(|asked| asked.place);
    let (shared, args) = asked.map_or((Arc::clone(shared), args), |asked| (asked.shared, asked.args));
    let view = shared.shard().view.load();
    let reader = Reader {
        policy: view.policies.for_client(0, None, None),
        user: "default",
        name: "",
        session: None,
        barrier: None,
    };
    // For a client that is logged in, if that is needed, and has done nothing yet.
    let situation = Situation {
        scripts_flushed: shared.shard().scripts_flushed.load(Ordering::Relaxed),
        reads_paused: shared.shard().reads_are_paused(now),
        ..Situation::default()
    };
    let bars = explain::bars(&view, reader.user);
    let asker = Asker { reader, situation, place };
    json(&explain::explain(&shared, &asker, args.as_slice(), (&view, &commands), now, |ask, then| {
        then(&Ask { barred: &bars, ..*ask });
    }))
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        if let Some(decoded) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()).filter(|_| byte == b'%') {
            out.push(decoded);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    out
}

fn json<T: Serialize>(value: &T) -> HttpResponse {
    match serde_json::to_string_pretty(value) {
        Ok(text) => reply(StatusCode::OK, "application/json", text + "\n"),
        Err(problem) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")),
    }
}

fn plain(status: StatusCode, text: String) -> HttpResponse {
    reply(status, "text/plain; charset=utf-8", text)
}

fn reply(status: StatusCode, kind: &'static str, text: String) -> HttpResponse {
    let mut response = full(Bytes::from(text));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, kind)
}

/// A response with this body.
fn full(body: Bytes) -> HttpResponse {
    Response::new(Full::new(body).boxed_unsync())
}

fn with(mut response: HttpResponse, name: HeaderName, value: &'static str) -> HttpResponse {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_nonsense_stays_as_it_is() {
        assert_eq!(percent_decode("a%20b%2B"), b"a b+");
        assert_eq!(percent_decode("100%"), b"100%");
        assert_eq!(percent_decode("%zz"), b"%zz");
    }
}
