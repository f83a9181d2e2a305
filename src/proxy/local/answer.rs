//! What the answer to a command is that Redweir answers itself.

/// A reply, or an error reply. While it is being made, what it is made of.
pub(super) type Answer<T = Vec<u8>> = Result<T, Vec<u8>>;
