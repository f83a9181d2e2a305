//! A TCP relay that can be slow, silent or rude, as networks are: between a replica and its primary, or between the
//! proxy and a node.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// Chunks that may be under way in one direction; more wait on the sender's side.
const IN_TRANSIT: usize = 4096;

/// How soon a thread that waits notices that its connection was reset or healed.
const NOTICE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From who connected to who is connected to. Of a replication link: what the replica says (its ACKs).
    Up,
    /// The other way. Of a replication link: the stream.
    Down,
}

#[derive(Default)]
struct Line {
    delay_ms: AtomicU64,
    stalled: AtomicBool,
}

#[derive(Default)]
struct State {
    up: Line,
    down: Line,
    stopped: AtomicBool,
    connections: Mutex<Vec<Arc<AtomicBool>>>,
    /// Connections up to this one pass nothing any longer.
    muted: AtomicUsize,
    accepted: AtomicUsize,
}

impl State {
    fn line(&self, direction: Direction) -> &Line {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// Waits while this direction is stalled. False: the connection is to be reset.
    fn passes(&self, direction: Direction, reset: &AtomicBool) -> bool {
        while self.line(direction).stalled.load(Ordering::SeqCst) {
            if self.is_over(reset) {
                return false;
            }
            thread::sleep(NOTICE);
        }
        !self.is_over(reset)
    }

    fn is_over(&self, reset: &AtomicBool) -> bool {
        reset.load(Ordering::SeqCst) || self.stopped.load(Ordering::SeqCst)
    }
}

/// Forwards every connection to a target on this machine.
pub(crate) struct Relay {
    pub(crate) port: u16,
    address: SocketAddr,
    state: Arc<State>,
    /// Of connections that pass, whatever is done to the others.
    exempt: Arc<State>,
}

impl Relay {
    pub(crate) fn to(target: u16) -> Self {
        Self::among(&[target])
    }

    /// One address in front of several targets, which get its connections in turn, the first one first.
    pub(crate) fn among(targets: &[u16]) -> Self {
        Self::listening(Ipv4Addr::LOCALHOST, 0, targets)
    }

    /// The same at this address, a number below 127.0.0.0/8 and a port.
    pub(crate) fn listening(host: Ipv4Addr, port: u16, targets: &[u16]) -> Self {
        Self::listening_for(host, port, targets, None)
    }

    /// Spoils only what comes from this address: all other connections pass, whatever is done to those.
    pub(crate) fn to_for(target: u16, source: Ipv4Addr) -> Self {
        Self::listening_for(Ipv4Addr::LOCALHOST, 0, &[target], Some(source))
    }

    fn listening_for(host: Ipv4Addr, port: u16, targets: &[u16], source: Option<Ipv4Addr>) -> Self {
        let listener = TcpListener::bind((host, port)).unwrap();
        let address = listener.local_addr().unwrap();
        let (port, targets) = (address.port(), targets.to_vec());
        let (state, exempt) = (Arc::new(State::default()), Arc::new(State::default()));
        let (shared, passing) = (Arc::clone(&state), Arc::clone(&exempt));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let is_meant =
                    source.is_none_or(|source| client.peer_addr().is_ok_and(|peer| peer.ip() == source));
                let state = Arc::clone(if is_meant { &shared } else { &passing });
                let number = state.accepted.fetch_add(1, Ordering::SeqCst) + 1;
                let target = targets[(number - 1) % targets.len()];
                thread::spawn(move || forward(client, target, number, &state));
            }
        });
        Self { port, address, state, exempt }
    }

    /// What is said in this direction from now on arrives so much later.
    pub(crate) fn delay(&self, direction: Direction, delay: Duration) {
        self.state.line(direction).delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Nothing passes in this direction until [`Relay::heal`]; nothing is lost either.
    pub(crate) fn stall(&self, direction: Direction) {
        self.state.line(direction).stalled.store(true, Ordering::SeqCst);
    }

    /// What was said and what will be said in this direction passes again, each as late as the delay was when it was said.
    /// With a long delay set before, what was said by then passes, and what is said later doesn't.
    pub(crate) fn flow(&self, direction: Direction) {
        self.state.line(direction).stalled.store(false, Ordering::SeqCst);
    }

    /// A black hole: nothing passes, nobody is told. Like retransmissions, what was said arrives after
    /// [`Relay::heal`], if its connection still exists.
    pub(crate) fn cut(&self) {
        self.stall(Direction::Up);
        self.stall(Direction::Down);
    }

    /// Ends every present connection with an RST to both sides.
    pub(crate) fn reset(&self) {
        for connection in self.state.connections.lock().unwrap().drain(..) {
            connection.store(true, Ordering::SeqCst);
        }
    }

    /// Takes back delays, stalls and cuts.
    pub(crate) fn heal(&self) {
        for direction in [Direction::Up, Direction::Down] {
            self.delay(direction, Duration::ZERO);
            self.flow(direction);
        }
    }

    /// What is said on the present connections arrives nowhere, and nobody is told. Others pass, and so do new ones to
    /// the same node.
    pub(crate) fn mute_present(&self) {
        self.state.muted.store(self.accepted(), Ordering::SeqCst);
    }

    /// How many connections came so far.
    pub(crate) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.exempt.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(client: TcpStream, target: u16, number: usize, state: &Arc<State>) {
    let reset = Arc::new(AtomicBool::new(false));
    state.connections.lock().unwrap().push(Arc::clone(&reset));
    // In a black hole a connection isn't even set up on the far side.
    if !state.passes(Direction::Up, &reset) {
        return hang_up(&client);
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return hang_up(&client) };
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    let (other, other_reset) = (Arc::clone(state), Arc::clone(&reset));
    thread::spawn(move || carry(from, to, Direction::Up, number, &other, &other_reset));
    carry(server, client, Direction::Down, number, state, &reset);
}

/// Makes the last close of this socket an RST.
fn hang_up(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Carries bytes one way; each chunk leaves when its time has come.
fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    direction: Direction,
    number: usize,
    state: &Arc<State>,
    reset: &Arc<AtomicBool>,
) {
    let _ = to.set_nodelay(true);
    let (sender, chunks) = sync_channel::<(Instant, Vec<u8>)>(IN_TRANSIT);
    let (reader_state, reader_reset) = (Arc::clone(state), Arc::clone(reset));
    let reader = thread::spawn(move || {
        listen(&mut from, &sender, direction, &reader_state, &reader_reset);
        from
    });
    loop {
        match chunks.recv_timeout(NOTICE) {
            Ok((due, bytes)) => {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if !state.passes(direction, reset) {
                    break;
                }
                if number <= state.muted.load(Ordering::SeqCst) {
                    continue;
                }
                if to.write_all(&bytes).is_err() {
                    // Who is spoken to is gone: who speaks has to hear of it.
                    reset.store(true, Ordering::SeqCst);
                    break;
                }
            }
            Err(RecvTimeoutError::Timeout) if state.is_over(reset) => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                // The end of input travels like any byte.
                if state.passes(direction, reset) {
                    let _ = to.shutdown(Shutdown::Write);
                }
                break;
            }
        }
    }
    drop(chunks);
    if state.is_over(reset) {
        hang_up(&to);
    }
    if let Ok(from) = reader.join()
        && state.is_over(reset)
    {
        hang_up(&from);
    }
}

fn listen(
    from: &mut TcpStream,
    sender: &SyncSender<(Instant, Vec<u8>)>,
    direction: Direction,
    state: &State,
    reset: &AtomicBool,
) {
    let _ = from.set_read_timeout(Some(NOTICE));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                let delay = Duration::from_millis(state.line(direction).delay_ms.load(Ordering::SeqCst));
                if sender.send((Instant::now() + delay, buffer[..n].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if state.is_over(reset) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
