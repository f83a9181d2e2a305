//! Positions in the replication stream: offsets, replication IDs, histories.

use std::fmt;

/// A position in a replication stream, in bytes. Positions compare only inside one [`History`];
/// whoever compares two must know that they belong together (see [`History::covers`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The offset `bytes` into the stream. `ROLE` and `INFO` report −1 for "none": that is no offset.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// From what a server reported; `None` for the −1 that a replica without a link reports.
    pub fn from_reported(bytes: i64) -> Option<Self> {
        u64::try_from(bytes).ok().map(Self)
    }

    /// Bytes since the start of the history.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Bytes from `earlier` to `self`; zero when `self` is not ahead.
    pub const fn ahead_of(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The offset `bytes` further on.
    #[must_use]
    pub const fn advanced(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A replication ID: 40 hexadecimal characters (`CONFIG_RUN_ID_SIZE` in Redis' `server.h`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplId([u8; 40]);

impl ReplId {
    /// Parses 40 hexadecimal characters. `None` for anything else and for the all-zero ID, which
    /// Redis uses to say "no second history".
    pub fn parse(text: &[u8]) -> Option<Self> {
        let id: [u8; 40] = text.try_into().ok()?;
        let valid = id.iter().all(u8::is_ascii_hexdigit) && id.iter().any(|&b| b != b'0');
        valid.then_some(Self(id))
    }

    /// The 40 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a node says about the history that it holds: its replication ID and, after a promotion, the
/// previous one with the first offset that is *not* part of it (`second_repl_offset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct History {
    /// `master_replid`.
    pub id: ReplId,
    /// `master_replid2` and `second_repl_offset`, when set.
    pub previous: Option<(ReplId, Offset)>,
}

impl History {
    /// A history without a predecessor.
    pub const fn new(id: ReplId) -> Self {
        Self { id, previous: None }
    }

    /// Whether an offset reported under `id` means the same bytes here: the same history, or the previous
    /// one below `second_repl_offset` (`masterTryPartialResync` in Redis' `replication.c`).
    pub fn covers(&self, id: ReplId, at: Offset) -> bool {
        self.id == id || self.previous.is_some_and(|(old, end)| old == id && at < end)
    }

    /// Whether a node holding `self` continues what `older` named: its own ID or its previous one.
    pub fn continues(&self, older: ReplId) -> bool {
        self.id == older || self.previous.is_some_and(|(old, _)| old == older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(c: u8) -> ReplId {
        ReplId::parse(&[c; 40]).unwrap()
    }

    #[test]
    fn an_id_is_forty_hex_characters_and_not_all_zero() {
        assert!(ReplId::parse(&[b'a'; 40]).is_some());
        assert!(ReplId::parse(&[b'a'; 39]).is_none());
        assert!(ReplId::parse(&[b'g'; 40]).is_none());
        assert!(ReplId::parse(&[b'0'; 40]).is_none());
    }

    #[test]
    fn minus_one_is_no_offset() {
        assert_eq!(Offset::from_reported(-1), None);
        assert_eq!(Offset::from_reported(0), Some(Offset::new(0)));
    }

    #[test]
    fn the_previous_history_counts_only_below_its_end() {
        let h = History { id: id(b'a'), previous: Some((id(b'b'), Offset::new(100))) };
        assert!(h.covers(id(b'a'), Offset::new(500)));
        assert!(h.covers(id(b'b'), Offset::new(99)));
        assert!(!h.covers(id(b'b'), Offset::new(100)));
        assert!(!h.covers(id(b'c'), Offset::new(1)));
    }
}
