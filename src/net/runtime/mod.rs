//! What tasks need wherever they run: a clock, chance, limits, names and panics of tasks, descriptors, buffers that are flushed together.

pub(crate) mod allowance;
pub mod budget;
pub(crate) mod buffer;
pub mod buffers;
pub mod clock;
pub mod crowd;
pub mod descriptors;
pub mod flush;
pub mod hangup;
pub(crate) mod heap;
pub mod jitter;
pub mod limits;
pub mod sparing;
pub mod task;
