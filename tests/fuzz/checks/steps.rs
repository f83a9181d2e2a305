//! Bytes as steps of a play: what to do, numbers, and texts.

/// What is left of the input.
pub(crate) struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    /// All of it.
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The next step; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A small number; 0 at the end.
    pub(crate) fn number(&mut self) -> usize {
        self.next().map_or(0, usize::from)
    }

    /// Up to 15 bytes.
    pub(crate) fn text(&mut self) -> &'a [u8] {
        let (text, rest) = self.0.split_at((self.number() % 16).min(self.0.len()));
        self.0 = rest;
        text
    }
}
