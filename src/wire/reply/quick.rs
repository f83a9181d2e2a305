//! Most replies are short, of a frequent type, and there as a whole: found in one look.

use crate::wire::number::quick_length;

/// The length of the scalar at the front of `bytes` if it is of a frequent type and all there. `None` decides
/// nothing.
#[inline]
pub(super) fn complete_scalar(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'$', rest @ ..] => {
            let Some((length, used)) = quick_length(rest) else {
                return rest.starts_with(b"-1\r\n").then_some(NULL);
            };
            let end = 1 + used + length;
            (bytes.get(end..end + 2)? == b"\r\n").then_some(end + 2)
        }
        [b'+', b'O', b'K', b'\r', b'\n', ..] => Some(5),
        [b'+' | b'-', ..] => {
            let cr = memchr::memchr(b'\r', &bytes[..bytes.len().min(QUICK_TEXT)])?;
            (bytes.get(cr + 1) == Some(&b'\n')).then_some(cr + 2)
        }
        [b':', rest @ ..] => quick_length(rest).map(|(_, used)| 1 + used),
        [b'_', b'\r', b'\n', ..] => Some(3),
        _ => None,
    }
}

/// `$-1`, what there is not, as a whole.
const NULL: usize = b"$-1\r\n".len();

/// How far to look for the end of a short text before it is treated as a long one, in bytes.
const QUICK_TEXT: usize = 256;
