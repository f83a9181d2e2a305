//! Just enough of the protocol to fill servers and to ask them things: one line or one bulk string per reply.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How long a reply may take.
const WITHIN: Duration = Duration::from_secs(10);

/// A connection to a server or a proxy.
pub(crate) struct Conn {
    reader: BufReader<TcpStream>,
}

impl Conn {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::with_capacity(512, stream) })
    }

    /// Sends one command; the content of its reply, errors and other lines with their first byte.
    pub(crate) fn call(&mut self, args: &[&str]) -> io::Result<Vec<u8>> {
        let mut request = Vec::new();
        append(&mut request, args);
        self.reader.get_mut().write_all(&request)?;
        self.reply()
    }

    /// `SET`s this many keys as `redis-benchmark -r` names them.
    pub(crate) fn fill(&mut self, keys: usize, bytes: usize) -> io::Result<()> {
        let (mut request, value) = (Vec::new(), "x".repeat(bytes));
        for key in 0..keys {
            append(&mut request, &["SET", &format!("key:{key:012}"), &value]);
        }
        // Replies are short: those of all keys fit into what sockets and server buffer meanwhile.
        self.reader.get_mut().write_all(&request)?;
        (0..keys).try_for_each(|_| self.reply().map(drop))
    }

    fn reply(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.len() - 2);
        let length = line.strip_prefix(b"$").and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        let Some(length) = length else { return Ok(line) };
        let mut bulk = vec![0; length];
        self.reader.read_exact(&mut bulk)?;
        self.reader.read_exact(&mut [0; 2])?;
        Ok(bulk)
    }
}

fn append(request: &mut Vec<u8>, args: &[&str]) {
    request.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        request.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
}
