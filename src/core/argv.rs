//! A command as `core` sees it: arguments by index. `wire` implements it over its spans, tests over slices.

/// The arguments of one command; argument 0 is the command's name.
pub trait Args {
    /// How many arguments there are, the name included.
    fn count(&self) -> usize;

    /// Argument `index`; empty when there is none.
    fn arg(&self, index: usize) -> &[u8];
}

impl<T: AsRef<[u8]>> Args for [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], AsRef::as_ref)
    }
}
