//! A connection to a node for Redweir's own use: reports, probes, configuration. Off the hot path, so that answers are
//! decoded whole.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::core::address::{Address, Login};
use crate::core::nodes::trouble::{Problem, ProblemKind};
use crate::net::runtime::limits;
use crate::net::socket::dial::{ByteStream, Dialer};
use crate::wire::answer::AnswerDecoder;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The node could not be reached.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// No answer in time. The connection can't be used any more: a late answer would be taken for the next one.
    #[error("no answer in time")]
    Timeout,
    /// `AUTH` was refused; the node's own words.
    #[error("authentication refused: {0}")]
    Auth(String),
    /// The node answered an error; its own words, without the leading dash.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection is gone.
    #[error("connection closed")]
    Closed,
    /// The answer is not RESP2, or too long.
    #[error("malformed reply: {0}")]
    Malformed(String),
}

/// [`ControlError`] without its details, for labels and log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlErrorKind {
    /// [`ControlError::Connect`]
    Connect,
    /// [`ControlError::Timeout`]
    Timeout,
    /// [`ControlError::Auth`]
    Auth,
    /// [`ControlError::Refused`]
    Refused,
    /// [`ControlError::Closed`]
    Closed,
    /// [`ControlError::Malformed`]
    Malformed,
}

impl ControlError {
    /// The kind.
    pub const fn kind(&self) -> ControlErrorKind {
        match self {
            Self::Connect(_) => ControlErrorKind::Connect,
            Self::Timeout => ControlErrorKind::Timeout,
            Self::Auth(_) => ControlErrorKind::Auth,
            Self::Refused(_) => ControlErrorKind::Refused,
            Self::Closed => ControlErrorKind::Closed,
            Self::Malformed(_) => ControlErrorKind::Malformed,
        }
    }

    /// The same for people, without anything that a node may have repeated of what it was told.
    pub fn problem(&self) -> Problem {
        let plain = |kind| Problem::new(kind, "");
        match self {
            Self::Connect(error) => {
                let words = error.to_string();
                let kind = match error.kind() {
                    io::ErrorKind::ConnectionRefused => return plain(ProblemKind::ConnectionRefused),
                    io::ErrorKind::InvalidData => ProblemKind::Tls,
                    _ if words.contains("TLS") => ProblemKind::Tls,
                    // `getaddrinfo`; the standard library has no kind for it.
                    _ if words.contains("lookup address") => return plain(ProblemKind::UnknownName),
                    _ => ProblemKind::Unreachable,
                };
                Problem::new(kind, &words)
            }
            Self::Timeout => plain(ProblemKind::NoAnswer),
            Self::Auth(text) => Problem::of_login(text),
            Self::Refused(text) => Problem::of_error(text),
            Self::Closed => plain(ProblemKind::Closed),
            Self::Malformed(_) => plain(ProblemKind::Malformed),
        }
    }

    /// Whether the connection can still be used: only a refusal leaves it in order.
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// One connection to a node, in RESP2, with one caller at a time.
pub struct ControlLink {
    socket: Box<dyn ByteStream>,
    inbound: BytesMut,
    decoder: AnswerDecoder,
    outbound: Vec<u8>,
    /// Answers still to come. Not zero at the start of a call: an earlier one was abandoned, and the link is lost.
    owed: usize,
}

impl ControlLink {
    /// Connects and, when credentials are given, authenticates, each within `within`.
    pub async fn connect(
        dialer: &Dialer,
        address: &Address,
        credentials: Option<&Login>,
        within: Duration,
    ) -> Result<Self, ControlError> {
        let socket = dialer.dial(address, within).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => ControlError::Timeout,
            _ => ControlError::Connect(error),
        })?;
        let mut link = Self::over(socket);
        if let Some(credentials) = credentials {
            link.authenticate(credentials, within).await?;
        }
        Ok(link)
    }

    fn over(socket: Box<dyn ByteStream>) -> Self {
        let decoder = AnswerDecoder::default();
        Self { socket, inbound: BytesMut::new(), decoder, outbound: Vec::new(), owed: 0 }
    }

    /// Sends one command and waits for its answer, at most `within`. An error answer is `Refused`.
    ///
    /// Not cancel safe: a call that is dropped, or that times out, makes the link unusable (`Closed`), for the answers that
    /// it still owes would be taken for those to the next question.
    pub async fn call(&mut self, args: &[&[u8]], within: Duration) -> Result<BytesFrame, ControlError> {
        match self.call_many(&[args], within).await?.pop() {
            Some(BytesFrame::Error(text)) => Err(ControlError::Refused(words(&text))),
            Some(frame) => Ok(frame),
            None => Err(ControlError::Closed),
        }
    }

    /// Sends the commands in one write and waits for all answers, at most `within`. Error answers stand among the
    /// others as [`BytesFrame::Error`].
    ///
    /// Not cancel safe, as [`Self::call`].
    pub async fn call_many(
        &mut self,
        commands: &[&[&[u8]]],
        within: Duration,
    ) -> Result<Vec<BytesFrame>, ControlError> {
        if self.owed > 0 {
            return Err(ControlError::Closed);
        }
        if !self.inbound.is_empty() {
            // It would be taken for the answer to what is asked now.
            return Err(ControlError::Malformed("an answer that nothing had asked for".to_owned()));
        }
        self.outbound.clear();
        for command in commands {
            encode(command, &mut self.outbound);
        }
        self.owed = commands.len();
        timeout(within, self.exchange(commands.len())).await.map_err(|_| ControlError::Timeout)?
    }

    /// Gives up the link for its connection, with the bytes that were read beyond the last answer. To be called
    /// when no answer is owed.
    pub fn into_parts(self) -> (Box<dyn ByteStream>, BytesMut) {
        (self.socket, self.inbound)
    }

    async fn exchange(&mut self, count: usize) -> Result<Vec<BytesFrame>, ControlError> {
        self.socket.write_all(&self.outbound).await.map_err(|_| ControlError::Closed)?;
        self.socket.flush().await.map_err(|_| ControlError::Closed)?;
        let mut answers = Vec::with_capacity(count);
        while answers.len() < count {
            answers.push(self.answer().await?);
            self.owed -= 1;
        }
        Ok(answers)
    }

    async fn answer(&mut self) -> Result<BytesFrame, ControlError> {
        loop {
            let decoded = self.decoder.decode(&mut self.inbound);
            if let Some(frame) = decoded.map_err(|e| ControlError::Malformed(e.to_string()))? {
                return Ok(frame);
            }
            match self.socket.read_buf(&mut self.inbound).await {
                Ok(0) => return Err(ControlError::Closed),
                Ok(_) => {}
                // A node that does not like our certificate says so only after the handshake.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(ControlError::Connect(error));
                }
                Err(_) => return Err(ControlError::Closed),
            }
        }
    }

    /// Says who it is for. What a refusal repeats of that is left out.
    pub(crate) async fn authenticate(&mut self, who: &Login, within: Duration) -> Result<(), ControlError> {
        let password = who.password.as_bytes();
        let answer = match &who.username {
            Some(user) => self.call(&[b"AUTH", user.as_bytes(), password], within).await,
            None => self.call(&[b"AUTH", password], within).await,
        };
        match answer {
            Ok(_) => Ok(()),
            Err(ControlError::Refused(text)) => Err(ControlError::Auth(without_arguments(text))),
            Err(error) => Err(error),
        }
    }
}

/// The words of an error, as far as anybody will read them: they are logged, and kept.
pub(crate) fn words(error: &str) -> String {
    error[..error.floor_char_boundary(limits::ERROR_WORDS)].to_owned()
}

/// An error without the arguments that it repeats, among which is the password (`server.c`, `rejectCommandFormat` for an unknown
/// command).
fn without_arguments(mut error: String) -> String {
    if let Some(at) = error.find(", with args") {
        error.truncate(at);
    }
    error
}

/// Appends a command as a RESP array of bulk strings.
pub(crate) fn encode(args: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::types::Resp2Frame as _;
    use tokio::io::DuplexStream;

    use super::*;

    const WITHIN: Duration = Duration::from_millis(200);

    fn linked() -> (ControlLink, DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 16);
        (ControlLink::over(Box::new(near)), far)
    }

    #[tokio::test]
    async fn answers_come_back_in_order_errors_among_them() {
        let (mut link, mut far) = linked();
        far.write_all(b"+PONG\r\n-NOPERM no\r\n:7\r\n").await.unwrap();
        let ping: &[&[u8]] = &[b"PING"];
        let answers = link.call_many(&[ping, ping, ping], WITHIN).await.unwrap();
        assert_eq!(answers[0].as_str(), Some("PONG"));
        assert!(matches!(&answers[1], BytesFrame::Error(text) if *text == "NOPERM no"));
        assert_eq!(answers[2], BytesFrame::Integer(7));
        let mut sent = vec![0; 42];
        far.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent, b"*1\r\n$4\r\nPING\r\n".repeat(3));
    }

    #[tokio::test]
    async fn a_refusal_is_not_fatal_but_a_timeout_is() {
        let (mut link, mut far) = linked();
        far.write_all(b"-ERR unknown command\r\n").await.unwrap();
        let refused = link.call(&[b"ROLE"], WITHIN).await.unwrap_err();
        assert!(!refused.is_fatal());
        assert_eq!(refused.to_string(), "refused: ERR unknown command");
        assert_eq!(link.call(&[b"ROLE"], WITHIN).await.unwrap_err().kind(), ControlErrorKind::Timeout);
        far.write_all(b"+LATE\r\n").await.unwrap();
        assert_eq!(link.call(&[b"PING"], WITHIN).await.unwrap_err().kind(), ControlErrorKind::Closed);
    }

    #[tokio::test]
    async fn an_answer_to_nothing_is_not_taken_for_the_next_one() {
        let (mut link, mut far) = linked();
        far.write_all(b"+PONG\r\n+OK\r\n").await.unwrap();
        link.call(&[b"PING"], WITHIN).await.unwrap();
        assert_eq!(link.call(&[b"ROLE"], WITHIN).await.unwrap_err().kind(), ControlErrorKind::Malformed);
    }

    #[tokio::test]
    async fn an_error_says_only_so_much() {
        let (mut link, mut far) = linked();
        far.write_all(format!("-ERR {}\r\n", "é".repeat(10_000)).as_bytes()).await.unwrap();
        let ControlError::Refused(words) = link.call(&[b"PING"], WITHIN).await.unwrap_err() else { panic!() };
        assert!(words.starts_with("ERR éé") && words.len() <= limits::ERROR_WORDS, "{} bytes", words.len());
    }

    #[tokio::test]
    async fn a_node_that_does_not_know_auth_does_not_have_the_password_repeated() {
        let (mut link, mut far) = linked();
        let words = "-ERR unknown command 'AUTH', with args beginning with: 'hunter2' \r\n";
        far.write_all(words.as_bytes()).await.unwrap();
        let login = Login { username: None, password: "hunter2".to_owned() };
        let refused = link.authenticate(&login, WITHIN).await.unwrap_err();
        assert_eq!(refused.to_string(), "authentication refused: ERR unknown command 'AUTH'");
        assert_eq!(refused.problem().kind, ProblemKind::Password);
    }

    #[tokio::test]
    async fn garbage_and_a_closed_connection_are_told_apart() {
        let (mut link, mut far) = linked();
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
        assert_eq!(link.call(&[b"PING"], WITHIN).await.unwrap_err().kind(), ControlErrorKind::Malformed);
        let (mut link, far) = linked();
        drop(far);
        assert_eq!(link.call(&[b"PING"], WITHIN).await.unwrap_err().kind(), ControlErrorKind::Closed);
    }
}
