//! A blocking RESP2 and RESP3 client that shows what it got, errors and pushes included.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::socket::Socket;

/// How long a reply may take unless the test says otherwise.
const REPLY_WITHIN: Duration = Duration::from_secs(8);

/// A reply, as it came.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    Bool(bool),
    /// Doubles, big numbers: their text.
    Number(String),
    Verbatim(String),
}

impl Value {
    /// The text of whatever has a text; errors included.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Status(text) | Self::Error(text) | Self::Number(text) | Self::Verbatim(text) => {
                text.clone()
            }
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Int(n) => n.to_string(),
            other => panic!("{other:?} has no text"),
        }
    }

    /// A text for people: lines in RESP2, one text in RESP3.
    pub(crate) fn page(&self) -> String {
        match self {
            Self::Array(lines) => lines.iter().map(|line| line.text() + "\n").collect(),
            other => other.text(),
        }
    }

    pub(crate) fn int(&self) -> i64 {
        match self {
            Self::Int(n) => *n,
            Self::Bulk(_) | Self::Status(_) => self.text().parse().expect("a number"),
            other => panic!("{other:?} is no integer"),
        }
    }

    pub(crate) fn items(&self) -> &[Value] {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => items,
            other => panic!("{other:?} has no items"),
        }
    }

    /// The value of a field, in a RESP3 map or in a flat RESP2 array.
    pub(crate) fn field(&self, name: &str) -> &Value {
        let found = match self {
            Self::Map(pairs) => pairs.iter().find(|(field, _)| field.text() == name).map(|(_, value)| value),
            Self::Array(items) => items.chunks(2).find(|pair| pair[0].text() == name).map(|pair| &pair[1]),
            _ => None,
        };
        found.unwrap_or_else(|| panic!("no field {name} in {self:?}"))
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The error's text.
    pub(crate) fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("{other:?} is no error"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Int(n) => write!(f, ":{n}"),
            Self::Bulk(bytes) if bytes.len() > 200 => write!(f, "${} bytes", bytes.len()),
            Self::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Null => write!(f, "null"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(k, v)| (k, v))).finish(),
            Self::Set(items) => f.debug_set().entries(items).finish(),
            Self::Push(items) => write!(f, ">{items:?}"),
            Self::Bool(yes) => write!(f, "#{yes}"),
            Self::Number(text) => write!(f, ",{text}"),
            Self::Verbatim(text) => write!(f, "={text:?}"),
        }
    }
}

impl PartialEq<&str> for Value {
    /// A status or a bulk string of this text; an error never equals a text.
    fn eq(&self, other: &&str) -> bool {
        match self {
            Self::Status(text) | Self::Verbatim(text) => text == other,
            Self::Bulk(bytes) => bytes == other.as_bytes(),
            _ => false,
        }
    }
}

impl PartialEq<i64> for Value {
    fn eq(&self, other: &i64) -> bool {
        matches!(self, Self::Int(n) if n == other)
    }
}

/// A command in canonical form.
pub(crate) fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args.iter().map(AsRef::as_ref) {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// One client connection.
pub(crate) struct Conn {
    reader: BufReader<Socket>,
}

impl Conn {
    pub(crate) fn open(port: u16) -> Self {
        Self::try_open(port).unwrap_or_else(|error| panic!("cannot connect to port {port}: {error}"))
    }

    pub(crate) fn try_open(port: u16) -> io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_WITHIN))?;
        stream.set_write_timeout(Some(REPLY_WITHIN))?;
        Ok(Self::over(Socket::Tcp(stream)))
    }

    /// Over a connection that stands.
    pub(crate) fn over(socket: Socket) -> Self {
        socket.set_read_timeout(REPLY_WITHIN).unwrap();
        Self { reader: BufReader::with_capacity(64 * 1024, socket) }
    }

    /// What it talks over.
    pub(crate) fn socket(&self) -> &Socket {
        self.reader.get_ref()
    }

    /// How long a reply may take from now on.
    pub(crate) fn patience(&mut self, within: Duration) -> &mut Self {
        self.reader.get_ref().set_read_timeout(within).unwrap();
        self
    }

    /// A second handle on the socket, for sending from another thread while this one reads.
    pub(crate) fn stream(&self) -> TcpStream {
        self.reader.get_ref().tcp().try_clone().unwrap()
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.reader.get_mut().write_all(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
        self
    }

    /// Sends a command and doesn't wait.
    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> &mut Self {
        self.send(&encode(args))
    }

    /// Sends a command and reads one reply.
    pub(crate) fn cmd<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.try_cmd(args).unwrap_or_else(|error| {
            let words: Vec<_> =
                args.iter().map(|a| String::from_utf8_lossy(a.as_ref()).into_owned()).collect();
            let shown: String = words.join(" ").chars().take(200).collect();
            panic!("no reply to {shown}: {error}")
        })
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    pub(crate) fn try_cmd<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        self.try_send(&encode(args))?;
        self.try_read()
    }

    /// Reads one reply, or push.
    pub(crate) fn read(&mut self) -> Value {
        self.try_read().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    pub(crate) fn read_many(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.read()).collect()
    }

    pub(crate) fn try_read(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("half a line: {}", line.escape_ascii()),
            ));
        };
        let text = || String::from_utf8_lossy(&line[1..]).into_owned();
        let count = || text().parse::<i64>().map_err(|_| strange(line));
        Ok(match line.first() {
            Some(b'+') => Value::Status(text()),
            Some(b'-') => Value::Error(text()),
            Some(b':') => Value::Int(count()?),
            Some(b',' | b'(') => Value::Number(text()),
            Some(b'#') => Value::Bool(line == b"#t"),
            Some(b'_') => Value::Null,
            Some(b'$') => match count()? {
                -1 => Value::Null,
                length => Value::Bulk(self.body(length as usize)?),
            },
            Some(b'=') => {
                let body = self.body(count()? as usize)?;
                Value::Verbatim(String::from_utf8_lossy(&body[4..]).into_owned())
            }
            Some(b'*') => match count()? {
                -1 => Value::Null,
                length => Value::Array(self.many(length)?),
            },
            Some(b'~') => Value::Set(self.many(count()?)?),
            Some(b'>') => Value::Push(self.many(count()?)?),
            Some(b'%') => {
                let mut items = self.many(2 * count()?)?.into_iter();
                let mut pairs = Vec::new();
                while let (Some(field), Some(value)) = (items.next(), items.next()) {
                    pairs.push((field, value));
                }
                Value::Map(pairs)
            }
            Some(b'|') => {
                self.many(2 * count()?)?;
                self.try_read()?
            }
            _ => return Err(strange(line)),
        })
    }

    fn many(&mut self, count: i64) -> io::Result<Vec<Value>> {
        (0..count).map(|_| self.try_read()).collect()
    }

    fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length + 2];
        self.reader.read_exact(&mut body)?;
        body.truncate(length);
        Ok(body)
    }

    /// Whether nothing arrives for so long. The connection stays usable.
    pub(crate) fn is_silent_for(&mut self, pause: Duration) -> bool {
        self.patience(pause);
        let silent = matches!(self.reader.fill_buf(), Err(error) if is_timeout(&error));
        self.patience(REPLY_WITHIN);
        silent
    }

    /// Reads until the other side closes; fails when it doesn't. Returns what still came.
    pub(crate) fn read_to_close(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                panic!("still open: {error}; after {}", rest.escape_ascii())
            }
            _ => rest,
        }
    }

    /// Closes our sending side.
    pub(crate) fn finish(&mut self) {
        self.reader.get_mut().finish().unwrap();
    }
}

/// Whether an operation ran into a socket's timeout.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn strange(line: &[u8]) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not RESP: {}", line.escape_ascii()))
}

/// A plain HTTP/1.1 GET; the status and the body.
pub(crate) fn http_get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    let deadline = Instant::now() + Duration::from_secs(5);
    stream.read_to_string(&mut answer)?;
    assert!(Instant::now() < deadline, "{path} took too long");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{path}: a chunked body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}
