//! What the doctor asks beside `ROLE`: reports, settings, and what a server remembers of its clients. Every answer is hostile
//! until read: what is too long or makes no sense is absent.

pub mod lists;
pub mod report;
pub mod settings;

use redis_protocol::resp2::types::BytesFrame;

/// The text of a string.
fn text(frame: &BytesFrame) -> Option<&str> {
    match frame {
        BytesFrame::BulkString(text) | BytesFrame::SimpleString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

/// A number, whether as one or as its text.
fn number(frame: &BytesFrame) -> Option<u64> {
    match frame {
        BytesFrame::Integer(number) => u64::try_from(*number).ok(),
        frame => text(frame)?.parse().ok(),
    }
}

/// A number of seconds that a server can mean: what is counted with it does not overflow.
fn span(seconds: Option<u64>) -> Option<u64> {
    seconds.filter(|seconds| u32::try_from(*seconds).is_ok())
}

/// A number of bytes that a server can mean.
fn size(bytes: Option<u64>) -> Option<u64> {
    bytes.filter(|bytes| *bytes <= 1 << 56)
}

/// A text that comes from anybody, as far as it is kept.
fn kept(text: &str) -> String {
    text[..text.floor_char_boundary(MOST_TEXT)].to_owned()
}

/// The most that is kept of a name, in bytes.
const MOST_TEXT: usize = 64;
