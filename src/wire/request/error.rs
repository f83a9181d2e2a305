//! What Redis tells a client that breaks the protocol, word for word (networking.c).

use std::fmt;

use bytes::{BufMut, BytesMut};

/// A protocol error of the client. Its text is what Redis writes behind `-ERR `; the connection then closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// A `*` line longer than [`super::RequestLimits::max_line`].
    TooBigMultibulkCount,
    /// A `$` line longer than [`super::RequestLimits::max_line`].
    TooBigBulkCount,
    /// An inline command longer than [`super::RequestLimits::max_inline`].
    TooBigInline,
    /// A quote in an inline command that does not close, or closes inside a word.
    UnbalancedQuotes,
    /// `*` without a proper number, or more than [`super::RequestLimits::max_args`].
    InvalidMultibulkLength,
    /// `$` without a proper number, or more than [`super::RequestLimits::max_bulk`].
    InvalidBulkLength,
    /// An argument that starts with this byte instead of `$`.
    ExpectedDollar(u8),
    /// Too many arguments before authentication.
    UnauthenticatedMultibulk,
    /// Too long an argument before authentication.
    UnauthenticatedBulk,
}

impl RequestError {
    /// Appends the whole error reply, `-ERR ` and CRLF included, as Redis writes it: the byte of
    /// [`RequestError::ExpectedDollar`] goes out as it came in, which `Display` cannot do beyond ASCII.
    pub fn put_reply(self, out: &mut BytesMut) {
        match self {
            Self::ExpectedDollar(byte) => {
                out.put_slice(b"-ERR Protocol error: expected '$', got '");
                out.put_u8(printed(byte));
                out.put_slice(b"'");
            }
            other => {
                out.put_slice(b"-ERR Protocol error: ");
                out.put_slice(other.text().as_bytes());
            }
        }
        out.put_slice(b"\r\n");
    }

    fn text(self) -> &'static str {
        match self {
            Self::TooBigMultibulkCount => "too big mbulk count string",
            Self::TooBigBulkCount => "too big bulk count string",
            Self::TooBigInline => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::ExpectedDollar(_) => "expected '$'",
            Self::UnauthenticatedMultibulk => "unauthenticated multibulk length",
            Self::UnauthenticatedBulk => "unauthenticated bulk length",
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Protocol error: {}", self.text())?;
        match *self {
            Self::ExpectedDollar(byte) if byte.is_ascii() => {
                write!(f, ", got '{}'", char::from(printed(byte)))
            }
            Self::ExpectedDollar(_) => write!(f, ", got '{}'", char::REPLACEMENT_CHARACTER),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for RequestError {}

/// The byte as `addReplyErrorFormat` lets it through: a line end would break the reply.
fn printed(byte: u8) -> u8 {
    if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }
}
