//! Replies as bytes: what is compared is what came.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use memchr::memchr;

use crate::support::Conn;

/// A command's words, or a reply's items.
pub(crate) type Words = Vec<Vec<u8>>;

/// Where the frame that begins at `at` ends; `None` when it isn't complete.
pub(crate) fn frame_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut left = 1;
    while left > 0 {
        left -= 1;
        let eol = at + memchr(b'\n', bytes.get(at..)?)?;
        let (kind, digits) = (bytes[at], &bytes[at + 1..eol - 1]);
        at = eol + 1;
        let count = || number(digits).max(0);
        match kind {
            b'$' if digits == b"-1" => {}
            b'$' | b'=' | b'!' => at += count() as usize + 2,
            b'*' | b'~' | b'>' => left += count(),
            b'%' => left += 2 * count(),
            b'|' => left += 2 * count() + 1,
            _ => {}
        }
    }
    (at <= bytes.len()).then_some(at)
}

fn number(digits: &[u8]) -> i64 {
    let (sign, digits) = digits.strip_prefix(b"-").map_or((1, digits), |rest| (-1, rest));
    sign * digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit.wrapping_sub(b'0')))
}

/// The items of an aggregate, as frames; nothing else has any.
pub(crate) fn items(frame: &[u8]) -> Vec<&[u8]> {
    if !matches!(frame.first(), Some(b'*' | b'~' | b'%' | b'>')) {
        return Vec::new();
    }
    let mut at = memchr(b'\n', frame).map_or(frame.len(), |eol| eol + 1);
    let mut found = Vec::new();
    while at < frame.len() {
        let end = frame_end(frame, at).expect("a whole frame");
        found.push(&frame[at..end]);
        at = end;
    }
    found
}

/// The text of a string or a number.
pub(crate) fn text(frame: &[u8]) -> &[u8] {
    let line = memchr(b'\n', frame).map_or(frame.len(), |eol| eol + 1);
    if frame.first() == Some(&b'$') && line < frame.len() {
        &frame[line..frame.len() - 2]
    } else {
        &frame[1..line.saturating_sub(2).max(1)]
    }
}

/// The same frame with the items of its outermost aggregate in order: for what Redis leaves to chance. Of a hash, the pairs
/// stay together.
pub(crate) fn sorted(frame: &[u8], in_pairs: bool) -> Vec<u8> {
    let items = items(frame);
    let mut groups: Vec<Vec<u8>> = items.chunks(if in_pairs { 2 } else { 1 }).map(<[_]>::concat).collect();
    if groups.is_empty() {
        return frame.to_vec();
    }
    groups.sort();
    let head = memchr(b'\n', frame).map_or(0, |eol| eol + 1);
    [&frame[..head], &groups.concat()].concat()
}

/// A connection that hands out replies as they came.
pub(crate) struct Pipe {
    stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
}

impl Pipe {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = Conn::try_open(port)?.stream();
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream, buffer: Vec::new(), at: 0 })
    }

    pub(crate) fn patience(&self, within: Duration) {
        self.stream.set_read_timeout(Some(within)).expect("a timeout");
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Takes in what has arrived, waiting for it if need be.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        if self.at > 1 << 16 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + (1 << 16), 0);
        let read = self.stream.read(&mut self.buffer[filled..]);
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        if read? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// What has arrived and nobody took yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    pub(crate) fn take(&mut self, length: usize) {
        self.at += length;
    }

    /// The next frame, if it has arrived.
    fn whole(&self) -> Option<Range<usize>> {
        frame_end(&self.buffer, self.at).map(|end| self.at..end)
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> io::Result<&[u8]> {
        while self.whole().is_none() {
            self.fill()?;
        }
        let frame = self.whole().expect("a frame");
        self.at = frame.end;
        Ok(&self.buffer[frame])
    }

    /// The next frame that is the reply to something; messages are let pass.
    pub(crate) fn reply(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let frame = self.frame()?;
            if frame[0] != b'>' {
                return Ok(frame.to_vec());
            }
        }
    }

    /// Whether the next frame is exactly this one; takes it either way.
    pub(crate) fn is_next(&mut self, expected: &[u8]) -> io::Result<bool> {
        while self.unread().len() < expected.len() && self.whole().is_none() {
            self.fill()?;
        }
        if self.unread().starts_with(expected) {
            self.at += expected.len();
            return Ok(true);
        }
        self.frame().map(|_| false)
    }
}
