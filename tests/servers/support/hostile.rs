//! A node that lies, stalls and babbles: it stands in front of a real server, passes on what that replies, and plays its
//! role where it has one. What the roles are stands in `servers/hostile/roles.rs`.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use redweir::wire::reply::{ReplyKind, ReplyScanner};

use super::resp::encode;

/// What an endless reply sends at most, in bytes: more than any bound that a test sets on memory.
const ENDLESS: usize = 512 << 20;

/// Between two bytes of a reply that drips.
const DRIP: Duration = Duration::from_millis(1);

/// Makes another reply of the real one; the number counts how often the role was played before, the port is the node's own.
pub(crate) type Change = fn(real: Vec<u8>, played: u64, port: u16) -> Vec<u8>;

/// What is done in the place of a reply.
#[derive(Clone)]
pub(crate) enum Act {
    /// These bytes.
    Say(Vec<u8>),
    /// The first bytes once, then the second over and over, until nobody listens.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing, ever, on this connection.
    Silence,
    /// It hangs up.
    HangUp,
    /// The request itself.
    Echo,
    /// Half of the real reply, then it hangs up.
    Half,
    /// The real reply, one byte at a time.
    Drip,
    /// What is made of the real reply.
    Change(Change),
}

/// When a node is hostile, and how.
#[derive(Clone)]
pub(crate) struct Role {
    pub(crate) name: &'static str,
    /// The commands that it answers in its own way, in upper case; `*` for all; `BAIT` for `GET` of a key that ends in
    /// `:bait`.
    pub(crate) on: &'static [&'static str],
    pub(crate) act: Act,
}

impl Role {
    fn is_about(&self, command: &[Vec<u8>]) -> bool {
        let name = command.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let is_bait = name == b"GET" && command.get(1).is_some_and(|key| key.ends_with(b":bait"));
        self.on.iter().any(|on| *on == "*" || on.as_bytes() == name || *on == "BAIT" && is_bait)
    }
}

struct State {
    role: Role,
    target: u16,
    port: u16,
    played: AtomicU64,
    stopped: AtomicBool,
}

/// One node with one role. Its threads end with the connections to it.
pub(crate) struct Hostile {
    pub(crate) port: u16,
    state: Arc<State>,
}

impl Hostile {
    /// In front of the server on port `target`.
    pub(crate) fn playing(role: &Role, target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (played, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let state = Arc::new(State { role: role.clone(), target, port, played, stopped });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&shared);
                // However it ends, the connections are closed.
                thread::spawn(move || serve(&client, &state));
            }
        });
        Self { port, state }
    }

    /// How often it has played its role.
    pub(crate) fn played(&self) -> u64 {
        self.state.played.load(Ordering::SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// The server behind a connection.
struct Behind {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Behind {
    /// Puts the command to it and returns its reply, with what it pushes before that.
    fn ask(&mut self, command: &[Vec<u8>]) -> io::Result<Vec<u8>> {
        self.stream.write_all(&encode(command))?;
        let (mut scanner, mut at) = (ReplyScanner::new(), 0);
        loop {
            let found = scanner.scan(&self.buffer[at..]).map_err(|_| ErrorKind::InvalidData)?;
            match found {
                Some(extent) if extent.kind == ReplyKind::Push => at += extent.end,
                Some(extent) => return Ok(self.buffer.drain(..at + extent.end).collect()),
                None => {
                    at = self.buffer.len();
                    let mut chunk = [0; 16 << 10];
                    let count = self.stream.read(&mut chunk)?;
                    if count == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    self.buffer.extend_from_slice(&chunk[..count]);
                }
            }
        }
    }
}

fn serve(client: &TcpStream, state: &State) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, state.target))?;
    let (mut from, mut to) = (BufReader::new(client.try_clone()?), client.try_clone()?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut behind = Behind { stream: server, buffer: Vec::new() };
    while let Some(command) = next_command(&mut from)? {
        let streams = command[0].eq_ignore_ascii_case(b"PSYNC");
        if state.role.is_about(&command) {
            let played = state.played.fetch_add(1, Ordering::SeqCst);
            if !play(state, &command, played, &mut to, &mut behind)? {
                return Ok(());
            }
            if streams || matches!(state.role.act, Act::Silence) {
                return swallow(&mut from);
            }
        } else if streams {
            behind.stream.write_all(&encode(&command))?;
            return relay(from, to, &behind.stream);
        } else {
            to.write_all(&behind.ask(&command)?)?;
        }
    }
    Ok(())
}

/// False: it hangs up.
fn play(
    state: &State,
    command: &[Vec<u8>],
    played: u64,
    to: &mut TcpStream,
    behind: &mut Behind,
) -> io::Result<bool> {
    match &state.role.act {
        Act::Say(bytes) => to.write_all(bytes)?,
        Act::Silence => {}
        Act::HangUp => return Ok(false),
        Act::Echo => to.write_all(&encode(command))?,
        Act::Endless(first, then) => {
            to.write_all(first)?;
            let block = then.repeat((64 << 10) / then.len() + 1);
            for _ in 0..ENDLESS / block.len() {
                to.write_all(&block)?;
            }
        }
        Act::Half => {
            let real = behind.ask(command)?;
            to.write_all(&real[..real.len() / 2])?;
            return Ok(false);
        }
        Act::Drip => {
            for byte in behind.ask(command)? {
                to.write_all(&[byte])?;
                thread::sleep(DRIP);
            }
        }
        Act::Change(change) => to.write_all(&change(behind.ask(command)?, played, state.port))?,
    }
    Ok(true)
}

/// Reads what comes until nothing does any more.
fn swallow(from: &mut impl Read) -> io::Result<()> {
    io::copy(from, &mut io::sink()).map(|_| ())
}

/// Carries bytes both ways until one side ends.
fn relay(mut from: BufReader<TcpStream>, mut to: TcpStream, server: &TcpStream) -> io::Result<()> {
    let (mut up, mut down) = (server.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut up);
        let _ = up.shutdown(Shutdown::Both);
    });
    let result = io::copy(&mut down, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    result.map(|_| ())
}

/// One command, an array of bulk strings; `None` at the end.
fn next_command(from: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(count) = next_number(from, b'*')? else { return Ok(None) };
    let mut command = Vec::new();
    for _ in 0..count {
        let length = next_number(from, b'$')?.ok_or(ErrorKind::UnexpectedEof)?;
        let mut argument = vec![0; length + 2];
        from.read_exact(&mut argument)?;
        argument.truncate(length);
        command.push(argument);
    }
    if command.is_empty() { Err(ErrorKind::InvalidData.into()) } else { Ok(Some(command)) }
}

fn next_number(from: &mut BufReader<TcpStream>, sigil: u8) -> io::Result<Option<usize>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let digits = line.strip_prefix(&[sigil]).and_then(|rest| rest.strip_suffix(b"\r\n"));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.map(Some).ok_or_else(|| ErrorKind::InvalidData.into())
}
