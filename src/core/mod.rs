//! Decisions, pure: no I/O, no async, no clock, no dice, no logging. Time and chance are arguments.
//!
//! # Glossary: one word, one meaning
//! - **primary**, **replica**, **replication ID**, **offset**, **backlog**, **link**: as Redis uses them.
//! - **history**: what one replication ID names; offsets compare only within one.
//! - **head**: the primary's offset. **applied**: the offset up to which a replica has executed the stream.
//! - **lag**: head − applied, in bytes.
//! - **staleness**: an upper bound, in time, on how old a replica's data can be.
//! - **anchor**: (sent at, offset): every write acknowledged before `sent at` has an offset ≤ `offset`.
//! - **fence**: the offset that a replica must have applied before it may serve a key.
//! - **view**: the immutable snapshot of all nodes that decisions read.
//! - **policy**: what a read may tolerate. **reason**: why a decision was taken.

pub mod address;
pub mod argv;
pub mod command;
pub mod cursor;
pub mod demand;
pub mod fence;
pub mod moment;
pub mod nodes;
pub mod plan;
pub mod policy;
pub mod position;
pub mod reason;
pub mod route;
pub mod session;
pub mod stream;
