//! The floor: a multiplexer that knows how long every request and every reply is, and so parses nothing. What it takes
//! is what system calls and tasks cost; no proxy that shares connections can take much less.
//!
//! It does what the fastest do: every ready client is read before anything is written, then there is one write for the
//! upstream connection, and one for each client whose replies have come. It has no limits and survives no fault.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::contestant::Running;
use crate::rig::process::{Process, free_port, proxy_core};
use crate::{Site, VALUE_BYTES};

/// How this executable is told to be the floor: `--floor PORT UPSTREAM`.
pub(crate) const FLAG: &str = "--floor";

const READ_BYTES: usize = 64 << 10;

/// What a connection sends, always the same command.
#[derive(Clone, Copy)]
struct Shape {
    begins: &'static [u8],
    request_bytes: usize,
    reply_bytes: usize,
}

/// As `redis-benchmark -r -d 32` sends them: the name, a key of 16 bytes, the value; and their replies.
const SHAPES: [Shape; 2] = [
    Shape {
        begins: b"*2\r\n$3\r\nGET\r\n$16\r\n",
        request_bytes: 4 + 9 + 23,
        reply_bytes: 5 + VALUE_BYTES + 2,
    },
    Shape {
        begins: b"*3\r\n$3\r\nSET\r\n$16\r\n",
        request_bytes: 4 + 9 + 23 + 5 + VALUE_BYTES + 2,
        reply_bytes: 5,
    },
];

/// What the tasks share.
struct Hub {
    /// Requests of this turn.
    requests: Out,
    /// Whose replies come next, and how many bytes of them.
    owed: VecDeque<(usize, usize)>,
    upstream: Option<Waker>,
    /// One for every connection there ever was.
    seats: Vec<Seat>,
    scratch: Vec<u8>,
}

#[derive(Default)]
struct Seat {
    replies: Out,
    waker: Option<Waker>,
}

/// Bytes to write.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    written: usize,
}

struct Client {
    stream: TcpStream,
    seat: usize,
    shape: Option<Shape>,
    /// The part of a request whose rest is still to come.
    part: Vec<u8>,
}

/// Starts it in front of the primary.
pub(crate) fn start(site: &Site<'_>) -> anyhow::Result<Running> {
    let (port, log) = (free_port()?, site.home.join("floor.log"));
    let args = [FLAG.to_owned(), port.to_string(), site.servers.primary().to_string()];
    let mut process = Process::start(proxy_core(), &site.me, &args.each_ref().map(String::as_str), &log)?;
    process.wait_for(port, &log)?;
    Ok(Running { process: Some(process), port })
}

/// Is the floor, until it is killed.
pub(crate) fn serve(port: u16, upstream: u16) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, multiplex(port, upstream))
}

async fn multiplex(port: u16, upstream: u16) -> anyhow::Result<()> {
    let hub = Rc::new(RefCell::new(Hub {
        requests: Out::default(),
        owed: VecDeque::new(),
        upstream: None,
        seats: Vec::new(),
        scratch: vec![0; READ_BYTES],
    }));
    let mut stream = TcpStream::connect(("127.0.0.1", upstream)).await?;
    stream.set_nodelay(true)?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    spawn_local(accept(listener, Rc::clone(&hub)));
    // A task of its own, because what a `LocalSet` blocks on is polled at every turn.
    let upstream = poll_fn(move |context| hub.borrow_mut().poll_upstream(context, &mut stream));
    Ok(spawn_local(upstream).await??)
}

async fn accept(listener: TcpListener, hub: Rc<RefCell<Hub>>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let seat = hub.borrow().seats.len();
        hub.borrow_mut().seats.push(Seat::default());
        let mut client = Client { stream, seat, shape: None, part: Vec::new() };
        let hub = Rc::clone(&hub);
        spawn_local(poll_fn(move |context| hub.borrow_mut().poll_client(context, &mut client)));
    }
}

impl Hub {
    /// Writes the requests of this turn, and deals out all replies there are.
    fn poll_upstream(&mut self, context: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<()>> {
        self.upstream.get_or_insert_with(|| context.waker().clone());
        // What does not fit now goes when the server has read.
        let _ = self.requests.poll_write(context, stream)?;
        loop {
            let mut buffer = ReadBuf::new(&mut self.scratch);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            let mut rest = buffer.filled();
            if rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            while let Some((seat, owed)) = self.owed.front_mut().filter(|_| !rest.is_empty()) {
                let (here, after) = rest.split_at(rest.len().min(*owed));
                let seat = &mut self.seats[*seat];
                seat.replies.bytes.extend_from_slice(here);
                seat.waker.iter().for_each(Waker::wake_by_ref);
                *owed -= here.len();
                rest = after;
                if *owed == 0 {
                    self.owed.pop_front();
                }
            }
        }
    }

    /// Writes the replies that have come, and takes all requests there are; ready when the client has gone.
    fn poll_client(&mut self, context: &mut Context<'_>, client: &mut Client) -> Poll<io::Result<()>> {
        let seat = &mut self.seats[client.seat];
        seat.waker.get_or_insert_with(|| context.waker().clone());
        // What does not fit now goes when the client has read.
        let _ = seat.replies.poll_write(context, &mut client.stream)?;
        loop {
            let mut buffer = ReadBuf::new(&mut self.scratch);
            ready!(Pin::new(&mut client.stream).poll_read(context, &mut buffer))?;
            let read = buffer.filled();
            if client.shape.is_none() {
                client.shape = SHAPES.into_iter().find(|shape| read.starts_with(shape.begins));
            }
            // Whoever wants something else is turned away.
            let Some(shape) = client.shape.filter(|_| !read.is_empty()) else { return Poll::Ready(Ok(())) };
            let held = client.part.len();
            let whole = (held + read.len()) / shape.request_bytes;
            let Some(taken) = (whole * shape.request_bytes).checked_sub(held).filter(|_| whole > 0) else {
                client.part.extend_from_slice(read);
                continue;
            };
            self.requests.bytes.append(&mut client.part);
            self.requests.bytes.extend_from_slice(&read[..taken]);
            client.part.extend_from_slice(&read[taken..]);
            self.owed.push_back((client.seat, whole * shape.reply_bytes));
            self.upstream.iter().for_each(Waker::wake_by_ref);
        }
    }
}

impl Out {
    /// Ready when nothing is left.
    fn poll_write(&mut self, context: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            self.written += ready!(Pin::new(&mut *stream).poll_write(context, &self.bytes[self.written..]))?;
        }
        self.bytes.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}
