//! What became of a command, for whoever reads the next one.

/// What became of a command.
#[derive(Debug)]
pub enum Step {
    /// It is on its way, or answered.
    Done,
    /// The beginning of a long command is; the rest of it follows.
    Body,
    /// Again when there is room.
    Room,
    /// Again when everything before it is answered.
    Drain,
    /// Again in a moment.
    Retry,
    /// Again when it is known what the primary calls this client.
    Find(u64),
    /// Again when there is a place for another exclusive connection.
    Permit,
    /// To be answered by Redweir itself, which has to ask somebody first.
    Later(Vec<Vec<u8>>),
    /// The connection ends.
    Close,
}
