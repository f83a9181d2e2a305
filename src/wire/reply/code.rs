//! What an error reply is about: the word that it begins with.

/// The first word of an error reply, as far as Redweir has to tell such words apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// `ASK`: a key is at another node of the cluster, or would be, while its slot moves there (`cluster.c`, `clusterRedirectClient`).
    Ask,
    /// `BUSY`: a script has been running for longer than `busy-reply-threshold` (`server.c`, `shared.slowscripterr`).
    Busy,
    /// `CLUSTERDOWN`: the cluster does not serve this slot, or nothing at all.
    ClusterDown,
    /// `CROSSSLOT`: the keys of a command are not in one slot.
    CrossSlot,
    /// `ERR`: errors that have no word of their own.
    Err,
    /// `LOADING`: the server is reading its data from disk.
    Loading,
    /// `MASTERDOWN`: a replica has lost its primary and does not serve what it has.
    MasterDown,
    /// `MOVED`: the slot is another node's.
    Moved,
    /// `NOAUTH`: a password is needed.
    NoAuth,
    /// `NOPERM`: the user may not do that.
    NoPerm,
    /// `NOSCRIPT`: no script of that name is known.
    NoScript,
    /// `READONLY`: a replica takes no writes.
    ReadOnly,
    /// `TRYAGAIN`: of several keys in a slot that moves, some are here and some are not.
    TryAgain,
    /// `WRONGPASS`: there is no such user, or its password is another one.
    WrongPass,
    /// Any other word.
    Other,
}

impl ErrorCode {
    /// The code of a reply, by its first bytes. `None` if it is no simple error (`-`).
    #[inline]
    pub fn of(reply: &[u8]) -> Option<Self> {
        match reply {
            [b'-', text @ ..] => Some(Self::of_text(text)),
            _ => None,
        }
    }

    /// Whether a node of a cluster says so of a command of which it has executed nothing, because a slot, or some of it, is
    /// elsewhere, or nowhere.
    pub const fn is_of_cluster(self) -> bool {
        matches!(self, Self::Moved | Self::Ask | Self::TryAgain | Self::ClusterDown)
    }

    /// The code of an error reply whose `-` was cut off.
    #[cold]
    pub fn of_text(text: &[u8]) -> Self {
        let end = text.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
        match &text[..end.unwrap_or(text.len())] {
            b"ASK" => Self::Ask,
            b"BUSY" => Self::Busy,
            b"CLUSTERDOWN" => Self::ClusterDown,
            b"CROSSSLOT" => Self::CrossSlot,
            b"ERR" => Self::Err,
            b"LOADING" => Self::Loading,
            b"MASTERDOWN" => Self::MasterDown,
            b"MOVED" => Self::Moved,
            b"NOAUTH" => Self::NoAuth,
            b"NOPERM" => Self::NoPerm,
            b"NOSCRIPT" => Self::NoScript,
            b"READONLY" => Self::ReadOnly,
            b"TRYAGAIN" => Self::TryAgain,
            b"WRONGPASS" => Self::WrongPass,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_code() {
        let known = [
            (&b"-ERR unknown command 'x'\r\n"[..], ErrorCode::Err),
            (b"-LOADING Redis is loading the dataset in memory\r\n", ErrorCode::Loading),
            (b"-MASTERDOWN Link with MASTER is down\r\n", ErrorCode::MasterDown),
            (b"-NOAUTH Authentication required.", ErrorCode::NoAuth),
            (b"-NOPERM this user has no permissions\r\n", ErrorCode::NoPerm),
            (b"-NOSCRIPT No matching script.\r\n", ErrorCode::NoScript),
            (b"-READONLY You can't write against a read only replica.\r\n", ErrorCode::ReadOnly),
            (b"-WRONGPASS invalid username-password pair\r\n", ErrorCode::WrongPass),
            (b"-ERR\r\n", ErrorCode::Err),
            (b"-MOVED 77 127.0.0.1:27310\r\n", ErrorCode::Moved),
            (b"-ASK 77 127.0.0.1:27311\r\n", ErrorCode::Ask),
            (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", ErrorCode::TryAgain),
            (b"-CLUSTERDOWN The cluster is down\r\n", ErrorCode::ClusterDown),
            (b"-CROSSSLOT Keys in request don't hash to the same slot\r\n", ErrorCode::CrossSlot),
            (b"-READONLY", ErrorCode::ReadOnly),
            (b"-READONLYISH no\r\n", ErrorCode::Other),
            (b"-err lower\r\n", ErrorCode::Other),
            (b"-BUSY Redis is busy\r\n", ErrorCode::Busy),
            (b"-BUSYGROUP it exists\r\n", ErrorCode::Other),
            (b"-", ErrorCode::Other),
        ];
        for (reply, code) in known {
            assert_eq!(ErrorCode::of(reply), Some(code), "{}", reply.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_error_has_no_code() {
        for reply in [&b""[..], b"+READONLY\r\n", b"$4\r\n-ERR\r\n", b"!10\r\nNOAUTH abc\r\n", b":-1\r\n"] {
            assert_eq!(ErrorCode::of(reply), None, "{}", reply.escape_ascii());
        }
    }
}
