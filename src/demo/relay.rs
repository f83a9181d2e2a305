//! A relay that can delay what the primary sends to a replica: a line, in order, as a slow network would be.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::core::moment::Moment;
use crate::net::runtime::clock;

/// Chunks that may be under way; more wait on the sender's side.
const IN_TRANSIT: usize = 4096;

/// Forwards every connection to a target.
#[derive(Debug)]
pub(super) struct DelayRelay {
    delay_ms: Arc<AtomicU64>,
}

impl DelayRelay {
    pub(super) fn start(port: u16, target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let delay_ms = Arc::new(AtomicU64::new(0));
        let setting = Arc::clone(&delay_ms);
        thread::Builder::new().name("relay".to_owned()).spawn(move || {
            for replica in listener.incoming().flatten() {
                let Ok(primary) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let (Ok(from), Ok(to)) = (replica.try_clone(), primary.try_clone()) else { continue };
                let delayed = Arc::clone(&setting);
                thread::spawn(move || carry(from, to, &AtomicU64::new(0)));
                thread::spawn(move || carry(primary, replica, &delayed));
            }
        })?;
        Ok(Self { delay_ms })
    }

    /// What the primary sends from now on arrives so much later.
    pub(super) fn delay(&self, delay: Duration) {
        self.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Carries bytes one way; each chunk leaves when its time has come.
fn carry(mut from: TcpStream, mut to: TcpStream, delay_ms: &AtomicU64) {
    let (sender, chunks) = sync_channel::<(Moment, Vec<u8>)>(IN_TRANSIT);
    let Ok(end) = to.try_clone() else { return };
    let writer = thread::spawn(move || {
        let mut waiting: VecDeque<(Moment, Vec<u8>)> = VecDeque::new();
        loop {
            let pause = waiting.front().map_or(Duration::from_secs(1), |(due, _)| due.since(clock::now()));
            match chunks.recv_timeout(pause) {
                Ok(chunk) => waiting.push_back(chunk),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while waiting.front().is_some_and(|(due, _)| *due <= clock::now()) {
                let Some((_, bytes)) = waiting.pop_front() else { break };
                if to.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
    });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let due = clock::now().after(Duration::from_millis(delay_ms.load(Ordering::Relaxed)));
        if sender.send((due, buffer[..n].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    let _ = writer.join();
    let _ = end.shutdown(Shutdown::Both);
}
